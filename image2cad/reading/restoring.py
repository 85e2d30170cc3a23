"""GenCAD-Code's own picture again, from a copy that was compressed, or made larger or smaller.

    picture = restored(image)        # a picture in GenCAD's frame and tones, or None
    likeness_to_copy(picture, image)        # at the copy's size

Its ground is white, its lines are black and one pixel wide, and the flat faces along the main axes
all have one grey. So lines are told by darkness, faces are what lines enclose, and a face about
that grey is flat. Other viewers' greys may be the same by chance: the camera is looked at too. Left
out: copies with margins or cut off, whose frame nothing tells.
"""

from __future__ import annotations

import numpy as np
from PIL import Image
from scipy import ndimage

from image2cad.common import Array
from image2cad.reading.cameras import ISOMETRIC_KIND, sightings
from image2cad.reading.framing import HIGHEST, WIDEST, as_read
from image2cad.reading.regions import scene_of
from image2cad.reading.tracing import FACE_SHADE
from image2cad.rendering import SIZE, TONES, Picture, likeness

SMALLEST_COPY, MOST_ASPECT = 160, 1.01  # pixels of a side, and long over short side
COLOURLESS = 12  # greys between the channels of a pixel, at most
LIGHTEST_PART = 225  # greys
DARKEST_FACE, DARKER_BY = 62, 0.22  # greys; share by which a blurred line is darker than around it
MOST_ENDS = 1000  # pixels with one beside them or none; more are a pattern, a part has dozens
GAP_REACH, DARKEST_BRIDGE = 3, 0.7  # pixels of a gap in a line, and its share of the grey around
LINE_REACH = 7  # pixels around a blurred line
RINGING_REACH = 2  # pixels beside a line that are not like the face
FLAT_WITHIN, PIXELS_WITHIN = 6, 12  # greys of a flat face's median, and of three in four pixels
SMALL_FACE = 6  # pixels
ROUND_BY, ROUND_WIDTH = 8, 5  # greys off a flat face's, and how many pixels wide
ALIKE, SHARE_ALIKE = 30, 0.9  # greys, and the share of the part that must be so near the copy
LEAST_LINED, MOST_LINED, LEAST_TOLD = 0.01, 0.5, 0.2  # shares of the part
EVEN, EVEN_REACH = 8, 9  # greys between the pixels of an even place, and its side
# Of the faces of one grey, or of the even places of all, the share with the grey of flat faces.
LEAST_OF_FACES, LEAST_OF_PLACES = 0.6, 0.45
AS_LIKELY = 0.15  # of a camera's score, by which GenCAD's may be behind the likeliest
SLACK = 6  # pixels by which a copy's part may be larger than GenCAD's frame

FILTERS = (
    Image.Resampling.LANCZOS,
    Image.Resampling.BICUBIC,
    Image.Resampling.BILINEAR,
    Image.Resampling.BOX,
)

REDS = np.unique(TONES[:, 0]).astype(float)


