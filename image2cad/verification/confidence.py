"""How far to trust an answer: the chance that its IoU with the part is over 0.9.

    confidence(answer.likeness)                             # of GenCAD's own pictures
    confidence_in_copy(value)                               # of small copies of these
    confidence_of(one, target, rivals, turning=True)        # of pictures in any other style

GenCAD's pictures are drawn here to the pixel, so that a high likeness is proof. In another style
the right part is less like its picture than a wrong one may be that has more numbers to fit it
with, and of two solids that draw alike a picture shows neither. So there it counts how far the
picture leaves the program's proportions open (leeway.py), of how many numbers the program is made,
how much dearer the best reading of another solid is, the rivals from other cameras among them, and
what the program leaves unexplained. Where the camera is estimated, sides that slant in their sketch
speak for a camera that is wrong. Left out: what no view shows and no number says, such as
pockets behind.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import exp, log

import numpy as np

from image2cad.cad import Circle, Program, Rect
from image2cad.common import NEVER, Stop
from image2cad.verification.candidate import Candidate
from image2cad.verification.cost import Target
from image2cad.verification.leeway import leeway_of
from image2cad.verification.proportions import proportions_of, unlikeness

# Of the curve from likeness to confidence: benchmarks/ablation.py
CONFIDENCE_CENTRE, CONFIDENCE_WIDTH = 0.91, 0.027
COPY_CENTRE, COPY_WIDTH = 0.925, 0.01  # the same of small copies
# Of a logistic fit; see `chance`.
CHANCE_AT_ZERO = 4.4
LEEWAY_WEIGHT, NUMBERS_WEIGHT, LEAD_WEIGHT = 0.7, 2.0, 1.15
SLANTED_WEIGHT = 2.5
LEAD_SHARE = 2.5  # times a lead: how two readings share the chance; none ahead, it is half
HALVING_COST = 0.015  # of which half the chance is left: a piece is missing
HALVING_DRAWN_COST = 0.003  # the same of line drawings, in which the right lines all lie right
HALVING_LEEWAY = 1.2  # of which half the chance is left: a depth is not seen at all
LEAST_LEEWAY = 0.01  # that is told from none
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
    leeway = leeway_of(one.program, target, turning, stop)
    slanted = slanted_sides(one.program) if turning else 0
    drawn = all(sight.inked for sight in target.sights)
    return chance(leeway, one.numbers, lead_of(one, rivals), one.cost, slanted, drawn)


def chance(
    leeway: float,
    numbers: int,
    lead: float,
    cost: float,
    slanted: int = 0,
    drawn: bool = False,
) -> float:
    """Chance of an IoU over 0.9 of a program with these; each makes it fall, but for the lead.

    slanted: sides under an estimated camera; one is a chamfer. drawn: the picture is of lines
    alone. Logistic in the logarithms of leeway and numbers, in these sides and in the lead, shared
    with the best rival, and less the more is unexplained or open. The form was fitted to answers to
    random parts (seed 701 of benchmarks/styles.py), the weights to 475 with low effort to real
    ones: of 145 with 0.9 and more 137 have such an IoU, pictures without lines not counted. Of
    the right sheets and line drawings among these all but three cost 0.0005 and less.
    """
    value = CHANCE_AT_ZERO - LEEWAY_WEIGHT * log(leeway + LEAST_LEEWAY)
    value += LEAD_WEIGHT * lead - NUMBERS_WEIGHT * log(max(numbers, 1))
    value -= SLANTED_WEIGHT * max(slanted - 1, 0)
    halving = HALVING_DRAWN_COST if drawn else HALVING_COST
    explained = 1 / (1 + (cost / halving) ** 2) / (1 + (leeway / HALVING_LEEWAY) ** 2)
    return _logistic(value) * _logistic(LEAD_SHARE * lead) * explained


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
