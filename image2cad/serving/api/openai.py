"""OpenAI's chat completions: what is asked, and the answers, whole or in chunks.

    addresses, text = pictures_and_text(chat)   # of the last message that holds pictures
    files = await all_bytes(addresses, hosts, limits)
    completion(model, generated)                # dict

Several pictures in a message are views of one part. The text beside them is for a backend that
reads it. What OpenAI's format has and a picture of a part has no use for (temperature, max_tokens,
tools) is accepted.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import json
import time
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Annotated, Any

import httpx
from fastapi import HTTPException
from pydantic import BaseModel, ConfigDict, Field

from image2cad.common import InputError
from image2cad.serving.api.schemas import CAMERA_HELP, told
from image2cad.serving.limits import Limits, TooLarge, check_count
from image2cad.serving.service import Generated
from metrics import Failure

FETCH_SECONDS = 15.0
MOST_MESSAGES = 100  # messages of a chat, and parts of a message
URL_SAFE = str.maketrans("-_", "+/")  # base64's other alphabet to the usual one
ONE_PIXEL = (
    "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mP8z8BQ"
    "DwAEhQGAhKmMIQAAAABJRU5ErkJggg=="
)


class ImageUrl(BaseModel):
    """The address of a picture: a data URL with base64."""

    url: str


class ContentPart(BaseModel):
    """A piece of a message: text, or a picture."""

    type: str
    text: str | None = None
    image_url: ImageUrl | None = None


# One error is enough: each of them takes more memory than what is wrong.
Parts = Annotated[list[ContentPart], Field(max_length=MOST_MESSAGES, fail_fast=True)]


class Message(BaseModel):
    """A message of a chat."""

    role: str
    content: str | Parts | None = None


class StreamOptions(BaseModel):
    """What a stream holds besides the text."""

    include_usage: bool | None = False


class Chat(BaseModel):
    """A request for a chat completion. Fields that are not listed are accepted and not read."""

    model_config = ConfigDict(
        json_schema_extra={
            "example": {
                "model": "models/nano",
                "messages": [
                    {
                        "role": "user",
                        "content": [{"type": "image_url", "image_url": {"url": ONE_PIXEL}}],
                    }
                ],
                "effort": "low",
            }
        }
    )

    model: str
    messages: list[Message] = Field(min_length=1, max_length=MOST_MESSAGES, fail_fast=True)
    stream: bool | None = False
    stream_options: StreamOptions | None = None
    n: int | None = 1
    effort: str = Field("low", description="none, low or high; not part of OpenAI's format")
    camera: str | None = Field(None, description=f"{CAMERA_HELP}; not part of OpenAI's format")


def pictures_and_text(chat: Chat) -> tuple[list[str], str]:
    """The URLs of the pictures of the last message that has any, and the text beside them.

    Raises HTTPException 400 if there is none, or if n is not 1.
    """
    if chat.n not in (None, 1):
        raise HTTPException(400, "n must be 1: the best of many candidates is the answer")
    for message in reversed(chat.messages):
        parts = message.content if isinstance(message.content, list) else []
        addresses = [
            one.image_url.url for one in parts if one.type == "image_url" and one.image_url
        ]
        if addresses:
            texts = (one.text for one in parts if one.type == "text" and one.text)
            return addresses, "\n".join(texts)
    raise HTTPException(400, "the messages hold no picture; send one as an image_url part")


def check_hosts(hosts: Sequence[str]) -> None:
    """Raise InputError unless all can stand in an address, as "name" or "name:port"."""
    for host in hosts:
        try:
            address = httpx.URL(f"http://{host}")
        except (httpx.InvalidURL, UnicodeError, ValueError) as error:
            raise InputError(f"{host!r} is no host: {error}") from error
        if not address.host or str(address).rstrip("/") != f"http://{address.netloc.decode()}":
            raise InputError(f"{host!r} is no host; give its name, or name:port")


async def all_bytes(addresses: Sequence[str], hosts: Sequence[str], limits: Limits) -> list[bytes]:
    """What `picture_bytes` gives for each, as many as limits allow, and body_bytes together."""
    check_count(len(addresses), limits)
    files: list[bytes] = []
    for address in addresses:
        left = max(limits.body_bytes, limits.picture_bytes) - sum(map(len, files))
        most = replace(limits, picture_bytes=min(limits.picture_bytes, left))
        files.append(await picture_bytes(address, hosts, most))
    return files


async def picture_bytes(address: str, hosts: Sequence[str], limits: Limits) -> bytes:
    """The bytes of a data URL, or of a file on one of `hosts` ("name" or "name:port").

    Redirects are not followed. Raises HTTPException 400 for other addresses, and TooLarge.
    """
    if address[:5].lower() == "data:":
        return _inline(address, limits)
    try:
        url = httpx.URL(address)
        place = url.netloc.decode()
    except (httpx.InvalidURL, UnicodeError, ValueError) as error:
        raise HTTPException(400, "image_url is no address; send a data URL") from error
    # Read as addresses, names and ports have one way to be written.
    known = [httpx.URL(f"{scheme}://{host}") for scheme in ("http", "https") for host in hosts]
    if (url.scheme, url.netloc) not in [(one.scheme, one.netloc) for one in known]:
        raise HTTPException(
            400,
            "this server takes pictures as data URLs (data:image/png;base64,...) and does not "
            f"fetch from {place[:100] or 'there'}",
        )
    try:
        return await asyncio.wait_for(_fetch(url, limits), FETCH_SECONDS)
    except (httpx.HTTPError, asyncio.TimeoutError) as error:
        raise HTTPException(400, f"the picture at {place[:100]} cannot be fetched") from error


def _inline(address: str, limits: Limits) -> bytes:
    head, comma, text = address.partition(",")
    if not comma or not head.lower().endswith(";base64"):
        raise HTTPException(400, "a data URL must look like data:image/png;base64,...")
    if len(text) > limits.picture_bytes * 4 / 3 + 4:
        raise TooLarge(f"the picture is too large: {limits.picture_bytes:,} bytes are allowed")
    text = "".join(text.split()).translate(URL_SAFE).rstrip("=")  # some break its lines
    try:
        return base64.b64decode(text + "=" * (-len(text) % 4), validate=True)
    except (binascii.Error, ValueError) as error:
        raise HTTPException(400, "the data URL does not hold valid base64") from error


async def _fetch(url: httpx.URL, limits: Limits) -> bytes:
    data = bytearray()
    async with (
        httpx.AsyncClient(follow_redirects=False, timeout=FETCH_SECONDS) as client,
        client.stream("GET", url) as response,
    ):
        if response.status_code != httpx.codes.OK:
            raise HTTPException(400, f"the picture's address answers {response.status_code}")
        async for piece in response.aiter_bytes():
            data += piece
            if len(data) > limits.picture_bytes:
                most = limits.picture_bytes
                raise TooLarge(f"the picture is too large: {most:,} bytes are allowed")
    return bytes(data)


def completion(model: str, made: Generated) -> dict[str, Any]:
    """The whole answer; "image2cad" says what OpenAI's format has no place for."""
    message = {"role": "assistant", "content": made.code}
    choice = {"index": 0, "message": message, "finish_reason": "stop", "logprobs": None}
    return {
        "id": f"chatcmpl-{uuid.uuid4().hex}",
        "object": "chat.completion",
        "created": int(time.time()),
        "model": model,
        "choices": [choice],
        "usage": usage(made),
        "image2cad": {
            **told(made),
            "failure": str(made.part) if isinstance(made.part, Failure) else None,
        },
    }


