"""Protects the exactness of the scores: copies score 1, mirror images do not, edge cases are right.

The numbers to compare with come from formulas or from OpenCASCADE's own booleans, never from the
code under test.
"""

from __future__ import annotations

import io
import json
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest

import metrics
from metrics import overlap
from metrics.chamfer_distance import chamfer_distance
from metrics.execution import measure_file, run_cadquery, run_many
from metrics.geometry import iou_aligned, iou_rotated, iou_unit_box
from metrics.normalised import normalise
from metrics.parts import Failure, Part
from metrics.sandbox.cad_files import STL_TRIANGLE

REAL = Path(__file__).resolve().parents[1] / "../shared/data/gencad_dev"
BUNDLED = Path(__file__).resolve().parents[1] / "data/samples/test"
real_data = pytest.mark.skipif(not REAL.exists(), reason=f"{REAL} is not there")

BOX = "result = cq.Workplane().box(1, 1, 1)"
# Parts whose principal axes the inertia does not determine, or nearly not.
HARD = {
    "cube with three unlike holes": (
        "result = cq.Workplane().box(2, 2, 2).faces('>Z').workplane().center(.4, .3).hole(.5)"
        ".faces('>X').workplane(origin=(0, 0, 0)).center(-.5, .2).hole(.4, .8)"
    ),
    "plate of square outline": (
        "result = cq.Workplane().box(4, 4, .04).faces('>Z').workplane().center(1.2, .4).hole(.8)"
    ),
    "thin-walled box open on top": "result = cq.Workplane().box(2, 2, 2).faces('>Z').shell(-.04)",
    "thin plate, 100 times wider": "result = cq.Workplane().rect(10, 10).extrude(.1)",
    "gear of five teeth": (
        "result = cq.Workplane().circle(1).extrude(.5)"
        ".union(cq.Workplane().polarArray(1, 0, 360, 5).rect(.5, .3).extrude(.5))"
    ),
    "cross of three bars": (
        "result = (cq.Workplane().box(4, .5, .5).union(cq.Workplane().box(.5, 4, .5))"
        ".union(cq.Workplane().box(.5, .5, 4)).cut(cq.Workplane().box(.3, .3, .6)"
        ".translate((1.6, 0, 0))))"
    ),
    "tetrahedron": (
        "result = cq.Workplane(cq.Solid.makeSphere(1)).intersect(cq.Workplane().box(1.2, 1.2, 1.2))"
        ".cut(cq.Workplane().box(1, 1, 1).translate((.6, .6, .6)))"
    ),
    "sphere": "result = cq.Workplane().sphere(2)",
    "ring": "result = cq.Workplane('XZ').center(3, 0).circle(1).revolve(360, (-3, 0), (-3, 1))",
    "four separate posts": (
        "result = cq.Workplane().rarray(4, 4, 2, 2).circle(.5).extrude(2)"
        ".union(cq.Workplane().box(.7, .7, .7))"
    ),
    "bolt circle": (
        "result = cq.Workplane().circle(3).extrude(1).faces('>Z').workplane()"
        ".polarArray(2, 0, 360, 6).hole(.5).faces('>Z').workplane().center(.9, .2).hole(.4)"
    ),
}
CHIRAL = {
    "hook": (
        "result = cq.Workplane().box(4, 1, 1).union(cq.Workplane().box(1, 3, 1)"
        ".translate((1.5, 1, 0))).union(cq.Workplane().box(1, 1, 3).translate((-1.5, 0, 1)))"
    ),
    "propeller": (
        "result = cq.Workplane().circle(.5).extrude(1)\nfor i in range(3):\n"
        "    blade = cq.Workplane().box(2, .2, 1).rotate((0,0,0), (1,0,0), 45)\n"
        "    result = result.union(blade.translate((1.4, 0, .5))"
        ".rotate((0,0,0), (0,0,1), 120 * i))"
    ),
}
MOVED = """
_shape = cq.Compound.makeCompound(result.vals()).scale({scale})
_shape = _shape.rotate((0, 0, 0), {axis}, {angle}).translate({place})
result = cq.Workplane(_shape)
"""
MIRRORED = "\nresult = result.mirror('XY')\n"


