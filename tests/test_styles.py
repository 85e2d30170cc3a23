"""Protects pictures in other styles: where the part is, its outline, and what training makes of it.

VTK, which CadQuery brings along, draws the same parts (benchmarks/vtk_pictures.py): our pictures
show the same outline and the same lines within pixels, from any direction, in perspective too.
"""

import json
import random
import sys
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

from benchmarks import vtk_pictures
from image2cad.cad.light_engine import build
from image2cad.cad.program import NAMED, Circle, Extrusion, Plane, Rect, to_code
from image2cad.common.errors import InputError
from image2cad.rendering import __main__ as command
from image2cad.rendering.camera import (
    SIZE,
    camera_from,
    camera_of,
    filling,
    orthographic,
    perspective,
)
from image2cad.rendering.drawing import drawn_shape
from image2cad.rendering.raster import draw
from image2cad.rendering.styles import (
    BENCHCAD_EYES,
    FREE,
    STYLE_NAMES,
    STYLES,
    draw_in_style,
    draw_view,
    views_of,
)
from image2cad.training.redrawing import redrawn
from metrics.execution import run_many

FLOOR = Plane((20.0, 30.0, -10.0), *NAMED["XY"])
TOP = Plane((20.0, 30.0, 10.0), *NAMED["XY"])
PART = (
    Extrusion(FLOOR, (Rect(0, 0, 100, 60), Circle(20, 0, 10)), 20),
    Extrusion(TOP, (Circle(-25, 0, 15),), 18),
)
BAR = (
    Extrusion(FLOOR, (Rect(0, 0, 30, 80),), 20),
    Extrusion(TOP, (Rect(0, -30, 30, 20),), 40),
    Extrusion(Plane((0.0, 0.0, 0.0), *NAMED["XZ"]), (Circle(20, 30, 8),), -60),
)
PALE = replace(
    STYLES["coloured"], colour=(0.80, 0.80, 0.82), specular=0.0, ground=STYLES["steel"].ground
)
OURS = {  # our style for each of VTK's looks
    "colours": STYLES["coloured"], "direction": STYLES["steel"], "perspective": PALE,
    "shaded": STYLES["shaded"], "lines": STYLES["lines"], "cadbench": STYLES["cadbench"],
    "benchcad": STYLES["benchcad"],
}  # fmt: skip


@pytest.fixture(scope="module")
def parts():
    """(the measured part, VTK's solid of it) of two programs."""
    return [(one, vtk_pictures.solid_of(one)) for one in run_many(list(map(to_code, (PART, BAR))))]


def silhouette(picture):
    """What differs from the ground, and what it encloses."""
    part = (np.abs(picture.astype(int) - picture[0, 0]) > 6).any(axis=2)
    return ndimage.binary_fill_holes(part)


def dark(picture):
    return picture.max(axis=2) < 110


# ---- Cameras


@pytest.mark.parametrize(
    "camera",
    [
        camera_of(np.array([[-1.0, 2, 3], [5, 4, 9]])),
        orthographic((-1, 0.4, -0.7), 3.0, (1, 2, 3), (100, 250)),
        perspective((2, -1, 0.8), 700, 40, (1, 2, 3)),
        camera_from([[300, 10, 20, 900], [5, -310, 30, 800], [0.2, 0.3, -0.9, 20]]),
    ],
)
def test_a_camera_goes_both_ways(camera):
    points = np.random.default_rng(0).uniform(-3, 3, (20, 3))
    seen = camera.project(points)
    assert camera.unproject(seen) == pytest.approx(points, abs=1e-6)
    whole = np.column_stack([points, np.ones(20)]) @ camera.projection.T
    assert whole[:, :2] / whole[:, 2:] == pytest.approx(seen[:, :2])
    for axis in range(3):
        level = 1.5
        flat = points.copy()
        flat[:, axis] = level
        back = camera.on_plane(camera.project(flat)[:, :2], axis, level)
        assert back == pytest.approx(np.delete(flat, axis, axis=1), abs=1e-6)
    # Depths grow towards the viewer, and are as long as columns are.
    nearer = camera.project(points + 1e-4 * camera.view)
    assert (nearer[:, 2] > seen[:, 2]).all()
    across = camera.project(1e-4 * np.eye(3)) - camera.project(np.zeros((1, 3)))
    assert np.linalg.norm(across, axis=1).max() / 1e-4 == pytest.approx(camera.scale, rel=0.35)
    half = camera.zoomed(0.5).panned(7, 9).project(points)
    assert half[:, :2] == pytest.approx(seen[:, :2] / 2 + [7, 9])
    # The (3, 4) matrix says all of it.
    same = camera_from(3 * camera.projection)
    assert same.project(points)[:, :2] == pytest.approx(seen[:, :2])
    assert same.eye == pytest.approx(camera.eye)


