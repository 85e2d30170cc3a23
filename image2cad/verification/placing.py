"""Where the pieces of a part stand along the line of sight, which its picture hardly shows.

    for other in aligned(program, target): ...           # best first, in the part's own camera

A piece that slides along the line of sight looks the same, and so does one whose hidden
end moves. But the camera frames the whole part: only with every piece in its place is
the part in the middle of the picture and as large as it is there. And parts are made with
few numbers: faces of different pieces lie at equal levels. So pieces are slid to where
levels agree, and of the many ways those are drawn that frame the part as the picture does. A
picture by another camera frames nothing: there pieces that touch take the place of the frame.
Left out: pieces that are not seen at all.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from image2cad.cad import Extrusion, Program, moved, scaled
from image2cad.common import NEVER, Array, Stop
from image2cad.reading import LEAST_FACING
from image2cad.rendering import EYE_LENGTH, Camera, camera_of
from image2cad.verification.boxes import box_of, loose_boxes, loose_pieces, oblique
from image2cad.verification.cost import BUILDS_NOTHING, LOOSE_PRICE, STRAY_PRICE, Target, cost_of
from image2cad.verification.parameters import levels

SAME_LEVEL = 0.6  # units between levels that may be one
SLIDES_TRIED = 14  # places that are tried for one piece
WAYS_KEPT = 150  # ways to place the first few pieces that are followed
WAYS_DRAWN = 24  # ways to place all of them that are drawn
TIE_PIXELS = 0.7  # pixels of misframing that one more agreement is worth
RIM_PIXELS = 150.0  # pixels that a part moves at its rim, as a share of its size
PLACING_BLOCK = 8  # pixels of 448 in a block of the features that drawings are compared by
MOST_PLACES = 3  # of the pieces, that are gone on with
MOVED_END_SHARE = 0.97  # share of the cost that a moved end must leave at most
END_PASSES = 4
TIE_SHARE = 0.003  # share of the cost that an agreement of levels is worth
MOST_OF_THE_WAY = 0.5  # to the viewer, that a piece is slid at most in perspective
MOST_STRAY = 60.0  # pixels off the middle that are charged
LOOSE_PIXELS = 6.0  # pixels of misframing that a piece which touches no other is like


@dataclass(frozen=True, eq=False)
class _Way:
    """The first pieces slid along the line of sight, their levels on each axis, and their boxes."""

    slides: tuple[float, ...]
    levels: tuple[Array, ...]
    boxes: tuple[Array, ...]
    ties: int


def aligned(
    program: Program,
    target: Target,
    stop: Stop = NEVER,
) -> list[Program]:
    """`program` with its pieces slid to where the part is framed as in the picture, best first.

    It looks right in the target's camera. A program with an oblique plane, which has no levels,
    comes back as it is.
    """
    if oblique(program):
        return [program]
    if target.space is not None:  # other views say where pieces stand
        cost, program = _joined(program, target, stop)
        return [_with_ends(program, cost, target, stop)[1]]
    pieces = sorted(_pieces(program), key=lambda piece: -_volume(program[piece[0]]))
    known = [[np.array(levels(_steps(program, p), axis)) for axis in range(3)] for p in pieces]
    boxes = [box_of(_steps(program, piece)) for piece in pieces]
    ways = [_Way((0.0,), tuple(known[0]), (boxes[0],), 0)]
    for mine, box in zip(known[1:], boxes[1:], strict=True):
        longer = []
        for way in ways:
            for t, ties in _slides(mine, way.levels, target.camera):
                factor, shift = target.camera.slide(t)
                both = tuple(
                    np.concatenate([theirs, factor * own + shift[axis]])
                    for axis, (theirs, own) in enumerate(zip(way.levels, mine, strict=True))
                )
                slid_box = factor * box + shift
                slides, around = (*way.slides, t), (*way.boxes, slid_box)
                longer.append(_Way(slides, both, around, way.ties + ties))
        ways = sorted(longer, key=lambda way: -way.ties)[:WAYS_KEPT]
    ways.sort(key=lambda way: _misplaced(way.boxes, target) - TIE_PIXELS * way.ties)
    drawn: list[tuple[float, Program]] = []
    for way in ways[:WAYS_DRAWN]:
        if stop.due():
            break
        steps = list(program)
        for piece, t in zip(pieces, way.slides, strict=True):
            for i in piece:
                steps[i] = _slid(steps[i], t, target.camera)
        cost = cost_of(tuple(steps), target, PLACING_BLOCK) + _place_price(tuple(steps), target)
        drawn.append((cost, tuple(steps)))
    drawn.sort(key=lambda one: one[0])
    out = [
        _with_ends(one, cost, target, stop)
        for cost, one in drawn[:MOST_PLACES]
        if cost < BUILDS_NOTHING
    ]
    return [one for _, one in sorted(out, key=lambda pair: pair[0])]


def _joined(program: Program, target: Target, stop: Stop) -> tuple[float, Program]:
    """Its cost, and the program with pieces that touch no other slid to where they do.

    A piece that was read in one of several views looks right in that view wherever it stands along
    that view's line of sight; in the others it need not be seen.
    """
    cost = cost_of(program, target, PLACING_BLOCK) + _place_price(program, target)
    for piece in _pieces(program):
        rest = tuple(step for i, step in enumerate(program) if i not in piece)
        if not rest or not loose_pieces(program) > loose_pieces(rest):
            continue
        mine = [np.array(levels(_steps(program, piece), axis)) for axis in range(3)]
        theirs = tuple(np.array(levels(rest, axis)) for axis in range(3))
        best = (cost, program)
        for sight in target.sights:
            for t, _ in _slides(mine, theirs, sight.camera):
                if stop.due():
                    return best
                steps = list(program)
                for i in piece:
                    steps[i] = _slid(steps[i], t, sight.camera)
                other = tuple(steps)
                if loose_pieces(other) < loose_pieces(program):
                    value = cost_of(other, target, PLACING_BLOCK) + _place_price(other, target)
                    best = min(best, (value, other), key=lambda pair: pair[0])
        cost, program = best
    return cost, program


def settled(program: Program, target: Target, first: int) -> Program:
    """`program` with each extrusion from number `first` on slid to where the picture wants it.

    Seen by the target's camera, to which a piece looks the same wherever it is, but
    for what it hides and what hides it.
    """
    if oblique(program) or target.space is not None:
        return program
    for i in range(first, len(program)):
        rest = (*program[:i], *program[i + 1 :])
        if not rest or (i and program[i].operation != "union"):
            continue
        mine = [np.array(levels((program[i],), axis)) for axis in range(3)]
        theirs = tuple(np.array(levels(rest, axis)) for axis in range(3))
        best = (BUILDS_NOTHING, program)
        for t, ties in _slides(mine, theirs, target.camera):
            other = (*program[:i], _slid(program[i], t, target.camera), *program[i + 1 :])
            value = cost_of(other, target, PLACING_BLOCK, True) * (1 - TIE_SHARE * ties)
            value += 0.0 if target.framed else LOOSE_PRICE * loose_pieces(other)
            if value < best[0]:
                best = (value, other)
        program = best[1]
    return program


def _slid(step: Extrusion, t: float, camera: Camera) -> Extrusion:
    """The extrusion moved by `t` along the line of sight."""
    factor, shift = camera.slide(t)
    x, y, z = shift.tolist()
    (out,) = moved((step,) if factor == 1.0 else scaled((step,), factor), (x, y, z))
    return out


def _pieces(program: Program) -> list[list[int]]:
    """Indices of each added extrusion, and of the cuts after it, which move with it."""
    pieces: list[list[int]] = []
    for i, step in enumerate(program):
        if i == 0 or step.operation == "union":
            pieces.append([i])
            continue
        box = box_of((step,))
        shared = [_overlap(box, box_of((program[piece[0]],))) for piece in pieces]
        pieces[int(np.argmax(shared))].append(i)
    return pieces


def _steps(program: Program, piece: list[int]) -> Program:
    return tuple(program[i] for i in piece)


def _volume(step: Extrusion) -> float:
    box = box_of((step,))
    return float(np.prod(box[1] - box[0]))


def _overlap(one: Array, other: Array) -> float:
    sides = np.minimum(one[1], other[1]) - np.maximum(one[0], other[0])
    return float(np.prod(np.maximum(sides, 0.0)))


def _slides(
    mine: list[Array], theirs: tuple[Array, ...], camera: Camera
) -> Iterator[tuple[float, int]]:
    """Slides after which levels agree, with how many do, most first; and staying in place."""
    seen = [axis for axis in range(3) if camera.facing(axis) > LEAST_FACING]
    all_pairs = [camera.slides(mine[a][:, None], theirs[a][None], a).ravel() for a in seen]
    found = np.sort(np.concatenate(all_pairs))
    if camera.in_perspective:  # nothing may come as near as the viewer
        found = found[found < MOST_OF_THE_WAY * np.linalg.norm(camera.eye) / EYE_LENGTH]
    first = np.searchsorted(found, found - SAME_LEVEL)
    last = np.searchsorted(found, found + SAME_LEVEL, side="right")
    counts = last - first
    taken: list[float] = [0.0]
    yield 0.0, int(((found > -SAME_LEVEL) & (found < SAME_LEVEL)).sum())
    for i in np.argsort(-counts, kind="stable"):
        t = float(found[first[i] : last[i]].mean())
        if all(abs(t - other) > SAME_LEVEL for other in taken):
            taken.append(t)
            yield t, int(counts[i])
            if len(taken) > SLIDES_TRIED:
                return


def _misplaced(boxes: tuple[Array, ...], target: Target) -> float:
    """Pixels by which the part's own camera and the target's show it apart, or what is like it."""
    box = np.stack([np.min([b[0] for b in boxes], axis=0), np.max([b[1] for b in boxes], axis=0)])
    if not target.framed:
        return LOOSE_PIXELS * loose_boxes(boxes) + _strayed(box, target)
    own, middle = camera_of(box), box.mean(axis=0)[None]
    apart = (target.camera.project(middle) - own.project(middle))[0, :2]
    zoom = np.log(own.scale / target.camera.scale)
    return float(np.hypot(*apart) + RIM_PIXELS * abs(zoom))


def _strayed(box: Array, target: Target) -> float:
    """Pixels between the middle of a box and where it is known to be seen; 0 if it is not known."""
    if target.middle is None:
        return 0.0
    seen = target.camera.project(box.mean(axis=0)[None])[0, :2]
    return float(np.hypot(*(seen - target.middle)))


def stray_price(program: Program, target: Target) -> float:
    """What a part costs whose middle is not where it is known to be seen."""
    if target.middle is None or oblique(program):
        return 0.0
    return STRAY_PRICE * min(_strayed(box_of(program), target), MOST_STRAY)


def _place_price(program: Program, target: Target) -> float:
    """The same and what pieces that touch no other cost, where no frame says how far off."""
    if target.framed:
        return 0.0
    return LOOSE_PRICE * loose_pieces(program) + stray_price(program, target)


def _with_ends(program: Program, cost: float, target: Target, stop: Stop) -> tuple[float, Program]:
    """The program with ends of extrusions moved to other levels, as long as that pays."""
    for _ in range(END_PASSES):
        best = (cost * MOVED_END_SHARE, program)
        for other in _other_ends(program):
            if stop.due():
                break
            value = cost_of(other, target, PLACING_BLOCK) + _place_price(other, target)
            if value < best[0]:
                best = (value, other)
        if best[1] is program:
            break
        cost, program = best
    return cost, program


def _other_ends(program: Program) -> Iterator[Program]:
    for i, step in enumerate(program):
        axis = int(np.argmax(np.abs(step.plane.normal)))
        way = step.plane.normal[axis]
        if abs(way) < 1 - 1e-9:
            continue
        start = step.plane.origin[axis]
        end = start + way * step.depth
        for level in levels(program, axis):
            if abs(level - start) > SAME_LEVEL and abs(level - end) > SAME_LEVEL:
                longer = replace(step, depth=(level - start) * way)
                origin = list(step.plane.origin)
                origin[axis] = level
                place = (origin[0], origin[1], origin[2])
                moved_start = replace(
                    step, plane=replace(step.plane, origin=place), depth=(end - level) * way
                )
                for other in (longer, moved_start):
                    if other.depth * step.depth > 0:
                        yield (*program[:i], other, *program[i + 1 :])
