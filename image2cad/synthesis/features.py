"""A random part, feature by feature: a base, then bosses, ribs, cuts and their copies.

    program = general_program(np.random.default_rng(0))

As in DeepCAD's parts most sketches lie in one plane or on parallel faces, and
several regions of one drawing are extruded one by one, side by side and to
different heights. How often follows real programs (docs/statistics.md).
Left out: intersections, planes askew, and whether the part is any good: that
is up to `parts.py`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from image2cad.cad import (
    NAMED,
    Circle,
    Extrusion,
    Loop,
    Operation,
    Plane,
    Program,
    extent,
    mirrored,
    shifted,
)
from image2cad.synthesis.profiles import forbidden, random_profile
from image2cad.synthesis.shapes import Rng

PLANE_SHARES = {"XY": 0.43, "XZ": 0.43, "YZ": 0.14}
CUT_SHARE = 0.22  # of the later steps
FILL_SHARE = 0.25  # of the steps added to a block with holes: one hole is filled, to another height
COPY_SHARE = 0.5  # of the later steps, where there is room: mirrored or repeated
Box = NDArray[np.float64]  # (3, 2): low and high end along the sketch's x, y and normal


@dataclass(frozen=True)
class Block:
    """One step on a named plane, and the box it fills along that plane's axes."""

    name: str
    loops: tuple[Loop, ...]
    low: float
    high: float
    operation: Operation = "union"

    @property
    def box(self) -> Box:
        left, down, right, up = extent(self.loops[0])
        return np.array([[left, right], [down, up], [self.low, self.high]])

    @property
    def round(self) -> bool:
        return isinstance(self.loops[0], Circle)

    @property
    def step(self) -> Extrusion:
        x, normal = NAMED[self.name]
        origin = (normal[0] * self.low, normal[1] * self.low, normal[2] * self.low)
        return Extrusion(Plane(origin, x, normal), self.loops, self.high - self.low, self.operation)


def general_program(
    rng: Rng, count: int, apart: bool = False, without: Sequence[str] = ()
) -> Program:
    """A program of `count` extrusions, in free units; `apart`: several bodies.

    `without` as for `profiles.random_profile`.
    """
    blocks = [_base(rng, count, without)]
    while len(blocks) < count:
        blocks += _copied(rng, blocks, _feature(rng, blocks, apart, without), count - len(blocks))
    return tuple(block.step for block in blocks)


def _base(rng: Rng, count: int, without: Sequence[str]) -> Block:
    name = str(rng.choice(list(PLANE_SHARES), p=list(PLANE_SHARES.values())))
    draw = rng.random()
    if draw < 0.3:
        short = 100.0
    elif draw < 0.9:
        short = 100.0 * float(rng.uniform(0.25, 1.0))
    else:
        short = 100.0 * _log(rng, 0.04, 0.3)
    width, height = (100.0, short) if rng.random() < 0.55 else (short, 100.0)
    loops = random_profile(rng, "base", width, height, without=without)
    if isinstance(loops[0], Circle):
        width = height = 2 * loops[0].radius
    depth = max(width, height) * (_log(rng, 0.017, 4.8) if count == 1 else _log(rng, 0.025, 2.5))
    if rng.random() < 0.06:
        depth = float(rng.choice([width, height, width / 2, height / 2]))
    return Block(name, loops, 0.0, depth)


def _log(rng: Rng, low: float, high: float) -> float:
    return float(np.exp(rng.uniform(np.log(low), np.log(high))))


def _feature(rng: Rng, blocks: list[Block], apart: bool, without: Sequence[str]) -> Block:
    solid = [block for block in blocks if block.operation == "union"]
    if apart and rng.random() < 0.6:
        return _separate(rng, solid, without)
    cut = rng.random() < CUT_SHARE
    base = solid[0] if rng.random() < 0.5 else solid[-1]
    if not cut and len(base.loops) > 1 and rng.random() < FILL_SHARE:
        filled = _filled(rng, base)
        if not forbidden(filled.loops, without):
            return filled
    if rng.random() < (0.25 if cut else 0.12):
        name = str(rng.choice([name for name in NAMED if name != base.name]))
        box, round_ = _whole(solid, name), False
    else:
        name, round_ = base.name, base.round
        box = _whole(solid, name) if cut and rng.random() < 0.4 else base.box
    return _cut(rng, name, box, round_, without) if cut else _boss(rng, name, box, round_, without)


