"""The image-to-CAD service behind the page and the API: limits, queues, processes, deadlines.

    service = Service(local_backend("models/nano"))
    made = service.generate(open_picture(data, service.limits), effort="low")
    made.code, made.part, made.confidence
    service.close()

One per process, for many threads. The model is asked in this process; all that can hang or
crash (drawing, fitting, running and comparing programs, writing files) happens in worker
processes, which are killed when a deadline passes or a client leaves. Left out: HTTP (api/).
"""

from __future__ import annotations

import ast
import functools
import logging
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import CancelledError, ThreadPoolExecutor, wait
from contextvars import copy_context
from copy import copy
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Concatenate, ParamSpec, TypeVar

from PIL import Image

from image2cad.cad import CutOff, Size, size_named
from image2cad.common import (
    NEVER,
    TICK,
    Cancelled,
    InputError,
    Lost,
    Pool,
    Stop,
    effort_named,
)
from image2cad.serving import jobs
from image2cad.serving.backends import Backend, Stopped, Unreachable, unwanted
from image2cad.serving.jobs import (
    NO_PROGRAM,
    SIZE_ASSUMED,
    SIZE_OF_PROGRAM,
    Built,
    Compared,
    Solved,
)
from image2cad.serving.limits import Limits, Queue, TooLarge, check_count, check_program
from image2cad.serving.observability import WENT_WELL, kind_of, new_figures
from image2cad.verification import Viewpoint, eye_named, warm_up
from metrics import ALIGNMENTS, LAYERS, Failure, Part, run_cadquery, usable_cores

LOG = logging.getLogger(__name__)

# Shares of the progress: when the model has answered, and when its programs are checked.
ASKED_SHARE, CHECKED_SHARE = 0.3, 0.95
VERIFYING_SHARE = 1.15  # of the longest that verification may take, which is kept for it
WITHOUT_IT = "This is the answer without it."
TEXT_NOT_READ = "The text beside the picture was not read: the model here takes pictures only."
LOST_TWICE = (
    "the server's process for this work was lost twice: either the work brings it down, or "
    "something else does, such as a system that is short of memory"
)


@dataclass(frozen=True, eq=False)
class Generated:
    """What came of a picture.

    code: the program; where none was valid, the model's first. part: what it builds, or why it
    builds nothing. likeness, confidence, source: as in `Solved`. seconds: of work,
    without the queue. candidates: how many programs were considered. tokens: of the model's
    prompt and of all its programs. files, no_files: as in `Built`. cameras, reason: as in
    `Solved`. notes: what else a user should know, a sentence each. size: where the part's size is
    from, as in `Built`. cut: whether the code is a reply that its most tokens ended.
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
    cameras: tuple[Viewpoint, ...] = ()
    reason: str = ""
    notes: tuple[str, ...] = ()
    size: str = SIZE_ASSUMED
    cut: bool = False


Progress = Callable[[float, str], None] | None
_Given = ParamSpec("_Given")
_Made = TypeVar("_Made")


def _watched(
    work: str, action: str
) -> Callable[
    [Callable[Concatenate[Service, _Given], _Made]], Callable[Concatenate[Service, _Given], _Made]
]:
    """Let a method's failures be counted, and all its calls where the page makes them."""

    def decorate(
        method: Callable[Concatenate[Service, _Given], _Made],
    ) -> Callable[Concatenate[Service, _Given], _Made]:
        @functools.wraps(method)
        def call(service: Service, *given: _Given.args, **named: _Given.kwargs) -> _Made:
            started, outcome = time.monotonic(), WENT_WELL
            try:
                made = method(service, *given, **named)
                outcome = _failure_in(made) or WENT_WELL
                return made
            except BaseException as error:
                outcome = kind_of(error)
                raise
            finally:
                if outcome != WENT_WELL:
                    service.figures.failures.labels(work, outcome).inc()
                if service.of_page:
                    seconds = time.monotonic() - started
                    service.figures.tell_of_page(action, outcome, seconds)

        return call

    return decorate


def _failure_in(made: Any) -> str:
    """The kind of failure that the work has ended with, or ""."""
    if isinstance(made, Compared):
        made = made.reference if isinstance(made.reference, Failure) else made.prediction
    else:
        made = made["failure"] if isinstance(made, dict) else made.part
    return made.kind if isinstance(made, Failure) else ""


