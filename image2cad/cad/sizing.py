"""The real size of a part: the whole program by one factor, and measures in millimetres.

    size = size_named("80")                     # the longest side is 80 mm
    size = size_named("plate thickness=6")      # that measure is 6 mm (numbered.py has the names)
    code, part = sized(code, part, size, run_cadquery)
    code, part = rounded_off(code, part, objects, run_cadquery)

A picture shows no size, so an answer's is assumed until it is given. Generated code is run by
`run` alone, `run_cadquery` or the same with limits. Left out: inches.
"""

from __future__ import annotations

import ast
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from image2cad.cad.dimensions import rounder
from image2cad.cad.literals import literals, with_literals
from image2cad.cad.numbered import numbers
from image2cad.cad.parsing import parse
from image2cad.cad.program import to_code
from image2cad.cad.transforms import scaled
from image2cad.common import InputError
from metrics import Failure, Part

LONGEST_SIDE = "longest side"
LEAST_SIZE, LARGEST_SIZE = 1e-3, 1e7  # mm; beyond these it is a slip of the unit
SCALED_TOLERANCE = 1e-4  # share by which a scaled part's volume and sides may be off
VOLUME_CHANGE = 0.01  # share of the volume that rounding may change
HALF_A_PIXEL = 1 / 640  # of the longest side, in a picture that a part fills
HEADING = "# image2cad: "

RunsCode = Callable[[str], Part | Failure]


@dataclass(frozen=True)
class Size:
    """How large a part is. length: in mm. of: the measure that is so long."""

    length: float
    of: str = LONGEST_SIDE


def size_named(text: str) -> Size:
    """A size as users write it: "80" is the longest side, "NAME=6" another measure, in mm.

    Raises InputError for what is no length.
    """
    name, sign, value = str(text).rpartition("=")
    try:
        length = float(value.strip().removesuffix("mm"))
    except ValueError:
        length = math.nan
    if not LEAST_SIZE <= length <= LARGEST_SIZE or (sign and not name.strip()):
        raise InputError(
            f"a length is a number of millimetres above 0 ({LEAST_SIZE:g} to {LARGEST_SIZE:,.0f}), "
            f"or NAME=NUMBER for a measure of the part, not {text!r:.60}"
        )
    return Size(length, " ".join(name.split()) or LONGEST_SIDE)


def factor_to(size: Size, code: str, part: Part) -> float:
    """What the program's lengths are multiplied by. Raises InputError for an unknown measure."""
    if size.of == LONGEST_SIDE:
        return size.length / float((part.bounding_box[1] - part.bounding_box[0]).max())
    for one in numbers(code, None):
        if one.name.casefold() == size.of.casefold() and one.value > 0:
            return size.length / one.value
    names = ", ".join(one.name for one in numbers(code, None) if one.value > 0)
    raise InputError(f"the part has no measure {size.of!r}; it has {names or 'none'}")


def sized(code: str, part: Part, size: Size, run: RunsCode) -> tuple[str, Part]:
    """The program and its part with the size given, all of it scaled by one factor.

    Raises InputError for an unknown measure, and for a program that cannot be scaled.
    """
    factor = factor_to(size, code, part)
    if factor == 1:
        return code, part
    box = (part.bounding_box[1] - part.bounding_box[0]) * factor
    for text in _scaled_texts(code, factor):
        got = run(text)
        if isinstance(got, Failure):
            continue
        sides = got.bounding_box[1] - got.bounding_box[0]
        off = abs(got.volume / (part.volume * factor**3) - 1)
        if max(off, float(abs(sides - box).max() / box.max())) < SCALED_TOLERANCE:
            return text, got
    raise InputError("the program cannot be scaled: not all of its numbers are lengths")


def _scaled_texts(code: str, factor: float) -> list[str]:
    """Texts that may build the part `factor` times as large, the plainest first."""
    if program := parse(code):
        return [to_code(scaled(program, factor), _decimals(factor))]
    lengths = [one for one in literals(code) if one.kind in ("size", "place")]
    texts = [with_literals(code, {one: one.value * factor for one in lengths})] if lengths else []
    name = _last_assigned(code)
    if name:
        texts.append(
            f"{code.rstrip()}\nimport cadquery\n"
            f"{name} = cadquery.Workplane(obj={name}.val().scale({factor!r}))\n"
        )
    return texts


def _decimals(factor: float) -> int:
    """Digits after the point that keep as many as there were."""
    return min(max(6 - math.floor(math.log10(factor)), 6), 12)


def _last_assigned(code: str) -> str | None:
    try:
        tree = ast.parse(code)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None
    for statement in reversed(tree.body):
        if isinstance(statement, ast.Assign) and isinstance(statement.targets[0], ast.Name):
            return statement.targets[0].id
    return None


def rounded_off(
    code: str, part: Part, objects: Callable[[Part], bool], run: RunsCode
) -> tuple[str, Part]:
    """The program with its measures at round values, 50 in place of 50.01, and its part.

    A measure goes half a pixel of a picture at most, and the longest side stays. objects: whether
    a part is no longer the one in the picture; then, and where the program cannot be read, all
    stays as it is.
    """
    program = parse(code)
    longest = float((part.bounding_box[1] - part.bounding_box[0]).max())
    if not program:
        return code, part
    text = to_code(rounder(program, HALF_A_PIXEL * longest))
    if text == code:
        return code, part
    got = run(text)
    if isinstance(got, Failure) or abs(got.volume / part.volume - 1) > VOLUME_CHANGE:
        return code, part
    sides = got.bounding_box[1] - got.bounding_box[0]
    if abs(float(sides.max()) / longest - 1) > SCALED_TOLERANCE or objects(got):
        return code, part
    return text, got


# ---- What is said of a size


def measured(part: Part) -> dict[str, Any]:
    """What is measured on a part, with the unit in every name; for JSON."""
    sides = [round(float(side), 6) for side in part.bounding_box[1] - part.bounding_box[0]]
    return {
        "longest_side_mm": max(sides),
        "bounding_box_mm": sides,
        "volume_mm3": float(part.volume),
        "surface_mm2": float(part.area),
        "solids": part.solids,
        "faces": part.face_count,
        "valid": part.valid,
    }


def measures_text(part: Part) -> str:
    """Sides and volume in one line: "80 x 48 x 20 mm, 76800 mm3"."""
    sides = " x ".join(f"{side:.6g}" for side in part.bounding_box[1] - part.bounding_box[0])
    return f"{sides} mm, {part.volume:.6g} mm3"


def headed(code: str, told: str) -> str:
    """The program below one line that says its unit and where its size is from."""
    return f"{HEADING}lengths in mm; {told}\n{unheaded(code)}"


def unheaded(code: str) -> str:
    """The program without the line of `headed`."""
    first, _, rest = code.partition("\n")
    return rest if first.startswith(HEADING) else code
