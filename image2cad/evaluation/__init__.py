"""A model and samples to scores and a report."""

from typing import TYPE_CHECKING

from image2cad.common.lazy import load

if TYPE_CHECKING:
    from image2cad.evaluation.report import loss_curve, write_sheet
    from image2cad.evaluation.scoring import evaluate, summarise, summary_text, write_results
    from image2cad.evaluation.verified import evaluate_verified, writer_text

__all__ = [
    "evaluate", "evaluate_verified", "loss_curve", "summarise", "summary_text", "write_results",
    "write_sheet", "writer_text",
]  # fmt: skip


def __getattr__(name: str) -> object:
    return load(__name__, name)