def part_of(code: str) -> Part:
    return parts_of([code])[0]


def parts_of(codes: Iterable[str]) -> list[Part]:
    got = run_many(list(codes))
    parts = [one for one in got if isinstance(one, Part)]
    assert len(parts) == len(got), [str(one) for one in got]
    return parts


def moved(code: str, random: np.random.Generator) -> str:
    axis = random.normal(size=3)
    return code + MOVED.format(
        scale=10 ** random.uniform(-2, 2),
        axis=tuple(axis / np.linalg.norm(axis)),
        angle=random.uniform(0, 360),
        place=tuple(random.uniform(-9, 9, 3)),
    )


@pytest.mark.parametrize("seed", [11, 12])
def test_copies_score_one(seed):
    random = np.random.default_rng(seed)
    codes = {**HARD, **CHIRAL}
    parts = parts_of([*codes.values(), *(moved(code, random) for code in codes.values())])
    for i, name in enumerate(codes):
        score = iou_aligned(parts[i], parts[len(codes) + i])
        assert 0.99 <= score <= 1, (name, score)


def test_mirror_images_of_chiral_parts_score_less():
    random = np.random.default_rng(3)
    for name, code in CHIRAL.items():
        part, mirror = parts_of([code, moved(code + MIRRORED, random)])
        assert iou_aligned(part, mirror) < 0.95, name
    part, mirror = parts_of([HARD["ring"], moved(HARD["ring"] + MIRRORED, random)])
    assert iou_aligned(part, mirror) > 0.99  # its own mirror image


@pytest.mark.parametrize("scale", [1e-6, 1, 1e6])
def test_any_scale(scale):
    part = part_of(f"result = cq.Workplane().box({scale}, {2 * scale}, {3 * scale})")
    assert part.volume == pytest.approx(6 * scale**3, rel=1e-6)
    other = part_of("result = cq.Workplane().box(2, 4, 6).edges('|Z').fillet(0.3)")
    reference = part_of("result = cq.Workplane().box(1, 2, 3)")
    assert iou_aligned(part, other) == pytest.approx(iou_aligned(reference, other), abs=1e-4)
    curved = part_of(f"result = cq.Workplane().cylinder({3 * scale}, {scale})")
    gyration = np.sqrt(1 / 2 + 9 / 12)  # of a cylinder with radius 1 and height 3
    assert normalise(curved).volume == pytest.approx(3 * np.pi / gyration**3, rel=0.01)


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        ("pass", "no solid"),
        ("result = cq.Workplane()", "no solid"),
        ("result = cq.Workplane().rect(1, 1)", "no solid"),
        ("result = cq.Workplane(cq.Face.makePlane(1, 1))", "no solid"),
        ("result = cq.Workplane().box(1, 1, 1).faces('not >Z').shells()"
         "\nresult = cq.Workplane(cq.Shell.makeShell(cq.Workplane().box(1,1,1).faces('not >Z')"
         ".vals()))", "no solid"),
        ("result = cq.Sketch().rect(1, 1)", "no solid"),
        ("result = cq.Workplane().box(1, 1, 1).cut(cq.Workplane().box(2, 2, 2))", "no solid"),
        ("result = cq.Workplane().rect(1, 1).extrude(0)", None),
        ("result = cq.Workplane().box(float('nan'), 1, 1)", None),
        (
            "result = cq.Workplane().moveTo(0, 0).lineTo(2, 2).lineTo(2, 0).lineTo(0, 1)"
            ".close().extrude(1)",
            "invalid solid",
        ),
        (
            "points = [(np.cos(4 * np.pi * k / 5), np.sin(4 * np.pi * k / 5)) for k in range(5)]"
            "\nresult = cq.Workplane().polyline(points).close().extrude(1)",
            "invalid solid",
        ),
        ("result = cq.Workplane().circle(-1).extrude(1)", None),
    ],
)  # fmt: skip
def test_nothing_solid_is_a_failure_with_a_reason(code, kind):
    got = run_cadquery(code, timeout=5)
    assert isinstance(got, Failure), got
    assert kind is None or got.kind == kind, got
    assert got.message


