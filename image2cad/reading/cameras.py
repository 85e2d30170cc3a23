"""Where a picture is seen from: the few likeliest cameras, orthographic or in perspective.

    for one in sightings(scene): ...         # Sighting(turn, lens, kind, score), best first

A part is mostly seen to have three main directions, so its lines run along them, and its circles
lie across them. A grid of level cameras is scored at once, the best are refined, rolled ones are
made of triples of directions, and each that is left is judged by how well its regions read as
sketches too. Cameras are of the canvas of 448 pixels: UNIT_PIXELS to a unit at the origin, which is
seen in the middle. z is up and the eye in front, to the right and above, where the picture allows
it. GenCAD's direction is always among those that are judged. Left out: views straight along an
axis, lenses that bend lines.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from image2cad.cad import Circle, Loop, Rect
from image2cad.common import Array
from image2cad.reading.contours import circle_through, loop_of
from image2cad.reading.lines import Strokes, strokes_of
from image2cad.reading.regions import Scene
from image2cad.reading.tracing import (
    FACING_AXES,
    LEAST_FACING,
    UNIT_PIXELS,
    border_of,
    pixel_on,
    without_holes,
)
from image2cad.rendering import SIZE, Camera, axes_seen_from, camera_from

GIVEN_KIND, ISOMETRIC_KIND = "given", "isometric"  # of sightings: a person's, GenCAD's own
ISOMETRIC = (-45.0, 35.264)  # azimuth and elevation, degrees, of GenCAD's eye
AZIMUTHS, ELEVATION_TICKS = np.arange(1.0, 90.0, 2.0) - 90.0, np.arange(6.0, 86.0, 2.0)
ANGLES_TRIED = (20.0, 30.0, 45.0)  # degrees of view, of perspective cameras
LONGEST_FOCAL = 6.0 * SIZE  # pixels, from which a picture is as good as orthographic
CANDIDATES_APART, KEPT_APART = 5.0, 3.5  # degrees between cameras that are two
LEVEL_KEPT, PERSPECTIVE_KEPT, ROLLED_KEPT = 9, 6, 5
MOST_READ_WITH = 10  # cameras by which outlines are read
OUTLINES_READ = 9  # of the largest flat regions
MOST_CORNERS = 28  # of an outline that says something of the camera

# Of the traits of a hypothesis: a logistic fit to 240 pictures of 40 real parts.
TRAIT_WEIGHTS = {
    "free": 0.35, "by region": 0.75, "least": 0.28, "second": 0.02, "sketches": 0.39, "arcs": 0.85,
    "diagonals": 0.58, "edge on": -0.09, "elevation": -0.43, "azimuth": -0.07, "rolled": -0.40,
    "isometric": 0.30,
}  # fmt: skip


_Lenses = tuple[Array, float, float] | None  # (G,) focal lengths, and the principal point


@dataclass(frozen=True, eq=False)
class Lens:
    """What a perspective camera adds: focal length and principal point, pixels of the canvas."""

    focal: float
    column: float
    row: float


@dataclass(frozen=True, eq=False)
class Sighting:
    """A camera that a picture may be seen by.

    turn: (3, 3) unit vectors to the right, upwards and to the viewer. lens: None is orthographic.
    score: the more the likelier; differences count. kind: how it was found.
    """

    turn: Array
    lens: Lens | None
    kind: str
    score: float = 0.0

    @cached_property
    def camera(self) -> Camera:
        """The camera of the canvas."""
        return camera_turned(self.turn, self.lens)

    @cached_property
    def local(self) -> Array:
        """(3, 3) as `turn`, but for the line of sight through the middle of the canvas."""
        return self.turn if self.lens is None else _locals(self.turn[None], self.lens)[0]


def sightings(scene: Scene, most: int = 5) -> list[Sighting]:
    """The likeliest cameras of a picture, best first; GenCAD's alone where nothing shows one."""
    strokes = strokes_of(scene)
    shapes = _shapes(scene)
    by_lines = [_judged(one, strokes) for one in _hypotheses(scene, strokes)]
    by_lines.sort(key=lambda one: -one.score)
    judged = [_read_with(one, shapes) for one in by_lines[:MOST_READ_WITH]]
    judged.sort(key=lambda one: -one.score)
    kept: list[Sighting] = []
    for one in judged:
        if all(_apart(one, other) for other in kept):
            kept.append(one)
        if len(kept) >= most:
            break
    return kept


