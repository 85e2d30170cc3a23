"""Where the pieces of a part stand along the line of sight, which its picture hardly shows.

    for other in aligned(program, target, frame): ...    # best first, in the part's own camera

A piece that slides along the line of sight looks the same, and so does one whose hidden
end moves. But the camera frames the whole part: only with every piece in its place is
the part in the middle of the picture and as large as it is there. And parts are made with
few numbers: faces of different pieces lie at equal levels. So pieces are slid to where
levels agree, and of the many ways those are drawn that frame the part as the picture does.
Left out: pieces that are not seen at all.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from image2cad.cad import Extrusion, Program, moved
from image2cad.common import NEVER, Array, Stop
from image2cad.rendering import EYE, camera_of
from image2cad.verification.cost import BUILDS_NOTHING, Target, cost_of
from image2cad.verification.parameters import levels

SAME_LEVEL = 0.6  # units between levels that may be one
SLIDES_TRIED = 14  # places that are tried for one piece
WAYS_KEPT = 150  # ways to place the first few pieces that are followed
WAYS_DRAWN = 24  # ways to place all of them that are drawn
TIE_PIXELS = 0.7  # pixels of misframing that one more agreement is worth
RIM_PIXELS = 150.0  # pixels that a part moves at its rim, as a share of its size
PLACING_BLOCK = 8  # pixels of 448 in a block of the features that drawings are compared by
MOVED_END_SHARE = 0.97  # share of the cost that a moved end must leave at most
END_PASSES = 4
TIE_SHARE = 0.003  # share of the cost that an agreement of levels is worth


@dataclass(frozen=True, eq=False)
class _Way:
    """The first pieces slid along the line of sight, their levels on each axis, and their box."""

    slides: tuple[float, ...]
    levels: tuple[Array, ...]
    box: Array
    ties: int


def aligned(
    program: Program,
    target: Target,
    frame: Array,
    most: int = 3,
    stop: Stop = NEVER,
) -> list[Program]:
    """`program` with its pieces slid to where the part is framed as in the picture, best first.

    frame: (2, 3) box whose camera `program` looks right in. A program with an oblique plane,
    which has no levels, comes back as it is.
    """
    if _oblique(program):
        return [program]
    pieces = sorted(_pieces(program), key=lambda piece: -_volume(program[piece[0]]))
    known = [[np.array(levels(_steps(program, p), axis)) for axis in range(3)] for p in pieces]
    boxes = [_box(_steps(program, piece)) for piece in pieces]
    ways = [_Way((0.0,), tuple(known[0]), boxes[0], 0)]
    for mine, box in zip(known[1:], boxes[1:], strict=True):
        longer = [
            _Way(
                (*way.slides, t),
                tuple(
                    np.concatenate([theirs, own + t * EYE[axis]])
                    for axis, (theirs, own) in enumerate(zip(way.levels, mine, strict=True))
                ),
                _union(way.box, box + t * np.array(EYE)),
                way.ties + ties,
            )
            for way in ways
            for t, ties in _slides(mine, way.levels)
        ]
        ways = sorted(longer, key=lambda way: -way.ties)[:WAYS_KEPT]
    ways.sort(key=lambda way: _misframed(way.box, frame) - TIE_PIXELS * way.ties)
    drawn: list[tuple[float, Program]] = []
    for way in ways[:WAYS_DRAWN]:
        if stop.due():
            break
        steps = list(program)
        for piece, t in zip(pieces, way.slides, strict=True):
            for i in piece:
                steps[i] = _slid(steps[i], t)
        drawn.append((cost_of(tuple(steps), target, PLACING_BLOCK), tuple(steps)))
    drawn.sort(key=lambda one: one[0])
    out = [
        _with_ends(one, cost, target, stop) for cost, one in drawn[:most] if cost < BUILDS_NOTHING
    ]
    return [one for _, one in sorted(out, key=lambda pair: pair[0])]


def settled(program: Program, target: Target, frame: Array, first: int) -> Program:
    """`program` with each extrusion from number `first` on slid to where the picture wants it.

    Seen with the camera of `frame` (2, 3), in which a piece looks the same wherever it is, but
    for what it hides and what hides it.
    """
    if _oblique(program):
        return program
    for i in range(first, len(program)):
        rest = (*program[:i], *program[i + 1 :])
        if not rest or (i and program[i].operation != "union"):
            continue
        mine = [np.array(levels((program[i],), axis)) for axis in range(3)]
        theirs = tuple(np.array(levels(rest, axis)) for axis in range(3))
        best = (BUILDS_NOTHING, program)
        for t, ties in _slides(mine, theirs):
            other = (*program[:i], _slid(program[i], t), *program[i + 1 :])
            value = cost_of(other, target, PLACING_BLOCK, frame) * (1 - TIE_SHARE * ties)
            if value < best[0]:
                best = (value, other)
        program = best[1]
    return program


def _slid(step: Extrusion, t: float) -> Extrusion:
    """The extrusion moved by `t` along the line of sight."""
    x, y, z = (t * way for way in EYE)
    (out,) = moved((step,), (x, y, z))
    return out


def _oblique(program: Program) -> bool:
    return any(step.plane.name is None for step in program)


def _pieces(program: Program) -> list[list[int]]:
    """Indices of each added extrusion, and of the cuts after it, which move with it."""
    pieces: list[list[int]] = []
    for i, step in enumerate(program):
        if i == 0 or step.operation == "union":
            pieces.append([i])
            continue
        box = _box((step,))
        shared = [_overlap(box, _box((program[piece[0]],))) for piece in pieces]
        pieces[int(np.argmax(shared))].append(i)
    return pieces


def _steps(program: Program, piece: list[int]) -> Program:
    return tuple(program[i] for i in piece)


def _box(steps: Program) -> Array:
    """(2, 3) lowest and highest corner of what is added."""
    added = [step for i, step in enumerate(steps) if i == 0 or step.operation == "union"]
    ends = [
        (faces[0], faces[-1])
        for step in added
        for faces in (levels((step,), axis) for axis in range(3))
    ]
    table = np.array(ends).reshape(len(added), 3, 2)
    return np.stack([table[:, :, 0].min(axis=0), table[:, :, 1].max(axis=0)])


def _volume(step: Extrusion) -> float:
    box = _box((step,))
    return float(np.prod(box[1] - box[0]))


def _overlap(one: Array, other: Array) -> float:
    sides = np.minimum(one[1], other[1]) - np.maximum(one[0], other[0])
    return float(np.prod(np.maximum(sides, 0.0)))


def _union(one: Array, other: Array) -> Array:
    return np.stack([np.minimum(one[0], other[0]), np.maximum(one[1], other[1])])


def _slides(mine: list[Array], theirs: tuple[Array, ...]) -> Iterator[tuple[float, int]]:
    """Slides after which levels agree, with how many do, most first; and staying in place."""
    pairs = zip(mine, theirs, EYE, strict=True)
    found = np.sort(np.concatenate([((b[None] - a[:, None]) / way).ravel() for a, b, way in pairs]))
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


def _misframed(box: Array, frame: Array) -> float:
    """Pixels by which the box's own camera and the frame's show it apart."""
    own, fixed = camera_of(box), camera_of(frame)
    middle = (fixed[0] @ box.mean(axis=0) + fixed[1] - own[0] @ box.mean(axis=0) - own[1])[:2]
    zoom = np.log(np.linalg.norm(own[0][0]) / np.linalg.norm(fixed[0][0]))
    return float(np.hypot(*middle) + RIM_PIXELS * abs(zoom))


def _with_ends(program: Program, cost: float, target: Target, stop: Stop) -> tuple[float, Program]:
    """The program with ends of extrusions moved to other levels, as long as that pays."""
    for _ in range(END_PASSES):
        best = (cost * MOVED_END_SHARE, program)
        for other in _other_ends(program):
            if stop.due():
                break
            value = cost_of(other, target, PLACING_BLOCK)
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
