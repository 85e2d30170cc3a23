"""When work is to stop: at its deadline, or because nobody wants its answer any more.

    stop = Stop.after(60, wanted=lambda: not left.is_set())
    stop.check()                    # raises Late or Cancelled when it is time
    half = stop.within(30)          # the same, but sooner
    while not half.due(): ...       # for work that ends with what it has

One `Stop` goes through all steps of an answer, so that they share the deadline. Left out:
how a process that does not ask is stopped (processes.py), and who says that nobody wants the
answer: the server, when a client leaves (serving/api/clients.py, serving/page/visitors.py).
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, replace


class Late(Exception):
    """The deadline passed, and the work was stopped."""


class Cancelled(Exception):
    """Whoever asked no longer wants an answer, and the work was stopped."""


def _always() -> bool:
    return True


@dataclass(frozen=True)
class Stop:
    """A deadline by `time.monotonic`, and whether the answer is still wanted.

    seconds: that there were until the deadline when it was set, for the message of `Late`.
    """

    deadline: float = math.inf
    wanted: Callable[[], bool] = _always
    seconds: float = math.inf

    @staticmethod
    def after(seconds: float, wanted: Callable[[], bool] = _always) -> Stop:
        """Stop `seconds` from now, or as soon as the answer is not wanted."""
        return Stop(time.monotonic() + seconds, wanted, seconds)

    def within(self, seconds: float) -> Stop:
        """The same, but at most `seconds` from now."""
        sooner = Stop.after(seconds, self.wanted)
        return sooner if sooner.deadline < self.deadline else self

    def share(self, share: float) -> Stop:
        """The same, but after a share of the time that is left."""
        left = max(self.deadline - time.monotonic(), 0.0)
        return self if math.isinf(left) else self.within(share * left)

    def telling(self, tell: Callable[[], None]) -> Stop:
        """The same, which calls `tell` whenever somebody looks and the answer is still wanted."""

        def wanted() -> bool:
            if not self.wanted():
                return False
            tell()
            return True

        return replace(self, wanted=wanted)

    def due(self) -> bool:
        """Whether it is time to stop."""
        return time.monotonic() > self.deadline or not self.wanted()

    def check(self) -> None:
        """Raise Cancelled or Late when it is time to stop."""
        if not self.wanted():
            raise Cancelled("cancelled")
        if time.monotonic() > self.deadline:
            raise Late(f"stopped after {self.seconds:g} s")


NEVER = Stop()
