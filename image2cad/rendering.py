"""Draw the picture that GenCAD-Code shows for a solid.

    from metrics.execution import run_cadquery
    from image2cad.rendering import draw
    picture = draw(run_cadquery(code))          # (448, 448, 3) uint8

The rule: orthographic view along (1, -1, 1) with z up, linear light from the
eye, black one-pixel B-rep edges where they are visible, white background. The
solid's box is centred and scaled to fill the frame, so absolute size and
position are lost. A small z-buffer compiled by numba does the work.

`shape` is a `metrics.execution.Part`, a `solids.Drawing`, or anything with the
same six arrays. Left out: shadows, perspective, silhouette outlines and hidden
lines (GenCAD-Code's pictures have none), and other views.
"""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
from numba import njit
from numpy.typing import NDArray

SIZE = 448  # the pictures of GenCAD-Code
MARGIN = 1.5  # picture side over the part's side: FitAll(0.5)
ASPECT = 0.75  # the viewer was 640 x 480 before the resize to a square
RIGHT = np.array([1.0, 1.0, 0.0]) / np.sqrt(2)
UP = np.array([-1.0, 1.0, 2.0]) / np.sqrt(6)
EYE = np.array([1.0, -1.0, 1.0]) / np.sqrt(3)
AMBIENT = np.array([0.0615, 0.0615, 0.0509])
DIFFUSE = 0.3547
SPECULAR = np.array([0.95, 0.93, 0.88])
SHININESS = 96.0
LINE_BIAS = -0.001  # pixels: which side of a tie a line falls on
SHADES = 4096
WHITE, BLACK = SHADES, SHADES + 1  # rows of the table of tones

Array = NDArray[Any]


class Shape(Protocol):
    """What can be drawn: triangles with unit normals, and the B-rep's edges as polylines."""

    @property
    def vertices(self) -> Array: ...  # (N, 3)
    @property
    def normals(self) -> Array: ...  # (N, 3)
    @property
    def triangles(self) -> Array: ...  # (M, 3) rows of `vertices`
    @property
    def edge_points(self) -> Array: ...  # (P, 3)
    @property
    def edge_starts(self) -> Array: ...  # (E + 1,) rows of `edge_points`


def draw(shape: Shape, size: int = SIZE) -> Array:
    """Draw `shape` as an (size, size, 3) uint8 picture.

    Any size is drawn at 448 and then reduced: drawn smaller directly, the lines
    cover too much. Raises ValueError for a shape without triangles or with a
    coordinate that is not finite, and for a size outside 1..448.
    """
    if not 1 <= size <= SIZE:
        raise ValueError(f"size must be between 1 and {SIZE}, not {size}")
    vertices = np.asarray(shape.vertices, dtype=np.float64)
    triangles = np.asarray(shape.triangles, dtype=np.int64)
    if len(triangles) == 0 or not np.isfinite(vertices).all():
        raise ValueError(
            "nothing to draw: the shape has no triangles or a coordinate is not finite"
        )
    to_screen, offset = camera(vertices[triangles.ravel()])
    screen = vertices @ to_screen.T + offset
    lines = np.asarray(shape.edge_points, dtype=np.float64) @ to_screen.T + offset
    facing = np.abs(np.asarray(shape.normals, dtype=np.float64) @ EYE)
    depth = np.full((SIZE, SIZE), -np.inf)
    tone = np.full((SIZE, SIZE), WHITE, dtype=np.int16)
    _fill(screen, triangles, facing, depth, tone)
    _trace(lines, np.asarray(shape.edge_starts, dtype=np.int64), depth, tone)
    picture = _TONES[tone]
    return picture if size == SIZE else reduce(picture, size)


def camera(points: Array) -> tuple[Array, Array]:
    """The (3, 3) matrix and (3,) offset from model units to (column, row, depth) in pixels.

    Columns grow to the right, rows downwards, depth towards the eye.
    """
    low, high = points.min(axis=0), points.max(axis=0)
    dx, dy, dz = high - low
    width, height = (dx + dy) / np.sqrt(2), (dx + dy + 2 * dz) / np.sqrt(6)
    scale = SIZE / (MARGIN * max(height, ASPECT * width, 1e-300))
    matrix = scale * np.stack([RIGHT, -UP, EYE])
    offset = np.array([SIZE / 2, SIZE / 2, 0.0]) - matrix @ ((low + high) / 2)
    return matrix, offset


def reduce(picture: Array, size: int) -> Array:
    """Reduce a square uint8 picture to `size` pixels a side by averaging areas."""
    from PIL import Image

    return np.asarray(Image.fromarray(picture).resize((size, size), Image.Resampling.BOX))


