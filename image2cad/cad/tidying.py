"""Write a program one way, so that equal parts read equal.

    flat = tidied(parse(code), longest=1.5)
    text = to_code(ordered(canonical(rounded(flat, 2))))

The numbers keep their values; rounding them is up to `compacting.py`. Left out: any
change to the sequence of features, but that the halves of a sketch extruded to both
sides become one extrusion.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from image2cad.cad.chords import outline, signed_area
from image2cad.cad.program import (
    NAMED,
    Circle,
    Extrusion,
    Loop,
    Path,
    Plane,
    Point,
    Program,
    Rect,
    Segment,
    Vector,
)
from image2cad.cad.transforms import as_path, grounded, map_points

PART_SIDE = 100  # units of the longest side of parts on the grid, as models are trained
FLATTEST_ARC = 1.0  # twice its triangle's area in grid units; under it an arc is a line
NOISE = 1e-6  # directions, and lengths as a share of the part, that differ by less are equal


def tidied(program: Program, longest: float) -> Program:
    """The same solid, written one way, its numbers as they are.

    Sketches on the named planes where their normal allows it, in model
    coordinates; depths positive; `Rect` where a path is one; a sketch extruded to
    both sides joined to one extrusion. `longest` is the part's longest side.
    """
    out: list[Extrusion] = []
    for step in program:
        step = _on_named_plane(_upright(step))
        step = replace(
            step, loops=tuple(_as_rect(loop, NOISE * longest) for loop in step.loops), both=False
        )
        joined = _joined(out[-1], step, NOISE * longest, len(out) == 1) if out else None
        if joined is None:
            out.append(step)
        else:
            out[-1] = joined
    return tuple(out)


def _upright(step: Extrusion) -> Extrusion:
    """The same extrusion from its lower end upwards."""
    if step.depth >= 0:
        return step
    plane = replace(step.plane, origin=step.plane.point(0, 0, step.depth))
    return replace(step, plane=plane, depth=-step.depth)


def _on_named_plane(step: Extrusion) -> Extrusion:
    """The same extrusion sketched on XY, XZ or YZ, if its normal is an axis of the model."""
    plane = Plane(step.plane.origin, _straight(step.plane.x), _straight(step.plane.normal))
    for x, normal in NAMED.values():
        along = _dot(plane.normal, normal)
        if abs(along) < 1:
            continue
        origin = plane.origin if along > 0 else plane.point(0, 0, step.depth)
        target = Plane((0.0, 0.0, 0.0), x, normal)
        matrix = np.array([x, target.y]) @ np.array([plane.x, plane.y]).T

        def turn(point: Point, matrix: np.ndarray = matrix) -> Point:
            u, v = (matrix @ point).tolist()
            return (u, v)

        # A rectangle may come to lie askew, so it travels as its corners.
        loops = (loop if isinstance(loop, Circle) else as_path(loop) for loop in step.loops)
        (flat,) = map_points(
            (replace(step, loops=tuple(loops)),),
            move=lambda p: p,
            point=turn,
            length=lambda value: value,
        )
        return grounded(replace(flat, plane=replace(target, origin=origin)))
    return replace(step, plane=plane)


def _straight(axis: Vector) -> Vector:
    """`axis` without the noise of 1e-17, if that makes it an axis of the model."""
    x, y, z = (round(value) + 0.0 for value in axis)
    near = max(abs(a - b) for a, b in zip((x, y, z), axis, strict=True)) < NOISE
    return (x, y, z) if near else axis


def _dot(a: Sequence[float], b: Sequence[float]) -> float:
    return sum(p * q for p, q in zip(a, b, strict=True))


def _as_rect(loop: Loop, near: float) -> Loop:
    """The loop as a Rect if it is four lines along the sketch's axes."""
    if not isinstance(loop, Path) or any(segment.mid for segment in loop.segments):
        return loop
    corners = [loop.start, *(segment.end for segment in loop.segments)]
    if math.dist(corners[-1], corners[0]) < near:
        corners.pop()
    (left, low), (right, high) = np.min(corners, axis=0).tolist(), np.max(corners, axis=0).tolist()
    box = [(left, low), (right, low), (right, high), (left, high)]
    for turn in range(4):
        for around in (box, box[::-1]):
            ring = around[turn:] + around[:turn]
            if len(corners) == 4 and all(
                math.dist(p, q) < near for p, q in zip(corners, ring, strict=True)
            ):
                return Rect((left + right) / 2, (low + high) / 2, right - left, high - low)
    return loop


