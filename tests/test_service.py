"""Protects the service below the API: processes that can be stopped, queues, pictures, no orphans.

What hangs is killed and replaced, what is cancelled or late stops, and nothing is left behind.
"""

import io
import math
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from image2cad.backends import Backend
from image2cad.errors import InputError
from image2cad.limits import Limits, TooLarge, open_picture
from image2cad.processes import Lost, Pool
from image2cad.queueing import Busy, Queue
from image2cad.rendering import draw
from image2cad.service import Cancelled, Late, Service
from metrics import warm
from metrics.execution import Failure, Part, measure_file, run_cadquery

BOX = "import cadquery as cq\nresult = cq.Workplane().box(20, 40, 60)"
FOREVER = "while True: pass"


def encoded(image, kind="PNG", **options):
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def descendants(parent):
    """Processes below `parent`, zombies and multiprocessing's own tracker left out."""
    children = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
            command = (stat.parent / "cmdline").read_text()
        except OSError:  # it has just ended
            continue
        if fields[0] != "Z" and "resource_tracker" not in command:
            children.setdefault(int(fields[1]), []).append(int(stat.parent.name))
    found, todo = set(), [parent]
    while todo:
        more = children.get(todo.pop(), [])
        found |= set(more)
        todo += more
    return found


def eventually(condition, seconds=30):
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        if condition():
            return True
        time.sleep(0.05)
    return False


def alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


# processes


def test_a_pool_survives_what_its_calls_do():
    before = descendants(os.getpid())
    pool = Pool(2)
    try:
        assert pool.call(math.factorial, 5) == 120
        first = {pool.call(os.getpid) for _ in range(4)}
        with pytest.raises(ValueError, match="factorial"):
            pool.call(math.factorial, -1)
        assert {pool.call(os.getpid) for _ in range(4)} == first  # what raises costs no process
        died = pool.call(os._exit, 3)
        assert isinstance(died, Lost) and "ended with 3" in died.reason
        killed = pool.call(signal.raise_signal, signal.SIGKILL)
        assert isinstance(killed, Lost) and "SIGKILL" in killed.reason

        def stop():
            raise KeyError("stopped")

        with pytest.raises(KeyError):
            pool.call(time.sleep, 1000, check=stop)
        assert pool.call(math.factorial, 5) == 120 and pool.ready()
        idle = (descendants(os.getpid()) - before).pop()
        os.kill(idle, signal.SIGKILL)  # as a system does that is short of memory
        assert eventually(lambda: not alive(idle))
        answers = [pool.call(math.factorial, 5) for _ in range(4)]
        assert answers == [120] * 4
        # More calls than processes: all are answered, from as many threads.
        got, threads = [], []
        for number in range(12):
            call = threading.Thread(target=lambda n=number: got.append(pool.call(math.sqrt, n)))
            threads.append(call)
            call.start()
        for thread in threads:
            thread.join()
        assert sorted(got) == [math.sqrt(n) for n in range(12)]
        # Closing ends a call that is under way.
        lost = []
        sleeper = threading.Thread(target=lambda: lost.append(pool.call(time.sleep, 1000)))
        sleeper.start()
        time.sleep(0.5)
    finally:
        pool.close()
    sleeper.join(30)
    assert isinstance(lost[0], Lost) and not pool.ready()
    assert eventually(lambda: not descendants(os.getpid()) - before)
    with pytest.raises(RuntimeError, match="closed"):
        pool.call(os.getpid)


def test_a_queue_is_bounded_and_keeps_the_order():
    queue, order, leave = Queue(running=1, waiting=2, seconds=60), [], threading.Event()

    def work(name):
        with queue.place():
            order.append(name)
            leave.wait(30)

    threads = []
    for count, name in enumerate("abc"):
        threads.append(threading.Thread(target=work, args=(name,)))
        threads[-1].start()
        assert eventually(lambda n=count: queue.load() == (1, n))
    with pytest.raises(Busy) as refused, queue.place():
        pass
    assert refused.value.retry_after >= 1
    leave.set()
    for thread in threads:
        thread.join()
    assert order == ["a", "b", "c"] and queue.load() == (0, 0)
    # Whoever gives up, or has waited too long, leaves the line to the others.
    short = Queue(running=1, waiting=2, seconds=0.3)

    def gone():
        raise Cancelled

    with short.place():
        with pytest.raises(Cancelled), short.place(gone):
            pass
        with pytest.raises(Busy), short.place():
            pass
        assert short.load() == (1, 0)
    with short.place():
        pass


# pictures


