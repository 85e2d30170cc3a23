"""Protects the page: what a visitor sees after each act. What it refuses: test_endpoints.py."""

from __future__ import annotations

import asyncio
import base64
import functools
import json
import re
import zipfile
import zlib
from pathlib import Path
from types import SimpleNamespace

import gradio as gr
import httpx
import paging
import pytest
from paging import BOX, BROKEN, PICTURE, Slow, address, service, uploads
from PIL import Image

from image2cad.cad.numbered import numbers
from image2cad.common.errors import InputError
from image2cad.reading.differing import MISSING, TOO_MUCH, difference
from image2cad.rendering.raster import draw
from image2cad.serving.page import actions
from image2cad.serving.page.actions import Shown
from image2cad.serving.page.keeping import Entry, link_of, packed, program_in, unpacked
from image2cad.serving.page.regions import with_corner
from image2cad.serving.page.visitors import Asked, Stops
from image2cad.serving.service import Generated
from metrics.execution import measure_file, run_cadquery
from metrics.parts import Failure

__all__ = ["address", "service", "uploads"]  # fixtures


async def generated(service: Slow, uploads: Path, effort: str = "low") -> Shown:
    file = uploads / "mine.png"
    file.write_bytes(PICTURE.read_bytes())
    told: list[str] = []
    values = await actions.make_part(
        service, Stops(), str(file), effort, [], "me", lambda share, desc: told.append(desc)
    )
    return Shown(*values)


def test_a_visit(service: Slow, uploads: Path) -> None:
    made = asyncio.run(generated(service, uploads))
    # What is odd about the picture is said in the place of "a higher effort may help".
    for told in ("Made in 1.5 s", "It is odd &lt;b&gt;.", "The model was not heard."):
        assert told in made.message, told
    assert "higher effort" not in made.message
    assert made.code == BOX and made.template == BOX
    assert Path(made.model["value"]).read_bytes()[:4] == b"glTF"
    assert made.model["seen"][:2] == pytest.approx([-45, 35.26], abs=0.01)  # as in the picture
    assert Image.open(made.picture).size == made.drawing.size == (448, 448)
    for text in ("0.500", "25%", "20 × 40 × 60", "48\u2009000", "1, 6", "yes", "tracing",
                 "azimuth -45°, elevation 35°, orthographic, known"):  # fmt: skip
        assert text in made.measures, text

    broken = Shown(*actions.rebuild(service, BROKEN, made.entry, made.visit))
    assert "line 3: result = result.fillet(&#x27;&lt;b&gt;&#x27;)" in broken.message
    assert broken.model["__type__"] == "update" and "value" not in broken.model  # stays in view

    code = BOX.replace("60", "30")
    edited = Shown(*actions.rebuild(service, code, made.entry, made.visit))
    assert "20 × 40 × 30" in edited.measures and "Confidence" not in edited.measures
    assert re.search(r"likeness</th><td>0\.\d{3}", edited.measures)  # against the same picture
    assert [one.caption for one in edited.visit] == ["edited", "answer, low"]

    values = [one.value for one in numbers(code)]
    moved = edited
    for length in (25.0, 12.5):  # a row of moves is one entry of the visit
        rest = (edited.template, length, *values[1:])
        moved = Shown(*actions.move_slider(service, moved.code, moved.entry, moved.visit, *rest))
        assert moved.code == code.replace("20", f"{length:g}")
    assert [one.caption for one in moved.visit] == ["moved", "edited", "answer, low"]
    assert "12.5 × 40 × 30" in moved.measures and len(moved.gallery) == 3
    same = actions.move_slider(service, moved.code, moved.entry, moved.visit, *rest)
    assert all(one == gr.skip() for one in same)  # a field lost the focus, and nothing changed
    rest = (edited.template, 0.0, *values[1:])
    flat = Shown(*actions.move_slider(service, moved.code, moved.entry, moved.visit, *rest))
    assert 'role="alert"' in flat.message and "line 2" in flat.message
    stale = Shown(*actions.move_slider(service, BOX, moved.entry, moved.visit, *rest))
    assert "Press Rebuild" in stale.message

    back = Shown(*actions.go_back(service, moved.visit, 2))
    assert back.code == BOX and "25%" in back.measures and back.visit == moved.visit
    again = Shown(*actions.rebuild(service, back.code, back.entry, back.visit))
    assert again.visit == back.visit  # nothing new


