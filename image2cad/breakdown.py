"""The same answers scored in every way that papers use, and by kind of part.

    tables = breakdown(parts, samples, steps)       # for metrics.json
    print(breakdown_text(tables))

IoU_best under the three alignments, against the reference programs and, where there are
any, the reference STEP files, which are not the same solids; and by number of extrusions
of the reference program. A failure counts 0. Left out: the choice of a figure to quote.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from image2cad.parsing import parse
from image2cad.report import interval_text
from image2cad.samples import Sample
from metrics import Failure, Part, compute
from metrics.geometry import ALIGNMENTS
from metrics.scores import interval

MANY = 4  # extrusions from which parts share a row


def step_files(data: str, samples: Sequence[Sample]) -> list[Path] | None:
    """steps/<id>.step of an image folder, or None unless every sample has one."""
    files = [Path(data) / "steps" / f"{sample.id}.step" for sample in samples]
    return files if files and all(file.is_file() for file in files) else None


def breakdown(
    parts: Sequence[Part | Failure], samples: Sequence[Sample], steps: Sequence[Path] | None
) -> dict[str, Any]:
    """{"alignments": {reference: {alignment: interval}}, "extrusions": {count: {"n", ...}}}."""
    references: dict[str, list[Any]] = {"code": [sample.cadquery for sample in samples]}
    if steps is not None:
        references["step"] = list(steps)
    alignments: dict[str, dict[str, Any]] = {}
    by_count: dict[str, dict[str, Any]] = {}
    counts = [_extrusions(sample.cadquery) for sample in samples]
    for kind, given in references.items():
        alignments[kind] = {}
        for alignment in ALIGNMENTS:
            result = compute(predictions=list(parts), references=given, alignment=alignment)
            alignments[kind][alignment] = result["iou_best"]
            if (kind, alignment) == ("code", "best"):
                scores = np.array([row["iou_best"] for row in result["rows"]])
                for count in sorted(set(counts)):
                    mine = scores[[one == count for one in counts]]
                    by_count[count] = {"n": len(mine), "iou_best": interval(mine)}
    return {"alignments": alignments, "extrusions": by_count}


def _extrusions(code: str) -> str:
    program = parse(code)
    if program is None:
        return "not read"
    return str(len(program)) if len(program) < MANY else f"{MANY} or more"


def breakdown_text(tables: dict[str, Any]) -> str:
    """The tables for the terminal."""
    lines = [f"{'IoU_best against the':26}" + "".join(f"{name:>24}" for name in ALIGNMENTS)]
    for kind, row in tables["alignments"].items():
        cells = "".join(f"{interval_text(row[name]):>24}" for name in ALIGNMENTS)
        lines.append(f"{'reference ' + kind:26}{cells}")
    lines.append("by extrusions of the reference program, 'best', against the code:")
    for count, row in tables["extrusions"].items():
        lines.append(f"  {count:10}{row['n']:>4} parts{interval_text(row['iou_best']):>32}")
    return "\n".join(lines)
