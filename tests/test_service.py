"""Protects the service below the API: pictures, answers, deadlines, and nothing left behind.

What is cancelled or late stops, and the next call is answered as ever.
"""

import io
import math
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from watching import descendants, eventually

from image2cad.common.errors import InputError
from image2cad.common.processes import Lost
from image2cad.common.stopping import Cancelled, Late, Stop
from image2cad.rendering.raster import draw
from image2cad.serving.backends import Backend
from image2cad.serving.limits import Limits, TooLarge, open_picture
from image2cad.serving.service import Service
from metrics.execution import measure_file, run_cadquery
from metrics.parts import Failure, Part
from metrics.sandbox import client

BOX = "import cadquery as cq\nresult = cq.Workplane().box(20, 40, 60)"
ROOT = Path(__file__).resolve().parent.parent
FOREVER = "while True: pass"


def encoded(image, kind="PNG", **options):
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


# pictures


def test_pictures_are_opened_upright_on_white_and_small():
    limits = Limits()

    def dotted(picture, value):  # one of a single colour is refused
        picture.paste(value, (picture.width - 9, picture.height - 9, picture.width, picture.height))
        return picture

    clear = dotted(Image.new("RGBA", (60, 40), (0, 0, 0, 0)), (0, 0, 0, 255))
    clear = open_picture(encoded(clear), limits)
    assert clear.mode == "RGB" and clear.getpixel((0, 0)) == (255, 255, 255)
    grey = np.full((40, 60), 51400, np.uint16)
    grey[-9:] = 0
    deep = Image.fromarray(grey)
    assert open_picture(encoded(deep), limits).getpixel((0, 0)) == (200, 200, 200)
    turned = Image.Exif()
    turned[0x112] = 6
    photo = encoded(dotted(Image.new("RGB", (600, 400), "red"), "blue"), "JPEG", exif=turned)
    assert open_picture(photo, limits).size == (400, 600)
    large = open_picture(encoded(dotted(Image.new("L", (5000, 2500), 7), 255)), limits)
    assert large.size == (2000, 1000) and large.getpixel((5, 5)) == (7, 7, 7)


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_pictures_that_cannot_be_used_are_refused_before_they_are_decoded(monkeypatch):
    limits = Limits(picture_bytes=400_000)
    huge = encoded(Image.new("1", (10_000, 10_000)))
    bomb = encoded(Image.new("1", (20_000, 20_000)))
    good = encoded(Image.effect_noise((300, 300), 90))
    other = encoded(Image.new("L", (9, 9)), "PPM")
    random = np.random.default_rng(0)
    damaged = []
    small = Image.effect_noise((90, 90), 90).convert("RGB")
    for number in range(300):
        data = bytearray(good if number < 200 else encoded(small, ("TIFF", "AVIF")[number % 2]))
        data[int(random.integers(8, 200))] ^= int(random.integers(1, 256))
        damaged.append(bytes(data))
    decoded = []
    monkeypatch.setattr(Image.Image, "load", lambda self: decoded.append(self.size))
    for data, kind, text in [
        (b"", InputError, "empty"),
        (b"hello" * 99, InputError, "no picture"),
        (other, InputError, "PNG, JPEG"),
        (bytes(500_000), TooLarge, "400,000 are allowed"),
        (huge, TooLarge, "10000 x 10000"),
        (bomb, TooLarge, "50,000,000 pixels"),
    ]:
        with pytest.raises(kind, match=text):
            open_picture(data, limits)
    assert max(map(math.prod, decoded), default=0) <= 256  # palettes
    monkeypatch.undo()
    for data in [good[:50_000], *damaged]:  # nothing but InputError, whatever a decoder does
        try:
            assert open_picture(data, limits).mode == "RGB"
        except InputError as error:
            assert "picture" in str(error)


# the service


class Model:
    """A backend whose answers and patience a test sets."""

    def __init__(self):
        self.codes, self.asked, self.go = [BOX], 0, threading.Event()
        self.go.set()
        self.backend = Backend("stub", self.propose)

    def propose(self, image, effort):
        self.asked += 1
        self.go.wait(60)
        return list(self.codes)


@pytest.fixture(scope="module")
def model():
    return Model()


@pytest.fixture(scope="module")
def service(model):
    limits = Limits(running=1, waiting=1, queue_seconds=60, seconds={"none": 20, "low": 60})
    before = descendants(os.getpid())
    service = Service(model.backend, limits, workers=1)
    assert eventually(service.ready, 120)
    yield service
    service.close()
    service.close()  # twice does no harm
    assert not service.ready()
    client.stop()  # of this process, which runs programs too
    # The workers, their warm CadQuery processes and what these run are all gone.
    assert eventually(lambda: not descendants(os.getpid()) - before)


