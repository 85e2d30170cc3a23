"""Around every request of the API: keys, methods, size limits, metrics, a line in the log.

    metrics = new_metrics(service)
    app.add_middleware(guard, service=service, metrics=metrics, methods=methods, keys=keys)

A log line names the request, its route, status and seconds, never a picture, a program or an
address. Other paths, such as those of a page that is mounted beside the API, are left alone.
Bodies are counted as they come. Left out: the routes (routes.py), what errors look like
(errors.py).
"""

from __future__ import annotations

import asyncio
import hmac
import json
import logging
import re
import time
import traceback
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial

from fastapi import HTTPException
from fastapi.responses import JSONResponse
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from image2cad.serving.api.errors import CLIENT_LEFT, answer_to, error
from image2cad.serving.limits import Limits
from image2cad.serving.service import Service

# ---- The log and the metrics

REQUEST_LOG = logging.getLogger("image2cad.requests")
BUCKETS = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 20, 40, 80, 160, 320)  # seconds of a request


@dataclass(frozen=True)
class Metrics:
    """What /metrics shows, in a registry of its own."""

    registry: CollectorRegistry
    requests: Counter
    seconds: Histogram


def log_to_stderr() -> None:
    """Write the log's lines, unless whoever starts the server has said what becomes of them."""
    if not REQUEST_LOG.hasHandlers():
        handler = logging.StreamHandler()
        handler.setFormatter(logging.Formatter("%(message)s"))
        REQUEST_LOG.addHandler(handler)
        REQUEST_LOG.setLevel(logging.INFO)


def new_metrics(service: Service) -> Metrics:
    """Requests by route and status, their seconds, and how many run and wait."""
    registry = CollectorRegistry()

    def now(work: str, number: int) -> float:
        return service.load()[work][number]

    for number, name in enumerate(("running", "waiting")):
        text = f"pictures and programs that are {name}"
        gauge = Gauge(f"image2cad_{name}", text, ["work"], registry=registry)
        for work in service.load():
            gauge.labels(work).set_function(partial(now, work, number))
    ProcessCollector(registry=registry)
    return Metrics(
        registry,
        Counter("image2cad_requests", "requests", ["route", "status"], registry=registry),
        Histogram(
            "image2cad_request_seconds",
            "seconds",
            ["route"],
            buckets=BUCKETS,
            registry=registry,
        ),
    )


@dataclass
class _Seen:
    """What the middleware learns of a request while it is answered."""

    id: str
    route: str
    status: int = 0
    done: bool = False
    left: bool = False
    stream: bool = False
    started: float = field(default_factory=time.perf_counter)


def _trace(exception: Exception) -> list[str]:
    """The kind of exception and where it was; its text may hold what a user sent."""
    frames = traceback.extract_tb(exception.__traceback__)
    return [type(exception).__name__, *(f"{f.filename}:{f.lineno} {f.name}" for f in frames)]


def _record(seen: _Seen, method: str, metrics: Metrics, trace: list[str]) -> None:
    status = CLIENT_LEFT if seen.left else seen.status
    seconds = time.perf_counter() - seen.started
    metrics.requests.labels(seen.route, str(status)).inc()
    metrics.seconds.labels(seen.route).observe(seconds)
    line = {
        "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "request": seen.id,
        "method": method,
        "route": seen.route,
        "status": status,
        "seconds": round(seconds, 3),
        **({"error": trace} if trace else {}),
    }
    REQUEST_LOG.log(logging.ERROR if trace else logging.INFO, json.dumps(line))


# ---- The guard

CHAT_ROUTE = "/v1/chat/completions"  # JSON that may be large, as pictures are
PROGRAM_ROUTES = ("/v1/execute", "/v1/score")  # which take no pictures
REQUEST_ID = re.compile(r"[\w.-]{1,64}")


