"""Errors of the API: every expected exception a status and a clear message in OpenAI's shape.

    answer_errors(app)                          # for what routes raise
    @routes.post("/v1/x", responses=problems(413, 422))     # as /openapi.json tells of them
    return error(404, "there is no such part")

{"error": {"message", "type", "code"}}, without anything that a user sent and that may be a picture.
"""

from __future__ import annotations

import traceback
from collections.abc import Mapping
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel, Field
from starlette.exceptions import HTTPException

from image2cad.common import Cancelled, InputError, Late
from image2cad.serving.backends import Unreachable
from image2cad.serving.limits import Busy, TooLarge

LONGEST_MESSAGE = 300  # letters of a message
CLIENT_LEFT = 499  # in logs and metrics only, as nobody is there to read it
KIND_OF_STATUS = {  # status -> OpenAI's type of error, and our code
    400: ("invalid_request_error", "bad_request"),
    401: ("authentication_error", "invalid_api_key"),
    404: ("invalid_request_error", "not_found"),
    405: ("invalid_request_error", "method_not_allowed"),
    406: ("invalid_request_error", "not_acceptable"),
    408: ("invalid_request_error", "too_slow"),
    409: ("invalid_request_error", "conflict"),
    413: ("invalid_request_error", "too_large"),
    422: ("invalid_request_error", "invalid_input"),
    429: ("rate_limit_error", "busy"),
    CLIENT_LEFT: ("invalid_request_error", "client_left"),
    502: ("server_error", "backend_unreachable"),
    503: ("server_error", "not_ready"),
    504: ("server_error", "deadline"),
}
MEANING = {  # for those who read the documentation
    400: "what is asked for is not done here",
    401: "a key is wanted, and none or an unknown one was sent",
    404: "there is no such thing",
    406: "none of the formats that are accepted is made here",
    408: "the request took too long to arrive",
    409: "it does not fit what was sent before, or is not there yet",
    413: "too many bytes, pixels, pictures or values",
    422: "a field is missing, of the wrong kind, or cannot be used",
    429: "too many wait already; Retry-After says when to try again",
    500: "an error of the server",
    502: "the server with the model does not answer as it should",
    503: "the server starts or stops",
    504: "the deadline has passed",
}
FORM_PATHS = ("/v1/generate", "/v1/jobs")  # which take a form, all others JSON
STATUS_OF: dict[type, int] = {
    InputError: 422,
    TooLarge: 413,
    Unreachable: 502,
    Busy: 429,
    Late: 504,
    Cancelled: CLIENT_LEFT,
}


ERROR_TYPES = tuple(dict(KIND_OF_STATUS.values()))


class Problem(BaseModel):
    """What went wrong."""

    message: str = Field(max_length=LONGEST_MESSAGE)
    type: str = Field(json_schema_extra={"enum": [*ERROR_TYPES]})
    code: str


class ProblemAnswer(BaseModel):
    """The body of every answer with a status of 400 or more."""

    error: Problem


def problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """What a route says of its errors in /openapi.json, those that all may have included."""
    every = sorted({*statuses, 401, 408, 413, 422, 429, 500, 503})
    told: dict[int | str, dict[str, Any]] = {
        one: {"model": ProblemAnswer, "description": MEANING[one]} for one in every
    }
    told[429]["headers"] = {"Retry-After": {"schema": {"type": "integer"}}}
    return told


def error(
    status: int, message: str, code: str = "", headers: Mapping[str, str] | None = None
) -> JSONResponse:
    """An error in OpenAI's shape."""
    kind, usual = KIND_OF_STATUS.get(status, ("server_error", "internal_error"))
    if len(message) > LONGEST_MESSAGE:  # it may quote what came in
        message = message[: LONGEST_MESSAGE - 3] + "..."
    # A surrogate in what came in would make the answer impossible to encode.
    text = message.encode("utf-8", "replace").decode()
    body = {"error": {"message": text, "type": kind, "code": code or usual}}
    return JSONResponse(body, status, headers)


def answer_to(exception: Exception) -> JSONResponse:
    """The answer that says what an exception of the service means."""
    status = next((STATUS_OF[kind] for kind in type(exception).__mro__ if kind in STATUS_OF), 500)
    wait = {"Retry-After": str(exception.retry_after)} if isinstance(exception, Busy) else None
    # The text of an exception that nobody expected may hold anything.
    text = str(exception) if status != 500 else "an error of ours; the log says more"
    return error(status, text, headers=wait)


def trace_of(exception: Exception) -> list[str]:
    """The kind of exception and where it was, for logs; its text may hold what a user sent."""
    frames = traceback.extract_tb(exception.__traceback__)
    return [type(exception).__name__, *(f"{f.filename}:{f.lineno} {f.name}" for f in frames)]


def answer_errors(app: FastAPI) -> None:
    """Let every expected exception become a status and a clear message."""

    async def ours(_: Request, exception: Exception) -> JSONResponse:
        return answer_to(exception)

    for kind in STATUS_OF:
        app.add_exception_handler(kind, ours)

    @app.exception_handler(HTTPException)
    async def http(_: Request, exception: HTTPException) -> JSONResponse:
        return error(exception.status_code, str(exception.detail), headers=exception.headers)

    @app.exception_handler(RequestValidationError)
    async def invalid(request: Request, exception: RequestValidationError) -> JSONResponse:
        kind = request.headers.get("content-type", "none")
        found = exception.errors()
        in_body = any(fault["loc"][0] == "body" for fault in found)
        if in_body and "json" not in kind and not request.url.path.endswith(FORM_PATHS):
            text = f"send JSON with the header Content-Type: application/json, not {kind[:60]}"
            return error(422, text)
        # Without the input, which may be a picture.
        faults = [
            f"{'.'.join(map(str, fault['loc'][1:])) or 'body'}: {_words(fault['msg'])}"
            for fault in found[:5]
        ]
        return error(422, "; ".join(faults))


def _words(message: str) -> str:
    if "UploadFile" in message:
        return "send the picture as a file with a name, with curl as -F image=@part.png"
    return message
