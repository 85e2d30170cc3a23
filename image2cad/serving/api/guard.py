"""Around every request: keys, methods, size limits; for the API metrics and a line in the log.

    metrics = new_metrics(service)
    app.add_middleware(guard, service=service, metrics=metrics, methods=methods, keys=Keys(["one"]))

A log line names the request, its route, status and seconds, never a picture, a program or an
address. The paths of a page that is mounted beside the API have the same limits and no line.
Bodies are counted as they come (bodies.py). Left out: the routes (routes.py), what errors look like
(errors.py), names and pages of other sites (door.py).
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
import re
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector
from starlette.datastructures import Headers
from starlette.requests import ClientDisconnect, cookie_parser
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from image2cad.serving.api.errors import CLIENT_LEFT, answer_to, error, trace_of
from image2cad.serving.bodies import RETRY_SECONDS, Bodies, too_large
from image2cad.serving.keys import Keys, TooManyTries
from image2cad.serving.limits import Limits
from image2cad.serving.observability import WENT_WELL
from image2cad.serving.page.login import (
    LOGIN_PATHS,
    SESSION_COOKIE,
    UPLOAD_PATH,
    address_of,
    at_login,
    is_closed,
    page_limits,
)
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
    level, fields = logging.ERROR if trace else logging.INFO, {"fields": line}
    REQUEST_LOG.log(level, json.dumps(line), extra=fields)


# ---- The guard

# What visitors do that comes to no method of the service, and what the answer's status means.
PAGE_ACTIONS = {UPLOAD_PATH: "upload", **dict.fromkeys(LOGIN_PATHS, "login"), "/logout": "logout"}
PAGE_OUTCOMES = {401: "wrong key", 408: "late", 413: "too large", 422: "bad input", 429: "busy"}
PROGRAM_ROUTES = ("/v1/execute", "/v1/score")  # which take no pictures
DOCS_FILES = "/static-offline-docs/"  # what /docs loads: fastapi_offline's
REQUEST_ID = re.compile(r"[\w.-]{1,64}")


def guard(
    app: ASGIApp,
    service: Service,
    metrics: Metrics,
    methods: Mapping[str, Sequence[str]],
    keys: Keys,
    closed_page: bool = False,
) -> ASGIApp:
    """Middleware for all paths. Those in `methods`, which says what each takes, and /v1 are the
    API's; the others are the page's.

    /v1 wants a key, and so does the page where it is closed. HEAD is answered where GET is; the
    server leaves the body out.
    """
    limits = service.limits
    bodies = Bodies(limits.bodies_bytes)
    guests = Guests(limits)

    async def guarded(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await app(scope, receive, send)
        path, root = str(scope.get("path", "")), scope.get("root_path", "")
        if root and path.startswith(f"{root}/"):
            path = path.removeprefix(root)
        elif root:  # which a proxy has taken off; what is mounted finds nothing without it
            raw = scope.get("raw_path") or path.encode()
            scope = {**scope, "path": root + path, "raw_path": root.encode() + raw}
        headers = Headers(scope=scope)
        shown: str | None = None
        refusal: Response | None = None
        try:
            shown = _key_of(scope, headers, keys)
        except TooManyTries as late:
            refusal = error(429, str(late), headers={"Retry-After": str(late.retry_after)})
        guest = bool(keys) and shown is None
        scope.setdefault("state", {})["guest"] = guest
        scope["state"]["owner"] = hashlib.sha256(shown.encode()).hexdigest() if shown else ""
        budget = guests.bodies if guest else bodies
        costs = path not in methods or path.startswith("/v1/")  # /health is always answered
        with guests.place(guest and costs) as free:
            if not free:
                text = f"too many are here without a key; try again in {RETRY_SECONDS} s"
                refusal = error(429, text, headers={"Retry-After": RETRY_SECONDS})
            if path in methods or path.startswith("/v1/"):
                return await api(scope, receive, send, path, headers, refusal, guest, budget)
            if path in PAGE_ACTIONS and (scope["method"] == "POST" or path == "/logout"):
                send = _told(send, PAGE_ACTIONS[path], service)
            most, values = page_limits(path, limits)
            length = headers.get("content-length", "")
            if refusal is None and length.isdecimal() and int(length) > most:
                refusal = error(413, too_large(most))
            if refusal is None and is_closed(path):
                refusal = error(404, f"there is no {scope['method']} {path} here")
            if refusal is not None:
                return await refusal(scope, receive, send)
            counting = budget.counted(receive, headers, most, service.limits, values)
            # Who leaves while he is sending needs no answer.
            with counting as counted, suppress(ClientDisconnect):
                stranger = guest and not path.startswith(DOCS_FILES)
                if closed_page and (path in LOGIN_PATHS or stranger):
                    return await at_login(scope, counted, send, path, keys)
                await app(scope, counted, send)

    async def api(
        scope: Scope, receive: Receive, send: Send, path: str, headers: Headers,
        refusal: Response | None, guest: bool, budget: Bodies,
    ) -> None:  # fmt: skip
        given = headers.get("x-request-id", "")
        name = given if REQUEST_ID.fullmatch(given) else uuid.uuid4().hex
        seen = _Seen(name, _route_of(path, methods))

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
        refusal = refusal or _refusal(path, headers, most, guest)
        if refusal is None and scope["method"] not in taken:
            refusal = error(405, f"{path} takes {taken[0]}", headers={"Allow": ", ".join(taken)})
        trace: list[str] = []
        try:
            if refusal is not None:
                await refusal(scope, receive, answer)
            else:
                form = headers.get("content-type", "").startswith("multipart/")
                values = float("inf") if form else limits.values
                with budget.counted(heard, headers, most, limits, values) as counted:
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
            trace = trace_of(exception)
            if not seen.status:
                await answer_to(exception)(scope, receive, answer)
            seen.status = 500
        finally:
            _record(seen, asked, metrics, trace)

    return guarded


def _told(send: Send, action: str, service: Service) -> Send:
    """`send`, which tells how an action of the page went when its answer begins."""
    started = time.perf_counter()

    async def telling(message: Message) -> None:
        if message["type"] == "http.response.start":
            status = message["status"]
            outcome = PAGE_OUTCOMES.get(status, str(status)) if status >= 400 else WENT_WELL
            service.figures.tell_of_page(action, outcome, time.perf_counter() - started)
        await send(message)

    return telling


def _route_of(path: str, methods: Mapping[str, Sequence[str]]) -> str:
    """What the log and the metrics call a path: those with a name in it are one."""
    if path.startswith("/v1/jobs/"):
        return "/v1/jobs/{id}"
    return path if path in methods else "other"


def _refusal(path: str, headers: Headers, most: int, guest: bool) -> Response | None:
    if path.startswith("/v1/") and guest:
        text = "this server wants a valid key, as Authorization: Bearer KEY"
        return error(401, text, headers={"WWW-Authenticate": "Bearer"})
    length = headers.get("content-length", "")
    if length.isdecimal() and int(length) > most:
        return error(413, too_large(most))
    return None


def _key_of(scope: Scope, headers: Headers, keys: Keys) -> str | None:
    """What shows that a request comes from who has a key: the key, or the page's session.

    Raises TooManyTries.
    """
    if not keys:
        return None
    scheme, _, given = headers.get("authorization", "").partition(" ")
    if scheme.lower() == "bearer" and given.strip():
        sent = given.strip().encode("latin-1").decode("utf-8", "replace")  # as headers are decoded
        return keys.known(sent, address_of(scope))
    cookie = cookie_parser(headers.get("cookie", "")).get(SESSION_COOKIE, "")
    return cookie if keys.in_session(cookie) else None


class Guests:
    """What those who have shown no key may take of the server, where there are keys."""

    def __init__(self, limits: Limits) -> None:
        self.bodies = Bodies(limits.guest_bodies_bytes)
        self._most, self._open = limits.guest_requests, 0

    @contextmanager
    def place(self, guest: bool) -> Iterator[bool]:
        """Whether there is room for a request; it has its place as long as the block runs."""
        self._open += guest
        try:
            yield not guest or self._open <= self._most
        finally:
            self._open -= guest
