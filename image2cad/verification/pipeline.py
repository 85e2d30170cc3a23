"""A picture and guesses in; the program that draws the picture best out, with what was tried.

    answer = verify(picture, codes, effort="low")        # PIL image, programs of any model
    answer.code, answer.likeness, answer.confidence, answer.cameras[0].text, answer.reason

A picture of a part is an exact drawing, so a guess can be checked: draw it, compare, keep
the best, fit its numbers. Guesses come from a model, from the picture's own flat faces
(growing.py), from the nearest pictures of a library and from templates (library.py).
Programs that are read (cad/parsing.py) are drawn without running them; others, and the
finalists, run in isolation (choosing.py). Pictures that GenCAD's renderer did not draw go another
way to the same place (viewing.py). Left out: photographs.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from PIL import Image

from image2cad.cad import Program, as_drawn, build, parse
from image2cad.common import (
    NEVER,
    Effort,
    InputError,
    Stop,
    effort_named,
)
from image2cad.reading import (
    BENCHCAD_STYLE,
    Framing,
    Scene,
    Tile,
    as_read,
    cadbenchs,
    doubt_about,
    gencads,
    likeness_to_copy,
    restored,
    scene_of,
    seen_from,
    sightings,
    views_in,
)
from image2cad.rendering import (
    EYE,
    SIZE,
    Camera,
    Picture,
    as_picture,
    axes_seen_from,
    camera_from,
    draw,
)
from image2cad.verification.candidate import Candidate, judged, least_cost
from image2cad.verification.choosing import Answer, choose
from image2cad.verification.confidence import confidence_in_copy, confidence_of
from image2cad.verification.cost import BUILDS_NOTHING, Target, look_at
from image2cad.verification.features import COARSEST_BLOCK
from image2cad.verification.finishing import noted, polished, written
from image2cad.verification.fitting import improved
from image2cad.verification.growing import grow, grow_on, placed, reframed
from image2cad.verification.library import Library, load_library, nearest, templates
from image2cad.verification.posing import posed
from image2cad.verification.retouching import retouched
from image2cad.verification.viewing import (
    Explanation,
    cameras_of_tiles,
    last_resorts,
    programs_of_views,
    seen_programs,
)
from image2cad.verification.viewpoints import Viewpoint, viewpoints

SOURCES = ("model", "traced", "library", "templates")
MOST_EXTRUSIONS, MOST_LETTERS = 60, 20_000  # of a program that is drawn here; others only run
EXPLAINED_COST = 2e-4  # from which nothing is left to explain
CLEAR_COST = 1e-3  # from which a part grown from the picture needs no other source
AS_THEY_ARE = 2  # guesses of the model that stay in the race without a fit
ALONE_SHARE = 0.4  # of that, for the first picture, where there are others
POSING_SHARE = 0.5  # of what is left then, at most, to find where the others are seen from
RETOUCHING_SHARE = 0.25  # of the time, for what is fitted to a board pixel by pixel
TOGETHER_SHARE = 0.85  # of what is left then, for all views: judging the answer takes long, too
MOST_TOGETHER = 0.06  # cost in all views, from which only the first is believed
LEAST_SECONDS = 1.0  # of growing and fitting, whatever reading took
EYE_SLACK = 0.02  # of a unit vector: about a degree
LEFT_OUT = "no program was found that explains it together with the others; it was left out."
DRAWS_WORSE = "draws the picture less well"
# Shares of the time after which growing, placing, fitting, growing on, polishing and running
# end with what they have. The last is over 1: what was found is worth a little more time to run.
TIME_SHARES = (0.5, 0.6, 0.8, 0.9, 0.95, 1.1)


def verify(
    image: Image.Image | Sequence[Image.Image],
    codes: Sequence[str] = (),
    effort: str = "low",
    seconds: float | None = None,
    sources: Sequence[str] = SOURCES,
    library: Library | None = None,
    stop: Stop = NEVER,
    camera: Camera | Sequence[float] | None = None,
) -> Answer:
    """The program whose drawing is most like `image`.

    image: one picture, or a list of views of one part. A picture that holds several views, a
    board's composite or a drawing sheet, is cut apart. codes: programs of a model, its best guess
    first. effort: "none" takes the first code that is valid; "low" and "high" also propose, fit and
    grow, for the seconds that common/effort.py has or `seconds`, times the effort's factors for a
    picture that GenCAD's renderer did not draw and for several views. camera: of one picture, in
    its pixels, or the direction to its viewer with z up; else it is estimated. stop: when it is
    due, the best that is there is the answer. Raises InputError for an unknown effort or source,
    for no picture, for a camera that is given with several pictures, and for one that sees nothing.
    """
    started = time.monotonic()
    allowed = effort_named(effort)
    if set(sources) - set(SOURCES):
        raise InputError(f"sources are {', '.join(SOURCES)}")
    budget = allowed.seconds if seconds is None else seconds
    given = [image] if isinstance(image, Image.Image) else list(image)
    if not given:
        raise InputError("there is no picture")
    if camera is not None and len(given) > 1:
        raise InputError("a camera can be given with one picture only")
    views = [as_read(view) for view in given]
    if camera is not None:
        camera = _checked(camera, max(views[0].size) / max(given[0].size))
    picture = as_picture(views[0])
    own = [_read(code) for code in dict.fromkeys(codes)] if "model" in sources else []
    doubts = [doubt_about(view) for view in views]
    reason = _reason(doubts)
    if effort == "none":
        answer = choose(look_at(picture), own, (), started, compare=False, stop=stop)
        return replace(answer, reason=reason)
    # Where its own direction is given, GenCAD's picture is still known for what it is.
    usual = camera is None or (not isinstance(camera, Camera) and _is_gencads_eye(camera))
    own_picture = _gencads(views[0]) if len(views) == 1 and usual else None
    framing, blurred = "own", False
    if own_picture is not None:
        picture, framing, blurred = own_picture
        budget *= allowed.strange_factor if blurred else 1.0
    else:
        programs = [one.program for one in own if one.program]
        seen = _seen(views, camera, programs, allowed, budget, started, stop)
        if seen is not None:
            answer = _written(*seen, own, allowed, started, stop)
            return replace(answer, reason=_reason(doubts, answer.cameras))
    until_grown, until_placed, until_fitted, until_grown_on, until_polished, until_run = (
        stop.within(share * budget - (time.monotonic() - started)) for share in TIME_SHARES
    )
    target = look_at(picture)
    grown = grow(target, until_grown) if "traced" in sources else []
    found = placed(grown, target, until_placed) if framing != "lost" else []
    # A part that is whole where it is seen needs no other frame.
    if framing == "lost" or (framing == "middle" and least_cost(found) > CLEAR_COST):
        elsewhere, there = reframed(grown, target, always=framing == "lost")
        if there is not target or framing == "lost":
            again = placed(elsewhere, there, until_placed)
            if framing == "lost" or least_cost(again) < least_cost(found):
                found, target = again, there

    # Guess and draw. What the light engine does not understand may still run.
    readable = [_guess(one.program, "model", target, one.code) for one in own if one.program]
    readable = [one for one in readable if one.cost < BUILDS_NOTHING]
    known = {one.code for one in readable}
    only_run = [one for one in own if one.code not in known]
    guesses = list(readable)

    # Compare and fit.
    if least_cost(found) > CLEAR_COST:
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
    answer = choose(target, [*finalists, *only_run], tried, started, stop=until_run)
    # Where no part was found in a picture, it is not seen from anywhere.
    seen_at_all = answer.code is not None and own_picture is not None
    cameras = viewpoints(target, "known") if seen_at_all else ()
    answer = replace(answer, cameras=cameras, reason=reason)
    return _as_copy(answer, views[0]) if blurred and min(views[0].size) < SIZE else answer


def _as_copy(answer: Answer, copy: Image.Image) -> Answer:
    """The answer, compared with a small copy of GenCAD's picture as small as it is."""
    drawing = build(as_drawn(parse(answer.code or "") or ()))
    if drawing is None:
        return answer
    value = likeness_to_copy(draw(drawing), copy)
    return replace(answer, confidence=confidence_in_copy(value))


