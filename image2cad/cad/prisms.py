"""One extrusion as a closed profile, and as faces and edges that can be drawn as they are.

    mesh = prism(step)              # Mesh, or None if there is nothing to extrude
    draw(mesh)

`light_engine.build` makes real solids of profiles, with booleans; where only one extrusion is
looked at, or several that lie over each other, that is not needed, and this takes a third
of the time. Left out: cuts, and the lines where extrusions pass through each other.
"""

from __future__ import annotations

from dataclasses import dataclass

import manifold3d
import numpy as np

from image2cad.cad.chords import (
    CHORD_ERROR,
    deflection_of,
    nesting,
    outline,
    seam_angle,
    signed_area,
)
from image2cad.cad.program import Extrusion, Point
from image2cad.common import Array

LEAST_LOOP_AREA = 1e-10  # of the longest side squared: of a loop that is one


@dataclass(frozen=True, eq=False)
class Profile:
    """Closed rings around the material, outer ones counterclockwise, and how they are divided.

    rings: (K, 2) points each. labels: for each point the number, from 2, of the curve that
    starts there or goes on. corners: whether a curve starts there. whole: rings that are one
    circle. arcs: of the curves that are, the centre, the start, and whether it is a full circle.
    caps: (T, 3) triangles over all points.
    """

    rings: list[Array]
    labels: list[Array]
    corners: list[Array]
    whole: list[bool]
    arcs: dict[int, tuple[Point, Array, bool]]
    caps: Array


@dataclass(frozen=True, eq=False)
class Mesh:
    """What `draw` needs, in the program's units."""

    vertices: Array  # (N, 3)
    normals: Array  # (N, 3) unit
    triangles: Array  # (M, 3)
    edge_points: Array  # (P, 3)
    edge_starts: Array  # (E + 1,)
    bounding_box: Array  # (2, 3)
    seams: Array | None = None  # (E,) bool: the edge only closes a cylinder; None: not known


def profile(step: Extrusion, deflection: float, least_area: float) -> Profile | None:
    """The profile of an extrusion, or None if a loop has no area, or two cross."""
    seam = seam_angle(step.plane.x, step.plane.y, step.plane.normal)
    rings: list[Array] = []
    labels: list[Array] = []
    corners: list[Array] = []
    whole: list[bool] = []
    arcs: dict[int, tuple[Point, Array, bool]] = {}
    number = 2
    for loop in step.loops:
        points, marks = [], []
        for curve, centre, circle in outline(loop, deflection, seam):
            points.append(curve)
            marks.append(np.full(len(curve), number))
            if centre is not None:
                arcs[number] = (centre, curve[0], circle)
            number += 1
        rings.append(np.concatenate(points))
        labels.append(np.concatenate(marks))
        whole.append(len(points) == 1)
        starts = np.zeros(len(rings[-1]), dtype=bool)
        starts[np.cumsum([0, *(len(curve) for curve in points[:-1])])] = True
        corners.append(starts)
    areas = [signed_area(ring) if len(ring) > 2 else 0.0 for ring in rings]
    if min(map(abs, areas), default=0.0) < least_area or step.depth == 0:
        return None
    depths = nesting(rings)
    if depths is None:
        return None
    for i, (ring, around) in enumerate(zip(list(rings), depths, strict=True)):
        if (areas[i] > 0) == bool(len(around) % 2):
            # Reversed points start each segment at its old end: shift the labels with them.
            back = labels[i][::-1]
            rings[i], labels[i] = ring[::-1], np.concatenate([back[1:], back[:1]])
            corners[i] = corners[i][::-1]
    caps = manifold3d.triangulate(rings)
    return Profile(rings, labels, corners, whole, arcs, caps) if len(caps) else None


def lines(flat: Profile) -> tuple[Array, list[int]]:
    """The edges of the extruded profile: rows of its low and then its high points, and lengths."""
    count = sum(map(len, flat.rings))
    here = np.arange(count)
    rows: list[Array] = []
    lengths: list[int] = []
    start = 0
    for ring, corner in zip(flat.rings, flat.corners, strict=True):
        around = np.append(here[start : start + len(ring)], start)
        upright = around[:-1][corner]
        rows += [around, around + count, np.stack([upright, upright + count], axis=1).ravel()]
        lengths += [len(around), len(around), *[2] * len(upright)]
        start += len(ring)
    return np.concatenate(rows), lengths


