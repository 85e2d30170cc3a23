"""Protects the drawing rule on parts whose picture is known, the views, and the light engine.

The light engine must build and draw what CadQuery, and what OpenCASCADE as DeepCAD
used it, build from the same part's program. Real pictures are test_pictures.py's.
"""

import json
from itertools import islice, product

import numpy as np
import pytest
from PIL import Image

from image2cad.cad.exact_engine import NotBuilt, build_exactly
from image2cad.cad.light_engine import build
from image2cad.cad.parsing import parse
from image2cad.cad.program import NAMED, Circle, Extrusion, Path, Plane, Rect, Segment, to_code
from image2cad.cad.transforms import moved, scaled
from image2cad.common.errors import InputError
from image2cad.rendering.drawing import draw_code
from image2cad.rendering.raster import draw
from image2cad.rendering.sheets import four_views, sheet
from image2cad.rendering.similarity import likeness, silhouette_iou
from image2cad.rendering.similarity import ssim as measured_ssim
from image2cad.synthesis.dataset import write_dataset
from image2cad.synthesis.families import FAMILIES
from image2cad.synthesis.parts import random_parts
from metrics.execution import run_cadquery, run_many
from metrics.parts import Part

XY = Plane((0.0, 0.0, 0.0), *NAMED["XY"])
FACE = [141, 141, 138]  # an axis-aligned face, as in GenCAD-Code's pictures


def grey(picture):
    return np.asarray(picture, dtype=float)[..., :3].mean(axis=2)


def ssim(a, b, window=7):
    """Mean structural similarity of two (N, N, 3) pictures, box window (Wang et al. 2004)."""

    def mean(values):
        sums = np.pad(values.cumsum(0).cumsum(1), ((1, 0), (1, 0)))
        w = window
        return (sums[w:, w:] - sums[:-w, w:] - sums[w:, :-w] + sums[:-w, :-w]) / w**2

    x, y = grey(a), grey(b)
    mx, my = mean(x), mean(y)
    vx, vy, cov = mean(x * x) - mx**2, mean(y * y) - my**2, mean(x * y) - mx * my
    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    return ((2 * mx * my + c1) * (2 * cov + c2) / ((mx**2 + my**2 + c1) * (vx + vy + c2))).mean()


def on_screen(points, low, high):
    """(row, column) of model points by GenCAD's camera, written out from the rule."""
    dx, dy, dz = np.subtract(high, low)
    w, h = (dx + dy) / np.sqrt(2), (dx + dy + 2 * dz) / np.sqrt(6)
    k = 448 / (1.5 * max(h, 0.75 * w))
    p = np.asarray(points, dtype=float) - (np.add(low, high) / 2)
    column = 224 + k * (p @ [1, 1, 0]) / np.sqrt(2)
    row = 224 - k * (p @ [-1, 1, 2]) / np.sqrt(6)
    return np.stack([row, column], axis=-1)


@pytest.mark.parametrize("sides", [(4.0, 2.0, 1.0), (1.0, 1.5, 6.0), (1.0, 7.0, 0.5)])
def test_a_box_is_drawn_where_the_rule_puts_it(sides):
    dx, dy, dz = sides
    code = to_code((Extrusion(XY, (Rect(dx / 2, dy / 2, dx, dy),), dz),))
    for shape in (run_cadquery(code), build((Extrusion(XY, (Rect(dx / 2, dy / 2, dx, dy),), dz),))):
        picture = draw(shape)
        assert picture.shape == (448, 448, 3) and picture.dtype == np.uint8
        assert (picture[[0, -1]] == 255).all() and (picture[:, [0, -1]] == 255).all()
        corners = np.array([(x, y, z) for x in (0, dx) for y in (0, dy) for z in (0, dz)])
        at = on_screen(corners, (0, 0, 0), sides)
        rows, columns = np.nonzero(grey(picture) < 255)
        found = np.array([rows.min(), rows.max() + 1, columns.min(), columns.max() + 1])
        expected = [at[:, 0].min(), at[:, 0].max(), at[:, 1].min(), at[:, 1].max()]
        assert np.abs(found - expected).max() <= 1
        middles = [(dx, dy / 2, dz / 2), (dx / 2, 0, dz / 2), (dx / 2, dy / 2, dz)]
        for row, column in on_screen(middles, (0, 0, 0), sides).astype(int):
            assert picture[row, column].tolist() == FACE
        # The eye sees +x, -y and +z: edges that touch one of them are black, the others unseen.
        for axis, (a, b) in product(range(3), product((0.0, 1.0), repeat=2)):
            edge = np.array([np.insert([a, b], axis, t) for t in np.linspace(0.1, 0.9, 17)])
            seen = any(edge[0, i] == side for i, side in enumerate((1, 0, 1)))
            black = []
            for row, column in on_screen(edge * sides, (0, 0, 0), sides).astype(int):
                near = picture[row - 1 : row + 2, column - 1 : column + 2]
                black.append((near == 0).all(axis=2).any())
            # An unseen edge crosses seen ones here and there.
            assert np.mean(black) == 1 if seen else np.mean(black) < 0.5