def test_answers_for_odd_solids():
    shell = "cq.Shell.makeShell(cq.Workplane().box(1, 2, 3).faces().vals())"
    cases = {
        "closed shell": (f"result = cq.Workplane({shell})", 6, 1),
        "inside out": (
            "from OCP.TopoDS import TopoDS\nbox = cq.Workplane().box(1, 2, 3).val()\n"
            "result = cq.Workplane(cq.Shape.cast(box.wrapped.Reversed()))", 6, 1,
        ),
        "two boxes that overlap": (
            "a, b = cq.Solid.makeBox(1, 1, 1), cq.Solid.makeBox(1, 1, 1, cq.Vector(.5, 0, 0))\n"
            "result = cq.Workplane(cq.Compound.makeCompound([a, b]))", 1.5, 1,
        ),
        "two boxes that touch": (
            "a, b = cq.Solid.makeBox(1, 1, 1), cq.Solid.makeBox(1, 1, 1, cq.Vector(1, 0, 0))\n"
            "result = cq.Workplane(cq.Compound.makeCompound([a, b]))", 2, 2,
        ),
        "the same box twice": (
            "result = cq.Workplane().box(1, 1, 1).add(cq.Workplane().box(1, 1, 1))", 1, 1,
        ),
        "solids on the stack": (
            "result = cq.Workplane().pushPoints([(0, 0), (5, 0)]).box(1, 1, 1, combine=False)",
            2, 2,
        ),
        "assembly": (
            "result = cq.Assembly().add(cq.Workplane().box(1, 1, 1))"
            ".add(cq.Workplane().box(1, 1, 1), loc=cq.Location(cq.Vector(3, 0, 0)))", 2, 2,
        ),
        "hollow": (
            "result = cq.Workplane().box(3, 3, 3).cut(cq.Workplane().box(1, 1, 1))", 26, 1,
        ),
    }  # fmt: skip
    for name, (code, volume, solids) in cases.items():
        part = part_of(code)
        assert part.volume == pytest.approx(volume, rel=1e-6), name
        assert part.solids == solids, name
        mesh_volume = normalise(part).volume * (np.trace(part.inertia) / (2 * part.volume)) ** 1.5
        assert mesh_volume == pytest.approx(volume, rel=1e-6), name
        assert (part.normals[part.triangles[:, 0]] * np.cross(
            part.vertices[part.triangles[:, 1]] - part.vertices[part.triangles[:, 0]],
            part.vertices[part.triangles[:, 2]] - part.vertices[part.triangles[:, 0]],
        )).sum(1).min() >= 0, name  # fmt: skip


def test_a_hole_that_touches_a_face_from_inside():
    code = (
        "solid = cq.Workplane('XZ', origin=(0, 15, 0)).circle(50).extrude(30)\n"
        "solid = solid.cut(cq.Workplane('XY', origin=(0, 0, -50)).moveTo(28, -11).circle(4)"
        ".extrude(100))\n"
    )
    part, copy = run_many([code, code + "solid = solid.rotate((0, 0, 0), (1, 2, 3), 77)"])
    assert isinstance(part, Part) and isinstance(copy, Part)
    assert part.volume == pytest.approx(231462, rel=1e-4)
    assert iou_aligned(part, copy) > 0.99


