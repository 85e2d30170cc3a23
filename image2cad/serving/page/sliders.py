"""The numbers of a program that a user may want to move, and the program with other numbers.

    for index, number in enumerate(numbers(code)):
        ...                                     # number.name, number.value, number.low, number.high
    code = replaced(code, {0: 12.5})            # the first of them; all other text as it was

The program is parsed, never run. Left out: numbers in strings, comments and subscripts, exponents,
directions of axes, and numbers that are not written in decimal.
"""

from __future__ import annotations

import ast
import math
import re
from collections import Counter
from dataclasses import dataclass

MOST_CHARACTERS = 20_000  # a longer program gets no sliders
MOST_SLIDERS = 12
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
class Number:
    """A literal of a program.

    start, end: where it stands, in characters, its sign included. name: what it is, such as
    "circle 2 radius". low, high: a range worth trying, `value` inside. step: of a slider.
    """

    value: float
    start: int
    end: int
    name: str
    low: float
    high: float
    step: float = 0.0


@dataclass(frozen=True)
class _Literal:
    value: float
    start: int
    end: int
    name: str
    kind: str  # "size", "place" or "count"


def numbers(code: str, most: int = MOST_SLIDERS) -> list[Number]:
    """The literals of `code` in the order of the text, at most `most` of them.

    Where there are more, sizes go before coordinates, and coordinates before zeros. A program
    that does not parse, or is longer than 20,000 characters, has none.
    """
    found = _literals(code)
    scale = max((abs(one.value) for one in found), default=0.0) or 1.0
    ranks = [(one.value == 0, one.kind == "place", one.start) for one in found]
    kept = sorted(sorted(range(len(found)), key=ranks.__getitem__)[:most])
    return [_with_range(found[index], scale) for index in kept]


def replaced(code: str, values: dict[int, float], most: int = MOST_SLIDERS) -> str:
    """`code` with other values for the numbers of these indexes in `numbers(code, most)`.

    Raises ValueError for an index that is not there and a value that is not finite.
    """
    known = numbers(code, most)
    for index, value in sorted(values.items(), reverse=True):  # from the end: places stay right
        if not 0 <= index < len(known) or not math.isfinite(value):
            raise ValueError(f"there is no number {index} to set to {value}")
        number = known[index]
        text = _text(value, code[number.start : number.end])
        code = code[: number.start] + text + code[number.end :]
    return code


def _text(value: float, before: str) -> str:
    if value == int(value) and abs(value) < 1e15:
        return f"{int(value)}.0" if re.search(r"[.eE]", before) else str(int(value))
    return f"{value:.10g}"


def _with_range(literal: _Literal, scale: float) -> Number:
    value, size = literal.value, abs(literal.value)
    if literal.kind == "count":
        low, high, step = 1.0, max(2 * size, 12.0), 1.0
    else:
        around = max(size, scale / 4)
        if literal.kind == "place" or value == 0:
            low, high = value - around, value + around
        else:
            low, high = sorted((value / 5, value * 2))
        step = 10.0 ** math.floor(math.log10((high - low) / 40))
        low = math.floor(round(low / step, 6)) * step
        high = math.ceil(round(high / step, 6)) * step
        if literal.name.endswith("angle") and size <= 360:
            low, high = max(low, -360.0), min(high, 360.0)
        if literal.kind == "size" and value > 0:
            low = max(low, step)
    low, high = min(low, value), max(high, value)
    place = (literal.start, literal.end, literal.name)
    return Number(value, *place, round(low, 12), round(high, 12), round(step, 12))


def _literals(code: str) -> list[_Literal]:
    if len(code) > MOST_CHARACTERS:
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
            found.append(_Literal(value, start, end, *named))
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
