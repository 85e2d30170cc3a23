"""Read a sketch-and-extrude program from CadQuery text, without running it.

    program = parse(code)           # Program, or Unread
    if not program:
        print(program.reason)       # "line 4: fillet is not read"

Reads GenCAD-Code's own style (a `cq.Plane` a sketch, a name a loop, `solid=`
at the end) and the compact style that `program.to_code` writes. The text is
taken apart by `ast`; nothing in it is ever executed. Whatever is not understood
completely makes the whole answer Unread: a guess would be a wrong part.
Left out: fillets, revolves, `box`, faces as workplanes, variables for numbers,
`workplane` anywhere but right after `cq.Workplane(...)`.
"""

from __future__ import annotations

import ast
import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Literal

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
from metrics import choose_result

MOST_CHARACTERS = 100_000  # GenCAD-Code's programs have a few thousand
MOST_STEPS = 500  # extrusions; `solid = solid.union(solid)` doubles them every line
MOST_QUOTED = 60  # characters of the program in a reason
PERPENDICULAR = 1e-6  # cosine of the angle below which two directions count as that

# All of CadQuery's names for planes through two of the model's axes.
CADQUERY_PLANES: dict[str, tuple[Vector, Vector]] = {
    **NAMED,
    "ZX": ((0.0, 0.0, 1.0), (0.0, 1.0, 0.0)),
    "YX": ((0.0, 1.0, 0.0), (0.0, 0.0, -1.0)),
    "ZY": ((0.0, 0.0, 1.0), (-1.0, 0.0, 0.0)),
}


BOOLEAN_CALLS = {"union", "cut", "intersect"}
CALLS_READ = BOOLEAN_CALLS | {
    "moveTo", "lineTo", "threePointArc", "polyline", "close", "circle", "rect", "center",
    "Workplane", "Plane", "Vector", "workplane", "add", "extrude",
}  # fmt: skip


# ---- What comes of a text


@dataclass(frozen=True)
class Unread:
    """No program: false as a condition; `reason` says in a sentence what could not be read."""

    reason: str

    def __bool__(self) -> Literal[False]:
        return False


class NotUnderstood(Exception):
    """The text holds something that is not read; the message says what, and in which line."""


def parse(code: str) -> Program | Unread:
    """The program that `code` builds, or Unread if any of it is not understood.

    A program has one extrusion or more; one to both sides is marked as that (`as_drawn`).
    """
    if len(code) > MOST_CHARACTERS:
        return Unread(f"the program has {len(code):,} characters; {MOST_CHARACTERS:,} are read")
    try:
        return _program(ast.parse(code.lstrip("\ufeff")))  # without a byte order mark
    except NotUnderstood as error:
        return Unread(str(error))
    except SyntaxError as error:
        return Unread(f"line {error.lineno or 1}: this is not Python ({error.msg})")
    except (RecursionError, MemoryError):
        return Unread("the program is nested too deeply")
    except (ValueError, OverflowError) as error:
        return Unread(f"the program cannot be read: {error}")


def _not_read(node: ast.AST, why: str | None = None) -> NotUnderstood:
    """Says why the node cannot be read, or else that it is not read, as it stands in the text."""
    line = getattr(node, "lineno", 1)
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
        line = node.func.end_lineno or line  # a chain over several lines begins above its call
    return NotUnderstood(f"line {line}: {why or f'{_quoted(node)} is not read'}")


def _quoted(node: ast.AST) -> str:
    """A call of what is never read by its name; all else as it stands in the text."""
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
        if node.func.attr not in CALLS_READ:
            return node.func.attr
        # Without the chain before it.
        node = ast.Call(ast.Name(node.func.attr), node.args, node.keywords)
    text = ast.unparse(node).partition("\n")[0]
    return f"`{text}`" if len(text) <= MOST_QUOTED else f"`{text[:MOST_QUOTED]}...`"


# ---- Numbers, points and vectors in the text


