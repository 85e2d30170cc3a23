"""Protects the numbers of a program: names that people understand, and what moves with each.

Concentric things stay concentric, through holes through, outlines closed and symmetric; every
number can be reached; a size scales the whole program; values are rounded where nobody sees it.
"""

from __future__ import annotations

import json
import math
from dataclasses import is_dataclass
from pathlib import Path

import pytest

from image2cad.cad import parse, rounded_off, size_named, sized, to_code
from image2cad.cad.dimensions import dimensions, longest_side, rounder, with_dimensions
from image2cad.cad.numbered import numbers, replaced, with_numbers
from image2cad.cad.program import Plane
from image2cad.common.errors import InputError
from metrics.execution import run_cadquery

ROOT = Path(__file__).resolve().parent.parent
PLATE = """import cadquery as cq
solid = cq.Workplane("XY", origin=(0, 0, -10)).rect(100, 60).moveTo(40, 20).circle(3)\
.moveTo(-40, 20).circle(3).moveTo(40, -20).circle(3).moveTo(-40, -20).circle(3).extrude(20)
solid = solid.union(cq.Workplane("XY", origin=(0, 0, 10)).circle(15).extrude(30))
solid = solid.cut(cq.Workplane("XY", origin=(0, 0, -10)).circle(8).extrude(50))
"""
SLOTTED = """import cadquery as cq
solid = cq.Workplane("XY").moveTo(-40, -30).lineTo(40, -30).threePointArc((47.071068, -27.071068), \
(50, -20)).lineTo(50, 20).threePointArc((47.071068, 27.071068), (40, 30)).lineTo(-40, 30)\
.threePointArc((-47.071068, 27.071068), (-50, 20)).lineTo(-50, -20)\
.threePointArc((-47.071068, -27.071068), (-40, -30)).close()\
.moveTo(-10, -5).lineTo(10, -5).threePointArc((15, 0), (10, 5)).lineTo(-10, 5)\
.threePointArc((-15, 0), (-10, -5)).close().extrude(12)
"""
FLANGE = """import cadquery as cq
solid = cq.Workplane("XZ", origin=(0, 25, 0)).circle(50).moveTo(0, 0).circle(16)\
.moveTo(-18, -31.177).circle(5).moveTo(36, 0).circle(5).moveTo(-18, 31.177).circle(5).extrude(12)
solid = solid.union(cq.Workplane("XZ", origin=(0, 13, 0)).circle(23).moveTo(0, 0).circle(16)\
.extrude(38))
"""
BRACKET = """import cadquery as cq
solid = cq.Workplane("XZ", origin=(0, 50, 0)).polyline([(-34, -44), (34, -44), (34, -34), \
(-24, -34), (-24, 44), (-34, 44)]).close().extrude(100)
solid = solid.cut(cq.Workplane("XY", origin=(0, 0, -44)).moveTo(5, 0).circle(7).extrude(10))
"""
LUG = """import cadquery as cq
solid = cq.Workplane("YZ").moveTo(-19, -9).lineTo(19, -9).lineTo(19, 10)\
.threePointArc((0, 29), (-19, 10)).close().moveTo(0, 10).circle(6).extrude(8)
"""
FILLETED = """import cadquery as cq
wide = 30
result = cq.Workplane("XY").box(wide, 20, 10).edges("|Z").fillet(2)
"""


def values(code: str) -> dict[str, float]:
    return {one.name: one.value for one in numbers(code, None)}


def volume(code: str) -> float:
    part = run_cadquery(code)
    assert not hasattr(part, "kind"), part
    return part.volume


def test_features_have_the_names_that_an_engineer_gives_them() -> None:
    found = values(PLATE)
    assert found == {
        "plate length": 100, "plate width": 60, "plate thickness": 20, "plate x": 0, "plate y": 0,
        "plate z": -10, "holes 1 to 4 diameter": 6, "holes 1 to 4 spacing x": 80,
        "holes 1 to 4 spacing y": 40, "boss diameter": 30, "boss height": 30, "hole 5 diameter": 16,
    }  # fmt: skip
    slotted = values(SLOTTED)
    for name, value in {
        "plate length": 100, "plate width": 60, "plate corner radius": 10, "plate thickness": 12,
        "slot length": 30, "slot width": 10,
    }.items():  # fmt: skip
        assert slotted[name] == pytest.approx(value, abs=1e-4), name
    flange = values(FLANGE)
    assert flange["hole 1 diameter"] == 32 and flange["holes 2 to 4 diameter"] == 10
    assert flange["holes 2 to 4 circle diameter"] == pytest.approx(72, abs=1e-3)
    assert flange["disc thickness"] == 12 and flange["boss height"] == 38


def test_what_hangs_on_a_number_moves_with_it() -> None:
    plate, boss, hole = parse(with_numbers(PLATE, {"plate thickness": 25, "plate length": 120}))
    assert (plate.plane.origin[2], plate.depth) == (-10, 25)
    assert (boss.plane.origin[2], boss.depth) == (15, 30)  # on the plate, as high as before
    assert (hole.plane.origin[2], hole.depth) == (-10, 55)  # still through
    assert (plate.loops[0].x, plate.loops[0].width) == (0, 120)  # still about the middle
    wider = parse(with_numbers(PLATE, {"holes 1 to 4 spacing x": 90, "plate x": 5}))
    assert sorted(loop.x for loop in wider[0].loops[1:]) == [-40, -40, 50, 50]
    assert wider[0].loops[0].x == wider[1].loops[0].x == wider[2].loops[0].x == 5
    first, second = parse(with_numbers(FLANGE, {"hole 1 diameter": 20, "disc thickness": 20}))
    assert first.loops[1].radius == second.loops[1].radius == 10  # one bore through both
    assert first.plane.origin[1] - 20 == pytest.approx(second.plane.origin[1])
    _, hole = parse(with_numbers(BRACKET, {"block step 2": 16}))
    assert abs(hole.depth) == 16  # through the thicker leg


