"""Random closed outlines with arcs: rounded rectangles, slots, arches, discs with a flat.

    path = CURVED["arch"](rng, 80.0, 50.0)

Each fills, or nearly fills, a box of the given width and height about the origin.
Left out: whole circles (profiles.py), splines, ellipses.
"""

from __future__ import annotations

from collections.abc import Callable
from math import acos, cos, hypot, sin, sqrt, tan

import numpy as np

from image2cad.programs import Path, Point, Segment

Rng = np.random.Generator
Corners = list[tuple[float, float]]


def between(rng: Rng, low: float, high: float) -> float:
    """A number from low to high."""
    return float(rng.uniform(low, high))


def filleted(points: Corners, radii: list[float]) -> Path:
    """A polygon with rounded corners; radius 0 leaves one sharp, too large a radius is cut."""
    count = len(points)
    pieces: list[tuple[Point, Point | None, Point]] = []
    for i, (x, y) in enumerate(points):
        (px, py), (nx, ny) = points[i - 1], points[(i + 1) % count]
        before, after = hypot(px - x, py - y), hypot(nx - x, ny - y)
        if radii[i] <= 0 or min(before, after) < 1e-9:
            pieces.append(((x, y), None, (x, y)))
            continue
        a, b = ((px - x) / before, (py - y) / before), ((nx - x) / after, (ny - y) / after)
        half = acos(max(-1.0, min(1.0, a[0] * b[0] + a[1] * b[1]))) / 2
        if not 0.05 < half < 1.5:
            pieces.append(((x, y), None, (x, y)))
            continue
        reach = min(radii[i] / tan(half), 0.5 * before, 0.5 * after)
        radius = reach * tan(half)
        to_mid = (radius / sin(half) - radius) / (2 * cos(half))
        mid = (x + to_mid * (a[0] + b[0]), y + to_mid * (a[1] + b[1]))
        pieces.append(
            ((x + reach * a[0], y + reach * a[1]), mid, (x + reach * b[0], y + reach * b[1]))
        )
    segments: list[Segment] = []
    for i in range(count):
        _, middle, end = pieces[i]
        if middle is not None:
            segments.append(Segment(end, middle))
        segments.append(Segment(pieces[(i + 1) % count][0]))
    return Path(pieces[0][0], tuple(segments))


def _rounded(rng: Rng, w: float, h: float) -> Path:
    corners: Corners = [(-w / 2, -h / 2), (w / 2, -h / 2), (w / 2, h / 2), (-w / 2, h / 2)]
    radius = min(w, h) * between(rng, 0.06, 0.5)
    which = [[1, 1, 1, 1], [1, 1, 1, 1], [0, 0, 1, 1], [0, 1, 0, 1], [0, 0, 1, 0]]
    return filleted(corners, [radius * on for on in which[int(rng.integers(len(which)))]])


def _slot(rng: Rng, w: float, h: float) -> Path:
    if w < h:
        return transposed(_slot(rng, h, w))
    x, y = w / 2, h / 2
    a = x - y if rng.random() < 0.8 else x - y * between(rng, 0.3, 1.0)
    sides = (Segment((a, -y)), Segment((a, y), (x, 0)), Segment((-a, y)))
    return Path((-a, -y), (*sides, Segment((-a, -y), (-x, 0))))


def _arch(rng: Rng, w: float, h: float) -> Path:
    """A rectangle one side of which is an arc: a half disc at its fullest."""
    x, y = w / 2, h / 2
    rise = min(h, w / 2) * (1.0 if rng.random() < 0.6 else between(rng, 0.3, 0.9))
    if h - rise < 0.05 * h:
        return Path((-x, -y), (Segment((x, -y)), Segment((-x, -y), (0, rise - y))))
    sides = (Segment((x, -y)), Segment((x, y - rise)), Segment((-x, y - rise), (0, y)))
    return Path((-x, -y), sides)


def _quarter(rng: Rng, w: float, h: float) -> Path:
    r = min(w, h)
    arc = Segment((-r / 2, r / 2), (r * (sqrt(0.5) - 0.5), r * (sqrt(0.5) - 0.5)))
    return Path((-r / 2, -r / 2), (Segment((r / 2, -r / 2)), arc))


def _bitten(rng: Rng, w: float, h: float) -> Path:
    """A rectangle with a round bite out of one side."""
    x, y = w / 2, h / 2
    r = min(w / 2, h) * between(rng, 0.2, 0.9)
    at = 0.0 if rng.random() < 0.7 else between(rng, r - x, x - r)
    top = (Segment((at + r, y)), Segment((at - r, y), (at, y - r)), Segment((-x, y)))
    return Path((-x, -y), (Segment((x, -y)), Segment((x, y)), *top))


def _flat(rng: Rng, w: float, h: float) -> Path:
    """A disc with a flat."""
    r = min(w, h) / 2
    low = -r * between(rng, 0.3, 0.9)
    half = sqrt(r * r - low * low)
    return Path((-half, low), (Segment((half, low)), Segment((-half, low), (0, r))))


def _bow(rng: Rng, w: float, h: float) -> Path:
    """Half a ring, or a quarter of one."""
    outer = min(w / 2, h)
    inner = outer * between(rng, 0.3, 0.93)
    if rng.random() < 0.7:
        y = -outer / 2
        arcs = (Segment((-outer, y), (0, outer + y)), Segment((-inner, y)))
        return Path((outer, y), (*arcs, Segment((inner, y), (0, inner + y))))
    a, b, c = outer / 2, outer * sqrt(0.5) - outer / 2, inner * sqrt(0.5) - outer / 2
    arcs = (Segment((-a, a), (b, b)), Segment((-a, inner - a)))
    return Path((a, -a), (*arcs, Segment((inner - a, -a), (c, c))))


def transposed(path: Path) -> Path:
    """x and y exchanged."""
    return mapped(path, lambda p: (p[1], p[0]))


def mapped(path: Path, move: Callable[[Point], Point]) -> Path:
    pairs = [(s.end, s.mid) for s in path.segments]
    segments = tuple(Segment(move(end), None if mid is None else move(mid)) for end, mid in pairs)
    return Path(move(path.start), segments)


CURVED: dict[str, Callable[[Rng, float, float], Path]] = {
    "rounded": _rounded, "slot": _slot, "arch": _arch, "quarter": _quarter, "bitten": _bitten,
    "flat": _flat, "bow": _bow,
}  # fmt: skip
