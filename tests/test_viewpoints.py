"""Protects what is told beside an answer: the camera it was drawn with, and what is no one part.

Pictures are drawn here, or by the rasteriser from programs that the test knows.
"""

import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFont
from scipy import ndimage

from image2cad.cad.light_engine import build
from image2cad.cad.program import NAMED, Circle, Extrusion, Plane, Rect
from image2cad.common import EFFORTS, stopping
from image2cad.common.errors import InputError
from image2cad.data import Sample
from image2cad.evaluation.scoring import summarise, write_results
from image2cad.evaluation.verified import evaluate_verified
from image2cad.reading.doubts import doubt_about
from image2cad.rendering import Camera, filling
from image2cad.rendering.raster import draw
from image2cad.rendering.styles import STYLES, draw_in_style, draw_view
from image2cad.verification import pipeline
from image2cad.verification.pipeline import verify
from image2cad.verification.viewpoints import Viewpoint, eye_named

FLOOR = Plane((20.0, 30.0, -10.0), *NAMED["XY"])
TOP = Plane((20.0, 30.0, 10.0), *NAMED["XY"])
PART = (
    Extrusion(FLOOR, (Rect(0, 0, 100, 60), Circle(20, 0, 10)), 20),
    Extrusion(TOP, (Circle(-25, 0, 15),), 18),
)
STEPS = (
    PART[0],
    Extrusion(TOP, (Rect(-30, 0, 30, 60),), 18),
    Extrusion(TOP, (Rect(30, -20, 40, 20),), 9),
)
SECONDS = 0.5
DOCS = Path(__file__).resolve().parent.parent / "docs" / "serving.md"


def from_eye(eye, angle=0.0, look="coloured"):
    """The part in another style than GenCAD's."""
    drawing = build(PART)
    camera = filling(drawing.vertices, eye, angle=angle)
    return Image.fromarray(draw_view(drawing, STYLES[look], camera, (448, 448)))


def gencads_picture():
    return Image.fromarray(draw(build(PART)))


def apart(one, other):
    """Degrees between two directions."""
    cosine = np.dot(one, other) / np.linalg.norm(one) / np.linalg.norm(other)
    return float(np.degrees(np.arccos(np.clip(cosine, -1, 1))))


# ---- Cameras


def test_a_camera_is_given_in_words_or_degrees():
    assert eye_named("") is None and eye_named(" Not known ") is None
    assert eye_named("Front") == (0, -1, 0) and eye_named("isometric") == (1, -1, 1)
    assert eye_named("-90, 0") == pytest.approx((0, -1, 0), abs=1e-9)
    assert eye_named("30,90") == pytest.approx((0, 0, 1), abs=1e-9)
    for wrong in (
        "odd",
        "1",
        "1,2,3",
        "0, 91",
        "nan, 5",
        "inf, 0",
        "400, 0",
        "1e999,0",
        "9" * 9999,
    ):
        with pytest.raises(InputError, match="isometric, front") as refused:
            eye_named(wrong)
        assert len(str(refused.value)) < 300


def test_an_answer_tells_its_camera():
    (known,) = verify(gencads_picture(), seconds=SECONDS, camera=eye_named("isometric")).cameras
    assert known.text == "azimuth -45°, elevation 35°, orthographic, known"
    eye = (0.9, -0.5, 0.6)
    answer = verify(from_eye(eye, angle=35), seconds=SECONDS)
    (seen,) = answer.cameras
    assert seen.origin == "estimated" and not answer.reason
    assert seen.angle == pytest.approx(35, abs=12) and "perspective" in seen.text
    (seen,) = verify(from_eye(eye), camera=eye, seconds=SECONDS).cameras
    assert seen.origin == "given" and apart(seen.direction, eye) < 3 and seen.angle is None
    assert not verify(gencads_picture(), ["result = oops"], "none").cameras


def test_views_on_a_sheet_have_known_cameras_and_views_in_a_list_one_each(tmp_path, monkeypatch):
    sheet = Image.fromarray(draw_in_style(build(STEPS), "sheet"))
    answer = verify(sheet, seconds=SECONDS)
    assert not answer.reason and {one.origin for one in answer.cameras} == {"known"}
    eyes = {tuple(round(x, 6) + 0.0 for x in one.direction) for one in answer.cameras}
    assert eyes >= {(0, -1, 0), (0, 0, 1)} and len(eyes) == 3
    # A row with several pictures reaches verify as a list, and says where each is seen from.
    views = [
        from_eye((1, -0.7, 0.8)),
        Image.new("RGB", (99, 99), "white"),
        from_eye((0.4, -1, 0.5)),
    ]
    sample = Sample(views[0], "import cadquery as cq\nresult = cq.Workplane().box(1, 2, 3)", "one",
                    views=tuple(views[1:]))  # fmt: skip
    asked = []

    def answer_many(images, codes, effort, sources, workers, keep):
        asked.extend(images)
        keep(0, verify(images[0], codes[0], effort, SECONDS, sources))

    monkeypatch.setattr("image2cad.verification.answer_many", answer_many)
    result = evaluate_verified(None, None, [sample], "low", ["traced"])
    assert len(asked) == 1 and [*asked[0]] == views
    (row,) = result.rows
    blank = "Picture 2: This does not look like a picture of one part: it is blank."
    # In so little time the third may not be explained; it never vanishes without a word.
    used = [one["picture"] for one in row["cameras"]]
    assert row["ok"] and used[0] == 0 and 1 not in used and row["reason"].startswith(blank)
    assert (used == [0, 2]) == (row["reason"] == blank)
    assert 2 in used or "Picture 3: no program was found that explains it" in row["reason"]
    write_results(tmp_path, [sample], summarise(result), result)
    assert Viewpoint(**row["cameras"][-1]).text in (tmp_path / "report.html").read_text()


