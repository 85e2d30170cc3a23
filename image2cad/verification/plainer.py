"""The same program with fewer numbers, where the picture does not mind.

    one = plainer(one, target, stop)      # candidate, fitted again where it became plainer
    program = concentric(one.program)     # circles and rectangles that nearly share a middle

Outlines that are read from a picture are ragged: a side has a corner too many, a rectangle a blunt
one, a straight side a flat arc, a ring a hole beside its middle. Left out: steps that are not
needed (growing.py).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from image2cad.cad import Circle, Loop, Path, Point, Program, Rect, Segment
from image2cad.common import Array, Stop
from image2cad.reading import corners_of, squared_off
from image2cad.verification.candidate import Candidate
from image2cad.verification.cost import Target
from image2cad.verification.fitting import fit

OFF_MIDDLE = 0.06  # of the larger radius: outlines with nearer middles are meant to share one
SAME_MIDDLE = 1e-6  # of a radius: middles that are nearer are one
SHARED_LOSS, SHARED_COST = 1.03, 2e-5  # factor and cost that a shared middle may add
TOLERANCES = (0.04, 0.02, 0.01)  # of an outline's longer side, boldest first


def plainer(one: Candidate, target: Target, stop: Stop) -> Candidate:
    """The candidate with the plainest outlines that lower its price."""
    ways: list[Callable[[Loop], Loop]] = [squared_off]
    ways += [lambda loop, share=share: _simplified(loop, share) for share in TOLERANCES]  # type: ignore[misc]
    for way in ways:
        if stop.due():
            break
        program = _with_loops(one.program, way)
        if program == one.program:
            continue
        fitted = fit(program, target, (8, 4), (3, 3), source=one.source, stop=stop)
        if fitted.growing_price < one.growing_price:
            one = fitted
    program = concentric(one.program)
    if program != one.program and not stop.due():
        fitted = fit(program, target, (8, 4), (3, 3), source=one.source, stop=stop)
        one = fitted if hardly_dearer(fitted, one) else one
    return one


def concentric(program: Program) -> Program:
    """With one middle for circles and rectangles that nearly share it, those of other steps too.

    A hole a little beside the middle of a ring and a camera a little off draw the same, and parts
    are made with the hole in the middle. A rectangle's radius is half its smaller side.
    """
    larger: list[tuple[int, Array, float]] = []  # an axis, a middle (3,) across it, a radius
    found: dict[tuple[int, int], Circle | Rect] = {}
    outlines = [
        (_radius(loop), i, j, loop)
        for i, step in enumerate(program)
        for j, loop in enumerate(step.loops)
        if isinstance(loop, Circle | Rect) and step.plane.name is not None
    ]
    for radius, i, j, loop in sorted(outlines, key=lambda one: -one[0]):
        plane = program[i].plane
        along, across, up = (np.array(way) for way in (plane.normal, plane.x, plane.y))
        axis = int(np.argmax(np.abs(along)))
        middle = np.array(plane.origin) + loop.x * across + loop.y * up
        middle[axis] = 0.0
        near = (
            other
            for its, other, size in larger
            if its == axis and np.linalg.norm(middle - other) < OFF_MIDDLE * size
        )
        shared = next(near, middle)
        if shared is middle:
            larger.append((axis, middle, radius))
            continue
        if np.linalg.norm(shared - middle) > SAME_MIDDLE * radius:
            x, y = (float((shared - plane.origin) @ way) for way in (across, up))
            found[i, j] = replace(loop, x=x, y=y)
    return tuple(
        replace(step, loops=tuple(found.get((i, j), loop) for j, loop in enumerate(step.loops)))
        for i, step in enumerate(program)
    )


def _radius(loop: Circle | Rect) -> float:
    return loop.radius if isinstance(loop, Circle) else min(loop.width, loop.height) / 2


def hardly_dearer(one: Candidate, other: Candidate) -> bool:
    """Whether a program with shared middles costs hardly more than the same without."""
    return one.cost < SHARED_LOSS * other.cost + SHARED_COST


def _with_loops(program: Program, way: Callable[[Loop], Loop]) -> Program:
    return tuple(replace(step, loops=tuple(map(way, step.loops))) for step in program)


def _simplified(loop: Loop, share: float) -> Loop:
    """Without the corners that lie nearly on the line between others, and without flat arcs."""
    if isinstance(loop, Circle | Rect):
        return loop
    points = np.array([loop.start, *(side.end for side in loop.segments)])
    mids = [side.mid for side in loop.segments]
    if np.allclose(points[0], points[-1]):
        points = points[:-1]
    else:
        mids.append(None)  # the line that closes it
    count, before = len(points), list(mids)
    tolerance = share * float(np.ptp(points, axis=0).max())
    for i, mid in enumerate(mids):
        if mid is not None and _off(mid, points[i], points[(i + 1) % count]) < tolerance:
            mids[i] = None
    ends = {end for i, mid in enumerate(mids) if mid is not None for end in (i, (i + 1) % count)}
    if not ends and count < 4:
        return loop
    kept = corners_of(points, tolerance, sorted(ends))
    if len(kept) < (2 if ends else 3) or (len(kept) == count and mids == before):
        return loop
    corners = [(float(x), float(y)) for x, y in points[kept]]
    sides = [Segment(end, mids[i]) for i, end in zip(kept, [*corners[1:], corners[0]], strict=True)]
    return Path(corners[0], tuple(sides if sides[-1].mid is not None else sides[:-1]))


def _off(point: Point, start: Array, end: Array) -> float:
    """How far a point is off the line through two others."""
    (x, y), (px, py) = end - start, np.array(point) - start
    length = float(np.hypot(x, y))
    return abs(float(px * y - py * x)) / length if length else float(np.hypot(px, py))
