"""Protects how far answers are said to be right where GenCAD did not draw the picture.

Parts are drawn here in another style, and judged by the camera that drew them: what no view shows,
what a camera that is only estimated leaves open, and another solid that draws alike are all told.
"""

from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from image2cad.cad import build, renamed_axes
from image2cad.cad.program import NAMED, Circle, Extrusion, Path, Plane, Rect, Segment
from image2cad.reading import namings, scene_of
from image2cad.rendering import filling
from image2cad.rendering.styles import STYLES, draw_view
from image2cad.verification.candidate import judged
from image2cad.verification.confidence import (
    LEAST_LEAD,
    MOST_LEAD,
    chance,
    confidence_of,
    lead_of,
    slanted_sides,
)
from image2cad.verification.cost import BUILDS_NOTHING, blemish_of, cost_of
from image2cad.verification.leeway import WIDE_OPEN, leeway_of
from image2cad.verification.proportions import change, proportions_of, unlikeness
from image2cad.verification.viewing import target_of

FLOOR = Plane((0.0, 0.0, 0.0), *NAMED["XY"])
BLOCK = (Extrusion(FLOOR, (Rect(50, 30, 100, 60),), 40),)
PLATE = (Extrusion(FLOOR, (Rect(50, 30, 100, 60), Circle(70, 30, 12)), 20),)
# Behind the block: seen from the front its lower end is hidden.
TAB = Extrusion(FLOOR, (Rect(40, 70, 40, 20),), 70)
FRONT, BACK = (1.0, -1.0, 1.0), (1.0, 1.0, 1.0)


def seen(program, eye):
    """What programs are compared with that shall look like this one from there."""
    drawing = build(program)
    camera = filling(drawing.vertices, eye)
    picture = Image.fromarray(draw_view(drawing, STYLES["coloured"], camera, (448, 448)))
    scene = scene_of(picture)
    return target_of(scene, scene.place.camera(camera))


@pytest.fixture(scope="module")
def block():
    """(target, the program that draws it exactly)."""
    target = seen(BLOCK, FRONT)
    return target, judged(BLOCK, "traced", target)


def test_confidence_falls_with_all_that_speaks_against_an_answer():
    least, worse = (0.0, 1, 6, 0.03, MOST_LEAD), (0.01, 6, 1000, 0.9, 0.0)
    assert chance(*least) > 0.9 and 0 < chance(*worse) < 0.01
    for place, value in enumerate(worse):
        doubted = [*least]
        doubted[place] = value
        assert chance(*doubted) < 0.8, place
        nearly = [*least]
        nearly[place] = least[place] + 0.02 * (value - least[place])
        assert chance(*doubted) < chance(*nearly) <= chance(*least), place
    # The lines of the right part need not lie on those of a drawing, and one view hides more.
    doubted = [0.0006, 2, 12, 0.03, MOST_LEAD]
    assert chance(*doubted) < chance(*doubted, several=True) < chance(*doubted, drawn=True)


def test_a_hole_that_is_missing_is_a_blemish_and_the_same_cost_all_over_is_less():
    target = seen(PLATE, FRONT)
    without = (replace(PLATE[0], loops=PLATE[0].loops[:1]),)
    thicker = min(
        ((replace(PLATE[0], depth=20 + more),) for more in (0.5, 1.0, 1.5, 2.0, 3.0, 4.0)),
        key=lambda program: abs(cost_of(program, target) - cost_of(without, target)),
    )
    assert cost_of(thicker, target) == pytest.approx(cost_of(without, target), rel=0.4)
    assert blemish_of(PLATE, target) < 0.1 * blemish_of(without, target)
    assert blemish_of(thicker, target) < 0.7 * blemish_of(without, target)
    assert blemish_of(without, target) <= 1.5 * cost_of(without, target, 8)
    tangled = (replace(PLATE[0], loops=PLATE[0].loops * 2),)
    assert blemish_of(tangled, target) == BUILDS_NOTHING