def restored(image: Image.Image) -> Image.Image | None:
    """GenCAD-Code's picture that `image` is a copy of, 448 x 448; None where it is no copy."""
    wide, high = image.size
    if min(wide, high) < SMALLEST_COPY or max(wide, high) > MOST_ASPECT * min(wide, high):
        return None
    smaller = wide < SIZE
    how = Image.Resampling.BICUBIC if smaller else Image.Resampling.BOX
    colours = np.asarray(as_read(image).resize((SIZE, SIZE), how)).astype(float)
    grey: Array = colours.mean(axis=2)
    part = grey < LIGHTEST_PART
    if not part.any() or np.percentile(np.ptp(colours[part], axis=1), 95) > COLOURLESS:
        return None
    rows, columns = np.nonzero(part)
    if np.ptp(columns) > WIDEST + SLACK or np.ptp(rows) > HIGHEST + SLACK:
        return None
    smooth = ndimage.median_filter(grey, 5)
    lines, dark = _lines(grey) if smaller else (grey < DARKEST_FACE, grey < DARKEST_FACE)
    beside = ndimage.convolve(lines.astype(np.uint8), np.ones((3, 3)), mode="constant") - 1
    if (lines & (beside <= 1)).sum() > MOST_ENDS:
        return None
    bridges = _bridges(lines, beside, grey)
    lines, dark = lines | bridges, dark | bridges
    faces, share = _faces(grey, smooth, dark)
    if (dark & ~lines).any():  # a blurred line is wider than a line: the rest is like beside it
        nearest = ndimage.distance_transform_edt(dark, return_distances=False, return_indices=True)
        faces[dark] = faces[tuple(nearest)][dark]
    faces[lines] = 0.0
    told = part & ~ndimage.binary_dilation(dark, iterations=RINGING_REACH)
    if told.sum() < LEAST_TOLD * part.sum():
        return None
    if (np.abs(faces - grey)[told] <= ALIKE).mean() < SHARE_ALIKE:
        return None
    uneven = ndimage.maximum_filter(smooth, EVEN_REACH) - ndimage.minimum_filter(smooth, EVEN_REACH)
    places = np.abs(smooth - FACE_SHADE)[told & (uneven < EVEN)] < FLAT_WITHIN
    flat = share >= LEAST_OF_FACES or (len(places) > 0 and places.mean() >= LEAST_OF_PLACES)
    if not flat or not LEAST_LINED < lines[part].mean() < MOST_LINED:
        return None
    if not _seen_as_gencads(image):
        return None
    return Image.fromarray(np.repeat(faces[..., None], 3, axis=2).astype(np.uint8))


def _seen_as_gencads(image: Image.Image) -> bool:
    """Whether its lines and outlines are those of a part that is seen from GenCAD's eye."""
    scene = scene_of(image)
    if scene is None:
        return False
    first, *others = sightings(scene)
    from_there = [one.score for one in (first, *others) if one.kind == ISOMETRIC_KIND]
    return bool(from_there) and from_there[0] > first.score - AS_LIKELY


def likeness_to_copy(picture: Picture, image: Image.Image) -> float:
    """SSIM of a picture (448, 448, 3), made as small as a copy, and the copy: 0 to 1.

    By whichever of the usual filters it is most like it. What a copy has lost is not made up.
    """
    copy = np.repeat(np.asarray(as_read(image).convert("L"))[..., None], 3, axis=2)
    whole = Image.fromarray(picture).convert("L")
    smaller = (np.asarray(whole.resize(image.size, how))[..., None] for how in FILTERS)
    return max(likeness(np.repeat(one, 3, axis=2), copy) for one in smaller)


def _lines(grey: Array) -> tuple[Array, Array]:
    """Masks of the middles of blurred lines, and of all that they darken."""
    around = ndimage.grey_closing(grey, size=(LINE_REACH, LINE_REACH))
    dark = around - grey > DARKER_BY * around
    up, down, left, right = (
        ndimage.shift(grey, way, order=0, mode="nearest")
        for way in ((1, 0), (-1, 0), (0, 1), (0, -1))
    )
    middle = ((grey <= left) & (grey < right)) | ((grey <= up) & (grey < down))
    return dark & middle, dark


def _bridges(lines: Array, beside: Array, grey: Array) -> Array:
    """Mask of what joins an end of a line to another line close by, where it is dark between.

    beside: of each pixel of a line, how many there are next to it.
    """
    out = np.zeros_like(lines)
    reach = np.arange(-GAP_REACH, GAP_REACH + 1)
    for row, column in np.argwhere(lines & (beside <= 2)):
        rows, columns = (np.clip(at + reach, 0, SIZE - 1) for at in (row, column))
        near, _ = ndimage.label(lines[np.ix_(rows, columns)], np.ones((3, 3)))
        others = np.argwhere((near > 0) & (near != near[GAP_REACH, GAP_REACH])) - GAP_REACH
        ways = []
        for way in others:
            steps = int(np.abs(way).max())
            between = np.rint((row, column) + np.arange(1, steps)[:, None] * way / steps)
            at = tuple(np.clip(between.astype(int), 0, SIZE - 1).T)
            ways.append((float(grey[at].mean()), at))
        darkness, at = min(ways, key=lambda one: one[0], default=(255.0, ()))
        if darkness < DARKEST_BRIDGE * float(np.median(grey[np.ix_(rows, columns)])):
            out[at] = True
    return out


