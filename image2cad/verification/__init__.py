"""A picture and guesses to the program that draws it: guess, draw, compare, fit. No torch."""

from typing import TYPE_CHECKING

from image2cad.common.lazy import load

if TYPE_CHECKING:
    from image2cad.verification.choosing import Answer
    from image2cad.verification.features import features_of
    from image2cad.verification.library import LIBRARY_BLOCK
    from image2cad.verification.many import answer_many, warm_up
    from image2cad.verification.pipeline import SOURCES, verify
    from image2cad.verification.rounding import round_as_seen
    from image2cad.verification.viewpoints import EYES, Viewpoint, eye_named

__all__ = [
    "Answer", "EYES", "LIBRARY_BLOCK", "SOURCES", "Viewpoint", "answer_many", "eye_named",
    "features_of", "round_as_seen", "verify", "warm_up",
]  # fmt: skip


def __getattr__(name: str) -> object:
    return load(__name__, name)
