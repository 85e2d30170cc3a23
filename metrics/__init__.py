"""Scores for generated CadQuery code. No torch; works when this folder is copied on its own.

Needs cadquery, numpy, scipy, manifold3d; tqdm for progress bars. README.md says what figures mean.

    >>> import metrics
    >>> reference = "result = cq.Workplane().box(1, 2, 3)"
    >>> got = metrics.compute(
    ...     predictions=["result = cq.Workplane().box(2, 4, 6)", "result = oops"],
    ...     references=[reference, reference],
    ... )
    >>> got["vsr"]["mean"], got["iou_best"]["mean"], got["failures"]
    (0.5, 0.5, {'exception': 1})

Reading order: parts.py, execution.py, warm.py, worker.py, sandbox.py, program.py, measure.py,
tessellation.py, meshes.py, bodies.py, alignment.py, geometry.py, scores.py. Names are loaded on
first use, so `import metrics` is cheap.
"""

from __future__ import annotations

import importlib
from typing import Any

_WHERE = {
    "KINDS": "parts",
    "Failure": "parts",
    "Part": "parts",
    "ProtectionError": "execution",
    "box_error": "geometry",
    "compute": "scores",
    "evaluate_codes": "best_iou",
    "evaluate_syntax_rate": "valid_syntax_rate",
    "evaluate_syntax_rate_simple": "valid_syntax_rate",
    "export_step": "execution",
    "get_iou_best": "best_iou",
    "iou_aligned": "geometry",
    "iou_unit_box": "geometry",
    "measure_file": "execution",
    "run_cadquery": "execution",
    "run_many": "execution",
    "volume_error": "geometry",
}

__all__ = list(_WHERE)  # noqa: PLE0604


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f".{_WHERE[name]}", __name__), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_WHERE])
