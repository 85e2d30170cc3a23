"""Read the flat faces of a picture as sketches: the visible caps of extrusions.

    for cap in caps(picture)[0]:        # readings: Cap(plane, loops, straight, mask, camera)
        loops = cap.at(level)           # the sketch on its plane at that level

Faces along the main axes have known shades, from GenCAD's eye all the same one, so they fall
out of the picture as connected regions. Their outlines, seen in a main plane, become lines,
arcs, circles and rectangles. A region does not say which of the planes of its shade it lies on,
nor how far away: every reading is returned, and the caller tries them. Coordinates are those of
the camera; READ_CAMERA's are units of `UNIT_PIXELS` about the middle of the picture. Left out:
oblique and round faces.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import sqrt

import numpy as np
from numba import njit
from scipy import ndimage

from image2cad.cad import Circle, Loop, Path, Rect, shifted, zoomed
from image2cad.common import Array
from image2cad.reading.contours import OUTLINE_TOLERANCE, circle_through, loop_of, squared_off
from image2cad.rendering import MARGIN, SIZE, Camera, camera_of, shade_facing

UNIT_PIXELS = 2.5  # pixels to a unit of length
# A cube whose own camera is the one that sketches of GenCAD's pictures are read by.
READ_FRAME = np.array([[-0.5] * 3, [0.5] * 3]) * SIZE / (MARGIN * UNIT_PIXELS * 4 / np.sqrt(6))
READ_CAMERA = camera_of(READ_FRAME)
FACING_PLANES = ("XY", "XZ", "YZ")  # the main planes; one side of each faces the viewer
FACING_AXES = (2, 1, 0)  # the axis across each plane
FACE_SHADE = 141  # of a face along the main axes in GenCAD's pictures
SHADE_TOLERANCE = 2  # greys between a face's shade and the picture
LEAST_FACING = 0.12  # cosine: planes that are seen more obliquely are not read
LEAST_FACE_PIXELS = 30
MOST_REGIONS = 40  # that are looked at; a drawing of a part has fewer
MOST_REGIONS_SKETCHED = 12  # the largest
LEAST_HOLE_PIXELS = 12
LEAST_BOUND = 0.7  # share of a face's border on lines or on white; bands on round faces have less


@dataclass(frozen=True, eq=False)
class Cap:
    """One reading of a flat region: a sketch on a plane through the middle of the picture.

    plane: index into FACING_PLANES. loops: the outline, then its holes. straight: share of the
    outline that runs along the plane's axes or is round; low for a wrong reading.
    mask: (448, 448) bool, the region. camera: what it is seen by. depths: of a round face, how
    long the cylinder is whose side it may be; else none.
    """

    plane: int
    loops: tuple[Loop, ...]
    straight: float
    mask: Array
    camera: Camera = READ_CAMERA
    depths: tuple[float, ...] = ()

    def at(self, level: float) -> tuple[Loop, ...]:
        """The loops where the plane lies at `level`: they look the same from the eye."""
        axis = FACING_AXES[self.plane]
        t = self.camera.slides(np.zeros(1), np.full(1, level), axis)
        factor, shift = self.camera.slide(float(t[0]))
        u, v = (float(shift[other]) for other in range(3) if other != axis)
        larger = (loop if factor == 1.0 else zoomed(loop, factor) for loop in self.loops)
        return tuple(shifted(loop, u, v) for loop in larger)


def caps(picture: Array, camera: Camera = READ_CAMERA) -> list[list[Cap]]:
    """For each flat region of a (448, 448, 3) picture, largest first, its readings.

    A region is also read with fewer holes, as a rectangle and as full circles: something
    may stand in it or in front of it.
    """
    return caps_of(flat_regions(picture, camera)[:MOST_REGIONS_SKETCHED], camera)


def caps_of(
    found_regions: Sequence[tuple[Array, Sequence[int]]],
    camera: Camera,
    tolerance: float = OUTLINE_TOLERANCE,
    most_corners: int | None = None,
    square: bool = False,
) -> list[list[Cap]]:
    """The same of regions that are known, with the planes that each may lie on.

    tolerance, most_corners: see `contours.loop_of`. square: also read what is nearly a rectangle
    as one, where outlines are ragged.
    """
    found = []
    for mask, planes in found_regions:
        readings: list[Cap] = []
        for plane in planes:
            whole = _reading(mask, plane, camera, tolerance, most_corners)
            if whole is not None:
                readings.append(whole)
                others = [*_with_fewer_holes(whole), *_completed(whole)]
                if square:
                    others.insert(0, tuple(squared_off(loop) for loop in whole.loops))
                readings += [
                    Cap(plane, loops, whole.straight, mask, camera)
                    for loops in others
                    if loops != whole.loops
                ]
        if readings:
            found.append(readings)
    return found


def _with_fewer_holes(cap: Cap) -> list[tuple[Loop, ...]]:
    """Without any hole, with one only, and without one: what is left out stands there."""
    outer, *holes = cap.loops
    out: list[tuple[Loop, ...]] = [(outer,)] if holes else []
    if 1 < len(holes) <= 4:
        out += [(outer, hole) for hole in holes]
        out += [(outer, *holes[:i], *holes[i + 1 :]) for i in range(len(holes)) if len(holes) > 2]
    return out


def _completed(cap: Cap) -> list[tuple[Loop, ...]]:
    """What the outline may be where something stands in front: the box of it, or full circles."""
    outer = cap.loops[0]
    if not isinstance(outer, Path):
        return []
    points = np.array([outer.start, *(segment.end for segment in outer.segments)])
    out: list[tuple[Loop, ...]] = []
    if cap.straight > 0.6:
        low, high = points.min(axis=0), points.max(axis=0)
        out.append((Rect(*map(float, (*((low + high) / 2), *(high - low)))),))
    start = outer.start
    for segment in outer.segments:
        if segment.mid is not None:
            three = np.array([start, segment.mid, segment.end])
            centre, radius, _ = circle_through(three)
            if np.hypot(*(three[2] - three[0])) > radius:
                out.append((Circle(float(centre[0]), float(centre[1]), radius),))
        start = segment.end
    return out


def flat_regions(
    picture: Array, camera: Camera = READ_CAMERA
) -> list[tuple[Array, tuple[int, ...]]]:
    """Connected regions of a main plane's shade, largest first: (mask, planes of that shade)."""
    grey = picture[..., 0].astype(int)
    edge = (grey < 50) | (grey >= 250)
    seen = [p for p, axis in enumerate(FACING_AXES) if camera.facing(axis) > LEAST_FACING]
    shades = {plane: face_shade(plane, camera) for plane in seen}
    found: list[tuple[int, Array, tuple[int, ...]]] = []
    for shade in dict.fromkeys(shades.values()):
        planes = tuple(p for p in seen if abs(shades[p] - shade) <= SHADE_TOLERANCE)
        labels, count = ndimage.label(np.abs(grey - shade) <= SHADE_TOLERANCE)
        sizes = np.bincount(labels.ravel(), minlength=count + 1)
        order = np.argsort(-sizes[1:], kind="stable") + 1
        found += [
            (int(sizes[i]), labels == i, planes)
            for i in order[:MOST_REGIONS]
            if sizes[i] >= LEAST_FACE_PIXELS
        ]
    found.sort(key=lambda one: -one[0])
    return [
        (mask, planes)
        for _, mask, planes in found[:MOST_REGIONS]
        if edge[ndimage.binary_dilation(mask) & ~mask].mean() > LEAST_BOUND
    ]


