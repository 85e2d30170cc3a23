"""The lines of a mesh that viewers draw: where faces meet sharply, and where they turn away.

    lines = sharp_lines(shape, degrees=30)              # points (2 E, 3), starts (E + 1,)
    lines = turning_lines(shape, camera)

By the normals at the corners, so that a smooth face has none however coarse its mesh is, and the
shape's own edges (its B-rep's, seams included) are not needed. Left out: which lines are hidden;
raster.look tells.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from image2cad.common import Array
from image2cad.rendering.camera import Camera
from image2cad.rendering.raster import Drawable

SAME_POINT = 1e-6  # of the longest side: corners that are nearer are one
EDGE_ON = 1e-6  # cosine of a face that is not seen
Lines = tuple[Array, Array]  # points (2 E, 3) and starts (E + 1,) of lines from point to point


@dataclass(frozen=True, eq=False)
class _Borders:
    """Lines between two triangles each. ends: (E, 2, 3). one, other: (E, 2, 3) normals there.

    rows: (E, 2) of the two triangles; -1 where there is no second.
    """

    ends: Array
    one: Array
    other: Array
    rows: Array


def sharp_lines(shape: Drawable, degrees: float) -> Lines:
    """Where two faces meet at more than so many degrees, or a face ends."""
    borders = _borders(shape)
    cosines = (borders.one * borders.other).sum(axis=2).min(axis=1)
    sharp = (cosines < np.cos(np.radians(degrees))) | (borders.rows[:, 1] < 0)
    return _as_lines(borders.ends[sharp])


def turning_lines(shape: Drawable, camera: Camera) -> Lines:
    """Where a face that is seen meets one that is turned away: the outlines of round faces."""
    borders = _borders(shape)
    triangles = np.asarray(shape.triangles, dtype=np.int64)
    corners = np.asarray(shape.vertices, dtype=np.float64)[triangles]
    across = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    towards = camera.eye - corners[:, 0] if camera.in_perspective else camera.eye
    cosine = (across * towards).sum(axis=1)
    # A face that is seen edge on is turned away: its near side is the outline, its far side hidden.
    edge_on = EDGE_ON * np.linalg.norm(across, axis=1) * np.linalg.norm(towards, axis=-1)
    seen = cosine > edge_on
    turning = (borders.rows[:, 1] >= 0) & (seen[borders.rows[:, 0]] != seen[borders.rows[:, 1]])
    return _as_lines(borders.ends[turning])


def both_lines(one: Lines, other: Lines) -> Lines:
    """Both."""
    return np.concatenate([one[0], other[0]]), np.append(one[1], other[1][1:] + len(one[0]))


def _as_lines(ends: Array) -> Lines:
    return ends.reshape(-1, 3), np.arange(0, 2 * len(ends) + 1, 2)


def _borders(shape: Drawable) -> _Borders:
    vertices = np.asarray(shape.vertices, dtype=np.float64)
    normals = np.asarray(shape.normals, dtype=np.float64)
    triangles = np.asarray(shape.triangles, dtype=np.int64)
    step = SAME_POINT * float(np.ptp(np.asarray(shape.bounding_box), axis=0).max() or 1.0)
    _, point = np.unique(np.rint(vertices / step).astype(np.int64), axis=0, return_inverse=True)
    point = point.ravel()
    first = triangles.ravel()
    second = np.roll(triangles, -1, axis=1).ravel()
    owner = np.repeat(np.arange(len(triangles)), 3)
    real = point[first] != point[second]
    first, second, owner = first[real], second[real], owner[real]
    turned = point[first] > point[second]
    low, high = np.where(turned, second, first), np.where(turned, first, second)
    order = np.lexsort((point[high], point[low]))
    low, high, owner = low[order], high[order], owner[order]
    new = np.ones(len(low), dtype=bool)
    new[1:] = (point[low][1:] != point[low][:-1]) | (point[high][1:] != point[high][:-1])
    starts = np.flatnonzero(new)
    counts = np.diff(np.append(starts, len(low)))
    pair = np.where(counts > 1, starts + 1, starts)
    ends = np.stack([vertices[low[starts]], vertices[high[starts]]], axis=1)
    one = np.stack([normals[low[starts]], normals[high[starts]]], axis=1)
    other = np.stack([normals[low[pair]], normals[high[pair]]], axis=1)
    rows = np.stack([owner[starts], np.where(counts > 1, owner[pair], -1)], axis=1)
    return _Borders(ends, one, other, rows)