def _checked(camera: Camera | Sequence[float], scale: float) -> Camera | Sequence[float]:
    """The camera that was given, for its picture made `scale` times as large. Raises InputError."""
    try:
        if isinstance(camera, Camera):
            return camera_from(camera.projection).zoomed(scale)
        axes_seen_from(camera)
    except (TypeError, ValueError, IndexError, np.linalg.LinAlgError) as error:
        raise InputError(
            "a camera is the direction to the viewer, three numbers that are not all 0, or a "
            f"Camera that sees something: {error}"
        ) from error
    return camera


def _is_gencads_eye(eye: Sequence[float]) -> bool:
    return bool(np.allclose(axes_seen_from(eye)[2], axes_seen_from(EYE)[2], atol=EYE_SLACK))


def _reason(doubts: Sequence[str], cameras: Sequence[Viewpoint] = ()) -> str:
    """Why the pictures may not be of one part, a sentence for each that says so.

    doubts: about each picture, or "". cameras: of the views that a program was compared with;
    others are said to be left out.
    """
    if len(doubts) == 1:
        return doubts[0]
    used = {one.picture for one in cameras}
    told = [
        LEFT_OUT if used and i not in used and not doubt else doubt
        for i, doubt in enumerate(doubts)
    ]
    return " ".join(f"Picture {i}: {doubt}" for i, doubt in enumerate(told, 1) if doubt)


