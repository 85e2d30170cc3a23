"""Protects reading programs without running them: it is what CadQuery builds, or nothing."""

import re

import ezdxf
import pytest

from image2cad.cad import compact
from image2cad.cad.exports import export
from image2cad.cad.parsing import Unread, parse
from image2cad.cad.program import to_code
from metrics.execution import run_cadquery
from metrics.parts import Part

HEAD = "import cadquery as cq\n"
XY = "result = cq.Workplane('XY')"
TILTED = "cq.Workplane(cq.Plane((1, 2, 3), (0, 0.6, 0.8), (1, 0, 0)))"
READ = [
    f"{XY}.rect(10, 10).circle(2).extrude(5)",
    "result = cq.Workplane('XZ').circle(5).circle(2).extrude(5)",
    "result = cq.Workplane('YZ').moveTo(3, 1).circle(5).rect(2, 3).extrude(-5)",
    f"{XY}.center(3, 0).rect(10, 10).extrude(5)",
    f"result = {TILTED}.center(3, 1).rect(10, 8).center(1, 2).circle(1).extrude(5)",
    f"result = {TILTED}.workplane(offset=5).rect(10, 8).circle(2).extrude(5, both=True)",
    "result = cq.Workplane('ZX', origin=(1, 2, 3)).workplane(-5).workplane().circle(4).extrude(2)",
    f"{XY}.center(1, 2).lineTo(5, 0).threePointArc((6, 2), (5, 4)).lineTo(0, 4)"
    ".close().center(1, 1).circle(0.5).moveTo(3, 1).circle(0.5).extrude(1)",
    f"{XY}.center(-9, 1).polyline([(0, 0), (4, 0), (0, 3)]).close().extrude(2)",
    # A workplane shares its loops with all that is made from it, wherever their centres are.
    "w = cq.Workplane('XY')\na = w.center(5, 0).rect(2, 2)\nb = w.rect(3, 3)\n"
    "result = a.extrude(1)",
    "a = cq.Workplane('XY').workplane(offset=1).center(1, 0).rect(20, 20).extrude(2)\n"
    "result = a.cut(cq.Workplane('XY').center(3, 0).circle(2).extrude(9))",
]  # fmt: skip
NOT_READ = [
    f"{XY}.rect(4, 4).workplane(offset=5).rect(2, 2).extrude(1)",
    "w = cq.Workplane('XY')\na = w.workplane(offset=5)\nb = w.rect(9, 9)\n"
    "result = a.rect(2, 2).extrude(1)",
    f"{XY}.center(1, 0).workplane(offset=5).rect(2, 2).extrude(1)",
    f"{XY}.workplane(offset=5, invert=True).rect(2, 2).extrude(1)",
    f"{XY}.workplane(origin=(1, 2, 3)).rect(2, 2).extrude(1)",
    f"{XY}.workplane(offset=d).rect(2, 2).extrude(1)",
    f"{XY}.rect(4, 4).lineTo(1, 1).lineTo(1, 0).close().extrude(1)",
    f"{XY}.lineTo(1, 0).center(1, 1).lineTo(0, 3).close().extrude(1)",
    # The circle would stand at the path's centre of mass, or at every loop that is added.
    f"{XY}.polyline([(0, 0), (4, 0), (0, 3)]).close().circle(0.5).extrude(1)",
    "w = cq.Workplane('XY')\na = w.rect(9, 9)\nb = w.moveTo(9, 9).rect(2, 2)\n"
    "result = a.add(b).circle(0.5).extrude(1)",
]  # fmt: skip


def box_code(side):
    return f"cq.Workplane('XY').rect({side}, 1).extrude(1)"


@pytest.mark.parametrize("code", READ)
def test_what_is_read_is_what_cadquery_builds(code):
    program = parse(HEAD + code)
    built, read = run_cadquery(HEAD + code), run_cadquery(to_code(program, decimals=12))
    assert isinstance(built, Part) and isinstance(read, Part), (built, read)
    assert read.volume == pytest.approx(built.volume, rel=1e-9) and read.solids == built.solids
    assert read.bounding_box == pytest.approx(built.bounding_box, abs=1e-6)
    assert read.center == pytest.approx(built.center, abs=1e-9)


