"""Protects what clients of the HTTP API rely on: OpenAI's own client, plain HTTP, other servers.

A real server with the nano model answers. What bad input gets is in test_api_abuse.py.
"""

import base64
import functools
import io
import json
import logging
import re

import openai
import pytest
from fastapi.testclient import TestClient
from PIL import Image
from prometheus_client.parser import text_string_to_metric_families
from server import BOX, MODEL, base, chat, client, data_url, picture, service, works
from watching import eventually

from image2cad.common.errors import InputError
from image2cad.serving.api.routes import make_api
from image2cad.serving.backends import Backend, Unreachable, remote_backend
from metrics.execution import measure_file, run_cadquery

__all__ = ["base", "client", "service"]  # fixtures


def stub(image, effort):
    return [BOX]


def test_the_official_client(base):
    client = openai.OpenAI(base_url=f"{base}/v1", api_key="any", max_retries=0)
    assert [model.id for model in client.models.list()] == [MODEL]
    assert client.models.retrieve(MODEL).id == MODEL
    with pytest.raises(openai.NotFoundError) as missing:
        client.models.retrieve("org/" + "long" * 500)
    assert missing.value.code == "model_not_found" and MODEL in missing.value.message
    sent = chat(data_url(picture()))
    ask = functools.partial(client.chat.completions.create, **sent, max_tokens=1000, temperature=0)
    whole = ask(stream=None)
    code = whole.choices[0].message.content
    assert run_cadquery(code).solids == 1 and whole.choices[0].finish_reason == "stop"
    assert whole.usage.completion_tokens > 0
    assert whole.usage.total_tokens == whole.usage.prompt_tokens + whole.usage.completion_tokens
    assert whole.model_extra["image2cad"]["likeness"] > 0.99
    options = {"include_usage": True}
    events = list(ask(stream=True, stream_options=options, extra_body={"effort": "none"}))
    text = "".join(e.choices[0].delta.content or "" for e in events if e.choices)
    assert text == ask(extra_body={"effort": "none"}).choices[0].message.content
    assert len(events) > 3 and events[0].choices[0].delta.role == "assistant"
    assert events[-2].choices[0].finish_reason == "stop" and events[-1].usage.prompt_tokens > 0
    with pytest.raises(openai.NotFoundError) as unknown:
        client.chat.completions.create(**sent | {"model": "gpt-4o"})
    assert unknown.value.code == "model_not_found" and MODEL in unknown.value.message


def test_a_stream_ends_with_done_and_tells_of_errors(client, service, monkeypatch):
    path, address = "/v1/chat/completions", data_url(picture())
    with client.stream("POST", path, json=chat(address, stream=True, effort="none")) as answer:
        lines = [line for line in answer.iter_lines() if line]
    assert answer.headers["content-type"].startswith("text/event-stream")
    assert lines[-1] == "data: [DONE]" and lines[0].startswith('data: {"id"')
    wrong = client.post(path, json=chat(address, stream=True, effort="odd"))
    assert wrong.status_code == 422 and "effort" in wrong.json()["error"]["message"]

    def lost(image, effort):
        raise Unreachable("cannot reach the model")

    monkeypatch.setattr(service, "backend", Backend(MODEL, lost))
    # With effort none there is nothing but the model; else test_backend.py has what is answered.
    answer = client.post(path, json=chat(address, stream=True, effort="none"))
    last = json.loads(answer.text.strip().splitlines()[-1].removeprefix("data: "))
    assert last["error"]["code"] == "backend_unreachable"
    answer = client.post(path, json=chat(address, effort="none"))
    assert answer.status_code == 502 and "cannot reach" in answer.json()["error"]["message"]


def test_a_picture_to_files(client, tmp_path):
    answer = client.post(
        "/v1/generate",
        files={"image": ("part.png", picture(), "image/png")},
        data={"effort": "low", "files": "step, glb,dxf"},
    ).json()
    assert answer["likeness"] > 0.99 and answer["confidence"] > 0.9 and answer["failure"] is None
    assert answer["source"] in ("model", "traced") and answer["candidates"] >= 1
    part, (low, high) = answer["part"], answer["part"]["bounding_box"]
    sides = sorted(b - a for a, b in zip(low, high, strict=True))
    assert sides == pytest.approx([100 / 3, 200 / 3, 100], rel=0.02) and part["solids"] == 1
    step = tmp_path / "part.step"
    step.write_bytes(base64.b64decode(answer["files"]["step"]))
    assert measure_file(step).volume == pytest.approx(part["volume"], rel=1e-6)
    assert set(answer["files"]) | set(answer["no_files"]) == {"step", "glb", "dxf"}


