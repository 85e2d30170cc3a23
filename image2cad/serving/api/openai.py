"""OpenAI's chat completions: what is asked, and the answers, whole or in chunks.

    refuse(chat)                                # what nobody could answer well
    addresses, text = pictures_and_text(chat)   # of the last message that holds pictures
    files = await all_bytes(addresses, hosts, limits)
    completion(model, generated, ignored(chat)) # dict

Several pictures in a message are views of one part. The text beside them is for a backend that
reads it. What OpenAI's format has and a picture of a part has no use for (temperature, stop, user)
is accepted, and named in the answer's "ignored". What would change the answer's form (several
answers, a schema, tools that must be called, logprobs) is refused.
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

from image2cad.common import EFFORTS, InputError
from image2cad.serving.api.example import EXAMPLE_PICTURE
from image2cad.serving.api.schemas import (
    ANSWER_SOURCES,
    BOX_HELP,
    CAMERA_HELP,
    EFFORT_HELP,
    LENGTH_HELP,
    SIZES,
    Length,
    SeenFrom,
    one_of,
    told,
)
from image2cad.serving.jobs import size_text
from image2cad.serving.limits import Limits, TooLarge, check_count
from image2cad.serving.service import Generated
from metrics import Failure

FETCH_SECONDS = 15.0
NOT_OPENAI = "not part of OpenAI's format"
MOST_TOKENS_HELP = "of each program that the model proposes"
MOST_MESSAGES = 100  # messages of a chat, and parts of a message
URL_SAFE = str.maketrans("-_", "+/")  # base64's other alphabet to the usual one
MOST_IGNORED, LONGEST_IGNORED = 50, 60  # fields that are named, and letters of their names
# OpenAI's words for effort, and ours.
REASONING_EFFORTS = {
    "none": "none", "minimal": "none", "low": "low", "medium": "low", "high": "high",
    "xhigh": "high",
}  # fmt: skip
TEXT_CHANGED = (
    "The part was changed as the text asks, by the model alone: it was not fitted to the picture."
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
    """A request for a chat completion. Fields that are not listed are accepted, not read, and
    named in the answer's "ignored".
    """

    model_config = ConfigDict(
        extra="allow",
        json_schema_extra={
            "example": {
                "model": "models/nano",
                "messages": [
                    {
                        "role": "user",
                        "content": [{"type": "image_url", "image_url": {"url": EXAMPLE_PICTURE}}],
                    }
                ],
                "effort": "low",
            }
        },
    )

    model: str
    messages: list[Message] = Field(min_length=1, max_length=MOST_MESSAGES, fail_fast=True)
    stream: bool | None = False
    stream_options: StreamOptions | None = None
    n: int | None = Field(1, description="must be 1")
    max_tokens: int | None = Field(None, ge=1, description=MOST_TOKENS_HELP)
    max_completion_tokens: int | None = Field(None, ge=1, description=MOST_TOKENS_HELP)
    reasoning_effort: str | None = Field(
        None,
        description="none or minimal is effort none, low or medium is low, high or xhigh is high",
        json_schema_extra=one_of(*REASONING_EFFORTS),
    )
    response_format: dict[str, Any] | None = Field(None, description="text alone")
    tools: list[Any] | None = Field(None, description="are not called", max_length=MOST_MESSAGES)
    tool_choice: str | dict[str, Any] | None = Field(None, description="none or auto")
    logprobs: bool | None = Field(None, description="must be false")
    top_logprobs: int | None = Field(None, description="must be left out")
    effort: str | None = Field(
        None,
        description=f"{EFFORT_HELP}. low, unless reasoning_effort says otherwise; {NOT_OPENAI}",
        json_schema_extra=one_of(*EFFORTS),
    )
    camera: str | None = Field(None, description=f"{CAMERA_HELP}; {NOT_OPENAI}")
    length: Length | None = Field(None, description=f"{LENGTH_HELP}; {NOT_OPENAI}")
    box: str | list[float] | None = Field(None, description=f"{BOX_HELP}; {NOT_OPENAI}")


def effort_of(chat: Chat) -> str:
    """The effort that is asked for. Raises HTTPException 400 for an unknown reasoning_effort."""
    if chat.effort is not None:
        return chat.effort
    named = chat.reasoning_effort
    if named is None:
        return "low"
    if named not in REASONING_EFFORTS:
        known = ", ".join(REASONING_EFFORTS)
        raise HTTPException(400, f"reasoning_effort is one of {known}, not {named!r:.60}")
    return REASONING_EFFORTS[named]


def most_tokens(chat: Chat) -> int | None:
    """Tokens that each program of the model may have; None where nothing is said."""
    given = [one for one in (chat.max_tokens, chat.max_completion_tokens) if one]
    return min(given, default=None)


def box_text(box: str | list[float] | None) -> str:
    """A region as limits.box_named takes it."""
    return ",".join(map(str, box)) if isinstance(box, list) else box or ""


def refuse(chat: Chat) -> None:
    """Raise HTTPException 400 for what would change the form of the answer."""
    wanted = (chat.response_format or {}).get("type", "text")
    older = (chat.model_extra or {}).get("function_call")  # tool_choice's name before
    forced = any(one not in (None, "none", "auto") for one in (chat.tool_choice, older))
    reasons = {
        "n must be 1: the best of many candidates is the answer": chat.n not in (None, 1),
        "response_format must be text: the answer is a program": wanted != "text",
        "tools cannot be called here; leave tool_choice out, or send none or auto": forced,
        "logprobs are not known: the answer is checked and fitted, not only written": bool(
            chat.logprobs or chat.top_logprobs
        ),
    }
    for reason, applies in reasons.items():
        if applies:
            raise HTTPException(400, reason)


def ignored(chat: Chat) -> list[str]:
    """The names of fields that were sent and have no effect."""
    names = [name for name, value in (chat.model_extra or {}).items() if value is not None]
    read = {"tools": chat.tools, "tool_choice": chat.tool_choice, "logprobs": chat.logprobs}
    read["response_format"] = chat.response_format
    if chat.effort is not None:
        read["reasoning_effort"] = chat.reasoning_effort
    names += [name for name, value in read.items() if value is not None]
    # A surrogate in a name would make the answer impossible to encode.
    plain = (name.encode("utf-8", "replace").decode() for name in names[:MOST_IGNORED])
    return [name[:LONGEST_IGNORED] for name in plain]


def later_text(chat: Chat) -> str:
    """What was said after the last message with pictures, with the program that it is about.

    "" where the user has said nothing since.
    """
    said = [(one.role, _texts(one)) for one in chat.messages]
    seen = max((i for i, one in enumerate(chat.messages) if _addresses(one)), default=0)
    asked = [i for i, (role, text) in enumerate(said) if i > seen and role == "user" and text]
    if not asked:
        return ""
    told = said[seen + 1 : asked[-1] + 1]
    words = {"assistant": "The program so far:", "user": "Change it so:"}
    return "\n".join(f"{words[role]}\n{text}" for role, text in told if role in words and text)


def _texts(message: Message) -> str:
    if isinstance(message.content, str):
        return message.content.strip()
    parts = message.content or []
    return "\n".join(one.text for one in parts if one.type == "text" and one.text)


def _addresses(message: Message) -> list[str]:
    parts = message.content if isinstance(message.content, list) else []
    return [one.image_url.url for one in parts if one.type == "image_url" and one.image_url]


def pictures_and_text(chat: Chat) -> tuple[list[str], str]:
    """The URLs of the pictures of the last message that has any, and the text beside them.

    Raises HTTPException 400 if there is none.
    """
    for message in reversed(chat.messages):
        if addresses := _addresses(message):
            return addresses, _texts(message)
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


# ---- The answer


class Answered(BaseModel):
    """What OpenAI's format has no place for."""

    likeness: float = Field(description="of the program's drawing and the picture, 0 to 1")
    confidence: float = Field(description="chance of an IoU over 0.9, 0 to 1")
    source: str = Field(json_schema_extra=one_of(*ANSWER_SOURCES))
    cameras: list[SeenFrom]
    reason: str = Field(description="why the picture may be none of one part, or empty")
    notes: list[str]
    failure: str | None = Field(description="why the program builds nothing")
    size: str = Field(description="where the size is from", json_schema_extra=one_of(*SIZES))
    measures: str | None = Field(description="sides and volume with their units")
    ignored: list[str] = Field(description="fields of the request that had no effect")