def _tones() -> Array:
    """(SHADES + 2, 3) table: the shades from edge-on to face-on, then WHITE and BLACK."""
    facing = np.linspace(0.0, 1.0, SHADES)[:, None]
    linear = AMBIENT + DIFFUSE * facing + SPECULAR * facing**SHININESS
    linear = np.clip(linear, 0.0, 1.0)
    srgb = np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
    return np.vstack([np.rint(255 * srgb), [[255] * 3, [0] * 3]]).astype(np.uint8)


_TONES = _tones()


@njit(cache=True)
def _fill(screen, triangles, facing, depth, tone):  # type: ignore[no-untyped-def]
    """Z-buffer the triangles; keep the tone of the nearest and its depth, pushed back."""
    size = depth.shape[0]
    raw = np.full((size, size), -np.inf)
    for t in range(triangles.shape[0]):
        a, b, c = triangles[t]
        ax, ay, bx, by, cx, cy = (
            screen[a, 0], screen[a, 1], screen[b, 0], screen[b, 1], screen[c, 0], screen[c, 1],
        )  # fmt: skip
        area = (bx - ax) * (cy - ay) - (by - ay) * (cx - ax)
        if abs(area) < 1e-12:
            continue
        az, bz, cz = screen[a, 2], screen[b, 2], screen[c, 2]
        slope_x = ((bz - az) * (cy - ay) - (cz - az) * (by - ay)) / area
        slope_y = ((cz - az) * (bx - ax) - (bz - az) * (cx - ax)) / area
        push = max(abs(slope_x), abs(slope_y)) + 1e-4
        top = max(int(np.ceil(min(ay, by, cy) - 0.5)), 0)
        bottom = min(int(np.floor(max(ay, by, cy) - 0.5)), size - 1)
        for row in range(top, bottom + 1):
            y = row + 0.5
            left, right = np.inf, -np.inf
            for x0, y0, x1, y1 in ((ax, ay, bx, by), (bx, by, cx, cy), (cx, cy, ax, ay)):
                if (y0 <= y) != (y1 <= y):
                    x = x0 + (y - y0) * (x1 - x0) / (y1 - y0)
                    left, right = min(left, x), max(right, x)
            if left > right:
                continue
            first = max(int(np.ceil(left - 0.5)), 0)
            last = min(int(np.ceil(right - 0.5)) - 1, size - 1)
            for col in range(first, last + 1):
                x = col + 0.5
                z = az + slope_x * (x - ax) + slope_y * (y - ay)
                if z > raw[row, col]:
                    raw[row, col] = z
                    depth[row, col] = z - push
                    wb = ((x - ax) * (cy - ay) - (y - ay) * (cx - ax)) / area
                    wc = ((bx - ax) * (y - ay) - (by - ay) * (x - ax)) / area
                    value = facing[a] * (1.0 - wb - wc) + facing[b] * wb + facing[c] * wc
                    tone[row, col] = int(min(max(value, 0.0), 1.0) * (SHADES - 1) + 0.5)


@njit(cache=True)
def _trace(points, starts, depth, tone):  # type: ignore[no-untyped-def]
    """Draw each polyline one pixel wide where it is not behind a face."""
    size = depth.shape[0]
    for e in range(starts.shape[0] - 1):
        for i in range(starts[e], starts[e + 1] - 1):
            x0, y0, z0 = points[i, 0] + LINE_BIAS, points[i, 1] + LINE_BIAS, points[i, 2]
            x1, y1, z1 = (
                points[i + 1, 0] + LINE_BIAS,
                points[i + 1, 1] + LINE_BIAS,
                points[i + 1, 2],
            )
            flat = abs(x1 - x0) >= abs(y1 - y0)
            u0, v0, u1, v1 = (x0, y0, x1, y1) if flat else (y0, x0, y1, x1)
            if u0 > u1:
                u0, v0, z0, u1, v1, z1 = u1, v1, z1, u0, v0, z0
            if u1 - u0 < 1e-9:
                continue
            for step in range(max(int(np.ceil(u0 - 0.5)), 0), min(int(np.ceil(u1 - 0.5)), size)):
                share = (step + 0.5 - u0) / (u1 - u0)
                other = int(np.floor(v0 + share * (v1 - v0)))
                if other < 0 or other >= size:
                    continue
                row, col = (other, step) if flat else (step, other)
                if z0 + share * (z1 - z0) >= depth[row, col]:
                    tone[row, col] = BLACK
