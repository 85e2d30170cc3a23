"""How far a picture leaves the proportions of a program open.

    leeway_of(program, target, turning=True)      # 0.05: a twentieth; 1 and more: nearly anything

A picture shows some numbers of a program clearly, some hardly, and not at all where ends are
hidden; where the camera is only estimated, its turn can be traded for depths. So numbers and camera
get the spread that they have before a picture is seen, each change in the drawing narrows it, the
more the less of the picture is unexplained, and what is left is said as a spread of proportions:
Laplace's approximation (MacKay 2003, chapter 27), squared differences of the features being normal.
A number that shows more when it is moved one way counts as it shows less, for the end of a piece
may be hidden behind a level that it shares. Left out: readings by other steps or from other sides,
which are rivals (confidence.py).
"""

from __future__ import annotations

from collections.abc import Callable
from math import exp, hypot, sin

import numpy as np
from scipy.spatial.transform import Rotation

from image2cad.cad import Program
from image2cad.common import NEVER, Array, Stop
from image2cad.rendering import SIZE, Camera
from image2cad.verification.cost import Target, drawn, gap_of
from image2cad.verification.features import Floats
from image2cad.verification.fitting import MOST_NUMBERS
from image2cad.verification.parameters import parameters, rebuilt
from image2cad.verification.proportions import change, proportions_of

NUMBER_SPREAD = 0.1  # of the part's size, that a number is off before the picture is seen
CAMERA_SPREAD = 0.05  # radians that an estimated camera is off
ALONG_ONE_LINE = 0.1  # radians between two axes in a picture that are one
DISTANCE_SPREAD = 0.2  # the same of the logarithm of how far away it is, in perspective
MOVE = 0.008  # of these units: a derivative's step
LEEWAY_BLOCK, LEEWAY_SIZE = 8, SIZE // 2  # pixels of a block, and of a drawing's side
LEAST_UNEXPLAINED = 2e-4  # of cost: no style is drawn to the pixel
TIED_NUMBERS = 0.004  # of the part's size, within which numbers move as one
WIDE_OPEN = 1.0  # the leeway where it cannot be found out
LONGEST_SEARCH = 3.0  # seconds

_Shown = tuple[Floats, Array]  # what a move changes in the features, and (7,) in the proportions
_Move = Callable[[int, float], _Shown | None]


def leeway_of(program: Program, target: Target, turning: bool, stop: Stop = NEVER) -> float:
    """The spread of lengths that the target's pictures leave, as a share: 0 and more.

    turning: the cameras are estimated, so all may turn together. WIDE_OPEN for a program of more
    than MOST_NUMBERS numbers, for one that the cameras do not see, where there was no time, and
    where an estimated camera sees two axes along one line: each may then be any length.
    """
    if turning and all(_sees_one_line(sight.camera) for sight in target.sights):
        return WIDE_OPEN
    layout, values = parameters(program, TIED_NUMBERS)
    program, until = rebuilt(layout, values), stop.within(LONGEST_SEARCH)
    here, own = _gap(program, target), proportions_of(program)
    if len(values) > MOST_NUMBERS or here is None or own is None:
        return WIDE_OPEN

    def renumbered(place: int, way: float) -> _Shown | None:
        moved = values.copy()
        moved[place] += way * MOVE * layout.size
        other = rebuilt(layout, moved)
        gap, its = _gap(other, target), proportions_of(other)
        return None if gap is None or its is None else (gap - here, change(own, its))

    def turned(axis: int, way: float) -> _Shown | None:
        rotation = Rotation.from_rotvec(way * MOVE * np.eye(3)[axis]).as_matrix()
        gap = _gap(program, target.turned(rotation))
        return None if gap is None else (gap - here, np.zeros(7))

    def further(_: int, way: float) -> _Shown | None:
        gap = _gap(program, target.turned(np.eye(3), exp(way * MOVE)))
        return None if gap is None else (gap - here, np.zeros(7))

    moves: list[tuple[_Move, int, float]] = []
    moves += [(renumbered, place, NUMBER_SPREAD) for place in range(len(values))]
    if turning:
        moves += [(turned, axis, CAMERA_SPREAD) for axis in range(3)]
        if target.camera.in_perspective:
            moves.append((further, 0, DISTANCE_SPREAD))
    slopes, changes = [], []
    for move, place, _ in moves:
        if until.due():
            return WIDE_OPEN
        slope, shift = _lesser(move, place, len(here))
        slopes.append(slope)
        changes.append(shift)
    unexplained = max(float(here @ here), LEAST_UNEXPLAINED * target.blank[LEEWAY_BLOCK])
    shown, shifts = np.array(slopes, dtype=float), np.array(changes)
    before = np.diag([(MOVE / spread) ** 2 for _, _, spread in moves])
    spread = shifts.T @ np.linalg.solve(shown @ shown.T / unexplained + before, shifts)
    return float(np.sqrt(np.trace(spread)))


def _sees_one_line(camera: Camera) -> bool:
    """Whether two axes lie along one line in its picture."""
    if camera.in_perspective:
        return False
    axes = camera.matrix[:2, :3].T
    pairs = [(axes[i], axes[j]) for i, j in ((0, 1), (1, 2), (2, 0))]
    sines = [abs(a[0] * b[1] - a[1] * b[0]) / max(hypot(*a) * hypot(*b), 1e-12) for a, b in pairs]
    return min(sines) < sin(ALONG_ONE_LINE)


def _gap(program: Program, target: Target) -> Floats | None:
    looks = drawn(program, target, True, LEEWAY_SIZE, quick=True)
    return None if looks is None else gap_of(looks, target, LEEWAY_BLOCK)


def _lesser(move: _Move, place: int, length: int) -> _Shown:
    """What a move changes in the features and in the proportions, the way that shows less."""
    found = []
    for way in (1.0, -1.0):
        there = move(place, way)
        if there is not None:
            found.append((way * there[0], way * there[1]))
    none = (np.zeros(length, dtype=np.float32), np.zeros(7))
    return min(found, key=lambda pair: float(pair[0] @ pair[0]), default=none)
