"""Which main planes the flat regions of a picture lie on, seen by a camera; and how dark they are.

    for mask, planes in lying(scene, camera): ...      # for tracing.caps_of
    tones(scene)                                       # (448, 448), 0 beside the part

A region lies on a plane on which it reads well as a sketch; regions of one colour lie on one
plane, so those that surely lie on one decide for others. Left out: slanted and round faces.
"""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from image2cad.common import Array
from image2cad.reading.cameras import sketch_quality
from image2cad.reading.framing import greys
from image2cad.reading.regions import Scene
from image2cad.reading.tracing import FACING_AXES, LEAST_FACING, border_of, without_holes
from image2cad.rendering import Camera

MOST_SKETCH_CORNERS = 64  # of an outline that is a sketch
MOST_REGIONS_READ = 24
SURE_QUALITY, SURE_LEAD = 0.85, 0.2  # from which a region's colour decides for others
ALLOWED_BEHIND, LEAST_QUALITY = 0.35, 0.25  # of readings that are tried
DOUBTED_QUALITY = 0.75  # below which a region's colour decides
LARGE_SHARE = 0.04  # of the part: a region that is tried on all planes rather than on none
DARKEST, LIGHTEST = 0.95, 0.05  # tones of a part
LEAST_CONTRAST = 25.0  # greys between a part's darkest and lightest that count as all


def lying(scene: Scene, camera: Camera) -> list[tuple[Array, tuple[int, ...]]]:
    """Masks of the regions that may be flat, largest first, and the planes they may lie on."""
    masks = scene.masks[:MOST_REGIONS_READ]
    sizes = {label: int(mask.sum()) for mask, label in masks}
    total = sum(sizes.values())
    facing = [p for p, axis in enumerate(FACING_AXES) if camera.facing(axis) > LEAST_FACING]
    worth = {}
    for mask, label in masks:
        points = border_of(without_holes(mask))
        quality = np.array(
            [sketch_quality(points, camera, plane, MOST_SKETCH_CORNERS) for plane in range(3)]
        )
        # Highlights and perspective vary the tone of a flat face; its outline tells then.
        if scene.flat[label] or scene.line_drawing or quality.max() > SURE_QUALITY:
            worth[label] = quality
    alike = 5.0 + 2 * min(scene.noise, 6)  # greys
    sure: list[tuple[Array, int]] = []
    for label, quality in worth.items():
        _, second, first = np.sort(quality)
        if (
            scene.flat[label]
            and first > SURE_QUALITY
            and first - second > SURE_LEAD
            and sizes[label] > 100
        ):
            sure.append((scene.tints[label], int(quality.argmax())))
    if scene.line_drawing:
        sure = []
    found = []
    for mask, label in masks:
        if label not in worth:
            continue
        quality = worth[label]
        best, share = float(quality.max()), sizes[label] / max(total, 1)
        planes = [
            int(plane)
            for plane in np.argsort(-quality, kind="stable")
            if quality[plane] > max(best - ALLOWED_BEHIND, LEAST_QUALITY)
        ]
        if not planes and share > LARGE_SHARE:
            planes = list(facing)
        if scene.flat[label] and (best < DOUBTED_QUALITY or len(planes) > 1):
            apart = [(float(np.abs(tint - scene.tints[label]).max()), at) for tint, at in sure]
            near = {plane for off, plane in apart if off < alike}
            far = {plane for off, plane in apart if off > 3 * alike} - near
            if len(near) == 1:
                planes = list(near)
            elif share > LARGE_SHARE and sure:
                planes = [plane for plane in planes if plane not in far] or planes
        if planes:
            found.append((mask, tuple(planes)))
    return found


def tones(scene: Scene) -> Array:
    """(448, 448) float32: 0 beside the part, else from LIGHTEST to DARKEST, lines painted over."""
    part = scene.part
    grey = greys(scene.colours)
    clean = part & ~ndimage.binary_dilation(scene.ink)
    if clean.any():
        nearest = ndimage.distance_transform_edt(
            ~clean, return_distances=False, return_indices=True
        )
        grey = grey[tuple(nearest)]
    for mask_label in np.flatnonzero(scene.flat):
        if mask_label:
            grey[scene.labels == mask_label] = greys(scene.tints[mask_label])
    low, high = np.percentile(grey[part], [3, 97]) if part.any() else (0.0, 255.0)
    middle, contrast = (low + high) / 2, max(high - low, LEAST_CONTRAST)
    tone = np.clip(0.45 - 0.5 * (grey - middle) / contrast, LIGHTEST, DARKEST)
    return np.where(part, tone, 0.0).astype(np.float32)
