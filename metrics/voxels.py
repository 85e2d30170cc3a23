"""A solid as a grid of voxels: how much of each cell is inside."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

VOXELS_A_SIDE = 32  # cells a side of the occupancy grid


@dataclass(frozen=True, eq=False)
class OccupancyGrid:
    """Share of each cell that is inside, cells (G, G, G), in a turned frame.

    frame: (3, 3), its columns are the grid's axes. low: (3,) corner, step: (3,) size of a cell.
    """

    cells: np.ndarray
    frame: np.ndarray
    low: np.ndarray
    step: np.ndarray


def frame_along(axis: np.ndarray) -> np.ndarray:
    """Right-handed frame (3, 3), in columns, whose first is the unit vector `axis` (3,)."""
    side = np.eye(3)[np.argmin(np.abs(axis))]
    side = side - (side @ axis) * axis
    side /= np.linalg.norm(side)
    return np.stack([axis, side, np.cross(axis, side)], 1)


def occupancy_grid(
    vertices: np.ndarray, triangles: np.ndarray, axis: np.ndarray | None, side: int = VOXELS_A_SIDE
) -> OccupancyGrid:
    """Occupancy of a closed mesh; exact along the third axis of the grid, sampled across.

    axis: becomes the third axis, so that a thin plate across it is well resolved. Without one
    the grid is turned by an odd angle, so that no wall lies along it.
    """
    odd = frame_along(np.array([0.267, 0.535, 0.802]) / np.linalg.norm([0.267, 0.535, 0.802]))
    frame = odd if axis is None else frame_along(axis)[:, [1, 2, 0]]
    points = vertices @ frame
    low, high = points.min(0), points.max(0)
    step = (high - low) * (1 + 1e-6) / side
    corners = (points[triangles] - low) / step  # in cells
    column, height, sign = _crossings(corners, side)
    level = np.clip(height, 0, side - 1e-9)
    cell = level.astype(int)
    rest = level - cell
    change = np.zeros((side * side, side + 1))
    np.add.at(change, (column, cell), sign * (1 - rest))
    np.add.at(change, (column, cell + 1), sign * rest)
    inside = np.clip(np.cumsum(change, 1)[:, :side], 0, 1)
    return OccupancyGrid(inside.reshape(side, side, side).astype(np.float32), frame, low, step)


def _crossings(corners: np.ndarray, side: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Where the upright line through each column's centre meets the mesh.

    corners: (M, 3, 3) in cells. Returns column number, height and direction (+1 enters).
    """
    flat = corners[:, :, :2]
    area = _cross(flat[:, 1] - flat[:, 0], flat[:, 2] - flat[:, 0])
    first = np.maximum(np.ceil(flat.min(1) - 0.5), 0).astype(int)
    last = np.minimum(np.floor(flat.max(1) - 0.5), side - 1).astype(int)
    size = np.maximum(last - first + 1, 0) * (area != 0)[:, None]
    count = size[:, 0] * size[:, 1]
    which = np.repeat(np.arange(len(count)), count)
    order = np.arange(len(which)) - np.repeat(np.cumsum(count) - count, count)
    ix = first[which, 0] + order // np.maximum(size[which, 1], 1)
    iy = first[which, 1] + order % np.maximum(size[which, 1], 1)
    # Off the centre by an odd amount: lines through edges and corners would be counted twice.
    point = np.stack([ix + 0.5 + 1.234e-5, iy + 0.5 + 2.718e-5], 1)
    a, b, c = (flat[which, i] - point for i in range(3))
    weights = np.stack([_cross(b, c), _cross(c, a), _cross(a, b)], 1) / area[which][:, None]
    hit = (weights >= 0).all(1)
    which, weights = which[hit], weights[hit]
    height = np.einsum("ij,ij->i", weights, corners[which, :, 2])
    return ix[hit] * side + iy[hit], height, -np.sign(area[which])


def _cross(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    return u[:, 0] * v[:, 1] - u[:, 1] * v[:, 0]