def lens_of(scene: Scene, angle: float) -> Lens:
    """Of a camera with this angle of view in degrees, from the picture's top to its bottom."""
    height = scene.place.height * scene.place.scale
    return Lens(height / 2 / float(np.tan(np.radians(angle) / 2)), *scene.place.middle)


def seen_from(eye: Sequence[float]) -> Sighting:
    """The orthographic camera of a direction to the viewer, (3,), z up."""
    return Sighting(np.stack(axes_seen_from(eye)), None, GIVEN_KIND)


def camera_turned(turn: Array, lens: Lens | None = None) -> Camera:
    """The canvas's camera of a turn: the origin in its middle, UNIT_PIXELS to a unit there."""
    middle = SIZE / 2
    if lens is None:
        flat = np.zeros((3, 4))
        flat[:2, :3] = UNIT_PIXELS * np.stack([turn[0], -turn[1]])
        flat[:, 3] = middle, middle, 1.0
        return camera_from(flat)
    distance = lens.focal / UNIT_PIXELS
    inner = np.array([[lens.focal, 0, lens.column], [0, lens.focal, lens.row], [0, 0, 1.0]])
    across, down = (middle - lens.column) / lens.focal, (middle - lens.row) / lens.focal
    axes = np.stack([turn[0], -turn[1], -turn[2]])
    place = distance * np.array([across, down, 1.0])
    return camera_from(inner @ np.column_stack([axes, place]))


def level_turn(azimuth: float, elevation: float) -> Array:
    """(3, 3) the turn of a camera without roll, by the direction of its eye in degrees."""
    a, e = np.radians([azimuth, elevation])
    view = np.array([np.cos(a) * np.cos(e), np.sin(a) * np.cos(e), np.sin(e)])
    right = np.array([-np.sin(a), np.cos(a), 0.0])
    return np.stack([right, np.cross(view, right), view])


def namings() -> list[Array]:
    """The 24 rotations (3, 3) that bring axes onto axes."""
    out = []
    for order in itertools.permutations(range(3)):
        for signs in itertools.product((1.0, -1.0), repeat=3):
            axes = np.zeros((3, 3))
            axes[range(3), order] = signs
            if np.linalg.det(axes) > 0:
                out.append(axes)
    return out


def renamed(turn: Array) -> Array:
    """The turn with its axes named so that the eye is at (+, -, +), and z as upright as can be."""
    ways = [turn @ axes.T for axes in namings()]
    front = [way for way in ways if way[2, 0] >= 0 and way[2, 1] <= 0 and way[2, 2] >= 0]
    return max(front, key=lambda way: float(way[1, 2]), default=turn)


# ---- How many lines a camera explains


def _folded(angle: Array) -> Array:
    """Angles between two undirected lines, 0 to 90 degrees (radians)."""
    out: Array = np.abs((angle + np.pi / 2) % np.pi - np.pi / 2)
    return out


def _axes_seen(turns: Array, lenses: _Lenses, columns: Array, rows: Array) -> Array:
    """(G, K, 3) angles of the three axes at K places of the canvas, for (G, 3, 3) turns."""
    if lenses is None:
        flat = np.arctan2(-turns[:, 1], turns[:, 0])
        return np.broadcast_to(flat[:, None], (len(turns), len(columns), 3))
    focal, column, row = lenses
    x, y = (columns - column)[None, :, None], (rows - row)[None, :, None]
    ahead = -turns[:, None, 2]
    across = focal[:, None, None] * turns[:, None, 0] - x * ahead
    down = -focal[:, None, None] * turns[:, None, 1] - y * ahead
    out: Array = np.arctan2(down, across)
    return out


def _sight_lines(turns: Array, lenses: _Lenses, columns: Array, rows: Array) -> Array:
    """(G, K, 3) unit vectors to the viewer from what is seen at K places."""
    if lenses is None:
        return np.broadcast_to(turns[:, None, 2], (len(turns), len(columns), 3))
    focal, column, row = lenses
    axes = np.stack([turns[:, 0], -turns[:, 1], -turns[:, 2]], axis=1)
    x, y = (columns - column)[None] / focal[:, None], (rows - row)[None] / focal[:, None]
    way = np.stack([x, y, np.ones_like(x)], axis=2)
    way = -np.einsum("gij,gki->gkj", axes, way)
    out: Array = way / np.linalg.norm(way, axis=2, keepdims=True)
    return out


