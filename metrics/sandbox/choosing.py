"""Which object of a program is its part: the rule, written once.

The runner applies it to CadQuery's objects (runner.py), a reader of program text to what it read.
It knows nothing of either, so it says only in which order things count. Leaves out: what an object
holds, which the caller's `holds_solid` answers.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

RESULT_NAME = "result"
_Thing = TypeVar("_Thing")


def choose_result(
    shown: Sequence[_Thing],
    exported: Sequence[_Thing],
    assigned: Mapping[str, _Thing],
    holds_solid: Callable[[_Thing], bool],
) -> list[_Thing]:
    """The things that together are the part, those without a solid left out; empty if none has one.

    Everything shown; else the last export; else what `result` holds; else what was assigned last.
    shown, exported: in order of time. assigned: by name, in the order of the last assignment.
    """
    if together := [thing for thing in shown if holds_solid(thing)]:
        return together
    named = [assigned[RESULT_NAME]] if RESULT_NAME in assigned else []
    for thing in (*reversed(exported), *named, *reversed([*assigned.values()])):
        if holds_solid(thing):
            return [thing]
    return []
