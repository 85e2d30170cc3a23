"""What parts are made of: the same figures for real and for synthetic programs, side by side.

    python -m benchmarks.part_statistics --data folder_of_rows --synthetic 3000 --seed 1 \
        --tokenizer models/nano

Prints Markdown tables; docs/statistics.md shows them and says what differs. Real rows
are few, so each of their shares has its 95 % interval (Wilson); a synthetic share
outside of it is marked. Left out: what no single program says, such as duplicates.
"""

from __future__ import annotations

import argparse
import itertools
import math
import re
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tqdm import tqdm

from image2cad.cad import (
    Circle,
    Drawing,
    Extrusion,
    Loop,
    Program,
    Rect,
    build,
    extent,
    moved,
    parse,
    snapped,
    to_code,
)
from image2cad.cad import Path as Outline
from image2cad.cad.tidying import tidied
from image2cad.cad.transforms import scaled
from image2cad.common import InputError, run_cli
from image2cad.data import stream_rows
from image2cad.synthesis import random_parts
from image2cad.synthesis.parts import shown_steps

Z = 1.959964  # of the 95 % interval
TOKENS = "tokens of the program, on the grid"
QUANTILES = (0.1, 0.25, 0.5, 0.75, 0.9)


@dataclass(frozen=True)
class Figures:
    """One set of parts: how many, share -> (yes, of), and the values to take quantiles of."""

    parts: int
    shares: dict[str, tuple[int, int]]
    values: dict[str, list[float]]


def measure(programs: Iterable[Program], tokens: Callable[[str], int] | None = None) -> Figures:
    """The figures of some programs; those that build nothing are left out.

    `tokens` counts the tokens of a program's text on the grid.
    """
    yes: Counter[str] = Counter()
    of: Counter[str] = Counter()
    values: dict[str, list[float]] = {}
    count = 0
    for program in programs:
        form = normal_form(program)
        if form is None:
            continue
        count += 1
        steps = form[0]
        answers = [of_part(*form), *(of_step(steps, i) for i in range(len(steps)))]
        for name, true in ((name, true) for facts in answers for name, true in facts.items()):
            yes[name] += true
            of[name] += 1
        numbers = numbers_of(*form)
        if tokens:
            numbers[TOKENS] = float(tokens(to_code(snapped(steps))))
        for name, value in numbers.items():
            values.setdefault(name, []).append(value)
    return Figures(count, {name: (yes[name], of[name]) for name in of}, values)


def wilson(yes: int, of: int) -> tuple[float, float]:
    """The 95 % interval of a share after `yes` of `of`, in [0, 1]."""
    if of == 0:
        return 0.0, 1.0
    p, n = yes / of, float(of)
    middle = (p + Z * Z / (2 * n)) / (1 + Z * Z / n)
    half = Z * math.sqrt(p * (1 - p) / n + Z * Z / (4 * n * n)) / (1 + Z * Z / n)
    return max(middle - half, 0.0), min(middle + half, 1.0)


def table(real: Figures, synthetic: Figures) -> str:
    """Shares and quantiles of both, as Markdown."""
    lines = []
    groups: dict[str, list[str]] = {}
    for name in sorted(dict.fromkeys([*real.shares, *synthetic.shares]), key=_order):
        group, _, question = name.partition(": ")
        yes, of = real.shares.get(name, (0, 0))
        low, high = wilson(yes, of)
        got, all_ = synthetic.shares.get(name, (0, 0))
        share = got / all_ if all_ else 0.0
        mark = "" if low <= share <= high else " *"
        groups.setdefault(group, []).append(
            f"| {question} | {yes} of {of} | {_percent(low)} to {_percent(high)} "
            f"| {_percent(share)}{mark} |"
        )
    for group, rows in groups.items():
        title = group[0].upper() + group[1:]
        lines += [f"| {title} | real | 95 % interval | synthetic |", "| --- | --: | --: | --: |"]
        lines += [*rows, ""]
    heads = " | ".join(f"{100 * q:.0f} %" for q in QUANTILES)
    lines += [f"| Quantiles | of | {heads} |", "| --- | --- |" + " --: |" * len(QUANTILES)]
    for name, ours in synthetic.values.items():
        for label, values in (("real", real.values.get(name, [])), ("synthetic", ours)):
            numbers = np.quantile(values, QUANTILES).tolist() if values else [math.nan] * 5
            texts = " | ".join(f"{number:.3g}" for number in numbers)
            lines.append(f"| {name if label == 'real' else ''} | {label} | {texts} |")
    return "\n".join(lines) + "\n"


ORDER = (
    "parts", "of several", "planes", "first sketch", "later sketch, added",
    "later sketch, cut away", "rectangles", "sketches with holes", "later steps",
)  # fmt: skip


def _order(name: str) -> int:
    return ORDER.index(name.partition(": ")[0])


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"


def _counter(folder: Path) -> Callable[[str], int]:
    from transformers import PreTrainedTokenizerFast

    if not (folder / "tokenizer.json").is_file():
        raise InputError(f"{folder} holds no tokenizer.json")
    tokenizer = PreTrainedTokenizerFast.from_pretrained(folder)
    return lambda code: len(tokenizer(code, add_special_tokens=False)["input_ids"])


def main() -> int:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", required=True, help="a folder or a data set on the hub")
    parser.add_argument("--split", default="train")
    parser.add_argument("--synthetic", type=int, default=2000, help="how many synthetic parts")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--tokenizer", type=Path, help="a model's folder, to count tokens with")
    given = parser.parse_args()
    if given.synthetic < 1:
        raise InputError("--synthetic must be at least 1")
    codes = [str(row["cadquery"]) for _, row in stream_rows(given.data, given.split)]
    programs = [program for code in codes if (program := parse(code))]
    if not programs:
        raise InputError(f"no program in {given.data} could be read")
    made = itertools.islice((program for program, _ in random_parts(given.seed)), given.synthetic)
    tokens = _counter(given.tokenizer) if given.tokenizer else None
    real = measure(tqdm(programs, desc="real", unit="part"), tokens)
    ours = measure(tqdm(made, total=given.synthetic, desc="synthetic", unit="part"), tokens)
    symmetric = sum("both=True" in code for code in codes)
    print(
        f"Real: {real.parts} parts of {len(codes)} rows, {symmetric} with a symmetric extrusion. "
        f"Synthetic: {ours.parts} parts of seed {given.seed}.\n"
    )
    print(table(real, ours), end="")
    return 0


# ---- What one program's part is like: yes or no questions and numbers, on a scale of 100
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
    if isinstance(loop, Outline):
        last = loop.segments[-1]
        return len(loop.segments) + (math.dist(last.end, loop.start) > 1e-6)
    return 1 if isinstance(loop, Circle) else 4


if __name__ == "__main__":
    run_cli(main)
