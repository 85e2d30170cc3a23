"""The measures of a program as an engineer names them, and the program with others.

    for one in dimensions(program):
        print(one.name, one.value)              # "hole 1 diameter" 6.0, "plate thickness" 20.0
    wider = with_dimensions(program, {"plate length": 120.0})
    round_ = rounder(program, tolerance=0.05)   # 50.01 becomes 50

A measure moves everything that hangs on it: concentric loops move together, equal holes of a
pattern stay equal, what stands on a face goes with it and keeps its height, a hole through a plate
stays through. Outlines stay closed, and symmetric where they were. How far each coordinate goes
with a measure is linear, and that is all that a `Dimension` holds. Values are lengths in the
program's unit, millimetres. Left out: directions of planes that are not named.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace

import numpy as np

from image2cad.cad.arcs import arc_through, bulge_of, bulged
from image2cad.cad.program import (
    Circle,
    Extrusion,
    Loop,
    Path,
    Plane,
    Point,
    Program,
    Rect,
    Segment,
)
from image2cad.cad.transforms import extent, grounded
from image2cad.common import Array, InputError

SAME = 1e-6  # of the part's size: coordinates that differ by less are one
HALF_CIRCLE = 0.02  # from a bulge of 1
PLATE_SHARE = 0.35  # of the shorter side of its outline: what is thinner is a plate
DISC_SHARE = 0.6  # of its diameter: what is lower is a disc
ROUGHLY = 0.02  # of a bolt circle: by so much its holes may be off it
EVEN_ANGLES = (
    0.04  # radians, of the angles between the holes of a circle or the corners of a polygon
)
ARC_MIDDLE = 100.0  # times SAME: texts give the points of arcs six digits
TANGENT = 0.02  # radians between an arc's end and the line before it
ROUND_STEPS = (10.0, 5.0, 1.0, 0.5, 0.1, 0.05, 0.01)  # values that are multiples of them are round

Gains = dict[int, float]  # coordinate -> how far it goes for a step of 1


@dataclass(frozen=True)
class Dimension:
    """A measure of a program.

    kind: "size", above 0, or "place", a coordinate. gains: of each coordinate of the program that
    moves with the value, how far for a step of 1.
    """

    name: str
    value: float
    kind: str
    gains: tuple[tuple[int, float], ...]


# ---- What is asked from outside


def dimensions(program: Program) -> list[Dimension]:
    """The measures of `program`, feature by feature; their names differ."""
    return _Measured(program).found


def with_dimensions(program: Program, values: Mapping[str, float]) -> Program:
    """The program with other values for the measures of these names.

    Raises InputError for a name that is not there and a value that leaves nothing of a feature.
    """
    known = {one.name: one for one in dimensions(program)}
    if missing := [name for name in values if name not in known]:
        raise InputError(f"the program has no measure {missing[0]!r}")
    steps = [(known[name], value) for name, value in values.items()]
    for one, value in steps:
        if one.kind == "size" and not value > 0:
            raise InputError(f"{one.name} must be above 0 mm, not {value:g}")
    out = _moved(program, [(one, value - one.value) for one, value in steps])
    if out is None:
        told = ", ".join(f"{one.name} {value:g} mm" for one, value in steps)
        raise InputError(f"nothing would be left of a feature with {told}")
    return out


def rounder(program: Program, tolerance: float) -> Program:
    """The program with each measure at the roundest value within `tolerance`, in millimetres.

    The longest side of the whole stays as it is.
    """
    program = tuple(grounded(step) for step in program)
    longest = longest_side(program)
    moves: list[tuple[Dimension, float]] = []
    for one in dimensions(program):
        for step in ROUND_STEPS:
            near = round(round(one.value / step) * step, 9)
            if abs(near - one.value) <= tolerance and (near or one.kind == "place"):
                break
        else:
            continue
        more = [*moves, (one, near - one.value)]
        there = _moved(program, more)
        if there is not None and abs(longest_side(there) - longest) < SAME * longest:
            moves = more
    there = _moved(program, moves)
    return program if there is None else there


def longest_side(program: Program) -> float:
    """The longest side of the box around what is added, from the sketches alone; 0 if unknown.

    Planes that are not named and arcs count as far as their points reach.
    """
    low, high = np.full(3, math.inf), np.full(3, -math.inf)
    for number, step in enumerate(program):
        if number and step.operation != "union":
            continue
        for loop in step.loops:
            left, down, right, up = extent(loop)
            for u, v, w in ((left, down, 0.0), (right, up, step.depth), (left, up, 0.0)):
                point = np.array(step.plane.point(u, v, w))
                low, high = np.minimum(low, point), np.maximum(high, point)
    side = float((high - low).max())
    return side if math.isfinite(side) else 0.0


# ---- A program as a row of coordinates: two ends of each step, then those of its loops


def _walk(program: Program, visit: Callable[[float], float]) -> Program:
    """`program` with every coordinate replaced by what `visit` makes of it, in fixed order."""
    return tuple(_walk_step(grounded(step), visit) for step in program)


def _walk_step(step: Extrusion, visit: Callable[[float], float]) -> Extrusion:
    sign, along = _upward(step.plane)
    start = visit(along)
    end = visit(along + sign * step.depth)
    origin = step.plane.point(0, 0, sign * (start - along))
    loops = tuple(_walk_loop(loop, visit) for loop in step.loops)
    plane = replace(step.plane, origin=origin)
    return replace(step, plane=plane, loops=loops, depth=sign * (end - start))


def _upward(plane: Plane) -> tuple[float, float]:
    """Whether the normal looks along an axis (1) or against it (-1), and the origin on the axis."""
    sign = -1.0 if plane.name == "XZ" else 1.0
    return sign, sign * sum(a * b for a, b in zip(plane.origin, plane.normal, strict=True))


def _walk_loop(loop: Loop, visit: Callable[[float], float]) -> Loop:
    if isinstance(loop, Circle):
        return Circle(visit(loop.x), visit(loop.y), visit(loop.radius))
    if isinstance(loop, Rect):
        return Rect(visit(loop.x), visit(loop.y), visit(loop.width), visit(loop.height))
    corners, bulges = _around(loop)
    new = [(visit(x), visit(y)) for x, y in corners]
    rounds = [visit(bulge) for bulge in bulges]
    segments = []
    for i, bulge in enumerate(rounds):
        start, end = new[i], new[(i + 1) % len(new)]
        if i == len(new) - 1 and bulges[i] == 0:
            break  # closing the loop draws it
        segments.append(Segment(end, bulged(start, end, bulge) if bulges[i] else None))
    return Path(new[0], tuple(segments))


def _around(path: Path) -> tuple[list[Point], list[float]]:
    """The corners of a path, each once, and the bulge of the way from each to the next."""
    corners, bulges, here = [path.start], [], path.start
    for segment in path.segments:
        bulges.append(0.0 if segment.mid is None else bulge_of(here, segment.mid, segment.end))
        corners.append(segment.end)
        here = segment.end
    if math.dist(corners[-1], corners[0]) <= 1e-9 * (1 + math.hypot(*corners[0])):
        corners.pop()
    else:
        bulges.append(0.0)
    return corners, bulges


def _moved(program: Program, moves: Iterable[tuple[Dimension, float]]) -> Program | None:
    """The program with each measure's coordinates moved; None if a feature would vanish."""
    row: list[float] = []

    def note(value: float) -> float:
        row.append(value)
        return value

    _walk(program, note)
    shift = np.zeros(len(row))
    for one, step in moves:
        for index, gain in one.gains:
            shift[index] += gain * step
    places = iter((np.array(row) + shift).tolist())
    out = _walk(program, lambda _: next(places))
    for before, after in zip(program, out, strict=True):
        if not before.depth * after.depth > 0:
            return None
        for loop in after.loops:
            if isinstance(loop, Circle) and not loop.radius > 0:
                return None
            if isinstance(loop, Rect) and not min(loop.width, loop.height) > 0:
                return None
    return out


