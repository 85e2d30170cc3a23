"""Rewrite a program to the shortest readable CadQuery that builds the same solid.

    short = compact(code)                 # same units, same place
    short = compact(code, size=100)       # centred, longest side 100: what a picture can show
    python -m image2cad.cad.compacting program.py --size 100

Named planes, `rect`, `circle` and `polyline`, positive depths, one order of
loops and corners, and as few decimals as the solid allows. Each rewrite is run
confined and compared with the original; nothing is assumed.
A program that is not understood, does not run, or has no rewrite that is close
enough comes back unchanged. Left out: rewriting the sequence of features.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Iterator, Sequence
from pathlib import Path

import manifold3d
import numpy as np

from image2cad.cad.light_engine import build
from image2cad.cad.parsing import parse
from image2cad.cad.program import Program, to_code
from image2cad.cad.tidying import ordered, tidied
from image2cad.cad.transforms import canonical, moved, rounded, scaled, snapped
from image2cad.common import InputError, run_cli
from metrics import Failure, Part, run_many, solid_manifolds, union

MOST_DIGITS = 7  # significant digits at most
PROGRAMS_AT_ONCE = 256  # programs whose solids are held in memory at a time
SAME_MEASURES = 1e-5  # relative difference of measures up to which two solids are one
LIGHT_MARGIN = 0.002  # what the light engine's IoU may be wrong by
LEAST_IOU_IF_READ_RIGHT = 0.9  # two meshes of one thin-walled solid may differ by a few hundredths


def compact(code: str, size: float | None = None, least_iou: float = 0.999) -> str:
    """The shortest readable equivalent of `code`, or `code` itself.

    With `size` None the part keeps its units and its place. Otherwise its box is
    centred on the origin and its longest side becomes `size`. The rewrite has an
    IoU of at least `least_iou` with the original, in place after that scaling.
    """
    return compact_many([code], size, least_iou, workers=1)[0]


def compact_many(
    codes: Sequence[str],
    size: float | None = None,
    least_iou: float = 0.999,
    workers: int | None = None,
    progress: bool = False,
) -> list[str]:
    """`compact` of many programs, in order, `workers` at a time (default: one a core).

    Raises ValueError for a size that is not positive.
    """
    from tqdm import tqdm

    if size is not None and not 0 < size < math.inf:
        raise ValueError(f"size must be positive, not {size}")
    out = list(codes)
    with tqdm(total=len(out), desc="compacting", unit="program", disable=not progress) as bar:
        for first in range(0, len(out), PROGRAMS_AT_ONCE):
            batch = out[first : first + PROGRAMS_AT_ONCE]
            out[first : first + PROGRAMS_AT_ONCE] = _batch(batch, size, least_iou, workers)
            bar.update(len(batch))
    return out


def _batch(
    codes: list[str], size: float | None, least_iou: float, workers: int | None
) -> list[str]:
    out = list(codes)
    programs = {i: program for i, code in enumerate(codes) if (program := parse(code))}
    parts = dict(zip(programs, run_many([codes[i] for i in programs], workers), strict=True))
    solids = {i: part for i, part in parts.items() if isinstance(part, Part)}
    tidy = {i: tidied(programs[i], _longest(part)) for i, part in solids.items()}
    exact = run_many([_exact_text(tidy[i], part) for i, part in solids.items()], workers)
    searches: dict[int, tuple[manifold3d.Manifold, Iterator[str]]] = {}
    for (i, part), same in zip(solids.items(), exact, strict=True):
        program, frame = tidy[i], (np.zeros(3), 1.0)
        if size is not None:
            x, y, z = (-part.bounding_box.mean(axis=0)).tolist()
            frame = (np.array([x, y, z]), size / _longest(part))
            program = scaled(moved(program, (x, y, z)), frame[1])
        reference = _reference(part, same, *frame)
        if reference is not None:
            searches[i] = reference, _rewritten_texts(program, _longest(part) * frame[1], least_iou)
    while searches:
        tries = {i: text for i, (_, texts) in searches.items() if (text := next(texts, None))}
        tried = run_many(list(tries.values()), workers)
        searches = {i: searches[i] for i in tries}
        for (i, text), made in zip(tries.items(), tried, strict=True):
            mesh = _mesh(made) if isinstance(made, Part) else None
            if mesh is not None and _overlap(searches[i][0], mesh) >= least_iou:
                out[i] = text
                del searches[i]
    return out


def _reference(
    part: Part, same: Part | Failure, shift: np.ndarray, factor: float
) -> manifold3d.Manifold | None:
    """The mesh to compare rewrites with; None if the program was read wrongly.

    `same` is the tidied program's solid with all its digits. If it measures like
    the original, its mesh stands for the original's: a circle's mesh depends on
    where it starts, and for a thin wall that alone costs more than rounding may.
    """
    original = _mesh(part, shift, factor)
    if original is None or not isinstance(same, Part):
        return original
    twin = _mesh(same, shift, factor)
    if twin is None or _overlap(original, twin) < LEAST_IOU_IF_READ_RIGHT:
        return None
    return twin if _measures_equal(part, same) else original


def _measures_equal(a: Part, b: Part) -> bool:
    """Whether volume, area, centre and inertia agree in place, to `SAME_MEASURES`."""
    side = _longest(a)
    return (
        math.isclose(a.volume, b.volume, rel_tol=SAME_MEASURES)
        and math.isclose(a.area, b.area, rel_tol=SAME_MEASURES)
        and float(np.abs(a.center - b.center).max()) <= SAME_MEASURES * side
        and float(np.abs(a.inertia - b.inertia).max()) <= SAME_MEASURES * a.volume * side**2
    )


def _longest(part: Part) -> float:
    return float((part.bounding_box[1] - part.bounding_box[0]).max())


def iou_in_place(a: Part, b: Part) -> float:
    """Volume in both parts over volume in either, without any alignment, in [0, 1].

    Measured on meshes: 1 within some 0.001 for equal solids, but for thin round
    walls. Raises ValueError where a mesh cannot be closed.
    """
    first, second = _mesh(a), _mesh(b)
    if first is None or second is None:
        raise ValueError("the mesh of a solid cannot be closed")
    return _overlap(first, second)


def _mesh(
    part: Part, shift: np.ndarray | float = 0.0, factor: float = 1.0
) -> manifold3d.Manifold | None:
    """The part moved by `shift` and then scaled, or None where its mesh cannot be closed."""
    points = (part.vertices + shift) * factor
    try:
        return union(solid_manifolds(points, part.triangles, part.solid_of_face[part.faces])[0])
    except ValueError:
        return None


def _overlap(a: manifold3d.Manifold, b: manifold3d.Manifold) -> float:
    common = (a ^ b).volume()
    together = a.volume() + b.volume() - common
    return float(min(max(common / together, 0.0), 1.0)) if together > 0 else 0.0


def _finest(longest: float) -> int:
    """Decimals that make `MOST_DIGITS` significant digits of the part's longest side."""
    return max(0, MOST_DIGITS - math.ceil(math.log10(longest)))


