"""A model and samples to scores and a report."""

from typing import TYPE_CHECKING

from image2cad.common.lazy import load

if TYPE_CHECKING:
    from image2cad.evaluation.report import write_sheet
    from image2cad.evaluation.scoring import evaluate, summarise, summary_text, write_results
    from image2cad.evaluation.verified import evaluate_verified

__all__ = [
    "evaluate", "evaluate_verified", "summarise", "summary_text", "write_results", "write_sheet",
]  # fmt: skip


def __getattr__(name: str) -> object:
    return load(__name__, name)
