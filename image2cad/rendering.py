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
CadQuery cleans away. How pictures are drawn is in rasterising.py.
"""

from __future__ import annotations

import argparse
import ast
import hashlib
import json
import os
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tqdm.auto import tqdm

from image2cad.errors import InputError, run_cli
from image2cad.parsing import parse
from image2cad.processes import Lost, each
from image2cad.programs import Program
from image2cad.prompting import QUESTION
from image2cad.rasterising import SIZE, Array, Shape, draw, reduce
from image2cad.runs import SETTINGS_FILE, prepare_run, write_whole
from image2cad.solids import build
from metrics.execution import Failure, default_workers, run_cadquery

__all__ = ["SIZE", "Shape", "draw", "draw_code", "read", "reduce", "render_rows", "save_picture"]

METADATA, FAILURES = "metadata.jsonl", "failures.jsonl"


@dataclass(frozen=True)
class Job:
    """A program to draw into a file."""

    id: str
    code: str
    file: Path
    size: int = SIZE
    exact: bool = False


def read(code: str) -> Program | None:
    """The program in `code` as it was drawn, or None if any of it is not understood.

    Like `parsing.parse`, but a sketch extruded to both sides is two extrusions, as
    in DeepCAD: the edge between the two is to be seen in the pictures.
    """
    program = parse(code)
    if program is None:
        return None
    calls = [
        node
        for node in ast.walk(ast.parse(code))
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and node.func.attr == "extrude"
    ]
    calls.sort(key=lambda call: (call.end_lineno, call.end_col_offset))
    depths = [float(ast.literal_eval(call.args[0])) for call in calls]
    both = [bool(call.keywords) and ast.literal_eval(call.keywords[0].value) for call in calls]
    written = [2 * abs(d) if two else d for d, two in zip(depths, both, strict=True)]
    if written != [step.depth for step in program]:
        return program  # reordered: which step is which is not known, and one line is lost
    steps = []
    for step, depth, two in zip(program, depths, both, strict=True):
        if two and step.operation != "intersect":
            middle = replace(step.plane, origin=step.plane.point(0, 0, abs(depth)))
            steps += [replace(step, plane=middle, depth=side) for side in (depth, -depth)]
        else:
            steps.append(step)
    return tuple(steps)


def draw_code(code: str, size: int = SIZE, exact: bool = False) -> Array | None:
    """The picture of the program in `code`, or None if it has to be run to be drawn.

    That is a program that is not understood, or that is not built here: CadQuery may
    still build it, or say why not. Runs no generated code, but works in the caller's
    process: with odd numbers a C++ library can hang or crash there; `render_rows` is
    for programs that are not trusted. `exact` asks for OpenCASCADE instead of the
    light engine.
    """
    program = read(code)
    if program is None:
        return None
    if not exact:
        drawing = build(program)
        return None if drawing is None else draw(drawing, size)
    from image2cad.building import NotBuilt, build_exactly  # a second of CPU

    try:
        return draw(build_exactly(program), size)
    except NotBuilt:
        return None


def render_rows(
    jobs: Sequence[Job], workers: int | None = None, deadline: float = 20.0
) -> Iterator[tuple[Job, str | None]]:
    """Draw every job's program into its PNG file: (job, None) or (job, the reason why not).

    Works in `workers` processes (default: one a core); a call that hangs for `deadline`
    seconds or crashes costs its row only. A file that is there is complete.
    """
    workers = workers or default_workers()
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

    part = file.with_name(file.name + ".part")
    Image.fromarray(picture).save(part, format="PNG")
    os.replace(part, file)


def read_rows(source: Path) -> list[dict[str, Any]]:
    """The rows of a JSONL file or of a folder's metadata.jsonl, each with `id` and `code`.

    Raises InputError if the file cannot be read or a line is no such row.
    """
    file = source / METADATA if source.is_dir() else source
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"cannot read {file}: {error}") from error
    rows = []
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except ValueError as error:
            raise InputError(f"{file}, line {number}: not JSON: {error}") from error
        if not isinstance(row, dict):
            raise InputError(f"{file}, line {number}: not a JSON object")
        name = next((row[key] for key in ("deepcad_id", "id") if row.get(key) is not None), None)
        if name is None or not {"code", "cadquery"} & set(row):
            raise InputError(
                f"{file}, line {number}: a row needs an id (id or deepcad_id) "
                "and a program (code or cadquery)"
            )
        code = row["cadquery"] if "cadquery" in row else row["code"]
        rows.append({**row, "id": str(name), "code": code})
    if not rows:
        raise InputError(f"{file} has no rows")
    return rows


def render_folder(
    rows: Sequence[dict[str, Any]],
    folder: Path,
    size: int = SIZE,
    exact: bool = False,
    workers: int | None = None,
    deadline: float = 20.0,
    resume: bool = False,
) -> dict[str, str]:
    """Draw `rows` of `read_rows` into an image folder; return the failures by id.

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
    write_whole(folder / METADATA, "".join(json.dumps(_metadata(row)) + "\n" for row in drawn))
    (folder / SETTINGS_FILE).unlink()
    return failures


def _metadata(row: dict[str, Any]) -> dict[str, Any]:
    columns: dict[str, Any] = {
        "file_name": f"{row['id']}.png",
        "deepcad_id": row["id"],
        "cadquery": row["code"],
        "prompt": row.get("prompt") or QUESTION,
    }
    return columns | {key: row[key] for key in ("token_count", "hundred_subset") if key in row}


def main() -> int:
    """Draw a file of programs into an image folder; 1 if none of them could be drawn."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("programs", type=Path, help="a JSONL file, or an image folder")
    parser.add_argument("out", type=Path)
    parser.add_argument("--size", type=int, default=SIZE, help=f"1 to {SIZE} pixels a side")
    parser.add_argument("--exact", action="store_true", help="build with OpenCASCADE")
    parser.add_argument("--workers", type=int, help="processes; default: one a core")
    parser.add_argument("--deadline", type=float, default=20.0, help="seconds a picture")
    parser.add_argument("--resume", action="store_true", help="go on with an unfinished folder")
    options = parser.parse_args()
    if not 1 <= options.size <= SIZE:
        raise InputError(f"--size must be between 1 and {SIZE}, not {options.size}")
    if (options.workers is not None and options.workers < 1) or not options.deadline > 0:
        raise InputError("--workers must be at least 1, and --deadline above 0")
    rows = read_rows(options.programs)
    failures = render_folder(
        rows,
        options.out,
        options.size,
        options.exact,
        options.workers,
        options.deadline,
        options.resume,
    )
    print(f"{len(rows) - len(failures)} pictures in {options.out}")
    if failures:
        common = Counter(reason.splitlines()[0] for reason in failures.values()).most_common(3)
        reasons = "; ".join(f"{count} x {reason}" for reason, count in common)
        print(f"{len(failures)} rows could not be drawn ({FAILURES}): {reasons}")
    return int(len(failures) == len(rows))


if __name__ == "__main__":
    run_cli(main)
