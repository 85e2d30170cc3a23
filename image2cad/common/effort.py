"""What an effort of none, low or high means, once for all rooms.

effort = effort_named("low")
effort.seconds, effort.samples, effort.text
"""

from __future__ import annotations

from dataclasses import dataclass

from image2cad.common.errors import InputError


@dataclass(frozen=True)
class Effort:
    """How much an answer to one picture may cost.

    seconds: that verification fits and grows, on one core. samples: programs of the model beside
    its greedy one. neighbours: of the picture in the library. tried: candidates that are fitted
    coarsely, of which `refined` are fitted finely. finalists: candidates that are polished and may
    run, beside codes of the model that the parser does not read. deadline: seconds after which a
    server gives the picture up. text: for users.
    """

    seconds: float
    samples: int
    neighbours: int
    tried: int
    refined: int
    finalists: int
    deadline: float
    text: str


EFFORTS = {
    "none": Effort(0.0, 0, 0, 0, 0, 0, 60.0, "none: the model's first program"),
    "low": Effort(7.5, 7, 16, 10, 3, 4, 90.0, "low, 8 s at most"),
    "high": Effort(50.0, 23, 48, 40, 6, 8, 240.0, "high, 50 s at most"),
}


SAMPLING_TEMPERATURE = 0.8  # of the programs beside the greedy one


def effort_named(name: str) -> Effort:
    """The effort of that name. Raises InputError for another."""
    if name not in EFFORTS:
        raise InputError(f"effort is one of {', '.join(EFFORTS)}, not {name!r}")
    return EFFORTS[name]
