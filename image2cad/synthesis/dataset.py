"""Write data sets of random sketch-and-extrude parts with known programs, drawn like GenCAD's.

    python -m image2cad.synthesis runs/parts --parts 1000 --seed 1
    python -m image2cad.synthesis runs/parts --parts 1000 --seed 1 --resume   # go on after a stop
    python -m image2cad.synthesis runs/flanges --parts 64 --families flange bracket
    python -m image2cad.synthesis runs/square --parts 64 --without circle ring curved

An image folder in GenCAD-Code's schema. Every row was run by `metrics/execution.py`, and
drawn as GenCAD draws programs, lines included that CadQuery cleans away. The same seed
gives the same bytes with any number of workers, interrupted or not. metadata.jsonl comes
last: a folder without it is unfinished.

The parts are `candidates.parts`: "general" ones are what the nano base is pretrained
on, the named families are kept out of it, as the bundled samples are made of them.
Left out: fillets, revolves, and whatever else DeepCAD's parts do not have.
"""

from __future__ import annotations

import itertools
import json
import multiprocessing
import signal
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path as FilePath
from typing import Any

from image2cad.cad import to_code
from image2cad.common import (
    METADATA,
    SETTINGS_FILE,
    InputError,
    metadata_row,
    prepare_run,
    read_json_lines,
    token_count,
    write_whole,
)
from image2cad.synthesis.parts import candidate, check_names, signature

PROGRESS = "progress.jsonl"  # what is done so far; gone when the data set is finished
RANGE = 32  # draws a job
SAME_VOLUME = 0.02  # between what ran and what was drawn: chords of arcs take some
ROUND = 256  # parts run before the next ones are drawn
Spread = Callable[[Callable[[Any], Any], Iterable[Any]], Iterable[Any]]


def write_dataset(
    folder: FilePath,
    count: int,
    seed: int,
    families: Sequence[str] = ("general",),
    prefix: str = "s",
    workers: int = 1,
    without: Sequence[str] = (),
    resume: bool = False,
) -> int:
    """Write `count` parts to `folder`, PNG files and metadata.jsonl; return how many did not run.

    `families` and `without` as for `parts`. Raises InputError if `folder` holds anything
    already and `resume` is false, and if there is nothing there to resume, or it is
    finished, or was started with other arguments (`workers` may change).
    """
    check_names(families, without)
    if count < 1 or workers < 1:
        raise InputError("the numbers of parts and of workers must be at least 1")
    if resume and (folder / METADATA).is_file():
        _clean(folder)
        raise InputError(f"the data set in {folder} is finished")
    plan = {"parts": count, "seed": seed, "families": list(families), "without": list(without)}
    prepare_run(folder, {**plan, "prefix": prefix}, resume)
    before = _read_progress(folder) if resume else {}
    rows: list[str] = []
    failed = 0
    with _spread(workers) as spread, open(folder / PROGRESS, "a", encoding="utf-8") as progress:
        for name, code, ok in _written(spread, folder, count, plan, prefix, before):
            if name not in before:
                progress.write(json.dumps([name, ok]) + "\n")
                progress.flush()
            failed += not ok
            if ok:
                rows.append(json.dumps(_columns(name, code)) + "\n")
    write_whole(folder / METADATA, "".join(rows))
    _clean(folder)
    return failed


def _clean(folder: FilePath) -> None:
    for name in (PROGRESS, SETTINGS_FILE):
        (folder / name).unlink(missing_ok=True)


def _columns(name: str, code: str) -> dict[str, Any]:
    return metadata_row(name, code, token_count=token_count(code), hundred_subset=False)


def _written(
    spread: Spread,
    folder: FilePath,
    count: int,
    plan: dict[str, Any],
    prefix: str,
    before: dict[str, bool],
) -> Iterator[tuple[str, str, bool]]:
    """(name, code, whether it ran) in the order of the draws, until `count` of them ran."""
    from tqdm import tqdm

    seed = plan["seed"]
    codes = _distinct(spread, seed, plan["families"], plan["without"])
    named = ((f"{prefix}{seed:03d}{i:05d}", code) for i, code in enumerate(codes))
    done = 0
    with tqdm(total=count, desc="parts", unit="part") as bar:
        while done < count:
            # Never more than are missing: a part too many would leave a picture behind.
            batch = list(itertools.islice(named, min(count - done, ROUND)))
            missing = [(folder, name, code) for name, code in batch if name not in before]
            ran = iter(spread(_write_picture, missing))
            for name, code in batch:
                ok = before[name] if name in before else next(ran)
                done += ok
                bar.update(int(ok))
                yield name, code, ok


def _distinct(
    spread: Spread, seed: int, families: Sequence[str], without: Sequence[str]
) -> Iterator[str]:
    """The codes of `parts`, the draws shared out."""
    seen: set[tuple[int, ...]] = set()
    for first in itertools.count(0, 8 * RANGE):
        starts = range(first, first + 8 * RANGE, RANGE)
        jobs = ((seed, start, tuple(families), tuple(without)) for start in starts)
        for found in spread(_draw_range, jobs):
            for key, code in found:
                if key not in seen:
                    seen.add(key)
                    yield code


def _draw_range(
    job: tuple[int, int, tuple[str, ...], tuple[str, ...]],
) -> list[tuple[tuple[int, ...], str]]:
    seed, start, families, without = job
    drawn = (candidate(seed, draw, families, without) for draw in range(start, start + RANGE))
    return [(signature(part[1]), to_code(part[0])) for part in drawn if part is not None]


def _write_picture(job: tuple[FilePath, str, str]) -> bool:
    """Run the program and draw the part; False if it does not run, or builds something else."""
    from image2cad.cad import build, parse
    from image2cad.rendering import draw, save_picture
    from metrics import Part, run_cadquery

    folder, name, code = job
    solid, program = run_cadquery(code), parse(code)
    drawing = build(program) if program else None
    if not isinstance(solid, Part) or drawing is None:
        return False
    if abs(solid.volume - drawing.volume) > SAME_VOLUME * solid.volume:
        return False
    save_picture(draw(drawing), folder / f"{name}.png")
    return True


@contextmanager
def _spread(workers: int) -> Iterator[Spread]:
    """`map` over that many processes, results in order."""
    if workers == 1:
        yield map
        return
    # Spawned: a forked numba or CadQuery may hang. Ctrl-C is up to this process.
    context = multiprocessing.get_context("spawn")
    with context.Pool(workers, signal.signal, (signal.SIGINT, signal.SIG_IGN)) as pool:
        yield pool.imap


def _read_progress(folder: FilePath) -> dict[str, bool]:
    """Name -> whether it ran, of the parts done before the interruption."""
    file = folder / PROGRESS
    done: dict[str, bool] = {}
    for _, (name, ok) in read_json_lines(file, list, cut_off=True) if file.is_file() else ():
        if not ok or (folder / f"{name}.png").is_file():
            done[name] = ok
    write_whole(file, "".join(json.dumps(pair) + "\n" for pair in done.items()))
    return done
