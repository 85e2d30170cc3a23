"""Which rotations IoU_best tries: the three alignments, never to be mixed in one table.

- `published`: the frames of CAD-Coder's figures, axes straight from `eigh`. About half of all
  pairs then compare mirror images. For comparing with papers only.
- `pca`: the four proper rotations that bring the principal axes together.
- `best`: the parts as given, `pca`, the axes as given in every proper order and sign, features of
  one laid onto features of the other, and a search (rotations.py) where principal moments are
  nearly equal, so that the inertia alone does not determine the axes. A boss far out turns the
  principal axes of a thin plate by a few degrees, which costs half the overlap: so they are not
  enough even where they are determined.
"""

from __future__ import annotations

from itertools import permutations, product

import numpy as np

from . import rotations
from .normalised import NormalisedPart

ALIGNMENTS = ("best", "pca", "published")
PROPER_SIGNS = np.array([[1, 1, 1], [1, -1, -1], [-1, 1, -1], [-1, -1, 1]], float)
EQUAL_MOMENTS_WITHIN = 0.05  # moments closer than this share of the largest count as equal

# how many turns get an exact boolean after the coarse ranking: where the axes are determined,
# about one axis, about any
TRIED_BESIDES, TRIED_ABOUT_AXIS, TRIED_FREELY = 3, 6, 12
TRIED_GIVEN = 1  # besides, of the axes as given, where there is a search
PRINCIPAL, GIVEN, FEATURE, GRID = range(4)  # where a turn comes from
NEIGHBOUR_ANGLE = np.radians(4.0)  # of two turns nearer than this only the better one is tried
DUPLICATE_ANGLE = np.radians(1.5)  # two turns nearer than this are one
SAME_TRACE = 1 + 2 * np.cos(1e-3)  # of the turn between a turn and one that is the same
# A turn whose estimate was this share below that of the best one so far bettered the IoU in no pair
# of 140. Estimates themselves are off by more: all those of a thin part are too low.
COARSE_ERROR = 0.06


def principal_turns(a: NormalisedPart, b: NormalisedPart, mirrored: bool) -> np.ndarray:
    """(4, 3, 3): the principal axes of `b` onto those of `a`, in all proper sign choices.

    mirrored: take the axes as they come, so that all four may be reflections.
    """
    target, source = (a.axes, b.axes) if mirrored else (right_handed(a.axes), right_handed(b.axes))
    return np.stack([target @ np.diag(signs) @ source.T for signs in PROPER_SIGNS])


def right_handed(axes: np.ndarray) -> np.ndarray:
    """Axes (3, 3) in columns, the last one turned if the frame is left-handed."""
    return axes * np.array([1, 1, np.sign(np.linalg.det(axes))])


def given_turns() -> np.ndarray:
    """(24, 3, 3): the proper rotations of coordinate axes onto such axes, none at all first."""
    turns = np.array(
        [
            np.diag(signs)[:, order]
            for order in permutations(range(3))
            for signs in product((1.0, -1.0), repeat=3)
        ]
    )
    return turns[np.linalg.det(turns) > 0]


def searched_turns(a: NormalisedPart, b: NormalisedPart) -> list[tuple[np.ndarray, float]]:
    """Rotations (3, 3) worth trying, each with an estimate of its IoU: the parts as given, then
    the most hopeful first."""
    gaps = [np.diff(one.moments) < EQUAL_MOMENTS_WITHIN * one.moments[2] for one in (a, b)]
    low, high = gaps[0] | gaps[1]
    given, grid = given_turns(), np.zeros((0, 3, 3))
    axis: int | None = 2
    # Also about an axis that is determined: two features may say better than it where it lies.
    features, count = rotations.feature_turns(a.features, b.features, None), TRIED_BESIDES
    if low and high:
        axis, grid, count = None, rotations.all_turns(), TRIED_FREELY
    elif low or high:
        axis = 2 if low else 0
        axes, count = (a.axes[:, axis], b.axes[:, axis]), TRIED_ABOUT_AXIS
        grid = rotations.axis_turns(*axes)
        about_it = rotations.feature_turns(a.features, b.features, axes)
        features = np.concatenate([about_it, features])
    turns = np.concatenate([principal_turns(a, b, mirrored=False), given, features, grid])
    kinds = np.repeat(
        [PRINCIPAL, GIVEN, FEATURE, GRID],
        [len(PROPER_SIGNS), len(given), len(features), len(grid)],
    )
    where, points = a.grid(axis), rotations.inner_points(b.grid(axis))
    expected = _iou_of_share(a, b, rotations.coarse_overlap(where, points, turns))

    def with_best(chosen: list[int], of: np.ndarray, places: int) -> list[int]:
        return _spread(turns, np.where(of, expected, -1), len(chosen) + places, chosen)

    as_given = len(PROPER_SIGNS)
    # Principal axes come last: near an exact turn from features they must not displace it.
    if len(grid):
        # The better half of the places goes to turns from features, which are exact where they
        # are right at all; a neighbour on the grid can look better in the coarse ranking.
        chosen = with_best([as_given], kinds == FEATURE, (count + 1) // 2)
        searched = count + 1 - len(chosen)
        chosen = with_best(chosen, kinds == GIVEN, TRIED_GIVEN)
        chosen = with_best(chosen, kinds == GRID, searched)
    else:
        chosen = with_best([as_given], (kinds == GIVEN) | (kinds == FEATURE), count)
    apart = np.einsum("aij,bij->ab", turns[: len(PROPER_SIGNS)], turns[chosen]) < SAME_TRACE
    likely = turns[[*chosen, *np.flatnonzero(apart.all(1))]]
    points = rotations.inner_points(b.grid(axis), rotations.CHOOSING_POINTS)
    found = _iou_of_share(a, b, rotations.overlap_of_points(where, points, likely))
    order = [0, *(1 + np.argsort(-found[1:], kind="stable"))]
    return [(likely[place], float(found[place])) for place in order]


def _iou_of_share(a: NormalisedPart, b: NormalisedPart, inside: np.ndarray) -> np.ndarray:
    common = inside * b.volume
    return common / (a.volume + b.volume - common)


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
