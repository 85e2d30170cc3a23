"""Protects that a score depends on the part alone: not on where it lies, its size, or its file.

Random parts, drawn by hypothesis from a fixed seed, as code, STEP and STL, turned, moved, scaled
and mirrored. Whether a part is chiral is known from how it was drawn.
"""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, assume, given, settings
from hypothesis import strategies as st

import metrics
from metrics.execution import measure_file, run_many
from metrics.geometry import iou_aligned
from metrics.parts import Part

pytestmark = pytest.mark.slow

CHORD_ERROR = 1e-3  # of STL files, as share of the longest side
WIDE = 0.5  # radians between facets: the chord error alone decides how fine a file is
MOVED = """
_shape = cq.Compound.makeCompound(result.vals()).scale({scale})
_shape = _shape.rotate((0, 0, 0), {axis}, {angle}).translate({place})
result = cq.Workplane(_shape)
"""
MIRRORED = "result = result.mirror('XY')\n"
fixed = settings(  # a failure is shown as it was drawn: making it smaller would take minutes
    derandomize=True, deadline=None, database=None, suppress_health_check=list(HealthCheck),
    phases=(Phase.generate,),
)  # fmt: skip


def share(low: float, high: float) -> st.SearchStrategy[float]:
    """Sizes on a grid, as programs have them: parts with equal sides come up often."""
    return st.integers(round(low / 0.05), round(high / 0.05)).map(lambda n: round(0.05 * n, 2))


@st.composite
def parts(draw: st.DrawFn) -> str:
    """A program for a part about 1 long. Its walls are ten times as thick as the chords of its
    STL file are off, or the file would not hold them."""
    thick, size, radius = share(0.1, 0.3), share(0.4, 1), share(0.2, 0.5)
    a, b, c, r, t = draw(size), draw(size), draw(size), draw(radius), draw(thick)
    sides = draw(st.integers(3, 8))
    shape = draw(st.sampled_from([
        f"box({a}, {b}, {c})",
        f"box({a}, {a}, {a})",
        f"box({a}, {b}, {t / 2})",
        f"box({a}, {b}, {c}).edges('|Z').fillet({t / 2})",
        f"box({a}, {b}, {c}).faces('>Z').shell(-.1)",
        f"rect({a}, {a}).rect({a - 0.2}, {a - 0.2}).extrude(1)",
        f"polyline([(0, 0), ({a}, 0), ({a}, {t}), ({t}, {t}), ({t}, {b}), (0, {b})]).close()"
        f".extrude({c})",
        f"polygon({sides}, {a}).extrude({t})",
        f"circle({r}).extrude({c})",
        f"circle({r}).circle({r - 0.1}).extrude({t})",
        f"circle({r}).workplane(offset={c}).circle({t / 2}).loft()",
        f"center({r}, 0).circle({t / 2}).revolve(360, (-{r}, 0), (-{r}, 1))",
        f"circle({r}).extrude({t}).union(cq.Workplane().polarArray({r}, 0, 360, {sides})"
        f".rect(.2, .1).extrude({t}))",
        f"sphere({r})",
    ]))  # fmt: skip
    x, y, z = draw(share(-0.3, 0.3)), draw(share(-0.3, 0.3)), draw(share(-0.2, 0.4))
    features = [
        f"result = result.union(cq.Workplane().box({t}, {a / 2}, .3).translate(({x}, {y}, {z})))",
        f"result = result.cut(cq.Workplane().center({x}, {y}).circle({t / 2}).extrude(9))",
        f"result = result.union(cq.Workplane().center({x}, {y}).circle({t}).extrude({b}))",
    ]
    chosen = draw(st.lists(st.sampled_from(features), max_size=2, unique=True))
    return "\n".join([f"result = cq.Workplane().{shape}", *chosen, ""])


