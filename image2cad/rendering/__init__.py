"""A solid to the picture of it, and two pictures compared. No torch."""

from typing import TYPE_CHECKING

from image2cad.common.lazy import load

if TYPE_CHECKING:
    from image2cad.rendering.camera import Camera, EYE, EYE_LENGTH, MARGIN, SIZE, camera_from
    from image2cad.rendering.camera import camera_of, filling, orthographic, perspective
    from image2cad.rendering.drawing import draw_code, drawn_shape
    from image2cad.rendering.folder import Look, PictureTask, render_rows, save_picture
    from image2cad.rendering.raster import Picture, TONES, WHITE, draw, draw_into, draw_roughly
    from image2cad.rendering.raster import pixels_seen, shade_facing
    from image2cad.rendering.similarity import as_picture, likeness
    from image2cad.rendering.styles import STYLE_NAMES, View, draw_in_style, views_of

__all__ = [
    "Camera", "EYE", "EYE_LENGTH", "Look", "MARGIN", "Picture", "PictureTask", "SIZE",
    "STYLE_NAMES", "TONES", "View", "WHITE", "as_picture", "camera_from", "camera_of", "draw",
    "draw_code", "draw_in_style", "draw_into", "draw_roughly", "drawn_shape", "filling", "likeness",
    "orthographic", "perspective", "pixels_seen", "render_rows", "save_picture", "shade_facing",
    "views_of",
]  # fmt: skip


def __getattr__(name: str) -> object:
    return load(__name__, name)
