"""Protects real programs from being refused: confinement stops attacks, not how people write."""

from __future__ import annotations

import pytest

from metrics.execution import run_many
from metrics.parts import Part


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
