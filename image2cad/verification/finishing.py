"""From a fitted program to the one that is written down: fitted to the pixel, rounded, as text.

    found = polished(found, target)
    answer = written(found[0], target)      # its `program` has round numbers, its `code` is there

Left out: whether the code runs (choosing.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from image2cad.cad import (
    PART_SIDE,
    Program,
    build,
    canonical,
    centred,
    cleaned,
    moved,
    rounded,
    scaled,
    to_code,
)
from image2cad.common import NEVER, Array, Stop
from image2cad.verification.candidate import Candidate
from image2cad.verification.cost import BUILDS_NOTHING, Target, cost_of, likeness_of
from image2cad.verification.features import PIXEL_BLOCK
from image2cad.verification.fitting import fit

DECIMALS_TRIED = (0, 1, 2)
UNSEEN_SHARE, UNSEEN_COST = 1.1, 2e-6  # times the cost in blocks of 2 pixels, and what is added
# The same in a style that is not known. Whole numbers are no rounder there: thin parts suffer.
STRANGE_DECIMALS, STRANGE_SHARE, STRANGE_UNSEEN_COST = (1, 2), 1.01, 1e-5


def polished(
    candidates: Sequence[Candidate], target: Target, stop: Stop = NEVER
) -> list[Candidate]:
    """Fitted to the pixel, rounded, which removes needless corners, and fitted again."""
    out, exact = [], False
    for one in candidates:
        lowest, best = cost_of(one.program, target, PIXEL_BLOCK), one
        exact = exact or lowest < UNSEEN_COST
        program: Program = one.program
        for _ in range(2):
            if exact or stop.due():
                break
            result = fit(program, target, (4, 2, 2), (4, 4, 4), source=one.source, stop=stop)
            cost = cost_of(result.program, target, PIXEL_BLOCK)
            if cost < lowest:
                lowest, best = cost, result
            found = _round(result.program, target)
            if found is None:
                break
            program = found.seen
        out.append(best)
        exact = exact or lowest < UNSEEN_COST  # nothing can be better
    return out


def written(one: Candidate, target: Target) -> Candidate | None:
    """With the roundest numbers that draw it as well, and its code; None if it builds nothing."""
    found = _round(one.program, target)
    if found is None:
        return None
    if target.sights:  # once it is centred, the target's cameras see it elsewhere
        drawing = build(found.seen)
        one = one if drawing is None else replace(one, likeness=likeness_of(drawing, target))
    # A centre between two grid lines needs one digit more.
    program = rounded(found.rough, found.decimals + 1)
    return replace(one, program=program, code=to_code(program))


def noted(one: Candidate) -> Candidate:
    """With its code, to say what was tried; how it is rounded matters less."""
    frame = _own_frame(one.program)
    program = one.program if frame is None else centred(one.program, *frame)
    return replace(one, code=to_code(rounded(program, DECIMALS_TRIED[-1])))


@dataclass(frozen=True)
class _Rounded:
    """A program with round numbers, and how round. seen: the same where the target sees it."""

    rough: Program
    seen: Program
    decimals: int


def _own_frame(program: Program) -> tuple[Array, float] | None:
    """The box (2, 3), and the factor that makes it PART_SIDE long; None if nothing is built."""
    drawing = build(program)
    if drawing is None:
        return None
    box = drawing.bounding_box
    return box, PART_SIDE / float((box[1] - box[0]).max())


def _round(program: Program, target: Target) -> _Rounded | None:
    """The program centred, PART_SIDE long, with the roundest numbers that draw it as well.

    None if it builds nothing.
    """
    frame = _own_frame(program)
    if frame is None:
        return None
    box, factor = frame
    placed = centred(program, box, factor)

    def seen(rough: Program) -> Program:
        if target.framed:  # its own camera follows it
            return rough
        x, y, z = ((box[0] + box[1]) / 2).tolist()
        return moved(scaled(rough, 1 / factor), (x, y, z))

    best = cost_of(seen(placed), target, PIXEL_BLOCK)
    if best == BUILDS_NOTHING:
        return None
    tried: Sequence[int] = STRANGE_DECIMALS if target.sights else DECIMALS_TRIED
    share, unseen = UNSEEN_SHARE, UNSEEN_COST
    if target.sights:
        share, unseen = STRANGE_SHARE, STRANGE_UNSEEN_COST
    for decimals in tried:
        steps = []
        for step in rounded(placed, decimals):
            loops = tuple(loop for loop in map(cleaned, step.loops) if loop is not None)
            steps.append(replace(step, loops=loops))
        rough = canonical(tuple(steps))
        last = decimals == DECIMALS_TRIED[-1]
        allowed = BUILDS_NOTHING if last else share * best + unseen
        if all(step.loops for step in rough):
            there = seen(rough)
            if cost_of(there, target, PIXEL_BLOCK) < allowed:
                return _Rounded(rough, there, decimals)
    return None
