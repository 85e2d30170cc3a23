"""Read the flat faces of a picture as sketches: the visible caps of extrusions.

    for cap in caps(picture):           # Cap(plane, loops, straight, pixels)
        loops = cap.at(level)           # the sketch on its plane at that level

Faces along the main axes all have one known shade, so they fall out of the picture as
connected regions. Their outlines, seen in a main plane, become lines, arcs, circles and
rectangles. A region does not say which of the three planes it lies on, nor how far
away: every reading is returned, and the caller tries them. Coordinates are in units of
`PIXELS` pixels about the middle of the picture. Left out: oblique and round faces.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import atan2, sqrt
from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray
from scipy import ndimage

from image2cad.profiles import shifted
from image2cad.programs import Circle, Loop, Path, Rect, Segment

Array = NDArray[Any]

PIXELS = 2.5  # to a unit of length
PLANES = ("XY", "XZ", "YZ")  # top, front and right: the three that face the viewer
AXES = (2, 1, 0)  # the axis across each plane
INWARDS = (-1.0, 1.0, -1.0)  # along that axis, away from the viewer
DRIFT = ((1.0, -1.0), (-1.0, -1.0), (-1.0, 1.0))  # of a sketch with the level of its plane
SHADE = 141  # of a face along the main axes
LEAST = 30  # pixels of a face
HOLE = 12  # pixels of a hole
BOUND = 0.7  # share of a face's border on lines or on white; bands on round faces have less
TOLERANCE = 1.0  # pixels between outline and polygon
BULGE = 0.5  # radians an arc turns at least


@dataclass(frozen=True, eq=False)
class Cap:
    """One reading of a flat region: a sketch on a plane through the middle of the picture.

    plane: index into PLANES. loops: the outline, then its holes. straight: share of the
    outline that runs along the plane's axes or is round; low for a wrong reading.
    mask: (448, 448) bool, the region.
    """

    plane: int
    loops: tuple[Loop, ...]
    straight: float
    mask: Array

    def at(self, level: float) -> tuple[Loop, ...]:
        """The loops where the plane lies at `level`: they look the same from the eye."""
        u, v = DRIFT[self.plane]
        return tuple(shifted(loop, u * level, v * level) for loop in self.loops)


def caps(picture: Array, most: int = 12) -> list[list[Cap]]:
    """For each flat region of a (448, 448, 3) picture, largest first, its readings.

    A region with holes is also read without them: something may stand there.
    """
    found = []
    for mask in flat_regions(picture)[:most]:
        readings = [_reading(mask, plane) for plane in range(len(PLANES))]
        cups = [cap for cap in readings if cap is not None]
        cups += [Cap(c.plane, c.loops[:1], c.straight, mask) for c in cups if len(c.loops) > 1]
        if cups:
            found.append(cups)
    return found


def flat_regions(picture: Array) -> list[Array]:
    """Masks of the connected regions that have the shade of the main planes, largest first."""
    grey = picture[..., 0].astype(int)
    edge = (grey < 50) | (grey >= 250)
    labels, count = ndimage.label(np.abs(grey - SHADE) <= 2)
    sizes = np.bincount(labels.ravel(), minlength=count + 1)
    order = np.argsort(-sizes[1:], kind="stable") + 1
    masks = [labels == i for i in order if sizes[i] >= LEAST]
    return [mask for mask in masks if edge[ndimage.binary_dilation(mask) & ~mask].mean() > BOUND]


def _reading(mask: Array, plane: int) -> Cap | None:
    filled = ndimage.binary_fill_holes(mask)
    outer, straight = _loop(_outline(filled), plane)
    if outer is None:
        return None
    loops: list[Loop] = [outer]
    labels, count = ndimage.label(filled & ~mask, np.ones((3, 3)))
    for i in range(1, count + 1):
        hole = labels == i
        if hole.sum() >= HOLE:
            inner, _ = _loop(_outline(hole), plane)
            if inner is not None:
                loops.append(inner)
    return Cap(plane, tuple(loops), straight, mask)


def _outline(mask: Array) -> Array:
    """(K, 2) middles of the cracks around a region as (row, column), once around."""
    row = int(np.argmax(mask.any(axis=1)))
    corners = _follow(mask, row, int(np.argmax(mask[row]))).astype(float)
    return (corners + np.roll(corners, -1, axis=0)) / 2


@njit(cache=True)
def _follow(mask, row, col):  # type: ignore[no-untyped-def]
    """Corners around the region, which stays on the right; starts on top of (row, col)."""
    height, width = mask.shape
    out = np.empty((4 * height * width, 2), dtype=np.int32)
    count, r, c, way = 0, row, col, 0  # east, south, west, north
    while count < out.shape[0]:
        out[count, 0], out[count, 1] = r, c
        count += 1
        if way == 0:
            c += 1
            left, right = (r - 1, c), (r, c)
        elif way == 1:
            r += 1
            left, right = (r, c), (r, c - 1)
        elif way == 2:
            c -= 1
            left, right = (r, c - 1), (r - 1, c - 1)
        else:
            r -= 1
            left, right = (r - 1, c - 1), (r - 1, c)
        inside = 0 <= right[0] < height and 0 <= right[1] < width and mask[right[0], right[1]]
        beyond = 0 <= left[0] < height and 0 <= left[1] < width and mask[left[0], left[1]]
        if not inside:
            way = (way + 1) % 4
        elif beyond:
            way = (way + 3) % 4
        if r == row and c == col and way == 0:
            break
    return out[:count]


def _on_plane(points: Array, plane: int) -> Array:
    """(K, 2) sketch coordinates, at level 0, of (row, column) points."""
    side = sqrt(2) * (points[:, 1] - 224) / PIXELS
    rise = sqrt(6) * (224 - points[:, 0]) / PIXELS
    if plane == 0:
        return np.stack([side - rise, side + rise], axis=1) / 2
    return np.stack([side, (rise + side) / 2 if plane == 1 else (rise - side) / 2], axis=1)


def _loop(points: Array, plane: int) -> tuple[Loop | None, float]:
    """The outline (K, 2) in pixels as a loop on the plane, and how straight it is there."""
    flat, pixel = _on_plane(points, plane), 1 / PIXELS
    if len(flat) > 8:
        centre, radius, error = _circle(flat)
        if sqrt((error**2).mean()) < 0.45 * pixel + 0.01 * radius and (
            error.max() < 1.6 * pixel + 0.03 * radius
        ):
            return Circle(float(centre[0]), float(centre[1]), float(radius)), 1.0
    corners = _simplified(points, TOLERANCE)
    if len(corners) < 3:
        return None, 0.0
    nodes = _with_arcs(flat, corners, pixel)
    places = np.array([flat[corner] for corner, _ in nodes])
    sides = np.abs(np.roll(places, -1, axis=0) - places)
    lengths = np.hypot(*sides.T)
    round_ = np.array([mid is not None for _, mid in nodes])
    along = round_ | (sides.min(axis=1) < 0.06 * lengths + 0.5 * pixel)
    straight = float(lengths[along].sum() / max(lengths.sum(), 1e-9))
    places = np.stack([_levelled(places[:, i], 1.6 * pixel) for i in (0, 1)], axis=1)
    if len(nodes) == 4 and not round_.any():
        low, high = places.min(axis=0), places.max(axis=0)
        if all(len(np.unique(places[:, i])) == 2 for i in (0, 1)):
            middle, size = (low + high) / 2, high - low
            return Rect(*map(float, (*middle, *size))), straight
    if len(nodes) < 2 or (len(nodes) < 3 and not round_.any()):
        return None, 0.0
    segments = [
        Segment(_pair(places[(i + 1) % len(nodes)]), None if mid is None else _pair(flat[mid]))
        for i, (_, mid) in enumerate(nodes)
    ]
    if segments[-1].mid is None:
        segments.pop()
    return Path(_pair(places[0]), tuple(segments)), straight


def _pair(point: Array) -> tuple[float, float]:
    return float(point[0]), float(point[1])


def _circle(points: Array) -> tuple[Array, float, Array]:
    """Centre, radius and distances of the circle that fits (K, 2) best (Kasa 1976)."""
    columns = np.column_stack([2 * points, np.ones(len(points))])
    solution = np.linalg.lstsq(columns, (points**2).sum(axis=1), rcond=None)[0]
    centre = solution[:2]
    radius = sqrt(max(float(solution[2] + centre @ centre), 1e-12))
    return centre, radius, np.abs(np.hypot(*(points - centre).T) - radius)


def _simplified(points: Array, tolerance: float) -> list[int]:
    """Corners of the closed outline by Douglas and Peucker (1973), as sorted indices."""
    count = len(points)
    far = int(np.argmax(((points - points[0]) ** 2).sum(axis=1)))
    start = int(np.argmax(((points - points[far]) ** 2).sum(axis=1)))
    kept, open_ = {start, far}, [(start, far), (far, start)]
    while open_:
        first, last = open_.pop()
        between = _range(first, last, count)[1:-1]
        if not len(between):
            continue
        line, rest = points[last] - points[first], points[between] - points[first]
        length = float(np.hypot(*line))
        off = np.abs(rest[:, 0] * line[1] - rest[:, 1] * line[0]) / length if length else None
        off = np.hypot(*rest.T) if off is None else off
        worst = int(np.argmax(off))
        if off[worst] > tolerance:
            kept.add(int(between[worst]))
            open_ += [(first, int(between[worst])), (int(between[worst]), last)]
    return sorted(kept)


def _range(first: int, last: int, count: int) -> Array:
    """Indices from `first` up to and including `last`, around the end of `count`."""
    return np.arange(first, last + (count if last <= first else 0) + 1) % count


def _with_arcs(flat: Array, corners: Sequence[int], pixel: float) -> list[tuple[int, int | None]]:
    """Corners (indices into `flat`) with the middle of the arc that follows, longest arcs first."""
    count = len(corners)
    runs = []
    for first in range(count):
        for length in range(count - 1, 2, -1):
            steps = _range(corners[first], corners[(first + length) % count], len(flat))
            if len(steps) > 0.95 * len(flat):
                continue
            centre, radius, error = _circle(flat[steps])
            if error.max() < 1.5 * pixel and radius < 200:
                ends = flat[[corners[(first + i) % count] for i in range(length + 1)]] - centre
                turns = [
                    atan2(a[0] * b[1] - a[1] * b[0], a @ b)
                    for a, b in zip(ends, ends[1:], strict=False)
                ]
                if abs(sum(turns)) > BULGE:
                    runs.append((length, first, int(steps[len(steps) // 2])))
                    break
    arcs: dict[int, tuple[int, int]] = {}
    taken: set[int] = set()
    for length, first, mid in sorted(runs, reverse=True):
        mine = {(first + i) % count for i in range(length)}
        if not mine & taken:
            taken |= mine
            arcs[first] = (length, mid)
    inner = {(first + i) % count for first, (n, _) in arcs.items() for i in range(1, n)}
    nodes: list[tuple[int, int | None]] = []
    start = next(i for i in range(count) if i not in inner)
    at = start
    while at < start + count:
        length, middle = arcs.get(at % count, (1, None))
        nodes.append((corners[at % count], middle))
        at += length
    return nodes


def _levelled(values: Array, near: float) -> Array:
    """Values (K,) closer than `near` made equal."""
    out = values.copy()
    group: list[int] = []
    for i in np.argsort(values, kind="stable"):
        if group and values[i] - values[group[0]] > near:
            group = []
        group.append(int(i))
        out[group] = values[group].mean()
    return out