def test_pictures_are_opened_upright_on_white_and_small():
    limits = Limits()
    clear = open_picture(encoded(Image.new("RGBA", (60, 40), (0, 0, 0, 0))), limits)
    assert clear.mode == "RGB" and clear.getpixel((0, 0)) == (255, 255, 255)
    deep = Image.fromarray(np.full((40, 60), 51400, np.uint16))
    assert open_picture(encoded(deep), limits).getpixel((0, 0)) == (200, 200, 200)
    turned = Image.Exif()
    turned[0x112] = 6
    photo = encoded(Image.new("RGB", (600, 400), "red"), "JPEG", exif=turned)
    assert open_picture(photo, limits).size == (400, 600)
    large = open_picture(encoded(Image.new("L", (5000, 2500), 7)), limits)
    assert large.size == (2048, 1024) and large.getpixel((5, 5)) == (7, 7, 7)


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_pictures_that_cannot_be_used_are_refused_before_they_are_decoded(monkeypatch):
    limits = Limits(picture_bytes=400_000)
    huge = encoded(Image.new("1", (10_000, 10_000)))
    bomb = encoded(Image.new("1", (20_000, 20_000)))
    good = encoded(Image.effect_noise((300, 300), 90))
    tiff = encoded(Image.new("L", (9, 9)), "TIFF")
    random = np.random.default_rng(0)
    damaged = []
    for _ in range(300):
        data = bytearray(good)
        data[int(random.integers(8, 200))] ^= int(random.integers(1, 256))
        damaged.append(bytes(data))
    decoded = []
    monkeypatch.setattr(Image.Image, "load", lambda self: decoded.append(self.size))
    for data, kind, text in [
        (b"", InputError, "empty"),
        (b"hello" * 99, InputError, "no picture"),
        (tiff, InputError, "PNG, JPEG"),
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
    warm.stop()  # of this process, which runs programs too
    # The workers, their warm CadQuery processes and what these run are all gone.
    assert eventually(lambda: not descendants(os.getpid()) - before)


@pytest.fixture(scope="module")
def picture():
    return Image.fromarray(draw(run_cadquery(BOX)))


def test_a_picture_becomes_a_part_with_files(service, picture, tmp_path):
    told = []
    made = service.generate(picture, "low", lambda share, text: told.append((share, text)))
    assert isinstance(made.part, Part) and made.likeness > 0.99 and made.confidence > 0.9
    assert made.candidates >= 1 and made.tokens[1] > 0
    shares = [share for share, _ in told]
    assert shares == sorted(shares) and shares[-1] == 1.0 and len(told) > 3
    files, reasons = service.export(made.part, made.code, ["step", "glb", "py"])
    assert reasons == {} and files["py"].decode() == made.code and files["glb"][:4] == b"glTF"
    step = tmp_path / "part.step"
    step.write_bytes(files["step"])
    assert measure_file(step).volume == pytest.approx(made.part.volume, rel=1e-6)
    with pytest.raises(InputError, match="'obj'"):
        service.export(made.part, made.code, ["obj"])
    sphere = "result = cq.Workplane().sphere(3)"
    part = service.execute(sphere)
    _, reasons = service.export(part, sphere, ["dxf"])
    assert "dxf" in reasons


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


def test_what_is_cancelled_or_late_stops_and_the_next_call_works(service, model, picture):
    def cancelled_after(seconds):
        until = time.monotonic() + seconds
        return lambda: time.monotonic() > until

    before = descendants(os.getpid())
    with pytest.raises(Cancelled):
        service.execute(FOREVER, cancelled_after(0.5))
    with pytest.raises(Cancelled):
        service.score(FOREVER, BOX, "best", cancelled_after(0.5))
    hopeless = Image.effect_mandelbrot((448, 448), (-2, -1, 1, 1), 50).convert("RGB")
    with pytest.raises(Cancelled):
        service.generate(hopeless, "low", cancelled=cancelled_after(1.5))
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


def test_nothing_outlives_a_server_that_is_killed():
    program = """
import os, sys, threading, time
from image2cad.processes import Pool
from metrics import warm
from metrics.execution import run_cadquery
if __name__ == "__main__":
    pool = Pool(1)
    threading.Thread(target=pool.call, args=(run_cadquery, "while True: pass", 300)).start()
    print("started", flush=True)
    time.sleep(300)
"""
    env = os.environ | {"PYTHONPATH": str(Path(__file__).resolve().parent.parent)}
    server = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, env=env)
    try:
        assert server.stdout.readline() == b"started\n"
        # worker, its warm process, a warden, the program
        assert eventually(lambda: len(descendants(server.pid)) >= 4, 60)
        below = descendants(server.pid)
    finally:
        server.kill()
        server.communicate()
    assert eventually(lambda: not any(map(alive, below)))
