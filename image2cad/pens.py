"""The sketch calls of a CadQuery chain, followed without running CadQuery.

    pen = DRAW["circle"](Pen(Sketch(plane)), call.args)     # the loop is on pen.sketch.loops

`parsing.py` walks the chain and calls these with the arguments as `ast` nodes.
Anything that is not a plain number, point or vector raises `Unknown`, and so
does a call whose place CadQuery would take from the path before it: after a circle or a rectangle
the next one has the same centre.
"""

from __future__ import annotations

import ast
import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from image2cad.programs import Circle, Loop, Path, Plane, Point, Rect, Segment, Vector


class Unknown(Exception):
    """The text holds something that is not understood."""


@dataclass
class Sketch:
    """A workplane and the loops drawn on it so far; CadQuery shares them along every chain."""

    plane: Plane
    loops: list[Loop] = field(default_factory=list)
    spent: bool = False


@dataclass(frozen=True)
class Pen:
    """Where a chain stands on its sketch.

    All points are in the sketch's coordinates, `origin` too, which counts as (0, 0) in the text.
    `here` is where a line starts and `centre` where a circle or rectangle stands; None where
    CadQuery's own place is not the one a reader expects. `start` and `segments` are the open
    wire, if there is one.
    """

    sketch: Sketch
    here: Point | None = (0.0, 0.0)
    centre: Point | None = (0.0, 0.0)
    origin: Point = (0.0, 0.0)
    start: Point | None = None
    segments: tuple[Segment, ...] = ()


def _move_to(pen: Pen, arguments: list[ast.expr]) -> Pen:
    if pen.start is not None:
        raise Unknown
    to = _placed(pen, _pair(arguments))
    return replace(pen, here=to, centre=to)


def _center(pen: Pen, arguments: list[ast.expr]) -> Pen:
    origin = _placed(pen, _pair(arguments))
    return replace(_move_to(pen, arguments), origin=origin)


def _line_to(pen: Pen, arguments: list[ast.expr]) -> Pen:
    return _drawn(pen, Segment(_placed(pen, _pair(arguments))))


def _arc_to(pen: Pen, arguments: list[ast.expr]) -> Pen:
    mid, end = (_placed(pen, _point(node)) for node in _exactly(2, arguments))
    return _drawn(pen, Segment(end, mid))


def _drawn(pen: Pen, segment: Segment) -> Pen:
    if pen.here is None:
        raise Unknown
    start = pen.here if pen.start is None else pen.start
    return replace(pen, here=segment.end, start=start, segments=(*pen.segments, segment))


def _polyline(pen: Pen, arguments: list[ast.expr]) -> Pen:
    (points,) = _exactly(1, arguments)
    if pen.start is not None or not isinstance(points, ast.List | ast.Tuple) or not points.elts:
        raise Unknown
    first, *others = (_placed(pen, _point(node)) for node in points.elts)
    segments = tuple(Segment(point) for point in others)
    return replace(pen, here=None, start=first, segments=segments)


def _close(pen: Pen, arguments: list[ast.expr]) -> Pen:
    _exactly(0, arguments)
    if pen.start is None or not pen.segments:
        raise Unknown
    return _finished(pen, Path(pen.start, pen.segments), None)  # CadQuery's centre is of mass


def _circle(pen: Pen, arguments: list[ast.expr]) -> Pen:
    (radius,) = (number(node) for node in _exactly(1, arguments))
    if pen.centre is None or pen.start is not None or radius <= 0:
        raise Unknown
    return _finished(pen, Circle(*pen.centre, radius), pen.centre)


def _rect(pen: Pen, arguments: list[ast.expr]) -> Pen:
    width, height = _pair(arguments)
    if pen.centre is None or pen.start is not None or width <= 0 or height <= 0:
        raise Unknown
    return _finished(pen, Rect(*pen.centre, width, height), pen.centre)


def _finished(pen: Pen, loop: Loop, centre: Point | None) -> Pen:
    if pen.sketch.spent:
        raise Unknown
    pen.sketch.loops.append(loop)
    return Pen(pen.sketch, None, centre, pen.origin)


DRAW: dict[str, Callable[[Pen, list[ast.expr]], Pen]] = {
    "moveTo": _move_to, "lineTo": _line_to, "threePointArc": _arc_to, "polyline": _polyline,
    "close": _close, "circle": _circle, "rect": _rect, "center": _center,
}  # fmt: skip


def _exactly(count: int, arguments: list[ast.expr]) -> list[ast.expr]:
    if len(arguments) != count:
        raise Unknown
    return arguments


def _pair(arguments: list[ast.expr]) -> Point:
    x, y = (number(node) for node in _exactly(2, arguments))
    return (x, y)


def _placed(pen: Pen, point: Point) -> Point:
    return (pen.origin[0] + point[0], pen.origin[1] + point[1])


def _point(node: ast.expr) -> Point:
    if not isinstance(node, ast.Tuple):
        raise Unknown
    return _pair(node.elts)


def vector(arguments: list[ast.expr]) -> Vector:
    """Three numbers. Raises Unknown for anything else."""
    x, y, z = (number(node) for node in _exactly(3, arguments))
    return (x, y, z)


def number(node: ast.expr) -> float:
    """A literal number, perhaps with a minus. Raises Unknown for anything else."""
    match node:
        case ast.UnaryOp(op=ast.USub(), operand=ast.Constant(value=int() | float() as value)):
            sign = -1.0
        case ast.Constant(value=int() | float() as value):
            sign = 1.0
        case _:
            raise Unknown
    if isinstance(value, bool) or not math.isfinite(float(value)):
        raise Unknown
    return sign * float(value)
