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
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
from numba import njit
from numpy.typing import NDArray

from image2cad.parameters import parameters, rebuilt
from image2cad.prisms import Shape, prism, together
from image2cad.programs import Extrusion, Program
from image2cad.rasterising import SIZE, draw, draw_roughly
from image2cad.solids import Drawing, build
from image2cad.soundness import tangled

Floats = NDArray[np.float32]
Picture = NDArray[np.uint8]

BLOCKS = (16, 8, 4)  # pixels a side, from coarse to fine
ITERATIONS = (6, 6, 6)  # steps at most for each size of block
FINEST = 4  # the block that costs are given at
ROUGH = SIZE // 2  # pixels a side of the pictures that are compared in larger blocks
WEIGHTS = np.array([1.0, 1.5, 2.0], dtype=np.float32)  # part, line, shade
FACE = 1 - 141 / 255  # darkness of a face along a main plane
STEP = 0.008  # of a number for its derivative, as a share of the part, at blocks of 8 pixels
FARTHEST = 0.3  # a number moves by this share of the part at most in one step
SETTLED = 0.01  # gains below this share of the cost end a level
MOST_NUMBERS = 150  # of a program that is fitted; more take longer than they are worth
NOTHING = float("inf")  # cost of a program that builds nothing


@dataclass(frozen=True, eq=False)
class Target:
    """A picture as weighted features for each size of block; `blank`: an empty picture's cost."""

    picture: Picture
    features: dict[int, Floats]
    blank: dict[int, float]


@dataclass(frozen=True)
class Fit:
    """The fitted program, its cost (0 is equal, 1 an empty picture), and how often it was drawn."""

    program: Program
    cost: float
    drawn: int


def look_at(picture: Picture) -> Target:
    """The features of a (448, 448, 3) uint8 picture with a white background and black lines."""
    features = {block: features_of(picture, block) for block in (2, *BLOCKS)}
    blank = {block: max(float(values @ values), 1e-9) for block, values in features.items()}
    return Target(picture, features, blank)


def features_of(picture: Picture, block: int) -> Floats:
    """Part, line and shade shares in blurred blocks, weighted and flattened: (3 n n,) float32.

    picture: (N, N, 3), or its red channel (N, N). It may be drawn smaller than 448; `block`
    still counts pixels of 448.
    """
    zoom = SIZE // len(picture)
    shares = _shares(picture if picture.ndim == 2 else picture[..., 0], block // zoom)
    # A line is one pixel wide at any size: what is too much of it was face.
    shares[2] += shares[1] * np.float32((1 - 1 / zoom) * FACE)
    shares[1] /= zoom
    values: Floats = _blurred(shares) * WEIGHTS[:, None, None]
    return values.ravel() * np.float32(block)


def drawn(
    program: Program,
    box: NDArray[np.float64] | None = None,
    size: int = SIZE,
    quick: bool = False,
) -> Picture | None:
    """The picture of a program, or None if it builds nothing or a sketch crosses itself.

    box: (2, 3) corners that the camera frames instead of the part's own. size: with less
    than 448 its red channel only, drawn roughly. quick: lay the extrusions of a part
    without cuts over each other, each built once as long as its numbers stay; only the
    lines where they pass through each other are then missing.
    """
    if quick and all(step.operation == "union" for step in program):
        blocks = [_alone(step) for step in program]
        whole = [block for block in blocks if block is not None]
        return picture_of(together(whole), box, size) if len(whole) == len(blocks) else None
    if any(tangled(step.loops) for step in program):
        return None
    drawing = build(program)
    return None if drawing is None else picture_of(drawing, box, size)


@lru_cache(maxsize=256)
def _alone(step: Extrusion) -> Shape | None:
    return None if tangled(step.loops) else prism(step)


def picture_of(
    drawing: Drawing | Shape, box: NDArray[np.float64] | None = None, size: int = SIZE
) -> Picture:
    """The picture of a built part; see `drawn`."""
    shape = drawing if box is None else replace(drawing, bounding_box=box)
    return draw(shape) if size == SIZE else draw_roughly(shape, size)


def cost_of(
    program: Program,
    target: Target,
    block: int = FINEST,
    box: NDArray[np.float64] | None = None,
) -> float:
    """Squared difference of the features as a share of an empty picture's, or NOTHING."""
    picture = drawn(program, box)
    if picture is None:
        return NOTHING
    gap = features_of(picture, block) - target.features[block]
    return float(gap @ gap) / target.blank[block]


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


@njit(cache=True)
def _shares(picture, block):  # type: ignore[no-untyped-def]
    """(3, n, n) of blocks: share of pixels on the part, share on lines, mean darkness of faces."""
    n = picture.shape[0] // block
    out = np.zeros((3, n, n), dtype=np.float32)
    weight = np.float32(1.0 / (block * block))
    for row in range(n * block):
        for col in range(n * block):
            value = picture[row, col]
            if value >= 250:
                continue
            i, j = row // block, col // block
            out[0, i, j] += weight
            if value < 50:
                out[1, i, j] += weight
            else:
                out[2, i, j] += weight * (1.0 - value / 255.0)
    return out


@njit(cache=True)
def _blurred(shares):  # type: ignore[no-untyped-def]
    """Each plane convolved with [1 2 1] / 4 along both sides; the border repeats."""
    planes, n, m = shares.shape
    rows, out = np.empty_like(shares), np.empty_like(shares)
    for p in range(planes):
        for i in range(n):
            for j in range(m):
                left, right = shares[p, i, max(j - 1, 0)], shares[p, i, min(j + 1, m - 1)]
                rows[p, i, j] = 0.25 * left + 0.5 * shares[p, i, j] + 0.25 * right
        for i in range(n):
            for j in range(m):
                above, below = rows[p, max(i - 1, 0), j], rows[p, min(i + 1, n - 1), j]
                out[p, i, j] = 0.25 * above + 0.5 * rows[p, i, j] + 0.25 * below
    return out
