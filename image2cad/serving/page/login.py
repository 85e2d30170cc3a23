"""The door of a page that is closed: a form that asks for a key, and which paths the page has.

    at_login(scope, receive, send, path, keys)      # for who has shown no key, and for /login

The form is plain HTML. Who shows a key gets a cookie (keys.py), which the browser sends to this
server alone. gradio_client.Client(url, auth=("any name", key)) comes in as well.
"""

from __future__ import annotations

import re
from html import escape

from fastapi import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, RedirectResponse, Response
from starlette.types import Receive, Scope, Send

from image2cad.serving.api.errors import error
from image2cad.serving.keys import SESSION_SECONDS, Keys, TooManyTries
from image2cad.serving.limits import Limits

SESSION_COOKIE = "image2cad-session"
LOGIN_PATHS = ("/login", "/login/", "/logout")
LOGIN_BYTES = 8 << 10  # of what the form sends
UPLOAD_PATH = "/gradio_api/upload"
# What of gradio the page has no use for: it keeps files, or fetches from elsewhere for who asks.
CLOSED_PATHS = re.compile(
    r"/gradio_api/(deep_link|proxy=|file[=/].*:/|stream/|process_recording|runs|run-history|"
    r"vibe|undo-vibe|dev/|profiling)|/monitoring"
)
LOGIN_HTML = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>image2cad</title>
<meta name="viewport" content="width=device-width, initial-scale=1">
<style>
:root {{color-scheme: light dark; font: 16px system-ui, sans-serif}}
main {{max-width: 22rem; margin: 15vh auto; padding: 0 1rem}}
label, input, button {{display: block; width: 100%; box-sizing: border-box; margin: .5rem 0}}
input, button {{font: inherit; padding: .5rem}}
</style></head><body><main>
<h1>image2cad</h1>
<p role="status">{}</p>
<form method="post" action="login">
<label for="key">Key</label>
<input id="key" name="password" type="password" autocomplete="current-password" required autofocus>
<button>Open</button>
</form></main></body></html>
"""
ASKED = "This page wants one of the server's keys."
REFUSED = "This key is not known here."


def page_limits(path: str, limits: Limits) -> tuple[int, float]:
    """Most bytes, and most values of JSON, that a request to a path of the page may bring."""
    if path == UPLOAD_PATH:
        return limits.body_bytes, float("inf")  # a form
    if path in LOGIN_PATHS:
        return LOGIN_BYTES, limits.page_values
    return limits.program_body_bytes, limits.page_values


def is_closed(path: str) -> bool:
    """Whether this is something that gradio has and the page does not use."""
    return CLOSED_PATHS.match(path) is not None


def address_of(scope: Scope) -> str:
    """Where a request comes from; behind a proxy, what the server believes of it."""
    return scope["client"][0] if scope.get("client") else ""


async def at_login(scope: Scope, receive: Receive, send: Send, path: str, keys: Keys) -> None:
    """Answer one who has shown no key, or who is about to."""
    request = Request(scope, receive)
    try:
        if path == "/logout":
            answer: Response = RedirectResponse("./", 303)
            answer.delete_cookie(SESSION_COOKIE, path=_cookie_path(scope))
        elif path in LOGIN_PATHS and request.method == "POST":
            answer = await _login(request, keys)
        elif path == "/" or path in LOGIN_PATHS:
            answer = _form(ASKED, 401)
        else:
            text = "this page wants a key; open / to show it, or send Authorization: Bearer KEY"
            answer = error(401, text, headers={"WWW-Authenticate": "Bearer"})
    except HTTPException as refused:  # too much was sent, or too slowly
        answer = error(refused.status_code, str(refused.detail), headers=refused.headers)
    await answer(scope, receive, send)


async def _login(request: Request, keys: Keys) -> Response:
    form = await request.form(max_files=0, max_fields=10)
    given, wants_html = form.get("password", ""), "text/html" in request.headers.get("accept", "")
    try:
        key = keys.known(str(given).strip(), address_of(request.scope))
    except TooManyTries as late:
        headers = {"Retry-After": str(late.retry_after)}
        text = str(late)
        return _form(text, 429, headers) if wants_html else error(429, text, headers=headers)
    if key is None:
        return _form(REFUSED, 401) if wants_html else error(401, REFUSED)
    answer: Response = (
        RedirectResponse("./", 303) if wants_html else JSONResponse({"success": True})
    )
    secure = request.url.scheme == "https"
    answer.set_cookie(
        SESSION_COOKIE, keys.session(key), SESSION_SECONDS,
        path=_cookie_path(request.scope), httponly=True, samesite="lax", secure=secure,
    )  # fmt: skip
    return answer


def _cookie_path(scope: Scope) -> str:
    """Where browsers send the cookie: not to what else a proxy shows by the same name."""
    return scope.get("root_path", "") or "/"


def _form(text: str, status: int, headers: dict[str, str] | None = None) -> Response:
    return HTMLResponse(LOGIN_HTML.format(escape(text)), status, headers)
