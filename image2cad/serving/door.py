"""The door of the server, before every path of API and page: whose requests are taken, and headers.

    app.add_middleware(Door, limits=limits, names=["cad.example.org"], origins=[])

It refuses what comes by a name that is not this server's (another site may make its own name lead
here, which is called DNS rebinding), and what a page of another site sends; every answer says what
browsers may do with it. Who is refused while he is still sending gets to read why. Left out: keys
and what a path takes (api/guard.py), bytes and seconds of a body (bodies.py).
"""

from __future__ import annotations

import asyncio
import ipaddress
import time
from collections.abc import Callable, Sequence
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from image2cad.serving.api.errors import error
from image2cad.serving.bodies import has_body
from image2cad.serving.limits import Limits

# What the page needs: gradio's own scripts stand in it, and it makes functions from text and
# pictures from memory. Nothing comes from elsewhere and nothing goes there, whatever text is shown.
CONTENT_POLICY = (
    "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval' blob:; "
    "style-src 'self' 'unsafe-inline'; img-src 'self' data: blob:; font-src 'self' data:; "
    "connect-src 'self' data: blob:; media-src 'self' data: blob:; worker-src 'self' blob:; "
    "object-src 'none'; base-uri 'self'; form-action 'self'; frame-ancestors {}"
)
HEADERS = {
    "x-content-type-options": "nosniff",
    "referrer-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "permissions-policy": "camera=(), microphone=(), geolocation=()",
}
SAFE_METHODS = ("GET", "HEAD", "OPTIONS")
LINGER_IDLE = 2.0  # seconds without a byte after which a sender is taken to have stopped
MOST_LINGERING = 64  # senders whose bodies are read and thrown away at a time


class Door:
    """ASGI middleware."""

    def __init__(
        self,
        app: ASGIApp,
        limits: Limits,
        names: Sequence[str] = ("*",),
        origins: Sequence[str] = (),
    ) -> None:
        """names: of this server, "example.org" or "*.example.org"; "*": any.

        An address of numbers is always welcome, because nobody can make one lead elsewhere.
        origins: of pages elsewhere that may send to this server and show it in a frame, such as
        "https://example.org"; "*": any.
        """
        self.app, self.limits, self.origins = app, limits, origins
        self.named = TrustedHostMiddleware(app, list(names), www_redirect=False)
        self.lingering = 0
        frames = "*" if "*" in origins else " ".join(["'self'", *origins])
        self.headers = {**HEADERS, "content-security-policy": CONTENT_POLICY.format(frames)}
        if not origins:
            self.headers["x-frame-options"] = "SAMEORIGIN"  # for what does not know the policy

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        headers = Headers(scope=scope)
        whole, status = not has_body(headers), 0

        async def heard() -> Message:
            nonlocal whole
            message = await receive()
            whole = whole or not message.get("more_body", False)  # so it is when one has left
            return message

        async def said(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                answer = MutableHeaders(scope=message)
                for name, value in self.headers.items():
                    answer.setdefault(name, value)
            last = message["type"] == "http.response.body" and not message.get("more_body", False)
            # Who waits for "100 Continue" has sent nothing yet.
            if last and not whole and status >= 400 and "expect" not in headers:
                await send({**message, "more_body": True})
                await self._linger(heard, lambda: whole)
                message = {"type": "http.response.body", "body": b""}
            await send(message)

        if scope["method"] not in SAFE_METHODS and not self._ours(headers):
            text = "a page of another site sent this; let it in with --origins if it should"
            return await error(403, text)(scope, heard, said)
        app = self.app if _is_address(headers.get("host", "")) else self.named
        await app(scope, heard, said)

    def _ours(self, headers: Headers) -> bool:
        """Whether a request comes from a page of this server, or from no page at all."""
        origin = headers.get("origin")
        if origin is None or origin in self.origins or "*" in self.origins:
            return True
        site = headers.get("sec-fetch-site")  # what browsers say of themselves, over TLS or here
        if site is not None:
            return site in ("same-origin", "none")
        return urlsplit(origin).netloc == headers.get("host", "")

    async def _linger(self, receive: Receive, whole: Callable[[], bool]) -> None:
        """Read and throw away what is still being sent, for a moment, as proxies do.

        A connection that is closed while its sender is sending is reset, and the answer is lost.
        """
        if self.lingering >= MOST_LINGERING:
            return
        self.lingering += 1
        until = time.monotonic() + self.limits.linger_seconds
        try:
            while not whole() and (left := until - time.monotonic()) > 0:
                await asyncio.wait_for(receive(), min(left, LINGER_IDLE))
        except asyncio.TimeoutError:
            return  # he has stopped, or takes too long; he may have the answer by now
        finally:
            self.lingering -= 1


def _is_address(host: str) -> bool:
    """Whether the Host header is an address of numbers, with or without a port."""
    name = urlsplit(f"//{host}").hostname if host.startswith("[") else host.partition(":")[0]
    try:
        ipaddress.ip_address(name or "")
    except ValueError:
        return False
    return True