def test_references_of_every_kind_agree(tmp_path):
    import cadquery as cq

    code = "result = cq.Workplane().box(3, 2, 1).faces('>Z').workplane().center(.5, .2).hole(.8)"
    solid = cq.Workplane().box(3, 2, 1).faces(">Z").workplane().center(0.5, 0.2).hole(0.8)
    for name in ("part.step", "part.stl"):
        cq.exporters.export(solid, str(tmp_path / name), tolerance=1e-3, angularTolerance=0.05)
    references = [code, tmp_path / "part.step", tmp_path / "part.stl", part_of(code)]
    got = metrics.compute(predictions=[code] * 4, references=references)
    assert [row["iou_best"] for row in got["rows"]] == pytest.approx([1, 1, 1, 1], abs=2e-3)
    assert got["reference"] == "code+part+step+stl"
    mesh = measure_file(tmp_path / "part.stl")
    assert isinstance(mesh, Part)
    exact = part_of(code)
    assert mesh.volume == pytest.approx(exact.volume, rel=1e-3)
    assert mesh.inertia == pytest.approx(exact.inertia, rel=5e-3, abs=5e-3)
    (tmp_path / "bad.step").write_text("not a STEP file")
    assert isinstance(measure_file(tmp_path / "bad.step"), Failure)
    (tmp_path / "bad.stl").write_bytes(b"\0" * 200)
    assert isinstance(measure_file(tmp_path / "bad.stl"), Failure)


# ---- STL and STEP files as other makers write them -----------------------------------------------

Mesh = tuple[np.ndarray, np.ndarray]  # points (N, 3) and triangles (M, 3)


def block(size: tuple[float, float, float], corner: tuple[float, float, float] = (0, 0, 0)) -> Mesh:
    points = np.array([[i, j, k] for i in (0, 1) for j in (0, 1) for k in (0, 1)]) * size + corner
    squares = [(0, 1, 3, 2), (4, 6, 7, 5), (0, 4, 5, 1), (2, 3, 7, 6), (0, 2, 6, 4), (1, 5, 7, 3)]
    halves = [half for a, b, c, d in squares for half in ((a, b, c), (a, c, d))]
    return points, np.array(halves)


def inside_out(mesh: Mesh) -> Mesh:
    return mesh[0], mesh[1][:, ::-1]


def together(*meshes: Mesh) -> Mesh:
    starts = np.cumsum([0, *(len(points) for points, _ in meshes)])
    faces = [faces + start for (_, faces), start in zip(meshes, starts, strict=False)]
    return np.concatenate([points for points, _ in meshes]), np.concatenate(faces)


def stl_of(mesh: Mesh) -> bytes:
    rows = np.zeros(len(mesh[1]), STL_TRIANGLE)
    rows["corners"] = mesh[0][mesh[1]]
    return bytes(80) + len(rows).to_bytes(4, "little") + rows.tobytes()


BLOCK = block((3, 2, 1))
ROOM = together(block((4, 4, 4)), inside_out(block((2, 1, 1), (1, 1, 1))))
ODD_FILES = {  # its mesh, its volume, its solids, what the notes say
    "as it should be": (BLOCK, 6, 1, None),
    "inside out": (inside_out(BLOCK), 6, 1, "turned round"),
    "twice": (together(BLOCK, BLOCK), 6, 1, "duplicate"),
    "twice, once inside out": (together(BLOCK, inside_out(BLOCK)), 6, 1, "duplicate"),
    "some triangles twice": ((BLOCK[0], BLOCK[1][[*range(12), 0, 3, 7]]), 6, 1, "duplicate"),
    "mixed winding": (
        (BLOCK[0], np.where(np.arange(12)[:, None] % 4, BLOCK[1], BLOCK[1][:, ::-1])),
        6, 1, "winding of 3",
    ),
    "two bodies, one inside out": (
        together(BLOCK, inside_out(block((1, 1, 1), (5, 0, 0)))), 7, 2, "turned round",
    ),
    "bodies that overlap": (together(BLOCK, block((3, 2, 1), (2, 0.5, 0.5))), 11.25, 1, "united"),
    "bodies that touch": (together(BLOCK, block((3, 2, 1), (3, 0, 0))), 12, 1, "duplicate"),
    "a cavity": (ROOM, 62, 1, None),
    "a cavity, all inside out": (inside_out(ROOM), 62, 1, "turned round"),
    "a body in a cavity": (together(ROOM, block((0.5,) * 3, (1.2,) * 3)), 62.125, 2, None),
    "a face missing": ((BLOCK[0], BLOCK[1][:-2]), 6, 1, "capped"),
}  # fmt: skip


