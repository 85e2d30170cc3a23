"""Groups the triangles of a closed mesh into faces, as the solid that it was made from had them.

A plane is one face. A round surface is one face too: its flat pieces meet at small angles and are
about as large as their neighbours. A plane beside a round, as at a fillet, is much larger than
the strips of the round and stays a face of its own. rotations.py reads directions off the faces,
so a face that is split or joined wrongly costs a direction and nothing else.
"""

from __future__ import annotations

import numpy as np
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

PLANE_COSINE = np.cos(np.radians(0.3))  # triangles that meet at less lie in one plane
PLANE_DISTANCE = 1e-6  # of the longest side: a corner nearer to a plane lies in it
SMOOTH_COSINE = np.cos(np.radians(30.0))  # flat pieces that meet at less may be one round surface
PLANE_BESIDE_ROUND = 3.0  # a plane is so many times as large as its largest smooth neighbour
FEWEST_PIECES = 5  # flat pieces of a round surface; fewer are planes


def face_groups(points: np.ndarray, triangles: np.ndarray) -> np.ndarray:
    """(M,) number of the face of each triangle, from 0 on.

    points: (N, 3). triangles: (M, 3) indices of a closed, oriented mesh without double points.
    """
    corners = points[triangles]
    across = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    areas = np.linalg.norm(across, axis=1) / 2
    normals = across / np.maximum(2 * areas, 1e-300)[:, None]
    left, right = pairs_at_edges(triangles)
    cosine = np.einsum("ij,ij->i", normals[left], normals[right])
    # A needle's normal is noise, so its corners are asked whether they lie in the other's plane.
    larger = np.where(areas[left] >= areas[right], left, right)
    smaller = left + right - larger
    away = np.einsum(
        "ikj,ij->ik", corners[smaller] - corners[larger][:, :1], normals[larger]
    )  # fmt: skip
    near = np.abs(away).max(1) <= PLANE_DISTANCE * np.ptp(points, axis=0).max()
    flat = near | (cosine >= PLANE_COSINE)
    piece = _joined(len(triangles), left[flat], right[flat])

    smooth = (cosine >= SMOOTH_COSINE) & (piece[left] != piece[right])
    one, other = piece[left[smooth]], piece[right[smooth]]
    size = np.bincount(piece, areas)
    beside = np.zeros(len(size))
    np.maximum.at(beside, one, size[other])
    np.maximum.at(beside, other, size[one])
    plane = size > PLANE_BESIDE_ROUND * beside
    round_ = ~plane[one] & ~plane[other]
    surface = _joined(len(size), one[round_], other[round_])
    few = np.bincount(surface)[surface] < FEWEST_PIECES
    surface = np.where(few, len(size) + np.arange(len(size)), surface)
    return np.unique(surface[piece], return_inverse=True)[1].ravel()


def pairs_at_edges(triangles: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Both triangles at every edge that exactly two triangles share: (E,) and (E,)."""
    ends = np.sort(triangles[:, [0, 1, 1, 2, 2, 0]].reshape(-1, 2), axis=1).astype(np.int64)
    key = ends[:, 0] * (int(triangles.max(initial=0)) + 1) + ends[:, 1]
    order = np.argsort(key, kind="stable")
    _, first, count = np.unique(key[order], return_index=True, return_counts=True)
    first = first[count == 2]
    return order[first] // 3, order[first + 1] // 3


def _joined(count: int, left: np.ndarray, right: np.ndarray) -> np.ndarray:
    links = coo_matrix((np.ones(len(left)), (left, right)), (count, count))
    return connected_components(links, directed=False)[1]
