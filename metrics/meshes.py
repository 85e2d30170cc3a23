"""From the triangles of a Part to manifold3d solids, welded bit by bit and checked.

The tessellation gives every B-rep face its own vertices. Welding equal coordinates inside each
solid makes a closed mesh for nearly all parts; the few that stay open are closed by the steps of
`_repaired`, and the result says which step was needed. manifold3d reports a mesh that it cannot
use only through `status()` and then has volume 0, so the status is checked every time.
"""

from __future__ import annotations

import contextlib

import manifold3d
import numpy as np
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components
from scipy.spatial import cKDTree

from .sandbox.mesh_repair import closed_bodies
from .triangles import capped, manifold_of, union, weld
from .voxels import occupancy_grid

SAME_VOLUME_WITHIN = 0.02  # between mesh and integral; more is another solid
MERGED = "open mesh closed by merging near vertices"
WELD_DISTANCES = (1e-5, 1e-3)  # of the longest side: how far apart vertices that may be one lie
# vertices that near to each on average; more are detail, and pairs of them fill memory
MOST_NEIGHBOURS = 30
FALLBACK_VOXELS = 48  # cells along each side, as a last resort


def solid_manifolds(
    vertices: np.ndarray, triangles: np.ndarray, owner: np.ndarray
) -> tuple[list[manifold3d.Manifold], list[str]]:
    """One manifold per solid, and notes on what had to be repaired.

    vertices: (N, 3) float64. triangles: (M, 3) indices. owner: (M,) solid index per triangle.
    Raises ValueError where a solid cannot be closed.
    """
    solids, notes = [], []
    for index in np.unique(owner):
        points, faces = weld(vertices, triangles[owner == index])
        solid = manifold_of(points, faces)
        if solid is None:
            solid, note = _repaired(points, faces)
            notes.append(note)
        solids.append(solid)
    return solids, notes


def manifolds_of_part(
    arrays: dict[str, np.ndarray], center: np.ndarray, size: float
) -> tuple[list[manifold3d.Manifold], list[str]]:
    """solid_manifolds of a Part's arrays (wire.py) at its centre of mass, in radii of gyration.

    The measuring child and the scorer both ask this way, so that they give one verdict.
    """
    owner = arrays["solid_of_face"][arrays["faces"]]
    return solid_manifolds((arrays["vertices"] - center) / size, arrays["triangles"], owner)


def _repaired(points: np.ndarray, faces: np.ndarray) -> tuple[manifold3d.Manifold, str]:
    merged = manifold_of(points, faces, merge=True)
    if merged is not None:
        return merged, MERGED
    closed = manifold_of(*capped(points, faces))
    if closed is not None:
        return closed, "open mesh closed by capping its holes"
    size = float(np.ptp(points, axis=0).max())
    tree = cKDTree(points)
    for near in WELD_DISTANCES:
        if tree.count_neighbors(tree, near * size) > MOST_NEIGHBOURS * len(points):
            break
        pairs = tree.query_pairs(near * size, output_type="ndarray")
        loose = manifold_of(*_loosely_welded(points, faces, pairs))
        if loose is not None:
            return loose, "open mesh closed by welding near vertices"
    with contextlib.suppress(ValueError):
        bodies, _ = closed_bodies(points, faces)
        return union([body.manifold for body in bodies]), "mesh mended piece by piece"
    return _voxels(points, faces), "mesh is no manifold; measured by voxels"


def _loosely_welded(
    points: np.ndarray, faces: np.ndarray, pairs: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Both vertices of each pair merged, and triangles that then lie on each other left out.

    Where a hole touches a face from inside, its wall there has no thickness.
    """
    links = coo_matrix((np.ones(len(pairs)), (pairs[:, 0], pairs[:, 1])), [len(points)] * 2)
    group = connected_components(links, directed=False)[1]
    _, first = np.unique(group, return_index=True)
    corners = np.sort(group[faces], axis=1)
    proper = (corners[:, 0] != corners[:, 1]) & (corners[:, 1] != corners[:, 2])
    _, same, count = np.unique(corners, axis=0, return_inverse=True, return_counts=True)
    return points[first], group[faces][proper & (count[same.ravel()] == 1)]


def _voxels(points: np.ndarray, faces: np.ndarray) -> manifold3d.Manifold:
    """The solid as upright bars over a grid of columns, for meshes that nothing else closes."""
    where = occupancy_grid(points, faces, np.array([0.0, 0.0, 1.0]), FALLBACK_VOXELS)
    inside = np.pad(where.cells > 0.5, ((0, 0), (0, 0), (1, 1)))
    change = np.diff(inside.astype(np.int8), axis=2)
    starts, ends = np.argwhere(change == 1), np.argwhere(change == -1)  # in the same order
    bars = []
    for start, end in zip(starts, ends, strict=True):
        size = where.step * [1, 1, end[2] - start[2]]
        bars.append(manifold3d.Manifold.cube(size).translate(where.low + start * where.step))
    solid = manifold3d.Manifold.batch_boolean(bars, manifold3d.OpType.Add)
    if solid.status() != manifold3d.Error.NoError or solid.volume() <= 0:
        raise ValueError("the mesh of a solid cannot be closed")
    return solid