@st.composite
def hooks(draw: st.DrawFn) -> str:
    """Three bars, each across the others: no turn makes one of its mirror image."""
    long, wide, high, t = draw(share(0.8, 1)), *(draw(share(0.4, 0.9)) for _ in "12"), 0.2
    return (
        f"result = cq.Workplane().box({long}, {t}, {t})"
        f".union(cq.Workplane().box({t}, {wide}, {t}, (True, False, True))"
        f".translate(({(long - t) / 2}, {-t / 2}, 0)))"
        f".union(cq.Workplane().box({t}, {t}, {high}, (True, True, False))"
        f".translate(({-(long - t) / 2}, 0, {-t / 2})))\n"
    )


@st.composite
def places(draw: st.DrawFn) -> str:
    """The lines that turn, move and scale what a program made."""
    random = np.random.default_rng(draw(st.integers(0, 10**6)))
    axis = random.normal(size=3)
    return MOVED.format(
        scale=10 ** random.uniform(-2, 2),
        axis=tuple(axis / np.linalg.norm(axis)),
        angle=random.uniform(0, 360),
        place=tuple(random.uniform(-9, 9, 3)),
    )


def measured(codes: list[str]) -> list[Part]:
    got = run_many(codes)
    found = [one for one in got if isinstance(one, Part)]
    assert len(found) == len(got), [str(one) for one in got]
    return found


def from_files(part: Part, folder: Path) -> list[Part]:
    """The part read back from its STEP file and from an STL file of it."""
    import cadquery as cq

    step = metrics.export_step(part.brep)
    assert isinstance(step, bytes), step
    (folder / "part.step").write_bytes(step)
    longest = float(np.ptp(part.vertices, axis=0).max())
    shape = cq.Shape.importBin(io.BytesIO(part.brep))
    shape.exportStl(str(folder / "part.stl"), CHORD_ERROR * longest, WIDE, relative=False)
    got = [measure_file(folder / name) for name in ("part.step", "part.stl")]
    found = [one for one in got if isinstance(one, Part)]
    assert len(found) == 2, [str(one) for one in got]
    return found


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("files")


@settings(fixed, max_examples=12)
@given(code=parts(), place=places())
def test_copies_score_one_as_code_step_and_stl(folder, code, place):
    part, turned = measured([code, code + place])
    copies = [turned, *from_files(part, folder), *from_files(turned, folder)]
    scores = [iou_aligned(part, copy) for copy in copies]
    assert min(scores) >= 0.995 and max(scores) <= 1, scores
    scores = [iou_aligned(copies[-1], copy) for copy in copies]  # the turned mesh as reference
    assert min(scores) >= 0.995, scores


@settings(fixed, max_examples=8)
@given(code=parts(), x=share(-0.4, 0.4), size=share(0.1, 0.3), place=places())
def test_another_part_scores_alike_against_code_step_and_stl(folder, code, x, size, place):
    more = f"result = result.union(cq.Workplane().box({size}, .2, .9).translate(({x}, .1, .2)))\n"
    part, other, turned = measured([code, code + more, code + place])
    assume(part.valid and other.valid)  # what OpenCASCADE built wrongly is another part in STEP
    scores = [iou_aligned(other, copy) for copy in (part, *from_files(part, folder))]
    assert np.ptp(scores) <= 5e-3, scores
    # Of parts that differ the best turn is searched for, and the search begins with them as given:
    # 0.019 was the most by which a turned copy differed in 40 such pairs, 0.005 in 37 of them.
    assert abs(iou_aligned(other, turned) - scores[0]) <= 0.03


@settings(fixed, max_examples=5)
@given(code=hooks(), place=places())
def test_mirrored_chiral_parts_score_less(folder, code, place):
    part, copy, mirrored = measured([code, code + place, code + MIRRORED + place])
    for one in (copy, *from_files(copy, folder)):
        assert iou_aligned(part, one) >= 0.995
    scores = [iou_aligned(part, one) for one in (mirrored, *from_files(mirrored, folder))]
    assert max(scores) < 0.95, scores
