"""Connections before they are requests: a head has its deadline, an address its share.

    config = uvicorn.Config(app, http=patient(limits), ws="none")

uvicorn waits forever for the head of a request, and takes as many connections as there are files.
"""

from __future__ import annotations

import asyncio

from uvicorn.protocols.http.h11_impl import H11Protocol

from image2cad.serving.keys import network
from image2cad.serving.limits import Limits


def patient(limits: Limits) -> type[asyncio.Protocol]:
    """uvicorn's HTTP protocol within the limits head_seconds and address_connections."""

    class Patient(H11Protocol):
        deadline: asyncio.TimerHandle | None = None

        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            super().connection_made(transport)  # type: ignore[arg-type]
            mine = network(self.client[0]) if self.client else ""
            others = (one.client for one in self.connections if isinstance(one, Patient))
            if sum(network(one[0]) == mine for one in others if one) > limits.address_connections:
                self.transport.abort()
                return
            self._expect_head()

        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            if self.cycle is None or self.cycle.response_complete:
                self._expect_head()
            else:
                self._expect_nothing()

        def connection_lost(self, exc: Exception | None) -> None:
            self._expect_nothing()
            super().connection_lost(exc)

        def _expect_head(self) -> None:
            if self.deadline is None:
                self.deadline = self.loop.call_later(limits.head_seconds, self.transport.abort)

        def _expect_nothing(self) -> None:
            if self.deadline is not None:
                self.deadline.cancel()
                self.deadline = None

    return Patient
