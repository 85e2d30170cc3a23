"""Candidate rotations for parts whose principal axes the inertia does not determine.

Two sources. Frames of features: directions of faces (normals, axes of round faces, directions
from the centre of mass to their centroids) of one part laid onto those of the other, which is
exact for copies. And a grid of rotations, all of them or those about the one determined axis.
Candidates are ranked by a coarse overlap: points inside one part, looked up in an occupancy grid
of the other. Only the first few are then worth an exact boolean.

Everything is deterministic. Leaves out: a guarantee of the optimum for parts that differ.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .voxels import VOXELS_A_SIDE, OccupancyGrid, frame_along

RANKING_POINTS = 300  # looked up for each candidate
CHOOSING_POINTS = 1500  # looked up for the few that a boolean may be worth
ANGLES_ABOUT_AXIS = 360  # angles about a determined axis
FREE_TURNS = 1500  # rotations where no axis is determined
MOST_DIRECTIONS = 12  # feature directions kept of each kind
SAME_ANGLE = np.radians(2.0)  # two directions, or two angles between them, are one
PARALLEL_COSINE = np.cos(np.radians(15.0))  # directions nearer than this make no frame
SNAPPED_COSINE = np.cos(np.radians(6.0))  # directions nearer than this are one that was missed
SNAPPED_ROUNDS = 5
EXACT = 1e-4  # radians: directions of flat faces, also of those in a file, are no finer


@dataclass(frozen=True, eq=False)
class Features:
    """Directions of a body, heaviest first: normals (K, 3) and centroids (L, 3), unit vectors."""

    normals: np.ndarray
    centroids: np.ndarray


def features(vertices: np.ndarray, triangles: np.ndarray, faces: np.ndarray) -> Features:
    """Feature directions from (N, 3) vertices, (M, 3) triangles, (M,) face of each triangle."""
    corners = vertices[triangles]
    across = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]) / 2
    areas = np.linalg.norm(across, axis=1)
    count = faces.max() + 1
    face_area = np.bincount(faces, areas, count)
    normal = np.stack([np.bincount(faces, across[:, i], count) for i in range(3)], 1)
    middle = corners.mean(1) * areas[:, None]
    centroid = np.stack([np.bincount(faces, middle[:, i], count) for i in range(3)], 1)
    used = face_area > 1e-9 * face_area.sum()
    flat = np.linalg.norm(normal, axis=1) > 0.999 * face_area
    directions, weights = [normal[used & flat]], [face_area[used & flat]]
    for face in np.flatnonzero(used & ~flat):
        mine = faces == face
        unit = across[mine] / np.maximum(areas[mine], 1e-300)[:, None]
        axis = np.linalg.eigh((unit * areas[mine][:, None]).T @ unit)[1][:, 0]
        directions.append(np.stack([axis, -axis]))
        weights.append(np.full(2, face_area[face] / 2))
    return Features(
        _heaviest(np.concatenate(directions), np.concatenate(weights)),
        _heaviest(centroid[used], np.linalg.norm(centroid[used], axis=1)),
    )


def _heaviest(vectors: np.ndarray, weights: np.ndarray) -> np.ndarray:
    lengths = np.linalg.norm(vectors, axis=1)
    kept = lengths > 1e-9
    units, weights = vectors[kept] / lengths[kept][:, None], weights[kept]
    chosen: list[np.ndarray] = []
    totals: list[float] = []
    for index in np.argsort(-weights, kind="stable")[:200]:
        close = np.array(chosen) @ units[index] > np.cos(SAME_ANGLE / 2) if chosen else []
        if np.any(close):
            totals[int(np.argmax(close))] += weights[index]
        elif len(chosen) < 4 * MOST_DIRECTIONS:
            chosen.append(units[index])
            totals.append(weights[index])
    order = np.argsort(-np.array(totals), kind="stable")[:MOST_DIRECTIONS]
    return np.array(chosen)[order].reshape(-1, 3)


def feature_turns(
    a: Features, b: Features, axes: tuple[np.ndarray, np.ndarray] | None
) -> np.ndarray:
    """Rotations (K, 3, 3) that lay features of `b` onto features of `a`.

    axes: the determined axis of each, which then is the first direction of every frame.
    """
    found = [np.zeros((0, 3, 3))]
    pairs = ((a.normals, b.normals), (a.centroids, b.centroids))
    for seconds_a, seconds_b in pairs:
        if axes is not None:
            target = _frames(axes[0][None], seconds_a)[:4]
            source = _frames(np.stack([axes[1], -axes[1]]), seconds_b)
            found.append(_matched(target, source))
            continue
        for firsts_a, firsts_b in pairs:
            target = _frames(firsts_a[:4], seconds_a)[:2]
            found.append(_matched(target, _frames(firsts_b, seconds_b)))
    return np.concatenate(found)


def _frames(firsts: np.ndarray, seconds: np.ndarray) -> np.ndarray:
    """(K, 3, 4): right-handed frames in columns, and the angle between the two directions."""
    if not len(firsts) or not len(seconds):
        return np.zeros((0, 3, 4))
    first = np.repeat(firsts, len(seconds), 0)
    second = np.tile(seconds, (len(firsts), 1))
    cosine = np.einsum("ij,ij->i", first, second)
    kept = np.abs(cosine) < PARALLEL_COSINE
    first, second, cosine = first[kept], second[kept], cosine[kept]
    side = second - cosine[:, None] * first
    side /= np.linalg.norm(side, axis=1, keepdims=True)
    angle = np.repeat(np.arccos(cosine)[:, None], 3, 1)
    return np.stack([first, side, np.cross(first, side), angle], 2)


def _matched(target: np.ndarray, source: np.ndarray) -> np.ndarray:
    close = np.abs(target[:, None, 0, 3] - source[None, :, 0, 3]) < SAME_ANGLE
    i, j = np.nonzero(close)
    return target[i][:, :, :3] @ source[j][:, :, :3].transpose(0, 2, 1)


def snapped_turn(a: Features, b: Features, turn: np.ndarray) -> np.ndarray:
    """`turn` (3, 3) with the normals of `b` laid exactly onto those of `a` that they nearly meet.

    The least turn by which the sum of the angles between them gets smallest, so that a few
    directions that are inexact or another part's do not count; what no normal says stays.
    """
    for _ in range(SNAPPED_ROUNDS):
        there = b.normals @ turn.T
        cosine = a.normals @ there.T
        if not cosine.size:
            break
        nearest = np.argmax(cosine, axis=0)
        met = cosine[nearest, np.arange(len(there))] > SNAPPED_COSINE
        there, aim = there[met], a.normals[nearest[met]]
        off = np.cross(there, aim)  # the turn that each of them asks for
        weight = 1 / (np.linalg.norm(off, axis=1) + EXACT)
        # (I - n n^T) w = n x aim for every direction n, weighted
        sides = np.eye(3) - there[:, :, None] * there[:, None, :]
        left = np.einsum("k,kij->ij", weight, sides) + 1e-6 * weight.sum() * np.eye(3)
        turn = turn_by(np.linalg.solve(left, weight @ off)) @ turn if len(there) else turn
    return turn


def turn_by(way: np.ndarray) -> np.ndarray:
    """(3, 3): the rotation about `way` (3,) by its length, in radians."""
    angle = max(float(np.linalg.norm(way)), 1e-12)
    cross = np.cross(np.eye(3), way / angle)  # cross @ x is the unit vector of way, cross x
    return np.eye(3) + np.sin(angle) * cross + (1 - np.cos(angle)) * cross @ cross


def axis_turns(target: np.ndarray, source: np.ndarray) -> np.ndarray:
    """(2 * ANGLES_ABOUT_AXIS, 3, 3): `source` (3,) onto plus and minus `target` (3,)."""
    angle = np.linspace(0, 2 * np.pi, ANGLES_ABOUT_AXIS, endpoint=False)
    spin = np.zeros((ANGLES_ABOUT_AXIS, 3, 3))
    spin[:, 0, 0] = 1
    spin[:, 1, 1] = spin[:, 2, 2] = np.cos(angle)
    spin[:, 2, 1] = np.sin(angle)
    spin[:, 1, 2] = -spin[:, 2, 1]
    onto = frame_along(target)
    return np.concatenate([onto @ spin @ frame_along(sign * source).T for sign in (1, -1)])


def all_turns() -> np.ndarray:
    """(FREE_TURNS, 3, 3), spread evenly: the super-Fibonacci spirals of Alexa, CVPR 2022."""
    psi = 1.533751168755204288118041  # root of psi^4 = psi + 4
    i = np.arange(FREE_TURNS) + 0.5
    share = i / FREE_TURNS
    alpha, beta = 2 * np.pi * i / np.sqrt(2), 2 * np.pi * i / psi
    low, high = np.sqrt(share), np.sqrt(1 - share)
    x, y = low * np.sin(alpha), low * np.cos(alpha)
    z, w = high * np.sin(beta), high * np.cos(beta)
    rows = [
        [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
        [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
        [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)],
    ]
    return np.array(rows).transpose(2, 0, 1)


def inner_points(where: OccupancyGrid, count: int = RANKING_POINTS) -> np.ndarray:
    """(count, 3) points inside, spread evenly over the volume."""
    total = np.cumsum(where.cells.ravel(), dtype=float)
    ranks = (np.arange(count) + 0.5) / count * total[-1]
    chosen = np.unravel_index(np.searchsorted(total, ranks), where.cells.shape)
    cell = np.stack(chosen, 1) + 0.5
    return (where.low + cell * where.step) @ where.frame.T


def coarse_overlap(where: OccupancyGrid, points: np.ndarray, turns: np.ndarray) -> np.ndarray:
    """As overlap_of_points, for very many turns.

    All are looked up with a third of the points; the better quarter with all of them.
    """
    share = overlap_of_points(where, points[::3], turns)
    better = np.argsort(-share, kind="stable")[: max(len(turns) // 4, 50)]
    share[better] = overlap_of_points(where, points, turns[better])
    return share


def overlap_of_points(where: OccupancyGrid, points: np.ndarray, turns: np.ndarray) -> np.ndarray:
    """(K,) share of (N, 3) points, turned by each of (K, 3, 3), that is inside."""
    side = VOXELS_A_SIDE + 2  # an empty cell at each end stands for everything outside
    padded = np.zeros((side, side, side), np.float32)
    padded[1:-1, 1:-1, 1:-1] = where.cells
    matrix = ((where.frame.T[None] @ turns) / where.step[:, None]).astype(np.float32)
    place = np.empty((len(turns), 3, len(points)), np.float32)
    place[:] = (1 - where.low / where.step).astype(np.float32)[:, None]
    # By hand: BLAS would start threads for a product with an inner dimension of 3.
    for i, line in enumerate(points.T.astype(np.float32)):
        place += matrix[:, :, i, None] * line
    np.clip(place, 0, side - 1, out=place)
    cell = place.astype(np.int32)
    index = (cell[:, 0] * side + cell[:, 1]) * side + cell[:, 2]
    return padded.ravel()[index].mean(1)