def test_what_draws_exactly_without_a_rival_is_believed_and_with_an_equal_one_is_not(block):
    target, one = block
    twice = judged((replace(BLOCK[0], depth=80),), "traced", target)
    equal = replace(twice, cost=one.cost)  # as if it drew the picture as well
    assert confidence_of(one, target, [], turning=True) > 0.9
    assert confidence_of(one, target, [twice], turning=True) > 0.9  # it draws far worse
    assert confidence_of(one, target, [equal], turning=True) < 0.5
    # One solid, whatever its axes are called and whatever its size, is no rival.
    turned = renamed_axes(BLOCK, namings()[7])
    assert lead_of(one, [replace(one, program=turned)]) == MOST_LEAD
    assert lead_of(one, [replace(equal, cost=0.0)]) < 0
    assert lead_of(replace(one, program=()), []) == LEAST_LEAD


def test_hidden_ends_and_estimated_cameras_leave_proportions_open(block):
    target, one = block
    known, estimated = (leeway_of(one.program, target, turning) for turning in (False, True))
    assert 0 < known < estimated < 0.1
    part = (*BLOCK, TAB)
    hidden, shown = (leeway_of(part, seen(part, eye), turning=False) for eye in (FRONT, BACK))
    assert hidden > 1.5 * shown
    # Of a picture that it does not explain a program says less.
    (sight,), (other,) = target.sights, seen(PLATE, FRONT).sights
    strange = replace(target, sights=(replace(sight, features=other.features),))
    assert leeway_of(one.program, strange, turning=False) > 2 * known


def test_an_estimated_camera_that_sees_two_axes_along_one_line_leaves_all_open():
    """How much of the height is foreshortened and how much of the depth, nothing tells."""
    along = seen(BLOCK, (0.02, -1.0, 0.8))
    assert leeway_of(BLOCK, along, turning=True) == WIDE_OPEN
    assert leeway_of(BLOCK, along, turning=False) < 0.2
    assert leeway_of(BLOCK, seen(BLOCK, (0.4, -1.0, 0.8)), turning=True) < 0.2


def test_slanted_sides_speak_against_an_estimated_camera(block):
    """A regular hexagon from an unknown side draws as well as a skewed one by another camera."""
    corners = [
        (50.0, 0.0),
        (25.0, 43.3),
        (-25.0, 43.3),
        (-50.0, 0.0),
        (-25.0, -43.3),
        (25.0, -43.3),
    ]
    hexagon = Path(corners[0], tuple(Segment(corner) for corner in corners[1:]))
    chamfered = Path(
        (0.0, 0.0), (Segment((90.0, 0.0)), Segment((100.0, 10.0)), Segment((0.0, 10.0)))
    )
    counts = [
        slanted_sides((Extrusion(FLOOR, (loop,), 20),))
        for loop in (hexagon, chamfered, Circle(0, 0, 9))
    ]
    assert counts == [4, 1, 0]
    assert slanted_sides(BLOCK) == 0
    few, many = (chance(1e-4, 1, 8, 0.03, MOST_LEAD, slanted) for slanted in (1, 4))
    assert few == chance(1e-4, 1, 8, 0.03, MOST_LEAD) and many < 0.5 * few


def test_proportions_know_a_solid_from_all_sides():
    own, plate = proportions_of(BLOCK), proportions_of(PLATE)
    # A box of sides a, b, c has moments a² / 12, b² / 12, c² / 12.
    sides = np.array([100.0, 60.0, 40.0])
    assert np.diag(own.moments) == pytest.approx(sides**2 / (sides**2).sum())
    assert own.fill == pytest.approx(sides.prod() / ((sides**2).sum() / 12) ** 1.5)
    for axes in namings()[::5]:
        assert unlikeness(own, proportions_of(renamed_axes(BLOCK, axes))) < 1e-9
    assert unlikeness(own, plate) > 0.3
    thicker = proportions_of((replace(BLOCK[0], depth=44),))
    assert np.linalg.norm(change(own, thicker)) == pytest.approx(0.1, abs=0.03)
    assert proportions_of(()) is None