class AnswerMessage(BaseModel):
    """The program."""

    role: str = Field("assistant", json_schema_extra=one_of("assistant"))
    content: str


class Choice(BaseModel):
    """The one answer."""

    index: int
    message: AnswerMessage
    finish_reason: str = Field(
        description="length: of effort none, where the model's program was cut off",
        json_schema_extra=one_of("stop", "length"),
    )
    logprobs: None = None


class Usage(BaseModel):
    """Tokens that the model read and wrote, all candidates counted."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int


class ChatAnswer(BaseModel):
    """An answer that is no stream."""

    id: str
    object: str = Field(json_schema_extra=one_of("chat.completion"))
    created: int
    model: str
    choices: list[Choice]
    usage: Usage
    image2cad: Answered


def answered(made: Generated, unread: Sequence[str]) -> dict[str, Any]:
    """The fields of `Answered`. unread: fields of the request that had no effect."""
    failed = isinstance(made.part, Failure)
    return {
        **told(made),
        "failure": str(made.part) if failed else None,
        "size": made.size,
        "measures": size_text(made.part, made.size) if not isinstance(made.part, Failure) else None,
        "ignored": list(unread),
    }


def _finish(made: Generated) -> str:
    return "length" if made.cut else "stop"


def completion(model: str, made: Generated, unread: Sequence[str] = ()) -> dict[str, Any]:
    """The whole answer; "image2cad" says what OpenAI's format has no place for."""
    message = {"role": "assistant", "content": made.code}
    choice = {"index": 0, "message": message, "finish_reason": _finish(made), "logprobs": None}
    return {
        "id": f"chatcmpl-{uuid.uuid4().hex}",
        "object": "chat.completion",
        "created": int(time.time()),
        "model": model,
        "choices": [choice],
        "usage": usage(made),
        "image2cad": answered(made, unread),
    }


