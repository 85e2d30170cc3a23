"""Protects what a vision model on another server adds, and that its being down costs nothing else.

The other server is a stand-in that speaks OpenAI's format; pictures are photographs or drawings to
it, and its programs are checked here like any others.
"""

import base64
import io
import json
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from fastapi.testclient import TestClient
from PIL import Image, ImageDraw

from image2cad.cad.light_engine import build
from image2cad.cad.program import NAMED, Circle, Extrusion, Plane, Rect, to_code
from image2cad.common import effort
from image2cad.common.errors import InputError
from image2cad.rendering import draw, filling
from image2cad.rendering.styles import STYLES, draw_view
from image2cad.serving.api.routes import make_api
from image2cad.serving.backends import Backend, remote_backend
from image2cad.serving.limits import Limits
from image2cad.serving.service import Service

FLOOR = Plane((0.0, 0.0, -10.0), *NAMED["XY"])
TOP = Plane((0.0, 0.0, 10.0), *NAMED["XY"])
PART = (
    Extrusion(FLOOR, (Rect(0, 0, 100, 60), Circle(20, 0, 10)), 20),
    Extrusion(TOP, (Circle(-25, 0, 15),), 18),
)
KEY, MODEL = "open sesame", "capable-vl"
TEXT = "100 mm long, plate 20 thick"


def picture(eye=(1, -0.6, 0.8), angle=30.0):
    """The part in colours and perspective, as a PNG file."""
    drawing = build(PART)
    camera = filling(drawing.vertices, eye, angle=angle)
    return encoded(Image.fromarray(draw_view(drawing, STYLES["coloured"], camera, (448, 448))))


def gencads():
    """The part as GenCAD draws it, whose camera need not be looked for: that is read soonest."""
    return encoded(Image.fromarray(draw(build(PART))))


def encoded(image):
    stream = io.BytesIO()
    image.save(stream, "PNG")
    return stream.getvalue()


class Capable(BaseHTTPRequestHandler):
    """The stand-in: `says` is its answer; None hangs up, bytes are sent as they are."""

    says, asked, delay, ends = "", [], 0.0, "stop"

    def do_GET(self):
        self.answer(json.dumps({"data": [{"id": MODEL}]}).encode())

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        type(self).asked.append((self.headers["Authorization"], body))
        time.sleep(self.delay)
        if self.says is None:
            return self.connection.close()
        if isinstance(self.says, bytes):
            return self.answer(self.says)
        message = {"role": "assistant", "content": self.says}
        choice = {"index": 0, "message": message, "finish_reason": self.ends}
        self.answer(json.dumps({"choices": [choice]}).encode())

    def answer(self, data):
        self.send_response(200)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_):
        pass


@pytest.fixture(scope="module")
def backend():
    server = ThreadingHTTPServer(("127.0.0.1", 0), Capable)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield remote_backend(f"http://127.0.0.1:{server.server_port}/v1", MODEL, KEY, general=True)
    server.shutdown()
    server.server_close()


class Here:
    """Verification in this process and in a second or so, in the place of worker processes."""

    def call(self, work, *job, stop):
        return work(*job)

    def ready(self):
        return True

    def close(self):
        pass


@pytest.fixture(scope="module")
def service(backend):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("image2cad.serving.service.Pool", lambda *_: Here())
        whole = Service(backend, Limits(running=1), workers=1)
    yield whole
    whole.close()


@pytest.fixture
def client(service, monkeypatch):
    brief = effort.Effort("low", 0.5, 1, 4, 2, 1, 4, 60.0, 1.7, 2.4)
    monkeypatch.setitem(effort.EFFORTS, "low", brief)
    Capable.asked.clear()
    Capable.says, Capable.delay = f"Here it is:\n```python\n{to_code(PART)}\n```", 0.0
    return TestClient(make_api(service))  # not as a context, whose end closes the service


def generated(client, *files, **fields):
    parts = [("image", ("part.png", data, "image/png")) for data in files]
    answer = client.post("/v1/generate", files=parts, data={"effort": "low", **fields})
    assert answer.status_code == 200, answer.text
    return answer.json()


def test_a_picture_and_its_text_go_to_the_model_and_its_program_is_checked(client):
    answer = generated(client, picture(), text=TEXT)
    assert answer["part"]["solids"] == 1 and answer["likeness"] > 0.6 and not answer["notes"]
    (camera,) = answer["cameras"]
    assert camera["origin"] == "estimated" and camera["text"].endswith("estimated")
    key, body = Capable.asked[0]
    assert key == f"Bearer {KEY}" and body["model"] == MODEL and len(Capable.asked) == 2
    shown, said = body["messages"][0]["content"]
    assert TEXT in said["text"] and "CadQuery program" in said["text"]
    head, data = shown["image_url"]["url"].split(",")
    assert head == "data:image/png;base64"
    assert Image.open(io.BytesIO(base64.b64decode(data))).size == (448, 448)


