"""New synthetic parts as rows to learn from: drawn once, kept on disk, none run.

    rows = fresh_rows(Path("runs/rows"), train=3000, held_out=400, seed=0)

Like the parts that the nano base was pretrained on (synthesis/parts.py), with other random numbers,
and no two alike; a simple one may still be a part that pretraining met by chance. Left out:
folders of PNG files, of parts that were run, which synthesis/dataset.py writes.
"""

from __future__ import annotations

import hashlib
import itertools
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from PIL import Image
from tqdm.auto import tqdm

from image2cad.cad import to_code
from image2cad.common import move_whole
from image2cad.data import Rows, Sample, StoredRows, as_row, that_run
from image2cad.rendering import draw
from image2cad.synthesis import random_parts

FIRST_SEED = 900_000  # added to the seed: pretrain_nano.py uses others


def fresh_rows(root: Path, train: int, held_out: int, seed: int) -> Rows:
    """`train` rows to learn from and at most `held_out` to score on, whose programs were run."""
    from datasets import Dataset, load_from_disk

    count = train + held_out
    made = _rows(seed)
    first = next(made)  # parts that are drawn another way than those on disk are other parts
    text = f"{sorted(first)}{first['code']}".encode()
    key = hashlib.sha256(text + first["pictures"][0]).hexdigest()[:8]
    place = root / f"fresh-{count}-{seed}-{key}"
    if not place.is_dir():
        wanted = itertools.chain([first], itertools.islice(made, count - 1))
        rows = list(tqdm(wanted, total=count, desc="drawing new parts", unit=" parts"))
        part = place.with_suffix(f".{os.getpid()}")
        Dataset.from_list(rows).save_to_disk(str(part))
        move_whole(part, place)
    stored = StoredRows(load_from_disk(str(place)))
    apart, bad = that_run(list(stored[train:]))
    return Rows(stored[:train], stored[:0], apart, bad)


def _rows(seed: int) -> Iterator[dict[str, Any]]:
    for number, (program, drawing) in enumerate(random_parts(FIRST_SEED + seed)):
        code = to_code(program)
        sample = Sample(Image.fromarray(draw(drawing)), code, f"f{seed}-{number:05d}")
        yield as_row(sample, code)