def _joined(below: Extrusion, above: Extrusion, near: float, first: bool) -> Extrusion | None:
    """Two extrusions of one sketch that touch, as one; None where they are no such pair."""
    one, two = sorted((below, above), key=lambda step: _dot(step.plane.origin, step.plane.normal))
    same_operation = above.operation == "union" if first else above.operation == below.operation
    if below.loops != above.loops or not same_operation or above.operation == "intersect":
        return None
    if (one.plane.x, one.plane.normal) != (two.plane.x, two.plane.normal):
        return None
    if math.dist(one.plane.point(0, 0, one.depth), two.plane.origin) > near:
        return None
    return replace(below, plane=one.plane, depth=one.depth + two.depth)


def ordered(program: Program) -> Program:
    """Loops by falling area, so the outer one first; equal ones row by row from the lowest left."""
    return tuple(replace(step, loops=tuple(sorted(step.loops, key=_place))) for step in program)


def _place(loop: Loop) -> tuple[float, float, float]:
    if isinstance(loop, Circle):
        area, x, y = math.pi * loop.radius**2, loop.x, loop.y
    else:
        points = np.concatenate([curve for curve, _, _ in outline(loop)])
        area = abs(signed_area(points))
        x, y = points.min(axis=0).tolist()
    # Equal loops in two places differ in the last digits of their area.
    return (-float(f"{area:.6g}"), y, x)


# ---- What snapping to the grid leaves


def cleaned(loop: Loop) -> Loop | None:
    """The snapped loop without what snapping left of it: empty edges, corners on a line.

    A path along four sides of a rectangle becomes a Rect; nothing left is None.
    """
    if not isinstance(loop, Path):
        return loop
    segments, here = [], loop.start
    for segment in (*loop.segments, Segment(loop.start)):
        if segment.end == here:
            continue
        mid = segment.mid
        if mid is not None and abs(_cross(here, mid, segment.end)) < FLATTEST_ARC:
            mid = None
        segments.append(Segment(segment.end, mid))
        here = segment.end
    i = 0
    while i < len(segments) and len(segments) > 2:
        # Segment i - 1 ends where segment i starts.
        corner, start = segments[i - 1], segments[i - 2].end
        straight = corner.mid is None and segments[i].mid is None
        if straight and _ahead(start, corner.end, segments[i].end):
            del segments[i - 1]
            i = 0
        else:
            i += 1
    if len(segments) < 2 or (len(segments) == 2 and all(s.mid is None for s in segments)):
        return None
    corners = [s.end for s in segments]
    xs, ys = sorted({x for x, _ in corners}), sorted({y for _, y in corners})
    if len(corners) == 4 and len(xs) == len(ys) == 2 and all(s.mid is None for s in segments):
        return Rect((xs[0] + xs[1]) / 2, (ys[0] + ys[1]) / 2, xs[1] - xs[0], ys[1] - ys[0])
    return Path(corners[-1], tuple(segments))


def _ahead(a: Point, b: Point, c: Point) -> bool:
    """Whether the way from a over b to c is straight; a spike is not, and stays to be found."""
    along = (b[0] - a[0]) * (c[0] - b[0]) + (b[1] - a[1]) * (c[1] - b[1])
    return _cross(a, b, c) == 0 and along > 0


def _cross(a: Point, b: Point, c: Point) -> float:
    """Twice the area of the triangle, positive if it turns left."""
    return (b[0] - a[0]) * (c[1] - a[1]) - (b[1] - a[1]) * (c[0] - a[0])