def test_a_perspective_camera_goes_further_off():
    points = np.random.default_rng(0).uniform(-3, 3, (20, 3))
    near = perspective((2, -1, 0.8), 700, 40, at=(100, 250)).from_further(1.5)
    far = perspective((2, -1, 0.8), 1050, 60, at=(100, 250))
    assert near.project(points)[:, :2] == pytest.approx(far.project(points)[:, :2])
    level = orthographic((1, -1, 1), 2.0)
    assert level.from_further(1.5) is level


def test_what_is_no_camera_is_refused_and_so_is_a_part_behind_it():
    for wrong in (np.zeros((3, 4)), np.full((3, 4), np.nan), np.eye(4)):
        with pytest.raises(ValueError, match="camera|sees"):
            camera_from(wrong)
    with pytest.raises(ValueError, match="behind"):
        draw(build(PART), camera=perspective((1, -1, 1), 400, 30, (20, 30, 0)))


# ---- Against VTK


@pytest.mark.parametrize("look", list(OURS))
def test_vtk_draws_the_same_outline_and_lines(look, parts):
    for number, (part, solid) in enumerate(parts):
        shot = vtk_pictures.taken(look, f"part {number}", solid)
        theirs = np.asarray(shot.image)
        # VTK's solid is about the origin and 1 long.
        middle, size = part.bounding_box.mean(axis=0), np.ptp(part.bounding_box, axis=0).max()
        unit = np.eye(4)
        unit[:3] = np.column_stack([np.eye(3), -middle]) / size
        for kept in shot.cameras:
            camera, (width, height) = camera_from(np.array(kept["matrix"]) @ unit), kept["size"]
            left, top = 0, 0
            if len(shot.cameras) > 1:
                at = camera.project(middle[None])[0]
                left, top = round(at[0] - width / 2), round(at[1] - height / 2)
            style = OURS[look]
            ours = draw_view(part, style, camera.panned(-left, -top), (width, height))
            tile = theirs[top : top + height, left : left + width]
            if style.ground[0] == style.ground[1]:
                one, other = silhouette(ours), silhouette(tile)
                assert not ndimage.binary_erosion(one ^ other, np.ones((4, 4))).any(), look
                assert (one & other).sum() / (one | other).sum() > 0.9, look
            if style.lines is not None and not style.shadows:
                for a, b in ((dark(ours), dark(tile)), (dark(tile), dark(ours))):
                    near = ndimage.binary_dilation(b, iterations=3)
                    assert (a & near).sum() > 0.93 * a.sum(), look
            if look in ("direction", "shaded", "cadbench", "benchcad"):
                both = ndimage.binary_erosion(silhouette(ours) & silhouette(tile), iterations=4)
                gap = np.abs(ours[both].astype(int) - tile[both]).mean()
                assert gap < (16 if look in ("shaded", "cadbench") else 10), (look, gap)


# ---- Styles


@pytest.mark.parametrize("style", STYLE_NAMES)
def test_a_picture_in_a_style_shows_the_part_where_its_views_say(style):
    shape = build(PART)
    free = style in FREE and style != "any"
    eye, angle = ((-0.5, -1.0, 0.6), 30.0) if free else (None, 0.0)
    picture = draw_in_style(shape, style, eye, angle, chance=random.Random(5))
    assert picture.dtype == np.uint8 and picture.shape[0] == picture.shape[1]
    small = draw_in_style(shape, style, eye, angle, 100, random.Random(5))
    assert small.shape == (100, 100, 3)
    if style == "any":
        again = draw_in_style(shape, style, chance=random.Random(5))
        other = draw_in_style(shape, style, chance=random.Random(6))
        assert (again == picture).all() and (other != picture).any()
        return
    views = views_of(style, shape, eye, angle)
    for view in views:
        left, top, right, bottom = view.tile
        at = view.camera.project(shape.vertices)[:, :2]
        low, high = at.min(axis=0), at.max(axis=0)
        assert left <= low[0] and top <= low[1] and high[0] <= right and high[1] <= bottom
        tile = picture[top:bottom, left:right]
        seen = np.abs(tile.astype(int) - tile[:, :1]).max(axis=2) > 20
        rows, columns = np.nonzero(seen)
        found = [columns.min() + left, rows.min() + top, columns.max() + left, rows.max() + top]
        assert np.abs(np.array(found) + [0, 0, 1, 1] - [*low, *high]).max() <= 2.5, style


