"""Build a program for a picture from nothing, one extrusion at a time.

    for found in grow(target):          # candidates, best first, in the camera of the tracing
    found = placed(grow(target), target)        # in their own

Until a part is whole its own box says nothing about the camera, so the camera is held
fixed here, as the tracing was; the numbers are fitted after every step, and at the end
with the part's own camera. Left out: parts without flat faces along the main axes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from math import log

import numpy as np

from image2cad.cad import Extrusion, Path, Program, build, centred, moved
from image2cad.common import NEVER, Array, Stop
from image2cad.reading import Cap
from image2cad.rendering import Picture, camera_of, draw
from image2cad.verification.adding import COARSE_BLOCK, Addition, additions
from image2cad.verification.candidate import Candidate, distinct, judged
from image2cad.verification.cost import (
    BUILDS_NOTHING,
    NUMBER_PRICE,
    Target,
    cost_of,
    look_at,
    regions_of,
)
from image2cad.verification.fitting import fit, refined
from image2cad.verification.placing import aligned, settled

BEAM_WIDTH = 3
MOST_ROUNDS = 8
LISTING_SHARE = 0.5  # of the time left, for what several views may add; the rest is for fits
ADDITIONS_FITTED = 6  # for each program of the beam
FITTED_OF_A_REGION, FITTED_OF_A_READING = 3, 2
CORNER_SHARE = 0.005  # of a rough cost, for each corner of an addition
LEAST_GAIN = 0.02  # share of the cost that an addition must bring to be added with others
LEAST_TOGETHER = 0.7  # share of what it brings alone that it must bring after the others
ALIKE_SHARE = 0.01  # of the price by which programs differ that do not look the same
SEEDS = 2  # programs that are grown further
WHOLE_COST = 2e-3  # below which a part is whole enough to say where its frame is
WHITEST = 250  # greys from which a pixel shows the ground
MOST_PLACED = 4  # ways to place the pieces of grown programs that are fitted


def grow(
    target: Target,
    stop: Stop = NEVER,
    seeds: Sequence[Candidate] = (),
    beam: int = BEAM_WIDTH,
) -> list[Candidate]:
    """Programs for the picture, best first; none if it has no flat face along a main axis.

    seeds: programs in front of the fixed camera to start from instead of nothing. Costs are
    those in that camera.
    """
    regions = regions_of(target)
    nothing = Candidate((), "traced", 1.0, charge=target.charge)
    states: list[Candidate] = list(seeds)
    done: list[Candidate] = []
    for _ in range(MOST_ROUNDS):
        new: list[Candidate] = []
        for state in states or [nothing]:
            if not stop.due() and not any(state is other for other in done):
                new += _extended(state, target, regions, stop)
                done.append(state)
        by_price = sorted(states + new, key=lambda one: one.growing_price)
        apart = distinct(by_price, lambda one: log(one.growing_price), ALIKE_SHARE)
        ranked = list(islice(apart, beam))
        if (
            states
            and ranked[0].growing_price > states[0].growing_price - target.charge * NUMBER_PRICE
        ):
            return ranked
        states = ranked
        if not states or stop.due():
            break
    return states


def grow_on(found: Sequence[Candidate], target: Target, stop: Stop = NEVER) -> list[Candidate]:
    """Programs grown further from the best that were found, of any source, best first."""
    if stop.due():
        return []
    seeds: list[Candidate] = []
    for one in found[:SEEDS]:
        program = _in_front(one.program, target)
        if program is not None:
            seeds.append(judged(program, found[0].source, target, fixed=True))
    return grow(target, stop, seeds) if seeds else []


def reframed(
    grown: Sequence[Candidate], target: Target, always: bool
) -> tuple[list[Candidate], Target]:
    """Grown programs and GenCAD's picture, which lost its frame, moved to where the part belongs.

    Growing assumes no frame; the part's own camera then says where its picture shows it. always:
    believe it even if the part is not whole yet. Moved by whole pixels.
    """
    drawing = build(grown[0].program) if grown else None
    if drawing is None or not (always or grown[0].cost < WHOLE_COST):
        return list(grown), target
    goal = _rim(draw(drawing))
    down, right = np.rint(goal.mean(axis=0) - _rim(target.picture).mean(axis=0)).astype(int)
    if not down and not right:
        return list(grown), target
    target = look_at(np.roll(target.picture, (down, right), axis=(0, 1)))
    x, y, z = target.camera.across(float(right), float(down)).tolist()
    there = (moved(one.program, (x, y, z)) for one in grown)
    return [judged(one, grown[0].source, target, fixed=True) for one in there], target


def _rim(picture: Picture) -> Array:
    """(2, 2) first and last row and column of a part on white."""
    rows, columns = np.nonzero(picture.min(axis=2) < WHITEST)
    return np.array([[rows.min(), columns.min()], [rows.max(), columns.max()]])


def placed(grown: Sequence[Candidate], target: Target, stop: Stop = NEVER) -> list[Candidate]:
    """Grown programs with their pieces where their own camera wants them, fitted."""
    found = []
    for one in grown:
        for program in aligned(one.program, target, stop=stop) or [one.program]:
            found.append(judged(program, one.source, target, 8))
    found.sort(key=lambda one: one.price)
    return refined(found[:MOST_PLACED], target, stop)


def _in_front(program: Program, target: Target) -> Program | None:
    """The program as large as it is in the picture, about the middle of it."""
    drawing = build(program)
    if drawing is None or not target.framed:
        return None if drawing is None else program  # it is drawn by the target's camera anyway
    box = drawing.bounding_box
    return centred(program, box, camera_of(box).scale / target.camera.scale)


# ---- One round: what is added, and what then is in the way


def _extended(
    state: Candidate, target: Target, regions: list[list[Cap]], stop: Stop
) -> list[Candidate]:
    """The best programs with more extrusions, fitted: a few coarsely, the better half finely."""
    known = len(state.program)
    listing = stop if target.space is None else stop.share(LISTING_SHARE)
    found = additions(state.program, target, regions, listing)
    ranked = sorted(found, key=lambda one: _rough_price(one.cost, (one.step,), target))
    apart = distinct(ranked, _log_cost, ALIKE_SHARE / 3)
    chosen = islice(_of_several(apart) if target.sights else apart, ADDITIONS_FITTED)
    longer: list[Program] = [(one.step,) for one in chosen]
    leap = _leap(state.program, target, ranked)
    if len(leap) > 1:
        longer.insert(0, leap)
    rough: list[Candidate] = []
    for steps in longer:
        if stop.due():
            break
        program = (*state.program, *steps)
        one = fit(program, target, (COARSE_BLOCK,), (3,), fixed=True, steady=known, stop=stop)
        rough.append(one)
    out = []
    rough.sort(key=lambda one: _rough_price(one.cost, one.program[known:], target))
    for one in rough[: ADDITIONS_FITTED // 2]:
        if one.cost < BUILDS_NOTHING and not stop.due():
            fine = fit(one.program, target, (8, 4), (3, 2), fixed=True, stop=stop)
            if fine.cost < BUILDS_NOTHING:
                program = settled(fine.program, target, known)
                whole = judged(program, state.source, target, fixed=True)
                out.append(_simplified(whole, target))
    if not out and rough and target.sights:  # the time is over: better rough than nothing
        out = [judged(rough[0].program, state.source, target, fixed=True)]
    return out


def _rough_price(cost: float, steps: Program, target: Target) -> float:
    """A cost in coarse blocks, more where outlines are long: these explain much by chance."""
    if not target.sights:
        return cost
    outlines = [step.loops[0] for step in steps]
    corners = sum(len(loop.segments) for loop in outlines if isinstance(loop, Path))
    return cost * (1 + CORNER_SHARE * corners)


def _log_cost(addition: Addition) -> float:
    return log(max(addition.cost, 1e-12))


def _of_several(ranked: Iterable[Addition]) -> Iterator[Addition]:
    """The best, but only so many of each region, and of each way to read it.

    What looks worse may be the better beginning.
    """
    of_region: Counter[int] = Counter()
    of_reading: Counter[tuple[int, str | None, type]] = Counter()
    for one in ranked:
        reading = one.region, one.step.plane.name, type(one.step.loops[0])
        if of_region[one.region] < FITTED_OF_A_REGION and of_reading[reading] < FITTED_OF_A_READING:
            of_region[one.region] += 1
            of_reading[reading] += 1
            yield one


def _leap(program: Program, target: Target, ranked: list[Addition]) -> Program:
    """The best additions of several regions that together bring what they bring alone."""
    start = cost_of(program, target, COARSE_BLOCK, True) if program else 1.0
    steps: tuple[Extrusion, ...] = ()
    cost = start
    best: dict[int, Addition] = {}
    for one in ranked:
        best.setdefault(one.region, one)
    for one in best.values():
        if start - one.cost < LEAST_GAIN * start:
            break
        together = cost_of((*program, *steps, one.step), target, COARSE_BLOCK, True)
        if cost - together > LEAST_TOGETHER * (start - one.cost):
            steps, cost = (*steps, one.step), together
    return steps


def _simplified(best: Candidate, target: Target) -> Candidate:
    """Without the extrusions that do not bring their price."""
    for i in reversed(range(len(best.program))):
        rest = best.program[:i] + best.program[i + 1 :]
        if not rest or rest[0].operation != "union":
            continue
        shorter = judged(rest, best.source, target, fixed=True)
        if shorter.growing_price <= best.growing_price:
            best = shorter
    return best
