"""Protects what operators rely on: settings from the environment, metrics, a log that is all JSON.

A real server (app.py) is started by variables of the environment alone.
"""

from __future__ import annotations

import functools
import json
import os
import re
import runpy
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from gradio_client import Client
from hurried import hurried
from prometheus_client.parser import text_string_to_metric_families
from watching import eventually

from image2cad.common import VERSION
from metrics import KINDS

ROOT = Path(__file__).resolve().parent.parent
KEY = "a-long-key-that-nobody-guesses"
BEARER = {"Authorization": f"Bearer {KEY}"}
PICTURE = ROOT / "data/samples/test/s20200007.png"
BOX = "import cadquery as cq\nresult = cq.Workplane().box(1, 2, 3)"


class Server:
    """app.py in its process. url: of itself. log: its file."""

    def __init__(self, url: str, log: Path, process: subprocess.Popen[str]) -> None:
        self.url, self.log, self.process = url, log, process

    def stop(self) -> None:
        try:
            self.process.send_signal(signal.SIGTERM)
            assert self.process.wait(60) == 0
        finally:
            self.process.kill()
            self.process.wait()
            shutil.rmtree(self.log.parent)

    def client(self) -> httpx.Client:
        return httpx.Client(base_url=self.url, headers=BEARER, timeout=120)

    def lines(self) -> list[dict]:
        """The log, whose lines are all JSON."""
        return [json.loads(line) for line in self.log.read_text().splitlines()]

    def figures(self) -> dict[tuple[str, ...], float]:
        """What /metrics shows, by name and the values of its labels, by label."""
        families = text_string_to_metric_families(httpx.get(f"{self.url}/metrics").text)
        return {
            (sample.name, *(value for _, value in sorted(sample.labels.items()))): sample.value
            for family in families
            for sample in family.samples
        }


def environment(folder: Path, **more: str) -> dict[str, str]:
    """What a server is started with: nothing of the tests' own settings, and `more`."""
    usual = {name: value for name, value in os.environ.items() if "IMAGE2CAD" not in name}
    usual.pop("GRADIO_TEMP_DIR", None)
    return {**usual, "TMPDIR": str(folder), "PYTHONPATH": hurried()["PYTHONPATH"], **more}


@functools.cache
def running() -> Server:
    folder = Path(tempfile.mkdtemp(prefix="operating-"))
    (folder / "keys").write_text(f"{KEY}\n")
    given = environment(
        folder, IMAGE2CAD_PORT="0", IMAGE2CAD_HOST="127.0.0.1", IMAGE2CAD_WORKERS="1",
        IMAGE2CAD_LIMITS="picture_bytes=100_000, program_seconds=2", IMAGE2CAD_GRACE="3",
        IMAGE2CAD_KEY_FILE=str(folder / "keys"), IMAGE2CAD_SERVED_MODEL_NAME="parts-1",
        IMAGE2CAD_ROOT_PATH="/cad/", IMAGE2CAD_OPEN_PAGE="no", IMAGE2CAD_LOG_LEVEL="info",
        IMAGE2CAD_NAMES="cad.example.org", IMAGE2CAD_ORIGINS="none",
        IMAGE2CAD_JOBS=str(folder / "jobs.sqlite"), IMAGE2CAD_KEYFILE="mistaken",
    )  # fmt: skip
    log = folder / "log"
    with open(log, "w") as errors:
        process = subprocess.Popen(
            [sys.executable, "app.py"], cwd=ROOT, env=given, text=True,
            stdout=subprocess.PIPE, stderr=errors,
        )  # fmt: skip
    try:
        assert process.stdout is not None
        found = re.search(r"http://\S+", process.stdout.readline())
        assert found, log.read_text()
        assert eventually(lambda: httpx.get(f"{found[0]}/ready").status_code == 200, 120)
        return Server(found[0], log, process)
    except BaseException:
        process.kill()
        process.wait()
        raise


@pytest.fixture(scope="session")
def server() -> Iterator[Server]:
    """Started once, for test_proxy.py too; at the end of the session it has to stop cleanly."""
    yield running()
    if running.cache_info().currsize:  # two files use this fixture, each has its own
        ended = running()
        running.cache_clear()
        ended.stop()


def test_a_server_is_set_up_by_the_environment_alone(server: Server) -> None:
    assert httpx.get(f"{server.url}/v1/models").status_code == 401  # the key file
    with server.client() as client:
        (model,) = client.get("/v1/models").json()["data"]
        assert model["id"] == "parts-1" and client.get("/version").json()["model"] == "parts-1"
        large = client.post("/v1/generate", files={"image": bytes(100_001)})
        assert large.status_code == 413 and "100,000 are allowed" in large.text  # the limit
        assert httpx.get(server.url).status_code == 401  # --no-open-page
        assert client.get("/health", headers={"Host": "cad.example.org"}).status_code == 200
        assert client.get("/health", headers={"Host": "cad.example.com"}).status_code == 400
        # A proxy may take the root path off, or leave it.
        assert client.get("/openapi.json").json()["servers"] == [{"url": "/cad"}]
        assert client.get("/cad/v1/models").json()["data"] == [model]
        assert httpx.get(f"{server.url}/cad/v1/models").status_code == 401
        job = client.post(
            "/v1/jobs", data={"effort": "none"}, files={"image": PICTURE.read_bytes()}
        )
        assert job.status_code == 202 and job.headers["location"].startswith("/cad/v1/jobs/")
    assert (server.log.parent / "jobs.sqlite").is_file()
    assert any("IMAGE2CAD_KEYFILE is no setting" in one["message"] for one in server.lines()[:5])


