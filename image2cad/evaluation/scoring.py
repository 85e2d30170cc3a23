"""A model and samples in; predictions, scores and a report out.

    python -m image2cad.evaluation --model models/nano --data bundled --split test --out runs/eval
    python -m image2cad.evaluation --model models/nano --data my_parts --effort high --out runs/high
    python -m image2cad.evaluation ... --out runs/high --resume     # after an interruption

Writes to the output folder: predictions.jsonl (one row a sample), metrics.json
(VSR and IoU_best with intervals), report.html (input, rendering, code, score) and
sheet.png (the first six).
A program that fails stays in the mean with IoU 0. `--effort low` or `high` checks and
corrects the model's guesses against the picture (verification/pipeline.py). Left out: training.
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from image2cad.cad import parse
from image2cad.data import Sample
from image2cad.evaluation.report import interval_text, write_report, write_sheet
from metrics import ALIGNMENTS, Failure, Part, bootstrap_interval, compute, run_many

PUBLISHED_ROWS = 100  # of hundred_subset
TOTALS_BEFORE = ("n", "vsr", "iou_best", "iou_best_valid", "other_picture", "failures")


@dataclass(frozen=True)
class Evaluation:
    """Scores of one list of programs: `rows` and `parts` in the samples' order, and `totals`."""

    rows: list[dict[str, Any]]
    parts: list[Part | Failure]
    totals: dict[str, Any]


def score_codes(
    codes: Sequence[str], samples: Sequence[Sample], alignment: str = "best", progress: bool = True
) -> Evaluation:
    """Run every program in isolation and score it against its sample's program.

    "other_picture" is the mean IoU against the next sample's program: what the same
    answers are worth for the wrong picture, the floor to read IoU_best by.
    """
    parts = run_many(list(codes), progress=progress)
    references = [sample.cadquery for sample in samples]
    ids = [sample.id for sample in samples]
    result = compute(
        predictions=parts, references=references, ids=ids, alignment=alignment, progress=progress
    )
    shifted = references[1:] + references[:1]
    other = bootstrap_interval(np.array([]))
    if len(samples) > 1:
        wrong = compute(predictions=parts, references=shifted, ids=ids, alignment=alignment)
        other = wrong["iou_best"]
    rows = [{**row, "code": code} for row, code in zip(result["rows"], codes, strict=True)]
    totals = {key: value for key, value in result.items() if key != "rows"}
    return Evaluation(rows, parts, {**totals, "other_picture": other})


def evaluate(
    model: Any,
    processor: Any,
    samples: Sequence[Sample],
    batch_size: int = 16,
    max_new_tokens: int = 1024,
    alignment: str = "best",
    progress: bool = True,
) -> Evaluation:
    """Generate a program for every sample's picture, greedily, and score them."""
    from image2cad.vlm import generate_codes

    started = time.perf_counter()
    images = [sample.pictures for sample in samples]
    codes = generate_codes(model, processor, images, batch_size, max_new_tokens, progress=progress)
    seconds = (time.perf_counter() - started) / max(len(samples), 1)
    result = score_codes(codes, samples, alignment, progress)
    totals = {**result.totals, "seconds_a_picture": round(seconds, 3)}
    return Evaluation(result.rows, result.parts, totals)


def gain(before: Evaluation, after: Evaluation) -> dict[str, float | None]:
    """Mean change of IoU_best with a 95 % bootstrap interval over the paired samples."""
    pairs = zip(before.rows, after.rows, strict=True)
    return bootstrap_interval(np.array([b["iou_best"] - a["iou_best"] for a, b in pairs]))


def summarise(
    after: Evaluation, before: Evaluation | None = None, notes: dict[str, Any] | None = None
) -> dict[str, Any]:
    """What metrics.json holds: the totals, those before fine-tuning, the gain, and `notes`."""
    summary: dict[str, Any] = dict(after.totals)
    if before is not None:
        summary["before"] = {key: before.totals[key] for key in TOTALS_BEFORE}
        summary["gain"] = gain(before, after)
    summary.update(notes or {})
    return summary