def test_files_are_made_when_asked_for(service: Slow, uploads: Path) -> None:
    step = Path(actions.download(service, "step", BOX))
    assert measure_file(step).volume == pytest.approx(48_000) and step.name == "part.step"
    assert Path(actions.download(service, "py", BOX)).read_text() == BOX
    with pytest.raises(gr.Error, match="line 3: result = result.fillet"):
        actions.download(service, "stl", BROKEN)
    with pytest.raises(gr.Error, match="No DXF: the program cannot be read"):
        actions.download(service, "dxf", BOX)


def test_sizes_numbers_and_undo(service: Slow, uploads: Path) -> None:
    file = uploads / "bracket.png"
    file.write_bytes(PICTURE.read_bytes())
    quiet = lambda share, desc: None  # noqa: E731
    asked = Asked(length="120", box="20, 30, 400, 420")
    make = functools.partial(actions.make_part, service, Stops(), str(file), "low")
    made = Shown(*asyncio.run(make([], "me", quiet, asked)))
    assert service.sizes[-1] == (380, 390)  # the region alone
    assert "120 mm" in made.measures and "Size</th><td>given" in made.measures
    assert "probably wrong, 25%" in made.measures and "Probably wrong: 25%" in made.message
    assert made.entry.name == "bracket" and made.difference.size == (448, 448)
    again = Shown(*asyncio.run(make(made.visit, "me", quiet)))
    assert "Size</th><td>assumed" in again.measures and again.entry.name == "bracket-2"

    rest = (again.entry, again.visit)
    wide = Shown(*actions.set_number(service, again.code, *rest, "Box length", "25 mm"))
    assert "25 × 40 × 60 mm" in wide.measures and wide.turn != again.turn
    file = Path(actions.download(service, "py", "edited", wide.entry))
    assert file.name == "bracket-2.py"
    assert "lengths in mm" in file.read_text() and "size assumed" in file.read_text()
    large = Shown(*actions.resize(service, wide.code, wide.entry, wide.visit, "box length=50"))
    assert "50 × 80 × 120 mm" in large.measures and large.entry.size == "given"
    for value, why in (("x", "number of millimetres"), ("nan", "cannot be nan")):
        odd = actions.set_number(service, large.code, large.entry, large.visit, "box length", value)
        assert why in Shown(*odd).message
    odd = actions.resize(service, large.code, large.entry, large.visit, "knob=5")
    assert "no measure &#x27;knob&#x27;" in Shown(*odd).message
    odd = actions.resize(service, "edited", large.entry, large.visit, "80")
    assert "Press Rebuild first" in Shown(*odd).message

    back = Shown(*actions.undo(service, large.entry, large.visit))
    assert back.code == wide.code and back.turn != large.turn
    first = Shown(*actions.undo(service, back.entry, back.visit))
    assert first.code == again.code and "25%" in first.measures  # the answer's figures again
    assert not actions.mark_edited(first.code + "\n", first.entry)
    assert "Edited and not built" in actions.mark_edited(first.code + "1", first.entry)
    package = zipfile.ZipFile(actions.download_all(service, large.visit))
    assert {"bracket-2.step", "bracket-2.py", "bracket.step"} <= set(package.namelist())
    assert len(package.namelist()) == 2 * len(large.visit)


def test_what_a_browser_or_a_link_brings_is_not_believed(service: Slow, uploads: Path) -> None:
    made = asyncio.run(generated(service, uploads))
    sent = json.loads(json.dumps(packed(made.entry, made.visit)))
    entry, visit = unpacked(sent)
    assert entry == made.entry and visit == made.visit
    opened = Shown(*actions.open_again(service, sent, ""))
    assert opened.code == BOX and "25%" in opened.measures and len(opened.gallery) == 1
    for odd in (None, 5, [], {"parts": 3}, {"parts": [1, {"code": 5}, {"code": " "}]}):
        assert unpacked(odd) == (Entry(), [])
    odd = {"code": BOX, "picture": "/etc/passwd", "thumbnail": ["x"], "name": "../a<b>",
           "eye": "up", "found": [["<b>", "x"], ["y"], 5], "size": "<i>"}  # fmt: skip
    opened = Shown(*actions.open_again(service, {"parts": [odd]}, "#"))
    assert opened.picture is None and "&lt;b&gt;" in opened.measures
    assert opened.entry.name == "ab" and opened.entry.size == "as in the program"

    link = link_of(BOX)
    assert program_in(f"#{link}") == BOX and program_in("#") == program_in("x=1") == ""
    shared = Shown(*actions.open_again(service, sent, f"#{link}"))
    assert shared.entry.caption == "from a link"
    bomb = base64.urlsafe_b64encode(zlib.compress(bytes(50 << 20))).decode()
    for text in ("program=x", "program=####", f"program={bomb}", link[:-4]):
        assert 'role="alert"' in Shown(*actions.open_again(service, None, text)).message, text
    with pytest.raises(InputError, match="letters of a program"):
        link_of("x" * 10**6)


