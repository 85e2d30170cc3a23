"""Candidates for a picture that need no model: templates, and the nearest pictures of a library.

    library = load_library()                             # models/library.npz
    for program in nearest(library, target, 24): ...
    for program in templates(): ...

    python -m image2cad.proposals --parts 20000 --out models/library.npz     # made so

The library holds synthetic parts (candidates.py) as programs and as short codes of
their pictures: principal components of the features that fitting.py compares, one byte
each. Left out: real parts; there are none in it.
"""

from __future__ import annotations

import argparse
import itertools
import multiprocessing
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from image2cad.candidates import parts
from image2cad.errors import InputError, run_cli
from image2cad.fitting import Floats, Target, features_of
from image2cad.parsing import parse
from image2cad.programs import (
    NAMED,
    Circle,
    Extrusion,
    Loop,
    Plane,
    Program,
    Rect,
    Segment,
    to_code,
)
from image2cad.programs import (
    Path as Outline,
)
from image2cad.rasterising import draw

FILE = Path(__file__).resolve().parents[1] / "models" / "library.npz"
BLOCK = 16  # pixels of 448 in a block of the features
CODE = 96  # principal components kept
SAMPLE = 4_000  # parts that the components are taken from
SEED = 7
CHUNK = 500


@dataclass(frozen=True, eq=False)
class Library:
    """Programs as text, codes (N, CODE) int8, and how a picture's features become a code."""

    programs: list[str]
    codes: NDArray[np.int8]
    mean: Floats
    components: Floats  # (CODE, F), scaled so that a code fits into a byte


def load_library(file: Path = FILE) -> Library:
    """The library in `file`. Raises InputError if it is not there or cannot be read."""
    try:
        with np.load(file, allow_pickle=False) as stored:
            text = zlib.decompress(stored["programs"].tobytes()).decode()
            return Library(
                text.split("\0"),
                stored["codes"],
                stored["mean"].astype(np.float32),
                stored["components"].astype(np.float32),
            )
    except (OSError, KeyError, ValueError, zlib.error) as error:
        raise InputError(
            f"{file} is no library ({error}); make it: python -m image2cad.proposals --out {file}"
        ) from error


def nearest(library: Library, target: Target, count: int) -> list[Program]:
    """The programs whose pictures are most like the target's, nearest first."""
    code = library.components @ (target.features[BLOCK] - library.mean)
    distance = ((library.codes - code) ** 2).sum(axis=1)
    order = np.argsort(distance, kind="stable")[:count]
    found = [parse(library.programs[i]) for i in order]
    return [program for program in found if program is not None]


def templates() -> list[Program]:
    """Plain parts on every main plane: what most mechanical parts are close to."""
    plate, disc = Rect(0, 0, 100, 70), Circle(0, 0, 50)
    ell = _polygon((-5, -4), (5, -4), (5, -1), (-1, -1), (-1, 4), (-5, 4))
    you = _polygon((-5, -4), (5, -4), (5, 4), (3, 4), (3, -1), (-3, -1), (-3, 4), (-5, 4))
    tee = _polygon((-5, -4), (5, -4), (5, -1), (2, -1), (2, 4), (-2, 4), (-2, -1), (-5, -1))
    ends = Segment((30, 30), (60, 0)), Segment((-30, 30)), Segment((-30, -30), (-60, 0))
    slot = Outline((-30, -30), (Segment((30, -30)), *ends))
    loops: list[tuple[Loop, ...]] = [
        (plate,), (disc,), (disc, Circle(0, 0, 30)), (plate, Circle(0, 0, 20)),
        (plate, Rect(0, 0, 70, 45)), (ell,), (you,), (tee,), (slot,),
        (_polygon((-5, -4), (5, -4), (-5, 4)),),
    ]  # fmt: skip
    found: list[Program] = []
    for name, profile, depth in itertools.product(NAMED, loops, (15.0, 60.0)):
        found.append((Extrusion(Plane((0.0, 0.0, 0.0), *NAMED[name]), profile, depth),))
    return found


def _polygon(*points: tuple[float, float]) -> Outline:
    first, *others = [(10.0 * x, 10.0 * y) for x, y in points]
    return Outline(first, tuple(Segment(point) for point in others))


def make_library(file: Path, count: int, processes: int) -> None:
    """Draw `count` parts and write the library to `file`."""
    from tqdm import tqdm

    starts = range(0, count, CHUNK)
    jobs = [(number, min(CHUNK, count - start)) for number, start in enumerate(starts)]
    programs: list[str] = []
    features: list[NDArray[np.float16]] = []
    with multiprocessing.get_context("spawn").Pool(processes) as pool:
        chunks = tqdm(pool.imap(_chunk, jobs), total=len(jobs), desc="library", unit="chunk")
        for texts, values in chunks:
            programs += texts
            features.append(values)
    table = np.concatenate(features)
    sample = table[:SAMPLE].astype(np.float32)
    mean = sample.mean(axis=0)
    components = np.linalg.svd(sample - mean, full_matrices=False)[2][:CODE]
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
    for program, drawing in itertools.islice(parts(SEED * 100_000 + number), count):
        texts.append(to_code(program))
        rows.append(features_of(draw(drawing), BLOCK).astype(np.float16))
    return texts, np.stack(rows)


def main() -> int:
    """Make the library."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--parts", type=int, default=20_000)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--out", type=Path, default=FILE)
    arguments: Any = parser.parse_args()
    for name in ("parts", "processes"):
        if getattr(arguments, name) < 1:
            raise InputError(f"--{name} must be at least 1")
    make_library(arguments.out, arguments.parts, arguments.processes)
    print(f"{arguments.out}: {arguments.out.stat().st_size / 1e6:.1f} MB")
    return 0


if __name__ == "__main__":
    run_cli(main)
