"""A Part made comparable: at its centre of mass, with radius of gyration 1, as one closed mesh.

geometry.py compares two of them, alignment.py finds the rotations to try.
"""

from __future__ import annotations

import weakref
from dataclasses import dataclass, field
from functools import cached_property

import manifold3d
import numpy as np

from . import rotations
from .meshes import solid_manifolds, union
from .parts import Part
from .voxels import OccupancyGrid, occupancy_grid

MESH_VOLUME_TOLERANCE = 0.02  # between mesh and B-rep; more is noted


@dataclass(frozen=True, eq=False)
class NormalisedPart:
    """A Part at its centre of mass, radius of gyration 1.

    solid: the union of its solids. volume: of that mesh. moments: (3,) ascending. axes: (3, 3)
    eigenvectors in columns, as `numpy.linalg.eigh` returns them. part: where it came from.
    notes: repairs that the mesh needed.
    """

    solid: manifold3d.Manifold
    volume: float
    moments: np.ndarray
    axes: np.ndarray
    part: Part
    notes: tuple[str, ...]
    grids: dict[int | None, OccupancyGrid] = field(default_factory=dict)

    @cached_property
    def features(self) -> rotations.Features:
        """Feature directions, for the search of alignments."""
        return rotations.features(
            normalised_points(self.part), self.part.triangles, self.part.faces
        )

    def grid(self, axis: int | None) -> OccupancyGrid:
        """Occupancy grid whose third axis is a principal axis, or one that is turned oddly."""
        if axis not in self.grids:
            mesh = self.solid.to_mesh64()
            vertices, triangles = np.array(mesh.vert_properties), np.array(mesh.tri_verts)
            direction = None if axis is None else self.axes[:, axis]
            self.grids[axis] = occupancy_grid(vertices[:, :3], triangles.astype(int), direction)
        return self.grids[axis]


_known: weakref.WeakKeyDictionary[Part, NormalisedPart] = weakref.WeakKeyDictionary()


def normalise(part: Part) -> NormalisedPart:
    """The Part normalised for comparison; kept as long as the Part lives."""
    known = _known.get(part)
    if known is None:
        known = _known[part] = _normalised(part)
    return known


def _normalised(part: Part) -> NormalisedPart:
    owner = part.solid_of_face[part.faces]
    solids, notes = solid_manifolds(normalised_points(part), part.triangles, owner)
    solid = union(solids)
    exact = part.volume / _gyration(part) ** 3
    if abs(solid.volume() - exact) > MESH_VOLUME_TOLERANCE * exact:
        notes.append(f"mesh volume is {solid.volume() / exact:.3f} of the exact volume")
    moments, axes = np.linalg.eigh(part.inertia / np.trace(part.inertia))
    return NormalisedPart(solid, solid.volume(), moments, axes, part, tuple(notes))


def normalised_points(part: Part) -> np.ndarray:
    """(N, 3) mesh vertices about the centre of mass, in radii of gyration."""
    return (part.vertices - part.center) / _gyration(part)


def _gyration(part: Part) -> float:
    return float(np.sqrt(np.trace(part.inertia) / (2 * part.volume)))
