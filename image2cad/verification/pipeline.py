"""A picture and guesses in; the program that draws the picture best out, with what was tried.

    answer = verify(picture, codes, effort="low")        # PIL image, programs of any model
    answer.code, answer.likeness, answer.confidence

A picture of a part is an exact drawing, so a guess can be checked: draw it, compare, keep
the best, fit its numbers. Guesses come from a model, from the picture's own flat faces
(growing.py), from the nearest pictures of a library and from templates (library.py).
Programs that are read (cad/parsing.py) are drawn without running them; others, and the
finalists, run in isolation (choosing.py). Left out: views other than GenCAD's, photographs.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace

from PIL import Image

from image2cad.cad import Program, as_drawn, parse
from image2cad.common import NEVER, InputError, Stop, effort_named
from image2cad.rendering import as_picture
from image2cad.verification.candidate import Candidate, judged
from image2cad.verification.choosing import Answer, choose
from image2cad.verification.cost import BUILDS_NOTHING, COARSEST_BLOCK, Target, look_at
from image2cad.verification.finishing import noted, polished, written
from image2cad.verification.fitting import improved
from image2cad.verification.growing import grow, grow_on, placed
from image2cad.verification.library import Library, load_library, nearest, templates

SOURCES = ("model", "traced", "library", "templates")
MOST_EXTRUSIONS, MOST_LETTERS = 60, 20_000  # of a program that is drawn here; others only run
EXPLAINED_COST = 2e-4  # from which nothing is left to explain
CLEAR_COST = 1e-3  # from which a part grown from the picture needs no other source
AS_THEY_ARE = 2  # guesses of the model that stay in the race without a fit
DRAWS_WORSE = "draws the picture less well"
# Shares of the time after which growing, placing, fitting, growing on, polishing and running
# end with what they have. The last is over 1: what was found is worth a little more time to run.
TIME_SHARES = (0.5, 0.6, 0.8, 0.9, 0.95, 1.1)


def verify(
    image: Image.Image,
    codes: Sequence[str] = (),
    effort: str = "low",
    seconds: float | None = None,
    sources: Sequence[str] = SOURCES,
    library: Library | None = None,
    stop: Stop = NEVER,
) -> Answer:
    """The program whose drawing is most like `image`.

    codes: programs of a model, its best guess first. effort: "none" takes the first code
    that is valid; "low" and "high" also propose, fit and grow for about 8 and 50 seconds,
    or `seconds`. stop: when it is due, the best that is there is the answer. Raises InputError
    for an unknown effort or source.
    """
    started = time.monotonic()
    allowed = effort_named(effort)
    if set(sources) - set(SOURCES):
        raise InputError(f"sources are {', '.join(SOURCES)}")
    budget = allowed.seconds if seconds is None else seconds
    until_grown, until_placed, until_fitted, until_grown_on, until_polished, until_run = (
        stop.within(share * budget) for share in TIME_SHARES
    )
    picture = as_picture(image)
    own = [_read(code) for code in dict.fromkeys(codes)] if "model" in sources else []
    if effort == "none":
        return choose(picture, own, (), started, compare=False, stop=stop)
    target = look_at(picture)

    # Guess and draw. What the light engine does not understand may still run.
    readable = [_guess(one.program, "model", target, one.code) for one in own if one.program]
    readable = [one for one in readable if one.cost < BUILDS_NOTHING]
    known = {one.code for one in readable}
    only_run = [one for one in own if one.code not in known]
    guesses, found = list(readable), []
    if "traced" in sources:
        found = placed(grow(target, until_grown), target, until_placed)

    # Compare and fit.
    if not found or min(one.cost for one in found) > CLEAR_COST:
        if "library" in sources:
            near = nearest(library or load_library(), target, allowed.neighbours)
            guesses += [_guess(program, "library", target) for program in near]
        if "templates" in sources:
            guesses += [_guess(program, "templates", target) for program in templates()]
        found += improved(guesses, target, allowed, until_fitted)
    # A good answer of the model stands as it is, whatever was found beside it.
    best = sorted(readable, key=lambda one: one.cost)[:AS_THEY_ARE]
    found += [judged(one.program, "model", target) for one in best]
    found = _by_price(found)
    if found and found[0].cost > EXPLAINED_COST and "traced" in sources:
        grown = grow_on(found, target, until_grown_on)
        found = _by_price(found + placed(grown, target, until_grown_on))
    count = allowed.finalists
    found = _by_price(polished(found[:count], target, until_polished) + found[count:])

    # Choose.
    finalists = [one for one in (written(one, target) for one in found[:count]) if one]
    tried = [*readable, *finalists, *(noted(one) for one in found[count:])]
    tried = [replace(one, fate=DRAWS_WORSE) for one in tried]
    return choose(picture, [*finalists, *only_run], tried, started, stop=until_run)


def _read(code: str) -> Candidate:
    """A model's code as a candidate; without its program if it is too long to be drawn here."""
    program = as_drawn(parse(code) or ()) if len(code) <= MOST_LETTERS else ()
    drawable = program if len(program) <= MOST_EXTRUSIONS else ()
    return Candidate(drawable, "model", code=code)


def _guess(program: Program, source: str, target: Target, code: str = "") -> Candidate:
    return judged(program, source, target, COARSEST_BLOCK, code=code)


def _by_price(found: list[Candidate]) -> list[Candidate]:
    return sorted(found, key=lambda one: one.price)
