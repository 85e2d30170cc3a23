"""A picture in any style to programs: from where it is seen, by trying, and what then explains it.

    found = seen_programs(scene, sightings(scene), seconds, stop)
    found.candidates, found.target         # best first, and what they are compared with

The few likeliest cameras (reading/cameras.py) get a little growing each; the one whose program
draws best, with a discount for how likely the camera was, gets the rest of the time, its program
going on as a seed. In the last fits the camera may turn. Left out: GenCAD's own pictures, whose
camera and tones are known (pipeline.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import cos, exp, radians, sqrt

import numpy as np

from image2cad.cad import (
    Program,
    build,
    centred,
    moved,
    renamed_axes,
)
from image2cad.common import Stop
from image2cad.reading import (
    CADBENCH_KIND,
    GIVEN_KIND,
    UNIT_PIXELS,
    Scene,
    Sighting,
    Tile,
    lens_of,
    namings,
    scene_of,
)
from image2cad.rendering import Camera
from image2cad.verification.boxes import loose_pieces
from image2cad.verification.candidate import Candidate, judged, least_cost
from image2cad.verification.cost import BUILDS_NOTHING, Target, cost_of, look_at_sights
from image2cad.verification.features import COARSEST_BLOCK
from image2cad.verification.fitting import briefly_fitted, fit, fit_turning, rough_cost_of
from image2cad.verification.floors import floors
from image2cad.verification.growing import grow, placed
from image2cad.verification.library import templates
from image2cad.verification.parameters import levels
from image2cad.verification.placing import stray_price
from image2cad.verification.plainer import concentric, hardly_dearer, plainer
from image2cad.verification.sights import sight_of

CAMERAS_TRIED = 4  # cameras that get a quick try
CLOSE_BEHIND = 0.22  # of a camera's score: those that are further behind are not tried
SCORE_WORTH = 1.5  # how much dearer a program is whose camera is behind
QUICK_SHARE, MOST_QUICK_SHARE = 0.42, 0.17  # of the time, for all quick tries and for each
LEAST_GROWING = 0.4  # of the time, that quick tries must leave
CAMERA_NUMBER_PRICE = 6e-5  # of each number of a program: seen right, parts are plain
RIGHTLY_SEEN_COST = 6e-4  # from which the likeliest camera needs no rival
POORLY_EXPLAINED, HARDLY_EXPLAINED = 2e-3, 0.02  # costs from which more is tried
TEMPLATES_FITTED = 4
MOST_ENLARGED = 3.5  # of views at one scale: a small view shows little, however large it is drawn
LIKELY_GUESS = 0.25  # cost in coarse blocks, below which a model's program is worth a fit
GUESSES_TURNED = 4  # of a model's, that are looked at from all sides
TURNING_GAIN = 0.97  # share of the cost that a turned camera must leave at most
NEARER_GAIN = 0.6  # the same of a camera that sees in perspective, which explains more anyway
MOST_OFF_GIVEN = 2.5  # degrees that a camera may turn from the direction that was given
FEW_NUMBERS = 16  # of a program, which tells of its camera when it is fitted
USUAL_ANGLE = 35.0  # degrees of view, of a perspective camera that nothing tells of
TUCKED_LOSS, TUCKED_COST = 1.015, 2e-5  # factor and cost that a hidden end may add, drawn in


@dataclass(frozen=True, eq=False)
class Explanation:
    """Programs for a picture, those of the lowest price first, and what they are compared with.

    rivals: the best that the cameras gave which were tried and are not the target's.
    """

    candidates: list[Candidate]
    target: Target
    rivals: tuple[Candidate, ...] = ()


def target_of(scene: Scene, camera: Camera, centred_there: bool = False) -> Target:
    """One picture seen by one camera of its canvas.

    centred_there: the middle of the part's box is seen in the picture's middle.
    """
    return look_at_sights([sight_of(scene, camera)], scene.place.middle if centred_there else None)


def seen_programs(
    scene: Scene,
    cameras: Sequence[Sighting],
    seconds: float,
    stop: Stop,
    guesses: Sequence[Program] = (),
) -> Explanation:
    """Programs that explain a scene.

    cameras: the likeliest first. seconds: there are from now. guesses: a model's programs, in axes
    and units of its own.
    """
    first = cameras[0]
    near = [one for one in cameras[:CAMERAS_TRIED] if first.score - one.score < CLOSE_BEHIND]
    tries: list[tuple[float, Target, Candidate | None]] = []
    started = stop.within(seconds)
    for one in near:
        target = target_of(scene, one.camera, one.kind == CADBENCH_KIND)
        if len(near) == 1:
            tries.append((0.0, target, None))
            break
        share = min(QUICK_SHARE / len(near), MOST_QUICK_SHARE)
        quick = _quick(target, started.within(share * seconds))
        if quick is not None:
            quick, target = _turned(quick, target, scene, started.within(0.06 * seconds))
            quick, target = _nearer(quick, target, scene, one, started.within(0.1 * seconds))
        tries.append((_rank(quick, first.score - one.score), target, quick))
        if one is first and quick is not None and quick.cost < RIGHTLY_SEEN_COST:
            break
        # Where one try takes so long, there is no time for all.
        if started.within(LEAST_GROWING * seconds) is started:
            break
    tries.sort(key=lambda one: one[0])
    _, target, seed = tries[0]
    rivals = tuple(other for _, _, other in tries[1:] if other is not None)
    found = _explained_by(target, [] if seed is None else [seed], started, guesses)
    if found and first.kind != CADBENCH_KIND:  # its camera is exact
        best, turned = _turned(found[0], target, scene, stop.within(0.1 * seconds))
        if turned is not target and _as_given(first, turned.camera):
            # What was found by the camera as it was is judged by the camera as it is now.
            target = turned
            again = (judged(one.program, one.source, target) for one in found[1:])
            found = _by_growing_price([best, *again])
    return Explanation(found, target, rivals)


def programs_of_views(
    views: Sequence[tuple[Scene, Camera]],
    seconds: float,
    stop: Stop,
    guesses: Sequence[Program] = (),
    known: Sequence[Candidate] = (),
) -> Explanation:
    """The same of several views of one part, each with its camera, in units that all share.

    known: programs to start from, in these axes and units.
    """
    target = look_at_sights([sight_of(scene, camera) for scene, camera in views])
    seeds = [judged(one.program, one.source, target) for one in known]
    seeds = [one for one in seeds if one.cost < BUILDS_NOTHING]
    found = _explained_by(target, seeds, stop.within(seconds), guesses)
    return Explanation(found, target)


def cameras_of_tiles(tiles: Sequence[Tile]) -> list[tuple[Scene, Camera]]:
    """What known views show, with the cameras of their canvases, 2.5 pixels to a unit or more."""
    scenes = [scene_of(tile.image, lined=bool(tile.style)) for tile in tiles]
    least = min((scene.place.scale for scene in scenes if scene is not None), default=1.0)
    most = max(MOST_ENLARGED, least)
    found = []
    for scene, tile in zip(scenes, tiles, strict=True):
        if scene is not None and scene.place.scale > most:
            scene = scene_of(tile.image, most, bool(tile.style))
        if scene is not None and tile.camera is not None:
            found.append((scene, scene.place.camera(tile.camera)))
    unit = UNIT_PIXELS / min((camera.scale for _, camera in found), default=1.0)
    return [(scene, camera.enlarged(unit)) for scene, camera in found]


def _rank(quick: Candidate | None, behind: float) -> float:
    """The less the likelier. The weights chose best among tries of known cameras."""
    cost = BUILDS_NOTHING if quick is None else quick.cost + CAMERA_NUMBER_PRICE * quick.numbers
    return sqrt(cost + RIGHTLY_SEEN_COST) * exp(SCORE_WORTH * behind)


def _by_growing_price(found: Sequence[Candidate]) -> list[Candidate]:
    whole = [one for one in found if one.cost < BUILDS_NOTHING]
    return sorted(whole, key=lambda one: one.growing_price)


def _quick(target: Target, stop: Stop) -> Candidate | None:
    """The best program that grows in little time, or a template."""
    grown = grow(target, stop, beam=2)
    if grown:
        return grown[0]
    rough = [briefly_fitted(one, "templates", target, (16, 8), stop) for one in _laid(target)[:2]]
    return min(rough, key=lambda one: one.growing_price) if rough else None


def _turned(one: Candidate, target: Target, scene: Scene, stop: Stop) -> tuple[Candidate, Target]:
    """Program and camera fitted together, where that pays or leaves circles on one middle."""
    other, turned = fit_turning(one.program, target, (8, 4), (4, 3), one.source, stop)
    if other.cost > TURNING_GAIN * one.cost:
        other, turned = one, target
    program = concentric(other.program)
    if program != other.program:
        # Where a middle moved far, the camera has as far to go.
        plain, there = fit_turning(program, turned, (16, 8, 4), (6, 6, 6), one.source, stop)
        if hardly_dearer(plain, other):
            other, turned = plain, there
    if turned is target:
        return one, target
    target = target_of(scene, turned.camera)
    return judged(other.program, one.source, target), target


def _as_given(sighting: Sighting, camera: Camera) -> bool:
    """Whether a direction that was given is still kept."""
    kept = float(sighting.camera.view @ camera.view) > cos(radians(MOST_OFF_GIVEN))
    return sighting.kind != GIVEN_KIND or kept


def _nearer(
    one: Candidate, target: Target, scene: Scene, sighting: Sighting, stop: Stop
) -> tuple[Candidate, Target]:
    """Its first extrusion with a perspective camera, where that explains more than all of it.

    Round parts have no lines that would tell that they are seen from near.
    """
    if target.camera.in_perspective or one.cost < POORLY_EXPLAINED:
        return one, target
    plain = judged(one.program[:1], one.source, target)
    if plain.numbers > FEW_NUMBERS:
        return one, target
    near = replace(sighting, lens=lens_of(scene, USUAL_ANGLE)).camera
    seen = target_of(scene, near)
    other, turned = fit_turning(plain.program, seen, (16, 8), (6, 6), one.source, stop)
    if other.cost > NEARER_GAIN * one.cost:
        return one, target
    seen = target_of(scene, turned.camera)
    return judged(other.program, one.source, seen), seen


def _laid(target: Target) -> list[Program]:
    """Templates as large as the part in the first view, and what silhouettes leave, best first."""
    return _ranked([*laid_on(templates(), target), *floors(target)], target)


def last_resorts(target: Target) -> list[Candidate]:
    """The likeliest templates and blocks, not fitted, for where nothing that was found runs."""
    laid = _laid(target)[:TEMPLATES_FITTED]
    return [judged(one, "templates", target) for one in laid]


def laid_on(programs: Sequence[Program], target: Target) -> list[Program]:
    """Programs in the middle of the first view, and as large as the part there."""
    part = target.sights[0].scene.part
    rows, columns = np.nonzero(part)
    wide, high = np.ptp(columns) + 1, np.ptp(rows) + 1
    middle = (0.0, 0.0, 0.0)
    if target.space is not None:
        x, y, z = target.space.hull.mean(axis=0).tolist()
        middle = (x, y, z)
    out: list[Program] = []
    for program in programs:
        drawing = build(program)
        if drawing is None:
            continue
        box = drawing.bounding_box
        seen = target.camera.project(drawing.vertices - box.mean(axis=0))[:, :2]
        across, down = np.ptp(seen, axis=0)
        out.append(moved(centred(program, box, float(min(wide / across, high / down))), middle))
    return out


def _ranked(programs: Sequence[Program], target: Target) -> list[Program]:
    """Those that can be drawn, the most alike first."""
    costs = [(rough_cost_of(one, target), one) for one in programs]
    costs.sort(key=lambda one: one[0])
    return [program for cost, program in costs if cost < BUILDS_NOTHING]


def _guessed(guesses: Sequence[Program], target: Target, stop: Stop) -> list[Candidate]:
    """A model's programs, whatever it calls the axes, fitted: the best of 24 ways each."""
    out = []
    for guess in guesses[:GUESSES_TURNED]:
        if stop.due():
            break
        ways = [renamed_axes(guess, turn) for turn in namings()]
        for program in _ranked(laid_on(ways, target), target)[:1]:
            if cost_of(program, target, COARSEST_BLOCK) < LIKELY_GUESS:
                out.append(briefly_fitted(program, "model", target, (16, 8, 4), stop))
    return out


