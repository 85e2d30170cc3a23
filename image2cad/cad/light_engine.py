"""A light engine: build a sketch-and-extrude program without CAD booleans, ready to draw.

    drawing = build(program)        # Drawing or None
    picture = draw(drawing)

Prisms with numbered faces go through manifold3d's booleans; faces and edges are
read back from the numbers. It is many times faster than OpenCASCADE and is used
where thousands of parts are drawn. What is shipped or scored is built by CadQuery
confined, by `metrics.run_cadquery`, never here.

As in DeepCAD's solids, which were never cleaned, an edge of a prism stays where
it lies on another's face. Left out: everything that is not an extrusion, and
that for prisms that a later step cuts.
"""

from __future__ import annotations

from dataclasses import dataclass

import manifold3d
import numpy as np

from image2cad.cad.chords import CHORD_ERROR, deflection_of
from image2cad.cad.prisms import LEAST_LOOP_AREA, following, lines, profile
from image2cad.cad.program import Extrusion, Plane, Point, Program
from image2cad.common import Array
from metrics import edges_pair_up

LARGEST_LENGTH = 1e100  # squares of larger lengths are no finite numbers
MERGE_DISTANCE = 1e-9  # of the longest side: points that differ by less become one
SAME_PLANE_COSINE = 1 - 1e-10  # cosine from which two neighbouring triangles lie in one plane


@dataclass(frozen=True, eq=False)
class Drawing:
    """What `draw` needs, and the solid's volume and box."""

    vertices: Array  # (N, 3)
    normals: Array  # (N, 3) unit
    triangles: Array  # (M, 3)
    edge_points: Array  # (P, 3)
    edge_starts: Array  # (E + 1,)
    seams: Array  # (E,) bool: the edge only closes a cylinder
    volume: float
    bounding_box: Array  # (2, 3)
    manifold: manifold3d.Manifold


@dataclass(frozen=True)
class Wall:
    """A cylindrical side face: axis, radius, and the seam's direction if the circle is whole."""

    centre: Array
    axis: Array
    radius: float
    seam: Array | None


@dataclass(frozen=True, eq=False)
class Prism:
    """An extruded profile: the solid, its edges as polylines, and its round walls by number."""

    solid: manifold3d.Manifold
    id: int
    points: Array  # (P, 3)
    lengths: list[int]
    seams: list[bool]
    walls: dict[int, Wall]


def build(program: Program) -> Drawing | None:
    """The program's solid, or None where there is none (empty, or a loop crosses itself)."""
    if not program:
        return None
    deflection = deflection_of(program)
    longest = deflection / CHORD_ERROR
    if not 0 < longest < LARGEST_LENGTH:
        return None
    prisms: list[Prism] = []
    solid = manifold3d.Manifold()
    for i, step in enumerate(program):
        prism = _prism(step, deflection, MERGE_DISTANCE * longest)
        if prism is None:
            return None
        prisms.append(prism)
        if i == 0:
            solid = prism.solid
        elif step.operation == "union":
            solid = solid + prism.solid
        elif step.operation == "cut":
            solid = solid - prism.solid
        else:
            solid = solid ^ prism.solid
    if solid.status() != manifold3d.Error.NoError or solid.is_empty():
        return None
    cuts = [i for i, step in enumerate(program) if i and step.operation != "union"]
    return _drawing(solid, prisms, cuts[-1] + 1 if cuts else 0)


def _prism(step: Extrusion, deflection: float, grid: float) -> Prism | None:
    """The extruded profile; face 0 is the bottom, 1 the top, the sides follow curve by curve."""
    plane = step.plane
    shape = profile(step, deflection, LEAST_LOOP_AREA * (grid / MERGE_DISTANCE) ** 2)
    if shape is None:
        return None
    flat, labels = np.concatenate(shape.rings), np.concatenate(shape.labels)
    count, after = len(flat), following(shape)
    here = np.arange(count)
    low, high = sorted((0.0, step.depth))
    axes = np.array([plane.x, plane.y, plane.normal])
    ends = [np.column_stack([flat, np.full(count, level)]) for level in (low, high)]
    vertices = np.concatenate(ends) @ axes + np.array(plane.origin)
    # Two faces meant to be one plane differ by rounding, and would leave slivers.
    vertices = np.round(vertices / grid) * grid
    rows, lengths, seams = lines(shape)
    walls = {}
    for number, (centre, start, circle) in shape.arcs.items():
        walls[number] = _wall(plane, centre, start, circle)
    triangles = np.concatenate([
        shape.caps[:, ::-1],
        shape.caps + count,
        np.column_stack([here, after, after + count]),
        np.column_stack([here, after + count, here + count]),
    ])  # fmt: skip
    if not edges_pair_up(triangles):  # a profile that crosses itself
        return None
    caps = len(shape.caps)
    face_ids = np.concatenate([np.zeros(caps), np.ones(caps), labels, labels])
    prism_id = manifold3d.Manifold.reserve_ids(1)
    mesh = manifold3d.Mesh64(
        vert_properties=np.ascontiguousarray(vertices),
        tri_verts=np.ascontiguousarray(triangles, dtype=np.uint64),
        run_index=np.array([0, 3 * len(triangles)], dtype=np.uint64),
        run_original_id=np.array([prism_id], dtype=np.uint32),
        face_id=np.ascontiguousarray(face_ids, dtype=np.uint64),
    )
    solid = manifold3d.Manifold(mesh)
    if solid.status() != manifold3d.Error.NoError:
        return None
    return Prism(solid, prism_id, vertices[rows], lengths, seams, walls)


