"""Protects thin parts on BenchCAD's composite: boxes that silhouettes measure, and the last fit.

VTK draws the board. A bar that is a few pixels thick has to come out within a tenth of a pixel of a
view, and a picture that only has the board's size must not be bent to its colours.
"""

import numpy as np
import pytest
from PIL import Image, ImageOps

from benchmarks import vtk_pictures
from image2cad.cad import build
from image2cad.cad.program import NAMED, Circle, Extrusion, Plane, Rect, to_code
from image2cad.common import NEVER
from image2cad.reading import BENCHCAD_STYLE, views_in
from image2cad.verification.candidate import judged
from image2cad.verification.cost import look_at_sights
from image2cad.verification.floors import boxes
from image2cad.verification.retouching import retouched
from image2cad.verification.sights import sight_of
from image2cad.verification.viewing import cameras_of_tiles
from metrics.execution import run_many

FLOOR = Plane((0.0, 0.0, 0.0), *NAMED["XY"])
THIN = (100.0, 21.0, 2.4)


def bar(x, y, z, *holes):
    return (Extrusion(FLOOR, (Rect(0, 0, x, y), *holes), z),)


def board_of(program):
    """(composite, what programs are compared with)."""
    (part,) = run_many([to_code(program)])
    board = vtk_pictures.taken(BENCHCAD_STYLE, "thin", vtk_pictures.solid_of(part)).image
    tiles = views_in(board)
    assert [tile.style for tile in tiles] == [BENCHCAD_STYLE] * 4
    return board, look_at_sights([sight_of(*view) for view in cameras_of_tiles(tiles)])


def proportions(program):
    sides = np.ptp(build(program).bounding_box, axis=0)
    return 100 * sides / sides.max()


@pytest.fixture(scope="module")
def thin():
    return board_of(bar(*THIN, Circle(-30, 0, 4)))


def test_a_thin_part_is_fitted_to_a_tenth_of_a_pixel(thin):
    board, target = thin
    rough = bar(100, 23, 3.4, Circle(-28, 1, 5))
    found = retouched([judged(rough, "traced", target)], target, board, NEVER)
    assert len(found) == 2 and found[0].source == "traced"
    # 142 pixels of a view are 100 here.
    assert proportions(found[0].program) == pytest.approx(THIN, abs=0.15)
    hole = found[0].program[0].loops[1]
    longest = np.ptp(build(found[0].program).bounding_box, axis=0).max()
    assert 100 * hole.radius / longest == pytest.approx(4, abs=0.2)


def test_the_plain_box_is_found_where_a_program_explains_nothing(thin):
    board, target = thin
    measured = np.array([proportions(box) for box in boxes(target)])
    assert np.abs(measured - THIN).max(axis=1).min() < 12
    strange = (Extrusion(FLOOR, (Circle(0, 0, 20),), 100),)
    best = retouched([judged(strange, "traced", target)], target, board, NEVER)[0]
    assert best.source == "templates"
    assert proportions(best.program) == pytest.approx(THIN, abs=1.0)


def test_a_board_in_other_colours_is_left_alone(thin):
    board, target = thin
    known = [judged(bar(100, 23, 3.4), "traced", target)]
    inverted = ImageOps.invert(board.convert("RGB"))
    white = Image.new("RGB", board.size, "white")
    white.paste(inverted.crop((10, 10, 250, 250)), (10, 10))
    for corner in ((4, 4), (264, 4), (4, 264), (264, 264)):
        white.paste(inverted.crop((100, 100, 160, 160)), (corner[0] + 98, corner[1] + 98))
    assert retouched(known, target, white, NEVER) == known
