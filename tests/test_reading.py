"""Protects pictures of any style: the part is found, the camera too, and a program comes back.

VTK draws the pictures (benchmarks/vtk_pictures.py), so that nothing is compared with its like.
"""

import io
import itertools
import time
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

from benchmarks import vtk_pictures
from image2cad.cad import centred, moved, parse, renamed_axes, scaled
from image2cad.cad.light_engine import build
from image2cad.cad.program import NAMED, Circle, Extrusion, Path, Plane, Rect, Segment, to_code
from image2cad.common import NEVER, stopping
from image2cad.common.errors import InputError
from image2cad.reading import (
    FACING_AXES,
    cadbenchs,
    doubt_about,
    gencads,
    lying,
    namings,
    restoring,
    rings,
    rods_of,
    scene_of,
    seen_from,
    sightings,
    tiles,
    views_in,
)
from image2cad.reading.framing import foreground_of
from image2cad.rendering import axes_seen_from, camera_from, draw, draw_in_style, paint
from image2cad.verification import choosing, pipeline, verify, viewing
from image2cad.verification.adding import additions
from image2cad.verification.boxes import box_of, loose_pieces
from image2cad.verification.cost import cost_of, look_at_sights, regions_of
from image2cad.verification.growing import grow
from image2cad.verification.holes import holes_of
from image2cad.verification.placing import aligned, stray_price
from image2cad.verification.plainer import _simplified, concentric
from image2cad.verification.posing import posed
from image2cad.verification.sights import sight_of
from image2cad.verification.viewing import cameras_of_tiles, target_of
from metrics import Failure, iou_aligned, iou_unit_box
from metrics.execution import run_many

FLOOR = Plane((0.0, 0.0, 0.0), *NAMED["XY"])
PART = (
    Extrusion(FLOOR, (Rect(0, 0, 100, 60), Circle(25, 0, 10)), 20),
    Extrusion(Plane((0.0, 0.0, 20.0), *NAMED["XY"]), (Rect(-30, 0, 40, 60),), 30),
)


@pytest.fixture(autouse=True)
def seconds_of_the_processor(monkeypatch):
    """How good an answer is must not depend on what else the machine does."""
    clock = SimpleNamespace(monotonic=time.process_time)
    for module in (stopping, pipeline):
        monkeypatch.setattr(module, "time", clock)


@pytest.fixture(scope="module")
def truth():
    (part,) = run_many([to_code(PART)])
    return part


@pytest.fixture(scope="module")
def solid(truth):
    return vtk_pictures.solid_of(truth)


@pytest.fixture(scope="module")
def shots(solid):
    """A picture of the part in each of VTK's looks."""
    looks = ("colours", "perspective", "lines", "shaded", "sheet", "benchcad")
    return {look: vtk_pictures.taken(look, "part 4", solid) for look in looks}


def iou(answer, truth):
    (part,) = run_many([answer.code])
    return iou_aligned(part, truth, alignment="best")


# ---- Where the part is


def dressed(picture):
    """One picture with other grounds, margins and formats; and where it then lies."""
    part = np.asarray(picture).min(axis=2) < 250
    dark = Image.fromarray(
        np.where(part[..., None], np.asarray(picture), (40, 42, 48)).astype("u1")
    )
    opacity = np.where(part, 255, 0).astype("u1")
    clear = Image.fromarray(np.dstack([np.asarray(picture), opacity]), "RGBA")
    wide = Image.new("RGB", (700, 500), "white")
    wide.paste(picture, (200, 30))
    around = Image.new("RGB", (600, 448), "white")
    around.paste(picture, (76, 0))
    file = io.BytesIO()
    picture.save(file, "JPEG", quality=50)
    return {
        "as it is": (picture, (0, 0)),
        "dark": (dark, (0, 0)),
        "transparent": (clear, (0, 0)),
        "margins": (wide, (200, 30)),
        "4:3": (around, (76, 0)),
        "JPEG": (Image.open(file).convert("RGB"), (0, 0)),
    }


