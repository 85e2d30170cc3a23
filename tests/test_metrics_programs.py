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


BACK = "result = cq.importers.importStep('a.step')"
ORDINARY = {  # what people write around a part; each gives a box of 3 x 1 x 1
    "cadquery.vis": "from cadquery.vis import show, style\nshow(style(PART, color='red'))",
    "cadquery.vis as a module": "import cadquery.vis\ncadquery.vis.show([PART], interact=False)",
    "another viewer": "from ocp_vscode import *\nset_port(3939)\nshow(PART, names=['a'])",
    "a viewer's settings": (
        "from ocp_vscode import Camera, show\nshow(PART, reset_camera=Camera.KEEP)"
    ),
    "a viewer that runs apart": (
        "from cq_server.ui import ui, show_object\nshow_object(PART, name='a')"
    ),
    "exit by what main returns": (
        "import sys\ndef main():\n    cq.exporters.export(PART, 'a.step')\n    return 0\n"
        "sys.exit(main())"
    ),
    "numpy and logs": (
        "import logging, numpy as np\nlogging.basicConfig(filename='a.log', level=logging.INFO)\n"
        "logging.info('x')\nnp.save('a.npy', np.ones(3))\nassert np.load('a.npy').sum() == 3\n"
        "np.savetxt('b.csv', np.eye(2), delimiter=',')\n"
        "assert np.loadtxt('b.csv', delimiter=',').sum() == 2\n"
        "with open('a.txt', 'a') as out: out.write('x')\nresult = PART"
    ),
    "argparse": (
        "import argparse, sys\noptions = argparse.ArgumentParser()\n"
        "options.add_argument('--width', type=float, default=3)\nassert len(sys.argv) == 1\n"
        "result = cq.Workplane().box(options.parse_args().width, 1, 1)"
    ),
    "byte order mark": "\ufeffimport cadquery as cq\nresult = PART",
    "pathlib": (
        "from pathlib import Path\nresult = PART\nhere = Path(__file__).resolve().parent\n"
        "out = here / 'out' / 'deep'\nout.mkdir(parents=True, exist_ok=True)\n"
        "(out / 'a.txt').write_text('3 x 1')\nassert (out / 'a.txt').read_text() == '3 x 1'\n"
        "(out / 'b.bin').write_bytes(b'x' * 9)\nassert (out / 'b.bin').stat().st_size == 9\n"
        "assert out.is_dir() and (out / 'b.bin').exists() and not (out / 'c').exists()\n"
        "(out / 'b.bin').unlink()\nassert not (out / 'b.bin').exists()\n"
        "(Path.home() / 'parts').mkdir()\n(Path.home() / 'c.txt').touch()\nPath.cwd()"
    ),
    "open": (
        "import csv, json, os\nwith open('a.csv', 'w', newline='') as file:\n"
        "    csv.writer(file).writerow(['w', 3])\nwith open('a.csv', 'a') as out: out.write('#')\n"
        "assert open('a.csv').read().startswith('w,3') and 'a.csv' in os.listdir('.')\n"
        "json.dump({'w': 3}, open('b.json', 'w'))\nos.rename('a.csv', 'c.csv')\n"
        "assert os.path.isfile('c.csv') and not os.path.exists('a.csv')\nresult = PART"
    ),
    "tempfile": (
        "import os, tempfile\nresult = PART\n"
        "with tempfile.NamedTemporaryFile(suffix='.stl') as file:\n"
        "    cq.exporters.export(result, file.name)\n    assert os.path.getsize(file.name) > 84\n"
        "with tempfile.TemporaryDirectory() as folder:\n"
        "    path = os.path.join(folder, 'a.step')\n    cq.exporters.export(result, path)\n"
        "    probe = cq.importers.importStep(path)\n"
        "handle, name = tempfile.mkstemp('.step')\nos.close(handle)\n"
        "kept = tempfile.NamedTemporaryFile(suffix='.step', delete=False)\n"
        "result.val().exportStep(kept.name)\nkept.close()\nassert os.path.getsize(kept.name) > 999"
    ),
    "glob and zip": (
        "import glob, os, zipfile\nfrom pathlib import Path\nresult = PART\n"
        "Path('out/deep').mkdir(parents=True)\nresult.export('out/deep/a.step')\n"
        "assert glob.glob('out/*/*.step') == ['out/deep/a.step']\n"
        "assert [one.name for one in Path('out').rglob('*.step')] == ['a.step']\n"
        "assert [names for _, _, names in os.walk('out')][-1] == ['a.step']\n"
        "with zipfile.ZipFile('a.zip', 'w') as file: file.write('out/deep/a.step')"
    ),
    "home and chdir": (
        "import os\nos.makedirs(os.path.expanduser('~/out'), exist_ok=True)\n"
        "os.chdir(os.path.expanduser('~/out'))\nresult = PART\n"
        "cq.exporters.export(result, 'a.step')\n"
        "assert os.getcwd().endswith('out') and os.path.exists('/home/user/out/a.step')"
    ),
    "asyncio": (
        "import asyncio\nasync def build(width):\n    await asyncio.sleep(.01)\n"
        "    return await asyncio.to_thread(lambda: cq.Workplane().box(width, 1, 1))\n"
        "async def main():\n    global result\n"
        "    result = (await asyncio.gather(build(3), build(2)))[0]\nasyncio.run(main())"
    ),
    "drawings": (
        "import os\nresult = PART\ncq.exporters.exportDXF(result.faces('>Z').wires(), 'a.dxf')\n"
        "cq.exporters.export(result, 'a.svg', opt={'width': 99})\n"
        "cq.exporters.export(result.section(), 'b.dxf')\n"
        "assert '<svg' in open('a.svg').read() and os.path.getsize('b.dxf') > 99"
    ),
    "STEP read back": f"cq.exporters.export(PART, 'a.step')\n{BACK}",
    "STEP of an assembly read back": f"cq.Assembly(PART).save('a.step')\n{BACK}",
    "B-rep read back": (
        "PART.val().exportBrep('a.brep')\nresult = cq.importers.importBrep('a.brep')"
    ),
    "STL read back": (
        "import numpy as np\nPART.export('a.stl')\ndata = open('a.stl', 'rb').read()\n"
        "assert len(data) == 84 + 50 * 12 == 84 + 50 * np.frombuffer(data, '<u4', 1, 80)[0]"
    ),
    "the path says nothing": (
        "import sys\nassert 'metrics' not in str(sys.argv + sys.orig_argv)\n"
        "assert all('site-packages' in one or 'python' in one for one in sys.path), sys.path\n"
        "import __main__, dataclasses\nassert not hasattr(__main__, 'folder')\nresult = PART"
    ),
}  # fmt: skip


def test_what_people_write_around_a_part_runs():
    codes = [code.replace("PART", box(3)) for code in ORDINARY.values()]
    wrong = {
        name: str(got) if isinstance(got, Failure) else got.volume
        for name, got in zip(ORDINARY, run_many(codes), strict=True)
        if isinstance(got, Failure) or abs(got.volume - 3) > 1e-6
    }
    assert not wrong


def test_matplotlib_is_imported():
    pytest.importorskip("matplotlib")
    (got,) = run_many([f"import matplotlib.pyplot as plt\nresult = {box(3)}"])
    assert isinstance(got, Part), got


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
