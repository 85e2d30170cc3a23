"""Protects whole pictures: against real ones and committed ones, and written by the file.

The thresholds are a little below what benchmarks/rendering.py prints. Without the
real rows beside the checkout the bundled pictures, drawn from CadQuery's cleaned
solids, hold the drawing in place.
"""

import json
import os
import signal
import time
from collections import Counter

import numpy as np
import pytest
from PIL import Image

from image2cad.cad.light_engine import build
from image2cad.cad.parsing import parse, read
from image2cad.common.errors import InputError
from image2cad.common.gencad import read_programs
from image2cad.common.processes import Lost, each
from image2cad.data.sources import BUNDLED
from image2cad.rendering import __main__ as rendering_main
from image2cad.rendering import folder as rendering
from image2cad.rendering.drawing import draw_code
from image2cad.rendering.folder import Job, render_folder, render_rows
from image2cad.rendering.raster import draw
from image2cad.rendering.similarity import likeness, line_iou, silhouette_iou, ssim
from metrics.execution import run_many
from metrics.parts import Part

CYLINDER = 'import cadquery as cq\nr = cq.Workplane("XY").circle(2).extrude(1)\n'
PLATE = 'import cadquery as cq\nr = cq.Workplane("XY").rect(4, 2).circle(0.5).extrude(1)\n'
ROUNDED = 'import cadquery as cq\nr = cq.Workplane("XY").box(3, 2, 1).edges("|Z").fillet(0.3)\n'


def real_rows(folder):
    """(row, picture) of the real rows but for one, whose picture shows another part."""
    for row in read_programs(folder):
        if row["id"] != "00129614":
            with Image.open(folder / row["file_name"]) as picture:
                yield row, np.asarray(picture.convert("RGB"))


def test_pictures_of_programs_agree_with_the_real_ones(gencad_dev):
    rows = list(real_rows(gencad_dev))
    assert len(rows) >= 50
    for exact, chosen, least in ((False, rows, 0.9995), (True, rows[::6], 0.9997)):
        pairs = [(draw_code(row["code"], exact=exact), picture) for row, picture in chosen]
        alike = [ssim(a, b) for a, b in pairs]
        assert np.mean(alike) > least and min(alike) > 0.99
        assert np.mean([silhouette_iou(a, b) for a, b in pairs]) > 0.9998
        assert np.mean([line_iou(a, b) for a, b in pairs]) > 0.99


def test_pictures_of_parts_agree_with_the_real_ones(gencad_dev):
    # Every other row for speed; most of the parts extruded to both sides are among them.
    rows = list(real_rows(gencad_dev))[::2]
    parts = run_many([row["code"] for row, _ in rows])
    pairs = [(draw(part), picture) for part, (_, picture) in zip(parts, rows, strict=True)]
    alike = [ssim(a, b) for a, b in pairs]
    assert np.mean(alike) > 0.993 and min(alike) > 0.975
    assert np.mean([silhouette_iou(a, b) for a, b in pairs]) > 0.9995


def test_the_true_program_is_likest_to_the_real_picture(gencad_dev):
    from dataclasses import replace

    found = Counter()
    for row, picture in list(real_rows(gencad_dev))[::2]:
        program = read(row["code"])
        truth = likeness(draw(build(program)), picture)
        assert truth > 0.98
        for i, step in enumerate(program):
            for factor in (0.8, 1.25):
                changed = replace(step, depth=step.depth * factor)
                score = likeness(draw(build((*program[:i], changed, *program[i + 1 :]))), picture)
                found["first" if score < truth else "tied" if score == truth else "wrong"] += 1
    assert found["first"] >= 0.88 * found.total() and found["wrong"] <= 0.01 * found.total()


def test_bundled_pictures_are_drawn_again():
    rows = read_programs(BUNDLED / "test")[:16]
    parts = run_many([row["code"] for row in rows])
    pairs = []
    for row, part in zip(rows, parts, strict=True):
        assert isinstance(part, Part), (row["id"], part)
        with Image.open(BUNDLED / "test" / row["file_name"]) as stored:
            picture = np.asarray(stored.convert("RGB"))
        pairs.append((draw(part), picture))
        assert ssim(draw_code(row["code"]), picture) > 0.999
        assert ssim(draw_code(row["code"], exact=True), picture) > 0.995
    # CadQuery cleans edges away that GenCAD's pictures show.
    assert min(silhouette_iou(a, b) for a, b in pairs) > 0.99
    alike = [ssim(a, b) for a, b in pairs]
    assert np.mean(alike) > 0.985 and min(alike) > 0.97


def test_a_sketch_extruded_to_both_sides_is_two_extrusions():
    code = (
        "import cadquery as cq\n"
        'a = cq.Workplane("XY").rect(4, 4).extrude(1)\n'
        'b = cq.Workplane("XY").circle(1).extrude(-3, both=True)\n'
        "r = a.cut(b)\n"
    )
    plate, up, down = read(code)
    assert (plate,) == parse(code)[:1] and len(parse(code)) == 2
    assert (up.depth, down.depth) == (-3, 3) and up.plane == down.plane
    assert up.plane.origin == (0, 0, 0) and up.operation == down.operation == "cut"
    assert read(code.replace("cut(b)", "intersect(b)")) == parse(
        code.replace("cut(b)", "intersect(b)")
    )
    swapped = code.replace("a.cut(b)", "b.union(a).union(a)")
    assert read(swapped) == parse(swapped)
    assert read(ROUNDED) is None and draw_code(ROUNDED) is None