class Service:
    """Generates, builds and scores; thread-safe.

    Its methods block. They raise InputError for what cannot be used, Busy where too many wait,
    Late at the deadline of the limits or of `stop`, and Cancelled soon after the answer is no
    longer wanted.
    """

    def __init__(
        self, backend: Backend, limits: Limits | None = None, workers: int | None = None
    ) -> None:
        """workers: pictures that are worked on at a time, each on one core; all cores if None."""
        self.backend, self.limits = backend, limits or Limits()
        self.workers, running = workers or usable_cores(), self.limits.running
        self._closed, self._told = threading.Event(), threading.Event()
        self._model = ThreadPoolExecutor(backend.calls, thread_name_prefix="model")
        self._verifying = Pool(self.workers, warm_up)
        self._quick = Pool(running, jobs.warm_for_programs)
        room = (self.limits.waiting, self.limits.queue_seconds)
        self.figures = new_figures(backend.name, self._restarts)
        waited = self.figures.waited.labels
        self._pictures = Queue(self.workers, *room, waited("pictures").observe)
        self._programs = Queue(running, *room, waited("programs").observe)
        self._guests = self.of_page = False

    def for_guests(self) -> Service:
        """The same service for who has shown no key where keys are asked for: its work waits
        behind all other, and has half of the places at most.
        """
        other = copy(self)
        other._guests = True
        return other

    def for_page(self) -> Service:
        """The same service for the page: each of its calls is what a visitor did."""
        other = copy(self)
        other.of_page = True
        return other

    @_watched("pictures", "generate")
    def generate(
        self,
        image: Image.Image | Sequence[Image.Image],
        effort: str = "low",
        progress: Progress = None,
        kinds: Sequence[str] = (),
        stop: Stop = NEVER,
        camera: str = "",
        text: str = "",
        length: str = "",
        max_tokens: int | None = None,
    ) -> Generated:
        """The program whose drawing is most like `image` (RGB, any size), one or several views.

        effort: "none" takes the model's program as it is. progress: called with a share of 1
        and what is going on, from when the picture has a place in the queue. kinds: of files of
        the part, formats of cad/exports.py. camera: of one picture, as verification.eye_named
        reads it. text: beside the picture, for a backend that reads it. length: of the part, as
        cad.size_named reads it; without one the size is assumed. max_tokens: of each program of
        the model, for a backend that can be bounded. A backend that cannot be
        reached or gives no program is named in the notes, and the answer is the one without it;
        with effort "none" there is none, and it is raised.
        """
        kinds = jobs.distinct_kinds(kinds)
        allowed = effort_named(effort)
        views = [image] if isinstance(image, Image.Image) else list(image)
        check_count(len(views), self.limits)
        image = views[0] if len(views) == 1 else views
        eye, size = eye_named(camera), size_of(length)
        if eye is not None and len(views) > 1:
            raise InputError("a camera can be given with one picture only")
        notes = []
        if text.strip() and not self.backend.reads_text:
            text = ""
            notes.append(TEXT_NOT_READ)
        if len(text) > self.limits.text_letters:
            most = self.limits.text_letters
            raise TooLarge(
                f"the text beside a picture may have {most:,} letters, not {len(text):,}"
            )
        tell = progress or (lambda share, text: None)
        waiting = stop.telling(lambda: tell(0.0, "waiting for a free place"))
        with self._pictures.place(waiting, self._guests):
            started = time.monotonic()
            stop = stop.within(self.limits.seconds[effort])
            tell(0.02, "asking the model")
            codes, tokens, trouble = self._ask(image, effort, text, max_tokens, stop)
            notes += [trouble] if trouble else []
            asked = time.monotonic()

            def tell_of_checking() -> None:
                seconds = allowed.seconds if len(views) == 1 else allowed.longest
                spent = (time.monotonic() - asked) / max(seconds, 1.0)
                text = f"checking {len(codes)} programs and fitting them to the picture"
                tell(ASKED_SHARE + (CHECKED_SHARE - ASKED_SHARE) * min(spent, 1.0), text)

            telling = stop.telling(tell_of_checking)
            solved = self._solve(image, codes, effort, eye, kinds, size, telling)
            seconds = time.monotonic() - started
        self.figures.seconds.labels(effort).observe(seconds)
        tell(1.0, "done")
        built = solved.built
        figures = solved.likeness, solved.confidence, solved.source, seconds, solved.candidates
        made = Generated(solved.code, built.part, *figures, tokens, built.files, built.no_files)
        told = tuple(notes)
        cut = not allowed.seconds and bool(codes) and isinstance(codes[0], CutOff)
        return replace(
            made, cameras=solved.cameras, reason=solved.reason, notes=told, size=built.size,
            cut=cut,
        )  # fmt: skip

    def execute(self, code: str, stop: Stop = NEVER) -> Part | Failure:
        """The part that a program builds."""
        return self.build(code, stop=stop).part

    @_watched("programs", "build")
    def build(
        self, code: str, kinds: Sequence[str] = (), stop: Stop = NEVER, length: str = ""
    ) -> Built:
        """The part that a program builds and its files, in one place and by one deadline.

        kinds: formats of cad/exports.py. length: that all of it is scaled to, as cad.size_named
        reads it. Raises InputError for others.
        """
        check_program(code, self.limits)
        kinds, size = jobs.distinct_kinds(kinds), size_of(length)
        with self._programs.place(stop, self._guests):
            stop = stop.within(self.limits.quick_seconds)
            return self._build(self._quick, code, kinds, stop, size)

    @_watched("programs", "score")
    def score(
        self, prediction: str, reference: str, alignment: str = "best", stop: Stop = NEVER
    ) -> dict[str, Any]:
        """A program's scores against another's, as of metrics.compute with extras for one pair.

        "failure" is the prediction's Failure, or None. Raises InputError for an unknown alignment
        and for a reference without a usable solid.
        """
        return self._pair(jobs.score_programs, prediction, reference, alignment, stop)

    @_watched("programs", "compare")
    def compare(
        self,
        prediction: str,
        reference: str,
        alignments: Sequence[str] = ALIGNMENTS,
        stop: Stop = NEVER,
    ) -> Compared:
        """The parts of two programs, each run once, and their scores under several alignments.

        Raises InputError for an unknown alignment.
        """
        return self._pair(jobs.compare_programs, prediction, reference, alignments, stop)

    def load(self) -> dict[str, tuple[int, int]]:
        """How many are running and waiting, of pictures and of programs."""
        return {"pictures": self._pictures.load(), "programs": self._programs.load()}

    def _restarts(self) -> dict[str, int]:
        return {"pictures": self._verifying.restarts, "programs": self._quick.restarts}

    def ready(self) -> bool:
        """Whether a process of each kind is warm."""
        return all([self._verifying.ready(), self._quick.ready()])  # both have a look

    def close(self) -> None:
        """Stop the model and kill the worker processes."""
        self._closed.set()
        self._model.shutdown(wait=False, cancel_futures=True)
        self._verifying.close()
        self._quick.close()

    # ---- Steps of the work

    def _ask(
        self,
        image: Image.Image | Sequence[Image.Image],
        effort: str,
        text: str,
        max_tokens: int | None,
        stop: Stop,
    ) -> tuple[list[str], tuple[int, int], str]:
        """What the model proposes, its tokens, and in a sentence why that is nothing, or ""."""
        allowed = effort_named(effort)
        # What verification may take is left for it, with something to spare.
        patience = max(self.limits.seconds[effort] - VERIFYING_SHARE * allowed.longest, 0.0)
        until = time.monotonic() + patience
        given_up = threading.Event()
        context = copy_context()  # it also tells a ZeroGPU Space whose quota it is
        context.run(unwanted.set, lambda: given_up.is_set() or self._closed.is_set())
        work = partial(_propose, self.backend, image, effort, text, max_tokens)
        job = self._model.submit(context.run, work)
        try:
            while not job.done():
                stop.check()
                if allowed.seconds and time.monotonic() > until:
                    return [], (0, 0), f"The model did not answer in {patience:.0f} s. {WITHOUT_IT}"
                wait([job], TICK)
            codes, tokens = job.result()
            without = self.backend.reads_text and not any(map(_is_program, codes))
            return codes, tokens, f"The model answered without a program. {WITHOUT_IT}" * without
        except Unreachable as error:
            if not allowed.seconds:
                raise
            LOG.warning("the backend is left out: %s", error)
            return [], (0, 0), f"The model was not heard ({error}). {WITHOUT_IT}"
        except (Stopped, CancelledError) as error:
            raise Cancelled("the service is closed") from error
        finally:
            given_up.set()
            job.cancel()

    def _solve(
        self,
        image: Image.Image | Sequence[Image.Image],
        codes: list[str],
        effort: str,
        eye: tuple[float, float, float] | None,
        kinds: Sequence[str],
        size: Size | None,
        stop: Stop,
    ) -> Solved:
        """The best program; the model's first where verification is lost. As `_build` otherwise."""
        job = (partial(jobs.solve_picture, size=size), image, codes, effort, eye)
        solved = self._once(self._verifying, *job, kinds, self._runner(), stop=stop)
        if isinstance(solved, Lost) and kinds:
            lost, solved = solved, self._once(self._verifying, *job, (), self._runner(), stop=stop)
            if isinstance(solved, Solved):
                return replace(solved, built=_without_files(solved.built, kinds, lost))
        if isinstance(solved, Lost):
            code = codes[0] if codes else ""
            built = Built(NO_PROGRAM, size=SIZE_ASSUMED)
            if code:
                built = self._build(self._verifying, code, kinds, stop, size, SIZE_ASSUMED)
            return jobs.unverified(codes, built)
        return solved

    def _build(
        self,
        pool: Pool,
        code: str,
        kinds: Sequence[str],
        stop: Stop,
        size: Size | None = None,
        otherwise: str = SIZE_OF_PROGRAM,
    ) -> Built:
        """Part and files; where making the files costs the process, the part alone."""
        job = (partial(jobs.build_program, size=size, otherwise=otherwise), code)
        built = self._call(pool, *job, kinds, self._runner(), stop=stop)
        if isinstance(built, Lost) and kinds:
            lost, built = built, self._call(pool, *job, (), self._runner(), stop=stop)
            if isinstance(built, Built):
                return _without_files(built, kinds, lost)
        if isinstance(built, Lost):
            return Built(Failure("crash", built.reason), code=code, size=otherwise)
        self._tell_isolation(built.part.protection)
        return built

    def _tell_isolation(self, layers: tuple[str, ...]) -> None:
        """Write into the log, once, what confines the programs on this machine."""
        if layers and not self._told.is_set():
            self._told.set()
            missing = [layer for layer in LAYERS if layer not in layers]
            without = f", without {', '.join(missing)}" if missing else ""
            LOG.info("programs run under the layers %s%s", ", ".join(layers), without)

    def _pair(
        self, work: Callable[..., Any], prediction: str, reference: str, how: Any, stop: Stop
    ) -> Any:
        """What `work` makes of two programs. how: its third argument."""
        check_program(prediction, self.limits)
        check_program(reference, self.limits)
        with self._programs.place(stop, self._guests):
            stop = stop.within(self.limits.quick_seconds)
            job = (work, prediction, reference, how, self._runner())
            made = self._call(self._quick, *job, stop=stop)
        if isinstance(made, Lost):
            raise InputError(f"these programs cannot be scored: {made.reason}")
        return made

    def _runner(self) -> Callable[[str], Part | Failure]:
        """What runs a program in a worker process, within the limits."""
        limits = self.limits
        return partial(run_cadquery, timeout=limits.program_seconds, memory=limits.program_memory)

    def _once(self, pool: Pool, work: Callable[..., Any], *job: Any, stop: Stop) -> Any:
        """As pool.call, but Cancelled when the process was lost because the service closes."""
        answer = pool.call(work, *job, stop=stop)
        if isinstance(answer, Lost):
            if self._closed.is_set():
                raise Cancelled("the service is closed")
            LOG.warning("a worker process was lost: %s", answer.reason)
        return answer

    def _call(self, pool: Pool, work: Callable[..., Any], *job: Any, stop: Stop) -> Any:
        """As `_once`, tried twice: who kills a process is rarely what runs in it."""
        answer = self._once(pool, work, *job, stop=stop)
        if isinstance(answer, Lost):
            answer = self._once(pool, work, *job, stop=stop)
        return Lost(f"{LOST_TWICE} ({answer.reason})") if isinstance(answer, Lost) else answer


def size_of(length: str) -> Size | None:
    """The size that is asked for; None where nothing is. Raises InputError for what is none."""
    return size_named(length) if length.strip() else None


def _without_files(built: Built, kinds: Sequence[str], lost: Lost) -> Built:
    """What was built once files were left out, because writing them cost the process."""
    if isinstance(built.part, Failure):
        return built
    return replace(built, no_files=dict.fromkeys(kinds, lost.reason))


def _propose(
    backend: Backend,
    image: Image.Image | Sequence[Image.Image],
    effort: str,
    text: str,
    max_tokens: int | None,
) -> tuple[list[str], tuple[int, int]]:
    # Only a backend that reads text takes it, and only one that can be bounded a bound.
    bound = {"max_tokens": max_tokens} if max_tokens and backend.bounded else {}
    codes = backend.propose(image, effort, *([text] if text else []), **bound)
    return codes, backend.tokens(image, codes)


def _is_program(code: str) -> bool:
    """Whether a reply holds what may be a CadQuery program, and not just a sentence."""
    try:
        ast.parse(code)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return False
    return "cq." in code or "cadquery" in code
