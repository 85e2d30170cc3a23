"""Protects the recipes as commands: settings, pictures to report, one clear line on bad input."""

from __future__ import annotations

import json
import os
import re
import runpy
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from image2cad.common.errors import InputError
from image2cad.common.files import read_json_lines

ROOT = Path(__file__).resolve().parent.parent


def run_recipe(script: str, *arguments: str, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "PYTHONPATH": str(ROOT)}
    return subprocess.run(
        [sys.executable, str(ROOT / script), *arguments],
        cwd=cwd, capture_output=True, text=True, env=environment, timeout=300,
    )  # fmt: skip


AND_ROOMS = """
import runpy, sys
runpy.run_path(sys.argv[0], run_name="__main__")
rooms = {name.split(".")[1] for name in sys.modules if name.startswith("image2cad.")}
print(sorted(rooms & {"reading", "verification", "synthesis", "serving"}))
"""


def test_a_recipe_runs_from_pictures_to_report_and_loads_no_room_that_it_does_not_need(
    base: Path, tmp_path: Path
) -> None:
    script = "train_cpu.py"  # colab_training.py runs in test_bases.py and test_notebooks.py
    out = tmp_path / "run"
    flags = ["--base", str(base), "--data", "bundled", "--held-out", "4", "--out", str(out)]
    quick = ["--max-train-samples", "8", "--num-train-epochs", "1", "--max-new-tokens", "24"]
    watched = tmp_path / "watched.py"
    watched.write_text(f"import sys\nsys.argv[0] = {str(ROOT / script)!r}\n{AND_ROOMS}")
    done = run_recipe(str(watched), *flags, *quick)
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.splitlines()[-1] == "[]", "a room that it does not need"
    rows = [json.loads(line) for line in (out / "predictions.jsonl").read_text().splitlines()]
    assert len(rows) == 4
    assert {"id", "code", "ok", "failure", "iou_best", "seconds"} <= set(rows[0])
    summary = json.loads((out / "metrics.json").read_text())
    for scores in (summary, summary["before"]):
        assert set(scores["iou_best"]) == {"mean", "low", "high"}
        assert scores["n"] == 4
    assert summary["alignment"] == "best" and summary["reference"] == "code"
    page = (out / "report.html").read_text()
    assert page.count("<figure>") == 4 and "data:image/png" in page
    assert (out / "adapter" / "adapter_model.safetensors").is_file()
    assert "before" in done.stdout and str(out / "report.html") in done.stdout
    # The bar of training, with the time that is left; those of generation begin with their name.
    assert re.search(r"(?:^|[\r\n])\s*\d+%\|[^|]*\| (\d+)/\1 \[\d\d:\d\d<", done.stderr)
    before = {file: file.read_bytes() for file in out.glob("*.*")}
    again = run_recipe(script, *flags, *quick)
    assert again.returncode == 2 and "Traceback" not in again.stderr
    assert "already holds something" in again.stderr.splitlines()[-1]
    assert before == {file: file.read_bytes() for file in out.glob("*.*")}


def test_bad_input_is_one_clear_line_and_writes_nothing(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)
    empty = tmp_path / "empty"
    empty.mkdir()
    out = tmp_path / "run"
    file = tmp_path / "file"
    file.write_text("not a folder")
    broken = tmp_path / "broken"
    shutil.copytree(base, broken)
    weights = broken / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    cases = {
        ("--data", str(tmp_path / "nowhere")): "nowhere",
        ("--data", str(empty)): "is empty",
        ("--data", "CADCODER/GenCAD-Code"): "CADCODER/GenCAD-Code",
        ("--base", "llava-hf/llava-1.5-7b-hf"): "cannot load the base model",
        ("--num-train-epochs", "-1"): "--num-train-epochs must be at least",
        ("--learning-rate", "-1"): "--learning-rate must be at least",
        ("--max-train-samples", "many"): "invalid int value",
        ("--max-new-tokens", "0"): "--max-new-tokens must be at least",
        ("--data", "CADCODER/GenCAD-Code", "--max-train-samples", "9"): "CADCODER/GenCAD-Code",
        ("--base", str(broken)): "no model folder that transformers can load",
        ("--out", str(file / "run")): "cannot write to",
        ("--resume", "--out", str(empty)): "nothing to resume",
    }
    for flags, message in cases.items():
        few = [] if "--data" in flags else ["--max-train-samples", "2", "--held-out", "2"]
        monkeypatch.setattr(sys, "argv", ["train_cpu.py", "--out", str(out), *few, *flags])
        # The test above sees a subprocess turn these into one line and exit code 2.
        with pytest.raises((InputError, SystemExit)) as stopped:
            runpy.run_path("train_cpu.py", run_name="__main__")
        if isinstance(stopped.value, SystemExit):
            assert stopped.value.code == 2
            assert message in capsys.readouterr().err, flags
        else:
            assert message in str(stopped.value) and "\n" not in str(stopped.value), flags
        assert not out.exists() and not list(empty.iterdir()), flags