def test_metrics_and_the_log_say_what_was_done_and_how_it_went(server: Server) -> None:
    before = server.figures()
    ends_its_process = "import os, signal\nos.kill(os.getppid(), signal.SIGKILL)"
    with server.client() as client:
        sent = {"image": PICTURE.read_bytes()}
        assert client.post("/v1/generate", data={"effort": "low"}, files=sent).is_success
        for code in ("nonsense", "while True: pass", ends_its_process, BOX):
            assert client.post("/v1/execute", json={"code": code}).status_code == 200
        with pytest.raises(httpx.ReadTimeout):  # who leaves costs a worker process
            client.post("/v1/execute", json={"code": "while True: pass"}, timeout=0.5)

        # A visitor's log-in, upload and work on the page.
        for key, status in (("wrong", 401), (KEY, 200)):
            assert httpx.post(f"{server.url}/login", data={"password": key}).status_code == status
        upload = client.post("/gradio_api/upload", files={"files": ("a.png", sent["image"])})
        assert upload.status_code == 200
        assert client.post("/gradio_api/upload", files={"files": b"none"}).status_code == 422
        visitor = Client(server.url, auth=("any", KEY), verbose=False)
        assert visitor.predict(BOX, api_name="/execute")["volume"] == pytest.approx(6)
        assert not visitor.predict("1 / 0", api_name="/execute")["ok"]
        visitor.close()

    def more(*name: str) -> float:
        return server.figures().get(name, 0) - before.get(name, 0)

    assert eventually(lambda: more("image2cad_worker_restarts_total", "programs") >= 1)
    assert more("image2cad_generate_seconds_count", "low") == 1
    assert more("image2cad_queue_seconds_count", "pictures") >= 1
    assert more("image2cad_queue_seconds_count", "programs") >= 7
    failed = "image2cad_failures_total"
    kinds = {name[1] for name in server.figures() if name[0] == failed and name[2] == "programs"}
    assert {"timeout", "cancelled"} <= kinds and kinds <= {*KINDS, "cancelled"}
    assert more(failed, "cancelled", "programs") == 1
    page = {name[1:]: n for name, n in server.figures().items() if "page_actions_total" in name[0]}
    assert page == {
        ("build", "ok"): 1, ("build", "exception"): 1,
        ("login", "ok"): 2, ("login", "wrong key"): 1,
        ("upload", "ok"): 1, ("upload", "bad input"): 1,
    }  # fmt: skip
    (build,) = (name for name in server.figures() if name[0] == "image2cad_build_info")
    assert "parts-1" in build and VERSION in build

    lines = server.lines()
    assert all({"time", "level", "logger"} <= set(line) for line in lines)
    acts = [(one["action"], one["outcome"]) for one in lines if one["logger"] == "image2cad.page"]
    assert sorted(set(acts)) == sorted(page) and len(acts) == sum(page.values())
    assert any(one.get("route") == "/v1/generate" and one["status"] == 200 for one in lines)
    assert any(one["logger"] == "uvicorn.error" for one in lines)
    told = server.log.read_text()
    assert KEY not in told and "Workplane" not in told


def test_a_variable_that_cannot_be_used_is_one_clear_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    for name in [name for name in os.environ if name.startswith("IMAGE2CAD_")]:
        monkeypatch.delenv(name)
    handler = signal.getsignal(signal.SIGTERM)
    for name, value, flags, why in [
        # As Kubernetes sets it for a service that is called image2cad.
        ("PORT", "tcp://10.0.0.1:80", [], "IMAGE2CAD_PORT must be a whole number"),
        ("OPEN_PAGE", "maybe", [], "IMAGE2CAD_OPEN_PAGE must be 1 or 0"),
        ("LOG_LEVEL", "loud", [], "--log-level is one of debug, info"),
        ("ROOT_PATH", "/a b", [], "--root-path is a path such as /cad"),
        ("PORT", "99999", ["--port", "-1"], "--port must be at least 0"),  # a flag goes before
    ]:
        with monkeypatch.context() as changed:
            changed.setenv(f"IMAGE2CAD_{name}", value)
            changed.setattr(sys, "argv", ["app.py", *flags])
            with pytest.raises(SystemExit) as stopped:
                runpy.run_path(str(ROOT / "app.py"), run_name="__main__")
        said = capsys.readouterr()
        assert stopped.value.code == 2 and why in said.err.splitlines()[-1], name
    signal.signal(signal.SIGTERM, handler)
    monkeypatch.setattr(sys, "argv", ["app.py", "--help"])
    with pytest.raises(SystemExit):
        runpy.run_path(str(ROOT / "app.py"), run_name="__main__")
    told = capsys.readouterr().out
    for name in ("PORT", "KEY_FILE", "SERVED_MODEL_NAME", "ROOT_PATH", "LOG_LEVEL", "OPEN_PAGE"):
        assert f"IMAGE2CAD_{name}" in told.replace("\n", " ")
