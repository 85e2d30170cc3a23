"""Random parts one after the other: drawn, brought onto the grid, checked, and none twice.

    for program, drawing in itertools.islice(random_parts(seed=1), 10): ...

Each draw has its own random numbers, from the seed and the draw's number, so that
any process can make any draw. Left out: running the programs, which `dataset.py`
does for every part that it writes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np

from image2cad.cad import (
    PART_SIDE,
    Drawing,
    Program,
    build,
    canonical,
    centred,
    cleaned,
    extent,
    grounded,
    ordered,
    rounded,
    snapped,
    tangled,
)
from image2cad.common import InputError
from image2cad.rendering import SIZE, camera_of, pixels_seen
from image2cad.synthesis.families import FAMILIES
from image2cad.synthesis.features import general_program
from image2cad.synthesis.profiles import OUTLINE_WEIGHTS, PROFILE_KINDS, excluded, forbidden

# Shares by number of extrusions: 57, 19, 12 and 12 for one, two, three and more are DeepCAD's.
STEP_SHARES = {1: 0.57, 2: 0.19, 3: 0.12, 4: 0.06, 5: 0.03, 6: 0.015, 7: 0.01, 8: 0.005}
TRIES_A_DRAW = 4  # so that parts of many steps, which fail more often, keep their share
SEPARATE_SHARE = 0.2  # of the parts with several steps: bodies that do not touch
MOST_HIDDEN = 1 / 3  # share of a part's steps that may not show in its picture
LOOK_SIDE = 112  # pixels a side of the look at a part, which is coarser than its picture
DrawnProgram = tuple[Program, Drawing]  # a random part and the light engine's solid of it


# ---- One draw after the other


def random_parts(
    seed: int,
    families: Sequence[str] = ("general",),
    start: int = 0,
    without: Sequence[str] = (),
) -> Iterator[DrawnProgram]:
    """Endless distinct parts; the same arguments give the same parts anywhere.

    `families` take turns; `without` names kinds of profiles (profiles.PROFILE_KINDS and
    OUTLINE_WEIGHTS) that general parts shall not have. `start` skips draws, so that several
    processes can share one seed's sequence. Raises InputError for unknown names.
    """
    check_names(families, without)
    seen: set[tuple[float, ...]] = set()
    draw = start
    while True:
        part = part_of_draw(seed, draw, families, without)
        draw += 1
        if part is not None and (key := signature(part[1])) not in seen:
            seen.add(key)
            yield part


def check_names(families: Sequence[str], without: Sequence[str]) -> None:
    """Raise InputError for a family or a kind of profile that there is not, or for none left."""
    known = ("general", *FAMILIES)
    kinds = (*PROFILE_KINDS, *OUTLINE_WEIGHTS)
    for given, names, what in ((families, known, "family"), (without, kinds, "kind of profile")):
        unknown = sorted(set(given) - set(names))
        if unknown:
            raise InputError(f"unknown {what} {unknown[0]!r}; there are {', '.join(names)}")
    if not families:
        raise InputError(f"no family named; there are {', '.join(known)}")
    if excluded(without) >= {"rect", "circle", "cornered", "curved"}:
        raise InputError("no kind of profile is left to draw")


# ---- One draw


def part_of_draw(
    seed: int, draw: int, families: Sequence[str] = ("general",), without: Sequence[str] = ()
) -> DrawnProgram | None:
    """The part of one draw, or None if it came out unusable."""
    name = families[draw % len(families)]
    rng = np.random.default_rng([seed, draw])
    count = int(rng.choice(list(STEP_SHARES), p=list(STEP_SHARES.values())))
    apart = name == "general" and count > 1 and rng.random() < SEPARATE_SHARE
    for _ in range(TRIES_A_DRAW):
        program = (
            FAMILIES[name](rng) if name in FAMILIES else general_program(rng, count, apart, without)
        )
        part = on_grid(program, _box(program))
        if part is None:
            continue
        if name == "general" and any(forbidden(step.loops, without) for step in part[0]):
            continue  # snapping made a rectangle of something else
        if _longest(part[1]) < PART_SIDE - 3:  # a cut took an end away
            part = on_grid(part[0], part[1].bounding_box)
        if part is not None and usable(*part, apart):
            return part
    return None


def on_grid(program: Program, box: np.ndarray) -> DrawnProgram | None:
    """The part with `box` (2, 3) centred and its longest side 100, snapped to whole numbers.

    None where that leaves no sketch without crossings, or no solid.
    """
    placed = centred(program, box, PART_SIDE / float((box[1] - box[0]).max()))
    flat = tuple(grounded(step) for step in placed)
    # Rounded first, or the last digit of a cosine would decide which way a half is snapped.
    steps = []
    for step in snapped(rounded(flat, 6)):
        loops = [cleaned(loop) for loop in step.loops]
        kept = tuple(loop for loop in loops if loop is not None)
        if len(kept) < len(loops) or tangled(kept):
            return None
        steps.append(replace(step, loops=kept))
    out = ordered(canonical(tuple(steps)))
    drawing = build(out)
    return None if drawing is None else (out, drawing)


def _box(program: Program) -> np.ndarray:
    """The box (2, 3) of everything that is added."""
    points = []
    for i, step in enumerate(program):
        if i and step.operation != "union":
            continue
        left, low, right, high = extent(step.loops[0])
        for u, v in ((left, low), (right, high)):
            points += [step.plane.point(u, v), step.plane.point(u, v, step.depth)]
    return np.stack([np.min(points, axis=0), np.max(points, axis=0)])


def _longest(drawing: Drawing) -> float:
    return float((drawing.bounding_box[1] - drawing.bounding_box[0]).max())


# ---- Whether it is any good, and whether it was there before


def usable(program: Program, drawing: Drawing, apart: bool = False) -> bool:
    """Whether the part fits the grid, its steps show, and it is one body, or several if `apart`."""
    sides = drawing.bounding_box[1] - drawing.bounding_box[0]
    if sides.min() < 1 or abs(sides.max() - PART_SIDE) > 2:
        return False
    if not apart and len(drawing.manifold.decompose()) > 1:
        return False
    return shown_steps(drawing) >= (1 - MOST_HIDDEN) * len(program)


def signature(drawing: Drawing) -> tuple[int, ...]:
    """Equal for equal solids in one place, and else hardly ever.

    Volume, area, box and the moments of the surface of first and second order; a mirror
    image or a turned copy has another signature, as it has another picture.
    """
    corners = drawing.vertices[drawing.triangles]
    across = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    areas = np.linalg.norm(across, axis=1) / 2
    sums = corners.sum(axis=1)
    area = float(areas.sum())
    first = areas @ sums / (3 * area)
    second = np.einsum("t,tki,tkj->ij", areas, corners, corners)
    second = (second + np.einsum("t,ti,tj->ij", areas, sums, sums)) / (12 * area)
    values = [
        drawing.volume, area, *drawing.bounding_box.ravel(),
        *(10 * first), *second[np.triu_indices(3)],
    ]  # fmt: skip
    # Most values are multiples of a half or a third: no such value lies near a step's end.
    return tuple(int(np.floor(value + 0.27)) for value in values)


def shown_steps(drawing: Drawing, least: int = 4) -> int:
    """How many of the part's steps show at least `least` pixels of a face in its picture."""
    mesh = drawing.manifold.to_mesh64()
    points = np.asarray(mesh.vert_properties)[:, :3]
    triangles = np.asarray(mesh.tri_verts).astype(np.int64)
    runs = np.asarray(mesh.run_index).astype(np.int64) // 3
    _, run_owner = np.unique(np.asarray(mesh.run_original_id), return_inverse=True)
    owners = np.repeat(run_owner.ravel(), np.diff(runs))
    box = np.stack([points.min(axis=0), points.max(axis=0)])
    screen = camera_of(box).zoomed(LOOK_SIDE / SIZE).project(points)
    counts = pixels_seen(screen, triangles, owners, LOOK_SIDE)
    return int(np.count_nonzero(counts >= least))