@pytest.fixture(scope="module")
def picture():
    return Image.fromarray(draw(run_cadquery(BOX)))


def test_a_picture_becomes_a_part_with_files(service, picture, tmp_path):
    told = []
    tell, kinds = (lambda share, text: told.append((share, text))), ["step", "py"]
    made = service.generate(picture, "low", tell, kinds=kinds)
    assert isinstance(made.part, Part) and made.likeness > 0.99 and made.confidence > 0.9
    assert made.candidates >= 1 and made.tokens[1] > 0
    shares = [share for share, _ in told]
    assert shares == sorted(shares) and shares[-1] == 1.0 and len(told) > 3
    heading, _, code = made.files["py"].decode().partition("\n")
    assert made.no_files == {} and code == made.code
    assert heading.startswith("# image2cad: lengths in mm; ") and heading.endswith("size assumed")
    step = tmp_path / "part.step"
    step.write_bytes(made.files["step"])
    assert measure_file(step).volume == pytest.approx(made.part.volume, rel=1e-6)
    sphere = "result = cq.Workplane().sphere(3)"
    assert "cannot be read" in service.build(sphere, ["dxf"]).no_files["dxf"]


def test_a_program_that_fails_is_an_answer_with_its_line(service, model, picture):
    model.codes = ["import cadquery as cq\nresult = oops"]
    try:
        made = service.generate(picture, "none")
    finally:
        model.codes = [BOX]
    assert made.code == "import cadquery as cq\nresult = oops" and made.likeness == 0
    assert isinstance(made.part, Failure) and made.part.line == 2 and "oops" in made.part.message
    with pytest.raises(InputError, match="none, low, high"):
        service.generate(picture, "extreme")


def test_scores(service):
    moved = "result = cq.Workplane('YZ').box(4, 8, 12).translate((1, 2, 3))"
    same = service.score(moved, BOX)
    assert same["vsr"] == 1 and same["iou_best"] == pytest.approx(1) and same["failure"] is None
    failed = service.score("result = oops", BOX)
    assert failed["vsr"] == failed["iou_best"] == 0 and failed["failure"].line == 1
    for wrong, text in [
        (("x", "result = oops"), "reference"),
        ((BOX, BOX, "odd"), "alignment 'odd'"),
        ((BOX, "x" * 300_000), "200,000 bytes"),
    ]:
        with pytest.raises(InputError, match=text):
            service.score(*wrong)
    assert isinstance(service.execute(BOX + "\nx = '\ud800'"), Failure | Part)


def test_files_are_made_once_each_in_the_place_and_by_the_deadline_of_the_work(
    service, picture, monkeypatch
):
    calls = []

    def watched(pool, name):
        call = pool.call

        def watch(work, *job, stop):
            calls.append((job, stop, service.load()[name]))
            return call(work, *job, stop=stop)

        monkeypatch.setattr(pool, "call", watch)

    watched(service._quick, "programs")
    watched(service._verifying, "pictures")
    built = service.build(BOX, ["py", "glb", "py"] * 10_000)
    made = service.generate(picture, "none", kinds=["py", "glb", "py"] * 10_000)
    for files in (built.files, made.files):
        assert list(files) == ["py", "glb"] and files["glb"][:4] == b"glTF"
    # One call each, so that the part crosses once; in the place and by the deadline of the work.
    assert len(calls) == 2 and all(load == (1, 0) for _, _, load in calls)
    assert calls[0][0][-2] == calls[1][0][-2] == ["py", "glb"]
    assert [stop.seconds for _, stop, _ in calls] == [60, 20]
    for call in (service.build, lambda *job: service.generate(picture, "none", kinds=job[1])):
        with pytest.raises(InputError, match="'obj'"):
            call(BOX, ["py", "obj"])
    assert len(calls) == 2  # refused before any work


def test_two_programs_are_compared_under_all_alignments(service):
    longer = "result = cq.Workplane().box(20, 40, 61)"
    compared = service.compare(longer, BOX)
    assert list(compared.scores) == ["best", "pca", "published"]
    for alignment, scores in compared.scores.items():
        alone = service.score(longer, BOX, alignment)
        assert alone | {"seconds": 0} == pytest.approx(scores | {"seconds": 0})
    assert compared.prediction.volume == pytest.approx(48_800)
    assert compared.reference.volume == pytest.approx(48_000)
    failed = service.compare("result = oops", BOX)
    assert failed.prediction.line == 1 and failed.scores["pca"]["vsr"] == 0
    nothing = service.compare(BOX, "result = oops")
    assert nothing.prediction is None and nothing.reference.line == 1 and not nothing.scores


