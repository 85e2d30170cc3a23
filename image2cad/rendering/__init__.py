"""A solid to the picture of it, and two pictures compared. No torch."""

from typing import TYPE_CHECKING

from image2cad.common.lazy import load

if TYPE_CHECKING:
    from image2cad.rendering.camera import Camera, EYE, EYE_LENGTH, MARGIN, SIZE, axes_seen_from
    from image2cad.rendering.camera import camera_from, camera_of, filling, orthographic
    from image2cad.rendering.camera import perspective
    from image2cad.rendering.drawing import draw_code, drawn_shape
    from image2cad.rendering.flattening import as_picture, on_white
    from image2cad.rendering.folder import Look, PictureTask, render_rows, save_picture
    from image2cad.rendering.painting import NO_FACE, Painting, blank_painting, code_of, directions
    from image2cad.rendering.painting import paint
    from image2cad.rendering.raster import Drawable, Picture, TONES, WHITE, draw, draw_into
    from image2cad.rendering.raster import draw_roughly, pixels_seen, shade_facing
    from image2cad.rendering.similarity import likeness
    from image2cad.rendering.styles import BENCHCAD_EYES, BENCHCAD_GAP, BENCHCAD_HALF, BENCHCAD_TILE
    from image2cad.rendering.styles import CADBENCH_EYES, STYLES, STYLE_NAMES, View, draw_in_style
    from image2cad.rendering.styles import draw_view, views_of

__all__ = [
    "BENCHCAD_EYES", "BENCHCAD_GAP", "BENCHCAD_HALF", "BENCHCAD_TILE", "CADBENCH_EYES", "Camera",
    "Drawable", "EYE", "EYE_LENGTH", "Look", "MARGIN", "NO_FACE", "Painting", "Picture",
    "PictureTask", "SIZE", "STYLES", "STYLE_NAMES", "TONES", "View", "WHITE", "as_picture",
    "axes_seen_from", "blank_painting", "camera_from", "camera_of", "code_of", "directions", "draw",
    "draw_code", "draw_in_style", "draw_into", "draw_roughly", "draw_view", "drawn_shape",
    "filling", "likeness", "on_white", "orthographic", "paint", "perspective", "pixels_seen",
    "render_rows", "save_picture", "shade_facing", "views_of",
]  # fmt: skip


def __getattr__(name: str) -> object:
    return load(__name__, name)
