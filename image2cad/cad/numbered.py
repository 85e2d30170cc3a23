"""A program's numbers under names, with ranges to move them in, and the program with others.

    for number in numbers(code):
        ...                         # number.name, number.value, number.low, number.high
    code = replaced(code, {0: 12.5})                    # the first of them
    code = with_numbers(code, {"hole 1 diameter": 6})

A program that is read (parsing.py) gets the measures that people know (dimensions.py) and is
written anew where one changes; any other keeps its text, and its numbers have the names of the
calls that they stand in (literals.py). Lengths are in millimetres. Nothing is run.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace

from image2cad.cad.dimensions import Dimension, dimensions, with_dimensions
from image2cad.cad.literals import MOST_NUMBERED, Literal, literals, with_literals
from image2cad.cad.parsing import parse
from image2cad.cad.program import Program, to_code
from image2cad.common import InputError

MOST_SLIDERS = 12  # that are shown where nobody asks for all
MOST_STEPS_NAMED = 60  # extrusions; the numbers of longer programs have their calls' names
NAMES_SHOWN = 12  # in a message that a name is not there


@dataclass(frozen=True)
class Number:
    """A number of a program that can be changed.

    name: what it is, such as "hole 1 diameter". low, high: a range worth trying, `value` inside.
    step: of a slider. start, end: where it stands in the text, in characters, its sign included;
    -1 where it is a measure that the text does not hold as it is. unit: "mm", "°", or nothing where
    it counts something or is a variable of which only its author knows.
    """

    value: float
    start: int
    end: int
    name: str
    low: float
    high: float
    step: float = 0.0
    unit: str = ""


def numbers(code: str, most: int | None = MOST_SLIDERS) -> list[Number]:
    """The numbers of `code`, in the order of its features or of its text, at most `most` of them.

    Where there are more, sizes go before places, and places before zeros. A program that does
    not parse, or is longer than MOST_NUMBERED characters, has none.
    """
    found = _kept(_all(code), most)
    scale = max((abs(one.value) for one in found), default=0.0) or 1.0
    return [_with_range(one, scale) for one in found]


def replaced(code: str, values: Mapping[int, float], most: int | None = MOST_SLIDERS) -> str:
    """`code` with other values for the numbers of these indexes in `numbers(code, most)`.

    Raises ValueError for an index that is not there and a value that is not finite, InputError
    for a measure that leaves nothing of a feature.
    """
    known = _kept(_all(code), most)
    for index, value in values.items():
        if not 0 <= index < len(known) or not math.isfinite(value):
            raise ValueError(f"there is no number {index} to set to {value}")
    changed = {known[i]: v for i, v in values.items() if known[i].value != v}
    lengths = {one.name: v for one, v in changed.items() if isinstance(one, Dimension)}
    if lengths:
        return to_code(with_dimensions(_read(code), lengths))
    return with_literals(code, {one: v for one, v in changed.items() if isinstance(one, Literal)})


def with_numbers(code: str, values: Mapping[str, float]) -> str:
    """`code` with other values for the numbers of these names.

    Raises InputError for a name that is not there, and for a value that is not finite or leaves
    nothing of a feature.
    """
    known = {one.name.casefold(): i for i, one in enumerate(_all(code))}
    wanted = {}
    for name, value in values.items():
        if not math.isfinite(value):
            raise InputError(f"{name} cannot be {value}")
        index = known.get(" ".join(name.casefold().split()))
        if index is None:
            there = ", ".join([*known][:NAMES_SHOWN]) or "none"
            more = ", ..." if len(known) > NAMES_SHOWN else ""
            raise InputError(f"the program has no number {name!r}; it has {there}{more}")
        wanted[index] = value
    return replaced(code, wanted, None)


def _read(code: str) -> Program:
    """The program, where its measures can be named; else empty.

    One with remarks keeps its text, for writing it anew would lose them.
    """
    if len(code) > MOST_NUMBERED or re.search(r"^[^\"'\n]*#", _without_heading(code), re.M):
        return ()
    program = parse(code) or ()
    return program if len(program) <= MOST_STEPS_NAMED else ()


def _without_heading(code: str) -> str:
    """The text after the remarks that it begins with."""
    return re.sub(r"\A(?:\s*#[^\n]*(?:\n|\Z))+", "", code)


def _all(code: str) -> list[Dimension | Literal]:
    program = _read(code)
    return [*dimensions(program)] if program else [*_apart(literals(code))]


def _apart(found: list[Literal]) -> list[Literal]:
    """With names of which there are no two."""
    seen: dict[str, int] = {}
    out = []
    for one in found:
        seen[one.name] = seen.get(one.name, 0) + 1
        again = f"{one.name} ({seen[one.name]})" if seen[one.name] > 1 else one.name
        out.append(replace(one, name=again))
    return out


def _kept(found: list[Dimension | Literal], most: int | None) -> list[Dimension | Literal]:
    ranks = [(one.value == 0, one.kind == "place", i) for i, one in enumerate(found)]
    kept = sorted(sorted(range(len(found)), key=ranks.__getitem__)[:most])
    return [found[index] for index in kept]


def _with_range(one: Dimension | Literal, scale: float) -> Number:
    value, size = one.value, abs(one.value)
    if one.kind == "count":
        low, high, step = 1.0, max(2 * size, 12.0), 1.0
    else:
        around = max(size, scale / 4)
        if one.kind == "place" or value == 0:
            low, high = value - around, value + around
        else:
            low, high = sorted((value / 5, value * 2))
        step = 10.0 ** math.floor(math.log10((high - low) / 40))
        low = math.floor(round(low / step, 6)) * step
        high = math.ceil(round(high / step, 6)) * step
        if one.kind == "angle" and size <= 360:
            low, high = max(low, -360.0), min(high, 360.0)
        if one.kind == "size" and value > 0:
            low = max(low, step)
    low, high = min(low, value), max(high, value)
    place = (one.start, one.end) if isinstance(one, Literal) else (-1, -1)
    variable = isinstance(one, Literal) and " " not in one.name
    unit = "" if variable else {"angle": "°", "count": ""}.get(one.kind, "mm")
    return Number(value, *place, one.name, round(low, 12), round(high, 12), round(step, 12), unit)