def _number(node: ast.expr) -> float:
    """A literal number, perhaps with a minus."""
    match node:
        case ast.UnaryOp(op=ast.USub(), operand=ast.Constant(value=int() | float() as value)):
            sign = -1.0
        case ast.Constant(value=int() | float() as value):
            sign = 1.0
        case _:
            raise _not_read(node, f"a number is needed, not {_quoted(node)}")
    if isinstance(value, bool) or not math.isfinite(float(value)):
        raise _not_read(node, f"a number is needed, not {_quoted(node)}")
    return sign * float(value)


def _numbers(count: int, nodes: list[ast.expr], around: ast.AST) -> list[float]:
    """So many numbers, the arguments or elements of `around`."""
    if len(nodes) != count:
        raise _not_read(around)
    return [_number(node) for node in nodes]


def _point(node: ast.expr) -> Point:
    """Two numbers in a tuple."""
    if not isinstance(node, ast.Tuple):
        raise _not_read(node)
    x, y = _numbers(2, node.elts, node)
    return (x, y)


def _vector(node: ast.expr, names: Names) -> Vector:
    """Three numbers in a tuple or in `cq.Vector(...)`."""
    if isinstance(node, ast.Tuple):
        x, y, z = _numbers(3, node.elts, node)
    elif isinstance(node, ast.Call) and _of_module(node, names) == "Vector" and not node.keywords:
        x, y, z = _numbers(3, node.args, node)
    else:
        raise _not_read(node)
    return (x, y, z)


def _direction(node: ast.expr, names: Names) -> Vector:
    """A vector, of length 1."""
    axis = _vector(node, names)
    length = math.hypot(*axis)
    if not 1e-9 < length < 1e9:
        raise _not_read(node)
    x, y, z = (value / length for value in axis)
    return (x, y, z)


# ---- The sketch calls of a CadQuery chain, followed without running CadQuery


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

    def place(self, point: Point) -> Point:
        """The sketch's coordinates of a point of the text."""
        return (self.origin[0] + point[0], self.origin[1] + point[1])

    def line(self, call: ast.Call, segment: Segment) -> Pen:
        """After a line or an arc from where the pen is."""
        if self.here is None:
            raise _not_read(call, "the line before it is needed to know where this one starts")
        start = self.here if self.start is None else self.start
        return replace(self, here=segment.end, start=start, segments=(*self.segments, segment))

    def finish(self, call: ast.Call, loop: Loop, centre: Point | None) -> Pen:
        """After a whole loop."""
        if self.sketch.spent:
            raise _not_read(call, "this sketch is extruded already")
        self.sketch.loops.append(loop)
        return Pen(self.sketch, None, centre, self.origin)


def _move_to(pen: Pen, call: ast.Call) -> Pen:
    if pen.start is not None:
        raise _not_read(call, "the outline before it is not closed")
    x, y = _numbers(2, call.args, call)
    to = pen.place((x, y))
    return replace(pen, here=to, centre=to)


def _center(pen: Pen, call: ast.Call) -> Pen:
    moved = _move_to(pen, call)
    assert moved.here is not None
    return replace(moved, origin=moved.here)


def _line_to(pen: Pen, call: ast.Call) -> Pen:
    x, y = _numbers(2, call.args, call)
    return pen.line(call, Segment(pen.place((x, y))))


def _arc_to(pen: Pen, call: ast.Call) -> Pen:
    if len(call.args) != 2:
        raise _not_read(call)
    mid, end = (pen.place(_point(node)) for node in call.args)
    return pen.line(call, Segment(end, mid))


def _polyline(pen: Pen, call: ast.Call) -> Pen:
    if pen.start is not None:
        raise _not_read(call, "the outline before it is not closed")
    match call.args:
        case [ast.List(elts=[first, *others]) | ast.Tuple(elts=[first, *others])]:
            start = pen.place(_point(first))
            segments = tuple(Segment(pen.place(_point(node))) for node in others)
            return replace(pen, here=None, start=start, segments=segments)
    raise _not_read(call)


