"""Protects the wheel: built from a source distribution, it works where there is no checkout."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PROGRAM = "import cadquery as cq\nresult = cq.Workplane().box(1, 2, 3)"


def run(*command: object, cwd: Path, **environment: str) -> str:
    env = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"} | environment
    line = [sys.executable, *map(str, command)]
    done = subprocess.run(line, cwd=cwd, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def pip(command: str, *arguments: object, cwd: Path) -> None:
    offline = ("--no-deps", "--no-index", "--disable-pip-version-check", "-q")
    run("-m", "pip", command, *arguments, *offline, cwd=cwd)


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    """A wheel built offline from a source distribution, as for an upload."""
    folder = tmp_path_factory.mktemp("wheel")
    copy = folder / "copy"  # a build leaves folders behind
    copy.mkdir()
    for name in ("image2cad", "metrics", "models", "data"):
        ignore = shutil.ignore_patterns("__pycache__", "*.egg-info")
        shutil.copytree(ROOT / name, copy / name, ignore=ignore)
    for file in ROOT.iterdir():
        if file.is_file():
            shutil.copy(file, copy)
    sdist = run(
        "-c", "import sys\nfrom setuptools import build_meta\n"
        "print(build_meta.build_sdist(sys.argv[1]))", folder, cwd=copy,
    ).split()[-1]  # fmt: skip
    pip("wheel", folder / sdist, "--no-build-isolation", "-w", folder, cwd=folder)
    (built,) = folder.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def installed(wheel) -> dict[str, str]:
    """The environment variable by which Python finds what the wheel installs, before a checkout."""
    site = wheel.parent / "site"
    pip("install", wheel, "--no-compile", "--target", site, cwd=wheel.parent)
    return {"PYTHONPATH": str(site)}


def test_all_that_is_shipped_is_in_the_wheel_and_no_more(wheel):
    expected = set()
    for package in ("image2cad", "metrics"):
        expected |= {file.relative_to(ROOT) for file in (ROOT / package).rglob("*")}
    for folder in ("models", "data/samples"):
        files = [file.relative_to(ROOT) for file in (ROOT / folder).rglob("*")]
        expected |= {"image2cad/bundled" / file for file in files if file.suffix != ".py"}
    names = {str(path) for path in expected if path.suffix and "__pycache__" not in path.parts}
    with zipfile.ZipFile(wheel) as archive:
        listed = {name for name in archive.namelist() if ".dist-info/" not in name}
    assert listed == names


def test_paths_and_faces_lead_into_the_installation(installed, tmp_path):
    program = """
import json, metrics, image2cad
from image2cad.common import BUNDLED, LIBRARY, NANO
from image2cad.data import load_samples
from image2cad.verification.library import load_library
print(json.dumps([str(p) for p in (metrics.__file__, image2cad.__file__, BUNDLED, LIBRARY, NANO)]))
assert (NANO / "config.json").exists() and len(load_library().programs) > 1000
assert len(load_samples("bundled", "test", 3, check_code=False, progress=False)[0]) == 3
"""
    places = json.loads(run("-c", program, cwd=tmp_path, **installed).splitlines()[0])
    for place in places:
        assert Path(place).is_relative_to(installed["PYTHONPATH"]) and Path(place).exists()


def test_commands_run(installed, tmp_path):
    row = json.dumps({"id": "a", "code": PROGRAM, "deepcad_id": "a", "cadquery": PROGRAM})
    (tmp_path / "rows.jsonl").write_text(row + "\n")
    run("-m", "image2cad.rendering", "rows.jsonl", "pictures", cwd=tmp_path, **installed)
    assert len(list((tmp_path / "pictures").glob("*.png"))) == 1
    scores = run(
        "-m", "metrics", "rows.jsonl", "--references", "rows.jsonl", cwd=tmp_path, **installed
    )
    assert json.loads(scores)["iou_best"]["mean"] == pytest.approx(1)


def test_what_is_missing_is_one_clear_line(wheel, installed, tmp_path):
    broken = tmp_path / "site"
    shutil.copytree(installed["PYTHONPATH"], broken)
    shutil.rmtree(broken / "image2cad/bundled")
    program = "from image2cad.common import run_cli\nfrom image2cad.data import load_samples\n"
    program += "run_cli(lambda: load_samples('bundled', 'test', 3, progress=False))"
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True,
        env={**os.environ, "PYTHONPATH": str(broken)},
    )  # fmt: skip
    assert done.returncode == 2 and len(done.stderr.splitlines()) == 1
    assert "data/samples is missing" in done.stderr
