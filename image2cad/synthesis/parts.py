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
from numba import njit

from image2cad.cad import (
    LONGEST,
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
from image2cad.synthesis.families import FAMILIES
from image2cad.synthesis.features import general
from image2cad.synthesis.profiles import KINDS, WEIGHTS, excluded, forbidden

# Shares by number of extrusions: 57, 19, 12 and 12 for one, two, three and more are DeepCAD's.
COUNTS = {1: 0.57, 2: 0.19, 3: 0.12, 4: 0.06, 5: 0.03, 6: 0.015, 7: 0.01, 8: 0.005}
TRIES = 4  # so that parts of many steps, which fail more often, keep their share
APART = 0.2  # of the parts with several steps: bodies that do not touch
HIDDEN = 1 / 3  # share of a part's steps that may not show in its picture
Part = tuple[Program, Drawing]


def random_parts(
    seed: int,
    families: Sequence[str] = ("general",),
    start: int = 0,
    without: Sequence[str] = (),
) -> Iterator[Part]:
    """Endless distinct parts; the same arguments give the same parts anywhere.

    `families` take turns; `without` names kinds of profiles (profiles.KINDS and
    WEIGHTS) that general parts shall not have. `start` skips draws, so that several
    processes can share one seed's sequence. Raises InputError for unknown names.
    """
    check_names(families, without)
    seen: set[tuple[float, ...]] = set()
    draw = start
    while True:
        part = candidate(seed, draw, families, without)
        draw += 1
        if part is not None and (key := signature(part[1])) not in seen:
            seen.add(key)
            yield part


def check_names(families: Sequence[str], without: Sequence[str]) -> None:
    """Raise InputError for a family or a kind of profile that there is not, or for none left."""
    known = ("general", *FAMILIES)
    kinds = (*KINDS, *WEIGHTS)
    for given, names, what in ((families, known, "family"), (without, kinds, "kind of profile")):
        unknown = sorted(set(given) - set(names))
        if unknown:
            raise InputError(f"unknown {what} {unknown[0]!r}; there are {', '.join(names)}")
    if not families:
        raise InputError(f"no family named; there are {', '.join(known)}")
    if excluded(without) >= {"rect", "circle", "cornered", "curved"}:
        raise InputError("no kind of profile is left to draw")


def candidate(
    seed: int, draw: int, families: Sequence[str] = ("general",), without: Sequence[str] = ()
) -> Part | None:
    """The part of one draw, or None if it came out unusable."""
    name = families[draw % len(families)]
    rng = np.random.default_rng([seed, draw])
    count = int(rng.choice(list(COUNTS), p=list(COUNTS.values())))
    apart = name == "general" and count > 1 and rng.random() < APART
    for _ in range(TRIES):
        program = FAMILIES[name](rng) if name in FAMILIES else general(rng, count, apart, without)
        part = fitted(program, _box(program))
        if part is None:
            continue
        if name == "general" and any(forbidden(step.loops, without) for step in part[0]):
            continue  # snapping made a rectangle of something else
        if _longest(part[1]) < LONGEST - 3:  # a cut took an end away
            part = fitted(part[0], part[1].bounding_box)
        if part is not None and usable(*part, apart):
            return part
    return None


def fitted(program: Program, box: np.ndarray) -> Part | None:
    """The part with `box` (2, 3) centred and its longest side 100, snapped to whole numbers.

    None where that leaves no sketch without crossings, or no solid.
    """
    placed = centred(program, box, LONGEST / float((box[1] - box[0]).max()))
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


def usable(program: Program, drawing: Drawing, apart: bool = False) -> bool:
    """Whether the part fits the grid, its steps show, and it is one body, or several if `apart`."""
    sides = drawing.bounding_box[1] - drawing.bounding_box[0]
    if sides.min() < 1 or abs(sides.max() - LONGEST) > 2:
        return False
    if not apart and len(drawing.manifold.decompose()) > 1:
        return False
    return shown_steps(drawing) >= (1 - HIDDEN) * len(program)


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


# ---- Is a random part any good? Loops that do not touch themselves or each other, steps that show
LOOK = 112  # pixels a side of the look at a part, which is coarser than its picture

# Columns, rows and depth of a look along (-1, 1, -1), as in the picture.
VIEW = np.array([[1, 1, 0], [1, -1, -2], [1, -1, 1]]) / np.sqrt([[2], [6], [3]])
FILLED = 2 / 3  # of the look's height, by the part


def shown_steps(drawing: Drawing, least: int = 4) -> int:
    """How many of the part's steps show at least `least` pixels of a face in its picture."""
    mesh = drawing.manifold.to_mesh64()
    points = np.asarray(mesh.vert_properties)[:, :3]
    triangles = np.asarray(mesh.tri_verts).astype(np.int64)
    runs = np.asarray(mesh.run_index).astype(np.int64) // 3
    _, run_owner = np.unique(np.asarray(mesh.run_original_id), return_inverse=True)
    owners = np.repeat(run_owner.ravel(), np.diff(runs))
    low, high = points.min(axis=0), points.max(axis=0)
    width, height, _ = np.abs(VIEW) @ (high - low)
    scale = FILLED * LOOK / max(height, 0.75 * width)
    screen = scale * (points - (low + high) / 2) @ VIEW.T + np.array([LOOK / 2, LOOK / 2, 0.0])
    counts = _visible(screen, triangles, owners, LOOK)
    return int(np.count_nonzero(counts >= least))


@njit(cache=True)
def _visible(screen, triangles, owners, size):  # type: ignore[no-untyped-def]
    """Pixels in which each owner's triangles are the nearest."""
    depth = np.full((size, size), -np.inf)
    nearest = np.full((size, size), -1)
    for t in range(triangles.shape[0]):
        a, b, c = triangles[t]
        ax, ay, bx, by, cx, cy = (
            screen[a, 0], screen[a, 1], screen[b, 0], screen[b, 1], screen[c, 0], screen[c, 1],
        )  # fmt: skip
        area = (bx - ax) * (cy - ay) - (by - ay) * (cx - ax)
        # Rows run downwards: faces turned to the eye are clockwise on the screen.
        if area > -1e-12:
            continue
        top = max(int(np.ceil(min(ay, by, cy) - 0.5)), 0)
        bottom = min(int(np.floor(max(ay, by, cy) - 0.5)), size - 1)
        left = max(int(np.ceil(min(ax, bx, cx) - 0.5)), 0)
        right = min(int(np.floor(max(ax, bx, cx) - 0.5)), size - 1)
        for row in range(top, bottom + 1):
            y = row + 0.5
            for col in range(left, right + 1):
                x = col + 0.5
                wb = ((x - ax) * (cy - ay) - (y - ay) * (cx - ax)) / area
                wc = ((bx - ax) * (y - ay) - (by - ay) * (x - ax)) / area
                if wb < 0 or wc < 0 or wb + wc > 1:
                    continue
                z = (1 - wb - wc) * screen[a, 2] + wb * screen[b, 2] + wc * screen[c, 2]
                if z > depth[row, col]:
                    depth[row, col] = z
                    nearest[row, col] = owners[t]
    counts = np.zeros(owners.max() + 1, dtype=np.int64)
    for row in range(size):
        for col in range(size):
            if nearest[row, col] >= 0:
                counts[nearest[row, col]] += 1
    return counts
