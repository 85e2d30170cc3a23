"""What a drawing of a part lacks of a picture, and what it has too much, as one picture.

    shown = difference(picture, drawing)                    # (448, 448, 3) uint8
    shown = difference(picture, drawing, framed=False)      # of a picture of another style

Outlines, through holes and lines are compared, shades are not: they depend on the style. Left out:
several views in one picture, and perspective, which shows as a difference at the outline.
"""

from __future__ import annotations

import numpy as np
from PIL import Image
from scipy import ndimage

from image2cad.common import Array
from image2cad.reading.framing import FINER_CANVAS, frame
from image2cad.rendering import SIZE, as_picture

MISSING = (0, 90, 181)  # blue and orange are told apart in every common form of colour blindness
TOO_MUCH = (220, 80, 0)
BOTH, BOTH_LINES = (226, 230, 235), (120, 128, 138)
DARKEST_LINE_GREY = 70  # greys; what is darker in a framed picture is a line
SAME_LINE_PIXELS = 2  # by which a line may be off and still be the same


def difference(picture: Image.Image, drawing: Image.Image, framed: bool = True) -> Array | None:
    """Blue what only the picture shows, orange what only the drawing shows; None if all is ground.

    framed: the picture is seen as the drawing is, pixel by pixel. If it is not, both parts are
    brought to the same box. drawing: of our own, on white.
    """
    there = as_picture(drawing)
    solid, lines = _read_framed(there)
    if framed:
        seen, ink = _read_framed(as_picture(picture))
    else:
        read = frame(picture)
        if read is None:
            return None
        seen, ink = (mask[::FINER_CANVAS, ::FINER_CANVAS] for mask in (read.solid, read.ink))
        if not solid.any() or not seen.any():
            return None
        solid, lines = (_brought(mask, solid, seen) for mask in (solid, lines))
    if not seen.any() and not solid.any():
        return None
    shown = np.full((SIZE, SIZE, 3), 255, dtype=np.uint8)
    shown[seen & solid] = BOTH
    shown[(ink | lines) & seen & solid] = BOTH_LINES
    within = ndimage.binary_erosion(seen & solid, iterations=SAME_LINE_PIXELS)
    shown[ink & within & ~_near(lines)] = MISSING
    shown[lines & within & ~_near(ink)] = TOO_MUCH
    shown[seen & ~solid] = MISSING
    shown[solid & ~seen] = TOO_MUCH
    return shown


def _read_framed(picture: Array) -> tuple[Array, Array]:
    """Where a picture on white shows the part, and its lines, both bool."""
    grey = picture.min(axis=2)
    return grey < 250, picture.max(axis=2) < DARKEST_LINE_GREY


def _near(mask: Array) -> Array:
    near: Array = ndimage.binary_dilation(mask, iterations=SAME_LINE_PIXELS)
    return near


def _brought(mask: Array, box_of: Array, to: Array) -> Array:
    """The mask moved and stretched as brings the box around `box_of` to that around `to`."""
    left, top, right, bottom = Image.fromarray(box_of).getbbox() or (0, 0, SIZE, SIZE)
    x0, y0, x1, y1 = Image.fromarray(to).getbbox() or (0, 0, SIZE, SIZE)
    piece = Image.fromarray(mask[top:bottom, left:right].astype(np.uint8) * 255)
    out = Image.new("L", (SIZE, SIZE))
    out.paste(piece.resize((x1 - x0, y1 - y0), Image.Resampling.BOX), (x0, y0))
    brought: Array = np.asarray(out) > 127
    return brought
