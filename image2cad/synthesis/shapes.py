"""Random closed outlines with corners and arcs: brackets, channels, wedges, slots, arches.

    path = OUTLINES["ell"](rng, 80.0, 50.0)

Every outline fills, or nearly fills, a box of the given width and height about the
origin. Left out: rectangles, circles and holes (profiles.py), splines, ellipses, text.
"""

from __future__ import annotations

from collections.abc import Callable
from math import acos, cos, hypot, pi, sin, sqrt, tan

import numpy as np

from image2cad.cad import Path, Point, Segment, mapped, transposed

Rng = np.random.Generator
Corners = list[tuple[float, float]]


# ---- What outlines are made with


def between(rng: Rng, low: float, high: float) -> float:
    """A number from low to high."""
    return float(rng.uniform(low, high))


def polygon(points: Corners) -> Path:
    """A closed polygon."""
    return Path(points[0], tuple(Segment(point) for point in points[1:]))


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


# ---- Outlines with arcs: rounded rectangles, slots, arches, discs with a flat


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


CURVED: dict[str, Callable[[Rng, float, float], Path]] = {
    "rounded": _rounded, "slot": _slot, "arch": _arch, "quarter": _quarter, "bitten": _bitten,
    "flat": _flat, "bow": _bow,
}  # fmt: skip


# ---- Outlines with corners, in the unit square: mirrored, turned, scaled, perhaps rounded later


def _walls(rng: Rng, w: float, h: float) -> tuple[float, float]:
    """Wall thicknesses as shares of width and height, most often equal in length."""
    if rng.random() < 0.6:
        wall = min(w, h) * float(np.exp(rng.uniform(np.log(0.04), np.log(0.45))))
        return wall / w, wall / h
    return between(rng, 0.06, 0.45), between(rng, 0.06, 0.45)


def _ell(rng: Rng, w: float, h: float) -> Corners:
    a, b = _walls(rng, w, h)
    return [(0, 0), (1, 0), (1, b), (a, b), (a, 1), (0, 1)]


def _tee(rng: Rng, w: float, h: float) -> Corners:
    a, b = _walls(rng, w, h)
    left = (1 - a) / 2 if rng.random() < 0.8 else between(rng, 0.05, 0.95 - a)
    right = left + a
    return [(0, 0), (1, 0), (1, b), (right, b), (right, 1), (left, 1), (left, b), (0, b)]


def _you(rng: Rng, w: float, h: float) -> Corners:
    a, b = _walls(rng, w, h)
    right = 1 - a if rng.random() < 0.8 else between(rng, a + 0.1, 0.95)
    top = 1.0 if rng.random() < 0.8 else between(rng, b + 0.1, 1.0)
    return [(0, 0), (1, 0), (1, top), (right, top), (right, b), (a, b), (a, 1), (0, 1)]


def _aitch(rng: Rng, w: float, h: float) -> Corners:
    a, b = _walls(rng, w, h)
    left, right, low, high = (1 - a) / 2, (1 + a) / 2, min(b, 0.4), 1 - min(b, 0.4)
    return [
        (0, 0), (1, 0), (1, low), (right, low), (right, high), (1, high),
        (1, 1), (0, 1), (0, high), (left, high), (left, low), (0, low),
    ]  # fmt: skip


def _zed(rng: Rng, w: float, h: float) -> Corners:
    a, b = _walls(rng, w, h)
    left, low = between(rng, 0.0, 1 - a), min(b, 0.4)
    right = left + a
    return [
        (0, 0), (right, 0), (right, 1 - low), (1, 1 - low), (1, 1), (left, 1), (left, low), (0, low)
    ]  # fmt: skip


def _cross(rng: Rng, w: float, h: float) -> Corners:
    a, b = _walls(rng, w, h)
    left, right, low, high = (1 - a) / 2, (1 + a) / 2, (1 - b) / 2, (1 + b) / 2
    return [
        (left, 0), (right, 0), (right, low), (1, low), (1, high), (right, high),
        (right, 1), (left, 1), (left, high), (0, high), (0, low), (left, low),
    ]  # fmt: skip


