"""The holes and openings of a face that a picture shows, as cuts.

    for number, step in holes_of(readings, program, regions): ...      # numbers from 1
    for number, step in opening_cuts(program, target.sights, looks): ...     # numbers from 1

A face is read with its holes (reading/tracing.py). Where a face that the program has shows
something else in the picture, an outline of what is there (reading/rims.py) is cut into it. How
deep they go is seen only where a floor is. Left out: holes whose rim is hidden in part.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from scipy import ndimage

from image2cad.cad import Circle, Extrusion, Loop, Program
from image2cad.reading import FACING_AXES, Cap
from image2cad.rendering import Painting, code_of
from image2cad.verification.blocks import block_of
from image2cad.verification.parameters import levels
from image2cad.verification.sights import Sight

HOLED_BEHIND = 0.1  # of how straight a reading of a face is, whose holes are cut, behind the best
HOLES_OF_A_FACE = 8
ONE_SIZE = 1.15  # times the least radius, of circles that are a pattern
BLIND_SHARES = (0.25, 0.5, 0.75)  # of what is behind a face, that a hole with a floor goes through
LEAST_BEHIND = 0.3  # units of material behind a face that may have holes
IN_A_FACE = 0.8  # of an opening, that the program shows as the face that it lies in
READINGS_OF_AN_OPENING = 2  # as it is, and squared off
HALF = 0.5  # of what is behind an opening with a floor; the fit finds how deep it is
IN_A_HOLE, MOST_OF_A_HOLE = 0.9, 0.85  # of a region, that lies in a hole; of the hole that it is


def holes_of(
    readings: list[Cap], program: Program, regions: list[list[Cap]]
) -> Iterator[tuple[int, Extrusion]]:
    """The holes of a face, from each level where it may lie through all that is behind it.

    Each with its number from 1. Where a floor is seen in them, they are also cut less deep.
    """
    best = max(cap.straight for cap in readings)
    faces: dict[int, Cap] = {}
    for cap in readings:
        if cap.straight < best - HOLED_BEHIND or cap.depths or len(cap.loops) == 1:
            continue
        if cap.plane not in faces or len(cap.loops) == len(faces[cap.plane].loops):
            faces[cap.plane] = cap  # the first has all holes; the same squared off may follow
    for cap in faces.values():
        axis = FACING_AXES[cap.plane]
        inwards = cap.camera.inwards(axis)
        shares = BLIND_SHARES if _has_floor(cap, regions) else ()
        for start, thick in _starts(program, axis, inwards):
            depths = [thick + 1, *(share * thick for share in shares)]
            holes = cap.at(start)[1 : 1 + HOLES_OF_A_FACE]
            together = [*((hole,) for hole in holes), *_patterns(holes)]
            for number, loops in enumerate(together, 1):
                for depth in depths:
                    end = start + inwards * depth
                    yield number, block_of(cap.plane, loops, start, end, "cut")


def opening_cuts(
    program: Program, sights: Sequence[Sight], looks: Sequence[Painting]
) -> Iterator[tuple[int, Extrusion]]:
    """The openings of all sights that lie in a face of the program, cut through and less deep.

    looks: the program's, in each sight. Each cut with the number of its opening, from 1.
    """
    number = 0
    for sight, look in zip(sights, looks, strict=True):
        for readings in sight.openings:
            number += 1
            axis = FACING_AXES[readings[0].plane]
            inwards = sight.camera.inwards(axis)
            face = code_of(-inwards * np.eye(3)[axis])
            if (look.code[readings[0].mask] == face).mean() < IN_A_FACE:
                continue
            starts = _starts(program, axis, inwards)
            for cap in readings[:READINGS_OF_AN_OPENING]:
                for start, thick in starts:
                    for depth in (thick + 1, HALF * thick):
                        end = start + inwards * depth
                        yield number, block_of(cap.plane, cap.at(start)[:1], start, end, "cut")


def _starts(program: Program, axis: int, inwards: float) -> list[tuple[float, float]]:
    """Levels at which a face with material behind it may lie, and how thick that is.

    None of a part that is oblique altogether.
    """
    known = levels(program, axis)
    if not known:
        return []
    innermost = max(known) if inwards > 0 else min(known)
    behind = [(start, (innermost - start) * inwards) for start in known]
    return [(start, thick) for start, thick in behind if thick > LEAST_BEHIND]


def _patterns(holes: Sequence[Loop]) -> list[tuple[Loop, ...]]:
    """Circles of about one size, all of which may be one cut."""
    circles = sorted((one for one in holes if isinstance(one, Circle)), key=lambda one: one.radius)
    found: list[list[Circle]] = []
    for one in circles:
        if found and one.radius < ONE_SIZE * found[-1][0].radius:
            found[-1].append(one)
        else:
            found.append([one])
    return [tuple(group) for group in found if len(group) > 1]


def _has_floor(face: Cap, regions: list[list[Cap]]) -> bool:
    """Whether a hole shows a floor: beside a wall, a flat region on the face's own plane."""
    holes, _ = ndimage.label(ndimage.binary_fill_holes(face.mask) & ~face.mask)
    sizes = np.bincount(holes.ravel())
    for one in (cap for readings in regions for cap in readings):
        if one.plane == face.plane and not one.depths and one.mask is not face.mask:
            inside = np.bincount(holes[one.mask], minlength=len(sizes))
            hole = int(inside[1:].argmax()) + 1 if len(sizes) > 1 else 0
            all_of_it = inside[hole] > MOST_OF_A_HOLE * sizes[hole]
            if hole and inside[hole] > IN_A_HOLE * one.mask.sum() and not all_of_it:
                return True
    return False
