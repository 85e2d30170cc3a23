"""What each piece of generation brings: greedy, best of N, refinement, each source of candidates.

    PYTHONPATH=. python benchmarks/ablation.py [--data FOLDER] [--effort low] [--workers 2]

All rows answer the same pictures in one run: IoU_best against the reference programs
(failures 0) under `published`, VSR, and seconds a picture. The pictures are a folder with
metadata.jsonl in GenCAD-Code's schema; the default lies beside the checkout. With --calibrate
also how often answers of each likeness are good, from which the confidence of
verification/choosing.py is set. 20 pictures took under five minutes on 2 cores.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from scipy.optimize import minimize

from image2cad.common.paths import NANO
from image2cad.data.samples import load_samples
from image2cad.evaluation.report import interval_text
from image2cad.rendering.flattening import as_picture
from image2cad.rendering.raster import draw
from image2cad.rendering.similarity import likeness
from image2cad.verification.choosing import Answer
from image2cad.verification.many import answer_many
from image2cad.verification.pipeline import SOURCES
from image2cad.vlm.generation import propose
from image2cad.vlm.loading import load_model, quiet
from metrics import Failure, Part, compute, run_many
from metrics.scores import bootstrap_interval

ROOT = Path(__file__).resolve().parent.parent
ALIGNMENT = "published"
GOOD = 0.9  # IoU that the confidence of an answer is the chance of


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", type=Path, default=ROOT / "../shared/data/gencad_dev")
    parser.add_argument("--model", default=str(NANO))
    parser.add_argument("--effort", choices=["low", "high"], default="low")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--limit", type=int)
    parser.add_argument("--calibrate", action="store_true")
    options = parser.parse_args()
    if not (options.data / "metadata.jsonl").is_file():
        return print(f"{options.data} is not there; name a folder with --data")
    quiet()
    samples, _ = load_samples(str(options.data), "train", options.limit)
    images = [sample.image for sample in samples]
    references = [sample.cadquery for sample in samples]
    model, processor = load_model(options.model)
    started = time.perf_counter()
    propose(model, processor, images, "none")
    greedy = (time.perf_counter() - started) / len(images)
    started = time.perf_counter()
    codes = propose(model, processor, images, options.effort)
    asked = (time.perf_counter() - started) / len(images)
    many = max(map(len, codes))

    flat = [code for mine in codes for code in mine]
    owners = [i for i, mine in enumerate(codes) for _ in mine]
    parts = run_many(flat)
    truths = [references[i] for i in owners]
    scores = [
        row["iou_best"]
        for row in compute(predictions=parts, references=truths, alignment=ALIGNMENT)["rows"]
    ]
    pictures = [as_picture(image) for image in images]
    seen = [
        likeness(draw(part), pictures[i]) if isinstance(part, Part) else -1.0
        for i, part in zip(owners, parts, strict=True)
    ]
    by_image: list[list[int]] = [[] for _ in images]
    for k, i in enumerate(owners):
        by_image[i].append(k)
    show("| answer | VSR | IoU_best | seconds a picture |\n| --- | --: | --: | --: |")
    for name, chosen, seconds in (
        ("greedy", [mine[0] for mine in by_image], greedy),
        (
            f"best of {many} by picture",
            [max(mine, key=lambda k: seen[k]) for mine in by_image],
            asked,
        ),
        (
            f"best of {many} by IoU (oracle)",
            [max(m, key=scores.__getitem__) for m in by_image],
            asked,
        ),
    ):
        row(name, [parts[k] for k in chosen], [scores[k] for k in chosen], seconds)
    none: list[list[str]] = [[] for _ in images]
    answers: list[Answer] = []
    for name, sources in (
        ("model, refined", ["model"]),
        ("read from the picture (traced) alone", ["traced"]),
        ("nearest pictures (library), refined, alone", ["library"]),
        ("templates, refined, alone", ["templates"]),
        ("all together", list(SOURCES)),
    ):
        started = time.perf_counter()
        guesses = codes if "model" in sources else none
        answers = answer_many(images, guesses, options.effort, sources, options.workers)
        taken = (time.perf_counter() - started) / len(images)
        found = [a.part or Failure("exception", "no valid candidate", None) for a in answers]
        result = compute(predictions=found, references=references, alignment=ALIGNMENT)
        ious = [one["iou_best"] for one in result["rows"]]
        row(name, found, ious, taken + ("model" in sources) * asked)
    if options.calibrate:
        calibrate([answer.likeness for answer in answers], ious)


def row(name: str, parts: Sequence[Any], scores: Sequence[float], seconds: float) -> None:
    """Print one row of the table."""
    vsr = float(np.mean([isinstance(part, Part) for part in parts]))
    cell = interval_text(bootstrap_interval(np.array(scores)))
    show(f"| {name} | {vsr:.3f} | {cell} | {seconds:.1f} |")


def show(text: str) -> None:
    """A row is worth seeing when it is there: the next takes minutes."""
    print(text, flush=True)


def calibrate(seen: Sequence[float], scores: Sequence[float]) -> None:
    """Print centre and width of the logistic curve from likeness to the chance of a good IoU."""
    x, good = np.array(seen), np.array(scores) > GOOD

    def loss(at: np.ndarray) -> float:
        sign = np.where(good, 1.0, -1.0)
        return float(np.logaddexp(0, -sign * (x - at[0]) / np.exp(at[1])).mean())

    centre, width = minimize(loss, [0.9, np.log(0.03)], method="Nelder-Mead").x
    show(
        f"IoU over {GOOD}: {good.mean():.2f} of answers; "
        f"centre {centre:.3f}, width {np.exp(width):.3f}"
    )
    for low, high in ((0, 0.8), (0.8, 0.9), (0.9, 0.96), (0.96, 0.99), (0.99, 1.01)):
        mine = (x >= low) & (x < high)
        if mine.any():
            share = f"{good[mine].mean():.2f} of {mine.sum()}"
            show(f"  likeness {low:.2f} to {min(high, 1):.2f}: {share}")


if __name__ == "__main__":
    main()
