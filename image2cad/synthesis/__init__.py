"""Random parts, and data sets of them. No torch."""

from typing import TYPE_CHECKING

from image2cad.common.lazy import load

if TYPE_CHECKING:
    from image2cad.synthesis.dataset import write_dataset
    from image2cad.synthesis.parts import random_parts

__all__ = ["random_parts", "write_dataset"]


def __getattr__(name: str) -> object:
    return load(__name__, name)
