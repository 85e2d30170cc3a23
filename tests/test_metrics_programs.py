"""Protects real programs from being refused: confinement stops attacks, not how people write."""

from __future__ import annotations

import pytest

from metrics.execution import run_many
from metrics.parts import Failure, Part


def test_programs_as_people_write_them_run():
    codes = {
        "text": "result = cq.Workplane().box(9, 9, 1).faces('>Z').workplane().text('Ab', 5, 1)",
        "show_object": "show_object(cq.Workplane().box(1, 1, 1), name='part', options={})",
        "several shown": (
            "for x in (0, 3): show_object(cq.Workplane().box(1, 1, 1).translate((x, 0, 0)))"
        ),
        "annotations and functions": (
            "import cadquery as cq\n"
            "from dataclasses import dataclass\nfrom typing import Optional\n"
            "@dataclass\nclass Size:\n    width: float = 2.0\n"
            "def make(size: Size, hole: Optional[float] = None) -> cq.Workplane:\n"
            "    part = cq.Workplane().box(size.width, 1, 1)\n"
            "    return part if hole is None else part.faces('>Z').workplane().hole(hole)\n"
            "if __name__ == '__main__':\n    plate: cq.Workplane = make(Size(), .3)"
        ),
        "assigned last under any name": (
            "a = cq.Workplane().box(1, 1, 1)\nb = cq.Workplane().box(2, 2, 2)\na = a.union(b)"
        ),
        "exports": (
            "import os\nfrom cadquery import exporters\nresult = cq.Workplane().box(1, 1, 1)\n"
            "os.makedirs('out', exist_ok=True)\nexporters.export(result, 'out/part.step')\n"
            "cq.exporters.export(result, '/part.stl')\nresult.val().exportStep('x.step')\n"
            "with open('log.txt', 'w') as log: log.write('done')\n"
            "cq.Assembly(result).save('a.step')\nprint(os.path.join('a', 'b'))"
        ),
        "indented": "    import cadquery as cq\n    result = cq.Workplane().box(1, 1, 1)\n",
        "sketch": "result = cq.Workplane().placeSketch(cq.Sketch().rect(2, 1)).extrude(1)",
        "logging and modules": (
            "import math, random, logging, itertools, functools, collections, json, sys\n"
            "logging.basicConfig()\nresult = cq.Workplane().box(math.pi, 1, random.random() + 1)"
        ),
        "VTK through CadQuery": (
            "box = cq.Workplane().box(1, 1, 1)\n"
            "mesh = box.val().toVtkPolyData(0.1, 0.1)\nassert mesh.GetNumberOfPoints() > 7\n"
            "result = cq.Workplane().box(mesh.GetNumberOfPoints(), 1, 1)"
        ),
        "VTK by itself": (
            "import vtkmodules.util.numpy_support as support\nimport vtk\n"
            "from vtkmodules.vtkCommonDataModel import vtkPolyData\n"
            "assert isinstance(vtk.VTK_MAJOR_VERSION, int) and support.get_vtk_array_type('f4')\n"
            "result = cq.Workplane().box(1, 1, 1 + vtkPolyData().GetNumberOfPoints())"
        ),
        "exit at the end": "result = cq.Workplane().box(1, 1, 1)\nexit()",
    }  # fmt: skip
    for name, got in zip(codes, run_many(list(codes.values())), strict=True):
        assert isinstance(got, Part), (name, str(got))
    last = run_many([codes["assigned last under any name"]])[0]
    assert isinstance(last, Part) and last.volume == pytest.approx(8)


def box(side: float) -> str:
    return f"cq.Workplane().box({side}, 1, 1)"