def _lenses(lens: Lens | None, count: int) -> _Lenses:
    return None if lens is None else (np.full(count, lens.focal), lens.column, lens.row)


def _matches(strokes: Strokes, turns: Array, lenses: _Lenses, spread: float) -> Array:
    """(G, K, 3) how well each segment runs along each axis. spread: degrees."""
    columns, rows, angles, lengths = strokes.segments[:, :4].T
    off = _folded(angles[None, :, None] - _axes_seen(turns, lenses, columns, rows))
    if lenses is None:
        short = np.hypot(turns[:, 0], turns[:, 1]) < 0.08
        off = np.where(short[:, None], 9.0, off)
    width = np.radians(spread * (1 + 10 / np.maximum(lengths, 4)))[None, :, None]
    out: Array = np.exp(-0.5 * (off / width) ** 2)
    return out


def _circles(strokes: Strokes, turns: Array, lenses: _Lenses) -> Array:
    """(G, E, 3) how well each ellipse is a circle across each axis, along its own line of sight."""
    columns, rows, angles, flatness, around = strokes.ellipses[:, :5].T
    off = _folded(angles[None, :, None] - _axes_seen(turns, lenses, columns, rows))
    width = (2.0 + 30.0 * flatness**4)[None, :, None]
    facing = np.abs(_sight_lines(turns, lenses, columns, rows))
    wrong = (flatness[None, :, None] - facing) / (0.02 + 4.7 / around)[None, :, None]
    out: Array = np.exp(-0.5 * (np.degrees(off) / width) ** 2 - 0.5 * wrong**2)
    return out


def _support(
    strokes: Strokes, turns: Array, lenses: _Lenses, spread: float
) -> tuple[Array, Array, Array]:
    """(G,) shares of line length explained freely and by region, and (G, 3) the axes' shares.

    By region: it lies across one axis, so that its lines run along the two others, and its
    ellipses are circles across that one.
    """
    count = len(turns)
    across = np.zeros((count, strokes.regions, 3))
    free, along = np.zeros(count), np.zeros((count, 3))
    if len(strokes.segments):
        found = _matches(strokes, turns, lenses, spread) * strokes.weights[None, :, None]
        free += found.max(axis=2).sum(axis=1)
        best = found.argmax(axis=2)
        owners = np.eye(strokes.regions)[strokes.segments[:, 4].astype(int)]
        for axis in range(3):
            along[:, axis] = np.where(best == axis, found[..., axis], 0).sum(axis=1)
            one, other = (k for k in range(3) if k != axis)
            across[..., axis] += np.maximum(found[..., one], found[..., other]) @ owners
    if len(strokes.ellipses):
        found = _circles(strokes, turns, lenses) * strokes.round_weights[None, :, None]
        free += found.max(axis=2).sum(axis=1)
        owners = np.eye(strokes.regions)[strokes.ellipses[:, 5].astype(int)]
        for axis in range(3):
            across[..., axis] += found[..., axis] @ owners
    by_region = across.max(axis=2).sum(axis=1)
    lengths = max(float(strokes.weights.sum()), 1e-9)
    return free / strokes.total, by_region / strokes.total, along / lengths


def _fit(strokes: Strokes, turns: Array, lenses: _Lenses, spread: float) -> Array:
    """(G,) one number of `_support`, by which cameras are looked for."""
    free, by_region, _ = _support(strokes, turns, lenses, spread)
    out: Array = 0.35 * free + 0.65 * by_region
    return out


# ---- Which cameras are looked at


_GRID = [(float(a), float(e)) for a in AZIMUTHS for e in ELEVATION_TICKS]
_GRID_TURNS = np.stack([level_turn(*one) for one in _GRID])


def _hypotheses(scene: Scene, strokes: Strokes) -> list[Sighting]:
    found = [Sighting(level_turn(*ISOMETRIC), None, ISOMETRIC_KIND)]
    if not len(strokes.segments) + len(strokes.ellipses):
        return found
    found += _level_cameras(strokes)
    if len(strokes.segments) + 2 * len(strokes.ellipses) > 2:
        found += _perspective_cameras(scene, strokes)
    if len(strokes.segments) > 2:
        turns = _rolled_turns(strokes)
        if turns:
            worth = _fit(strokes, np.stack(turns), None, 1.5)
            best = np.argsort(-worth, kind="stable")[:ROLLED_KEPT]
            found += [Sighting(turns[k], None, "rolled") for k in best]
    return found