def test_a_part_is_found_on_any_ground_and_never_squashed():
    picture = Image.fromarray(draw(build(PART)))
    part = np.asarray(picture).min(axis=2) < 250
    rows, columns = np.nonzero(part)
    assert gencads(picture)[1] == "own"
    for name, (image, (left, top)) in dressed(picture).items():
        scene = scene_of(image)
        place = scene.place
        # The canvas's pixels, back in the picture's.
        ours = np.argwhere(scene.part) + 0.5
        found_rows, found_columns = ours[:, 0] / place.scale, ours[:, 1] / place.scale
        edges = [
            found_columns.min() + place.left - left - columns.min(),
            found_columns.max() + place.left - left - columns.max() - 1,
            found_rows.min() + place.top - top - rows.min(),
            found_rows.max() + place.top - top - rows.max() - 1,
        ]
        assert np.abs(edges).max() < 2.5, name
        assert scene.part.sum() / place.scale**2 == pytest.approx(part.sum(), rel=0.03), name
        own = gencads(image)
        assert (own is None) == (name == "JPEG"), name
        if own is not None:
            assert own[1] == {"margins": "lost", "4:3": "middle"}.get(name, "own"), name
            assert name == "margins" or (own[0] == np.asarray(picture)).all(), name
    assert scene_of(Image.new("RGB", (300, 200), (90, 90, 90))) is None


def test_regions_are_the_faces_whatever_the_style(shots):
    for look in ("colours", "lines", "perspective"):
        scene = scene_of(shots[look].image)
        assert scene.has_lines and scene.line_drawing == (look == "lines"), look
        assert 4 <= len([mask for mask, _ in scene.masks if mask.sum() > 300]) <= 9, look
    assert not scene_of(shots["shaded"].image).has_lines


def test_the_side_of_a_cylinder_is_read_where_its_end_is_a_region_of_its_own_or_not():
    rod = (Extrusion(Plane((0.0, 0.0, 0.0), *NAMED["YZ"]), (Circle(0, 0, 20),), 100),)
    picture = Image.fromarray(draw_in_style(build(rod), "coloured", (1, -0.6, 0.8)))
    camera = seen_from((1, -0.6, 0.8)).camera
    # The longest region is its side, which two readings of the right plane are of.
    readings = rods_of(scene_of(picture), camera)[0]
    shares = [
        cap.depths[0] / cap.loops[0].radius for cap in readings if FACING_AXES[cap.plane] == 0
    ]
    assert min(abs(share - 5) for share in shares) < 0.3


def test_cadbenchs_view_is_known_and_no_other_is_taken_for_it(shots):
    picture = Image.fromarray(draw_in_style(build(PART), "cadbench"))
    known = cadbenchs(scene_of(picture), picture)
    assert known is not None
    assert known.camera.eye[0] < 0 < min(known.camera.eye[1:])
    # The middle of the box is seen in the picture's middle: a part that strays is dearer.
    target = target_of(scene_of(picture), known.camera, centred_there=True)
    off = (np.array(target.middle) - 448 / 2) / target.camera.scale
    there = off[0] * known.turn[0] - off[1] * known.turn[1]
    part = moved(centred(PART, build(PART).bounding_box, 0.5), tuple(there.tolist()))
    assert stray_price(part, target) < 1e-5
    assert stray_price(moved(part, (9.0, 0.0, 0.0)), target) > 1e-3
    for look, shot in shots.items():
        assert cadbenchs(scene_of(shot.image), shot.image) is None, look


# ---- Where it is seen from


def turn_at(camera, point):
    """(3, 3) right, up and view of a camera at a point, unit vectors."""
    eye = camera.eye - point if camera.in_perspective else camera.eye
    seen = camera.project(np.vstack([point, point + 1e-4 * np.eye(3)]))[:, :2]
    ways = (seen[1:] - seen[0]).T * [[1], [-1]]
    return np.vstack(
        [ways / np.linalg.norm(ways, axis=1, keepdims=True), eye / np.linalg.norm(eye)]
    )