@pytest.mark.parametrize("name", ODD_FILES)
def test_odd_stl_files_are_mended_and_say_so(name, tmp_path):
    mesh, volume, solids, note = ODD_FILES[name]
    (tmp_path / "part.stl").write_bytes(stl_of(mesh))
    got = measure_file(tmp_path / "part.stl")
    assert isinstance(got, Part), got
    assert got.volume == pytest.approx(volume, rel=1e-6)
    assert got.solids == solids
    if note:
        assert note in " ".join(got.notes) and not got.valid
        row = metrics.compute([BOX], [tmp_path / "part.stl"])["rows"][0]
        assert row["notes"][0].startswith("reference: ") and note in " ".join(row["notes"])


@pytest.mark.parametrize(
    ("mesh", "reason"),
    [
        ((BLOCK[0], BLOCK[1][:1]), "no volume"),
        ((BLOCK[0], BLOCK[1][:5]), "not closed"),
        ((BLOCK[0] * np.nan, BLOCK[1]), "no usable triangles"),
    ],
)
def test_stl_files_that_nothing_mends_say_why(mesh, reason, tmp_path):
    (tmp_path / "part.stl").write_bytes(stl_of(mesh))
    got = measure_file(tmp_path / "part.stl")
    assert isinstance(got, Failure) and got.kind == "invalid solid" and reason in got.message


@pytest.mark.parametrize(
    ("code", "least"),
    [
        (BOX, 0.999),
        ("result = cq.Workplane().rect(2, 2).rect(1.8, 1.8).extrude(5)", 0.999),
        ("result = cq.Workplane().polygon(6, 2).circle(.5).extrude(.7)", 0.999),
        ("result = cq.Workplane().box(2, 2, 2).edges('|Z').fillet(.3)", 0.999),
        (HARD["bolt circle"], 0.997),
        (HARD["ring"], 0.995),
    ],
)
def test_a_part_scores_one_against_its_own_turned_mesh(code, least, tmp_path):
    import cadquery as cq

    names: dict = {"cq": cq, "np": np}
    exec(code, names)
    turned = names["result"].rotate((0, 0, 0), (1, 2, 3), 41).translate((5, 6, 7))
    cq.exporters.export(turned, str(tmp_path / "part.stl"), tolerance=2e-3, angularTolerance=0.1)
    got = metrics.compute([code], [tmp_path / "part.stl"])
    assert got["iou_best"]["mean"] >= least
    mesh = measure_file(tmp_path / "part.stl")
    assert isinstance(mesh, Part) and abs(mesh.face_count - part_of(code).face_count) <= 1


def test_a_closed_shell_inside_another_is_its_cavity(tmp_path):
    import cadquery as cq

    hollow = cq.Workplane().box(50, 40, 30).shell(-3)
    shells = cq.Compound.makeCompound(
        [*hollow.val().Shells(), *cq.Workplane().box(5, 5, 5).shells().vals()]
    )
    for shape, volume, solids in (
        (hollow, 60000 - 44 * 34 * 24, 1),
        (shells, 60000 - 44 * 34 * 24 + 125, 2),
    ):
        cq.exporters.export(
            cq.Workplane(shape) if shape is shells else shape, str(tmp_path / "part.step")
        )
        part = measure_file(tmp_path / "part.step")
        assert isinstance(part, Part), part
        assert part.volume == pytest.approx(volume, rel=1e-9) and part.solids == solids
        assert any("cavity" in note for note in part.notes)


# ---- integrals and surfaces that are wrong -------------------------------------------------------

