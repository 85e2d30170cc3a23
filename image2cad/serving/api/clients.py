"""Blocking work for clients of the API: in a thread, and told to stop when the client leaves.

    built = await finished(request, partial(service.build, code, files))
    job, left = await begun(request, work)          # for an answer that is a stream

The work gets the argument `stop`, which says whether the client is still there. What visitors of
the page start is stopped by page/visitors.py.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar

from fastapi import Request

from image2cad.common import Stop

_Result = TypeVar("_Result")


async def finished(request: Request, work: Callable[..., _Result]) -> _Result:
    """What work(stop=...) returns or raises."""
    left = threading.Event()
    job = _in_thread(request, partial(work, stop=Stop(wanted=lambda: not left.is_set())))
    leaving = asyncio.ensure_future(_disconnected(request))
    try:
        await asyncio.wait({job, leaving}, return_when=asyncio.FIRST_COMPLETED)
        if leaving.done():
            left.set()
        return await job
    finally:
        left.set()
        leaving.cancel()


async def begun(
    request: Request, work: Callable[..., _Result]
) -> tuple[asyncio.Future[_Result], threading.Event]:
    """work(stop=..., progress=...) once it has told of progress, and the event that stops it.

    Raises what `work` raises before that, while the status of the answer is still open.
    """
    left, told, loop = threading.Event(), asyncio.Event(), asyncio.get_running_loop()

    def progress(share: float, text: str) -> None:
        loop.call_soon_threadsafe(told.set)

    stop = Stop(wanted=lambda: not left.is_set())
    job = _in_thread(request, partial(work, progress=progress, stop=stop))
    first = asyncio.ensure_future(told.wait())
    try:
        await asyncio.wait({job, first}, return_when=asyncio.FIRST_COMPLETED)
        if job.done():
            job.result()
    except BaseException:
        left.set()
        raise
    finally:
        first.cancel()
    return job, left


def _in_thread(request: Request, run: Callable[[], Any]) -> asyncio.Future[Any]:
    job = asyncio.get_running_loop().run_in_executor(request.app.state.threads, run)
    # Nobody may be left to read how it ended, which is no fault.
    job.add_done_callback(lambda done: done.cancelled() or done.exception())
    return job


async def _disconnected(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