def _filled(rng: Rng, base: Block) -> Block:
    """One of the holes as a body of its own, from the block's lower end."""
    hole = base.loops[int(rng.integers(1, len(base.loops)))]
    loops = (
        (hole, Circle(hole.x, hole.y, hole.radius * float(rng.uniform(0.3, 0.8))))
        if isinstance(hole, Circle) and rng.random() < 0.3
        else (hole,)
    )
    return Block(
        base.name, loops, base.low, base.low + (base.high - base.low) * _log(rng, 0.2, 4.0)
    )


def _whole(blocks: list[Block], name: str) -> Box:
    """The box of all blocks along the axes of another plane."""
    target = Plane((0.0, 0.0, 0.0), *NAMED[name])
    ends = []
    for block in blocks:
        source = Plane((0.0, 0.0, 0.0), *NAMED[block.name])
        turn = (
            np.array([target.x, target.y, target.normal])
            @ np.array([source.x, source.y, source.normal]).T
        )
        ends.append(np.sort(turn @ block.box, axis=1))
    stacked = np.stack(ends)
    return np.stack([stacked[:, :, 0].min(axis=0), stacked[:, :, 1].max(axis=0)], axis=1)


def _boss(rng: Rng, name: str, box: Box, round_: bool, without: Sequence[str]) -> Block:
    sides = box[:, 1] - box[:, 0]
    middle = box.mean(axis=1)
    if round_ and rng.random() < 0.75:
        ratio = rng.uniform(0.15, 0.95) if rng.random() < 0.75 else rng.uniform(1.05, 2.2)
        width = height = sides[0] * float(ratio)
        centre, where, role = middle[:2], "inside", "round boss"
    else:
        where = str(rng.choice(["inside", "beside", "over", "same"], p=[0.45, 0.4, 0.08, 0.07]))
        (width, height), centre = _place(rng, box, where)
        role = "boss"
    low, high = _levels(rng, box, where)
    loops = random_profile(rng, role, width, height, (centre[0], centre[1]), without)
    return Block(name, loops, low, high)


def _place(rng: Rng, box: Box, where: str) -> tuple[tuple[float, float], NDArray[np.float64]]:
    """Width, height and centre of a sketch in, beside or over the box's rectangle."""
    low, high = box[:2, 0], box[:2, 1]
    sides = high - low
    if where == "same":
        size, centre = sides, (low + high) / 2
    elif where == "over":
        size = sides * rng.uniform(0.3, 1.5, 2)
        centre = low + sides * rng.choice([0.0, 0.5, 1.0, float(rng.random())], 2)
    elif where == "beside":
        axis, up = int(rng.integers(2)), rng.random() < 0.5
        size, centre = np.empty(2), np.empty(2)
        size[axis] = sides[int(rng.integers(2))] * _log(rng, 0.1, 1.3)
        centre[axis] = high[axis] + size[axis] / 2 if up else low[axis] - size[axis] / 2
        other = 1 - axis
        size[other] = sides[other] * (1.0 if rng.random() < 0.4 else float(rng.uniform(0.1, 1.0)))
        spare = (sides[other] - size[other]) / 2
        centre[other] = (low + high)[other] / 2 + spare * float(rng.choice([-1, 0, 0, 1]))
    else:
        size = sides * np.exp(rng.uniform(np.log(0.08), np.log(0.98), 2))
        if rng.random() < 0.4:
            size[int(rng.integers(2))] = np.inf
            size = np.minimum(size, sides)
        at = rng.choice([0.0, 0.5, 0.5, 0.5, 1.0, float(rng.random())], 2)
        centre = low + size / 2 + (sides - size) * at
    return (float(size[0]), float(size[1])), centre


