"""Straight lines, ellipses and arcs of a picture's regions, each with the region it bounds.

    found = strokes_of(scene)                # Strokes
    found.segments                         # (K, 5): column, row, angle, length, region

Regions are numbered by size, as `scene.masks` has them. Left out: lines that bound no region.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from image2cad.common import Array
from image2cad.reading.contours import corners_of, stretch
from image2cad.reading.regions import Scene
from image2cad.reading.tracing import border_of, without_holes
from image2cad.rendering import SIZE

MOST_BOUNDED = 30  # regions whose borders are looked at
HOLES_FOLLOWED, LEAST_HOLE = 6, 40  # of a region, the pixels of a hole
LEAST_LENGTH = 7.0  # pixels of a line
MOST_BENT = 0.45  # pixels between a line's middle and its ends' chord
SMALL_TURN = np.radians(32)  # between neighbours that may be chords of one arc
LONGEST_CHORD = 90.0  # pixels
LEAST_ARC = 25  # pixels along an arc
LONGEST_COUNTED = 120.0  # pixels: a longer line weighs no more
LEAST_ROUND = 40  # pixels around an ellipse


@dataclass(frozen=True, eq=False)
class Strokes:
    """segments: (K, 5) column, row, angle (radians, rows downwards), length, region.

    ellipses: (E, 6) column, row, angle of the short axis, short over long axis, pixels around,
    region. arcs: (P, 2) pixels (row, column) along each. regions: how many there are.
    """

    segments: Array
    ellipses: Array
    arcs: tuple[Array, ...]
    regions: int

    @property
    def weights(self) -> Array:
        """(K,) what each segment counts."""
        out: Array = np.minimum(self.segments[:, 3], LONGEST_COUNTED)
        return out

    @property
    def round_weights(self) -> Array:
        """(E,) what each ellipse counts."""
        out: Array = np.minimum(0.5 * self.ellipses[:, 4], 200.0)
        return out

    @property
    def total(self) -> float:
        """What all together count."""
        return max(float(self.weights.sum() + self.round_weights.sum()), 1e-9)


def strokes_of(scene: Scene) -> Strokes:
    """The straight lines, ellipses and arcs that bound the regions of a scene."""
    segments: list[tuple[float, ...]] = []
    ellipses: list[tuple[float, ...]] = []
    arcs: list[Array] = []
    masks = scene.masks[:MOST_BOUNDED]
    for region, (mask, _) in enumerate(masks):
        solid = without_holes(mask)
        holes, count = ndimage.label(solid & ~mask)
        large = [holes == k for k in range(1, count + 1) if (holes == k).sum() > LEAST_HOLE]
        for piece in [solid, *large[:HOLES_FOLLOWED]]:
            points = border_of(piece)
            if len(points) < 12:
                continue
            whole = ellipse_of(points)
            if whole is not None:
                if whole[4] > LEAST_ROUND:
                    ellipses.append((*whole, region))
                continue
            straight, bent = _pieces(points)
            segments += [(*one, region) for one in straight]
            arcs += bent
    return Strokes(
        np.array(segments).reshape(-1, 5), np.array(ellipses).reshape(-1, 6), tuple(arcs),
        len(masks),
    )  # fmt: skip


def _pieces(points: Array) -> tuple[list[tuple[float, ...]], list[Array]]:
    """The straight pieces of a border, and its runs of short sides that turn one way."""
    corners = corners_of(points, 1.0)
    count = len(corners)
    sides = np.roll(points[corners], -1, axis=0) - points[corners]
    angles, lengths = np.arctan2(sides[:, 0], sides[:, 1]), np.hypot(*sides.T)
    turns = (np.roll(angles, -1) - angles + np.pi) % (2 * np.pi) - np.pi
    bent, straight = np.zeros(count, dtype=bool), []
    for i in range(count):
        before, after = turns[i - 1], turns[i]
        if before * after > 0 and max(abs(before), abs(after)) < SMALL_TURN:
            bent[i] = lengths[i] < LONGEST_CHORD
            continue
        along = stretch(corners[i], corners[(i + 1) % count], len(points))
        cut = 2 if len(along) > 14 else 1
        line = _straight(points[along[cut:-cut]][:, ::-1])
        if line is not None:
            straight.append(line)
    arcs: list[Array] = []
    if bent.sum() >= 3:
        start = int(np.argmin(bent)) if not bent.all() else 0
        run: list[int] = []
        for k in range(count + 1):
            i = (start + k) % count
            if k < count and bent[i]:
                run.append(i)
                continue
            if len(run) >= 3:
                along = stretch(corners[run[0]], corners[(run[-1] + 1) % count], len(points))
                if len(along) > LEAST_ARC:
                    arcs.append(points[along])
            run = []
    return straight, arcs


def _straight(points: Array) -> tuple[float, ...] | None:
    """(column, row, angle, length) of (P, 2) points on one line, or None."""
    if len(points) < 5:
        return None
    middle = points.mean(axis=0)
    _, _, axes = np.linalg.svd(points - middle, full_matrices=False)
    along, off = (points - middle) @ axes[0], (points - middle) @ axes[1]
    length = float(np.ptp(along))
    if length < LEAST_LENGTH or off.std() > 0.6:
        return None
    bend = np.polyfit(along / (length / 2), off, 2)[0] if len(points) > 6 else 0.0
    if abs(bend) > MOST_BENT:
        return None
    return float(middle[0]), float(middle[1]), float(np.arctan2(axes[0, 1], axes[0, 0])), length


def ellipse_of(points: Array) -> tuple[float, ...] | None:
    """(column, row, angle of the short axis, short over long, pixels around) of a whole ellipse.

    points: (P, 2) rows and columns once around. None where they lie on no ellipse.
    """
    if len(points) < 30:
        return None
    middle, size = points.mean(axis=0), max(float(points.std(axis=0).max()), 1e-9)
    v, u = ((points - middle) / size).T
    terms = np.stack([u * u, u * v, v * v, u, v], axis=1)
    form = np.linalg.lstsq(terms, np.ones(len(points)), rcond=None)[0]
    matrix = np.array([[form[0], form[1] / 2], [form[1] / 2, form[2]]])
    if np.linalg.eigvalsh(matrix)[0] <= 0:
        return None
    centre = -0.5 * np.linalg.solve(matrix, form[3:5])
    values, axes = np.linalg.eigh(matrix / (1 + centre @ matrix @ centre))
    long, short = 1 / np.sqrt(values)
    turned = (np.stack([u, v], axis=1) - centre) @ axes
    off = np.abs(np.hypot(turned[:, 0] / long, turned[:, 1] / short) - 1)
    off *= np.sqrt(long * short) * size
    if off.mean() > 0.55 or off.max() > 2.2 or short * size < 3 or long * size > SIZE:
        return None
    return (
        float(centre[0] * size + middle[1]), float(centre[1] * size + middle[0]),
        float(np.arctan2(axes[1, 1], axes[0, 1])), float(short / long), float(len(points)),
    )  # fmt: skip