def usage(made: Generated) -> dict[str, int]:
    """Tokens that the model read and wrote, all candidates counted."""
    prompt, answer = made.tokens
    return {
        "prompt_tokens": prompt,
        "completion_tokens": answer,
        "total_tokens": prompt + answer,
    }


def chunks(
    model: str, made: Generated, name: str, with_usage: bool, unread: Sequence[str] = ()
) -> Iterator[str]:
    """The events of a stream after `first_chunk`: a line of the program each, then the end.

    The one with the finish_reason has "image2cad", as a whole answer has it.
    """
    for line in made.code.splitlines(keepends=True):
        yield _chunk(model, name, [_delta({"content": line})])
    more = answered(made, unread)
    yield _chunk(model, name, [_delta({}, _finish(made))], more=more)
    if with_usage:
        yield _chunk(model, name, [], usage(made))
    yield "data: [DONE]\n\n"


def first_chunk(model: str, name: str) -> str:
    """The event that opens a stream, before there is any text."""
    return _chunk(model, name, [_delta({"role": "assistant", "content": ""})])


def _delta(delta: dict[str, str], reason: str | None = None) -> dict[str, Any]:
    return {"index": 0, "delta": delta, "finish_reason": reason, "logprobs": None}


def _chunk(
    model: str,
    name: str,
    choices: list[dict[str, Any]],
    used: dict[str, int] | None = None,
    more: dict[str, Any] | None = None,
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
    if more is not None:
        event["image2cad"] = more
    return f"data: {json.dumps(event)}\n\n"