def _explained_by(
    target: Target, seeds: list[Candidate], stop: Stop, guesses: Sequence[Program]
) -> list[Candidate]:
    """Programs that explain the target, best first."""
    until = [stop.share(share) for share in (0.55, 0.7, 0.85, 0.93, 0.97, 1.0)]
    grown = grow(target, until[0], seeds)
    grown += [one for one in seeds if not any(one is other for other in grown)]
    found = placed(grown, target, until[1]) + _guessed(guesses, target, until[2])
    if target.space is not None or not found or least_cost(found) > HARDLY_EXPLAINED:
        laid = _laid(target)[:TEMPLATES_FITTED]
        found += [briefly_fitted(one, "templates", target, (16, 8), until[2]) for one in laid]
    found = _by_growing_price(found)
    if found and found[0].cost > POORLY_EXPLAINED and not until[2].due():
        grown = grow(target, until[3], found[:2])[:2]
        found = _by_growing_price(found + placed(grown, target, until[4]))
    if found and not until[3].due():
        best = fit(found[0].program, target, (4, 2), (4, 3), source=found[0].source, stop=until[4])
        if best.cost <= found[0].cost:
            found[0] = best
    plain = [plainer(one, target, until[4]) for one in found[:2]]
    found = _by_growing_price([*plain, *found[2:]])
    tucked = [_tucked(one, target, until[5]) for one in found[:3]]
    found = _by_growing_price([*tucked, *found[3:]])
    if target.middle is None:
        return found
    return sorted(found, key=lambda one: one.growing_price + stray_price(one.program, target))


