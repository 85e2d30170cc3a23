"""When work is to stop: at its deadline, or because nobody wants its answer any more.

    check = stop_check(cancelled, seconds=60)       # cancelled: () -> bool, or None
    check()                                         # raises Cancelled or Late when it is time

One check goes through all steps of a request, so that they share the deadline. Left out: how a
step is stopped (processes.py), and who says that nobody wants it (leaving.py, asking.py).
"""

from __future__ import annotations

import time
from collections.abc import Callable

Cancel = Callable[[], bool] | None


class Late(Exception):
    """The deadline passed, and the work was stopped."""


class Cancelled(Exception):
    """Whoever asked no longer wants an answer, and the work was stopped."""


def stop_check(cancelled: Cancel, seconds: float = float("inf")) -> Callable[[], None]:
    """A function that raises Cancelled or Late when it is time to stop."""
    end = time.monotonic() + seconds

    def check() -> None:
        if cancelled is not None and cancelled():
            raise Cancelled("cancelled")
        if time.monotonic() > end:
            raise Late(f"stopped after {seconds:g} s")

    return check
