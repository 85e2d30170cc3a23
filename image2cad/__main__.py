"""Pictures of parts in; programs, CAD files and a report out, at their real size.

    python -m image2cad bracket.png --length 80                 # its longest side is 80 mm
    python -m image2cad pictures/ --effort high --out runs/mine # a folder; --resume goes on with it
    python -m image2cad front.png top.png --views               # views of one part
    python -m image2cad runs/mine/bracket.py --set "hole 1 diameter=6"
    python -m image2cad bracket.step --length "plate thickness=6" --format step,stl

Leaves in the output folder for each part its program, its files, and a picture of the input
beside a drawing of the answer; parts.jsonl with all figures, and report.html. A size that is not
given is assumed, and called so. Left out: photographs.
"""

from __future__ import annotations

import argparse
import base64
import functools
import html
import io
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn
from urllib.parse import quote

from image2cad.common import (
    EFFORTS,
    InputError,
    finish_run,
    prepare_run,
    read_kept,
    run_cli,
    run_folder,
    write_whole,
)

if TYPE_CHECKING:
    from metrics import Part

PartRow = dict[str, Any]  # of parts.jsonl

PICTURES = (".png", ".jpg", ".jpeg", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".avif")
SOLIDS = (".step", ".stp", ".stl", ".3mf", ".obj")  # files that metrics measures
ROWS_FILE = "parts.jsonl"
PICTURES_AT_ONCE = 32  # whose pictures are in memory, and that the model is asked for together
SAME_PART_IOU = 0.98  # from which a program counts as that of a file
MOST_CARRIED = 3_000_000  # letters of a solid within a program
NOTHING_FOUND = "no program was found that draws it"
SOURCES_TOLD = {
    "model": "the model", "traced": "tracing the picture", "library": "the library of parts",
    "templates": "a template", "program": "the program given", "file": "the file given",
}  # fmt: skip


@dataclass(frozen=True)
class Task:
    """One part to make. name: of its files. files: one, or the views of one part.

    kind: "picture", "program" or "solid". left_out: why a picture of a folder cannot be read.
    """

    name: str
    files: tuple[Path, ...]
    kind: str
    left_out: str = ""


@dataclass(frozen=True, eq=False)
class Made:
    """What came of a task.

    part: None where there is none, and why. size: where it is from. note: what is to be known
    beside. changed: whether numbers were set. picture: that was given.
    """

    task: Task
    code: str = ""
    part: Part | None = None
    size: str = "assumed"
    likeness: float | None = None
    confidence: float | None = None
    source: str = ""
    why: str = ""
    note: str = ""
    changed: bool = False
    picture: Any = None
    seconds: float = 0.0


# ---- What is asked for


def main() -> int:
    """Make every part that is asked for."""
    settings = read_arguments()
    tasks = find_tasks(settings.inputs, settings.views)
    if settings.set and len(tasks) > 1:
        raise InputError(f"--set needs one part, and there are {len(tasks)}")
    needs_model = settings.effort == "none" and settings.model == "none"
    if needs_model and any(task.kind == "picture" for task in tasks):
        raise InputError("effort none gives the model's program: name a --model, or another effort")
    folder = run_folder("parts", settings.out, settings.resume)
    asked = {**vars(settings), "inputs": [str(file) for task in tasks for file in task.files]}
    prepare_run(folder, {**asked, "length": str(settings.length)}, settings.resume, ("workers",))
    rows = make_all(tasks, settings, folder)
    write_whole(folder / "report.html", report(rows))
    good = sum(row["ok"] for row in rows)
    finish_run(folder, {"n": len(rows), "ok": good})
    if len(rows) == 1 and good:
        print(numbers_text(rows[0]))
    print(f"{good} of {len(rows)} parts are in {folder}; open {folder / 'report.html'}")
    return 0 if good == len(rows) else 1


