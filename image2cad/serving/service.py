"""The image-to-CAD service behind the page and the API: limits, queues, processes, deadlines.

    service = Service(local_backend("models/nano"))
    made = service.generate(open_picture(data, service.limits), effort="low")
    made.code, made.part, made.confidence
    service.close()

One per process, for many threads. The model is asked in this process; all that can hang or
crash (drawing, fitting, running and comparing programs, writing files) happens in worker
processes, which are killed when a deadline passes or a client leaves. Left out: HTTP (routes.py).
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import CancelledError, ThreadPoolExecutor, wait
from contextvars import copy_context
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from PIL import Image

from image2cad.common import TICK, InputError, Lost, Pool, effort_named
from image2cad.serving import jobs
from image2cad.serving.backends import Backend, Stopped, unwanted
from image2cad.serving.limits import Limits, Queue, check_program
from image2cad.serving.stopping import Cancel, Cancelled, stop_check
from image2cad.verification import verify
from metrics import Failure, Part, run_cadquery, usable_cores

LOG = logging.getLogger(__name__)

ASKED, CHECKED = 0.3, 0.95  # shares of the progress: the model has answered, the picture is drawn
LOST = (
    "the server's process for this work was lost twice: either the work brings it down, or "
    "something else does, such as a system that is short of memory"
)
NO_PROGRAM = Failure("no solid", "no program was found whose drawing is like the picture")


@dataclass(frozen=True, eq=False)
class Generated:
    """What came of a picture.

    code: the program; where none was valid, the model's first. part: what it builds, or why it
    builds nothing. likeness, confidence, source: as in verification/pipeline.py, 0 and ""
    for a failure.
    seconds: of work, without the queue. candidates: how many programs were considered. tokens:
    of the model's prompt and of all its programs. files, no_files: as in `Built`.
    """

    code: str
    part: Part | Failure
    likeness: float
    confidence: float
    source: str
    seconds: float
    candidates: int
    tokens: tuple[int, int]
    files: dict[str, bytes] = field(default_factory=dict)
    no_files: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class Built:
    """What a program builds, or why nothing; its files by kind, and why there are no others."""

    part: Part | Failure
    files: dict[str, bytes]
    no_files: dict[str, str]


Progress = Callable[[float, str], None] | None


class Service:
    """Generates, builds and scores; thread-safe.

    Its methods block. They raise InputError for what cannot be used, Busy where too many wait,
    Late at the deadline, and Cancelled soon after `cancelled` returns True.
    """

    def __init__(
        self, backend: Backend, limits: Limits | None = None, workers: int | None = None
    ) -> None:
        """workers: pictures that are worked on at a time, each on one core; all cores if None."""
        self.backend, self.limits = backend, limits or Limits()
        self.workers, running = workers or usable_cores(), self.limits.running
        # One process a core already keeps all cores busy; read by the processes that start now.
        os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
        self._closed = threading.Event()
        self._model = ThreadPoolExecutor(backend.calls, thread_name_prefix="model")
        self._verifying = Pool(self.workers, jobs.warm_for_pictures)
        self._quick = Pool(running, jobs.warm_for_programs)
        room = (self.limits.waiting, self.limits.queue_seconds)
        self._pictures, self._programs = Queue(self.workers, *room), Queue(running, *room)

    def generate(
        self,
        image: Image.Image,
        effort: str = "low",
        progress: Progress = None,
        cancelled: Cancel = None,
        kinds: Sequence[str] = (),
    ) -> Generated:
        """The program whose drawing is most like `image` (RGB, any size).

        effort: "none" takes the model's program as it is. progress: called with a share of 1
        and what is going on, from when the picture has a place in the queue. kinds: of files of
        the part, formats of cad/exports.py.
        """
        kinds = jobs.distinct_kinds(kinds)
        allowed = effort_named(effort)
        tell = progress or (lambda share, text: None)
        wanted = stop_check(cancelled)

        def queued() -> None:
            wanted()
            tell(0.0, "waiting for a free place")

        with self._pictures.place(queued):
            started = time.monotonic()
            check = stop_check(cancelled, self.limits.seconds[effort])
            tell(0.02, "asking the model")
            codes, tokens = self._ask(image, effort, check)
            asked = time.monotonic()

            def look() -> None:
                check()
                spent = (time.monotonic() - asked) / max(allowed.seconds, 1.0)
                text = f"checking {len(codes)} programs and fitting them to the picture"
                tell(ASKED + (CHECKED - ASKED) * min(spent, 1.0), text)

            answer = self._verifying.call(verify, image, codes, effort, check=look)
            if isinstance(answer, Lost):
                LOG.warning("verification: %s", answer.reason)
            if isinstance(answer, Lost) or answer.part is None:
                code = codes[0] if codes else ""
                seen, sure, source, count = 0.0, 0.0, "", len(codes)
                part = self._run(self._verifying, code, check) if code else NO_PROGRAM
            else:
                code, part, seen = answer.code, answer.part, answer.likeness
                sure, source, count = answer.confidence, answer.source, len(answer.tried) + 1
            files = self._export(self._verifying, part, code, kinds, check)
            seconds = time.monotonic() - started
        tell(1.0, "done")
        return Generated(code, part, seen, sure, source, seconds, count, tokens, *files)

    def execute(self, code: str, cancelled: Cancel = None) -> Part | Failure:
        """The part that a program builds."""
        return self.build(code, cancelled=cancelled).part

    def build(self, code: str, kinds: Sequence[str] = (), cancelled: Cancel = None) -> Built:
        """The part that a program builds and its files, in one place and by one deadline.

        kinds: formats of cad/exports.py. Raises InputError for others.
        """
        check_program(code, self.limits)
        kinds = jobs.distinct_kinds(kinds)
        with self._programs.place(stop_check(cancelled)):
            check = stop_check(cancelled, self.limits.quick_seconds)
            part = self._run(self._quick, code, check)
            return Built(part, *self._export(self._quick, part, code, kinds, check))

    def score(
        self, prediction: str, reference: str, alignment: str = "best", cancelled: Cancel = None
    ) -> dict[str, Any]:
        """A program's scores against another's, as of metrics.compute with extras for one pair.

        "failure" is the prediction's Failure, or None. Raises InputError for an unknown alignment
        and for a reference without a usable solid.
        """
        check_program(prediction, self.limits)
        check_program(reference, self.limits)
        with self._programs.place(stop_check(cancelled)):
            check = stop_check(cancelled, self.limits.quick_seconds)
            job = (prediction, reference, alignment, self._runner())
            scored = self._call(self._quick, jobs.score, *job, check=check)
        if isinstance(scored, Lost):
            raise InputError(f"these programs cannot be scored: {scored.reason}")
        return scored

    def load(self) -> dict[str, tuple[int, int]]:
        """How many are running and waiting, of pictures and of programs."""
        return {"pictures": self._pictures.load(), "programs": self._programs.load()}

    def ready(self) -> bool:
        """Whether a process of each kind is warm."""
        return all([self._verifying.ready(), self._quick.ready()])  # both have a look

    def close(self) -> None:
        """Stop the model and kill the worker processes."""
        self._closed.set()
        self._model.shutdown(wait=False, cancel_futures=True)
        self._verifying.close()
        self._quick.close()

    def _ask(
        self, image: Image.Image, effort: str, check: Callable[[], None]
    ) -> tuple[list[str], tuple[int, int]]:
        """What the model proposes."""
        stop = threading.Event()
        context = copy_context()  # it also tells a ZeroGPU Space whose quota it is
        context.run(unwanted.set, lambda: stop.is_set() or self._closed.is_set())
        job = self._model.submit(context.run, _propose, self.backend, image, effort)
        try:
            while not job.done():
                check()
                wait([job], TICK)
            return job.result()
        except (Stopped, CancelledError) as error:
            raise Cancelled("the service is closed") from error
        finally:
            stop.set()
            job.cancel()

    def _runner(self) -> Callable[[str], Part | Failure]:
        limits = self.limits
        return partial(run_cadquery, timeout=limits.program_seconds, memory=limits.program_memory)

    def _run(self, pool: Pool, code: str, check: Callable[[], None]) -> Part | Failure:
        part = self._call(pool, self._runner(), code, check=check)
        return Failure("crash", part.reason) if isinstance(part, Lost) else part

    def _export(
        self,
        pool: Pool,
        part: Part | Failure,
        code: str,
        kinds: Sequence[str],
        check: Callable[[], None],
    ) -> tuple[dict[str, bytes], dict[str, str]]:
        if isinstance(part, Failure) or not kinds:
            return {}, {}
        made = self._call(pool, jobs.write_files, part, code, kinds, check=check)
        return ({}, dict.fromkeys(kinds, made.reason)) if isinstance(made, Lost) else made

    def _call(
        self, pool: Pool, work: Callable[..., Any], *job: Any, check: Callable[[], None]
    ) -> Any:
        """As pool.call, tried twice: who kills a process is rarely what runs in it."""
        answer = pool.call(work, *job, check=check)
        if not isinstance(answer, Lost):
            return answer
        if self._closed.is_set():
            raise Cancelled("the service is closed")
        LOG.warning("a worker process was lost: %s", answer.reason)
        answer = pool.call(work, *job, check=check)
        if isinstance(answer, Lost):
            return Lost(f"{LOST} ({answer.reason})")
        return answer


def _propose(
    backend: Backend, image: Image.Image, effort: str
) -> tuple[list[str], tuple[int, int]]:
    codes = backend.propose(image, effort)
    return codes, backend.tokens(image, codes)