def write_rows(file, rows):
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return file


def test_a_file_of_programs_becomes_an_image_folder(tmp_path, monkeypatch, capsys):
    file = write_rows(
        tmp_path / "predictions.jsonl",
        [
            {"id": "a", "code": CYLINDER, "iou_best": 0.5},
            {"deepcad_id": "b", "cadquery": ROUNDED, "token_count": 700, "prompt": "Draw:"},
            {"id": "c", "code": "import cadquery as cq\nr = cq.Workplane("},
            {"id": "d", "code": None},
            {"id": "../e", "code": PLATE},
        ],
    )
    out = tmp_path / "pictures"
    arguments = ["rendering", str(file), str(out), "--size", "100", "--workers", "1"]
    monkeypatch.setattr("sys.argv", arguments)
    assert rendering_main.main() == 0
    names = {"a.png", "b.png", "metadata.jsonl", "failures.jsonl"}
    assert {path.name for path in out.iterdir()} == names
    first, second = read_programs(out)
    assert first["cadquery"] == CYLINDER and "token_count" not in first
    assert (second["token_count"], second["prompt"]) == (700, "Draw:")
    with Image.open(out / "a.png") as picture:
        assert (np.asarray(picture) == draw_code(CYLINDER, 100)).all()
    failures = [json.loads(line) for line in (out / "failures.jsonl").read_text().splitlines()]
    reasons = {row["id"]: row["reason"] for row in failures}
    assert set(reasons) == {"c", "d", "../e"} and "syntax error" in reasons["c"]
    assert "3 rows could not be drawn" in capsys.readouterr().out
    with pytest.raises(InputError, match="finished"):
        rendering_main.main()
    monkeypatch.setattr("sys.argv", ["rendering", str(out), str(tmp_path / "again"), "--size", "0"])
    with pytest.raises(InputError, match="--size"):
        rendering_main.main()


def test_an_interrupted_folder_goes_on_where_it_stopped(tmp_path, monkeypatch):
    rows = [{"id": name, "code": code} for name, code in (("a", CYLINDER), ("b", PLATE))]
    out = tmp_path / "pictures"

    def interrupted(jobs, workers, deadline):
        yield from render_rows(jobs[:1], workers, deadline)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(rendering, "render_rows", interrupted)
        render_folder(rows, out, workers=1)
    written = (out / "a.png").stat().st_mtime_ns
    assert not (out / "metadata.jsonl").exists() and not (out / "b.png").exists()
    with pytest.raises(InputError, match="--resume"):
        render_folder(rows, out, workers=1)
    with pytest.raises(InputError, match="other settings"):
        render_folder(rows, out, size=50, workers=1, resume=True)
    assert render_folder(rows, out, workers=1, resume=True) == {}
    assert (out / "a.png").stat().st_mtime_ns == written
    assert {path.name for path in out.iterdir()} == {"a.png", "b.png", "metadata.jsonl"}


def test_rows_that_are_none_are_bad_input(tmp_path):
    file = tmp_path / "rows.jsonl"
    for text, message in (("", "no rows"), ("{", "not JSON"), ("[1]", "object"), ("{}", "id")):
        file.write_text(text, encoding="utf-8")
        with pytest.raises(InputError, match=message):
            read_programs(file)
    with pytest.raises(InputError, match="cannot read"):
        read_programs(tmp_path / "none.jsonl")
    twice = [{"id": "a", "code": CYLINDER}] * 2
    with pytest.raises(InputError, match="two rows"):
        render_folder(twice, tmp_path / "out")


def troubled(job):
    """Work for a process of its own: returns, crashes, hangs or raises as it is told."""
    if job == "crash":
        os.kill(os.getpid(), signal.SIGSEGV)
    if job == "hang":
        time.sleep(600)
    if job == "raise":
        raise ArithmeticError("told so")
    return job.upper()


def test_a_call_that_crashes_or_hangs_costs_itself_only():
    jobs = ["one", "crash", "hang", "two"]
    answers = dict(each(troubled, jobs, workers=1, deadline=1.0))
    assert answers[0] == "ONE" and answers[3] == "TWO"
    assert answers[1] == Lost("the process died of SIGSEGV")
    assert answers[2] == Lost("stopped after 1 s")
    with pytest.raises(ArithmeticError, match="told so"):
        list(each(troubled, ["raise"], workers=1, deadline=60))
    assert list(each(troubled, [], workers=2, deadline=60)) == []


def test_a_lost_process_is_a_row_s_reason(tmp_path, monkeypatch):
    jobs = [Job("a", CYLINDER, tmp_path / "a.png")]
    monkeypatch.setattr(rendering, "each", lambda *_: iter([(0, Lost("stopped after 1 s"))]))
    assert list(render_rows(jobs, 1)) == [(jobs[0], "stopped after 1 s")]
