"""Fit all the numbers of a program to a picture, jointly.

    target = look_at(picture)                     # (448, 448, 3) uint8
    result = fit(program, target)                 # Candidate(program, "", cost)

Levenberg-Marquardt on the difference between drawing and picture: shares of part,
line and shade in blurred blocks of 16, then 8, then 4 pixels. Moving one number while
others are wrong often makes a drawing worse, so all move at once. Candidates are
built by the light engine and drawn with their own camera, as a picture of GenCAD's was, so
place and size cancel out; else with the target's. Left out: changing what a program is made of
(growing.py).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from itertools import islice
from math import exp

import numpy as np
from scipy.spatial.transform import Rotation

from image2cad.cad import Program
from image2cad.common import NEVER, Array, Effort, Stop
from image2cad.rendering import SIZE
from image2cad.verification.candidate import Candidate, distinct, judged
from image2cad.verification.cost import BUILDS_NOTHING, Target, drawn, gap_of
from image2cad.verification.features import (
    COARSEST_BLOCK,
    FINEST_BLOCK,
    FIT_BLOCKS,
    Floats,
    squared,
)
from image2cad.verification.parameters import SAME_LEVEL_SHARE, parameters, rebuilt

MOST_STEPS_A_BLOCK = (6, 6, 6)  # of the fit, for each size of block
ROUGH_SIZE = SIZE // 2  # pixels a side of the pictures that are compared in larger blocks
DERIVATIVE_STEP = 0.008  # of a number, as a share of the part, at blocks of 8 pixels
LONGEST_MOVE = 0.3  # a number moves by this share of the part at most in one step
SETTLED_GAIN = 0.01  # gains below this share of the cost end a level
FURTHER_UNIT = 4.0  # of the logarithm of a camera's distance in sizes of the part
MOST_NUMBERS = 150  # of a program that is fitted; more take longer than they are worth
STEPS_OF_A_QUICK_FIT = 4  # in each size of block
SAME_COST = 1e-7  # candidates whose costs are closer draw the same


def fit(
    program: Program,
    target: Target,
    blocks: Sequence[int] = FIT_BLOCKS,
    iterations: Sequence[int] = MOST_STEPS_A_BLOCK,
    fixed: bool = False,
    steady: int = 0,
    source: str = "",
    stop: Stop = NEVER,
) -> Candidate:
    """`program` with its numbers moved to where its drawing is most like the picture.

    Numbers as near to each other as levels that are one move together. fixed: see `cost.cost_of`.
    steady: so many extrusions at the beginning keep their numbers. source: of the candidate.
    stop: asked before every step; when it is due the fit ends with what there is.
    """
    layout, values = parameters(program, SAME_LEVEL_SHARE)
    if len(values) > MOST_NUMBERS:
        return judged(program, source, target, fixed=fixed)
    first = max(layout.places[: len(parameters(program[:steady], 0.0)[0].places)], default=-1) + 1

    def gap(at: Array, block: int) -> Floats | None:
        return _gap(rebuilt(layout, at), target, block, fixed)

    values = descended(values, gap, layout.size, blocks, iterations, first, stop)
    return judged(rebuilt(layout, values), source, target, fixed=fixed)


def fit_turning(
    program: Program,
    target: Target,
    blocks: Sequence[int] = FIT_BLOCKS,
    iterations: Sequence[int] = MOST_STEPS_A_BLOCK,
    source: str = "",
    stop: Stop = NEVER,
) -> tuple[Candidate, Target]:
    """The same with the cameras of all sights free to turn about the origin; and the target so.

    In perspective they are also free to go nearer and further off.
    """
    layout, values = parameters(program, SAME_LEVEL_SHARE)
    if len(values) > MOST_NUMBERS:
        return judged(program, source, target), target
    free = 4 if target.camera.in_perspective else 3

    def target_at(at: Array) -> Target:
        rotation = Rotation.from_rotvec(at[-3:] / layout.size).as_matrix()
        further = float(np.clip(FURTHER_UNIT * at[-4] / layout.size, -1, 1)) if free > 3 else 0.0
        return target.turned(rotation, exp(further))

    def gap(at: Array, block: int) -> Floats | None:
        return _gap(rebuilt(layout, at[:-free]), target_at(at), block, True)

    start = np.concatenate([values, np.zeros(free)])
    values = descended(start, gap, layout.size, blocks, iterations, 0, stop)
    found = target_at(values)
    return judged(rebuilt(layout, values[:-free]), source, found), found


def rough_cost_of(program: Program, target: Target) -> float:
    """`cost.cost_of` in the largest blocks, drawn as roughly as for their fit."""
    gap = _gap(program, target, COARSEST_BLOCK, True)
    return BUILDS_NOTHING if gap is None else squared(gap) / target.blank[COARSEST_BLOCK]


def _gap(program: Program, target: Target, block: int, fixed: bool) -> Floats | None:
    size = ROUGH_SIZE if block > FINEST_BLOCK else SIZE
    looks = drawn(program, target, fixed, size, quick=block >= FINEST_BLOCK)
    return None if looks is None else gap_of(looks, target, block)


def descended(
    values: Array,
    gap: Callable[[Array, int], Floats | None],
    size: float,
    blocks: Sequence[int],
    iterations: Sequence[int],
    first: int,
    stop: Stop,
) -> Array:
    """`values` after Levenberg and Marquardt's steps, block by block; those before `first` stay."""
    for block, steps in zip(blocks, iterations, strict=True):
        here = gap(values, block)
        if here is None or first == len(values):
            break
        cost, damping = squared(here), 0.03
        move_of_number = DERIVATIVE_STEP * size * block / 8
        for _ in range(steps):
            if stop.due():
                break
            slopes = _slopes(values, here, move_of_number, block, gap, first, stop)
            if slopes is None:
                break
            curvature = (slopes @ slopes.T).astype(np.float64)
            gradient = (slopes @ here).astype(np.float64)
            spread = np.diag(curvature) + 1e-6 * np.trace(curvature) + 1e-12
            better = None
            for _ in range(4):
                move = np.zeros(len(values))
                move[first:] = -np.linalg.solve(curvature + damping * np.diag(spread), gradient)
                move *= min(1.0, LONGEST_MOVE * size / max(float(np.abs(move).max()), 1e-12))
                there = gap(values + move, block)
                if there is not None and squared(there) < cost:
                    better = there
                    break
                damping *= 5
            if better is None:
                break
            values, here, damping = values + move, better, max(damping / 4, 1e-4)
            gained, cost = cost - squared(here), squared(here)
            if gained < SETTLED_GAIN * (cost + gained):
                break
    return values


