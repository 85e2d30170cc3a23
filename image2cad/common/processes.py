"""Calls in processes of their own, which can be stopped: over many inputs, or one by one.

    for index, answer in each(work, jobs, workers=2, deadline=20):
        ...                                     # answer: what work(job) returned, or Lost

    pool = Pool(2)                              # processes that stay warm, for a server
    answer = pool.call(work, job, check=raise_if_the_client_left)
    pool.close()

For work that can hang or crash inside a C++ library: such a call costs its job
and a new process, never the run. `work` must be importable by name; jobs and
answers are pickled, so this is no sandbox: generated code runs in
`metrics/execution.py` only.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import queue
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from typing import Any

TICK = 0.1  # seconds between two looks at whether a call is to be stopped


@dataclass(frozen=True)
class Lost:
    """A call without an answer, and why in one line."""

    reason: str


@dataclass
class Worker:
    """One process; `index` is the job it is at, or None before it said that it is ready."""

    process: Any
    pipe: Connection
    index: int | None = None
    started: float = 0.0


def each(
    work: Callable[[Any], Any], jobs: Sequence[Any], workers: int, deadline: float
) -> Iterator[tuple[int, Any]]:
    """(index, answer) for every job, in the order in which they end.

    deadline: seconds of wall time a call, from when its process is ready. What `work`
    raises is raised here: expected failures are for `work` to return.
    """
    waiting = list(range(len(jobs)))[::-1]
    running = [_start(work) for _ in range(min(workers, len(jobs)))]
    early = 0  # processes that died before they could work
    try:
        while running:
            wait([worker.pipe for worker in running], timeout=0.1)
            for worker in list(running):
                index, answer = worker.index, _answer(worker, deadline)
                if answer is None:
                    continue
                if isinstance(answer, Lost):
                    _stop(worker)
                    running.remove(worker)
                    early += index is None
                    if early > 2:
                        raise RuntimeError(f"worker processes do not start: {answer.reason}")
                    if waiting:
                        running.append(_start(work))
                elif waiting:
                    worker.index, worker.started = waiting.pop(), time.monotonic()
                    worker.pipe.send(jobs[worker.index])
                else:
                    _stop(worker)
                    running.remove(worker)
                if index is not None:
                    if isinstance(answer, BaseException):
                        raise answer
                    yield index, answer[0] if isinstance(answer, tuple) else answer
    finally:
        for worker in running:
            _stop(worker)


class Pool:
    """Processes that stay warm between calls, for several threads.

    A call that is stopped or that crashes costs its process, which is replaced at once. More
    calls than processes wait for one. Close it, or leave it to the end of this process.
    """

    def __init__(self, size: int, warm: Callable[[], Any] | None = None) -> None:
        """warm: called in every new process before its first call, to load what takes long."""
        self._warm = warm
        self._lock = threading.Lock()
        self._closed = False
        self._idle: queue.SimpleQueue[Worker] = queue.SimpleQueue()
        self._all = [self._start() for _ in range(size)]
        for worker in self._all:
            self._idle.put(worker)

    def call(
        self, work: Callable[..., Any], *arguments: Any, check: Callable[[], None] = lambda: None
    ) -> Any:
        """What work(*arguments) returns or raises, or Lost if its process died.

        check: called every TICK seconds; what it raises ends the call and its process.
        """
        worker = self._free(check)
        answer: Any = None
        try:
            if not worker.process.is_alive():
                worker = self._replaced(worker)
            if worker.index is None:
                answer = _wait(worker, check)
                if isinstance(answer, Lost) and (worker.process.exitcode or 0) >= 0:
                    raise RuntimeError(f"a worker process does not start: {answer.reason}")
            if not isinstance(answer, Lost):  # else it was killed while it started
                worker.index, answer = 0, None
                worker.pipe.send((work, arguments))
                answer = _wait(worker, check)
        except ConnectionError:
            answer = Lost("the process died before the call")
        finally:
            if answer is None or isinstance(answer, Lost):
                _stop(worker)
                with contextlib.suppress(OSError):  # no memory: the next call tries again
                    worker = self._replaced(worker)
            self._idle.put(worker)
        if isinstance(answer, BaseException):
            raise answer
        return answer[0] if isinstance(answer, tuple) else answer

    def ready(self) -> bool:
        """Whether a process has started and is warm. Replaces those that died while idle."""
        self._revive()
        with self._lock, contextlib.suppress(OSError):  # a pipe that is closed as we look
            return not self._closed and any(
                worker.process.is_alive() and (worker.index is not None or worker.pipe.poll())
                for worker in self._all
            )
        return False

    def close(self) -> None:
        """Kill every process; calls that are under way return Lost."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
            for worker in self._all:
                worker.process.kill()
        for _ in self._all:  # callers put theirs back when they see its end
            _stop(self._idle.get())

    def _start(self) -> Worker:
        return _start(_apply, self._warm)

    def _free(self, check: Callable[[], None]) -> Worker:
        while True:
            check()
            if self._closed:
                raise RuntimeError("the pool of processes is closed")
            with contextlib.suppress(queue.Empty):
                return self._idle.get(timeout=TICK)

    def _revive(self) -> None:
        # A system that is short of memory kills idle processes too, and a server that is not
        # ready gets no calls that would replace them.
        for _ in range(self._idle.qsize()):
            try:
                worker = self._idle.get_nowait()
            except queue.Empty:  # a call was faster
                return
            try:
                if not worker.process.is_alive():
                    _stop(worker)
                    with contextlib.suppress(OSError):  # no memory: the next look tries again
                        worker = self._replaced(worker)
            finally:
                self._idle.put(worker)

    def _replaced(self, worker: Worker) -> Worker:
        """A new process in the place of a dead one; the dead one once the pool is closed."""
        with self._lock:
            if self._closed:
                return worker
            new = self._start()
            self._all[self._all.index(worker)] = new
            return new