def test_a_region_comes_of_two_clicks() -> None:
    text = with_corner("", (300, 60))
    assert text == "300, 60" and with_corner(text, (40, 200)) == "40, 60, 300, 200"
    assert with_corner("40, 60, 300, 200", (1, 2)) == "1, 2"


def test_a_difference_is_told_apart_by_colour() -> None:
    part, other = (run_cadquery(BOX.replace("20", side)) for side in ("20", "40"))
    one, two = Image.fromarray(draw(part)), Image.fromarray(draw(other))

    def share(shown, colour):
        return float((shown == colour).all(axis=2).mean())

    same = difference(one, one)
    assert share(same, MISSING) == share(same, TOO_MUCH) == 0
    for framed in (True, False):
        shown = difference(one, two, framed)
        assert share(shown, MISSING) > 0.005 and share(shown, TOO_MUCH) > 0.005
    holed = run_cadquery(BOX + ".faces('>Z').workplane().hole(8)")
    missing, extra = Image.fromarray(draw(holed)), one
    assert share(difference(missing, extra), MISSING) > 0
    assert share(difference(extra, missing), TOO_MUCH) > 0


def test_two_programs_are_compared_after_each_has_run_once(
    service: Slow, uploads: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ran: list[str] = []
    monkeypatch.setattr(paging, "run_cadquery", lambda code: ran.append(code) or run_cadquery(code))
    longer = BOX.replace("60", "90")
    first, second, html = actions.compare(service, longer, BOX)
    assert sorted(ran) == sorted([longer, BOX])
    assert first.size == second.size == (448, 448) and first != second
    for name in ("best", "pca", "published"):
        assert re.search(rf"<th>{name}</th><td>1</td><td>0\.[5-9]\d\d\d</td>", html), html
    first, second, html = actions.compare(service, BROKEN, BOX)
    assert first is None and second is not None and "line 3" in html
    assert "<th>pca</th><td>0</td><td>0.0000</td>" in html
    with pytest.raises(InputError, match="nothing to compare with. .*, line 3"):
        actions.compare(service, BOX, BROKEN)


def test_what_goes_wrong_is_told(service: Slow, uploads: Path) -> None:
    assert "try again in 7 s" in asyncio.run(generated(service, uploads, "high")).message
    nothing = actions.make_part(service, Stops(), None, "low", [], "me", None)
    assert "Give a picture first" in Shown(*asyncio.run(nothing)).message
    failed = SimpleNamespace(
        generate=lambda *_, **__: FAILED, limits=service.limits, backend=service.backend
    )
    made = asyncio.run(generated(failed, uploads))
    assert "line 1: r = 1" in made.message and made.model is None and made.code == "r = 1"
    typed = Shown(*actions.rebuild(service, BOX, Entry(), []))  # without any picture
    assert "likeness" not in typed.measures and typed.picture is None and typed.gallery


def test_work_that_waits_in_the_queue_can_be_cancelled() -> None:
    stops, visitor = Stops(), gr.Request(session_hash="me")
    stops.expect(visitor)
    stops.end_all(gr.Request(session_hash="other"))
    stops.end_all(visitor)  # before gradio lets the work begin
    with stops.of("me") as asked, stops.of("me") as later:
        assert asked.due() and not later.due()
    stops.end_all(visitor)  # when there is nothing to end, nothing that follows is ended
    with stops.of("me") as next_one:
        assert not next_one.due()


FAILED = Generated("r = 1", Failure("no solid", "r is a number", 1), 0, 0, "", 1, 1, (0, 0))


def test_the_page_needs_nothing_from_elsewhere(address: str) -> None:
    html = httpx.get(address).text
    loaded = re.findall(r"<(?:script|link|img|iframe)[^>]*?(?:src|href)=\"([^\"]+)\"", html)
    assert loaded and not [one for one in loaded if re.match(r"(?:https?:)?//", one)]
    theme = httpx.get(f"{address}/theme.css").text
    assert "@import" not in theme and not re.search(r"url\(['\"]?(?:https?:)?//", theme)
    assert "fonts.googleapis" not in html + theme
    assert "huggingface.co" not in theme
    config = httpx.get(f"{address}/config").json()
    assert config["analytics_enabled"] is False
