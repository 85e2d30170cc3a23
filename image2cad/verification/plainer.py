"""The same program with fewer numbers, where the picture does not mind.

    one = plainer(one, target)         # candidate, fitted again where it became plainer

Outlines that are read from a picture are ragged: a side has a corner too many, a rectangle a blunt
one. Left out: arcs, and steps that are not needed (growing.py).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from image2cad.cad import Circle, Loop, Path, Program, Rect, Segment
from image2cad.common import Stop
from image2cad.reading import corners_of, squared_off
from image2cad.verification.candidate import Candidate
from image2cad.verification.cost import Target
from image2cad.verification.fitting import fit

TOLERANCES = (0.04, 0.02, 0.01)  # of an outline's longer side, boldest first


def plainer(one: Candidate, target: Target, stop: Stop) -> Candidate:
    """The candidate with the plainest outlines that lower its price."""
    ways: list[Callable[[Loop], Loop]] = [squared_off]
    ways += [lambda loop, share=share: _simplified(loop, share) for share in TOLERANCES]  # type: ignore[misc]
    for way in ways:
        if stop.due():
            break
        program = _with_loops(one.program, way)
        if program == one.program:
            continue
        fitted = fit(program, target, (8, 4), (3, 3), source=one.source, stop=stop)
        if fitted.growing_price < one.growing_price:
            one = fitted
    return one


def _with_loops(program: Program, way: Callable[[Loop], Loop]) -> Program:
    return tuple(replace(step, loops=tuple(map(way, step.loops))) for step in program)


def _simplified(loop: Loop, share: float) -> Loop:
    """Without the corners that lie nearly on the line between others."""
    if isinstance(loop, Circle | Rect) or any(side.mid is not None for side in loop.segments):
        return loop
    points = np.array([loop.start, *(side.end for side in loop.segments)])
    if np.allclose(points[0], points[-1]):
        points = points[:-1]
    if len(points) < 4:
        return loop
    kept = points[corners_of(points, share * float(np.ptp(points, axis=0).max()))]
    if not 3 <= len(kept) < len(points):
        return loop
    first, *others = (tuple(map(float, point)) for point in kept)
    return Path(first, tuple(Segment(point) for point in others))  # type: ignore[arg-type]