def read_arguments() -> argparse.Namespace:
    """The command line, checked."""
    from image2cad.cad import FORMATS, size_named

    parser = argparse.ArgumentParser(
        prog="image2cad",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    several = "pictures, folders of them, programs (.py), STEP, STL, 3MF or OBJ"
    parser.add_argument("inputs", nargs="+", metavar="PICTURE", type=Path, help=several)
    parser.add_argument("--length", help="mm of the longest side, or NAME=MM of another measure")
    efforts = "; ".join(effort.text for effort in EFFORTS.values())
    parser.add_argument("--effort", choices=list(EFFORTS), default="low", help=efforts)
    parser.add_argument("--out", help="an empty folder, or one to be made; default: runs/parts-NNN")
    parser.add_argument("--format", default="step,stl", help=f"of {','.join(FORMATS)}")
    parser.add_argument("--views", action="store_true", help="all pictures show one part")
    another = "another value for a number of the part, mm; may be repeated"
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", help=another)
    parser.add_argument("--model", default="models/nano", help="a base, an adapter, or none")
    parser.add_argument("--workers", type=int, help="pictures worked on at a time; default: cores")
    parser.add_argument("--resume", action="store_true", help="go on with an interrupted run")
    settings = parser.parse_args()
    settings.format = list(dict.fromkeys(one.strip() for one in settings.format.split(",")))
    if unknown := [one for one in settings.format if one not in FORMATS]:
        raise InputError(f"--format: there is no {unknown[0]!r}; choose of {','.join(FORMATS)}")
    settings.length = None if settings.length is None else size_named(settings.length)
    if settings.workers is not None and settings.workers < 1:
        raise InputError(f"--workers must be at least 1, not {settings.workers}")
    settings.set = dict(_setting(text) for text in settings.set)
    return settings


def _setting(text: str) -> tuple[str, float]:
    name, sign, value = text.rpartition("=")
    try:
        number = float(value.strip().removesuffix("mm"))
    except ValueError:
        sign, number = "", 0.0
    if not sign or not name.strip():
        raise InputError(f"--set takes NAME=VALUE with a number, not {text!r:.60}")
    return " ".join(name.split()), number


def find_tasks(inputs: Sequence[Path], views: bool) -> list[Task]:
    """A task for every input, and for every picture of a folder; each with a name of its own.

    Raises InputError for what is not there or cannot be read.
    """
    found: list[tuple[Path, str, str]] = []
    for given in inputs:
        if not given.exists():
            raise InputError(f"there is no {given}")
        if given.is_dir():
            inside = sorted(one for one in given.iterdir() if one.suffix.lower() in PICTURES)
            if not inside:
                raise InputError(f"{given} holds no pictures ({', '.join(PICTURES)})")
            found += [(one, "picture", why_unread(one)) for one in inside]
            continue
        kind = {".py": "program"}.get(given.suffix.lower(), "picture")
        kind = "solid" if given.suffix.lower() in SOLIDS else kind
        if kind == "picture" and (why := why_unread(given)):
            raise InputError(f"{given}: {why}")
        found.append((given, kind, ""))
    if views:
        if other := [file for file, kind, _ in found if kind != "picture"]:
            raise InputError(f"--views takes pictures of one part; {other[0]} is none")
        if bad := [(file, why) for file, _, why in found if why]:
            raise InputError(f"{bad[0][0]}: {bad[0][1]}")
        return [Task(found[0][0].stem, tuple(file for file, _, _ in found), "picture")]
    tasks: list[Task] = []
    taken: set[str] = set()
    for file, kind, why in found:
        name, count = file.stem, 1
        while name.casefold() in taken:
            count += 1
            name = f"{file.stem}-{count}"
        taken.add(name.casefold())
        tasks.append(Task(name, (file,), kind, why))
    return tasks


def why_unread(file: Path) -> str:
    """Why a picture cannot be read; nothing where it can."""
    try:
        opened(file)
    except InputError as error:
        return str(error)
    return ""


def opened(file: Path) -> Any:
    """A picture, upright, on white. Raises InputError."""
    from image2cad.serving import Limits, open_picture

    try:
        return open_picture(file.read_bytes(), Limits())
    except OSError as error:
        raise InputError(f"cannot read {file}: {error.strerror}") from error


# ---- The parts, each kept as soon as it is there


def make_all(tasks: Sequence[Task], settings: argparse.Namespace, folder: Path) -> list[PartRow]:
    """A row of figures for every task, in order; those that the folder holds are not made again."""
    from tqdm.auto import tqdm

    done = read_kept(folder / ROWS_FILE)
    todo = [task for task in tasks if task.name not in done]
    with tqdm(total=len(tasks), initial=len(done), unit="part", disable=len(tasks) < 2) as bar:

        def keep(made: Made) -> None:
            row = kept(made, settings, folder)
            with open(folder / ROWS_FILE, "a", encoding="utf-8") as file:
                file.write(json.dumps({"id": made.task.name, **row}) + "\n")
            done[made.task.name] = row
            bar.write(line_of(made.task.name, row))
            bar.update()

        alone = len(tasks) == 1
        searched: list[Task] = []
        for task in todo:  # programs and files first, for they take no search
            if task.left_out:
                keep(Made(task, why=task.left_out))
            elif task.kind == "program" or (task.kind == "solid" and settings.effort == "none"):
                work = from_program if task.kind == "program" else from_solid
                keep(tried(work, task, settings, alone=alone))
            else:
                searched.append(task)
        for start in range(0, len(searched), PICTURES_AT_ONCE):
            search(searched[start : start + PICTURES_AT_ONCE], settings, alone, keep)
    return [{"id": task.name, **done[task.name]} for task in tasks]


def tried(work: Callable[..., Made], task: Task, *rest: Any, alone: bool) -> Made:
    """What `work` makes of a task; among several, what is wrong with one does not end the run."""
    try:
        return work(task, *rest)
    except InputError as error:
        if alone:
            raise
        return Made(task, why=str(error))


def search(
    tasks: Sequence[Task], settings: argparse.Namespace, alone: bool, keep: Callable[[Made], None]
) -> None:
    """Find the programs of pictures, and of solids by their drawings; keep each as it comes."""
    from PIL import Image

    from image2cad.rendering import draw
    from image2cad.verification import Answer, answer_many
    from metrics import Part, measure_file

    asked: list[tuple[Task, Any, list[Any]]] = []
    for task in tasks:
        if task.kind == "picture":
            asked.append((task, None, [opened(file) for file in task.files]))
        elif isinstance(part := measure_file(task.files[0]), Part):
            asked.append((task, part, [Image.fromarray(draw(part))]))
        else:
            keep(Made(task, why=str(part), source="file"))
    if not asked:
        return
    guesses = proposals([views[0] for _, _, views in asked], settings)

    def finish(index: int, answer: Answer) -> None:
        task, part, views = asked[index]
        if part is None:
            keep(tried(from_answer, task, settings, answer, views[0], alone=alone))
        else:
            keep(tried(from_solid, task, settings, answer, part, alone=alone))

    images = [views[0] if len(views) == 1 else views for _, _, views in asked]
    answer_many(images, guesses, settings.effort, workers=settings.workers, progress=False,
                keep=finish)  # fmt: skip


def proposals(images: Sequence[Any], settings: argparse.Namespace) -> list[list[str]]:
    """What the model proposes for each picture; nothing without a model."""
    if settings.model == "none":
        return [[] for _ in images]
    from image2cad.vlm import propose

    model, processor = loaded(settings.model)
    return propose(model, processor, images, settings.effort, progress=False)


@functools.cache
def loaded(name: str) -> tuple[Any, Any]:
    """The model and its processor, once. Raises InputError if it cannot be loaded."""
    from image2cad.vlm import load_model, quiet

    quiet()
    return load_model(name)


def from_answer(task: Task, settings: argparse.Namespace, answer: Any, picture: Any) -> Made:
    """An answer at its size, with round numbers where the picture does not object."""
    from image2cad.cad import sized
    from image2cad.verification import round_as_seen
    from metrics import run_cadquery

    if answer.code is None:
        why = answer.tried[0].fate if answer.tried else NOTHING_FOUND
        return Made(task, why=why, picture=picture, seconds=answer.seconds)
    code, part, size = answer.code, answer.part, "assumed"
    if settings.length:
        code, part = sized(code, part, settings.length, run_cadquery)
        size = "given"
    code, part = round_as_seen(picture, code, part, run_cadquery)
    figures = answer.likeness, answer.confidence, answer.source
    made = Made(task, code, part, size, *figures, picture=picture, seconds=answer.seconds)
    return changed(made, settings)


def from_program(task: Task, settings: argparse.Namespace) -> Made:
    """A program as it is given, at another size or with other numbers."""
    from image2cad.cad import sized, unheaded
    from metrics import Failure, run_cadquery

    started = time.monotonic()
    try:
        code = unheaded(task.files[0].read_text(encoding="utf-8-sig"))
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"cannot read {task.files[0]}: {error}") from error
    part, size = run_cadquery(code), "as in the program"
    if isinstance(part, Failure):
        return Made(task, code, why=str(part), source="program")
    if settings.length:
        code, part = sized(code, part, settings.length, run_cadquery)
        size = "given"
    made = Made(task, code, part, size, source="program", seconds=time.monotonic() - started)
    return changed(made, settings)


