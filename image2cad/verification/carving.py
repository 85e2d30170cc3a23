"""What the silhouettes of several views leave for a part: its box, and where faces can lie.

    space = space_of(sights)
    space.hull                          # (2, 3): around all points that lie in every silhouette
    low, high = space.levels_of(cap)    # where a region's plane can be
    depth = space.deepest(cap, high)

One view says nothing of how far off a face is; the silhouettes of the others do. Left out: what no
silhouette shows, such as pockets.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from scipy import ndimage
from scipy.optimize import linprog

from image2cad.common import Array
from image2cad.reading import FACING_AXES, Cap
from image2cad.rendering import SIZE
from image2cad.verification.sights import Sight

NEAR_PIXELS = 4  # around a silhouette, that points still count as inside
FARTHEST = 260.0  # units from the origin to a part's farthest point
CARVED_SIDE = 56  # points along a side of the grid that is carved
CARVINGS = 3  # each about the box of what the last one left
LEVELS_TRIED, DEPTHS_SWEPT = 49, 24
INSIDE_SHARE = 0.97  # of a region's points that lie in every silhouette where it can be
SWEPT_SHARE = 0.95
ALONG_AXIS = 0.999  # cosine
BOX_SLACK = 1.0  # pixels by which the boxes of silhouettes may disagree
BOUNDED_SHARE = 0.03  # of a side, by which a hull that is bounded by such a box seems smaller
MOST_POINTS = 120  # of a region


@dataclass(frozen=True, eq=False)
class Space:
    """What several sights leave for a part.

    hull: (2, 3) box of the points in every silhouette. near: (448, 448) bool of each sight, its
    silhouette and what is close to it. ranges: of the regions that were asked for.
    """

    sights: tuple[Sight, ...]
    near: tuple[Array, ...]
    hull: Array
    ranges: dict[Cap, tuple[float, float]] = field(default_factory=dict)

    def levels_of(self, cap: Cap) -> tuple[float, float]:
        """The lowest and the highest level at which a region lies in every silhouette."""
        if cap not in self.ranges:
            axis, pixels = FACING_AXES[cap.plane], _pixels_of(cap)
            low, high = self.hull[:, axis]
            margin = 0.01 * (high - low)
            tried = np.linspace(low - margin, high + margin, LEVELS_TRIED)
            shares = self._inside(np.stack([_laid(cap, pixels, float(t)) for t in tried]))
            good = tried[shares >= min(INSIDE_SHARE, 0.98 * shares.max())]
            self.ranges[cap] = float(good.min()), float(good.max())
        return self.ranges[cap]

    def deepest(self, cap: Cap, start: float) -> float:
        """How far a region can be swept inwards from `start` before it leaves a silhouette."""
        axis = FACING_AXES[cap.plane]
        points, way = _laid(cap, _pixels_of(cap), start), np.zeros(3)
        way[axis] = cap.camera.inwards(axis)
        depths = np.linspace(0.03, 1.05, DEPTHS_SWEPT) * float(np.ptp(self.hull[:, axis]))
        shares = self._inside(points + way * depths[:, None, None])
        good = depths[shares >= min(SWEPT_SHARE, 0.97 * shares[0])]
        return float(good.max()) if len(good) else float(depths[0])

    def _inside(self, points: Array) -> Array:
        """(L,) the least share of (L, K, 3) points in any silhouette."""
        flat = points.reshape(-1, 3)
        seen = [_on(flat, *pair) for pair in zip(self.sights, self.near, strict=True)]
        least: Array = np.stack(seen).reshape(len(seen), *points.shape[:2]).mean(axis=2).min(axis=0)
        return least


def space_of(sights: Sequence[Sight]) -> Space | None:
    """What the silhouettes leave; None where no point lies in all of them."""
    near = tuple(
        np.asarray(ndimage.binary_dilation(sight.scene.part, iterations=NEAR_PIXELS))
        for sight in sights
    )
    low, high = np.full(3, -FARTHEST), np.full(3, FARTHEST)
    bounds = _bounds_of(sights) if any(along_an_axis(sight) for sight in sights) else None
    if bounds is not None:
        low, high = bounds
    box: Array | None = None
    for _ in range(CARVINGS):
        ticks = [np.linspace(low[axis], high[axis], CARVED_SIDE) for axis in range(3)]
        points = np.stack(np.meshgrid(*ticks, indexing="ij"), axis=-1).reshape(-1, 3)
        kept = np.ones(len(points), dtype=bool)
        for sight, mask in zip(sights, near, strict=True):
            kept[kept] = _on(points[kept], sight, mask)
        if not kept.any():
            break
        box = np.stack([points[kept].min(axis=0), points[kept].max(axis=0)])
        step = (high - low) / (CARVED_SIDE - 1)
        low, high = box[0] - step, box[1] + step
    if box is None:
        return None
    rim = 0.8 * NEAR_PIXELS / float(np.mean([sight.camera.scale for sight in sights]))
    taken = np.minimum(rim, 0.4 * (box[1] - box[0]))
    hull = np.stack([box[0] + taken, box[1] - taken])
    if bounds is None:
        return Space(tuple(sights), near, hull)
    # Where views along axes bound it, the silhouettes' boxes say it to the pixel.
    close = np.abs(hull - bounds) < np.maximum(2 * rim, BOUNDED_SHARE * (box[1] - box[0]))
    return Space(tuple(sights), near, np.where(close, bounds, hull))


def along_an_axis(sight: Sight) -> bool:
    """Whether a view is along an axis."""
    return float(np.abs(sight.camera.view).max()) > ALONG_AXIS


def _bounds_of(sights: Sequence[Sight]) -> Array | None:
    """(2, 3) box of the points that lie in the boxes of all silhouettes; None if there are none."""
    rows, limits = [], []
    for sight in sights:
        down, across = np.nonzero(sight.scene.part)
        for k, (first, last) in enumerate(
            ((across.min(), across.max() + 1), (down.min(), down.max() + 1))
        ):
            # A pixel's column or row is a ratio of two linear terms.
            for edge, sign in ((first, -1.0), (last, 1.0)):
                row = sign * (sight.camera.matrix[k] - edge * sight.camera.matrix[3])
                slack = BOX_SLACK * sight.camera.matrix[3, 3]
                rows.append(row[:3])
                limits.append(slack - row[3])
    out = np.zeros((2, 3))
    for axis in range(3):
        for end, sign in ((0, 1.0), (1, -1.0)):
            found = linprog(
                sign * np.eye(3)[axis], np.array(rows), np.array(limits),
                bounds=[(-FARTHEST, FARTHEST)] * 3,
            )  # fmt: skip
            if found.x is None:
                return None
            out[end, axis] = found.x[axis]
    return out


def _on(points: Array, sight: Sight, mask: Array) -> Array:
    """(K,) bool: which points are seen on the mask."""
    seen = np.floor(sight.camera.project(points)[:, :2]).astype(int)
    framed = ((seen >= 0) & (seen < SIZE)).all(axis=1)
    out: Array = np.zeros(len(points), dtype=bool)
    out[framed] = mask[seen[framed, 1], seen[framed, 0]]
    return out


def _pixels_of(cap: Cap) -> Array:
    """(K, 2) columns and rows of some pixels of a region."""
    rows, columns = np.nonzero(cap.mask)
    pick = np.linspace(0, len(rows) - 1, min(len(rows), MOST_POINTS)).astype(int)
    out: Array = np.stack([columns[pick] + 0.5, rows[pick] + 0.5], axis=1)
    return out


def _laid(cap: Cap, pixels: Array, level: float) -> Array:
    """(K, 3) points of a region's pixels on its plane at `level`."""
    axis = FACING_AXES[cap.plane]
    return np.insert(cap.camera.on_plane(pixels, axis, level), axis, level, axis=1)
