"""Random sketch-and-extrude parts with known programs, drawn like DeepCAD's.

    python -m image2cad.synthesis runs/parts --parts 1000 --seed 1
    python -m image2cad.synthesis runs/flanges --parts 64 --families flange bracket

Writes an image folder in GenCAD-Code's schema; every row was run by
`metrics/execution.py` and drawn from what came out. The parts are `candidates.py`'s.

"general" parts are what the nano base is pretrained on. The named families are
kept out of it: they are the bundled samples, something to learn by fine-tuning.
Left out: fillets, revolves, and whatever else DeepCAD's parts do not have.
"""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Sequence
from pathlib import Path as FilePath

from image2cad.candidates import parts
from image2cad.errors import InputError, run_cli
from image2cad.programs import to_code
from image2cad.prompting import QUESTION

__all__ = ["parts", "token_count", "write_dataset"]


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
