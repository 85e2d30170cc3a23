"""Long work as jobs that are kept on disk: taken at once, done when there is room, fetched later.

    jobs = StoredJobs(service, "jobs.sqlite")
    jobs.start()                                # what a server before has not ended is done again
    job = jobs.put(order, owner="", again="my-1")   # the same again: the same job
    jobs.get(job.id)

They wait behind all requests that are answered at once. Pictures are kept until their job has
ended, answers for `jobs_seconds`. A file is used by one server at a time. Left out: HTTP
(routes.py).
"""

from __future__ import annotations

import hashlib
import json
import logging
import sqlite3
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from fastapi import HTTPException

from image2cad.common import Cancelled, InputError, Stop
from image2cad.serving.api.errors import answer_to, trace_of
from image2cad.serving.api.orders import Order, filled, found
from image2cad.serving.api.schemas import JOB_STATES
from image2cad.serving.limits import Busy
from image2cad.serving.service import Service

QUEUED, RUNNING, DONE, FAILED, CALLED_OFF = JOB_STATES
LOOK_FOR_JOBS_SECONDS = (
    1.0  # between two looks for what waits, where nothing says that there is some
)
LONGEST_RETRY = 5.0  # seconds, where the service is busy
SWEEP_JOBS_SECONDS = 60.0  # between two looks for what is too old
RETRY_JOBS = 30  # seconds, for who comes when too many wait
MOST_AGAIN_LETTERS = 255  # of an Idempotency-Key
SCHEMA = """
CREATE TABLE IF NOT EXISTS jobs (
    id TEXT PRIMARY KEY, owner TEXT NOT NULL, again TEXT, mark TEXT NOT NULL, asked TEXT NOT NULL,
    status TEXT NOT NULL, made REAL NOT NULL, ended REAL, answer TEXT, problem TEXT,
    bytes INTEGER NOT NULL
);
CREATE UNIQUE INDEX IF NOT EXISTS once ON jobs (owner, again) WHERE again IS NOT NULL;
CREATE TABLE IF NOT EXISTS pictures (
    job TEXT NOT NULL REFERENCES jobs (id) ON DELETE CASCADE, number INTEGER NOT NULL,
    data BLOB NOT NULL
);
CREATE INDEX IF NOT EXISTS of_job ON pictures (job);
"""
JOBS_LOG = logging.getLogger("image2cad.requests")


@dataclass(frozen=True)
class StoredJob:
    """A job as it stands. answer: the fields of `Found`. problem: as errors are sent.

    share, doing: how far it is. made, ended: seconds since 1970. name: of the picture.
    """

    id: str
    status: str
    made: float
    ended: float | None
    answer: dict[str, Any] | None
    problem: dict[str, Any] | None
    share: float
    doing: str
    name: str


