"""Protects `python app.py`: a visit with a browser, ZeroGPU, keys, and one clear line on bad flags.

The app runs as a process of its own, with the nano model and beside a stand-in for Hugging Face's
`spaces` package that pickles, as ZeroGPU does, what goes to the GPU and what comes back.
"""

from __future__ import annotations

import importlib.util
import json
import os
import pickle
import re
import runpy
import signal
import socket
import subprocess
import sys
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from hurried import hurried
from PIL import Image

from image2cad.serving.page.keeping import link_of

ROOT = Path(__file__).resolve().parent.parent
PICTURE = ROOT / "data/samples/test/s20200007.png"
ROW = (ROOT / "data/samples/test/metadata.jsonl").read_text().splitlines()[0]
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
    environment = hurried(
        folder, SPACES_LOG=str(folder / "log"), TMPDIR=str(folder / "tmp"),
        IMAGE2CAD_KEYS="sesame, open",
    )  # fmt: skip
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


@pytest.fixture(scope="module")
def browser(address: str) -> Iterator[Any]:  # so that it closes before the app does
    """Chromium, headless, once for all visits."""
    if not CHROMIUM.exists():
        pytest.skip(f"no browser here: {CHROMIUM} is missing (apt-get install chromium)")
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield browser
        browser.close()


class Visit:
    """A visitor's page, what it asked for and what its console said."""

    def __init__(self, browser: Any, address: str, width: int = 1500, height: int = 1400) -> None:
        self.address, self.asked, self.said = address, list[str](), list[str]()
        self.context = browser.new_context(viewport={"width": width, "height": height})
        self.page = self.context.new_page()
        self.page.set_default_timeout(60_000)
        self.page.on("request", lambda request: self.asked.append(request.url))
        self.page.on("console", lambda line: self.said.append(line.text))
        self.page.on("pageerror", lambda error: self.said.append(f"Error: {error}"))

    def make_part(self, file: Path = PICTURE) -> None:
        """Give a picture and wait for its part."""
        drop(self.page, "#given button:has-text('Drop')", file)
        self.page.wait_for_selector("#given img")
        self.page.click("#start")
        self.page.wait_for_selector("#message:has-text('Made in')", timeout=120_000)
        self.page.wait_for_selector("#model canvas[data-shown=part]")

    def end(self) -> None:
        """All went well, and everything came from the server."""
        self.context.close()
        assert not [line for line in self.said if "Content Security Policy" in line]
        assert not [line for line in self.said if line.startswith("Error")]
        own = (self.address, "data:", "blob:")
        assert not [url for url in self.asked if not url.startswith(own)]


def test_a_visit_with_a_browser(browser: Any, address: str, folder: Path) -> None:
    visit = Visit(browser, address)
    page = visit.page
    page.goto(address)
    write(page, "result = nonsense  # <img src=http://127.0.0.1:9/x.png>")
    page.click("#save-step")  # what is wrong is shown at once, as text
    page.wait_for_selector("[data-testid=toast-body]:has-text('<img src=http://127.0.0.1:9')")
    visit.make_part()
    volume = measured(page, "Volume")
    assert volume > 0 and 0 < measured(page, "Picture likeness") <= 1

    name = page.locator("#numbers label", has_text="height").first
    number = page.get_by_label(f"number input for {name.inner_text().strip()}").first
    depth = float(number.input_value())
    number.fill(f"{depth * 1.5:g}")
    number.blur()
    page.wait_for_selector("#message:has-text('Rebuilt')")
    code = page.inner_text("#program .cm-content")
    assert f"extrude({depth * 1.5:g})" in code.replace("\n", "")
    assert measured(page, "Volume") != volume
    moved = measured(page, "Volume")

    page.click("#program .cm-content")
    page.keyboard.press("Control+End")
    page.keyboard.type("\nresult = nonsense")
    page.wait_for_selector("#state:has-text('Edited and not built')")
    page.click("#rebuild")
    page.wait_for_selector("#message .problem:has-text('result = nonsense')")
    page.wait_for_selector("#state:has-text('This program builds no part')")
    shape = saved(page, folder, "step", "s20200007.step")  # of the part that is on the screen
    assert shape.isValid() and shape.Volume() == pytest.approx(moved, rel=1e-5)
    page.click("#visit .thumbnail-item >> nth=-1")
    page.wait_for_selector("#message:has-text('Back at: answer')")
    assert measured(page, "Volume") == volume and not page.inner_text("#state").strip()
    page.click("label:has-text('high')")
    page.click("#start")
    page.wait_for_selector("#message :text('programs')")  # its progress is told
    page.click("#cancel")
    page.wait_for_selector("#message:has-text('Cancelled')")
    write(page, "while True: pass")
    page.click("#rebuild")
    page.click("#cancel")
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
    visit.end()


