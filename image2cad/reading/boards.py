"""CADBench's single view: known by its ground and its colours, seen by a camera that is known.

    one = cadbenchs(scene, image)        # Sighting, or None for any other picture

Its camera is orthographic, from (-1, 1, 1) in the part's own axes, and sees the middle of the
part's box in the picture's middle. The scale depends on the box, so it is left to the fit. Left
out: its four views (tiles.py), its photoreal pictures.
"""

from __future__ import annotations

import numpy as np
from PIL import Image
from scipy import ndimage

from image2cad.reading.cameras import Sighting
from image2cad.reading.regions import Scene
from image2cad.rendering import CADBENCH_EYES, axes_seen_from

WHITEST_GROUND = 254  # greys of a white border, at least
CADBENCH_RED_OVER_GREEN, CADBENCH_RED_OVER_BLUE = (0.0, 0.02), (0.008, 0.05)  # shares of red
CADBENCH_TONES = (70.0, 250.0)  # greys of its faces
LEAST_ALIKE = 0.9  # share of pixels off the lines that are found; faint ones are not
CADBENCH_KIND = "cadbench"


def cadbenchs(scene: Scene, image: Image.Image) -> Sighting | None:
    """The camera of CADBench's single view, where `image` is one."""
    if image.width != image.height or scene.line_drawing:
        return None
    picture = np.asarray(image.convert("RGB"))
    border = (picture[0], picture[-1], picture[:, 0], picture[:, -1])
    if min(int(side.min()) for side in border) < WHITEST_GROUND:
        return None
    inside = ndimage.binary_erosion(scene.part, iterations=2)
    inside &= ~ndimage.binary_dilation(scene.ink)
    red, green, blue = scene.colours[inside].T
    if not len(red):
        return None
    alike = np.ones(len(red), dtype=bool)
    for share, (low, high) in (
        ((red - green) / red.clip(1), CADBENCH_RED_OVER_GREEN),
        ((red - blue) / red.clip(1), CADBENCH_RED_OVER_BLUE),
        (red, CADBENCH_TONES),
    ):
        alike &= (share >= low) & (share <= high)
    if alike.mean() < LEAST_ALIKE:
        return None
    turn = np.stack(axes_seen_from(CADBENCH_EYES[0]))
    return Sighting(turn, None, CADBENCH_KIND)
