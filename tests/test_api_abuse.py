"""Protects the HTTP API from bad input, hostile programs and clients that leave or crowd in.

Each gets the right status and a clear message, and the next request is answered as ever.
"""

import http.client
import json
import re
import socket
import threading

import httpx
import pytest
from PIL import Image
from server import (
    BOX,
    MODEL,
    base,
    chat,
    client,
    data_url,
    encoded,
    picture,
    running,
    service,
    works,
)
from watching import eventually

from image2cad.serving.limits import Limits

__all__ = ["base", "client", "service"]  # fixtures

FOREVER = "while True: pass"
HOPELESS = encoded(Image.effect_mandelbrot((448, 448), (-2, -1, 1, 1), 50))
FREE = {"pictures": (0, 0), "programs": (0, 0)}
CHATS, JSON = "/v1/chat/completions", {"content-type": "application/json"}


def image(data, **fields):
    return "/v1/generate", {"files": {"image": ("x.png", data)}, "data": fields}


def views(count):
    return "/v1/generate", {"files": [("image", ("x.png", picture()))] * count}


def message(count):
    part = {"type": "image_url", "image_url": {"url": data_url(picture())}}
    return [{"role": "user", "content": [part] * count}]


def raw(content, kind="application/json"):
    return "/v1/execute", {"content": content, "headers": {"content-type": kind}}


def sent(path, body):  # as ASCII, so that half a surrogate pair can be sent
    return path, {"content": json.dumps(body), "headers": JSON}


def asked(url, model=MODEL, **more):
    return sent(CHATS, chat(url, model, **more))


def at(path):
    return f"http://{running().elsewhere}{path}"


