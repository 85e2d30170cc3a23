"""Boxes around the pieces of a program, and which of the pieces touch.

    box = box_of(program)                   # (2, 3) of what is added
    loose_pieces(program)                   # 0 where every piece touches another

Left out: programs with an oblique plane; they have no levels, and count as being in one piece.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from image2cad.cad import Program
from image2cad.common import Array
from image2cad.verification.parameters import levels

TOUCHING_GAP = 0.6  # units between boxes that may touch


def oblique(program: Program) -> bool:
    """Whether a sketch lies on none of the main planes."""
    return any(step.plane.name is None for step in program)


def box_of(steps: Program) -> Array:
    """(2, 3) lowest and highest corner of what is added."""
    added = [step for i, step in enumerate(steps) if i == 0 or step.operation == "union"]
    ends = [
        (faces[0], faces[-1])
        for step in added
        for faces in (levels((step,), axis) for axis in range(3))
    ]
    table = np.array(ends).reshape(len(added), 3, 2)
    return np.stack([table[:, :, 0].min(axis=0), table[:, :, 1].max(axis=0)])


def loose_pieces(program: Program) -> int:
    """Into how many groups, but for one, the added extrusions fall whose boxes touch."""
    if oblique(program):
        return 0
    added = [step for i, step in enumerate(program) if i == 0 or step.operation == "union"]
    return loose_boxes([box_of((step,)) for step in added])


def loose_boxes(boxes: Sequence[Array]) -> int:
    """The same of boxes (2, 3)."""
    reached, groups = set[int](), 0
    for first in range(len(boxes)):
        groups += first not in reached
        waiting = [first]
        while waiting:
            here = waiting.pop()
            reached.add(here)
            for other in set(range(len(boxes))) - reached:
                low = np.maximum(boxes[here][0], boxes[other][0])
                if (np.minimum(boxes[here][1], boxes[other][1]) - low > -TOUCHING_GAP).all():
                    waiting.append(other)
    return max(groups - 1, 0)
