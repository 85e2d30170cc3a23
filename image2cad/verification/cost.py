"""What a picture is made of, how a program looks, and what the difference costs."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
from numba import njit
from numpy.typing import NDArray

from image2cad.cad import Drawing, Extrusion, Mesh, Program, build, drawn_as_one, prism, tangled
from image2cad.rendering import SIZE, Picture, draw, draw_roughly

Floats = NDArray[np.float32]
BLOCKS = (16, 8, 4)  # pixels a side, from coarse to fine
FINEST = 4  # the block that costs are given at
WEIGHTS = np.array([1.0, 1.5, 2.0], dtype=np.float32)  # part, line, shade
FACE = 1 - 141 / 255  # darkness of a face along a main plane
NOTHING = float("inf")  # cost of a program that builds nothing


@dataclass(frozen=True, eq=False)
class Target:
    """A picture as weighted features for each size of block; `blank`: an empty picture's cost."""

    picture: Picture
    features: dict[int, Floats]
    blank: dict[int, float]


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
        return picture_of(drawn_as_one(whole), box, size) if len(whole) == len(blocks) else None
    if any(tangled(step.loops) for step in program):
        return None
    drawing = build(program)
    return None if drawing is None else picture_of(drawing, box, size)


@lru_cache(maxsize=256)
def _alone(step: Extrusion) -> Mesh | None:
    return None if tangled(step.loops) else prism(step)


def picture_of(
    drawing: Drawing | Mesh, box: NDArray[np.float64] | None = None, size: int = SIZE
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
