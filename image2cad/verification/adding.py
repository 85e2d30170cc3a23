"""Extrusions that may be added to a part next, each with what the picture then costs.

    for one in additions(program, target, regions, stop): ...   # Addition(cost, step, region)

Every flat region of the picture may be the cap of an extrusion that is added, or the
floor of one that is cut (reading/tracing.py reads it as a sketch); its holes may go through what
is there already. All levels that the part has are tried for both ends. There are thousands, so
most are drawn small, over a picture of the part that is drawn once. Left out: faces that are not
flat or oblique.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from image2cad.cad import Circle, Drawing, Extrusion, Loop, Program, Rect, build
from image2cad.common import Array, Stop
from image2cad.reading import FACING_AXES, SHADE_TOLERANCE, Cap, face_shade
from image2cad.rendering import (
    SIZE,
    TONES,
    WHITE,
    Camera,
    Painting,
    blank_painting,
    code_of,
    directions,
    draw_into,
    paint,
)
from image2cad.verification.blocks import block_of
from image2cad.verification.boxes import box_of
from image2cad.verification.carving import Space
from image2cad.verification.cost import Looks, Target, cost_of, gap_of, looks_of
from image2cad.verification.features import Floats, squared
from image2cad.verification.holes import holes_of, opening_cuts
from image2cad.verification.parameters import levels

COARSE_BLOCK = 16  # pixels of 448 in a block of the features that additions are ranked by
SMALL_SIDE = SIZE // 4  # pixels of the small pictures that they are drawn as
EXPLAINED_OVERLAP = 0.9  # of a region with one of the part's, from which it needs no extrusion
REGIONS_OF_A_VIEW, READINGS_OF_A_VIEW = 4, 3  # of several, from which extrusions are read
STARTS_OF_A_VIEW, ENDS_OF_A_VIEW, HOLES_OF_A_VIEW = 4, 4, 4
EXPLAINED_ROUND = 0.8  # of a round region, that has directions of a cylinder about its axis
COAXIAL_STEP = 10.0  # between the levels that tell how an outline moves along the line of sight
COAXIAL_MISS, COAXIAL_TRIED = 0.2, 4  # share of its size that it may miss an axis; levels tried
DEPTHS_TRIED = (2.0, 5.0, 10.0, 18.0, 30.0, 50.0, 80.0, 130.0)


def _round_about() -> tuple[Array, ...]:
    """For each axis, (NO_FACE + 1,) bool: directions across it that are no main ones."""
    found = []
    for axis in range(3):
        off = np.abs(directions())
        across = (off[:, axis] < 0.1) & (off.max(axis=1) < 0.995)
        found.append(np.append(across, False))
    return tuple(found)


ROUND_ABOUT = _round_about()


class Addition(NamedTuple):
    """An extrusion, what the picture costs with it, and the region that it was read from.

    Each hole of a face counts as a region, and each opening as one of a negative number.
    """

    cost: float
    step: Extrusion
    region: int


def additions(
    program: Program, target: Target, regions: list[list[Cap]], stop: Stop
) -> Iterator[Addition]:
    """Extrusions to add to `program`, in front of the camera that the regions were read by."""
    small_looks = _small_looks(program, target)
    if isinstance(small_looks.whole, tuple):
        for number, step in opening_cuts(program, target.sights, small_looks.whole):
            if stop.due():
                return
            cost = cost_of((*program, step), target, COARSE_BLOCK, True)
            yield Addition(cost, step, -number)
    if target.space is not None:
        yield from _additions_in(target.space, small_looks, program, target, regions, stop)
        return
    blank = target.blank[COARSE_BLOCK]
    for region, readings in enumerate(regions):
        if stop.due():
            return
        camera = readings[0].camera
        if program and target.sights:  # GenCAD's own pictures lost more by it than they won
            for number, step in holes_of(readings, program, regions):
                if stop.due():
                    return
                cost = cost_of((*program, step), target, COARSE_BLOCK, True)
                yield Addition(cost, step, region + number * len(regions))
        if small_looks.whole is not None and _explained(readings[0], small_looks.whole, target):
            continue
        best = max(cap.straight for cap in readings)
        for cap in readings:
            axis = FACING_AXES[cap.plane]
            inwards = camera.inwards(axis)
            block = build((block_of(cap.plane, cap.loops, 0.0, inwards),))
            if cap.straight < best - 0.35 or block is None:
                continue
            known = (levels(program, axis) if program else []) or [0.0]
            size = max(known) - min(known)
            outermost = max(known) if inwards < 0 else min(known)
            starts = list(known)
            if program:
                starts += [outermost - inwards * share * size for share in (0.05, 0.12, 0.25)]
                starts += [(a + b) / 2 for a, b in zip(known, known[1:], strict=False)]
            if program and target.sights:
                starts += _spaced(_coaxial(cap, program), 0.02 * size)[:COAXIAL_TRIED]
            for start in starts:
                if stop.due():
                    return
                ends = [end for end in known if (end - start) * inwards > 0.3]
                depths = cap.depths or DEPTHS_TRIED
                ends += [start + inwards * depth for depth in depths]
                loops = cap.at(start)
                for end in ends:
                    looks = _with(small_looks, block, target, cap, start, end)
                    gap = gap_of(looks, target, COARSE_BLOCK)
                    step = block_of(cap.plane, loops, start, end)
                    yield Addition(squared(gap) / blank, step, region)
                if program and not cap.depths and (outermost - start) * inwards < -0.3:
                    step = block_of(cap.plane, loops, start, outermost - inwards, "cut")
                    cost = cost_of((*program, step), target, COARSE_BLOCK, True)
                    yield Addition(cost, step, region)


def _coaxial(cap: Cap, program: Program) -> list[float]:
    """Levels at which the outline of a reading is about the middle of one of the part's."""
    axis = FACING_AXES[cap.plane]
    (here, size), (there, _) = (_middle(cap.at(level)[0]) for level in (0.0, COAXIAL_STEP))
    way = there - here
    if way @ way < 1e-6:
        return []  # seen along the axis, it stays where it is
    found = []
    for step in (step for step in program if step.plane.name is not None):
        middles = [box_of((step,)).mean(axis=0)]
        if abs(step.plane.normal[axis]) > 0.99:
            middles += [step.plane.point(*_middle(loop)[0]) for loop in step.loops[1:]]
        for middle in middles:
            goal = np.delete(middle, axis)
            at = float((goal - here) @ way / (way @ way))
            if np.hypot(*(here + at * way - goal)) < COAXIAL_MISS * size:
                found.append(COAXIAL_STEP * at)
    return found


