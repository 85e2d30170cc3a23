"""Protects `python app.py`: a visit with a browser, ZeroGPU, keys, and one clear line on bad flags.

The app runs as a process of its own, with the nano model and beside a stand-in for Hugging Face's
`spaces` package that pickles, as ZeroGPU does, what goes to the GPU and what comes back.
"""

from __future__ import annotations

import importlib.util
import os
import pickle
import re
import runpy
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from PIL import Image

ROOT = Path(__file__).resolve().parent.parent
PICTURE = ROOT / "data/samples/test/s20200007.png"
CHROMIUM = Path("/usr/bin/chromium")
FLAGS = (
    "--headless=new", "--no-sandbox", "--enable-unsafe-swiftshader", "--disable-gpu",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
)  # fmt: skip
SPACES = """
import functools, os, pickle, sys

def log(line):
    with open(os.environ["SPACES_LOG"], "a") as file:
        print(line, file=file)

def GPU(task=None, *, duration=None):
    if task is None:
        return functools.partial(GPU, duration=duration)
    def on_gpu(*args):
        args = pickle.loads(pickle.dumps(args))
        log(f"gpu {duration(*args)}")
        return pickle.loads(pickle.dumps(task(*args)))
    log("decorated, torch" if "torch" in sys.modules else "decorated")
    return on_gpu

from . import zero
assert "torch" not in sys.modules, "torch came before spaces"
"""
STARTUP = """
def startup():
    from . import log
    log("startup")
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("app")
    (folder / "spaces").mkdir()
    (folder / "spaces" / "__init__.py").write_text(SPACES)
    (folder / "spaces" / "zero.py").write_text(STARTUP)
    (folder / "tmp").mkdir()
    return folder


@pytest.fixture(scope="module")
def address(folder: Path) -> Iterator[str]:
    """The app's, which has to say it, to stop at SIGTERM and to leave no files behind."""
    environment = {
        **os.environ, "PYTHONPATH": str(folder), "SPACES_LOG": str(folder / "log"),
        "TMPDIR": str(folder / "tmp"), "IMAGE2CAD_KEYS": "sesame, open",
    }  # fmt: skip
    environment.pop("GRADIO_TEMP_DIR", None)
    command = [sys.executable, "app.py", "--port", "0", "--workers", "1", "--open-page"]
    with open(folder / "errors", "w") as errors:
        process = subprocess.Popen(
            command, cwd=ROOT, env=environment, text=True, stdout=subprocess.PIPE, stderr=errors
        )
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        found = re.fullmatch(r"image2cad is at (http://127\.0\.0\.1:\d+)\n", line)
        assert found, (line, (folder / "errors").read_text())
        until = time.monotonic() + 180
        while httpx.get(f"{found[1]}/ready").status_code != 200 and time.monotonic() < until:
            time.sleep(0.2)
        yield found[1]
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0
        assert "Traceback" not in (folder / "errors").read_text()
        assert not list((folder / "tmp").glob("image2cad-*"))
    finally:
        process.kill()
        process.wait()


