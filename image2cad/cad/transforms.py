"""Move, scale, round and normalise programs without changing what they describe.

    small = scaled(moved(program, (-10, 0, 0)), 0.5)

Each function takes a `Program` and returns a new one. Left out: rotations but those that bring
axes onto axes; others would leave the named planes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from image2cad.cad.program import (
    NAMED,
    Circle,
    Extrusion,
    Loop,
    Path,
    Point,
    Program,
    Rect,
    Segment,
    Vector,
)

# ---- Whole programs


def map_points(
    program: Program,
    move: Callable[[Vector], Vector],
    point: Callable[[Point], Point],
    length: Callable[[float], float],
) -> Program:
    """Rewrite all numbers: origins by `move`, sketch points by `point`, the rest by `length`."""

    def loop(item: Loop) -> Loop:
        if isinstance(item, Path):
            segments = tuple(
                Segment(point(s.end), None if s.mid is None else point(s.mid))
                for s in item.segments
            )
            return Path(point(item.start), segments)
        x, y = point((item.x, item.y))
        if isinstance(item, Circle):
            return Circle(x, y, length(item.radius))
        return Rect(x, y, length(item.width), length(item.height))

    return tuple(
        replace(
            step,
            plane=replace(step.plane, origin=move(step.plane.origin)),
            loops=tuple(loop(item) for item in step.loops),
            depth=length(step.depth),
        )
        for step in program
    )


def scaled(program: Program, factor: float) -> Program:
    """The same part, `factor` times as large."""
    return map_points(
        program,
        move=lambda p: (factor * p[0], factor * p[1], factor * p[2]),
        point=lambda p: (factor * p[0], factor * p[1]),
        length=lambda value: factor * value,
    )


def moved(program: Program, shift: Vector) -> Program:
    """The same part moved by `shift`; sketches on named planes stay in model coordinates."""
    out = []
    for step in program:
        x, y, z = (a + b for a, b in zip(step.plane.origin, shift, strict=True))
        step = replace(step, plane=replace(step.plane, origin=(x, y, z)))
        out.append(grounded(step))
    return tuple(out)


def centred(program: Program, box: np.ndarray, factor: float) -> Program:
    """The same part with the middle of `box` (2, 3) at the origin, `factor` times as large."""
    x, y, z = (-(box[0] + box[1]) / 2).tolist()
    return scaled(moved(program, (x, y, z)), factor)


def renamed_axes(program: Program, rotation: np.ndarray) -> Program:
    """The same part turned by a (3, 3) rotation that brings axes onto axes, on named planes."""
    out = []
    for step in program:
        plane = step.plane
        x, y, normal = (rotation @ np.array(way) for way in (plane.x, plane.y, plane.normal))
        origin = _vector(rotation @ np.array(plane.origin))
        here = [
            axes
            for axes in NAMED.values()
            if abs(abs(float(normal @ np.array(axes[1]))) - 1) < 1e-9
        ]
        if not here:
            turned = replace(plane, origin=origin, x=_vector(x), normal=_vector(normal))
            out.append(replace(step, plane=turned))
            continue
        named_x, named_normal = here[0]
        ways = np.array(named_x), np.cross(np.array(named_normal), np.array(named_x))
        flat = np.array([[way @ x, way @ y] for way in ways])
        depth = step.depth * float(normal @ np.array(named_normal))
        named = replace(plane, origin=origin, x=named_x, normal=named_normal)
        loops = tuple(_turned_flat(loop, flat) for loop in step.loops)
        out.append(grounded(replace(step, plane=named, loops=loops, depth=depth)))
    return tuple(out)


def _vector(values: np.ndarray) -> Vector:
    x, y, z = (float(value) + 0.0 for value in values)
    return x, y, z


def _turned_flat(loop: Loop, flat: np.ndarray) -> Loop:
    """`loop` with its points multiplied by (2, 2) `flat`, which brings axes onto axes."""

    def turned(p: Point) -> Point:
        u, v = (flat @ np.array(p)).tolist()
        return u, v

    if isinstance(loop, Path):
        return mapped(loop, turned)
    x, y = turned((loop.x, loop.y))
    if isinstance(loop, Circle):
        return Circle(x, y, loop.radius)
    width, height = np.abs(flat @ np.array([loop.width, loop.height])).tolist()
    return Rect(x, y, width, height)


def grounded(step: Extrusion) -> Extrusion:
    """Slide the origin of a named plane along the plane onto the model's axis.

    The sketch then reads in model coordinates, and one number of three is left
    in the origin. Other planes are returned as they are.
    """
    plane = step.plane
    if plane.name is None:
        return step
    along = sum(a * b for a, b in zip(plane.origin, plane.normal, strict=True))
    u = sum(a * b for a, b in zip(plane.origin, plane.x, strict=True))
    v = sum(a * b for a, b in zip(plane.origin, plane.y, strict=True))
    x, y, z = (along * n for n in plane.normal)
    (flat,) = map_points(
        (step,),
        move=lambda _: (x, y, z),
        point=lambda p: (p[0] + u, p[1] + v),
        length=lambda value: value,
    )
    return flat


def rounded(program: Program, decimals: int) -> Program:
    """Every number rounded to `decimals` digits after the point."""
    return map_points(
        program,
        move=lambda p: (round(p[0], decimals), round(p[1], decimals), round(p[2], decimals)),
        point=lambda p: (round(p[0], decimals), round(p[1], decimals)),
        length=lambda value: round(value, decimals),
    )


def snapped(program: Program) -> Program:
    """Snap to whole numbers by edges, so that faces that were flush stay flush.

    A rectangle's sides and an extrusion's two ends are rounded, not its centre
    and depth; centres may then end on a half. Depths become positive.
    """
    out = []
    for step in program:
        axis = step.plane.normal
        level = sum(a * b for a, b in zip(step.plane.origin, axis, strict=True))
        low, high = sorted((round(level), round(level + step.depth)))
        high = max(high, low + 1)
        shift = low - level
        x, y, z = (o + shift * n for o, n in zip(step.plane.origin, axis, strict=True))
        loops = tuple(_snapped_loop(loop) for loop in step.loops)
        plane = replace(step.plane, origin=(x, y, z))
        out.append(replace(step, plane=plane, loops=loops, depth=float(high - low)))
    return tuple(out)


def _snapped_loop(loop: Loop) -> Loop:
    if isinstance(loop, Circle):
        radius = max(round(2 * loop.radius) / 2, 0.5) if loop.radius < 5 else round(loop.radius)
        return Circle(round(loop.x), round(loop.y), radius)
    if isinstance(loop, Rect):
        left, right = round(loop.x - loop.width / 2), round(loop.x + loop.width / 2)
        low, high = round(loop.y - loop.height / 2), round(loop.y + loop.height / 2)
        right, high = max(right, left + 1), max(high, low + 1)
        return Rect((left + right) / 2, (low + high) / 2, right - left, high - low)

    def snap(point: Point) -> Point:
        return (round(point[0]), round(point[1]))

    segments = [Segment(snap(s.end), None if s.mid is None else snap(s.mid)) for s in loop.segments]
    return Path(snap(loop.start), tuple(segments))


def canonical(program: Program) -> Program:
    """One way of writing each loop: counterclockwise, from the lowest and then leftmost corner."""
    return tuple(
        replace(step, loops=tuple(_canonical(loop) for loop in step.loops)) for step in program
    )


def _canonical(loop: Loop) -> Loop:
    if not isinstance(loop, Path):
        return loop
    segments = list(loop.segments)
    if segments[-1].end != loop.start:
        segments.append(Segment(loop.start))
    starts = [loop.start, *(s.end for s in segments[:-1])]
    around = [p for start, s in zip(starts, segments, strict=True) for p in (start, s.mid) if p]
    pairs = zip(around, around[1:] + around[:1], strict=True)
    if sum(a[0] * b[1] - a[1] * b[0] for a, b in pairs) < 0:
        segments = [Segment(a, s.mid) for a, s in zip(starts[::-1], segments[::-1], strict=True)]
        starts = [starts[0], *(s.end for s in segments[:-1])]
    first = min(range(len(starts)), key=lambda i: (starts[i][1], starts[i][0]))
    segments = segments[first:] + segments[:first]
    # A last straight line is what closing the loop draws.
    if segments[-1].mid is None:
        segments.pop()
    return Path(starts[first], tuple(segments))


# ---- Single loops


def shifted(loop: Loop, x: float, y: float) -> Loop:
    """`loop` moved by (x, y)."""
    if isinstance(loop, Circle):
        return Circle(loop.x + x, loop.y + y, loop.radius)
    if isinstance(loop, Rect):
        return Rect(loop.x + x, loop.y + y, loop.width, loop.height)
    return mapped(loop, lambda p: (p[0] + x, p[1] + y))


def zoomed(loop: Loop, factor: float) -> Loop:
    """`loop` `factor` times as large, about the sketch's origin."""
    if isinstance(loop, Circle):
        return Circle(factor * loop.x, factor * loop.y, factor * loop.radius)
    if isinstance(loop, Rect):
        return Rect(factor * loop.x, factor * loop.y, factor * loop.width, factor * loop.height)
    return mapped(loop, lambda p: (factor * p[0], factor * p[1]))