class StoredJobs:
    """The jobs of a server, in a file; for many threads."""

    def __init__(self, service: Service, file: str | Path) -> None:
        """file: is made where there is none; ":memory:" forgets all when the server stops.

        Raises InputError for a file that holds something else, or that another server uses.
        """
        self._service, self._limits = service, service.limits
        self._lock, self._change = threading.RLock(), threading.Condition()
        self._closed = threading.Event()
        self._cancelled: dict[str, threading.Event] = {}
        self._progress: dict[str, tuple[float, str]] = {}
        self._threads: list[threading.Thread] = []
        self._swept, self._started = 0.0, False
        try:
            if str(file) != ":memory:":
                Path(file).touch(0o600)  # it holds what people sent
            self._base = sqlite3.connect(str(file), timeout=2.0, check_same_thread=False)
            self._base.execute("PRAGMA foreign_keys = ON")
            self._base.execute("PRAGMA locking_mode = EXCLUSIVE")
            self._base.execute("PRAGMA secure_delete = ON")
            self._base.executescript(SCHEMA)
            with self._base:  # takes the lock, and keeps it
                self._base.execute("UPDATE jobs SET status = ? WHERE status = ?", (QUEUED, RUNNING))
        except (sqlite3.Error, OSError) as error:
            raise InputError(f"the file of jobs {file} cannot be used: {error}") from error

    def start(self) -> None:
        """Begin to do what waits, a picture a core."""
        self._started = True
        with self._lock:
            found = self._base.execute("SELECT 1 FROM jobs WHERE status = ?", (QUEUED,)).fetchone()
        if found:
            self._go_on()

    def _go_on(self) -> None:
        """Have threads at work, from the first job on."""
        with self._change:
            if self._started and not self._threads and not self._closed.is_set():
                self._service = self._service.for_guests()  # behind who waits for his answer
                for number in range(self._service.workers):
                    work = threading.Thread(target=self._work_always, name=f"job_{number}")
                    work.daemon = True
                    self._threads.append(work)
                    work.start()
            self._change.notify()

    def close(self) -> None:
        """Stop; what is not done yet waits for the next server."""
        self._closed.set()
        with self._change:
            self._change.notify_all()
        for thread in self._threads:
            thread.join(LONGEST_RETRY)
        with self._lock:
            self._base.close()

    def put(self, order: Order, owner: str, again: str | None) -> tuple[StoredJob, bool]:
        """The job for an order, and whether it is new.

        again: an Idempotency-Key; the same from the same owner gives the same job. Raises
        HTTPException 409 where it came with another order, Busy where too many wait.
        """
        asked = json.dumps(
            {name: value for name, value in vars(order).items() if name != "pictures"}
        )
        marks = [hashlib.sha256(data).hexdigest() for data in order.pictures]
        mark = hashlib.sha256("".join([asked, *marks]).encode()).hexdigest()
        size = sum(map(len, order.pictures))
        self._sweep()
        with self._transaction() as base:
            if again is not None:
                known = base.execute(
                    "SELECT id, mark FROM jobs WHERE owner = ? AND again = ?", (owner, again)
                ).fetchone()
                if known is not None and known[1] != mark:
                    raise HTTPException(409, "this Idempotency-Key came with another request")
                if known is not None:
                    return self._job(known[0]), False
            waiting = base.execute(
                "SELECT count(*) FROM jobs WHERE status IN (?, ?)", (QUEUED, RUNNING)
            ).fetchone()[0]
            if waiting >= self._limits.jobs or not self._make_room(size):
                raise Busy(RETRY_JOBS)
            name = uuid.uuid4().hex
            row = (name, owner, again, mark, asked, QUEUED, time.time(), size)
            base.execute(
                "INSERT INTO jobs (id, owner, again, mark, asked, status, made, bytes) "
                "VALUES (?, ?, ?, ?, ?, ?, ?, ?)", row,
            )  # fmt: skip
            pictures = [(name, number, data) for number, data in enumerate(order.pictures)]
            base.executemany("INSERT INTO pictures VALUES (?, ?, ?)", pictures)
            job = self._job(name)
        self._go_on()
        return job, True

    def get(self, name: str) -> StoredJob | None:
        """The job of that id, if it is kept."""
        self._sweep()
        with self._lock:
            return self._known(name)

    def cancel(self, name: str) -> StoredJob | None:
        """The job, which is not done any more unless it has ended; None where there is none."""
        with self._transaction() as base:
            base.execute(
                "UPDATE jobs SET status = ?, ended = ? WHERE id = ? AND status IN (?, ?)",
                (CALLED_OFF, time.time(), name, QUEUED, RUNNING),
            )
            self._forget_pictures(name)
            job = self._known(name)
        running = self._cancelled.get(name)
        if running is not None and job is not None and job.status == CALLED_OFF:
            running.set()
        return job

    # ---- The work

    def _work_always(self) -> None:
        while not self._closed.is_set():
            name = self._next()
            if name is None:
                with self._change:
                    self._change.wait(LOOK_FOR_JOBS_SECONDS)
                continue
            try:
                self._work(name)
            finally:
                self._cancelled.pop(name, None)
                self._progress.pop(name, None)

    def _next(self) -> str | None:
        with self._transaction() as base:
            if self._closed.is_set():
                return None
            row = base.execute(
                "SELECT id FROM jobs WHERE status = ? ORDER BY made, rowid LIMIT 1", (QUEUED,)
            ).fetchone()
            if row is None:
                return None
            self._cancelled[row[0]] = threading.Event()
            base.execute("UPDATE jobs SET status = ? WHERE id = ?", (RUNNING, row[0]))
            return str(row[0])

    def _work(self, name: str) -> None:
        cancelled = self._cancelled[name]
        stop = Stop(wanted=lambda: not (cancelled.is_set() or self._closed.is_set()))
        try:
            made = filled(self._service, self._order(name), partial(self._tell, name), stop)
            self._end(name, DONE, answer=found(made).model_dump_json())
        except Busy as busy:  # it waits on, behind those who are answered at once
            self._set(name, QUEUED)
            cancelled.wait(min(busy.retry_after, LONGEST_RETRY))
        except Cancelled:  # it was cancelled, or goes on when the server is started again
            if not cancelled.is_set():
                self._set(name, QUEUED)
        except Exception as exception:
            answer = answer_to(exception)
            if answer.status_code == 500:
                line = {"job": name, "error": trace_of(exception)}
                JOBS_LOG.error(json.dumps(line))
            self._end(name, FAILED, problem=bytes(answer.body).decode())

    def _tell(self, name: str, share: float, text: str) -> None:
        self._progress[name] = (share, text)

    def _order(self, name: str) -> Order:
        with self._lock:
            (asked,) = self._base.execute("SELECT asked FROM jobs WHERE id = ?", (name,)).fetchone()
            rows = self._base.execute(
                "SELECT data FROM pictures WHERE job = ? ORDER BY number", (name,)
            ).fetchall()
        fields = json.loads(asked)
        fields |= {"kinds": tuple(fields["kinds"]), "notes": tuple(fields["notes"])}
        return Order(tuple(data for (data,) in rows), **fields)

    # ---- What is kept

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        with self._lock, self._base:
            yield self._base

    def _known(self, name: str) -> StoredJob | None:
        known = self._base.execute("SELECT 1 FROM jobs WHERE id = ?", (name,)).fetchone()
        return self._job(name) if known else None

    def _job(self, name: str) -> StoredJob:
        row = self._base.execute(
            "SELECT status, made, ended, answer, problem, asked FROM jobs WHERE id = ?", (name,)
        ).fetchone()
        status, made, ended, answer, problem, asked = row
        share, doing = self._progress.get(name, (0.0, "")) if status == RUNNING else (0.0, "")
        return StoredJob(
            name, status, made, ended, json.loads(answer) if answer else None,
            json.loads(problem)["error"] if problem else None,
            1.0 if status == DONE else share, doing, json.loads(asked)["name"],
        )  # fmt: skip

    def _set(self, name: str, status: str) -> None:
        with self._transaction() as base:
            base.execute(
                "UPDATE jobs SET status = ? WHERE id = ? AND status = ?", (status, name, RUNNING)
            )

    def _end(
        self, name: str, status: str, answer: str | None = None, problem: str | None = None
    ) -> None:
        size = len(answer or problem or "")
        with self._transaction() as base:
            base.execute(
                "UPDATE jobs SET status = ?, ended = ?, answer = ?, problem = ?, bytes = ? "
                "WHERE id = ? AND status = ?",
                (status, time.time(), answer, problem, size, name, RUNNING),
            )
            self._forget_pictures(name)

    def _forget_pictures(self, name: str) -> None:
        self._base.execute("DELETE FROM pictures WHERE job = ?", (name,))

    def _sweep(self) -> None:
        """Remove what has ended and is too old."""
        now = time.time()
        if now - self._swept < min(SWEEP_JOBS_SECONDS, self._limits.jobs_seconds):
            return
        self._swept = now
        with self._transaction() as base:
            base.execute("DELETE FROM jobs WHERE ended < ?", (now - self._limits.jobs_seconds,))

    def _make_room(self, size: int) -> bool:
        """Whether so many bytes may be added, once the oldest that have ended are gone."""
        base, most = self._base, self._limits.jobs_bytes
        (held,) = base.execute("SELECT coalesce(sum(bytes), 0) FROM jobs").fetchone()
        ended = base.execute(
            "SELECT id, bytes FROM jobs WHERE ended IS NOT NULL ORDER BY ended"
        ).fetchall()
        for name, one in ended:
            if held + size <= most:
                break
            base.execute("DELETE FROM jobs WHERE id = ?", (name,))
            held -= one
        return bool(held + size <= most)
