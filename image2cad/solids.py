"""A light engine: build a sketch-and-extrude program without a CAD kernel, ready to draw.

    drawing = build(program)        # Drawing or None
    picture = rendering.draw(drawing)

Prisms with numbered faces go through manifold3d's booleans; faces and edges are
read back from the numbers. It is many times faster than OCC and is used where
thousands of parts are drawn. What is shipped or scored is built by CadQuery in
`metrics/execution.py`, never here. Left out: everything that is not an extrusion.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import atan2, ceil, cos, hypot, pi, sin
from typing import Any

import manifold3d
import numpy as np
from numpy.typing import NDArray

from image2cad.programs import Circle, Extrusion, Loop, Plane, Program, Rect

Array = NDArray[Any]
ARC_STEP = 0.15  # radians a chord of a tessellated arc
TOLERANCE = 1e-7


@dataclass(frozen=True, eq=False)
class Drawing:
    """What `rendering.draw` needs, and the solid's volume and box."""

    vertices: Array  # (N, 3)
    normals: Array  # (N, 3) unit
    triangles: Array  # (M, 3)
    edge_points: Array  # (P, 3)
    edge_starts: Array  # (E + 1,)
    volume: float
    bounding_box: Array  # (2, 3)
    manifold: manifold3d.Manifold


@dataclass(frozen=True)
class Wall:
    """A cylindrical side face: the axis, and the seam's direction if the circle is whole."""

    centre: Array
    axis: Array
    seam: Array | None


def build(program: Program) -> Drawing | None:
    """The program's solid, or None where there is none (empty, or a loop crosses itself)."""
    walls: dict[tuple[int, int], Wall] = {}
    solid: manifold3d.Manifold | None = None
    for step in program:
        prism = _prism(step, walls)
        if prism is None:
            return None
        if solid is None:
            solid = prism
        elif step.operation == "union":
            solid = solid + prism
        elif step.operation == "cut":
            solid = solid - prism
        else:
            solid = solid ^ prism
    if solid is None or solid.status() != manifold3d.Error.NoError or solid.is_empty():
        return None
    return _drawing(solid, walls)


def outline(loop: Loop) -> list[tuple[Array, tuple[float, float] | None, bool]]:
    """The loop as (points, centre, whole) a curve; each curve's last point starts the next.

    `points` (K, 2) run from the curve's start to just before its end; `centre` is
    given for arcs and circles, and `whole` is true for a full circle.
    """
    if isinstance(loop, Circle):
        count = ceil(2 * pi / ARC_STEP)
        angles = np.linspace(0, 2 * pi, count, endpoint=False)
        ring = np.stack(
            [loop.x + loop.radius * np.cos(angles), loop.y + loop.radius * np.sin(angles)]
        )
        return [(ring.T, (loop.x, loop.y), True)]
    if isinstance(loop, Rect):
        w, h = loop.width / 2, loop.height / 2
        corners = [(-w, -h), (w, -h), (w, h), (-w, h)]
        return [(np.array([[loop.x + x, loop.y + y]]), None, False) for x, y in corners]
    curves: list[tuple[Array, tuple[float, float] | None, bool]] = []
    here = loop.start
    for segment in loop.segments:
        centre = None if segment.mid is None else _circle_through(here, segment.mid, segment.end)
        if segment.mid is None or centre is None:
            curves.append((np.array([here]), None, False))
        else:
            curves.append((_arc(here, segment.mid, segment.end, centre), centre, False))
        here = segment.end
    if hypot(here[0] - loop.start[0], here[1] - loop.start[1]) > TOLERANCE:
        curves.append((np.array([here]), None, False))
    return curves


