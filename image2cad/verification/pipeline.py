"""A picture and guesses in; the program that draws the picture best out, with what was tried.

    answer = verify(picture, codes, effort="low")        # PIL image, programs of any model
    answer.code, answer.likeness, answer.confidence

A picture of a part is an exact drawing, so a guess can be checked: draw it, compare, keep
the best, fit its numbers. Guesses come from a model, from the picture's own flat faces
(growing.py), from the nearest pictures of a library and from templates (library.py).
Programs that are read (cad/parsing.py) are drawn without running them; others, and the
finalists, run in `metrics/execution.py`. Left out: views other than GenCAD's, photographs.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import islice

import numpy as np
from PIL import Image

from image2cad.cad import (
    GRID_SIDE,
    Program,
    as_drawn,
    build,
    canonical,
    centred,
    cleaned,
    parse,
    rounded,
    to_code,
)
from image2cad.common import Effort, InputError, effort_named
from image2cad.rendering import Picture, as_picture, camera_of, draw, likeness
from image2cad.verification.cost import NOTHING, Target, cost_of, look_at
from image2cad.verification.fitting import fit
from image2cad.verification.growing import BOX, Grown, distinct, grow, price_of
from image2cad.verification.library import Library, load_library, nearest, templates
from image2cad.verification.parameters import parameters
from image2cad.verification.placing import aligned
from metrics import Failure, Part, run_cadquery

SOURCES = ("model", "traced", "library", "templates")
EQUAL_COSTS = 1e-7  # candidates whose costs are closer draw the same
EQUAL = 2e-4  # cost from which nothing is left to explain
CLEAR = 1e-3  # cost from which a part grown from the picture needs no other source
AGAIN = 4e-5  # of cost, for each number of a program, on top of what growing charges
WORSE = "draws the picture less well"
PLACED = 4  # ways to place the pieces of grown programs that are fitted
DECIMALS = (0, 1, 2)
UNSEEN = 2e-6  # cost in blocks of 2 pixels that rounding may add


@dataclass(frozen=True)
class _Guess:
    source: str
    program: Program
    cost: float


def verify(
    image: Image.Image,
    codes: Sequence[str] = (),
    effort: str = "low",
    seconds: float | None = None,
    sources: Sequence[str] = SOURCES,
    library: Library | None = None,
) -> Answer:
    """The program whose drawing is most like `image`.

    codes: programs of a model, its best guess first. effort: "none" takes the first code
    that is valid; "low" and "high" also propose, fit and grow for about 8 and 50 seconds,
    or `seconds`. Raises InputError for an unknown effort or source.
    """
    started = time.monotonic()
    allowed = effort_named(effort)
    if set(sources) - set(SOURCES):
        raise InputError(f"sources are {', '.join(SOURCES)}")
    picture = as_picture(image)
    own = codes if "model" in sources else ()
    if effort == "none":
        return choose(picture, [(code, "model", NOTHING) for code in own], [], started, False)
    budget = allowed.seconds if seconds is None else seconds
    target = look_at(picture)

    def before(share: float) -> Callable[[], bool]:
        return lambda: time.monotonic() - started < share * budget

    guesses, tried = _read_all(own, target)
    found: list[_Guess] = []
    if "traced" in sources:
        found = _placed(grow(target, before(0.5)), "traced", target, before(0.6))
    if not found or min(one.cost for one in found) > CLEAR:
        if "library" in sources:
            near = nearest(library or load_library(), target, allowed.neighbours)
            guesses += [_guess("library", program, target) for program in near]
        if "templates" in sources:
            guesses += [_guess("templates", program, target) for program in templates()]
        found += _improved(guesses, target, allowed, before(0.8))
    # A good answer of the model stands as it is, whatever was found beside it.
    best = sorted((one for one in guesses if one.source == "model"), key=lambda one: one.cost)[:2]
    found += [replace(one, cost=cost_of(one.program, target)) for one in best]
    found.sort(key=_price)
    if found and found[0].cost > EQUAL and "traced" in sources:
        found += _regrown(found, target, before(0.9))
        found.sort(key=_price)
    last = allowed.finalists
    found = _polished(found[:last], target, before(0.95)) + found[last:]
    found.sort(key=_price)
    finalists, rest = found[:last], found[last:]
    codes_of = [(one, _text(one.program, target)) for one in finalists]
    codes_of += [(one, to_code(rounded(_centred(one.program) or one.program, 2))) for one in rest]
    tried += [Tried(one.source, code, one.cost, WORSE) for one, code in codes_of if code]
    ranked = [(code, one.source, one.cost) for one, code in codes_of[: len(finalists)] if code]
    # What the light engine does not understand may still run.
    known = {one.code for one in tried if one.cost < NOTHING}
    ranked += [(code, "model", NOTHING) for code in own if code not in known]
    return choose(picture, ranked, tried, started, True, started + 1.1 * budget)


def _read_all(codes: Sequence[str], target: Target) -> tuple[list[_Guess], list[Tried]]:
    guesses, tried = [], []
    for code in dict.fromkeys(codes):
        program = as_drawn(parse(code) or ())
        if program and len(program) <= STEPS and len(code) <= LETTERS:
            guess = _guess("model", program, target)
            if guess.cost < NOTHING:
                guesses.append(guess)
                tried.append(Tried("model", code, guess.cost, WORSE))
    return guesses, tried


def _guess(source: str, program: Program, target: Target) -> _Guess:
    return _Guess(source, program, cost_of(program, target, 16))


def _price(guess: _Guess) -> float:
    """The cost and a charge: of programs that look alike the one with fewer numbers is likelier."""
    if guess.cost == NOTHING:
        return NOTHING
    return price_of(guess.program, guess.cost) + AGAIN * numbers_of(guess.program)


def _improved(
    guesses: list[_Guess], target: Target, effort: Effort, go_on: Callable[[], bool]
) -> list[_Guess]:
    """The most promising guesses, fitted: many coarsely, the best of them finely."""
    ranked = sorted((one for one in guesses if one.cost < NOTHING), key=lambda one: one.cost)
    rough = []
    for one in islice(distinct(ranked, lambda one: one.cost, EQUAL_COSTS), effort.tried):
        if not go_on():
            rough.append(_Guess(one.source, one.program, cost_of(one.program, target)))
            continue
        result = fit(one.program, target, (16,), (4,), go_on=go_on)
        rough.append(_Guess(one.source, result.program, result.cost))
    rough.sort(key=_price)
    best = islice(distinct(rough, lambda one: one.cost, EQUAL_COSTS), effort.refined)
    return _fine(list(best), target, (8, 4), go_on)


def _fine(
    guesses: list[_Guess],
    target: Target,
    blocks: tuple[int, ...],
    go_on: Callable[[], bool] = lambda: True,
) -> list[_Guess]:
    out = []
    for one in guesses:
        if not go_on():
            out.append(_Guess(one.source, one.program, cost_of(one.program, target)))
            continue
        result = fit(one.program, target, blocks, (4,) * len(blocks), go_on=go_on)
        out.append(_Guess(one.source, result.program, result.cost))
    return [one for one in out if one.cost < NOTHING]


def _polished(guesses: list[_Guess], target: Target, go_on: Callable[[], bool]) -> list[_Guess]:
    """Guesses fitted to the pixel, rounded, which removes needless corners, and fitted again."""
    out, exact = [], False
    for one in guesses:
        best = (cost_of(one.program, target, 2), one)
        exact = exact or best[0] < UNSEEN
        program: Program | None = one.program
        for _ in range(2):
            if program is None or exact or not go_on():
                break
            result = fit(program, target, (4, 2, 2), (4, 4, 4), go_on=go_on)
            value = cost_of(result.program, target, 2)
            if value < best[0]:
                best = (value, _Guess(one.source, result.program, result.cost))
            program, _ = _rounded(result.program, target)
        out.append(best[1])
        exact = exact or best[0] < UNSEEN  # nothing can be better
    return out


def _centred(program: Program) -> Program | None:
    """The program about the origin, 100 long; None if it builds nothing."""
    drawing = build(program)
    if drawing is None:
        return None
    box = drawing.bounding_box
    return centred(program, box, GRID_SIDE / float((box[1] - box[0]).max()))


def _regrown(found: list[_Guess], target: Target, go_on: Callable[[], bool]) -> list[_Guess]:
    """Programs grown further from the best fits of any source, in the fixed camera."""
    if not go_on():
        return []
    seeds = []
    for one in found[:2]:
        placed = _in_front(one.program)
        if placed is not None:
            seeds.append(Grown(placed, price_of(placed, cost_of(placed, target, box=BOX))))
    grown = grow(target, go_on, seeds=seeds) if seeds else []
    return _placed(grown, found[0].source, target, go_on)


def _placed(
    grown: list[Grown], source: str, target: Target, go_on: Callable[[], bool]
) -> list[_Guess]:
    """Programs grown in the fixed camera, with their pieces where their own camera wants them."""
    found = []
    for one in grown:
        for program in aligned(one.program, target, BOX, go_on=go_on) or [one.program]:
            found.append(_Guess(source, program, cost_of(program, target, 8)))
    found.sort(key=_price)
    return _fine(found[:PLACED], target, (8, 4), go_on)


def _in_front(program: Program) -> Program | None:
    """The program as large as it is in the picture, about the middle of it."""
    drawing = build(program)
    if drawing is None:
        return None
    own, fixed = (np.linalg.norm(camera_of(box)[0][0]) for box in (drawing.bounding_box, BOX))
    return centred(program, drawing.bounding_box, float(own / fixed))


def _text(program: Program, target: Target) -> str | None:
    """The code of the rounded program."""
    rough, decimals = _rounded(program, target)
    # A centre between two grid lines needs one digit more.
    return None if rough is None else to_code(rough, decimals + 1)


def _rounded(program: Program, target: Target) -> tuple[Program | None, int]:
    """The program centred, 100 long, with the roundest numbers that draw it as well, and how round.

    None if it builds nothing.
    """
    placed = _centred(program)
    best = NOTHING if placed is None else cost_of(placed, target, 2)
    if placed is None or best == NOTHING:
        return None, 0
    for decimals in DECIMALS:
        steps = []
        for step in rounded(placed, decimals):
            loops = tuple(loop for loop in map(cleaned, step.loops) if loop is not None)
            steps.append(replace(step, loops=loops))
        rough = canonical(tuple(steps))
        worth = 1.1 * best + UNSEEN if decimals < DECIMALS[-1] else NOTHING
        if all(step.loops for step in rough) and cost_of(rough, target, 2) < worth:
            return rough, decimals
    return None, 0


# ---- Which of the programs that are left is the answer to a picture, and how far to trust it

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
    program = as_drawn(parse(code) or ()) if len(code) <= LETTERS else ()
    drawing = build(program) if len(program) <= STEPS else None
    if drawing is None:
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