def test_real_size_numbers_undo_reload_and_a_link(browser: Any, address: str, folder: Path) -> None:
    visit = Visit(browser, address)
    page = visit.page
    page.goto(address)
    page.fill("#length textarea, #length input", "80")
    visit.make_part()
    assert "Size\tgiven" in page.inner_text("#measures")
    assert measured(page, "Longest side") == pytest.approx(80, abs=1e-3)
    text = page.inner_text("#message")
    assert any(word in text for word in ("Probably right", "Look closely", "Probably wrong"))
    assert "% chance" in text
    page.wait_for_selector("#difference img")
    shape = saved(page, folder, "step", "s20200007.step")
    box = shape.BoundingBox()
    assert max(box.xlen, box.ylen, box.zlen) == pytest.approx(80, abs=1e-3)

    # A slider by the keyboard, with the visitor's own view of the part.
    page.click("#model button:has-text('Front')")
    slider = page.locator("#numbers input[type=range]").first
    before, code = slider.input_value(), page.inner_text("#program .cm-content")
    slider.focus()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowRight")
    page.wait_for_selector("#message:has-text('Rebuilt')")
    assert page.inner_text("#program .cm-content") != code
    assert view(page) == (-90, 0)
    page.click("#visit .thumbnail-item >> nth=-1")
    page.wait_for_selector("#message:has-text('Back at')")
    page.wait_for_function(
        "v => document.querySelector('#numbers input[type=range]')?.value === v", arg=before
    )
    assert page.inner_text("#program .cm-content") == code
    page.click("#model button:has-text('As in the picture')")
    assert view(page) == (-45, 35.3)

    # A number by its name, beyond the slider's range; then the whole part by that measure.
    page.click("#measure input")
    page.click("#measure [role=option] >> nth=1")
    name = page.input_value("#measure input")
    page.fill("#value textarea, #value input", "33.5 mm")
    page.click("#set")
    wait_for_number(page, name, 33.5)
    code_then = page.inner_text("#program .cm-content")
    number = page.locator("#numbers input[type=number]").first
    number.fill("31")
    number.press("Enter")
    page.wait_for_selector("#visit .thumbnail-item")
    page.wait_for_function(
        "v => document.querySelector('#program .cm-content').innerText !== v", arg=code_then
    )
    page.click("#undo")
    page.wait_for_selector("#message:has-text('Undone')")
    assert page.inner_text("#program .cm-content") == code_then
    wait_for_number(page, name, 33.5)
    page.fill("#value textarea, #value input", "67")
    page.click("#scale")
    page.wait_for_selector("#message:has-text('Scaled')")
    wait_for_number(page, name, 67)

    # The keyboard in the editor; what is kept on a reload; a link.
    page.click("#program .cm-content")
    page.keyboard.press("Control+End")
    page.keyboard.type("\n# mine")
    page.keyboard.press("Control+Enter")
    page.wait_for_selector("#message:has-text('Rebuilt')")
    page.keyboard.press("Tab")
    assert not page.evaluate("document.activeElement.closest('.cm-editor') !== null")
    page.click("#share")
    page.wait_for_function("() => location.hash.startsWith('#program=')")
    link = page.url
    page.goto("about:blank")
    page.goto(address)
    page.wait_for_selector("#message:has-text('kept by this browser')")
    assert "# mine" in page.inner_text("#program .cm-content")
    visit.end()
    other = Visit(browser, address)
    other.page.goto(link)
    other.page.wait_for_selector("#message:has-text('The program of the link')")
    assert "# mine" in other.page.inner_text("#program .cm-content")
    assert measured(other.page, "Volume") > 0
    other.end()