CROOKED = {  # the program, the right volume, and what is said of it
    "disc of a mirrored arc": (
        "result = cq.Workplane().threePointArc((3, 3), (6, 0)).mirrorX().extrude(5)",
        45 * np.pi,
        "integral",
    ),
    "a post along a wall, taken off in place of added": (
        "result = cq.Workplane().box(8, 7.5, 8).faces('>Z').shell(-1)"
        ".union(cq.Workplane().center(1, 1.75).circle(1).extrude(9))",
        249 + 9 * np.pi,
        "inwards",
    ),
}
BROKEN = {
    "box without its lower face": (
        "faces = cq.Workplane().box(1, 2, 3, centered=False).faces('not <Z').vals()\n"
        "result = cq.Workplane(cq.Solid.makeSolid(cq.Shell.makeShell(faces)))"
    ),
    "a good box and an open one": (
        "faces = cq.Workplane().box(1, 2, 3).faces('not >X').vals()\n"
        "result = cq.Workplane().box(1, 1, 1).translate((9, 0, 0))"
        ".add(cq.Solid.makeSolid(cq.Shell.makeShell(faces)))"
    ),
    "a sliver": "result = cq.Workplane().box(1e-4, 1e4, 1e4)",
    "half a cylinder, its edges rounded": (
        "half = cq.Workplane('YZ').cylinder(60, 30).faces('>X').workplane()\n"
        "half = half.transformed(rotate=(-45, 0, 0)).split(keepBottom=True)\n"
        "result = half.edges('|Y').fillet(3)"
    ),
}


@pytest.mark.parametrize("name", CROOKED)
def test_a_wrong_volume_is_not_believed(name):
    code, volume, said = CROOKED[name]
    part = part_of(code)
    assert part.volume == pytest.approx(volume, rel=5e-3)
    assert any(said in note for note in part.notes)


def test_outlines_that_cross_are_no_piece_that_faces_inwards():
    """Their mesh is repaired, and its pieces then face either way: nothing is turned by it."""
    slanted, square = "[(0, 0), (2, 0), (2, 1), (.5, 1)]", "moveTo(.5, .5).rect(.5, .5)"
    parts = [
        part_of(f"result = cq.Workplane().{text}.extrude(.5)")
        for text in (
            f"polyline({slanted}).close().{square}",
            f"{square}.polyline({slanted}).close()",
        )
    ]
    for part in parts:
        assert part.notes and not any("inwards" in note for note in part.notes), part.notes
        assert part.volume == pytest.approx(parts[0].volume)


@pytest.mark.parametrize("name", BROKEN)
def test_every_function_says_the_same_of_a_broken_solid(name):
    code = BROKEN[name]
    got = run_cadquery(code)
    assert isinstance(got, Failure) and got.kind == "invalid solid", got
    assert metrics.evaluate_syntax_rate_simple({"a": code}) == 0
    assert metrics.compute([code], [BOX])["failures"] == {"invalid solid": 1}
    assert metrics.get_iou_best(code, code) == metrics.get_iou_best(BOX, code) == 0
    with pytest.raises(ValueError, match="alignment"):
        metrics.get_iou_best(BOX, BOX, alignment="sideways")


def test_a_coarse_mesh_is_no_reason_to_doubt_the_integral():
    part = part_of("result = cq.Workplane().circle(10).circle(9.99).extrude(30)")
    assert part.volume == pytest.approx(np.pi * 30 * (100 - 9.99**2), rel=1e-9)
    assert not part.notes


def occ_volume_in_common(a: bytes, b: bytes, turn: np.ndarray) -> tuple[float, float, float]:
    """OpenCASCADE's volumes of a, of b turned, and of their common part."""
    import cadquery as cq
    from OCP.BRepBuilderAPI import BRepBuilderAPI_Transform
    from OCP.gp import gp_Trsf

    transform = gp_Trsf()
    transform.SetValues(*np.hstack([turn, np.zeros((3, 1))]).ravel())
    first = cq.Shape.importBin(io.BytesIO(a))
    second = cq.Shape.importBin(io.BytesIO(b))
    second = cq.Shape.cast(BRepBuilderAPI_Transform(second.wrapped, transform, True).Shape())
    return first.Volume(), second.Volume(), first.intersect(second).Volume()