def following(flat: Profile) -> Array:
    """For each point of the rings, one after the other, the row of the next one of its ring."""
    after = np.arange(1, sum(map(len, flat.rings)) + 1)
    start = 0
    for ring in flat.rings:
        after[start + len(ring) - 1] = start
        start += len(ring)
    return after


def prism(step: Extrusion) -> Mesh | None:
    """The extrusion, to be drawn; None where `light_engine.build` would find nothing either."""
    deflection = deflection_of((step,))
    if not 0 < deflection < np.inf:
        return None
    shape = profile(step, deflection, LEAST_LOOP_AREA * (deflection / CHORD_ERROR) ** 2)
    if shape is None:
        return None
    flat = np.concatenate(shape.rings).astype(np.float64)
    count, after = len(flat), following(shape)
    axes = np.array([step.plane.x, step.plane.y, step.plane.normal])
    low, high = sorted((0.0, step.depth))
    ends = [np.column_stack([flat, np.full(count, level)]) for level in (low, high)]
    points = np.concatenate(ends) @ axes + np.array(step.plane.origin)

    along = flat[after] - flat
    flat_away = np.column_stack([along[:, 1], -along[:, 0]])
    flat_away /= np.maximum(np.hypot(*along.T), 1e-300)[:, None]
    away = np.stack([flat_away, flat_away])  # at the start and at the end of each side
    labels = np.concatenate(shape.labels)
    for number, (centre, _, _) in shape.arcs.items():
        mine = labels == number
        for i, at in enumerate((flat[mine], flat[after[mine]])):
            radial = at - np.array(centre)
            radial /= np.maximum(np.hypot(*radial.T), 1e-300)[:, None]
            inwards = (radial * flat_away[mine]).sum(axis=1) < 0
            away[i, mine] = np.where(inwards[:, None], -radial, radial)
    here = np.arange(count)
    corners = np.concatenate([here, after, after + count, here + count])
    first, second, third, fourth = (2 * count + i * count + here for i in range(4))
    sides = np.concatenate([away[0], away[1], away[1], away[0]]) @ axes[:2]
    rows, lengths = lines(shape)
    return Mesh(
        vertices=np.concatenate([points, points[corners]]),
        normals=np.concatenate([np.repeat([-axes[2], axes[2]], count, axis=0), sides]),
        triangles=np.concatenate([
            shape.caps[:, ::-1], shape.caps + count,
            np.column_stack([first, second, third]), np.column_stack([first, third, fourth]),
        ]),
        edge_points=points[rows],
        edge_starts=np.concatenate([[0], np.cumsum(lengths)]),
        bounding_box=np.stack([points.min(axis=0), points.max(axis=0)]),
    )  # fmt: skip


def drawn_as_one(meshes: list[Mesh]) -> Mesh:
    """Several meshes drawn as one: what one of them hides of another is hidden."""
    corners = np.cumsum([0, *(len(mesh.vertices) for mesh in meshes)])
    points = np.cumsum([0, *(len(mesh.edge_points) for mesh in meshes)])
    firsts = list(zip(meshes, corners, points, strict=False))
    boxes = np.stack([mesh.bounding_box for mesh in meshes])
    return Mesh(
        vertices=np.concatenate([mesh.vertices for mesh in meshes]),
        normals=np.concatenate([mesh.normals for mesh in meshes]),
        triangles=np.concatenate([mesh.triangles + first for mesh, first, _ in firsts]),
        edge_points=np.concatenate([mesh.edge_points for mesh in meshes]),
        edge_starts=np.concatenate(
            [[0], *(mesh.edge_starts[1:] + first for mesh, _, first in firsts)]
        ),
        bounding_box=np.stack([boxes[:, 0].min(axis=0), boxes[:, 1].max(axis=0)]),
    )
