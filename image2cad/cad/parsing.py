"""Read a sketch-and-extrude program from CadQuery text, without running it.

    program = parse(code)           # Program, or None

Reads GenCAD-Code's own style (a `cq.Plane` a sketch, a name a loop, `solid=`
at the end) and the compact style that `programs.to_code` writes. The text is
taken apart by `ast`; nothing in it is ever executed. Whatever is not understood
completely makes the whole answer None: a guess would be a wrong part.
Left out: fillets, revolves, `box`, faces as workplanes, variables for numbers,
`workplane` anywhere but right after `cq.Workplane(...)`.
"""

from __future__ import annotations

import ast
import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from image2cad.cad.program import (
    NAMED,
    Circle,
    Extrusion,
    Loop,
    Path,
    Plane,
    Point,
    Program,
    Rect,
    Segment,
    Vector,
)

LONGEST = 100_000  # characters; GenCAD-Code's programs have a few thousand
MOST_STEPS = 500  # extrusions; `solid = solid.union(solid)` doubles them every line
SQUARE = 1e-6  # cosine of the angle below which two directions count as perpendicular

# All of CadQuery's names for planes through two of the model's axes.
PLANES: dict[str, tuple[Vector, Vector]] = {
    **NAMED,
    "ZX": ((0.0, 0.0, 1.0), (0.0, 1.0, 0.0)),
    "YX": ((0.0, 1.0, 0.0), (0.0, 0.0, -1.0)),
    "ZY": ((0.0, 0.0, 1.0), (-1.0, 0.0, 0.0)),
}


@dataclass(frozen=True)
class Solid:
    """What a name stands for once its sketch is extruded."""

    steps: Program


@dataclass
class Names:
    """The name of the cadquery module, and what the other names stand for."""

    module: str | None
    values: dict[str, Pen | Solid]


def parse(code: str) -> Program | None:
    """The program that `code` builds, or None if any of it is not understood."""
    if len(code) > LONGEST:
        return None
    try:
        return _read(ast.parse(code))
    except (Unknown, SyntaxError, ValueError, RecursionError, MemoryError, OverflowError):
        return None


def _read(tree: ast.Module) -> Program:
    names = Names(None, {})
    for statement in tree.body:
        match statement:
            case ast.Import(names=[ast.alias(name="cadquery", asname=alias)]):
                names.module = alias or "cadquery"
            case ast.Assign(targets=[ast.Name(id=name)], value=value) if name != names.module:
                names.values[name] = _value(value, names)
            case _:
                raise Unknown
    # The order in which metrics/execution.py looks for the result.
    for name in ("result", "solid", "r"):
        found = names.values.get(name)
        if isinstance(found, Solid):
            return found.steps
    raise Unknown


def _value(node: ast.expr, names: Names) -> Pen | Solid:
    """The value of a chain of calls that starts at a name or at `cq.Workplane(...)`."""
    calls: list[tuple[str, ast.Call]] = []
    while isinstance(node, ast.Call) and _of_module(node, names) is None:
        if not isinstance(node.func, ast.Attribute):
            raise Unknown
        calls.append((node.func.attr, node))
        node = node.func.value
    value: Pen | Solid
    if isinstance(node, ast.Call):
        plane = _workplane(node, names)
        # At the start of a chain only: later, CadQuery would extrude loops of both planes.
        while calls and calls[-1][0] == "workplane":
            plane = _shifted(plane, calls.pop()[1])
        value = Pen(Sketch(plane))
    elif isinstance(node, ast.Name) and node.id in names.values:
        value = names.values[node.id]
    else:
        raise Unknown
    for method, call in reversed(calls):
        if isinstance(value, Solid):
            value = _boolean(value, method, call, names)
        elif method == "add":
            value = _add(value, call, names)
        elif method == "extrude":
            value = _extrude(value, call)
        elif method in DRAW and not call.keywords:
            value = DRAW[method](value, call.args)
        else:
            raise Unknown
    if isinstance(value, Pen) and value.start is not None:
        raise Unknown  # an open wire would wait for the next chain
    return value


def _of_module(call: ast.Call, names: Names) -> str | None:
    """The name of cadquery's function that is called, or None for a call of anything else."""
    match call.func:
        case ast.Attribute(value=ast.Name(id=name), attr=function) if name == names.module:
            return function
    return None


def _workplane(call: ast.Call, names: Names) -> Plane:
    """The plane of `cq.Workplane("XY", origin=(..))` or `cq.Workplane(cq.Plane(o, x, normal))`."""
    origin: Vector = (0.0, 0.0, 0.0)
    if _of_module(call, names) != "Workplane" or len(call.args) > 1:
        raise Unknown
    match call.keywords:
        case []:
            pass
        case [ast.keyword(arg="origin", value=value)]:
            origin = _vector(value, names)
        case _:
            raise Unknown
    match call.args:
        case []:
            return Plane(origin, *NAMED["XY"])
        case [ast.Constant(value=str(name))] if name in PLANES:
            return Plane(origin, *PLANES[name])
        case [ast.Call(args=[at, x_dir, z_dir], keywords=[]) as plane]:
            if _of_module(plane, names) == "Plane" and not call.keywords:
                x, normal = _unit(_vector(x_dir, names)), _unit(_vector(z_dir, names))
                if abs(sum(a * b for a, b in zip(x, normal, strict=True))) < SQUARE:
                    return Plane(_vector(at, names), x, normal)
    raise Unknown


