"""Parts in the looks of other viewers, of drawings and of the field's boards.

    picture = draw_in_style(shape, "shaded", eye=(1, 1, 0.7), angle=30)     # (448, 448, 3) uint8
    picture = draw_in_style(shape, "benchcad")                              # (524, 524, 3)
    views = views_of("benchcad", shape)                 # the cameras of a picture, and their tiles
    picture = draw_in_style(shape, "any", chance=random.Random(1))          # another each time

`gencad` is GenCAD-Code's own rule (raster.py). `cadbench` and `cadbench-views` are CADBench's
single view and its four, `benchcad` is BenchCAD's composite: their cameras and scales are exact,
as the boards' programs have them (DeCoDELab/CADBench, BenchCAD/BenchCAD), their light nearly so.
`sheet` and `sheet-first` are drawing sheets in third and first angle. Left out: CADBench's
photoreal pictures, dimensions, hidden lines as dashes.
"""

from __future__ import annotations

import colorsys
import random
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from image2cad.common import Array, InputError
from image2cad.rendering.camera import (
    EYE,
    SIZE,
    Camera,
    axes_seen_from,
    camera_of,
    filling,
    orthographic,
)
from image2cad.rendering.outlines import both_lines, sharp_lines, turning_lines
from image2cad.rendering.raster import Drawable, Seen, draw, look, reduce

Colour = tuple[float, float, float]  # 0 to 1
Light = tuple[tuple[float, float, float], float]  # direction to the light, intensity
WHITE_PAPER: Colour = (1.0, 1.0, 1.0)
FINER_PIXELS = 2  # times as many pixels a side as the picture has, from which it is reduced
GLOSS = 20.0  # exponent of the highlight
HEADLIGHT: tuple[Light, ...] = (((0.0, 0.0, 1.0), 1.0),)
# Key, fill, two back lights and a headlight, as vtkLightKit has them.
LIGHT_KIT: tuple[Light, ...] = (
    ((0.11, 0.77, 0.63), 0.75), ((0.0, -0.97, 0.26), 0.25), ((0.94, 0.0, -0.34), 0.21),
    ((-0.94, 0.0, -0.34), 0.21), ((0.0, 0.0, 1.0), 0.25),
)  # fmt: skip
SHADOW_SIDE = 512  # pixels of a picture of the part from the light
SHADOW_BIAS = 2.0  # pixels of it that a point may lie behind what throws no shadow on it
ELEVATIONS = (15.0, 55.0)  # degrees, of directions by lot
ANGLES_OF_VIEW = (20.0, 50.0)  # degrees, of perspective pictures by lot
FILLED = (0.6, 0.85)  # share of the picture that the part fills, by lot


@dataclass(frozen=True)
class Style:
    """Colours, light and lines.

    ambient, diffuse, specular: shares of light, as VTK and OpenGL have them, on sRGB colours.
    lights: directions to the right, upwards and to the viewer; along the part's axes with
    `shadows`, and then they throw some. ground: at the bottom and at the top of the picture.
    lines: degrees between two faces from which a line is drawn there; None: no lines.
    line_width: pixels. outlines: lines where a round face turns away, too.
    """

    colour: Colour = (0.72, 0.74, 0.78)
    ambient: float = 0.1
    diffuse: float = 0.9
    specular: float = 0.0
    lights: tuple[Light, ...] = HEADLIGHT
    shadows: bool = False
    ground: tuple[Colour, Colour] = (WHITE_PAPER, WHITE_PAPER)
    lines: float | None = 20.0
    line_colour: Colour = (0.0, 0.0, 0.0)
    line_width: float = 1.3
    outlines: bool = False


@dataclass(frozen=True, eq=False)
class View:
    """One view in a picture: its camera in the picture's pixels, and (left, top, right, bottom)."""

    camera: Camera
    tile: tuple[int, int, int, int]