def _wall(plane: Plane, centre: Point, start: Array, circle: bool) -> Wall:
    away = start - np.array(centre)
    radius = float(np.hypot(*away))
    seam = (away[0] * np.array(plane.x) + away[1] * np.array(plane.y)) / max(radius, 1e-300)
    axis = np.array(plane.normal)
    return Wall(np.array(plane.point(*centre)), axis, radius, seam if circle else None)


def _drawing(solid: manifold3d.Manifold, prisms: list[Prism], uncut: int) -> Drawing:
    """Faces and edges of the solid; no step cuts the prisms from number `uncut` on."""
    mesh = solid.to_mesh64()
    points = np.asarray(mesh.vert_properties)[:, :3]
    triangles = np.asarray(mesh.tri_verts).astype(np.int64)
    runs = np.asarray(mesh.run_index).astype(np.int64) // 3
    owners = np.repeat(np.asarray(mesh.run_original_id).astype(np.int64), np.diff(runs))
    # A face's key: its prism's number in the program, and its own number there.
    number_of = {prism.id: i for i, prism in enumerate(prisms)}
    prism_of = np.array([number_of[owner] for owner in owners.tolist()])
    keys = prism_of * (1 << 32) + np.asarray(mesh.face_id).astype(np.int64)

    corners = points[triangles]
    normals = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    normals /= np.maximum(np.linalg.norm(normals, axis=1, keepdims=True), 1e-300)
    smooth = np.repeat(normals[:, None, :], 3, axis=1)
    edges, left, right = _mesh_edges(triangles)
    drawn = keys[left] != keys[right]
    closing = np.zeros(len(edges), dtype=bool)
    walls: list[tuple[Wall, Array]] = []
    for i, prism in enumerate(prisms):
        for number, wall in prism.walls.items():
            members = keys == i * (1 << 32) + number
            if not members.any():
                continue
            walls.append((wall, members))
            radial = corners[members] - wall.centre
            radial -= (radial @ wall.axis)[..., None] * wall.axis
            radial /= np.maximum(np.linalg.norm(radial, axis=2, keepdims=True), 1e-300)
            smooth[members] = radial
            if wall.seam is not None and i < uncut:
                inner = np.flatnonzero(members[left] & members[right])
                away = points[edges[inner]] - wall.centre
                away -= (away @ wall.axis)[..., None] * wall.axis
                length = np.linalg.norm(away, axis=2)
                closing[inner] = (away @ wall.seam > (1 - 1e-9) * length).all(axis=1)
    # The uncut prisms bring their own edges; what is buried of those will be hidden.
    drawn &= (prism_of[left] != prism_of[right]) | (prism_of[left] < uncut)
    # Where the meshes of two faces in one surface meet is none.
    border = np.flatnonzero(drawn & ((prism_of[left] >= uncut) | (prism_of[right] >= uncut)))
    level = (normals[left[border]] * normals[right[border]]).sum(axis=1) > SAME_PLANE_COSINE
    surface = _surfaces(walls, len(triangles))
    one, other = surface[left[border]], surface[right[border]]
    drawn[border] &= ~np.where((one < 0) & (other < 0), level, one == other)
    lines = [edges[drawn | closing]]
    flags = [closing[drawn | closing]]

    low, high = points.min(axis=0), points.max(axis=0)
    whole = prisms[uncut:]
    lengths = [2] * len(lines[0]) + [length for prism in whole for length in prism.lengths]
    seams = [flag for prism in whole for flag in prism.seams]
    return Drawing(
        vertices=corners.reshape(-1, 3),
        normals=smooth.reshape(-1, 3),
        triangles=np.arange(3 * len(triangles)).reshape(-1, 3),
        edge_points=np.concatenate([points[lines[0]].reshape(-1, 3), *(p.points for p in whole)]),
        edge_starts=np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)]),
        seams=np.concatenate([*flags, np.array(seams, dtype=bool)]),
        volume=float(solid.volume()),
        bounding_box=np.stack([low, high]),
        manifold=solid,
    )


def _surfaces(walls: list[tuple[Wall, Array]], count: int) -> Array:
    """For each triangle the number of its cylinder, equal where two walls share one; -1 if flat."""
    surface = np.full(count, -1)
    for i, (wall, members) in enumerate(walls):
        number = i
        for j, (other, _) in enumerate(walls[:i]):
            between = other.centre - wall.centre
            between = between - (between @ wall.axis) * wall.axis
            near = 1e-6 * wall.radius
            if (
                abs(wall.axis @ other.axis) > SAME_PLANE_COSINE
                and abs(wall.radius - other.radius) < near
                and np.linalg.norm(between) < near
            ):
                number = int(surface[np.argmax(walls[j][1])])
                break
        surface[members] = number
    return surface


def _mesh_edges(triangles: Array) -> tuple[Array, Array, Array]:
    """Each undirected edge once, with the two triangles at its sides."""
    halves = triangles[:, [0, 1, 1, 2, 2, 0]].reshape(-1, 2)
    owner = np.repeat(np.arange(len(triangles)), 3)
    ordered = np.sort(halves, axis=1)
    order = np.lexsort((ordered[:, 1], ordered[:, 0]))
    first, second = order[0::2], order[1::2]
    return ordered[first], owner[first], owner[second]
