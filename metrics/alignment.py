"""Which rotations IoU_best tries: the three alignments, never to be mixed in one table.

- `published`: the frames of CAD-Coder's figures, axes straight from `eigh`. About half of all
  pairs then compare mirror images. For comparing with papers only.
- `pca`: the four proper rotations that bring the principal axes together.
- `best`: `pca`, and a search (rotations.py) where principal moments are nearly equal, so that the
  inertia alone does not determine the axes.
"""

from __future__ import annotations

import numpy as np

from . import rotations
from .normalised import NormalisedPart

ALIGNMENTS = ("best", "pca", "published")
PROPER_SIGNS = np.array([[1, 1, 1], [1, -1, -1], [-1, 1, -1], [-1, -1, 1]], float)
EQUAL_MOMENTS_WITHIN = 0.05  # moments closer than this share of the largest count as equal

# how many turns get an exact boolean after the coarse ranking: about one axis, about any
TRIED_ABOUT_AXIS, TRIED_FREELY = 6, 12
NEIGHBOUR_ANGLE = np.radians(4.0)  # of two turns nearer than this only the better one is tried
DUPLICATE_ANGLE = np.radians(1.5)  # two turns nearer than this are one
COARSE_ERROR = 0.15  # measured: the coarse estimate is below the truth by more in under 1 %


def principal_turns(a: NormalisedPart, b: NormalisedPart, mirrored: bool) -> np.ndarray:
    """(4, 3, 3): the principal axes of `b` onto those of `a`, in all proper sign choices.

    mirrored: take the axes as they come, so that all four may be reflections.
    """
    target, source = (a.axes, b.axes) if mirrored else (right_handed(a.axes), right_handed(b.axes))
    return np.stack([target @ np.diag(signs) @ source.T for signs in PROPER_SIGNS])


def right_handed(axes: np.ndarray) -> np.ndarray:
    """Axes (3, 3) in columns, the last one turned if the frame is left-handed."""
    return axes * np.array([1, 1, np.sign(np.linalg.det(axes))])


def searched_turns(a: NormalisedPart, b: NormalisedPart) -> list[tuple[np.ndarray, float]]:
    """Further rotations (3, 3) worth trying, each with the IoU to hope for, in order."""
    gaps = [np.diff(one.moments) < EQUAL_MOMENTS_WITHIN * one.moments[2] for one in (a, b)]
    low, high = gaps[0] | gaps[1]
    if not low and not high:
        return []
    if low and high:
        features = rotations.feature_turns(a.features, b.features, None)
        return _promising(a, b, features, rotations.all_turns(), None, TRIED_FREELY)
    axis = 2 if low else 0
    axes = (a.axes[:, axis], b.axes[:, axis])
    features = rotations.feature_turns(a.features, b.features, axes)
    return _promising(a, b, features, rotations.axis_turns(*axes), axis, TRIED_ABOUT_AXIS)


def _promising(
    a: NormalisedPart,
    b: NormalisedPart,
    features: np.ndarray,
    others: np.ndarray,
    axis: int | None,
    count: int,
) -> list[tuple[np.ndarray, float]]:
    turns = np.concatenate([features, others])
    inside = rotations.coarse_overlap(a.grid(axis), rotations.inner_points(b.grid(axis)), turns)
    common = inside * b.volume
    expected = common / (a.volume + b.volume - common)
    # The better half of the places goes to turns from features, which are exact where they are
    # right at all; a neighbour on the grid can look better in the coarse ranking.
    known = np.arange(len(turns)) < len(features)
    chosen = _spread(turns, np.where(known, expected, -1), (count + 1) // 2, [])
    chosen = _spread(turns, np.where(known, -1, expected), count, chosen)
    return [(turns[index], 1.0 if known[index] else float(expected[index])) for index in chosen]


def _spread(turns: np.ndarray, worth: np.ndarray, count: int, chosen: list[int]) -> list[int]:
    """Add the most worthy turns to `chosen`, up to `count`, none near another of this kind and
    none practically the same as one that is already there."""
    old, found = len(chosen), list(chosen)
    for index in np.argsort(-worth, kind="stable"):
        if len(found) == count or worth[index] < 0:
            break
        # The trace of a rotation is 1 + 2 cos(angle).
        near = np.einsum("kij,ij->k", turns[found], turns[index]) if found else np.zeros(0)
        limits = np.where(np.arange(len(found)) < old, DUPLICATE_ANGLE, NEIGHBOUR_ANGLE)
        if not (near >= 1 + 2 * np.cos(limits)).any():
            found.append(int(index))
    return found
