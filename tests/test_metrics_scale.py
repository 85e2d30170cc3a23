"""Protects scoring at scale: the command line and resuming, executors, kept references, repairs."""

from __future__ import annotations

import json
import multiprocessing
import os
import subprocess
import sys
import threading
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import metrics
import metrics.geometry
import metrics.meshes
import metrics.normalised
from metrics import references, wire
from metrics.execution import run_cadquery
from metrics.meshes import solid_manifolds
from metrics.parts import Failure, Part, part_from_message, part_to_bytes
from metrics.triangles import union

ROOT = Path(__file__).resolve().parents[1]
BOX = "result = cq.Workplane().box({}, {}, {})"
CODES = {"a": BOX.format(1, 2, 3), "b": "oops", "c": BOX.format(2, 3, 4), "d": "while True: pass"}
TRUTH = {name: BOX.format(1, 2, 3) for name in CODES}


def command(*arguments: object) -> subprocess.CompletedProcess[str]:
    line = [sys.executable, "-m", "metrics", *map(str, arguments)]
    return subprocess.run(line, cwd=ROOT, capture_output=True, text=True)


def write(path: Path, codes: dict[str, str]) -> Path:
    path.write_text("".join(json.dumps({"id": k, "code": v}) + "\n" for k, v in codes.items()))
    return path


def test_command_line_and_resume(tmp_path):
    predictions = write(tmp_path / "predictions.jsonl", CODES)
    truth, out = write(tmp_path / "truth.jsonl", TRUTH), tmp_path / "rows.jsonl"
    arguments = (predictions, "--references", truth, "--out", out, "--timeout", 2)
    done = command(*arguments)
    assert done.returncode == 0, done.stderr
    full = json.loads(done.stdout)
    assert full["n"] == 4 and full["vsr"]["mean"] == 0.5
    assert full["failures"] == {"exception": 1, "timeout": 1} and "timeout" in done.stderr
    lines = out.read_text().splitlines(keepends=True)
    assert [json.loads(line)["id"] for line in lines] == list(CODES)

    again = command(*arguments)
    assert again.returncode == 2 and "--resume" in again.stderr
    assert out.read_text() == "".join(lines)

    out.write_text("".join(lines[:2]) + lines[2][:20])  # killed while writing the third row
    resumed = command(*arguments, "--resume")
    assert resumed.returncode == 0, resumed.stderr
    assert json.loads(resumed.stdout) == full
    assert out.read_text().splitlines(keepends=True)[:2] == lines[:2]
    assert len(out.read_text().splitlines()) == 4

    other = command(*arguments, "--resume", "--alignment", "pca")
    assert other.returncode == 2 and "alignment" in other.stderr


@pytest.mark.parametrize(
    ("rows", "truth", "message"),
    [
        ("not json\n", None, "line 1: not JSON"),
        ('{"id": 1}\n', None, 'expected "id" and "code"'),
        ('{"id": 1, "code": ""}\n{"id": 1, "code": ""}\n', None, "appears twice"),
        ("", None, "no rows"),
        ('{"id": 1, "code": ""}\n', '{"id": 2, "code": ""}\n', "no reference for 1 ids"),
        ('{"id": 1, "code": ""}\n', '{"id": 1, "code": "oops"}\n', "reference of sample '1'"),
    ],
)
def test_bad_input_is_explained(tmp_path, rows, truth, message):
    (tmp_path / "p.jsonl").write_text(rows)
    (tmp_path / "t.jsonl").write_text(truth or rows)
    done = command(tmp_path / "p.jsonl", "--references", tmp_path / "t.jsonl")
    assert done.returncode == 2 and message in done.stderr and not done.stdout
    assert "Traceback" not in done.stderr


def expected_rows() -> list[tuple[str, bool, float]]:
    got = metrics.compute(list(CODES.values()), list(TRUTH.values()), list(CODES), timeout=2)
    return [(row["id"], row["ok"], row["iou_best"]) for row in got["rows"]]


def check_executor(executor) -> None:
    got = metrics.compute(
        list(CODES.values()), list(TRUTH.values()), list(CODES), executor=executor, timeout=2
    )
    assert [(row["id"], row["ok"], row["iou_best"]) for row in got["rows"]] == expected_rows()


@pytest.mark.slow
def test_process_pool_and_a_forked_copy_of_this_process():
    expected_rows()  # the warm process of this process runs before the fork
    with ProcessPoolExecutor(2, mp_context=multiprocessing.get_context("fork")) as pool:
        check_executor(pool)
    assert isinstance(run_cadquery(CODES["a"]), Part)