# ---- One loop: its shape, what it measures, how it shifts and grows


@dataclass(eq=False)
class _Outline:
    """One loop of a step, and where its coordinates stand in the row.

    shape: "circle", "slot", "polygon", or "outline". sizes: its measures as (word, value, gains).
    shift: gains that move it in x and in y. ends: its extent in x and in y. levels: where it has
    sides in x and in y, in ascending order, each with the gains that move it.
    """

    step: int
    loop: Loop
    first: int
    shape: str
    centre: Point
    sizes: list[tuple[str, float, Gains]]
    shift: tuple[Gains, Gains]
    ends: tuple[tuple[float, float], tuple[float, float]]
    levels: tuple[list[tuple[float, Gains]], list[tuple[float, Gains]]]
    inside: bool = False
    name: str = ""
    axes: tuple[str, str] = ("x", "y")


def _outline_of(step: int, loop: Loop, first: int, near: float) -> _Outline:
    left, low, right, high = extent(loop)
    ends = ((left, right), (low, high))
    if isinstance(loop, Circle):
        size = [("diameter", 2 * loop.radius, {first + 2: 0.5})]
        shift = ({first: 1.0}, {first + 1: 1.0})
        middle = (loop.x, loop.y)
        return _Outline(step, loop, first, "circle", middle, size, shift, ends, ([], []))
    if isinstance(loop, Rect):
        x, y, width, height = range(first, first + 4)
        sizes = [("", loop.width, {width: 1.0}), ("", loop.height, {height: 1.0})]
        levels = (
            [(left, {x: 0.5, width: -1.0}), (right, {x: 0.5, width: 1.0})],
            [(low, {y: 0.5, height: -1.0}), (high, {y: 0.5, height: 1.0})],
        )
        shift = ({x: 1.0}, {y: 1.0})
        middle = (loop.x, loop.y)
        return _Outline(
            step, loop, first, "outline", middle, _by_length(sizes), shift, ends, levels
        )
    return _path(step, loop, first, ends, near)


