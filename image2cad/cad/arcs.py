"""The arc through three points, and how far an arc bulges."""

from __future__ import annotations

from math import atan2, copysign, hypot, isfinite, pi
from typing import NamedTuple

from image2cad.cad.program import Point

STRAIGHT = 1e-9  # twice the triangle's area over the longer side's square, where there is no arc


class Arc(NamedTuple):
    """A piece of a circle from angle `first` on, in radians; a positive sweep turns left."""

    centre: Point
    radius: float
    first: float
    sweep: float


def arc_through(start: Point, mid: Point, end: Point) -> Arc | None:
    """The arc from `start` through `mid` to `end`, or None where they lie on a line."""
    bx, by, cx, cy = mid[0] - start[0], mid[1] - start[1], end[0] - start[0], end[1] - start[1]
    twice = 2 * (bx * cy - by * cx)
    bb, cc = bx * bx + by * by, cx * cx + cy * cy
    if not abs(twice) >= STRAIGHT * max(bb, cc, 1e-300):  # true for nan, too
        return None
    x, y = start[0] + (cy * bb - by * cc) / twice, start[1] + (bx * cc - cx * bb) / twice
    radius = hypot(start[0] - x, start[1] - y)
    if not isfinite(radius):
        return None
    first, through, last = (atan2(p[1] - y, p[0] - x) for p in (start, mid, end))
    sweep = (last - first) % (2 * pi)
    if (through - first) % (2 * pi) > sweep:
        sweep -= 2 * pi
    return Arc((x, y), radius, first, sweep)


def bulge_of(start: Point, mid: Point, end: Point) -> float:
    """Height of the arc over half its chord, positive to the chord's right; 1 is a half circle."""
    cx, cy = end[0] - start[0], end[1] - start[1]
    mx, my = mid[0] - (start[0] + end[0]) / 2, mid[1] - (start[1] + end[1]) / 2
    length = hypot(cx, cy)
    if length == 0:
        return 0.0
    along, height = (mx * cx + my * cy) / length, (mx * cy - my * cx) / length
    # `mid` may lie anywhere on the arc: take the circle through the three points.
    if abs(height) < 1e-12:
        return 0.0
    half = length / 2
    offset = (along * along + height * height - half * half) / (2 * height)
    radius = hypot(offset, half)
    return (offset + copysign(radius, height)) / half


def bulged(start: Point, end: Point, bulge: float) -> Point:
    """The middle of the arc from `start` to `end` with this bulge."""
    cx, cy = (end[0] - start[0]) / 2, (end[1] - start[1]) / 2
    return (start[0] + cx + bulge * cy, start[1] + cy - bulge * cx)