def from_solid(
    task: Task, settings: argparse.Namespace, answer: Any = None, part: Any = None
) -> Made:
    """A file's part, measured; with a program where the one found for its drawing builds it."""
    from image2cad.cad import sized
    from metrics import Failure, measure_file, run_cadquery

    part = measure_file(task.files[0]) if part is None else part
    if isinstance(part, Failure):
        return Made(task, why=str(part), source="file")
    code, note = "", "its numbers are not read at effort none"
    if answer is not None:
        code, note = program_of_solid(answer, part)
    if not code and settings.set:
        raise InputError(f"{task.files[0]} has no numbers to set: {note}")
    size = "as in the file"
    if settings.length:
        # The file's own surfaces, as far as a program can carry them.
        text = code or carrying(part)
        text, part = sized(text, part, settings.length, run_cadquery)
        code, size = text if code else "", "given"
    seconds = 0.0 if answer is None else answer.seconds
    made = Made(task, code, part, size, source="file", note=note, seconds=seconds)
    return changed(made, settings)


def program_of_solid(answer: Any, part: Part) -> tuple[str, str]:
    """The program that was found for a solid's drawing, at its size and place; "" and why not."""
    from image2cad.cad import Size, moved, parse, sized, to_code
    from metrics import compute, run_cadquery

    if answer.code is None:
        return "", NOTHING_FOUND
    longest = float((part.bounding_box[1] - part.bounding_box[0]).max())
    code, found = sized(answer.code, answer.part, Size(longest), run_cadquery)
    iou = compute([found], [part], workers=1, progress=False)["iou_best"]["mean"]
    program = parse(code)
    if not program or iou < SAME_PART_IOU:
        return "", f"its numbers are not read: the best program found overlaps with it by {iou:.2f}"
    x, y, z = ((part.bounding_box - found.bounding_box).mean(axis=0)).tolist()
    return to_code(moved(program, (x, y, z))), f"its program overlaps with it by {iou:.3f}"


