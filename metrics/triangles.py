"""What is done to plain triangles: welded, capped, weighed, made one manifold3d solid.

meshes.py and sandbox/mesh_repair.py make solids of whole Parts and files with it.
"""

from __future__ import annotations

import manifold3d
import numpy as np


def union(solids: list[manifold3d.Manifold]) -> manifold3d.Manifold:
    """The union of all solids."""
    if len(solids) == 1:
        return solids[0]
    return manifold3d.Manifold.batch_boolean(solids, manifold3d.OpType.Add)


def radius_of_gyration(volume: float, inertia: np.ndarray) -> float:
    """Radius of gyration of a body of density 1 with (3, 3) inertia about its centre of mass."""
    return float(np.sqrt(np.trace(inertia) / (2 * volume)))


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


def triangle_areas(points: np.ndarray, triangles: np.ndarray) -> np.ndarray:
    """(M,) area of each triangle."""
    corners = points[triangles]
    across = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    return np.linalg.norm(across, axis=1) / 2


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


def mesh_of(solid: manifold3d.Manifold) -> tuple[np.ndarray, np.ndarray]:
    """Points (N, 3) and triangles (M, 3) of a solid."""
    mesh = solid.to_mesh64()
    return np.array(mesh.vert_properties)[:, :3], np.array(mesh.tri_verts).astype(np.int64)


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
