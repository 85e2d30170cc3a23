"""GenCAD-Code's camera: from model units to pixels."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from image2cad.common import Array

SIZE = 448  # the pictures of GenCAD-Code
EYE = (1.0, -1.0, 1.0)
MARGIN = 1.5  # picture side over the part's side: FitAll(0.5)
ASPECT = 0.75  # the viewer was 640 x 480 before the resize to a square


def camera_of(box: Array, eye: Sequence[float] = EYE) -> tuple[Array, Array]:
    """The (3, 3) matrix and (3,) offset from model units to (column, row, depth) in pixels.

    `box` holds the lowest and the highest corner. Columns grow to the right, rows
    downwards, depth towards the eye. Raises ValueError for an eye without direction.
    """
    view = np.asarray(eye, dtype=np.float64)
    length = float(np.linalg.norm(view))
    if view.shape != (3,) or not np.isfinite(length) or length == 0:
        raise ValueError(f"the eye must be a direction in space, not {eye}")
    view = view / length
    right = np.array([-view[1], view[0], 0.0])
    # From straight above or below, x points to the right.
    across = float(np.linalg.norm(right))
    right = right / across if across > 1e-9 else np.array([1.0, 0.0, 0.0])
    up = np.cross(view, right)
    sides = box[1] - box[0]
    width, height = np.abs(right) @ sides, np.abs(up) @ sides
    scale = SIZE / (MARGIN * max(height, ASPECT * width, 1e-300))
    matrix = scale * np.stack([right, -up, view])
    offset = np.array([SIZE / 2, SIZE / 2, 0.0]) - matrix @ (box[0] + box[1]) / 2
    return matrix, offset