def _circle_through(
    a: tuple[float, float], b: tuple[float, float], c: tuple[float, float]
) -> tuple[float, float] | None:
    """Centre of the circle through three points, or None if they lie on a line."""
    bx, by, cx, cy = b[0] - a[0], b[1] - a[1], c[0] - a[0], c[1] - a[1]
    twice = 2 * (bx * cy - by * cx)
    if abs(twice) < 1e-9 * max(bx * bx + by * by, cx * cx + cy * cy, 1e-300):
        return None
    bb, cc = bx * bx + by * by, cx * cx + cy * cy
    return (a[0] + (cy * bb - by * cc) / twice, a[1] + (bx * cc - cx * bb) / twice)


def _arc(
    start: tuple[float, float],
    mid: tuple[float, float],
    end: tuple[float, float],
    centre: tuple[float, float],
) -> Array:
    radius = hypot(start[0] - centre[0], start[1] - centre[1])
    first, through, last = (atan2(p[1] - centre[1], p[0] - centre[0]) for p in (start, mid, end))
    sweep = (last - first) % (2 * pi)
    if (through - first) % (2 * pi) > sweep:
        sweep -= 2 * pi
    count = max(ceil(abs(sweep) / ARC_STEP), 2)
    angles = [first + sweep * i / count for i in range(1, count)]
    points = [start, *((centre[0] + radius * cos(t), centre[1] + radius * sin(t)) for t in angles)]
    return np.array(points)


def signed_area(points: Array) -> float:
    """Area of a polygon (K, 2), positive if it runs counterclockwise."""
    x, y = points.T
    return float(np.dot(x, np.roll(y, -1)) - np.dot(y, np.roll(x, -1))) / 2


def _contains(ring: Array, point: Array) -> bool:
    x, y = point
    x0, y0 = ring.T
    x1, y1 = np.roll(x0, -1), np.roll(y0, -1)
    crosses = (y0 > y) != (y1 > y)
    with np.errstate(divide="ignore", invalid="ignore"):
        at = x0 + (y - y0) * (x1 - x0) / (y1 - y0)
    return bool(np.count_nonzero(crosses & (at > x)) % 2)


def _prism(step: Extrusion, walls: dict[tuple[int, int], Wall]) -> manifold3d.Manifold | None:
    """The extruded profile; face 0 is the bottom, 1 the top, the sides follow curve by curve."""
    rings: list[Array] = []
    faces: list[Array] = []
    number = 2
    solid_id = manifold3d.Manifold.reserve_ids(1)
    for loop in step.loops:
        points, marks = [], []
        for curve, centre, whole in outline(loop):
            points.append(curve)
            marks.append(np.full(len(curve), number))
            if centre is not None:
                walls[solid_id, number] = _wall(step.plane, centre, whole)
            number += 1
        rings.append(np.concatenate(points))
        faces.append(np.concatenate(marks))
    if any(len(ring) < 3 or abs(signed_area(ring)) < TOLERANCE for ring in rings):
        return None
    for i, ring in enumerate(rings):
        inside = sum(_contains(other, ring[0]) for j, other in enumerate(rings) if j != i)
        if (signed_area(ring) > 0) == bool(inside % 2):
            # Reversed points start each segment at its old end: shift the labels with them.
            rings[i], faces[i] = ring[::-1], np.roll(faces[i][::-1], -1)
    caps = manifold3d.triangulate(rings)
    if len(caps) == 0 or step.depth == 0:
        return None
    flat = np.concatenate(rings)
    count = len(flat)
    following = np.concatenate(
        [start + np.roll(np.arange(len(ring)), -1) for start, ring in _starts(rings)]
    )
    here = np.arange(count)
    labels = np.concatenate(faces)
    low, high = sorted((0.0, step.depth))
    plane = step.plane
    axes = np.array([plane.x, plane.y, plane.normal])
    ends = [np.column_stack([flat, np.full(count, level)]) for level in (low, high)]
    vertices = np.concatenate(ends) @ axes + np.array(plane.origin)
    triangles = np.concatenate([
        caps[:, ::-1],
        caps + count,
        np.column_stack([here, following, following + count]),
        np.column_stack([here, following + count, here + count]),
    ])  # fmt: skip
    face_ids = np.concatenate([
        np.zeros(len(caps)), np.ones(len(caps)), labels, labels
    ])  # fmt: skip
    mesh = manifold3d.Mesh64(
        vert_properties=np.ascontiguousarray(vertices),
        tri_verts=np.ascontiguousarray(triangles, dtype=np.uint64),
        run_index=np.array([0, 3 * len(triangles)], dtype=np.uint64),
        run_original_id=np.array([solid_id], dtype=np.uint32),
        face_id=np.ascontiguousarray(face_ids, dtype=np.uint64),
    )
    prism = manifold3d.Manifold(mesh)
    return prism if prism.status() == manifold3d.Error.NoError else None


