"""Make the library of synthetic parts that verification looks pictures up in.

    python models/make_library.py --parts 20000 --out models/library.npz

What the file holds, and how it is read: image2cad/verification/library.py.
"""

from __future__ import annotations

import argparse
import itertools
import multiprocessing
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from image2cad.cad import to_code
from image2cad.common import LIBRARY, InputError, run_cli
from image2cad.rendering import draw
from image2cad.synthesis import random_parts
from image2cad.verification import LIBRARY_BLOCK, features_of

CODE_LENGTH = 96  # principal components kept
SAMPLED_PARTS = 4_000  # parts that the components are taken from
SEED = 7
CHUNK_PARTS = 500


def make_library(file: Path, count: int, processes: int) -> None:
    """Draw `count` parts and write the library to `file`."""
    from tqdm import tqdm

    starts = range(0, count, CHUNK_PARTS)
    jobs = [(number, min(CHUNK_PARTS, count - start)) for number, start in enumerate(starts)]
    programs: list[str] = []
    features: list[NDArray[np.float16]] = []
    with multiprocessing.get_context("spawn").Pool(processes) as pool:
        chunks = tqdm(pool.imap(_chunk, jobs), total=len(jobs), desc="library", unit="chunk")
        for texts, values in chunks:
            programs += texts
            features.append(values)
    table = np.concatenate(features)
    sample = table[:SAMPLED_PARTS].astype(np.float32)
    mean = sample.mean(axis=0)
    components = np.linalg.svd(sample - mean, full_matrices=False)[2][:CODE_LENGTH]
    codes = (table.astype(np.float32) - mean) @ components.T
    # One scale for all, or distances would change; the few that are further away are clipped.
    scale = 127 / float(np.percentile(np.abs(codes[:, 0]), 99.9))
    kept = np.clip(np.rint(codes * scale), -127, 127).astype(np.int8)
    _, first = np.unique(np.array(programs), return_index=True)
    first = np.sort(first)
    text = zlib.compress("\0".join(programs[i] for i in first).encode(), 9)
    file.parent.mkdir(parents=True, exist_ok=True)
    with open(file, "wb") as out:
        np.savez(
            out,
            programs=np.frombuffer(text, dtype=np.uint8),
            codes=kept[first],
            mean=mean.astype(np.float16),
            components=(components * scale).astype(np.float16),
        )


def _chunk(job: tuple[int, int]) -> tuple[list[str], NDArray[np.float16]]:
    number, count = job
    texts, rows = [], []
    for program, drawing in itertools.islice(random_parts(SEED * 100_000 + number), count):
        texts.append(to_code(program))
        rows.append(features_of(draw(drawing), LIBRARY_BLOCK).astype(np.float16))
    return texts, np.stack(rows)


def main() -> int:
    """Make the library."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--parts", type=int, default=20_000)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--out", type=Path, default=LIBRARY)
    arguments: Any = parser.parse_args()
    for name in ("parts", "processes"):
        if getattr(arguments, name) < 1:
            raise InputError(f"--{name} must be at least 1")
    make_library(arguments.out, arguments.parts, arguments.processes)
    print(f"{arguments.out}: {arguments.out.stat().st_size / 1e6:.1f} MB")
    return 0


if __name__ == "__main__":
    run_cli(main)
