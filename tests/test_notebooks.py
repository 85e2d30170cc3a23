"""Protects the notebooks, and the first cell that has to find the project.

They are what the scripts generate, byte for byte, and run top to bottom with the nano model.
With only colab_training.py or its notebook in an empty folder, the first cell gets the project
from a git remote or from a zip.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError

ROOT = Path(__file__).resolve().parent.parent
SCRIPTS = {
    "colab_training": "colab_training.py",
    "kaggle_training": "kaggle_training.py",
    "train_cpu": "train_cpu.py",
    "evaluate": "score_predictions.py",
    "train_reward": "train_reward.py",
}
QUICK = {"BASE": "models/nano", "DATA": "bundled", "HELD_OUT": 2, "MAX_NEW_TOKENS": 48}


def settings_of(script: str) -> dict[str, str]:
    text = (ROOT / script).read_text(encoding="utf-8")
    return dict(re.findall(r'^(REPOSITORY|TAG) = "([^"]*)"', text, re.MULTILINE))


def test_the_notebooks_are_what_the_scripts_generate(tmp_path: Path) -> None:
    for name in SCRIPTS:
        shutil.copy(ROOT / "notebooks" / f"{name}.ipynb", tmp_path)  # keeps the cells' ids
    make = ["make", "--old-file=.venv/.installed-dev", f"PY={sys.executable}", "notebooks"]
    done = subprocess.run(
        [*make, f"NOTEBOOKS={tmp_path}"], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    for name in SCRIPTS:
        wanted, got = ((place / f"{name}.ipynb") for place in (tmp_path, ROOT / "notebooks"))
        assert wanted.read_bytes() == got.read_bytes(), "run `make notebooks`"
        cells = nbformat.read(got, as_version=4).cells
        assert not any(cell.get("outputs") or cell.get("execution_count") for cell in cells)


def test_badges_and_pages_carry_the_one_address_of_the_settings() -> None:
    place = settings_of("colab_training.py")
    assert place == settings_of("score_predictions.py")
    version = re.search(r'^version = "(.*)"', (ROOT / "pyproject.toml").read_text(), re.M)
    assert version and place["TAG"] == f"v{version[1]}"
    owner = place["REPOSITORY"].removeprefix("https://github.com/")
    start = f"https://colab.research.google.com/github/{owner}/blob/{place['TAG']}/notebooks/"
    for file in ("colab_training.py", "score_predictions.py", "README.md"):
        text = (ROOT / file).read_text(encoding="utf-8")
        badges = re.findall(r"https://colab\.research\.google\.com/github/[^)\s]+", text)
        assert badges, file
        for badge in badges:
            assert badge.startswith(start), badge
            assert (ROOT / "notebooks" / badge.removeprefix(start)).is_file(), badge


def changed(text: str, **settings: Any) -> str:
    """The text with other settings, as a user would set them in the form."""
    for name, value in settings.items():
        text, count = re.subn(rf"^({name}\b[^=\n]*) = \S+", rf"\1 = {value!r}", text, flags=re.M)
        assert count == 1, name
    return text


def run_notebook(name: str, folder: Path, **settings: Any) -> str:
    """Run a notebook in `folder`; all that its cells printed."""
    notebook = nbformat.read(ROOT / "notebooks" / f"{name}.ipynb", as_version=4)
    for key, value in settings.items():
        cells = [
            c for c in notebook.cells if re.search(rf"^{key}\b[^=\n]* = ", c.source, re.MULTILINE)
        ]
        assert len(cells) == 1, key
        cells[0].source = changed(cells[0].source, **{key: value})
    client = NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(folder)}})
    client.execute()
    outputs = [out for cell in notebook.cells for out in cell.get("outputs", [])]
    return "".join(out.get("text", "") for out in outputs if out.get("name") == "stdout")


@pytest.fixture
def kernel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A kernel `python3` that is this Python, whatever else is registered on the machine."""
    place = tmp_path / "jupyter" / "kernels" / "python3"
    place.mkdir(parents=True)
    command = [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"]
    spec = {"argv": command, "display_name": "Python 3", "language": "python"}
    (place / "kernel.json").write_text(json.dumps(spec))
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path / "jupyter"))
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))


@pytest.fixture
def no_project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder, and new Python processes that do not find the project."""
    hidden = tmp_path / "hidden"
    hidden.mkdir()
    (hidden / "sitecustomize.py").write_text(f"""
