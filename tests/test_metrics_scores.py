"""Protects the public interface of metrics/: names, shapes of results, and plain right answers."""

from __future__ import annotations

import functools
import json

import numpy as np
import pytest

import metrics
import metrics.best_iou
from metrics.execution import run_cadquery, run_many
from metrics.inputs import read_predictions
from metrics.parts import Failure, Part

BOX = "result = cq.Workplane().box({}, {}, {})"


def test_part_holds_exact_properties_and_drawing_data():
    part = run_cadquery("import cadquery as cq\nresult = cq.Workplane().cylinder(10, 2)")
    assert isinstance(part, Part)
    assert part.volume == pytest.approx(np.pi * 40, rel=1e-9)
    assert part.area == pytest.approx(np.pi * 48, rel=1e-9)
    assert part.bounding_box == pytest.approx(np.array([[-2, -2, -5], [2, 2, 5]]), abs=1e-6)
    assert np.trace(part.inertia) / part.volume == pytest.approx(2 + 2 * (1 + 100 / 12), rel=1e-9)
    assert np.linalg.norm(part.normals, axis=1) == pytest.approx(1.0)
    corners = part.vertices[part.triangles]
    outward = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    assert (np.einsum("ij,ij->i", outward, part.normals[part.triangles[:, 0]]) > 0).all()
    assert len(np.unique(part.faces)) == part.face_count == 3
    assert len(part.edge_starts) == 4  # two circles and the seam
    for start, end in zip(part.edge_starts[:-1], part.edge_starts[1:], strict=True):
        line = part.edge_points[start:end]
        assert len(line) >= 2
        distance = np.linalg.norm(part.vertices[None] - line[:, None], axis=2).min(1)
        assert distance.max() == 0  # edges lie on the same tessellation
    assert part.solids == 1 and part.valid and part.brep


def test_results_keep_their_order_and_failures_are_typed():
    got = run_many([BOX.format(1, 1, 1), "x = (", "1 / 0", "pass", BOX.format(2, 1, 1)], workers=2)
    assert [one.kind if isinstance(one, Failure) else round(one.volume, 9) for one in got] == [
        1.0, "syntax error", "exception", "no solid", 2.0,
    ]  # fmt: skip
    error = got[2]
    assert isinstance(error, Failure)
    assert error.line == 1 and "ZeroDivisionError" in error.message


def test_compute_counts_failures_as_zero():
    got = metrics.compute(
        predictions=[BOX.format(2, 4, 6), "result = oops", BOX.format(1, 1, 1)],
        references=[BOX.format(1, 2, 3)] * 3,
        ids=["same", "broken", "cube"],
    )
    assert got["n"] == 3 and got["alignment"] == "best" and got["reference"] == "code"
    assert got["vsr"]["mean"] == pytest.approx(2 / 3)
    assert got["failures"] == {"exception": 1}
    rows = {row["id"]: row for row in got["rows"]}
    assert set(rows["same"]) == {"id", "code", "ok", "failure", "iou_best", "seconds"}
    assert rows["same"]["iou_best"] == pytest.approx(1, abs=1e-9)
    assert rows["broken"]["iou_best"] == 0 and not rows["broken"]["ok"]
    assert 0 < rows["cube"]["iou_best"] < 1
    mean = got["iou_best"]["mean"]
    assert mean == pytest.approx(sum(row["iou_best"] for row in got["rows"]) / 3)
    assert got["iou_best"]["low"] <= mean <= got["iou_best"]["high"]
    assert got["iou_best_valid"]["mean"] == pytest.approx(mean * 3 / 2)


def test_bad_reference_is_named():
    with pytest.raises(ValueError, match="'seven'"):
        metrics.compute(predictions=[BOX.format(1, 1, 1)], references=["oops"], ids=["seven"])


def test_drop_in_names():
    codes = {"a": BOX.format(1, 2, 3), "b": "oops"}
    rate = metrics.evaluate_syntax_rate(codes, verbose=False)
    expected = {"vsr": 0.5, "successful": 1, "total": 2, "failed_ids": ["b"]}
    assert {key: rate[key] for key in expected} == expected
    assert metrics.evaluate_syntax_rate_simple(codes) == 0.5
    got = metrics.evaluate_codes({"a": codes["a"], "b": codes["a"]}, codes, pitch=0.05)
    assert got["vsr"] == 0.5 and got["iou_best"] == pytest.approx(0.5)
    assert metrics.get_iou_best(codes["a"], BOX.format(6, 2, 4)) == pytest.approx(1, abs=1e-9)
    assert metrics.get_iou_best(codes["a"], "oops") == 0.0


