"""Candidates for a picture that need no model: templates, and the nearest pictures of a library.

    library = load_library()                             # models/library.npz
    for program in nearest(library, target, 24): ...
    for program in templates(): ...

The library, which models/make_library.py makes, holds synthetic parts (synthesis/parts.py) as
programs and as short codes of their pictures: principal components of the features that
cost.py compares, one byte each. Left out: real parts; there are none in it.
"""

from __future__ import annotations

import itertools
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from image2cad.cad import NAMED, Circle, Extrusion, Loop, Plane, Program, Rect, Segment, parse
from image2cad.cad import Path as Outline
from image2cad.common import LIBRARY, InputError
from image2cad.verification.cost import Target
from image2cad.verification.features import Floats

LIBRARY_BLOCK = 16  # pixels of 448 in a block of the features


@dataclass(frozen=True, eq=False)
class Library:
    """Programs as text, codes (N, C) int8, and how a picture's features become a code."""

    programs: list[str]
    codes: NDArray[np.int8]
    mean: Floats
    components: Floats  # (C, F), scaled so that a code fits into a byte


def load_library(file: Path = LIBRARY) -> Library:
    """The library in `file`. Raises InputError if it is not there or cannot be read."""
    try:
        with np.load(file, allow_pickle=False) as stored:
            text = zlib.decompress(stored["programs"].tobytes()).decode()
            return Library(
                text.split("\0"),
                stored["codes"],
                stored["mean"].astype(np.float32),
                stored["components"].astype(np.float32),
            )
    except (OSError, KeyError, ValueError, zlib.error) as error:
        raise InputError(
            f"{file} is no library ({error}); make it: python models/make_library.py --out {file}"
        ) from error


def nearest(library: Library, target: Target, count: int) -> list[Program]:
    """The programs whose pictures are most like the target's, nearest first."""
    code = library.components @ (target.features[LIBRARY_BLOCK] - library.mean)
    distance = ((library.codes - code) ** 2).sum(axis=1)
    order = np.argsort(distance, kind="stable")[:count]
    found = [parse(library.programs[i]) for i in order]
    return [program for program in found if program]


def templates() -> list[Program]:
    """Plain parts on every main plane: what most mechanical parts are close to."""
    plate, disc = Rect(0, 0, 100, 70), Circle(0, 0, 50)
    ell = _polygon((-5, -4), (5, -4), (5, -1), (-1, -1), (-1, 4), (-5, 4))
    you = _polygon((-5, -4), (5, -4), (5, 4), (3, 4), (3, -1), (-3, -1), (-3, 4), (-5, 4))
    tee = _polygon((-5, -4), (5, -4), (5, -1), (2, -1), (2, 4), (-2, 4), (-2, -1), (-5, -1))
    ends = Segment((30, 30), (60, 0)), Segment((-30, 30)), Segment((-30, -30), (-60, 0))
    slot = Outline((-30, -30), (Segment((30, -30)), *ends))
    loops: list[tuple[Loop, ...]] = [
        (plate,), (disc,), (disc, Circle(0, 0, 30)), (plate, Circle(0, 0, 20)),
        (plate, Rect(0, 0, 70, 45)), (ell,), (you,), (tee,), (slot,),
        (_polygon((-5, -4), (5, -4), (-5, 4)),),
    ]  # fmt: skip
    found: list[Program] = []
    for name, profile, depth in itertools.product(NAMED, loops, (15.0, 60.0)):
        found.append((Extrusion(Plane((0.0, 0.0, 0.0), *NAMED[name]), profile, depth),))
    return found


def _polygon(*points: tuple[float, float]) -> Outline:
    first, *others = [(10.0 * x, 10.0 * y) for x, y in points]
    return Outline(first, tuple(Segment(point) for point in others))
