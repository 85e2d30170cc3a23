"""Sketch loops as polylines, with arcs divided as in GenCAD-Code's pictures.

    curves = outline(loop)                                  # even steps
    curves = outline(loop, deflection=0.004, seam=0.0)      # the pictures' steps

Before it was drawn, every part was turned into B-splines and meshed with the
defaults of OpenCASCADE's viewer (chord error 0.004 of the longest side of the
box around the B-splines' poles, 20 degrees). A circle becomes 41 or so uneven
chords, and their corners are to be seen in the pictures: with even steps SSIM
is .998, with these .9999. OpenCASCADE's own routine is asked for the steps.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import lru_cache
from math import atan2, ceil, cos, hypot, pi, radians, sin

import numpy as np
from numba import njit

from image2cad.cad.arcs import Arc, arc_through, meet_again
from image2cad.cad.program import Circle, Loop, Path, Point, Program, Rect, Vector
from image2cad.cad.transforms import corners
from image2cad.common import Array

ARC_STEP = 0.15  # radians a chord, where no deflection is given
CHORD_ERROR = 0.004  # of the longest side: the viewer's coefficient 0.001, times 4
CHORD_ANGLE = 20.0  # degrees: the viewer's deviation angle
BORDER = 5e-3  # of the longer side: a point so near to a loop may be on it, because of chords
SHORTEST_LINE = 1e-7  # of a closing line; a shorter one is none


def outline(
    loop: Loop, deflection: float | None = None, seam: float = 0.0
) -> list[tuple[Array, Point | None, bool]]:
    """The loop as (points, centre, whole) a curve; each curve's last point starts the next.

    `points` (K, 2) run from the curve's start to just before its end; `centre` is
    given for arcs and circles, and `whole` is true for a full circle, which starts
    at the angle `seam`. `deflection` is the chord error, in the loop's units.
    """
    if isinstance(loop, Circle):
        angles = seam + _steps(2 * pi, loop.radius, deflection)[:-1]
        ring = [loop.x + loop.radius * np.cos(angles), loop.y + loop.radius * np.sin(angles)]
        return [(np.stack(ring, axis=1), (loop.x, loop.y), True)]
    if isinstance(loop, Rect):
        return [(np.array([corner]), None, False) for corner in corners(loop)]
    curves: list[tuple[Array, Point | None, bool]] = []
    here = loop.start
    for segment in loop.segments:
        arc = None if segment.mid is None else arc_through(here, segment.mid, segment.end)
        if arc is None:
            curves.append((np.array([here]), None, False))
        else:
            centre, radius, first, sweep = arc
            angles = first + np.copysign(_steps(abs(sweep), radius, deflection)[:-1], sweep)
            ring = [centre[0] + radius * np.cos(angles), centre[1] + radius * np.sin(angles)]
            points = np.stack(ring, axis=1)
            points[0] = here
            curves.append((points, centre, False))
        here = segment.end
    if hypot(here[0] - loop.start[0], here[1] - loop.start[1]) > SHORTEST_LINE:
        curves.append((np.array([here]), None, False))
    return curves


def deflection_of(program: Program) -> float:
    """The chord error with which the viewer would mesh the program's part."""
    low, high = np.full(3, np.inf), np.full(3, -np.inf)
    for i, step in enumerate(program):
        if i and step.operation != "union":
            continue  # what is cut away is taken to leave the box as it is
        seam = seam_angle(step.plane.x, step.plane.y, step.plane.normal)
        flat = np.array([pole for loop in step.loops for pole in _poles(loop, seam)])
        axes = np.array([step.plane.x, step.plane.y])
        ends = flat @ axes + np.array(step.plane.origin)
        rise = step.depth * np.array(step.plane.normal)
        low = np.minimum(low, ends.min(axis=0) + np.minimum(rise, 0.0))
        high = np.maximum(high, ends.max(axis=0) + np.maximum(rise, 0.0))
    return CHORD_ERROR * float((high - low).max())


def seam_angle(x: Vector, y: Vector, normal: Vector) -> float:
    """Where a circle starts on a plane with these axes, in radians from its x axis.

    DeepCAD gave circles a centre and a normal only, and so left the start to
    OpenCASCADE: across the normal's smallest component, y before x before z.
    """
    a, b, c = normal
    p, q, r = abs(a), abs(b), abs(c)
    if q <= p and q <= r:
        start = (-c, 0.0, a) if p > r else (c, 0.0, -a)
    elif p <= q and p <= r:
        start = (0.0, -c, b) if q > r else (0.0, c, -b)
    else:
        start = (-b, a, 0.0) if p > q else (b, -a, 0.0)
    return atan2(
        sum(s * t for s, t in zip(start, y, strict=True)),
        sum(s * t for s, t in zip(start, x, strict=True)),
    )


