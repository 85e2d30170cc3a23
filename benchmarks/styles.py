"""How well pictures are answered that GenCAD's renderer did not draw, row by row.

    PYTHONPATH=. python benchmarks/styles.py --out runs/styles              # low effort, 60 parts
    PYTHONPATH=. python benchmarks/styles.py --out runs/styles --resume
    PYTHONPATH=. python benchmarks/styles.py --out runs/styles-high --effort high
    PYTHONPATH=. python benchmarks/styles.py --out runs/some --rows colours lines --parts 12
    PYTHONPATH=. python benchmarks/styles.py --out runs/new --synthetic 77  # random parts
    PYTHONPATH=. python benchmarks/styles.py --out runs/plain --plain       # made for this project

Every row is one kind of picture of the same real parts (../shared/data/gencad_dev): GenCAD's own,
GenCAD's reframed, and those of vtk_pictures.py, an independent renderer. Cameras are not given. The
row `foreign` has other parts in another viewer's pictures (../shared/data/foreign_dev), scored
against STEP files. A row says IoU_best (alignment `best`, failures 0) with its interval, the valid,
seconds and CPU seconds a part, and how far the confidence can be trusted; `benchcad` also the IoU
without rotation that this board scores by, and what a plain box of the part's proportions has. The
row `several` gives three pictures as a list: that of `direction` and two more. Last comes the same
by the number of extrusions. With --synthetic the parts are random ones of that seed: a new seed
says what confidence is worth on parts that nothing was tuned on. With --plain they are those of
plain_parts.py, which needs no data. Pictures and answers stay in the folder, so that --resume goes
on, and the pictures can be looked at; "before" figures are the same command on an older checkout,
with --pictures to draw nothing twice. CPU seconds leave out the model's guesses and the confined
runs of programs. With --by-processor an answer's seconds are those of its processor, so that
figures do not depend on what else the machine does.
"""

from __future__ import annotations

import argparse
import io
import itertools
import json
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
from PIL import Image
from plain_parts import PLAIN_PARTS
from vtk_pictures import LOOKS, Solid, solid_of, taken

from image2cad.cad import to_code
from image2cad.common import stopping
from image2cad.common.errors import InputError, run_cli
from image2cad.common.files import read_kept, write_whole
from image2cad.common.gencad import METADATA, read_programs
from image2cad.common.paths import NANO
from image2cad.common.processes import Lost, each
from image2cad.common.runs import finish_run, prepare_run
from image2cad.rendering import draw
from image2cad.synthesis import random_parts
from image2cad.verification import choosing, pipeline
from image2cad.verification.many import SPARE_SECONDS, warm_up
from image2cad.verification.pipeline import verify
from metrics.execution import run_many
from metrics.geometry import iou_unit_box
from metrics.parts import Failure, Part
from metrics.scores import bootstrap_interval, compute

ROOT = Path(__file__).resolve().parent.parent
GENCAD_DEV, FOREIGN_DEV = (ROOT / "../shared/data" / name for name in ("gencad_dev", "foreign_dev"))
PARTS = {"low": 60, "high": 24}  # the first by id
HIGH_ROWS = ("gencad", "colours", "direction", "lines", "benchcad")
NOT_ASKED_FOR = ("cadbench grid",)  # rows that are drawn only when they are named
LONGEST = 400  # seconds of a picture, on a machine that does other work too
SURE, GOOD = 0.9, 0.9  # a confidence from which an answer is believed; an IoU that makes it right
DARK = (40, 42, 48)
MARGIN_PIXELS = 56


# ---- GenCAD's pictures reframed


