"""A picture in a style that is not known, as what programs are compared with.

    sight = sight_of(scene, camera)
    gap_of(paint(drawing, camera, 448, sight.lined), sight, 8)      # to be squared and summed

A drawing is painted as directions of faces and lines (rendering/painting.py). In each comparison
the tone of every direction is fitted to the picture, so any light, colour and contrast costs
nothing, but faces of one direction must look alike. Then it is what cost.py compares: shares of
part, line and tone in blurred blocks. The right part costs little, never nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numba import njit
from scipy import ndimage

from image2cad.cad import Extrusion
from image2cad.common import Array
from image2cad.reading import (
    FACING_AXES,
    MOST_SKETCH_CORNERS,
    Cap,
    Scene,
    caps_of,
    lying,
    openings,
    rings,
    rods_of,
    tones,
)
from image2cad.rendering import NO_FACE, SIZE, Camera, Painting, Picture, directions
from image2cad.verification.blocks import block_of
from image2cad.verification.features import Floats, blurred

SIGHT_SIZES = (SIZE, SIZE // 2, SIZE // 4)  # of paintings
SIGHT_BLOCKS = (2, 4, 8, 16)
TONE_RIDGE = 2e-3  # of the pixels, by which tones are held to one
UNSEEN_TONE = 0.45
PAPER_TONE = 0.2  # of the faces of a line drawing, so that its silhouette counts in the likeness
LINE_WEIGHT, TONE_WEIGHT = 1.5, 2.0
ENLARGED_TOLERANCE = 0.75  # pixels of an outline, for each time that the picture was enlarged
MOST_TOLERANCE = 2.0


@dataclass(frozen=True, eq=False)
class Sight:
    """One view of a part: its camera, and what the picture shows.

    regions: readings of its flat regions. lined: edges are drawn. inked: nothing else is, so lines
    beside the ground, which may be outlines of round faces, are left out. weights: of part, line
    and tone. levels: (part, tone) for each size of painting. features, blank: see cost.Target.
    """

    camera: Camera
    scene: Scene
    regions: list[list[Cap]]
    lined: bool
    inked: bool
    weights: Floats
    levels: dict[int, tuple[Floats, Floats]]
    features: dict[int, Floats]
    blank: dict[int, float]

    @cached_property
    def openings(self) -> list[list[Cap]]:
        """Readings of the outlines that regions have together, largest first."""
        known = [(mask, (plane,)) for mask, plane in openings(self.scene, self.camera)]
        return caps_of(known, self.camera, _tolerance(self.scene), MOST_SKETCH_CORNERS, True)

    def has(self, cap: Cap) -> bool:
        """Whether the reading is of a region of this sight."""
        return any(cap in readings for readings in self.regions)


def sight_of(scene: Scene, camera: Camera) -> Sight:
    """What a scene shows, seen by a camera of its canvas."""
    lined = scene.has_lines or scene.line_drawing
    flat = [*lying(scene, camera), *((mask, (plane,)) for mask, plane in rings(scene, camera))]
    regions = caps_of(flat, camera, _tolerance(scene), MOST_SKETCH_CORNERS, True)
    regions += rods_of(scene, camera)
    part, lines, tone = scene.part, scene.lines.copy(), tones(scene)
    if scene.line_drawing:
        lines &= ~ndimage.binary_dilation(~part)
    weights = np.array(
        [1.0, LINE_WEIGHT if lined else 0.0, 0.0 if scene.line_drawing else TONE_WEIGHT],
        dtype=np.float32,
    )
    levels = {}
    for size in SIGHT_SIZES:
        share = _averaged(part, size)
        mean = _averaged(tone, size) / np.maximum(share, 1e-6)
        levels[size] = (share, np.where(share > 0, mean, 0).astype(np.float32))
    features, blank = {}, {}
    for block in SIGHT_BLOCKS:
        shares = np.stack([_averaged(plane, SIZE // block) for plane in (part, lines, tone)])
        features[block] = (blurred(shares) * weights[:, None, None] * np.float32(block)).ravel()
        blank[block] = max(float(features[block] @ features[block]), 1e-9)
    return Sight(
        camera, scene, regions, lined, scene.line_drawing, weights, levels, features, blank
    )


def _tolerance(scene: Scene) -> float:
    """Pixels by which outlines may be off."""
    return float(np.clip(ENLARGED_TOLERANCE * scene.place.scale, 1.0, MOST_TOLERANCE))


def _averaged(plane: Array, size: int) -> Floats:
    step = SIZE // size
    return np.ascontiguousarray(
        plane.astype(np.float32).reshape(size, step, size, step).mean(axis=(1, 3))
    )


def outline_block(sight: Sight, axis: int, low: float, high: float) -> Extrusion | None:
    """The silhouette of a view along `axis`, extruded from level low to high; None if ragged."""
    plane = FACING_AXES.index(axis)
    (readings,) = caps_of([(sight.scene.part, (plane,))], sight.camera) or [[]]
    if not readings:
        return None
    return block_of(plane, readings[0].loops, low, high)


def shortfall(seen: Painting, sight: Sight, block: int) -> Floats:
    """What a painting lacks of the sight, (3 n n,) weighted features, n = 448 / block."""
    zoom = SIZE // len(seen.code)
    table = _tone_of_codes(seen, sight)
    code, ink = seen.code, seen.ink
    if sight.inked:
        # A line drawing does not tell a through hole from a face: neither is counted as ground.
        code = _without_holes(code)
        ink = _off_the_rim(code, ink)
    shares = _shares_of(code, ink, table, block // zoom, np.float32(1 / zoom))
    values: Floats = blurred(shares) * sight.weights[:, None, None] * np.float32(block)
    return values.ravel() - sight.features[block]


def _tone_of_codes(seen: Painting, sight: Sight) -> Floats:
    """(NO_FACE + 1,) the tone of each direction that fits the picture best; 0 for none."""
    table = np.zeros(NO_FACE + 1, dtype=np.float32)
    if sight.weights[2] == 0:
        return table
    table[:NO_FACE] = UNSEEN_TONE
    count, total = _by_code(seen.code, *sight.levels[len(seen.code)])
    present = np.flatnonzero(count)
    if len(present):
        terms, many = HARMONICS[present], count[present]
        form = (terms * many[:, None]).T @ terms
        ridge = TONE_RIDGE * float(many.sum())
        form[np.diag_indices(9)] += ridge + 1e-6
        form[0, 0] -= ridge
        table[:NO_FACE] = HARMONICS @ np.linalg.solve(form, terms.T @ total[present])
    return table


def toned(seen: Painting, sight: Sight) -> Picture:
    """(S, S, 3) uint8: a painting in the tones that fit the picture best, on white."""
    code = _without_holes(seen.code) if sight.inked else seen.code
    tone = np.clip(_tone_of_codes(seen, sight), 0, 1)[code]
    return _as_picture(tone, code != NO_FACE, seen.ink & sight.lined, sight)


def pictured(sight: Sight) -> Picture:
    """(448, 448, 3) uint8: the picture of a sight in the same tones."""
    part, tone = sight.levels[SIZE]
    return _as_picture(tone, part > 0.5, sight.scene.lines, sight)


def _as_picture(tone: Floats, part: Array, ink: Array, sight: Sight) -> Picture:
    grey = 255 * (1 - (tone if sight.weights[2] else np.full_like(tone, PAPER_TONE)))
    grey = np.where(ink, 0, np.where(part, grey, 255)).astype(np.uint8)
    return np.repeat(grey[..., None], 3, axis=2)


def _harmonics() -> Array:
    """(NO_FACE, 9) spherical harmonics up to the second order (Ramamoorthi and Hanrahan 2001)."""
    x, y, z = directions().T
    return np.stack(
        [np.ones_like(x), x, y, z, x * y, y * z, z * x, x * x - y * y, 3 * z * z - 1], axis=1
    )


HARMONICS = _harmonics()


@njit(cache=True)
def _by_code(code, part, tone):  # type: ignore[no-untyped-def]
    """(NO_FACE + 1,) pixels of each code on the picture's part, and their tones, summed."""
    count, total = np.zeros(NO_FACE + 1), np.zeros(NO_FACE + 1)
    size = code.shape[0]
    for row in range(size):
        for col in range(size):
            k = code[row, col]
            if k != NO_FACE and part[row, col] > 0.5:
                count[k] += 1
                total[k] += tone[row, col]
    return count, total


