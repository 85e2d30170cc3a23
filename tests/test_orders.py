"""Protects what can be ordered of the API beside a picture: size, region, formats, chat fields.

A real server with the nano model answers OpenAI's own client and plain HTTP.
"""

import base64
import io
import json

import openai
import pytest
from PIL import Image, ImageDraw
from server import BOX, MODEL, base, chat, client, data_url, encoded, picture, service

from image2cad.serving.backends import Backend
from metrics.execution import measure_file, run_cadquery

__all__ = ["base", "client", "service"]  # fixtures

CHATS = "/v1/chat/completions"
CYLINDER = 'import cadquery as cq\nresult = cq.Workplane("XY").circle(10).extrude(5)'


def sides(part):
    low, high = part["bounding_box"]
    return [b - a for a, b in zip(low, high, strict=True)]


def generate(client, data, **fields):
    fields = {"effort": "none", **fields}
    return client.post("/v1/generate", files={"image": ("a.png", data)}, data=fields)


def saved(image, kind, **options):
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


# ---- Size


def test_a_part_at_its_real_size(client, tmp_path):
    answer = client.post(
        "/v1/execute", json={"code": BOX, "length": 120, "files": ["step", "stl", "py"]}
    ).json()
    assert sides(answer["part"]) == pytest.approx([40, 80, 120])
    assert answer["part"]["size"] == "given" and answer["part"]["longest_side"] == 120
    assert answer["part"]["text"] == "40 x 80 x 120 mm, 384000 mm3; size given"
    assert run_cadquery(answer["code"]).volume == pytest.approx(384_000)
    for kind in ("step", "stl"):
        file = tmp_path / f"part.{kind}"
        file.write_bytes(base64.b64decode(answer["files"][kind]))
        assert measure_file(file).volume == pytest.approx(384_000, rel=1e-5)
    text = base64.b64decode(answer["files"]["py"]).decode()
    assert text.startswith("# image2cad: lengths in mm; 40 x 80 x 120 mm") and "size given" in text
    named = client.post("/v1/execute", json={"code": CYLINDER, "length": "disc diameter=50"})
    assert named.status_code == 200, named.text  # where it fails, it says which there are
    assert max(sides(named.json()["part"])) == pytest.approx(50)
    as_it_is = client.post("/v1/execute", json={"code": BOX}).json()
    assert as_it_is["part"]["size"] == "as in the program" and not as_it_is["code"]
    assumed = generate(client, picture(), effort="low", files="py").json()
    assert assumed["part"]["size"] == "assumed"
    assert "size assumed" in base64.b64decode(assumed["files"]["py"]).decode()
    given = generate(client, picture(), effort="low", length="80").json()
    assert max(sides(given["part"])) == pytest.approx(80) and given["part"]["size"] == "given"
    assert sorted(sides(given["part"])) == pytest.approx([80 / 3, 160 / 3, 80], rel=0.02)


def test_a_length_that_is_none_is_told_at_once(client, service, monkeypatch):
    monkeypatch.setattr(service, "backend", Backend(MODEL, lambda *_: 1 / 0))  # is not asked
    for length in (0, -3, 1e9, 1e-9, "x", "80 cm", "=6", True, [80]):
        answer = client.post("/v1/execute", json={"code": BOX, "length": length})
        assert answer.status_code == 422 and "length" in answer.json()["error"]["message"]
        asked = client.post(CHATS, json=chat(data_url(picture()), length=length))
        assert asked.status_code == 422 and "length" in asked.json()["error"]["message"]
    for text in ("NaN", "Infinity"):
        body = json.dumps({"code": BOX}).replace("}", f', "length": {text}}}')
        answer = client.post(
            "/v1/execute", content=body, headers={"content-type": "application/json"}
        )
        assert answer.status_code == 422 and "millimetres" in answer.json()["error"]["message"]
    assert generate(client, picture(), length="0").status_code == 422
    unknown = client.post("/v1/execute", json={"code": BOX, "length": "sprocket width=6"})
    assert unknown.status_code == 422 and "no measure 'sprocket width'" in unknown.text


