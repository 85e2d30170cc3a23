"""An answer with the round measures that its part was probably made with: 50 in place of 50.01.

    code, part = round_as_seen(picture, code, part, run_cadquery)

Left out: views beside the first.
"""

from __future__ import annotations

from collections.abc import Callable

from PIL import Image

from image2cad.cad import rounded_off
from image2cad.rendering import as_picture, draw, likeness
from metrics import Failure, Part

SEEN_CHANGE = 0.002  # of the likeness, from which a picture objects to rounded measures


def round_as_seen(
    picture: Image.Image, code: str, part: Part, run: Callable[[str], Part | Failure]
) -> tuple[str, Part]:
    """The program with round measures unless the picture objects, and its part.

    run: `run_cadquery`, or the same with limits.
    """
    seen = as_picture(picture)
    try:
        before = likeness(seen, draw(part))
    except ValueError:  # it cannot be drawn
        return code, part

    def objects(other: Part) -> bool:
        return likeness(seen, draw(other)) < before - SEEN_CHANGE

    return rounded_off(code, part, objects, run)
