"""Protects what people take away: every file that a part is exported to is that part.

Each format is read back by another program (CadQuery, trimesh, ezdxf) and compared with the part
or the sketch.
"""

import io
import json
import math
import zipfile
from dataclasses import replace

import ezdxf
import numpy as np
import pytest
import trimesh

from image2cad.cad.exports import FORMATS, export
from image2cad.cad.parsing import parse
from image2cad.cad.program import to_code
from image2cad.common.errors import InputError
from metrics.execution import run_cadquery
from metrics.parts import Part

CODES = {
    "drilled and filleted": (
        "result = cq.Workplane().box(10, 20, 30).edges('|Z').fillet(2).faces('>Z').hole(4)"
    ),
    "ball on a cone": (
        "cone = cq.Solid.makeCone(6, 2, 8)\n"
        "result = cq.Workplane(cone).union(cq.Workplane().sphere(3).translate((0, 0, 9)))"
    ),
    "small and far away": "result = cq.Workplane().box(.2, .1, .05).translate((30, -20, 10))",
    "two solids": (
        "result = cq.Workplane().pushPoints([(0, 0), (9, 0)]).box(4, 5, 6).add(\n"
        "    cq.Workplane().sphere(1).translate((0, 9, 0)))"
    ),
    "two boxes that touch in an edge": (
        "result = cq.Workplane().box(2, 2, 2).union(cq.Workplane().box(2, 2, 2)"
        ".translate((2, 2, 0)))"
    ),
}  # fmt: skip
SKETCHES = {
    "a slot, both arcs clockwise": (
        "import cadquery as cq\nsolid = cq.Workplane('XZ').moveTo(-4, 2).lineTo(4, 2)"
        ".threePointArc((6, 0), (4, -2)).lineTo(-4, -2).threePointArc((-6, 0), (-4, 2)).close()"
        ".moveTo(1, 0).circle(0.5).extrude(-3)"
    ),
    "more than half a circle, over the angle 0, closed by itself": (
        "import cadquery as cq\nsolid = cq.Workplane(cq.Plane((1, 2, 3), (0, 0.6, 0.8), (1, 0, 0)))"
        ".moveTo(3, -4).threePointArc((5, 0), (-3, -4)).close().extrude(2, both=True)"
    ),
    "rectangle with a bowl": (
        "import cadquery as cq\nsolid = cq.Workplane('YZ', origin=(5, 0, 0)).moveTo(1, -1)"
        ".rect(8, 6).moveTo(0.5, 0).lineTo(2.5, 0).threePointArc((1.5, -1), (0.5, 0)).close()"
        ".extrude(0.7)"
    ),
    "the first sketch of two": (
        "import cadquery as cq\n"
        "solid = cq.Workplane('XY').polyline([(0, 0), (7.5, 0), (0, 3.25)]).close().extrude(1)\n"
        "solid = solid.union(cq.Workplane('XY').circle(50).extrude(1))"
    ),
}  # fmt: skip


@pytest.fixture(scope="module")
def parts(samples):
    codes = CODES | {sample.id: sample.cadquery for sample in samples[:6]}
    ran = {name: run_cadquery(code) for name, code in codes.items()}
    assert all(isinstance(part, Part) for part in ran.values()), ran
    return ran


def test_step_is_the_part_exactly(parts, tmp_path):
    import cadquery as cq

    for name, part in parts.items():
        file = tmp_path / "part.step"
        file.write_bytes(export(part, "", "step"))
        back = cq.importers.importStep(str(file))
        solids = back.solids().vals()
        assert len(solids) == part.solids, name
        volume = sum(solid.Volume() for solid in solids)
        assert volume == pytest.approx(part.volume, rel=1e-6), name
        box = cq.Compound.makeCompound(solids).BoundingBox()
        got = [[box.xmin, box.ymin, box.zmin], [box.xmax, box.ymax, box.zmax]]
        size = np.ptp(part.bounding_box, axis=0).max()
        assert np.abs(np.array(got) - part.bounding_box).max() <= 1e-6 * size, name
        assert b"SI_UNIT(.MILLI.,.METRE.)" in file.read_bytes()


def test_meshes_are_closed_and_hold_the_part(parts):
    for name, part in parts.items():
        # What a tessellation may be off; only 32-bit numbers where there is nothing round.
        near = {"rel": 1e-2 if len(part.vertices) > 8 * part.face_count else 1e-4}
        size = np.ptp(part.bounding_box, axis=0).max()
        for kind in ("stl", "3mf"):
            mesh = trimesh.load_mesh(io.BytesIO(export(part, "", kind)), file_type=kind)
            assert mesh.volume == pytest.approx(part.volume, **near), (name, kind)
            assert np.abs(mesh.bounds - part.bounding_box).max() < 0.01 * size, (name, kind)
            # Corners that touch are merged on reading, and four triangles then share an edge.
            assert mesh.is_watertight or name == "two boxes that touch in an edge", (name, kind)