def mesh_file(path, **options) -> None:
    trimesh = pytest.importorskip("trimesh")
    trimesh.creation.box((1, 2, 3)).export(path, **options)


REFERENCE = BOX.format(3, 2, 1)
SLOW_TO_MEASURE = """
rim = cq.Wire.makePolygon([(-2, -2), (90, -2), (90, 90), (-2, 90)], close=True)
places = [cq.Vector(3 * (i % 30), 3 * (i // 30)) for i in range(900)]
holes = [cq.Wire.makeCircle(1, place, cq.Vector(0, 0, 1)) for place in places]
result = cq.Workplane(cq.Solid.extrudeLinear(rim, holes, cq.Vector(0, 0, 1)))
"""
SPIN = "while time.process_time() < 9: pass"
VERDICTS = {  # a program of every kind, and of which kind its failure is
    "a box": (BOX.format(1, 2, 3), None),
    "shown": ("show_object(cq.Workplane().box(1, 2, 3))", None),
    "an assembly": ("result = cq.Assembly(cq.Workplane().box(1, 2, 3))", None),
    "two solids": ("result = cq.Workplane().rarray(3, 1, 2, 1).rect(1, 1).extrude(1)", None),
    "solids that overlap": (
        "result = [cq.Workplane().box(1, 2, 3), cq.Workplane().box(3, 1, 1)]", None,
    ),
    "a closed shell": ("result = cq.Workplane().box(1, 2, 3).shells()", None),
    "inside out": (
        "result = cq.Shape(cq.Workplane().box(1, 2, 3).val().wrapped.Reversed())", None,
    ),
    "a hole that touches": (
        "result = cq.Workplane().box(4, 4, 4).cut(cq.Workplane().cylinder(9, 1)"
        ".translate((1, 0, 0)))", None,
    ),
    "exit at the end": (BOX.format(1, 2, 3) + "\nimport sys\nsys.exit(0)", None),
    "nothing": ("", "no solid"),
    "no syntax": ("result = cq.Workplane(", "syntax error"),
    "an exception": ("result = cq.Workplane().box(1, 2, 3).fillet(9)", "exception"),
    "an exception at the end": (BOX.format(1, 2, 3) + "\n1 / 0", "exception"),
    "exit before the end": ("import sys\nsys.exit(1)\n" + BOX.format(1, 2, 3), "no solid"),
    "a face": ("result = cq.Workplane().rect(1, 2).wires().toPending().val()", "no solid"),
    "open shells": (
        "result = cq.Shell.makeShell(cq.Workplane().box(1, 1, 1).faces('not <Z').vals())",
        "no solid",
    ),
    "no volume": (
        "result = cq.Workplane().polyline([(0, 0), (4, 0), (0, 4), (4, 4)]).close().extrude(3)",
        "invalid solid",
    ),
    "a sliver": ("result = cq.Workplane().box(1, 1, 1e-12)", "exception"),
    "an outline that crosses itself": (
        "result = cq.Workplane().polyline([(0, 0), (9, 0), (0, 4), (4, 4)]).close().extrude(3)",
        "invalid solid",
    ),
    "an open shell in a solid": (
        "shell = cq.Shell.makeShell(cq.Workplane().box(1, 1, 1).faces('not <Z').vals())\n"
        "result = cq.Solid.makeSolid(shell)",
        "invalid solid",
    ),
    "a loop": ("import time\n" + SPIN + "\n" + BOX.format(1, 2, 3), "timeout"),
    "too long to measure": (SLOW_TO_MEASURE, "timeout"),
    "too much memory": ("x = bytearray(1 << 50)", "memory"),
    "a crash": ("import os\nos.abort()", "crash"),
    "forbidden": ("import os\nos.fork()\n" + BOX.format(1, 2, 3), "forbidden"),
    "too long a text": ("#" * (5 << 20), "too large"),
}  # fmt: skip