def test_a_hole_goes_with_the_arc_that_it_is_about() -> None:
    assert values(LUG)["plate length"] == values(LUG)["plate width"] == 38
    (lug,) = parse(with_numbers(LUG, {"plate width": 44, "plate z": values(LUG)["plate z"] + 5}))
    outline, hole = lug.loops
    assert outline.segments[1].end == (19, 21) and (hole.x, hole.y) == (0, 21)


def test_outlines_stay_closed_and_symmetric() -> None:
    wanted = {"plate length": 130, "plate corner radius": 5, "slot length": 40, "slot width": 14}
    code = with_numbers(SLOTTED, wanted)
    now = values(code)
    for name, value in wanted.items():
        assert now[name] == pytest.approx(value, abs=1e-4), name
    rounded = 130 * 60 - (4 - math.pi) * 25
    slot = 26 * 14 + math.pi * 49
    assert volume(code) == pytest.approx(12 * (rounded - slot), rel=1e-5)


def test_every_number_can_be_reached_and_set() -> None:
    rows = (ROOT / "data/samples/test/metadata.jsonl").read_text().splitlines()
    for code in (
        PLATE,
        SLOTTED,
        FLANGE,
        BRACKET,
        LUG,
        *(json.loads(row)["cadquery"] for row in rows),
    ):
        program = with_dimensions(parse(code), {})
        before = flat(program)
        reached = [False] * len(before)
        names = [one.name for one in dimensions(program)]
        assert len(names) == len(set(names))
        for one in dimensions(program):
            after = with_dimensions(program, {one.name: one.value + 1e-3})
            changed = flat(after)
            moved = [abs(a - b) > 1e-7 for a, b in zip(before, changed, strict=True)]
            assert any(moved), one.name
            reached = [a or b for a, b in zip(reached, moved, strict=True)]
            again = {other.name: other.value for other in dimensions(after)}
            if one.name in again:  # a square's longer side may have the other's name then
                wanted = pytest.approx(one.value + 1e-3, abs=1e-6)
                assert wanted in [again[one.name], again.get(one.name.replace("width", "length"))]
        unreached = [value for value, moved in zip(before, reached, strict=True) if not moved]
        assert not any(unreached), (
            code,
            names,
            [one for one in unreached if one],
        )


def flat(values: object) -> list[float]:
    if isinstance(values, Plane):  # its axes are directions
        return flat(values.origin)
    if is_dataclass(values):
        values = tuple(vars(values).values())
    if isinstance(values, tuple):
        return [number for one in values for number in flat(one)]
    return [float(values)] if isinstance(values, int | float) and values is not True else []


def test_numbers_that_cannot_be_are_refused_by_name() -> None:
    with pytest.raises(InputError, match="no number 'hole 9 diameter'; it has plate length"):
        with_numbers(PLATE, {"hole 9 diameter": 4})
    with pytest.raises(InputError, match="boss diameter must be above 0 mm, not -1"):
        with_numbers(PLATE, {"boss diameter": -1})
    with pytest.raises(InputError, match="cannot be nan"):
        with_numbers(PLATE, {"boss diameter": math.nan})
    assert replaced(PLATE, {0: 100.0}) == PLATE


def test_numbers_become_round_where_that_is_not_seen() -> None:
    rough = PLATE.replace("rect(100, 60)", "rect(100, 59.97)").replace(
        "circle(15)", "circle(15.02)"
    )
    rough = rough.replace("extrude(30)", "extrude(29.96)").replace("extrude(50)", "extrude(49.96)")
    assert to_code(rounder(parse(rough), 0.1)) == PLATE
    assert longest_side(parse(PLATE)) == 100
    part = run_cadquery(rough)
    code, got = rounded_off(rough, part, lambda other: False, run_cadquery)
    assert code == PLATE and got.bounding_box[1][2] == pytest.approx(40)
    assert rounded_off(rough, part, lambda other: True, run_cadquery) == (rough, part)


def test_a_size_scales_the_whole_program() -> None:
    for text, code, longest in (
        ("80", PLATE, 80), ("plate thickness=10mm", PLATE, 50), ("75", FILLETED, 75),
    ):  # fmt: skip
        before = run_cadquery(code)
        scaled, part = sized(code, before, size_named(text), run_cadquery)
        box = part.bounding_box
        assert max(box[1] - box[0]) == pytest.approx(longest, abs=1e-6)
        factor = longest / max(before.bounding_box[1] - before.bounding_box[0])
        assert part.volume == pytest.approx(before.volume * factor**3, rel=1e-6)
        assert volume(scaled) == pytest.approx(part.volume)
    with pytest.raises(InputError, match="no measure 'leg'; it has plate length"):
        sized(PLATE, run_cadquery(PLATE), size_named("leg=4"), run_cadquery)
    for text in ("0", "-3", "nan", "inf", "80 inch", "=5", "1e9"):
        with pytest.raises(InputError, match="number of millimetres above 0"):
            size_named(text)
