"""Several views in one picture cut apart: a board's composite, or a drawing sheet.

    for view in views_in(image): ...        # Tile(image, camera); one, camera None, for one view

A composite of BenchCAD's is known by its size and bars; its cameras are exact. A sheet has three
pictures on a plain ground of which two share their columns and two their rows, and is in third
angle where the view from above stands above the front view, in first angle where below. Cameras
are of the tile's own pixels, at one scale; z is up, the front view is seen along y. Left out:
sheets of two or more than three views, section views, frames and title blocks.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from PIL import Image
from scipy import ndimage

from image2cad.common import Array
from image2cad.reading.framing import foreground_of
from image2cad.rendering import (
    BENCHCAD_EYES,
    BENCHCAD_GAP,
    BENCHCAD_HALF,
    BENCHCAD_TILE,
    Camera,
    orthographic,
)

LARGEST_TONE_OF_BAR = 3  # greys by which a bar varies
ALIGNED_SHARE, ALIGNED_PIXELS = 0.015, 3.0  # of a side, and pixels, by which boxes differ
LEAST_VIEW_SHARE = 1e-3  # of the picture that a view on a sheet covers
LEAST_CLEARANCE = 6  # pixels between views
TILE_MARGIN = 12  # pixels of ground around a view


@dataclass(frozen=True, eq=False)
class Tile:
    """One view: its picture, and its camera in that picture's pixels; None is not known."""

    image: Image.Image
    camera: Camera | None = None


def views_in(image: Image.Image) -> list[Tile]:
    """The views of one part that a picture shows; itself where it is one."""
    return _of_benchcad(image) or _of_a_sheet(image) or [Tile(image)]


def _of_benchcad(image: Image.Image) -> list[Tile]:
    """BenchCAD's four views: 256 pixels each, with white bars between and around them."""
    side = 2 * BENCHCAD_TILE + 3 * BENCHCAD_GAP
    if image.size != (side, side):
        return []
    picture = np.asarray(image.convert("RGB")).astype(int)
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
        tiles.append(Tile(image.crop(box), camera))
    return tiles


def _of_a_sheet(image: Image.Image) -> list[Tile]:
    """Front, top and side view of a drawing sheet."""
    found = foreground_of(image)
    solid = ndimage.binary_fill_holes(found)
    # What belongs to one view is close together, and views are not.
    grown = ndimage.binary_dilation(solid, np.ones((3, 3)), iterations=LEAST_CLEARANCE // 2)
    labels, count = ndimage.label(grown, np.ones((3, 3)))
    boxes = [
        _box_of(solid & (labels == i), box)
        for i, box in enumerate(ndimage.find_objects(labels), 1)
        if (labels == i).sum() > LEAST_VIEW_SHARE * labels.size
    ]
    if len(boxes) != 3 or count > 3 * 3:
        return []
    for i, front in enumerate(boxes):
        one, other = (boxes[k] for k in range(3) if k != i)
        for above, beside in ((one, other), (other, one)):
            if _alike(front, above, 0) and _alike(front, beside, 1) and _one_depth(above, beside):
                return _sheet_tiles(image, front, above, beside)
    return []


_Box = tuple[float, float, float, float]  # left, top, right, bottom


def _box_of(mask: Array, box: tuple[slice, ...]) -> _Box:
    rows, columns = np.nonzero(mask[box])
    top, left = box[0].start, box[1].start
    return (
        float(left + columns.min()), float(top + rows.min()),
        float(left + columns.max() + 1), float(top + rows.max() + 1),
    )  # fmt: skip


def _alike(one: _Box, other: _Box, axis: int) -> bool:
    """Whether two boxes have the same columns (axis 0) or rows (1)."""
    slack = ALIGNED_PIXELS + ALIGNED_SHARE * (one[axis + 2] - one[axis])
    return abs(one[axis] - other[axis]) < slack and abs(one[axis + 2] - other[axis + 2]) < slack


def _one_depth(above: _Box, beside: _Box) -> bool:
    high, wide = above[3] - above[1], beside[2] - beside[0]
    return abs(high - wide) < ALIGNED_PIXELS + ALIGNED_SHARE * max(high, wide)


def _sheet_tiles(image: Image.Image, front: _Box, above: _Box, beside: _Box) -> list[Tile]:
    third = above[1] < front[1]
    on_the_right = beside[0] > front[0]
    side = (1.0, 0.0, 0.0) if third == on_the_right else (-1.0, 0.0, 0.0)
    tiles = []
    for box, eye in ((front, (0.0, -1.0, 0.0)), (above, (0.0, 0.0, 1.0)), (beside, side)):
        left, top = int(box[0]) - TILE_MARGIN, int(box[1]) - TILE_MARGIN
        right, bottom = int(box[2]) + TILE_MARGIN, int(box[3]) + TILE_MARGIN
        whole = Image.new("RGB", (right - left, bottom - top), "white")
        inner = image.convert("RGB").crop(tuple(int(edge) for edge in box))  # type: ignore[arg-type]
        whole.paste(inner, (int(box[0]) - left, int(box[1]) - top))
        middle = ((box[0] + box[2]) / 2 - left, (box[1] + box[3]) / 2 - top)
        tiles.append(Tile(whole, orthographic(eye, 1.0, (0.0, 0.0, 0.0), middle)))
    return tiles
