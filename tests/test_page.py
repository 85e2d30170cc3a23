"""Protects the page: what a visitor sees after each act, its endpoints, and what it refuses.

A service whose model is slow on purpose stands in for the real one; programs run for real.
"""

from __future__ import annotations

import asyncio
import os
import re
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import gradio as gr
import httpx
import pytest
import uvicorn
from fastapi import FastAPI
from gradio_client import Client, handle_file
from gradio_client.exceptions import AppError
from PIL import Image

from image2cad import jobs, visiting
from image2cad.asking import Stops
from image2cad.page import LOOK, make_page
from image2cad.service import Busy, Cancelled, Generated, Limits
from image2cad.sliders import numbers
from image2cad.visiting import Entry, Shown
from metrics.execution import Failure, measure_file, run_cadquery

ROOT = Path(__file__).resolve().parent.parent
PICTURE = ROOT / "data/samples/test/s20200000.png"
BOX = "import cadquery as cq\nresult = cq.Workplane().box(20, 40, 60)"
BROKEN = BOX + "\nresult = result.fillet('<b>')"
UNKNOWN = {"_type": "gradio.FileData"}


class Slow:
    """A service that finds BOX in every picture; `hold` keeps it at it until it is cancelled."""

    limits = Limits(picture_bytes=100_000)

    def __init__(self) -> None:
        self.hold, self.begun, self.ended = False, threading.Event(), threading.Event()

    def generate(self, image, effort, progress, cancelled):
        self.begun.set()
        while self.hold:
            progress(0.5, "checking 8 programs")
            if cancelled():
                self.ended.set()
                raise Cancelled("cancelled")
            time.sleep(0.02)
        if effort == "high":
            raise Busy(7)
        part = run_cadquery(BOX)
        return Generated(BOX + "\n", part, 0.5, 0.25, "traced", 1.5, 9, (1, 2))

    def execute(self, code):
        return run_cadquery(code)

    def score(self, prediction, reference, alignment):
        return jobs.score(prediction, reference, alignment, run_cadquery)

    def export(self, part, code, kinds):
        return jobs.write_files(part, code, kinds)


@pytest.fixture(scope="module")
def uploads(tmp_path_factory) -> Iterator[Path]:
    """Where gradio keeps uploads in these tests."""
    folder = tmp_path_factory.mktemp("uploads")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GRADIO_TEMP_DIR", str(folder))
        patch.setenv("GRADIO_HEARTBEAT_INTERVAL", "0.5")  # so soon is it seen that a client left
        yield folder


@pytest.fixture
def service() -> Slow:
    return Slow()


@pytest.fixture
def address(service: Slow, uploads: Path) -> Iterator[str]:
    app = gr.mount_gradio_app(
        FastAPI(), make_page(service), "/", ssr_mode=False, show_error=False,
        max_file_size=service.limits.picture_bytes, **LOOK,
    )  # fmt: skip
    config = uvicorn.Config(app, port=0, log_level="critical", timeout_graceful_shutdown=1)
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run)
    thread.start()
    until = time.monotonic() + 60
    while not server.started and time.monotonic() < until:
        time.sleep(0.02)
    yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    server.should_exit = True
    thread.join(60)
    assert not thread.is_alive()


# what a visitor sees


async def generated(service: Slow, uploads: Path, effort: str = "low") -> Shown:
    file = uploads / "mine.png"
    file.write_bytes(PICTURE.read_bytes())
    told: list[str] = []
    values = await visiting.generate(
        service, Stops(), str(file), effort, [], "me", lambda share, desc: told.append(desc)
    )
    return Shown(*values)


