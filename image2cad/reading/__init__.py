"""What a picture shows, read without a model: its flat faces as sketches. No torch."""

from typing import TYPE_CHECKING

from image2cad.common.lazy import load

if TYPE_CHECKING:
    from image2cad.reading.tracing import Cap, FACE_SHADE, FACING_AXES, FACING_PLANES, LEAST_FACING
    from image2cad.reading.tracing import READ_CAMERA, SHADE_TOLERANCE, caps, face_shade

__all__ = [
    "Cap", "FACE_SHADE", "FACING_AXES", "FACING_PLANES", "LEAST_FACING", "READ_CAMERA",
    "SHADE_TOLERANCE", "caps", "face_shade",
]  # fmt: skip


def __getattr__(name: str) -> object:
    return load(__name__, name)
