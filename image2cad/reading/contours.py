"""The outline of a region, point by point, as a sketch's loop: lines, arcs, circles, rectangles.

    loop, straight = loop_of(points, flat, pixel)    # (K, 2) pixels, the same in the sketch

Douglas and Peucker's corners, runs of corners that lie on a circle made arcs, corners
that the region cut off made sharp, coordinates that are nearly equal made equal. Left
out: splines and ellipses.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import atan2, sqrt

import numpy as np
from numba import njit

from image2cad.cad import Circle, Loop, Path, Rect, Segment
from image2cad.common import Array

Node = tuple[Array, Array | None]  # a corner, and the middle of the arc that follows it
OUTLINE_TOLERANCE = 1.0  # pixels between outline and polygon
BLUNT_SIDE = 6.05  # pixels of a side that is a corner cut off; sides of just 6 occur, and count
LEAST_TURN = 0.5  # radians an arc turns at least
NEARLY_SQUARE = 0.92  # share of the rectangle around it that a loop fills which is meant to be one
LARGEST_RADIUS = 500.0  # pixels of an arc's radius


def loop_of(
    points: Array,
    flat: Array,
    pixel: float,
    tolerance: float = OUTLINE_TOLERANCE,
    most_corners: int | None = None,
) -> tuple[Loop | None, float]:
    """The loop of an outline, and the share of it along the sketch's axes or on arcs.

    points: (K, 2) pixels once around. flat: (K, 2) the same in sketch coordinates, in
    which a pixel is about `pixel` long. tolerance: pixels between outline and polygon.
    None where fewer than three corners are left, or more than `most_corners`: so ragged an outline
    is no sketch, and takes long.
    """
    if len(flat) > 8:
        centre, radius, error = circle_through(flat)
        if sqrt((error**2).mean()) < 0.45 * pixel + 0.01 * radius and (
            error.max() < 1.6 * pixel + 0.03 * radius
        ):
            return Circle(float(centre[0]), float(centre[1]), float(radius)), 1.0
    corners = corners_of(points, tolerance)
    if len(corners) < 3 or (most_corners is not None and len(corners) > most_corners):
        return None, 0.0
    nodes = _sharpened(
        [
            (flat[corner], None if mid is None else flat[mid])
            for corner, mid in _with_arcs(flat, corners, pixel)
        ],
        pixel,
    )
    if len(nodes) < 2:
        return None, 0.0
    places = np.array([place for place, _ in nodes])
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
        Segment(_pair(places[(i + 1) % len(nodes)]), None if mid is None else _pair(mid))
        for i, (_, mid) in enumerate(nodes)
    ]
    if segments[-1].mid is None:
        segments.pop()
    return Path(_pair(places[0]), tuple(segments)), straight


def _sharpened(nodes: list[Node], pixel: float) -> list[Node]:
    """Blunt corners made sharp, and corners on a straight line left out.

    A region ends before the lines around it, so that a narrow tip looks cut off.
    """
    nodes = list(nodes)
    i = 0
    while len(nodes) > 3 and i < len(nodes):
        before, start, end, after = (nodes[(i + k) % len(nodes)] for k in (-1, 0, 1, 2))
        straight = before[1] is None and start[1] is None and end[1] is None
        if straight and np.hypot(*(end[0] - start[0])) < BLUNT_SIDE * pixel:
            tip = _crossing(before[0], start[0], end[0], after[0])
            if tip is not None and np.hypot(*(tip - (start[0] + end[0]) / 2)) < BLUNT_SIDE * pixel:
                nodes[i] = (tip, None)
                del nodes[(i + 1) % len(nodes)]
                i = 0
                continue
        if before[1] is None and start[1] is None:
            line = end[0] - before[0]
            off = line[0] * (start[0] - before[0])[1] - line[1] * (start[0] - before[0])[0]
            if abs(off) < 1.3 * pixel * np.hypot(*line):
                del nodes[i]
                i = 0
                continue
        i += 1
    return nodes


def _crossing(a: Array, b: Array, c: Array, d: Array) -> Array | None:
    """Where the lines a-b and c-d meet, or None if they hardly do."""
    one, other = b - a, d - c
    turn = one[0] * other[1] - one[1] * other[0]
    if abs(turn) < 0.1 * np.hypot(*one) * np.hypot(*other):
        return None
    share = ((c - a)[0] * other[1] - (c - a)[1] * other[0]) / turn
    meeting: Array = a + share * one
    return meeting


def _pair(point: Array) -> tuple[float, float]:
    return float(point[0]), float(point[1])


def circle_through(points: Array) -> tuple[Array, float, Array]:
    """Centre, radius and distances of the circle that fits (K, 2) best (Kasa 1976)."""
    x, y, radius, _ = _circle_along(np.asarray(points, dtype=np.float64), 0, len(points))
    centre = np.array([x, y])
    return centre, radius, np.abs(np.hypot(*(points - centre).T) - radius)


@njit(cache=True)
def _circle_along(points, first, count):  # type: ignore[no-untyped-def]
    """x, y, radius and largest distance of that circle for `count` points of a closed outline.

    Points on a line have an infinite one.
    """
    size = len(points)
    middle_x = middle_y = 0.0
    for k in range(count):
        middle_x += points[(first + k) % size, 0] / count
        middle_y += points[(first + k) % size, 1] / count
    uu = uv = vv = u_squares = v_squares = 0.0
    for k in range(count):
        u = points[(first + k) % size, 0] - middle_x
        v = points[(first + k) % size, 1] - middle_y
        squares = u * u + v * v
        uu += u * u
        uv += u * v
        vv += v * v
        u_squares += u * squares / 2
        v_squares += v * squares / 2
    turn = uu * vv - uv * uv
    if turn <= 1e-12 * (uu + vv) ** 2:
        return middle_x, middle_y, np.inf, np.inf
    x = (u_squares * vv - v_squares * uv) / turn
    y = (v_squares * uu - u_squares * uv) / turn
    radius = sqrt(x * x + y * y + (uu + vv) / count)
    x, y = x + middle_x, y + middle_y
    worst = 0.0
    for k in range(count):
        point = points[(first + k) % size]
        worst = max(worst, abs(sqrt((point[0] - x) ** 2 + (point[1] - y) ** 2) - radius))
    return x, y, radius, worst


def corners_of(points: Array, tolerance: float, fixed: Sequence[int] = ()) -> list[int]:
    """Corners of the closed outline by Douglas and Peucker (1973), as sorted indices.

    fixed: two or more, rising, that are corners whatever lies between.
    """
    count = len(points)
    if not fixed:
        far = int(np.argmax(((points - points[0]) ** 2).sum(axis=1)))
        start = int(np.argmax(((points - points[far]) ** 2).sum(axis=1)))
        fixed = (start, far)
    kept, open_ = set(fixed), list(zip(fixed, [*fixed[1:], fixed[0]], strict=True))
    while open_:
        first, last = open_.pop()
        between = stretch(first, last, count)[1:-1]
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


def stretch(first: int, last: int, count: int) -> Array:
    """Indices from `first` up to and including `last`, around the end of `count`."""
    return np.arange(first, last + (count if last <= first else 0) + 1) % count


def _with_arcs(flat: Array, corners: Sequence[int], pixel: float) -> list[tuple[int, int | None]]:
    """Corners (indices into `flat`) with the middle of the arc that follows, longest arcs first."""
    count = len(corners)
    runs = []
    for first in range(count):
        for length in range(count - 1, 2, -1):
            start, end = corners[first], corners[(first + length) % count]
            steps = end - start + (len(flat) if end <= start else 0) + 1
            if steps > 0.95 * len(flat):
                continue
            x, y, radius, worst = _circle_along(flat, start, steps)
            if worst < 1.5 * pixel and radius < LARGEST_RADIUS * pixel:
                centre = np.array([x, y])
                ends = flat[[corners[(first + i) % count] for i in range(length + 1)]] - centre
                turns = [
                    atan2(a[0] * b[1] - a[1] * b[0], a @ b)
                    for a, b in zip(ends, ends[1:], strict=False)
                ]
                if abs(sum(turns)) > LEAST_TURN:
                    runs.append((length, first, (start + steps // 2) % len(flat)))
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


def squared_off(loop: Loop) -> Loop:
    """The rectangle around a loop that nearly fills it; else the loop itself."""
    if isinstance(loop, Circle | Rect) or any(side.mid is not None for side in loop.segments):
        return loop
    corners = np.array([loop.start, *(side.end for side in loop.segments)])
    low, high = corners.min(axis=0), corners.max(axis=0)
    x, y = (corners - low).T
    area = abs(float(x @ np.roll(y, -1) - y @ np.roll(x, -1))) / 2
    width, height = (high - low).tolist()
    if area < NEARLY_SQUARE * width * height:
        return loop
    middle = (low + high) / 2
    return Rect(float(middle[0]), float(middle[1]), width, height)