def test_3mf_packages_are_laid_out_as_slicers_read_them(parts):
    for name, part in parts.items():
        with zipfile.ZipFile(io.BytesIO(export(part, "", "3mf"))) as package:
            assert package.testzip() is None
            files = ["[Content_Types].xml", "_rels/.rels", "3D/3dmodel.model"]
            assert package.namelist() == files
            model = package.read("3D/3dmodel.model").decode()
        assert 'unit="millimeter"' in model and '<item objectid="1"/>' in model
        lines = [line for line in model.splitlines() if line.startswith("<triangle ")]
        faces = np.array([line.split('"')[1:6:2] for line in lines], int)
        edges = np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]]).tolist()
        # Every edge once in each direction: what the specification calls a manifold.
        directed = {(a, b) for a, b in edges}
        assert len(directed) == len(edges) and {(b, a) for a, b in directed} == directed, name


def test_glb_stands_upright_and_is_smooth_and_grey(parts):
    # z up becomes y up and what was in front (-y) stays in front (+z): turned, not mirrored.
    code = "result = cq.Workplane().box(2, 3, 30, centered=False).translate((1, 10, 100))"
    mesh = trimesh.load_scene(io.BytesIO(export(run_cadquery(code), "", "glb")), file_type="glb")
    assert mesh.bounds == pytest.approx(np.array([[1, 100, -13], [3, 130, -10]]))
    for name, part in parts.items():
        data = export(part, "", "glb")
        scene = trimesh.load_scene(io.BytesIO(data), file_type="glb", process=False)
        mesh, edges = scene.geometry.values()
        steps = np.linalg.norm(np.diff(part.edge_points, axis=0), axis=1)
        within = np.setdiff1d(np.arange(len(steps)), part.edge_starts[1:-1] - 1)
        # trimesh reads glTF's separate lines, which are pairs of points, as one long one.
        pairs = edges.vertices[edges.entities[0].points].reshape(-1, 2, 3)
        length = np.linalg.norm(pairs[:, 1] - pairs[:, 0], axis=1).sum()
        assert length == pytest.approx(steps[within].sum(), rel=1e-4), name
        turned = part.normals[:, [0, 2, 1]] * [1, 1, -1]
        assert mesh.vertex_normals == pytest.approx(turned, abs=1e-6), name
        assert np.linalg.norm(mesh.vertex_normals, axis=1) == pytest.approx(1, abs=1e-5)
        # Against the triangles: the normals point out of the part.
        corners = mesh.vertex_normals[mesh.faces].mean(1)
        proper = mesh.area_faces > 0  # the pole of a ball has triangles without area
        assert (corners * mesh.face_normals).sum(1)[proper].min() > 0.5, name
        mesh.merge_vertices(merge_norm=True)
        assert mesh.volume == pytest.approx(part.volume, rel=1e-2), name
        length = int.from_bytes(data[12:16], "little")
        materials = json.loads(data[20 : 20 + length])["materials"]
        look = next(m for m in materials if m["name"] == "grey")["pbrMetallicRoughness"]
        assert len(set(look["baseColorFactor"][:3])) == 1 and look["metallicFactor"] == 0


def walk(entities):
    """Area and length of loops written one after the other, each entity where the last ended."""
    areas, length, here, start = [], 0.0, None, None
    for entity in entities:
        if entity.dxftype() == "CIRCLE":
            assert here is None
            areas.append(math.pi * entity.dxf.radius**2)
            length += 2 * math.pi * entity.dxf.radius
            continue
        if entity.dxftype() == "ARC":
            ends, radius = (entity.start_point, entity.end_point), entity.dxf.radius
            angle = math.radians((entity.dxf.end_angle - entity.dxf.start_angle) % 360)
            cap, piece = radius**2 * (angle - math.sin(angle)) / 2, radius * angle
        else:
            assert entity.dxftype() == "LINE"
            ends, cap = (entity.dxf.start, entity.dxf.end), 0.0
            piece = ends[0].distance(ends[1])
        if here is None:
            # A loop starts at the end that the next entity does not have; here: not at the joint.
            here = start = ends[0] if joined(entities, entity, ends[1]) else ends[1]
            areas.append(0.0)
        forward = ends[0].isclose(here, abs_tol=1e-9)
        assert forward or ends[1].isclose(here, abs_tol=1e-9), "a gap"
        there = ends[1] if forward else ends[0]
        areas[-1] += (here.x * there.y - here.y * there.x) / 2 + (cap if forward else -cap)
        length += piece
        here = None if there.isclose(start, abs_tol=1e-9) else there
    assert here is None, "not closed"
    return [abs(area) for area in areas], length


def joined(entities, entity, point):
    following = entities[entities.index(entity) + 1]
    if following.dxftype() == "ARC":
        ends = (following.start_point, following.end_point)
    else:
        ends = (following.dxf.start, following.dxf.end)
    return any(end.isclose(point, abs_tol=1e-9) for end in ends)


def test_dxf_has_every_sketch_on_a_layer(samples):
    several = 0
    for code in [*SKETCHES.values(), *(sample.cadquery for sample in samples)]:
        data = export(None, code, "dxf")
        document = ezdxf.read(io.StringIO(data.decode()))
        assert not document.audit().has_errors
        assert document.units == ezdxf.units.MM
        layers = [one.dxf.layer for one in document.modelspace()]
        wanted = [f"sketch {number}" for number in range(1, len(parse(code)) + 1)]
        assert list(dict.fromkeys(layers)) == wanted
        several += len(wanted) > 1
    assert several


