"""Compares two Parts: IoU after alignment, IoU in the unit box, volume and box errors.

IoU_best moves both parts to their centre of mass, scales each to radius of gyration 1 and takes
the best overlap over rotations (alignment.py says which). Volumes of solids, not of shells:
triangle meshes through manifold3d booleans.
"""

from __future__ import annotations

import weakref
from dataclasses import dataclass

import manifold3d
import numpy as np

from .alignment import ALIGNMENTS, rotations
from .meshes import solid_manifolds, union
from .parts import Part

__all__ = ["ALIGNMENTS", "Body", "body", "iou_aligned", "iou_rotated", "iou_unit_box"]

CERTAIN = 0.99999  # no better rotation is looked for above this


@dataclass(frozen=True, eq=False)
class Body:
    """A Part at its centre of mass, radius of gyration 1.

    solid: the union of its solids. volume: of that mesh. moments: (3,) ascending. axes: (3, 3)
    eigenvectors in columns, as `numpy.linalg.eigh` returns them. points: (N, 3) mesh vertices.
    notes: repairs that the mesh needed.
    """

    solid: manifold3d.Manifold
    volume: float
    moments: np.ndarray
    axes: np.ndarray
    points: np.ndarray
    notes: tuple[str, ...]


_bodies: weakref.WeakKeyDictionary[Part, Body] = weakref.WeakKeyDictionary()


def body(part: Part) -> Body:
    """The Part normalised for comparison; kept as long as the Part lives."""
    known = _bodies.get(part)
    if known is None:
        known = _bodies[part] = _normalised(part)
    return known


def _normalised(part: Part) -> Body:
    gyration = np.sqrt(np.trace(part.inertia) / (2 * part.volume))
    points = (part.vertices - part.center) / gyration
    owner = part.solid_of_face[part.faces]
    solids, notes = solid_manifolds(points, part.triangles, owner)
    solid = union(solids)
    moments, axes = np.linalg.eigh(part.inertia / (part.volume * gyration**2))
    return Body(solid, solid.volume(), moments, axes, points, tuple(notes))


def iou_aligned(a: Part, b: Part, alignment: str = "best") -> float:
    """IoU_best of two parts, in [0, 1]. alignment: "best", "pca" or "published"."""
    first, second = body(a), body(b)
    best = 0.0
    for turn in rotations(first, second, alignment):
        best = max(best, iou_rotated(first, second, turn))
        if best > CERTAIN:
            break
    return best


def iou_rotated(a: Body, b: Body, turn: np.ndarray) -> float:
    """IoU of `a` and of `b` turned by the (3, 3) matrix `turn`, without further alignment."""
    moved = b.solid.transform(np.hstack([turn, np.zeros((3, 1))]))
    common = (a.solid ^ moved).volume()
    return _ratio(common, a.volume, b.volume)


def iou_unit_box(a: Part, b: Part) -> float:
    """IoU without alignment: each part's bounding box is centred and its longest side made 1.

    The convention of CAD-Recode and cadrille: orientation must match, place and size need not.
    """
    first, second = _in_unit_box(a), _in_unit_box(b)
    return _ratio((first ^ second).volume(), first.volume(), second.volume())


def _in_unit_box(part: Part) -> manifold3d.Manifold:
    low, high = part.vertices.min(0), part.vertices.max(0)
    points = (part.vertices - (low + high) / 2) / (high - low).max()
    return union(solid_manifolds(points, part.triangles, part.solid_of_face[part.faces])[0])


def _ratio(common: float, a: float, b: float) -> float:
    together = a + b - common
    return float(min(max(common / together, 0.0), 1.0)) if together > 0 else 0.0
