"""From a fitted program to the one that is written down: fitted to the pixel, rounded, as text.

    found = polished(found, target)
    answer = written(found[0], target)      # its `program` has round numbers, its `code` is there

Left out: whether the code runs (choosing.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from image2cad.cad import (
    PART_SIDE,
    Program,
    build,
    canonical,
    centred,
    cleaned,
    rounded,
    to_code,
)
from image2cad.common import NEVER, Stop
from image2cad.verification.candidate import Candidate
from image2cad.verification.cost import BUILDS_NOTHING, PIXEL_BLOCK, Target, cost_of
from image2cad.verification.fitting import fit

DECIMALS_TRIED = (0, 1, 2)
UNSEEN_COST = 2e-6  # in blocks of 2 pixels, that rounding may add


def polished(
    candidates: Sequence[Candidate], target: Target, stop: Stop = NEVER
) -> list[Candidate]:
    """Fitted to the pixel, rounded, which removes needless corners, and fitted again."""
    out, exact = [], False
    for one in candidates:
        lowest, best = cost_of(one.program, target, PIXEL_BLOCK), one
        exact = exact or lowest < UNSEEN_COST
        program: Program | None = one.program
        for _ in range(2):
            if program is None or exact or stop.due():
                break
            result = fit(program, target, (4, 2, 2), (4, 4, 4), source=one.source, stop=stop)
            cost = cost_of(result.program, target, PIXEL_BLOCK)
            if cost < lowest:
                lowest, best = cost, result
            program, _ = _round(result.program, target)
        out.append(best)
        exact = exact or lowest < UNSEEN_COST  # nothing can be better
    return out


def written(one: Candidate, target: Target) -> Candidate | None:
    """With the roundest numbers that draw it as well, and its code; None if it builds nothing."""
    rough, decimals = _round(one.program, target)
    if rough is None:
        return None
    # A centre between two grid lines needs one digit more.
    program = rounded(rough, decimals + 1)
    return replace(one, program=program, code=to_code(program))


def noted(one: Candidate) -> Candidate:
    """With its code, to say what was tried; how it is rounded matters less."""
    program = rounded(_centred(one.program) or one.program, DECIMALS_TRIED[-1])
    return replace(one, code=to_code(program))


def _centred(program: Program) -> Program | None:
    """The program about the origin, 100 long; None if it builds nothing."""
    drawing = build(program)
    if drawing is None:
        return None
    box = drawing.bounding_box
    return centred(program, box, PART_SIDE / float((box[1] - box[0]).max()))


def _round(program: Program, target: Target) -> tuple[Program | None, int]:
    """The program centred, 100 long, with the roundest numbers that draw it as well, and how round.

    None if it builds nothing.
    """
    placed = _centred(program)
    best = BUILDS_NOTHING if placed is None else cost_of(placed, target, PIXEL_BLOCK)
    if placed is None or best == BUILDS_NOTHING:
        return None, 0
    for decimals in DECIMALS_TRIED:
        steps = []
        for step in rounded(placed, decimals):
            loops = tuple(loop for loop in map(cleaned, step.loops) if loop is not None)
            steps.append(replace(step, loops=loops))
        rough = canonical(tuple(steps))
        last = decimals == DECIMALS_TRIED[-1]
        allowed = BUILDS_NOTHING if last else 1.1 * best + UNSEEN_COST
        if all(step.loops for step in rough) and cost_of(rough, target, PIXEL_BLOCK) < allowed:
            return rough, decimals
    return None, 0