def signed_area(points: Array) -> float:
    """Area of a polygon (K, 2), positive if it runs counterclockwise."""
    x, y = points.T
    return float(np.dot(x, np.roll(y, -1)) - np.dot(y, np.roll(x, -1))) / 2


def nesting(rings: Sequence[Array]) -> list[list[int]] | None:
    """For each polygon (K, 2) the numbers of those around it; None where two of them cross."""
    around: list[list[int]] = []
    for i, ring in enumerate(rings):
        inside = {j: lies_inside(ring, other) for j, other in enumerate(rings) if j != i}
        if None in inside.values():
            return None
        around.append([j for j, within in inside.items() if within])
    # Around what is around a loop is around it too, or chords deceived us.
    nested = all(set(around[j]) < set(by) for by in around for j in by)
    return around if nested else None


def lies_inside(ring: Array, other: Array) -> bool | None:
    """Whether a polygon (K, 2) lies inside another one, None where the two cross.

    Corners and middles of edges decide, without those on the other's border: loops may touch. Two
    equal polygons do not lie inside each other.
    """
    low, high = other.min(axis=0), other.max(axis=0)
    if (ring.min(axis=0) >= high).any() or (ring.max(axis=0) <= low).any():
        return False  # most pairs of holes
    inside, outside, on_border = _sides(ring, other, BORDER * float((high - low).max()))
    if inside and outside:
        return None
    if not inside and not outside:
        return on_border > len(ring)  # most of twice as many points
    return inside > 0


