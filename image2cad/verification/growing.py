"""Build a program for a picture from nothing, one extrusion at a time.

    for found in grow(target):          # Grown(program, cost), best first

Every flat region of the picture may be the cap of an extrusion that is added, or the
floor of one that is cut (reading/tracing.py reads it as a sketch). All levels that the part
already has are tried for both ends. Until a part is whole its own box says nothing
about the camera, so the camera is held fixed here, as the tracing was; the numbers are
fitted after every step, and at the end with the part's own camera. Left out: parts
without flat faces along the main axes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from math import log
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from image2cad.cad import NAMED, Drawing, Extrusion, Loop, Operation, Plane, Program, build
from image2cad.common import Array
from image2cad.reading import AXES, INWARDS, PIXELS, PLANES, SHADE, Cap, caps
from image2cad.rendering import EYE, MARGIN, SIZE, TONES, WHITE, Picture, camera_of, draw_into
from image2cad.verification.cost import NOTHING, Floats, Target, cost_of, features_of, picture_of
from image2cad.verification.fitting import fit
from image2cad.verification.parameters import levels, parameters
from image2cad.verification.placing import settled

T = TypeVar("T")
Proposal = tuple[float, Extrusion, int]

# A cube whose camera is the one that reading/tracing.py reads by.
BOX = np.array([[-0.5] * 3, [0.5] * 3]) * SIZE / (MARGIN * PIXELS * 4 / np.sqrt(6))
SIDE = SIZE // 4  # pixels of the small pictures that proposals are ranked by
COARSE = 16  # pixels of 448 in a block of theirs
EXPLAINED = 0.9  # overlap from which a region needs no further extrusion

MATRIX, OFFSET = (value * SIDE / SIZE for value in camera_of(BOX))
VIEW = MATRIX[2] / np.linalg.norm(MATRIX[2])
DEPTHS = (2.0, 5.0, 10.0, 18.0, 30.0, 50.0, 80.0, 130.0)

STEP_PRICE, NUMBER_PRICE = 1e-4, 1.5e-5  # of cost: what an extrusion and a number must bring
BEAM = 3
TRIED = 6  # proposals fitted for each program of the beam
ROUNDS = 8
LEAST_GAIN = 0.02  # share of the cost that a proposal must bring to be added with others
ADDITIVE = 0.7  # share of what it brings alone that it must bring after the others
ALIKE = 0.01  # share of the price by which programs differ that do not look the same


@dataclass(frozen=True, eq=False)
class Grown:
    """A program and its price: cost with the fixed camera, and a charge for complexity."""

    program: Program
    price: float


def grow(
    target: Target,
    go_on: Callable[[], bool] = lambda: True,
    seeds: Sequence[Grown] = (),
    beam: int = BEAM,
) -> list[Grown]:
    """Programs for the picture, best first; none if it has no flat face along a main axis.

    seeds: programs in front of the fixed camera to start from instead of nothing.
    """
    regions = caps(target.picture)
    states: list[Grown] = list(seeds)
    done: list[Grown] = []
    for _ in range(ROUNDS):
        new: list[Grown] = []
        for state in states or [Grown((), 1.0)]:
            if go_on() and not any(state is other for other in done):
                new += _extended(state, target, regions, go_on)
                done.append(state)
        by_price = sorted(states + new, key=lambda one: one.price)
        ranked = list(islice(distinct(by_price, lambda one: log(one.price), ALIKE), beam))
        if states and ranked[0].price > states[0].price - NUMBER_PRICE:
            return ranked
        states = ranked
        if not states or not go_on():
            break
    return states


def price_of(program: Program, cost: float) -> float:
    """The cost and a charge for every extrusion and every number."""
    return cost + STEP_PRICE * len(program) + NUMBER_PRICE * len(parameters(program)[1])


def _extended(
    state: Grown, target: Target, regions: list[list[Cap]], go_on: Callable[[], bool]
) -> list[Grown]:
    """The best programs with more extrusions, fitted: a few coarsely, the better half finely."""
    ranked = sorted(_proposals(state.program, target, regions, go_on), key=lambda one: one[0])
    chosen = [step for _, step, _ in islice(distinct(ranked, _log_cost, ALIKE / 3), TRIED)]
    longer: list[Program] = [(step,) for step in chosen]
    leap = _leap(state.program, target, ranked)
    if len(leap) > 1:
        longer.insert(0, leap)
    tried: list[tuple[float, Program]] = []
    for steps in longer:
        if not go_on():
            break
        program = (*state.program, *steps)
        rough = fit(
            program, target, (COARSE,), (3,), box=BOX, go_on=go_on, steady=len(state.program)
        )
        tried.append((rough.cost, rough.program))
    out = []
    for cost, program in sorted(tried, key=lambda one: one[0])[: TRIED // 2]:
        if cost < NOTHING and go_on():
            fine = fit(program, target, (8, 4), (3, 2), box=BOX, go_on=go_on)
            if fine.cost < NOTHING:
                placed = settled(fine.program, target, BOX, len(state.program))
                out.append(_simplified(placed, cost_of(placed, target, box=BOX), target))
    return out


def _log_cost(proposal: Proposal) -> float:
    return log(max(proposal[0], 1e-12))


def _leap(program: Program, target: Target, ranked: list[Proposal]) -> Program:
    """The best proposals of several regions that together bring what they bring alone."""
    start = cost_of(program, target, COARSE, BOX) if program else 1.0
    steps: Program = ()
    cost = start
    best: dict[int, tuple[float, Extrusion]] = {}
    for alone, step, region in ranked:
        best.setdefault(region, (alone, step))
    for alone, step in best.values():
        if start - alone < LEAST_GAIN * start:
            break
        together = cost_of((*program, *steps, step), target, COARSE, BOX)
        if cost - together > ADDITIVE * (start - alone):
            steps, cost = (*steps, step), together
    return steps


def _proposals(
    program: Program, target: Target, regions: list[list[Cap]], go_on: Callable[[], bool]
) -> Iterator[Proposal]:
    """Extrusions to add: the coarse cost with each, the extrusion, the region it was read from."""
    scene = _scene(program)
    goal, blank = target.features[COARSE], target.blank[COARSE]
    for region, readings in enumerate(regions):
        if not go_on():
            return
        if scene.picture is not None and _explained(readings[0].mask, scene.picture):
            continue
        best = max(cap.straight for cap in readings)
        for cap in readings:
            axis, inwards = AXES[cap.plane], INWARDS[cap.plane]
            block = build((_extrusion(cap.plane, cap.loops, 0.0, inwards),))
            if cap.straight < best - 0.35 or block is None:
                continue
            known = (levels(program, axis) if program else []) or [0.0]
            size = max(known) - min(known)
            outermost = max(known) if inwards < 0 else min(known)
            starts = list(known)
            if program:
                starts += [outermost - inwards * share * size for share in (0.05, 0.12, 0.25)]
                starts += [(a + b) / 2 for a, b in zip(known, known[1:], strict=False)]
            for start in starts:
                if not go_on():
                    return
                ends = [end for end in known if (end - start) * inwards > 0.3]
                ends += [start + inwards * depth for depth in DEPTHS]
                loops = cap.at(start)
                for end in ends:
                    picture = _with(scene, block, axis, start, end)
                    gap = features_of(picture, COARSE) - goal
                    step = _extrusion(cap.plane, loops, start, end)
                    yield float(gap @ gap) / blank, step, region
                if program and (outermost - start) * inwards < -0.3:
                    step = _extrusion(cap.plane, loops, start, outermost - inwards, "cut")
                    yield cost_of((*program, step), target, COARSE, BOX), step, region


@dataclass(frozen=True, eq=False)
class _Scene:
    """What a program looks like with the fixed camera: depth and tone of each small pixel."""

    depth: Floats
    tone: NDArray[np.int16]
    picture: Picture | None


def _scene(program: Program) -> _Scene:
    depth = np.full((SIDE, SIDE), -np.inf, dtype=np.float32)
    tone = np.full((SIDE, SIDE), WHITE, dtype=np.int16)
    drawing = build(program) if program else None
    if drawing is None:
        return _Scene(depth, tone, None)
    _add(drawing, drawing.vertices, drawing.edge_points, depth, tone)
    return _Scene(depth, tone, picture_of(drawing, BOX))


def _with(scene: _Scene, block: Drawing, axis: int, start: float, end: float) -> Picture:
    """The small picture of the scene and a block one unit deep, stretched from start to end."""
    depth, tone = scene.depth.copy(), scene.tone.copy()

    def stretched(points: Array) -> Array:
        # A sketch whose plane moves along the eye looks the same.
        out = points + np.array(EYE) / EYE[axis] * start
        out[:, axis] = start + np.abs(points[:, axis]) * (end - start)
        return out

    _add(block, stretched(block.vertices), stretched(block.edge_points), depth, tone)
    return TONES[tone]


def _add(drawing: Drawing, vertices: Array, lines: Array, depth: Any, tone: Any) -> None:
    screen, points = vertices @ MATRIX.T + OFFSET, lines @ MATRIX.T + OFFSET
    facing = drawing.normals @ VIEW
    shown = np.ones(len(drawing.edge_starts) - 1, dtype=np.bool_)
    starts = drawing.edge_starts
    draw_into(
        screen, drawing.triangles, drawing.normals, facing, points, starts, shown, depth, tone
    )


def _explained(mask: Any, picture: Picture) -> bool:
    """Whether the picture of the program has nearly the same flat region."""
    labels, _ = ndimage.label(np.abs(picture[..., 0].astype(int) - SHADE) <= 2)
    inside = np.bincount(labels[mask])
    inside[0] = 0
    both = int(inside.max())
    either = int((labels == int(inside.argmax())).sum()) + int(mask.sum()) - both
    return both > EXPLAINED * either


def _extrusion(
    plane: int, loops: tuple[Loop, ...], start: float, end: float, operation: Operation = "union"
) -> Extrusion:
    x, normal = NAMED[PLANES[plane]]
    axis = AXES[plane]
    low, high = min(start, end), max(start, end)
    origin = [0.0, 0.0, 0.0]
    origin[axis] = low if normal[axis] > 0 else high
    place = (origin[0], origin[1], origin[2])
    return Extrusion(Plane(place, x, normal), loops, high - low, operation)


def _simplified(program: Program, cost: float, target: Target) -> Grown:
    """Without the extrusions that do not bring their price."""
    best = Grown(program, price_of(program, cost))
    for i in reversed(range(len(program))):
        rest = best.program[:i] + best.program[i + 1 :]
        if not rest or rest[0].operation != "union":
            continue
        price = price_of(rest, cost_of(rest, target, box=BOX))
        if price <= best.price:
            best = Grown(rest, price)
    return best


def distinct(ranked: Iterable[T], worth: Callable[[T], float], near: float = 1e-6) -> Iterator[T]:
    """Those whose `worth` differs from that of all before: equal drawings cost the same."""
    seen: list[float] = []
    for one in ranked:
        value = worth(one)
        if not any(abs(value - other) <= near for other in seen):
            seen.append(value)
            yield one
