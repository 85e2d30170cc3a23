"""Protects verification: numbers are found again, faces are read, answers are run and judged.

Every picture here is drawn from a program that the test knows, so what comes back can be
compared with the truth by geometry and not only by looks.
"""

import subprocess
import sys
import time
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from image2cad.cad import parsing
from image2cad.cad.light_engine import build
from image2cad.cad.prisms import prism
from image2cad.cad.program import NAMED, Circle, Extrusion, Path, Plane, Rect, Segment, to_code
from image2cad.cad.transforms import moved
from image2cad.common import EFFORTS, Stop
from image2cad.common.errors import InputError
from image2cad.reading.tracing import caps
from image2cad.rendering.camera import camera_of, filling
from image2cad.rendering.raster import draw, draw_roughly
from image2cad.verification import growing, library, pipeline
from image2cad.verification.cost import cost_of, look_at
from image2cad.verification.fitting import fit
from image2cad.verification.parameters import levels, parameters, rebuilt
from image2cad.verification.pipeline import verify
from image2cad.verification.placing import aligned
from metrics import iou_aligned, run_cadquery
from metrics.parts import Part

FLOOR = Plane((0.0, 0.0, -10.0), *NAMED["XY"])
WALL = Plane((0.0, 20.0, 0.0), *NAMED["XZ"])
PLATE = Extrusion(FLOOR, (Rect(0, 0, 100, 60), Circle(20, 0, 10)), 20)
BOSS = Extrusion(Plane((0.0, 0.0, 10.0), *NAMED["XY"]), (Circle(-25, 0, 15),), 18)
SIDE = Extrusion(WALL, (Path((-30, -10), (Segment((30, -10)), Segment((0, 40)))),), 12)
BRACKET = (PLATE, BOSS)
NOTHING_SEEN = Image.new("RGB", (448, 448), "white")


def drawn(program, camera=None):
    return draw(build(program), camera=camera)


def picture_of(program):
    return Image.fromarray(drawn(program))


def overlap(program, other):
    """IoU of two programs, each about its box's middle and with its longest side 1."""
    solids = []
    for one in (program, other):
        drawing = build(one)
        low, high = drawing.bounding_box
        moved = drawing.manifold.translate((-(low + high) / 2).tolist())
        solids.append(moved.scale([1 / float((high - low).max())] * 3))
    common = (solids[0] ^ solids[1]).volume()
    return common / (solids[0].volume() + solids[1].volume() - common)


def test_a_program_is_its_parameters():
    program = (*BRACKET, SIDE)
    layout, values = parameters(program, tied=0.0)
    assert overlap(rebuilt(layout, values), program) == pytest.approx(1, abs=1e-9)
    tied, fewer = parameters(program)
    assert len(fewer) < len(values)
    # The top of the plate is the bottom of the boss: one number moves both.
    top = next(i for i, v in enumerate(fewer) if v == 10 and tied.kinds[i] == "z")
    fewer[top] = 14
    plate, boss, _ = rebuilt(tied, fewer)
    assert plate.depth == pytest.approx(24) and boss.plane.origin[2] == pytest.approx(14)
    assert levels(BRACKET, 2) == pytest.approx([-10, 10, 28])
    assert levels(BRACKET, 0) == pytest.approx([-50, -40, -25, -10, 10, 20, 30, 50])


def test_an_arc_keeps_its_shape_when_its_ends_move():
    half = Path((0, 0), (Segment((10, 0)), Segment((0, 0), (5, 5))))
    layout, values = parameters((Extrusion(FLOOR, (half,), 4),), tied=0.0)
    (end,) = np.flatnonzero((values == 10) & (np.array(layout.kinds) == "x"))
    values[end] = 20
    (step,) = rebuilt(layout, values)
    assert step.loops[0].segments[1].mid == pytest.approx((10, 10))


@pytest.mark.parametrize("program", [(PLATE,), BRACKET, (PLATE, SIDE)])
def test_wrong_numbers_are_found_again_together(program):
    target = look_at(drawn(program))
    random = np.random.default_rng(3)
    layout, values = parameters(program)
    wrong = rebuilt(layout, values * np.exp(random.uniform(np.log(0.8), np.log(1.25), len(values))))
    result = fit(wrong, target)
    assert cost_of(program, target) == 0 and result.cost < 0.1 * cost_of(wrong, target)
    assert overlap(result.program, program) > 0.97 > overlap(wrong, program)


