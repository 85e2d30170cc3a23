"""Evaluation with verification: a model proposes, pictures decide."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from image2cad.common import read_kept
from image2cad.data import Sample
from image2cad.evaluation.scoring import Evaluation, score_codes
from image2cad.verification import Answer

WRITERS = {
    "model": "the model's program, its numbers fitted to the picture",
    "traced": "the fit, from the picture's own flat faces; the model has no part in it",
    "library": "the library's nearest part, fitted; the model has no part in it",
    "templates": "a template, fitted; the model has no part in it",
}
ANSWERS_FILE = "answers.jsonl"
MOST_TRIED = 8  # other candidates that a row names


def writer_text(answer: Answer, guesses: Sequence[str]) -> str:
    """Who wrote an answer: the model, the fit, or the library. guesses: the model's programs."""
    if answer.code is None:
        return "nobody: no candidate was valid"
    if answer.code in guesses:
        return "the model, as it stands"
    return WRITERS[answer.source]


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
    """`evaluate` with the model's guesses checked and corrected; see verification/pipeline.py.

    Rows gain "likeness" to the picture, "confidence", the "source" of the answer, the "cameras"
    that it was drawn with (verification/viewpoints.py), the "reason" why the picture may be none of
    one part, the seconds that it took ("verified_in"), and what else was "tried" and how it lost.
    Several pictures of a sample are views of one part, and a model that takes one picture at a time
    is shown the first. kept: a file to which answers are appended as they come; those that it
    holds are not made again.
    """
    from image2cad.verification import answer_many
    from image2cad.vlm import propose

    started = time.perf_counter()
    done = read_kept(kept)
    todo = [sample for sample in samples if sample.id not in done]
    images = [sample.pictures for sample in todo]
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
            "cameras": [asdict(one) for one in answer.cameras],
            "reason": answer.reason,
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