def carrying(part: Part) -> str:
    """A program that holds the part's surfaces as they are. Raises InputError for a large one."""
    data = base64.b64encode(part.brep).decode()
    if len(data) > MOST_CARRIED:
        raise InputError("the file is too large to be brought to another size")
    return (
        "import base64, io\nimport cadquery as cq\n"
        f"data = base64.b64decode('{data}')\n"
        "result = cq.Workplane(obj=cq.Shape.importBin(io.BytesIO(data)))\n"
    )


def changed(made: Made, settings: argparse.Namespace) -> Made:
    """With the numbers of --set in place of its own."""
    from image2cad.cad import with_numbers
    from metrics import Failure, run_cadquery

    if not settings.set:
        return made
    code = with_numbers(made.code, settings.set)
    part = run_cadquery(code)
    if isinstance(part, Failure):
        return replace(made, code=code, part=None, why=f"with these numbers: {part}")
    return replace(made, code=code, part=part, changed=True)


# ---- What is left of each: files, a row of figures, a line


def kept(made: Made, settings: argparse.Namespace, folder: Path) -> PartRow:
    """Write a part's files and return its row; its program is written even where it fails."""
    from image2cad.cad import export, headed, measured, measures_text, numbers

    name, files, no_files = made.task.name, [], {}
    told = f"size {made.size}"
    row: PartRow = {"inputs": [str(file) for file in made.task.files], "ok": made.part is not None}
    if made.part is not None:
        told = f"{measures_text(made.part)}; size {made.size}"
    code = headed(made.code, told) if made.code else ""
    if code:
        files.append(f"{name}.py")
        write_whole(folder / files[-1], code)
    if made.part is not None:
        for kind in settings.format:
            if kind in ("py", "dxf") and not made.code:
                no_files[kind] = made.note or "there is no program"
            if kind == "py" or kind in no_files:
                continue
            try:
                write_whole(folder / f"{name}.{kind}", export(made.part, made.code, kind))
                files.append(f"{name}.{kind}")
            except InputError as error:
                no_files[kind] = str(error)
        files.append(f"{name}.png")
        write_whole(folder / files[-1], side_by_side(made))
        row |= {"size": made.size, **measured(made.part)}
        row["numbers"] = {one.name: one.value for one in numbers(made.code, None)}
    sure = {"likeness": made.likeness, "confidence": made.confidence, "source": made.source}
    return {
        **row, **sure, "changed": made.changed, "note": made.note, "failure": made.why,
        "seconds": round(made.seconds, 2), "files": files, "no_files": no_files, "code": code,
    }  # fmt: skip


