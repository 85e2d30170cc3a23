"""The bodies of requests as they come: bytes and seconds of each, and bytes of all together.

    bodies = Bodies(limits)
    with bodies.counted(receive, most=limits.body_bytes) as receive:
        await app(scope, receive, send)

What comes in is kept until its request has been answered, so that many large bodies at a time take
memory that no limit on one of them saves. Raises HTTPException: 413, 408, 429. Left out: what is in
a body, and requests that are refused before it comes (serving.py).
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from contextlib import contextmanager

from fastapi import HTTPException
from starlette.types import Message, Receive

from image2cad.limits import Limits

SMALL = 64 << 10  # bytes of each body that are always welcome: programs go on where pictures wait
MARKS = (b",", b"[", b"{")  # before a value of JSON; those in texts count as well
RETRY_AFTER = "5"  # seconds


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
                marks += sum(body.count(mark) for mark in MARKS)
            if marks > values:
                raise HTTPException(413, f"the request holds over {values:,} values")
            if self.held > self.limits.bodies_bytes and size > SMALL:
                text = f"too much is being sent at a time; try again in {RETRY_AFTER} s"
                raise HTTPException(429, text, {"Retry-After": RETRY_AFTER})
            return message

        try:
            yield limited
        finally:
            self.held -= _large(size)


def too_large(most: int) -> str:
    """What is said of a body of more than `most` bytes."""
    return f"the request is too large: {most:,} bytes are allowed"


def _large(size: int) -> int:
    return max(size - SMALL, 0)
