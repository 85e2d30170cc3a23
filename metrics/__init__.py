"""Scores for generated CadQuery code. No torch; works when this folder is copied on its own.

    >>> import metrics
    >>> metrics.get_iou_best("result = cq.Workplane().box(1, 2, 3)", "result = oops")
    0.0

Needs cadquery, numpy, scipy, manifold3d. README.md says what figures mean and what to read first.
"""

from typing import TYPE_CHECKING

from .lazy import load

if TYPE_CHECKING:
    from .alignment import ALIGNMENTS
    from .best_iou import evaluate_codes, get_iou_best
    from .execution import ProtectionError, default_workers, export_step, measure_file, run_cadquery
    from .execution import run_many
    from .files import BadInput, read_codes, read_references
    from .geometry import box_error, iou_aligned, iou_unit_box, volume_error
    from .meshes import balanced, solid_manifolds, union, weld
    from .parts import Failure, KINDS, Part
    from .references import BadReference, reference_part
    from .sandbox.tessellation import children, face_mesh
    from .scores import compute, interval
    from .valid_syntax_rate import evaluate_syntax_rate, evaluate_syntax_rate_simple

__all__ = [
    "ALIGNMENTS", "BadInput", "BadReference", "Failure", "KINDS", "Part", "ProtectionError",
    "balanced", "box_error", "children", "compute", "default_workers", "evaluate_codes",
    "evaluate_syntax_rate", "evaluate_syntax_rate_simple", "export_step", "face_mesh",
    "get_iou_best", "interval", "iou_aligned", "iou_unit_box", "measure_file", "read_codes",
    "read_references", "reference_part", "run_cadquery", "run_many", "solid_manifolds", "union",
    "volume_error", "weld",
]  # fmt: skip


def __getattr__(name: str) -> object:
    return load(__name__, name)