def _shifted(plane: Plane, call: ast.Call) -> Plane:
    """The plane of `.workplane(offset=5)` on it."""
    match call:
        case ast.Call(args=[], keywords=[]):
            return plane
        case ast.Call(args=[value], keywords=[]):
            pass
        case ast.Call(args=[], keywords=[ast.keyword(arg="offset", value=value)]):
            pass
        case _:
            raise Unknown
    return replace(plane, origin=plane.point(0, 0, number(value)))


def _vector(node: ast.expr, names: Names) -> Vector:
    """Three numbers in a tuple or in `cq.Vector(...)`."""
    if isinstance(node, ast.Tuple):
        return vector(node.elts)
    if isinstance(node, ast.Call) and _of_module(node, names) == "Vector" and not node.keywords:
        return vector(node.args)
    raise Unknown


def _unit(axis: Vector) -> Vector:
    length = math.hypot(*axis)
    if not 1e-9 < length < 1e9:
        raise Unknown
    x, y, z = (value / length for value in axis)
    return (x, y, z)


def _add(pen: Pen, call: ast.Call, names: Names) -> Pen:
    """`.add(loop0)` changes nothing: the loop waits on the workplane since it was drawn."""
    match call:
        case ast.Call(args=[ast.Name(id=name)], keywords=[]):
            other = names.values.get(name)
            if isinstance(other, Pen) and other.sketch is pen.sketch and pen.start is None:
                return replace(pen, here=None, centre=None)
    raise Unknown


def _extrude(pen: Pen, call: ast.Call) -> Solid:
    both = False
    match call.keywords:
        case []:
            pass
        case [ast.keyword(arg="both", value=ast.Constant(value=bool(flag)))]:
            both = flag
        case _:
            raise Unknown
    sketch = pen.sketch
    if len(call.args) != 1 or pen.start is not None or sketch.spent or not sketch.loops:
        raise Unknown
    depth = number(call.args[0])
    if depth == 0:
        raise Unknown
    sketch.spent = True
    plane = sketch.plane
    if both:
        plane = replace(plane, origin=plane.point(0, 0, -abs(depth)))
        depth = 2 * abs(depth)
    return Solid((Extrusion(plane, tuple(sketch.loops), depth),))


def _boolean(solid: Solid, method: str, call: ast.Call, names: Names) -> Solid:
    if len(call.args) != 1 or call.keywords:
        raise Unknown
    other = _value(call.args[0], names)
    if not isinstance(other, Solid) or len(solid.steps) + len(other.steps) > MOST_STEPS:
        raise Unknown
    return Solid(_sequence(solid.steps, method, other.steps))


def _sequence(a: Program, method: str, b: Program) -> Program:
    """`a` and `b` under one operation as one sequence of steps; not every tree of them is one."""
    inner = {step.operation for step in b[1:]}
    if method == "union" and inner <= {"union"}:
        return (*a, replace(b[0], operation="union"), *b[1:])
    if method == "union" and all(step.operation == "union" for step in a[1:]):
        return (*b, *(replace(step, operation="union") for step in a))
    if method == "cut" and inner <= {"union"}:
        return (*a, *(replace(step, operation="cut") for step in b))
    if method == "intersect" and inner <= {"cut", "intersect"}:
        return (*a, replace(b[0], operation="intersect"), *b[1:])
    raise Unknown


def read(code: str) -> Program | None:
    """The program in `code` as it was drawn, or None if any of it is not understood.

    Like `parsing.parse`, but a sketch extruded to both sides is two extrusions, as
    in DeepCAD: the edge between the two is to be seen in the pictures.
    """
    program = parse(code)
    if program is None:
        return None
    calls = [
        node
        for node in ast.walk(ast.parse(code))
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and node.func.attr == "extrude"
    ]
    calls.sort(key=lambda call: (call.end_lineno, call.end_col_offset))
    depths = [float(ast.literal_eval(call.args[0])) for call in calls]
    both = [bool(call.keywords) and ast.literal_eval(call.keywords[0].value) for call in calls]
    written = [2 * abs(d) if two else d for d, two in zip(depths, both, strict=True)]
    if written != [step.depth for step in program]:
        return program  # reordered: which step is which is not known, and one line is lost
    steps = []
    for step, depth, two in zip(program, depths, both, strict=True):
        if two and step.operation != "intersect":
            middle = replace(step.plane, origin=step.plane.point(0, 0, abs(depth)))
            steps += [replace(step, plane=middle, depth=side) for side in (depth, -depth)]
        else:
            steps.append(step)
    return tuple(steps)


# ---- The sketch calls of a CadQuery chain, followed without running CadQuery


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