def _apply(job: tuple[Callable[..., Any], tuple[Any, ...]]) -> Any:
    work, arguments = job
    return work(*arguments)


def _wait(worker: Worker, check: Callable[[], None]) -> Any:
    while (answer := _answer(worker, float("inf"))) is None:
        check()
        worker.pipe.poll(TICK)
    return answer


def _answer(worker: Worker, deadline: float) -> Any:
    """A tuple of one answer, an exception, Lost, or None while there is nothing yet."""
    if worker.pipe.poll():
        try:
            return worker.pipe.recv()
        except (EOFError, OSError):  # OSError: it died with half an answer in the pipe
            worker.process.join()
            code = worker.process.exitcode
            died = f"died of {signal.Signals(-code).name}" if code < 0 else f"ended with {code}"
            return Lost(f"the process {died}")
    if worker.index is not None and time.monotonic() - worker.started > deadline:
        return Lost(f"stopped after {deadline:g} s")
    return None


def _start(work: Callable[[Any], Any], warm: Callable[[], Any] | None = None) -> Worker:
    # A fork would take threads' locks along; a new interpreter starts clean everywhere.
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_serve, args=(work, theirs, warm), daemon=True)
    process.start()
    theirs.close()
    return Worker(process, ours)


def _stop(worker: Worker) -> None:
    worker.process.kill()
    worker.process.join()
    worker.pipe.close()


def _end_with_parent() -> None:
    """A parent that is killed stops nobody, and a call may go on for long."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _serve(
    work: Callable[[Any], Any], pipe: Connection, warm: Callable[[], Any] | None = None
) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent, which stops us
    threading.Thread(target=_end_with_parent, daemon=True).start()
    if warm is not None:
        warm()
    pipe.send(())
    while True:
        try:
            job = pipe.recv()
        except EOFError:
            return
        try:
            pipe.send((work(job),))
        except Exception as error:
            pipe.send(error)
