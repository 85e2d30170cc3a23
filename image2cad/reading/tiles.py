"""Several views in one picture cut apart: a board's composite, or a drawing sheet.

    for view in views_in(image): ...        # Tile(image, camera); one, camera None, for one view

A composite of BenchCAD's is known by its size and bars, and its cameras are exact; CADBench's grid
by its bars and colours, its directions are exact, its scale where no view was drawn smaller so that
the part is whole. A sheet has three views on a plain ground of which two share their columns
and two their rows, however many pieces each falls into, and is in third angle where the view from
above stands above the front view, in first angle where below. Cameras are of the tile's own pixels;
z is up, the front view is seen along y. Two rows of two views are cut apart too, but
their cameras are not known. Left out: sheets of two or more than three views, section views, frames
and title blocks.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np
from PIL import Image

from image2cad.common import Array
from image2cad.reading.framing import as_read, foreground_of
from image2cad.rendering import (
    BENCHCAD_EYES,
    BENCHCAD_GAP,
    BENCHCAD_HALF,
    BENCHCAD_TILE,
    CADBENCH_EYES,
    Camera,
    orthographic,
)

BENCHCAD_STYLE = "benchcad"  # of rendering/styles.py
LARGEST_TONE_OF_BAR = 3  # greys by which a bar varies
ALIGNED_SHARE, ALIGNED_PIXELS = 0.015, 3.0  # of a side, and pixels, by which boxes differ
LEAST_CLEARANCE = 6  # pixels between views
MOST_GUTTERS = 16  # empty runs of rows or columns; more are text or a pattern
ONE_TONE = 12  # greys by which a bar's pixels differ
LEAST_TONE_OF_BAR, DARKEST_BAR = 24, 24  # greys between a bar and the ground; of a black one
WIDEST_BAR = 0.1  # of the picture
GREYEST = 14  # greys between the channels of a grey part
OFF_THE_MIDDLE = 0.15  # of a quarter, by which a view in it is
TILE_MARGIN = 12  # pixels of ground around a view


@dataclass(frozen=True, eq=False)
class Tile:
    """One view: its picture, and its camera in that picture's pixels; None is not known.

    style: whose colours and lines are known exactly; "" where nobody's are.
    """

    image: Image.Image
    camera: Camera | None = None
    style: str = ""


def views_in(image: Image.Image) -> list[Tile]:
    """The views of one part that a picture shows, in its pixels as it is read; itself for one."""
    image = as_read(image)
    for ways in (_of_benchcad, _of_bars, _of_a_sheet, _of_quarters):
        tiles = ways(image)
        if tiles:
            return tiles
    return [Tile(image)]


def _of_benchcad(image: Image.Image) -> list[Tile]:
    """BenchCAD's four views: 256 pixels each, with white bars between and around them."""
    side = 2 * BENCHCAD_TILE + 3 * BENCHCAD_GAP
    if image.size != (side, side):
        return []
    picture = np.asarray(image).astype(int)
    step = BENCHCAD_TILE + BENCHCAD_GAP
    bars = np.concatenate([np.arange(start, start + BENCHCAD_GAP) for start in (0, step, 2 * step)])
    if min(picture[bars].min(), picture[:, bars].min()) < 255 - LARGEST_TONE_OF_BAR:
        return []
    corners = [
        (BENCHCAD_GAP + i % 2 * step, BENCHCAD_GAP + i // 2 * step)
        for i in range(len(BENCHCAD_EYES))
    ]
    tiles = []
    for eye, (left, top) in zip(BENCHCAD_EYES, corners, strict=True):
        box = (left, top, left + BENCHCAD_TILE, top + BENCHCAD_TILE)
        if picture[top : box[3], left : box[2]].min() > 255 - LARGEST_TONE_OF_BAR:
            return []  # nothing is seen there
        middle = BENCHCAD_TILE / 2
        camera = orthographic(eye, middle / BENCHCAD_HALF, (0.0, 0.0, 0.0), (middle, middle))
        tiles.append(Tile(image.crop(box), camera, BENCHCAD_STYLE))
    return tiles


def _of_bars(image: Image.Image) -> list[Tile]:
    """Two rows of two views of one size, parted by bars of one colour; CADBench's are known."""
    picture = np.asarray(image).astype(int)
    height, width, _ = picture.shape
    across, down = _bar_of(picture), _bar_of(picture.swapaxes(0, 1))
    if across is None or down is None or np.abs(across[2] - down[2]).max() > ONE_TONE:
        return []
    (above, below, tone), (left, right, _) = across, down
    tiles = []
    for top, bottom in ((0, above), (below, height)):
        for first, last in ((0, left), (right, width)):
            tiles.append(Tile(image.crop((first, top, last, bottom))))
    boxes = [_box_of(foreground_of(tile.image)) for tile in tiles]
    if any(box is None for box in boxes):
        return []
    if tone.max() > DARKEST_BAR or not all(_grey_on_white(tile.image) for tile in tiles):
        return tiles
    out = []
    for eye, tile in zip(CADBENCH_EYES, tiles, strict=True):
        wide, high = tile.image.size
        # A view in which the part would not be whole is drawn smaller: that is not looked for.
        out.append(Tile(tile.image, orthographic(eye, high, at=(wide / 2, high / 2))))
    return out


def _bar_of(picture: Array) -> tuple[int, int, Array] | None:
    """First row and row after the last of a bar across the middle, and its colour."""
    height = len(picture)
    tones = np.median(picture, axis=1)
    plain = np.abs(picture - tones[:, None]).max(axis=(1, 2)) <= ONE_TONE
    middle = height // 2
    tone = tones[middle]
    bar = plain & (np.abs(tones - tone).max(axis=1) <= ONE_TONE)
    ground = np.median(np.concatenate([picture[0], picture[-1]]), axis=0)
    if not bar[middle] or np.abs(tone - ground).max() < LEAST_TONE_OF_BAR:
        return None
    free = np.flatnonzero(~bar)
    first = int(free[free < middle].max(initial=-1)) + 1
    last = int(free[free > middle].min(initial=height))
    if last - first > WIDEST_BAR * height or abs(first - (height - last)) > 2:
        return None
    return first, last, tone


def _grey_on_white(image: Image.Image) -> bool:
    """Whether a view has CADBench's colours."""
    picture = np.asarray(image).astype(int)
    ground = np.median(np.concatenate([picture[0], picture[-1]]), axis=0)
    inside = picture[foreground_of(image)]
    return bool(ground.min() > 255 - ONE_TONE and np.median(np.ptp(inside, axis=1)) < GREYEST)


def _of_quarters(image: Image.Image) -> list[Tile]:
    """Two rows of two views on one ground, each in the middle of its quarter."""
    found = foreground_of(image)
    height, width = found.shape
    row, column = height // 2, width // 2
    clear = LEAST_CLEARANCE // 2
    if found[row - clear : row + clear].any() or found[:, column - clear : column + clear].any():
        return []
    tiles = []
    for top in (0, row):
        for left in (0, column):
            box = _box_of(found[top : top + row, left : left + column])
            if box is None:
                return []
            off = abs(box[0] + box[2] - column) / column, abs(box[1] + box[3] - row) / row
            if max(off) > 2 * OFF_THE_MIDDLE:
                return []
            tiles.append(Tile(image.crop((left, top, left + column, top + row))))
    return tiles


def _of_a_sheet(image: Image.Image) -> list[Tile]:
    """Front, top and side view of a drawing sheet."""
    found = foreground_of(image)
    best: tuple[float, list[_Box]] | None = None
    # Views are parted by empty rows and columns; views in pieces have more of these.
    ways = _gutters(found, 1), _gutters(found, 0)
    if max(map(len, ways)) > MOST_GUTTERS:
        return []
    for row, column in itertools.product(*ways):
        boxes = {
            (upper, on_left): _box_of(found[rows, columns], rows.start or 0, columns.start or 0)
            for upper, rows in ((True, slice(row)), (False, slice(row, None)))
            for on_left, columns in ((True, slice(column)), (False, slice(column, None)))
        }
        for upper, on_left in boxes:
            front = boxes[upper, on_left]
            above, beside = boxes[not upper, on_left], boxes[upper, not on_left]
            other = boxes[not upper, not on_left]
            if front is None or above is None or beside is None:
                continue
            if other is not None and _in_line(above, beside, other):
                continue  # nothing but a view of another kind stands in the corner
            off = max(
                _misfit(front, above, 0), _misfit(front, beside, 1), _depths_apart(above, beside)
            )
            if off < 1 and (best is None or off < best[0]):
                best = off, [front, above, beside]
    return [] if best is None else _sheet_tiles(image, *best[1])


_Box = tuple[float, float, float, float]  # left, top, right, bottom


def _gutters(mask: Array, axis: int) -> list[int]:
    """Middles of the empty runs of rows (axis 1) or columns (0) between what is not empty."""
    filled = np.flatnonzero(mask.any(axis=axis))
    wide = np.flatnonzero(np.diff(filled) > LEAST_CLEARANCE)
    return [int(filled[i] + filled[i + 1] + 1) // 2 for i in wide]


def _box_of(mask: Array, top: int = 0, left: int = 0) -> _Box | None:
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if not len(rows):
        return None
    return (
        float(left + columns[0]), float(top + rows[0]),
        float(left + columns[-1] + 1), float(top + rows[-1] + 1),
    )  # fmt: skip


def _misfit(one: _Box, other: _Box, axis: int) -> float:
    """How far two boxes are from the same columns (axis 0) or rows (1); below 1 they share them."""
    slack = ALIGNED_PIXELS + ALIGNED_SHARE * (one[axis + 2] - one[axis])
    return max(abs(one[axis] - other[axis]), abs(one[axis + 2] - other[axis + 2])) / slack


def _depths_apart(above: _Box, beside: _Box) -> float:
    """The same of the depth that the view from above and the view beside show."""
    high, wide = above[3] - above[1], beside[2] - beside[0]
    return abs(high - wide) / (ALIGNED_PIXELS + ALIGNED_SHARE * max(high, wide))


def _in_line(above: _Box, beside: _Box, other: _Box) -> bool:
    return _misfit(above, other, 1) < 1 or _misfit(beside, other, 0) < 1


def _sheet_tiles(image: Image.Image, front: _Box, above: _Box, beside: _Box) -> list[Tile]:
    third = above[1] < front[1]
    on_the_right = beside[0] > front[0]
    side = (1.0, 0.0, 0.0) if third == on_the_right else (-1.0, 0.0, 0.0)
    tiles = []
    for box, eye in ((front, (0.0, -1.0, 0.0)), (above, (0.0, 0.0, 1.0)), (beside, side)):
        left, top = int(box[0]) - TILE_MARGIN, int(box[1]) - TILE_MARGIN
        right, bottom = int(box[2]) + TILE_MARGIN, int(box[3]) + TILE_MARGIN
        whole = Image.new("RGB", (right - left, bottom - top), "white")
        inner = image.crop(tuple(int(edge) for edge in box))  # type: ignore[arg-type]
        whole.paste(inner, (int(box[0]) - left, int(box[1]) - top))
        middle = ((box[0] + box[2]) / 2 - left, (box[1] + box[3]) / 2 - top)
        tiles.append(Tile(whole, orthographic(eye, 1.0, (0.0, 0.0, 0.0), middle)))
    return tiles
