"""Protects the limits of time: they count what a program computes, not how busy the machine is."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import metrics
from metrics import comparing, execution, geometry
from metrics.comparing import NotCompared
from metrics.execution import run_cadquery
from metrics.parts import Failure, Part

ROOT = Path(__file__).resolve().parents[1]
BOX = "result = cq.Workplane().box({}, {}, {})"
POSTS = "result = cq.Workplane().rarray(3, 3, 14, 14).circle(1).extrude(5)"
PLATE = (
    "plate = cq.Workplane().box(62, 62, 5).faces('>Z').workplane()\n"
    "result = plate.rarray(3, 3, 20, 20).hole(2)"
)
BESIDE_OTHERS = """
import os, subprocess, sys
os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
from metrics.execution import run_cadquery
spin = "import time\\nwhile time.process_time() < 60: pass"
others = [subprocess.Popen([sys.executable, "-c", spin]) for _ in range(4)]
try:
    work = "import time\\nwhile time.process_time() < 1: pass\\n"
    print(run_cadquery(work + "result = cq.Workplane().box(1, 2, 3)", timeout=2))
    print(run_cadquery(work + "while True: pass", timeout=2))
finally:
    for other in others:
        other.kill()
"""


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="needs one core for all")
def test_a_verdict_does_not_depend_on_what_else_runs():
    script = [sys.executable, "-c", BESIDE_OTHERS]
    done = subprocess.run(script, cwd=ROOT, capture_output=True, text=True)
    part, late = done.stdout.splitlines()
    assert part.startswith("Part(volume=6,"), done.stdout + done.stderr
    assert late == "timeout: stopped after 2 s of CPU time"


def test_who_sleeps_is_late_too(monkeypatch):
    monkeypatch.setattr(execution, "WALL_SPARE", 0.0)
    got = run_cadquery("import time\nwhile True: time.sleep(9)", timeout=0.5)
    assert isinstance(got, Failure) and got.kind == "timeout"
    assert got.message.startswith("stopped after 1.5 s, of which it used 0.")
    monkeypatch.undo()
    assert isinstance(run_cadquery("import time\ntime.sleep(2)\n" + BOX.format(1, 2, 3), 1), Part)


def test_plates_of_many_holes_are_measured_in_their_time():
    """OpenCASCADE's own mesher takes 22 s of CPU time for this plate."""
    got = run_cadquery(PLATE, timeout=15)
    assert isinstance(got, Part), got
    assert got.valid and not got.notes and got.face_count == 406
    assert got.volume == pytest.approx(62 * 62 * 5 - 400 * 5 * 3.14159265, rel=1e-6)
    assert geometry.normalise(got).notes == ()


def test_a_mesh_of_far_too_many_triangles_is_too_large():
    got = run_cadquery("result = cq.Workplane().rarray(3, 3, 17, 17).sphere(1)")
    assert isinstance(got, Failure) and got.kind == "too large"
    assert "triangles, 500,000 are allowed" in got.message


def test_parts_of_many_triangles_are_compared_in_a_child():
    part = run_cadquery(POSTS)
    assert isinstance(part, Part) and comparing.may_take_long(part, part)
    assert metrics.iou_aligned(part, part) == pytest.approx(1, abs=1e-9)
    got = metrics.compute([POSTS], [part], extras=True)
    assert got["rows"][0]["iou_unit_box"] == pytest.approx(1, abs=1e-9)


@pytest.mark.parametrize("limit", ["MOST_TRIANGLE_PAIRS", "PATIENCE"])
def test_a_child_says_what_is_said_here(limit, monkeypatch):
    ell = run_cadquery(BOX.format(5, 2, 2) + ".union(cq.Workplane().box(2, 7, 1))")
    tube = run_cadquery("result = cq.Workplane().circle(4).circle(3).extrude(5)")
    assert isinstance(ell, Part) and isinstance(tube, Part)

    def scores() -> list[float]:
        aligned = [metrics.iou_aligned(ell, tube, how) for how in metrics.ALIGNMENTS]
        return [*aligned, metrics.iou_unit_box(ell, tube)]

    here, asked = scores(), []

    def apart(a: Part, b: Part, how: str) -> float:
        asked.append(how)
        return comparing.compare_apart(a, b, how)

    monkeypatch.setattr(geometry, "compare_apart", apart)
    assert scores() == pytest.approx(here, abs=1e-12) and not asked
    monkeypatch.setattr(comparing if limit == "MOST_TRIANGLE_PAIRS" else geometry, limit, -1)
    assert scores() == pytest.approx(here, abs=1e-12)
    assert asked[:3] == list(metrics.ALIGNMENTS)


def test_a_comparison_past_its_deadline_is_a_failure_that_says_so(monkeypatch):
    monkeypatch.setattr(comparing, "MOST_TRIANGLE_PAIRS", 0)
    monkeypatch.setattr(comparing, "COMPARE_TIMEOUT", 0.0)
    part = run_cadquery(BOX.format(1, 2, 3))
    assert isinstance(part, Part)
    with pytest.raises(NotCompared, match="stopped after 0 s of CPU time"):
        metrics.iou_aligned(part, part)
    got = metrics.compute([BOX.format(1, 2, 3), "oops"], [part, part])
    assert got["failures"] == {"timeout": 1, "exception": 1}
    assert "compared" in got["rows"][0]["failure"] and got["rows"][0]["iou_best"] == 0
    assert metrics.get_iou_best(BOX.format(1, 2, 3), BOX.format(1, 2, 3)) == 0
