"""Where the part is in a picture: found on its ground, brought onto one canvas, never squashed.

    framed = frame(image)              # PIL image of any size and mode; None where there is no part
    framed.colours, framed.solid       # on a canvas of CANVAS_SIDE pixels a side
    framed.place.camera(camera)        # a camera of the image as one of the canvas's 448 pixels

The ground is a smooth surface through the picture's border, one for each channel, so that a plain,
a gradient and a dark ground are one case. The part is what differs from it and is not joined to
the border; its outline fills the canvas as the widest of GenCAD's parts do theirs. Left out:
grounds with texture, and parts that the picture's border cuts off.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from PIL import Image
from scipy import ndimage

from image2cad.common import Array
from image2cad.rendering import SIZE, TONES, Camera, on_white

SOFTENED, FILLING_SHARE = 3, 0.95  # canvas pixels beside a line; share of what lines enclose
FINER_CANVAS = 2  # pixels of the canvas to one of 448, along a side
CANVAS_SIDE = FINER_CANVAS * SIZE
WIDEST, HIGHEST = 398, 299  # pixels of 448: a part that fills GenCAD's frame
MOST_READ_SIDE = 2000  # pixels; a larger picture is made smaller before it is read
LEAST_STEP = 7.0  # greys between ground and part
MOST_RINGING = 45.0  # greys that compression adds around a part
LEAST_INK = 0.08  # of what is beside a line, that it is darker by
LEAST_PART_PIXELS = 50
LEAST_PIECE_SHARE = 2e-4  # of the picture: smaller pieces are dust
GENCAD_SHARE = 0.98  # of a part's pixels that have exactly GenCAD's tones, where it drew them
FRAME_SLACK = 4  # pixels

# Of GenCAD's picture: its own; taken for the middle of a larger picture; not known.
Framing = Literal["own", "middle", "lost"]
DRAWING_SHARE = 0.8  # of the inside that looks like the ground, from which it is a line drawing
DRAWING_FACES = 0.03  # of the part, that may look otherwise in a line drawing
FACE_OVER_INK = 30.0  # greys by which faces are lighter than lines; thick lines are not faces


@dataclass(frozen=True)
class Place:
    """Where a picture lies on the canvas of 448: at scale * (pixel - (left, top)).

    width, height: of the picture in pixels.
    """

    scale: float
    left: float
    top: float
    width: int
    height: int

    @property
    def middle(self) -> tuple[float, float]:
        """(column, row) of the picture's middle, where a viewer's line of sight meets it."""
        across, down = self.width / 2 - self.left, self.height / 2 - self.top
        return self.scale * across, self.scale * down

    def camera(self, camera: Camera) -> Camera:
        """A camera of the picture as one of the canvas."""
        return camera.panned(-self.left, -self.top).zoomed(self.scale)


@dataclass(frozen=True, eq=False)
class Framed:
    """A picture on the canvas; all of (C, C), C = CANVAS_SIDE.

    colours: (C, C, 3) float, 0 to 255. part: bool, what differs from the ground, and what it
    encloses but for through holes. solid: the same without through holes. ink: bool, thin and
    darker than both sides. depth_of_ink: how much darker. noise: greys by which the ground varies.
    place: how the picture lies on 448 pixels. line_drawing: inside looks as the
    ground does.
    """

    colours: Array
    part: Array
    solid: Array
    ink: Array
    depth_of_ink: Array
    noise: float
    place: Place
    line_drawing: bool


def frame(image: Image.Image, most_enlarged: float = float("inf")) -> Framed | None:
    """The part of a picture on the canvas, or None where nothing differs from the ground.

    most_enlarged: pixels of 448 to one of the picture, at most.
    """
    picture = np.asarray(as_read(image), dtype=np.float64)
    part, like, noise, step, ground = _foreground(picture)
    if part.sum() < LEAST_PART_PIXELS:
        return None
    rows, columns = np.nonzero(part)
    top, bottom, left, right = rows.min(), rows.max() + 1, columns.min(), columns.max() + 1
    scale = min(WIDEST / (right - left), HIGHEST / (bottom - top), most_enlarged)
    middle = (left + right) / 2, (top + bottom) / 2
    place = Place(
        float(scale), float(middle[0] - SIZE / 2 / scale), float(middle[1] - SIZE / 2 / scale),
        picture.shape[1], picture.shape[0],
    )  # fmt: skip
    colours = _warped(picture, place)
    part = _warped(part.astype(float), place) > 0.5
    like = _warped(like.astype(float), place) > 0.5
    if noise > 2.0:
        colours = np.stack([ndimage.median_filter(colours[..., i], 5) for i in range(3)], axis=-1)
    grey = greys(colours)
    side = int(np.clip(round(5 * max(scale * FINER_CANVAS, 1)), 7, 13)) | 1
    closed = ndimage.grey_closing(grey, size=(side, side))
    depth = closed - grey
    ink = depth > np.maximum(step, LEAST_INK * closed)
    ink &= ndimage.binary_dilation(part, iterations=3)
    line_drawing = _is_line_drawing(grey, part, like, ink)
    if line_drawing:
        solid = ndimage.binary_fill_holes(part)
    else:
        off = largest_channel(np.abs(colours - _warped(ground, place)))
        solid = part & ~_through_holes(off, part, ink, noise)
    return Framed(colours, part, solid, ink, depth, noise, place, line_drawing)


def foreground_of(image: Image.Image) -> Array:
    """(H, W) bool: what differs from the ground, in the picture's own pixels."""
    return _foreground(np.asarray(as_read(image), dtype=np.float64))[0]


