"""Compares two Parts: IoU after alignment, IoU in the unit box, volume and box errors.

IoU_best moves both parts to their centre of mass, scales each to radius of gyration 1 and takes
the best overlap over rotations (alignment.py says which, overlap.py refines the winner). Volumes of
solids, not of shells: triangle meshes through manifold3d booleans.
"""

from __future__ import annotations

from contextlib import suppress

import manifold3d
import numpy as np

from . import wire
from .alignment import ALIGNMENTS, COARSE_ERROR, principal_turns, searched_turns
from .comparing import PATIENCE, compare_apart, may_take_long, read_pair
from .meshes import solid_manifolds
from .normalised import NormalisedPart, normalise
from .overlap import OutOfPatience, climb, common_part, iou_of_volumes, patience
from .parts import Part
from .rotations import snapped_turn
from .triangles import union

UNIT_BOX = "unit box"  # how to compare, beside the alignments
PERFECT_IOU = 0.999  # no better rotation is looked for above this: meshes are no finer
MOST_IN_VAIN = 4  # turns tried one after the other that better nothing, of parts that differ
ALIKE_IOU = 0.8  # a copy of a thin part is found among turns that all come near this or above it
MOST_CLIMBS = 3
ABOUT_AS_GOOD = 0.9  # times the best start is one that is climbed from too
APART_TRACE = 1 + 2 * np.cos(np.radians(5.0))  # of the turn between two starts; more is one start
Start = tuple[float, np.ndarray, manifold3d.Manifold]


def check_alignment(alignment: str) -> None:
    """Raises ValueError for an unknown alignment."""
    if alignment not in ALIGNMENTS:
        raise ValueError(f"unknown alignment {alignment!r}; choose one of {', '.join(ALIGNMENTS)}")


def iou_aligned(a: Part, b: Part, alignment: str = "best") -> float:
    """IoU_best of two parts, in [0, 1]. alignment: "best", "pca" or "published".

    Raises ValueError for another alignment, or for a mesh that cannot be made solid, and
    NotCompared, a ValueError too, where parts of many triangles are past the deadline.
    """
    check_alignment(alignment)
    return _compared(a, b, alignment)


def _compared(a: Part, b: Part, how: str) -> float:
    if not may_take_long(a, b):
        with suppress(OutOfPatience), patience(PATIENCE):
            return compare_here(a, b, how)
    return compare_apart(a, b, how)


def compare_sent(job: bytes) -> bytes:
    """The answer to what compare_apart sends, in the child. Raises ValueError as iou_aligned."""
    return wire.pack({"ok": True, "iou": compare_here(*read_pair(job))})


def compare_here(a: Part, b: Part, how: str) -> float:
    """The IoU of two parts in this process, however long it takes. how: an alignment, UNIT_BOX."""
    if how == UNIT_BOX:
        boxed, other = _in_unit_box(a), _in_unit_box(b)
        return iou_of_volumes((boxed ^ other).volume(), boxed.volume(), other.volume())
    first, second = normalise(a), normalise(b)
    if how == "best":
        # In one order, whichever way round they are given: the search is not symmetric.
        return _best_iou(*sorted((first, second), key=lambda one: -one.volume))
    turns = principal_turns(first, second, mirrored=how == "published")
    return max(iou_rotated(first, second, turn) for turn in turns)


def _best_iou(a: NormalisedPart, b: NormalisedPart) -> float:
    """The best IoU of the parts as given, of the turns of alignment.py, and of climbs from there.

    As given first and always: most programs that are any good stand as their reference does. A
    start from which no climb leads up lies on a ridge; then the next is climbed from, for which of
    them is the best may be a matter of how finely a file was meshed.
    """
    starts: list[Start] = []

    def tried(turn: np.ndarray) -> float:
        common = common_part(a, b, turn)
        iou = iou_of_volumes(common.volume(), a.volume, b.volume)
        starts.append((iou, turn, common))
        return iou

    best = tried(np.eye(3))
    if best >= PERFECT_IOU:
        return best
    (_, there), *others = searched_turns(a, b)
    in_vain = 0
    for turn, estimate in others:
        # Estimates are compared with each other: for thin parts all of them are too low.
        if estimate < there * (1 - COARSE_ERROR) or (in_vain == MOST_IN_VAIN and best < ALIKE_IOU):
            break
        iou = tried(turn)
        if iou >= PERFECT_IOU:
            return iou
        in_vain += 1
        if iou > best:
            best, there, in_vain = iou, estimate, 0
    starts.sort(key=lambda start: -start[0])
    best = max(best, tried(snapped_turn(a.features, b.features, starts[0][1])))
    if best >= PERFECT_IOU:
        return best
    starts.sort(key=lambda start: -start[0])
    for iou, turn, common in _apart(starts):
        top = climb(a, b, turn, common)
        best = max(best, top)
        if top > iou:
            break
    return best


def _apart(starts: list[Start]) -> list[Start]:
    """The best of the starts, (IoU, turn, common part), and others about as good elsewhere."""
    chosen = starts[:1]
    for start in starts[1:]:
        if len(chosen) == MOST_CLIMBS or start[0] < starts[0][0] * ABOUT_AS_GOOD:
            break
        if all(np.trace(one[1].T @ start[1]) < APART_TRACE for one in chosen):
            chosen.append(start)
    return chosen


def iou_rotated(a: NormalisedPart, b: NormalisedPart, turn: np.ndarray) -> float:
    """IoU of `a` and of `b` turned by the (3, 3) matrix `turn`, without further alignment."""
    return iou_of_volumes(common_part(a, b, turn).volume(), a.volume, b.volume)


def iou_unit_box(a: Part, b: Part) -> float:
    """IoU without alignment: each part's bounding box is centred and its longest side made 1.

    The convention of CAD-Recode and cadrille: orientation must match, place and size need not.
    Raises ValueError as iou_aligned does.
    """
    return _compared(a, b, UNIT_BOX)


def volume_error(reference: Part, part: Part) -> float:
    """|V - V_reference| / V_reference, both volumes exact, in the programs' own units."""
    return abs(part.volume - reference.volume) / reference.volume


def box_error(reference: Part, part: Part) -> float:
    """Mean relative error of the three sides of the bounding box, axis by axis, own units."""
    sides = [np.diff(one.bounding_box, axis=0)[0] for one in (reference, part)]
    return float(np.mean(np.abs(sides[1] - sides[0]) / sides[0]))


def _in_unit_box(part: Part) -> manifold3d.Manifold:
    low, high = part.vertices.min(0), part.vertices.max(0)
    points = (part.vertices - (low + high) / 2) / (high - low).max()
    return union(solid_manifolds(points, part.triangles, part.solid_of_face[part.faces])[0])
