"""Protects the small print of OpenAI's format: how pictures and their addresses may be written."""

import asyncio
import base64

import pytest
from fastapi import HTTPException

from image2cad.common.errors import InputError
from image2cad.serving.api import openai as openai_format
from image2cad.serving.api.openai import Chat, check_hosts, picture_bytes
from image2cad.serving.limits import Limits

DATA = bytes(range(256)) + b"?"  # has both of the letters in which the alphabets differ


def read(address, hosts=()):
    return asyncio.run(picture_bytes(address, hosts, Limits()))


def test_every_way_to_write_base64_is_read():
    usual, other = base64.b64encode(DATA).decode(), base64.urlsafe_b64encode(DATA).decode()
    assert usual.endswith("=") and "-" in other and "_" in other
    lines = "\n".join(usual[i : i + 76] for i in range(0, len(usual), 76))
    for text in (usual, usual.rstrip("="), other, other.rstrip("="), lines):
        assert read(f"data:image/png;base64,{text}") == DATA
    for text in ("@@@@", "A", "AA=A", "\u00e9AAA"):
        with pytest.raises(HTTPException, match="base64"):
            read(f"data:image/png;base64,{text}")


@pytest.mark.parametrize(
    ("host", "address", "fetched"),
    [
        ("example.org", "http://example.org/a.png", True),
        ("example.org", "https://EXAMPLE.org:443/a.png", True),
        ("example.org:80", "http://example.org/a.png", True),
        ("example.org:80", "http://example.org:80/a.png", True),
        ("example.org:443", "https://example.org/a.png", True),
        ("b\u00fccher.example", "https://b\u00fccher.example/a.png", True),
        ("b\u00fccher.example", "https://xn--bcher-kva.example/a.png", True),
        ("XN--bcher-kva.example:8000", "http://b\u00fccher.example:8000/a.png", True),
        ("[::1]:8000", "http://[::1]:8000/a.png", True),
        ("example.org:80", "https://example.org/a.png", False),
        ("example.org", "http://example.org:8000/a.png", False),
        ("example.org", "http://example.org.evil.example/a.png", False),
        ("example.org", "http://example.org@evil.example/a.png", False),
        ("example.org", "ftp://example.org/a.png", False),
    ],
)
def test_hosts_match_however_they_are_written(host, address, fetched, monkeypatch):
    async def fetch(url, limits):
        return DATA

    monkeypatch.setattr(openai_format, "_fetch", fetch)
    check_hosts([host])
    if fetched:
        assert read(address, ["other.example", host]) == DATA
    else:
        with pytest.raises(HTTPException, match="data URLs"):
            read(address, ["other.example", host])


def test_what_is_no_host_is_told_at_the_start():
    for wrong in ("", "http://example.org", "example.org/a", "a.b?c", "me@example.org", "x:y"):
        with pytest.raises(InputError, match="is no host"):
            check_hosts([wrong])


def test_fields_that_are_null_are_as_if_left_out():
    body = {"model": "m", "messages": [{"role": "user", "content": None}]}
    null = Chat.model_validate(body | {"stream": None, "n": None, "stream_options": None})
    assert not null.stream
    options = Chat.model_validate(body | {"stream_options": {"include_usage": None}})
    assert not options.stream_options.include_usage