def test_a_file_whose_making_costs_the_process_costs_the_file_only(service, picture, monkeypatch):
    for pool in (service._quick, service._verifying):
        monkeypatch.setattr(pool, "call", losing_files(pool.call))
    built = service.build(BOX, ["glb"])
    made = service.generate(picture, "low", kinds=["glb"])
    for answer in (built, made):
        assert isinstance(answer.part, Part) and not answer.files
        assert "SIGSEGV" in answer.no_files["glb"]
    assert made.likeness > 0.99 and made.source
    failed = service.build("result = oops", ["glb"])
    assert isinstance(failed.part, Failure) and not failed.no_files


def losing_files(call):
    """A pool's `call` in which whoever makes files dies."""

    def calling(work, *job, stop):
        kinds = job[-2]
        return Lost("the process died of SIGSEGV") if kinds else call(work, *job, stop=stop)

    return calling


def killing(service, times):
    """A Stop that kills the process at work, as a system does that is short of memory."""
    killed = []

    def look():
        (worker,) = service._quick._all
        if worker.busy and len(killed) < times and worker.process.pid not in killed:
            killed.append(worker.process.pid)
            worker.process.kill()
        return True

    return Stop(wanted=look)


@pytest.mark.slow
def test_work_whose_process_is_killed_is_tried_once_more(service):
    slow = f"import time\ntime.sleep(1)\n{BOX}"
    assert isinstance(service.execute(slow, killing(service, 1)), Part)
    assert service.score(slow, BOX, "best", killing(service, 1))["vsr"] == 1
    lost = service.execute(FOREVER, killing(service, 2))
    assert isinstance(lost, Failure) and lost.kind == "crash"
    for text in ("lost twice", "short of memory", "SIGKILL"):
        assert text in lost.message
    with pytest.raises(InputError, match="cannot be scored: .* lost twice"):
        service.score(FOREVER, BOX, "best", killing(service, 2))
    assert isinstance(service.execute(BOX), Part)


def test_programs_that_are_no_text(service):
    for wrong in (None, 5, ["result"], {"code": BOX}):
        for call in (
            service.execute,
            lambda x: service.score(x, BOX),
            lambda x: service.score(BOX, x),
        ):
            with pytest.raises(InputError, match="code must be text"):
                call(wrong)


@pytest.mark.slow
def test_what_is_cancelled_or_late_stops_and_the_next_call_works(service, model, picture):
    def cancelled_after(seconds):
        until = time.monotonic() + seconds
        return Stop(wanted=lambda: time.monotonic() < until)

    before = descendants(os.getpid())
    with pytest.raises(Cancelled):
        service.execute(FOREVER, cancelled_after(0.5))
    with pytest.raises(Cancelled):
        service.score(FOREVER, BOX, "best", cancelled_after(0.5))
    hopeless = Image.effect_mandelbrot((448, 448), (-2, -1, 1, 1), 50).convert("RGB")
    with pytest.raises(Cancelled):
        service.generate(hopeless, "low", stop=cancelled_after(1.5))
    assert isinstance(service.execute(BOX), Part)
    assert service.generate(picture, "none").part.volume == pytest.approx(48_000)
    assert len(descendants(os.getpid())) <= len(before)
    # A model call cannot be stopped; those that wait for it can, and the deadline is kept.
    model.go.clear()
    asked = model.asked
    late = Service.__new__(Service)
    late.__dict__ |= service.__dict__ | {"limits": Limits(seconds={"none": 0.3})}
    with pytest.raises(Late, match=r"0\.3 s"):
        late.generate(picture, "none")
    with pytest.raises(Late):
        late.generate(picture, "none")
    model.go.set()
    assert isinstance(service.generate(picture, "none").part, Part)
    assert model.asked == asked + 2  # the second was given up before it began
    assert service.load() == {"pictures": (0, 0), "programs": (0, 0)}


def test_api_and_page_need_no_torch_where_another_server_has_the_model():
    program = (
        "import sys, image2cad.serving.api.routes, image2cad.serving.page.layout\n"
        "print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True)
    assert done.stdout == "False\n", done.stderr
