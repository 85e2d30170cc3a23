"""IoU_best, drop-in: the names and arguments that people already import.

>>> from metrics.best_iou import get_iou_best
>>> box = "result = cq.Workplane().box({}, {}, {})"
>>> round(get_iou_best(box.format(1, 2, 3), box.format(6, 2, 4)), 6)  # turned and scaled
1.0
"""

from __future__ import annotations

from typing import Any

from .execution import run_many
from .geometry import check_alignment, iou_aligned
from .parts import Part


def get_iou_best(code1: str, code2: str, alignment: str = "best") -> float:
    """IoU_best of the solids of two programs, in [0, 1]; 0 when either of them fails, or the two
    cannot be compared in COMPARE_TIMEOUT (comparing.py).

    Raises ValueError for an unknown alignment, never for a program.
    """
    check_alignment(alignment)
    first, second = run_many([code1, code2])
    if not (isinstance(first, Part) and isinstance(second, Part)):
        return 0.0
    try:
        return iou_aligned(first, second, alignment)
    except ValueError:  # a mesh that cannot be made solid, or no time left to compare
        return 0.0


def evaluate_codes(
    gt_codes: dict[str, str],
    pred_codes: dict[str, str],
    pitch: float | None = None,
    alignment: str = "best",
    verbose: bool = True,
    **options: Any,
) -> dict[str, Any]:
    """Score predictions against ground truth, matched by id.

    Returns "vsr" and "iou_best" as plain floats over all ids of `gt_codes`, with a missing or
    failed prediction counted 0, and besides everything of scores.compute under other names:
    "iou_best_valid", "failures", "rows". `pitch` was the voxel size of earlier versions; volumes
    are computed from the solids now, so it is accepted and not used. Raises ValueError where
    there is no ground truth or one does not run.
    """
    from .scores import compute

    if not gt_codes:
        raise ValueError("no ground-truth programs given")
    ids = sorted(gt_codes)
    got = compute(
        predictions=[pred_codes.get(key, "") for key in ids],
        references=[gt_codes[key] for key in ids],
        ids=ids,
        alignment=alignment,
        **options,
    )
    if verbose:
        print(f"valid syntax rate: {got['vsr']['mean']:.3f}")
        print(f"mean IoU_best    : {got['iou_best']['mean']:.3f} (failures counted 0)")
    return {
        **got,
        "vsr": got["vsr"]["mean"],
        "iou_best": got["iou_best"]["mean"],
        "iou_best_valid": got["iou_best_valid"]["mean"],
    }