@pytest.mark.slow
def test_dask_cluster():
    distributed = pytest.importorskip("distributed", reason="distributed is not installed")
    with (
        distributed.LocalCluster(
            n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None
        ) as cluster,
        distributed.Client(cluster) as client,
    ):
        check_executor(client.get_executor())


def test_references_are_executed_once(tmp_path, monkeypatch):
    runs = []

    def counted(code: str, **limits: Any) -> Part | Failure:
        runs.append(code)
        return run_cadquery(code, **limits)

    monkeypatch.setattr(references, "run_cadquery", counted)
    truth = BOX.format(7, 5, 3)
    for _ in range(2):
        metrics.compute([CODES["a"]] * 6, [truth] * 6, cache=tmp_path, workers=3)
    assert runs == [truth]
    references._kept.clear()  # as in a new process: from the folder now
    metrics.compute([CODES["a"]], [truth], cache=tmp_path)
    assert runs == [truth]
    references._kept.clear()
    (kept,) = tmp_path.iterdir()
    kept.write_bytes(kept.read_bytes()[:-9000] + b"damaged")
    metrics.compute([CODES["a"]], [truth], cache=tmp_path)
    assert runs == [truth, truth]


def test_nothing_runs_on_after_the_scorer_is_killed():
    code = (
        "import sys, threading, time\nfrom metrics.sandbox import client\n"
        "from metrics.execution import run_cadquery\nclient.start()\n"
        "threading.Timer(1, lambda: (print(client._state.root.pid), sys.stdout.flush())).start()\n"
        "run_cadquery('while True: pass', timeout=60)"
    )
    with subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE) as scorer:
        assert scorer.stdout is not None
        root = int(scorer.stdout.readline())
        family = [root, *children(root)]
        family += [pid for child in family[1:] for pid in children(child)]
        assert len(family) >= 3
        scorer.kill()
    gone = threading.Event()
    for _ in range(100):
        if not any(Path(f"/proc/{pid}").exists() for pid in family):
            return
        gone.wait(0.1)
    raise AssertionError([pid for pid in family if Path(f"/proc/{pid}").exists()])


def children(pid: int) -> list[int]:
    if not os.path.isdir("/proc/self/task"):
        pytest.skip("needs /proc")
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            if int(stat.read_text().rpartition(")")[2].split()[1]) == pid:
                found.append(int(stat.parent.name))
        except OSError:
            continue  # ended meanwhile
    return found


def test_meshes_that_are_no_manifold_are_repaired_and_reported():
    part = run_cadquery("result = cq.Workplane().box(1, 2, 3)")
    assert isinstance(part, Part)
    owner = np.zeros(len(part.triangles), int)
    whole, notes = solid_manifolds(part.vertices, part.triangles, owner)
    assert union(whole).volume() == pytest.approx(6) and not notes
    broken = {
        "a triangle is missing": part.triangles[1:],
        "a whole side is missing": part.triangles[part.faces != 2],
        "a triangle appears twice": np.concatenate([part.triangles, part.triangles[:1]]),
        "a triangle is turned": np.concatenate([part.triangles[:1, ::-1], part.triangles[1:]]),
    }
    for name, triangles in broken.items():
        solids, notes = solid_manifolds(part.vertices, triangles, np.zeros(len(triangles), int))
        assert union(solids).volume() == pytest.approx(6, rel=0.02), name
        assert notes, name


WALL_WITHOUT_THICKNESS = """
import cadquery as cq, manifold3d, numpy as np
from metrics import run_cadquery, triangles
from metrics.sandbox import tessellation
code = (  # two equal circles, as a model wrote them
    "ring = cq.Workplane('XZ', origin=(0, 50, 0)).circle(23).moveTo(0, 0).circle(7)\\n"
    "wall = cq.Workplane('XZ', origin=(0, 10, 0)).circle(18).moveTo(0, 0).circle(18)\\n"
    "result = ring.extrude(40).union(wall.extrude(60))"
)
assert run_cadquery(code).kind == "invalid solid"
exec(code)
arrays = tessellation.tessellate(result.val().wrapped, np.zeros(3), 30.0, [])
points, faces = triangles.weld(arrays["vertices"] / 30, arrays["triangles"])
kept = []  # what was freed before decides whether a wild read is seen
for number in range(300):
    kept = [*kept[-20:], manifold3d.Manifold.sphere(1, 8 + 7 * number % 64)]
    kept.append(triangles.manifold_of(points, faces, merge=number % 2 == 0))
    assert kept[-1] is None
"""


