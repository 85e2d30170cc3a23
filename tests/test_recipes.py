"""Protects the recipes as commands: from pictures to a report, and one clear line on bad input."""

from __future__ import annotations

import json
import os
import runpy
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from image2cad.common.errors import InputError

ROOT = Path(__file__).resolve().parent.parent


def run_recipe(script: str, *arguments: str, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "PYTHONPATH": str(ROOT)}
    return subprocess.run(
        [sys.executable, str(ROOT / script), *arguments],
        cwd=cwd, capture_output=True, text=True, env=environment, timeout=300,
    )  # fmt: skip


def test_a_recipe_runs_from_pictures_to_report(base: Path, tmp_path: Path) -> None:
    script = "train_cpu.py"  # colab_training.py runs in test_bases.py and test_notebooks.py
    out = tmp_path / "run"
    flags = ["--base", str(base), "--data", "bundled", "--held-out", "4", "--out", str(out)]
    quick = ["--limit", "8", "--epochs", "1", "--max-new-tokens", "24"]
    done = run_recipe(script, *flags, *quick)
    assert done.returncode == 0, done.stderr[-2000:]
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
        ("--epochs", "-1"): "--epochs must be at least",
        ("--learning-rate", "-1"): "--learning-rate must be at least",
        ("--limit", "many"): "invalid int value",
        ("--max-new-tokens", "0"): "--max-new-tokens must be at least",
        ("--data", "CADCODER/GenCAD-Code", "--limit", "9"): "CADCODER/GenCAD-Code",
        ("--base", str(broken)): "no model folder that transformers can load",
        ("--out", str(file / "run")): "cannot write to",
        ("--resume", "--out", str(empty)): "nothing to resume",
    }
    for flags, message in cases.items():
        monkeypatch.setattr(sys, "argv", ["train_cpu.py", "--out", str(out), *flags])
        # The test above sees a subprocess turn these into one line and exit code 2.
        with pytest.raises((InputError, SystemExit)) as stopped:
            runpy.run_path("train_cpu.py", run_name="__main__")
        if isinstance(stopped.value, SystemExit):
            assert stopped.value.code == 2
            assert message in capsys.readouterr().err, flags
        else:
            assert message in str(stopped.value) and "\n" not in str(stopped.value), flags
        assert not out.exists() and not list(empty.iterdir()), flags
