"""Scores a list of predictions against references: rows and totals with intervals.

    >>> import metrics
    >>> box = "result = cq.Workplane().box(1, 2, 3)"
    >>> metrics.compute(predictions=[box], references=[box])["iou_best"]["mean"]
    1.0

Leaves out: matching of predictions to references; they are given in the same order.
"""

from __future__ import annotations

import math
import re
from collections import Counter, deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from .chamfer_distance import chamfer_distance
from .comparing import NotCompared
from .execution import measure_file, run_cadquery, usable_cores
from .geometry import box_error, check_alignment, iou_aligned, iou_unit_box, volume_error
from .normalised import normalise
from .parts import ORIGINS, Failure, Part
from .progress import progress_bar
from .references import (
    BadReference,
    Reference,
    code_or_file,
    file_suffix,
    reference_kinds,
    reference_part,
)

Prediction = str | Path | Part | Failure | None
Pair = tuple[str, Prediction, Reference]  # its id comes first
BOOTSTRAP_DRAWS = 2000
MOST_IN_FLIGHT = 2000  # samples handed to an executor at a time


def compute(
    predictions: Sequence[Prediction],
    references: Sequence[Reference],
    ids: Sequence[str] | None = None,
    alignment: str = "best",
    workers: int | None = None,
    progress: bool = False,
    executor: Executor | None = None,
    extras: bool = False,
    cache: str | Path | None = None,
    **limits: Any,
) -> dict[str, Any]:
    """Score predictions against references of the same order.

    predictions: code, the path of a .step, .stl, .3mf or .obj file, a Part or Failure that is
    already there, or None, which counts as a failure. Texts are paths if all of them look like
    one, else all are code, since a model may have written it; a Path is always one. references:
    code, such a path, or a Part; each is executed once. executor: any concurrent.futures executor,
    such as `dask.distributed.Client().get_executor()`; by default `workers` threads, each with its
    own confined processes. cache: a folder that keeps measured references between runs. limits:
    as for run_cadquery.

    Returns "n"; "vsr", "iou_best" (a failure counts 0) and "iou_best_valid" (mean over the valid
    ones, None if there are none), each {"mean", "low", "high"} with a 95 % bootstrap interval;
    "alignment"; "reference", the kind of reference; "failures" {kind: count}; "rows", one a
    sample: "id", "code", "ok", "failure", "iou_best", "seconds", and "notes" where a part needed
    a repair. extras adds to each valid row "iou_unit_box", "chamfer", "volume_error",
    "box_error", "solids" and "valid". Raises ValueError for lists of different length and for a
    reference without a usable solid, naming its id.
    """
    pairs = pair_up(_with_paths(predictions), references, ids)
    options = {"alignment": alignment, "extras": extras, "limits": limits}
    rows = score_rows(pairs, options, workers, executor, cache)
    shown = progress_bar(rows, total=len(pairs), desc="scoring", unit="pair") if progress else rows
    done = list(shown)
    return {
        **totals(done),
        "alignment": alignment,
        "reference": reference_kinds([reference for _, _, reference in pairs]),
        "rows": done,
    }


def _with_paths(predictions: Sequence[Prediction]) -> list[Prediction]:
    """The predictions, with a Path for each text, if every text among them is one.

    Among programs a text that looks like a path is what a model wrote, and no file is read for it.
    """
    if not all(file_suffix(one) for one in predictions if isinstance(one, str)):
        return list(predictions)
    return [Path(one.strip()) if isinstance(one, str) else one for one in predictions]


def pair_up(
    predictions: Sequence[Prediction], references: Sequence[Reference], ids: Sequence[str] | None
) -> list[Pair]:
    """(id, prediction, reference) of each sample. Raises ValueError if the lengths differ."""
    names = list(map(str, ids if ids is not None else range(len(references))))
    if not len(predictions) == len(references) == len(names):
        raise ValueError(
            f"{len(predictions)} predictions, {len(references)} references and {len(names)} ids:"
            " the numbers must be equal"
        )
    return list(zip(names, predictions, references, strict=True))


