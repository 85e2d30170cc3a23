"""How alike two pictures are: one number to rank candidates by.

    likeness(picture, draw(candidate))      # 1.0 for equal pictures

SSIM of the grey values (Wang et al. 2004; uniform window of 7 x 7 pixels, K1 =
.01, K2 = .03), averaged where one of the pictures shows something: over the whole
frame the white would carry most of the mean. Left out: colour, and any shift or
turn of one picture against the other.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

from image2cad.common import Array

WINDOW_SIDE = 7  # pixels
C1, C2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
WHITE_SUM = 3 * 255  # of a white pixel's channels


def likeness(a: Array, b: Array) -> float:
    """SSIM of two (N, N, 3) uint8 pictures where either is not white, clipped to [0, 1].

    1.0 for equal pictures, two white ones included; about 0.6 for a part and a white
    sheet, about 0.5 for two parts that have nothing in common. Raises ValueError for pictures
    of different shapes, of fewer than 7 pixels a side, or of another type.
    """
    one, other = _checked(a, b)
    total, count = _ssim(one, other)
    return float(min(max(1.0 - total / count, 0.0), 1.0)) if count else 1.0


def ssim(a: Array, b: Array) -> float:
    """SSIM of the same window averaged over the whole frame, as usually published, in [-1, 1]."""
    one, other = _checked(a, b)
    rows, columns = (side - WINDOW_SIDE + 1 for side in one.shape[:2])
    return float(1.0 - _ssim(one, other)[0] / (rows * columns))


def silhouette_iou(a: Array, b: Array) -> float:
    """Pixels that are not white in both pictures over those in either; 1.0 if there are none."""
    one, other = _checked(a, b)
    return _iou((one < 255).any(axis=2), (other < 255).any(axis=2))


def line_iou(a: Array, b: Array, darkest: int = 40) -> float:
    """The same of the black lines: pixels whose channels are all below `darkest`."""
    one, other = _checked(a, b)
    return _iou((one < darkest).all(axis=2), (other < darkest).all(axis=2))


def _iou(one: Any, other: Any) -> float:
    either = int((one | other).sum())
    return int((one & other).sum()) / either if either else 1.0


def _checked(a: Array, b: Array) -> tuple[Array, Array]:
    one, other = np.ascontiguousarray(a), np.ascontiguousarray(b)
    if one.shape != other.shape or one.ndim != 3 or one.shape[2] != 3:
        raise ValueError(f"pictures of the shapes {one.shape} and {other.shape}, not (N, N, 3)")
    if one.dtype != np.uint8 or other.dtype != np.uint8:
        raise ValueError(f"pictures of {one.dtype} and {other.dtype}, not uint8")
    if min(one.shape[:2]) < WINDOW_SIDE:
        raise ValueError(f"pictures of {one.shape[:2]} pixels; {WINDOW_SIDE} a side are needed")
    return one, other


@njit(cache=True, nogil=True)
def _ssim(a, b):  # type: ignore[no-untyped-def]
    """Sum of 1 - SSIM over the windows that are not all white in both, and their number.

    Sums run down the columns and along the rows in integers, so nothing is lost.
    """
    height, width = a.shape[0], a.shape[1]
    pixels = WINDOW_SIDE * WINDOW_SIDE
    column = np.zeros((5, width), dtype=np.int64)  # x, y, x², y², xy of a window's height
    inked = np.zeros(width, dtype=np.int64)
    total, count = 0.0, 0
    for row in range(height):
        for col in range(width):
            for sign, r in ((1, row), (-1, row - WINDOW_SIDE)):
                if r < 0:
                    continue
                x = np.int64(a[r, col, 0]) + a[r, col, 1] + a[r, col, 2]
                y = np.int64(b[r, col, 0]) + b[r, col, 1] + b[r, col, 2]
                if x != WHITE_SUM or y != WHITE_SUM:
                    inked[col] += sign
                column[0, col] += sign * x
                column[1, col] += sign * y
                column[2, col] += sign * x * x
                column[3, col] += sign * y * y
                column[4, col] += sign * x * y
        if row < WINDOW_SIDE - 1:
            continue
        sx = sy = sxx = syy = sxy = ink = np.int64(0)
        for col in range(width):
            sx += column[0, col]
            sy += column[1, col]
            sxx += column[2, col]
            syy += column[3, col]
            sxy += column[4, col]
            ink += inked[col]
            if col >= WINDOW_SIDE:
                sx -= column[0, col - WINDOW_SIDE]
                sy -= column[1, col - WINDOW_SIDE]
                sxx -= column[2, col - WINDOW_SIDE]
                syy -= column[3, col - WINDOW_SIDE]
                sxy -= column[4, col - WINDOW_SIDE]
                ink -= inked[col - WINDOW_SIDE]
            if col < WINDOW_SIDE - 1 or ink == 0:
                continue
            mx, my = sx / (3.0 * pixels), sy / (3.0 * pixels)
            vx = sxx / (9.0 * pixels) - mx * mx
            vy = syy / (9.0 * pixels) - my * my
            both = sxy / (9.0 * pixels) - mx * my
            top = (2.0 * mx * my + C1) * (2.0 * both + C2)
            total += 1.0 - top / ((mx * mx + my * my + C1) * (vx + vy + C2))
            count += 1
    return total, count
