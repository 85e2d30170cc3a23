"""Protects the notebooks, and the first cell that has to find the project.

They are what the scripts generate, byte for byte, and run top to bottom with the nano model.
With only a notebook in an empty folder, the first cell gets the project from a folder, a zip, a
git remote or an upload, and says which. An address that nobody owns stands nowhere: without one
there are no badges.
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import re
import runpy
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbclient import NotebookClient

from image2cad.common.errors import InputError

ROOT = Path(__file__).resolve().parent.parent
SCRIPTS = {
    "colab_training": "colab_training.py",
    "kaggle_training": "kaggle_training.py",
    "train_cpu": "train_cpu.py",
    "evaluate": "score_predictions.py",
    "train_reward": "train_reward.py",
}
QUICK = {"BASE": "models/nano", "DATA": "bundled", "HELD_OUT": 2, "MAX_NEW_TOKENS": 48}


def settings_of(script: Path) -> dict[str, str]:
    text = script.read_text(encoding="utf-8")
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


GETTING, GOT = "# ---- Getting the project", "# ---- The project is here"
ALONE = sorted(p.name for p in ROOT.glob("*.py") if GETTING in p.read_text(encoding="utf-8"))
BADGE_PAGES = ("colab_training.py", "score_predictions.py", "README.md", "docs/colab.md")


def test_address_and_badges_are_written_together_or_not_at_all(project: Path) -> None:
    def write(address: str, tag: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "notebooks/address.py", address, tag]
        return subprocess.run(command, cwd=project, capture_output=True, text=True)

    pages = [project / name for name in BADGE_PAGES]
    before = {page: page.read_bytes() for page in pages}
    for page in pages:  # the checkout names no address
        assert "colab.research" not in page.read_text(encoding="utf-8")
    assert all(set(settings_of(project / name).values()) == {""} for name in ALONE)

    address = "https://github.com/someone/parts"
    assert write(address, "v9").returncode == 0
    start = "https://colab.research.google.com/github/someone/parts/blob/v9/notebooks/"
    for page in pages:
        badges = re.findall(r"\]\((https://colab[^)]+)\)", page.read_text(encoding="utf-8"))
        badges = [badge for badge in badges if not badge.endswith(".svg")]
        assert badges and all(badge.startswith(start) for badge in badges), page
        for badge in badges:
            assert (ROOT / "notebooks" / badge.removeprefix(start)).is_file()
    for name in ALONE:
        assert settings_of(project / name) == {"REPOSITORY": address, "TAG": "v9"}

    assert write("https://example.org/parts.git", "").returncode == 0  # Colab opens GitHub's only
    assert all("colab.research" not in page.read_text(encoding="utf-8") for page in pages)
    assert write('a"b', "").returncode == 2
    assert write("", "").returncode == 0
    assert before == {page: page.read_bytes() for page in pages}


# ---- The lines that get the project


def first_lines(script: str) -> str:
    text = (ROOT / script).read_text(encoding="utf-8")
    return text[text.index(GETTING) : text.index(GOT)]


def test_the_lines_that_get_the_project_are_the_same_everywhere() -> None:
    assert len(ALONE) > 1 and len({first_lines(script) for script in ALONE}) == 1


@pytest.fixture
def getting(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """The names of those lines."""
    monkeypatch.setattr(sys, "argv", ["colab_training.py"])
    monkeypatch.delitem(sys.modules, "ipykernel", raising=False)
    names: dict[str, Any] = {"REPOSITORY": "", "TAG": ""}
    exec(first_lines("colab_training.py"), names)
    return names


def small_project(place: Path, word: str) -> Path:
    for name in ("image2cad", "metrics"):
        (place / name).mkdir(parents=True)
        (place / name / "__init__.py").write_text(f"word = {word!r}\n")
    return place


def zipped(file: Path, place: Path, age: float = 0.0) -> None:
    with zipfile.ZipFile(file, "w") as archive:
        for path in sorted(place.rglob("*")):
            archive.write(path, path.relative_to(place.parent))
    then = file.stat().st_mtime - age
    os.utime(file, (then, then))


def word_of(project: Path) -> str:
    return (project / "image2cad/__init__.py").read_text()


def test_the_first_cell_looks_in_an_order_and_says_what_it_took(
    getting: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    get, home = getting["get_project"], tmp_path / "home"
    home.mkdir()

    def said() -> str:
        return capsys.readouterr().out

    with pytest.raises(SystemExit) as stopped:
        get(home)
    assert stopped.value.code == 2 and not list(home.iterdir())
    assert "the project is not here: put image2cad.zip into" in capsys.readouterr().err

    # From an address: a branch, a commit; the commit is said, no password is asked for.
    remote = small_project(tmp_path / "remote", "remote")
    names = {"GIT_AUTHOR_NAME": "a", "GIT_AUTHOR_EMAIL": "a@b", "GIT_CONFIG_GLOBAL": os.devnull}
    names |= {"GIT_COMMITTER_NAME": "a", "GIT_COMMITTER_EMAIL": "a@b"}
    for command in ("init -q", "add -A", "commit -qm all", "tag v1"):
        subprocess.run(
            ["git", *command.split()], cwd=remote, check=True, env={**os.environ, **names}
        )
    head = subprocess.run(["git", "rev-parse", "HEAD"], cwd=remote, capture_output=True, text=True)
    commit = head.stdout.strip()
    for name in ("v1", commit, ""):
        getting.update(REPOSITORY=remote.as_uri(), TAG=name)
        assert "remote" in word_of(get(home)) and f"commit {commit}" in said()
    getting.update(REPOSITORY=(tmp_path / "nowhere").as_uri(), TAG="v1")
    for _ in range(2):  # a failed try leaves nothing in the way of the next
        with pytest.raises(SystemExit):
            get(home)
        assert "error: no v1 at file://" in capsys.readouterr().err

    # A zip before an address; the newest, by GitHub's names too; another zip, another folder.
    zipped(home / "image2cad.zip", small_project(tmp_path / "image2cad", "old"), age=100)
    assert "old" in word_of(get(home)) and "project: image2cad.zip, sha256 " in said()
    zipped(home / "image2cad-main (1).zip", small_project(tmp_path / "image2cad-main", "new"))
    assert "new" in word_of(get(home)) and "image2cad-main (1).zip" in said()
    zipped(home / "image2cad.zip", small_project(tmp_path / "again" / "image2cad", "third"), age=-9)
    assert "third" in word_of(get(home))
    (home / "image2cad-0.2.zip").write_bytes(b"PK broken")
    os.utime(home / "image2cad-0.2.zip", (2e9, 2e9))
    with pytest.raises(SystemExit):
        get(home)
    assert "image2cad-0.2.zip is no whole zip file" in capsys.readouterr().err
    with zipfile.ZipFile(home / "image2cad-0.2.zip", "w") as archive:
        archive.writestr("readme", "nothing")
    os.utime(home / "image2cad-0.2.zip", (2e9, 2e9))
    with pytest.raises(SystemExit):
        get(home)
    assert "holds no image2cad" in capsys.readouterr().err

    # A folder before a zip.
    small_project(home / "image2cad-main", "unpacked")
    assert "unpacked" in word_of(get(home)) and "project: the folder" in said()

    # Nothing: Colab asks for an upload.
    empty = tmp_path / "empty"
    empty.mkdir()
    getting["REPOSITORY"] = ""
    colab = type(sys)("google.colab")
    colab.files = type(sys)("files")
    colab.files.upload = lambda: shutil.copy(home / "image2cad.zip", empty)
    monkeypatch.setitem(sys.modules, "google.colab", colab)
    assert "third" in word_of(get(empty))
    (empty / "image2cad.zip").unlink()
    colab.files.upload = lambda: {}
    with pytest.raises(SystemExit):
        get(empty)


def test_nothing_that_colab_has_is_replaced_and_what_was_loaded_is_said(
    getting: dict[str, Any], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert getting["lacking"](["numpy>=1", "numpy>=999", "# a remark", "not-there-at-all>=1"]) == [
        "numpy>=999",
        "not-there-at-all>=1",
    ]
    assert getting["lacking"](['not-there-at-all; sys_platform == "nowhere"']) == []
    pins: list[str] = []

    def pip(command: list[str]) -> subprocess.CompletedProcess[str]:
        pins.append(Path(command[command.index("-c") + 1]).read_text())
        return subprocess.CompletedProcess(command, 0)

    monkeypatch.setattr(subprocess, "run", pip)
    getting["install"](["something"])
    pinned = dict(line.split("==") for line in pins[0].split())
    assert {"numpy", "pyarrow", "pillow", "torch"} <= set(pinned)
    version = importlib.metadata.version
    assert pinned["numpy"] == version("numpy")
    seen: list[str] = []

    def later(name: str) -> str:
        seen.append(name)
        return "0" if name == "pytest" and seen.count(name) > 1 else version(name)

    monkeypatch.setattr(importlib.metadata, "version", later)
    with pytest.raises(SystemExit):
        getting["install"](["something"])
    assert "pytest was replaced: restart the session" in capsys.readouterr().err


def test_colab_installs_what_the_recipe_imports_and_no_more() -> None:
    def lines(file: str) -> set[str]:
        text = (ROOT / file).read_text(encoding="utf-8")
        return {line for line in text.splitlines() if line and line[0] != "#"}

    assert lines("requirements-colab.txt") < lines("requirements.txt")
    needed = {re.split(r"[^\w-]", line)[0] for line in lines("requirements-colab.txt")}
    assert not needed & {"trl", "gradio", "fastapi", "uvicorn"}


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
    tag = "v1"
    names = {"GIT_AUTHOR_NAME": "a", "GIT_AUTHOR_EMAIL": "a@b", "GIT_CONFIG_GLOBAL": os.devnull}
    names |= {"GIT_COMMITTER_NAME": "a", "GIT_COMMITTER_EMAIL": "a@b"}
    for command in (["init", "-q"], ["add", "-A", "-f"], ["commit", "-qm", "all"], ["tag", tag]):
        subprocess.run(["git", *command], cwd=remote, check=True, env={**os.environ, **names})
    script = (ROOT / "colab_training.py").read_text(encoding="utf-8")
    alone = no_project / "colab_training.py"

    alone.write_text(changed(script, **QUICK))

    def run(address: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, *launch, str(alone), "--repository", address, "--tag", tag]
        command += ["--per-device-train-batch-size", "1", "--recompute", "nothing"]
        command += ["--plan"]  # two processes train in the test of the Kaggle notebook
        return subprocess.run(command, cwd=no_project, capture_output=True, text=True)

    launch: list[str] = []
    nowhere = run((tmp_path / "nowhere").as_uri())
    assert nowhere.returncode == 2 and "Traceback" not in nowhere.stderr
    assert f"error: no {tag} at file://" in nowhere.stderr
    # Two processes, which both find no project.
    launch += ["-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", "2"]
    launch += ["--num_machines", "1", "--mixed_precision", "no", "--dynamo_backend", "no"]
    launch += ["--main_process_port", "0"]
    done = run(remote.as_uri())
    assert done.returncode == 0, done.stderr[-3000:]
    assert len(list(no_project.glob(".image2cad/git-*/image2cad"))) == 1
    assert done.stdout.count("predicted for models/nano") == 1, "the second process says nothing"


def test_the_notebook_alone_gets_the_project_from_a_zip_and_runs_its_five_cells(
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
    assert (no_project / "runs/colab-001/picture-mine.png").is_file()
    for text in ("project: image2cad.zip", " steps are few", "before training the base says of",
                 "a sample has", "written by "):  # fmt: skip
        assert text in said, text
    page = (no_project / "runs/colab-001/report.html").read_text()
    assert "<polyline" in page and "validation loss" in page


def test_the_kaggle_notebook_trains_with_two_processes_and_goes_on_with_attached_output(
    no_project: Path, project: Path, kernel: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    quick = {**QUICK, "MAX_TRAIN_SAMPLES": 4, "VALIDATION": 1, "NUM_TRAIN_EPOCHS": 2.0}
    quick |= {
        "GRADIENT_ACCUMULATION_STEPS": 1,
        "MORE": "--no-compact --no-check-code --effort none",
    }
    # As Kaggle does it: an attached archive is unpacked, in a folder of its own.
    attached = no_project / "input"
    shutil.copytree(project, attached / "datasets" / "image2cad")
    working = no_project / "working"
    working.mkdir()
    quick["ATTACHED"] = str(attached)

    said = run_notebook("kaggle_training", working, **quick)
    assert said.count("4 samples to train on") == 1, "the second process says nothing"
    assert said.count("reloaded in a new process") == 1
    assert "gain in IoU_best" in said or "iou_best" in said.lower()
    out = working / "runs/kaggle"
    assert (out / "report.html").is_file()
    losses = json.loads((out / "metrics.json").read_text())["losses"]
    assert losses[-1]["step"] == 4, "4 rows, twice, a row a process and step"

    # The output of an interrupted run, attached to a new session: what colab_training.py, which
    # goes on with it (test_recipes.py), would be given.
    shutil.move(working / "runs", attached / "earlier")
    given: list[list[str]] = []
    begin = subprocess.Popen

    def started(command: list[str], **options: Any) -> Any:
        given.append(command)
        return begin([sys.executable, "-c", STAND_IN, *command], **options)

    monkeypatch.setattr(subprocess, "Popen", started)
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)
    monkeypatch.chdir(working)

    def script(*flags: str) -> None:
        place = ["--attached", str(attached)]
        monkeypatch.setattr(sys, "argv", ["kaggle_training.py", *place, *flags])
        runpy.run_path(str(ROOT / "kaggle_training.py"), run_name="__main__")

    script("--resume", "--more=--no-compact", "--num-train-epochs", "2")
    assert {"--resume", "--num-train-epochs=2.0", "--no-compact", "--out=runs/kaggle"} < set(
        given[0]
    )
    assert given[0][given[0].index("--num_processes") + 1] == "2"
    assert (out / "settings.json").is_file(), "the run is here, to be gone on with"
    with pytest.raises(InputError, match="unrecognized arguments: --nonsense"):
        script("--out", "runs/b", "--more=--nonsense")
    with pytest.raises(InputError, match="nothing to resume"):
        script("--out", "runs/c", "--resume")


STAND_IN = """
import sys
if "--nonsense" in sys.argv:
    sys.exit("colab_training.py: error: unrecognized arguments: --nonsense")
"""


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
    said = run_notebook("evaluate", tmp_path, TIMEOUT=3.0)
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
