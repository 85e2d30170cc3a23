"""Random closed outlines with corners and arcs: brackets, channels, wedges, slots, arches.

    path = OUTLINES["ell"](rng, 80.0, 50.0)

Every outline fills, or nearly fills, a box of the given width and height about the
origin. Left out: rectangles, circles and holes (profiles.py), splines, ellipses, text.
"""

from __future__ import annotations

from collections.abc import Callable
from math import cos, pi, sin

import numpy as np

from image2cad.curves import CURVED, Corners, between, filleted, mapped, transposed
from image2cad.programs import Path, Segment

Rng = np.random.Generator


def polygon(points: Corners) -> Path:
    """A closed polygon."""
    return Path(points[0], tuple(Segment(point) for point in points[1:]))


def _walls(rng: Rng, w: float, h: float) -> tuple[float, float]:
    """Wall thicknesses as shares of width and height, most often equal in length."""
    if rng.random() < 0.6:
        wall = min(w, h) * float(np.exp(rng.uniform(np.log(0.04), np.log(0.45))))
        return wall / w, wall / h
    return between(rng, 0.06, 0.45), between(rng, 0.06, 0.45)


# Corners in the unit square, to be mirrored, turned, scaled and perhaps rounded by _drawn.


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


def _drawn(shape: Callable[[Rng, float, float], Corners | Path]) -> Callable[..., Path]:
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


CORNERED: dict[str, Callable[[Rng, float, float], Corners]] = {
    "ell": _ell, "tee": _tee, "you": _you, "aitch": _aitch, "zed": _zed, "cross": _cross,
    "lipped": _lipped, "comb": _comb, "notched": _notched, "house": _house,
    "chamfered": _chamfered, "triangle": _triangle, "trapezoid": _trapezoid, "wedge": _wedge,
    "skewed": _skewed, "stairs": _stairs, "askew": _askew, "regular": _regular, "free": _free,
}  # fmt: skip
OUTLINES: dict[str, Callable[[Rng, float, float], Path]] = {
    **{name: _drawn(shape) for name, shape in CORNERED.items()},
    **{name: _drawn(shape) for name, shape in CURVED.items()},
}