def test_views_in_one_message_are_of_one_part_and_a_camera_can_be_given(client):
    views = [picture(), picture((0.3, -1, 0.6))]
    urls = ["data:image/png;base64," + base64.b64encode(one).decode() for one in views]
    parts = [{"type": "image_url", "image_url": {"url": url}} for url in urls]
    earlier = {"role": "user", "content": [parts[1]]}  # only the last message with pictures counts
    last = {"role": "user", "content": [*parts, {"type": "text", "text": TEXT}]}
    body = {"model": MODEL, "messages": [earlier, last, {"role": "assistant", "content": "?"}]}
    answer = client.post("/v1/chat/completions", json=body)
    told = answer.json()["image2cad"]
    # In so little time the second may not be explained; it never vanishes without a word.
    used = [one["picture"] for one in told["cameras"]]
    assert used == [0, 1] or (used == [0] and told["reason"].startswith("Picture 2: no program"))
    assert (used == [0, 1]) == (told["reason"] == "")
    sent = Capable.asked[0][1]["messages"][0]["content"]
    assert [one["type"] for one in sent] == ["image_url", "image_url", "text"]
    flat = base64.b64encode(picture(angle=0)).decode()
    alone = [{"type": "image_url", "image_url": {"url": f"data:image/png;base64,{flat}"}}]
    one = {**body, "messages": [{"role": "user", "content": alone}], "camera": "-31, 34"}
    (camera,) = client.post("/v1/chat/completions", json=one).json()["image2cad"]["cameras"]
    assert camera["origin"] == "given" and camera["azimuth"] == pytest.approx(-31, abs=4)
    both = client.post("/v1/chat/completions", json={**body, "camera": "front"})
    assert both.status_code == 422 and "one picture only" in both.json()["error"]["message"]
    odd = client.post("/v1/chat/completions", json={**one, "camera": "odd"})
    assert odd.status_code == 422 and "isometric, front" in odd.json()["error"]["message"]


def test_a_bound_of_tokens_and_a_change_in_words_reach_the_model(client, monkeypatch):
    flat = base64.b64encode(gencads()).decode()
    shown = [{"type": "image_url", "image_url": {"url": f"data:image/png;base64,{flat}"}}]
    body = {"model": MODEL, "messages": [{"role": "user", "content": shown}], "max_tokens": 50}
    monkeypatch.setattr(Capable, "ends", "length")
    cut = client.post("/v1/chat/completions", json={**body, "effort": "none"}).json()
    assert cut["choices"][0]["finish_reason"] == "length" and not cut["image2cad"]["ignored"]
    assert Capable.asked[-1][1]["max_tokens"] == 50
    found = client.post("/v1/chat/completions", json=body).json()
    assert found["choices"][0]["finish_reason"] == "stop"  # it was checked and fitted
    code = found["choices"][0]["message"]["content"]
    said = [{"role": "assistant", "content": code}, {"role": "user", "content": "A hole less!"}]
    later = client.post("/v1/chat/completions", json={**body, "messages": body["messages"] + said})
    assert "not fitted to the picture" in later.json()["image2cad"]["notes"][-1]
    text = Capable.asked[-1][1]["messages"][0]["content"][-1]["text"]
    assert code in text and text.endswith("Change it so:\nA hole less!")


@pytest.mark.parametrize(
    ("says", "told"),
    [
        (None, "The model was not heard (cannot reach "),
        (b"<html>", "does not answer with JSON"),
        (b'{"choices": []}', "does not answer as OpenAI's API does"),
        (b'{"choices": [{"message": {"content": {"a": 1}}}]}', "does not answer with text"),
        ("I see a nice part.", "The model answered without a program."),
        ("```python\nimport os\nos.abort()\n```", "The model answered without a program."),
    ],
)
def test_without_the_model_there_is_a_line_and_the_answer_without_it(client, says, told):
    Capable.says = says
    answer = generated(client, gencads())
    (note,) = answer["notes"]
    assert told in note and note.endswith("This is the answer without it.") and "\n" not in note
    assert answer["part"]["solids"] >= 1 and answer["cameras"]
    if not isinstance(says, str):  # with no effort there is nothing but the model
        fields = {"files": {"image": ("x.png", picture())}, "data": {"effort": "none"}}
        refused = client.post("/v1/generate", **fields)
        assert (
            refused.status_code == 502 and told.split("(")[-1] in refused.json()["error"]["message"]
        )


def test_a_model_that_takes_too_long_is_left_out(client, service, monkeypatch):
    Capable.delay = 5.0
    monkeypatch.setattr(service, "limits", Limits(seconds={"low": 1.5}))
    (note,) = generated(client, gencads())["notes"]
    assert note == "The model did not answer in 0 s. This is the answer without it."


def test_no_part_is_said_in_words(client):
    page = Image.new("RGB", (448, 448), "white")
    pen = ImageDraw.Draw(page)
    for at in range(40, 400, 24):
        pen.text((40, at), "not a part " * 5, fill="black")
    Capable.says = "There is no part."
    assert "many small things, as text" in generated(client, encoded(page))["reason"]


def test_limits_hold_for_all_pictures_together(client, service, monkeypatch):
    many = [("image", ("x.png", picture(), "image/png"))] * 9
    answer = client.post("/v1/generate", files=many)
    assert answer.status_code == 413 and "may have 8 pictures" in answer.json()["error"]["message"]
    monkeypatch.setattr(service, "limits", Limits(pixels=300_000))  # one fits, two do not
    answer = client.post("/v1/generate", files=many[:2])
    assert answer.status_code == 413 and "picture 2: " in answer.json()["error"]["message"]
    blank = ("image", ("x.png", encoded(Image.new("L", (9, 9))), "image/png"))
    answer = client.post("/v1/generate", files=[many[0], blank])
    assert answer.status_code == 422 and "picture 2: " in answer.json()["error"]["message"]
    long = client.post("/v1/generate", files=many[:1], data={"text": "x" * 5000})
    assert long.status_code == 413 and "4,000 letters" in long.json()["error"]["message"]
    assert not Capable.asked


def test_text_is_passed_on_only_where_it_is_read(service, client, monkeypatch):
    monkeypatch.setattr(service, "backend", Backend("deaf", lambda image, effort: []))
    (note,) = generated(client, gencads(), text=TEXT)["notes"]
    assert "was not read" in note
    with pytest.raises(InputError, match="one picture only"):
        service.generate([Image.new("L", (9, 9))] * 2, camera="front")
