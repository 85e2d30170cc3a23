"""When work is to stop: at its deadline, or because nobody wants its answer any more.

    check = stop_check(cancelled, seconds=60)       # cancelled: () -> bool, or None
    check()                                         # raises Cancelled or Late when it is time

One check goes through all steps of a request, so that they share the deadline. Left out: how a
step is stopped (common/processes.py), and who says that nobody wants it (stopping.py, visitors.py).
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar

from fastapi import Request

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


# ---- Blocking work behind async routes: in a thread, and told to stop when the client leaves
Result = TypeVar("Result")


async def finished(request: Request, work: Callable[..., Result]) -> Result:
    """What `work` returns or raises. Its argument `cancelled` says whether the client has left."""
    stop = threading.Event()
    job = _thread(request, partial(work, cancelled=stop.is_set))
    left = asyncio.ensure_future(_left(request))
    try:
        await asyncio.wait({job, left}, return_when=asyncio.FIRST_COMPLETED)
        if left.done():
            stop.set()
        return await job
    finally:
        stop.set()
        left.cancel()


async def begun(
    request: Request, work: Callable[..., Result]
) -> tuple[asyncio.Future[Result], threading.Event]:
    """The work once it has told of progress, and the event that stops it.

    Raises what `work` raises before that, while the status of the answer is still open.
    """
    stop, told, loop = threading.Event(), asyncio.Event(), asyncio.get_running_loop()

    def progress(share: float, text: str) -> None:
        loop.call_soon_threadsafe(told.set)

    job = _thread(request, partial(work, progress=progress, cancelled=stop.is_set))
    first = asyncio.ensure_future(told.wait())
    try:
        await asyncio.wait({job, first}, return_when=asyncio.FIRST_COMPLETED)
        if job.done():
            job.result()
    except BaseException:
        stop.set()
        raise
    finally:
        first.cancel()
    return job, stop


def _thread(request: Request, run: Callable[[], Any]) -> asyncio.Future[Any]:
    job = asyncio.get_running_loop().run_in_executor(request.app.state.threads, run)
    # Nobody may be left to read how it ended, which is no fault.
    job.add_done_callback(lambda done: done.cancelled() or done.exception())
    return job


async def _left(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