def _by_length(sizes: list[tuple[str, float, Gains]]) -> list[tuple[str, float, Gains]]:
    """Two sides as length and width, the longer first."""
    longer, shorter = sorted(sizes, key=lambda size: -round(size[1], 6))
    return [("length", *longer[1:]), ("width", *shorter[1:])]


def _path(step: int, path: Path, first: int, ends: tuple, near: float) -> _Outline:
    corners, bulges = _around(path)
    points, n = np.array(corners), len(corners)
    shift = tuple({first + 2 * i + axis: 1.0 for i in range(n)} for axis in (0, 1))
    middle = tuple(float((low + high) / 2) for low, high in ends)

    def gains(ways: Array) -> Gains:
        flat = ways.reshape(-1)
        return {first + i: float(flat[i]) for i in np.flatnonzero(np.abs(flat) > 1e-12).tolist()}

    def whole(shape: str, sizes: list[tuple[str, float, Gains]]) -> _Outline:
        at = points.mean(axis=0).tolist()
        return _Outline(step, path, first, shape, (at[0], at[1]), sizes, shift, ends, ([], []))  # type: ignore[arg-type]

    half = [abs(abs(bulge) - 1) < HALF_CIRCLE for bulge in bulges]
    if n == 2 and all(half) and bulges[0] * bulges[1] > 0:
        across = points - points.mean(axis=0)
        diameter = 2 * float(np.hypot(*across[0]))
        return whole("circle", [("diameter", diameter, gains(across / diameter))])
    if n == 4 and (slot := _slot(points, bulges, half)) is not None:
        (length, longer), (width, wider) = slot
        out = whole("slot", [("length", length, gains(longer)), ("width", width, gains(wider))])
        return replace(out, centre=middle)  # type: ignore[arg-type]
    spokes = points - points.mean(axis=0)
    if n >= 5 and not any(bulges) and _even(spokes, 10 * near):
        radius = float(np.hypot(*spokes[0]))
        if n % 2:
            return whole("polygon", [("across corners", 2 * radius, gains(spokes / radius / 2))])
        flats = 2 * radius * math.cos(math.pi / n)
        return whole("polygon", [("across flats", flats, gains(spokes / flats))])
    sizes, levels = _sides(points, bulges, ends, gains, near)
    sizes += _roundings(points, bulges, first, gains)
    return _Outline(step, path, first, "outline", middle, sizes, shift, ends, levels)  # type: ignore[arg-type]


def _slot(
    points: Array, bulges: list[float], half: list[bool]
) -> tuple[tuple[float, Array], tuple[float, Array]] | None:
    """Length and width of two half circles and two lines, with how the corners go with each."""
    first = 0 if bulges[0] == 0 else 1
    lines, arcs = (first, first + 2), ((first + 1) % 4, (first + 3) % 4)
    if any(bulges[i] for i in lines) or not all(half[i] for i in arcs):
        return None
    if bulges[arcs[0]] * bulges[arcs[1]] < 0:
        return None
    along = points[(first + 1) % 4] - points[first]
    back = points[(first + 2) % 4] - points[(first + 3) % 4]
    straight = float(np.hypot(*along))
    across = points[(first + 2) % 4] - points[(first + 1) % 4]
    width = float(np.hypot(*across))
    if straight <= 0 or width <= 0 or abs(float(along @ across)) > 0.01 * straight * width:
        return None
    if float(np.hypot(*(along - back))) > 0.01 * straight:
        return None
    u, v, spokes = along / straight, across / width, points - points.mean(axis=0)
    longer = np.sign(spokes @ u)[:, None] * u / 2
    wider = np.sign(spokes @ v)[:, None] * v / 2 - longer  # the whole length stays
    return (straight + width, longer), (width, wider)