def test_a_region_and_a_batch_on_narrow_screens(browser: Any, address: str, folder: Path) -> None:
    sheet = Image.new("RGB", (900, 500), "white")
    sheet.paste(Image.open(PICTURE).convert("RGB").resize((448, 448)), (440, 40))
    sheet.paste((60, 60, 60), (40, 40, 340, 440))
    file = folder / "sheet.png"
    sheet.save(file)
    tablet = Visit(browser, address, 820, 1180)
    page = tablet.page
    page.goto(address)
    drop(page, "#given button:has-text('Drop')", file)
    page.wait_for_selector("#given img")
    page.click("#more button")
    place = page.locator("#given img").bounding_box()
    scale = place["width"] / 900
    middle = (place["height"] - 500 * scale) / 2
    for x, y in ((442, 42), (886, 486)):
        page.mouse.click(place["x"] + x * scale, place["y"] + middle + y * scale)
        page.wait_for_timeout(500)
    found = [int(one) for one in page.input_value("#box textarea, #box input").split(",")]
    assert found == pytest.approx([442, 42, 886, 486], abs=5)
    page.wait_for_selector("#region img")
    wide = page.eval_on_selector("#region img", "picture => picture.naturalWidth")
    assert wide == pytest.approx(444, abs=10)
    page.click("#start")
    page.wait_for_selector("#message:has-text('Made in')", timeout=120_000)
    assert measured(page, "Picture likeness") > 0.4
    camera = page.locator("#measures tr", has_text="Camera").inner_text()
    azimuth, elevation = (float(one) for one in re.findall(r"(-?\d+)°", camera)[:2])
    assert view(page) == pytest.approx((azimuth, elevation), abs=1)  # seen as the picture is
    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
    tablet.end()

    phone = Visit(browser, address, 390, 844)
    page = phone.page
    page.goto(address)
    page.click("#batch button")
    pictures = [ROOT / f"data/samples/test/s2020000{number}.png" for number in (3, 4)]
    page.set_input_files("#many input[type=file]", pictures)
    page.wait_for_selector("#many :text('s20200004')")
    page.click("#batch-start")
    page.wait_for_selector("#message:has-text('2 of 2 pictures are done')", timeout=120_000)
    top = page.locator("#message").bounding_box()["y"]
    assert 0 <= top < 844, "the result is in sight"
    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
    with page.expect_download() as download:
        page.click("#save-all")
    download.value.save_as(folder / "all.zip")
    with zipfile.ZipFile(folder / "all.zip") as package:
        names = sorted(package.namelist())
    assert names == [f"s2020000{n}.{kind}" for n in (3, 4) for kind in ("py", "step")]
    phone.end()


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_nothing_keeps_people_out(browser: Any, address: str, theme: str) -> None:
    axe = pytest.importorskip(
        "axe_playwright_python.sync_playwright", reason="axe-playwright-python is not installed"
    )
    visit = Visit(browser, address)
    page = visit.page
    link = link_of(json.loads(ROW)["cadquery"])
    page.goto(f"{address}/?__theme={theme}#{link}")
    page.wait_for_selector("#message:has-text('The program of the link')")
    page.wait_for_selector("#numbers")
    assert page.evaluate("document.body.classList.contains('dark')") == (theme == "dark")
    shade = page.evaluate(
        "getComputedStyle(document.querySelector('#model .stage')).backgroundColor.match(/\\d+/)[0]"
    )
    assert (int(shade) < 90) == (theme == "dark")
    for accordion in ("#more", "#good", "#batch"):
        page.click(f"{accordion} button")
    found = axe.Axe().run(page).response["violations"]
    serious = [
        (one["id"], [node["target"] for node in one["nodes"]])
        for one in found
        if one["impact"] in ("serious", "critical")
    ]
    assert not serious
    visit.end()


def view(page) -> tuple[float, float]:
    """Azimuth and elevation of the 3D view, degrees."""
    page.wait_for_timeout(100)
    azimuth, elevation, _ = page.get_attribute("#model canvas", "data-view").split()
    return float(azimuth), float(elevation)


def wait_for_number(page, name: str, value: float) -> None:
    """Wait until the slider of this number stands at the value."""
    page.wait_for_function(
        """([name, value]) => [...document.querySelectorAll("#numbers input[type=number]")].some(
            (one) => one.ariaLabel.startsWith(`number input for ${name},`) && +one.value === value)
        """,
        arg=[name, value],
    )


def write(page, code: str) -> None:
    """Put a program into the editor in the place of what is there."""
    page.click("#program .cm-content")
    page.keyboard.press("Control+A")
    page.keyboard.insert_text(code)


def saved(page, folder: Path, kind: str, name: str) -> Any:
    """The shape in the file that a button saves, which has to have this name."""
    import cadquery as cq

    with page.expect_download() as download:
        page.click(f"#save-{kind}")
    assert download.value.suggested_filename == name
    download.value.save_as(folder / name)
    return cq.importers.importStep(str(folder / name)).val()


def models_answers(page, status: str) -> None:
    """Send the documentation's form for /v1/models and wait until it shows this status."""
    block = page.locator(".opblock:has([data-path='/v1/models'])")
    if not block.locator(".try-out").count():
        block.locator(".opblock-summary-control").click()
        block.locator(".try-out button").click()
    block.locator(".execute").click()
    shown = block.locator(".live-responses-table .response .response-col_status")
    shown.filter(has_text=status).wait_for()


def drop(page, place: str, file: Path) -> None:
    """Drop a file as the mouse does."""
    script = """([bytes, name]) => {
        const moved = new DataTransfer();
        moved.items.add(new File([new Uint8Array(bytes)], name, {type: "image/png"}));
        return moved;
    }"""
    page.wait_for_selector(place)
    moved = page.evaluate_handle(script, [list(file.read_bytes()), file.name])
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