def _middle(loop: Loop) -> tuple[Array, float]:
    """(2,) the middle of the box around a loop, and half its smaller side."""
    if isinstance(loop, Circle):
        return np.array([loop.x, loop.y]), loop.radius
    if isinstance(loop, Rect):
        return np.array([loop.x, loop.y]), min(loop.width, loop.height) / 2
    places = [loop.start]
    for side in loop.segments:
        places += [side.end] if side.mid is None else [side.mid, side.end]
    low, high = np.min(places, axis=0), np.max(places, axis=0)
    return (low + high) / 2, float((high - low).min()) / 2


def _additions_in(
    space: Space,
    small_looks: _SmallLooks,
    program: Program,
    target: Target,
    regions: list[list[Cap]],
    stop: Stop,
) -> Iterator[Addition]:
    """The same where several views say how far off faces are and how deep they can reach."""
    blank = target.blank[COARSE_BLOCK]
    taken = [0] * len(target.sights)
    for region, readings in enumerate(regions):
        if stop.due():
            return
        mine = next(i for i, sight in enumerate(target.sights) if sight.has(readings[0]))
        if readings[0].depths:
            continue
        if small_looks.whole is not None and _explained(readings[0], small_looks.whole, target):
            continue
        taken[mine] += 1
        if taken[mine] > REGIONS_OF_A_VIEW:
            continue
        best = max(cap.straight for cap in readings)
        good = [cap for cap in readings if cap.straight >= best - 0.2]
        for cap in sorted(good, key=lambda cap: -cap.straight)[:READINGS_OF_A_VIEW]:
            for cost, step in _blocks_in(space, small_looks, program, target, cap, blank, stop):
                yield Addition(cost, step, region)


def _blocks_in(
    space: Space,
    small_looks: _SmallLooks,
    program: Program,
    target: Target,
    cap: Cap,
    blank: float,
    stop: Stop,
) -> Iterator[tuple[float, Extrusion]]:
    """Blocks, cuts and holes of one reading, with their coarse costs."""
    axis = FACING_AXES[cap.plane]
    inwards = cap.camera.inwards(axis)
    block = build((block_of(cap.plane, cap.loops, 0.0, inwards),))
    if block is None:
        return
    hull_low, hull_high = space.hull[:, axis].tolist()
    span, (low, high) = hull_high - hull_low, space.levels_of(cap)
    known = sorted({*(levels(program, axis) if program else []), hull_low, hull_high})
    outer, inner = (high, low) if inwards < 0 else (low, high)
    between = [t for t in known if low - 0.03 * span <= t <= high + 0.03 * span]
    shares = [outer + share * (inner - outer) for share in (1.0, 0.5, 0.25, 0.75)]
    starts = _spaced([outer, *between, *shares], 0.02 * span)[:STARTS_OF_A_VIEW]
    for number, start in enumerate(starts):
        if stop.due():
            return
        deepest = space.deepest(cap, start)
        reached = [(t - start) * inwards for t in known]
        inside = [depth for depth in reached if 0.3 < depth < 1.1 * deepest]
        shorter = [share * deepest for share in (0.5, 0.25, 0.1)]
        loops = cap.at(start)
        for depth in _spaced([deepest, *inside, *shorter], 0.02 * span)[:ENDS_OF_A_VIEW]:
            end = start + inwards * depth
            looks = _with(small_looks, block, target, cap, start, end)
            gap = gap_of(looks, target, COARSE_BLOCK)
            yield squared(gap) / blank, block_of(cap.plane, loops, start, end)
        edge = hull_high if inwards < 0 else hull_low
        if program and number < 3 and (edge - start) * inwards < -0.02 * span:
            # A floor: cut from outside down to it.
            step = block_of(cap.plane, loops, start, edge - inwards, "cut")
            yield cost_of((*program, step), target, COARSE_BLOCK, True), step
    if program:
        # The holes of a face that is seen, through all.
        for loop in cap.at(outer)[1 : 1 + HOLES_OF_A_VIEW]:
            step = block_of(cap.plane, (loop,), hull_low - 1, hull_high + 1, "cut")
            yield cost_of((*program, step), target, COARSE_BLOCK, True), step


