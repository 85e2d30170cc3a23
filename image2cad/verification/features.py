"""A picture as shares of part, line and shade in blurred blocks: what costs are made of.

    features_of(picture, 8)         # (3 n n,), n = 448 / 8

Blocks of 16, 8, 4 or 2 pixels; in larger ones drawings that are further apart still meet.
"""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray

from image2cad.reading import FACE_SHADE
from image2cad.rendering import SIZE, Picture

Floats = NDArray[np.float32]
COARSEST_BLOCK = 16  # pixels a side, in which guesses are ranked
FIT_BLOCKS = (COARSEST_BLOCK, 8, 4)  # from coarse to fine
FINEST_BLOCK = 4  # the block that costs are given at
PIXEL_BLOCK = 2  # the block that tells what rounding changes
SHARE_WEIGHTS = np.array([1.0, 1.5, 2.0], dtype=np.float32)  # part, line, shade
FACE_DARKNESS = 1 - FACE_SHADE / 255  # of a face along a main plane


def features_of(picture: Picture, block: int) -> Floats:
    """Part, line and shade shares in blurred blocks, weighted and flattened: (3 n n,) float32.

    picture: (N, N, 3), or its red channel (N, N). It may be drawn smaller than 448; `block`
    still counts pixels of 448.
    """
    zoom = SIZE // len(picture)
    shares = _shares(picture if picture.ndim == 2 else picture[..., 0], block // zoom)
    # A line is one pixel wide at any size: what is too much of it was face.
    shares[2] += shares[1] * np.float32((1 - 1 / zoom) * FACE_DARKNESS)
    shares[1] /= zoom
    values: Floats = blurred(shares) * SHARE_WEIGHTS[:, None, None]
    return values.ravel() * np.float32(block)


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
def blurred(shares):  # type: ignore[no-untyped-def]
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


def squared(gap: Floats) -> float:
    """What a difference of features costs, before it is a share: its squares, summed.

    Ranking, growing and the least squares of the fit all go by it.
    """
    return float(gap @ gap)
