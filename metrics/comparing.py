"""Pairs of parts that take long to compare: in a confined child, by a deadline.

A boolean of two combs has as many pieces as the one has teeth times those of the other: 600 teeth
each take manifold3d a minute and 3 GB, and it can neither be asked to stop nor let another thread
run meanwhile. So pairs of many triangles, and those whose first booleans are slow, are compared in
a child, which can be killed and may crash. All others are compared at once (geometry.py).
"""

from __future__ import annotations

from dataclasses import replace

from . import wire
from .execution import compare_in_child
from .parts import Failure, Part, part_from_message, part_to_bytes

COMPARE_TIMEOUT = 60.0  # CPU seconds
PATIENCE = 2.0  # CPU seconds before a comparison that was begun at once is left to a child
MOST_TRIANGLE_PAIRS = 20_000_000  # triangles of one part times those of the other; more take long


class NotCompared(ValueError):
    """Two parts were not compared. `failure` has the kind, such as "timeout", and the reason."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(str(failure))
        self.failure = failure


def may_take_long(a: Part, b: Part) -> bool:
    """Whether a boolean of the two may take longer than some seconds."""
    return len(a.triangles) * len(b.triangles) > MOST_TRIANGLE_PAIRS


def compare_apart(a: Part, b: Part, how: str) -> float:
    """`geometry.compare_here` in a child, which answers by `compare_sent`. Raises NotCompared."""
    first, second = (part_to_bytes(replace(part, brep=b"")) for part in (a, b))
    if len(first) + len(second) > wire.MAX_BODY:
        most = f"{wire.MAX_BODY >> 20} MB are allowed"
        raise NotCompared(Failure("too large", f"the meshes are too large to compare: {most}"))
    job = wire.pack({"how": how, "first": len(first)}, first + second)
    got = compare_in_child(job, COMPARE_TIMEOUT)
    if isinstance(got, Failure):
        raise NotCompared(got)
    return got


def read_pair(job: bytes) -> tuple[Part, Part, str]:
    """What `compare_apart` sends: two parts and how to compare them. Raises wire.WireError."""
    header, body = wire.unpack(job)
    cut = header["first"]
    a, b = (part_from_message(*wire.unpack(message)) for message in (body[:cut], body[cut:]))
    return a, b, header["how"]
