"""Protects Dockerfile and compose.yaml: their commands start a server for a user without rights.

No image is built. The commands of the Dockerfile are read and run in a fresh folder, as user 65534
where the tests run as root, with the packages that are installed here: pip gets no index, so that
it only checks that they are those that are asked for. apt-get's are not run.
"""

from __future__ import annotations

import fnmatch
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from watching import eventually

ROOT = Path(__file__).resolve().parent.parent
NOBODY = 65534
KEY = "a-long-key-that-nobody-guesses"
BOX = "import cadquery as cq\nresult = cq.Workplane().box(1, 2, 3)"
PLACES = ("/srv", "/tmp", "/data")  # of the image, which are in the fresh folder here


def instructions() -> list[tuple[str, str]]:
    """What stands in the Dockerfile: ("RUN", "apt-get ..."), ..."""
    text = (ROOT / "Dockerfile").read_text().replace("\\\n", " ")
    lines = [line for line in text.splitlines() if line.strip() and not line.startswith("#")]
    return [(line.split()[0], line.partition(" ")[2].strip()) for line in lines]


def ignored(path: Path) -> bool:
    """Whether .dockerignore leaves this path of the checkout out."""
    patterns = (ROOT / ".dockerignore").read_text().split("\n")
    name = path.relative_to(ROOT)
    return any(
        fnmatch.fnmatch(str(name), pattern)
        or (pattern.startswith("**/") and fnmatch.fnmatch(name.name, pattern[3:]))
        for pattern in patterns
        if pattern and not pattern.startswith("#")
    )


