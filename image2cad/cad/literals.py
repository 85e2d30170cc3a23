"""The numbers that stand in a program's text, named by the calls that they stand in.

    found = literals(code)                      # found[0].value, found[0].name: "circle radius"
    code = with_literals(code, {found[0]: 12.5})        # all other text as it was

The program is parsed by `ast`, never run. Left out: numbers in strings, comments and subscripts,
exponents, directions of axes, and numbers that are not written in decimal.
"""

from __future__ import annotations

import ast
import math
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

MOST_NUMBERED = 20_000  # characters; of a longer program no numbers are listed
DECIMAL_NUMBER = re.compile(r"([+-]\s*)?(\d[\d_]*\.?[\d_]*|\.\d[\d_]*)([eE][+-]?\d+)?")
NOT_MOVED = {"normal", "xDir", "rotate.0", "rotate.1", "Plane.1", "Plane.2", "round.1"}
COORDINATES = ("x", "y", "z")

ONE_POINT, POINT_LIST = "point", "points"  # arguments that hold coordinates
ARGUMENT_NAMES: dict[str, tuple[str, ...]] = {
    "Workplane": ("plane", ONE_POINT),
    "box": ("length", "width", "height"),
    "cboreHole": ("diameter", "counterbore diameter", "counterbore depth", "depth"),
    "chamfer": ("length", "second length"),
    "circle": ("radius",),
    "cutBlind": ("depth",),
    "cylinder": ("height", "radius"),
    "ellipse": ("x radius", "y radius"),
    "extrude": ("depth",),
    "fillet": ("radius",),
    "hLine": ("length",),
    "hole": ("diameter", "depth"),
    "offset2D": ("distance",),
    "polarArray": ("radius", "start angle", "angle", "count"),
    "polygon": ("sides", "diameter"),
    "polyline": (POINT_LIST,),
    "pushPoints": (POINT_LIST,),
    "range": ("count", "count", "count"),
    "rarray": ("x spacing", "y spacing", "x count", "y count"),
    "rect": ("x length", "y length"),
    "revolve": ("angle", ONE_POINT, ONE_POINT),
    "rotate": ("axis", "axis", "angle"),
    "shell": ("thickness",),
    "slot2D": ("length", "diameter", "angle"),
    "sphere": ("radius",),
    "spline": (POINT_LIST,),
    "threePointArc": ("middle", "end"),
    "translate": (ONE_POINT,),
    "vLine": ("length",),
}
COORDINATE_CALLS = {"center", "line", "lineTo", "move", "moveTo", "Vector"}  # x, y, z
COUNT_ARGUMENTS = {"sides", "count", "x count", "y count"}


@dataclass(frozen=True)
class Literal:
    """A number of a program's text.

    start, end: where it stands, in characters, its sign included. name: what it is, such as
    "circle 2 radius". kind: "size", "place", "angle" or "count".
    """

    value: float
    start: int
    end: int
    name: str
    kind: str


def with_literals(code: str, values: Mapping[Literal, float]) -> str:
    """`code` with other values for these of its literals."""
    for one in sorted(values, key=lambda one: -one.start):  # from the end: places stay right
        text = _text(values[one], code[one.start : one.end])
        code = code[: one.start] + text + code[one.end :]
    return code


def _text(value: float, before: str) -> str:
    if value == int(value) and abs(value) < 1e15:
        return f"{int(value)}.0" if re.search(r"[.eE]", before) else str(int(value))
    return f"{value:.10g}"


def literals(code: str) -> list[Literal]:
    """The numbers of `code` in the order of the text.

    There are none where it does not parse, or is longer than MOST_NUMBERED.
    """
    if len(code) > MOST_NUMBERED:
        return []
    try:
        tree = ast.parse(code)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return []
    place = _Places(code)
    parents = {child: node for node in ast.walk(tree) for child in ast.iter_child_nodes(node)}
    calls = _numbered_calls(tree)
    found = []
    for node in ast.walk(tree):
        value = _value(node)
        if value is None or _value(parents.get(node)) is not None:
            continue  # no number, or the number without its sign
        start, end = place.of(node)
        if not DECIMAL_NUMBER.fullmatch(code[start:end]):
            if isinstance(node, ast.UnaryOp):  # the sign of something in brackets
                node, value = node.operand, abs(value)
                start, end = place.of(node)
            if not DECIMAL_NUMBER.fullmatch(code[start:end]):
                continue
        named = _named(node, parents, calls)
        if named is not None:
            found.append(Literal(value, start, end, *named))
    return sorted(found, key=lambda one: one.start)


