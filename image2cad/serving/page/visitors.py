"""Work for the visitors of the page, which ends when nobody wants it any more.

    stops = Stops()
    page.unload(stops.stop)                         # the visitor leaves
    cancel.click(stops.stop, queue=False)           # or cancels
    got = await ask(service, stops, file, "low", request.session_hash, tell)
    part = await wanted(stops, request.session_hash, partial(service.execute, code))

The work runs in a thread; a flag tells the service to give it up. It is set as well when the task
that awaits the work is cancelled, which is what a gradio client's job.cancel() does.
"""

from __future__ import annotations

import asyncio
import threading
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from contextvars import copy_context
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import gradio as gr
from gradio import processing_utils
from gradio.utils import get_upload_folder

from image2cad.common import InputError
from image2cad.serving.limits import Busy, open_picture
from image2cad.serving.service import Generated, Service
from image2cad.serving.stopping import Cancelled, Late

THREADS = 32  # pictures that may be worked on or wait; beyond, gradio lets them wait
PROGRAMS = 32  # threads beside, so that who edits a program does not wait for pictures

# What the service raises that is no defect of the app.
EXPECTED = (InputError, Busy, Late, Cancelled)
Result = TypeVar("Result")


class Stops:
    """Flags that end what is being made for a visitor, by session; and the threads that work."""

    def __init__(self) -> None:
        self.threads = ThreadPoolExecutor(THREADS + PROGRAMS, thread_name_prefix="visitor")
        self._flags: dict[str, set[threading.Event]] = defaultdict(set)

    @contextmanager
    def flag(self, session: str | None) -> Iterator[threading.Event]:
        """A flag of this session; set by `stop`, and when the block ends in any way."""
        one, name = threading.Event(), session or ""
        self._flags[name].add(one)
        try:
            yield one
        finally:
            one.set()
            self._flags[name].discard(one)
            if not self._flags[name]:
                del self._flags[name]

    def stop(self, request: gr.Request) -> None:
        """End all that is being made for the visitor who sends this."""
        for one in list(self._flags.get(request.session_hash or "", ())):
            one.set()


def told(error: Exception | str) -> str:
    """What a visitor is told of an error that is no defect of the app."""
    text = str(error)
    return text[:1].upper() + text[1:]


async def ask(
    service: Service,
    stops: Stops,
    file: str | None,
    effort: str,
    session: str | None,
    tell: Callable[[float, str], None],
    kinds: Sequence[str] = (),
) -> Generated:
    """What the service makes of an uploaded picture. Cancelling the task ends the work.

    Raises what the service raises, and InputError for what is no picture.
    """
    path = uploaded(file)

    def work(cancelled: Callable[[], bool]) -> Generated:
        image = open_picture(path.read_bytes(), service.limits)
        return service.generate(image, effort, tell, cancelled, kinds)

    return await wanted(stops, session, work)


async def wanted(stops: Stops, session: str | None, work: Callable[..., Result]) -> Result:
    """What `work` returns or raises. Its argument `cancelled` says whether nobody wants it."""
    with stops.flag(session) as stop:
        loop, run = asyncio.get_running_loop(), partial(work, cancelled=stop.is_set)
        return await loop.run_in_executor(stops.threads, copy_context().run, run)


# ---- Files that visitors send, taken as files only: no links, and no paths of this machine


def unopened(component: gr.Image) -> gr.Image:
    """The component, handing on what was sent as a path, unopened. `uploaded` has to check it."""

    def path_of(payload: Any) -> str | None:
        return payload.path if payload else None

    component.preprocess = path_of  # type: ignore[method-assign]
    return component


def uploaded(path: str | None) -> Path:
    """The uploaded file. Raises InputError for no file, and for a path that is no upload."""
    if not path:
        raise InputError("give a picture first: drop it, paste it or take an example")
    file = Path(path).resolve()
    if not file.is_relative_to(Path(get_upload_folder()).resolve()) or not file.is_file():
        raise InputError("this file is not here; please upload it again")
    return file


def refuse_links() -> None:
    """Let gradio fetch nothing in this process."""

    async def refuse(url: str, cache_dir: str) -> str:
        raise gr.Error("Give the picture as a file, not as a link.", print_exception=False)

    processing_utils.async_ssrf_protected_download = refuse
