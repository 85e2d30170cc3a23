"""Protects the server's memory: large bodies are bounded in sum, wrong ones cost one error."""

import asyncio
from dataclasses import replace
from types import SimpleNamespace

import httpx
import pytest
from fastapi import FastAPI, Request
from pydantic import ValidationError

from image2cad.serving.api.errors import answer_errors
from image2cad.serving.api.guard import guard, new_metrics
from image2cad.serving.api.openai import Chat
from image2cad.serving.api.schemas import Execute
from image2cad.serving.keys import Keys
from image2cad.serving.limits import Limits

LARGE, SMALL = bytes(200_000), bytes(1000)
LIMITS = Limits(body_bytes=300_000, bodies_bytes=250_000, program_body_bytes=250_000)


def kept(go, held, keys=None, limits=LIMITS):
    """An app that keeps what is sent to it until `go`; `held`: how many requests it holds."""
    service = SimpleNamespace(limits=limits, load=dict)
    app = FastAPI()
    answer_errors(app)
    known = keys or Keys()
    app.add_middleware(guard, service=service, metrics=new_metrics(service), methods={}, keys=known)

    @app.post("/{path:path}")
    async def keep(request: Request):
        size = len(await request.body())
        held.append(size)
        if size > len(SMALL):
            await go.wait()
        return size

    return app


@pytest.mark.parametrize("path", ["/v1/generate", "/page"])
def test_large_bodies_in_flight_are_bounded_and_small_ones_welcome(path):
    async def visit():
        go, held = asyncio.Event(), []
        transport = httpx.ASGITransport(kept(go, held))
        async with httpx.AsyncClient(transport=transport, base_url="http://here") as client:
            first = asyncio.ensure_future(client.post(path, content=LARGE))
            while not held:
                await asyncio.sleep(0.01)
            second = await client.post("/v1/generate", content=LARGE)
            assert second.status_code == 429 and second.json()["error"]["code"] == "busy"
            assert int(second.headers["retry-after"]) >= 1 and len(held) == 1
            assert (await client.post(path, content=SMALL)).json() == len(SMALL)
            go.set()
            assert (await first).json() == len(LARGE)
            for _ in range(3):  # what was answered or refused is held no more
                assert (await client.post(path, content=LARGE)).json() == len(LARGE)
                assert (await client.post(path, content=LARGE * 2)).status_code == 413

    asyncio.run(asyncio.wait_for(visit(), 60))


@pytest.mark.parametrize("limit", ["guest_bodies_bytes", "guest_requests"])
def test_what_guests_take_is_taken_from_guests_alone(limit):
    async def visit():
        go, held = asyncio.Event(), []
        limits = replace(LIMITS, **{limit: {"guest_requests": 1}.get(limit, 150_000)})
        transport = httpx.ASGITransport(kept(go, held, Keys(["key"]), limits))
        key = {"Authorization": "Bearer key"}
        async with httpx.AsyncClient(transport=transport, base_url="http://here") as client:
            first = asyncio.ensure_future(client.post("/page", content=LARGE[:130_000]))
            while not held:
                await asyncio.sleep(0.01)
            refused = await client.post("/page", content=LARGE)
            assert refused.status_code == 429 and int(refused.headers["retry-after"]) >= 1
            second = asyncio.ensure_future(client.post("/page", content=LARGE, headers=key))
            while len(held) < 2:
                await asyncio.sleep(0.01)
            go.set()
            assert (await first).status_code == (await second).status_code == 200
            assert (await client.post("/page", content=LARGE[:130_000])).status_code == 200

    asyncio.run(asyncio.wait_for(visit(), 60))


def test_programs_alone_may_be_smaller_than_pictures():
    async def visit():
        transport = httpx.ASGITransport(kept(asyncio.Event(), []))
        async with httpx.AsyncClient(transport=transport, base_url="http://here") as client:
            for path in ("/v1/execute", "/v1/score"):
                answer = await client.post(path, content=bytes(260_000))
                assert answer.status_code == 413 and "250,000" in answer.json()["error"]["message"]

    asyncio.run(asyncio.wait_for(visit(), 60))
    # Whatever programs may have, JSON's longest way to write it fits.
    limits = Limits()
    assert 2 * len("\\u0000") * limits.code_bytes < limits.program_body_bytes


USER = {"role": "user"}


@pytest.mark.parametrize(
    ("kind", "body", "most"),
    [
        (Execute, {"code": "x", "files": [0] * 1000}, 1),
        (Execute, {"code": "x", "files": ["step"] * 1000}, 1),
        (Chat, {"model": "m", "messages": [{}] * 1000}, 1),
        (Chat, {"model": "m", "messages": [USER] * 1000}, 1),
        (Chat, {"model": "m", "messages": [{**USER, "content": [0] * 1000}] * 50}, 2),
        (Chat, {"model": "m", "messages": [{**USER, "content": [{"type": "text"}] * 101}]}, 2),
    ],
)
def test_a_body_with_a_thousand_mistakes_makes_no_thousand_errors(kind, body, most):
    with pytest.raises(ValidationError) as wrong:
        kind.model_validate(body)
    assert wrong.value.error_count() <= most
