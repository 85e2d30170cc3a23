"""Protects the page's endpoints: what they answer and refuse; who leaves takes the work along."""

from __future__ import annotations

import os
from pathlib import Path

import httpx
import pytest
from gradio_client import Client, handle_file
from gradio_client.exceptions import AppError
from paging import BOX, BROKEN, PICTURE, Slow, address, service, uploads
from watching import eventually

__all__ = ["address", "service", "uploads"]  # fixtures

UNKNOWN = {"_type": "gradio.FileData"}


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


def test_what_is_no_program_is_told(address: str, capfd: pytest.CaptureFixture) -> None:
    for wrong in (None, 5, ["result"], {"code": BOX}):
        for programs in ([wrong], [wrong, BOX], [BOX, wrong]):
            name, rest = ("score", ["best"]) if len(programs) == 2 else ("execute", [])
            assert "Code must be text" in called(address, name, [*programs, *rest])
    assert "Alignment is one of" in called(address, "score", [BOX, BOX, ["best"]])
    assert "Traceback" not in capfd.readouterr().err


ENDPOINTS = {
    "generate": (handle_file(PICTURE), "low"),
    "execute": (BOX,),
    "score": (BOX, BOX),
}


@pytest.mark.parametrize("name", ENDPOINTS)
def test_work_ends_when_nobody_wants_it(address: str, service: Slow, name: str) -> None:
    service.hold = True
    for give_up in (lambda job, client: job.cancel(), lambda job, client: client.close()):
        service.begun.clear(), service.ended.clear()
        client = Client(address, verbose=False)
        job = client.submit(*ENDPOINTS[name], api_name=f"/{name}")
        assert service.begun.wait(30)
        assert eventually(lambda job=job: job.communicator.event_id)  # a cancel has to name it
        give_up(job, client)
        assert service.ended.wait(30)


def pressed(config: dict, name: str) -> dict:
    """What is wired to the button with this elem_id, and the values that a browser sends."""
    buttons = {one["id"] for one in config["components"] if one["props"].get("elem_id") == name}
    events = config["dependencies"]
    event = next(one for one in events if buttons & {i for i, _ in one["targets"]})
    codes = {one["id"] for one in config["components"] if one["type"] == "code"}
    data = [BOX if one in codes else None for one in event["inputs"]]
    return {"fn_index": event["id"], "session_hash": "me", "data": data}


@pytest.mark.parametrize("name", ["rebuild", "score", "save-step"])
def test_a_visitor_who_leaves_takes_the_work_along(address: str, service: Slow, name: str) -> None:
    service.hold = True
    act = pressed(httpx.get(f"{address}/config").json(), name)
    with httpx.stream("GET", f"{address}/gradio_api/heartbeat/me", timeout=60):
        httpx.post(f"{address}/gradio_api/queue/join", json=act).raise_for_status()
        with httpx.stream("GET", f"{address}/gradio_api/queue/data?session_hash=me", timeout=60):
            assert service.begun.wait(30)
    assert service.ended.wait(30)