import sys
sys.path[:] = [place for place in sys.path if place != {str(ROOT)!r}]
sys.meta_path[:] = [finder for finder in sys.meta_path if "__editable__" not in repr(finder)]
""")
    monkeypatch.setenv("PYTHONPATH", str(hidden))
    empty = tmp_path / "empty"
    empty.mkdir()
    check = "import importlib.util; print(importlib.util.find_spec('image2cad'))"
    said = subprocess.run([sys.executable, "-c", check], cwd=empty, capture_output=True, text=True)
    assert said.stdout.strip() == "None"
    return empty


@pytest.fixture(scope="module")
def project(tmp_path_factory: Any) -> Path:
    """The project as a user gets it: the files that git knows, or would know."""
    place = tmp_path_factory.mktemp("project") / "image2cad"
    if (ROOT / ".git").exists():
        listed = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
        names = subprocess.run(listed, cwd=ROOT, capture_output=True, text=True, check=True)
        for name in names.stdout.split("\0"):
            if name and (ROOT / name).is_file():
                (place / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(ROOT / name, place / name)
    else:
        skip = shutil.ignore_patterns(".venv", "runs", "__pycache__", "*.egg-info")
        shutil.copytree(ROOT, place, ignore=skip)
    return place


def test_the_script_alone_gets_the_pinned_tag_from_a_git_remote(
    no_project: Path, project: Path, tmp_path: Path
) -> None:
    remote = tmp_path / "remote"
    shutil.copytree(project, remote)
    tag = settings_of("colab_training.py")["TAG"]
    names = {"GIT_AUTHOR_NAME": "a", "GIT_AUTHOR_EMAIL": "a@b", "GIT_CONFIG_GLOBAL": os.devnull}
    names |= {"GIT_COMMITTER_NAME": "a", "GIT_COMMITTER_EMAIL": "a@b"}
    for command in (["init", "-q"], ["add", "-A", "-f"], ["commit", "-qm", "all"], ["tag", tag]):
        subprocess.run(["git", *command], cwd=remote, check=True, env={**os.environ, **names})
    script = (ROOT / "colab_training.py").read_text(encoding="utf-8")
    alone = no_project / "colab_training.py"

    quick = {**QUICK, "MAX_TRAIN_SAMPLES": 4, "VALIDATION": 1}
    quick |= {"NUM_TRAIN_EPOCHS": 1.0, "CHECK_CODE": False}
    alone.write_text(changed(script, COMPACT=False, **quick))

    def run(address: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, *launch, str(alone), "--repository", address]
        return subprocess.run(command, cwd=no_project, capture_output=True, text=True)

    launch: list[str] = []
    (no_project / "image2cad.zip").write_bytes(b"PK broken")
    broken = run(remote.as_uri())
    assert broken.returncode == 2 and "is no whole zip file" in broken.stderr
    (no_project / "image2cad.zip").unlink()
    nowhere = run((tmp_path / "nowhere").as_uri())
    assert nowhere.returncode == 2 and "Traceback" not in nowhere.stderr
    assert f"error: no {tag} at file://" in nowhere.stderr
    assert not (no_project / "image2cad-project").exists()
    # Two processes, which both find no project.
    launch += ["-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", "2"]
    launch += ["--num_machines", "1", "--mixed_precision", "no", "--dynamo_backend", "no"]
    launch += ["--main_process_port", "0"]
    done = run(remote.as_uri())
    assert done.returncode == 0, done.stderr[-3000:]
    assert str(no_project / "image2cad-project") in subprocess.run(
        [sys.executable, "-c", "import image2cad; print(image2cad.__file__)"],
        cwd=no_project / "image2cad-project", capture_output=True, text=True,
    ).stdout  # fmt: skip
    assert done.stdout.count("4 samples to train on") == 1, "the second process says nothing"
    assert done.stdout.count("reloaded in a new process") == 1
    assert (no_project / "runs/colab-001/report.html").is_file()


def test_the_notebook_alone_gets_the_project_from_a_zip_and_runs_its_four_cells(
    no_project: Path, project: Path, kernel: None
) -> None:
    with zipfile.ZipFile(no_project / "image2cad.zip", "w") as file:
        for path in project.rglob("*"):
            file.write(path, path.relative_to(project.parent))
    picture = next((project / "data/samples/test").glob("*.png"))
    shutil.copy(picture, no_project / "mine.png")
    quick = {**QUICK, "MAX_TRAIN_SAMPLES": 4, "VALIDATION": 1}
    quick |= {"NUM_TRAIN_EPOCHS": 2.0, "CHECK_CODE": False}
    said = run_notebook(
        "colab_training", no_project, **quick, COMPACT=False, MERGE=True, PICTURE="mine.png"
    )
    assert "4 samples to train on, 1 to validate on, 2 held out" in said
    assert "matrices merged in float16" in said and "likeness" in said
    assert json.loads((no_project / "runs/colab-001/metrics.json").read_text())["n"] == 2
    assert (no_project / "runs/colab-001/picture.png").is_file()


def test_the_kaggle_notebook_trains_with_two_processes_and_goes_on_with_attached_output(
    no_project: Path, project: Path, kernel: None
) -> None:
    quick = {**QUICK, "MAX_TRAIN_SAMPLES": 8, "VALIDATION": 2, "NUM_TRAIN_EPOCHS": 2.0}
    quick |= {"GRADIENT_ACCUMULATION_STEPS": 1, "MORE": "--no-compact --no-check-code"}
    # As Kaggle does it: an attached archive is unpacked, in a folder of its own.
    attached = no_project / "input"
    shutil.copytree(project, attached / "datasets" / "image2cad")
    working = no_project / "working"
    working.mkdir()
    quick["ATTACHED"] = str(attached)

    said = run_notebook("kaggle_training", working, **quick)
    assert said.count("8 samples to train on") == 1, "the second process says nothing"
    assert "gain in IoU_best" in said or "iou_best" in said.lower()
    out = working / "runs/kaggle"
    losses = json.loads((out / "metrics.json").read_text())["losses"]
    assert losses[-1]["step"] == 8, "8 rows, twice, a row a process and step"

    # The output of an interrupted run, attached to a new session.
    (out / "metrics.json").unlink()
    (out / "trained.safetensors").unlink(missing_ok=True)
    shutil.move(working / "runs", attached / "earlier")
    said = run_notebook("kaggle_training", working, **quick, RESUME=True)
    assert json.loads((out / "metrics.json").read_text())["losses"][-1]["step"] == 8

    with pytest.raises(CellExecutionError, match="unrecognized arguments: --nonsense"):
        run_notebook("kaggle_training", working, **quick | {"OUT": "runs/b", "MORE": "--nonsense"})


def test_the_laptop_notebook_runs(tmp_path: Path, kernel: None) -> None:
    said = run_notebook("train_cpu", tmp_path, **QUICK, MAX_TRAIN_SAMPLES=8, NUM_TRAIN_EPOCHS=1.0)
    assert "8 samples to train on, 2 held out" in said and "gain in IoU_best" in said
    assert (tmp_path / "runs/train_cpu-001/report.html").is_file()


def test_the_reward_notebook_runs(tmp_path: Path, kernel: None) -> None:
    small = {"MAX_TRAIN_SAMPLES": 6, "HELD_OUT": 3, "MAX_STEPS": 2, "NUM_GENERATIONS": 2}
    small |= {"PER_DEVICE_TRAIN_BATCH_SIZE": 4}
    said = run_notebook("train_reward", tmp_path, **small, MAX_NEW_TOKENS=48)
    assert "6 pictures to learn from, 3 held out" in said and "gain in IoU_best" in said
    assert (tmp_path / "runs/train_reward-001/report.html").is_file()


def test_the_scoring_notebook_runs_its_example_and_files_of_ones_own(
    tmp_path: Path, kernel: None
) -> None:
    said = run_notebook("evaluate", tmp_path)
    assert "4 programs; failures: {'exception': 1, 'timeout': 1}" in said
    assert re.search(r"moved +1\.000", said) and re.search(r"no-hole +0\.[67]\d\d", said)
    box = "import cadquery as cq\nresult = cq.Workplane().box(1, 2, 3)\n"
    for name in ("mine", "truth"):
        (tmp_path / f"{name}.jsonl").write_text(json.dumps({"id": "a", "code": box}) + "\n")
    files = {"predictions": tmp_path / "mine.jsonl", "references": tmp_path / "truth.jsonl"}
    flags = [text for name, file in files.items() for text in (f"--{name}", str(file))]

    def script(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, str(ROOT / "score_predictions.py"), *arguments]
        return subprocess.run(command, capture_output=True, text=True)

    done = script(*flags)
    assert done.returncode == 0 and "iou_best        1.000 [1.000, 1.000]" in done.stdout
    files["predictions"].write_text("{")
    bad = script(*flags)
    assert bad.returncode == 2 and "mine.jsonl, line 1: not JSON" in bad.stderr
    assert "Traceback" not in bad.stderr