def test_a_visit(service: Slow, uploads: Path) -> None:
    made = asyncio.run(generated(service, uploads))
    assert "Made in 1.5 s" in made.message and "higher effort" in made.message
    assert made.code == BOX and made.template == BOX
    assert Path(made.model["value"]).read_bytes()[:4] == b"glTF"
    assert made.model["camera_position"][2] > 60
    assert Image.open(made.picture).size == made.drawing.size == (448, 448)
    for text in ("0.500", "25%", "20 × 40 × 60", "48\u2009000", "1, 6", "yes", "tracing"):
        assert text in made.measures, text

    broken = Shown(*visiting.edit(service, BROKEN, made.entry, made.visit))
    assert "line 3: result = result.fillet(&#x27;&lt;b&gt;&#x27;)" in broken.message
    assert broken.model["__type__"] == "update" and "value" not in broken.model  # stays in view

    code = BOX.replace("60", "30")
    edited = Shown(*visiting.edit(service, code, made.entry, made.visit))
    assert "20 × 40 × 30" in edited.measures and "Confidence" not in edited.measures
    assert re.search(r"likeness</th><td>0\.\d{3}", edited.measures)  # against the same picture
    assert [one.caption for one in edited.visit] == ["edited", "answer, low"]

    values = [one.value for one in numbers(code)]
    moved = edited
    for length in (25.0, 12.5):  # a row of moves is one entry of the visit
        rest = (edited.template, length, *values[1:])
        moved = Shown(*visiting.move(service, moved.code, moved.entry, moved.visit, *rest))
        assert moved.code == code.replace("20", f"{length:g}")
    assert [one.caption for one in moved.visit] == ["moved", "edited", "answer, low"]
    assert "12.5 × 40 × 30" in moved.measures and len(moved.gallery) == 3
    rest = (edited.template, 0.0, *values[1:])
    flat = Shown(*visiting.move(service, moved.code, moved.entry, moved.visit, *rest))
    assert 'role="alert"' in flat.message and "line 2" in flat.message
    stale = Shown(*visiting.move(service, BOX, moved.entry, moved.visit, *rest))
    assert "Press Rebuild" in stale.message

    back = Shown(*visiting.go_back(service, moved.visit, 2))
    assert back.code == BOX and "25%" in back.measures and back.visit == moved.visit
    again = Shown(*visiting.edit(service, back.code, back.entry, back.visit))
    assert again.visit == back.visit  # nothing new


def test_files_are_made_when_asked_for(service: Slow, uploads: Path) -> None:
    step = Path(visiting.save(service, "step", BOX))
    assert measure_file(step).volume == pytest.approx(48_000) and step.name == "part.step"
    assert Path(visiting.save(service, "py", BOX)).read_text() == BOX
    with pytest.raises(gr.Error, match="line 3: result = result.fillet"):
        visiting.save(service, "stl", BROKEN)
    with pytest.raises(gr.Error, match="No DXF: the program cannot be read"):
        visiting.save(service, "dxf", BOX)


def test_what_goes_wrong_is_told(service: Slow, uploads: Path) -> None:
    assert "try again in 7 s" in asyncio.run(generated(service, uploads, "high")).message
    nothing = visiting.generate(service, Stops(), None, "low", [], "me", None)
    assert "Give a picture first" in Shown(*asyncio.run(nothing)).message
    failed = SimpleNamespace(generate=lambda *_: FAILED, limits=service.limits)
    made = asyncio.run(generated(failed, uploads))
    assert "line 1: r = 1" in made.message and made.model is None and made.code == "r = 1"
    typed = Shown(*visiting.edit(service, BOX, Entry(), []))  # without any picture
    assert "likeness" not in typed.measures and typed.picture is None and typed.gallery


FAILED = Generated("r = 1", Failure("no solid", "r is a number", 1), 0, 0, "", 1, 1, (0, 0))


# the endpoints, and what the page refuses


