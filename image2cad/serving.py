"""Around every request of the API: keys, size limits, metrics, a line in the log, errors as JSON.

    metrics = new_metrics(service)
    app.add_middleware(guard, service=service, metrics=metrics, paths=paths, keys=keys)
    answer_errors(app)

A log line names the request, its route, status and seconds, never a picture, a program or an
address. Other paths, such as those of a page that is mounted beside the API, are left alone.
Left out: the routes (api.py).
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
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

from fastapi import FastAPI, HTTPException, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException as StarletteHTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from image2cad.backends import Unreachable
from image2cad.errors import InputError
from image2cad.limits import Limits, TooLarge
from image2cad.service import Busy, Cancelled, Late, Service

LOG = logging.getLogger("image2cad.requests")
CLIENT_LEFT = 499  # in logs and metrics only, as nobody is there to read it
ERRORS = {  # status -> OpenAI's type of error, and our code
    400: ("invalid_request_error", "bad_request"),
    401: ("authentication_error", "invalid_api_key"),
    404: ("invalid_request_error", "not_found"),
    405: ("invalid_request_error", "method_not_allowed"),
    408: ("invalid_request_error", "too_slow"),
    413: ("invalid_request_error", "too_large"),
    422: ("invalid_request_error", "invalid_input"),
    429: ("rate_limit_error", "busy"),
    CLIENT_LEFT: ("invalid_request_error", "client_left"),
    502: ("server_error", "backend_unreachable"),
    503: ("server_error", "not_ready"),
    504: ("server_error", "deadline"),
}
STATUS: dict[type, int] = {
    InputError: 422,
    TooLarge: 413,
    Unreachable: 502,
    Busy: 429,
    Late: 504,
    Cancelled: CLIENT_LEFT,
}
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


def error(
    status: int, message: str, code: str = "", headers: Mapping[str, str] | None = None
) -> JSONResponse:
    """An error in OpenAI's shape."""
    kind, usual = ERRORS.get(status, ("server_error", "internal_error"))
    # A surrogate in what came in would make the answer impossible to encode.
    text = message.encode("utf-8", "replace").decode()
    body = {"error": {"message": text, "type": kind, "code": code or usual}}
    return JSONResponse(body, status, headers)


def answer_to(exception: Exception) -> JSONResponse:
    """The answer that says what an exception of the service means."""
    status = next((STATUS[kind] for kind in type(exception).__mro__ if kind in STATUS), 500)
    wait = {"Retry-After": str(exception.retry_after)} if isinstance(exception, Busy) else None
    # The text of an exception that nobody expected may hold anything.
    text = str(exception) if status != 500 else "an error of ours; the log says more"
    return error(status, text, headers=wait)


def answer_errors(app: FastAPI) -> None:
    """Let every expected exception become a status and a clear message."""

    async def ours(_: Request, exception: Exception) -> JSONResponse:
        return answer_to(exception)

    for kind in STATUS:
        app.add_exception_handler(kind, ours)

    @app.exception_handler(StarletteHTTPException)
    async def http(_: Request, exception: StarletteHTTPException) -> JSONResponse:
        return error(exception.status_code, str(exception.detail), headers=exception.headers)

    @app.exception_handler(RequestValidationError)
    async def invalid(_: Request, exception: RequestValidationError) -> JSONResponse:
        # Without the input, which may be a picture.
        faults = [
            f"{'.'.join(map(str, fault['loc'][1:])) or 'body'}: {fault['msg']}"
            for fault in exception.errors()
        ]
        return error(422, "; ".join(faults[:5]))


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
    paths: Collection[str],
    keys: Sequence[str],
) -> ASGIApp:
    """Middleware for the paths named and all of /v1; only the latter want a key."""

    async def guarded(scope: Scope, receive: Receive, send: Send) -> None:
        path = str(scope.get("path", "")).removeprefix(scope.get("root_path", ""))
        if scope["type"] != "http":
            return await app(scope, receive, send)
        if not (path in paths or path.startswith("/v1/")):
            return await app(scope, _counted(receive, service.limits), send)
        headers = Headers(scope=scope)
        given = headers.get("x-request-id", "")
        name = given if IDENTIFIER.fullmatch(given) else uuid.uuid4().hex
        seen = _Seen(name, path if path in paths else "other")

        async def answer(message: Message) -> None:
            if message["type"] == "http.response.start":
                seen.status = message["status"]
                message["headers"] = [*message["headers"], (b"x-request-id", name.encode())]
            elif message["type"] == "http.response.body":
                seen.done = not message.get("more_body", False)
            await send(message)

        refusal = _refusal(path, headers, service.limits, keys)
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
            _record(seen, scope["method"], metrics, trace)

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