def _on_white(image: Image.Image, width: int, height: int) -> Image.Image:
    whole = Image.new("RGB", (width, height), "white")
    whole.paste(image, ((width - image.width) // 2, (height - image.height) // 2))
    return whole


def _part_of(image: Image.Image) -> np.ndarray:
    return np.asarray(image).min(axis=2) < 250


def _cropped(image: Image.Image) -> Image.Image:
    rows, columns = np.nonzero(_part_of(image))
    return image.crop((columns.min() - 4, rows.min() - 4, columns.max() + 5, rows.max() + 5))


def _darkened(image: Image.Image) -> Image.Image:
    return Image.fromarray(
        np.where(_part_of(image)[..., None], np.asarray(image), DARK).astype("u1")
    )


def _cut_out(image: Image.Image) -> Image.Image:
    opacity = np.where(_part_of(image), 255, 0).astype("u1")
    return Image.fromarray(np.dstack([np.asarray(image), opacity]), "RGBA")


def _as_jpeg(image: Image.Image) -> Image.Image:
    file = io.BytesIO()
    image.save(file, "JPEG", quality=50)
    return Image.open(file).convert("RGB")


def _resized(image: Image.Image, factor: float) -> Image.Image:
    size = (round(image.width * factor), round(image.height * factor))
    return image.resize(size, Image.Resampling.LANCZOS)


REFRAMED: dict[str, Callable[[Image.Image], Image.Image]] = {
    "margins": lambda im: _on_white(
        im, im.width + 2 * MARGIN_PIXELS, im.height + 2 * MARGIN_PIXELS
    ),
    "crop": _cropped,
    "4:3": lambda im: _on_white(im, im.height * 4 // 3, im.height),
    "dark": _darkened,
    "transparent": _cut_out,
    "JPEG 50": _as_jpeg,
    "half": lambda im: _resized(im, 0.5),
    "double": lambda im: _resized(im, 2),
}
SEVERAL = {"several": ("direction", 3)}  # rows of several pictures: their look, and how many
ROWS = ("gencad", *REFRAMED, *LOOKS, *SEVERAL, "foreign")


# ---- Pictures, drawn once and kept


@dataclass(frozen=True)
class Case:
    """Pictures to answer, and what the answer is scored against: code, or a STEP file."""

    id: str
    files: tuple[Path, ...]
    reference: str | Path


def cases_of(
    row: str, folder: Path, rows: list[dict[str, Any]], solids: dict[str, Solid]
) -> list[Case]:
    """The pictures of one row, drawn where they are not in the folder yet."""
    if row == "foreign":
        steps = sorted((FOREIGN_DEV / "steps").glob("*.step"))[: len(rows)]
        return [Case(step.stem, (FOREIGN_DEV / f"{step.stem}.png",), step) for step in steps]
    place = folder / row.replace(" ", "-").replace(":", "-")
    place.mkdir(parents=True, exist_ok=True)
    known = read_kept(place / "drawn.jsonl")
    found, lines = [], []
    for one in rows:
        name = one["id"]
        files = [place / f"{name}.png"]
        if row in SEVERAL:
            files += [place / f"{name}-{i}.png" for i in range(1, SEVERAL[row][1])]
        if name not in known or not all(file.is_file() for file in files):
            cameras: list[dict[str, Any]] = []
            for i, file in enumerate(files):
                image, mine = _drawn(row, one, i, solids)
                image.save(file)
                cameras += mine
            known[name] = {"cameras": cameras}
            with open(place / "drawn.jsonl", "a", encoding="utf-8") as kept:
                kept.write(json.dumps({"id": name, **known[name]}) + "\n")
        found.append(Case(name, tuple(files), one["code"]))
        more = {f"image_{i}_file_name": file.name for i, file in enumerate(files) if i}
        line = {"file_name": files[0].name, **more, "deepcad_id": name, "cadquery": one["code"]}
        lines.append({**line, **known[name]})
    # An image folder of its own, which python -m image2cad.evaluation reads too.
    write_whole(place / METADATA, "".join(json.dumps(line) + "\n" for line in lines))
    return found


def _drawn(
    row: str, one: dict[str, Any], number: int, solids: dict[str, Solid]
) -> tuple[Image.Image, list[dict[str, Any]]]:
    """One picture of a part for a row, and its cameras where VTK has drawn it."""
    if row in LOOKS or row in SEVERAL:
        look = SEVERAL[row][0] if row in SEVERAL else row
        seen = taken(look, f"{one['id']} {number}" if number else one["id"], solid(one, solids))
        return seen.image, seen.cameras
    image = _gencads(one)
    return (REFRAMED[row](image) if row in REFRAMED else image), []


def _gencads(one: dict[str, Any]) -> Image.Image:
    """The part's own picture; of a random part what draws like GenCAD's."""
    if "picture" in one:
        return Image.fromarray(one["picture"])
    with Image.open(GENCAD_DEV / one["file_name"]) as opened:
        return opened.convert("RGB")


def random_rows(seed: int, count: int) -> list[dict[str, Any]]:
    """Random parts as rows with an id, code and a picture (448, 448, 3)."""
    parts = itertools.islice(random_parts(seed), count)
    return [
        {"id": f"{seed}-{number:03}", "code": to_code(program), "picture": draw(drawing)}
        for number, (program, drawing) in enumerate(parts)
    ]


def solid(one: dict[str, Any], solids: dict[str, Solid]) -> Solid:
    if one["id"] not in solids:
        (part,) = run_many([one["code"]])
        if isinstance(part, Failure):
            raise InputError(f"{one['id']} does not run: {part}")
        solids[one["id"]] = solid_of(part)
    return solids[one["id"]]


# ---- Answers, kept as they come


@dataclass(frozen=True)
class Job:
    """The pictures of a part for a process of its own, and the model's guesses for them."""

    files: tuple[Path, ...]
    codes: tuple[str, ...]
    effort: str
    by_processor: bool = False


def answered(job: Job) -> dict[str, Any]:
    """In a worker process: what the product answers."""
    begun = time.process_time()
    if job.by_processor:
        clock: Any = SimpleNamespace(monotonic=time.process_time)
        for module in (stopping, pipeline, choosing):
            module.time = clock  # type: ignore[attr-defined]
    try:
        images = [Image.open(file) for file in job.files]
        answer = verify(images if len(images) > 1 else images[0], job.codes, job.effort)
    except Exception as error:  # scored as a failure; the others go on
        return {"code": "", "confidence": 0.0, "error": f"{type(error).__name__}: {error}"}
    return {
        "code": answer.code or "",
        "likeness": answer.likeness,
        "confidence": answer.confidence,
        "source": answer.source,
        "seconds": round(answer.seconds, 2),
        "cpu": round(time.process_time() - begun, 2),
    }


def answers_to(
    cases: list[Case],
    kept: Path,
    effort: str,
    model: tuple[Any, Any] | None,
    workers: int,
    by_processor: bool,
) -> list[dict[str, Any]]:
    """The answers to all cases; those that are kept are not made again."""
    done = read_kept(kept)
    todo = [case for case in cases if case.id not in done]
    codes: list[list[str]] = [[] for _ in todo]
    if model is not None and todo:
        from image2cad.vlm.generation import propose

        images = [Image.open(case.files[0]).convert("RGB") for case in todo]
        codes = propose(*model, images, effort)
    jobs = [
        Job(case.files, tuple(mine), effort, by_processor)
        for case, mine in zip(todo, codes, strict=True)
    ]
    for index, answer in each(answered, jobs, workers, SPARE_SECONDS + LONGEST, warm_up):
        if isinstance(answer, Lost):
            answer = {"code": "", "confidence": 0.0, "error": answer.reason}
        done[todo[index].id] = answer
        with open(kept, "a", encoding="utf-8") as file:
            file.write(json.dumps({"id": todo[index].id, **answer}) + "\n")
    return [done[case.id] for case in cases]


# ---- Figures


def figures(row: str, cases: list[Case], answers: list[dict[str, Any]]) -> dict[str, Any]:
    """What the table says of one row, and the score of every part."""
    result = compute(
        predictions=[answer["code"] for answer in answers],
        references=[case.reference for case in cases],
        ids=[case.id for case in cases],
        extras=row == "benchcad",
    )
    ious = np.array([one["iou_best"] for one in result["rows"]])
    sure = np.array([answer["confidence"] >= SURE for answer in answers])
    good = ious > GOOD
    seconds = [answer["seconds"] for answer in answers if "seconds" in answer]
    cpu = [answer["cpu"] for answer in answers if "cpu" in answer]
    found = {
        "row": row,
        "n": len(cases),
        "iou_best": result["iou_best"],
        "vsr": result["vsr"]["mean"],
        "seconds": float(np.mean(seconds)) if seconds else 0.0,
        "longest": max(seconds, default=0.0),
        "cpu": float(np.mean(cpu)) if cpu else 0.0,
        "sure": int(sure.sum()),
        "sure_and_good": int((sure & good).sum()),
        "good": int(good.sum()),
        "errors": sum("error" in answer for answer in answers),
        "ious": {case.id: float(iou) for case, iou in zip(cases, ious, strict=True)},
    }
    if row == "benchcad":
        unturned = np.array([one.get("iou_unit_box", 0.0) for one in result["rows"]])
        boxes = np.array([_plain_box(str(case.reference)) for case in cases])
        found["unturned"] = bootstrap_interval(unturned)
        found["plain_box"] = bootstrap_interval(boxes)
        found["below_the_box"] = int((unturned < boxes - 0.02).sum())
    return found


def _plain_box(code: str) -> float:
    """IoU without rotation of a part and the box around it."""
    (part,) = run_many([code])
    if not isinstance(part, Part):
        return 0.0
    sides = np.ptp(part.bounding_box, axis=0).tolist()
    (box,) = run_many([f"import cadquery as cq\nresult = cq.Workplane().box{tuple(sides)}"])
    return iou_unit_box(part, box) if isinstance(box, Part) else 0.0


HEADER = (
    "| row | parts | IoU_best | valid | s, longest | CPU s | sure | of these good | good in all |\n"
    "| --- | --: | --: | --: | --: | --: | --: | --: | --: |"
)


def line_of(one: dict[str, Any]) -> str:
    score = one["iou_best"]
    interval = f"{score['mean']:.3f} ({score['low']:.3f}-{score['high']:.3f})"
    return (
        f"| {one['row']} | {one['n']} | {interval} "
        f"| {one['vsr']:.2f} | {one['seconds']:.1f}, {one['longest']:.1f} | {one['cpu']:.1f} "
        f"| {one['sure']} | {one['sure_and_good']} | {one['good']} |"
    )


GROUPS = {"one": (1, 1), "two": (2, 2), "three and more": (3, 1000)}  # extrusions


def by_extrusions(table: list[dict[str, Any]], rows: list[dict[str, Any]]) -> list[str]:
    """A table of IoU_best by how many extrusions the parts' own programs have."""
    count = {one["id"]: one["code"].count(".extrude(") for one in rows}
    shown = [one for one in table if set(one["ious"]) <= set(count)]
    if not shown:
        return []
    groups = {
        name: [part for part in shown[0]["ious"] if low <= count[part] <= high]
        for name, (low, high) in GROUPS.items()
    }
    heads = [f"{name} ({len(parts)})" for name, parts in groups.items()]
    lines = [f"| extrusions (parts) | {' | '.join(heads)} |", f"| --- |{' --: |' * len(heads)}"]
    for one in shown:
        means = [
            float(np.mean([one["ious"][part] for part in parts])) if parts else 0.0
            for parts in groups.values()
        ]
        lines.append(f"| {one['row']} | {' | '.join(f'{mean:.3f}' for mean in means)} |")
    return lines


def main() -> int:
    """Draw, answer, score, row by row."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("runs/styles"))
    parser.add_argument("--rows", nargs="+", choices=ROWS, help="default: all of the effort")
    parser.add_argument("--effort", choices=list(PARTS), default="low")
    parser.add_argument("--parts", type=int, help="the first by id; default: 60 at low, 24 at high")
    parser.add_argument("--synthetic", type=int, metavar="SEED", help="random parts of this seed")
    parser.add_argument("--plain", action="store_true", help="the parts of plain_parts.py")
    parser.add_argument("--pictures", type=Path, help="where pictures are kept; default: in --out")
    parser.add_argument("--model", default=str(NANO), help="whose guesses are tried; or none")
    parser.add_argument("--workers", type=int, default=2, help="pictures at a time")
    parser.add_argument("--by-processor", action="store_true", help="count its seconds only")
    parser.add_argument("--draw-only", action="store_true", help="draw the pictures and stop")
    parser.add_argument("--resume", action="store_true")
    options = parser.parse_args()
    if options.plain and options.synthetic is not None:
        raise InputError("--plain and --synthetic are two kinds of parts: give one")
    own_parts = options.plain or options.synthetic is not None
    if not own_parts and not (GENCAD_DEV / METADATA).is_file():
        print(f"{GENCAD_DEV} is not there: nothing to measure")
        return 0
    if options.workers < 1 or (options.parts is not None and options.parts < 1):
        raise InputError("--workers and --parts must be at least 1")
    wanted = options.rows or (
        [row for row in ROWS if row not in NOT_ASKED_FOR] if options.effort == "low" else HIGH_ROWS
    )
    count = options.parts or PARTS[options.effort]
    if options.synthetic is not None:
        wanted = [row for row in wanted if row != "foreign"]
        rows = random_rows(options.synthetic, count)
    elif options.plain:
        wanted = [row for row in wanted if row in LOOKS or row in SEVERAL]
        rows = [{"id": name, "code": code} for name, code in PLAIN_PARTS.items()][:count]
    else:
        rows = sorted(read_programs(GENCAD_DEV), key=lambda row: row["id"])[:count]
    plan = {"effort": options.effort, "parts": len(rows), "model": options.model}
    if options.by_processor:
        plan["by_processor"] = True
    if options.synthetic is not None:
        plan["synthetic"] = options.synthetic
    if options.plain:
        plan["plain"] = True
    prepare_run(options.out, plan, options.resume)
    pictures = options.pictures or options.out / "pictures"
    solids: dict[str, Solid] = {}
    model = None
    if options.model != "none" and not options.draw_only:
        from image2cad.vlm.loading import load_model, quiet

        quiet()
        model = load_model(options.model)
    print(f"{os.cpu_count()} cores, {options.workers} pictures at a time, {options.effort} effort")
    print(HEADER, flush=True)
    table = []
    for row in wanted:
        cases = cases_of(row, pictures, rows, solids)
        if options.draw_only or not cases:
            continue
        kept = options.out / f"{row.replace(' ', '-').replace(':', '-')}.jsonl"
        answers = answers_to(
            cases, kept, options.effort, model, options.workers, options.by_processor
        )
        one = figures(row, cases, answers)
        table.append(one)
        print(line_of(one), flush=True)
        if row == "benchcad":
            unturned, box = one["unturned"], one["plain_box"]
            print(
                f"benchcad without rotation: {unturned['mean']:.3f}; the plain box: "
                f"{box['mean']:.3f}; {one['below_the_box']} answers are .02 and more below it"
            )
    if not options.draw_only:
        if not options.plain:  # boxes and holes are no extrusions there
            print("\n".join(["", *by_extrusions(table, rows)]))
        finish_run(options.out, {**plan, "rows": table})
    return 0


if __name__ == "__main__":
    run_cli(main)
