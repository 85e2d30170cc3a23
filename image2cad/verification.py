"""A picture and guesses in; the program that draws the picture best out, with what was tried.

    answer = verify(picture, codes, effort="low")        # PIL image, programs of any model
    answer.code, answer.likeness, answer.confidence

A picture of a part is an exact drawing, so a guess can be checked: draw it, compare, keep
the best, fit its numbers. Guesses come from a model, from the picture's own flat faces
(growing.py), from the nearest pictures of a library and from templates (proposals.py).
Programs that are read (parsing.py) are drawn without running them; others, and the
finalists, run in `metrics/execution.py`. Left out: views other than GenCAD's, photographs.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import islice

import numpy as np
from PIL import Image

from image2cad.aligning import aligned
from image2cad.candidates import LONGEST, cleaned
from image2cad.choosing import LETTERS, STEPS, Answer, Tried, choose, numbers_of
from image2cad.errors import InputError
from image2cad.fitting import NOTHING, Picture, Target, cost_of, fit, look_at
from image2cad.growing import BOX, Grown, distinct, grow, price_of
from image2cad.programs import Program, to_code
from image2cad.proposals import Library, load_library, nearest, templates
from image2cad.rasterising import SIZE, camera
from image2cad.rendering import read
from image2cad.solids import build
from image2cad.transforms import canonical, centred, rounded

SOURCES = ("model", "traced", "library", "templates")
EFFORTS = {"none": 0.0, "low": 7.5, "high": 50.0}  # seconds
NEAREST = {"low": 16, "high": 48}
EQUAL_COSTS = 1e-7  # candidates whose costs are closer draw the same
EQUAL = 2e-4  # cost from which nothing is left to explain
CLEAR = 1e-3  # cost from which a part grown from the picture needs no other source
FINALISTS = {"low": 4, "high": 8}
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
    if effort not in EFFORTS or set(sources) - set(SOURCES):
        raise InputError(f"effort is one of {', '.join(EFFORTS)}; sources {', '.join(SOURCES)}")
    picture = as_picture(image)
    own = codes if "model" in sources else ()
    if effort == "none":
        return choose(picture, [(code, "model", NOTHING) for code in own], [], started, False)
    budget = EFFORTS[effort] if seconds is None else seconds
    target = look_at(picture)

    def before(share: float) -> Callable[[], bool]:
        return lambda: time.monotonic() - started < share * budget

    guesses, tried = _read_all(own, target)
    found: list[_Guess] = []
    if "traced" in sources:
        found = _placed(grow(target, before(0.5)), "traced", target, before(0.6))
    if not found or min(one.cost for one in found) > CLEAR:
        if "library" in sources:
            near = nearest(library or load_library(), target, NEAREST[effort])
            guesses += [_guess("library", program, target) for program in near]
        if "templates" in sources:
            guesses += [_guess("templates", program, target) for program in templates()]
        found += _improved(guesses, target, effort, before(0.8))
    # A good answer of the model stands as it is, whatever was found beside it.
    best = sorted((one for one in guesses if one.source == "model"), key=lambda one: one.cost)[:2]
    found += [replace(one, cost=cost_of(one.program, target)) for one in best]
    found.sort(key=_price)
    if found and found[0].cost > EQUAL and "traced" in sources:
        found += _regrown(found, target, before(0.9))
        found.sort(key=_price)
    last = FINALISTS[effort]
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


def as_picture(image: Image.Image) -> Picture:
    """The image as (448, 448, 3) uint8 on white, as GenCAD's pictures are."""
    rgba = image.convert("RGBA")
    white = Image.new("RGBA", rgba.size, "white")
    flat = Image.alpha_composite(white, rgba).convert("RGB")
    if flat.size != (SIZE, SIZE):
        flat = flat.resize((SIZE, SIZE), Image.Resampling.BICUBIC)
    return np.asarray(flat)


def _read_all(codes: Sequence[str], target: Target) -> tuple[list[_Guess], list[Tried]]:
    guesses, tried = [], []
    for code in dict.fromkeys(codes):
        program = read(code)
        if program is not None and len(program) <= STEPS and len(code) <= LETTERS:
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
    guesses: list[_Guess], target: Target, effort: str, go_on: Callable[[], bool]
) -> list[_Guess]:
    """The most promising guesses, fitted: many coarsely, the best of them finely."""
    many, few = (10, 3) if effort == "low" else (40, 6)
    ranked = sorted((one for one in guesses if one.cost < NOTHING), key=lambda one: one.cost)
    rough = []
    for one in islice(distinct(ranked, lambda one: one.cost, EQUAL_COSTS), many):
        if not go_on():
            rough.append(_Guess(one.source, one.program, cost_of(one.program, target)))
            continue
        result = fit(one.program, target, (16,), (4,), go_on=go_on)
        rough.append(_Guess(one.source, result.program, result.cost))
    rough.sort(key=_price)
    best = islice(distinct(rough, lambda one: one.cost, EQUAL_COSTS), few)
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
    return centred(program, box, LONGEST / float((box[1] - box[0]).max()))


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
    own, fixed = (np.linalg.norm(camera(box)[0][0]) for box in (drawing.bounding_box, BOX))
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