_Seen = tuple[Explanation, tuple[Viewpoint, ...]]


def _gencads(view: Image.Image) -> tuple[Picture, Framing, bool] | None:
    """GenCAD's own picture, or what is left of it in a copy; None for any other.

    With whether it is such a copy, whose lines and tones are not quite where they were.
    """
    exact = gencads(view)
    if exact is not None:
        return *exact, False
    copy = restored(view)
    return None if copy is None else (np.asarray(copy), "own", True)


def _seen(
    views: Sequence[Image.Image],
    camera: Camera | Sequence[float] | None,
    guesses: Sequence[Program],
    allowed: Effort,
    budget: float,
    started: float,
    stop: Stop,
) -> _Seen | None:
    """Programs for pictures that GenCAD's renderer did not draw, and where these are seen from.

    None where they show no part.
    """

    def left(factor: float) -> float:
        return max(factor * budget - (time.monotonic() - started), LEAST_SECONDS)

    # A picture whose camera is given is one view.
    cut = [views_in(view) if camera is None else [Tile(view)] for view in views]
    if isinstance(camera, Camera):
        cut = [[Tile(views[0], camera)]]
    known, base = _known_views(cut)
    read = [(scene_of(tile.image), i) for i, tiles in enumerate(cut) if i != base for tile in tiles]
    found = [(scene, i) for scene, i in read if scene is not None]
    if not known and not found:
        return None
    further = found if known else found[1:]
    factor = allowed.several_factor if len(known) + len(found) > 1 else allowed.strange_factor
    share = ALONE_SHARE if further else 1.0
    mine = () if further else guesses  # which are tried where all views can be asked
    if known:
        origin = "known" if camera is None else "given"
        on_board = not further and all(tile.style == BENCHCAD_STYLE for tile in cut[base])
        growing = share - RETOUCHING_SHARE if on_board else share
        seen = programs_of_views(known, growing * left(factor), stop, mine)
        if on_board:
            until = stop.within(left(factor))
            better = retouched(seen.candidates, seen.target, views[base], until)
            seen = replace(seen, candidates=better)
    else:
        scene, base = found[0]
        origin, cameras = "estimated", []
        if camera is not None and not isinstance(camera, Camera):
            origin, cameras = "given", [seen_from(camera)]
        elif len(read) == 1 and (board := cadbenchs(scene, views[0])):
            origin, cameras = "known", [board]
        seen = seen_programs(scene, cameras or sightings(scene), share * left(factor), stop, mine)
    if further and seen.candidates:
        scenes = [scene for scene, _ in further]
        seen = _in_all_views(seen, scenes, left(factor), stop, guesses)
    numbers = [(scene, base) for scene, _ in known] + found
    cameras_told = viewpoints(seen.target, origin, numbers)
    return seen, tuple(
        one if one.picture == base else replace(one, origin="estimated") for one in cameras_told
    )