def score_rows(
    pairs: Iterable[Pair],
    options: dict[str, Any],
    workers: int | None = None,
    executor: Executor | None = None,
    cache: str | Path | None = None,
) -> Iterator[dict[str, Any]]:
    """The rows of `pairs` in their order, each as soon as it and those before it are done."""
    check_alignment(options["alignment"])
    folder = str(Path(cache).resolve()) if cache else None
    own = None if executor else ThreadPoolExecutor(workers or usable_cores())
    pool = executor or own
    assert pool is not None
    waiting: deque[Future[dict[str, Any]]] = deque()
    try:
        for pair in pairs:
            if len(waiting) >= MOST_IN_FLIGHT:
                yield waiting.popleft().result()
            waiting.append(pool.submit(score_one, *pair, folder, **options))
        while waiting:
            yield waiting.popleft().result()
    finally:
        for future in waiting:
            future.cancel()
        if own:
            own.shutdown()


def score_one(
    name: str,
    prediction: Prediction,
    reference: Reference,
    cache: str | None,
    alignment: str,
    extras: bool,
    limits: dict[str, Any],
) -> dict[str, Any]:
    """The row of one sample. Raises BadReference, naming the sample."""
    try:
        target = reference_part(reference, limits, cache)
        normalise(target)
    except ValueError as error:
        raise BadReference(f"reference of sample {name!r}: {error}") from None
    got = _built(prediction, limits)
    row: dict[str, Any] = {
        "id": name,
        "code": shown(prediction),
        "ok": False,
        "failure": None,
        "iou_best": 0.0,
        "seconds": round(got.seconds, 4),
    }
    if isinstance(got, Failure):
        return {**row, "failure": str(got)}
    try:
        iou = iou_aligned(target, got, alignment)
    except NotCompared as error:
        return {**row, "failure": str(error)}
    except ValueError as error:  # a mesh that nothing closes
        return {**row, "failure": f"invalid solid: {error}"}
    row |= {"ok": True, "iou_best": iou}
    notes = [*got.notes, *normalise(got).notes]
    notes += [f"reference: {note}" for note in (*target.notes, *normalise(target).notes)
              if note not in ORIGINS.values()]  # fmt: skip
    if notes:
        row["notes"] = notes
    if extras:
        row |= {
            "iou_unit_box": iou_unit_box(target, got),
            "chamfer": chamfer_distance(target, got),
            "volume_error": volume_error(target, got),
            "box_error": box_error(target, got),
            "solids": got.solids,
            "valid": got.valid,
        }
    return row


def shown(prediction: Prediction) -> str | None:
    """What a row says of a prediction: its code, or the path of its file."""
    return str(prediction) if isinstance(prediction, str | Path) else None


def _built(prediction: Prediction, limits: dict[str, Any]) -> Part | Failure:
    if isinstance(prediction, Part | Failure):
        return prediction
    if prediction is None:
        return Failure("no solid", "there is no prediction")
    if isinstance(prediction, str):
        return run_cadquery(prediction, **limits)
    try:
        given = code_or_file(prediction)
        if isinstance(given, Path):
            return measure_file(given, **limits)
    except (OSError, ValueError) as error:
        return Failure("no solid", f"the file cannot be read: {error}")
    return run_cadquery(given, **limits)


def totals(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The totals of compute() from rows alone."""
    ok = np.array([bool(row["ok"]) for row in rows])
    iou = np.array([float(row["iou_best"]) for row in rows])
    failed = [str(row["failure"]) for row in rows if not row["ok"]]
    reasons = Counter(re.split("[,:]", text)[0] for text in failed)
    return {
        "n": len(rows),
        "vsr": bootstrap_interval(ok.astype(float)),
        "iou_best": bootstrap_interval(iou),
        "iou_best_valid": bootstrap_interval(iou[ok]) if len(rows) else bootstrap_interval(iou),
        "failures": dict(reasons.most_common()),
    }


def bootstrap_interval(
    values: np.ndarray, draws: int = BOOTSTRAP_DRAWS, seed: int = 0
) -> dict[str, float | None]:
    """Mean and 95 % percentile bootstrap interval of (n,) values; None for all if n is 0."""
    if not len(values):
        return {"mean": None, "low": None, "high": None}
    random = np.random.default_rng(seed)
    means = np.empty(draws)
    step = max(1, 4_000_000 // len(values))
    for start in range(0, draws, step):
        stop = min(start + step, draws)
        picks = random.integers(0, len(values), (stop - start, len(values)))
        means[start:stop] = values[picks].mean(1)
    low, high = np.percentile(means, [2.5, 97.5])
    mean = math.fsum(values) / len(values)
    return {"mean": mean, "low": float(low), "high": float(high)}