def gencads(image: Image.Image) -> tuple[Array, Framing] | None:
    """GenCAD-Code's own picture in `image`, and how far its frame is known; None for any other.

    Known by its tones, pixel by pixel, on a ground of one colour: (448, 448, 3) uint8 on white.
    With a border around it, it is taken for the middle; else, so if it was cropped, the part is
    moved into the middle by whole pixels.
    """
    picture = np.asarray(as_read(image))
    border = np.concatenate([picture[0], picture[-1], picture[:, 0], picture[:, -1]])
    ground = np.median(border, axis=0).astype(np.uint8)
    part = (picture != ground).any(axis=2)
    if (border != ground).any(axis=1).mean() > 1 - GENCAD_SHARE or not part.any():
        return None
    rows, columns = np.nonzero(part)
    top, bottom, left, right = rows.min(), rows.max() + 1, columns.min(), columns.max() + 1
    known = np.isin(_as_one_number(picture[part]), _as_one_number(TONES))
    wide, high = int(right - left), int(bottom - top)
    if known.mean() < GENCAD_SHARE or wide > WIDEST + FRAME_SLACK or high > HIGHEST + FRAME_SLACK:
        return None
    height, width = part.shape
    row, column = top - (height - SIZE) // 2, left - (width - SIZE) // 2
    framing: Framing = "own" if (width, height) == (SIZE, SIZE) else "middle"
    bordered = width >= SIZE and height >= SIZE
    inside = 0 <= row <= SIZE - high and 0 <= column <= SIZE - wide
    if not bordered or not inside:
        framing, row, column = "lost", (SIZE - high) // 2, (SIZE - wide) // 2
    out = np.full((SIZE, SIZE, 3), 255, dtype=np.uint8)
    piece, mask = picture[top:bottom, left:right], part[top:bottom, left:right]
    out[row : row + high, column : column + wide][mask] = piece[mask]
    return out, framing


def _as_one_number(colours: Array) -> Array:
    """(N,) of (N, 3) bytes."""
    out: Array = colours.astype(np.int64) @ np.array([1 << 16, 1 << 8, 1])
    return out


def greys(colours: Array) -> Array:
    """Luma (ITU-R BT.601) of (..., 3) colours."""
    out: Array = colours @ np.array([0.299, 0.587, 0.114])
    return out


def as_read(image: Image.Image) -> Image.Image:
    """The picture in RGB on white, no larger than MOST_READ_SIDE: what pixels are counted in."""
    return on_white(image, MOST_READ_SIDE)


def _is_line_drawing(grey: Array, part: Array, like: Array, ink: Array) -> bool:
    """Whether the inside looks as the ground does, all of it: a thin frame has faces too."""
    inside = part & ~ndimage.binary_dilation(ink)
    if (like & inside).sum() <= DRAWING_SHARE * inside.sum():
        return False
    faces = ndimage.binary_opening(inside & ~like, iterations=2)
    if faces.sum() <= DRAWING_FACES * part.sum() or not ink.any():
        return True
    return bool(np.median(grey[faces]) < np.median(grey[ink]) + FACE_OVER_INK)


# ---- The ground, and what stands on it


