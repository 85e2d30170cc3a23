"""Which rotations IoU_best tries: the three alignments, never to be mixed in one table.

- `published`: the frames of CAD-Coder's figures, axes straight from `eigh`. About half of all
  pairs then compare mirror images. For comparing with papers only.
- `pca`: the four proper rotations that bring the principal axes together.
- `best`: `pca`, and a search where principal moments are nearly equal, so that the axes are not
  determined by the inertia alone.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from .geometry import Body

ALIGNMENTS = ("best", "pca", "published")
SIGNS = np.array([[1, 1, 1], [1, -1, -1], [-1, 1, -1], [-1, -1, 1]], float)
DEGENERATE = 0.05  # relative difference below which two moments count as equal


def rotations(a: Body, b: Body, alignment: str) -> np.ndarray:
    """The (K, 3, 3) matrices to turn `b` by. Raises ValueError for an unknown alignment."""
    if alignment == "published":
        return _frames(a.axes, b.axes)
    if alignment == "pca":
        return _frames(proper(a.axes), proper(b.axes))
    if alignment == "best":
        return np.concatenate([_frames(proper(a.axes), proper(b.axes)), _around_axis(a, b)])
    raise ValueError(f"unknown alignment {alignment!r}; choose one of {', '.join(ALIGNMENTS)}")


def proper(axes: np.ndarray) -> np.ndarray:
    """Axes (3, 3) in columns, the last one turned if the frame is left-handed."""
    return axes * np.array([1, 1, np.linalg.det(axes)])


def _frames(target: np.ndarray, source: np.ndarray) -> np.ndarray:
    return np.stack([target @ np.diag(signs) @ source.T for signs in SIGNS])


def _around_axis(a: Body, b: Body, steps: int = 72) -> np.ndarray:
    gap = min(np.diff(a.moments).min(), np.diff(b.moments).min())
    if gap > DEGENERATE * a.moments.max():
        return np.zeros((0, 3, 3))
    axis = 2 if np.argmin(np.diff(a.moments)) == 0 else 0
    first, second = [i for i in range(3) if i != axis]
    found = []
    for angle in np.linspace(0, 2 * np.pi, steps, endpoint=False):
        turn = np.eye(3)
        turn[first, first] = turn[second, second] = np.cos(angle)
        turn[first, second], turn[second, first] = -np.sin(angle), np.sin(angle)
        for signs in (SIGNS[0], np.where(np.arange(3) == second, 1.0, -1.0)):
            found.append(proper(a.axes) @ turn @ np.diag(signs) @ proper(b.axes).T)
    return np.stack(found)