def _close(pen: Pen, call: ast.Call) -> Pen:
    if call.args or pen.start is None or not pen.segments:
        raise _not_read(call, "there is no outline to close")
    # CadQuery's centre is of mass
    return pen.finish(call, Path(pen.start, pen.segments), None)


def _circle(pen: Pen, call: ast.Call) -> Pen:
    (radius,) = _numbers(1, call.args, call)
    centre = _centre(pen, call)
    if radius <= 0:
        raise _not_read(call)
    return pen.finish(call, Circle(*centre, radius), centre)


def _rect(pen: Pen, call: ast.Call) -> Pen:
    width, height = _numbers(2, call.args, call)
    centre = _centre(pen, call)
    if width <= 0 or height <= 0:
        raise _not_read(call)
    return pen.finish(call, Rect(*centre, width, height), centre)


def _centre(pen: Pen, call: ast.Call) -> Point:
    if pen.centre is None or pen.start is not None:
        raise _not_read(call, "where this stands is only known after moveTo or center")
    return pen.centre


SKETCH_CALLS: dict[str, Callable[[Pen, ast.Call], Pen]] = {
    "moveTo": _move_to, "lineTo": _line_to, "threePointArc": _arc_to, "polyline": _polyline,
    "close": _close, "circle": _circle, "rect": _rect, "center": _center,
}  # fmt: skip


# ---- The walk over the text: statements, chains of calls, booleans


@dataclass(frozen=True)
class Solid:
    """What a name stands for once its sketch is extruded."""

    steps: Program


@dataclass
class Names:
    """The name of the cadquery module, and what the other names stand for."""

    module: str | None
    values: dict[str, Pen | Solid]


def _program(tree: ast.Module) -> Program:
    names, shown, exported = Names(None, {}), [], []
    for statement in tree.body:
        match statement:
            case ast.Import(names=[ast.alias(name="cadquery", asname=alias)]):
                names.module = alias or "cadquery"
            case ast.Assign(targets=[ast.Name(id=name)], value=value) if name != names.module:
                assigned = _value(value, names)
                names.values.pop(name, None)  # the order is that of the last assignments
                names.values[name] = assigned
            case ast.Expr(
                value=ast.Call(func=ast.Name(id="show_object"), args=[value, *_]) as call
            ):
                shown.append(_given(value, call, names))
            case ast.Expr(
                value=ast.Call(
                    func=ast.Attribute(
                        value=ast.Attribute(value=ast.Name(id=name), attr="exporters"),
                        attr="export",
                    ),
                    args=[value, *_],
                ) as call
            ) if name == names.module:
                exported.append(_given(value, call, names))
            case _:
                raise _not_read(statement)
    found = choose_result(shown, exported, names.values, lambda value: isinstance(value, Solid))
    if len(found) > 1:
        raise NotUnderstood("several parts are shown")
    for one in found:
        if isinstance(one, Solid):
            return one.steps
    raise NotUnderstood("no solid is built")


def _given(value: ast.expr, call: ast.Call, names: Names) -> Pen | Solid:
    """What a call shows or exports; file, name and colour after it must be plain literals."""
    for other in (*call.args[1:], *(keyword.value for keyword in call.keywords)):
        try:
            ast.literal_eval(other)
        except ValueError:
            raise _not_read(call) from None
    return _value(value, names)


