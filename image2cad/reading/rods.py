"""Round faces read as sides of cylinders along the main axes, whose ends need not be seen.

    for readings in rods_of(scene, camera): ...         # as tracing.caps_of gives them

The side of a cylinder is as wide as the cylinder all along it, and ends in half an ellipse where
its far end is. The circle is that of the near end. Left out: cones, and cylinders of which one side
is hidden all along.
"""

from __future__ import annotations

import numpy as np

from image2cad.cad import Circle
from image2cad.common import Array
from image2cad.reading.regions import Scene
from image2cad.reading.tracing import FACING_AXES, Cap
from image2cad.rendering import Camera

MOST_RODS = 6  # regions that are read
LEAST_ROD_PIXELS = 120
MOST_SQUARELY, LEAST_SQUARELY = 0.98, 0.02  # cosine of the axis to the line of sight
FULL_SHARE = 0.9  # of the width, of a slice that is as wide as the rod
LEAST_FULL = 0.35  # share of the slices that must be so
SLICE_PIXELS = 2.0


def rods_of(scene: Scene, camera: Camera) -> list[list[Cap]]:
    """Readings of the regions that may be sides of cylinders, largest first."""
    found: list[list[Cap]] = []
    for mask, label in scene.masks:
        if len(found) >= MOST_RODS:
            break
        if mask.sum() < LEAST_ROD_PIXELS or scene.flat[label] and not scene.line_drawing:
            continue
        readings = [cap for plane in range(3) for cap in _readings(mask, plane, camera)]
        if readings:
            found.append(readings)
    return found


def _readings(mask: Array, plane: int, camera: Camera) -> list[Cap]:
    axis = FACING_AXES[plane]
    rows, columns = np.nonzero(mask)
    pixels = np.stack([columns, rows], axis=1) + 0.5
    middle = pixels.mean(axis=0)
    if not LEAST_SQUARELY < camera.facing(axis) < MOST_SQUARELY:
        return []
    place = _on_plane(middle, axis, camera)
    to_viewer = np.zeros(3)
    to_viewer[axis] = -camera.inwards(axis)
    along, longer = _seen(place, to_viewer, camera)
    if longer < 1e-6:
        return []
    across = np.array([-along[1], along[0]])
    t, s = (pixels - middle) @ along, (pixels - middle) @ across
    slices = np.floor((t - t.min()) / SLICE_PIXELS).astype(int)
    low, high = np.full(slices.max() + 1, np.inf), np.full(slices.max() + 1, -np.inf)
    np.minimum.at(low, slices, s)
    np.maximum.at(high, slices, s)
    width = float(np.percentile(high - low, 90))
    full = (high - low) > FULL_SHARE * width
    if width < 4 or full.mean() < LEAST_FULL:
        return []
    left, right = float(np.median(low[full])), float(np.median(high[full]))
    radius = (right - left + 1) / 2  # pixels
    bulge = radius * camera.facing(axis)
    far, near = float(t.min()) + bulge, float(t.max())
    out = []
    for end in (near, near - bulge):  # the near end is another region, or part of this one
        if end - far < 1:
            continue
        at = _on_plane(middle + (left + right) / 2 * across + end * along, axis, camera)
        scale, step = _scale(at, camera), _seen(at, to_viewer, camera)[1]
        u, v = (float(at[other]) for other in range(3) if other != axis)
        circle = Circle(u, v, radius / scale)
        out.append(Cap(plane, (circle,), 1.0, mask, camera, ((end - far) / step,)))
    return out


def _on_plane(pixel: Array, axis: int, camera: Camera) -> Array:
    """(3,) the point at level 0 that is seen at a pixel."""
    point: Array = np.insert(camera.on_plane(pixel[None], axis)[0], axis, 0.0)
    return point


def _seen(point: Array, way: Array, camera: Camera) -> tuple[Array, float]:
    """(2,) the direction in the picture of a way in space, and pixels to a unit along it."""
    ends = camera.project(np.stack([point, point + 1e-3 * way]))[:, :2]
    step = (ends[1] - ends[0]) / 1e-3
    length = float(np.hypot(*step))
    return step / max(length, 1e-12), length


def _scale(point: Array, camera: Camera) -> float:
    """Pixels to a unit of length at a point, across the line of sight."""
    if not camera.in_perspective:
        return camera.scale
    w = float(point @ camera.matrix[3, :3] + camera.matrix[3, 3])
    return camera.scale * float(camera.matrix[3, 3]) / w
