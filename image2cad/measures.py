"""What one program's part is like: yes or no questions and numbers, on a scale of 100.

    form = normal_form(program)
    facts, numbers = of_part(*form), numbers_of(*form)

A program counts as `tidying.tidied` writes it: sketches on named planes in model
coordinates, a symmetric extrusion as one. `statistics.py` counts the answers.
"""

from __future__ import annotations

import math
import re

import numpy as np

from image2cad.profiles import extent
from image2cad.programs import Circle, Extrusion, Loop, Path, Program, Rect, to_code
from image2cad.solids import Drawing, build
from image2cad.soundness import shown_steps
from image2cad.tidying import tidied
from image2cad.transforms import moved, scaled, snapped

SIZE = 100.0  # the longest side of a part here
THIN, LONG = 5.0, 3.0  # a thin part's shortest side; a long part's longest over its middle side
NEAR = 0.6  # two levels or centres that differ by less are the same: half a step of the grid
SYMMETRIC = 0.98  # share of a part's volume that its mirror image must share


def kind(loop: Loop) -> str:
    """A loop's kind: rect, circle, polygon with 3, 4, 5-6, 7 or more corners, or with arcs."""
    if isinstance(loop, Rect):
        return "rectangle"
    if isinstance(loop, Circle):
        return "circle"
    if any(segment.mid for segment in loop.segments):
        return "with arcs"
    corners = len({loop.start, *(segment.end for segment in loop.segments)})
    return {3: "triangle", 4: "other quadrilateral"}.get(
        corners, "5 or 6 corners" if corners <= 6 else "7 or more corners"
    )


def profile(step: Extrusion) -> str:
    """The kind of a step's outer loop; "ring" for a circle with one about the same centre."""
    outer, *holes = step.loops
    if isinstance(outer, Circle) and len(holes) == 1 and isinstance(holes[0], Circle):
        apart = math.dist((outer.x, outer.y), (holes[0].x, holes[0].y))
        return "ring" if apart < NEAR else "circle"
    return kind(outer)


PROFILES = (
    "rectangle", "circle", "ring", "triangle", "other quadrilateral", "5 or 6 corners",
    "7 or more corners", "with arcs",
)  # fmt: skip


def normal_form(program: Program) -> tuple[Program, Drawing] | None:
    """The program tidied, its part centred and scaled to `SIZE`; None if it builds nothing."""
    drawing = build(program)
    if drawing is None:
        return None
    low, high = drawing.bounding_box
    longest = float((high - low).max())
    x, y, z = (-(low + high) / 2).tolist()
    flat = scaled(moved(tidied(program, longest), (x, y, z)), SIZE / longest)
    drawing = build(flat)
    return None if drawing is None else (flat, drawing)


def of_part(program: Program, drawing: Drawing) -> dict[str, bool]:
    """Yes and no about a whole part."""
    low, high = drawing.bounding_box
    short, middle, long = np.sort(high - low).tolist()
    normals = {step.plane.name for step in program}
    count = len(program)
    out = {
        "parts: 1 extrusion": count == 1,
        "parts: 2 extrusions": count == 2,
        "parts: 3 extrusions": count == 3,
        "parts: 4 or more": count >= 4,
        "parts: with a cut": any(step.operation == "cut" for step in program[1:]),
        "parts: with holes in a sketch": any(len(step.loops) > 1 for step in program),
        "parts: with an arc or circle": any(
            isinstance(loop, Circle) or kind(loop) == "with arcs"
            for step in program
            for loop in step.loops
        ),
        "parts: several bodies": len((build(snapped(program)) or drawing).manifold.decompose()) > 1,
        f"parts: thin (shortest side under {THIN:g} %)": short < THIN,
        f"parts: long (longest side over {LONG:g} times the next)": long > LONG * middle,
        "parts: two sides equal within 1 %": min(middle - short, long - middle) < 0.01 * SIZE,
    }
    mirrors = _mirrors(drawing)
    out["parts: mirror symmetric along at least one axis"] = mirrors > 0
    out["parts: mirror symmetric along all three axes"] = mirrors == 3
    if count > 1:
        out["of several: all sketches parallel"] = len(normals) == 1
        out["of several: every step shows in the picture"] = shown_steps(drawing) == count
    return out


def _mirrors(drawing: Drawing) -> int:
    """Along how many of the model's axes the part is its own mirror image."""
    count = 0
    for normal in np.eye(3).tolist():
        common = drawing.manifold ^ drawing.manifold.mirror(normal)
        count += common.volume() > SYMMETRIC * drawing.volume
    return count


