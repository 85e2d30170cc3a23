"""Fit all the numbers of a program to a picture, jointly.

    target = look_at(picture)                     # (448, 448, 3) uint8
    result = fit(program, target)                 # Fit(program, cost, drawn)

Levenberg-Marquardt on the difference between drawing and picture: shares of part,
line and shade in blurred blocks of 16, then 8, then 4 pixels. Moving one number while
others are wrong often makes a drawing worse, so all move at once. Candidates are
built by the light engine and drawn with their own camera, as the picture was, so
place and size cancel out. Left out: changing what a program is made of (growing.py).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from image2cad.cad import Program
from image2cad.rendering import SIZE
from image2cad.verification.cost import BLOCKS, FINEST, Floats, Target, cost_of, drawn, features_of
from image2cad.verification.parameters import parameters, rebuilt

ITERATIONS = (6, 6, 6)  # steps at most for each size of block
ROUGH = SIZE // 2  # pixels a side of the pictures that are compared in larger blocks
STEP = 0.008  # of a number for its derivative, as a share of the part, at blocks of 8 pixels
FARTHEST = 0.3  # a number moves by this share of the part at most in one step
SETTLED = 0.01  # gains below this share of the cost end a level
MOST_NUMBERS = 150  # of a program that is fitted; more take longer than they are worth


@dataclass(frozen=True)
class Fit:
    """The fitted program, its cost (0 is equal, 1 an empty picture), and how often it was drawn."""

    program: Program
    cost: float
    drawn: int


def fit(
    program: Program,
    target: Target,
    blocks: Sequence[int] = BLOCKS,
    iterations: Sequence[int] = ITERATIONS,
    tied: float = 0.004,
    box: NDArray[np.float64] | None = None,
    go_on: Callable[[], bool] = lambda: True,
    steady: int = 0,
) -> Fit:
    """`program` with its numbers moved to where its drawing is most like the picture.

    tied: numbers closer than this share of the part move as one. go_on: asked before
    every step; False ends the fit with what there is. steady: so many extrusions at the
    beginning keep their numbers.
    """
    layout, values = parameters(program, tied)
    if len(values) > MOST_NUMBERS:
        return Fit(program, cost_of(program, target, box=box), 1)
    first = max(layout.places[: len(parameters(program[:steady], 0.0)[0].places)], default=-1) + 1
    count = 0

    def gap(at: NDArray[np.float64], block: int) -> Floats | None:
        nonlocal count
        count += 1
        size = ROUGH if block > FINEST else SIZE
        picture = drawn(rebuilt(layout, at), box, size, quick=block >= FINEST)
        return None if picture is None else features_of(picture, block) - target.features[block]

    for block, steps in zip(blocks, iterations, strict=True):
        here = gap(values, block)
        if here is None or first == len(values):
            break
        cost, damping = float(here @ here), 0.03
        for _ in range(steps):
            if not go_on():
                break
            slopes = _slopes(values, here, STEP * layout.size * block / 8, block, gap, first, go_on)
            if slopes is None:
                break
            curvature = (slopes @ slopes.T).astype(np.float64)
            gradient = (slopes @ here).astype(np.float64)
            spread = np.diag(curvature) + 1e-6 * np.trace(curvature) + 1e-12
            better = None
            for _ in range(4):
                move = np.zeros(len(values))
                move[first:] = -np.linalg.solve(curvature + damping * np.diag(spread), gradient)
                move *= min(1.0, FARTHEST * layout.size / max(float(np.abs(move).max()), 1e-12))
                there = gap(values + move, block)
                if there is not None and float(there @ there) < cost:
                    better = there
                    break
                damping *= 5
            if better is None:
                break
            values, here, damping = values + move, better, max(damping / 4, 1e-4)
            gained, cost = cost - float(here @ here), float(here @ here)
            if gained < SETTLED * (cost + gained):
                break
    result = rebuilt(layout, values)
    return Fit(result, cost_of(result, target, box=box), count + 1)


def _slopes(
    values: NDArray[np.float64],
    here: Floats,
    step: float,
    block: int,
    gap: Callable[[NDArray[np.float64], int], Floats | None],
    first: int,
    go_on: Callable[[], bool],
) -> Floats | None:
    """Forward differences (P - first, N); backward where the step ahead builds nothing.

    None where there was no time to finish.
    """
    slopes = np.zeros((len(values) - first, len(here)), dtype=np.float32)
    for i in range(first, len(values)):
        if not go_on():
            return None
        for move in (step, -step):
            moved = values.copy()
            moved[i] += move
            there = gap(moved, block)
            if there is not None:
                slopes[i - first] = (there - here) / move
                break
    return slopes