def mirrored(loop: Loop, axis: int, at: float) -> Loop:
    """`loop` mirrored in x (axis 0) or y (axis 1) about `at`."""

    def flip(p: Point) -> Point:
        return (2 * at - p[0], p[1]) if axis == 0 else (p[0], 2 * at - p[1])

    if isinstance(loop, Path):
        return mapped(loop, flip)
    x, y = flip((loop.x, loop.y))
    return shifted(loop, x - loop.x, y - loop.y)


def extent(loop: Loop) -> tuple[float, float, float, float]:
    """Left, low, right and high end of the loop, of an arc as far as its middle reaches."""
    if isinstance(loop, Circle):
        return (
            loop.x - loop.radius, loop.y - loop.radius, loop.x + loop.radius, loop.y + loop.radius
        )  # fmt: skip
    if isinstance(loop, Rect):
        return (
            loop.x - loop.width / 2, loop.y - loop.height / 2,
            loop.x + loop.width / 2, loop.y + loop.height / 2,
        )  # fmt: skip
    points = [loop.start, *(p for s in loop.segments for p in (s.end, s.mid) if p)]
    xs, ys = [p[0] for p in points], [p[1] for p in points]
    return min(xs), min(ys), max(xs), max(ys)


def corners(rect: Rect) -> list[Point]:
    """Counterclockwise from the lower left."""
    w, h = rect.width / 2, rect.height / 2
    return [(rect.x + x, rect.y + y) for x, y in ((-w, -h), (w, -h), (w, h), (-w, h))]


def as_path(loop: Rect | Path) -> Path:
    """A rectangle as the path around it; a path as it is."""
    if isinstance(loop, Path):
        return loop
    first, *others = corners(loop)
    return Path(first, tuple(Segment(corner) for corner in others))


def transposed(path: Path) -> Path:
    """x and y exchanged."""
    return mapped(path, lambda p: (p[1], p[0]))


def mapped(path: Path, move: Callable[[Point], Point]) -> Path:
    """The path with each of its points where `move` puts it."""
    pairs = [(s.end, s.mid) for s in path.segments]
    segments = tuple(Segment(move(end), None if mid is None else move(mid)) for end, mid in pairs)
    return Path(move(path.start), segments)
