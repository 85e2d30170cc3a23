"""A solid to the picture of it, and two pictures compared. No torch."""

from typing import TYPE_CHECKING

from image2cad.common.lazy import load

if TYPE_CHECKING:
    from image2cad.rendering.camera import EYE, MARGIN, SIZE, camera_of
    from image2cad.rendering.drawing import draw_code
    from image2cad.rendering.folder import render_folder, render_rows, save_picture
    from image2cad.rendering.raster import Picture, TONES, WHITE, add, draw, draw_roughly
    from image2cad.rendering.similarity import as_picture, likeness

__all__ = [
    "EYE", "MARGIN", "Picture", "SIZE", "TONES", "WHITE", "add", "as_picture", "camera_of", "draw",
    "draw_code", "draw_roughly", "likeness", "render_folder", "render_rows", "save_picture",
]  # fmt: skip


def __getattr__(name: str) -> object:
    return load(__name__, name)
