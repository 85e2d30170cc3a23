"""A model and samples in; predictions, scores and a report out.

    python -m image2cad.evaluation --model models/nano --data bundled --split test --out runs/eval
    python -m image2cad.evaluation --model models/nano --data my_parts --effort high --out runs/high
    python -m image2cad.evaluation ... --out runs/high --resume     # after an interruption

Writes to the output folder: predictions.jsonl (one row a sample), metrics.json
(VSR and IoU_best with intervals), report.html (input, rendering, code, score) and
sheet.png (the first six).
A program that fails stays in the mean with IoU 0. `--effort low` or `high` checks and
corrects the model's guesses against the picture (verification.py). Left out: training.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from image2cad.breakdown import breakdown, breakdown_text, step_files
from image2cad.errors import InputError, run_cli
from image2cad.report import interval_text, write_report, write_sheet
from image2cad.runs import finish_run, prepare_run, read_kept
from image2cad.samples import Sample, has_split, load_samples
from image2cad.verification import EFFORTS, SOURCES, Answer
from metrics import Failure, Part, compute, run_many
from metrics.scores import interval

ANSWERS_FILE = "answers.jsonl"
MOST_TRIED = 8  # other candidates that a row names
TOTALS = ("n", "vsr", "iou_best", "iou_best_valid", "other_picture", "failures")


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
    other = interval(np.array([]))
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
    from image2cad.generation import generate_codes

    started = time.perf_counter()
    images = [sample.image for sample in samples]
    codes = generate_codes(model, processor, images, batch_size, max_new_tokens, progress=progress)
    seconds = (time.perf_counter() - started) / max(len(samples), 1)
    result = score_codes(codes, samples, alignment, progress)
    totals = {**result.totals, "seconds_a_picture": round(seconds, 3)}
    return Evaluation(result.rows, result.parts, totals)


def evaluate_verified(
    model: Any,
    processor: Any,
    samples: Sequence[Sample],
    effort: str,
    sources: Sequence[str],
    workers: int | None = None,
    batch_size: int = 16,
    max_new_tokens: int = 1024,
    alignment: str = "best",
    kept: Path | None = None,
) -> Evaluation:
    """`evaluate` with the model's guesses checked and corrected; see verification.py.

    Rows gain "likeness" to the picture, "confidence", the "source" of the answer, the
    seconds that it took ("verified_in"), and what else was "tried" and how it lost. kept: a
    file to which answers are appended as they come; those that it holds are not made again.
    """
    from image2cad.answering import answer_many, propose

    started = time.perf_counter()
    done = read_kept(kept)
    todo = [sample for sample in samples if sample.id not in done]
    images = [sample.image for sample in todo]
    guesses: list[list[str]] = [[] for _ in todo]
    if "model" in sources and todo:
        guesses = propose(model, processor, images, effort, batch_size, max_new_tokens)

    def keep(index: int, answer: Answer) -> None:
        # An answer without a valid candidate is scored as the model's first guess.
        row = {
            "code": answer.code or (guesses[index][0] if guesses[index] else ""),
            "likeness": answer.likeness,
            "confidence": answer.confidence,
            "source": answer.source,
            "verified_in": round(answer.seconds, 2),
            "tried": [
                {"source": one.source, "cost": min(one.cost, 1e9), "fate": one.fate}
                for one in answer.tried[:MOST_TRIED]
            ],
        }
        done[todo[index].id] = row
        lost = answer.code is None and not any(one.source for one in answer.tried)
        if kept is not None and not lost:
            with open(kept, "a", encoding="utf-8") as file:
                file.write(json.dumps({"id": todo[index].id, **row}) + "\n")

    answer_many(images, guesses, effort, sources, workers, keep=keep)
    seconds = (time.perf_counter() - started) / max(len(todo), 1)
    mine = [done[sample.id] for sample in samples]
    result = score_codes([row["code"] for row in mine], samples, alignment)
    rows = [{**row, **answer} for row, answer in zip(result.rows, mine, strict=True)]
    longest = max((row["verified_in"] for row in mine), default=0.0)
    totals = {**result.totals, "effort": effort, "sources": list(sources)}
    timed = {"seconds_a_picture": round(seconds, 3), "longest_seconds": longest}
    return Evaluation(rows, result.parts, {**totals, **timed})


def gain(before: Evaluation, after: Evaluation) -> dict[str, float | None]:
    """Mean change of IoU_best with a 95 % bootstrap interval over the paired samples."""
    pairs = zip(before.rows, after.rows, strict=True)
    return interval(np.array([b["iou_best"] - a["iou_best"] for a, b in pairs]))


def summarise(
    after: Evaluation, before: Evaluation | None = None, notes: dict[str, Any] | None = None
) -> dict[str, Any]:
    """What metrics.json holds: the totals, those before fine-tuning, the gain, and `notes`."""
    summary: dict[str, Any] = dict(after.totals)
    if before is not None:
        summary["before"] = {key: before.totals[key] for key in TOTALS}
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
    return "\n".join(lines)


def main() -> int:
    """Evaluate a model on samples."""
    from image2cad.modeling import load_model, quiet

    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--model", required=True, help="a base or a saved adapter")
    parser.add_argument("--data", default="bundled", help="bundled, a folder, or a hub name")
    parser.add_argument("--split", help="default: test for the bundled set, else train")
    parser.add_argument("--limit", type=int, help="samples at most")
    parser.add_argument(
        "--effort",
        choices=list(EFFORTS),
        default="none",
        help="none: one greedy answer; low, high: verified for about 10 s, 60 s a picture",
    )
    parser.add_argument(
        "--sources",
        nargs="+",
        choices=list(SOURCES),
        default=list(SOURCES),
        help="where candidates come from, with an effort",
    )
    parser.add_argument("--workers", type=int, help="pictures verified at a time")
    parser.add_argument("--alignment", choices=["best", "pca", "published"], default="best")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--max-new-tokens", type=int, default=1024)
    parser.add_argument("--quantize", action="store_true", help="load the base in 4 bits")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--resume", action="store_true", help="go on with an interrupted run")
    arguments = parser.parse_args()
    quiet()
    for name in ("limit", "batch", "max_new_tokens", "workers"):
        if (getattr(arguments, name) or 1) < 1 or getattr(arguments, name) == 0:
            raise InputError(f"--{name.replace('_', '-')} must be at least 1")
    plan = {k: v for k, v in vars(arguments).items() if k != "workers"}
    prepare_run(arguments.out, {**plan, "out": ""}, arguments.resume)
    split = arguments.split or ("test" if has_split(arguments.data, "test") else "train")
    print(f"scoring on {arguments.data}, split {split}")
    samples, rejected = load_samples(arguments.data, split, arguments.limit)
    for row in rejected:
        print(f"left out: {row.id}: {row.reason}")
    model, processor = load_model(arguments.model, arguments.quantize)
    lengths = (arguments.batch, arguments.max_new_tokens, arguments.alignment)
    if arguments.effort == "none":
        result = evaluate(model, processor, samples, *lengths)
    else:
        chosen = (arguments.effort, arguments.sources, arguments.workers)
        kept = arguments.out / ANSWERS_FILE
        result = evaluate_verified(model, processor, samples, *chosen, *lengths, kept)
    tables = breakdown(result.parts, samples, step_files(arguments.data, samples))
    named = {"model": arguments.model, "data": arguments.data, "split": split}
    summary = summarise(result, notes={**named, **tables})
    write_results(arguments.out, samples, summary, result, title=arguments.model)
    finish_run(arguments.out, summary)
    print(summary_text(summary))
    print(breakdown_text(tables))
    print(
        f"{summary['seconds_a_picture']:.2f} s a picture; report: {arguments.out / 'report.html'}"
    )
    return 0


if __name__ == "__main__":
    run_cli(main)