def _level_cameras(strokes: Strokes) -> list[Sighting]:
    worth = _fit(strokes, _GRID_TURNS, None, 2.0)
    ranked = [(float(worth[k]), *_GRID[k]) for k in np.argsort(-worth, kind="stable")[:250]]
    pairs = _from_pairs(strokes)
    if pairs:
        worth = _fit(strokes, np.stack([level_turn(*pair) for pair in pairs]), None, 1.5)
        best = np.argsort(-worth, kind="stable")[:80]
        ranked += [(float(worth[k]) + 0.02, *pairs[k]) for k in best]
    tops: list[tuple[float, float]] = []
    for _, azimuth, elevation in sorted(ranked, reverse=True):
        if _is_new(azimuth, elevation, tops):
            tops.append((azimuth, elevation))
        if len(tops) >= LEVEL_KEPT:
            break
    refined = [_refined(strokes, *top, None, (2.0, 1.2, 0.8)) for top in tops]
    return [Sighting(turn, None, "level") for turn, _ in refined]


def _perspective_cameras(scene: Scene, strokes: Strokes) -> list[Sighting]:
    found: list[tuple[float, float, float, Lens]] = []
    for angle in ANGLES_TRIED:
        lens = lens_of(scene, angle)
        worth = _fit(strokes, _GRID_TURNS, _lenses(lens, len(_GRID)), 1.6)
        near: list[tuple[float, float]] = []
        for k in np.argsort(-worth, kind="stable")[:200]:
            azimuth, elevation = _GRID[k]
            if _is_new(azimuth, elevation, near):
                near.append((azimuth, elevation))
                found.append((float(worth[k]), azimuth, elevation, lens))
            if len(near) >= 4:
                break
    found.sort(key=lambda one: -one[0])
    out = []
    for _, azimuth, elevation, lens in found[:PERSPECTIVE_KEPT]:
        turn, better = _refined(strokes, azimuth, elevation, lens, (1.5, 1.0, 0.7))
        if better is not None and better.focal < LONGEST_FOCAL:
            out.append(Sighting(turn, better, "perspective"))
    return out


def _is_new(azimuth: float, elevation: float, known: Sequence[tuple[float, float]]) -> bool:
    across = np.cos(np.radians(elevation))
    return all(abs(azimuth - a) * across + abs(elevation - e) > CANDIDATES_APART for a, e in known)


def _from_pairs(strokes: Strokes) -> list[tuple[float, float]]:
    """Level cameras in closed form from two directions that are the images of y and x."""
    if len(strokes.segments) < 2:
        return []
    angles, lengths = strokes.segments[:, 2], strokes.segments[:, 3]
    # Slopes, upwards positive.
    slopes = -np.tan(angles[np.argsort(-lengths, kind="stable")[:24]])
    out = []
    for rising, falling in itertools.product(slopes, slopes):
        sine = -rising * falling  # of the elevation, squared
        if not rising > 0 > falling or not 0.0025 < sine < 0.995:
            continue
        elevation = float(np.degrees(np.arcsin(np.sqrt(sine))))
        azimuth = float(np.degrees(np.arctan(np.sqrt(-falling / rising))))
        if 2 < azimuth < 88 and elevation > 4:
            out.append((azimuth - 90.0, elevation))
    return out


def _refined(
    strokes: Strokes, azimuth: float, elevation: float, lens: Lens | None, spreads: Sequence[float]
) -> tuple[Array, Lens | None]:
    """The best of shrinking random steps about a level camera; the focal length moves too."""
    chance = np.random.default_rng(0)
    best = np.array([azimuth, elevation, 0.0 if lens is None else np.log(lens.focal)])
    for k, spread in enumerate(spreads):
        step = np.array([4.0, 4.0, 0.35]) / 2.2**k
        for _ in range(2):
            tried = best + chance.normal(size=(48, 3)) * step
            tried[0] = best
            tried[:, 1] = np.clip(tried[:, 1], 3, 88)
            tried[:, 2] = np.clip(tried[:, 2], np.log(350), np.log(9000))
            turns = np.stack([level_turn(a, e) for a, e in tried[:, :2]])
            lenses = None if lens is None else (np.exp(tried[:, 2]), lens.column, lens.row)
            best = tried[_fit(strokes, turns, lenses, spread).argmax()]
            step = step * 0.6
    better = None if lens is None else Lens(float(np.exp(best[2])), lens.column, lens.row)
    return level_turn(best[0], best[1]), better