def _slopes(
    values: Array,
    here: Floats,
    step: float,
    block: int,
    gap: Callable[[Array, int], Floats | None],
    first: int,
    stop: Stop,
) -> Floats | None:
    """Forward differences (P - first, N); backward where the step ahead builds nothing.

    None where there was no time to finish.
    """
    slopes = np.zeros((len(values) - first, len(here)), dtype=np.float32)
    for i in range(first, len(values)):
        if stop.due():
            return None
        for move in (step, -step):
            moved = values.copy()
            moved[i] += move
            there = gap(moved, block)
            if there is not None:
                slopes[i - first] = (there - here) / move
                break
    return slopes


# ---- Many candidates


def improved(
    candidates: Iterable[Candidate], target: Target, effort: Effort, stop: Stop = NEVER
) -> list[Candidate]:
    """The most promising ones, fitted: many coarsely, the best of them finely."""
    ranked = sorted((one for one in candidates if _builds(one)), key=lambda one: one.cost)
    promising = islice(distinct(ranked, lambda one: one.cost, SAME_COST), effort.tried)
    rough = [
        briefly_fitted(one.program, one.source, target, FIT_BLOCKS[:1], stop) for one in promising
    ]
    rough.sort(key=lambda one: one.price)
    best = islice(distinct(rough, lambda one: one.cost, SAME_COST), effort.refined)
    return refined(best, target, stop)


def refined(candidates: Iterable[Candidate], target: Target, stop: Stop = NEVER) -> list[Candidate]:
    """All of them fitted finely, without those that build nothing."""
    blocks = FIT_BLOCKS[1:]
    fine = [briefly_fitted(one.program, one.source, target, blocks, stop) for one in candidates]
    return [one for one in fine if _builds(one)]


def briefly_fitted(
    program: Program, source: str, target: Target, blocks: Sequence[int], stop: Stop
) -> Candidate:
    """The program after a few steps of `fit` in each block; as it is when it is time to stop."""
    if stop.due():
        return judged(program, source, target)
    steps = (STEPS_OF_A_QUICK_FIT,) * len(blocks)
    return fit(program, target, blocks, steps, source=source, stop=stop)


def _builds(one: Candidate) -> bool:
    return one.cost < BUILDS_NOTHING