def test_no_mesh_takes_the_process_with_it():
    """manifold3d 3.5 reads past its arrays where edges do not come in pairs."""
    script = [sys.executable, "-c", WALL_WITHOUT_THICKNESS]
    done = subprocess.run(script, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_a_crowd_of_vertices_in_a_broken_mesh_does_not_fill_memory(monkeypatch):
    def pairs_of_a_crowd(*_, **__):
        raise AssertionError("each vertex would be paired with all others")

    class Tree(metrics.meshes.cKDTree):
        query_pairs = pairs_of_a_crowd

    monkeypatch.setattr(metrics.meshes, "cKDTree", Tree)
    rng = np.random.default_rng(0)
    box = run_cadquery("result = cq.Workplane().box(1, 2, 3)")
    crowd = rng.normal(scale=1e-6, size=(3000, 3))
    triangles = rng.integers(0, len(crowd), (9000, 3)) + len(box.vertices)
    points = np.concatenate([box.vertices, crowd])
    faces = np.concatenate([box.triangles[1:], triangles])
    solids, notes = solid_manifolds(points, faces, np.zeros(len(faces), int))
    assert notes == ["mesh is no manifold; measured by voxels"]
    assert union(solids).volume() == pytest.approx(6, rel=0.05)


def test_a_face_without_a_mesh_at_one_size_is_meshed_at_another():
    """OpenCASCADE meshes this wall at its own size and not at radius of gyration 1."""
    code = (
        "result = cq.Workplane('XY', origin=(0, 0, -25)).circle(50).extrude(50)\n"
        "bore = cq.Workplane('YZ', origin=(-50, 0, 0)).moveTo(-21, -10).circle(15).extrude(100)\n"
        "result = result.cut(bore)"
    )
    got = run_cadquery(code)
    assert isinstance(got, Part) and not got.notes
    assert not metrics.geometry.normalise(got).notes
    assert len(np.unique(got.faces)) == got.face_count == 6
    assert metrics.geometry.normalise(got).volume == pytest.approx(
        got.volume / metrics.triangles.radius_of_gyration(got.volume, got.inertia) ** 3, rel=2e-3
    )


def test_wire_refuses_what_does_not_fit():
    part = run_cadquery("result = cq.Workplane().box(1, 2, 3)")
    assert isinstance(part, Part)
    message = part_to_bytes(part)
    copy = part_from_message(*wire.unpack(message))
    assert copy.volume == part.volume and (copy.vertices == part.vertices).all()
    header, body = wire.unpack(message)
    damaged = [
        ({**header, "volume": -1.0}, body),
        ({**header, "volume": "6"}, body),
        ({**header, "center": [0, 0]}, body),
        ({**header, "center": [0, 0, float("nan")]}, body),
        ({**header, "counts": {**header["counts"], "vertices": 10**9}}, body),
        ({**header, "counts": {**header["counts"], "vertices": -1}}, body),
        ({**header, "counts": {**header["counts"], "triangles": True}}, body),
        (header, b"\xff" * len(body)),
        (header, body[:100]),
        ({}, body),
    ]
    for bad_header, bad_body in damaged:
        with pytest.raises(wire.WireError):
            part_from_message(bad_header, bad_body)


def test_files_and_folders_as_people_have_them(tmp_path):
    part = run_cadquery(BOX.format(1, 2, 3))
    assert isinstance(part, Part)
    step = metrics.export_step(part.brep)
    assert isinstance(step, bytes)
    steps, answers = tmp_path / "steps", tmp_path / "answers"
    for folder in (steps, answers):
        folder.mkdir()
        (folder / "a.x.STP").write_bytes(step)
        (folder / "b.Py").write_text("\ufeff# \u2028\n" + BOX.format(1, 2, 3))
    done = command(answers, "--references", steps)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["iou_best"]["mean"] > 0.999

    rows = [
        {"id": "a.x", "code": "answers/a.x.STP"},
        {"id": "b", "code": None},
        {"id": "c", "code": "# \u2028\n" + BOX.format(1, 2, 3)},
    ]
    (steps / "c.stp").write_bytes(step)
    predictions, out = tmp_path / "p.jsonl", tmp_path / "out.jsonl"
    text = "\ufeff" + "".join(json.dumps(row, ensure_ascii=False) + "\r\n" for row in rows)
    predictions.write_text(text, encoding="utf-8", newline="")
    for resume in ((), ("--resume",)):
        done = command(predictions, "--references", steps, "--out", out, *resume)
        assert done.returncode == 0, done.stderr
        got = json.loads(done.stdout)
        assert got["n"] == 3 and got["failures"] == {"no solid": 1}
        assert got["iou_best_valid"]["mean"] > 0.999
