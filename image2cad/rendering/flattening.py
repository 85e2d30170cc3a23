"""A picture of any mode as opaque colours on white, as everything here reads it.

    flat = on_white(image, most_side=2000)      # PIL image in RGB
    picture = as_picture(image)                 # (448, 448, 3), as GenCAD's pictures are

What can be seen through shows white. Left out: colour profiles, and which side of a photograph is
up.
"""

from __future__ import annotations

import numpy as np
from PIL import Image

from image2cad.rendering.camera import SIZE
from image2cad.rendering.raster import Picture

CLEAR_MODES = ("RGBA", "LA")  # in which a picture can be made smaller


def on_white(image: Image.Image, most_side: int | None = None) -> Image.Image:
    """The picture in RGB, without transparency. most_side: pixels; a larger one is made smaller."""
    if image.mode.startswith("I"):  # whose conversion would cut off all above 255
        image = _in_bytes(image)
    elif image.has_transparency_data and image.mode not in CLEAR_MODES:
        image = image.convert("RGBA")
    elif image.mode in ("1", "P"):  # which are made smaller by leaving pixels out
        image = image.convert("RGB")
    scale = 1.0 if most_side is None else most_side / max(image.size)
    if scale < 1.0:
        width, height = (max(1, round(scale * side)) for side in image.size)
        image = image.resize((width, height), Image.Resampling.BOX)
    if image.mode in CLEAR_MODES:
        white = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(white, image.convert("RGBA"))
    return image.convert("RGB")


def _in_bytes(image: Image.Image) -> Image.Image:
    """Greys of 16 bits, or what files of these are opened as, in 8."""
    grey = np.asarray(image)
    factor = 1 if image.mode == "I" and grey.max() <= 255 else 256
    return Image.fromarray((grey.clip(0) // factor).clip(None, 255).astype(np.uint8))


def as_picture(image: Image.Image) -> Picture:
    """The image as (448, 448, 3) uint8 on white, as GenCAD's pictures are."""
    flat = on_white(image)
    if flat.size != (SIZE, SIZE):
        flat = flat.resize((SIZE, SIZE), Image.Resampling.BICUBIC)
    return np.asarray(flat)