def _at(azimuth: float, elevation: float) -> tuple[float, float, float]:
    """The direction at these angles in degrees; azimuth 0 is x, 90 is y."""
    a, e = np.radians([azimuth, elevation])
    return float(np.cos(a) * np.cos(e)), float(np.sin(a) * np.cos(e)), float(np.sin(e))


_GREY, _GREYS = 0x61 / 255, (0xBF / 255, 0xBE / 255, 0xBA / 255)
_INK = Style(WHITE_PAPER, 1.0, 0.0, line_width=1.6, outlines=True)
STYLES: dict[str, Style] = {
    "coloured": Style(
        (0.35, 0.55, 0.80), specular=0.2, lights=LIGHT_KIT, line_width=1.4,
        ground=((0.95, 0.95, 0.95), (0.62, 0.66, 0.72)),
    ),
    "steel": Style(),
    "shaded": Style((0.52, 0.60, 0.75), lights=LIGHT_KIT, lines=None),
    "lines": _INK,
    "cadbench": Style(
        _GREYS, 0.4, 0.5, lights=tuple((_at(135 + turn, 60), 0.3) for turn in range(-15, 16, 6)),
        shadows=True, lines=30.0, line_colour=(_GREY, _GREY, _GREY), line_width=2 * 512 / 1200,
    ),
    "benchcad": Style(
        (110 / 255, 195 / 255, 192 / 255), 0.3, 0.7, lines=35.0,
        line_colour=(0.12, 0.12, 0.12), line_width=1.6,
    ),
    "sheet": _INK,
}  # fmt: skip
LOOKS_OF = {"cadbench-views": "cadbench", "sheet-first": "sheet"}  # styles that share colours
FREE = ("gencad", "coloured", "steel", "shaded", "lines", "any")  # seen from where one likes
STYLE_NAMES = (*FREE, "cadbench", "cadbench-views", "benchcad", "sheet", "sheet-first")
# Sides of the pictures that are not free, in pixels. CADBench draws 1,200 and shows models 512.
BOARD_SIDES = {
    "cadbench": 512, "cadbench-views": 610, "benchcad": 524, "sheet": 900, "sheet-first": 900,
}  # fmt: skip
CADBENCH_BAR, CADBENCH_TILE = 10, 300
# In reading order. CADBench turns a part by 180 degrees first: in the part's axes azimuth 135.
CADBENCH_EYES = (_at(135, 35.26), _at(315, 35.26), _at(225, -35.26), _at(45, -35.26))
CADBENCH_REACH, CADBENCH_MORE = 1.2, 0.1  # half a view in mean sides, and what is added to it
BENCHCAD_GAP, BENCHCAD_TILE, BENCHCAD_HALF = 4, 256, 0.90  # pixels, pixels, longest sides
BENCHCAD_EYES = ((-1, -1, -1), (1, 1, 1), (1, -1, 1), (-1, 1, -1))
SHEET_GAP = 60  # pixels


# ---- From where