def test_a_camera_that_sees_nothing_is_refused_and_a_picture_without_a_part_has_none():
    picture = from_eye((1, -0.7, 0.8))
    blind = Camera(np.zeros((4, 4)), np.zeros(3))
    infinite = Camera(np.full((4, 4), np.nan), np.ones(3))
    for wrong in ((0, 0, 0), (1, 2), (np.nan, 0, 1), "top", (None, 1, 2), (), blind, infinite):
        for effort in ("none", "low"):
            with pytest.raises(InputError, match="a camera is the direction"):
                verify(picture, [], effort, seconds=SECONDS, camera=wrong)
    blank = Image.new("RGB", (99, 70), "white")
    assert verify(blank, seconds=SECONDS, camera=np.array([0, -1, 0])).cameras == ()


def test_a_camera_of_a_picture_too_large_to_be_read_goes_with_it():
    eye, factor = (0.9, -0.5, 0.6), 5
    camera = filling(build(PART).vertices, eye)
    large = from_eye(eye).resize((factor * 448, factor * 448))
    (seen,) = (answer := verify(large, seconds=2, camera=camera.zoomed(factor))).cameras
    assert seen.origin == "given" and apart(seen.direction, eye) < 3
    assert answer.likeness > 0.6  # on a busy machine the hole is not found in that time


def test_a_sheet_among_other_pictures_keeps_its_cameras_and_gives_no_other_its_own(monkeypatch):
    clock = SimpleNamespace(monotonic=time.process_time)  # whatever else the machine does
    for module in (stopping, pipeline):
        monkeypatch.setattr(module, "time", clock)
    sheet = Image.fromarray(draw_in_style(build(STEPS), "sheet"))
    finer = sheet.resize((sheet.width * 3 // 2, sheet.height * 3 // 2))
    free = from_eye((1, -0.7, 0.8))
    for pictures, first in (([free, sheet], 1), ([sheet, finer], 0)):
        answer = verify(pictures, seconds=2)
        known = [one.picture for one in answer.cameras if one.origin == "known"]
        assert answer.code is not None and known == [first] * 3
        assert all(one.picture == first or one.origin == "estimated" for one in answer.cameras)
    # The sheet explains the part; another of another scale takes nothing from it.
    assert answer.likeness > 0.8


# ---- What is no picture of one part


def noise():
    chance = np.random.default_rng(0)
    return Image.fromarray(chance.integers(0, 255, (400, 500, 3), dtype=np.uint8))


def texture():
    """Spots of all sizes, as in a photograph of gravel."""
    chance = np.random.default_rng(0)
    spots = sum(
        size * ndimage.gaussian_filter(chance.normal(size=(448, 448, 3)), (size, size, 0))
        for size in (1, 3, 9, 27)
    )
    return Image.fromarray((255 * (spots - spots.min()) / np.ptp(spots)).astype(np.uint8))


def text():
    page = Image.new("RGB", (448, 448), "white")
    pen, font = ImageDraw.Draw(page), ImageFont.load_default(22)
    for row in range(12):
        pen.text((30, 30 + 32 * row), "A plate with two holes, 5 thick", fill="black", font=font)
    return page


def side_by_side():
    pair = Image.new("RGB", (900, 460), "white")
    pair.paste(gencads_picture(), (0, 0))
    pair.paste(from_eye((1, 0.3, 0.4), look="shaded").resize((300, 300)), (540, 40))
    return pair


def cut_off():
    return from_eye((1, -0.7, 0.8)).crop((150, 130, 300, 300))


NO_PART = {
    "blank": (lambda: Image.new("L", (300, 200), 120), "it is blank"),
    "noise": (noise, "plain background"),
    "texture": (texture, "plain background"),
    "text": (text, "many small things, as text"),
    "several": (side_by_side, "2 separate things"),
    "cut off": (cut_off, "background"),
}


@pytest.mark.parametrize("name", NO_PART)
def test_what_is_no_picture_of_one_part_is_said(name):
    make, why = NO_PART[name]
    answer = verify(make(), [], "low", seconds=SECONDS)
    said = answer.reason
    assert said.startswith("This does not look like a picture of one part: ") and why in said
    assert verify(make(), ["result = oops"], "none").reason == said


def test_one_part_is_not_doubted_whatever_the_style():
    pictures = [gencads_picture(), *(from_eye((1, -0.6, 0.8), 30, look) for look in STYLES)]
    sheets = ("benchcad", "sheet", "sheet-first")
    pictures += [Image.fromarray(draw_in_style(build(STEPS), one)) for one in sheets]
    assert [doubt_about(one) for one in pictures] == [""] * len(pictures)


# ---- Efforts


def test_efforts_say_the_seconds_of_every_kind_of_picture():
    assert EFFORTS["low"].text == (
        "low: 8 s for a picture of GenCAD's, 13 s for another, 20 s for several views"
    )
    assert EFFORTS["none"].text == "none: the model's first program"
    # What the model has before it is given up, and verification after it, fit before the deadline.
    assert all(f"- {one.text}\n" in DOCS.read_text(encoding="utf-8") for one in EFFORTS.values())
    assert all(1.5 * one.longest < one.deadline for one in EFFORTS.values())