def write_results(
    folder: Path,
    samples: Sequence[Sample],
    summary: dict[str, Any],
    after: Evaluation,
    before: Evaluation | None = None,
    title: str = "image2cad",
) -> None:
    """Write predictions.jsonl, report.html and sheet.png."""
    folder.mkdir(parents=True, exist_ok=True)
    lines = "".join(json.dumps(row) + "\n" for row in after.rows)
    (folder / "predictions.jsonl").write_text(lines, encoding="utf-8")
    write_report(
        folder / "report.html",
        title,
        samples,
        summary,
        after.rows,
        after.parts,
        before.rows if before else None,
    )
    write_sheet(folder / "sheet.png", samples, after.parts)


def summary_text(summary: dict[str, Any]) -> str:
    """The totals as a small table for the terminal."""
    columns = [("", summary)]
    if "before" in summary:
        columns = [("before", summary["before"]), ("after", summary)]
    names = {
        "vsr": "VSR",
        "iou_best": "IoU_best, failures 0",
        "iou_best_valid": "IoU_best, valid only",
        "other_picture": "IoU_best, wrong picture",
    }
    lines = [f"{'':26}" + "".join(f"{head:>24}" for head, _ in columns)]
    for key, name in names.items():
        lines.append(f"{name:26}" + "".join(f"{interval_text(one[key]):>24}" for _, one in columns))
    if "gain" in summary:
        lines.append(f"{'gain in IoU_best':26}{'':24}{interval_text(summary['gain'], '+'):>24}")
    lines.append(
        f"{summary['n']} samples, 95 % bootstrap intervals, alignment {summary['alignment']!r}, "
        f"against the {summary['reference']}"
    )
    if published := summary.get("published"):
        lines.append(
            "these are the hundred that papers score on; to compare, score predictions.jsonl with "
            "score_predictions.py --alignment published"
            if published == summary["n"] == PUBLISHED_ROWS
            else f"{published} of the hundred that papers score on: this is no published figure"
        )
    return "\n".join(lines)


# ---- The same answers scored in every way that papers use, and by kind of part
MANY_EXTRUSIONS = 4  # from which on parts share a row


def step_files(data: str, samples: Sequence[Sample]) -> list[Path] | None:
    """steps/<id>.step of an image folder, or None unless every sample has one."""
    files = [Path(data) / "steps" / f"{sample.id}.step" for sample in samples]
    return files if files and all(file.is_file() for file in files) else None


def breakdown(
    parts: Sequence[Part | Failure], samples: Sequence[Sample], steps: Sequence[Path] | None
) -> dict[str, Any]:
    """{"alignments": {reference: {alignment: interval}}, "extrusions": {count: {"n", ...}}}."""
    references: dict[str, list[Any]] = {"code": [sample.cadquery for sample in samples]}
    if steps is not None:
        references["step"] = list(steps)
    alignments: dict[str, dict[str, Any]] = {}
    by_count: dict[str, dict[str, Any]] = {}
    counts = [_extrusions(sample.cadquery) for sample in samples]
    for kind, given in references.items():
        alignments[kind] = {}
        for alignment in ALIGNMENTS:
            result = compute(predictions=list(parts), references=given, alignment=alignment)
            alignments[kind][alignment] = result["iou_best"]
            if (kind, alignment) == ("code", "best"):
                scores = np.array([row["iou_best"] for row in result["rows"]])
                for count in sorted(set(counts)):
                    mine = scores[[one == count for one in counts]]
                    by_count[count] = {"n": len(mine), "iou_best": bootstrap_interval(mine)}
    return {"alignments": alignments, "extrusions": by_count}


def _extrusions(code: str) -> str:
    program = parse(code)
    if not program:
        return "not read"
    return str(len(program)) if len(program) < MANY_EXTRUSIONS else f"{MANY_EXTRUSIONS} or more"


def breakdown_text(tables: dict[str, Any]) -> str:
    """The tables for the terminal."""
    lines = [f"{'IoU_best against the':26}" + "".join(f"{name:>24}" for name in ALIGNMENTS)]
    for kind, row in tables["alignments"].items():
        cells = "".join(f"{interval_text(row[name]):>24}" for name in ALIGNMENTS)
        lines.append(f"{'reference ' + kind:26}{cells}")
    lines.append("by extrusions of the reference program, 'best', against the code:")
    for count, row in tables["extrusions"].items():
        lines.append(f"  {count:10}{row['n']:>4} parts{interval_text(row['iou_best']):>32}")
    return "\n".join(lines)