BAD = {
    "empty picture": (lambda: image(b""), 422, "empty"),
    "no picture": (lambda: image(b"hello"), 422, "no picture"),
    "100 megapixels": (
        lambda: image(encoded(Image.new("1", (10_000, 10_000)))), 413, "10000 x 10000"
    ),
    "half a picture": (lambda: image(picture()[: len(picture()) // 2]), 422, "damaged"),
    "picture left out": (lambda: ("/v1/generate", {"data": {"effort": "low"}}), 422, "image"),
    "picture as text": (lambda: ("/v1/generate", {"data": {"image": "a.png"}}), 422, "image=@"),
    "blank picture": (lambda: image(encoded(Image.new("RGB", (99, 99), "red"))), 422, "blank"),
    "unknown effort": (lambda: image(picture(), effort="x"), 422, "none, low, high"),
    "unknown camera": (lambda: image(picture(), camera="x"), 422, "isometric, front"),
    "long camera": (lambda: image(picture(), camera="1," * 100_000), 422, "isometric, front"),
    "many pictures": (lambda: views(9), 413, "8 pictures, not 9"),
    "many pictures in a message": (
        lambda: asked(data_url(picture()), messages=message(9)), 413, "8 pictures, not 9"
    ),
    "a camera of two pictures": (
        lambda: asked(data_url(picture()), messages=message(2), camera="top"), 422, "one picture"
    ),
    "unknown format": (lambda: image(picture(), files="step,exe"), 422, "'exe'"),
    "50 MB body": (lambda: image(bytes(50 << 20)), 413, "33,554,432 bytes"),
    "50 MB in chunks": (
        lambda: raw((bytes(1 << 20) for _ in range(50)), "a/b"), 413, "2,500,000 bytes"
    ),
    "3 MB of program": (lambda: raw(bytes(3 << 20)), 413, "2,500,000 bytes"),
    "wrong formats": (
        lambda: sent("/v1/execute", {"code": "x", "files": [0] * 100_000}), 422, "files.0: "
    ),
    "many formats": (
        lambda: sent("/v1/execute", {"code": "x", "files": ["step"] * 20_000}), 422, "at most 32"
    ),
    "wrong messages": (
        lambda: sent(CHATS, {"model": MODEL, "messages": [{}] * 100_000}), 422, "messages.0.role"
    ),
    "many messages": (
        lambda: sent(CHATS, {"model": MODEL, "messages": [{"role": "user"}] * 101}),
        422, "at most 100",
    ),
    "many values": (
        lambda: (CHATS, {"content": b'{"x": [' + b"[]," * 500_000 + b"0]}", "headers": JSON}),
        413, "over 500,000 values",
    ),
    "many parts": (
        lambda: sent(CHATS, {"model": MODEL, "messages": [
            {"role": "user", "content": [{"type": "text"}] * 101}]}),
        422, "at most 100",
    ),
    "long name of a model": (lambda: asked(data_url(picture()), "x" * 1_000_000), 404, MODEL),
    "long name of a format": (
        lambda: sent("/v1/execute", {"code": "x", "files": ["x" * 1_000_000]}), 422, "choose from"
    ),
    "long address": (lambda: asked(f"http://{'x' * 60_000}/"), 400, ""),
    "large picture": (lambda: image(bytes(25 << 20)), 413, "20,971,520"),
    "unknown model": (lambda: asked(data_url(picture()), "gpt-4o"), 404, "gpt-4o"),
    "http address": (lambda: asked("http://example.com/a.png"), 400, "data URLs"),
    "metadata address": (lambda: asked("http://169.254.169.254/"), 400, "data URLs"),
    "file address": (lambda: asked("file:///etc/passwd"), 400, "data URLs"),
    "another port": (lambda: asked("http://127.0.0.1:1/"), 400, "data URLs"),
    "host as user": (lambda: asked(f"{at('')}@example.com/"), 400, "example.com"),
    "redirect": (lambda: asked(at("/away")), 400, "302"),
    "endless file": (lambda: asked(at("/endless")), 413, "too large"),
    "plain data": (lambda: asked("data:image/png,hello"), 400, "data URL"),
    "wrong base64": (lambda: asked("data:image/png;base64,@@@"), 400, "base64"),
    "text as picture": (lambda: asked(data_url(b"hello")), 422, "no picture"),
    "only text": (
        lambda: sent(CHATS, {"model": MODEL, "messages": [{"role": "user", "content": "?"}]}),
        400, "no picture",
    ),
    "several answers": (lambda: asked(data_url(picture()), n=3), 400, "n must be 1"),
    "no messages": (lambda: sent(CHATS, {"model": MODEL, "messages": []}), 422, "messages"),
    "no JSON": (lambda: raw(b"{"), 422, "JSON"),
    "deep JSON": (lambda: raw(b'{"code": ' + b"[" * 100_000), 400, "parsing"),
    "JSON sent as a form": (
        lambda: raw(b'{"code": ""}', "application/x-www-form-urlencoded"), 422, "Content-Type: app"
    ),
    "no code": (lambda: sent("/v1/execute", {}), 422, "code"),
    "much code": (lambda: sent("/v1/execute", {"code": "x" * 300_000}), 413, "200,000 bytes"),
    "bad reference": (
        lambda: sent("/v1/score", {"prediction": BOX, "reference": "oops"}), 422, "reference"
    ),
    "unknown alignment": (
        lambda: sent("/v1/score", {"prediction": BOX, "reference": BOX, "alignment": "\ud800"}),
        422, "alignment",
    ),
    "unknown route": (lambda: ("/v1/oops", {}), 404, "POST /v1/oops"),
    "long route": (lambda: ("/v1/" + "x" * 50_000, {}), 404, "POST /v1/xxx"),
}  # fmt: skip


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize("name", BAD)
def test_bad_input_gets_a_status_and_a_message(name, client):
    make, status, text = BAD[name]
    path, request = make()
    answer = client.post(path, **request)
    error = answer.json()["error"]
    assert answer.status_code == status and text in error["message"], error
    assert set(error) == {"message", "type", "code"} and len(error["message"]) <= 300
    assert answer.headers["x-request-id"] and works(client)


def test_methods_that_a_path_does_not_take(client):
    for method, path in [("GET", "/v1/execute"), ("POST", "/health"), ("OPTIONS", "/metrics")]:
        answer = client.request(method, path)
        assert answer.status_code == 405 and answer.headers["allow"] in ("GET", "POST")
        assert answer.json()["error"]["code"] == "method_not_allowed"
    for path in ("/health", "/ready", "/docs", "/v1/models"):
        answer = client.head(path)
        assert answer.status_code == 200 and not answer.content


def test_a_picture_from_a_host_that_is_allowed(client):
    path, request = asked(at("/part.png"), effort="none")
    assert client.post(path, **request).status_code == 200


@pytest.mark.parametrize(
    "code",
    [
        "result = open('/etc/passwd').read()",
        "x = bytearray(1 << 40)",
        "import os, signal\nos.kill(os.getppid(), signal.SIGKILL)",
        "import os\nwhile True: os.fork()",
        "result = '\ud800'",
    ],
)
def test_hostile_programs_are_failures(code, client):
    path, request = sent("/v1/execute", {"code": code})
    answer = client.post(path, **request)
    assert answer.status_code == 200 and answer.json()["failure"]["message"]
    assert works(client)


def test_a_body_that_never_arrives(base, client):
    host, port = re.fullmatch(r"http://(.+):(\d+)", base).groups()
    with socket.create_connection((host, int(port)), timeout=30) as slow:
        head = "POST /v1/execute HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
        slow.sendall(f"{head}Content-Length: 100\r\n\r\n{{".encode())
        assert works(client)
        answer = http.client.HTTPResponse(slow)
        answer.begin()
        assert answer.status == 408 and json.load(answer)["error"]["code"] == "too_slow"
    assert works(client)


@pytest.mark.parametrize("kind", ["execute", "generate", "stream"])
def test_a_client_that_leaves_takes_its_work_along(kind, client, service):
    path, request = {
        "execute": ("/v1/execute", {"json": {"code": FOREVER}}),
        "generate": image(HOPELESS, effort="high"),
        "stream": asked(data_url(HOPELESS), stream=True, effort="high"),
    }[kind]
    patience = httpx.Timeout(2, connect=30)
    with (
        pytest.raises(httpx.ReadTimeout),
        client.stream("POST", path, **request, timeout=patience) as answer,
    ):
        answer.read()
    assert eventually(lambda: service.load() == FREE, 15)
    path, request = image(picture(), effort="none")  # the model has stopped too
    assert client.post(path, **request, timeout=20).is_success and works(client)


def test_who_comes_when_all_places_are_taken_is_told_when_to_come_back(base, client, service):
    def hang():
        with pytest.raises(httpx.ReadTimeout):
            httpx.post(f"{base}/v1/execute", json={"code": FOREVER}, timeout=4)

    threads = [threading.Thread(target=hang) for _ in range(2)]
    for thread in threads:
        thread.start()
    assert eventually(lambda: service.load()["programs"] == (1, 1), 5)
    for path, body in [
        ("/v1/execute", {"code": BOX}),
        ("/v1/score", {"prediction": BOX, "reference": BOX}),
    ]:
        answer = client.post(path, json=body)
        assert answer.status_code == 429 and answer.json()["error"]["code"] == "busy"
        assert int(answer.headers["retry-after"]) >= 1
    assert client.get("/health").status_code == 200
    assert 'image2cad_waiting{work="programs"} 1.0' in client.get("/metrics").text
    for thread in threads:
        thread.join()
    assert eventually(lambda: service.load() == FREE) and works(client)


def test_deadlines(client, service, monkeypatch):
    monkeypatch.setattr(service, "limits", Limits(seconds={"low": 0.2}, quick_seconds=0.5))
    path, request = image(picture())
    answer = client.post(path, **request)
    assert answer.status_code == 504 and "0.2 s" in answer.json()["error"]["message"]
    answer = client.post("/v1/execute", json={"code": FOREVER})
    assert answer.status_code == 504 and answer.json()["error"]["code"] == "deadline"
    monkeypatch.undo()
    assert works(client)