def _starts(rings: list[Array]) -> list[tuple[int, Array]]:
    offsets = np.cumsum([0, *(len(ring) for ring in rings)])
    return list(zip(offsets[:-1].tolist(), rings, strict=True))


def _wall(plane: Plane, centre: tuple[float, float], whole: bool) -> Wall:
    seam = np.array(plane.x) if whole else None
    return Wall(np.array(plane.point(*centre)), np.array(plane.normal), seam)


def _drawing(solid: manifold3d.Manifold, walls: dict[tuple[int, int], Wall]) -> Drawing:
    mesh = solid.to_mesh64()
    points = np.asarray(mesh.vert_properties)[:, :3]
    triangles = np.asarray(mesh.tri_verts).astype(np.int64)
    runs = np.asarray(mesh.run_index).astype(np.int64) // 3
    owners = np.repeat(np.asarray(mesh.run_original_id).astype(np.int64), np.diff(runs))
    faces = np.asarray(mesh.face_id).astype(np.int64)
    keys, face_of = np.unique(np.stack([owners, faces], axis=1), axis=0, return_inverse=True)
    face_of = face_of.ravel()

    corners = points[triangles]
    normals = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    normals /= np.maximum(np.linalg.norm(normals, axis=1, keepdims=True), 1e-300)
    normals = np.repeat(normals[:, None, :], 3, axis=1)
    edges, left, right = _mesh_edges(triangles)
    drawn = face_of[left] != face_of[right]
    for index, (owner, face) in enumerate(keys.tolist()):
        wall = walls.get((owner, face))
        if wall is None:
            continue
        members = np.flatnonzero(face_of == index)
        radial = corners[members] - wall.centre
        radial -= (radial @ wall.axis)[..., None] * wall.axis
        radial /= np.maximum(np.linalg.norm(radial, axis=2, keepdims=True), 1e-300)
        normals[members] = radial
        if wall.seam is not None:
            inner = np.flatnonzero((face_of[left] == index) & ~drawn)
            ends = points[edges[inner]] - wall.centre
            ends -= (ends @ wall.axis)[..., None] * wall.axis
            length = np.linalg.norm(ends, axis=2)
            drawn[inner] = (ends @ wall.seam > (1 - 1e-9) * length).all(axis=1)

    low, high = points.min(axis=0), points.max(axis=0)
    lines = edges[drawn]
    return Drawing(
        vertices=corners.reshape(-1, 3),
        normals=normals.reshape(-1, 3),
        triangles=np.arange(3 * len(triangles)).reshape(-1, 3),
        edge_points=points[lines].reshape(-1, 3),
        edge_starts=np.arange(0, 2 * len(lines) + 1, 2),
        volume=float(solid.volume()),
        bounding_box=np.stack([low, high]),
        manifold=solid,
    )


def _mesh_edges(triangles: Array) -> tuple[Array, Array, Array]:
    """Each undirected edge once, with the two triangles at its sides."""
    halves = triangles[:, [0, 1, 1, 2, 2, 0]].reshape(-1, 2)
    owner = np.repeat(np.arange(len(triangles)), 3)
    ordered = np.sort(halves, axis=1)
    order = np.lexsort((ordered[:, 1], ordered[:, 0]))
    first, second = order[0::2], order[1::2]
    return ordered[first], owner[first], owner[second]