def views_of(
    style: str,
    shape: Drawable,
    eye: Sequence[float] | None = None,
    angle: float = 0.0,
    size: int | None = None,
    share: float = 0.72,
) -> list[View]:
    """The views of the picture that `draw_in_style` draws, in its pixels and the part's units.

    Where it draws the eye by lot, give that eye.

    share: of a free style's picture that the part fills; GenCAD's own framing fills its own.
    Raises InputError for an unknown style, for an eye or an angle with a style that has its own,
    and for an angle that is not from 0 to below 150 degrees.
    """
    if style not in STYLE_NAMES:
        raise InputError(f"there is no style {style}; there are {', '.join(STYLE_NAMES)}")
    if style not in FREE and (eye is not None or angle):
        raise InputError(f"the style {style} has its own cameras; leave out eye and perspective")
    if not 0 <= angle < 150:
        raise InputError(f"an angle of view is from 0 to below 150 degrees, not {angle}")
    points = np.asarray(shape.vertices, dtype=np.float64)
    box = np.asarray(shape.bounding_box, dtype=np.float64)
    side = size or SIZE
    if style == "gencad" and not angle:
        whole = (0, 0, side, side)
        return [View(camera_of(box, EYE if eye is None else eye).zoomed(side / SIZE), whole)]
    if style in FREE:
        camera = filling(points, EYE if eye is None else eye, (side, side), share, angle)
        return [View(camera, (0, 0, side, side))]
    if style.startswith("sheet"):
        found = _on_a_sheet(box, style == "sheet")
    elif style == "benchcad":
        step, gap = BENCHCAD_TILE + BENCHCAD_GAP, BENCHCAD_GAP
        scale = BENCHCAD_TILE / 2 / BENCHCAD_HALF / float(np.ptp(box, axis=0).max())
        found = [
            _tile(eye, scale, box, (gap + i % 2 * step, gap + i // 2 * step), (BENCHCAD_TILE,) * 2)
            for i, eye in enumerate(BENCHCAD_EYES)
        ]
    else:
        alone = style == "cadbench"
        tile = BOARD_SIDES[style] if alone else CADBENCH_TILE
        step = tile + CADBENCH_BAR
        found = [
            _tile(
                eye, tile / 2 / _reach(points, box, eye), box,
                (i % 2 * step, i // 2 * step), (tile, tile),
            )
            for i, eye in enumerate(CADBENCH_EYES[:1] if alone else CADBENCH_EYES)
        ]  # fmt: skip
    factor = (size or BOARD_SIDES[style]) / BOARD_SIDES[style]
    return [
        View(
            view.camera.zoomed(factor),
            tuple(round(edge * factor) for edge in view.tile),  # type: ignore[arg-type]
        )
        for view in found
    ]


def _tile(
    eye: Sequence[float], scale: float, box: Array, place: tuple[int, int], size: tuple[int, ...]
) -> View:
    """A view of the box's middle in the middle of a tile of `size` (width, height) at `place`."""
    left, top = place
    at = (left + size[0] / 2, top + size[1] / 2)
    camera = orthographic(eye, scale, box.mean(axis=0), at)
    return View(camera, (left, top, left + size[0], top + size[1]))


def _reach(points: Array, box: Array, eye: Sequence[float]) -> float:
    """Half of CADBench's view: 1.2 mean sides, and a tenth more until nothing is cut."""
    right, up, _ = axes_seen_from(eye)
    centred, mean = points - box.mean(axis=0), float(np.ptp(box, axis=0).mean())
    needed = max(np.abs(centred @ right).max(), np.abs(centred @ up).max())
    more = max(0.0, np.ceil((needed / mean - CADBENCH_REACH) / CADBENCH_MORE - 1e-9))
    return float(CADBENCH_REACH + CADBENCH_MORE * more) * mean


def _on_a_sheet(box: Array, third: bool) -> list[View]:
    """Front, top and right view at one scale: beside the side they are seen from, or opposite."""
    side, gap = BOARD_SIDES["sheet"], SHEET_GAP
    sides = np.ptp(box, axis=0)
    scale = (side - 3 * gap) / max(sides[0] + sides[1], sides[2] + sides[1])
    wide, deep, high = (int(np.ceil(scale * length)) + gap for length in sides)
    columns = (gap // 2, gap // 2 + wide) if third else (gap // 2 + deep, gap // 2)
    rows = (gap // 2 + deep, gap // 2) if third else (gap // 2, gap // 2 + high)
    return [
        _tile((0, -1, 0), scale, box, (columns[0], rows[0]), (wide, high)),
        _tile((0, 0, 1), scale, box, (columns[0], rows[1]), (wide, deep)),
        _tile((1, 0, 0), scale, box, (columns[1], rows[0]), (deep, high)),
    ]


def eye_by_lot(chance: random.Random) -> tuple[float, float, float]:
    """A direction from above, any side."""
    return _at(chance.uniform(0, 360), chance.uniform(*ELEVATIONS))


# ---- The picture


def draw_in_style(
    shape: Drawable,
    style: str,
    eye: Sequence[float] | None = None,
    angle: float = 0.0,
    size: int | None = None,
    chance: random.Random | None = None,
) -> Array:
    """Draw `shape` as a (size, size, 3) uint8 picture in one of STYLE_NAMES.

    eye: direction to the viewer, GenCAD's by default. angle: of view in degrees from top to
    bottom; 0 is orthographic. Both are for free styles only. size: pixels a side; by default 448,
    or what the board or sheet has. chance: what `any` draws its colours, ground and lines by, and
    eye and angle where no eye is given.

    Raises InputError as `views_of` does, and ValueError as `draw` does.
    """
    if size is not None and not 16 <= size <= 4 * SIZE:
        raise InputError(f"a styled picture has 16 to {4 * SIZE} pixels a side, not {size}")
    share = 0.72
    if style == "any":
        chance = chance or random.Random(0)
        if eye is None:
            eye = eye_by_lot(chance)
            angle = angle or (chance.uniform(*ANGLES_OF_VIEW) if chance.random() < 0.4 else 0.0)
        share = chance.uniform(*FILLED)
    if len(shape.triangles) == 0 or not np.isfinite(np.asarray(shape.vertices)).all():
        raise ValueError(
            "nothing to draw: the shape has no triangles or a coordinate is not finite"
        )
    if style == "gencad":
        at_full = views_of(style, shape, eye, angle, SIZE)[0].camera
        small = draw(shape, camera=at_full)
        return small if size in (None, SIZE) else _resized(small, size or SIZE)
    views = views_of(style, shape, eye, angle, None if style in BOARD_SIDES else size, share)
    side = BOARD_SIDES.get(style) or size or SIZE
    chosen = style_by_lot(chance or random.Random(0)) if style == "any" else None
    how = chosen or STYLES[LOOKS_OF.get(style, style)]
    bars = WHITE_PAPER if style != "cadbench-views" else (0.0, 0.0, 0.0)
    picture = np.full((side, side, 3), np.rint(255 * np.array(bars)), dtype=np.uint8)
    for view in views:
        left, top, right, bottom = view.tile
        camera = view.camera.panned(-left, -top)
        picture[top:bottom, left:right] = draw_view(
            shape, how, camera, (right - left, bottom - top)
        )
    return picture if size in (None, side) else _resized(picture, size or side)


def _resized(picture: Array, size: int) -> Array:
    from PIL import Image

    if size < len(picture):
        return reduce(picture, size)
    return np.asarray(Image.fromarray(picture).resize((size, size), Image.Resampling.BICUBIC))


def draw_view(shape: Drawable, style: Style, camera: Camera, size: tuple[int, int]) -> Array:
    """One view, (height, width, 3) uint8 for a `size` of (width, height) pixels."""
    width, height = size
    fine = camera.zoomed(FINER_PIXELS)
    if not fine.sees(np.asarray(shape.vertices, dtype=np.float64)):
        raise ValueError("the part reaches behind the viewer; move the camera away from it")
    lines = (np.zeros((0, 3)), np.zeros(1, dtype=np.int64))
    if style.lines is not None:
        lines = sharp_lines(shape, style.lines)
        if style.outlines:
            lines = both_lines(lines, turning_lines(shape, fine))
    seen = look(shape, fine, (FINER_PIXELS * width, FINER_PIXELS * height), lines)
    rise = np.linspace(1.0, 0.0, FINER_PIXELS * height)[:, None, None]
    bottom, top = (np.array(colour) for colour in style.ground)
    values = np.broadcast_to(bottom + rise * (top - bottom), (*seen.depth.shape, 3)).copy()
    part = np.isfinite(seen.depth)
    light = _light_on(shape, style, fine, seen, part)
    values[part] = np.clip(np.array(style.colour) * light[:, :1] + light[:, 1:], 0.0, 1.0)
    ink = _widened(seen.line, FINER_PIXELS * style.line_width)
    values[ink] = style.line_colour
    blocks = values.reshape(height, FINER_PIXELS, width, FINER_PIXELS, 3).mean(axis=(1, 3))
    return np.rint(255 * blocks).astype(np.uint8)


def _light_on(shape: Drawable, style: Style, camera: Camera, seen: Seen, part: Array) -> Array:
    """(K, 2) of the pixels on the part: what the colour is multiplied by, and the highlight."""
    normal = seen.normal[part].astype(np.float64)
    right, up, _ = axes_seen_from(camera.view)
    axes = np.eye(3) if style.shadows else np.stack([right, up, camera.view])
    shade = np.full(len(normal), style.ambient)
    gloss = np.zeros(len(normal))
    where = None
    if style.shadows:
        rows, columns = np.nonzero(part)
        where = camera.unproject(np.column_stack([columns + 0.5, rows + 0.5, seen.depth[part]]))
    for direction, intensity in style.lights:
        way = np.array(direction) @ axes
        facing = np.maximum(normal @ way, 0.0) * intensity
        if where is not None:
            facing *= _lit(shape, way, where)
        shade += style.diffuse * facing
        if style.specular:
            mirrored = 2 * (normal @ way)[:, None] * normal - way
            back = np.maximum(mirrored @ camera.view, 0.0) ** GLOSS
            gloss += style.specular * intensity * back
    return np.column_stack([shade, gloss])


def _lit(shape: Drawable, way: Array, points: Array) -> Array:
    """(K,) bool: nothing stands between the points and a light in the direction `way`."""
    vertices = np.asarray(shape.vertices, dtype=np.float64)
    camera = filling(vertices, way, (SHADOW_SIDE, SHADOW_SIDE), 0.95)
    nothing = (np.zeros((0, 3)), np.zeros(1, dtype=np.int64))
    depth = look(shape, camera, (SHADOW_SIDE, SHADOW_SIDE), nothing).depth
    found = camera.project(points)
    columns, rows = (np.clip(found[:, i].astype(int), 0, SHADOW_SIDE - 1) for i in (0, 1))
    clear: Array = found[:, 2] >= depth[rows, columns] - SHADOW_BIAS
    return clear


def _widened(line: Array, width: float) -> Array:
    """Lines one pixel wide made about `width` pixels wide."""
    reach = max(width / 2 - 0.1, 0.0)
    side = int(reach)
    if side == 0:
        return line
    steps = np.arange(-side, side + 1)
    disc = np.hypot(steps[:, None], steps) <= reach
    wide: Array = ndimage.binary_dilation(line, disc)
    return wide


def style_by_lot(chance: random.Random) -> Style:
    """Any colour, light, ground and lines; a sixth are line drawings, a quarter have no lines."""
    if chance.random() < 1 / 6:
        return Style(WHITE_PAPER, 1.0, 0.0, line_width=chance.uniform(1.0, 2.4), outlines=True)

    def colour(least: float, most: float) -> Colour:
        hue, strength = chance.random(), chance.uniform(0.0, 0.6)
        return colorsys.hsv_to_rgb(hue, strength, chance.uniform(least, most))

    kind = chance.random()
    light, dark = (WHITE_PAPER, WHITE_PAPER), (colour(0.1, 0.25),) * 2
    gradient = (colour(0.85, 1.0), colour(0.6, 0.95))
    ground = light if kind < 0.5 else gradient if kind < 0.85 else dark
    ambient = chance.uniform(0.05, 0.4)
    return Style(
        colour(0.55, 0.95), ambient, 1 - ambient, chance.choice((0.0, 0.0, 0.2)),
        chance.choice((HEADLIGHT, LIGHT_KIT)), False, ground,
        None if chance.random() < 0.25 else 20.0,
        chance.choice(((0.0, 0.0, 0.0), (0.12, 0.12, 0.12), (0.35, 0.35, 0.35))),
        chance.uniform(1.0, 2.2),
    )  # fmt: skip