@njit(cache=True)
def _sides(ring: Array, other: Array, border: float) -> tuple[int, int, int]:
    """How many corners and middles of edges of `ring` lie surely inside and outside `other`.

    The third number is how many of those nearer than `border` to its border lie inside.
    """
    inside = outside = on_border = 0
    for k in range(2 * len(ring)):
        one, next_one = ring[k // 2], ring[(k // 2 + k % 2) % len(ring)]
        x, y = (one[0] + next_one[0]) / 2, (one[1] + next_one[1]) / 2
        nearest, crossed = np.inf, False
        for e in range(len(other)):
            x0, y0 = other[e]
            x1, y1 = other[(e + 1) % len(other)]
            dx, dy = x1 - x0, y1 - y0
            share = ((x - x0) * dx + (y - y0) * dy) / max(dx * dx + dy * dy, 1e-300)
            share = min(max(share, 0.0), 1.0)
            away = (x - x0 - share * dx) ** 2 + (y - y0 - share * dy) ** 2
            nearest = min(nearest, away)
            if (y0 > y) != (y1 > y) and x0 + (y - y0) * dx / dy > x:
                crossed = not crossed
        if nearest <= border * border:
            on_border += crossed
        elif crossed:
            inside += 1
        else:
            outside += 1
    return inside, outside, on_border


def _poles(loop: Loop, seam: float) -> Iterator[Point]:
    """The corners of a loop, and the B-spline poles of its arcs and circles."""
    if isinstance(loop, Circle):
        yield (loop.x + loop.radius * cos(seam), loop.y + loop.radius * sin(seam))
        yield from _arc_poles(Arc((loop.x, loop.y), loop.radius, seam, 2 * pi))
    elif isinstance(loop, Rect):
        yield from corners(loop)
    elif isinstance(loop, Path):
        here = loop.start
        for segment in loop.segments:
            yield here
            arc = None if segment.mid is None else arc_through(here, segment.mid, segment.end)
            if arc is not None:
                yield from _arc_poles(arc)
            here = segment.end
        yield here


def _arc_poles(arc: Arc) -> Iterator[Point]:
    """Where the tangents meet: a rational quadratic B-spline has one pole there a span."""
    spans = int(1.2 * abs(arc.sweep) / pi) + 1
    half = arc.sweep / (2 * spans)
    for i in range(spans):
        angle = arc.first + (2 * i + 1) * half
        length = arc.radius / cos(half)
        yield (arc.centre[0] + length * cos(angle), arc.centre[1] + length * sin(angle))


def _steps(sweep: float, radius: float, deflection: float | None) -> Array:
    """Angles from 0 to `sweep`, both included."""
    if deflection is None:
        return np.linspace(0.0, sweep, max(ceil(sweep / ARC_STEP), 2) + 1)
    if sweep < 1e-4 or radius <= 0:
        return np.array([0.0, sweep])
    # Rounded, so that equal arcs of one part are divided alike and once.
    return _viewer_steps(round(sweep, 6), float(f"{deflection / radius:.4g}"))


@lru_cache(maxsize=4096)
def _viewer_steps(sweep: float, chord_error: float) -> Array:
    # Imported here: a second of CPU, and many parts have no arc.
    from OCP.GCPnts import GCPnts_TangentialDeflection
    from OCP.Geom import Geom_Circle, Geom_TrimmedCurve
    from OCP.GeomAdaptor import GeomAdaptor_Curve
    from OCP.GeomConvert import GeomConvert
    from OCP.gp import gp_Ax2

    curve = Geom_Circle(gp_Ax2(), 1.0)
    if sweep < 2 * pi - 1e-5:
        curve = Geom_TrimmedCurve(curve, 0.0, sweep)
    spline = GeomConvert.CurveToBSplineCurve_s(curve)
    # The mesher halves both bounds; no step is allowed to be shorter than 1e-9.
    found = GCPnts_TangentialDeflection(
        GeomAdaptor_Curve(spline), radians(CHORD_ANGLE) / 2, max(chord_error / 2, 1e-6), 2, 1e-9
    )
    points = [found.Value(i + 1) for i in range(found.NbPoints())]
    angles = np.unwrap([atan2(point.Y(), point.X()) for point in points])
    angles[0], angles[-1] = 0.0, sweep
    angles.flags.writeable = False
    return angles


# ---- Edges that cross


def tangled(loops: Sequence[Loop]) -> bool:
    """Whether any two edges of a sketch cross or touch, other than neighbours at their corner."""
    rings = [np.concatenate([points for points, _, _ in outline(loop)]) for loop in loops]
    if any(len(ring) < 3 for ring in rings):
        return True
    if any(isinstance(loop, Path) and _neighbours_cross(loop) for loop in loops):
        return True
    following = np.concatenate([np.roll(ring, -1, axis=0) for ring in rings])
    number = np.repeat(np.arange(len(rings)), [len(ring) for ring in rings])
    return bool(_tangled(np.concatenate(rings), following, number))


def _neighbours_cross(loop: Path) -> bool:
    """Whether an arc crosses the curve before it or behind it, however near the corner."""
    if all(segment.mid is None for segment in loop.segments):
        return False
    ends = [loop.start, *(segment.end for segment in loop.segments)]
    arcs = [
        None if segment.mid is None else arc_through(start, segment.mid, segment.end)
        for start, segment in zip(ends, loop.segments, strict=False)
    ]
    if hypot(ends[-1][0] - ends[0][0], ends[-1][1] - ends[0][1]) > SHORTEST_LINE:
        arcs.append(None)  # the line that closes it
    else:
        ends.pop()
    count = len(arcs)
    return any(
        meet_again(ends[i], arcs[i - 1] or ends[i - 1], arcs[i] or ends[(i + 1) % count])
        for i in range(count)
        if arcs[i - 1] or arcs[i]
    )


@njit(cache=True)
def _tangled(start, end, ring):  # type: ignore[no-untyped-def]
    tiny = 1e-9
    for i in range(len(start)):
        ax, ay, bx, by = start[i, 0], start[i, 1], end[i, 0], end[i, 1]
        left, right, low, high = min(ax, bx), max(ax, bx), min(ay, by), max(ay, by)
        for j in range(i + 1, len(start)):
            cx, cy, dx, dy = start[j, 0], start[j, 1], end[j, 0], end[j, 1]
            if (
                min(cx, dx) > right + tiny
                or max(cx, dx) < left - tiny
                or min(cy, dy) > high + tiny
                or max(cy, dy) < low - tiny
            ):
                continue
            if ring[i] == ring[j]:
                # Neighbours share a corner; they must not turn back on each other.
                if cx == bx and cy == by:
                    cross = (bx - ax) * (dy - cy) - (by - ay) * (dx - cx)
                    if abs(cross) < tiny and (bx - ax) * (dx - cx) + (by - ay) * (dy - cy) < 0:
                        return True
                    continue
                if dx == ax and dy == ay:
                    cross = (bx - ax) * (dy - cy) - (by - ay) * (dx - cx)
                    if abs(cross) < tiny and (bx - ax) * (dx - cx) + (by - ay) * (dy - cy) < 0:
                        return True
                    continue
            p = (bx - ax) * (cy - ay) - (by - ay) * (cx - ax)
            q = (bx - ax) * (dy - ay) - (by - ay) * (dx - ax)
            r = (dx - cx) * (ay - cy) - (dy - cy) * (ax - cx)
            s = (dx - cx) * (by - cy) - (dy - cy) * (bx - cx)
            if (p > tiny and q > tiny) or (p < -tiny and q < -tiny):
                continue
            if (r > tiny and s > tiny) or (r < -tiny and s < -tiny):
                continue
            return True
    return False