def _faces(grey: Array, smooth: Array, dark: Array) -> tuple[Array, float]:
    """Greys with those of flat faces made the one that they have, all others a tone of GenCAD's.

    And the share that flat faces have of all faces of one grey.
    """
    nearest = REDS[np.searchsorted((REDS[:-1] + REDS[1:]) / 2, grey)]
    calm = np.abs(smooth - FACE_SHADE) < FLAT_WITHIN / 2
    out = np.where(calm, float(FACE_SHADE), nearest)
    light = grey >= LIGHTEST_PART
    light |= _fringe(~dark & ~light, light)
    labels = _enclosed(~dark & ~light)
    clear = ~ndimage.binary_dilation(dark, np.ones((3, 3)), iterations=RINGING_REACH)
    even = even_and_flat = 0
    for number, box in enumerate(ndimage.find_objects(labels), 1):
        if box is None:
            continue  # a number that nothing has
        mine = labels[box] == number
        seen = grey[box][mine & clear[box]]
        off = np.abs((seen if len(seen) >= SMALL_FACE else grey[box][mine]) - FACE_SHADE)
        flat = np.median(off) <= FLAT_WITHIN and np.percentile(off, 75) < PIXELS_WITHIN
        if flat or mine.sum() < SMALL_FACE:
            out[box][mine & ~_round(smooth[box], mine, clear[box])] = FACE_SHADE
        if len(seen) >= SMALL_FACE and np.ptp(np.percentile(seen, (20, 80))) < EVEN:
            even += len(seen)
            even_and_flat += len(seen) if flat else 0
    out[~dark & light] = 255.0
    return out, even_and_flat / max(even, 1)


def _round(smooth: Array, face: Array, clear: Array) -> Array:
    """Mask of the parts of a flat face that are none: no line bounds a round one in front of it."""
    known = face & clear
    off = known & (np.abs(smooth - FACE_SHADE) > ROUND_BY)
    off = ndimage.binary_opening(off, np.ones((ROUND_WIDTH, ROUND_WIDTH)))
    if not off.any():
        return off
    nearest = ndimage.distance_transform_edt(
        ~(known & (ndimage.binary_dilation(off) | (np.abs(smooth - FACE_SHADE) <= ROUND_BY))),
        return_distances=False,
        return_indices=True,
    )
    out: Array = off[tuple(nearest)] & face
    return out


def _enclosed(faces: Array) -> Array:
    """Numbers of what lines enclose, from 1; 0 elsewhere. Gaps of two pixels join nothing."""
    whole, count = ndimage.label(faces)
    cores, _ = ndimage.label(ndimage.binary_erosion(faces))
    nearest = ndimage.distance_transform_edt(
        cores == 0, return_distances=False, return_indices=True
    )
    spread = cores[tuple(nearest)]
    beside = whole == whole[tuple(nearest)]
    labels: Array = np.where(faces & beside, count + spread, whole)
    return labels


def _fringe(faces: Array, light: Array) -> Array:
    """Mask of what rings along a line on the ground: too thin for a face, and beside the ground."""
    wide = ndimage.binary_propagation(ndimage.binary_opening(faces, np.ones((3, 3))), mask=faces)
    labels, count = ndimage.label(faces & ~wide)
    beside = np.unique(labels[ndimage.binary_dilation(light, np.ones((3, 3)))])
    out: Array = np.isin(labels, beside[beside > 0]) if count else np.zeros_like(faces)
    return out