class Container:
    """A folder that stands for the image's files, and a user without rights in it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.where, self.ran = folder, list[str]()
        self.variables = {"PATH": f"{folder}/venv/bin:/usr/bin:/bin", "PIP_NO_INDEX": "1"}
        self.user = {"user": NOBODY, "group": NOBODY, "extra_groups": []}
        if os.geteuid():
            self.user = {}

    def here(self, text: str) -> str:
        """The text with the image's places where they are here."""
        places = "|".join(PLACES)
        return re.sub(rf"(?<![\w.])({places})(?![\w-])", rf"{self.folder}\1", text)

    def start(self, command: list[str], **more: Any) -> subprocess.Popen[str]:
        return subprocess.Popen(
            command, cwd=self.where, env=self.variables, text=True, **self.user, **more
        )

    def run(self, command: list[str]) -> str:
        with self.start(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as process:
            said, _ = process.communicate()
        assert process.returncode == 0, (command, said)
        return said

    def copy(self, names: list[str]) -> None:
        def leave_out(folder: str, inside: list[str]) -> list[str]:
            return [name for name in inside if ignored(Path(folder, name))]

        for name in names:
            if name == ".":
                shutil.copytree(ROOT, self.where, ignore=leave_out, dirs_exist_ok=True)
            else:
                shutil.copy(ROOT / name, self.where)
        if self.user:
            for path in [self.where, *self.where.rglob("*")]:
                os.chown(path, NOBODY, NOBODY)

    def follow(self, word: str, rest: str) -> None:
        """Do what a line of the Dockerfile says."""
        if word == "WORKDIR":
            self.where = Path(self.here(rest))
            self.run_in_folder(["mkdir", "-p", str(self.where)])
        elif word == "COPY":
            *names, _ = rest.split()
            self.copy(names)
        elif word == "ENV":
            pairs = (pair.split("=", 1) for pair in rest.split())
            self.variables |= {name: self.here(value) for name, value in pairs}
        elif word == "RUN" and not rest.startswith("apt-get"):
            self.run(["sh", "-c", self.here(rest)])
            self.ran.append(rest)

    def run_in_folder(self, command: list[str]) -> None:
        where, self.where = self.where, self.folder
        self.run(command)
        self.where = where


def interpreter(user: dict[str, Any]) -> str:
    """A Python of this version that the user may start, with the packages that are here."""
    version = "{}.{}".format(*sys.version_info)
    packages = sysconfig.get_path("purelib")
    program = "import sys, numpy; print('{}.{}'.format(*sys.version_info))"
    for one in (sys.executable, f"/usr/bin/python{version}", f"/usr/local/bin/python{version}"):
        try:
            done = subprocess.run(
                [one, "-c", program], cwd="/", env={"PYTHONPATH": packages}, text=True,
                capture_output=True, **user,
            )  # fmt: skip
        except OSError:
            continue
        if done.stdout.strip() == version:
            return one
    pytest.skip(f"user {NOBODY} can start no Python {version} with the packages of {packages}")


@pytest.fixture(scope="module")
def container() -> Iterator[Container]:
    """All lines of the Dockerfile before CMD, done."""
    folder = Path(tempfile.mkdtemp(prefix="container-", dir="/tmp"))
    try:
        made = Container(folder)
        python = interpreter(made.user)
        folder.chmod(0o755)
        (folder / "tmp").mkdir()
        if made.user:
            os.chown(folder, NOBODY, NOBODY), os.chown(folder / "tmp", NOBODY, NOBODY)
        made.run([python, "-m", "venv", "--without-pip", str(folder / "venv")])
        (site,) = (folder / "venv/lib").glob("python*/site-packages")
        (site / "here.pth").write_text(sysconfig.get_path("purelib"))
        for word, rest in instructions():
            made.follow(word, rest)
        yield made
    finally:
        shutil.rmtree(folder)


def test_the_commands_of_the_dockerfile_start_a_healthy_server(container: Container) -> None:
    found = dict(instructions())
    assert found["USER"] == f"{NOBODY}:{NOBODY}"
    assert [line.split()[:4] for line in container.ran] == [
        ["python", "-m", "pip", "install"], ["mkdir", "-p", "/data", "&&"],
    ]  # fmt: skip
    assert not (container.where / "tests").exists() and (container.where / "models/nano").is_dir()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    container.variables |= {"IMAGE2CAD_PORT": str(port), "IMAGE2CAD_KEYS": KEY}
    container.variables |= {"IMAGE2CAD_WORKERS": "1", "TMPDIR": f"{container.folder}/tmp"}
    check = ["sh", "-c", found["HEALTHCHECK"].partition("CMD ")[2]]

    def healthy() -> bool:
        with container.start(check, stderr=subprocess.DEVNULL) as process:
            return process.wait() == 0

    assert not healthy()
    log = container.folder / "log"
    with open(log, "w") as errors:
        server = container.start(json.loads(found["CMD"]), stdout=subprocess.DEVNULL, stderr=errors)
    try:
        assert eventually(lambda: server.poll() is not None or healthy(), 180)
        assert server.poll() is None, log.read_text()
        with httpx.Client(
            base_url=f"http://127.0.0.1:{port}", headers={"Authorization": f"Bearer {KEY}"},
            timeout=120,
        ) as client:  # fmt: skip
            made = client.post("/v1/execute", json={"code": BOX})
            assert made.json()["part"]["volume"] == pytest.approx(6)
            assert httpx.get(f"http://127.0.0.1:{port}/").status_code == 401  # the key
            sent = {"image": (ROOT / "data/samples/test/s20200007.png").read_bytes()}
            answer = client.post("/v1/generate", data={"effort": "none"}, files=sent)
            assert answer.status_code == 200 and "cadquery" in answer.json()["code"]
        server.send_signal(signal.SIGTERM)
        assert server.wait(60) == 0
        lines = [json.loads(line) for line in log.read_text().splitlines()]
        (told,) = (
            one["message"] for one in lines if "programs run under" in one.get("message", "")
        )
        assert "process, rlimits, no_new_privs" in told
        if container.user:
            assert "without uid" in told
        assert (container.folder / "data/jobs.sqlite").is_file()
    finally:
        server.kill()
        server.wait()


def test_the_files_say_the_same_as_the_rest_of_the_project() -> None:
    (installed,) = (rest for word, rest in instructions() if rest.startswith("apt-get"))
    tests_only = {"nginx"}
    for name in set((ROOT / "packages.txt").read_text().split()) - tests_only:
        assert f" {name} " in installed
    (service,) = yaml.safe_load((ROOT / "compose.yaml").read_text())["services"].values()
    app = (ROOT / "app.py").read_text()
    for name in service["environment"]:
        setting = name.removeprefix("IMAGE2CAD_")
        assert re.search(rf"^{setting}(: .+)? = ", app, re.M), name
    assert service["cap_drop"] == ["ALL"] and service["read_only"]
    assert service["security_opt"] == ["no-new-privileges:true"]
