"""What an effort of none, low or high means, once for all rooms.

effort = effort_named("low")
effort.seconds, effort.samples, effort.text

Seconds are of verification, on one core; a model's proposals come on top.
"""

from __future__ import annotations

from dataclasses import dataclass

from image2cad.common.errors import InputError


@dataclass(frozen=True)
class Effort:
    """How much an answer to one picture may cost.

    seconds: that verification fits and grows with a picture of GenCAD's. samples: programs of the
    model beside its greedy one. neighbours: of the picture in the library. tried: candidates that
    are fitted coarsely, of which `refined` are fitted finely. finalists: candidates that are
    polished and may run, beside codes of the model that the parser does not read. deadline:
    seconds after which a server gives the picture up. strange_factor, several_factor: times
    the seconds that a picture in a style that is not known gets, and several views.
    """

    name: str

    seconds: float
    samples: int
    neighbours: int
    tried: int
    refined: int
    finalists: int
    deadline: float
    strange_factor: float = 1.0
    several_factor: float = 1.0

    @property
    def longest(self) -> float:
        """The seconds for the kind of picture that has most of them."""
        return max(self.strange_factor, self.several_factor) * self.seconds

    @property
    def text(self) -> str:
        """What it means for users, with the seconds of each kind of picture."""
        if not self.seconds:
            return f"{self.name}: the model's first program"
        strange, several = self.strange_factor * self.seconds, self.several_factor * self.seconds
        return (
            f"{self.name}: {self.seconds:.0f} s for a picture of GenCAD's, {strange:.0f} s for "
            f"another, {several:.0f} s for several views"
        )


EFFORTS = {
    one.name: one
    for one in (
        Effort("none", 0.0, 0, 0, 0, 0, 0, 60.0),
        Effort("low", 7.5, 7, 16, 10, 3, 4, 90.0, 1.7, 2.7),
        Effort("high", 50.0, 23, 48, 40, 6, 8, 240.0, 1.1, 1.1),
    )
}


SAMPLING_TEMPERATURE = 0.8  # of the programs beside the greedy one


def effort_named(name: str) -> Effort:
    """The effort of that name. Raises InputError for another."""
    if name not in EFFORTS:
        raise InputError(f"effort is one of {', '.join(EFFORTS)}, not {name!r}")
    return EFFORTS[name]
