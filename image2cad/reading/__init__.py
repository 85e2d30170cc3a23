"""What a picture shows, read without a model: its flat faces as sketches. No torch."""

from typing import TYPE_CHECKING

from image2cad.common.lazy import load

if TYPE_CHECKING:
    from image2cad.reading.tracing import AXES, Cap, INWARDS, PIXELS, PLANES, SHADE, caps

__all__ = ["AXES", "Cap", "INWARDS", "PIXELS", "PLANES", "SHADE", "caps"]


def __getattr__(name: str) -> object:
    return load(__name__, name)
