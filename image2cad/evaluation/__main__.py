"""Score a model on samples from the command line."""

from __future__ import annotations

import argparse
from pathlib import Path

from image2cad.common import EFFORTS, InputError, finish_run, prepare_run, run_cli
from image2cad.data import has_split, load_samples
from image2cad.evaluation.scoring import (
    breakdown,
    breakdown_text,
    evaluate,
    step_files,
    summarise,
    summary_text,
    write_results,
)
from image2cad.evaluation.verified import ANSWERS_FILE, evaluate_verified
from image2cad.verification import SOURCES


def main() -> int:
    """Evaluate a model on samples."""
    from image2cad.vlm import load_model, quiet

    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--model", required=True, help="a base or a saved adapter")
    parser.add_argument("--data", default="bundled", help="bundled, a folder, or a hub name")
    parser.add_argument("--split", help="default: test for the bundled set, else train")
    parser.add_argument("--limit", type=int, help="samples at most")
    parser.add_argument(
        "--effort",
        choices=list(EFFORTS),
        default="none",
        help="; ".join(effort.text for effort in EFFORTS.values()),
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
    parser.add_argument(
        "--load-in-4bit", "--quantize", action="store_true", help="store the base in 4 bits"
    )
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
    model, processor = load_model(arguments.model, arguments.load_in_4bit)
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
