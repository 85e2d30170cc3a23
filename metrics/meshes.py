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


def radius_of_gyration(volume: float, inertia: np.ndarray) -> float:
    """Radius of gyration of a body of density 1 with (3, 3) inertia about its centre of mass."""
    return float(np.sqrt(np.trace(inertia) / (2 * volume)))


def union(solids: list[manifold3d.Manifold]) -> manifold3d.Manifold:
    """The union of all solids."""
    if len(solids) == 1:
        return solids[0]
    return manifold3d.Manifold.batch_boolean(solids, manifold3d.OpType.Add)


def weld(vertices: np.ndarray, triangles: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Merge bitwise equal vertices; drops unused ones and triangles that lose a corner."""
    used, corners = np.unique(triangles, return_inverse=True)
    points = np.ascontiguousarray(vertices[used] + 0.0)  # + 0.0 turns -0.0 into 0.0
    rows = points.view([("", points.dtype)] * 3).ravel()
    _, first, group = np.unique(rows, return_index=True, return_inverse=True)
    faces = group[corners].reshape(-1, 3)
    proper = (
        (faces[:, 0] != faces[:, 1]) & (faces[:, 1] != faces[:, 2]) & (faces[:, 2] != faces[:, 0])
    )
    return points[first], faces[proper]


def mesh_mass(points: np.ndarray, faces: np.ndarray) -> tuple[float, np.ndarray, np.ndarray]:
    """Volume, centre (3,) and inertia (3, 3) about it, density 1, of a closed oriented mesh.

    Sums over the tetrahedra between each triangle and a point inside the bounding box; the second
    moment of a tetrahedron with corners 0, a, b, c is det/120 (sum of the outer products of
    a, b, c and of a + b + c with themselves).
    """
    base = (points.min(0) + points.max(0)) / 2
    corners = points[faces] - base
    det = np.einsum("ij,ij->i", corners[:, 0], np.cross(corners[:, 1], corners[:, 2]))
    volume = float(det.sum() / 6)
    if volume == 0:
        return 0.0, base, np.zeros((3, 3))
    total = corners.sum(1)
    center = (det[:, None] * total).sum(0) / 24 / volume
    second = np.einsum("t,tki,tkj->ij", det, corners, corners)
    second = (second + np.einsum("t,ti,tj->ij", det, total, total)) / 120
    second -= volume * np.outer(center, center)
    return volume, base + center, np.trace(second) * np.eye(3) - second


def manifold_of(
    points: np.ndarray, faces: np.ndarray, merge: bool = False
) -> manifold3d.Manifold | None:
    """The solid in a closed mesh, points (N, 3) and triangles (M, 3); None if it is not closed.

    merge: near vertices of open edges are taken for one.
    """
    mesh = manifold3d.Mesh64(points, faces.astype(np.uint64))
    if merge and mesh.merge():
        faces = _merged(mesh, faces)
    if not edges_pair_up(faces):
        return None
    solid = manifold3d.Manifold(mesh)
    if solid.status() != manifold3d.Error.NoError or solid.volume() <= 0:
        return None
    return solid


def edges_pair_up(faces: np.ndarray) -> bool:
    """Whether every edge is walked as often one way as the other, as in any closed mesh.

    manifold3d 3.5 reads past its arrays for some meshes that are not, and may take the process
    with it.
    """
    after = np.roll(faces, -1, axis=1).ravel().astype(np.int64)
    before = faces.ravel().astype(np.int64)
    count = int(faces.max(initial=0)) + 1
    return np.array_equal(np.sort(before * count + after), np.sort(after * count + before))


def _merged(mesh: manifold3d.Mesh64, faces: np.ndarray) -> np.ndarray:
    """The triangles after Mesh64.merge, which leaves them as they are and lists what is one."""
    one = np.arange(mesh.vert_properties.shape[0])
    one[np.array(mesh.merge_from_vert, int)] = np.array(mesh.merge_to_vert, int)
    return one[faces]


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
        # imported here, because it begins with what this module does
        from .sandbox.mesh_repair import closed_bodies

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


def capped(points: np.ndarray, faces: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The mesh with a fan of triangles over every cycle of unmatched edges."""
    edges = np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]])
    directed = set(map(tuple, edges.tolist()))
    follow: dict[int, list[int]] = {}
    for start, end in directed:
        if (end, start) not in directed:
            follow.setdefault(end, []).append(start)  # the cap runs against the open edge
    new_points, new_faces = [points], [faces]
    count = len(points)
    while follow:
        first = next(iter(follow))
        cycle = [first]
        while cycle[-1] in follow:
            following = follow[cycle[-1]]
            cycle.append(following.pop())
            if not following:
                del follow[cycle[-2]]
            if cycle[-1] == first:
                break
        ring = np.array(cycle)
        if ring[0] != ring[-1]:
            continue
        new_points.append(points[ring[:-1]].mean(0, keepdims=True))
        apex = np.full(len(ring) - 1, count)
        new_faces.append(np.stack([ring[:-1], ring[1:], apex], 1))
        count += 1
    return np.concatenate(new_points), np.concatenate(new_faces)
