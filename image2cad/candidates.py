"""Random parts one after the other: drawn, brought onto the grid, checked, and none twice.

    for program, drawing in itertools.islice(parts(seed=1), 10): ...

Each draw has its own random numbers, from the seed and the draw's number, so that
any process can make any draw. Left out: running the programs, which `synthesis.py`
does for every part that it writes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np

from image2cad.errors import InputError
from image2cad.families import FAMILIES
from image2cad.features import general
from image2cad.profiles import KINDS, WEIGHTS, excluded, extent, forbidden
from image2cad.programs import Loop, Path, Point, Program, Rect, Segment
from image2cad.solids import Drawing, build
from image2cad.soundness import shown_steps, tangled
from image2cad.tidying import ordered
from image2cad.transforms import canonical, centred, grounded, rounded, snapped

# Shares by number of extrusions: 57, 19, 12 and 12 for one, two, three and more are DeepCAD's.
COUNTS = {1: 0.57, 2: 0.19, 3: 0.12, 4: 0.06, 5: 0.03, 6: 0.015, 7: 0.01, 8: 0.005}
TRIES = 4  # so that parts of many steps, which fail more often, keep their share
APART = 0.2  # of the parts with several steps: bodies that do not touch
LONGEST = 100  # grid units of the longest side
HIDDEN = 1 / 3  # share of a part's steps that may not show in its picture
FLAT = 1.0  # twice the area in grid units under which an arc is a line

Part = tuple[Program, Drawing]


def parts(
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
        if mid is not None and abs(_turn(here, mid, segment.end)) < FLAT:
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
    return _turn(a, b, c) == 0 and along > 0


def _turn(a: Point, b: Point, c: Point) -> float:
    return (b[0] - a[0]) * (c[1] - a[1]) - (b[1] - a[1]) * (c[0] - a[0])


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