def test_named_endpoints(address: str) -> None:
    client = Client(address, verbose=False)
    named = client.view_api(return_format="dict", print_info=False)
    assert list(named["named_endpoints"]) == ["/generate", "/execute", "/score"]
    assert not named["unnamed_endpoints"]
    got = client.predict(handle_file(PICTURE), "low", api_name="/generate")
    assert got["code"].strip() == BOX and got["ok"] and got["likeness"] == 0.5
    got = client.predict(BOX, api_name="/execute")
    assert got["volume"] == pytest.approx(48_000) and got["bounding_box"][1] == [10, 20, 30]
    got = client.predict(BROKEN, api_name="/execute")
    assert not got["ok"] and got["line"] == 3 and "line 3" in got["failure"]
    got = client.predict(BOX, BOX.replace("20", "60"), api_name="/score")
    assert got["vsr"] == 1 and 0 < got["iou_best"] < 1 and got["alignment"] == "best"
    got = client.predict(BROKEN, BOX, "pca", api_name="/score")
    assert got["vsr"] == 0 and got["iou_best"] == 0 and "line 3" in got["failure"]
    for prediction, reference, alignment, why in (
        (BOX, BROKEN, "best", "reference has no usable solid"),
        (BOX, BOX, "none", "Alignment is one of"),
    ):
        with pytest.raises(AppError, match=why):
            client.predict(prediction, reference, alignment, api_name="/score")
    with pytest.raises(AppError, match="try again in 7 s"):
        client.predict(handle_file(PICTURE), "high", api_name="/generate")


def called(address: str, name: str, data: list) -> str:
    """The answer to a request as anybody can write one."""
    url = f"{address}/gradio_api/call/{name}"
    event = httpx.post(url, json={"data": data}).json()["event_id"]
    return httpx.get(f"{url}/{event}", timeout=60).text


def test_only_uploaded_pictures_are_read(address: str, service: Slow, tmp_path: Path) -> None:
    secret = tmp_path / "secret.png"
    secret.write_bytes(PICTURE.read_bytes())
    for path in (secret, PICTURE, "/etc/passwd", f"{os.environ['GRADIO_TEMP_DIR']}/../x.png"):
        for mark in ({}, {"meta": UNKNOWN}):
            answer = called(address, "generate", [{"path": str(path), **mark}, "low"])
            assert "event: error" in answer and "likeness" not in answer
    kept = [file.name for file in Path(os.environ["GRADIO_TEMP_DIR"]).rglob("*")]
    assert "secret.png" not in kept and "passwd" not in kept  # not even copied
    link = {"path": f"{address}/x.png", "meta": UNKNOWN}
    for name, data in (("generate", [link, "low"]), ("execute", [link])):
        assert "not as a link" in called(address, name, data), name
    client = Client(address, verbose=False)
    text = tmp_path / "text.png"
    text.write_text("no picture")
    with pytest.raises(AppError, match="no picture that can be read"):
        client.predict(handle_file(text), "low", api_name="/generate")
    large = {"files": ("large.png", bytes(service.limits.picture_bytes + 1), "image/png")}
    assert httpx.post(f"{address}/gradio_api/upload", files=large).status_code == 413
    assert client.predict(BOX, api_name="/execute")["ok"]  # and goes on


def test_work_ends_when_nobody_wants_it(address: str, service: Slow) -> None:
    service.hold = True
    for give_up in (lambda job, client: job.cancel(), lambda job, client: client.close()):
        service.begun.clear(), service.ended.clear()
        client = Client(address, verbose=False)
        job = client.submit(handle_file(PICTURE), "low", api_name="/generate")
        assert service.begun.wait(30)
        give_up(job, client)
        assert service.ended.wait(30)


def test_the_page_needs_nothing_from_elsewhere(address: str) -> None:
    html = httpx.get(address).text
    loaded = re.findall(r"<(?:script|link|img|iframe)[^>]*?(?:src|href)=\"([^\"]+)\"", html)
    assert loaded and not [one for one in loaded if re.match(r"(?:https?:)?//", one)]
    theme = httpx.get(f"{address}/theme.css").text
    assert "@import" not in theme and not re.search(r"url\(['\"]?(?:https?:)?//", theme)
    assert "fonts.googleapis" not in html + theme
    assert "huggingface.co" not in theme
    config = httpx.get(f"{address}/config").json()
    assert config["analytics_enabled"] is False