WHICH = {  # the volume of what is the part
    "result before the last": (f"result = {box(3)}\nlast = {box(4)}", 3),
    "solid and r are names like others": (f"solid = {box(2)}\nr = {box(3)}\nlast = {box(4)}", 4),
    "assigned last": (f"a = {box(2)}\nb = {box(3)}\na = a.cut(b).union({box(5)})", 5),
    "result is a face": (f"part = {box(2)}\nresult = part.faces('>Z')", 2),
    "a sketch, a face, a wire later": (
        f"part = {box(2)}\nprofile = cq.Sketch().rect(1, 1)\ntop = part.faces('>Z')\n"
        "rim = top.wires()\npoint = cq.Vertex.makeVertex(0, 0, 0)", 2,
    ),
    "faces in a loop": (f"part = {box(2)}\nfor one in part.faces().vals(): print(one.Area())", 2),
    "solids in a loop": (
        f"part = {box(2)}.add({box(3)}.translate((9, 0, 0)))\n"
        "for one in part.solids().vals(): print(one.Volume())", 5,
    ),
    "only a loop has them": (f"for one in ({box(2)}, {box(3)}): print(one)", 3),
    "shown beats all": (
        f"result = {box(2)}\nshow_object({box(3)}, 'name', {{'color': 'red'}})\n"
        f"cq.exporters.export({box(4)}, 'a.step')\nprobe = {box(5)}", 3,
    ),
    "all shown": (
        f"show_object([{box(2)}])\nshow_object({box(3)}.translate((9, 0, 0)))", 5,
    ),
    "shown faces do not count": (f"part = {box(2)}\nshow_object(part.faces('>Z'))", 2),
    "last export": (
        f"result = {box(2)}\ncq.exporters.export({box(3)}, 'a.step')\n"
        f"from cadquery import exporters\nexporters.export(w={box(4)}, fname='b.stl')\n"
        f"exporters.export({box(5)}.section(), 'c.dxf')\nprobe = {box(6)}", 4,
    ),
    "export of the shape": (f"result = {box(2)}\n{box(3)}.val().exportStep('a.step')", 3),
    "export of the chain": (f"result = {box(2)}\nkept = {box(3)}.export('a.step')", 3),
    "export of an assembly": (
        f"lid = {box(2)}\nwhole = cq.Assembly().add(lid).add({box(3)}, loc=cq.Location((9, 0, 0)))"
        "\nwhole.save('a.step')\nprobe = lid.translate((0, 0, 1))", 5,
    ),
    "an assembly as it was exported": (
        f"whole = cq.Assembly().add({box(2)})\nwhole.export('a.step')\n"
        f"whole.add({box(3)}, loc=cq.Location((9, 0, 0)))", 2,
    ),
    "export in main": (
        f"def main():\n    part = {box(2)}\n    cq.exporters.export(part, 'a.step')\n"
        "if __name__ == '__main__': main()", 2,
    ),
    "section exported": (
        f"part = {box(2)}\ncq.exporters.exportDXF(part.section(), 'a.dxf')", 2,
    ),
    "global in a function": (
        f"part = None\ntool = {box(9)}\ndef build():\n    global part\n    part = {box(2)}\n"
        "build()", 2,
    ),
    "two globals": (
        f"b = a = None\ndef build():\n    global a, b\n    b = {box(9)}\n    a = {box(2)}\n"
        f"    b = {box(3)}\nbuild()\nprint(a)", 3,
    ),
    "global, then another": (
        f"part = None\ndef build():\n    global part\n    part = {box(2)}\nbuild()\n"
        f"whole = part.union({box(3)})", 3,
    ),
    "a list": (f"parts = [{box(2)}, {box(3)}.translate((9, 0, 0))]\nsizes = [1, 2]", 5),
    "a dict": (
        f"parts = {{'a': {box(2)}, 'b': [{box(3)}.translate((9, 0, 0))]}}\n"
        "for name, one in parts.items(): print(name, one)", 5,
    ),
    "result is a dict": (f"result = {{'a': {box(2)}}}\nlast = {box(3)}", 2),
    "a shell is no solid beside one": (f"part = {box(2)}\nskin = part.shells().val()", 2),
    "a closed shell alone": (f"skin = {box(2)}.shells().val()", 2),
    "an empty assembly later": (f"part = {box(2)}\nwhole = cq.Assembly()", 2),
}  # fmt: skip


def test_the_part_is_what_is_shown_exported_or_assigned():
    codes = [code for code, _ in WHICH.values()]
    for name, got in zip(WHICH, run_many(codes), strict=True):
        assert isinstance(got, Part), (name, str(got))
        assert got.volume == pytest.approx(WHICH[name][1]), name


def test_nothing_but_faces_is_said_so():
    for code in (f"top = {box(2)}.faces('>Z')", f"show_object({box(2)}.faces('>Z'))"):
        (got,) = run_many([code])
        assert isinstance(got, Failure) and got.kind == "no solid" and "only faces" in got.message
