"""The arc through three points, how far it bulges, and whether it meets its neighbour again."""

from __future__ import annotations

from math import atan2, copysign, hypot, isfinite, pi
from typing import NamedTuple

from image2cad.cad.program import Point

AT_AN_END = 1e-9  # radians, or a share of a line: an end and no other point
TOUCHING = 3e-7  # between curves: OpenCASCADE takes nearer ones for one
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


def meet_again(corner: Point, one: Arc | Point, other: Arc | Point) -> bool:
    """Whether two curves that share a corner meet at another point, too.

    A curve is an arc that begins or ends in the corner, or the far end of a straight line.
    Chords do not tell: an arc may cross its neighbour within the first of them.
    """
    if not isinstance(one, Arc):
        one, other = other, one
    if not isinstance(one, Arc):
        return False
    cx, cy = one.centre[0] - corner[0], one.centre[1] - corner[1]
    if isinstance(other, Arc):
        # The corner, mirrored at the line through both centres.
        wx, wy = other.centre[0] - one.centre[0], other.centre[1] - one.centre[1]
        off = 2 * (cx * wy - cy * wx) / max(wx * wx + wy * wy, 1e-300)
        again = (corner[0] + off * wy, corner[1] - off * wx)
        there = _holds(other, again)
    else:
        # The other end of the circle's chord along the line.
        dx, dy = other[0] - corner[0], other[1] - corner[1]
        share = 2 * (cx * dx + cy * dy) / max(dx * dx + dy * dy, 1e-300)
        again = (corner[0] + share * dx, corner[1] + share * dy)
        there = 0 < share < 1 - AT_AN_END
    between = abs(_rise(one, corner, again) - _rise(other, corner, again))
    return there and _holds(one, again) and between > TOUCHING


def _holds(arc: Arc, point: Point) -> bool:
    """Whether a point of its circle lies within an arc, its ends left out."""
    angle = atan2(point[1] - arc.centre[1], point[0] - arc.centre[0])
    turned = (angle - arc.first) * copysign(1, arc.sweep) % (2 * pi)
    return AT_AN_END < turned < abs(arc.sweep) - AT_AN_END


def _rise(curve: Arc | Point, start: Point, end: Point) -> float:
    """How far a short arc rises to the right of its chord; 0 for a line."""
    if not isinstance(curve, Arc):
        return 0.0
    dx, dy = end[0] - start[0], end[1] - start[1]
    left = dx * (curve.centre[1] - start[1]) - dy * (curve.centre[0] - start[0])
    return copysign((dx * dx + dy * dy) / (8 * curve.radius), left)
