"""Around every request of the API: keys, methods, size limits, metrics, a line in the log.

    metrics = new_metrics(service)
    app.add_middleware(guard, service=service, metrics=metrics, methods=methods, keys=keys)

A log line names the request, its route, status and seconds, never a picture, a program or an
address. Other paths, such as those of a page that is mounted beside the API, are left alone.
Left out: the routes (api.py), and what errors look like (api_errors.py).
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
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

from fastapi import HTTPException
from fastapi.responses import JSONResponse
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from image2cad.api_errors import CLIENT_LEFT, answer_to, error
from image2cad.limits import Limits
from image2cad.service import Service

LOG = logging.getLogger("image2cad.requests")
BUCKETS = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 20, 40, 80, 160, 320)  # seconds
IDENTIFIER = re.compile(r"[\w.-]{1,64}")


@dataclass(frozen=True)
class Metrics:
    """What /metrics shows, in a registry of its own."""

    registry: CollectorRegistry
    requests: Counter
    seconds: Histogram


def log_to_stderr() -> None:
    """Write the log's lines, unless whoever starts the server has said what becomes of them."""
    if not LOG.hasHandlers():
        handler = logging.StreamHandler()
        handler.setFormatter(logging.Formatter("%(message)s"))
        LOG.addHandler(handler)
        LOG.setLevel(logging.INFO)


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
            "image2cad_request_seconds", "seconds", ["route"], buckets=BUCKETS, registry=registry
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
    started: float = field(default_factory=time.perf_counter)


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

    async def guarded(scope: Scope, receive: Receive, send: Send) -> None:
        path = str(scope.get("path", "")).removeprefix(scope.get("root_path", ""))
        if scope["type"] != "http":
            return await app(scope, receive, send)
        if not (path in methods or path.startswith("/v1/")):
            return await app(scope, _counted(receive, service.limits), send)
        headers = Headers(scope=scope)
        given = headers.get("x-request-id", "")
        name = given if IDENTIFIER.fullmatch(given) else uuid.uuid4().hex
        seen = _Seen(name, path if path in methods else "other")

        async def answer(message: Message) -> None:
            if message["type"] == "http.response.start":
                seen.status = message["status"]
                message["headers"] = [*message["headers"], (b"x-request-id", name.encode())]
            elif message["type"] == "http.response.body":
                seen.done = not message.get("more_body", False)
            await send(message)

        asked = scope["method"]
        if asked == "HEAD":
            scope = {**scope, "method": "GET"}
        taken = methods.get(path, [scope["method"]])
        refusal = _refusal(path, headers, service.limits, keys)
        if refusal is None and scope["method"] not in taken:
            refusal = error(405, f"{path} takes {taken[0]}", headers={"Allow": ", ".join(taken)})
        trace: list[str] = []
        try:
            if refusal is not None:
                await refusal(scope, receive, answer)
            else:
                await app(scope, _limited(receive, service.limits, seen), answer)
        except asyncio.CancelledError:
            # Only a server that stops cancels, when its patience with open requests is over.
            if seen.status:
                raise
            await error(503, "the server is stopping", "stopping")(scope, receive, answer)
        except Exception as exception:
            trace = _trace(exception)
            if not seen.status:
                await answer_to(exception)(scope, receive, answer)
            seen.status = 500
        finally:
            _record(seen, asked, metrics, trace)

    return guarded


def _refusal(
    path: str, headers: Headers, limits: Limits, keys: Sequence[str]
) -> JSONResponse | None:
    if path.startswith("/v1/") and keys and not _known(headers.get("authorization", ""), keys):
        text = "this server wants a valid key, as Authorization: Bearer KEY"
        return error(401, text, headers={"WWW-Authenticate": "Bearer"})
    length = headers.get("content-length", "")
    if length.isdigit() and int(length) > limits.body_bytes:
        return error(413, _too_large(limits))
    return None


def _known(authorization: str, keys: Sequence[str]) -> bool:
    scheme, _, given = authorization.partition(" ")
    # All keys are compared, each in constant time, so that the time says nothing of them.
    sent = given.strip().encode("latin-1")  # as headers are decoded
    same = [hmac.compare_digest(sent, key.encode()) for key in keys]
    return scheme.lower() == "bearer" and any(same)


def _limited(receive: Receive, limits: Limits, seen: _Seen) -> Receive:
    """`receive` that counts the bytes of the body as they come, and the seconds."""
    until = time.monotonic() + limits.body_seconds
    size, whole = 0, False

    async def limited() -> Message:
        nonlocal size, whole
        try:
            left = None if whole else max(until - time.monotonic(), 0.0)
            message = await asyncio.wait_for(receive(), left)
        except asyncio.TimeoutError as late:
            text = f"the request did not arrive within {limits.body_seconds:g} s"
            raise HTTPException(408, text) from late
        if message["type"] == "http.disconnect":
            seen.left = not seen.done
            whole = True
        else:
            size += len(message.get("body", b""))
            whole = not message.get("more_body", False)
            if size > limits.body_bytes:
                raise HTTPException(413, _too_large(limits))
        return message

    return limited


def _counted(receive: Receive, limits: Limits) -> Receive:
    """`receive` that counts the bytes of the body as they come, for the page's own requests."""
    size = 0

    async def counted() -> Message:
        nonlocal size
        message = await receive()
        size += len(message.get("body", b""))
        if size > limits.body_bytes:
            raise HTTPException(413, _too_large(limits))
        return message

    return counted


def _too_large(limits: Limits) -> str:
    return f"the request is too large: {limits.body_bytes:,} bytes are allowed"


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
    LOG.log(logging.ERROR if trace else logging.INFO, json.dumps(line))