def test_colours_of_a_box_are_three_and_of_a_cylinder_many():
    box = draw(build((Extrusion(XY, (Rect(0, 0, 3, 2),), 1.0),)))
    assert sorted(map(tuple, np.unique(box.reshape(-1, 3), axis=0).tolist())) == [
        (0, 0, 0),
        tuple(FACE),
        (255, 255, 255),
    ]
    cylinder = draw(build((Extrusion(XY, (Circle(0, 0, 1),), 2.0),)))
    tones = np.unique(grey(cylinder))
    # Edge-on the rule's linear light is .0615 and more, at most .0615 + .3547 sqrt(2/3).
    assert len(tones) > 30 and 70 < tones[1] < 100 and 155 < tones[-2] < 165


def test_place_and_scale_are_not_shown_and_bad_shapes_are_refused():
    program = next(islice(random_parts(11), 5, None))[0]
    picture = draw(build(program))
    assert (picture == draw(build(scaled(program, 0.0625)))).all()
    elsewhere = draw(build(scaled(moved(program, (913.0, -77.0, 41.0)), 3.7)))
    assert (picture == elsewhere).all(axis=2).mean() > 0.999
    assert draw(build(program), size=112).shape == (112, 112, 3)
    for size in (0, 449):
        with pytest.raises(ValueError, match="size"):
            draw(build(program), size=size)
    broken = build(program)
    broken.vertices[0, 0] = np.nan
    with pytest.raises(ValueError, match="finite"):
        draw(broken)


def test_the_light_engine_builds_and_draws_what_cadquery_does():
    drawn = [*islice(random_parts(5), 10), *islice(random_parts(5, list(FAMILIES)), 8)]
    solids = run_many([to_code(program) for program, _ in drawn])
    likeness = []
    for (program, light), part in zip(drawn, solids, strict=True):
        assert isinstance(part, Part), (to_code(program), part)
        assert part.solids == 1 and part.valid
        assert light.volume == pytest.approx(part.volume, rel=0.005)
        assert np.abs(light.bounding_box - part.bounding_box).max() < 0.5
        likeness.append(ssim(draw(light), draw(part)))
    assert np.mean(likeness) > 0.99 and min(likeness) > 0.98


def test_the_light_engine_draws_what_deepcad_s_kernel_does():
    likeness = []
    for program, light in [
        *islice(random_parts(5), 12),
        *islice(random_parts(5, list(FAMILIES)), 4),
    ]:
        exact, picture = draw(build_exactly(program)), draw(light)
        likeness.append(ssim(exact, picture))
        assert silhouette_iou(exact, picture) > 0.99
    assert np.mean(likeness) > 0.995 and min(likeness) > 0.98


def test_edges_stay_where_deepcad_leaves_them():
    """An edge of a box that stands flush on another; none where their meshes happen to meet."""
    low = Extrusion(XY, (Rect(0, 0, 4, 4),), 1.0)
    high = Extrusion(Plane((0.0, 0.0, 1.0), *NAMED["XY"]), (Rect(0, 0, 4, 4),), 1.0)
    whole = draw(build((Extrusion(XY, (Rect(0, 0, 4, 4),), 2.0),)))
    same = draw(build((low, low)))
    assert (same == draw(build((low,)))).all()
    stacked = draw(build((low, high)))
    assert (stacked == draw(build_exactly((low, high)))).all()
    added = (stacked != whole).any(axis=2)
    assert (stacked[added] == 0).all() and 250 < added.sum() < 450
    code = 'import cadquery as cq\nr = cq.Workplane("XY").rect(4, 4).extrude(1, both=True)\n'
    assert (draw_code(code) == stacked).all()


def test_seams_can_be_left_out_where_they_are_known():
    cylinder = (Extrusion(XY, (Circle(0, 0, 1),), 2.0),)
    for shape in (build(cylinder), build_exactly(cylinder)):
        assert shape.seams.sum() == 1 and len(shape.seams) == len(shape.edge_starts) - 1
        with_seam, without = draw(shape), draw(shape, seams=False)
        changed = (with_seam != without).any(axis=2)
        assert (with_seam[changed] == 0).all() and changed.sum() > 100
        assert len(np.unique(np.nonzero(changed)[1])) == 1  # one upright line
    with pytest.raises(ValueError, match="seams"):
        draw(run_cadquery(to_code(cylinder)), seams=False)