def test_a_visit_with_a_browser(address: str, folder: Path) -> None:
    if not CHROMIUM.exists():
        pytest.skip(f"no browser here: {CHROMIUM} is missing (apt-get install chromium)")
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    import cadquery as cq

    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        page = browser.new_page(viewport={"width": 1500, "height": 1400})
        page.set_default_timeout(60_000)
        asked: list[str] = []
        page.on("request", lambda request: asked.append(request.url))
        said: list[str] = []
        page.on("console", lambda line: said.append(line.text))
        page.goto(address)
        drop(page, "#given button:has-text('Drop')", PICTURE)
        page.wait_for_selector("#given img")
        page.click("#start")
        page.wait_for_selector("#message:has-text('Made in')", timeout=120_000)
        page.wait_for_selector("#model canvas")
        volume = measured(page, "Volume")
        assert volume > 0 and 0 < measured(page, "Picture likeness") <= 1

        name = page.locator("#numbers label", has_text="depth").first
        number = page.get_by_label(f"number input for {name.inner_text().strip()}").first
        depth = float(number.input_value())
        number.fill(f"{depth * 1.5:g}")
        number.blur()
        page.wait_for_selector("#message:has-text('Rebuilt')")
        code = page.inner_text("#program .cm-content")
        assert f"extrude({depth * 1.5:g})" in code.replace("\n", "")
        assert measured(page, "Volume") != volume
        with page.expect_download() as download:
            page.click("#save-step")
        step = folder / download.value.suggested_filename
        download.value.save_as(step)
        assert step.name == "part.step"
        shape = cq.importers.importStep(str(step)).val()
        assert shape.isValid() and shape.Volume() == pytest.approx(
            measured(page, "Volume"), rel=1e-5
        )

        page.click("#program .cm-content")
        page.keyboard.press("Control+End")
        page.keyboard.type("\nresult = nonsense  # <img src=http://127.0.0.1:9/x.png>")
        page.click("#rebuild")
        page.wait_for_selector("#message .problem:has-text('result = nonsense')")
        page.click("#save-step")  # what is wrong is shown at once, as text
        page.wait_for_selector("[data-testid=toast-body]:has-text('<img src=http://127.0.0.1:9')")
        page.click("#visit .thumbnail-item >> nth=-1")
        page.wait_for_selector("#message:has-text('Back at: answer')")
        assert measured(page, "Volume") == volume
        page.click("label:has-text('high')")
        page.click("#start")
        page.click("#cancel:not([disabled])")
        page.wait_for_selector("#message:has-text('Cancelled')")
        page.click("button[role=tab]:has-text('Compare')")
        page.click("#score")
        page.wait_for_selector("#scores:has-text('published')")

        page.goto(f"{address}/docs")  # the API's documentation, where routes can be tried
        page.wait_for_selector(".opblock-summary-path:has-text('/execute')")
        models_answers(page, "401")
        page.click(".auth-wrapper .authorize")
        page.fill("#auth-bearer-value", "sesame")
        page.click(".auth-btn-wrapper .authorize")
        page.click(".auth-btn-wrapper .btn-done")
        models_answers(page, "200")
        browser.close()
    assert not [line for line in said if "Content Security Policy" in line]
    assert not [url for url in asked if not url.startswith((address, "data:", "blob:"))]


def models_answers(page, status: str) -> None:
    """Send the documentation's form for /v1/models and wait until it shows this status."""
    block = page.locator("#operations-default-models_v1_models_get")
    if not block.locator(".try-out").count():
        block.locator(".opblock-summary-control").click()
        block.locator(".try-out button").click()
    block.locator(".execute").click()
    shown = block.locator(".live-responses-table .response .response-col_status")
    shown.filter(has_text=status).wait_for()


def drop(page, place: str, file: Path) -> None:
    """Drop a file as the mouse does."""
    script = """(bytes) => {
        const moved = new DataTransfer();
        moved.items.add(new File([new Uint8Array(bytes)], "part.png", {type: "image/png"}));
        return moved;
    }"""
    page.wait_for_selector(place)
    moved = page.evaluate_handle(script, list(file.read_bytes()))
    page.dispatch_event(place, "drop", {"dataTransfer": moved})


def measured(page, name: str) -> float:
    """The first number beside a name in the table of measures."""
    text = page.locator("#measures tr", has_text=name).locator("td").inner_text()
    return float(text.replace("\u2009", "").split()[0])


def test_the_app_uses_the_gpu_for_the_model_and_nothing_else(address: str, folder: Path) -> None:
    key = {"Authorization": "Bearer open"}
    with PICTURE.open("rb") as image:
        made = httpx.post(
            f"{address}/v1/generate", files={"image": image}, data={"effort": "none"},
            headers=key, timeout=120,
        )  # fmt: skip
    assert made.status_code == 200 and "cadquery" in made.json()["code"]
    box = {"code": "import cadquery as cq\nresult = cq.Workplane().box(1, 2, 3)"}
    assert httpx.post(f"{address}/v1/execute", json=box, headers=key).status_code == 200
    lines = (folder / "log").read_text().splitlines()
    assert lines[:2] == ["decorated, torch", "startup"] and set(lines[2:]) <= {
        "gpu 30",
        "gpu 60",
        "gpu 120",
    }
    assert lines.count("gpu 30") == 1
    assert httpx.post(f"{address}/v1/execute", json=box).status_code == 401
    assert httpx.get(address).status_code == 200  # --open-page