def _even(spokes: Array, near: float) -> bool:
    """Whether points, in order, lie evenly around (0, 0), their distances alike within `near`."""
    lengths = np.hypot(*spokes.T)
    angles = np.unwrap(np.arctan2(spokes[:, 1], spokes[:, 0]))
    turns = np.diff(angles, append=angles[0] + 2 * math.pi * np.sign(angles[1] - angles[0]))
    return bool(np.ptp(lengths) < near and np.ptp(turns) < EVEN_ANGLES)


def _fillets(points: Array, bulges: list[float]) -> dict[int, tuple[float, Array, Array]]:
    """Of arcs that round a corner off: radius, and how both ends go where it grows by 1."""
    n, found = len(points), {}
    for i, bulge in enumerate(bulges):
        before, start, end, after = (points[(i + k) % n] for k in (-1, 0, 1, 2))
        if (
            n < 4
            or bulge == 0
            or abs(bulge) > 1 - HALF_CIRCLE
            or bulges[i - 1]
            or bulges[(i + 1) % n]
        ):
            continue
        one, two, chord = start - before, after - end, end - start
        turn = 4 * math.atan(abs(bulge))
        lengths = [float(np.hypot(*way)) for way in (one, two, chord)]
        if min(lengths) == 0:
            continue
        one, two, chord = one / lengths[0], two / lengths[1], chord / lengths[2]
        if (
            max(abs(float(np.arccos(np.clip(w @ chord, -1, 1))) - turn / 2) for w in (one, two))
            > TANGENT
        ):
            continue
        radius = lengths[2] / 2 / math.sin(turn / 2)
        reach = math.tan(turn / 2)  # from the corner to where the arc begins, in radii
        found[i] = (radius, -reach * one, reach * two)
    return found


