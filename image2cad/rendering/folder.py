"""Draw the picture that GenCAD-Code shows for a solid, a program, or a file of programs.

    from image2cad.rendering import draw, draw_code
    picture = draw(run_cadquery(code))          # (448, 448, 3) uint8, of any solid
    picture = draw_code(code)                   # a program, the way DeepCAD built it

    python -m image2cad.rendering runs/eval/predictions.jsonl runs/pictures
    python -m image2cad.rendering data/samples/test runs/small --size 224 --resume

The second writes an image folder in GenCAD-Code's schema: PNG files, then
metadata.jsonl; a folder without it is unfinished and goes on with --resume. Rows
need an id (`id` or `deepcad_id`) and code (`code` or `cadquery`), and may keep a
prompt and a token_count. Rows that cannot be drawn are in failures.jsonl.

Sketch-and-extrude programs are read, not run, and built by the light engine, with
--exact by OpenCASCADE (slower; both better than CadQuery's cleaned solids). All
other programs run confined in `metrics/execution.py`, which shows no edge that
CadQuery cleans away. How pictures are drawn is in raster.py.
"""

from __future__ import annotations

import hashlib
import io
import json
import re
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tqdm.auto import tqdm

from image2cad.common import (
    FAILURES,
    METADATA,
    SETTINGS_FILE,
    Array,
    InputError,
    Lost,
    each,
    metadata_row,
    prepare_run,
    write_whole,
)
from image2cad.rendering.camera import SIZE
from image2cad.rendering.drawing import draw_code
from image2cad.rendering.raster import draw
from metrics import Failure, run_cadquery, usable_cores


@dataclass(frozen=True)
class Job:
    """A program to draw into a file."""

    id: str
    code: str
    file: Path
    size: int = SIZE
    exact: bool = False


def render_rows(
    jobs: Sequence[Job], workers: int | None = None, deadline: float = 20.0
) -> Iterator[tuple[Job, str | None]]:
    """Draw every job's program into its PNG file: (job, None) or (job, the reason why not).

    Works in `workers` processes (default: one a core); a call that hangs for `deadline`
    seconds or crashes costs its row only. A file that is there is complete.
    """
    workers = workers or usable_cores()
    rest = []
    for index, answer in each(_draw_job, jobs, workers, deadline):
        if isinstance(answer, Lost):
            yield jobs[index], answer.reason
        elif answer:
            yield jobs[index], None
        else:
            rest.append(jobs[index])
    with ThreadPoolExecutor(workers) as pool:
        parts = pool.map(lambda job: run_cadquery(job.code, timeout=deadline), rest)
        for job, part in zip(rest, parts, strict=True):
            if isinstance(part, Failure):
                yield job, str(part)
            else:
                save_picture(draw(part, job.size), job.file)
                yield job, None


def _draw_job(job: Job) -> bool:
    """In a worker process: False if CadQuery has to run the program, else the file is there."""
    picture = draw_code(job.code, job.size, job.exact)
    if picture is not None:
        save_picture(picture, job.file)
    return picture is not None


def save_picture(picture: Array, file: Path) -> None:
    """Write a PNG file that is either whole or not there."""
    from PIL import Image

    data = io.BytesIO()
    Image.fromarray(picture).save(data, format="PNG")
    write_whole(file, data.getvalue())


def render_folder(
    rows: Sequence[dict[str, Any]],
    folder: Path,
    size: int = SIZE,
    exact: bool = False,
    workers: int | None = None,
    deadline: float = 20.0,
    resume: bool = False,
) -> dict[str, str]:
    """Draw `rows` of `read_programs` into an image folder; return the failures by id.

    Raises InputError if `folder` holds something else, or is finished.
    """
    if (folder / METADATA).exists():
        raise InputError(f"{folder} is finished: it has a {METADATA}")
    text = json.dumps([[row["id"], row["code"]] for row in rows])
    digest = hashlib.sha256(text.encode()).hexdigest()
    prepare_run(folder, {"programs": digest, "size": size, "exact": exact}, resume)
    failures: dict[str, str] = {}
    jobs: dict[str, Job] = {}
    for row in rows:
        name, code = row["id"], row["code"]
        if not re.fullmatch(r"\w[\w.-]{0,99}", name):
            failures[name] = "the id cannot be a file's name"
        elif name in jobs:
            raise InputError(f"two rows have the id {name}")
        elif not isinstance(code, str) or not code.strip():
            failures[name] = "no code"
        else:
            jobs[name] = Job(name, code, folder / f"{name}.png", size, exact)
    todo = [job for job in jobs.values() if not job.file.exists()]
    with tqdm(total=len(jobs), initial=len(jobs) - len(todo), unit="picture") as bar:
        for job, reason in render_rows(todo, workers, deadline):
            if reason is not None:
                failures[job.id] = reason
            bar.update()
    if failures:
        lines = [json.dumps({"id": name, "reason": failures[name]}) for name in failures]
        write_whole(folder / FAILURES, "".join(line + "\n" for line in lines))
    drawn = [row for row in rows if row["id"] in jobs and row["id"] not in failures]
    write_whole(folder / METADATA, "".join(json.dumps(_columns(row)) + "\n" for row in drawn))
    (folder / SETTINGS_FILE).unlink()
    return failures


def _columns(row: dict[str, Any]) -> dict[str, Any]:
    kept = {key: row[key] for key in ("token_count", "prompt", "hundred_subset") if key in row}
    return metadata_row(row["id"], row["code"], **kept)
