"""How far to trust an answer: the chance that its IoU with the part is over 0.9.

    confidence(answer.likeness)                             # of GenCAD's own pictures
    confidence_in_copy(value)                               # of small copies of these
    confidence_of(one, target, rivals, turning=True)        # of pictures in any other style

GenCAD's pictures are drawn here to the pixel, so that a high likeness is proof. In another style
the right part is less like its picture than a wrong one may be that has more numbers to fit it
with, and of two solids that draw alike a picture shows neither. So there it counts what the program
leaves unexplained in one place, where a hole may be missing, of how many steps and numbers it is
made, how far the picture leaves its proportions open (leeway.py), and how much dearer the best
reading of another solid is, the rivals from other cameras among them. Where the camera is
estimated, sides that slant in their sketch speak for a camera that is wrong. Left out: what no view
shows and no number says, such as pockets behind.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import exp, log

import numpy as np

from image2cad.cad import Circle, Program, Rect
from image2cad.common import NEVER, Stop
from image2cad.verification.candidate import Candidate
from image2cad.verification.cost import Target, blemish_of
from image2cad.verification.leeway import leeway_of
from image2cad.verification.proportions import proportions_of, unlikeness

# Of the curve from likeness to confidence: benchmarks/ablation.py
CONFIDENCE_CENTRE, CONFIDENCE_WIDTH = 0.91, 0.027
COPY_CENTRE, COPY_WIDTH = 0.925, 0.01  # the same of small copies
# Of a logistic fit; see `chance`.
CHANCE_AT_ZERO = 1.74
BLEMISH_WEIGHT, STEPS_WEIGHT, NUMBERS_WEIGHT = 1.8, 0.87, 0.52
SLANTED_WEIGHT = 1.5  # the fit says 0.4, but few of its parts are seen so that a skewed one draws
DRAWN_BONUS, SEVERAL_BONUS = 0.8, 0.33  # of line drawings; of several views
USUAL_BLEMISH, LEAST_BLEMISH = 1e-3, 1e-4  # of cost; that is told from none
LEAD_SHARE = 2.5  # times a lead: how two readings share the chance; none ahead, it is half
HALVING_LEEWAY = 1.2  # of which half the chance is left: a depth is not seen at all
SHORT_SIDE, ALONG_SIDE = 0.02, 0.03  # of an outline's size; of the way along an axis
OTHER_SOLID = 0.1  # unlikeness from which a rival is another solid
SAME_PRICE = 5e-4  # of cost: prices this close to each other are hardly different
LEAST_LEAD, MOST_LEAD = -0.5, 2.0  # logarithms of prices, beyond which a lead says no more


def confidence(value: float) -> float:
    """Chance that an answer of this likeness to GenCAD's own picture has an IoU over 0.9.

    A logistic fit to 60 real pictures answered with high effort: of 33 answers from 0.99 up
    all had one, of 12 from 0.96 up 83 %, of 7 from 0.90 up 57 %, of 8 below 12 %.
    """
    return _logistic((value - CONFIDENCE_CENTRE) / CONFIDENCE_WIDTH)


def confidence_in_copy(value: float) -> float:
    """The same of a copy smaller than GenCAD's pictures, by the likeness at the copy's size.

    Lines are told from faces there by less than a pixel, so the right part is less like it.
    """
    return _logistic((value - COPY_CENTRE) / COPY_WIDTH)


def confidence_of(
    one: Candidate,
    target: Target,
    rivals: Sequence[Candidate],
    turning: bool,
    stop: Stop = NEVER,
) -> float:
    """The same of a program for pictures in any other style.

    one: in the target's units. rivals: other programs for the same pictures, by whatever cameras.
    turning: the cameras are estimated. stop: when it is due, the leeway is taken for wide open.
    """
    seen = target.sights
    return chance(
        blemish_of(one.program, target),
        len(one.program),
        one.numbers,
        leeway_of(one.program, target, turning, stop),
        lead_of(one, rivals),
        slanted_sides(one.program) if turning else 0,
        drawn=all(sight.inked for sight in seen),
        several=len(seen) > 1,
    )


def chance(
    blemish: float,
    steps: int,
    numbers: int,
    leeway: float,
    lead: float,
    slanted: int = 0,
    drawn: bool = False,
    several: bool = False,
) -> float:
    """Chance of an IoU over 0.9 of a program with these; each makes it fall, but for the lead.

    blemish: see `cost.blemish_of`. slanted: sides under an estimated camera; one is a chamfer.
    drawn: the pictures are of lines alone, in which less is left unexplained. several: there are
    views beside the first. Logistic in all but lead and leeway: the chance is shared with the best
    rival, and less the more is open. Fitted to 466 answers with low effort, to real parts and to
    random ones (seed 801 of benchmarks/styles.py): 183 of these have 0.9 and more, and of them 172
    such an IoU, of 271 in all. Of answers to parts that a fit left out, a sixth each time, it is
    165 of 177.
    """
    value = CHANCE_AT_ZERO - BLEMISH_WEIGHT * log((blemish + LEAST_BLEMISH) / USUAL_BLEMISH)
    value -= STEPS_WEIGHT * steps + NUMBERS_WEIGHT * log(max(numbers, 1))
    value -= SLANTED_WEIGHT * max(slanted - 1, 0)
    value += DRAWN_BONUS * drawn + SEVERAL_BONUS * several
    shared = _logistic(LEAD_SHARE * lead) / (1 + (leeway / HALVING_LEEWAY) ** 2)
    return _logistic(value) * shared


def _logistic(value: float) -> float:
    return 1 / (1 + exp(-value))


def slanted_sides(program: Program) -> int:
    """How many straight sides of outlines lie along no axis of their sketch; short ones not."""
    count = 0
    for loop in (loop for step in program for loop in step.loops):
        if isinstance(loop, Circle | Rect):
            continue
        corners = np.array([loop.start, *(side.end for side in loop.segments), loop.start])
        straight = [side.mid is None for side in loop.segments] + [True]
        sides = np.abs(np.diff(corners, axis=0))[straight]
        long = sides.max(axis=1) > SHORT_SIDE * np.ptp(corners, axis=0).max()
        count += int((sides.min(axis=1) > ALONG_SIDE * sides.max(axis=1))[long].sum())
    return count


def lead_of(one: Candidate, rivals: Sequence[Candidate]) -> float:
    """Logarithm of how many times dearer the cheapest rival that builds another solid is."""
    own = proportions_of(one.program)
    if own is None:
        return LEAST_LEAD
    prices = []
    for rival in rivals:
        its = proportions_of(rival.program)
        if its is not None and unlikeness(own, its) > OTHER_SOLID:
            prices.append(rival.growing_price)
    if not prices:
        return MOST_LEAD
    lead = log((min(prices) + SAME_PRICE) / (one.growing_price + SAME_PRICE))
    return float(np.clip(lead, LEAST_LEAD, MOST_LEAD))
