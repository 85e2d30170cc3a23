"""Scores a list of predictions against references: rows and totals with intervals.

    >>> import metrics
    >>> box = "result = cq.Workplane().box(1, 2, 3)"
    >>> metrics.compute(predictions=[box], references=[box])["iou_best"]["mean"]
    1.0

Leaves out: matching of predictions to references; they are given in the same order.
"""

from __future__ import annotations

import hashlib
import math
import re
import threading
from collections import Counter, OrderedDict
from collections.abc import Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from .alignment import ALIGNMENTS
from .execution import default_workers, measure_file, run_cadquery
from .geometry import iou_aligned
from .parts import Failure, Part

Prediction = str | Part | Failure
Reference = str | Path | Part
DRAWS = 2000
CACHED = 512

_cache: OrderedDict[str, Part] = OrderedDict()
_cache_lock = threading.Lock()


class BadReference(ValueError):
    """A reference has no usable solid."""


def compute(
    predictions: Sequence[Prediction],
    references: Sequence[Reference],
    ids: Sequence[str] | None = None,
    alignment: str = "best",
    workers: int | None = None,
    progress: bool = False,
    executor: Executor | None = None,
    **limits: Any,
) -> dict[str, Any]:
    """Score predictions against references of the same order.

    predictions: code, or a Part or Failure that is already there. references: code, the path of a
    .step or .stl file, or a Part. executor: any concurrent.futures executor; by default
    `workers` threads, each with its own confined processes. limits: as for run_cadquery.

    Returns "n"; "vsr", "iou_best" (a failure counts 0) and "iou_best_valid" (mean over the valid
    ones, None if there are none), each {"mean", "low", "high"} with a 95 % bootstrap interval;
    "alignment"; "reference", the kind of reference; "failures" {kind: count}; "rows", one a
    sample: "id", "code", "ok", "failure", "iou_best", "seconds". Raises ValueError for lists of
    different length and for a reference without a usable solid, naming its id.
    """
    predictions, references = list(predictions), list(references)
    names = [str(name) for name in ids] if ids is not None else [*map(str, range(len(references)))]
    if not len(predictions) == len(references) == len(names):
        raise ValueError(
            f"{len(predictions)} predictions, {len(references)} references and {len(names)} ids:"
            " the numbers must be equal"
        )
    if alignment not in ALIGNMENTS:
        raise ValueError(f"unknown alignment {alignment!r}; choose one of {', '.join(ALIGNMENTS)}")
    jobs = list(zip(names, predictions, references, strict=True))
    own = None if executor else ThreadPoolExecutor(workers or default_workers())
    try:
        pool = executor or own
        assert pool is not None
        futures = [pool.submit(score_one, *job, alignment, limits) for job in jobs]
        if progress:
            from tqdm import tqdm

            futures = tqdm(futures, desc="scoring", unit="pair")
        rows = [future.result() for future in futures]
    finally:
        if own:
            own.shutdown(cancel_futures=True)
    return {**totals(rows), "alignment": alignment, "reference": _kinds(references), "rows": rows}


def score_one(
    name: str, prediction: Prediction, reference: Reference, alignment: str, limits: dict[str, Any]
) -> dict[str, Any]:
    """The row of one sample. Raises BadReference, naming the sample."""
    try:
        target = reference_part(reference, limits)
    except BadReference as error:
        raise BadReference(f"reference of sample {name!r}: {error}") from None
    code = prediction if isinstance(prediction, str) else None
    got = run_cadquery(prediction, **limits) if isinstance(prediction, str) else prediction
    row = {"id": name, "code": code, "ok": isinstance(got, Part), "failure": None}
    if isinstance(got, Failure):
        return {**row, "failure": str(got), "iou_best": 0.0, "seconds": round(got.seconds, 4)}
    try:
        iou = iou_aligned(target, got, alignment)
    except ValueError as error:  # a mesh that nothing closes
        return {**row, "ok": False, "failure": f"invalid solid: {error}", "iou_best": 0.0,
                "seconds": round(got.seconds, 4)}  # fmt: skip
    return {**row, "iou_best": iou, "seconds": round(got.seconds, 4)}


def reference_part(reference: Reference, limits: dict[str, Any]) -> Part:
    """The Part of a reference, kept for the next use. Raises BadReference."""
    if isinstance(reference, Part):
        return reference
    key = _key(reference)
    with _cache_lock:
        if key in _cache:
            _cache.move_to_end(key)
            return _cache[key]
    if isinstance(reference, Path):
        got = measure_file(reference, **limits)
    else:
        got = run_cadquery(reference, **limits)
    if isinstance(got, Failure):
        raise BadReference(str(got))
    with _cache_lock:
        _cache[key] = got
        while len(_cache) > CACHED:
            _cache.popitem(last=False)
    return got


def _key(reference: str | Path) -> str:
    if isinstance(reference, str):
        return "code:" + hashlib.sha256(reference.encode("utf-8", "surrogatepass")).hexdigest()
    try:
        return "file:" + hashlib.sha256(reference.read_bytes()).hexdigest()
    except OSError as error:
        raise BadReference(f"{reference} cannot be read: {error.strerror}") from None


def _kinds(references: Sequence[Reference]) -> str:
    names = {
        "part" if isinstance(one, Part)
        else "code" if isinstance(one, str)
        else one.suffix.lstrip(".").lower()
        for one in references
    }  # fmt: skip
    return "+".join(sorted(names)) or "none"


def totals(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The totals of compute() from rows alone."""
    ok = np.array([bool(row["ok"]) for row in rows])
    iou = np.array([float(row["iou_best"]) for row in rows])
    failed = [str(row["failure"]) for row in rows if not row["ok"]]
    kinds = Counter(re.split("[,:]", text)[0] for text in failed)
    return {
        "n": len(rows),
        "vsr": interval(ok.astype(float)),
        "iou_best": interval(iou),
        "iou_best_valid": interval(iou[ok]),
        "failures": dict(kinds.most_common()),
    }


def interval(values: np.ndarray, draws: int = DRAWS, seed: int = 0) -> dict[str, float | None]:
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
