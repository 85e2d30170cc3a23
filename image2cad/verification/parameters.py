"""A program as a vector of free numbers, and back: what fitting.py turns.

    layout, values = parameters(program)
    same = rebuilt(layout, values)

Numbers that mean one thing are one parameter: faces at the same level of an axis
stay flush, equal radii stay equal, an arc keeps its share of a full turn. All are in
the program's own units. Left out: the number of steps and loops and what they are,
which no number changes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from image2cad.cad import (
    Circle,
    Extrusion,
    Loop,
    Path,
    Point,
    Program,
    Rect,
    Segment,
    bulge_of,
    bulged,
    grounded,
)
from image2cad.common import Array

Visit = Callable[[float, str], float]  # a number and what it is: the number to put there
SAME_LEVEL_SHARE = 0.004  # of the part's size: levels closer than that are one
TIED_SHARE = 0.02  # numbers of one kind closer than this share of the part's size are one
BULGE_UNIT = 0.5  # units of an arc's bulge in sizes of the part, so that all steps are alike
AXIS_NAMES = "xyz"


@dataclass(frozen=True)
class Layout:
    """Which parameter stands in each place of `program`. size: the part's, as a unit of length."""

    program: Program
    places: tuple[int, ...]
    kinds: tuple[str, ...]
    size: float


def parameters(program: Program, tied: float = TIED_SHARE) -> tuple[Layout, Array]:
    """The layout of `program` and its values (P,). tied: 0 frees every number of its own."""
    program = tuple(grounded(step) for step in program)
    found: list[tuple[float, str]] = []

    def note(value: float, kind: str) -> float:
        found.append((value, kind))
        return value

    _walk(program, note)
    lengths = [abs(value) for value, kind in found if kind != "bulge"]
    size = max([*lengths, 1e-6])
    places: list[int] = []
    values: list[float] = []
    kinds: list[str] = []
    for value, kind in found:
        scaled = value * BULGE_UNIT * size if kind == "bulge" else value
        near = [
            i
            for i, (other, its) in enumerate(zip(values, kinds, strict=True))
            if its == kind and kind != "free" and abs(other - scaled) < tied * size
        ]
        if near:
            places.append(min(near, key=lambda i: abs(values[i] - scaled)))
        else:
            places.append(len(values))
            values.append(scaled)
            kinds.append(kind)
    return Layout(program, tuple(places), tuple(kinds), size), np.array(values)


def numbers_of(program: Program) -> int:
    """How many different numbers a program is made of."""
    return len(parameters(program)[1])


def rebuilt(layout: Layout, values: Array) -> Program:
    """The program with `values` (P,) in their places."""
    places = iter(layout.places)

    def put(_: float, kind: str) -> float:
        value = float(values[next(places)])
        return value / (BULGE_UNIT * layout.size) if kind == "bulge" else value

    return _walk(layout.program, put)


def _walk(program: Program, visit: Visit) -> Program:
    """`program` with every free number replaced by what `visit` makes of it, in fixed order."""
    return tuple(_step(step, visit) for step in program)


def _step(step: Extrusion, visit: Visit) -> Extrusion:
    plane = step.plane
    if plane.name is None:
        x, y, z = (visit(value, "free") for value in plane.origin)
        loops = tuple(_loop(loop, visit, ("free", "free")) for loop in step.loops)
        depth = visit(step.depth, "free")
        return replace(step, plane=replace(plane, origin=(x, y, z)), loops=loops, depth=depth)
    axis = int(np.argmax(np.abs(plane.normal)))
    sign = 1.0 if plane.normal[axis] > 0 else -1.0
    start = visit(plane.origin[axis], AXIS_NAMES[axis])
    end = visit(plane.origin[axis] + sign * step.depth, AXIS_NAMES[axis])
    across = (
        AXIS_NAMES[int(np.argmax(np.abs(plane.x)))],
        AXIS_NAMES[int(np.argmax(np.abs(plane.y)))],
    )
    loops = tuple(_loop(loop, visit, across) for loop in step.loops)
    x, y, z = (start if i == axis else 0.0 for i in range(3))
    depth = sign * (end - start)
    return replace(step, plane=replace(plane, origin=(x, y, z)), loops=loops, depth=depth)


def _loop(loop: Loop, visit: Visit, across: tuple[str, str]) -> Loop:
    if isinstance(loop, Circle):
        x, y = visit(loop.x, across[0]), visit(loop.y, across[1])
        return Circle(x, y, visit(loop.radius, "radius"))
    if isinstance(loop, Rect):
        left, right = (visit(loop.x + s * loop.width / 2, across[0]) for s in (-1, 1))
        low, high = (visit(loop.y + s * loop.height / 2, across[1]) for s in (-1, 1))
        return Rect((left + right) / 2, (low + high) / 2, right - left, high - low)

    def point(at: Point) -> Point:
        return (visit(at[0], across[0]), visit(at[1], across[1]))

    old, start = loop.start, point(loop.start)
    here, segments = start, []
    for segment in loop.segments:
        end = start if segment.end == loop.start else point(segment.end)
        mid = None
        if segment.mid is not None:
            bulge = visit(bulge_of(old, segment.mid, segment.end), "bulge")
            mid = bulged(here, end, bulge)
        segments.append(Segment(end, mid))
        old, here = segment.end, end
    return Path(start, tuple(segments))


def levels(program: Program, axis: int) -> list[float]:
    """Where the part has faces across an axis, or a round one ends, in ascending order."""
    layout, _ = parameters(program, 0.0)
    found: list[float] = []

    def note(value: float, kind: str) -> float:
        if kind == AXIS_NAMES[axis]:
            found.append(value)
        return value

    _walk(layout.program, note)
    for step in layout.program:
        for loop in step.loops:
            if isinstance(loop, Circle):
                for way, at in ((step.plane.x, loop.x), (step.plane.y, loop.y)):
                    if abs(way[axis]) > 0.5:
                        found += [at - loop.radius, at + loop.radius]
    out: list[float] = []
    for value in sorted(found):
        if not out or value - out[-1] > SAME_LEVEL_SHARE * layout.size:
            out.append(value)
    return out
