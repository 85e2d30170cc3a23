"""Work for the visitors of the page, which ends when nobody wants it any more.

    stops = Stops()
    page.unload(stops.end_all)                      # the visitor leaves
    cancel.click(stops.end_all, queue=False)        # or cancels
    found = await find_program(service, stops, file, "low", request.session_hash, tell)
    part = await run_for(stops, request.session_hash, partial(service.execute, code))

The work runs in a thread and gets a `Stop`, which tells the service to give it up. That is due as
well when the task that awaits the work is cancelled, which is what a gradio client's job.cancel()
does.
"""

from __future__ import annotations

import asyncio
import threading
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from contextvars import copy_context
from dataclasses import dataclass, replace
from functools import partial
from html import escape
from typing import TypeVar

import gradio as gr

from image2cad.common import Cancelled, InputError, Late, Stop
from image2cad.serving.limits import Busy, box_named, check_count, open_pictures, page_notes
from image2cad.serving.page.uploads import uploaded_file
from image2cad.serving.service import Generated, Service

PICTURE_THREADS = 32  # pictures that may be worked on or wait; beyond, gradio lets them wait
PROGRAM_THREADS = 32  # beside, so that who edits a program does not wait for pictures

# What the service raises that is no defect of the app.
EXPECTED_ERRORS = (InputError, Busy, Late, Cancelled)
_Result = TypeVar("_Result")


@dataclass(frozen=True)
class Asked:
    """What a visitor gives beside a picture.

    views: files of further pictures of the part. camera, text, length: as `Service.generate` takes
    them. box: as limits.box_named reads it.
    """

    views: tuple[str, ...] = ()
    camera: str = ""
    text: str = ""
    length: str = ""
    box: str = ""


NOTHING_MORE = Asked()


class Stops:
    """What ends the work that is being done for a visitor, by session; and the threads for it."""

    def __init__(self) -> None:
        threads = PICTURE_THREADS + PROGRAM_THREADS
        self.threads = ThreadPoolExecutor(threads, thread_name_prefix="visitor")
        self._ended: dict[str, set[threading.Event]] = defaultdict(set)
        self._expected: dict[str, threading.Event] = {}

    def expect(self, request: gr.Request) -> None:
        """Say that this visitor's next work is asked for, so that `end_all` ends it beforehand.

        Work waits in gradio's queue before it begins; a visitor may cancel it meanwhile.
        """
        name = request.session_hash or ""
        ended = threading.Event()
        self._expected[name] = ended
        self._ended[name].add(ended)

    @contextmanager
    def of(self, session: str | None) -> Iterator[Stop]:
        """A Stop for work of this session; due on `end_all`, and when the block ends."""
        name = session or ""
        ended = self._expected.pop(name, None) or threading.Event()
        self._ended[name].add(ended)
        try:
            yield Stop(wanted=lambda: not ended.is_set())
        finally:
            ended.set()
            self._ended[name].discard(ended)
            if not self._ended[name]:
                del self._ended[name]

    def end_all(self, request: gr.Request) -> None:
        """End all that is being made for the visitor who sends this."""
        for ended in list(self._ended.get(request.session_hash or "", ())):
            ended.set()


def message_of(error: Exception | str) -> str:
    """What a visitor is told of an error that is no defect of the app."""
    text = str(error)
    return text[:1].upper() + text[1:]


def in_toast(error: Exception | str) -> gr.Error:
    """The same for gradio to show at once, which takes text for HTML: a program's error as text."""
    return gr.Error(escape(message_of(error), quote=False), print_exception=False)


async def find_program(
    service: Service,
    stops: Stops,
    file: str | None,
    effort: str,
    session: str | None,
    tell: Callable[[float, str], None],
    kinds: Sequence[str] = (),
    asked: Asked = NOTHING_MORE,
) -> Generated:
    """What the service makes of an uploaded picture. Cancelling the task ends the work.

    Raises what the service raises, and InputError for what is no picture.
    """
    files = [file, *asked.views] if file or not asked.views else asked.views
    check_count(len(files), service.limits)
    paths = [uploaded_file(one) for one in files]

    def work(stop: Stop) -> Generated:
        files = [path.read_bytes() for path in paths]
        views = open_pictures(files, service.limits, box_named(asked.box))
        more = (asked.camera, asked.text, asked.length)
        made = service.generate(views, effort, tell, kinds, stop, *more)
        return replace(made, notes=(*made.notes, *page_notes(files, service.limits)))

    return await run_for(stops, session, work)


async def run_for(stops: Stops, session: str | None, work: Callable[..., _Result]) -> _Result:
    """What work(stop=...) returns or raises, for the visitor of this session."""
    with stops.of(session) as stop:
        loop, run = asyncio.get_running_loop(), partial(work, stop=stop)
        return await loop.run_in_executor(stops.threads, copy_context().run, run)
