"""Protects GenCAD's pictures that come as copies: compressed, or made smaller or larger.

A copy has to give back the lines unbroken and the faces in their tones, for one pixel that is
missing joins two faces; and a small copy says at its own size how far an answer can be right.
"""

import io

import numpy as np
import pytest
from PIL import Image

from image2cad.cad import build
from image2cad.cad.program import NAMED, Circle, Extrusion, Plane, Rect
from image2cad.reading import gencads, likeness_to_copy, restored
from image2cad.rendering import draw
from image2cad.verification.confidence import confidence_in_copy
from image2cad.verification.viewpoints import eye_named

FLOOR = Plane((0.0, 0.0, 0.0), *NAMED["XY"])
PARTS = {
    "tube": (Extrusion(FLOOR, (Circle(0, 0, 40), Circle(0, 0, 26)), 30),),
    "frame": (Extrusion(FLOOR, (Rect(0, 0, 50, 50), Rect(0, 0, 44, 44)), 100),),
    "plate with a boss": (
        Extrusion(FLOOR, (Rect(0, 0, 100, 70), Circle(-30, 10, 9), Circle(30, 10, 9)), 12),
        Extrusion(Plane((0.0, 0.0, 12.0), *NAMED["XY"]), (Circle(0, 0, 20),), 25),
    ),
}


def as_jpeg(picture, quality):
    file = io.BytesIO()
    Image.fromarray(picture).save(file, "JPEG", quality=quality)
    return Image.open(file)


def resized(picture, side, how=Image.Resampling.LANCZOS):
    return Image.fromarray(picture).resize((side, side), how)


@pytest.mark.parametrize("name", PARTS)
@pytest.mark.parametrize("quality", [50, 65, 85])
def test_compression_breaks_no_line_and_joins_no_faces(name, quality):
    picture = draw(build(PARTS[name]))
    copy = as_jpeg(picture, quality)
    assert gencads(copy) is None
    back = np.asarray(restored(copy))[..., 0].astype(int)
    own = picture[..., 0].astype(int)
    lines = own < 40
    assert (back[lines] < 40).mean() > 0.998
    assert (back[~lines] < 40).mean() < 5e-4
    # Tones to within a few greys but beside a line, where a copy rings.
    assert (np.abs(back - own)[~lines] > 12).mean() < 0.02


@pytest.mark.parametrize("side", [224, 300, 896])
def test_faces_keep_their_tones_in_another_size(side):
    picture = draw(build(PARTS["tube"]))
    back = np.asarray(restored(resized(picture, side)))[..., 0].astype(int)
    own = picture[..., 0].astype(int)
    assert (np.abs(back - own) > 12).mean() < 0.03


@pytest.mark.parametrize("copied", ["compressed", "doubled"])
def test_a_part_of_many_lines_is_no_pattern(copied):
    """Forty slots in a plate: 3600 pixels of lines, more than any bundled part has."""
    slots = [Rect(x, y, 6, 11) for x in range(-72, 73, 16) for y in (-36, -12, 12, 36)]
    picture = draw(build((Extrusion(FLOOR, (Rect(0, 0, 170, 100), *slots), 8),)))
    assert (picture[..., 0] < 40).sum() > 3000
    copy = as_jpeg(picture, 85) if copied == "compressed" else resized(picture, 896)
    assert restored(copy) is not None


@pytest.mark.parametrize("how", [Image.Resampling.LANCZOS, Image.Resampling.BILINEAR])
def test_a_small_copy_tells_the_right_part_from_one_a_little_off(how):
    copy = resized(draw(build(PARTS["plate with a boss"])), 224, how)
    plate, boss = PARTS["plate with a boss"]
    taller = (plate, Extrusion(boss.plane, boss.loops, boss.depth + 4))
    values = [likeness_to_copy(draw(build(program)), copy) for program in ((plate, boss), taller)]
    right, wrong = map(confidence_in_copy, values)
    assert right > 0.9 > 0.5 > wrong


def test_another_side_of_a_part_is_no_copy_whatever_its_greys():
    """The top of a plate has GenCAD's grey from all sides; only one of them is GenCAD's."""
    drawing = build(PARTS["plate with a boss"])
    own, other = (
        as_jpeg(draw(drawing, eye=eye_named(f"{azimuth}, 35.264")), 85) for azimuth in (-45, -20)
    )
    assert restored(own) is not None
    assert restored(other) is None


def test_what_is_no_copy_is_none():
    rng = np.random.default_rng(0)
    noise = Image.fromarray(rng.integers(0, 255, (448, 448, 3), dtype=np.uint8))
    assert restored(noise) is None
    assert restored(Image.new("RGB", (448, 448), "white")) is None
    assert restored(Image.new("RGB", (100, 100), "grey")) is None