def side_by_side(made: Made) -> bytes:
    """A PNG: the picture that was given, if one was, and a drawing of the part."""
    from PIL import Image

    from image2cad.rendering import as_picture, draw

    assert made.part is not None
    pictures = [as_picture(made.picture)] if made.picture is not None else []
    pictures.append(draw(made.part))
    sheet = Image.new("RGB", (sum(one.shape[1] for one in pictures), pictures[0].shape[0]))
    for i, one in enumerate(pictures):
        sheet.paste(Image.fromarray(one), (i * one.shape[1], 0))
    stream = io.BytesIO()
    sheet.save(stream, "PNG")
    return stream.getvalue()


def line_of(name: str, row: PartRow) -> str:
    """One line: how like, how sure, how large."""
    if not row["ok"]:
        return f"{name}: no part: {row['failure']}"
    words = []
    if row["likeness"] is not None:
        words += [f"likeness {row['likeness']:.3f}", f"confidence {row['confidence']:.0%}"]
    sides = " x ".join(f"{side:.6g}" for side in row["bounding_box_mm"])
    words += [f"{sides} mm (size {row['size']})", f"{row['volume_mm3']:.6g} mm3"]
    words.append(f"by {SOURCES_TOLD.get(row['source'], row['source'])}")
    words += ["numbers changed"] if row["changed"] else []
    words += [row["note"]] if row["note"] else []
    words += [f"no {kind}: {why}" for kind, why in row["no_files"].items()]
    return f"{name}: {', '.join(words)}"


def numbers_text(row: PartRow) -> str:
    """The numbers that --set changes, a line each."""
    found = row["numbers"]
    wide = max(map(len, found), default=0)
    return "\n".join(f"  {name:{wide}}  {value:.6g} mm" for name, value in found.items())


def report(rows: Sequence[PartRow]) -> str:
    """All parts on one page of HTML."""
    cards = []
    for row in rows:
        name = html.escape(row["id"])
        shown = f'<img src="{quote(row["id"])}.png" alt="input and drawing">' if row["ok"] else ""
        table = "".join(
            f"<tr><td>{html.escape(one)}</td><td>{value:.6g} mm</td></tr>"
            for one, value in row.get("numbers", {}).items()
        )
        links = " ".join(f'<a href="{quote(f)}">{html.escape(f)}</a>' for f in row["files"])
        cards.append(
            f"<section><h2>{name}</h2>{shown}<p>{html.escape(line_of(row['id'], row))}</p>"
            f"<p>{links}</p><details><summary>numbers, mm</summary><table>{table}</table></details>"
            f"<details><summary>program</summary><pre>{html.escape(row['code'])}</pre></details>"
            "</section>"
        )
    good = sum(row["ok"] for row in rows)
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8"><title>image2cad</title>'
        "<style>body{font-family:sans-serif;max-width:60em;margin:auto}img{max-width:100%}</style>"
        f"</head><body><h1>{good} of {len(rows)} parts</h1><p>Left the picture, right a drawing of "
        f"the part that was found. Lengths are in millimetres.</p>{''.join(cards)}</body></html>\n"
    )


def command() -> NoReturn:
    """What is installed as `image2cad`."""
    run_cli(main)


if __name__ == "__main__":
    command()
