"""Programs for a board's picture fitted to it pixel by pixel, in the very style that it has.

    found = retouched(found, target, image, stop)       # an Explanation's candidates, best first

Where cameras, colours and lines are all known, a program is drawn as the board would draw it, and
numbers that are right to a tenth of a pixel can be told. That is what thin parts need: an outline's
stroke is a quarter of them. The plain box is tried too where nothing else explains the picture.
Left out: boards whose light throws shadows, which take too long to draw.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image

from image2cad.cad import Drawing, Program, build, centred
from image2cad.common import Array, Stop
from image2cad.reading import BENCHCAD_STYLE
from image2cad.rendering import (
    BENCHCAD_EYES,
    BENCHCAD_GAP,
    BENCHCAD_HALF,
    BENCHCAD_TILE,
    STYLES,
    draw_view,
    views_of,
)
from image2cad.verification.candidate import Candidate, judged
from image2cad.verification.cost import BUILDS_NOTHING, Target
from image2cad.verification.features import Floats, squared
from image2cad.verification.fitting import descended
from image2cad.verification.floors import boxes
from image2cad.verification.parameters import parameters, rebuilt

RETOUCHED = 2  # candidates
BLOCKS = (4, 2, 1)  # pixels of the board in a block, for each stage of the fit
STEPS = (4, 3, 3)  # of the fit in each stage
OTHER_LOOK = 0.25  # share of an empty board's gap, from which the picture is not in this style
UNEXPLAINED = 0.03  # of that share, from which plain boxes are tried
RIM = 8  # pixels around the part in a view
LESS_BY = 0.9  # of a box's gap, that a better program leaves
MOST_RETOUCHED = 60  # numbers of a program; more take too long


def retouched(
    found: Sequence[Candidate], target: Target, image: Image.Image, stop: Stop
) -> list[Candidate]:
    """The candidates with the best of them fitted to BenchCAD's composite.

    image: the composite. As they are where it is not in that board's colours.
    """
    if not found or stop.due():
        return list(found)
    board = np.asarray(image.convert("RGB"), dtype=np.float32).mean(axis=2) / 255
    windows = _windows(board)
    shown = {block: _shares([board[place] for place in windows], block) for block in BLOCKS}
    white = [np.ones_like(board[place]) for place in windows]
    empty = squared(_shares(white, BLOCKS[-1]) - shown[BLOCKS[-1]])

    def gap(program: Program, block: int) -> Floats | None:
        drawing = build(program)
        return None if drawing is None else _shares(_drawn(drawing, windows), block) - shown[block]

    def judged_here(program: Program, source: str) -> tuple[float, Program, str]:
        here = gap(program, BLOCKS[-1])
        cost = BUILDS_NOTHING if here is None else squared(here) / empty
        return cost, program, source

    def fitted(one: tuple[float, Program, str]) -> tuple[float, Program, str]:
        layout, values = parameters(one[1], 0.004)
        if len(values) > MOST_RETOUCHED or one[0] == BUILDS_NOTHING:
            return one
        values = descended(
            values, lambda at, block: gap(rebuilt(layout, at), block), layout.size, BLOCKS, STEPS,
            0, stop,
        )  # fmt: skip
        return min(one, judged_here(rebuilt(layout, values), one[2]), key=lambda pair: pair[0])

    tried = [judged_here(one.program, one.source) for one in found[:RETOUCHED]]
    best = fitted(min(tried, key=lambda one: one[0]))
    if best[0] > UNEXPLAINED and not stop.due():
        plain = [judged_here(program, "templates") for program in boxes(target)]
        if plain:
            box = fitted(min(plain, key=lambda one: one[0]))
            best = box if box[0] < LESS_BY * best[0] else best
    if best[0] > OTHER_LOOK:
        return list(found)
    return [judged(_on_board(best[1], target), best[2], target), *found]


def _windows(board: Array) -> list[tuple[slice, slice]]:
    """Where the part is in each view of the board, with a rim, in reading order."""
    found = []
    for corner in range(len(BENCHCAD_EYES)):
        step = BENCHCAD_GAP + BENCHCAD_TILE
        top, left = (BENCHCAD_GAP + place * step for place in divmod(corner, 2))
        rows, columns = np.nonzero(
            board[top : top + BENCHCAD_TILE, left : left + BENCHCAD_TILE] < 1
        )
        window = []
        for start, places in ((top, rows), (left, columns)):
            first = max(int(places.min()) - RIM, 0)
            last = min(int(places.max()) + RIM + 1, BENCHCAD_TILE)
            window.append(slice(start + first, start + last))
        found.append((window[0], window[1]))
    return found


def _drawn(drawing: Drawing, windows: Sequence[tuple[slice, slice]]) -> list[Floats]:
    """Greys of a part in the windows of the board."""
    out = []
    views = views_of(BENCHCAD_STYLE, drawing)
    for view, (rows, columns) in zip(views, windows, strict=True):
        camera = view.camera.panned(-columns.start, -rows.start)
        size = (columns.stop - columns.start, rows.stop - rows.start)
        seen = draw_view(drawing, STYLES[BENCHCAD_STYLE], camera, size)
        out.append(seen.astype(np.float32).mean(axis=2) / 255)
    return out


def _shares(views: Sequence[Array], block: int) -> Floats:
    """(K,) means of the blocks of all views, weighted so that squares are of pixels."""
    means = []
    for view in views:
        high, wide = (side // block for side in view.shape)
        kept = view[: high * block, : wide * block].reshape(high, block, wide, block)
        means.append(block * kept.mean(axis=(1, 3)).ravel())
    out: Floats = np.concatenate(means)
    return out


def _on_board(program: Program, target: Target) -> Program:
    """The program where the board's cameras see it: its middle and longest side are known."""
    drawing = build(program)
    if drawing is None:
        return program
    sight, box = target.sights[0], drawing.bounding_box
    longest = BENCHCAD_TILE / 2 / BENCHCAD_HALF * sight.scene.place.scale / sight.camera.scale
    return centred(program, box, longest / float(np.ptp(box, axis=0).max()))
