"""A function over many inputs in processes of its own, each call with a deadline.

    for index, answer in each(work, jobs, workers=2, deadline=20):
        ...                                     # answer: what work(job) returned, or Lost

For work that can hang or crash inside a C++ library: such a call costs its job
and a new process, never the run. `work` must be importable by name; jobs and
answers are pickled, so this is no sandbox: generated code runs in
`metrics/execution.py` only.
"""

from __future__ import annotations

import multiprocessing
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from typing import Any


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


def _answer(worker: Worker, deadline: float) -> Any:
    """A tuple of one answer, an exception, Lost, or None while there is nothing yet."""
    if worker.pipe.poll():
        try:
            return worker.pipe.recv()
        except EOFError:
            worker.process.join()
            code = worker.process.exitcode
            died = f"died of {signal.Signals(-code).name}" if code < 0 else f"ended with {code}"
            return Lost(f"the process {died}")
    if worker.index is not None and time.monotonic() - worker.started > deadline:
        return Lost(f"stopped after {deadline:g} s")
    return None


def _start(work: Callable[[Any], Any]) -> Worker:
    # A fork would take threads' locks along; a new interpreter starts clean everywhere.
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_serve, args=(work, theirs), daemon=True)
    process.start()
    theirs.close()
    return Worker(process, ours)


def _stop(worker: Worker) -> None:
    worker.pipe.close()
    worker.process.kill()
    worker.process.join()


def _serve(work: Callable[[Any], Any], pipe: Connection) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent, which stops us
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
            return