def test_a_layer_of_dxf_is_its_sketch(samples):
    programs = [*SKETCHES.values(), *(sample.cadquery for sample in samples)]
    for code, step in [(one, step) for one in programs for step in parse(one)]:
        number = parse(code).index(step) + 1
        document = ezdxf.read(io.StringIO(export(None, code, "dxf").decode()))
        areas, length = walk(list(document.modelspace().query(f"*[layer=='sketch {number}']")))
        # The prism over the sketch, as CadQuery builds it, knows its area and its outline.
        prism = run_cadquery(to_code((step,), decimals=12))
        net = prism.volume / abs(step.depth)
        outline = (prism.area - 2 * net) / abs(step.depth)
        assert length == pytest.approx(outline, rel=1e-9), code
        if sum(areas) < 2 * max(areas) and prism.solids == 1:  # one outline, the others its holes
            assert 2 * max(areas) - sum(areas) == pytest.approx(net, rel=1e-9), code
    # In the plane's own coordinates, wherever the plane is.
    data = export(None, SKETCHES["rectangle with a bowl"], "dxf")
    points = [line.dxf.start for line in ezdxf.read(io.StringIO(data.decode())).query("LINE")]
    assert {(point.x, point.y) for point in points} >= {(-3, -4), (5, -4), (5, 2), (-3, 2)}


def test_dxf_and_py_never_run_the_program(tmp_path):
    mark = tmp_path / "mark"
    hostile = f"open({str(mark)!r}, 'w')\nresult = cq.Workplane().rect(1, 1).extrude(1)"
    assert export(None, hostile, "py") == hostile.encode()
    unreadable = {
        hostile: "sketches and extrusions",
        "": "sketches and extrusions",
        "result = oops(": "sketches and extrusions",
        CODES["ball on a cone"]: "sketches and extrusions",
        "import cadquery as cq\nr = cq.Workplane().moveTo(0, 0).threePointArc((1, 1), (2, 2))"
        ".close().extrude(1)": "no centre",
        "import cadquery as cq\nr = cq.Workplane().moveTo(0, 0).threePointArc((1e300, 1), (2, 2))"
        ".close().extrude(1)": "too large",
    }  # fmt: skip
    for code, reason in unreadable.items():
        with pytest.raises(InputError, match=reason):
            export(None, code, "dxf")
    with pytest.raises(InputError, match="surrogate"):
        export(None, "# \ud800", "py")
    assert not mark.exists()


def test_what_cannot_be_exported_says_why(parts):
    part = parts["two solids"]
    assert set(FORMATS) == {"step", "stl", "3mf", "glb", "dxf", "py"}
    for kind in ("obj", "", "STEP"):
        with pytest.raises(InputError, match="step, stl, 3mf, glb, dxf, py"):
            export(part, "", kind)
    with pytest.raises(InputError, match="no exact surfaces"):
        export(replace(part, brep=b""), "", "step")
    with pytest.raises(InputError, match="no STEP file: invalid solid"):
        export(replace(part, brep=part.brep[:-200]), "", "step")
    for kind in ("stl", "3mf", "glb"):
        with pytest.raises(InputError, match="too large"):
            export(replace(part, vertices=part.vertices * 1e40), "", kind)


def test_parts_far_from_the_origin_are_right_or_refused():
    code = "result = cq.Workplane().box(1, 1, 1).translate(({}, 0, 0))"
    far, near = (run_cadquery(code.format(place)) for place in (1e8, 9e4))
    mesh = trimesh.load_mesh(io.BytesIO(export(far, "", "3mf")), file_type="3mf")
    assert mesh.volume == pytest.approx(1, rel=1e-5)
    assert mesh.bounds == pytest.approx(far.bounding_box, abs=1e-5)
    for kind, name in (("stl", "STL"), ("glb", "GLB")):
        with pytest.raises(InputError, match=f"no {name}: the part is over 100,000 times as far"):
            export(far, "", kind)
        mesh = trimesh.load_mesh(io.BytesIO(export(near, "", kind)), file_type=kind)
        assert mesh.extents == pytest.approx([1, 1, 1], rel=0.02)


def test_open_meshes_are_closed_or_kept(parts):
    part = parts["drilled and filleted"]
    lacking = replace(part, triangles=part.triangles[3:], faces=part.faces[3:])
    mesh = trimesh.load_mesh(io.BytesIO(export(lacking, "", "stl")), file_type="stl")
    assert mesh.is_watertight and mesh.volume == pytest.approx(part.volume, rel=0.05)
    torn = part.triangles.copy()
    torn[::9] = torn[::9, ::-1]  # nothing but voxels would close this
    for kind in ("stl", "3mf", "glb"):
        data = io.BytesIO(export(replace(part, triangles=torn), "", kind))
        mesh = trimesh.load_mesh(data, file_type=kind)
        assert len(mesh.faces) == len(part.triangles), kind