# in this process


def test_a_huge_body_is_refused_where_the_page_asks_too(address: str) -> None:
    def endless() -> Iterator[bytes]:
        for _ in range(60):
            yield bytes(1 << 20)

    for path in ("/gradio_api/queue/join", "/v1/execute"):
        answer = httpx.post(f"{address}{path}", content=endless(), timeout=60)
        assert answer.status_code in (401, 413), path
    assert httpx.get(f"{address}/health").status_code == 200


@pytest.fixture
def app():
    return runpy.run_path(str(ROOT / "app.py"))


def test_the_call_on_the_gpu_can_be_sent_to_another_process(app) -> None:
    from image2cad.serving.backends import Backend

    backend = Backend("mine", lambda image, effort: [f"{effort} {image.size}"])
    seen = []

    def gpu(duration):
        def decorate(task):
            def call(*args):
                seen.append(duration(*args))
                return pickle.loads(pickle.dumps(task(*pickle.loads(pickle.dumps(args)))))

            return call

        return decorate

    wrapped = app["on_gpu"](backend, gpu)
    assert wrapped.propose(Image.new("RGB", (4, 5)), "high") == ["high (4, 5)"] and seen == [120]
    assert wrapped.name == "mine" and wrapped.tokens is backend.tokens


@pytest.mark.skipif(importlib.util.find_spec("spaces") is not None, reason="spaces is installed")
def test_without_spaces_nothing_is_wrapped(app) -> None:
    assert app["gpu_decorator"]() is None


def test_a_key_opens_the_page_and_nothing_else_does(app) -> None:
    keys = app["listed"](" sesame, ,open ")
    assert keys == ["sesame", "open"]
    from image2cad.serving.keys import Keys

    known = Keys(keys)
    for text in ("sesame", "open"):
        assert known.known(text, "here") == text
    for text in ("", "Sesame", "sesame,open", "sésame", "\ud800"):
        assert not known.known(text, "here")


def test_bad_flags_are_one_clear_line(monkeypatch, capsys, tmp_path) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("GRADIO_ANALYTICS_ENABLED", "GRADIO_TEMP_DIR", "GRADIO_HEARTBEAT_INTERVAL"):
        monkeypatch.setenv(name, os.environ.get(name, ""))
    handler = signal.getsignal(signal.SIGTERM)
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        taken = str(other.getsockname()[1])
        cases = {
            ("--port", taken): f"port {taken} of 127.0.0.1: it is in use",
            ("--port", "99999"): "--port must be at most 65535",
            ("--port", "-1"): "--port must be at least 0",
            ("--port", "0", "--host", "nowhere.invalid"): "no address of this machine",
            ("--port", "0", "--model", "models/none"): "cannot load the base model 'models/none'",
            ("--port", "0", "--backend-url", "http://localhost:1/v1"): "needs --backend-model",
            ("--port", "0", "--backend-url", "http://localhost:1/v1", "--backend-model", "m"):
                "is the server running",
            ("--prot", "1"): "unrecognized arguments: --prot",
            ("--workers", "many"): "invalid int value",
        }  # fmt: skip
        for flags, message in cases.items():
            monkeypatch.setattr(sys, "argv", ["app.py", *flags])
            with pytest.raises(SystemExit) as stopped:
                runpy.run_path(str(ROOT / "app.py"), run_name="__main__")
            said = capsys.readouterr()
            assert stopped.value.code == 2 and message in said.err.splitlines()[-1], flags
            assert "image2cad is at" not in said.out
    signal.signal(signal.SIGTERM, handler)