def _levels(rng: Rng, box: Box, where: str) -> tuple[float, float]:
    """The two ends along the normal: on a face of the box, level with one, or about its middle."""
    low, high = float(box[2, 0]), float(box[2, 1])
    depth, span = high - low, float((box[:, 1] - box[:, 0]).max())
    if where == "beside" and rng.random() < 0.5:
        return low, high
    draw = rng.random()
    if draw < 0.2:
        new = depth
    elif draw < 0.6:
        new = min(max(depth * _log(rng, 0.1, 4.0), 0.02 * span), 1.5 * span)
    else:
        new = span * _log(rng, 0.03, 0.9)
    front = rng.random() < 0.8
    draw = rng.random()
    if where in ("inside", "same", "over") and draw < 0.42:
        return (high, high + new) if front else (low - new, low)
    if where != "beside":
        new = depth + new  # from inside the box it must come out
    if draw < 0.9:
        return (low, low + new) if front or draw < 0.8 else (high - new, high)
    return (low + high - new) / 2, (low + high + new) / 2


def _cut(rng: Rng, name: str, box: Box, round_: bool, without: Sequence[str]) -> Block:
    low, high = box[:2, 0], box[:2, 1]
    sides = high - low
    where = str(rng.choice(["inside", "edge", "across"], p=[0.55, 0.28, 0.17]))
    role = "cut"
    if round_ and rng.random() < 0.6:
        size, centre, role = (
            np.full(2, sides.min() * rng.uniform(0.1, 0.85)),
            (low + high) / 2,
            "round cut",
        )
    elif where == "inside":
        size = sides * rng.uniform(0.08, 0.85, 2)
        if rng.random() < 0.5:
            size = np.full(2, size.min())
        at = rng.choice([0.5, 0.5, 0.1, 0.9, float(rng.uniform(0.05, 0.95))], 2)
        centre = low + size / 2 + (sides - size) * at
    else:
        size = sides * rng.uniform(0.1, 0.75, 2)
        if where == "across":
            size[int(rng.integers(2))] = np.inf
            size = np.minimum(size, sides)
        at = rng.choice([0.0, 1.0], 2)
        at[int(rng.integers(2))] = float(rng.choice([0.0, 0.5, 0.5, 1.0, float(rng.random())]))
        centre = low + size / 2 + (sides - size) * at
    bottom, top = float(box[2, 0]), float(box[2, 1])
    if rng.random() < 0.6:
        ends = (bottom, top)
    else:
        depth = (top - bottom) * float(rng.uniform(0.15, 0.85))
        ends = (top - depth, top) if rng.random() < 0.8 else (bottom, bottom + depth)
    loops = random_profile(
        rng, role, float(size[0]), float(size[1]), (centre[0], centre[1]), without
    )
    return Block(name, loops[:1], *ends, "cut")


def _separate(rng: Rng, solid: list[Block], without: Sequence[str]) -> Block:
    """A body beside the last one, with a gap; often a copy of it."""
    last = solid[-1]
    box = last.box
    axis = int(rng.integers(2))
    gap = float(np.ptp(box[axis])) * _log(rng, 0.1, 6.0)
    if rng.random() < 0.5:
        shift = [0.0, 0.0]
        shift[axis] = gap + float(np.ptp(box[axis]))
        return Block(
            last.name, tuple(shifted(loop, *shift) for loop in last.loops), last.low, last.high
        )
    (width, height), centre = _place(rng, box, "beside")
    centre = centre + np.sign(centre - box[:2].mean(axis=1)) * [
        gap * (axis == 0),
        gap * (axis == 1),
    ]
    low, high = _levels(rng, box, "beside")
    loops = random_profile(rng, "boss", width, height, (centre[0], centre[1]), without)
    return Block(last.name, loops, low, high)


def _copied(rng: Rng, blocks: list[Block], new: Block, room: int) -> list[Block]:
    """The new block, and its mirror images about the base's middle where there is room."""
    if room < 2 or rng.random() > COPY_SHARE:
        return [new]
    middle = _whole([block for block in blocks if block.operation == "union"], new.name).mean(
        axis=1
    )
    clear = [bool(new.box[i, 0] >= middle[i] or new.box[i, 1] <= middle[i]) for i in range(2)]

    def mirror(block: Block, axis: int) -> Block:
        loops = tuple(mirrored(loop, axis, float(middle[axis])) for loop in block.loops)
        return Block(block.name, loops, block.low, block.high, block.operation)

    if all(clear) and room >= 4 and rng.random() < 0.6:
        pair = [new, mirror(new, 0)]
        return [*pair, *(mirror(block, 1) for block in pair)]
    axes = [axis for axis in range(2) if clear[axis]]
    return [new, mirror(new, int(rng.choice(axes)))] if axes else [new]
