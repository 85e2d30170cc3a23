"""The region of a picture that holds the part, given by two clicks or typed.

text = with_corner("", (40, 60))                # "40, 60": one corner is there
text = with_corner(text, (300, 200))            # "40, 60, 300, 200": limits.box_named reads it
shown = region_of(text, file, limits)           # what is in it, as a picture
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from PIL import Image

from image2cad.common import InputError
from image2cad.serving.limits import Limits, box_named, open_pictures
from image2cad.serving.page.uploads import uploaded_file

ONE_CORNER = re.compile(r"\s*(\d+)\s*,\s*(\d+)\s*")


def with_corner(text: str, corner: Sequence[int]) -> str:
    """The text of a region after a click: the second corner ends it, and another begins anew."""
    x, y = (int(one) for one in corner)
    begun = ONE_CORNER.fullmatch(text or "")
    if not begun:
        return f"{x}, {y}"
    a, b = int(begun[1]), int(begun[2])
    return f"{min(a, x)}, {min(b, y)}, {max(a, x)}, {max(b, y)}"


def region_of(text: str, file: str | None, limits: Limits) -> Image.Image | None:
    """What is in the region; None while it is none, or there is no picture."""
    try:
        box = box_named(text or "")
        if box is None or not file:
            return None
        (picture,) = open_pictures([Path(uploaded_file(file)).read_bytes()], limits, box)
    except InputError:  # it is being typed; the search says what is wrong
        return None
    return picture