def _lipped(rng: Rng, w: float, h: float) -> Corners:
    """A channel whose free edges are bent inwards."""
    a, b = _walls(rng, w, h)
    a, b = min(a, 0.3), min(b, 0.3)
    lip = between(rng, a + 0.03, 0.45)
    return [
        (0, 0), (1, 0), (1, 1), (1 - lip, 1), (1 - lip, 1 - b), (1 - a, 1 - b),
        (1 - a, b), (a, b), (a, 1 - b), (lip, 1 - b), (lip, 1), (0, 1),
    ]  # fmt: skip


def _comb(rng: Rng, w: float, h: float) -> Corners:
    """A bar with teeth, often alike."""
    count = int(rng.integers(2, 4))
    low = between(rng, 0.1, 0.6)
    alike = rng.random() < 0.6
    cuts = np.linspace(0, 1, 2 * count) if alike else np.sort(rng.uniform(0, 1, 2 * count))
    if not alike and rng.random() < 0.5:
        cuts[0], cuts[-1] = 0.0, 1.0
    tops = np.ones(count) if alike else rng.uniform(low + 0.1, 1.0, count)
    tops[int(rng.integers(count))] = 1.0
    corners: Corners = [(0, 0), (1, 0), (1, low)]
    for i in reversed(range(count)):
        left, right, top = float(cuts[2 * i]), float(cuts[2 * i + 1]), float(tops[i])
        corners += [(right, low), (right, top), (left, top), (left, low)]
    return [*corners, (0, low)]


def _notched(rng: Rng, w: float, h: float) -> Corners:
    """A rectangle with a wedge or a slot cut into one side."""
    middle = 0.5 if rng.random() < 0.6 else between(rng, 0.25, 0.75)
    half = between(rng, 0.05, min(middle, 1 - middle) - 0.05)
    bottom = 1 - between(rng, 0.1, 0.85)
    foot = float(rng.choice([0.0, 1.0, 1.0, float(rng.random())])) * half
    notch = [(middle + foot, bottom), (middle - foot, bottom)] if foot else [(middle, bottom)]
    return [(0, 0), (1, 0), (1, 1), (middle + half, 1), *notch, (middle - half, 1), (0, 1)]


def _house(rng: Rng, w: float, h: float) -> Corners:
    eaves, ridge = between(rng, 0.1, 0.85), 0.5 if rng.random() < 0.6 else float(rng.random())
    return [(0, 0), (1, 0), (1, eaves), (ridge, 1), (0, eaves)]


def _chamfered(rng: Rng, w: float, h: float) -> Corners:
    """A rectangle with one, two or four corners cut off."""
    a, b = between(rng, 0.08, 0.8), between(rng, 0.08, 0.8)
    which = int(rng.choice([1, 1, 2, 4]))
    if which == 1:
        return [(0, 0), (1, 0), (1, 1 - b), (1 - a, 1), (0, 1)]
    a = min(a, 0.45) if rng.random() < 0.4 else min(0.3, 0.45 * min(1.0, h / w))
    b = min(a * w / h, 0.45)
    top = [(1, 1 - b), (1 - a, 1), (a, 1), (0, 1 - b)]
    return [(0, 0), (1, 0), *top] if which == 2 else [(0, b), (a, 0), (1 - a, 0), (1, b), *top]


def _triangle(rng: Rng, w: float, h: float) -> Corners:
    return [(0, 0), (1, 0), (float(rng.choice([0.0, 0.0, 0.5, float(rng.random())])), 1)]


def _trapezoid(rng: Rng, w: float, h: float) -> Corners:
    left = between(rng, 0.05, 0.45)
    return [(0, 0), (1, 0), (1 - left, 1), (left, 1)]


def _wedge(rng: Rng, w: float, h: float) -> Corners:
    left = 0.0 if rng.random() < 0.8 else between(rng, 0.0, 0.2)
    return [(0, 0), (1, 0), (between(rng, 0.15, 0.95), 1), (left, 1)]


