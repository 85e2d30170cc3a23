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
from .meshes import SAME_VOLUME_WITHIN, manifolds_of_part
from .parts import Part
from .triangles import mesh_mass, mesh_of, radius_of_gyration, union
from .voxels import OccupancyGrid, occupancy_grid
from .wire import ARRAYS


@dataclass(frozen=True, eq=False)
class NormalisedPart:
    """A Part at its centre of mass, radius of gyration 1.

    solid: the union of its solids. volume: of that mesh. moments: (3,) ascending. axes: (3, 3)
    eigenvectors in columns, as `numpy.linalg.eigh` returns them. part: where it came from.
    notes: repairs that the mesh needed. place: the centre (3,) and the radius of gyration of its
    mesh, in the units of the part.
    """

    solid: manifold3d.Manifold
    volume: float
    moments: np.ndarray
    axes: np.ndarray
    part: Part
    notes: tuple[str, ...]
    place: tuple[np.ndarray, float]
    grids: dict[int | None, OccupancyGrid] = field(default_factory=dict)

    @cached_property
    def features(self) -> rotations.Features:
        """Feature directions, for the search of alignments."""
        return rotations.features(
            (self.part.vertices - self.place[0]) / self.place[1],
            self.part.triangles,
            self.part.faces,
        )

    def grid(self, axis: int | None) -> OccupancyGrid:
        """Occupancy grid whose third axis is a principal axis, or one that is turned oddly."""
        if axis not in self.grids:
            direction = None if axis is None else self.axes[:, axis]
            self.grids[axis] = occupancy_grid(*mesh_of(self.solid), direction)
        return self.grids[axis]


_known: weakref.WeakKeyDictionary[Part, NormalisedPart] = weakref.WeakKeyDictionary()


def normalise(part: Part) -> NormalisedPart:
    """The Part normalised for comparison; kept as long as the Part lives."""
    known = _known.get(part)
    if known is None:
        known = _known[part] = _normalised(part)
    return known


def _normalised(part: Part) -> NormalisedPart:
    arrays = {name: getattr(part, name) for name in ARRAYS}
    size = radius_of_gyration(part.volume, part.inertia)
    solids, notes = manifolds_of_part(arrays, part.center, size)
    whole = union(solids)
    volume, center, inertia = mesh_mass(*mesh_of(whole))
    if not volume > 0:
        raise ValueError("the mesh of the solids has no volume")
    exact = part.volume / size**3
    if abs(volume - exact) > SAME_VOLUME_WITHIN * exact:
        notes.append(f"mesh volume is {volume / exact:.3f} of the exact volume")
    # The mesh's own centre and size, not the exact ones: the chords of a round lie inside it, and
    # a part that is exact would else be smaller than the same part from a mesh.
    own = radius_of_gyration(volume, inertia)
    whole = whole.translate(-center).scale([1 / own] * 3)
    moments, axes = np.linalg.eigh(inertia / np.trace(inertia))
    place = (part.center + center * size, size * own)
    return NormalisedPart(whole, volume / own**3, moments, axes, part, tuple(notes), place)
