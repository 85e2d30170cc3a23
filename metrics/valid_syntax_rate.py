"""Valid syntax rate: the share of programs that run to the end and leave a usable solid.

A failure stays in the denominator and has a reason.

    >>> from metrics.valid_syntax_rate import evaluate_syntax_rate_simple
    >>> evaluate_syntax_rate_simple({"a": "result = cq.Workplane().box(1, 1, 1)", "b": "oops"})
    0.5
"""

from __future__ import annotations

from collections import Counter
from typing import Any

from .execution import run_many
from .parts import Failure


def evaluate_syntax_rate(
    codes: dict[str, str], verbose: bool = True, **options: Any
) -> dict[str, Any]:
    """Run every program and count.

    Returns "vsr" in [0, 1] (0 for no programs), "successful", "total", "failed_ids", and besides
    "failures" ({id: reason}) and "kinds" ({kind: count}). verbose prints the failures and the
    rate. options: as for execution.run_many.
    """
    results = dict(zip(codes, run_many(list(codes.values()), **options), strict=True))
    failures = {key: got for key, got in results.items() if isinstance(got, Failure)}
    total = len(results)
    vsr = (total - len(failures)) / total if total else 0.0
    if verbose:
        for key, failure in failures.items():
            print(f"{key}: {failure}")
        print(f"valid syntax rate: {vsr:.3f} ({total - len(failures)} of {total})")
    return {
        "vsr": vsr,
        "successful": total - len(failures),
        "total": total,
        "failed_ids": list(failures),
        "failures": {key: str(failure) for key, failure in failures.items()},
        "kinds": dict(Counter(failure.kind for failure in failures.values())),
    }


def evaluate_syntax_rate_simple(codes: dict[str, str], **options: Any) -> float:
    """The valid syntax rate alone, in [0, 1]."""
    return evaluate_syntax_rate(codes, verbose=False, **options)["vsr"]
