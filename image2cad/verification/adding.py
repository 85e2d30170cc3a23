"""Extrusions that may be added to a part next, each with what the picture then costs.

    for one in additions(program, target, regions, stop): ...   # Addition(cost, step, region)

Every flat region of the picture may be the cap of an extrusion that is added, or the
floor of one that is cut (reading/tracing.py reads it as a sketch). All levels that the part
already has are tried for both ends. There are thousands, so most are drawn small, over a
picture of the part that is drawn once. Left out: faces that are not flat or oblique.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from image2cad.cad import NAMED, Drawing, Extrusion, Loop, Operation, Plane, Program, build
from image2cad.common import Array, Stop
from image2cad.reading import FACING_AXES, FACING_PLANES, SHADE_TOLERANCE, Cap, face_shade
from image2cad.rendering import SIZE, TONES, WHITE, Camera, Picture, draw_into
from image2cad.verification.cost import Floats, Target, cost_of, features_of, picture_of, squared
from image2cad.verification.parameters import levels

COARSE_BLOCK = 16  # pixels of 448 in a block of the features that additions are ranked by
SMALL_SIDE = SIZE // 4  # pixels of the small pictures that they are drawn as
EXPLAINED_OVERLAP = 0.9  # of a region with one of the part's, from which it needs no extrusion
DEPTHS_TRIED = (2.0, 5.0, 10.0, 18.0, 30.0, 50.0, 80.0, 130.0)


class Addition(NamedTuple):
    """An extrusion, what the picture costs with it, and the region that it was read from."""

    cost: float
    step: Extrusion
    region: int


def additions(
    program: Program, target: Target, regions: list[list[Cap]], stop: Stop
) -> Iterator[Addition]:
    """Extrusions to add to `program`, in front of the camera that the regions were read by."""
    camera = target.camera
    scene = _scene(program, camera)
    goal, blank = target.features[COARSE_BLOCK], target.blank[COARSE_BLOCK]
    for region, readings in enumerate(regions):
        if stop.due():
            return
        if scene.picture is not None and _explained(readings[0], scene.picture):
            continue
        best = max(cap.straight for cap in readings)
        for cap in readings:
            axis = FACING_AXES[cap.plane]
            inwards = camera.inwards(axis)
            block = build((_extrusion(cap.plane, cap.loops, 0.0, inwards),))
            if cap.straight < best - 0.35 or block is None:
                continue
            known = (levels(program, axis) if program else []) or [0.0]
            size = max(known) - min(known)
            outermost = max(known) if inwards < 0 else min(known)
            starts = list(known)
            if program:
                starts += [outermost - inwards * share * size for share in (0.05, 0.12, 0.25)]
                starts += [(a + b) / 2 for a, b in zip(known, known[1:], strict=False)]
            for start in starts:
                if stop.due():
                    return
                ends = [end for end in known if (end - start) * inwards > 0.3]
                ends += [start + inwards * depth for depth in DEPTHS_TRIED]
                loops = cap.at(start)
                for end in ends:
                    picture = _with(scene, block, axis, start, end)
                    gap = features_of(picture, COARSE_BLOCK) - goal
                    step = _extrusion(cap.plane, loops, start, end)
                    yield Addition(squared(gap) / blank, step, region)
                if program and (outermost - start) * inwards < -0.3:
                    step = _extrusion(cap.plane, loops, start, outermost - inwards, "cut")
                    cost = cost_of((*program, step), target, COARSE_BLOCK, True)
                    yield Addition(cost, step, region)


# ---- The part so far and one extrusion more, drawn small


@dataclass(frozen=True, eq=False)
class _Scene:
    """What a program looks like to the target's camera: depth and tone of each small pixel.

    camera: the target's, for pictures that small.
    """

    camera: Camera
    depth: Floats
    tone: NDArray[np.int16]
    picture: Picture | None


def _scene(program: Program, camera: Camera) -> _Scene:
    small = camera.zoomed(SMALL_SIDE / SIZE)
    depth = np.full((SMALL_SIDE, SMALL_SIDE), -np.inf, dtype=np.float32)
    tone = np.full((SMALL_SIDE, SMALL_SIDE), WHITE, dtype=np.int16)
    drawing = build(program) if program else None
    if drawing is None:
        return _Scene(small, depth, tone, None)
    _add(drawing, drawing.vertices, drawing.edge_points, small, depth, tone)
    return _Scene(small, depth, tone, picture_of(drawing, camera))


def _with(scene: _Scene, block: Drawing, axis: int, start: float, end: float) -> Picture:
    """The small picture of the scene and a block one unit deep, stretched from start to end."""
    depth, tone = scene.depth.copy(), scene.tone.copy()
    # A sketch whose plane moves along the line of sight looks the same.
    t = scene.camera.slides(np.zeros(1), np.full(1, start), axis)
    factor, shift = scene.camera.slide(float(t[0]))

    def stretched(points: Array) -> Array:
        out = factor * points + shift
        out[:, axis] = start + np.abs(points[:, axis]) * (end - start)
        return out

    lines = stretched(block.edge_points)
    _add(block, stretched(block.vertices), lines, scene.camera, depth, tone)
    return TONES[tone]


def _add(
    drawing: Drawing, vertices: Array, lines: Array, camera: Camera, depth: Any, tone: Any
) -> None:
    screen, points = camera.project(vertices), camera.project(lines)
    facing = drawing.normals @ camera.view
    shown = np.ones(len(drawing.edge_starts) - 1, dtype=np.bool_)
    starts = drawing.edge_starts
    draw_into(
        screen, drawing.triangles, drawing.normals, facing, points, starts, shown, depth, tone
    )


def _explained(cap: Cap, picture: Picture) -> bool:
    """Whether the picture of the program has nearly the same flat region."""
    shade = face_shade(cap.plane, cap.camera)
    labels, _ = ndimage.label(np.abs(picture[..., 0].astype(int) - shade) <= SHADE_TOLERANCE)
    inside = np.bincount(labels[cap.mask])
    inside[0] = 0
    both = int(inside.max())
    either = int((labels == int(inside.argmax())).sum()) + int(cap.mask.sum()) - both
    return both > EXPLAINED_OVERLAP * either


def _extrusion(
    plane: int, loops: tuple[Loop, ...], start: float, end: float, operation: Operation = "union"
) -> Extrusion:
    x, normal = NAMED[FACING_PLANES[plane]]
    axis = FACING_AXES[plane]
    low, high = min(start, end), max(start, end)
    origin = [0.0, 0.0, 0.0]
    origin[axis] = low if normal[axis] > 0 else high
    place = (origin[0], origin[1], origin[2])
    return Extrusion(Plane(place, x, normal), loops, high - low, operation)
