"""How much shorter compact programs are, and that they build the same solids.

    python benchmarks/compacting.py --data ../shared/data/gencad_dev

Prints, for every program of an image folder: how many were rewritten, the least IoU of a
rewrite with its original, in place, and the mean number of tokens before and after, once
in the part's own units and once as models are trained on it (centred, longest side 100).
Tokens are counted by the nano tokenizer, and as Llama splits code, digit by digit. The IoU
is measured on meshes, and by OpenCASCADE's booleans where that says less than 0.999: meshes
of thin round walls differ by their chords.
"""

from __future__ import annotations

import argparse
import io
import sys
import time
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from image2cad.cad.compacting import compact_many, iou_in_place  # noqa: E402
from image2cad.common.gencad import read_programs, token_count  # noqa: E402
from metrics.execution import run_many  # noqa: E402
from metrics.parts import Part  # noqa: E402

SIZE = 100  # of the longest side, as models are trained


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=ROOT / "../shared/data/gencad_dev")
    options = parser.parse_args()
    metadata = options.data / "metadata.jsonl"
    if not metadata.is_file():
        return print(f"{options.data} is not there; name a folder with --data")
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(ROOT / "models/nano")
    codes = [row["code"] for row in read_programs(options.data)]
    originals = run_many(codes)
    print(f"{len(codes)} programs; mean tokens before and after\n")
    for name, size in (("own units", None), (f"longest side {SIZE}", SIZE)):
        start = time.process_time()
        short = compact_many(codes, size)
        seconds = time.process_time() - start
        changed = sum(a != b for a, b in zip(codes, short, strict=True))
        print(f"{name}: {changed} of {len(codes)} rewritten, {seconds / len(codes):.2f} CPU s each")
        if size is None:
            pairs = zip(originals, run_many(short), strict=True)
            least = [iou(a, b) for a, b in pairs if isinstance(a, Part) and isinstance(b, Part)]
            print(
                f"  least IoU of a rewrite with its original {min(least):.4f} ({len(least)} pairs)"
            )
        for what, count in (
            ("nano tokenizer", lambda code: len(tokenizer(code)["input_ids"])),
            ("Llama style, digit by digit", lambda code: token_count(code) - 577 - 69),
        ):
            before, after = (float(np.mean([count(c) for c in cs])) for cs in (codes, short))
            print(f"  {what}: {before:.0f} -> {after:.0f}, {100 * (1 - after / before):.0f} % less")


def iou(a: Part, b: Part) -> float:
    """IoU in place of two solids: of their meshes, or exactly where those are too coarse."""
    by_mesh = iou_in_place(a, b)
    if by_mesh >= 0.999:
        return by_mesh
    import cadquery as cq

    first, second = (cq.Shape.importBin(io.BytesIO(part.brep)) for part in (a, b))
    common = first.intersect(second).Volume()
    return float(common / (a.volume + b.volume - common))


if __name__ == "__main__":
    main()
