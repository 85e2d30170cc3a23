"""The sketch calls of a CadQuery chain, followed without running CadQuery.

    pen = DRAW["circle"](Pen(Sketch(plane)), call.args)     # the loop is on pen.sketch.loops

`parsing.py` walks the chain and calls these with the arguments as `ast` nodes.
Anything that is not a plain number, point or vector raises `Unknown`, and so
does a call whose place CadQuery would take from the loop before it.
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

    `here` is None where CadQuery's own place is not the one a reader expects;
    `start` and `segments` are the open wire, if there is one.
    """

    sketch: Sketch
    here: Point | None = (0.0, 0.0)
    start: Point | None = None
    segments: tuple[Segment, ...] = ()


def _move_to(pen: Pen, arguments: list[ast.expr]) -> Pen:
    if pen.start is not None:
        raise Unknown
    return replace(pen, here=_pair(arguments))


def _line_to(pen: Pen, arguments: list[ast.expr]) -> Pen:
    return _drawn(pen, Segment(_pair(arguments)))


def _arc_to(pen: Pen, arguments: list[ast.expr]) -> Pen:
    mid, end = (_point(node) for node in _exactly(2, arguments))
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
    first, *others = (_point(node) for node in points.elts)
    segments = tuple(Segment(point) for point in others)
    return replace(pen, here=None, start=first, segments=segments)


def _close(pen: Pen, arguments: list[ast.expr]) -> Pen:
    _exactly(0, arguments)
    if pen.start is None or not pen.segments:
        raise Unknown
    return _finished(pen, Path(pen.start, pen.segments))


def _circle(pen: Pen, arguments: list[ast.expr]) -> Pen:
    (radius,) = (number(node) for node in _exactly(1, arguments))
    if pen.here is None or pen.start is not None or radius <= 0:
        raise Unknown
    return _finished(pen, Circle(*pen.here, radius))


def _rect(pen: Pen, arguments: list[ast.expr]) -> Pen:
    width, height = _pair(arguments)
    if pen.here is None or pen.start is not None or width <= 0 or height <= 0:
        raise Unknown
    return _finished(pen, Rect(*pen.here, width, height))


def _finished(pen: Pen, loop: Loop) -> Pen:
    if pen.sketch.spent:
        raise Unknown
    pen.sketch.loops.append(loop)
    return Pen(pen.sketch, here=None)


DRAW: dict[str, Callable[[Pen, list[ast.expr]], Pen]] = {
    "moveTo": _move_to, "lineTo": _line_to, "threePointArc": _arc_to, "polyline": _polyline,
    "close": _close, "circle": _circle, "rect": _rect,
}  # fmt: skip


def _exactly(count: int, arguments: list[ast.expr]) -> list[ast.expr]:
    if len(arguments) != count:
        raise Unknown
    return arguments


def _pair(arguments: list[ast.expr]) -> Point:
    x, y = (number(node) for node in _exactly(2, arguments))
    return (x, y)


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
