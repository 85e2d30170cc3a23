"""How good is the nearest synthetic part by its picture alone: the baseline of every model.

    PYTHONPATH=. python benchmarks/nearest.py [--parts 3000] [--alignment best]

For each real picture the synthetic parts whose small grey pictures differ least from
it, and the IoU_best of their programs with the real program: of the nearest, and of
the best of the eight nearest as an oracle would choose it. The real rows lie beside the
checkout (../shared/data/gencad_dev, an image folder in GenCAD-Code's schema).
"""

from __future__ import annotations

import argparse
import itertools
from pathlib import Path

import numpy as np
from PIL import Image
from tqdm import tqdm

from image2cad.cad.parsing import parse
from image2cad.cad.program import to_code
from image2cad.common.gencad import read_programs
from image2cad.rendering.raster import draw, reduce
from image2cad.synthesis.parts import random_parts
from metrics.alignment import ALIGNMENTS
from metrics.execution import run_many
from metrics.geometry import iou_aligned
from metrics.parts import Failure, Part

ROOT = Path(__file__).resolve().parent.parent
SMALL_SIDE = 56  # pixels of a small picture
NEIGHBOURS = 8
EXTRUSION_COUNTS = ((1, 1), (2, 2), (3, 99))


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", type=Path, default=ROOT / "../shared/data/gencad_dev")
    parser.add_argument("--parts", type=int, default=3000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--alignment", choices=ALIGNMENTS, default="pca")
    options = parser.parse_args()
    if not (options.data / "metadata.jsonl").is_file():
        return print(f"{options.data} is not there; name a folder with --data")
    rows = read_programs(options.data)
    codes, library = [], np.empty((options.parts, SMALL_SIDE, SMALL_SIDE), dtype=np.float32)
    source = itertools.islice(random_parts(options.seed), options.parts)
    for i, (program, drawing) in enumerate(tqdm(source, total=options.parts, unit="part")):
        codes.append(to_code(program))
        library[i] = reduce(draw(drawing), SMALL_SIDE)[..., 0]
    best = np.empty((len(rows), NEIGHBOURS))
    for row, found in zip(rows, best, strict=True):
        with Image.open(options.data / row["file_name"]) as picture:
            small = reduce(np.asarray(picture.convert("RGB")), SMALL_SIDE)[..., 0].astype(
                np.float32
            )
        order = np.argsort(np.abs(library - small).mean(axis=(1, 2)), kind="stable")[:NEIGHBOURS]
        real, *near = run_many([row["cadquery"], *(codes[i] for i in order)])
        if not isinstance(real, Part):
            raise SystemExit(f"{row['deepcad_id']} does not run: {real.message}")
        found[:] = [_iou(real, part, options.alignment) for part in near]
    steps = np.array([len(parse(row["cadquery"]) or ()) for row in rows])
    print(f"{len(rows)} real parts, {options.parts} synthetic ones, alignment {options.alignment}")
    print("| extrusions | parts | nearest | best of 8 nearest |\n| --- | --: | --: | --: |")
    for name, chosen in (
        ("all", np.ones(len(rows), dtype=bool)),
        *(
            (f"{a}" if a == b else f"{a} or more", (steps >= a) & (steps <= b))
            for a, b in EXTRUSION_COUNTS
        ),
    ):
        first, oracle = best[chosen, 0].mean(), best[chosen].max(axis=1).mean()
        print(f"| {name} | {chosen.sum()} | {first:.3f} | {oracle:.3f} |")


def _iou(real: Part, part: Part | Failure, alignment: str) -> float:
    if isinstance(part, Failure):
        return 0.0
    try:
        return iou_aligned(real, part, alignment)
    except ValueError as error:
        print(f"counted 0: {error}")
        return 0.0


if __name__ == "__main__":
    main()
