"""Runs the notebooks in Colab's versions, as a newcomer would: `make colab-check`.

    .venv-colab/bin/python tests/colab_check.py image2cad.zip

Python and packages are those of tests/colab_image.txt; `google.colab` is a stub. Each run begins in
a folder of its own, with the notebook and either the zip, an address of a git remote, or nothing
but an upload dialog. models/nano stands in for the 7B: no GPU and no network but pip's is needed.
Not part of `make test`: the first run of it installs several GB.
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import re
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path
from typing import Any

import nbformat
from nbclient import NotebookClient

KEPT = ("numpy", "pyarrow", "pillow", "torch", "torchvision", "torchao")
QUICK = {
    "DATA": "bundled", "BASE": "models/nano", "MAX_TRAIN_SAMPLES": 16, "VALIDATION": 4,
    "HELD_OUT": 4, "NUM_TRAIN_EPOCHS": 2.0, "MAX_NEW_TOKENS": 96, "CHECK_CODE": False,
}  # fmt: skip
STUB = {
    "google/colab/__init__.py": "",
    "google/colab/files.py": """
import os, shutil
def upload():
    file = os.environ["STUB_UPLOAD"]
    shutil.copy(file, ".")
    return {os.path.basename(file): b""}
def download(path):
    print("downloaded", path)
""",
    "google/colab/drive.py": "def mount(place): print('mounted', place)\n",
    "sitecustomize.py": "import google.colab\n",
}


def changed(text: str, settings: dict[str, Any]) -> str:
    """A cell with other settings, as a user would set them in the form."""
    for name, value in settings.items():
        text = re.sub(rf"^({name}\b[^=\n]*) = \S+", rf"\1 = {value!r}", text, flags=re.M)
    return text


def run(notebook: Path, folder: Path, **settings: Any) -> str:
    """Run a copy of the notebook in `folder`; all that it printed, and the summary's check."""
    cells = nbformat.read(notebook, as_version=4)
    for cell in cells.cells:
        cell.source = changed(cell.source, settings)
    client = NotebookClient(cells, timeout=1200, resources={"metadata": {"path": str(folder)}})
    client.execute()
    outputs = [out for cell in cells.cells for out in cell.get("outputs", [])]
    return "".join(out.get("text", "") for out in outputs if out.get("name") == "stdout")


def versions() -> dict[str, str]:
    return {name: importlib.metadata.version(name) for name in KEPT}


def main(archive: Path) -> int:
    before = versions()
    print(f"Python {sys.version.split()[0]}", "" if sys.version_info[:2] == (3, 13) else
          "(Colab's is 3.13, which was not to be had)", before)  # fmt: skip
    with tempfile.TemporaryDirectory(prefix="colab-") as temporary:
        place = Path(temporary)
        for name, text in STUB.items():
            (place / "stub" / name).parent.mkdir(parents=True, exist_ok=True)
            (place / "stub" / name).write_text(text)
        os.environ["PYTHONPATH"] = str(place / "stub")
        os.environ["HF_HUB_OFFLINE"] = "1"
        os.environ["IPYTHONDIR"] = str(place / "ipython")
        os.environ["STUB_UPLOAD"] = str(archive.resolve())
        os.environ["PYDEVD_DISABLE_FILE_VALIDATION"] = "1"  # a remark of the debugger
        zipfile.ZipFile(archive).extractall(place / "remote")
        project = place / "remote" / "image2cad"
        who = ["-c", "user.name=a", "-c", "user.email=a@b"]
        for words in (["init", "-q"], ["add", "-A", "-f"], [*who, "commit", "-qm", "all"]):
            subprocess.run(["git", *words], cwd=project, check=True)
        head = ["git", "rev-parse", "HEAD"]
        commit = subprocess.run(head, cwd=project, check=True, capture_output=True, text=True)
        notebooks = project / "notebooks"
        ways: dict[str, dict[str, Any]] = {
            "zip": {},
            "git": {"REPOSITORY": project.as_uri(), "TAG": commit.stdout.strip()},
        }
        for way, settings in ways.items():
            folder = place / way
            folder.mkdir()
            if way == "zip":
                os.link(archive.resolve(), folder / "image2cad-main (1).zip")
            said = run(notebooks / "colab_training.ipynb", folder, **QUICK, **settings)
            metrics = json.loads((folder / "runs/colab-001/metrics.json").read_text())
            assert metrics["n"] == 4 and metrics["trained_on"] == 16, metrics
            wanted = ["project: ", "downloaded runs/colab-001.zip", "reloaded in a new process"]
            wanted += ["written by ", "16 samples to train on, 4 to validate on, 4 held out"]
            lacking = [text for text in wanted if text not in said]
            assert not lacking, f"{lacking} in:\n{said}"
            print(f"{way}: trained, scored and answered\n{said[-1500:]}")
        folder = place / "upload"
        folder.mkdir()
        said = run(notebooks / "evaluate.ipynb", folder)
        assert "4 programs; failures: {'exception': 1, 'timeout': 1}" in said, said
        print(f"upload: scored\n{said}")
    after = subprocess.run(
        [sys.executable, "-c", "import colab_check; print(colab_check.versions())"],
        cwd=Path(__file__).parent, check=True, capture_output=True, text=True,
    )  # fmt: skip
    assert after.stdout.strip() == str(before), f"changed: {before} to {after.stdout}"
    print("versions of Colab's own packages are what they were")
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