# ---- Region and formats


def test_a_region_of_a_picture_with_more_than_the_part(client):
    sheet = Image.new("RGB", (900, 700), "white")
    sheet.paste(Image.open(io.BytesIO(picture())), (380, 150))
    ImageDraw.Draw(sheet).rectangle((20, 20, 300, 650), "red", "black")
    region = "380,150,828,598"
    answer = generate(client, encoded(sheet), effort="low", box=region).json()
    assert answer["likeness"] > 0.99
    assert sorted(sides(answer["part"])) == pytest.approx([100 / 3, 200 / 3, 100], rel=0.02)
    alone = generate(client, picture()).json()["likeness"]
    asked = chat(data_url(encoded(sheet)), effort="none", box=[380, 150, 828, 598])
    assert client.post(CHATS, json=asked).json()["image2cad"]["likeness"] == alone
    turned = sheet.transpose(Image.Transpose.ROTATE_90)  # as a camera stores it
    exif = Image.Exif()
    exif[274] = 6
    upright = generate(client, saved(turned, "JPEG", quality=95, exif=exif), box=region)
    assert upright.json()["likeness"] == pytest.approx(alone, abs=0.05)
    for box, text in [
        ("1,2,3", "box is x0,y0,x1,y1"), ("300,0,200,50", "box is"), ("a,b,c,d", "box is"),
        ("0,0,nan,9", "box is"), ("-5,0,90,90", "box is"), ("0,0,901,700", "900 x 700"),
        ("0,0,9,9", "at least 16"), ("840,20,880,90", "box is blank"),
    ]:  # fmt: skip
        answer = generate(client, encoded(sheet), box=box)
        assert answer.status_code == 422 and text in answer.json()["error"]["message"], box
    two = [("image", ("a.png", picture())), ("image", ("b.png", picture()))]
    answer = client.post("/v1/generate", files=two, data={"box": "0,0,90,90"})
    assert answer.status_code == 422 and "one picture only" in answer.text


def test_formats_of_pictures(client):
    part = Image.open(io.BytesIO(picture())).convert("RGB")
    alone = generate(client, picture()).json()["likeness"]
    pages = {"save_all": True, "append_images": [Image.new("RGB", part.size, "red")]}
    for data, several in [
        (saved(part, "TIFF"), False), (saved(part, "TIFF", compression="tiff_lzw", **pages), True),
        (saved(part, "AVIF", quality=100), False), (saved(part, "GIF", **pages), True),
        (saved(part, "PNG", **pages), True), (saved(part, "WEBP", lossless=True), False),
    ]:  # fmt: skip
        answer = generate(client, data).json()
        assert answer["likeness"] == pytest.approx(alone, abs=0.05)
        told = [note for note in answer["notes"] if "the first was read" in note]
        assert len(told) == several
    for data, name in [
        (b'<?xml version="1.0"?>\n<!-- a -->\n<svg xmlns="http://www.w3.org/2000/svg"/>', "an SVG"),
        (b"%PDF-1.7", "a PDF"), (b"\0\0\0\x18ftypheic\0\0", "a HEIC"),
        (b"ISO-10303-21;HEADER;", "a STEP"),
    ]:  # fmt: skip
        answer = generate(client, data)
        assert answer.status_code == 422 and f"this is {name}" in answer.json()["error"]["message"]


# ---- Chats


