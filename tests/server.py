"""A real server of the API for the tests: nano model, one worker, a free port, started once.

    from server import base, client     # fixtures, for a file that talks to it

The first test that asks starts it; at the end of the session it has to stop cleanly, with a
request that is still open.
"""

import base64
import contextlib
import functools
import http.server
import io
import json
import logging
import threading

import httpx
import pytest
import uvicorn
from PIL import Image
from watching import eventually

from image2cad.rendering.raster import draw
from image2cad.serving.api.routes import make_api
from image2cad.serving.backends import local_backend
from image2cad.serving.limits import Limits
from image2cad.serving.service import Service
from metrics.execution import run_cadquery

BOX = "import cadquery as cq\nresult = cq.Workplane().box(20, 40, 60)"
MODEL = "models/nano"


def encoded(image):
    stream = io.BytesIO()
    image.save(stream, "PNG")
    return stream.getvalue()


@functools.cache
def picture():
    """A picture of BOX as a PNG file."""
    return encoded(Image.fromarray(draw(run_cadquery(BOX))))


def data_url(data):
    return "data:image/png;base64," + base64.b64encode(data).decode()


def chat(url, model=MODEL, **more):
    parts = [{"type": "image_url", "image_url": {"url": url}}, {"type": "text", "text": "?"}]
    return {"model": model, "messages": [{"role": "user", "content": parts}], **more}


def works(client):
    """Whether the next request is answered as ever."""
    answer = client.post("/v1/execute", json={"code": BOX})
    return answer.status_code == 200 and answer.json()["part"]["volume"] == pytest.approx(48_000)


class Elsewhere(http.server.BaseHTTPRequestHandler):
    """Another web server: it has a picture, a redirect and more than anybody wants."""

    def do_GET(self):
        self.send_response(302 if self.path == "/away" else 200)
        self.send_header("Location", "/part.png")
        self.end_headers()
        with contextlib.suppress(OSError):  # who asked has had enough
            self.wfile.write(bytes(40 << 20) if self.path == "/endless" else picture())

    def log_message(self, *_):
        pass


class Running:
    """The service, its server at `url`, and the host:port that it may fetch pictures from."""

    def __init__(self):
        self.web = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Elsewhere)
        threading.Thread(target=self.web.serve_forever, daemon=True).start()
        self.elsewhere = f"127.0.0.1:{self.web.server_port}"
        limits = Limits(running=1, waiting=1, body_seconds=3)
        self.service = Service(local_backend(MODEL), limits, workers=1)
        api = make_api(self.service, hosts=[self.elsewhere])
        options = {"port": 0, "log_level": "warning", "timeout_graceful_shutdown": 1}
        self.server = uvicorn.Server(uvicorn.Config(api, **options))
        self.thread = threading.Thread(target=self.server.run)
        self.thread.start()
        assert eventually(lambda: self.server.started)
        self.url = f"http://127.0.0.1:{self.server.servers[0].sockets[0].getsockname()[1]}"
        assert httpx.get(f"{self.url}/health").json() == {"status": "ok"}
        assert eventually(lambda: httpx.get(f"{self.url}/ready").status_code == 200, 120)

    def stop(self):
        """Stop while a program runs and a stream is open; both are told, and nothing is logged."""
        answers, records = {}, []
        program = ("/v1/execute", {"code": "while True: pass"})
        noise = encoded(Image.effect_mandelbrot((448, 448), (-2, -1, 1, 1), 50))
        stream = ("/v1/chat/completions", chat(data_url(noise), stream=True, effort="high"))

        def post(path, body):
            answers[path] = httpx.post(f"{self.url}{path}", json=body, timeout=30)

        last = [threading.Thread(target=post, args=job) for job in (program, stream)]
        for thread in last:
            thread.start()
        assert eventually(lambda: set(self.service.load().values()) == {(1, 0)})
        handler = logging.Handler(logging.ERROR)
        handler.emit = records.append
        logging.getLogger("uvicorn.error").addHandler(handler)
        # There is a second of grace, in which the stream has begun.
        self.server.should_exit = True
        for thread in (self.thread, *last):
            thread.join(30)
        logging.getLogger("uvicorn.error").removeHandler(handler)
        whole, streamed = answers["/v1/execute"], answers["/v1/chat/completions"]
        assert whole.status_code == 503 and whole.json()["error"]["code"] == "stopping"
        event = streamed.text.strip().splitlines()[-1].removeprefix("data: ")
        assert streamed.status_code == 200 and json.loads(event)["error"]["code"] == "stopping"
        assert not [record for record in records if record.exc_info]
        assert not self.thread.is_alive() and not self.service.ready()
        self.web.shutdown()
        self.web.server_close()


running = functools.cache(Running)


@pytest.fixture(scope="session")
def base():
    """The address of the server."""
    yield running().url
    if running.cache_info().currsize:  # two files use this fixture, each has its own
        running().stop()
        running.cache_clear()


@pytest.fixture
def service(base):
    return running().service


@pytest.fixture
def client(base):
    with httpx.Client(base_url=base, timeout=60) as client:
        yield client