def test_volumes_agree_with_occ_booleans():
    # Both have radius of gyration sqrt(1/2 + 1/2) and centre 0, so no normalising is needed.
    codes = [
        f"result = cq.Workplane().cylinder({np.sqrt(6)}, 1)",
        "result = cq.Workplane().box(2, 2, 2).edges().fillet(.4)",
    ]
    first, second = parts_of(codes)
    size = np.sqrt(np.trace(second.inertia) / (2 * second.volume))
    second = part_of(codes[1] + f"\nresult = cq.Workplane(result.val().scale({1 / size}))")
    random = np.random.default_rng(0)
    from scipy.spatial.transform import Rotation

    from metrics.geometry import iou_rotated

    for turn in Rotation.random(6, random).as_matrix():
        a, b, common = occ_volume_in_common(first.brep, second.brep, turn)
        ours = iou_rotated(normalise(first), normalise(second), turn)
        assert ours == pytest.approx(common / (a + b - common), abs=2e-3)


def test_unit_box_and_distances():
    box, tall, cylinder = parts_of(
        [f"result = cq.Workplane().{what}" for what in
         ("box(2, 1, 1)", "box(1, 1, 2)", "cylinder(1, .5)")]
    )  # fmt: skip
    assert iou_unit_box(box, box) == pytest.approx(1, abs=1e-9)
    assert iou_unit_box(box, tall) == pytest.approx(1 / 3, abs=1e-9)
    assert metrics.volume_error(box, cylinder) == pytest.approx(1 - np.pi / 8, rel=1e-9)
    assert metrics.box_error(box, tall) == pytest.approx(0.5, abs=1e-6)
    assert chamfer_distance(box, box) < 1e-3
    assert chamfer_distance(box, tall) == chamfer_distance(box, tall)
    assert chamfer_distance(box, tall) > 1e-2


@real_data
@pytest.mark.slow
def test_real_parts_score_one_against_moved_copies():
    rows = [json.loads(line) for line in (REAL / "metadata.jsonl").open()]
    codes = [row["cadquery"] for row in rows]
    random = np.random.default_rng(2025)
    parts = parts_of(codes)
    copies = parts_of([moved(code + "\nresult = solid", random) for code in codes])
    for row, part, copy in zip(rows, parts, copies, strict=True):
        assert 0.99 <= iou_aligned(part, copy) <= 1, row["deepcad_id"]


# ---- the rotations at hand, and the climb from the best of them ----

PLATE = "result = cq.Workplane().box(80, 50, {thickness})"
BOSS = ".union(cq.Workplane().box(5, 5, 7, centered=(True, True, False)).translate((35, 20, 0)))"
LEDGE = (
    "result = cq.Workplane().box(4, 3, 1).union(cq.Workplane().box(1, 2, {}).translate((1, 0, 1)))"
)


def unturned(a: Part, b: Part) -> float:
    """IoU of the parts as given, less what rounding does when they change places."""
    return iou_rotated(normalise(a), normalise(b), np.eye(3)) - 1e-12


@pytest.mark.parametrize("thickness", [1, 1.5, 3])
def test_a_boss_far_out_on_a_plate_does_not_tilt_it(thickness):
    plate = PLATE.format(thickness=thickness)
    random = np.random.default_rng(5)
    first, second, turned = parts_of([plate, plate + BOSS, moved(plate + BOSS, random)])
    score = iou_aligned(first, second)
    assert score >= unturned(first, second) > 0.5
    assert iou_aligned(second, first) == score
    assert iou_aligned(first, turned) == pytest.approx(score, abs=5e-3)


def test_no_rotation_at_hand_is_better():
    codes = [*HARD.values(), *CHIRAL.values()]
    parts = parts_of(codes)
    for first, second in zip(parts, parts[1:] + parts[:1], strict=True):
        score = iou_aligned(first, second)
        assert score >= unturned(first, second)
        # Not all turns are tried whose estimates are alike, as of a sphere.
        assert score >= iou_aligned(first, second, "pca") - 5e-4


def test_the_slope_is_the_slope():
    from scipy.spatial.transform import Rotation

    first, second = (normalise(part) for part in parts_of([LEDGE.format(2), CHIRAL["propeller"]]))
    turn = Rotation.from_rotvec([0.3, -0.2, 0.5]).as_matrix()
    own = np.array(second.solid.to_mesh64().run_original_id)
    slope = overlap._slope(first, second, overlap.common_part(first, second, turn), own)
    for axis in np.eye(3) * 1e-5:
        up, down = (
            iou_rotated(first, second, Rotation.from_rotvec(sign * axis).as_matrix() @ turn)
            for sign in (1, -1)
        )
        assert slope[np.argmax(axis)] == pytest.approx((up - down) / 2e-5, abs=1e-4)