BOXES = f"solid = {box_code(2)}\nresult = {box_code(3)}\nlast = {box_code(4)}\n"
WHICH = {  # the side of the box that is the part
    BOXES: 3,
    f"solid = {box_code(2)}\nr = {box_code(3)}\nlast = {box_code(4)}": 4,
    f"a = {box_code(2)}\nb = {box_code(3)}\na = a.union({box_code(5)})": 5,
    f"a = {box_code(2)}\nresult = cq.Workplane().rect(9, 9)": 2,
    f"{BOXES}cq.exporters.export(solid, 'a.step')": 2,
    f"{BOXES}cq.exporters.export(solid, 'a.step', opt={{}})\n"
    "cq.exporters.export(last, 'b.stl')\ncq.exporters.export(cq.Workplane().rect(9, 9), 'c')": 4,
    f"{BOXES}show_object(solid, name='a', options={{'color': 'red'}})\n"
    "cq.exporters.export(last, 'a.step')\nshow_object(cq.Workplane().rect(9, 9))": 2,
    f"\ufeff{HEAD}result = {box_code(6)}": 6,
}  # fmt: skip


@pytest.mark.parametrize("code", WHICH)
def test_the_part_is_the_object_that_the_scores_take(code):
    code = code if code.startswith("\ufeff") else HEAD + code
    built, program = run_cadquery(code), parse(code)
    assert isinstance(built, Part), built
    assert built.volume == pytest.approx(WHICH[code.removeprefix(HEAD)])
    assert run_cadquery(to_code(program)).volume == pytest.approx(built.volume)


@pytest.mark.parametrize("code", NOT_READ)
def test_what_cadquery_may_build_in_another_way_is_not_read(code):
    found = parse(HEAD + code)
    assert isinstance(found, Unread) and not found
    assert re.fullmatch(r"line [2-5]: \S.*", found.reason) and "\n" not in found.reason


def test_what_is_not_read_is_named_with_its_line():
    reasons = {
        f"{XY}.rect(4, 4)\\\n .extrude(1)\\\n .fillet(.2)": "line 4: fillet is not read",
        "a = 1\nresult = cq.Workplane().box(1, 2, 3)": "line 2: `1` is not read",
        "result = cq.Workplane().box(1, 2, 3)": "line 2: box is not read",
        f"d = cq.Workplane()\n{XY}.circle(d).extrude(1)": "line 3: a number is needed, not `d`",
        f"{XY}.circle(2).extrude(1, taper=5)": "line 2: `extrude(1, taper=5)` is not read",
        "for i in range(3):\n    pass": "line 2: `for i in range(3):` is not read",
        "x = cq.Workplane().rect(1, 1)": "no solid is built",
        "": "no solid is built",
        "show_object(a.rect(1, 1), name=n)": "line 2: `show_object.*, name=n.` is not read",
        f"a = {box_code(2)}\nshow_object(a)\nshow_object(a.cut(a))": "several parts are shown",
        "result = oops(": "line 2: this is not Python ('(' was never closed)",
        "result = " + "(" * 500: "nested too deeply|not Python",
        "#" * 100_000: "has 100,022 characters",
        "\0": "null byte",
        "# \ud800": "surrogate",
    }
    for code, reason in reasons.items():
        found = parse(HEAD + code)
        assert isinstance(found, Unread), code
        assert reason == found.reason or re.search(reason, found.reason), (code, found.reason)
    many = "solid = cq.Workplane().rect(1, 1).extrude(1)\n" + "solid = solid.union(solid)\n" * 10
    assert parse(HEAD + many).reason == "line 11: over 500 extrusions are not read"


def test_both_sides_are_kept_apart_and_written_as_one():
    code = f"{HEAD}{XY}.rect(4, 2).extrude(-3, both=True)"
    (step,) = parse(code)
    assert step.both and step.depth == -6 and step.plane.origin == (0, 0, 3)
    assert "both" not in to_code((step,))
    assert compact(code) == (
        "import cadquery as cq\nsolid = "
        'cq.Workplane("XY", origin=(0, 0, -3)).rect(4, 2).extrude(6)\n'
    )


def test_a_plate_with_a_hole_has_a_drawing(tmp_path):
    file = tmp_path / "plate.dxf"
    file.write_bytes(export(None, HEAD + READ[0], "dxf"))
    space = ezdxf.readfile(file).modelspace()
    assert sorted(one.dxftype() for one in space) == ["CIRCLE", "LINE", "LINE", "LINE", "LINE"]
    (hole,) = space.query("CIRCLE")
    assert hole.dxf.radius == 2 and hole.dxf.center.isclose((0, 0, 0))
