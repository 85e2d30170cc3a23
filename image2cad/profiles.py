"""Random closed profiles: what a sketch of a mechanical part usually is.

    loops = random_profile(rng, width, height, first=True)

Every profile fills a box of the given width and height. The first loop is the
outside, the others are holes. Left out: splines, ellipses and text.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from image2cad.programs import Circle, Loop, Path, Point, Rect, Segment

Rng = np.random.Generator


def random_profile(
    rng: Rng, width: float, height: float, first: bool, centre: Point = (0.0, 0.0)
) -> tuple[Loop, ...]:
    """One profile about `centre`; round ones fill the smaller side. `first` allows holes."""
    shape = str(rng.choice(list(SHAPES), p=SHARES))
    x, y = centre
    loops = SHAPES[shape](rng, width, height)
    if first and rng.random() < 0.3 and len(loops) == 1:
        loops = (*loops, *_holes(rng, shape, width, height))
    return tuple(shifted(loop, x, y) for loop in loops)


def shifted(loop: Loop, x: float, y: float) -> Loop:
    """`loop` moved by (x, y)."""
    if isinstance(loop, Circle):
        return Circle(loop.x + x, loop.y + y, loop.radius)
    if isinstance(loop, Rect):
        return Rect(loop.x + x, loop.y + y, loop.width, loop.height)

    def move(point: Point) -> Point:
        return (point[0] + x, point[1] + y)

    segments = [Segment(move(s.end), None if s.mid is None else move(s.mid)) for s in loop.segments]
    return Path(move(loop.start), tuple(segments))


def polygon(points: list[Point]) -> Path:
    """A closed polygon."""
    return Path(points[0], tuple(Segment(point) for point in points[1:]))


def _holes(rng: Rng, shape: str, width: float, height: float) -> tuple[Loop, ...]:
    """A hole in the middle, a pattern of holes, or none where the middle may be empty."""
    side = min(width, height)
    if shape == "circle":
        radius = side * float(rng.uniform(0.03, 0.07))
        ring = side * float(rng.uniform(0.3, 0.4))
        count = int(rng.choice([3, 4, 6]))
        turns = 2 * np.pi * np.arange(count) / count
        return tuple(Circle(ring * np.cos(t), ring * np.sin(t), radius) for t in turns.tolist())
    if shape not in ("rect", "rounded", "slot"):
        return ()
    if shape == "slot" or rng.random() < 0.4:
        return (Circle(0, 0, side * float(rng.uniform(0.1, 0.4))),)
    if rng.random() < 0.3:
        inset = side * float(rng.uniform(0.08, 0.3))
        return (Rect(0, 0, width - 2 * inset, height - 2 * inset),)
    radius = side * float(rng.uniform(0.04, 0.1))
    x, y = width / 2 - 2.2 * radius, height / 2 - 2.2 * radius
    if rng.random() < 0.4:
        ends = [(-x, 0.0), (x, 0.0)] if width >= height else [(0.0, -y), (0.0, y)]
        return tuple(Circle(u, v, radius) for u, v in ends)
    return tuple(Circle(u, v, radius) for u, v in [(-x, -y), (x, -y), (-x, y), (x, y)])


def _rect(rng: Rng, w: float, h: float) -> tuple[Loop, ...]:
    return (Rect(0, 0, w, h),)


def _circle(rng: Rng, w: float, h: float) -> tuple[Loop, ...]:
    return (Circle(0, 0, min(w, h) / 2),)


def _ring(rng: Rng, w: float, h: float) -> tuple[Loop, ...]:
    radius = min(w, h) / 2
    return (Circle(0, 0, radius), Circle(0, 0, radius * float(rng.uniform(0.2, 0.92))))


def _frame(rng: Rng, w: float, h: float) -> tuple[Loop, ...]:
    wall = min(w, h) * float(rng.uniform(0.05, 0.3))
    return (Rect(0, 0, w, h), Rect(0, 0, w - 2 * wall, h - 2 * wall))


def _rounded(rng: Rng, w: float, h: float) -> tuple[Loop, ...]:
    r = min(w, h) * float(rng.uniform(0.1, 0.4))
    x, y, s = w / 2, h / 2, r * (1 - np.sqrt(0.5))
    segments = (
        Segment((x - r, -y)), Segment((x, r - y), (x - s, s - y)),
        Segment((x, y - r)), Segment((x - r, y), (x - s, y - s)),
        Segment((r - x, y)), Segment((-x, y - r), (s - x, y - s)),
        Segment((-x, r - y)), Segment((r - x, -y), (s - x, s - y)),
    )  # fmt: skip
    return (Path((r - x, -y), segments),)


def _slot(rng: Rng, w: float, h: float) -> tuple[Loop, ...]:
    x, y = w / 2, h / 2
    if w >= h:
        a = x - y
        arcs = (
            Segment((a, -y)),
            Segment((a, y), (x, 0)),
            Segment((-a, y)),
            Segment((-a, -y), (-x, 0)),
        )
        return (Path((-a, -y), arcs),)
    a = y - x
    arcs = (
        Segment((x, a), None),
        Segment((-x, a), (0, y)),
        Segment((-x, -a)),
        Segment((x, -a), (0, -y)),
    )
    return (Path((x, -a), arcs),)


def _arch(rng: Rng, w: float, h: float) -> tuple[Loop, ...]:
    """A rectangle whose one side is an arc: a half disc at its fullest."""
    x, y = w / 2, h / 2
    rise = min(h, w / 2) * float(rng.choice([1.0, 0.999, float(rng.uniform(0.3, 0.9))]))
    if h - rise < 0.02 * h:
        rise = h
    corners = [(-x, -y), (x, -y), (x, y - rise), (-x, y - rise)]
    if rise == h:
        return _turned(rng, (Path(corners[0], (Segment(corners[1]), Segment(corners[0], (0, y)))),))
    segments = (Segment(corners[1]), Segment(corners[2]), Segment(corners[3], (0, y)))
    return _turned(rng, (Path(corners[0], segments),), w, h)


def _ell(rng: Rng, w: float, h: float) -> tuple[Loop, ...]:
    a, b = w * float(rng.uniform(0.1, 0.7)), h * float(rng.uniform(0.1, 0.7))
    points = [(0, 0), (w, 0), (w, b), (a, b), (a, h), (0, h)]
    return _turned(rng, (_centred(points, w, h),), w, h)


def _tee(rng: Rng, w: float, h: float) -> tuple[Loop, ...]:
    b = h * float(rng.uniform(0.15, 0.6))
    left = w * float(rng.uniform(0.1, 0.45))
    right = w - left if rng.random() < 0.7 else w * float(rng.uniform(0.55, 0.9))
    points = [(0, 0), (w, 0), (w, b), (right, b), (right, h), (left, h), (left, b), (0, b)]
    return _turned(rng, (_centred(points, w, h),), w, h)


def _you(rng: Rng, w: float, h: float) -> tuple[Loop, ...]:
    b = h * float(rng.uniform(0.1, 0.6))
    left = w * float(rng.uniform(0.08, 0.4))
    right = w - left if rng.random() < 0.7 else w * float(rng.uniform(0.6, 0.92))
    points = [(0, 0), (w, 0), (w, h), (right, h), (right, b), (left, b), (left, h), (0, h)]
    return _turned(rng, (_centred(points, w, h),), w, h)


def _corner_cut(rng: Rng, w: float, h: float) -> tuple[Loop, ...]:
    a, b = w * float(rng.uniform(0.0, 0.8)), h * float(rng.uniform(0.0, 0.8))
    return _turned(rng, (_centred([(0, 0), (w, 0), (w, b), (a, h), (0, h)], w, h),), w, h)


def _triangle(rng: Rng, w: float, h: float) -> tuple[Loop, ...]:
    top = w * float(rng.choice([0.0, 0.5, 1.0, float(rng.random())]))
    return _turned(rng, (_centred([(0, 0), (w, 0), (top, h)], w, h),), w, h)


def _trapezoid(rng: Rng, w: float, h: float) -> tuple[Loop, ...]:
    left = w * float(rng.uniform(0.0, 0.4))
    right = w - left if rng.random() < 0.6 else w * float(rng.uniform(0.6, 1.0))
    return _turned(rng, (_centred([(0, 0), (w, 0), (right, h), (left, h)], w, h),), w, h)


def _hexagon(rng: Rng, w: float, h: float) -> tuple[Loop, ...]:
    radius = min(w, h) / 2
    count = int(rng.choice([5, 6, 6, 6, 8]))
    turns = 2 * np.pi * np.arange(count) / count
    return (polygon([(radius * np.cos(t), radius * np.sin(t)) for t in turns.tolist()]),)


def _stairs(rng: Rng, w: float, h: float) -> tuple[Loop, ...]:
    steps = int(rng.integers(2, 4))
    xs = np.sort(rng.uniform(0.15, 0.9, steps))[::-1] * w
    ys = np.sort(rng.uniform(0.1, 0.85, steps)) * h
    points: list[Point] = [(0.0, 0.0), (w, 0.0)]
    side = w
    for x, y in zip(xs.tolist(), ys.tolist(), strict=True):
        points += [(side, y), (x, y)]
        side = x
    points += [(side, h), (0.0, h)]
    return _turned(rng, (_centred(points, w, h),), w, h)


def _free(rng: Rng, w: float, h: float) -> tuple[Loop, ...]:
    """A star-shaped polygon with four to eight corners."""
    count = int(rng.integers(4, 9))
    turns = np.sort(rng.uniform(0, 2 * np.pi, count))
    reach = rng.uniform(0.45, 1.0, count)
    xs, ys = reach * np.cos(turns), reach * np.sin(turns)
    xs = (xs - xs.min()) / max(np.ptp(xs), 1e-6) * w
    ys = (ys - ys.min()) / max(np.ptp(ys), 1e-6) * h
    return (_centred(list(zip(xs.tolist(), ys.tolist(), strict=True)), w, h),)


def _centred(points: list[Point], w: float, h: float) -> Path:
    return polygon([(x - w / 2, y - h / 2) for x, y in points])


def _turned(rng: Rng, loops: tuple[Loop, ...], w: float = 0.0, h: float = 0.0) -> tuple[Loop, ...]:
    """Mirrored in x, in y, both or neither: all fill the same box."""
    sx, sy = float(rng.choice([-1, 1])), float(rng.choice([-1, 1]))

    def flip(point: Point) -> Point:
        return (sx * point[0], sy * point[1])

    out: list[Loop] = []
    for loop in loops:
        if isinstance(loop, Path):
            turned = [
                Segment(flip(s.end), None if s.mid is None else flip(s.mid)) for s in loop.segments
            ]
            out.append(Path(flip(loop.start), tuple(turned)))
        else:
            out.append(shifted(loop, (sx - 1) * loop.x, (sy - 1) * loop.y))
    return tuple(out)


SHAPES: dict[str, Callable[[Rng, float, float], tuple[Loop, ...]]] = {
    "rect": _rect, "circle": _circle, "ring": _ring, "frame": _frame, "rounded": _rounded,
    "slot": _slot, "arch": _arch, "ell": _ell, "tee": _tee, "you": _you, "corner": _corner_cut,
    "triangle": _triangle, "trapezoid": _trapezoid, "hexagon": _hexagon, "stairs": _stairs,
    "free": _free,
}  # fmt: skip
_WEIGHTS = np.array([26, 16, 10, 4, 4, 4, 4, 5, 4, 4, 4, 3, 3, 3, 3, 3], dtype=float)
SHARES = _WEIGHTS / _WEIGHTS.sum()