def guard(
    app: ASGIApp,
    service: Service,
    metrics: Metrics,
    methods: Mapping[str, Sequence[str]],
    keys: Sequence[str],
) -> ASGIApp:
    """Middleware for the paths in `methods`, which says what each of them takes, and all of /v1.

    Only /v1 wants a key. HEAD is answered where GET is; the server leaves the body out.
    """
    bodies = Bodies(service.limits)

    async def guarded(scope: Scope, receive: Receive, send: Send) -> None:
        path = str(scope.get("path", "")).removeprefix(scope.get("root_path", ""))
        if scope["type"] != "http":
            return await app(scope, receive, send)
        if not (path in methods or path.startswith("/v1/")):
            with bodies.counted(receive, service.limits.body_bytes) as counted:
                return await app(scope, counted, send)
        headers = Headers(scope=scope)
        given = headers.get("x-request-id", "")
        name = given if REQUEST_ID.fullmatch(given) else uuid.uuid4().hex
        seen = _Seen(name, path if path in methods else "other")

        async def answer(message: Message) -> None:
            if message["type"] == "http.response.start":
                seen.status = message["status"]
                kind = Headers(raw=message["headers"]).get("content-type", "")
                seen.stream = kind.startswith("text/event-stream")
                message["headers"] = [*message["headers"], (b"x-request-id", name.encode())]
            elif message["type"] == "http.response.body":
                seen.done = not message.get("more_body", False)
            await send(message)

        async def heard() -> Message:
            message = await receive()
            if message["type"] == "http.disconnect":
                seen.left = not seen.done
            return message

        asked = scope["method"]
        if asked == "HEAD":
            scope = {**scope, "method": "GET"}
        taken = methods.get(path, [scope["method"]])
        limits = service.limits
        most = limits.program_body_bytes if path in PROGRAM_ROUTES else limits.body_bytes
        refusal = _refusal(path, headers, most, keys)
        if refusal is None and scope["method"] not in taken:
            refusal = error(405, f"{path} takes {taken[0]}", headers={"Allow": ", ".join(taken)})
        trace: list[str] = []
        try:
            if refusal is not None:
                await refusal(scope, receive, answer)
            else:
                values = limits.values if path == CHAT_ROUTE else float("inf")
                with bodies.counted(heard, most, limits.body_seconds, values) as counted:
                    await app(scope, counted, answer)
        except asyncio.CancelledError:
            # Only a server that stops cancels, when its patience with open requests is over.
            stopping = error(503, "the server is stopping", "stopping")
            if not seen.status:
                await stopping(scope, receive, answer)
            elif seen.stream:
                body = b"data: " + bytes(stopping.body) + b"\n\n"
                await answer({"type": "http.response.body", "body": body})
            else:
                raise
        except Exception as exception:
            trace = _trace(exception)
            if not seen.status:
                await answer_to(exception)(scope, receive, answer)
            seen.status = 500
        finally:
            _record(seen, asked, metrics, trace)

    return guarded


def _refusal(path: str, headers: Headers, most: int, keys: Sequence[str]) -> JSONResponse | None:
    if path.startswith("/v1/") and keys and not _known(headers.get("authorization", ""), keys):
        text = "this server wants a valid key, as Authorization: Bearer KEY"
        return error(401, text, headers={"WWW-Authenticate": "Bearer"})
    length = headers.get("content-length", "")
    if length.isdigit() and int(length) > most:
        return error(413, too_large(most))
    return None


def _known(authorization: str, keys: Sequence[str]) -> bool:
    scheme, _, given = authorization.partition(" ")
    # All keys are compared, each in constant time, so that the time says nothing of them.
    sent = given.strip().encode("latin-1")  # as headers are decoded
    same = [hmac.compare_digest(sent, key.encode()) for key in keys]
    return scheme.lower() == "bearer" and any(same)


# ---- The bodies of requests as they come: bytes and seconds of each, and bytes of all together

SMALL_BODY = 64 << 10  # bytes that are always welcome: programs go on where pictures wait
VALUE_MARKS = (b",", b"[", b"{")  # before a value of JSON; those in texts count as well
RETRY_SECONDS = "5"  # seconds


class Bodies:
    """Counts the bytes of all bodies of a server; for one event loop."""

    def __init__(self, limits: Limits) -> None:
        self.limits, self.held = limits, 0

    @contextmanager
    def counted(
        self,
        receive: Receive,
        most: int,
        seconds: float = float("inf"),
        values: float = float("inf"),
    ) -> Iterator[Receive]:
        """`receive` with limits, as long as the block runs: bytes, and seconds to arrive.

        values: of JSON. Each takes many times the memory of its text, and time to read.
        """
        until, size, marks, whole = time.monotonic() + seconds, 0, 0, False

        async def limited() -> Message:
            nonlocal size, marks, whole
            try:
                left = None if whole else max(until - time.monotonic(), 0.0)
                wait = None if left == float("inf") else left
                message = await asyncio.wait_for(receive(), wait)
            except asyncio.TimeoutError as late:
                text = f"the request did not arrive within {seconds:g} s"
                raise HTTPException(408, text) from late
            body = message.get("body", b"")
            more = len(body)
            whole = not message.get("more_body", False)
            self.held += _large(size + more) - _large(size)
            size += more
            if size > most:
                raise HTTPException(413, too_large(most))
            if values < float("inf"):
                marks += sum(body.count(mark) for mark in VALUE_MARKS)
            if marks > values:
                raise HTTPException(413, f"the request holds over {values:,} values")
            if self.held > self.limits.bodies_bytes and size > SMALL_BODY:
                text = f"too much is being sent at a time; try again in {RETRY_SECONDS} s"
                raise HTTPException(429, text, {"Retry-After": RETRY_SECONDS})
            return message

        try:
            yield limited
        finally:
            self.held -= _large(size)


def too_large(most: int) -> str:
    """What is said of a body of more than `most` bytes."""
    return f"the request is too large: {most:,} bytes are allowed"


def _large(size: int) -> int:
    return max(size - SMALL_BODY, 0)
