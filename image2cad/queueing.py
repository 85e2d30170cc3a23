"""So many at a time, so many waiting, the rest is turned away: a queue for a server's threads.

    queue = Queue(running=2, waiting=16, seconds=60)
    with queue.place(check):                    # raises Busy, or what check() raises
        ...

Left out: priorities, and fairness between clients.
"""

from __future__ import annotations

import math
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from image2cad.processes import TICK

NEW = 0.2  # weight of the newest duration in the mean that Busy is estimated from


class Busy(Exception):
    """No place was free. retry_after: seconds until one is likely to be."""

    def __init__(self, retry_after: int) -> None:
        super().__init__(f"all places are taken; try again in {retry_after} s")
        self.retry_after = retry_after


class Queue:
    """Places for work that takes all of a core, given in the order of arrival."""

    def __init__(self, running: int, waiting: int, seconds: float) -> None:
        """running, waiting: how many at most. seconds: the longest that one may wait."""
        self._most, self._room, self._seconds = running, waiting, seconds
        self._change = threading.Condition()
        self._line: deque[object] = deque()
        self._running = 0
        self._mean = 1.0  # seconds of work

    def load(self) -> tuple[int, int]:
        """How many are running and how many are waiting."""
        with self._change:
            return self._running, len(self._line)

    @contextmanager
    def place(self, check: Callable[[], None] = lambda: None) -> Iterator[None]:
        """A place as long as the block runs.

        check: called several times a second while waiting; what it raises gives up the wait.
        Raises Busy at once where too many wait, and after `seconds`.
        """
        self._enter(check)
        started = time.monotonic()
        try:
            yield
        finally:
            with self._change:
                self._running -= 1
                self._mean += NEW * (time.monotonic() - started - self._mean)
                self._change.notify_all()

    def _enter(self, check: Callable[[], None]) -> None:
        ticket, until = object(), time.monotonic() + self._seconds
        with self._change:
            if self._running + len(self._line) >= self._most + self._room:
                raise self._busy()
            self._line.append(ticket)
            try:
                while self._line[0] is not ticket or self._running >= self._most:
                    check()
                    if time.monotonic() > until:
                        raise self._busy()
                    self._change.wait(TICK)
                self._running += 1
            finally:
                self._line.remove(ticket)
                self._change.notify_all()

    def _busy(self) -> Busy:
        rounds = (self._running + len(self._line)) / max(self._most, 1)
        return Busy(min(max(math.ceil(rounds * self._mean), 1), 600))