def of_step(program: Program, i: int) -> dict[str, bool]:
    """Yes and no about one step; the first and the later ones are counted apart."""
    step = program[i]
    name = step.plane.name
    out = {f"planes: {plane}": name == plane for plane in ("XY", "XZ", "YZ")}
    out["planes: askew"] = name is None
    found = profile(step)
    if i == 0 or step.operation == "union":
        group = "first sketch" if i == 0 else "later sketch, added"
    else:
        group = "later sketch, cut away"
    out |= {f"{group}: {one}": one == found for one in PROFILES}
    out[f"{group}: with holes, rings aside"] = len(step.loops) > 1 and found != "ring"
    if isinstance(step.loops[0], Rect):
        out["rectangles: square within 1 %"] = (
            abs(step.loops[0].width - step.loops[0].height) < 0.01 * SIZE
        )
    out |= _holes(step)
    if i:
        out["later steps: cut"] = step.operation == "cut"
        out["later steps: intersect"] = step.operation == "intersect"
        out |= _relation(program[:i], step)
    return out


def _holes(step: Extrusion) -> dict[str, bool]:
    """How many holes a sketch has, and of which kinds."""
    outer, *holes = step.loops
    if not holes or profile(step) == "ring":
        return {}
    left, down, right, up = extent(outer)
    centre = ((left + right) / 2, (down + up) / 2)
    boxes = [extent(hole) for hole in holes]
    return {
        "sketches with holes: a single hole": len(holes) == 1,
        "sketches with holes: four or more": len(holes) >= 4,
        "sketches with holes: one about the centre": any(
            math.dist(centre, ((a + c) / 2, (b + d) / 2)) < 2 * NEAR for a, b, c, d in boxes
        ),
        "sketches with holes: all round": all(isinstance(hole, Circle) for hole in holes),
    }


def _relation(before: Program, step: Extrusion) -> dict[str, bool]:
    """How a later step lies to the steps before it on parallel planes."""
    same = [other for other in before if other.plane.name == step.plane.name]
    out = {"later steps: plane parallel to an earlier one": bool(same)}
    if not same:
        return out
    low, high = _ends(step)
    ends = [_ends(other) for other in same]
    out["later steps: starts where an earlier one starts"] = any(
        abs(low - a) < NEAR or abs(high - b) < NEAR for a, b in ends
    )
    out["later steps: starts where an earlier one ends"] = any(
        abs(low - b) < NEAR or abs(high - a) < NEAR for a, b in ends
    )
    out["later steps: same two ends as an earlier one"] = any(
        abs(low - a) < NEAR and abs(high - b) < NEAR for a, b in ends
    )
    out["later steps: about an earlier one's middle, with other ends"] = any(
        abs(low + high - a - b) < NEAR and abs(low - a) >= NEAR for a, b in ends
    )
    boxes = [extent(other.loops[0]) for other in same]
    left, down, right, up = extent(step.loops[0])
    centres = [((a + c) / 2, (b + d) / 2) for a, b, c, d in boxes]
    centre = ((left + right) / 2, (down + up) / 2)
    out["later steps: about an earlier one's centre"] = any(
        math.dist(centre, other) < 2 * NEAR for other in centres
    )
    sizes = [(c - a, d - b) for a, b, c, d in boxes]
    out["later steps: outline as large as an earlier one's"] = any(
        abs(right - left - w) < NEAR and abs(up - down - h) < NEAR for w, h in sizes
    )
    out["later steps: outline within an earlier one's box"] = any(
        left > a - NEAR and down > b - NEAR and right < c + NEAR and up < d + NEAR
        for a, b, c, d in boxes
    )
    return out


def _ends(step: Extrusion) -> tuple[float, float]:
    along = sum(a * b for a, b in zip(step.plane.origin, step.plane.normal, strict=True))
    return along, along + step.depth


def numbers_of(program: Program, drawing: Drawing) -> dict[str, float]:
    """Numbers of which quantiles are printed."""
    sides = np.sort(drawing.bounding_box[1] - drawing.bounding_box[0])
    left, down, right, up = extent(program[0].loops[0])
    out = {
        "shortest side, % of the longest": float(sides[0]),
        "middle side, % of the longest": float(sides[1]),
        "volume, % of the box": 100 * drawing.volume / float(np.prod(sides)),
        "first depth over its sketch's longer side": program[0].depth
        / max(right - left, up - down),
        "numbers in the program, on the grid": float(
            len(re.findall(r"\d+(?:\.\d+)?", to_code(snapped(program))))
        ),
        "loops a part": float(sum(len(step.loops) for step in program)),
        "curves a part": float(sum(_curves(loop) for step in program for loop in step.loops)),
    }
    if isinstance(program[0].loops[0], Rect):
        a, b = sorted((right - left, up - down))
        out["first sketch a rectangle: shorter over longer side"] = a / b
    return out


def _curves(loop: Loop) -> int:
    if isinstance(loop, Path):
        last = loop.segments[-1]
        return len(loop.segments) + (math.dist(last.end, loop.start) > 1e-6)
    return 1 if isinstance(loop, Circle) else 4
