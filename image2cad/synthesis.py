"""Random sketch-and-extrude parts with known programs, drawn like DeepCAD's.

    python -m image2cad.synthesis runs/parts --parts 1000 --seed 1
    python -m image2cad.synthesis runs/flanges --parts 64 --families flange bracket

Each part is a seeded draw: profiles on the three main planes, stacked on each
other's faces, joined or cut, snapped to a whole-number grid on which the part's
longest side is 100. Writes an image folder in GenCAD-Code's schema; every row
was run by `metrics/execution.py` and drawn from what came out.

"general" parts are what the nano base is pretrained on. The named families are
kept out of it: they are the bundled samples, something to learn by fine-tuning.
Left out: fillets, revolves, and DeepCAD's exact statistics.
"""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path as FilePath

import numpy as np

from image2cad.errors import InputError, run_cli
from image2cad.families import FAMILIES
from image2cad.profiles import random_profile
from image2cad.programs import (
    NAMED,
    Extrusion,
    Operation,
    Plane,
    Program,
    to_code,
)
from image2cad.prompting import QUESTION
from image2cad.solids import Drawing, build
from image2cad.transforms import canonical, grounded, moved, scaled, snapped

LONGEST = 100  # grid units of the longest side
EXTRUSIONS = {1: 0.55, 2: 0.24, 3: 0.13, 4: 0.08}  # DeepCAD's share by number of extrusions
LEAST_CHANGE = 0.004  # a step that changes the volume by less than this share is no feature

Rng = np.random.Generator


def general(rng: Rng) -> Program:
    """One to four extrusions, each but the first standing on or cut into a face."""
    count = rng.choice(list(EXTRUSIONS), p=list(EXTRUSIONS.values()))
    name = str(rng.choice(list(NAMED)))
    width, height = 100.0, 100.0 * float(rng.uniform(0.25, 1.0))
    if rng.random() < 0.5:
        width, height = height, width
    depth = 100.0 * float(np.exp(rng.uniform(np.log(0.04), np.log(1.6))))
    profile = random_profile(rng, width, height, first=True)
    steps = [Extrusion(Plane((0, 0, 0), *NAMED[name]), profile, depth)]
    while len(steps) < count:
        drawing = build(tuple(steps))
        if drawing is None:
            break
        steps.append(_feature(rng, drawing.bounding_box))
    return tuple(steps)


def _feature(rng: Rng, box: np.ndarray) -> Extrusion:
    """A boss on a face of `box`, or a cut into it."""
    name = str(rng.choice(list(NAMED), p=[0.5, 0.25, 0.25]))
    x_dir, normal = NAMED[name]
    plane = Plane((0.0, 0.0, 0.0), x_dir, normal)
    axes = np.array([plane.x, plane.y, plane.normal])
    corners = np.sort(box @ axes.T, axis=0)
    (u0, v0, w0), (u1, v1, w1) = corners.tolist()
    front = rng.random() < 0.8
    cut = rng.random() < 0.3
    share = rng.uniform(0.15, 0.95, 2)
    if rng.random() < 0.25:
        share[int(rng.integers(2))] = 1.0
    width, height = share * (u1 - u0, v1 - v0)
    low, high = np.array([u0, v0]), np.array([u1 - width, v1 - height])
    where = low + (high - low) * rng.choice([0.0, 0.5, 0.5, 0.5, 1.0, float(rng.random())], 2)
    centre = where + np.array([width, height]) / 2
    span = max(u1 - u0, v1 - v0, w1 - w0)
    if cut:
        through = rng.random() < 0.5
        depth = (w1 - w0) * (1.0 if through else float(rng.uniform(0.15, 0.85)))
        level = w1 - depth if front else w0
    else:
        depth = span * float(np.exp(rng.uniform(np.log(0.05), np.log(0.9))))
        level = w1 if front else w0 - depth
        if rng.random() < 0.2:  # sunk through the part instead of standing on it
            level, depth = (w0, depth + w1 - w0) if front else (w0 - depth, depth + w1 - w0)
    operation: Operation = "cut" if cut else "union"
    profile = random_profile(rng, width, height, first=False, centre=(centre[0], centre[1]))
    origin = (normal[0] * level, normal[1] * level, normal[2] * level)
    return Extrusion(Plane(origin, x_dir, normal), profile, depth, operation)


