"""The arc through three points."""

from __future__ import annotations

from math import atan2, hypot, isfinite, pi
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
