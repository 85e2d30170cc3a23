"""Draw a file of programs into an image folder in GenCAD-Code's schema.

    python -m image2cad.rendering runs/eval/predictions.jsonl runs/pictures
    python -m image2cad.rendering data/samples/test runs/small --size 224 --resume

PNG files, then metadata.jsonl; a folder without it is unfinished and goes on with
--resume. Rows need an id (`id` or `deepcad_id`) and code (`code` or `cadquery`), and
may keep a prompt and a token_count. Rows that cannot be drawn are in failures.jsonl.

Sketch-and-extrude programs are read, not run, and built by the light engine, with
--exact by OpenCASCADE (slower; both better than CadQuery's cleaned solids). All
other programs run confined (`metrics.run_cadquery`), which shows no edge that
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
class PictureTask:
    """A program to draw into a file."""

    id: str
    code: str
    file: Path
    size: int = SIZE
    exact: bool = False


def render_rows(
    tasks: Sequence[PictureTask], workers: int | None = None, deadline: float = 20.0
) -> Iterator[tuple[PictureTask, str | None]]:
    """Draw every task's program into its PNG file: (task, None) or (task, the reason why not).

    Works in `workers` processes (default: one a core); what hangs for `deadline` seconds, or is
    code that takes as many of CPU time, or crashes costs its row only. A file that is there is
    complete.
    """
    workers = workers or usable_cores()
    rest = []
    for index, answer in each(_draw_task, tasks, workers, deadline):
        if isinstance(answer, Lost):
            yield tasks[index], answer.reason
        elif answer:
            yield tasks[index], None
        else:
            rest.append(tasks[index])
    with ThreadPoolExecutor(workers) as pool:
        parts = pool.map(lambda task: run_cadquery(task.code, timeout=deadline), rest)
        for task, part in zip(rest, parts, strict=True):
            if isinstance(part, Failure):
                yield task, str(part)
            else:
                save_picture(draw(part, task.size), task.file)
                yield task, None


def _draw_task(task: PictureTask) -> bool:
    """In a worker process: False if CadQuery has to run the program, else the file is there."""
    picture = draw_code(task.code, task.size, task.exact)
    if picture is not None:
        save_picture(picture, task.file)
    return picture is not None


def save_picture(picture: Array, file: Path) -> None:
    """Write a PNG file that is either whole or not there."""
    from PIL import Image

    stream = io.BytesIO()
    Image.fromarray(picture).save(stream, format="PNG")
    write_whole(file, stream.getvalue())


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
    tasks: dict[str, PictureTask] = {}
    for row in rows:
        name, code = row["id"], row["code"]
        if not re.fullmatch(r"\w[\w.-]{0,99}", name):
            failures[name] = "the id cannot be a file's name"
        elif name in tasks:
            raise InputError(f"two rows have the id {name}")
        elif not isinstance(code, str) or not code.strip():
            failures[name] = "no code"
        else:
            tasks[name] = PictureTask(name, code, folder / f"{name}.png", size, exact)
    todo = [task for task in tasks.values() if not task.file.exists()]
    with tqdm(total=len(tasks), initial=len(tasks) - len(todo), unit="picture") as bar:
        for task, reason in render_rows(todo, workers, deadline):
            if reason is not None:
                failures[task.id] = reason
            bar.update()
    if failures:
        lines = [json.dumps({"id": name, "reason": failures[name]}) for name in failures]
        write_whole(folder / FAILURES, "".join(line + "\n" for line in lines))
    drawn = [row for row in rows if row["id"] in tasks and row["id"] not in failures]
    write_whole(folder / METADATA, "".join(json.dumps(_columns(row)) + "\n" for row in drawn))
    (folder / SETTINGS_FILE).unlink()
    return failures


def _columns(row: dict[str, Any]) -> dict[str, Any]:
    kept = {key: row[key] for key in ("token_count", "prompt", "hundred_subset") if key in row}
    return metadata_row(row["id"], row["code"], **kept)