def degrees_apart(one, other):
    """Between two turns, whatever axes are called."""
    best = 180.0
    for order in itertools.permutations(range(3)):
        for signs in itertools.product((1, -1), repeat=3):
            names = np.zeros((3, 3))
            names[range(3), order] = signs
            if np.linalg.det(names) > 0:
                cosine = (np.trace(one @ names @ other.T) - 1) / 2
                best = min(best, np.degrees(np.arccos(np.clip(cosine, -1, 1))))
    return best


@pytest.mark.parametrize("look", ["colours", "perspective", "lines"])
def test_the_camera_is_among_the_likeliest(look, shots):
    shot = shots[look]
    right = turn_at(camera_from(np.array(shot.cameras[0]["matrix"])), np.zeros(3))
    found = sightings(scene_of(shot.image))
    apart = [degrees_apart(turn_at(one.camera, np.zeros(3)), right) for one in found]
    # In perspective the middle of the canvas is not the middle of the part.
    assert min(apart[:3]) < (5 if look == "perspective" else 1)


def test_lines_on_one_plane_are_not_drawn():
    flush = (PART[0], Extrusion(FLOOR, (Rect(80, 0, 60, 60),), 20))
    camera = scene_camera(flush)
    whole = (Extrusion(FLOOR, (Rect(30, 0, 160, 60), Circle(25, 0, 10)), 20),)
    one, other = (paint(build(program), camera, 448).ink for program in (flush, whole))
    assert one.sum() == pytest.approx(other.sum(), rel=0.03)


def scene_camera(program):
    from image2cad.rendering import filling

    return filling(build(program).vertices, (1, -0.6, 0.8))


# ---- What comes back


@pytest.mark.parametrize("look", ["colours", "lines"])
def test_a_picture_of_another_viewer_is_answered(look, shots, truth):
    answer = verify(shots[look].image, seconds=5)
    assert iou(answer, truth) > 0.8
    assert answer.likeness > 0.7


def test_sheets_and_composites_are_cut_apart(shots, truth):
    for look, count in (("sheet", 3), ("benchcad", 4)):
        tiles = views_in(shots[look].image)
        assert len(tiles) == count
        answer = verify(shots[look].image, seconds=5)
        assert iou(answer, truth) > 0.85, look
        # The cameras are known, so it stands in the picture's own axes.
        (part,) = run_many([answer.code])
        assert iou_unit_box(part, truth) > 0.8, look
    # A view along an axis shows one plane, even for what reads as no sketch on it.
    front = views_in(shots["sheet"].image)[0].camera
    slanted = scene_of(shots["perspective"].image)
    assert {planes for _, planes in lying(slanted, front)} == {(1,)}


def test_views_are_cut_apart_however_many_pieces_a_part_has():
    """Without solving: which tiles there are, and whether their cameras are known."""
    apart = (*PART, Extrusion(Plane((-50.0, 75.0, 30.0), *NAMED["YZ"]), (Circle(75, 70, 20),), 60))
    (part,) = run_many([to_code(apart)])
    pieces = vtk_pictures.solid_of(part)
    cases = (("sheet", 0, 3), ("sheet", 1, 3), ("cadbench grid", 0, 4), ("lines", 0, 1))
    for look, lot, count in cases:
        tiles = views_in(vtk_pictures.taken(look, f"pieces {lot}", pieces).image)
        assert len(tiles) == count, (look, lot)
        assert all(tile.camera is not None for tile in tiles) == (count > 1)
    board = vtk_pictures.taken("benchcad", "pieces", pieces).image
    assert len(views_in(board)) == 4
    plain = views_in(board.crop((2, 2, board.width - 2, board.height - 2)))
    assert [tile.camera for tile in plain] == [None] * 4  # four views, whoever drew them