def test_views_from_elsewhere():
    program = (
        Extrusion(XY, (Rect(0, 0, 4, 2), Circle(1, 0, 0.5)), 1.0),
        Extrusion(Plane((0.0, 0.0, 1.0), *NAMED["XY"]), (Rect(-1.5, 0, 1, 2),), 1.0),
    )
    shape = build(program)
    top = draw(shape, eye=(0, 0, 5))
    rows, columns = np.nonzero((top == 0).all(axis=2))
    wide, high = np.ptp(columns) + 1, np.ptp(rows) + 1
    assert wide / high == pytest.approx(2, rel=0.02) and abs(rows.mean() - 224) < 3
    # From above x points right: the boss's line is left of the middle, the hole right of it.
    line = (top[:, 100:220] == 0).all(axis=2).sum(axis=0)
    assert line.max() > 0.9 * high
    turned = (Extrusion(Plane((0, 0, 0), (0, 1, 0), (0, 0, 1)), (Rect(0, 0, 3, 1),), 2.0),)
    plain = (Extrusion(XY, (Rect(0, 0, 3, 1),), 2.0),)
    assert (draw(build(turned), eye=(1, 1, 1)) == draw(build(plain))).all()
    four = four_views(shape)
    assert four.shape == (448, 448, 3) and (four[:224, 224:] == draw(shape, 224)).all()
    assert sheet([draw(shape, 64)] * 3, 2).shape == (128, 128, 3)
    for eye in ((0, 0, 0), (1, 2), (np.inf, 0, 0)):
        with pytest.raises(ValueError, match="eye"):
            draw(shape, eye=eye)


def test_likeness_is_one_for_equal_pictures_and_small_for_others():
    first, second = (draw(drawing) for _, drawing in islice(random_parts(5), 2))
    blank = np.full_like(first, 255)
    assert likeness(first, first) == likeness(blank, blank) == 1.0
    assert 0 <= likeness(first, second) < 0.9 and 0 <= likeness(first, blank) < 0.7
    for a, b in product((first, second, blank), repeat=2):
        assert measured_ssim(a, b) == pytest.approx(ssim(a, b), abs=1e-9)
        assert likeness(a, b) == pytest.approx(likeness(b, a))
        assert likeness(a, b) <= ssim(a, b) + 1e-9  # the white around does not count
    with pytest.raises(ValueError, match="shapes"):
        likeness(first, draw(build((Extrusion(XY, (Circle(0, 0, 1),), 2.0),)), 100))
    with pytest.raises(ValueError, match="uint8"):
        likeness(first, first / 255)


def test_the_light_engine_refuses_what_is_no_solid():
    cross = Path((0, 0), (Segment((2, 2)), Segment((2, 0)), Segment((0, 2))))
    square = Extrusion(XY, (Rect(0, 0, 1, 1),), 1.0)
    away = Extrusion(Plane((9, 9, 9), *NAMED["XY"]), (Rect(0, 0, 1, 1),), 1.0, "intersect")
    all_cut = Extrusion(XY, (Rect(0, 0, 3, 3),), 2.0, "cut")
    flat = Extrusion(XY, (Rect(0, 0, 1, 1),), 0.0)
    line = Extrusion(XY, (Path((0, 0), (Segment((1, 1)), Segment((2, 2)))),), 1.0)
    point = Extrusion(XY, (Circle(1, 1, 0),), 1.0)
    for program in [(square, away), (square, all_cut), (flat,), (line,), (point,), ()]:
        assert build(program) is None
    assert build((Extrusion(XY, (cross,), 1.0),)) is None
    for size in (1e-300, 1e200):
        assert build((Extrusion(XY, (Rect(0, 0, size, 1),), 1.0),)) is None
    for program in [(square, away), ()]:
        with pytest.raises(NotBuilt):
            build_exactly(program)


def test_a_written_data_set_shows_the_parts_it_names(tmp_path):
    folder = tmp_path / "set"
    assert write_dataset(folder, 3, seed=4, families=["flange"]) == 0
    rows = [json.loads(line) for line in (folder / "metadata.jsonl").read_text().splitlines()]
    assert len(rows) == 3
    for row in rows:
        with Image.open(folder / row["file_name"]) as picture:
            assert (np.asarray(picture) == draw(build(parse(row["cadquery"])))).all()
    with pytest.raises(InputError, match="already holds"):
        write_dataset(folder, 3, seed=4, families=["flange"])


def test_loops_that_touch_are_nested_by_what_lies_off_the_border():
    """A hole and its outline share a point: that point must not decide what is inside."""
    square = Path((0, 0), tuple(map(Segment, [(10, 0), (10, 10), (0, 10), (0, 0)])))
    notch = Path((10, 5), tuple(map(Segment, [(6, 8), (6, 2), (10, 5)])))
    for loops in ((square, notch), (notch, square), (Circle(0, 0, 5), Circle(2, 0, 3))):
        program = (Extrusion(XY, loops, 4),)
        part = run_cadquery(to_code(program))
        light, exact = build(program), build_exactly(program)
        assert isinstance(part, Part) and light is not None
        assert light.volume == pytest.approx(part.volume, rel=0.01)
        assert silhouette_iou(draw(light), draw(exact)) > 0.99


def test_loops_that_cross_are_left_to_cadquery():
    program = (Extrusion(XY, (Circle(0, 0, 5), Circle(4, 0, 3)), 4),)
    assert build(program) is None
    with pytest.raises(NotBuilt, match="cross"):
        build_exactly(program)
    assert draw_code(to_code(program)) is None