def test_programs_and_scores(client):
    answer = client.post("/v1/execute", json={"code": BOX, "files": ["stl", "py"]}).json()
    part = answer["part"]
    assert part["area"] == pytest.approx(8_800) and part["valid"] is True
    assert base64.b64decode(answer["files"]["py"]).decode() == BOX
    sphere = {"code": "result = cq.Workplane().sphere(3)", "files": ["dxf"]}
    assert "dxf" in client.post("/v1/execute", json=sphere).json()["no_files"]
    wrong = client.post("/v1/execute", json={"code": "x = 1\nresult = oops"})
    assert wrong.status_code == 200 and wrong.json()["part"] is None
    assert wrong.json()["failure"]["kind"] == "exception" and wrong.json()["failure"]["line"] == 2
    cube = "result = cq.Workplane().box(5, 5, 5)"
    score = client.post("/v1/score", json={"prediction": cube, "reference": BOX}).json()
    assert score["vsr"] == 1 and 0.3 < score["iou_best"] < 0.8 and score["alignment"] == "best"
    failed = client.post("/v1/score", json={"prediction": "oops", "reference": BOX}).json()
    assert failed["vsr"] == failed["iou_best"] == 0 and "oops" in failed["failure"]["message"]


def test_another_server_of_the_same_kind_is_a_backend(base, service, monkeypatch):
    monkeypatch.setattr(service, "backend", Backend(MODEL, stub))
    backend, image = (
        remote_backend(f"{base}/v1", MODEL, key="any"),
        Image.open(io.BytesIO(picture())),
    )
    (code,) = backend.propose(image, "none")
    assert backend.name == MODEL and run_cadquery(code).solids == 1
    assert backend.tokens(image, [code])[1] > 0
    # Three requests at a time to a server with room for two: each is asked again when it is told.
    assert backend.propose(image, "low") == [code]
    with pytest.raises(InputError, match="no model 'other'; it has models/nano"):
        remote_backend(f"{base}/v1", "other")
    with pytest.raises(Unreachable, match="404"):
        remote_backend(base, MODEL)
    with pytest.raises(Unreachable, match="cannot reach http://127.0.0.1:9/v1/models"):
        remote_backend("http://127.0.0.1:9/v1", MODEL)
    with pytest.raises(InputError):
        remote_backend("no address", MODEL)


def test_keys(service):
    client = TestClient(make_api(service, keys=["first key", "zweiter Schlüssel"]))
    for headers in (
        {},
        {"Authorization": "Bearer wrong"},
        {"Authorization": "Bearer "},
        {"Authorization": "Basic first key"},
        {"Authorization": "first key"},
    ):
        answer = client.get("/v1/models", headers=headers)
        assert answer.status_code == 401 and answer.json()["error"]["code"] == "invalid_api_key"
        assert answer.headers["www-authenticate"] == "Bearer"
        assert client.post("/v1/nowhere", headers=headers).status_code == 401
    for key in ("first key", "zweiter Schlüssel"):
        headers = {"Authorization": f"Bearer {key}".encode()}
        assert client.get("/v1/models", headers=headers).is_success
    assert client.get("/health").is_success and client.get("/metrics").is_success


def test_the_log_and_the_metrics_hold_numbers_and_no_content(client, service, caplog, monkeypatch):
    def written():
        return [record for record in caplog.records if record.name == "image2cad.requests"]

    with caplog.at_level(logging.INFO, "image2cad.requests"):
        client.post("/v1/execute", json={"code": BOX}, headers={"X-Request-Id": "mine-1"})
        client.get("/nowhere?secret=1")
        client.get("/v1/nowhere?secret=1")
        monkeypatch.setattr(service, "build", lambda *_: 1 / 0)
        broken = client.post("/v1/execute", json={"code": BOX})
        monkeypatch.undo()
        # A line is written when its answer has been sent.
        assert eventually(lambda: len(written()) == 3)
    assert broken.status_code == 500 and broken.json()["error"]["code"] == "internal_error"
    lines = [json.loads(record.getMessage()) for record in written()]
    routes = [(line["route"], line["status"]) for line in lines]
    assert routes == [("/v1/execute", 200), ("other", 404), ("/v1/execute", 500)]
    assert lines[0]["request"] == "mine-1" and lines[0]["seconds"] >= 0
    assert lines[2]["error"][0] == "ZeroDivisionError"
    assert "Workplane" not in caplog.text and "secret" not in caplog.text
    families = {f.name: f for f in text_string_to_metric_families(client.get("/metrics").text)}
    counts = {
        (sample.labels["route"], sample.labels["status"]): sample.value
        for sample in families["image2cad_requests"].samples
        if sample.name.endswith("_total")
    }
    assert counts["/v1/execute", "200"] >= 1 and counts["/v1/execute", "500"] == 1
    assert families["image2cad_running"].samples and families["image2cad_request_seconds"].samples
    assert works(client)


def test_the_documentation_needs_no_internet(client):
    page = client.get("/docs")
    assert page.headers["content-type"].startswith("text/html")
    assert "//cdn" not in page.text and "http://" not in page.text and "https://" not in page.text
    loaded = re.findall(r"(?:src|href)=\"([^\"]+)\"", page.text)
    assert {path.rpartition(".")[2] for path in loaded} >= {"css", "js"}
    for path in loaded:  # here, and without a key
        assert path.startswith("/") and client.get(path).status_code == 200, path
    paths = client.get("/openapi.json").json()["paths"]
    assert {"/v1/chat/completions", "/v1/generate", "/v1/execute", "/v1/score"} <= set(paths)
    assert {"/v1/models", "/health", "/ready", "/metrics"} <= set(paths)
    assert all(about["description"] for methods in paths.values() for about in methods.values())
