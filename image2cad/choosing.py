"""Which of the programs that are left is the answer to a picture, and how far to trust it.

    answer = choose(picture, finalists, tried, started, compare=True)

Finalists run in isolation, the most promising first, until none that is left could draw the
picture better. Left out: where they come from (verification.py).
"""

from __future__ import annotations

import re
import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from image2cad.comparing import likeness
from image2cad.fitting import Picture
from image2cad.parameters import parameters
from image2cad.programs import Program
from image2cad.rasterising import draw
from image2cad.rendering import read
from image2cad.solids import build
from metrics.execution import Failure, Part, run_cadquery

STEPS, LETTERS = 60, 20_000  # of a program that is drawn here; longer ones are only run
AGREEING = 0.01  # share of the volume by which CadQuery's solid may differ from the drawn one
SECONDS = 10.0  # that a finalist may run
NUMBER_WORTH = 0.002  # of likeness: what a number of a program must bring
CENTRE, WIDTH = 0.91, 0.027  # of the curve from likeness to confidence: benchmarks/ablation.py


@dataclass(frozen=True)
class Tried:
    """A candidate: where it came from, its cost (0 equal, 1 an empty picture), and its fate."""

    source: str
    code: str
    cost: float
    fate: str


@dataclass(frozen=True, eq=False)
class Answer:
    """What came of a picture.

    code: the program, or None if no candidate was valid. part: what it builds.
    likeness: SSIM of its drawing and the picture where either shows something, 0 to 1.
    confidence: chance of an IoU over 0.9, from the likeness (see `confidence`).
    source: where its structure came from. tried: the others, best first.
    """

    code: str | None
    part: Part | None
    likeness: float
    confidence: float
    source: str
    tried: tuple[Tried, ...]
    seconds: float


def confidence(value: float) -> float:
    """Chance that an answer of this likeness has an IoU over 0.9.

    A logistic fit to 60 real pictures answered with high effort: of 33 answers from 0.99 up
    all had one, of 12 from 0.96 up 83 %, of 7 from 0.90 up 57 %, of 8 below 12 %.
    """
    return float(1 / (1 + np.exp(-(value - CENTRE) / WIDTH)))


def numbers_of(program: Program) -> int:
    """How many different numbers a program is made of."""
    return len(parameters(program)[1])


@dataclass(frozen=True)
class Hope:
    """A finalist that has not run: its likeness and volume (-1: it has to run), and its numbers."""

    code: str
    source: str
    cost: float
    likeness: float
    volume: float
    numbers: int

    @property
    def worth(self) -> float:
        return self.likeness - NUMBER_WORTH * self.numbers


def hope_of(code: str, source: str, cost: float, picture: Picture) -> Hope:
    """What is known of a program without running it.

    Better seen so than as a part that was run, which has lost the edges between fused faces.
    """
    program = read(code) if len(code) <= LETTERS else None
    drawing = build(program) if program is not None and len(program) <= STEPS else None
    if program is None or drawing is None:
        return Hope(code, source, cost, -1.0, -1.0, len(set(re.findall(r"\d+\.?\d*", code))))
    seen = likeness(draw(drawing), picture)
    return Hope(code, source, cost, seen, drawing.volume, numbers_of(program))


def choose(
    picture: Picture,
    finalists: Sequence[tuple[str, str, float]],
    tried: Sequence[Tried],
    started: float,
    compare: bool,
    until: float = float("inf"),
) -> Answer:
    """The finalist that runs in isolation and is most like the picture.

    compare: False takes the first that runs. until: when, by `time.monotonic`, no more than
    one that is valid is looked for.
    """
    best: tuple[float, float, str, str, Part] | None = None
    fates = {one.code: one for one in tried}
    hopes = [hope_of(code, source, cost, picture) for code, source, cost in finalists]
    if compare:
        hopes.sort(key=lambda one: -one.worth)
    for one in hopes:
        if best is not None and one.likeness >= 0 and one.worth <= best[0]:
            continue  # it draws the picture less well, and need not run
        if best is not None and time.monotonic() > until:
            fates[one.code] = Tried(one.source, one.code, one.cost, "not run: no time was left")
            continue
        part = run_cadquery(one.code, timeout=SECONDS)
        if isinstance(part, Failure):
            fates[one.code] = Tried(one.source, one.code, one.cost, str(part))
            continue
        agrees = abs(one.volume - part.volume) <= AGREEING * part.volume
        value = one.likeness if agrees else likeness(draw(part), picture)
        worth = value - NUMBER_WORTH * one.numbers
        if best is None or worth > best[0]:
            best = (worth, value, one.code, one.source, part)
        if not compare:
            break
    seconds = time.monotonic() - started
    others = tuple(sorted(fates.values(), key=lambda one: one.cost))
    if best is None:
        return Answer(None, None, 0.0, 0.0, "", others, seconds)
    _, value, code, source, part = best
    rest = tuple(one for one in others if one.code != code)
    return Answer(code, part, value, confidence(value), source, rest, seconds)
