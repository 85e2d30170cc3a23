"""A small rasteriser for shaded pictures with B-rep edges, compiled by numba.

    picture = draw(shape)                                   # (448, 448, 3) uint8
    picture = draw(shape, size=224, eye=(1, 1, 1), seams=False)
    picture = draw(shape, camera=perspective((1, -1, 1), focal=900, distance=400))

The rule is the one that GenCAD-Code's pictures follow: orthographic view along
(1, -1, 1) with z up, linear light along the line of sight, black one-pixel edges where they
are visible, white background. The mesh's box is centred and scaled to fill the
frame, so absolute size and position are lost; with a `camera` they are not.

`shape` is a measured `Part`, a `Drawing` of the light engine, a `Mesh`, or anything with
the same arrays. Left out: other looks (styles.py), and hidden lines.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numba import njit
from numpy.typing import NDArray

from image2cad.common import Array
from image2cad.rendering.camera import EYE, SIZE, Camera, camera_of

AMBIENT = np.array([0.0615, 0.0615, 0.0509])
DIFFUSE = 0.3547
SPECULAR = np.array([0.95, 0.93, 0.88])
SHININESS = 96.0
LINE_BIAS = -0.001  # pixels: which side of a tie a line falls on
SHADES = 4096

WHITE, BLACK = SHADES, SHADES + 1  # rows of the table of tones
LEAST_AREA = 1e-12  # square pixels, twice: of a triangle that is drawn
GROUND = -1  # no triangle

Picture = NDArray[np.uint8]  # (N, N, 3), or its red channel (N, N)


class Drawable(Protocol):
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
    @property
    def bounding_box(self) -> Array: ...  # (2, 3) lowest and highest corner


# ---- Drawing


def draw(
    shape: Drawable,
    size: int = SIZE,
    eye: Sequence[float] = EYE,
    seams: bool = True,
    camera: Camera | None = None,
) -> Array:
    """Draw `shape` as an (size, size, 3) uint8 picture.

    Any size is drawn at 448 and then reduced: drawn smaller directly, the lines
    cover too much. `eye` is the direction from the part to the viewer, of any
    length; `camera`, of a picture of 448 pixels a side, is used instead of GenCAD's framing of the
    part. Without `seams`, lines that only close a cylinder are left out; that
    needs a shape that knows them (`shape.seams`, (E,) bool; a `Part` does not).

    Raises ValueError for a shape without triangles or with a coordinate that is
    not finite, for a size outside 1..448, for an eye without direction, for a part that
    reaches behind the viewer, and for seams that are not known.
    """
    if not 1 <= size <= SIZE:
        raise ValueError(f"size must be between 1 and {SIZE}, not {size}")
    triangles = np.asarray(shape.triangles, dtype=np.int64)
    camera = camera or camera_of(np.asarray(shape.bounding_box, dtype=np.float64), eye)
    vertices = np.asarray(shape.vertices, dtype=np.float64)
    screen = camera.project(vertices)
    lines = camera.project(np.asarray(shape.edge_points, dtype=np.float64))
    if len(triangles) == 0 or not (np.isfinite(screen).all() and np.isfinite(lines).all()):
        raise ValueError(
            "nothing to draw: the shape has no triangles or a coordinate is not finite"
        )
    if not camera.sees(vertices):
        raise ValueError("the part reaches behind the viewer; move the camera away from it")
    starts = np.asarray(shape.edge_starts, dtype=np.int64)
    shown = np.ones(len(starts) - 1, dtype=np.bool_)
    if not seams:
        known = getattr(shape, "seams", None)
        if known is None or len(known) != len(shown):
            raise ValueError("this shape does not know which of its edges are seams")
        shown = ~np.asarray(known, dtype=np.bool_)
    normals = np.asarray(shape.normals, dtype=np.float64)
    picture = np.full((SIZE, SIZE, 3), 255, dtype=np.uint8)
    _draw(screen, triangles, normals, normals @ camera.view, lines, starts, shown, TONES, picture)
    return picture if size == SIZE else reduce(picture, size)


def draw_roughly(shape: Drawable, size: int, camera: Camera | None = None) -> Array:
    """The red channel of `draw`, (size, size) uint8, drawn at that size at once.

    Much faster, and for comparing with its like only: a line is one pixel wide at any size.
    """
    camera = (camera or camera_of(shape.bounding_box)).zoomed(size / SIZE)
    screen, lines = camera.project(shape.vertices), camera.project(shape.edge_points)
    facing = shape.normals @ camera.view
    shown = np.ones(len(shape.edge_starts) - 1, dtype=np.bool_)
    depth = np.full((size, size), -np.inf, dtype=np.float32)
    tone = np.full((size, size), WHITE, dtype=np.int16)
    draw_into(
        screen, shape.triangles, shape.normals, facing, lines, shape.edge_starts, shown, depth, tone
    )
    red: Array = RED[tone]
    return red


def shade_facing(facing: float) -> int:
    """The red, 0 to 255, of a face that is seen at this cosine, 0 edge on to 1."""
    return int(RED[int(min(abs(facing), 1.0) * (SHADES - 1) + 0.5)])


def pixels_seen(screen: Array, triangles: Array, owners: Array, size: int) -> Array:
    """In how many of (size, size) pixels each owner's triangles are the nearest: (owners,).

    screen: (N, 3) columns, rows and depths. triangles: (M, 3) rows of it. owners: (M,) numbers
    from 0. What faces away is not drawn.
    """
    corners = screen[triangles]
    one, other = (corners[:, i, :2] - corners[:, 0, :2] for i in (1, 2))
    # Rows run downwards: faces turned to the eye are clockwise on the screen.
    front = one[:, 0] * other[:, 1] - one[:, 1] * other[:, 0] <= -1e-12
    corners = np.ascontiguousarray(corners[front].reshape(-1, 3))
    rows = np.arange(len(corners)).reshape(-1, 3)
    depth = np.full((size, size), -np.inf, dtype=np.float32)
    nearest = np.full((size, size), GROUND, dtype=np.int32)
    _fill(corners, rows, corners, corners[:, 0], depth, nearest, 0.0, True)
    return np.bincount(owners[front][nearest[nearest != GROUND]], minlength=int(owners.max()) + 1)


@dataclass(frozen=True, eq=False)
class Seen:
    """What a camera sees of a shape in each of (H, W) pixels.

    depth: float32, -inf beside the shape. triangle: int32 row of the shape's triangles, or GROUND.
    normal: (H, W, 3) float32 outward unit vectors, 0 beside the shape. line: bool, a line is seen.
    """

    depth: Array
    triangle: Array
    normal: Array
    line: Array


def look(
    shape: Drawable, camera: Camera, size: tuple[int, int], lines: tuple[Array, Array] | None = None
) -> Seen:
    """What `camera` sees of `shape` in a picture of `size` (width, height).

    lines: points (P, 3) and starts (E + 1,) of polylines to look for instead of the shape's edges.
    Lines are one pixel wide.
    """
    points, starts = (shape.edge_points, shape.edge_starts) if lines is None else lines
    screen = camera.project(np.asarray(shape.vertices, dtype=np.float64))
    triangles = np.asarray(shape.triangles, dtype=np.int64)
    depth = np.full((size[1], size[0]), -np.inf, dtype=np.float32)
    nearest = np.full(depth.shape, GROUND, dtype=np.int32)
    normals = np.asarray(shape.normals, dtype=np.float64)
    _fill(screen, triangles, normals, normals[:, 0], depth, nearest, 1.0, True)
    ink = np.zeros(depth.shape, dtype=np.int16)
    _lines(
        camera.project(np.asarray(points, dtype=np.float64)), np.asarray(starts, dtype=np.int64),
        np.ones(max(len(starts) - 1, 0), dtype=np.bool_), depth, ink,
    )  # fmt: skip
    normal = np.zeros((*depth.shape, 3), dtype=np.float32)
    _turn(nearest, screen, triangles, normals, normal)
    return Seen(depth, nearest, normal, ink == BLACK)


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


TONES = _tones()
RED = np.ascontiguousarray(TONES[:, 0])


# ---- Compiled: triangles and lines into a buffer of depths and tones


@njit(cache=True, nogil=True)
def _draw(screen, triangles, normals, facing, points, starts, shown, tones, picture):  # type: ignore[no-untyped-def]
    size = picture.shape[0]
    depth = np.full((size, size), -np.inf, dtype=np.float32)
    tone = np.full((size, size), WHITE, dtype=np.int16)
    draw_into(screen, triangles, normals, facing, points, starts, shown, depth, tone)
    for row in range(size):
        for col in range(size):
            value = tone[row, col]
            if value != WHITE:
                for k in range(3):
                    picture[row, col, k] = tones[value, k]


@njit(cache=True, nogil=True)
def draw_into(screen, triangles, normals, facing, points, starts, shown, depth, tone):  # type: ignore[no-untyped-def]
    """Draw into `depth` (S, S) float32 and `tone` (S, S) int16, rows of `TONES`, what is nearer."""
    _fill(screen, triangles, normals, facing, depth, tone, 1.0, False)
    _lines(points, starts, shown, depth, tone)


@njit(cache=True, nogil=True)
def _fill(screen, triangles, normals, facing, depth, tone, slopes, numbered):  # type: ignore[no-untyped-def]
    """Z-buffer the triangles; keep depth and tone of the nearest, or its row where `numbered`.

    They are pushed back by `slopes` times what a pixel's slope takes: the lines on them show.
    """
    height, width = depth.shape
    for t in range(triangles.shape[0]):
        a, b, c = triangles[t]
        ax, ay, bx, by, cx, cy = (
            screen[a, 0], screen[a, 1], screen[b, 0], screen[b, 1], screen[c, 0], screen[c, 1],
        )  # fmt: skip
        area = (bx - ax) * (cy - ay) - (by - ay) * (cx - ax)
        if abs(area) < LEAST_AREA:
            continue
        az, bz, cz = screen[a, 2], screen[b, 2], screen[c, 2]
        slope_x = ((bz - az) * (cy - ay) - (cz - az) * (by - ay)) / area
        slope_y = ((cz - az) * (bx - ax) - (bz - az) * (cx - ax)) / area
        push = slopes * (max(abs(slope_x), abs(slope_y)) + 1e-4)
        ab, bc, ca = 0.0, 0.0, 0.0
        for k in range(3):
            ab += normals[a, k] * normals[b, k]
            bc += normals[b, k] * normals[c, k]
            ca += normals[c, k] * normals[a, k]
        flat = numbered or min(ab, bc, ca) > 1 - 1e-9
        shade = t if numbered else int(min(abs(facing[a]), 1.0) * (SHADES - 1) + 0.5)
        top = max(int(np.ceil(min(ay, by, cy) - 0.5)), 0)
        bottom = min(int(np.floor(max(ay, by, cy) - 0.5)), height - 1)
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
            last = min(int(np.ceil(right - 0.5)) - 1, width - 1)
            z0 = az - push + slope_y * (y - ay) - slope_x * ax
            for col in range(first, last + 1):
                x = col + 0.5
                z = np.float32(z0 + slope_x * x)
                if z > depth[row, col]:
                    depth[row, col] = z
                    if not flat:
                        wb = ((x - ax) * (cy - ay) - (y - ay) * (cx - ax)) / area
                        wc = ((bx - ax) * (y - ay) - (by - ay) * (x - ax)) / area
                        wa = 1.0 - wb - wc
                        # The interpolated normal is shorter than 1 between its ends.
                        square = wa * wa + wb * wb + wc * wc
                        square += 2.0 * (wa * wb * ab + wb * wc * bc + wc * wa * ca)
                        value = abs(facing[a] * wa + facing[b] * wb + facing[c] * wc)
                        value /= np.sqrt(max(square, 1e-12))
                        shade = int(min(value, 1.0) * (SHADES - 1) + 0.5)
                    tone[row, col] = shade


@njit(cache=True, nogil=True)
def _turn(nearest, screen, triangles, normals, normal):  # type: ignore[no-untyped-def]
    """The unit normal of the nearest triangle in each pixel, between those of its corners."""
    height, width = nearest.shape
    for row in range(height):
        for col in range(width):
            t = nearest[row, col]
            if t == GROUND:
                continue
            a, b, c = triangles[t]
            ax, ay, bx, by, cx, cy = (
                screen[a, 0], screen[a, 1], screen[b, 0], screen[b, 1], screen[c, 0], screen[c, 1],
            )  # fmt: skip
            area, x, y = (bx - ax) * (cy - ay) - (by - ay) * (cx - ax), col + 0.5, row + 0.5
            wb = ((x - ax) * (cy - ay) - (y - ay) * (cx - ax)) / area
            wc = ((bx - ax) * (y - ay) - (by - ay) * (x - ax)) / area
            wa, square = 1.0 - wb - wc, 0.0
            for k in range(3):
                value = wa * normals[a, k] + wb * normals[b, k] + wc * normals[c, k]
                normal[row, col, k] = value
                square += value * value
            for k in range(3):
                normal[row, col, k] /= np.sqrt(max(square, 1e-12))


@njit(cache=True, nogil=True)
def _lines(points, starts, shown, depth, tone):  # type: ignore[no-untyped-def]
    for e in range(starts.shape[0] - 1):
        if shown[e]:
            for i in range(starts[e], starts[e + 1] - 1):
                _line(points[i], points[i + 1], depth, tone)


@njit(cache=True, nogil=True)
def _line(start, end, depth, tone):  # type: ignore[no-untyped-def]
    """Draw a line one pixel wide where no face hides it, by OpenGL's diamond-exit rule."""
    height, width = depth.shape
    x0, y0, z0 = start[0] + LINE_BIAS, start[1] + LINE_BIAS, start[2]
    x1, y1, z1 = end[0] + LINE_BIAS, end[1] + LINE_BIAS, end[2]
    flat = abs(x1 - x0) >= abs(y1 - y0)
    u0, v0, u1, v1 = (x0, y0, x1, y1) if flat else (y0, x0, y1, x1)
    span = u1 - u0
    if abs(span) < 1e-9:
        return
    first, last = np.floor(u0), np.floor(u1)
    length, breadth = (width, height) if flat else (height, width)
    low, high = int(max(min(first, last), 0.0)), int(min(max(first, last), length - 1.0))
    for along in range(low, high + 1):
        share = (along + 0.5 - u0) / span
        inside = 0.0 <= share <= 1.0
        if along == first and share < 0.0:
            inside = abs(u0 - along - 0.5) + abs(v0 - np.floor(v0) - 0.5) < 0.5
        if along == last and inside and share >= 0.0:
            inside = abs(u1 - along - 0.5) + abs(v1 - np.floor(v1) - 0.5) >= 0.5
        across = v0 + share * (v1 - v0)
        if not inside or not 0.0 <= across < breadth:
            continue
        other = int(across)
        row, col = (other, along) if flat else (along, other)
        if z0 + min(max(share, 0.0), 1.0) * (z1 - z0) >= depth[row, col]:
            tone[row, col] = BLACK