def usage(made: Generated) -> dict[str, int]:
    """Tokens that the model read and wrote, all candidates counted."""
    prompt, answer = made.tokens
    return {
        "prompt_tokens": prompt,
        "completion_tokens": answer,
        "total_tokens": prompt + answer,
    }


def chunks(model: str, made: Generated, name: str, with_usage: bool) -> Iterator[str]:
    """The events of a stream after `first_chunk`: a line of the program each, then the end."""
    for line in made.code.splitlines(keepends=True):
        yield _chunk(model, name, [_delta({"content": line})])
    yield _chunk(model, name, [_delta({}, "stop")])
    if with_usage:
        yield _chunk(model, name, [], usage(made))
    yield "data: [DONE]\n\n"


def first_chunk(model: str, name: str) -> str:
    """The event that opens a stream, before there is any text."""
    return _chunk(model, name, [_delta({"role": "assistant", "content": ""})])


def _delta(delta: dict[str, str], reason: str | None = None) -> dict[str, Any]:
    return {"index": 0, "delta": delta, "finish_reason": reason, "logprobs": None}


def _chunk(
    model: str, name: str, choices: list[dict[str, Any]], used: dict[str, int] | None = None
) -> str:
    event: dict[str, Any] = {
        "id": name,
        "object": "chat.completion.chunk",
        "created": int(time.time()),
        "model": model,
        "choices": choices,
    }
    if used is not None:
        event["usage"] = used
    return f"data: {json.dumps(event)}\n\n"
