"""Plain blocks of the proportions that several silhouettes give, below which no answer may fall.

    programs = floors(target)       # boxes, cylinders, and outlines that meet; not fitted yet

A box as large as the silhouettes are in all views is right for the plainest parts, however thin,
and stands near many others. Left out: one view, which says nothing of depths.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from scipy.optimize import nnls

from image2cad.cad import NAMED, Circle, Extrusion, Plane, Program, Rect
from image2cad.common import Array
from image2cad.verification.carving import along_an_axis
from image2cad.verification.cost import Target
from image2cad.verification.sights import Sight, outline_block

HULL_SHARES = (1.0, 0.8, 0.62)  # of the sides of what silhouettes leave, which few fill
SHARES_TRIED = (0.02, 0.05, 0.1, 0.2, 0.35, 0.5, 0.65, 0.8, 0.9, 0.95, 0.98)
LEAST_OPEN = 0.1  # of a way that silhouettes leave open, from which it is a side's
SAME_EXTENT = 0.02  # share of the largest singular value, below which views leave a side open


def floors(target: Target) -> list[Program]:
    """Of several views: boxes, cylinders and the block of outlines that they leave."""
    if target.space is None:
        return []
    low, high = target.space.hull
    middle = (low + high) / 2
    out = [one for share in HULL_SHARES for one in _blocks(middle, share * (high - low))]
    for middle, sides in _measured(target.sights):
        out += _blocks(middle, sides)
    blocks = []
    for sight in target.sights:
        if along_an_axis(sight):
            axis = int(np.argmax(np.abs(sight.camera.view)))
            blocks.append(outline_block(sight, axis, float(low[axis]), float(high[axis])))
    whole = [block for block in blocks if block is not None]
    if len(whole) > 1:
        first, *others = whole
        out.append((first, *(replace(other, operation="intersect") for other in others)))
    return out


def boxes(target: Target) -> list[Program]:
    """Of several views: the boxes alone whose silhouettes reach as far as theirs."""
    return [_blocks(middle, sides)[1] for middle, sides in _measured(target.sights)]


def _blocks(middle: Array, sides: Array) -> list[Program]:
    """The box, and the cylinders about each axis in it."""
    out: list[Program] = []
    for plane in NAMED:
        x, normal = NAMED[plane]
        axis = int(np.argmax(np.abs(normal)))
        u, v = (other for other in range(3) if other != axis)
        origin = [0.0, 0.0, 0.0]
        origin[axis] = float(middle[axis] - np.sign(normal[axis]) * sides[axis] / 2)
        at = Plane((origin[0], origin[1], origin[2]), x, normal)
        round_ = Circle(float(middle[u]), float(middle[v]), float(min(sides[u], sides[v]) / 2))
        square = Rect(*(float(value) for value in (middle[u], middle[v], sides[u], sides[v])))
        out += [(Extrusion(at, (loop,), float(sides[axis])),) for loop in (round_, square)]
    return out


def _measured(sights: Sequence[Sight]) -> list[tuple[Array, Array]]:
    """Middles and sides (3,) of boxes whose silhouettes reach as far as those of all views.

    How far a box reaches across an orthographic picture is linear in its sides. Views that share
    their slant leave open how two sides share what they reach together: some ways are given.
    """
    if any(sight.camera.in_perspective for sight in sights):
        return []
    reach, centre, extents, middles = [], [], [], []
    for sight in sights:
        rows, columns = np.nonzero(sight.scene.part)
        for k, places in enumerate((columns, rows)):
            *linear, shift = sight.camera.matrix[k] / sight.camera.matrix[3, 3]
            reach.append(np.abs(linear))
            extents.append(np.ptp(places) + 1.0)
            centre.append(linear)
            middles.append((places.min() + places.max() + 1) / 2 - shift)
    middle = np.linalg.lstsq(np.array(centre), np.array(middles), rcond=None)[0]
    sides, _ = nnls(np.array(reach), np.array(extents))
    _, sizes, ways = np.linalg.svd(np.array(reach))
    if sizes[-1] > SAME_EXTENT * sizes[0]:
        return [(middle, sides)] if sides.min() > 0 else []
    way = ways[-1]  # along which the silhouettes do not change
    open_ = np.abs(way) > LEAST_OPEN
    ends = -sides[open_] / way[open_]
    behind = ends[way[open_] > 0].max(initial=-np.inf)
    ahead = ends[way[open_] < 0].min(initial=np.inf)
    return [
        (middle, sides + (behind + share * (ahead - behind)) * way)
        for share in SHARES_TRIED
        if np.isfinite(ahead - behind)
    ]