def test_fields_of_a_chat(base, service, monkeypatch):
    ask = openai.OpenAI(base_url=f"{base}/v1", api_key="any", max_retries=0).chat.completions.create
    sent = chat(data_url(picture()))
    schema = {"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": "object"}}}
    tool = {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}
    forced = {"type": "function", "function": {"name": "f"}}
    for field, text in [
        ({"n": 2}, "n must be 1"), ({"response_format": schema}, "response_format"),
        ({"response_format": {"type": "json_object"}}, "response_format"),
        ({"tools": [tool], "tool_choice": "required"}, "tool_choice"),
        ({"tools": [tool], "tool_choice": forced}, "tool_choice"),
        ({"extra_body": {"function_call": {"name": "f"}}}, "tool_choice"),
        ({"logprobs": True}, "logprobs"), ({"reasoning_effort": "vast"}, "reasoning_effort"),
    ]:  # fmt: skip
        with pytest.raises(openai.BadRequestError) as refused:
            ask(**sent, **field)
        assert text in refused.value.message
    with pytest.raises(openai.UnprocessableEntityError, match="max_tokens"):
        ask(**sent, max_tokens=0)
    answer = ask(
        **sent, extra_body={"effort": "none"}, user="me", stop=["x"], seed=3, temperature=0.2,
        metadata={"a": "b"}, tools=[tool], tool_choice="auto", response_format={"type": "text"},
    )  # fmt: skip
    told = answer.model_extra["image2cad"]
    assert set(told["ignored"]) == {
        "user", "stop", "seed", "temperature", "metadata", "tools", "tool_choice",
        "response_format",
    }  # fmt: skip
    assert told["size"] == "assumed" and answer.choices[0].finish_reason == "stop"
    cut = ask(**sent, extra_body={"effort": "none"}, max_tokens=4)
    assert cut.choices[0].finish_reason == "length"
    assert cut.usage.completion_tokens < answer.usage.completion_tokens
    sure = ask(**sent, max_completion_tokens=4)  # the picture is traced all the same
    assert sure.choices[0].finish_reason == "stop"
    assert sure.model_extra["image2cad"]["source"] == "traced"
    seen = []

    def propose(image, effort):
        seen.append(effort)
        return [BOX]

    monkeypatch.setattr(service, "backend", Backend(MODEL, propose))
    for named in ("none", "minimal", "low", "medium"):
        ask(**sent, reasoning_effort=named)
    monkeypatch.setitem(service.limits.seconds, "high", 1e-3)
    with pytest.raises(openai.InternalServerError):  # its deadline shows that it was high
        ask(**sent, reasoning_effort="high")
    assert seen[:4] == ["none", "none", "low", "low"]
    both = ask(**sent, reasoning_effort="high", max_tokens=9, extra_body={"effort": "none"})
    assert both.model_extra["image2cad"]["ignored"] == ["reasoning_effort", "max_tokens"]


def test_a_stream_says_how_far_to_trust_it(base):
    ask = openai.OpenAI(base_url=f"{base}/v1", api_key="any").chat.completions.create
    events = list(
        ask(**chat(data_url(picture())), stream=True, user="me", extra_body={"length": 80})
    )
    (last,) = [one for one in events if one.choices and one.choices[0].finish_reason]
    told = last.model_extra["image2cad"]
    assert told["likeness"] > 0.99 and told["confidence"] > 0.9 and told["ignored"] == ["user"]
    assert told["source"] in ("model", "traced") and told["size"] == "given"
    assert "80 mm" in told["measures"] and told["failure"] is None
    code = "".join(one.choices[0].delta.content or "" for one in events if one.choices)
    low, high = run_cadquery(code).bounding_box
    assert (high - low).max() == pytest.approx(80)


def test_text_after_an_answer(client, service, monkeypatch):
    first = chat(data_url(picture()))["messages"]
    said = [{"role": "assistant", "content": BOX}, {"role": "user", "content": "Twice as high!"}]
    body = {"model": MODEL, "messages": [*first, *said]}
    refused = client.post(CHATS, json=body)
    assert refused.status_code == 400 and "cannot change a part" in refused.text
    heard = []

    def propose(image, effort, text):
        heard.append((effort, text))
        return [BOX.replace("60", "120")]

    monkeypatch.setattr(service, "backend", Backend(MODEL, propose, reads_text=True))
    answer = client.post(CHATS, json=body).json()
    assert "120" in answer["choices"][0]["message"]["content"]
    ((effort, text),) = heard
    assert effort == "none" and text.endswith("Change it so:\nTwice as high!") and BOX in text
    assert any("not fitted to the picture" in note for note in answer["image2cad"]["notes"])
    again = client.post(CHATS, json=body | {"messages": [*first, *said, *first]})
    assert again.status_code == 200 and heard[-1][1] == "?"  # a new picture begins anew