def test_the_boards_have_their_own_size_scale_and_directions():
    shape = build(PART)
    assert draw_in_style(shape, "benchcad").shape == (524, 524, 3)
    assert draw_in_style(shape, "cadbench").shape == (512, 512, 3)
    longest = np.array([[-30.0, 30, 0], [70.0, 30, 0]])  # 100 units along x
    views = views_of("benchcad", shape)
    for view, eye in zip(views, BENCHCAD_EYES, strict=True):
        assert view.camera.scale * 100 == pytest.approx(142.2, abs=0.05)
        assert view.camera.view == pytest.approx(np.array(eye) / np.sqrt(3))
        at = view.camera.project(shape.bounding_box.mean(axis=0)[None])[0, :2]
        left, top, right, bottom = view.tile
        assert at == pytest.approx([(left + right) / 2, (top + bottom) / 2])
    assert (draw_in_style(shape, "benchcad")[258:266] == 255).all()
    (single,) = views_of("cadbench", shape)
    assert single.camera.eye / single.camera.eye[1] == pytest.approx([-1, 1, 1], abs=1e-3)
    # Half the view is 1.2 mean sides: 1.2 * (100 + 60 + 38) / 3.
    assert single.camera.scale == pytest.approx(256 / (1.2 * 66))
    assert np.hypot(*np.diff(single.camera.project(longest)[:, :2], axis=0)[0]) < 512
    bars = draw_in_style(shape, "cadbench-views")
    assert (bars[300:310] == 0).all() and (bars[:, 300:310] == 0).all()
    front, above, right_view = (view.tile for view in views_of("sheet", shape))
    assert above[3] <= front[1] and right_view[0] >= front[2]
    front, above, right_view = (view.tile for view in views_of("sheet-first", shape))
    assert above[1] >= front[3] and right_view[2] <= front[0]
    for wrong in (dict(style="benchcad", eye=(1, 1, 1)), dict(style="sheet", angle=30.0)):
        with pytest.raises(InputError, match="own cameras"):
            draw_in_style(shape, **wrong)
    with pytest.raises(InputError, match="no style"):
        draw_in_style(shape, "pencil")
    assert (draw_in_style(shape, "gencad") == draw(shape)).all()


def test_hidden_lines_are_removed_and_round_faces_have_outlines():
    shape = build((Extrusion(FLOOR, (Circle(0, 0, 20),), 60),))
    camera = filling(shape.vertices, (1, -1, 1))
    ink = dark(draw_view(shape, STYLES["lines"], camera, (SIZE, SIZE)))
    base, top = (shape.bounding_box[i, 2] for i in (0, 1))
    turns = np.linspace(0, 2 * np.pi, 400, endpoint=False)
    ring = np.column_stack([20 + 20 * np.cos(turns), 30 + 20 * np.sin(turns)])
    near = ndimage.binary_dilation(ink, iterations=2)

    def share(points):
        columns, rows = camera.project(points)[:, :2].astype(int).T
        return near[rows, columns].mean()

    assert share(np.column_stack([ring, np.full(400, top)])) > 0.99
    assert 0.45 < share(np.column_stack([ring, np.full(400, base)])) < 0.65  # half is hidden
    side = np.array([[20 + s * 20 / np.sqrt(2), 30 + s * 20 / np.sqrt(2)] for s in (-1, 1)])
    for x, y in side:
        assert share(np.array([[x, y, z] for z in np.linspace(base, top, 50)])) > 0.99
    assert share(np.array([[20, 30, z] for z in np.linspace(base + 15, base + 22, 9)])) == 0


