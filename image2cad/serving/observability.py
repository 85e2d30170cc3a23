"""What operators see of the service: figures for /metrics, and a log whose every line is JSON.

    figures = new_figures("models/nano")
    figures.seconds.labels("low").observe(8.1)
    with json_log("info") as stdout:                # until the block ends
        print("ready", file=stdout)                 # the one thing that is no log

A line says what was done and how it went, never a picture, a program or an address. Left out:
requests of the API, which are counted and logged where they come in (api/guard.py).
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import platform
import select
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, TextIO

from prometheus_client import CollectorRegistry, Counter, Histogram, Info
from prometheus_client.core import CounterMetricFamily
from prometheus_client.registry import Collector

from image2cad.common import VERSION, Cancelled, InputError, Late
from image2cad.serving.backends import Unreachable
from image2cad.serving.limits import Busy, TooLarge

# ---- Figures

WORK_BUCKETS = (0.1, 0.25, 0.5, 1, 2.5, 5, 10, 20, 40, 80, 160, 320)  # seconds of work
QUEUE_BUCKETS = (0.01, 0.1, 0.5, 1, 2.5, 5, 10, 20, 40, 60)  # seconds before it
WENT_WELL = "ok"  # the outcome of what went well; others are kinds of failures
DEFECT = "defect"  # the kind of what nobody expected
KIND_OF_ERROR: dict[type, str] = {
    TooLarge: "too large",
    InputError: "bad input",
    Busy: "busy",
    Late: "late",
    Cancelled: "cancelled",
    Unreachable: "unreachable",
}
PAGE_LOG = logging.getLogger("image2cad.page")


@dataclass(frozen=True)
class Figures:
    """Of the service, whoever asks it, in a registry of their own.

    seconds: of an answer to a picture, without the queue, by effort. waited: seconds in the queue,
    by work ("pictures", "programs"). failures: by work and kind, the kinds of programs' failures
    (metrics.KINDS) and those of KIND_OF_ERROR. page: what visitors of the page did, by action and
    outcome.
    """

    registry: CollectorRegistry
    seconds: Histogram
    waited: Histogram
    failures: Counter
    page: Counter

    def tell_of_page(self, action: str, outcome: str, seconds: float) -> None:
        """Count what a visitor did, and write it into the log."""
        self.page.labels(action, outcome).inc()
        line = {"action": action, "outcome": outcome, "seconds": round(seconds, 3)}
        PAGE_LOG.info("%s: %s", action, outcome, extra={"fields": line})


class _Restarts(Collector):
    def __init__(self, now: Callable[[], Mapping[str, int]]) -> None:
        self._now = now

    def collect(self) -> Iterable[CounterMetricFamily]:
        text = "worker processes replaced after a crash, a deadline or a client that left"
        family = CounterMetricFamily("image2cad_worker_restarts", text, labels=["work"])
        for work, number in self._now().items():
            family.add_metric([work], number)
        yield family


def new_figures(model: str, restarts: Callable[[], Mapping[str, int]]) -> Figures:
    """Figures that count from nothing. restarts: of worker processes until now, by work."""
    registry = CollectorRegistry()
    build = Info("image2cad_build", "what is running", registry=registry)
    build.info({"version": VERSION, "model": model, "python": platform.python_version()})
    registry.register(_Restarts(restarts))

    def counter(name: str, text: str, *labels: str) -> Counter:
        return Counter(f"image2cad_{name}", text, labels, registry=registry)

    def histogram(name: str, text: str, label: str, buckets: tuple[float, ...]) -> Histogram:
        return Histogram(f"image2cad_{name}", text, [label], buckets=buckets, registry=registry)

    return Figures(
        registry,
        histogram("generate_seconds", "seconds of work on a picture", "effort", WORK_BUCKETS),
        histogram("queue_seconds", "seconds before work begins", "work", QUEUE_BUCKETS),
        counter("failures", "work that did not end well", "work", "kind"),
        counter("page_actions", "what visitors of the page did", "action", "outcome"),
    )


def kind_of(error: BaseException) -> str:
    """The kind of failure that an exception of the service is."""
    return next((KIND_OF_ERROR[c] for c in type(error).__mro__ if c in KIND_OF_ERROR), DEFECT)


# ---- The log

RAW_QUIET = 0.05  # seconds after which what was written to stderr counts as one line of the log
RAW_BYTES = 64 << 10  # at most
RAW_LOOK_SECONDS = 0.5  # between two looks at whether the log ends


class JsonLines(logging.Formatter):
    """A record as a line of JSON: time, level, logger, and its `fields`, or else its message."""

    def format(self, record: logging.LogRecord) -> str:
        fields: dict[str, Any] = getattr(record, "fields", None) or {"message": record.getMessage()}
        line = {
            "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(record.created)),
            "level": record.levelname.lower(),
            "logger": record.name,
            **fields,
        }
        if record.exc_info:
            line["trace"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str)


@contextlib.contextmanager
def json_log(level: str) -> Iterator[TextIO]:
    """All that this process and its children write, as lines of JSON on stderr; gives the stdout.

    level: from which on our own and the server's lines are written; those of other libraries count
    from "warning" on. What is written past logging, tracebacks among it, is wrapped: prints of
    libraries, and C++ in worker processes.
    """
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    kept_out, kept_err = os.dup(1), os.dup(2)
    raw, writer = os.pipe()
    for number in (1, 2):
        os.dup2(writer, number)
    os.close(writer)
    if hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(line_buffering=True)
    stdout = os.fdopen(kept_out, "w", buffering=1, encoding="utf-8")
    log = os.fdopen(kept_err, "w", buffering=1, encoding="utf-8")
    handler = logging.StreamHandler(log)
    handler.setFormatter(JsonLines())
    root, ours = logging.getLogger(), logging.getLogger("image2cad")
    before = root.handlers[:], root.level, ours.level
    lowest = logging.getLevelName(level.upper())
    root.handlers[:] = [handler]
    root.setLevel(max(lowest, logging.WARNING))
    ours.setLevel(lowest)
    logging.captureWarnings(True)
    ended = threading.Event()
    wrapping = threading.Thread(target=_wrap, args=(raw, ended), name="log", daemon=True)
    wrapping.start()
    try:
        yield stdout
    finally:
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        os.dup2(kept_out, 1)
        os.dup2(kept_err, 2)
        ended.set()
        wrapping.join(10 * RAW_LOOK_SECONDS)
        logging.captureWarnings(False)
        root.handlers[:] = before[0]
        root.setLevel(before[1])
        ours.setLevel(before[2])
        stdout.close()
        log.close()


def _wrap(raw: int, ended: threading.Event) -> None:
    """Write what comes from this pipe into the log, what comes together as one line."""
    logger = logging.getLogger("stderr")
    whole = False
    while not whole:
        if not select.select([raw], [], [], RAW_LOOK_SECONDS)[0]:
            whole = ended.is_set()
            continue
        text = b""
        while len(text) < RAW_BYTES and select.select([raw], [], [], RAW_QUIET)[0]:
            more = os.read(raw, RAW_BYTES)
            if not more:  # the last who could write has ended
                whole = True
                break
            text += more
        if said := text.decode("utf-8", "replace").strip():
            logger.warning("%s", said)
    os.close(raw)