def normalised(program: Program) -> Program | None:
    """The part centred, scaled to a longest side of 100 and snapped to whole numbers."""
    drawing = build(program)
    if drawing is None:
        return None
    low, high = drawing.bounding_box
    centre = (low + high) / 2
    factor = LONGEST / float((high - low).max())
    at_origin = moved(program, (-centre[0], -centre[1], -centre[2]))
    flat = tuple(grounded(step) for step in scaled(at_origin, factor))
    return canonical(snapped(flat))


def usable(program: Program) -> Drawing | None:
    """The part's drawing, if it is one connected solid in which every step shows in the volume."""
    drawing = build(program)
    if drawing is None or len(drawing.manifold.decompose()) != 1:
        return None
    sides = drawing.bounding_box[1] - drawing.bounding_box[0]
    if sides.min() < 2 or sides.max() > LONGEST + 2:
        return None
    before = 0.0
    for count in range(1, len(program)):
        earlier = build(program[:count])
        if earlier is None or abs(earlier.volume - before) < LEAST_CHANGE * drawing.volume:
            return None
        before = earlier.volume
    if abs(drawing.volume - before) < LEAST_CHANGE * drawing.volume:
        return None
    return drawing


def signature(drawing: Drawing) -> tuple[float, ...]:
    """Equal for equal geometry on the grid: volume, area and box."""
    box = drawing.bounding_box[1] - drawing.bounding_box[0]
    area = drawing.manifold.surface_area()
    return (round(drawing.volume), round(area), *(round(float(side), 1) for side in box))


def parts(
    seed: int, families: Sequence[str] = ("general",), start: int = 0
) -> Iterator[tuple[Program, Drawing]]:
    """Endless distinct parts; the same seed and families give the same parts anywhere.

    `start` skips draws, so that several processes can share one seed's sequence.
    """
    makers: dict[str, Callable[[Rng], Program]] = {"general": general, **FAMILIES}
    unknown = sorted(set(families) - set(makers))
    if unknown:
        raise InputError(f"unknown family {unknown[0]!r}; there are {', '.join(makers)}")
    seen: set[tuple[float, ...]] = set()
    draw = start
    while True:
        rng = np.random.default_rng([seed, draw])
        draw += 1
        program = normalised(makers[families[draw % len(families)]](rng))
        drawing = usable(program) if program is not None else None
        if program is None or drawing is None:
            continue
        key = signature(drawing)
        if key not in seen:
            seen.add(key)
            yield program, drawing


def token_count(code: str) -> int:
    """GenCAD-Code's column: code tokens + 577 for the picture + 69 for the prompt.

    Counted as Llama's tokenizer splits code, digit by digit; an estimate.
    """
    return len(re.findall(r"\d|[A-Za-z_]+|[^\sA-Za-z_\d]+|\n", code)) + 577 + 69


def write_dataset(
    folder: FilePath, count: int, seed: int, families: Sequence[str], prefix: str = "s"
) -> int:
    """Write `count` parts to `folder`, PNG files and metadata.jsonl; return how many did not run.

    Raises InputError if `folder` holds anything already.
    """
    from PIL import Image
    from tqdm import tqdm

    from image2cad.rendering import draw
    from metrics.execution import Part, run_cadquery

    if folder.exists() and any(folder.iterdir()):
        raise InputError(f"{folder} is not empty; name another folder")
    folder.mkdir(parents=True, exist_ok=True)
    rows: list[dict[str, object]] = []
    failed = 0
    source = parts(seed, families)
    with tqdm(total=count, desc="parts", unit="part") as bar:
        while len(rows) < count:
            code = to_code(next(source)[0])
            solid = run_cadquery(code)
            if not isinstance(solid, Part):
                failed += 1
                continue
            name = f"{prefix}{seed:03d}{len(rows):05d}"
            Image.fromarray(draw(solid)).save(folder / f"{name}.png", optimize=True)
            rows.append({
                "file_name": f"{name}.png",
                "deepcad_id": name,
                "cadquery": code,
                "token_count": token_count(code),
                "prompt": QUESTION,
                "hundred_subset": False,
            })  # fmt: skip
            bar.update()
    # Written last: a folder without metadata is an unfinished one.
    text = "".join(json.dumps(row) + "\n" for row in rows)
    (folder / "metadata.jsonl").write_text(text, encoding="utf-8")
    return failed


def main() -> int:
    """Write a data set of synthetic parts."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folder", type=FilePath)
    parser.add_argument("--parts", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--families", nargs="+", default=["general"])
    arguments = parser.parse_args()
    failed = write_dataset(arguments.folder, arguments.parts, arguments.seed, arguments.families)
    print(f"{arguments.parts} parts in {arguments.folder}; {failed} others did not run")
    return 0


if __name__ == "__main__":
    run_cli(main)
