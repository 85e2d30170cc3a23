"""The bodies of requests as they come: bytes and seconds of each, and bytes of all together.

    bodies = Bodies(limits.bodies_bytes)
    with bodies.counted(receive, headers, most, limits, values) as receive: ...

What is over a limit raises HTTPException where it is received, in the app that reads it.
Left out: what a path may bring (api/guard.py).
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from contextlib import contextmanager

from fastapi import HTTPException
from starlette.datastructures import Headers
from starlette.types import Message, Receive

from image2cad.serving.limits import Limits

SMALL_BODY = 64 << 10  # bytes that are always welcome: programs go on where pictures wait
VALUE_MARKS = (b",", b"[", b"{")  # before a value of JSON; those in texts count as well
RETRY_SECONDS = "5"  # seconds


class Bodies:
    """Counts the bytes of all bodies of a server, or of all guests; for one event loop."""

    def __init__(self, most: int) -> None:
        """most: bytes at a time, what is small left out."""
        self.most, self.held = most, 0

    @contextmanager
    def counted(
        self,
        receive: Receive,
        headers: Headers,
        most: int,
        limits: Limits,
        values: float = float("inf"),
    ) -> Iterator[Receive]:
        """`receive` with limits, as long as the block runs: `most` bytes, and seconds to arrive.

        values: of JSON. Each takes many times the memory of its text, and time to read.
        """
        until, size, marks = time.monotonic() + limits.body_seconds, 0, 0
        whole = not has_body(headers)

        async def limited() -> Message:
            nonlocal size, marks, whole
            try:
                left = max(until - time.monotonic(), 0.0)
                wait = None if whole else min(left, limits.stall_seconds)
                message = await asyncio.wait_for(receive(), wait)
            except asyncio.TimeoutError as late:
                forget()
                text = f"the request did not arrive within {limits.body_seconds:g} s"
                if left > limits.stall_seconds:
                    text = f"nothing of the request arrived for {limits.stall_seconds:g} s"
                raise HTTPException(408, text) from late
            body = message.get("body", b"")
            more = len(body)
            whole = not message.get("more_body", False)
            self.held += _large(size + more) - _large(size)
            size += more
            refusal = None
            if values < float("inf"):
                marks += sum(body.count(mark) for mark in VALUE_MARKS)
            if size > most:
                refusal = HTTPException(413, too_large(most))
            elif marks > values:
                refusal = HTTPException(413, f"the request holds over {values:,} values")
            elif self.held > self.most and size > SMALL_BODY:
                text = f"too much is being sent at a time; try again in {RETRY_SECONDS} s"
                refusal = HTTPException(429, text, {"Retry-After": RETRY_SECONDS})
            if refusal is not None:
                forget()
                raise refusal
            return message

        def forget() -> None:
            nonlocal size
            self.held -= _large(size)
            size = 0

        try:
            yield limited
        finally:
            forget()


def has_body(headers: Headers) -> bool:
    """Whether a request with this head brings a body."""
    return headers.get("content-length", "0") != "0" or "transfer-encoding" in headers


def too_large(most: int) -> str:
    """What is said of a body of more than `most` bytes."""
    return f"the request is too large: {most:,} bytes are allowed"


def _large(size: int) -> int:
    return max(size - SMALL_BODY, 0)
