"""A solid painted as directions of faces and lines: what a drawing shows whatever its style.

    seen = paint(shape, camera, 448)            # Painting(depth, code, ink)
    both = paint(block, camera, 112, over=scene)

Another viewer's light and colours are not known, but faces of one direction look alike in it. So
each pixel holds the code of the direction that its face has; which tone a direction has is found
when a painting is compared with a picture (verification/sights.py). Left out: outlines of round
faces, and lines on one plane, which only programs have: a union's parts are one solid elsewhere.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numba import njit

from image2cad.common import Array
from image2cad.rendering.camera import Camera
from image2cad.rendering.raster import BLACK, GROUND, Drawable, _fill, _lines

CODE_SIDE = 48  # codes along a side of the octahedron that directions are folded onto
NO_FACE = CODE_SIDE * CODE_SIDE  # the code beside the shape
FLUSH_REACH = 2  # pixels beside a line that are looked at
FLUSH_STEP = 1.5  # pixels of depth between a plane and what is beside a line on it


@dataclass(frozen=True, eq=False)
class Painting:
    """(S, S) of what is nearest in each pixel.

    depth: float32, -inf beside the shape. code: int16, of the face's direction, or NO_FACE.
    ink: bool, a line is seen.
    """

    depth: Array
    code: Array
    ink: Array


def blank_painting(size: int) -> Painting:
    """Nothing, `size` pixels a side."""
    shape = (size, size)
    return Painting(
        np.full(shape, -np.inf, dtype=np.float32),
        np.full(shape, NO_FACE, dtype=np.int16),
        np.zeros(shape, dtype=np.bool_),
    )


def paint(
    shape: Drawable,
    camera: Camera,
    size: int,
    lines: bool = True,
    over: Painting | None = None,
    moved: tuple[Array, Array] | None = None,
) -> Painting:
    """`shape` seen by `camera` (of a picture of `size` pixels a side), before or behind `over`.

    lines: whether the style has any. moved: vertices and edge points in place of the shape's.
    """
    vertices, points = moved or (shape.vertices, shape.edge_points)
    base = over or blank_painting(size)
    depth, ink = base.depth.copy(), np.zeros((size, size), dtype=np.int16)
    nearest = np.full((size, size), GROUND, dtype=np.int32)
    screen = camera.project(np.asarray(vertices, dtype=np.float64))
    triangles = np.asarray(shape.triangles, dtype=np.int64)
    normals = np.ascontiguousarray(shape.normals, dtype=np.float64)
    _fill(screen, triangles, normals, normals[:, 0], depth, nearest, 1.0, True)
    code = base.code.copy()
    seen = base.ink.copy()
    _to_codes(nearest, screen, triangles, normals, code, seen)
    if lines:
        starts = np.asarray(shape.edge_starts, dtype=np.int64)
        seams = getattr(shape, "seams", None)
        shown = np.ones(len(starts) - 1, dtype=np.bool_) if seams is None else ~np.asarray(seams)
        _lines(camera.project(np.asarray(points, dtype=np.float64)), starts, shown, depth, ink)
        _off_planes(code, depth, ink, seen)
    return Painting(depth, code, seen)


def code_of(normal: Array) -> int:
    """The code of a direction (3,)."""
    return int(_code(float(normal[0]), float(normal[1]), float(normal[2])))


def directions() -> Array:
    """(NO_FACE, 3) the unit vectors that codes stand for."""
    ticks = np.linspace(-1.0, 1.0, CODE_SIDE)
    u, v = (grid.ravel() for grid in np.meshgrid(ticks, ticks, indexing="ij"))
    z = 1 - np.abs(u) - np.abs(v)
    below = z < 0
    folded = (
        np.where(below, (1 - np.abs(v)) * np.where(u >= 0, 1, -1), u),
        np.where(below, (1 - np.abs(u)) * np.where(v >= 0, 1, -1), v),
    )
    found = np.stack([*folded, z], axis=1)
    out: Array = found / np.linalg.norm(found, axis=1, keepdims=True)
    return out


# ---- Compiled


@njit(cache=True, nogil=True)
def _code(x, y, z):  # type: ignore[no-untyped-def]
    """Octahedral coordinates (Meyer et al. 2010) on a grid of CODE_SIDE x CODE_SIDE."""
    total = abs(x) + abs(y) + abs(z)
    if total < 1e-12:
        return 0
    u, v = x / total, y / total
    if z < 0:
        u, v = (1 - abs(v)) * (1.0 if u >= 0 else -1.0), (1 - abs(u)) * (1.0 if v >= 0 else -1.0)
    half = 0.5 * (CODE_SIDE - 1)
    return int((u + 1) * half + 0.5) * CODE_SIDE + int((v + 1) * half + 0.5)


@njit(cache=True, nogil=True)
def _to_codes(nearest, screen, triangles, normals, code, ink):  # type: ignore[no-untyped-def]
    """The codes of the numbered triangles, between the normals of their corners."""
    height, width = nearest.shape
    flat = np.empty(triangles.shape[0], dtype=np.int32)
    for t in range(triangles.shape[0]):
        a, b, c = triangles[t]
        ab, bc = 0.0, 0.0
        for k in range(3):
            ab += normals[a, k] * normals[b, k]
            bc += normals[b, k] * normals[c, k]
        flat[t] = -1
        if min(ab, bc) > 1 - 1e-9:
            flat[t] = _code(normals[a, 0], normals[a, 1], normals[a, 2])
    for row in range(height):
        for col in range(width):
            t = nearest[row, col]
            if t < 0:
                continue
            ink[row, col] = False
            if flat[t] >= 0:
                code[row, col] = flat[t]
                continue
            a, b, c = triangles[t]
            ax, ay, bx, by, cx, cy = (
                screen[a, 0], screen[a, 1], screen[b, 0], screen[b, 1], screen[c, 0], screen[c, 1],
            )  # fmt: skip
            area, x, y = (bx - ax) * (cy - ay) - (by - ay) * (cx - ax), col + 0.5, row + 0.5
            wb = ((x - ax) * (cy - ay) - (y - ay) * (cx - ax)) / area
            wc = ((bx - ax) * (y - ay) - (by - ay) * (x - ax)) / area
            wa = 1.0 - wb - wc
            code[row, col] = _code(
                wa * normals[a, 0] + wb * normals[b, 0] + wc * normals[c, 0],
                wa * normals[a, 1] + wb * normals[b, 1] + wc * normals[c, 1],
                wa * normals[a, 2] + wb * normals[b, 2] + wc * normals[c, 2],
            )


@njit(cache=True, nogil=True)
def _off_planes(code, depth, ink, seen):  # type: ignore[no-untyped-def]
    """Keep in `seen` the ink that has, on some side, another face or a step of depth beside it."""
    height, width = code.shape
    for row in range(height):
        for col in range(width):
            if ink[row, col] != BLACK:
                continue
            kept = False
            for way in range(4):
                dr, dc = ((0, 1), (1, 0), (1, 1), (1, -1))[way]
                r0, c0, r1, c1 = (
                    row - FLUSH_REACH * dr, col - FLUSH_REACH * dc,
                    row + FLUSH_REACH * dr, col + FLUSH_REACH * dc,
                )  # fmt: skip
                if min(r0, c0, r1, c1) < 0 or max(r0, r1) >= height or max(c0, c1) >= width:
                    kept = True
                    break
                one, other, here = code[r0, c0], code[r1, c1], code[row, col]
                if one != other or one != here or one == NO_FACE:
                    kept = True
                    break
                bend = abs(depth[r0, c0] + depth[r1, c1] - 2 * depth[row, col])
                if bend > FLUSH_STEP:
                    kept = True
                    break
            if kept:
                seen[row, col] = True
