"""A part as sketches and extrusions, and the compact CadQuery program that builds it.

    part = (Extrusion(Plane((0, 0, -10), *NAMED["XY"]), (Rect(0, 0, 100, 60),), 20),)
    to_code(part)

The one vocabulary that random parts are drawn in, that `parsing.py` reads programs into,
that `compacting.py` rewrites GenCAD-Code's to, and that both engines build.
Left out: fillets, chamfers, revolves, lofts and everything else that DeepCAD's
parts do not have.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

Point = tuple[float, float]
Vector = tuple[float, float, float]
Operation = Literal["union", "cut", "intersect"]

# CadQuery's named planes: the sketch's x direction and normal. "XZ" looks along -y.
NAMED: dict[str, tuple[Vector, Vector]] = {
    "XY": ((1.0, 0.0, 0.0), (0.0, 0.0, 1.0)),
    "XZ": ((1.0, 0.0, 0.0), (0.0, -1.0, 0.0)),
    "YZ": ((0.0, 1.0, 0.0), (1.0, 0.0, 0.0)),
}


@dataclass(frozen=True)
class Plane:
    """A sketch plane: `origin` in model units, unit `x` direction, unit `normal`."""

    origin: Vector
    x: Vector
    normal: Vector

    @property
    def y(self) -> Vector:
        """The sketch's second axis: normal x x."""
        (a, b, c), (d, e, f) = self.normal, self.x
        return (b * f - c * e, c * d - a * f, a * e - b * d)

    @property
    def name(self) -> str | None:
        """CadQuery's name of the plane's directions, or None."""
        for name, axes in NAMED.items():
            pairs = zip(axes, (self.x, self.normal), strict=True)
            if all(abs(p - q) < 1e-9 for one, two in pairs for p, q in zip(one, two, strict=True)):
                return name
        return None

    def point(self, u: float, v: float, w: float = 0.0) -> Vector:
        """The model point at sketch coordinates (u, v), `w` along the normal."""
        axes = zip(self.origin, self.x, self.y, self.normal, strict=True)
        x, y, z = (o + u * a + v * b + w * n for o, a, b, n in axes)
        return (x, y, z)


@dataclass(frozen=True)
class Circle:
    """A full circle about (x, y)."""

    x: float
    y: float
    radius: float


@dataclass(frozen=True)
class Rect:
    """An axis-aligned rectangle about (x, y)."""

    x: float
    y: float
    width: float
    height: float


@dataclass(frozen=True)
class Segment:
    """A line to `end`, or an arc to `end` through `mid`."""

    end: Point
    mid: Point | None = None


@dataclass(frozen=True)
class Path:
    """A closed loop from `start` through `segments`; a last line back to `start` is implied."""

    start: Point
    segments: tuple[Segment, ...]


Loop = Circle | Rect | Path


@dataclass(frozen=True)
class Extrusion:
    """A profile extruded `depth` along the plane's normal (negative: against it).

    Loops inside an outer loop are holes. The first extrusion's operation is ignored. `both`
    says that it was drawn from its middle to both sides (CadQuery's `both=True`): plane and
    depth are the whole's, so that only who draws the seam between the halves has to ask.
    """

    plane: Plane
    loops: tuple[Loop, ...]
    depth: float
    operation: Operation = "union"
    both: bool = False


Program = tuple[Extrusion, ...]


def as_drawn(program: Program) -> Program:
    """The program with every extrusion to both sides as two, from its middle.

    So DeepCAD builds it, and the edge between the two is to be seen in GenCAD's pictures.
    As built, in one piece, a program is as it is. What is common to two solids would be
    another thing for the halves: there it stays in one piece, too.
    """
    steps: list[Extrusion] = []
    for i, step in enumerate(program):
        operation = step.operation if i else "union"
        if step.both and operation != "intersect":
            half = step.depth / 2
            plane = replace(step.plane, origin=step.plane.point(0, 0, half))
            pair = (replace(step, plane=plane, depth=side, both=False) for side in (half, -half))
            steps += [replace(one, operation=operation) for one in pair]
        else:
            steps.append(step)
    return tuple(steps)


def number_text(value: float, decimals: int = 6) -> str:
    """`value` as the shortest text with at most `decimals` digits after the point."""
    text = f"{value:.{decimals}f}"
    if "." in text:
        text = text.rstrip("0").rstrip(".")
    return "0" if text in ("-0", "") else text


def to_code(program: Program, decimals: int = 6) -> str:
    """The program as CadQuery that leaves its result in `solid`, each extrusion in one piece.

    Raises ValueError for a program without extrusions.
    """
    if not program:
        raise ValueError("a program needs at least one extrusion")
    lines = ["import cadquery as cq"]
    for i, step in enumerate(program):
        text = _extrusion(step, decimals)
        lines.append(f"solid = {text}" if i == 0 else f"solid = solid.{step.operation}({text})")
    return "\n".join(lines) + "\n"


def _extrusion(step: Extrusion, decimals: int) -> str:
    plane, name = step.plane, step.plane.name
    origin = _tuple(plane.origin, decimals)
    if name is None:
        axes = f"{_tuple(plane.x)}, {_tuple(plane.normal)}"
        text = f"cq.Workplane(cq.Plane({origin}, {axes}))"
    elif origin == "(0, 0, 0)":
        text = f'cq.Workplane("{name}")'
    else:
        text = f'cq.Workplane("{name}", origin={origin})'
    for i, loop in enumerate(step.loops):
        text += _loop(loop, decimals, first=i == 0)
    return f"{text}.extrude({number_text(step.depth, decimals)})"


def _loop(loop: Loop, decimals: int, first: bool) -> str:
    if isinstance(loop, Path):
        if all(segment.mid is None for segment in loop.segments):
            points = [loop.start, *(segment.end for segment in loop.segments)]
            return f".polyline([{', '.join(_tuple(p, decimals) for p in points)}]).close()"
        text = f".moveTo{_tuple(loop.start, decimals)}"
        for segment in loop.segments:
            if segment.mid is None:
                text += f".lineTo{_tuple(segment.end, decimals)}"
            else:
                ends = f"{_tuple(segment.mid, decimals)}, {_tuple(segment.end, decimals)}"
                text += f".threePointArc({ends})"
        return text + ".close()"
    centre = _tuple((loop.x, loop.y), decimals)
    # Without moveTo the loop falls on the loop before it, not on the origin.
    text = "" if first and centre == "(0, 0)" else f".moveTo{centre}"
    if isinstance(loop, Circle):
        return f"{text}.circle({number_text(loop.radius, decimals)})"
    return f"{text}.rect{_tuple((loop.width, loop.height), decimals)}"


def _tuple(values: Sequence[float], decimals: int = 6) -> str:
    return f"({', '.join(number_text(value, decimals) for value in values)})"
