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

MODES_OF_WORDS = "I;16"  # their names begin so: greys of 16 bits


def on_white(image: Image.Image, most_side: int | None = None) -> Image.Image:
    """The picture in RGB, without transparency. most_side: pixels; a larger one is made smaller."""
    if image.mode.startswith(MODES_OF_WORDS):  # whose conversion would cut off all above 255
        image = Image.fromarray((np.asarray(image) // 256).astype(np.uint8))
    elif image.has_transparency_data:
        image = image.convert("RGBA")
    elif image.mode in ("1", "P"):  # which are made smaller by leaving pixels out
        image = image.convert("RGB")
    scale = 1.0 if most_side is None else most_side / max(image.size)
    if scale < 1.0:
        width, height = (max(1, round(scale * side)) for side in image.size)
        image = image.resize((width, height), Image.Resampling.BOX)
    if image.mode == "RGBA":
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image.convert("RGB")


def as_picture(image: Image.Image) -> Picture:
    """The image as (448, 448, 3) uint8 on white, as GenCAD's pictures are."""
    flat = on_white(image)
    if flat.size != (SIZE, SIZE):
        flat = flat.resize((SIZE, SIZE), Image.Resampling.BICUBIC)
    return np.asarray(flat)