def _value(node: ast.AST | None) -> float | None:
    """The number that `node` writes, with its sign; None if it is something else."""
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, (ast.USub, ast.UAdd)):
        inside = _value(node.operand) if isinstance(node.operand, ast.Constant) else None
        return -inside if inside is not None and isinstance(node.op, ast.USub) else inside
    if isinstance(node, ast.Constant) and type(node.value) in (int, float):
        try:
            value = float(node.value)  # type: ignore[arg-type]
        except OverflowError:
            return None
        return value if math.isfinite(value) else None
    return None


def _named(
    node: ast.AST, parents: dict[ast.AST, ast.AST], calls: dict[ast.AST, str]
) -> tuple[str, str] | None:
    """What a number is and of which kind, or None if it is none to move."""
    within: list[int] = []  # positions in the tuples and lists around it, the innermost first
    child = node
    while (parent := parents.get(child)) is not None:
        if isinstance(parent, (ast.JoinedStr, ast.Attribute)):
            return None
        if isinstance(parent, ast.Subscript) and child is parent.slice:
            return None
        if isinstance(parent, ast.BinOp) and isinstance(parent.op, ast.Pow):
            return None
        if isinstance(parent, (ast.Tuple, ast.List)):
            within.append(next(i for i, one in enumerate(parent.elts) if one is child))
        elif isinstance(parent, (ast.Assign, ast.AnnAssign)):
            return _of_variable(parent, within)
        elif isinstance(parent, ast.keyword):
            call = parents[parent]
            return _of_argument(call, parent.arg or "", parent.arg or "", within, calls)
        elif isinstance(parent, ast.Call):
            if child is parent.func:
                return None
            position = next(i for i, one in enumerate(parent.args) if one is child)
            name = _called(parent)
            known = COORDINATES if name in COORDINATE_CALLS else ARGUMENT_NAMES.get(name, ())
            argument = known[position] if position < len(known) else ""
            return _of_argument(parent, argument, f"{name}.{position}", within, calls)
        elif isinstance(parent, ast.stmt):
            break
        child = parent
    return f"number in line {getattr(node, 'lineno', 0)}", "size"


def _of_variable(node: ast.Assign | ast.AnnAssign, within: list[int]) -> tuple[str, str]:
    target: ast.AST = node.targets[0] if isinstance(node, ast.Assign) else node.target
    while isinstance(target, (ast.Tuple, ast.List)) and within and within[-1] < len(target.elts):
        target = target.elts[within.pop()]
    if not isinstance(target, ast.Name):
        return f"number in line {node.lineno}", "size"
    return (f"{target.id} {_component(within)}", "place") if within else (target.id, "size")


def _of_argument(
    call: ast.AST, argument: str, key: str, within: list[int], calls: dict[ast.AST, str]
) -> tuple[str, str] | None:
    if key in NOT_MOVED:
        return None
    kind = "place" if within or argument in COORDINATES else "size"
    if argument in COUNT_ARGUMENTS:
        kind = "count"
    if argument.endswith("angle"):
        kind = "angle"
    named = "" if argument in (ONE_POINT, POINT_LIST) else argument
    words = [calls[call], named, _component(within)]
    return " ".join(word for word in words if word), kind


def _component(within: list[int]) -> str:
    """ "x", or "2 x" for the second point of a list."""
    axis = COORDINATES[within[0]] if within and within[0] < 3 else ""
    return " ".join([*(str(index + 1) for index in within[:0:-1]), axis])


def _called(call: ast.Call) -> str:
    if isinstance(call.func, ast.Attribute):
        return call.func.attr
    return call.func.id if isinstance(call.func, ast.Name) else "call"


def _numbered_calls(tree: ast.AST) -> dict[ast.AST, str]:
    """ "circle 2" for the second circle in the text; "extrude" where there is only one."""
    found = [node for node in ast.walk(tree) if isinstance(node, ast.Call)]
    found.sort(key=lambda one: (one.func.end_lineno or 0, one.func.end_col_offset or 0))
    many = Counter(map(_called, found))
    seen: Counter[str] = Counter()
    names: dict[ast.AST, str] = {}
    for call in found:
        name = _called(call)
        seen[name] += 1
        names[call] = f"{name} {seen[name]}" if many[name] > 1 else name
    return names


class _Places:
    """Where nodes stand in the text: ast counts lines, and bytes within them."""

    def __init__(self, code: str) -> None:
        self.lines = re.split(r"(?<=\n)|(?<=\r)(?!\n)", code)
        self.starts = [0]
        for line in self.lines:
            self.starts.append(self.starts[-1] + len(line))

    def of(self, node: ast.AST) -> tuple[int, int]:
        ends = ((node.lineno, node.col_offset), (node.end_lineno, node.end_col_offset))  # type: ignore[attr-defined]
        start, end = (
            self.starts[line - 1] + len(self.lines[line - 1].encode()[:column].decode())
            for line, column in ends
        )
        return start, end