@njit(cache=True)
def _shares_of(code, ink, table, block, thin):  # type: ignore[no-untyped-def]
    """(3, n, n) of blocks: shares of part and line, mean tone. thin: what a line's pixel counts."""
    n = code.shape[0] // block
    out = np.zeros((3, n, n), dtype=np.float32)
    weight = np.float32(1.0 / (block * block))
    for row in range(n * block):
        for col in range(n * block):
            i, j, k = row // block, col // block, code[row, col]
            if k != NO_FACE:
                out[0, i, j] += weight
                out[2, i, j] += weight * table[k]
            if ink[row, col]:
                out[1, i, j] += weight * thin
    return out


@njit(cache=True)
def _without_holes(code):  # type: ignore[no-untyped-def]
    """The codes with ground that is not joined to the border as a face, 0."""
    size = code.shape[0]
    outer = np.zeros((size, size), dtype=np.bool_)
    waiting = np.empty(size * size, dtype=np.int32)
    count = 0
    for k in range(size):
        for row, col in ((0, k), (size - 1, k), (k, 0), (k, size - 1)):
            if code[row, col] == NO_FACE and not outer[row, col]:
                outer[row, col] = True
                waiting[count] = row * size + col
                count += 1
    while count > 0:
        count -= 1
        row, col = waiting[count] // size, waiting[count] % size
        for way in range(4):
            r, c = row + (way == 0) - (way == 1), col + (way == 2) - (way == 3)
            if 0 <= r < size and 0 <= c < size and code[r, c] == NO_FACE and not outer[r, c]:
                outer[r, c] = True
                waiting[count] = r * size + c
                count += 1
    out = code.copy()
    for row in range(size):
        for col in range(size):
            if code[row, col] == NO_FACE and not outer[row, col]:
                out[row, col] = 0
    return out


@njit(cache=True)
def _off_the_rim(code, ink):  # type: ignore[no-untyped-def]
    """The ink that has no ground beside it."""
    size = code.shape[0]
    out = ink.copy()
    for row in range(size):
        for col in range(size):
            if not ink[row, col]:
                continue
            for r in range(max(row - 1, 0), min(row + 2, size)):
                for c in range(max(col - 1, 0), min(col + 2, size)):
                    if code[r, c] == NO_FACE:
                        out[row, col] = False
    return out