def test_a_climb_goes_up_and_never_down():
    from scipy.spatial.transform import Rotation

    codes = [LEDGE.format(2), LEDGE.format(3), CHIRAL["hook"], HARD["bolt circle"]]
    parts = [normalise(part) for part in parts_of(codes)]
    gains = []
    for seed in range(8):
        first, second = parts[seed % 4], parts[(seed + 1 + seed // 4) % 4]
        turn = Rotation.random(random_state=seed).as_matrix()
        common = overlap.common_part(first, second, turn)
        gains.append(overlap.climb(first, second, turn, common))
        gains[-1] -= iou_rotated(first, second, turn)
    assert min(gains) >= 0
    assert np.median(gains) > 0.02


def check_a_pair(name: str, target: Part, part: Part, folder: Path) -> float | None:
    """No rotation at hand is better, and a part scores 1 against itself and its own mesh.

    Returns how far the unturned IoU is from OpenCASCADE's own booleans; None where these fail.
    """
    import cadquery as cq

    from benchmarks.scoring import CONSISTENT, occ_volumes, with_deadline

    score = iou_aligned(target, part)
    assert score >= unturned(target, part), name
    assert score >= iou_aligned(target, part, "pca") - 5e-4, name
    assert iou_aligned(part, part) == pytest.approx(1, abs=1e-6), name
    shape, longest = cq.Shape.importBin(io.BytesIO(part.brep)), np.ptp(part.vertices, axis=0).max()
    shape.exportStl(str(folder / "part.stl"), 1e-3 * longest, 0.1)
    mesh = measure_file(folder / "part.stl")
    assert isinstance(mesh, Part), (name, mesh)
    assert iou_aligned(part, mesh) >= 0.994, name
    volumes = with_deadline(20, occ_volumes, target, part, np.eye(3))
    if not volumes:
        return None
    a, b, common, both = volumes
    if abs(a + b - common - both) > CONSISTENT * (a + b):
        return None
    return abs(unturned(target, part) - common / (a + b - common))


def check_exactness(errors: list[float | None]) -> None:
    exact = [error for error in errors if error is not None]
    assert len(exact) >= 0.8 * len(errors)
    assert np.mean(exact) < 2e-4 and max(exact) < 5e-3


def one_thread_for_booleans() -> None:
    """OpenCASCADE's pool of threads does not survive a fork."""
    from OCP.OSD import OSD_ThreadPool

    OSD_ThreadPool.DefaultPool_s(1).Init(1)


@real_data
@pytest.mark.slow
def test_real_programs_against_their_step_files(tmp_path):
    one_thread_for_booleans()
    rows = [json.loads(line) for line in (REAL / "metadata.jsonl").open()]
    errors = []
    for row, part in zip(rows, parts_of(row["cadquery"] for row in rows), strict=True):
        target = measure_file(REAL / "steps" / f"{row['deepcad_id']}.step")
        assert isinstance(target, Part)
        errors.append(check_a_pair(row["deepcad_id"], target, part, tmp_path))
    check_exactness(errors)


@pytest.mark.slow
def test_bundled_programs_against_perturbed_ones(tmp_path):
    from benchmarks.scoring import perturb

    one_thread_for_booleans()
    lines = (BUNDLED / "metadata.jsonl").read_text().splitlines()
    codes = [json.loads(line)["cadquery"] for line in lines[:16]]
    random = np.random.default_rng(4)
    others = [perturb(code, random) for code in codes]
    pairs = zip(run_many(codes), run_many(others), strict=True)
    errors = [
        check_a_pair(codes[number], target, part, tmp_path)
        for number, (target, part) in enumerate(pairs)
        if isinstance(target, Part) and isinstance(part, Part)
    ]
    assert len(errors) >= 12
    check_exactness(errors)