def _spaced(values: list[float], apart: float) -> list[float]:
    """Those that are not close to one before."""
    out: list[float] = []
    for value in values:
        if all(abs(value - other) > apart for other in out):
            out.append(value)
    return out


# ---- The part so far and one extrusion more, drawn small


@dataclass(frozen=True, eq=False)
class _SmallLooks:
    """How a program looks to the target's cameras, in small pictures.

    camera: the target's, for pictures that small. depth, tone: of each small pixel, in GenCAD's
    style. paintings: in each sight. whole: how it looks at full size; None without a program.
    """

    camera: Camera
    depth: Floats
    tone: NDArray[np.int16]
    paintings: tuple[Painting, ...]
    whole: Looks | None


def _small_looks(program: Program, target: Target) -> _SmallLooks:
    small = target.camera.zoomed(SMALL_SIDE / SIZE)
    depth = np.full((SMALL_SIDE, SMALL_SIDE), -np.inf, dtype=np.float32)
    tone = np.full((SMALL_SIDE, SMALL_SIDE), WHITE, dtype=np.int16)
    drawing = build(program) if program else None
    nothing = tuple(blank_painting(SMALL_SIDE) for _ in target.sights)
    if drawing is None:
        return _SmallLooks(small, depth, tone, nothing, None)
    whole = looks_of(drawing, target, True)
    if target.sights:
        looks = looks_of(drawing, target, True, SMALL_SIDE)
        return _SmallLooks(
            small, depth, tone, looks if isinstance(looks, tuple) else nothing, whole
        )
    _add(drawing, drawing.vertices, drawing.edge_points, small, depth, tone)
    return _SmallLooks(small, depth, tone, (), whole)


def _with(
    small_looks: _SmallLooks, block: Drawing, target: Target, cap: Cap, start: float, end: float
) -> Looks:
    """How the part looks with a block one unit deep on the cap, stretched from start to end."""
    axis = FACING_AXES[cap.plane]
    # A sketch whose plane moves along the line of sight looks the same.
    t = cap.camera.slides(np.zeros(1), np.full(1, start), axis)
    factor, shift = cap.camera.slide(float(t[0]))

    def stretched(points: Array) -> Array:
        out = factor * points + shift
        out[:, axis] = start + np.abs(points[:, axis]) * (end - start)
        return out

    vertices, lines = stretched(block.vertices), stretched(block.edge_points)
    if target.sights:
        zoom = SMALL_SIDE / SIZE
        return tuple(
            paint(
                block, sight.camera.zoomed(zoom), SMALL_SIDE, sight.lined, over, (vertices, lines)
            )
            for sight, over in zip(target.sights, small_looks.paintings, strict=True)
        )
    depth, tone = small_looks.depth.copy(), small_looks.tone.copy()
    _add(block, vertices, lines, small_looks.camera, depth, tone)
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


def _explained(cap: Cap, looks: Looks, target: Target) -> bool:
    """Whether the program looks to have nearly the same flat region."""
    if isinstance(looks, tuple):
        axis = FACING_AXES[cap.plane]
        if cap.depths:
            mine = next(i for i, sight in enumerate(target.sights) if sight.has(cap))
            codes = looks[mine].code[cap.mask]
            return bool(ROUND_ABOUT[axis][codes].mean() > EXPLAINED_ROUND)
        normal = np.zeros(3)
        normal[axis] = -cap.camera.inwards(axis)
        mine = next(i for i, sight in enumerate(target.sights) if sight.has(cap))
        labels, _ = ndimage.label((looks[mine].code == code_of(normal)) & ~looks[mine].ink)
    else:
        shade = face_shade(cap.plane, cap.camera)
        labels, _ = ndimage.label(np.abs(looks[..., 0].astype(int) - shade) <= SHADE_TOLERANCE)
    inside = np.bincount(labels[cap.mask])
    inside[0] = 0
    both = int(inside.max())
    either = int((labels == int(inside.argmax())).sum()) + int(cap.mask.sum()) - both
    return both > EXPLAINED_OVERLAP * either
