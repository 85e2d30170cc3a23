"""Scores for generated CadQuery code. No torch; works when this folder is copied on its own.

Needs cadquery, numpy, scipy, manifold3d. README.md says what figures mean, what to read first.
    >>> import metrics
    >>> metrics.get_iou_best("result = cq.Workplane().box(1, 2, 3)", "result = oops")
    0.0
"""

from typing import TYPE_CHECKING
from .lazy import load

if TYPE_CHECKING:
    from .alignment import ALIGNMENTS
    from .best_iou import evaluate_codes, get_iou_best
    from .execution import ProtectionError, export_step, measure_file, run_cadquery, run_many
    from .execution import usable_cores
    from .geometry import box_error, iou_aligned, iou_unit_box, volume_error
    from .inputs import BadInput, read_codes, read_references
    from .meshes import solid_manifolds
    from .parts import Failure, KINDS, Part
    from .references import BadReference, reference_part
    from .sandbox.choosing import choose_result
    from .sandbox.layers import LAYERS
    from .sandbox.tessellation import face_mesh, subshapes
    from .scores import bootstrap_interval, compute
    from .triangles import edges_pair_up, union, weld
    from .valid_syntax_rate import evaluate_syntax_rate, evaluate_syntax_rate_simple

__all__ = [
    "ALIGNMENTS", "BadInput", "BadReference", "Failure", "KINDS", "LAYERS", "Part",
    "ProtectionError", "bootstrap_interval", "box_error", "choose_result", "compute",
    "edges_pair_up", "evaluate_codes", "evaluate_syntax_rate", "evaluate_syntax_rate_simple",
    "export_step", "face_mesh", "get_iou_best", "iou_aligned", "iou_unit_box", "measure_file",
    "read_codes", "read_references", "reference_part", "run_cadquery", "run_many",
    "solid_manifolds", "subshapes", "union", "usable_cores", "volume_error", "weld",
]  # fmt: skip


def __getattr__(name: str) -> object:
    return load(__name__, name)