def _rolled_turns(strokes: Strokes, most: int = 7) -> list[Array]:
    """Cameras from triples of the directions that most of the line length has."""
    degrees = np.degrees(strokes.segments[:, 2]) % 180
    ticks = np.arange(180)
    off = np.abs((degrees[None] - ticks[:, None] + 90) % 180 - 90)
    heights = (strokes.segments[:, 3] * np.exp(-0.5 * (off / 1.5) ** 2)).sum(axis=1)
    peaks = [
        k
        for k in ticks
        if heights[k] > heights[k - 1]
        and heights[k] >= heights[(k + 1) % 180]
        and heights[k] > 0.03 * heights.max()
    ]
    peaks = sorted(peaks, key=lambda k: -heights[k])[:most]
    out: list[Array] = []
    for three in itertools.combinations(peaks, 3):
        angles = np.radians(np.array(three, dtype=float))
        cosines, sines = np.cos(angles), np.sin(angles)
        # The rows of a turn are square to each other and 1 long: that gives the axes' lengths.
        known = np.stack([cosines**2, sines**2, cosines * sines])
        if abs(np.linalg.det(known)) < 1e-9:
            continue
        squares = np.linalg.solve(known, [1.0, 1.0, 0.0])
        if (squares < 0.01).any() or (squares > 1.0).any():
            continue
        lengths = np.sqrt(squares)
        for signs in itertools.product((1.0, -1.0), repeat=2):
            signed = lengths * np.array([1.0, *signs])
            right, up = signed * cosines, -signed * sines
            view = np.cross(right, up)
            if abs(np.linalg.norm(view) - 1) > 0.05:
                continue
            turn = renamed(np.stack([right, up, view]))
            if not any(np.abs(turn - other).max() < 0.03 for other in out):
                out.append(turn)
    return out


# ---- Which are kept


def _judged(one: Sighting, strokes: Strokes) -> Sighting:
    """Its score by lines, circles and what is usual."""
    turns, lenses = one.turn[None], _lenses(one.lens, 1)
    free, by_region, along = _support(strokes, turns, lenses, 1.0)
    axes = np.sort(along[0])
    arcs, length = _arcs_explained(strokes, one.camera)
    facing = np.abs(one.local[2])
    angles = np.degrees(np.arcsin(np.clip(facing, 0, 1)))
    azimuth = float(np.degrees(np.arctan2(facing[1], facing[0])))
    traits = {
        "free": float(free[0]),
        "by region": float(by_region[0]),
        "least": float(axes[0]),
        "second": float(axes[1]),
        "arcs": length / (length + strokes.total) * arcs,
        "diagonals": _diagonals(strokes, one),
        "edge on": max(0.0, 12 - float(angles.min())) / 12,
        "elevation": abs(float(angles[2]) - 35) / 35,
        "azimuth": abs(azimuth - 45) / 45,
        "rolled": float(one.kind == "rolled"),
        "isometric": float(one.kind == ISOMETRIC_KIND),
    }
    score = sum(TRAIT_WEIGHTS[name] * value for name, value in traits.items())
    return replace(one, score=score)


def _read_with(one: Sighting, shapes: list[tuple[float, Array]]) -> Sighting:
    """The score with how well regions read as sketches, which takes longest to see."""
    score = one.score + TRAIT_WEIGHTS["sketches"] * _sketches(shapes, one.camera)
    return replace(one, score=score)


def _locals(turns: Array, lens: Lens) -> Array:
    """(G, 3, 3) the orthographic turns that perspective ones are like in the canvas's middle."""
    middle = np.array([SIZE / 2])
    lenses = (np.full(len(turns), lens.focal), lens.column, lens.row)
    view = _sight_lines(turns, lenses, middle, middle)[:, 0]
    right = turns[:, 0] - view * (turns[:, 0] * view).sum(axis=1, keepdims=True)
    right /= np.linalg.norm(right, axis=1, keepdims=True)
    return np.stack([right, np.cross(view, right), view], axis=1)


def _apart(one: Sighting, other: Sighting) -> bool:
    """Whether two are different views."""
    least = KEPT_APART * (0.6 if (one.lens is None) != (other.lens is None) else 1.0)
    cosine = (float((one.local * other.local).sum()) - 1) / 2
    return float(np.degrees(np.arccos(np.clip(cosine, -1, 1)))) > least


