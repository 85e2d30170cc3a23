"""Blocking work behind async routes: in a thread, and told to stop when the client leaves.

    return await finished(request, work)        # work(cancelled=...) runs in app.state.threads

    job, stop = await begun(request, work)      # for streams: work(progress=..., cancelled=...)

Left out: how the work stops (service.py).
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar

from fastapi import Request

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
