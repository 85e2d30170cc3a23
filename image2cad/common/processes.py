"""Calls in processes of their own, which can be stopped: over many inputs, or one by one.

    for index, answer in each(work, jobs, workers=2, deadline=20):
        ...                                     # answer: what work(job) returned, or Lost

    pool = Pool(2)                              # processes that stay warm, for a server
    answer = pool.call(work, job, stop=Stop.after(60))
    pool.close()

For work that can hang or crash inside a C++ library: such a call costs its job
and a new process, never the run. `work` must be importable by name; jobs and
answers are pickled, so this is no sandbox: generated code runs in
`metrics/execution.py` only.

Each process has a pipe of its own, so that one which dies with half an answer in it harms no
other call; pools that share one (multiprocessing, concurrent.futures, pebble) break or hang then,
and where a process is killed while it is idle.
"""

from __future__ import annotations

import contextlib
import math
import multiprocessing
import os
import queue
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from multiprocessing.connection import Connection
from typing import Any

from image2cad.common.stopping import NEVER, Late, Stop

TICK = 0.1  # seconds between two looks at whether a call is to be stopped


@dataclass(frozen=True)
class Lost:
    """A call without an answer, and why in one line."""

    reason: str


@dataclass
class Worker:
    """One process. warm: it has said that it is ready. busy: that it has begun a call."""

    process: Any
    pipe: Connection
    warm: bool = False
    busy: bool = False


def each(
    work: Callable[[Any], Any],
    jobs: Sequence[Any],
    workers: int,
    deadline: float,
    warm: Callable[[], Any] | None = None,
) -> Iterator[tuple[int, Any]]:
    """(index, answer) for every job, in the order in which they end.

    deadline: seconds of wall time a call, from when its process is ready. What `work`
    raises is raised here: expected failures are for `work` to return. warm: see `Pool`.
    """
    if not jobs:
        return
    size = min(workers, len(jobs))
    # A process is ready when it has imported what `work` needs, which the deadline leaves out.
    pool, threads = Pool(size, warm or partial(callable, work)), ThreadPoolExecutor(size)
    ended: queue.SimpleQueue[Future[Any]] = queue.SimpleQueue()

    def answer_to(job: Any) -> Any:
        try:
            return pool._answer(work, (job,), NEVER, deadline)
        except Late as late:
            return Lost(str(late))

    try:
        index_of = {threads.submit(answer_to, job): index for index, job in enumerate(jobs)}
        for future in index_of:
            future.add_done_callback(ended.put)
        for _ in jobs:
            future = ended.get()
            yield index_of[future], future.result()
    finally:
        threads.shutdown(wait=False, cancel_futures=True)
        pool.close()


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
        # One process a core already keeps all cores busy; read by the processes that start now.
        os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
        self.restarts = 0  # processes that took the place of one that ended
        self._idle: queue.SimpleQueue[Worker] = queue.SimpleQueue()
        self._all = [_start(warm) for _ in range(size)]
        for worker in self._all:
            self._idle.put(worker)

    def call(self, work: Callable[..., Any], *arguments: Any, stop: Stop = NEVER) -> Any:
        """What work(*arguments) returns or raises, or Lost if its process died.

        Raises Late or Cancelled when `stop` says so; that ends the call and its process. Raises
        RuntimeError where processes do not start, and when the pool is closed.
        """
        return self._answer(work, arguments, stop)

    def _answer(
        self,
        work: Callable[..., Any],
        arguments: tuple[Any, ...],
        stop: Stop,
        seconds: float = math.inf,
    ) -> Any:
        """As `call`. seconds: that the call may take, from when its process is ready."""
        worker, answer = self._free(stop), None
        try:
            answer = _ask(worker, (work, arguments), stop, seconds)
            if isinstance(answer, Lost) and not worker.busy:  # it may have died while it was idle
                worker = self._replaced(worker)
                answer = _ask(worker, (work, arguments), stop, seconds)
            if isinstance(answer, Lost) and not worker.busy and worker.process.exitcode >= 0:
                raise RuntimeError(f"a worker process does not start: {answer.reason}")
        finally:
            if answer is None or isinstance(answer, Lost):
                with contextlib.suppress(OSError):  # no memory: the next call tries again
                    worker = self._replaced(worker)
            worker.busy = False
            self._idle.put(worker)
        if isinstance(answer, BaseException):
            raise answer
        return answer[0] if isinstance(answer, tuple) else answer

    def ready(self) -> bool:
        """Whether a process has started and is warm. Replaces those that died while idle."""
        self._revive()
        with self._lock, contextlib.suppress(OSError):  # a pipe that is closed as we look
            return not self._closed and any(
                worker.process.is_alive() and (worker.warm or worker.pipe.poll())
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
            _end(self._idle.get())

    def _free(self, stop: Stop) -> Worker:
        while True:
            stop.check()
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
                    with contextlib.suppress(OSError):  # no memory: the next look tries again
                        worker = self._replaced(worker)
            finally:
                self._idle.put(worker)

    def _replaced(self, worker: Worker) -> Worker:
        """A new process in the place of one that ends; the old one once the pool is closed."""
        _end(worker)
        with self._lock:
            if self._closed:
                return worker
            new = _start(self._warm)
            self._all[self._all.index(worker)] = new
            self.restarts += 1
            return new


# ---- A process as its parent sees it


def _start(warm: Callable[[], Any] | None) -> Worker:
    # A fork would take threads' locks along; a new interpreter starts clean everywhere.
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_serve, args=(theirs, warm), daemon=True)
    process.start()
    theirs.close()
    return Worker(process, ours)


def _ask(worker: Worker, job: tuple[Any, ...], stop: Stop, seconds: float) -> Any:
    """A tuple of one answer, what the work raised, or Lost."""
    try:
        if not worker.warm:
            answer = _hear(worker, stop)
            if isinstance(answer, Lost):
                return answer
            worker.warm = True
        worker.pipe.send(job)
        stop = stop.within(seconds)
        answer = _hear(worker, stop)
        if isinstance(answer, Lost):
            return answer
        worker.busy = True
        return _hear(worker, stop)
    except OSError:  # its end of the pipe is closed
        return _obituary(worker)


def _hear(worker: Worker, stop: Stop) -> Any:
    """The next thing that the process says, or Lost."""
    while not worker.pipe.poll():
        stop.check()
        worker.pipe.poll(TICK)
    try:
        return worker.pipe.recv()
    except (EOFError, OSError):  # OSError: it died with half an answer in the pipe
        return _obituary(worker)


def _obituary(worker: Worker) -> Lost:
    worker.process.join()
    while (code := worker.process.exitcode) is None:  # another thread is just being told
        time.sleep(0.001)
    died = f"died of {signal.Signals(-code).name}" if code < 0 else f"ended with {code}"
    return Lost(f"the process {died}")


def _end(worker: Worker) -> None:
    worker.process.kill()
    worker.process.join()
    worker.pipe.close()


# ---- A process as it sees itself


def _serve(pipe: Connection, warm: Callable[[], Any] | None) -> None:
    """Say that this process is ready; for each call say that it has begun, then the answer."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent, which stops us
    threading.Thread(target=_end_with_parent, daemon=True).start()
    if warm is not None:
        warm()
    pipe.send(())
    while True:
        try:
            work, arguments = pipe.recv()
        except EOFError:
            return
        pipe.send(())
        try:
            pipe.send((work(*arguments),))
        except Exception as error:
            pipe.send(error)


def _end_with_parent() -> None:
    """A parent that is killed stops nobody, and a call may go on for long."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
