"""Protects the synthesiser: same seed same bytes, no part twice, every part runs and shows."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace
from pathlib import Path as FilePath

import pytest

from benchmarks.part_statistics import measure, normal_form, profile, table, wilson
from image2cad.cad.chords import tangled
from image2cad.cad.light_engine import build
from image2cad.cad.parsing import parse
from image2cad.cad.program import (
    NAMED,
    Circle,
    Extrusion,
    Loop,
    Path,
    Plane,
    Program,
    Rect,
    Segment,
    to_code,
)
from image2cad.common.errors import InputError
from image2cad.data.sources import stream_rows
from image2cad.synthesis import dataset as synthesis
from image2cad.synthesis.dataset import write_dataset
from image2cad.synthesis.families import FAMILIES
from image2cad.synthesis.parts import on_grid, part_of_draw, random_parts, shown_steps, signature
from image2cad.synthesis.shapes import polygon
from metrics.execution import run_many
from metrics.parts import Part


def step(name: str, level: float, depth: float, *loops: Loop, cut: bool = False) -> Extrusion:
    x, normal = NAMED[name]
    origin = (normal[0] * level, normal[1] * level, normal[2] * level)
    return Extrusion(Plane(origin, x, normal), loops, depth, "cut" if cut else "union")


def built(*program: Extrusion):
    drawing = build(program)
    assert drawing is not None
    return drawing


@pytest.fixture(scope="module")
def made():
    return list(itertools.islice(random_parts(11), 150))


def contents(folder: FilePath) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in sorted(folder.iterdir())}


@pytest.mark.slow
def test_the_same_seed_writes_the_same_bytes_whoever_works_and_stops(tmp_path, monkeypatch):
    whole, shared, stopped = (tmp_path / name for name in ("whole", "shared", "stopped"))
    assert write_dataset(whole, 7, seed=6) == 0
    wanted = contents(whole)
    assert len(wanted) == 8 and "metadata.jsonl" in wanted
    write_dataset(shared, 7, seed=6, workers=2)
    assert contents(shared) == wanted

    write, calls = synthesis._write_picture, itertools.count()

    def stop_at_the_fifth(job):
        if next(calls) == 4:
            raise KeyboardInterrupt
        return write(job)

    monkeypatch.setattr(synthesis, "_write_picture", stop_at_the_fifth)
    with pytest.raises(KeyboardInterrupt):
        write_dataset(stopped, 7, seed=6)
    assert not (stopped / "metadata.jsonl").exists()
    with open(stopped / "progress.jsonl", "a") as progress:
        progress.write('["s0060')  # a line cut short
    (stopped / "s00600001.png").unlink()
    with pytest.raises(InputError, match="other settings"):
        write_dataset(stopped, 7, seed=5, resume=True)
    with pytest.raises(InputError, match="already holds"):
        write_dataset(stopped, 7, seed=6)
    write_dataset(stopped, 7, seed=6, resume=True)
    assert contents(stopped) == wanted
    assert next(calls) == 9  # 4 before the stop, the fifth, and 4 more: the rest and the lost one
    with pytest.raises(InputError, match="finished"):
        write_dataset(stopped, 7, seed=6, resume=True)


def test_a_part_that_does_not_run_is_left_out_and_counted(tmp_path, monkeypatch):
    monkeypatch.setattr(synthesis, "_write_picture", lambda job: not job[1].endswith("00001"))
    assert write_dataset(tmp_path / "set", 4, seed=6) == 1
    rows = (tmp_path / "set" / "metadata.jsonl").read_text().splitlines()
    assert len(rows) == 4 and not any("s00600001" in row for row in rows)


def test_draws_do_not_depend_on_each_other():
    late = list(itertools.islice(random_parts(3, start=20), 5))
    assert [part[0] for part in late] == [
        part[0] for i in range(20, 40) if (part := part_of_draw(3, i))
    ][:5]


def test_no_part_is_made_twice(made):
    programs = [program for program, _ in made]
    assert len({to_code(program) for program in programs}) == len(programs)
    for (_, one), (_, two) in itertools.combinations(made, 2):
        if math.isclose(one.volume, two.volume, rel_tol=1e-4):
            assert (one.manifold ^ two.manifold).volume() < 0.9999 * one.volume


def test_equal_solids_have_one_signature_however_they_are_made():
    hole = Circle(20, 5, 9)
    plate = built(step("XY", -10, 20, Rect(0, 0, 100, 60)))
    on_edge = built(step("XZ", -30, 60, Rect(0, 0, 100, 20)))
    halves = built(step("YZ", -50, 40, Rect(0, 0, 60, 20)), step("YZ", -10, 60, Rect(0, 0, 60, 20)))
    assert signature(plate) == signature(on_edge) == signature(halves)
    drilled = built(step("XY", -10, 20, Rect(0, 0, 100, 60), hole))
    cut = built(step("XZ", -30, 60, Rect(0, 0, 100, 20)), step("XY", -10, 20, hole, cut=True))
    assert signature(drilled) == signature(cut) != signature(plate)
    mirrored = built(step("XY", -10, 20, Rect(0, 0, 100, 60), replace(hole, x=-20)))
    assert signature(mirrored) != signature(drilled)


def test_every_part_is_on_the_grid_and_its_steps_show(made):
    assert {len(program) for program, _ in made} >= {1, 2, 3, 4}
    for program, drawing in made:
        sides = drawing.bounding_box[1] - drawing.bounding_box[0]
        assert 98 <= sides.max() <= 102 and sides.min() >= 1
        assert drawing.volume > 0 and shown_steps(drawing) >= 2 / 3 * len(program)
        assert not any(tangled(step.loops) for step in program)
        assert parse(to_code(program)) == program
    bodies = [len(drawing.manifold.decompose()) for _, drawing in made]
    assert 0 < sum(count > 1 for count in bodies) < 0.15 * len(made)


def test_every_part_runs_and_is_the_solid_that_was_drawn(made):
    chosen = sorted(made, key=lambda part: -len(part[0]))[:12] + made[:12]
    solids = run_many([to_code(program) for program, _ in chosen])
    for (_, drawing), solid in zip(chosen, solids, strict=True):
        assert isinstance(solid, Part)
        assert solid.volume == pytest.approx(drawing.volume, rel=0.02)


def test_held_out_kinds_and_families_are_not_drawn(monkeypatch):
    for name in FAMILIES:
        monkeypatch.setitem(FAMILIES, name, lambda rng: pytest.fail("a held-out family"))
    without = ["circle", "ring", "rounded", "slot", "arch", "quarter", "bitten", "flat", "bow"]
    for program, _ in itertools.islice(random_parts(2, without=without), 60):
        assert not any(isinstance(step.loops[0], Circle) for step in program)
    found = {
        profile(step)
        for program, _ in itertools.islice(
            random_parts(2, without=["rect", "cornered", "curved"]), 40
        )
        for step in program
    }
    assert found == {"circle", "ring"}


def test_wrong_names_and_numbers_are_bad_input(tmp_path):
    for wrong, message in (
        ({"families": ["sprocket"]}, "unknown family"),
        ({"families": []}, "no family"),
        ({"without": ["sprocket"]}, "unknown kind"),
        ({"without": ["rect", "circle", "cornered", "curved"]}, "left to draw"),
        ({"workers": 0}, "at least 1"),
    ):
        with pytest.raises(InputError, match=message):
            write_dataset(tmp_path / "set", 3, 1, **wrong)
    with pytest.raises(InputError, match="nothing to resume"):
        write_dataset(tmp_path / "set", 3, 1, resume=True)
    assert not (tmp_path / "set").exists()


def test_snapping_leaves_clean_sketches():
    # Two corners fall together, one lies on a line, and an arc is too flat for the grid.
    corners = [(0, 0), (40, 0), (80, 0.1), (80, 50), (79.9, 50.1), (0, 50)]
    bulge = Segment((0, 0), (-0.2, 25))
    rough = Path(corners[0], (*polygon(corners).segments, bulge))
    program = (step("XY", 0, 100, rough),)
    part = on_grid(program, built(*program).bounding_box)
    assert part is not None
    assert part[0] == (step("XY", -50, 100, Rect(0, 0, 80, 50)),)
    spike = (step("XY", 0, 9, polygon([(0, 0), (80, 0), (80, 50), (40, 50), (40, 70), (40, 50)])),)
    assert on_grid(spike, built(*program).bounding_box) is None
    crossed = (step("XY", 0, 9, polygon([(0, 0), (80, 80), (80, 0), (0, 70)])),)
    assert on_grid(crossed, built(*program).bounding_box) is None


def test_sketches_that_touch_themselves_or_their_holes_are_found():
    square = Rect(0, 0, 20, 20)
    assert not tangled([square, Circle(0, 0, 9), Circle(0, 0, 3)])
    assert tangled([square, Circle(0, 0, 10)])
    assert tangled([square, Circle(9, 0, 4)])
    assert tangled([polygon([(0, 0), (10, 10), (10, 0), (0, 10)])])
    assert tangled([polygon([(0, 0), (10, 0), (5, 0), (5, 5)])])


def test_an_arc_that_crosses_its_neighbour_near_their_corner_is_found_as_by_opencascade():
    def nose(bulge):
        """A plate whose arc leaves its left side at the lower corner, so far back over it."""
        sides = [Segment((10, 10)), Segment((0, 10)), Segment((0, 0)), Segment((4, 3), mid=bulge)]
        return Path((10, 3), tuple(sides))

    folds = [nose((x, 2.0)) for x in (0.1, 0.6, 0.7, 0.8, 1.2)]
    programs = [(step("XY", 0, 2, loop),) for loop in folds]
    runs = [isinstance(one, Part) for one in run_many(list(map(to_code, programs)))]
    assert runs == [not tangled([loop]) for loop in folds]
    assert {True, False} == set(runs)


def test_hidden_steps_are_not_counted_as_shown():
    box = step("XY", -20, 40, Rect(0, 0, 80, 80))
    boss, below = step("XY", 20, 10, Circle(0, 0, 20)), step("XY", -30, 10, Circle(0, 0, 20))
    assert shown_steps(built(box, boss)) == 2
    assert shown_steps(built(box, below)) == 1
    inside = step("XY", -10, 20, Circle(0, 0, 20))
    assert shown_steps(built(box, inside)) == 1


def test_statistics_count_what_is_there():
    tube = step("XY", -5, 10, Circle(0, 0, 50), Circle(0, 0, 40))
    plate = step("XZ", 7, 3, Rect(50, 20, 40, 40), Circle(50, 20, 5))
    block = step("YZ", 0, 40, Rect(0, 0, 40, 40))
    beside = replace(block, loops=(Rect(35, 0, 30, 20),))
    drill = step("XY", -20, 40, Circle(20, 0, 5), cut=True)
    programs: list[Program] = [(tube,), (plate,), (block, beside, drill)]
    figures = measure(programs, tokens=len)
    assert figures.parts == 3
    for name, counts in {
        "parts: 1 extrusion": (2, 3),
        "parts: 3 extrusions": (1, 3),
        "parts: with a cut": (1, 3),
        "parts: with holes in a sketch": (2, 3),
        "parts: several bodies": (0, 3),
        "parts: mirror symmetric along all three axes": (2, 3),
        "first sketch: ring": (1, 3),
        "first sketch: rectangle": (2, 3),
        "first sketch: with holes, rings aside": (1, 3),
        "later sketch, added: rectangle": (1, 1),
        "later sketch, cut away: circle": (1, 1),
        "planes: YZ": (2, 5),
        "rectangles: square within 1 %": (2, 3),
        "later steps: cut": (1, 2),
        "later steps: same two ends as an earlier one": (1, 1),
        "later steps: outline within an earlier one's box": (0, 1),
        "sketches with holes: one about the centre": (1, 1),
    }.items():
        assert figures.shares[name] == counts, name
    assert sorted(figures.values["curves a part"]) == [2, 5, 9]
    assert min(figures.values["tokens of the program, on the grid"]) > len("import cadquery as cq")
    assert figures.values["shortest side, % of the longest"][0] == pytest.approx(10, abs=0.1)
    assert wilson(8, 10) == pytest.approx((0.4902, 0.9433), abs=1e-4)
    text = table(figures, measure([(tube,)]))
    assert "| 1 extrusion | 2 of 3 | 20.8 % to 93.9 % | 100.0 % * |" in text
    assert normal_form((step("XY", 0, 5, polygon([(0, 0), (1, 0), (2, 0)])),)) is None


def test_synthetic_parts_are_distributed_like_real_ones(made, gencad_dev):
    codes = [row["cadquery"] for _, row in stream_rows(str(gencad_dev), "train")]
    real = measure(program for code in codes if (program := parse(code)))
    ours = measure(program for program, _ in made)
    for name in ("parts: 1 extrusion", "parts: with a cut", "planes: XZ", "first sketch: ring"):
        low, high = wilson(*real.shares[name])
        yes, of = ours.shares[name]
        assert low <= yes / of <= high, name