def _known_views(cut: Sequence[Sequence[Tile]]) -> tuple[list[tuple[Scene, Camera]], int]:
    """The views of a picture with known cameras, and its number; of several the one with most.

    Such cameras share a unit within one picture only. None and -1 where there is no such picture.
    """
    whole = [i for i, tiles in enumerate(cut) if all(tile.camera is not None for tile in tiles)]
    number = max(whole, key=lambda i: len(cut[i]), default=-1)
    known = cameras_of_tiles(cut[number]) if whole else []
    return (known, number) if known and len(known) == len(cut[number]) else ([], -1)


def _in_all_views(
    alone: Explanation,
    further: Sequence[Scene],
    seconds: float,
    stop: Stop,
    guesses: Sequence[Program],
) -> Explanation:
    """Programs for the views of `alone` and further ones, or `alone` where these do not agree."""
    started = time.monotonic()
    until = stop.within(POSING_SHARE * seconds)
    together = posed(alone.candidates[0].program, alone.target, further, until)
    if len(together) == len(alone.target.sights):
        return alone
    rest = TOGETHER_SHARE * max(seconds - (time.monotonic() - started), LEAST_SECONDS)
    both = programs_of_views(together, rest, stop, guesses, alone.candidates[:2])
    # Views that no program explains together do not lie as they seemed to.
    agree = both.candidates and both.candidates[0].cost < MOST_TOGETHER
    return both if agree else alone


def _written(
    seen: Explanation,
    cameras: tuple[Viewpoint, ...],
    own: list[Candidate],
    allowed: Effort,
    started: float,
    stop: Stop,
) -> Answer:
    """The answer among programs of which the first that runs is the best.

    Else it is the model's own, and where none of these runs either, a plain block or template.
    cameras: what the programs were drawn with, told with an answer that was.
    """
    count, target = allowed.finalists, seen.target
    pairs = [(one, written(one, target)) for one in seen.candidates[:count]]
    tried = [*(last for _, last in pairs if last), *map(noted, seen.candidates[count:])]
    tried = [replace(one, fate=DRAWS_WORSE) for one in tried]
    finalists = [last for _, last in pairs if last]
    answer = choose(target, [*finalists, *own], tried, started, compare=False, stop=stop)
    if answer.code is None:
        pairs = [(one, written(one, target)) for one in last_resorts(target)]
        finalists = [last for _, last in pairs if last]
        answer = choose(target, finalists, answer.tried, started, compare=False, stop=stop)
    for one, last in pairs:
        if last is not None and last.code == answer.code:
            rivals = [other for other in (*seen.candidates, *seen.rivals) if other is not one]
            turning = any(view.origin != "known" for view in cameras)
            sure = confidence_of(one, target, rivals, turning, stop)
            return replace(answer, cameras=cameras, confidence=sure)
    return replace(answer, likeness=0.0, confidence=0.0)  # nobody has compared it


def _read(code: str) -> Candidate:
    """A model's code as a candidate; without its program if it is too long to be drawn here."""
    program = as_drawn(parse(code) or ()) if len(code) <= MOST_LETTERS else ()
    drawable = program if len(program) <= MOST_EXTRUSIONS else ()
    return Candidate(drawable, "model", code=code)


def _guess(program: Program, source: str, target: Target, code: str = "") -> Candidate:
    return judged(program, source, target, COARSEST_BLOCK, code=code)


def _by_price(found: list[Candidate]) -> list[Candidate]:
    return sorted(found, key=lambda one: one.price)