def face_shade(plane: int, camera: Camera = READ_CAMERA) -> int:
    """The red, 0 to 255, of a face on a main plane; FACE_SHADE for all from GenCAD's eye."""
    return shade_facing(float(camera.view[FACING_AXES[plane]]))


def _reading(
    mask: Array, plane: int, camera: Camera, tolerance: float, most_corners: int | None
) -> Cap | None:
    whole = without_holes(mask)
    outer, straight = _loop(whole, plane, camera, tolerance, most_corners)
    if outer is None:
        return None
    loops: list[Loop] = [outer]
    labels, count = ndimage.label(whole & ~mask, np.ones((3, 3)))
    for i in range(1, count + 1):
        hole = labels == i
        if hole.sum() >= LEAST_HOLE_PIXELS:
            inner, _ = _loop(hole, plane, camera, tolerance, most_corners)
            if inner is not None:
                loops.append(inner)
    return Cap(plane, tuple(loops), straight, mask, camera)


def without_holes(mask: Array) -> Array:
    """A region with its holes filled; in its box only, for most regions are small."""
    out = mask.copy()
    for box in ndimage.find_objects(mask.astype(np.uint8)):
        out[box] = ndimage.binary_fill_holes(mask[box])
    return out


def border_of(mask: Array) -> Array:
    """(K, 2) middles of the cracks around a region as (row, column), once around."""
    row = int(np.argmax(mask.any(axis=1)))
    corners = _follow(mask, row, int(np.argmax(mask[row]))).astype(float)
    return (corners + np.roll(corners, -1, axis=0)) / 2


@njit(cache=True)
def _follow(mask, row, col):  # type: ignore[no-untyped-def]
    """Corners around the region, which stays on the right; starts on top of (row, col)."""
    height, width = mask.shape
    out = np.empty((4 * height * width, 2), dtype=np.int32)
    count, r, c, way = 0, row, col, 0  # east, south, west, north
    while count < out.shape[0]:
        out[count, 0], out[count, 1] = r, c
        count += 1
        if way == 0:
            c += 1
            left, right = (r - 1, c), (r, c)
        elif way == 1:
            r += 1
            left, right = (r, c), (r, c - 1)
        elif way == 2:
            c -= 1
            left, right = (r, c - 1), (r - 1, c - 1)
        else:
            r -= 1
            left, right = (r - 1, c - 1), (r - 1, c)
        inside = 0 <= right[0] < height and 0 <= right[1] < width and mask[right[0], right[1]]
        beyond = 0 <= left[0] < height and 0 <= left[1] < width and mask[left[0], left[1]]
        if not inside:
            way = (way + 1) % 4
        elif beyond:
            way = (way + 3) % 4
        if r == row and c == col and way == 0:
            break
    return out[:count]


def _loop(
    mask: Array, plane: int, camera: Camera, tolerance: float, most_corners: int | None
) -> tuple[Loop | None, float]:
    points = border_of(mask)
    flat = camera.on_plane(points[:, ::-1], FACING_AXES[plane])
    return loop_of(points, flat, pixel_on(plane, camera), tolerance, most_corners)


def pixel_on(plane: int, camera: Camera) -> float:
    """How long a pixel is on a main plane; seen obliquely it is longer."""
    # From GenCAD's eye the cosine is 1 / sqrt(3).
    longer = sqrt(max(1.0, 1 / (sqrt(3) * camera.facing(FACING_AXES[plane]))))
    return longer / camera.scale
