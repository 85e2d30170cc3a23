"""A program that may be the one in the picture, from the first guess to its fate.

    one = judged(program, "traced", target)         # Candidate with its cost
    one.price, one.numbers

Every step of verification takes candidates and gives candidates.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import TypeVar

from image2cad.cad import Program
from image2cad.verification.boxes import loose_pieces
from image2cad.verification.cost import (
    BUILDS_NOTHING,
    Target,
    cost_of,
    growing_price,
    whole_price,
    worth_of,
)
from image2cad.verification.features import FINEST_BLOCK
from image2cad.verification.parameters import numbers_of

T = TypeVar("T")
WRITTEN_NUMBER = re.compile(r"\d+\.?\d*")


@dataclass(frozen=True)
class Candidate:
    """A program, where its structure came from, and how well it draws the picture.

    program: () for a model's code that is only run, because the parser does not read it or it
    is too long to be drawn here. cost: 0 equal, 1 an empty picture (see cost.py).
    likeness: SSIM of drawing and picture, 0 to 1; -1 while it is not known. fate: why it is
    not the answer, in words. code: as a model wrote it, or as it is written down at the end.
    loose: pieces that touch no other, counted where no frame says how far off they may be.
    charge: how many times the prices of what it is made of count; see `cost.Target`.
    """

    program: Program
    source: str
    cost: float = BUILDS_NOTHING
    likeness: float = -1.0
    fate: str = ""
    code: str = ""
    loose: int = 0
    charge: float = 1.0

    @cached_property
    def numbers(self) -> int:
        """How many different numbers it is made of."""
        if self.program:
            return numbers_of(self.program)
        return len(set(WRITTEN_NUMBER.findall(self.code)))

    @property
    def growing_price(self) -> float:
        """The price by which programs that still grow are ranked; see `cost.growing_price`."""
        return growing_price(self.cost, len(self.program), self.numbers, self.loose, self.charge)

    @property
    def price(self) -> float:
        """The price by which whole programs are ranked; see `cost.whole_price`."""
        return whole_price(self.cost, len(self.program), self.numbers, self.loose, self.charge)

    @property
    def worth(self) -> float:
        """The likeness by which finalists are ranked; see `cost.worth_of`."""
        return worth_of(self.likeness, self.numbers)


def judged(
    program: Program,
    source: str,
    target: Target,
    block: int = FINEST_BLOCK,
    fixed: bool = False,
    code: str = "",
) -> Candidate:
    """The program as a candidate with its cost; see `cost.cost_of`."""
    cost = cost_of(program, target, block, fixed)
    loose = 0 if target.framed else loose_pieces(program)
    return Candidate(program, source, cost, code=code, loose=loose, charge=target.charge)


def least_cost(found: Iterable[Candidate]) -> float:
    """Of the candidate that explains most; infinite where there is none."""
    return min((one.cost for one in found), default=BUILDS_NOTHING)


def distinct(ranked: Iterable[T], worth: Callable[[T], float], near: float) -> Iterator[T]:
    """Those whose `worth` differs from that of all before: equal drawings cost the same."""
    seen: list[float] = []
    for one in ranked:
        value = worth(one)
        if not any(abs(value - other) <= near for other in seen):
            seen.append(value)
            yield one