def test_the_visible_faces_are_read_as_sketches():
    readings = [cap for region in caps(drawn((PLATE,))) for cap in region]
    tops = [cap for cap in readings if cap.plane == 0 and cap.straight > 0.95]
    outer, hole = tops[0].loops
    assert isinstance(outer, Rect) and isinstance(hole, Circle)
    assert outer.width / outer.height == pytest.approx(100 / 60, rel=0.02)
    assert outer.width / hole.radius == pytest.approx(10, rel=0.03)


@pytest.mark.parametrize("step", [PLATE, BOSS, SIDE, replace(SIDE, depth=-7.0)])
def test_a_single_prism_looks_like_the_solid_that_is_built_of_it(step):
    different = (draw(prism(step)) != draw(build((step,)))).any(axis=2)
    assert different.sum() <= 2
    rough = draw_roughly(prism(step), 448)
    assert (rough != draw(prism(step))[..., 0]).sum() == 0


def test_pieces_are_found_along_the_line_of_sight():
    truth = tuple(
        Extrusion(Plane((x, 0.0, z), *NAMED["XY"]), (Rect(0, 0, 20, 12),), 8)
        for x, z in ((-45, -30), (45, -30), (-45, 40), (45, 40))
    )
    camera = camera_of(build(truth).bounding_box)
    target = replace(look_at(drawn(truth)), camera=camera)
    # In that camera it looks the same with every piece at another depth.
    wrong = [moved((step,), (t, -t, t))[0] for step, t in zip(truth, (0, 9, -23, 31), strict=True)]
    assert cost_of(tuple(wrong), target, fixed=True) < 0.02 < cost_of(tuple(wrong), target)
    best = aligned(tuple(wrong), target)[0]
    assert overlap(best, truth) > 0.99


@pytest.mark.parametrize(("program", "least"), [((PLATE,), 0.99), (BRACKET, 0.93)])
def test_programs_grow_from_a_picture_alone(program, least):
    target = look_at(drawn(program))
    best = growing.grow(target)[0]
    result = fit(best.program, target, (8, 4), (4, 4))
    assert len(result.program) <= len(program)
    assert overlap(result.program, program) > least


@pytest.mark.parametrize(
    ("eye", "angle"),
    [((0.9, 0.5, 0.8), 0.0), ((-0.6, -1.0, 0.7), 35.0), ((-0.7, 0.5, 0.6), 0.0)],
)
def test_programs_grow_in_any_camera_that_is_known(eye, angle):
    """From any side, in perspective too; nothing frames the part, so its place counts."""
    plate = moved((PLATE,), (7.0, -4.0, 3.0))
    for program in (plate, moved(BRACKET, (7.0, -4.0, 3.0))):
        camera = filling(build(program).vertices, eye, angle=angle)
        target = look_at(drawn(program, camera), camera)
        assert cost_of(program, target) < 1e-9
        assert cost_of(moved(program, (3.0, 0.0, 0.0)), target) > 0.003
        found = growing.placed(growing.grow(target), target)
        best = min(found, key=lambda one: one.price)
        assert best.cost < 0.001 and best.loose == 0
        # Of two pieces the picture does not say how far one is behind the other.
        assert program != plate or overlap(best.program, plate) > 0.97


@pytest.mark.parametrize("angle", [0.0, 35.0])
def test_what_slides_along_the_line_of_sight_is_seen_where_it_was(angle):
    camera = filling(build(BRACKET).vertices, (0.9, 0.5, 0.8), angle=angle)
    points = np.array([[5.0, 6.0, 10.0], [-20.0, 3.0, -8.0]])
    (t,) = camera.slides(np.array([10.0]), np.array([24.0]), 2)
    factor, shift = camera.slide(float(t))
    slid = factor * points + shift
    assert slid[0, 2] == pytest.approx(24)
    assert camera.project(slid)[:, :2] == pytest.approx(camera.project(points)[:, :2])
    assert (camera.project(slid)[:, 2] > camera.project(points)[:, 2]).all()


