"""Is a random part any good? Loops that do not touch themselves or each other, steps that show.

    if tangled(step.loops) or shown_steps(drawing) < len(program): ...

Compiled by numba, because it is asked for every draw. Left out: what only a CAD
kernel can say; `metrics/execution.py` runs every part that is written.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from image2cad.programs import Loop
from image2cad.solids import Drawing, outline

Array = NDArray[Any]
LOOK = 112  # pixels a side of the look at a part, which is coarser than its picture
# Columns, rows and depth of a look along (-1, 1, -1), as in the picture.
VIEW = np.array([[1, 1, 0], [1, -1, -2], [1, -1, 1]]) / np.sqrt([[2], [6], [3]])
FILLED = 2 / 3  # of the look's height, by the part


def tangled(loops: Sequence[Loop]) -> bool:
    """Whether any two edges of a sketch cross or touch, other than neighbours at their corner."""
    rings = [np.concatenate([points for points, _, _ in outline(loop)]) for loop in loops]
    if any(len(ring) < 3 for ring in rings):
        return True
    following = np.concatenate([np.roll(ring, -1, axis=0) for ring in rings])
    number = np.repeat(np.arange(len(rings)), [len(ring) for ring in rings])
    return bool(_tangled(np.concatenate(rings), following, number))


@njit(cache=True)
def _tangled(start, end, ring):  # type: ignore[no-untyped-def]
    tiny = 1e-9
    for i in range(len(start)):
        ax, ay, bx, by = start[i, 0], start[i, 1], end[i, 0], end[i, 1]
        left, right, low, high = min(ax, bx), max(ax, bx), min(ay, by), max(ay, by)
        for j in range(i + 1, len(start)):
            cx, cy, dx, dy = start[j, 0], start[j, 1], end[j, 0], end[j, 1]
            if (
                min(cx, dx) > right + tiny
                or max(cx, dx) < left - tiny
                or min(cy, dy) > high + tiny
                or max(cy, dy) < low - tiny
            ):
                continue
            if ring[i] == ring[j]:
                # Neighbours share a corner; they must not turn back on each other.
                if cx == bx and cy == by:
                    cross = (bx - ax) * (dy - cy) - (by - ay) * (dx - cx)
                    if abs(cross) < tiny and (bx - ax) * (dx - cx) + (by - ay) * (dy - cy) < 0:
                        return True
                    continue
                if dx == ax and dy == ay:
                    cross = (bx - ax) * (dy - cy) - (by - ay) * (dx - cx)
                    if abs(cross) < tiny and (bx - ax) * (dx - cx) + (by - ay) * (dy - cy) < 0:
                        return True
                    continue
            p = (bx - ax) * (cy - ay) - (by - ay) * (cx - ax)
            q = (bx - ax) * (dy - ay) - (by - ay) * (dx - ax)
            r = (dx - cx) * (ay - cy) - (dy - cy) * (ax - cx)
            s = (dx - cx) * (by - cy) - (dy - cy) * (bx - cx)
            if (p > tiny and q > tiny) or (p < -tiny and q < -tiny):
                continue
            if (r > tiny and s > tiny) or (r < -tiny and s < -tiny):
                continue
            return True
    return False


def shown_steps(drawing: Drawing, least: int = 4) -> int:
    """How many of the part's steps show at least `least` pixels of a face in its picture."""
    mesh = drawing.manifold.to_mesh64()
    points = np.asarray(mesh.vert_properties)[:, :3]
    triangles = np.asarray(mesh.tri_verts).astype(np.int64)
    runs = np.asarray(mesh.run_index).astype(np.int64) // 3
    _, run_owner = np.unique(np.asarray(mesh.run_original_id), return_inverse=True)
    owners = np.repeat(run_owner.ravel(), np.diff(runs))
    low, high = points.min(axis=0), points.max(axis=0)
    width, height, _ = np.abs(VIEW) @ (high - low)
    scale = FILLED * LOOK / max(height, 0.75 * width)
    screen = scale * (points - (low + high) / 2) @ VIEW.T + np.array([LOOK / 2, LOOK / 2, 0.0])
    counts = _visible(screen, triangles, owners, LOOK)
    return int(np.count_nonzero(counts >= least))


@njit(cache=True)
def _visible(screen, triangles, owners, size):  # type: ignore[no-untyped-def]
    """Pixels in which each owner's triangles are the nearest."""
    depth = np.full((size, size), -np.inf)
    nearest = np.full((size, size), -1)
    for t in range(triangles.shape[0]):
        a, b, c = triangles[t]
        ax, ay, bx, by, cx, cy = (
            screen[a, 0], screen[a, 1], screen[b, 0], screen[b, 1], screen[c, 0], screen[c, 1],
        )  # fmt: skip
        area = (bx - ax) * (cy - ay) - (by - ay) * (cx - ax)
        # Rows run downwards: faces turned to the eye are clockwise on the screen.
        if area > -1e-12:
            continue
        top = max(int(np.ceil(min(ay, by, cy) - 0.5)), 0)
        bottom = min(int(np.floor(max(ay, by, cy) - 0.5)), size - 1)
        left = max(int(np.ceil(min(ax, bx, cx) - 0.5)), 0)
        right = min(int(np.floor(max(ax, bx, cx) - 0.5)), size - 1)
        for row in range(top, bottom + 1):
            y = row + 0.5
            for col in range(left, right + 1):
                x = col + 0.5
                wb = ((x - ax) * (cy - ay) - (y - ay) * (cx - ax)) / area
                wc = ((bx - ax) * (y - ay) - (by - ay) * (x - ax)) / area
                if wb < 0 or wc < 0 or wb + wc > 1:
                    continue
                z = (1 - wb - wc) * screen[a, 2] + wb * screen[b, 2] + wc * screen[c, 2]
                if z > depth[row, col]:
                    depth[row, col] = z
                    nearest[row, col] = owners[t]
    counts = np.zeros(owners.max() + 1, dtype=np.int64)
    for row in range(size):
        for col in range(size):
            if nearest[row, col] >= 0:
                counts[nearest[row, col]] += 1
    return counts