def test_the_command_draws_styles_and_says_what_is_wrong(tmp_path, monkeypatch):
    programs = tmp_path / "programs.jsonl"
    rows = [{"id": str(i), "code": to_code(one)} for i, one in enumerate((PART, BAR))]
    programs.write_text("".join(json.dumps(row) + "\n" for row in rows))

    def run(out, *flags):
        monkeypatch.setattr(sys, "argv", ["rendering", str(programs), str(tmp_path / out), *flags])
        return command.main()

    assert run("free", "--style", "lines", "--eye", "any", "--size", "600", "--workers", "1") == 0
    pictures = [Image.open(tmp_path / "free" / f"{i}.png") for i in range(2)]
    assert [picture.size for picture in pictures] == [(600, 600)] * 2
    assert run("board", "--style", "benchcad", "--workers", "1") == 0
    with Image.open(tmp_path / "board" / "0.png") as picture:
        assert (
            np.asarray(picture) == draw_in_style(drawn_shape(rows[0]["code"]), "benchcad")
        ).all()
    for flags, message in (
        (("--style", "benchcad", "--eye", "1,1,1"), "own cameras"),
        (("--eye", "0,0,0"), "direction"),
        (("--eye", "up"), "direction"),
        (("--style", "lines", "--size", "9000"), "--size"),
        (("--style", "lines", "--perspective", "170"), "--perspective"),
    ):
        with pytest.raises(InputError, match=message):
            run("wrong", *flags)


# ---- Training


def test_a_share_of_the_rows_is_drawn_again_with_and_without_the_feature_cache(
    tmp_path, base, samples
):
    from image2cad.training.examples import CodeDataset, collate
    from image2cad.training.supervised import labelled_loss
    from image2cad.training.vision_cache import features_for
    from image2cad.vlm.loading import load_base
    from image2cad.vlm.prompting import padding_id

    assert redrawn(samples, 0.0, 0, tmp_path) is samples
    rows = redrawn(samples, 0.5, 1, tmp_path / "pictures", progress=False)
    new = [i for i, (a, b) in enumerate(zip(rows, samples, strict=True)) if a.image is not b.image]
    assert 2 <= len(new) <= 10 and len(rows) == len(samples)
    for one, sample in zip(rows, samples, strict=True):
        assert (one.cadquery, one.id) == (sample.cadquery, sample.id)
    changed = [np.asarray(rows[i].image) for i in new]
    assert all(image.shape == (SIZE, SIZE, 3) for image in changed)
    assert not any(
        (a == np.asarray(samples[i].image)).all() for a, i in zip(changed, new, strict=True)
    )
    # Drawn once: another run has the same pictures, another seed others.
    times = [file.stat().st_mtime_ns for file in sorted((tmp_path / "pictures").rglob("*.png"))]
    again = redrawn(samples, 0.5, 1, tmp_path / "pictures", progress=False)
    assert (np.asarray(again[new[0]].image) == changed[0]).all()
    assert times == [f.stat().st_mtime_ns for f in sorted((tmp_path / "pictures").rglob("*.png"))]
    other = redrawn(samples, 0.5, 2, tmp_path / "pictures", progress=False)
    assert [a.image is b.image for a, b in zip(other, samples, strict=True)] != [
        i not in new for i in range(len(samples))
    ]
    # What cannot be drawn keeps its picture.
    broken = [replace(samples[0], cadquery="result = oops")]
    assert redrawn(broken, 1.0, 0, tmp_path, progress=False)[0].image is samples[0].image
    with pytest.raises(InputError, match="share"):
        redrawn(samples, 1.5, 0, tmp_path)

    model, processor = load_base(base)
    features = features_for(model, processor, [rows], tmp_path / "features")
    assert features is not None
    losses = []
    for place in (None, features):
        data = CodeDataset(rows, processor, features=place)
        batch = collate([data[i] for i in new[:3]], padding_id(processor), False)
        assert ("pixel_values" in batch) == (place is None)
        labels = batch.pop("labels")
        losses.append(float(labelled_loss(model(**batch), labels).detach()))
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)
    own = CodeDataset(samples, processor)
    assert (
        own[new[0]]["pixel_values"] != CodeDataset(rows, processor)[new[0]]["pixel_values"]
    ).any()
