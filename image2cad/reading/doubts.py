"""Why a picture may not be one of one part, in words: nothing, texture, text, several things.

    reason = doubt_about(image)         # "" where nothing speaks against it

A part that hangs together has one silhouette in every view, stands free of the picture's border,
and has few regions for its size. Left out: parts that touch in the picture, and photographs on a
plain background.
"""

from __future__ import annotations

import numpy as np
from PIL import Image
from scipy import ndimage

from image2cad.common import Array
from image2cad.reading.framing import as_read, foreground_of
from image2cad.reading.tiles import views_in

NOT_ONE_PART = "This does not look like a picture of one part"
BLANK = "it is blank"
NOTHING_FREE = "nothing stands free on a plain background"
CUT_OFF = "what it shows reaches its border, or the background is not plain"
MANY_PIECES = "it shows many small things, as text or a pattern does"
SEVERAL_THINGS = (
    "it shows {} separate things; crop it to one part, or give views of one part as pictures of "
    "their own"
)
LEAST_SHARE = 0.04  # of all that is seen, from which a piece is a thing of its own
MOST_THINGS = 6  # separate things; more are text or a pattern
LARGEST_SHARE = 0.6  # of all that is seen, which the largest of many small pieces is below
REACHED_SHARE = 0.1  # of the border, that what is seen may reach
LEAST_SEEN_PIXELS = 50
LEAST_RANGE = 8  # greys between the darkest and the lightest pixel of what is not blank
MOST_LOOKED_AT_SIDE = 800  # pixels; a larger picture is made smaller first
GAP_SHARE = 0.004  # of a side: pieces that are no further apart are one, drawn with broken lines


def doubt_about(image: Image.Image) -> str:
    """One sentence where a picture does not look like one of one part, else "".

    Views of one part on a sheet or a board that are cut apart (tiles.py) are one part.
    """
    image = as_read(image)
    small = image.copy()
    small.thumbnail((MOST_LOOKED_AT_SIDE, MOST_LOOKED_AT_SIDE), Image.Resampling.BOX)
    if np.ptp(np.asarray(small.convert("L"), dtype=int)) < LEAST_RANGE:
        return f"{NOT_ONE_PART}: {BLANK}."
    why = _doubt(foreground_of(small))
    if not why or len(views_in(image)) > 1:
        return ""
    return f"{NOT_ONE_PART}: {why}."


def _doubt(seen: Array) -> str:
    """seen: (H, W) bool, what differs from the background."""
    if seen.sum() < LEAST_SEEN_PIXELS:
        return NOTHING_FREE
    border = np.concatenate([seen[0], seen[-1], seen[:, 0], seen[:, -1]])
    if border.mean() > REACHED_SHARE:
        return CUT_OFF
    reach = max(1, round(GAP_SHARE * max(seen.shape)))
    solid = ndimage.binary_fill_holes(seen)
    near = ndimage.binary_dilation(solid, np.ones((3, 3)), iterations=reach)
    labels, count = ndimage.label(near, np.ones((3, 3)))
    sizes = np.bincount(labels[solid], minlength=count + 1)[1:]
    shares = sizes / sizes.sum()
    things = int((shares > LEAST_SHARE).sum())
    if count > MOST_THINGS and (shares.max() < LARGEST_SHARE or things > MOST_THINGS):
        return MANY_PIECES
    return SEVERAL_THINGS.format(things) if things > 1 else ""
