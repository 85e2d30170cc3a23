"""A picture and guesses to the program that draws it: guess, draw, compare, fit. No torch."""

from typing import TYPE_CHECKING

from image2cad.common.lazy import load

if TYPE_CHECKING:
    from image2cad.verification.choosing import Answer
    from image2cad.verification.features import features_of
    from image2cad.verification.library import LIBRARY_BLOCK
    from image2cad.verification.many import answer_many, warm_up
    from image2cad.verification.pipeline import SOURCES, verify

__all__ = [
    "Answer", "LIBRARY_BLOCK", "SOURCES", "answer_many", "features_of", "verify", "warm_up",
]  # fmt: skip


def __getattr__(name: str) -> object:
    return load(__name__, name)
