"""The page for the tests: with a service that is slow on purpose, on a free port.

    from paging import Slow, address, service, uploads      # fixtures, for a file that visits it

Programs run for real.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path

import gradio as gr
import pytest
import uvicorn
from fastapi import FastAPI

from image2cad.cad.sizing import size_named
from image2cad.common.stopping import NEVER
from image2cad.serving import jobs
from image2cad.serving.backends import Backend
from image2cad.serving.limits import Busy, Limits, check_program
from image2cad.serving.page.layout import PAGE_LOOK, make_page
from image2cad.serving.service import Generated
from image2cad.verification.viewpoints import Viewpoint, eye_named
from metrics.alignment import ALIGNMENTS
from metrics.execution import run_cadquery

ROOT = Path(__file__).resolve().parent.parent
PICTURE = ROOT / "data/samples/test/s20200000.png"
BOX = "import cadquery as cq\nresult = cq.Workplane().box(20, 40, 60)"
BROKEN = BOX + "\nresult = result.fillet('<b>')"


class Slow:
    """A service that finds BOX in every picture; `hold` keeps it at it until it is cancelled."""

    limits = Limits(picture_bytes=100_000, pictures=3)
    backend = Backend("slow", lambda image, effort, text="": [BOX], reads_text=True)

    def __init__(self) -> None:
        self.hold, self.begun, self.ended = False, threading.Event(), threading.Event()
        self.asked, self.sizes = [], []

    def _work(self, stop, progress=lambda *_: None):
        self.begun.set()
        while self.hold:
            progress(0.5, "checking 8 programs")
            if stop.due():
                self.ended.set()
                stop.check()
            time.sleep(0.02)

    def generate(self, image, effort, progress, kinds, stop, camera="", text="", length=""):
        self.asked.append((len(image), camera, text))
        self.sizes.append(image[0].size)
        eye_named(camera)
        self._work(stop, progress)
        if effort == "high":
            raise Busy(7)
        built = self.build(BOX, kinds, length=length)
        rest = ("traced", 1.5, 9, (1, 2), built.files, built.no_files)
        seen = (Viewpoint(-45.0, 35.0, 0.0, None, "known"),)
        told = {"cameras": seen, "reason": "It is odd <b>.", "notes": ("The model was not heard.",)}
        told["size"] = built.size if length else jobs.SIZE_ASSUMED
        return Generated(built.code + "\n", built.part, 0.5, 0.25, *rest, **told)

    def execute(self, code, stop=NEVER):
        return self.build(code, (), stop).part

    def build(self, code, kinds, stop=NEVER, length=""):
        check_program(code, self.limits)
        self._work(stop)
        size = size_named(length) if length else None
        return jobs.build_program(code, kinds, run_cadquery, size)

    def score(self, prediction, reference, alignment, stop=NEVER):
        check_program(prediction, self.limits)
        check_program(reference, self.limits)
        self._work(stop)
        return jobs.score_programs(prediction, reference, alignment, run_cadquery)

    def compare(self, prediction, reference, stop=NEVER):
        self._work(stop)
        return jobs.compare_programs(prediction, reference, ALIGNMENTS, run_cadquery)


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
        max_file_size=service.limits.picture_bytes, **PAGE_LOOK,
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
