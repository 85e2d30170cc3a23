"""Protects the page's endpoints: what they answer and refuse; who leaves takes the work along."""

from __future__ import annotations

import functools
import json
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
    assert list(named["named_endpoints"]) == [
        "/generate", "/generate_views", "/execute", "/score",
    ]  # fmt: skip
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


def test_views_a_camera_and_text_reach_the_service(address: str, service: Slow) -> None:
    client, pictures = Client(address, verbose=False), [handle_file(PICTURE)] * 2
    ask = functools.partial(client.predict, api_name="/generate_views")
    got = ask(pictures, "low", "", "holes M6")
    assert got["ok"] and got["reason"] and got["notes"] == ["The model was not heard."]
    assert got["cameras"][0]["text"] == "azimuth -45°, elevation 35°, orthographic, known"
    assert ask(pictures[:1], "low", "front", "")["ok"]
    assert service.asked == [(2, "", "holes M6"), (1, "front", "")]
    for several, camera, why in (
        ([], "", "Give a picture first"),
        (pictures * 2, "", "may have 3 pictures, not 4"),
        (pictures[:1], "odd", "Camera is one of isometric, front"),
    ):
        with pytest.raises(AppError, match=why):
            ask(several, "low", camera, "")
    page = json.dumps(httpx.get(f"{address}/config").json()["components"])
    assert "Seen from (z is up)" in page and "go to the model of another server" in page


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
            views = [[{"path": str(path), **mark}], "low", "", ""]
            answer = called(address, "generate_views", views)
            assert "event: error" in answer and "likeness" not in answer
    kept = [file.name for file in Path(os.environ["GRADIO_TEMP_DIR"]).rglob("*")]
    assert "secret.png" not in kept and "passwd" not in kept  # not even copied
    link = {"path": f"{address}/x.png", "meta": UNKNOWN}
    several = ("generate_views", [[link], "low", "", ""])
    for name, data in (("generate", [link, "low"]), several, ("execute", [link])):
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


def wired(config: dict, name: str) -> dict:
    """What is wired to the button with this elem_id."""
    buttons = {one["id"] for one in config["components"] if one["props"].get("elem_id") == name}
    return next(d for d in config["dependencies"] if buttons & {i for i, _ in d["targets"]})


def join(address: str, event: dict, values: list) -> None:
    """Send values as a browser does; None for states, which the server has."""
    sent = {"fn_index": event["id"], "session_hash": "me", "data": values}
    httpx.post(f"{address}/gradio_api/queue/join", json=sent).raise_for_status()


def act(address: str, event: dict, values: list) -> dict:
    """What a browser gets for values."""
    join(address, event, values)
    url = f"{address}/gradio_api/queue/data?session_hash=me"
    with httpx.stream("GET", url, timeout=60) as answer:
        told = (json.loads(line[5:]) for line in answer.iter_lines() if line.startswith("data:"))
        return next(one["output"] for one in told if one["msg"] == "process_completed")


def leave_while(address: str, service: Slow, event: dict, values: list) -> None:
    service.hold = True
    service.begun.clear()
    with httpx.stream("GET", f"{address}/gradio_api/heartbeat/me", timeout=60):
        join(address, event, values)
        assert service.begun.wait(30)
    assert service.ended.wait(30)


def given(config: dict, event: dict) -> list:
    """Values for what the event takes: BOX for programs, what sliders show, nothing of states."""
    known = {one["id"]: one for one in config["components"]}
    kinds = [known.get(one, {"type": "state"}) for one in event["inputs"]]
    shown = {"code": lambda _: BOX, "slider": lambda one: one["props"]["value"]}
    return [shown.get(one["type"], lambda _: None)(one) for one in kinds]


@pytest.mark.parametrize("name", ["rebuild", "score", "save-step"])
def test_a_visitor_who_leaves_takes_the_work_along(address: str, service: Slow, name: str) -> None:
    config = httpx.get(f"{address}/config").json()
    event = wired(config, name)
    leave_while(address, service, event, given(config, event))


def test_a_visitor_who_moves_a_slider_and_leaves(address: str, service: Slow) -> None:
    config = httpx.get(f"{address}/config").json()
    rebuild = wired(config, "rebuild")
    assert "Rebuilt" in act(address, rebuild, given(config, rebuild))["data"][0]
    changes = (d for d in config["dependencies"] if any(t[1] == "change" for t in d["targets"]))
    sliders = act(address, next(changes), [None])["render_config"]
    both = {"components": config["components"] + sliders["components"]}
    event = sliders["dependencies"][0]
    values = given(both, event)
    moved = [25 if value == 20 else value for value in values]
    assert act(address, event, moved)["data"][1] == BOX.replace("20", "25")
    leave_while(address, service, event, [BOX.replace("20", "25"), *values[1:]])
