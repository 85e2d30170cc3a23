"""Random profiles: what one sketch of a mechanical part usually is.

    loops = random_profile(rng, "base", 100.0, 60.0)

Every profile fills, or nearly fills, a box of the given width and height. The
first loop is the outside, the others are holes. How often each kind is drawn
follows real programs (docs/statistics.md). Left out: splines, ellipses and text.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from math import cos, pi, sin

import numpy as np

from image2cad.cad import Circle, Loop, Point, Rect, shifted
from image2cad.synthesis.shapes import CORNERED, CURVED, OUTLINES, Rng, between

# Shares of the kinds of outlines, by what the sketch is for.
PROFILE_KINDS = ("rect", "circle", "ring", "cornered", "curved")
KIND_SHARES = {
    "base": (0.37, 0.14, 0.16, 0.22, 0.11),
    "boss": (0.55, 0.10, 0.07, 0.23, 0.05),
    "round boss": (0.08, 0.50, 0.28, 0.10, 0.04),
    "cut": (0.42, 0.42, 0.00, 0.06, 0.10),
    "round cut": (0.06, 0.78, 0.00, 0.08, 0.08),
}
HOLE_SHARES = {"base": 0.24, "boss": 0.12, "round boss": 0.08}  # how often a profile has holes
OUTLINE_WEIGHTS = {
    "ell": 4, "tee": 3, "you": 4, "aitch": 1.5, "zed": 1, "cross": 1, "lipped": 2, "comb": 3,
    "notched": 3, "house": 1.5, "chamfered": 3, "triangle": 4, "trapezoid": 4, "wedge": 5,
    "skewed": 1, "stairs": 2.5, "askew": 1.5, "regular": 5, "free": 4,
    "rounded": 6, "slot": 3, "arch": 4, "quarter": 0.7, "bitten": 1.5, "flat": 1, "bow": 1.5,
}  # fmt: skip


def random_profile(
    rng: Rng,
    role: str,
    width: float,
    height: float,
    centre: Point = (0.0, 0.0),
    without: Sequence[str] = (),
) -> tuple[Loop, ...]:
    """One profile about `centre`; round ones fill the smaller side.

    `role` is a key of KIND_SHARES; `without` names PROFILE_KINDS or outlines of
    OUTLINE_WEIGHTS that are not drawn as outsides; holes are round, rectangles or hexagons
    all the same.
    """
    kind = _choose(rng, dict(zip(PROFILE_KINDS, KIND_SHARES[role], strict=True)), excluded(without))
    radius = min(width, height) / 2
    loops: tuple[Loop, ...]
    if kind == "rect":
        loops = (Rect(0, 0, width, height),)
    elif kind in ("circle", "ring"):
        loops = (Circle(0, 0, radius),)
    else:
        names = CORNERED if kind == "cornered" else CURVED
        kind = _choose(rng, {name: OUTLINE_WEIGHTS[name] for name in names}, without)
        loops = (OUTLINES[kind](rng, width, height),)
    if kind == "ring":
        wall = radius * float(np.exp(rng.uniform(np.log(0.05), np.log(0.92))))
        loops = (*loops, Circle(0, 0, radius - wall))
    elif rng.random() < HOLE_SHARES.get(role, 0.0):
        loops = (*loops, *_holes(rng, kind, width, height))
    return tuple(shifted(loop, *centre) for loop in loops)


def forbidden(loops: Sequence[Loop], without: Sequence[str]) -> bool:
    """Whether the outside is a circle, a ring or a rectangle, and `without` names it."""
    outer, *holes = loops
    if isinstance(outer, Circle):
        ring = len(holes) == 1 and isinstance(holes[0], Circle)
        return ("ring" if ring else "circle") in without
    return isinstance(outer, Rect) and "rect" in without


def excluded(without: Sequence[str]) -> set[str]:
    """`without`, and the kinds of which it leaves no outline."""
    out = set(without)
    out |= {"cornered"} if out.issuperset(CORNERED) else set()
    out |= {"curved"} if out.issuperset(CURVED) else set()
    return out


def _choose(rng: Rng, weights: dict[str, float], without: Collection[str]) -> str:
    kept = {name: weight for name, weight in weights.items() if name not in without}
    shares = np.array(list(kept.values()), dtype=float)
    return str(rng.choice(list(kept), p=shares / shares.sum()))


def _holes(rng: Rng, kind: str, width: float, height: float) -> tuple[Loop, ...]:
    """A hole in the middle, a pattern of holes, or none where the outline leaves no room."""
    side = min(width, height)
    if kind in ("circle", "regular"):
        if kind == "circle" and rng.random() < 0.45:
            return _bolt_circle(rng, side)
        reach = side * between(rng, 0.15, 0.62)
        if rng.random() < 0.5 or kind == "regular":
            return (Circle(0, 0, reach * between(rng, 0.3, 0.68)),)
        if rng.random() < 0.5:
            return (Rect(0, 0, reach, reach * between(rng, 0.3, 1.0)),)
        return (OUTLINES["regular"](rng, reach, reach),)
    if kind not in ("rect", "rounded", "slot", "arch", "chamfered"):
        return ()
    if kind in ("slot", "arch") or rng.random() < 0.3:
        radius = side * float(np.exp(rng.uniform(np.log(0.06), np.log(0.42))))
        return (Circle(0, 0, radius),)
    if rng.random() < 0.4:
        inset = side * float(np.exp(rng.uniform(np.log(0.03), np.log(0.3))))
        w, h = width - 2 * inset, height - 2 * inset
        return (OUTLINES["rounded"](rng, w, h) if kind == "rounded" else Rect(0, 0, w, h),)
    radius = side * between(rng, 0.025, 0.1)
    edge = radius * between(rng, 1.5, 4.0)
    x, y = max(width / 2 - edge, 0.0), max(height / 2 - edge, 0.0)
    pattern = str(
        rng.choice(["four", "five", "ends", "row", "scattered"], p=[0.4, 0.1, 0.2, 0.1, 0.2])
    )
    if pattern == "ends":
        places = [(-x, 0.0), (x, 0.0)] if width >= height else [(0.0, -y), (0.0, y)]
    elif pattern == "row":
        ts = np.linspace(-1, 1, int(rng.integers(3, 5))).tolist()
        places = [(t * x, 0.0) if width >= height else (0.0, t * y) for t in ts]
    elif pattern == "scattered":
        places = [
            (between(rng, -x, x), between(rng, -y, y)) for _ in range(int(rng.integers(1, 4)))
        ]
    else:
        places = [(-x, -y), (x, -y), (-x, y), (x, y)]
    holes = [Circle(u, v, radius) for u, v in places]
    if pattern == "five":
        holes.append(Circle(0, 0, radius * float(rng.choice([1.0, between(rng, 1.0, 3.0)]))))
    return tuple(holes)


def _bolt_circle(rng: Rng, side: float) -> tuple[Loop, ...]:
    radius, ring = side * between(rng, 0.02, 0.08), side * between(rng, 0.25, 0.41)
    count = int(rng.choice([2, 3, 4, 4, 6, 6, 8]))
    turns = [2 * pi * i / count for i in range(count)]
    return tuple(Circle(ring * cos(t), ring * sin(t), radius) for t in turns)
