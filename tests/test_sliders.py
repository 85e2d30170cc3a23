"""Protects the sliders: which numbers of a program can be moved, and that all other text stays."""

from __future__ import annotations

import ast
import json
from pathlib import Path

import pytest

from image2cad.cad.literals import MOST_NUMBERED
from image2cad.cad.numbered import numbers, replaced

ROOT = Path(__file__).resolve().parent.parent
PROGRAM = """# 5 holes, é
width, height = 10, -2.50  # 3 mm
points = [(0, 1e1), (-1_0, .5)]
text = f"{5} and 7" + "8"
other = 0x10; flag = True; power = width**2; first = points[0]
part = (
    cq.Workplane("XY", origin=(0, 0, 4)).rect(width, 12.5).extrude(- 3).faces(">Z")
    .polygon(6, 2.).rarray(5, 5, 2, 3).circle(-(4)).fillet(radius=0.5)
    .rotate((0, 0, 0), (0, 0, 1), 45)
)
é = cq.Vector(1, 2, 3)
"""
NAMES = {
    "width": 10, "height": -2.5, "points 1 x": 0, "points 1 y": 10, "points 2 x": -10,
    "points 2 y": 0.5, "Workplane origin x": 0, "Workplane origin y": 0,
    "Workplane origin z": 4, "rect y length": 12.5, "extrude depth": -3, "polygon sides": 6,
    "polygon diameter": 2, "rarray x spacing": 5, "rarray y spacing": 5, "rarray x count": 2,
    "rarray y count": 3, "circle radius": 4, "fillet radius": 0.5, "rotate angle": 45,
    "Vector x": 1, "Vector y": 2, "Vector z": 3,
}  # fmt: skip


def test_numbers_that_mean_something_are_found_by_name_in_order() -> None:
    found = numbers(PROGRAM, 100)
    assert {one.name: one.value for one in found} == NAMES
    assert [one.start for one in found] == sorted(one.start for one in found)
    for one in found:
        assert ast.literal_eval(PROGRAM[one.start : one.end].strip("()")) == one.value
        assert one.low < one.high and one.low <= one.value <= one.high and one.step > 0, one
    sides = next(one for one in found if one.name == "polygon sides")
    assert sides.step == 1 and sides.low == 1  # a count stays whole
    assert all(one.low > 0 for one in found if one.name.endswith("radius"))


@pytest.mark.parametrize("value", [-3.5, 0.0, 7.0, 1e-7, 123456789.123, -1e300])
def test_replaced_text_parses_to_the_new_value_and_all_else_stays(value: float) -> None:
    found = numbers(PROGRAM, 100)
    for index, one in enumerate(found):
        text = replaced(PROGRAM, {index: value}, 100)
        ast.parse(text)
        assert text.startswith(PROGRAM[: one.start]) and text.endswith(PROGRAM[one.end :])
        new = text[one.start : len(text) - len(PROGRAM) + one.end]
        assert ast.literal_eval(new) == pytest.approx(value)
    everything = replaced(PROGRAM, dict.fromkeys(range(len(found)), value), 100)
    assert [one.value for one in numbers(everything, 100)] == pytest.approx([value] * len(found))


def test_the_number_of_sliders_is_limited_to_the_most_telling() -> None:
    names = [one.name for one in numbers(PROGRAM, 3)]
    assert names == ["width", "height", "rect y length"]  # no zeros, no coordinates
    rows = (ROOT / "data/samples/test/metadata.jsonl").read_text().splitlines()
    for row in rows:
        code = json.loads(row)["cadquery"]
        found = numbers(code)
        assert 2 <= len(found) <= 12
        assert replaced(code, {0: found[0].value}) == code


@pytest.mark.parametrize(
    "code",
    [
        "", "x = (", "\0", "x = '\ud800'", "x = " + "-" * 9000 + "1", "(" * 5000, "x = 1e999",
        "x = 10**9", "x = 5 .real", "x = 1j", f"x = {'9' * 400}", "x = 1\n" * MOST_NUMBERED,
        ".".join(["a"] * 9000) + " = 1", "[" * 90 + "1" + "]" * 90,
    ],
)  # fmt: skip
def test_odd_programs_are_no_trouble(code: str) -> None:
    assert len(numbers(code)) <= 1


def test_lines_end_in_any_way_and_columns_count_letters() -> None:
    code = "é = 'ü'; a = 1\r\nb = 2\rc = 3\n\x0cd = 4"
    assert [code[one.start : one.end] for one in numbers(code)] == list("1234")
    assert replaced(code, {1: -5, 3: 6.5}) == "é = 'ü'; a = 1\r\nb = -5\rc = 3\n\x0cd = 6.5"


@pytest.mark.parametrize("values", [{-1: 2.0}, {99: 2.0}, {0: float("nan")}, {0: float("inf")}])
def test_a_number_that_is_not_there_or_no_number_is_refused(values: dict[int, float]) -> None:
    with pytest.raises(ValueError, match="there is no number"):
        replaced("a = 1", values)