def in_other_modes(image):
    """The same picture as files bring it, by the mode that PIL gives it."""
    grey = np.asarray(image.convert("L"))
    ink = np.zeros((*grey.shape, 4), dtype=np.uint8)
    ink[..., 3] = 255 - grey
    words = grey.astype(np.uint16) * 257
    return {
        "ink that can be seen through around it": Image.fromarray(ink),
        "16 bits": Image.fromarray(words),
        "16 bits, big-endian": Image.frombytes("I;16B", image.size, words.astype(">u2").tobytes()),
        "palette": image.convert("P", palette=Image.Palette.ADAPTIVE),
        "one bit, fine": image.resize((2600, 2600)).convert("1", dither=Image.Dither.NONE),
    }


def test_a_line_drawing_is_read_alike_in_every_mode(shots):
    image = shots["lines"].image
    known = scene_of(image)
    assert known.line_drawing
    for mode, other in in_other_modes(image).items():
        assert doubt_about(other) == "", mode
        scene = scene_of(other)
        both, either = scene.part & known.part, scene.part | known.part
        assert scene.line_drawing and both.sum() > 0.98 * either.sum(), mode


def test_views_of_a_sheet_too_large_to_be_read_are_cut_apart_whole(shots):
    sheet = shots["sheet"].image
    large = sheet.resize((2600, 2600 * sheet.height // sheet.width), Image.Resampling.BICUBIC)
    usual, finer = views_in(sheet), views_in(large)
    assert len(finer) == len(usual) == 3
    factor = 2000 / sheet.width
    for tile, other in zip(finer, usual, strict=True):
        border = np.concatenate([np.asarray(tile.image)[i] for i in (0, 1, -2, -1)])
        assert border.min() > 250  # nothing is cut off
        sides = [np.ptp(np.nonzero(foreground_of(one.image)), axis=1) for one in (tile, other)]
        assert sides[0] == pytest.approx(factor * sides[1], abs=4)


def test_a_pattern_is_given_up_soon(monkeypatch):
    """Dots in rows, and a dithered grey: neither is a sheet or a copy, however long one looks."""
    dots = np.full((600, 600), 255, dtype=np.uint8)
    for row, column in itertools.product(range(9), repeat=2):
        dots[100 + row :: 20, 100 + column :: 20] = 0
    chance = np.random.default_rng(0)
    dithered = np.full((448, 448), 255, dtype=np.uint8)
    dithered[100:300, 60:360] = np.where(chance.random((200, 300)) < 0.25, 0, 212)
    monkeypatch.setattr(tiles, "_in_line", None)  # what every pair of gutters would ask
    monkeypatch.setattr(restoring, "_bridges", None)
    assert len(views_in(Image.fromarray(dots))) == 1
    assert restoring.restored(Image.fromarray(dithered)) is None


def test_nothing_is_added_in_the_faces_of_a_part_that_has_none_along_an_axis(shots):
    """A model may answer with a part that is oblique altogether: it has no levels to cut from."""
    scene = scene_of(shots["colours"].image)
    target = target_of(scene, sightings(scene)[0].camera)
    way = np.array([1.0, 2.0, 3.0]) / np.sqrt(14)
    across = np.array([3.0, 0.0, -1.0]) / np.sqrt(10)
    oblique = (
        Extrusion(Plane((0.0, 0.0, 0.0), tuple(across), tuple(way)), (Rect(0, 0, 60, 90),), 40),
    )
    assert any(holes for readings in regions_of(target) for holes in readings[0].loops[1:])
    assert [*additions(oblique, target, regions_of(target), NEVER)]


def test_a_piece_that_one_view_leaves_loose_is_slid_to_where_all_show_it():
    """A leg looks right in the view it was read in, wherever it stands along its line of sight."""
    plate = Extrusion(Plane((0.0, 0.0, 20.0), *NAMED["XY"]), (Rect(50, 50, 100, 100),), 10)
    leg = Extrusion(Plane((0.0, 0.0, 0.0), *NAMED["XY"]), (Rect(8, 70, 16, 30),), 20)
    (part,) = run_many([to_code((plate, leg))])
    board = vtk_pictures.taken("benchcad", "leg", vtk_pictures.solid_of(part)).image
    target = look_at_sights([sight_of(*view) for view in cameras_of_tiles(views_in(board))])
    # The board shows the longest side, 100 here, with 142.2 of a view's 256 pixels.
    sight = target.sights[0]
    unit = 1.422 * sight.scene.place.scale / sight.camera.scale
    right = centred((plate, leg), build((plate, leg)).bounding_box, unit)
    assert cost_of(right, target) < 0.02
    factor, shift = sight.camera.slide(30.0)
    assert factor == 1.0
    loose = (right[0], *moved(right[1:], tuple(shift.tolist())))
    assert loose_pieces(loose) == 1
    (best,) = aligned(loose, target)
    assert loose_pieces(best) == 0
    assert box_of(best) == pytest.approx(box_of(right), abs=2.0)


def test_further_views_are_turned_to_where_a_program_draws_them(solid):
    """Two views from behind, of which one is from below, with a program that explains the first."""
    eyes = ((1.0, -0.6, 0.8), (-1.0, 0.5, 0.6), (0.4, 0.9, -0.7))
    scenes = [
        scene_of(
            vtk_pictures.shot(
                solid, vtk_pictures.filling(solid.points, eye, (448, 448), 0.7), vtk_pictures.STEEL
            )
        )
        for eye in eyes
    ]
    views = posed(PART, target_of(scenes[0], seen_from(eyes[0]).camera), scenes[1:])
    assert len(views) == 3
    for (_, camera), eye in zip(views, eyes, strict=True):
        cosine = (np.trace(turn_at(camera, np.zeros(3)) @ np.stack(axes_seen_from(eye)).T) - 1) / 2
        assert np.degrees(np.arccos(np.clip(cosine, -1, 1))) < 5


def test_a_ragged_outline_loses_flat_arcs_and_corners_on_a_line_and_keeps_its_round_ones():
    ends = [(50, 0), (50, 40), (20, 40), (-20, 40), (-48, 40), (-50, 39), (-50, 20), (-49, 10)]
    mids = {3: (0, 20), 5: (-49, 39.2)}
    sides = tuple(Segment(end, mids.get(i)) for i, end in enumerate(ends))
    assert _simplified(Path((-50, 0), sides), 0.02) == Path(
        (-50, 0),
        (
            Segment((50, 0)), Segment((50, 40)), Segment((20, 40)), Segment((-20, 40), (0, 20)),
            Segment((-50, 39)),
        ),
    )  # fmt: skip


def test_outlines_that_nearly_share_a_middle_share_it_and_others_stay():
    base = Extrusion(FLOOR, (Circle(1, -1, 50), Circle(2, 0, 40), Circle(20, 0, 5)), 10)
    boss = Extrusion(Plane((0.0, 0.0, 9.0), *NAMED["XY"]), (Circle(0, -2, 15),), 8, "union")
    beside = Extrusion(Plane((0.0, 0.0, 0.0), *NAMED["XZ"]), (Circle(1, -1, 5),), 90, "cut")
    ring, hub, across = concentric((base, boss, beside))
    assert ring.loops == (Circle(1, -1, 50), Circle(1, -1, 40), Circle(20, 0, 5))
    assert hub.loops == (Circle(1, -1, 15),) and across == beside
    assert concentric((ring, hub, across)) == (ring, hub, across)
    tube = Extrusion(FLOOR, (Rect(0, 0, 50, 90), Rect(1, 0, 46, 86), Circle(-3, 0, 9)), 10)
    assert concentric((tube,))[0].loops == (*tube.loops[:1], Rect(0, 0, 46, 86), tube.loops[2])


@pytest.mark.parametrize(
    ("look", "lot", "inner", "depth"),
    [("perspective", "801-005", 45, 18), ("direction", "821-014", 42, 12)],
)
def test_a_ring_has_its_hole_in_its_middle(look, lot, inner, depth):
    """A camera a little off and a hole beside the middle draw the same."""
    upright = Plane((0.0, depth / 2, 0.0), *NAMED["XZ"])
    ring = Extrusion(upright, (Circle(0, 0, 50), Circle(0, 0, inner)), depth)
    (part,) = run_many([to_code((ring,))])
    shot = vtk_pictures.taken(look, lot, vtk_pictures.solid_of(part))
    answer = verify(shot.image)
    (step,) = parse(answer.code)
    assert len({(loop.x, loop.y) for loop in step.loops if isinstance(loop, Circle)}) == 1
    assert iou(answer, part) > 0.9


def test_there_is_an_answer_where_nothing_that_was_found_runs(shots, truth, monkeypatch):
    runs, laid = choosing.run_cadquery, []

    def resorts(target):
        laid.append(target)
        return viewing.last_resorts(target)

    def run(code, timeout):
        return runs(code, timeout=timeout) if laid else Failure("crash", "made up")

    monkeypatch.setattr(pipeline, "last_resorts", resorts)
    monkeypatch.setattr(choosing, "run_cadquery", run)
    answer = verify(shots["colours"].image, seconds=2)
    assert len(laid) == 1
    assert answer.source == "templates"
    assert iou(answer, truth) > 0.3
    assert answer.confidence < 0.5


def test_the_through_hole_of_a_face_that_is_there_already_is_cut(shots):
    """A part that has the face is not said to lack it; only the hole is new."""
    (view,) = sightings(scene_of(shots["colours"].image))[:1]
    target = target_of(scene_of(shots["colours"].image), view.camera)
    (first, *_) = grow(target, NEVER, beam=1)
    drilled = [step for step in first.program if step.operation == "cut"]
    assert [type(loop) for step in drilled for loop in step.loops] == [Circle]


def taken_of(program, look="colours"):
    """What a picture of a program is compared by, seen as it seems to be."""
    (part,) = run_many([to_code(program)])
    scene = scene_of(vtk_pictures.taken(look, "plain", vtk_pictures.solid_of(part)).image)
    return target_of(scene, sightings(scene)[0].camera)


def above(level):
    return Plane((0.0, 0.0, level), *NAMED["XY"])


PLAIN = {
    "hub on a plate": (
        Extrusion(FLOOR, (Rect(0, 0, 80, 60),), 10),
        Extrusion(above(10.0), (Circle(0, 0, 15), Circle(0, 0, 7)), 20),
    ),
    "collar": (
        Extrusion(FLOOR, (Circle(0, 0, 30),), 6),
        Extrusion(above(6.0), (Circle(0, 0, 20),), 34),
    ),
}


@pytest.mark.parametrize("name", PLAIN)
def test_what_stands_on_a_face_has_its_axis_where_that_of_the_face_is(name):
    """Nothing in a picture says how far off it stands; a ring of its outline that is hidden
    neither becomes part of the sketch."""
    found = grow(taken_of(PLAIN[name]), NEVER, beam=1)[0].program
    assert len(found) == 2
    assert {type(loop) for step in found for loop in step.loops} <= {Circle, Rect}
    lower, upper = sorted((box_of((step,)) for step in found), key=lambda box: box[:, 2].mean())
    size = np.ptp(lower, axis=0).max()
    assert np.abs(lower.mean(axis=0) - upper.mean(axis=0))[:2].max() < 0.03 * size


def test_a_hole_is_cut_through_or_down_to_its_floor_and_holes_of_one_size_together():
    plate = Extrusion(FLOOR, (Rect(0, 0, 70, 50),), 25)
    pocket = Extrusion(above(10.0), (Rect(0, 0, 50, 30),), 15, "cut")
    four = [Circle(x, y, 6) for x in (-25, 25) for y in (-15, 15)]
    drilled = replace(plate, loops=(*plate.loops, *four))
    cuts = {}
    for name, program in {"pocket": (plate, pocket), "drilled": (drilled,)}.items():
        target = taken_of(program)
        block = box_of(program) * 100 / 70
        solid = (replace(plate, depth=float(np.ptp(block[:, 2]))),)
        regions = target.sights[0].regions
        cuts[name] = [
            step for readings in regions for _, step in holes_of(readings, solid, regions)
        ]
    of_rect = {round(step.depth) for step in cuts["pocket"] if isinstance(step.loops[0], Rect)}
    assert len(of_rect) > 3  # through all, and less deep
    assert {len(step.loops) for step in cuts["drilled"]} >= {1, 4}
    assert len({round(step.depth) for step in cuts["drilled"]}) <= 2  # no floor is seen


def test_an_opening_with_a_rim_as_thin_as_a_line_is_cut_into_the_face_that_it_lies_in():
    """Two walls are seen through it, neither of which has its outline."""
    walls = (Extrusion(FLOOR, (Rect(0, 0, 50, 50), Rect(0, 0, 47, 47)), 100),)
    found = grow(taken_of(walls), NEVER, beam=1)[0].program
    rects = [loop for step in found for loop in step.loops if isinstance(loop, Rect)]
    inner, outer = sorted(loop.width for loop in rects)
    assert inner / outer == pytest.approx(47 / 50, abs=0.02)


def test_a_thin_frame_that_seams_part_is_one_face_with_a_hole():
    ends = [(-60, 40), (-60, -40), (-0.2, -40), (-0.2, -35), (-55, -35), (-55, 35), (-0.2, 35)]
    half = Path((-0.2, 40), tuple(map(Segment, ends)))
    other = Path((0.2, 40), tuple(Segment((-x, y)) for x, y in ends))
    sight = taken_of((Extrusion(FLOOR, (half,), 10), Extrusion(FLOOR, (other,), 10))).sights[0]
    ((mask, _),) = rings(sight.scene, sight.camera)
    faces = [readings[0] for readings in sight.regions if len(readings[0].loops) == 2]
    assert len(faces) == 1 and (faces[0].mask == mask).all()


def test_a_narrow_glimpse_through_a_hole_is_ground():
    plate = (Extrusion(FLOOR, (Rect(0, 0, 60, 44), Circle(0, 0, 12)), 15),)
    (part,) = run_many([to_code(plate)])
    shot = vtk_pictures.taken("colours", "glimpse", vtk_pictures.solid_of(part))
    scene = scene_of(shot.image)
    holes, count = ndimage.label(ndimage.binary_fill_holes(scene.part) & ~scene.part)
    assert count == 1 and 200 < (holes > 0).sum() < 500


def test_what_cannot_be_asked_is_refused(shots):
    picture = shots["colours"].image
    with pytest.raises(InputError, match="no picture"):
        verify([])
    with pytest.raises(InputError, match="one picture"):
        verify([picture, picture], camera=(1, -1, 1))


def test_guesses_of_a_backend_are_turned_scaled_and_fitted(shots, truth):
    """They stand in axes and units of their own; one that is nearly right needs no growing."""
    for turn in namings()[::5]:
        turned = build(renamed_axes(PART, turn))
        box = np.sort((build(PART).bounding_box @ turn.T), axis=0)
        assert turned.bounding_box == pytest.approx(box)
        assert turned.volume == pytest.approx(build(PART).volume)
    rough = (replace(PART[0], depth=26), PART[1])
    guess = to_code(scaled(renamed_axes(rough, namings()[7]), 0.3))
    answer = verify(shots["shaded"].image, [guess], seconds=6)
    assert iou(answer, truth) > 0.85