def _sides(
    points: Array, bulges: list[float], ends: tuple, gains: Callable[[Array], Gains], near: float
) -> tuple[list[tuple[str, float, Gains]], tuple]:
    """The measures of an outline across both axes, and its sides.

    A symmetric outline is measured from side to side and stays symmetric, any other from its low
    end. The two ends of a rounded corner go together.
    """
    n, levels = len(points), []
    whole: list[tuple[str, float, Gains]] = []
    inner: list[tuple[str, float, Gains]] = []
    rounded = _fillets(points, bulges)
    for axis in (0, 1):
        groups = _levels(points[:, axis], [(i, (i + 1) % n) for i in rounded], near)
        middle = sum(ends[axis]) / 2
        flipped = points.copy()
        flipped[:, axis] = 2 * middle - flipped[:, axis]
        symmetric = all(np.abs(points - one).max(axis=1).min() < 10 * near for one in flipped)
        centres = [float(points[list(group), axis].mean()) for group in groups]

        def going(which: Iterable[int], gain: float, axis: int = axis) -> Array:
            ways = np.zeros_like(points)
            ways[list(which), axis] = gain
            return ways

        span = float(ends[axis][1] - ends[axis][0])
        sides = [(group, sorted({*points[group, axis].tolist()})) for group in groups]
        levels.append([(at, gains(going(group, 1.0))) for group, ats in sides for at in ats])
        if symmetric:
            for k in range(len(groups) // 2):
                other = len(groups) - 1 - k
                ways = going(groups[k], -0.5) + going(groups[other], 0.5)
                value = span if k == 0 else abs(centres[other] - centres[k])
                (inner if k else whole).append(("", value, gains(ways)))
        elif len(groups) > 1:
            whole.append(("", span, gains(going(groups[-1], 1.0))))
            for group, centre in zip(groups[1:-1], centres[1:-1], strict=True):
                inner.append(("", centre - float(ends[axis][0]), gains(going(group, 1.0))))
    sizes = _by_length(whole) if len(whole) == 2 else [("length", *one[1:]) for one in whole]
    steps = [(f"step {k}", *one[1:]) for k, one in enumerate(inner, 1)]
    return sizes + steps, tuple(levels)


def _levels(values: Array, tied: Iterable[tuple[int, int]], near: float) -> list[list[int]]:
    """Corners at one coordinate, in ascending order; those that are tied count as at one."""

    def grouped(ties: Iterable[tuple[int, int]]) -> list[list[int]]:
        order = np.argsort(values, kind="stable").tolist()
        owner = list(range(len(values)))

        def root(i: int) -> int:
            while owner[i] != i:
                i = owner[i]
            return i

        for one, two in zip(order, order[1:], strict=False):
            if values[two] - values[one] < near:
                owner[root(two)] = root(one)
        for one, two in ties:
            owner[root(two)] = root(one)
        groups: dict[int, list[int]] = {}
        for i in order:
            groups.setdefault(root(i), []).append(i)
        return sorted(groups.values(), key=lambda group: float(values[group].mean()))

    found = grouped(tied)
    return found if len(found) > 1 else grouped(())


def _roundings(
    points: Array, bulges: list[float], first: int, gains: Callable[[Array], Gains]
) -> list[tuple[str, float, Gains]]:
    """Radii of rounded corners, equal ones as one, and heights of other arcs over their chords."""
    n, sizes = len(points), []
    fillets = _fillets(points, bulges)
    radii: dict[float, list[int]] = {}
    for i, (radius, _, _) in fillets.items():
        radii.setdefault(float(f"{radius:.4g}"), []).append(i)
    for k, where in enumerate(radii.values(), 1):
        ways = np.zeros_like(points)
        for i in where:
            ways[i] += fillets[i][1]
            ways[(i + 1) % n] += fillets[i][2]
        word = "corner radius" if len(radii) == 1 else f"corner radius {k}"
        sizes.append((word, fillets[where[0]][0], gains(ways)))
    others = [
        i
        for i, bulge in enumerate(bulges)
        if bulge and i not in fillets and abs(abs(bulge) - 1) > HALF_CIRCLE
    ]
    for k, i in enumerate(others, 1):
        chord = float(np.hypot(*(points[(i + 1) % n] - points[i])))
        slot = first + 2 * n + i
        word = "arc height" if len(others) == 1 else f"arc height {k}"
        height = abs(bulges[i]) * chord / 2
        sizes.append((word, height, {slot: math.copysign(2 / chord, bulges[i])}))
    return sizes


# ---- The whole program: features, their names, and what hangs on what


@dataclass(eq=False)
class _Span:
    """What lies between two coordinates of an axis: a step along its normal, or a loop across.

    shift: gains that move all of it, and what is within. grow: gains of its low and high end.
    owner: the loop, of one that lies across.
    """

    axis: str
    low: float
    high: float
    shift: Gains
    grow: tuple[Gains, Gains]
    owner: _Outline | None = None


@dataclass(eq=False)
class _Group:
    """Equal features of one kind that are measured together. members: at least one."""

    word: str
    members: list[_Outline]
    name: str = ""

    def sites(self, near: float) -> list[list[_Outline]]:
        """The members that lie about one centre, together."""
        found: list[list[_Outline]] = []
        for one in self.members:
            for site in found:
                if math.dist(site[0].centre, one.centre) < 2 * near:
                    site.append(one)
                    break
            else:
                found.append([one])
        return found


@dataclass(eq=False)
class _Measured:
    """The measures of a program, made once."""

    program: Program
    found: list[Dimension] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.program = tuple(grounded(step) for step in self.program)
        self.near = SAME * (longest_side(self.program) or 1.0)
        self.outlines: list[_Outline] = []
        self.steps: list[_Span] = []
        self.names: set[str] = set()
        place = 0
        for number, step in enumerate(self.program):
            sign, along = _upward(step.plane)
            across, normal = _axes(step.plane, number)
            ends = [(along, place), (along + sign * step.depth, place + 1)]
            (low, below), (high, above) = sorted(ends)
            grow = ({below: 1.0}, {above: 1.0})
            self.steps.append(_Span(normal, low, high, {below: 1.0, above: 1.0}, grow))
            place += 2
            here = []
            for loop in step.loops:
                one = _outline_of(number, loop, place, self.near)
                one.axes = across
                here.append(one)
                place += _length(loop)
            for one in here:
                around = sum(other is not one and _holds(other, one) for other in here)
                one.inside = around % 2 == 1
            self.outlines += here
        self.spans = [*self.steps, *self._across()]
        self.groups = self._named(self._grouped())
        for number in range(len(self.program)):
            for group in self.groups:
                if group.members[0].step == number:
                    self._sizes(group)
            self._along(number)
        self._places()

    def add(self, name: str, value: float, kind: str, gains: Gains) -> None:
        """Note a measure, under a name that no other has."""
        if not any(gains.values()):
            return
        free, k = name, 2
        while free in self.names:
            free, k = f"{name} ({k})", k + 1
        self.names.add(free)
        rows = tuple((index, gain) for index, gain in sorted(gains.items()) if gain)
        self.found.append(Dimension(free, round(float(value), 9) + 0.0, kind, rows))

    # ---- Features and their names

    def _cut(self, one: _Outline) -> bool:
        operation = self.program[one.step].operation if one.step else "union"
        return one.inside != (operation == "cut")

    def _word(self, one: _Outline) -> str:
        step = self.program[one.step]
        if one.step and step.operation == "intersect":
            return "envelope"
        if self._cut(one):
            if one.shape in ("circle", "slot"):
                return "hole" if one.shape == "circle" else "slot"
            return "cutout" if self._through(one) else "pocket"
        short = min(high - low for low, high in one.ends)
        if one.shape == "circle":
            if one.step:
                return "boss"
            return "disc" if abs(step.depth) < DISC_SHARE * short else "cylinder"
        return "plate" if abs(step.depth) < PLATE_SHARE * short else "block"

    def _through(self, one: _Outline) -> bool:
        mine = self.steps[one.step]
        if one.inside:
            return True
        added = [
            other
            for other, step in zip(self.steps[: one.step], self.program, strict=False)
            if other.axis == mine.axis and step.operation != "cut"
        ]
        low = min((other.low for other in added), default=-math.inf)
        high = max((other.high for other in added), default=math.inf)
        return mine.low <= low + self.near and mine.high >= high - self.near

    def _grouped(self) -> list[_Group]:
        groups: dict[tuple, _Group] = {}
        for i, one in enumerate(self.outlines):
            word = self._word(one)
            alike: tuple = (word, one.axes, one.shape)
            alike += tuple(f"{value:.6g}" for _, value, _ in one.sizes)
            alike += () if self._cut(one) or one.step else (i,)
            groups.setdefault(alike, _Group(word, [])).members.append(one)
        return list(groups.values())

    def _named(self, groups: list[_Group]) -> list[_Group]:
        """Numbers where there are several of a word; a bore through two steps is one hole."""
        sites = [
            group.sites(self.near) if self._cut(group.members[0]) else [[m] for m in group.members]
            for group in groups
        ]
        total: dict[str, int] = {}
        for group, places in zip(groups, sites, strict=True):
            total[group.word] = total.get(group.word, 0) + len(places)
        count: dict[str, int] = {}
        for group, places in zip(groups, sites, strict=True):
            first = count.get(group.word, 0) + 1
            last = count[group.word] = first + len(places) - 1
            words = f"{group.word}es" if group.word == "boss" else f"{group.word}s"
            for k, place in enumerate(places, first):
                for one in place:
                    one.name = group.word if total[group.word] == 1 else f"{group.word} {k}"
            group.name = group.members[0].name
            if last > first:
                group.name = f"{words} {first} {'and' if last == first + 1 else 'to'} {last}"
        return groups

    # ---- What hangs on what

    def _across(self) -> list[_Span]:
        spans = []
        for one in self.outlines:
            if one.inside:
                continue
            family = self._family(one)
            for axis in (0, 1):
                shift: Gains = {}
                for other in family:
                    shift |= other.shift[axis]
                sides = one.levels[axis]
                grow = (sides[0][1], sides[-1][1]) if len(sides) > 1 else ({}, {})
                spans.append(_Span(one.axes[axis], *one.ends[axis], shift, grow, one))
        return spans

    def _family(self, one: _Outline) -> list[_Outline]:
        """The loop, those inside it, and those about the same centre."""
        return [
            other
            for other in self.outlines
            if other is one
            or (other.step == one.step and _holds(one, other))
            or self._concentric(one, other)
        ]

    def _concentric(self, one: _Outline, other: _Outline) -> bool:
        return one.axes == other.axes and math.dist(one.centre, other.centre) < 2 * self.near

    def _hanging(
        self, axis: str, ends: dict[float, float], fixed: list[float], owner: object
    ) -> Gains:
        """What goes with faces of an axis that go so far, {coordinate: gain}.

        A span between a face that goes and what stays stretches, any other goes as a whole and
        takes along what is at its other end. fixed: coordinates that stay. owner: what the faces
        belong to, which is left out.
        """
        gains: Gains = {}
        todo, moved, seen = True, dict(ends), set()

        def at(value: float) -> float | None:
            return next((gain for one, gain in moved.items() if abs(one - value) < self.near), None)

        while todo:
            todo = False
            for number, span in enumerate(self.spans):
                if span.axis != axis or number in seen or owner is span or owner is span.owner:
                    continue
                low, high = at(span.low), at(span.high)
                if low is None and high is None:
                    continue
                seen.add(number)
                todo = True
                if low is None or high is None:
                    known, far = (low, span.high) if high is None else (high, span.low)
                    assert known is not None
                    if not self._anchored(far, span.low + span.high - far, known, fixed):
                        moved[far] = low = high = known
                parts = _plus(_times(span.grow[0], low or 0.0), _times(span.grow[1], high or 0.0))
                if low == high:
                    parts = _times(span.shift, low or 0.0)
                gains = parts | gains
        return gains

    def _anchored(self, far: float, near: float, gain: float, fixed: list[float]) -> bool:
        """Whether the far end of a span stays while its near end goes.

        It does where it is at a coordinate that stays, or beyond those that the near end leaves.
        """
        left = [one for one in fixed if (near - one) * gain > 0]
        beyond = left and all((one - far) * gain > 0 for one in left)
        return bool(beyond) or any(abs(far - one) < self.near for one in fixed)

    # ---- Measures

    def _sizes(self, group: _Group) -> None:
        for k, (word, value, _) in enumerate(group.members[0].sizes):
            gains: Gains = {}
            for one in group.members:
                own = self._about_arcs(one, one.sizes[k][2]) | one.sizes[k][2]
                gains |= self._with_flush(one, own) if not one.inside else own
            self.add(f"{group.name} {word}", value, "size", gains)

    def _about_arcs(self, one: _Outline, own: Gains) -> Gains:
        """What goes with a size because it stands about the middle of an arc that goes."""
        if not isinstance(one.loop, Path) or one.shape != "outline":
            return {}
        gains: Gains = {}
        corners, bulges = _around(one.loop)
        for i, bulge in enumerate(bulges):
            j = (i + 1) % len(corners)
            arc = arc_through(corners[i], bulged(corners[i], corners[j], bulge), corners[j])
            if not bulge or arc is None:
                continue
            for other in self.outlines:
                if other.shape == "outline" or other.axes != one.axes:
                    continue
                if math.dist(other.centre, arc.centre) > ARC_MIDDLE * self.near:
                    continue
                for axis in (0, 1):
                    ways = [own.get(one.first + 2 * k + axis, 0.0) for k in (i, j)]
                    if ways[0] == ways[1]:
                        gains |= _times(other.shift[axis], ways[0])
        return gains

    def _with_flush(self, one: _Outline, own: Gains) -> Gains:
        """A size of an outer loop with what lies flush with the sides that it moves."""
        gains: Gains = {}
        for axis in (0, 1):
            going = [(at, _share(own, side, one.loop)) for at, side in one.levels[axis]]
            ends = {at: gain for at, gain in going if gain}
            fixed = [at for at, gain in going if not gain]
            if ends:
                gains |= self._hanging(one.axes[axis], ends, fixed, one)
        return gains | own

    def _along(self, number: int) -> None:
        """How thick a step is, and where it stands if nothing else says so."""
        span = self.steps[number]
        outer = [one for one in self.outlines if one.step == number and not one.inside]
        if not outer:
            return
        group = next(g for g in self.groups if any(one is outer[0] for one in g.members))
        alone = all(one.step == number for one in group.members)
        name = group.name if alone else outer[0].name
        before = [
            at for other in self.steps[:number] if other.axis == span.axis
            for at in (other.low, other.high)
        ]  # fmt: skip
        for one in self.outlines:
            for axis in (0, 1):
                if one.axes[axis] == span.axis and one.step < number:
                    before += [at for at, _ in one.levels[axis]]
        flush = [any(abs(end - at) < self.near for at in before) for end in (span.low, span.high)]
        if not all(flush) or number == 0:
            up = not flush[1] or number == 0
            ends = {span.high: 1.0} if up else {span.low: -1.0}
            gains = self._hanging(span.axis, ends, [span.low if up else span.high], span)
            gains |= span.grow[1] if up else _times(span.grow[0], -1.0)
            word = "height"
            if self.program[number].operation == "cut" and number:
                word = "depth"
            elif group.word in ("plate", "disc"):
                word = "thickness"
            self.add(f"{name} {word}", span.high - span.low, "size", gains)
        if number == 0 or not any(flush):
            letter = span.axis if len(span.axis) == 1 else "offset"
            gains = self._hanging(span.axis, {span.low: 1.0, span.high: 1.0}, [], span)
            self.add(f"{name} {letter}", span.low, "place", gains | span.shift)

    def _places(self) -> None:
        """Where features stand: those about one middle together, a pattern as a whole."""
        todo = []
        for group in self.groups:
            sites = group.sites(self.near)
            if len(sites) > 1:
                self._pattern(group, sites)
            middle = np.mean([site[0].centre for site in sites], axis=0).tolist()
            todo.append((group, middle, group.members[0].axes))
        while todo:
            lead, middle, axes = todo[0]
            near = [
                one for one in todo if one[2] == axes and math.dist(one[1], middle) < 4 * self.near
            ]
            todo = [one for one in todo if not any(one is other for other in near)]
            for axis in (0, 1):
                gains: Gains = {}
                for group, _, _ in near:
                    for one in group.members:
                        flush = {at: 1.0 for at, _ in one.levels[axis] if not self._cut(one)}
                        gains |= self._hanging(axes[axis], flush, [], one)
                        for other in [one] if self._cut(one) else self._family(one):
                            gains |= other.shift[axis]
                self.add(f"{lead.name} {axes[axis][0]}", middle[axis], "place", gains)

    def _pattern(self, group: _Group, sites: list[list[_Outline]]) -> None:
        """How far equal features are apart."""
        centres = np.array([site[0].centre for site in sites])
        spokes = centres - centres.mean(axis=0)

        def going(i: int, axis: int, gain: float) -> Gains:
            gains: Gains = {}
            for one in sites[i]:
                gains |= _times(one.shift[axis], gain)
            return gains

        order = np.argsort(np.arctan2(spokes[:, 1], spokes[:, 0]))
        reach = float(np.hypot(*spokes[0]))
        square = len(sites) == 4 and min(abs(spokes[0])) > self.near
        if len(sites) > 2 and not square and _even(spokes[order], ROUGHLY * reach):
            gains: Gains = {}
            for i, way in enumerate((spokes / reach / 2).tolist()):
                gains |= going(i, 0, way[0]) | going(i, 1, way[1])
            self.add(f"{group.name} circle diameter", 2 * reach, "size", gains)
            return
        for axis in (0, 1):
            rows = _levels(centres[:, axis], (), 2 * self.near)
            at = [float(centres[row, axis].mean()) for row in rows]
            last = len(rows) - 1
            symmetric = all(
                abs(one + other - at[0] - at[-1]) < 4 * self.near
                for one, other in zip(at, at[::-1], strict=True)
            )
            pairs = [(k, last - k) for k in range(len(rows) // 2)]
            if not symmetric:
                pairs = [(0, k) for k in range(1, len(rows))]
            for k, (low, high) in enumerate(pairs, 1):
                gains = {}
                for i in rows[high]:
                    gains |= going(i, axis, 0.5 if symmetric else 1.0)
                for i in rows[low] if symmetric else ():
                    gains |= going(i, axis, -0.5)
                name = f"{group.name} spacing {group.members[0].axes[axis][0]}"
                name = name if len(pairs) == 1 else f"{name} {k}"
                self.add(name, at[high] - at[low], "size", gains)


def _axes(plane: Plane, number: int) -> tuple[tuple[str, str], str]:
    """The names of a sketch's two axes and of its normal; of a plane of its own, its own."""
    if plane.name is None:
        return (f"u{number}", f"v{number}"), f"w{number}"
    x, y, normal = ("xyz"[int(np.argmax(np.abs(way)))] for way in (plane.x, plane.y, plane.normal))
    return (x, y), normal


def _length(loop: Loop) -> int:
    if isinstance(loop, Path):
        corners, bulges = _around(loop)
        return 2 * len(corners) + len(bulges)
    return 3 if isinstance(loop, Circle) else 4


def _holds(outer: _Outline, inner: _Outline) -> bool:
    return outer is not inner and all(
        low < its_low and its_high < high
        for (low, high), (its_low, its_high) in zip(outer.ends, inner.ends, strict=True)
    )


def _times(gains: Gains, factor: float) -> Gains:
    return {index: factor * gain for index, gain in gains.items()}


def _plus(one: Gains, other: Gains) -> Gains:
    return {index: one.get(index, 0.0) + other.get(index, 0.0) for index in {**one, **other}}


def _share(own: Gains, side: Gains, loop: Loop) -> float:
    """How far a side goes with a size that has the gains `own`; 0 where it turns or bends."""
    if isinstance(loop, Rect):  # {middle: 0.5, width: -1 or 1}
        middle, width = sorted(side)
        return own.get(middle, 0.0) + side[width] * own.get(width, 0.0) / 2
    shares = {round(own.get(index, 0.0), 9) for index in side}
    return shares.pop() if len(shares) == 1 else 0.0