def test_every_function_says_the_same_of_every_program(monkeypatch):
    limits = {"timeout": 1.5}
    monkeypatch.setattr(metrics.best_iou, "run_many", functools.partial(run_many, **limits))
    codes = {name: code for name, (code, _) in VERDICTS.items()}
    found = dict(zip(codes, run_many(list(codes.values()), **limits), strict=True))
    kinds = {name: got.kind if isinstance(got, Failure) else None for name, got in found.items()}
    assert kinds == {name: kind for name, (_, kind) in VERDICTS.items()}
    rate = metrics.evaluate_syntax_rate(codes, verbose=False, **limits)
    assert set(rate["failed_ids"]) == {name for name, kind in kinds.items() if kind}
    got = metrics.compute(list(codes.values()), [REFERENCE] * len(codes), ids=list(codes), **limits)
    for row in got["rows"]:
        kind = kinds[row["id"]]
        assert row["ok"] == (kind is None) == (row["iou_best"] > 0), row
        assert kind is None or row["failure"].startswith(kind), row
    for name, code in codes.items():
        assert (metrics.get_iou_best(REFERENCE, code) > 0) == (kinds[name] is None), name
    assert rate["kinds"] == got["failures"]
    assert (
        rate["vsr"]
        == got["vsr"]["mean"]
        == pytest.approx(list(kinds.values()).count(None) / len(kinds))
    )


def test_predictions_and_references_may_be_files_of_every_kind(tmp_path):
    part = run_cadquery(BOX.format(1, 2, 3))
    step = metrics.export_step(part.brep)
    assert isinstance(step, bytes)
    (tmp_path / "a.STEP").write_bytes(step)
    for suffix in ("stl", "3mf", "obj"):
        mesh_file(tmp_path / f"a.{suffix}")
    mesh_file(tmp_path / "a.STL", file_type="stl_ascii")
    loud = tmp_path / "loud.stl"
    loud.write_text((tmp_path / "a.STL").read_text().upper())
    long = tmp_path / "long.stl"
    long.write_bytes((tmp_path / "a.stl").read_bytes() + b"signed by a printer")
    (tmp_path / "a.py").write_text("\ufeff" + BOX.format(2, 4, 6))
    files = sorted(tmp_path.iterdir())
    assert len(files) == 8
    for given in (files, [str(file) for file in files]):
        got = metrics.compute(given, given[::-1])
        assert got["failures"] == {} and got["iou_best"]["mean"] > 0.99
        assert got["reference"] == "3mf+code+obj+step+stl"
    assert got["rows"][0]["code"] == str(files[0])


def test_a_model_cannot_name_the_file_of_its_reference(tmp_path):
    truth, folder = tmp_path / "truth", tmp_path / "mine"
    for one in (truth, folder):
        one.mkdir()
        (one / "a.py").write_text(BOX.format(1, 2, 3))
    answers = [BOX.format(1, 2, 3), str(truth / "a.py")]
    got = metrics.compute(answers, [truth / "a.py"] * 2)
    assert [row["ok"] for row in got["rows"]] == [True, False]
    rows = [{"id": "a", "code": "a.py"}, {"id": "b", "code": "../truth/a.py"}]
    (folder / "p.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    read = read_predictions(folder / "p.jsonl")
    assert read == {"a": folder / "a.py", "b": "../truth/a.py"}
    got = metrics.compute(list(read.values()), [truth / "a.py"] * 2)
    assert [row["ok"] for row in got["rows"]] == [True, False]


def test_predictions_that_are_not_there_count_as_failures(tmp_path):
    (tmp_path / "bad.3mf").write_bytes(b"PK no archive")
    (tmp_path / "bad.obj").write_text("no mesh")
    (tmp_path / "short.stl").write_bytes(bytes(80) + (12).to_bytes(4, "little") + bytes(120))
    given = [None, "none.step", *sorted(tmp_path.iterdir())]
    got = metrics.compute(given, [BOX.format(1, 2, 3)] * 5)
    assert got["vsr"]["mean"] == 0 and got["iou_best"]["mean"] == 0 and got["n"] == 5
    reasons = [row["failure"] for row in got["rows"]]
    expected = ["no prediction", "cannot be read", "3MF", "OBJ", "cut short: 2 of 12"]
    for reason, text in zip(reasons, expected, strict=True):
        assert text in reason and "\n" not in reason
    for reference in (None, "none.step", tmp_path / "bad.obj", 7):
        with pytest.raises(ValueError, match="reference of sample 'x'"):
            metrics.compute([BOX.format(1, 2, 3)], [reference], ids=["x"])


def test_a_step_file_holds_what_was_written():
    for code in (
        BOX.format(1, 2, 3),
        "result = cq.Workplane().ellipse(5, 3).offset2D(1).extrude(2)",
        "result = cq.Workplane().sphere(2)",
        "result = cq.Workplane().box(1, 1, 1).box(1, 1, 1, centered=(False, False, False))",
    ):
        part = run_cadquery(code)
        assert isinstance(part, Part), part
        step = metrics.export_step(part.brep)
        assert isinstance(step, bytes), step