def _ground(picture: Array) -> tuple[Array, float]:
    """(H, W, 3) quadratic through the border, and how far the border is from it (greys)."""
    height, width, _ = picture.shape
    rows, columns = np.mgrid[0:height, 0:width]
    reach = max(2, min(height, width) // 80)
    ring = np.ones((height, width), dtype=bool)
    ring[reach:-reach, reach:-reach] = False
    x, y = columns / width, rows / height
    terms = np.stack([np.ones_like(x), x, y, x * x, x * y, y * y], axis=-1)
    known, values = terms[ring], picture[ring]
    kept, noise = np.ones(len(known), dtype=bool), 0.7
    solution = np.zeros((6, 3))
    for _ in range(6):
        solution = np.linalg.lstsq(known[kept], values[kept], rcond=None)[0]
        off = np.abs(known @ solution - values).max(axis=1)
        noise = max(1.4826 * float(np.median(off[kept])), 0.7)
        kept = off < 3.5 * noise
        if kept.sum() < 12:
            break
    return terms @ solution, noise


def _foreground(picture: Array) -> tuple[Array, Array, float, float, Array]:
    """(H, W) the part, what of it looks as the ground does; noise, least step, the ground."""
    ground, noise = _ground(picture)
    off = largest_channel(np.abs(picture - ground))
    step = max(LEAST_STEP, 5 * noise)
    if noise < 4:  # the ringing of JPEG around a part is ground too
        rough = ndimage.binary_opening(off > max(30.0, step))
        around = ndimage.binary_dilation(rough, iterations=7)
        around &= ~ndimage.binary_fill_holes(ndimage.binary_dilation(rough, iterations=3))
        pale = ndimage.binary_opening(off > step, iterations=3)  # faces almost as light as ground
        around &= ~ndimage.binary_dilation(pale, iterations=3)
        if around.sum() > 50:
            ringing = 1.3 * float(np.percentile(off[around], 90))
            step = min(max(step, ringing), max(MOST_RINGING, step))
    like = off < step
    labels, _ = ndimage.label(like)
    edges = (labels[0], labels[-1], labels[:, 0], labels[:, -1])
    outer = np.unique(np.concatenate(edges))
    part = ~np.isin(labels, outer[outer > 0])
    opened = ndimage.binary_opening(part, iterations=1 if step < 12 else 2)
    strong = part & (off > 60) & (ndimage.uniform_filter(part.astype(float), 5) > 0.5)
    part = opened | strong
    pieces, count = ndimage.label(part, np.ones((3, 3)))
    if count > 1:
        sizes = np.bincount(pieces.ravel())
        kept = sizes >= max(12, LEAST_PIECE_SHARE * part.size)
        kept[0] = False
        part = kept[pieces]
    return part, like & part, noise, step, ground


def _through_holes(off: Array, part: Array, ink: Array, noise: float) -> Array:
    """Enclosed pieces that look as the ground does, and fill all that their lines enclose."""
    tight = max(4.0, 3 * noise)
    labels, count = ndimage.label((off < max(LEAST_STEP, 5 * noise)) & part & ~ink)
    sizes = np.bincount(labels.ravel(), minlength=count + 1)
    free, _ = ndimage.label(part & ~ink)
    free_sizes = np.bincount(free.ravel())
    found = sizes >= 12 * FINER_CANVAS**2
    found[0] = False
    for i in np.flatnonzero(found):
        at = labels == i
        around = int(np.bincount(free[at]).argmax())
        # Where lines are softened, a narrow piece loses much of its width to them.
        wider = ndimage.binary_dilation(at, iterations=SOFTENED) & (free == around)
        filling = wider.sum() >= FILLING_SHARE * free_sizes[around]
        filling = filling or sizes[i] >= 0.75 * free_sizes[around] or _beside_ink(ink, at) <= 0.5
        found[i] = filling and max(np.median(off[at]), off[at].std()) <= tight
    return np.asarray(found[labels])


def _beside_ink(ink: Array, at: Array) -> float:
    """Share of the rim around a piece that has a line."""
    rim = ndimage.binary_dilation(at, iterations=2) & ~at
    return float(ndimage.binary_dilation(ink)[rim].mean()) if rim.any() else 0.0


def largest_channel(values: Array) -> Array:
    """(H, W) the largest of (H, W, 3); NumPy's own maximum is slow along so short an axis."""
    out: Array = np.maximum(np.maximum(values[..., 0], values[..., 1]), values[..., 2])
    return out


def _warped(values: Array, place: Place) -> Array:
    """(H, W) or (H, W, 3) values brought onto the canvas; what lies outside repeats the border."""
    factor = place.scale * FINER_CANVAS
    if factor < 1:
        blur = 0.45 / factor
        values = ndimage.gaussian_filter(values, (blur, blur, 0.0)[: values.ndim])
    # Every other pixel, which `regions` keeps, has its middle where one of 448 has.
    ticks = np.arange(CANVAS_SIDE) / factor - 0.5
    for axis, first in enumerate((place.top, place.left)):
        at = np.clip(first + ticks, 0, values.shape[axis] - 1)
        low = np.minimum(at.astype(int), max(values.shape[axis] - 2, 0))
        share = (at - low).reshape([-1 if k == axis else 1 for k in range(values.ndim)])
        high = np.minimum(low + 1, values.shape[axis] - 1)
        values = values.take(low, axis) * (1 - share) + values.take(high, axis) * share
    return values