def _tucked(one: Candidate, target: Target, stop: Stop) -> Candidate:
    """With each hidden end drawn in to the nearest level at which nothing changes."""
    program, cost = one.program, one.cost + stray_price(one.program, target)
    if len(program) < 2 or any(step.plane.name is None for step in program):
        return one
    loose = loose_pieces(program)
    for i, step in enumerate(program):
        if i and step.operation != "union":
            continue  # a cut that goes through stays through
        axis = int(np.argmax(np.abs(step.plane.normal)))
        way = step.plane.normal[axis]
        start = step.plane.origin[axis]
        end = start + way * step.depth
        rest = program[:i] + program[i + 1 :]
        low, high = min(start, end) + 0.3, max(start, end) - 0.3
        inner = [level for level in levels(rest, axis) if low < level < high]
        inner += [start + (end - start) * share for share in (0.15, 0.4, 0.7)]
        options = []
        for level in inner:
            origin = list(step.plane.origin)
            origin[axis] = level
            plane = replace(step.plane, origin=(origin[0], origin[1], origin[2]))
            options.append((abs(level - start), replace(step, depth=(level - start) * way)))
            options.append(
                (abs(level - end), replace(step, plane=plane, depth=(end - level) * way))
            )
        for _, other in sorted(options, key=lambda pair: pair[0]):
            if stop.due():
                break
            if other.depth * step.depth <= 0:
                continue
            tucked = (*program[:i], other, *program[i + 1 :])
            if loose_pieces(tucked) > loose:
                continue
            value = cost_of(tucked, target) + stray_price(tucked, target)
            if value <= TUCKED_LOSS * cost + TUCKED_COST:
                program, cost = tucked, max(value, cost * 0.999)
                break
    return one if program is one.program else judged(program, one.source, target)