def test_the_colab_recipe_gives_its_scores_whatever_the_check_says_and_goes_on(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)
    # What the new process would say that loads the adapter again (test_bases.py has a real one).
    said_there = [subprocess.CompletedProcess([], 0, "7.5\n", "")]
    monkeypatch.setattr("image2cad.vlm.publishing.subprocess.run", lambda *_, **__: said_there[-1])
    flags = ["--base", str(base), "--data", "bundled", "--max-train-samples", "6"]
    flags += ["--validation", "2", "--held-out", "2", "--num-train-epochs", "1"]
    flags += ["--no-check-code", "--no-compact", "--no-load-in-4bit"]

    def run(*more: str) -> str:
        monkeypatch.setattr(sys, "argv", ["colab_training.py", *flags, *more])
        runpy.run_path(str(ROOT / "colab_training.py"), run_name="__main__")
        return capsys.readouterr().out

    said = run("--max-new-tokens", "16", "--effort", "none")
    assert said.index("IoU_best, failures 0") < said.index("warning: the adapter in runs/colab-001")
    wanted = ["no GPU", "1 steps are few", "before training the base says of", "written by "]
    wanted += ["solid = cq.Workplane", "half of them up to"]
    assert not [text for text in wanted if text not in said], said
    out = Path("runs/colab-001")
    assert len(list(out.glob("picture-*.png"))) == 1, "without a picture, one that is held out"
    (out / "metrics.json").unlink()  # as if it had been cut off after training
    trained = (out / "trained.safetensors").read_bytes()
    picture = str(ROOT / "data/samples/test/s20200000.png")
    full = "error: out of GPU memory; 2.00 GiB more were wanted: restart the session"
    said_there.append(subprocess.CompletedProcess([], 2, "", full))
    said = run("--resume", "--max-new-tokens", "8", "--effort", "none", "--picture", picture)
    assert "warning: the adapter in runs/colab-001/adapter was not loaded again to compare" in said
    assert (out / "metrics.json").is_file() and (out / "picture-s20200000.png").is_file()
    assert (out / "trained.safetensors").read_bytes() == trained
    with pytest.raises(InputError, match="the run in runs/colab-001 is finished"):
        run("--resume", "--out", str(out))
    (out / "metrics.json").unlink()
    with pytest.raises(InputError, match=r"other settings \(seed: 0 then, 1 now\)"):
        run("--resume", "--seed", "1")


RECIPE = """
from typing import TYPE_CHECKING
from image2cad.common import QUESTION, read_flags
if TYPE_CHECKING:
    from pathlib import Path
_PRIVATE = 1
COUNT = 3
RATE: float | None = None
LIMIT: int | None = 30
OUT: str | None = None
CHECK = True
settings = read_flags("what it does", globals())
"""


def test_a_recipes_settings_are_its_flags_and_nothing_else_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    script = tmp_path / "recipe.py"
    script.write_text(RECIPE)

    def settings(*flags: str) -> dict[str, object]:
        monkeypatch.setattr(sys, "argv", ["recipe.py", *flags])
        return vars(runpy.run_path(str(script))["settings"])

    plain = {"count": 3, "rate": None, "limit": 30, "out": None, "check": True}
    assert settings() == plain
    given = settings("--rate", "1e-3", "--limit", "none", "--out", "none", "--no-check")
    assert given == {"count": 3, "rate": 1e-3, "limit": None, "out": None, "check": False}
    assert settings("--out", "a", "--limit", "7") == {**plain, "out": "a", "limit": 7}
    for flags in (["--count", "none"], ["--limit", "many"], ["--type-checking"], ["--question=a"]):
        with pytest.raises(SystemExit):
            settings(*flags)
    assert "invalid int value: 'none'" in capsys.readouterr().err


def test_rows_of_json_name_the_line_that_is_none_or_end_where_a_run_was_stopped(
    tmp_path: Path,
) -> None:
    file = tmp_path / "rows.jsonl"
    file.write_bytes(b'{"id": 1}\n\n{"id": "\xc3\xa9\xe2\x80\xa8"}\n[3]\n{"id": "\xc3')
    assert [row for _, row in read_json_lines(file, cut_off=True)] == [
        {"id": 1},
        {"id": "\xe9\u2028"},
    ]
    with pytest.raises(InputError, match=r"rows\.jsonl, line 4: not a JSON object"):
        list(read_json_lines(file))
    file.write_bytes(b"[1]\n[2")
    with pytest.raises(InputError, match=r"rows\.jsonl, line 2: not JSON"):
        list(read_json_lines(file, list))
    with pytest.raises(InputError, match="cannot read"):
        list(read_json_lines(tmp_path))