def _exact_text(program: Program, part: Part) -> str:
    digits = _finest(_longest(part)) + 2
    return to_code(ordered(canonical(rounded(program, digits))), digits)


def _rewritten_texts(program: Program, longest: float, least_iou: float) -> Iterator[str]:
    """Texts to try, coarsest numbers first; the light engine leaves out hopeless ones.

    `longest` is the part's longest side in the program's units.
    """
    to_light = 100 / longest  # the light engine's tolerances are made for parts of this size
    exact = build(scaled(program, to_light))
    named = all(step.plane.name for step in program)
    finest = _finest(longest)
    tried = set()
    for decimals in range(max(0, finest - MOST_DIGITS), finest + 1):
        variants = [(rounded(program, decimals), decimals)]
        if named:
            grid = 10.0**decimals
            # Centres between two grid lines need one digit more.
            flush = scaled(snapped(scaled(program, grid)), 1 / grid)
            variants.insert(0, (rounded(flush, decimals + 1), decimals + 1))
        for variant, digits in variants:
            drawing = exact and build(scaled(variant, to_light))
            if exact and (
                not drawing or _overlap(exact.manifold, drawing.manifold) < least_iou - LIGHT_MARGIN
            ):
                continue
            text = to_code(ordered(canonical(variant)), digits)
            if text not in tried:
                tried.add(text)
                yield text


def main() -> int:
    """Print the rewrite of one program."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("program", type=Path, help="a file with CadQuery code")
    parser.add_argument("--size", type=float, help="centre the part, make its longest side this")
    parser.add_argument("--least-iou", type=float, default=0.999)
    arguments = parser.parse_args()
    if arguments.size is not None and not 0 < arguments.size < math.inf:
        raise InputError(f"--size must be positive, not {arguments.size:g}")
    try:
        code = arguments.program.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"cannot read {arguments.program}: {error}") from error
    print(compact(code, arguments.size, arguments.least_iou), end="")
    return 0


if __name__ == "__main__":
    run_cli(main)