def _skewed(rng: Rng, w: float, h: float) -> Corners:
    shift = between(rng, 0.1, 0.6)
    return [(0, 0), (1 - shift, 0), (1, 1), (shift, 1)]


def _stairs(rng: Rng, w: float, h: float) -> Corners:
    count = int(rng.integers(2, 5))
    even = rng.random() < 0.5
    xs = np.linspace(1, 0, count + 1)[1:-1] if even else np.sort(rng.uniform(0.1, 0.9, count - 1))
    ys = np.linspace(0, 1, count + 1)[1:-1] if even else np.sort(rng.uniform(0.1, 0.9, count - 1))
    corners: Corners = [(0.0, 0.0), (1.0, 0.0)]
    side = 1.0
    for x, y in zip((xs if even else xs[::-1]).tolist(), ys.tolist(), strict=True):
        corners += [(side, y), (x, y)]
        side = x
    return [*corners, (side, 1.0), (0.0, 1.0)]


def _askew(rng: Rng, w: float, h: float) -> Corners:
    """A rectangle turned in its box."""
    x, y = between(rng, 0.1, 0.9), between(rng, 0.1, 0.9)
    return [(x, 0), (1, y), (1 - x, 1), (0, 1 - y)]


def _regular(rng: Rng, w: float, h: float) -> Corners:
    """Five, six or eight equal sides, a corner or a side at the right."""
    count = int(rng.choice([5, 6, 6, 6, 6, 8]))
    start = 0.5 if rng.random() < 0.5 else 0.0
    turns = [2 * pi * (i + start) / count for i in range(count)]
    side = min(w, h)
    return [(0.5 + side / w * cos(t) / 2, 0.5 + side / h * sin(t) / 2) for t in turns]


def _free(rng: Rng, w: float, h: float) -> Corners:
    """A star-shaped polygon with four to eight corners."""
    count = int(rng.integers(4, 9))
    turns = np.sort(rng.uniform(0, 2 * np.pi, count))
    reach = rng.uniform(0.45, 1.0, count)
    xs, ys = reach * np.cos(turns), reach * np.sin(turns)
    xs, ys = (xs - xs.min()) / max(np.ptp(xs), 1e-6), (ys - ys.min()) / max(np.ptp(ys), 1e-6)
    return list(zip(xs.tolist(), ys.tolist(), strict=True))


CORNERED: dict[str, Callable[[Rng, float, float], Corners]] = {
    "ell": _ell, "tee": _tee, "you": _you, "aitch": _aitch, "zed": _zed, "cross": _cross,
    "lipped": _lipped, "comb": _comb, "notched": _notched, "house": _house,
    "chamfered": _chamfered, "triangle": _triangle, "trapezoid": _trapezoid, "wedge": _wedge,
    "skewed": _skewed, "stairs": _stairs, "askew": _askew, "regular": _regular, "free": _free,
}  # fmt: skip


# ---- All outlines by name


def _varied(shape: Callable[[Rng, float, float], Corners | Path]) -> Callable[..., Path]:
    """`shape` mirrored and turned by chance, and with rounded corners now and then."""

    def draw(rng: Rng, w: float, h: float) -> Path:
        sx, sy = float(rng.choice([-1, 1])), float(rng.choice([-1, 1]))
        turned = rng.random() < 0.5
        if turned:
            w, h = h, w
        found = shape(rng, w, h)
        if not isinstance(found, Path):
            corners = [(w * (x - 0.5), h * (y - 0.5)) for x, y in found]
            if len(corners) >= 4 and rng.random() < 0.15:
                radius = min(w, h) * between(rng, 0.04, 0.3)
                share = float(rng.choice([0.4, 1.0]))
                found = filleted(corners, [radius * (rng.random() < share) for _ in corners])
            else:
                found = polygon(corners)
        found = mapped(found, lambda p: (sx * p[0], sy * p[1]))
        return transposed(found) if turned else found

    return draw


OUTLINES: dict[str, Callable[[Rng, float, float], Path]] = {
    **{name: _varied(shape) for name, shape in CORNERED.items()},
    **{name: _varied(shape) for name, shape in CURVED.items()},
}