def test_the_answer_is_the_program_that_draws_the_picture(monkeypatch):
    truth, other = to_code(BRACKET), to_code((SIDE,))
    answer = verify(picture_of(BRACKET), [other, "result = oops", truth], "low", sources=["model"])
    assert answer.source == "model" and answer.likeness > 0.99 and answer.confidence > 0.9
    assert iou_aligned(run_cadquery(truth), answer.part) > 0.999
    assert isinstance(run_cadquery(answer.code), Part)
    fates = {one.code: one.fate for one in answer.tried}
    assert "oops" in fates["result = oops"]
    # Without any effort the first program that is valid is the answer, whatever it draws.
    lazy = verify(picture_of(BRACKET), ["result = oops", other, truth], "none")
    assert lazy.code == other and lazy.likeness < 0.9


def test_programs_that_cannot_be_read_are_run_instead():
    loop = (
        "s = cq.Workplane()\nfor x in (0, 30):\n"
        "    s = s.union(cq.Workplane().center(x, 0).box(9, 9, 9))"
    )
    part = run_cadquery(loop)
    answer = verify(Image.fromarray(draw(part)), [loop], "low", sources=["model"])
    assert answer.code == loop and answer.likeness > 0.999


def test_without_a_valid_candidate_it_says_so():
    answer = verify(NOTHING_SEEN, ["result = oops"], "low", seconds=1, sources=["model", "traced"])
    assert answer.code is None and answer.part is None and answer.confidence == 0
    assert [one.fate for one in answer.tried if one.code == "result = oops"]
    with pytest.raises(InputError, match="effort"):
        verify(NOTHING_SEEN, [], "extreme")


def test_time_is_kept():
    answer = verify(picture_of((PLATE, BOSS, SIDE)), [], "high", seconds=3)
    assert answer.part is not None and answer.seconds < 20
    assert EFFORTS["low"].seconds <= 10 and EFFORTS["high"].seconds <= 60


def test_a_stop_that_is_due_leaves_the_best_that_is_there():
    answer = verify(picture_of(BRACKET), [to_code((SIDE,)), to_code(BRACKET)], stop=Stop.after(0))
    assert answer.source == "model" and answer.likeness > 0.99 and answer.seconds < 20


def test_every_code_is_parsed_once(monkeypatch):
    parsed = []

    def parse(code):
        parsed.append(code)
        return understood(code)

    understood = parsing.parse
    for module in (parsing, pipeline, library):
        monkeypatch.setattr(module, "parse", parse)
    codes = [to_code(BRACKET), "result = oops", to_code((SIDE,)), to_code(BRACKET)]
    verify(picture_of(BRACKET), codes, seconds=1, sources=["model", "traced", "templates"])
    assert sorted(parsed) == sorted(set(codes))


def test_oblique_guesses_do_no_harm():
    tilted = replace(BOSS, plane=Plane((0.0, 0.0, 9.0), (1.0, 0.0, 0.0), (0.0, -0.6, 0.8)))
    answer = verify(picture_of((PLATE, tilted)), [to_code((PLATE, tilted))], "low")
    assert answer.part is not None and answer.likeness > 0.95


def test_programs_too_long_to_draw_here_are_only_run():
    many = "\n".join(
        ["import cadquery as cq", "s = cq.Workplane().box(1, 1, 1)"]
        + [
            f's = s.union(cq.Workplane("XY", origin=({i}, 0, 0)).rect(2, 1).extrude(1))'
            for i in range(70)
        ]
    )
    started = time.monotonic()
    answer = verify(picture_of(BRACKET), [many, "result = oops"], seconds=2, sources=["model"])
    assert answer.code == many and time.monotonic() - started < 30


NOT_COMPILED = """
import sys
from numba.core.dispatcher import Dispatcher
from image2cad.verification import warm_up
warm_up()
for name in [name for name in sys.modules if name.startswith("image2cad")]:
    for own, value in vars(sys.modules[name]).items():
        if isinstance(value, Dispatcher) and not value.signatures:
            print(own)
"""
COMPILED_IN_CALLERS = {"_code", "_line", "_queue"}


@pytest.mark.slow
def test_a_first_picture_of_any_kind_waits_for_no_compiler():
    done = subprocess.run([sys.executable, "-c", NOT_COMPILED], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    assert set(done.stdout.split()) <= COMPILED_IN_CALLERS