def _value(node: ast.expr, names: Names) -> Pen | Solid:
    """The value of a chain of calls that starts at a name or at `cq.Workplane(...)`."""
    calls: list[tuple[str, ast.Call]] = []
    while isinstance(node, ast.Call) and _of_module(node, names) is None:
        if not isinstance(node.func, ast.Attribute):
            raise _not_read(node)
        calls.append((node.func.attr, node))
        node = node.func.value
    value: Pen | Solid
    if isinstance(node, ast.Call):
        plane = _workplane(node, names)
        # At the start of a chain only: later, CadQuery would extrude loops of both planes.
        while calls and calls[-1][0] == "workplane":
            plane = _offset(plane, calls.pop()[1])
        value = Pen(Sketch(plane))
    elif isinstance(node, ast.Name) and node.id in names.values:
        value = names.values[node.id]
    else:
        raise _not_read(node)
    for method, call in reversed(calls):
        if isinstance(value, Solid):
            value = _boolean(value, method, call, names)
        elif method == "add":
            value = _add(value, call, names)
        elif method == "extrude":
            value = _extrude(value, call)
        elif method in SKETCH_CALLS and not call.keywords:
            value = SKETCH_CALLS[method](value, call)
        else:
            raise _not_read(call)
    if isinstance(value, Pen) and value.start is not None:
        # An open wire would wait for the next chain.
        raise _not_read(node, "an outline is not closed")
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
        raise _not_read(call)
    match call.keywords:
        case []:
            pass
        case [ast.keyword(arg="origin", value=value)]:
            origin = _vector(value, names)
        case _:
            raise _not_read(call)
    match call.args:
        case []:
            return Plane(origin, *NAMED["XY"])
        case [ast.Constant(value=str(name))] if name in CADQUERY_PLANES:
            return Plane(origin, *CADQUERY_PLANES[name])
        case [ast.Call(args=[at, x_dir, z_dir], keywords=[]) as plane]:
            if _of_module(plane, names) == "Plane" and not call.keywords:
                x, normal = _direction(x_dir, names), _direction(z_dir, names)
                if abs(sum(a * b for a, b in zip(x, normal, strict=True))) < PERPENDICULAR:
                    return Plane(_vector(at, names), x, normal)
    raise _not_read(call)


def _offset(plane: Plane, call: ast.Call) -> Plane:
    """The plane of `.workplane(offset=5)` on it."""
    match call:
        case ast.Call(args=[], keywords=[]):
            return plane
        case ast.Call(args=[value], keywords=[]):
            pass
        case ast.Call(args=[], keywords=[ast.keyword(arg="offset", value=value)]):
            pass
        case _:
            raise _not_read(call)
    return replace(plane, origin=plane.point(0, 0, _number(value)))


def _add(pen: Pen, call: ast.Call, names: Names) -> Pen:
    """`.add(loop0)` changes nothing: the loop waits on the workplane since it was drawn."""
    match call:
        case ast.Call(args=[ast.Name(id=name)], keywords=[]):
            other = names.values.get(name)
            if isinstance(other, Pen) and other.sketch is pen.sketch and pen.start is None:
                return replace(pen, here=None, centre=None)
    raise _not_read(call)


def _extrude(pen: Pen, call: ast.Call) -> Solid:
    both = False
    match call.keywords:
        case []:
            pass
        case [ast.keyword(arg="both", value=ast.Constant(value=bool(flag)))]:
            both = flag
        case _:
            raise _not_read(call)
    sketch = pen.sketch
    (depth,) = _numbers(1, call.args, call)
    if pen.start is not None or sketch.spent or not sketch.loops or depth == 0:
        raise _not_read(call)
    sketch.spent = True
    plane = sketch.plane
    if both:
        plane = replace(plane, origin=plane.point(0, 0, -depth))
        depth *= 2
    return Solid((Extrusion(plane, tuple(sketch.loops), depth, both=both),))


def _boolean(solid: Solid, method: str, call: ast.Call, names: Names) -> Solid:
    if method not in BOOLEAN_CALLS or len(call.args) != 1 or call.keywords:
        raise _not_read(call)
    other = _value(call.args[0], names)
    if not isinstance(other, Solid):
        raise _not_read(call)
    if len(solid.steps) + len(other.steps) > MOST_STEPS:
        raise _not_read(call, f"over {MOST_STEPS} extrusions are not read")
    steps = _sequence(solid.steps, method, other.steps)
    if steps is None:
        raise _not_read(call, f"a {method} of solids that are not built one step after the other")
    return Solid(steps)


def _sequence(a: Program, method: str, b: Program) -> Program | None:
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
    return None