def _arcs_explained(strokes: Strokes, camera: Camera) -> tuple[float, float]:
    """Share of the arcs' length that lies on circles of some main plane, and that length."""
    length = explained = 0.0
    for points in strokes.arcs:
        best = 0.0
        for axis in range(3):
            facing = camera.facing(axis)
            if facing < LEAST_FACING:
                continue
            _, _, off = circle_through(camera.on_plane(points[:, ::-1], axis))
            pixels = float(np.sqrt((off**2).mean())) * UNIT_PIXELS * np.sqrt(facing)
            best = max(best, float(np.exp(-0.5 * (pixels / 0.7) ** 2)))
        length += len(points)
        explained += len(points) * best
    return (explained / length if length else 0.0), length


def _diagonals(strokes: Strokes, one: Sighting) -> float:
    """Share of line length at 30, 45 or 60 degrees in a main plane, and along no axis."""
    if not len(strokes.segments):
        return 0.0
    lenses = _lenses(one.lens, 1)
    off_axis = 1 - _matches(strokes, one.turn[None], lenses, 1.0)[0].max(axis=1)
    columns, rows, angles, lengths = strokes.segments[:, :4].T
    width = np.radians(0.8 * (1 + 10 / np.maximum(lengths, 4)))
    best = np.zeros(len(angles))
    for a, b in ((0, 1), (1, 2), (0, 2)):
        for degrees in (45, 135, 30, 60, 120, 150):
            way = np.zeros(3)
            way[a], way[b] = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
            turned = np.repeat((one.turn @ way)[None, :, None], 3, axis=2)
            seen = _axes_seen(turned, lenses, columns, rows)[0, :, 0]
            worth = np.exp(-0.5 * (_folded(angles - seen) / width) ** 2)
            best = np.maximum(best, worth * (1.0 if degrees % 90 == 45 else 0.7))
    return float((strokes.weights * off_axis * best).sum() / strokes.total)


def _shapes(scene: Scene) -> list[tuple[float, Array]]:
    """The outlines of the largest flat regions, and what each counts."""
    return [
        (float(np.sqrt(mask.sum())), border_of(without_holes(mask)))
        for mask, label in scene.masks[:OUTLINES_READ]
        if scene.flat[label] or scene.line_drawing
    ]


def _sketches(shapes: list[tuple[float, Array]], camera: Camera) -> float:
    """How well flat regions read as sketches, each on its best plane: 0 to 1.2."""
    total = sum(size for size, _ in shapes)
    found = sum(
        size * max(sketch_quality(points, camera, plane) for plane in range(3))
        for size, points in shapes
    )
    return found / max(total, 1e-9)


def sketch_quality(
    points: Array, camera: Camera, plane: int, most_corners: int = MOST_CORNERS
) -> float:
    """How well an outline (P, 2), rows and columns, reads as a sketch on a main plane: 0 to 1.2.

    0 for one of more than `most_corners`.
    """
    axis = FACING_AXES[plane]
    if camera.facing(axis) < LEAST_FACING:
        return 0.0
    flat = camera.on_plane(points[:, ::-1], axis)
    loop, straight = loop_of(points, flat, pixel_on(plane, camera), most_corners=most_corners)
    if loop is None:
        return 0.0
    if isinstance(loop, Circle):
        return 1.2
    if isinstance(loop, Rect):
        return 1.15
    arcs = sum(segment.mid is not None for segment in loop.segments)
    sides = len(loop.segments)
    if sides - arcs <= 1 and arcs >= 2:  # an ellipse read as arcs is no evidence
        return 0.45
    return max(0.0, straight - 0.012 * max(0, sides - 8), _regular(loop))


def _regular(loop: Loop) -> float:
    """1 for a regular polygon of five and more sides, whatever its direction."""
    if isinstance(loop, Circle | Rect) or any(side.mid is not None for side in loop.segments):
        return 0.0
    corners = np.array([loop.start, *(side.end for side in loop.segments)])
    if np.hypot(*(corners[0] - corners[-1])) < 1e-6:
        corners = corners[:-1]
    if not 5 <= len(corners) <= 12:
        return 0.0
    radii = np.hypot(*(corners - corners.mean(axis=0)).T)
    sides = np.hypot(*(np.roll(corners, -1, axis=0) - corners).T)
    off = (radii.std() / radii.mean() / 0.03) ** 2 + (sides.std() / sides.mean() / 0.05) ** 2
    return float(np.exp(-0.5 * off))
