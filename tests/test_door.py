"""Protects the server's door: who holds a key is answered whatever others send, and however much.

A real server (app.py, its page open, one key) is attacked by clients that show no key. A second
one, in this process, has a page that is closed.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import runpy
import select
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import gradio as gr
import httpx
import numpy as np
import pytest
import uvicorn
from gradio_client import Client, handle_file
from gradio_client.exceptions import AuthenticationError
from paging import BOX, PICTURE, Slow, uploads
from PIL import Image
from watching import eventually

from image2cad.common.errors import InputError
from image2cad.serving.api.routes import make_api
from image2cad.serving.backends import Backend
from image2cad.serving.connections import patient
from image2cad.serving.keys import Keys, TooManyTries, Tries
from image2cad.serving.limits import Limits, limits_from
from image2cad.serving.observability import new_figures
from image2cad.serving.page.layout import PAGE_LOOK, make_page
from image2cad.serving.page.receiving import Shelf, mount_page, sweep

__all__ = ["uploads"]  # a fixture

ROOT = Path(__file__).resolve().parent.parent
KEY = "a-long-key-that-nobody-guesses"
BEARER = {"Authorization": f"Bearer {KEY}"}
PROGRAM = {"code": BOX + "\n#" + "x" * 100_000}  # larger than what is always welcome
QUOTA = 6_000_000  # bytes of one visitor's uploads
LIMITS = (
    f"visitor_uploads_bytes={QUOTA}, head_seconds=2, stall_seconds=20, tries=1000, waiting=6,"
    "program_seconds=1"
)
UPLOAD, JOIN = "/gradio_api/upload", "/gradio_api/queue/join"


class Server:
    """What tests know of app.py in its process."""

    def __init__(self, url: str, folder: Path) -> None:
        self.url, self.folder = url, folder
        self.place = ("127.0.0.1", int(url.rpartition(":")[2]))

    def files(self) -> list[Path]:
        """What visitors have left on disk."""
        kept = self.folder.rglob("*")
        return [file for file in kept if file.is_file() and file.name.startswith("sent")]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("door")
    (folder / "keys").write_text(f"# of the test\n{KEY}\n")
    environment = {
        **os.environ, "GRADIO_TEMP_DIR": str(folder), "IMAGE2CAD_LIMITS": LIMITS,
        "IMAGE2CAD_KEY_FILE": str(folder / "keys"), "IMAGE2CAD_NAMES": "cad.example.org",
    }  # fmt: skip
    command = [sys.executable, "app.py", "--port", "0", "--workers", "1", "--open-page"]
    with open(folder / "errors", "w") as errors:
        process = subprocess.Popen(
            command, cwd=ROOT, env=environment, text=True, stdout=subprocess.PIPE, stderr=errors
        )
    try:
        assert process.stdout is not None
        found = re.search(r"http://\S+", process.stdout.readline())
        assert found, (folder / "errors").read_text()
        ready = f"{found[0]}/ready"
        assert eventually(lambda: httpx.get(ready).status_code == 200, 120)
        yield Server(found[0], folder)
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0
        # gradio tells of what makes no sense to it; nothing else goes wrong.
        assert "Exception in ASGI" not in (folder / "errors").read_text()
    finally:
        process.kill()
        process.wait()


def key_holder(server: Server) -> httpx.Response:
    return httpx.post(f"{server.url}/v1/execute", json=PROGRAM, headers=BEARER, timeout=60)


@contextlib.contextmanager
def attack(act: Callable[[], None], attackers: int) -> Iterator[None]:
    """`act` again and again from so many threads, until the block ends; each has acted before."""
    stop, acted = threading.Event(), [0] * attackers

    def keep_on(number: int) -> None:
        while not stop.is_set():
            act()
            acted[number] += 1

    threads = [threading.Thread(target=keep_on, args=(i,)) for i in range(attackers)]
    for thread in threads:
        thread.start()
    try:
        assert eventually(lambda: all(acted))
        before = sum(acted)
        yield
        assert eventually(lambda: sum(acted) > before)
        assert all(thread.is_alive() for thread in threads)
    finally:
        stop.set()
        for thread in threads:
            thread.join(60)


# ---- Attacks, while who has a key works


def test_stalled_uploads(server: Server) -> None:
    head = (
        f"POST {UPLOAD} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 12000000\r\n"
        "Content-Type: multipart/form-data; boundary=b\r\n\r\n"
        '--b\r\nContent-Disposition: form-data; name="files"; filename="sent.png"\r\n\r\n'
    )
    with contextlib.ExitStack() as open_ones:
        stalled = []
        for _ in range(24):
            one = open_ones.enter_context(socket.create_connection(server.place, timeout=30))
            with contextlib.suppress(OSError):  # he was refused meanwhile
                one.sendall(head.encode() + bytes(11_900_000))
            stalled.append(one)
        answered, _, _ = select.select(stalled, [], [], 0)
        refused = [one.recv(100).split()[1] for one in answered]
        assert set(refused) == {b"429"}, refused  # what has no key has a budget of its own
        large = PICTURE.read_bytes() + bytes(12_000_000)  # what follows a picture is not looked at
        answer = httpx.post(
            f"{server.url}/v1/generate", files={"image": large}, data={"effort": "none"},
            headers=BEARER, timeout=60,
        )  # fmt: skip
        assert answer.status_code == 200 and "cadquery" in answer.json()["code"]
        # The others still hold what they have sent.
        answered_now, _, _ = select.select(stalled, [], [], 0)
        assert len(answered_now) < len(stalled)
    assert httpx.post(f"{server.url}{UPLOAD}", files={"files": PICTURE.read_bytes()}).is_success
    assert not server.files()  # of what did not arrive in whole


def test_a_flood_of_json(server: Server) -> None:
    lists = b'{"session_hash": "x", "fn_index": 0, "data": [' + b"[]," * 9_000_000 + b"[]]}"
    many = b'{"session_hash": "x", "fn_index": 0, "data": [' + b"[]," * 150_000 + b"[]]}"
    few = b'{"session_hash": "x", "fn_index": 0, "data": [' + b"[]," * 30_000 + b"[]]}"
    statuses = set()

    def send() -> None:
        for body in (lists, many, few):
            answer = httpx.post(
                f"{server.url}{JOIN}", content=body, headers={"content-type": "application/json"},
                timeout=60,
            )  # fmt: skip
            statuses.add((len(body), answer.status_code))

    with attack(send, 4):
        answer = key_holder(server)
        assert answer.status_code == 200 and answer.json()["part"]
    assert {status for size, status in statuses if size != len(few)} == {413}
    for path in ("/v1/execute", "/v1/chat/completions"):
        answer = httpx.post(
            f"{server.url}{path}", content=b'{"x": [' + b"[]," * 600_000 + b"[]]}",
            headers={**BEARER, "content-type": "application/json"},
        )  # fmt: skip
        assert answer.status_code == 413 and "500,000 values" in answer.text


def test_a_flood_of_uploads(server: Server) -> None:
    random = np.random.default_rng(0)
    noise = []
    for _ in range(12):
        stream = io.BytesIO()
        Image.fromarray(random.integers(0, 255, (600, 600, 3), np.uint8)).save(stream, "PNG")
        noise.append(stream.getvalue())
    assert sum(map(len, noise)) > 2 * QUOTA
    sent = iter(noise * 100)

    def send() -> None:
        files = {"files": (f"sent{time.monotonic_ns()}.png", next(sent))}
        assert httpx.post(f"{server.url}{UPLOAD}", files=files, timeout=60).status_code == 200
        text = {"files": ("sent.html", b"<script>" * 20_000)}
        answer = httpx.post(f"{server.url}{UPLOAD}", files=text, timeout=60)
        assert answer.status_code == 422 and "no picture" in answer.text

    lock = threading.Lock()

    def one_at_a_time() -> None:
        with lock:
            send()

    with attack(one_at_a_time, 2):
        answer = key_holder(server)
        assert answer.status_code == 200 and answer.json()["part"]
        for _ in range(12):
            one_at_a_time()
    kept = [file.stat().st_size for file in server.files()]
    assert 0 < sum(kept) <= QUOTA
    assert not list(server.folder.rglob("*.html"))


def test_endless_programs_of_guests(server: Server) -> None:
    url = f"{server.url}/gradio_api/call/execute"

    def run() -> None:
        event = httpx.post(url, json={"data": ["while True: pass"]}).json()["event_id"]
        httpx.get(f"{url}/{event}", timeout=120)

    threads = [threading.Thread(target=run) for _ in range(8)]
    for thread in threads:
        thread.start()
    waiting = 'image2cad_waiting{work="programs"}'

    def many_wait() -> bool:
        text = httpx.get(f"{server.url}/metrics").text
        return float(text.partition(waiting)[2].split()[0]) >= 1

    assert eventually(many_wait)
    answer = key_holder(server)
    assert answer.status_code == 200 and answer.json()["part"]
    assert many_wait()  # he went past them
    for thread in threads:
        thread.join(120)


def test_heads_that_never_come(server: Server) -> None:
    with contextlib.ExitStack() as open_ones:
        slow = [
            open_ones.enter_context(socket.create_connection(server.place, timeout=30))
            for _ in range(50)
        ]
        for number, one in enumerate(slow):
            if number % 2:
                one.sendall(b"GET / HTTP/1.1\r\nHost: local")
        assert key_holder(server).status_code == 200
        for one in slow:  # each is closed by the server
            with contextlib.suppress(ConnectionResetError):
                assert one.recv(100) == b""


def test_an_address_has_so_many_connections() -> None:
    async def nothing(scope: dict, receive: Callable, send: Callable) -> None:
        await send({"type": "http.response.start", "status": 204, "headers": []})
        await send({"type": "http.response.body"})

    limits = Limits(address_connections=3)
    config = uvicorn.Config(nothing, port=0, log_level="critical", http=patient(limits), ws="none")
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        assert eventually(lambda: server.started)
        place = server.servers[0].sockets[0].getsockname()
        with contextlib.ExitStack() as open_ones:
            few = [
                open_ones.enter_context(socket.create_connection(place, timeout=30))
                for _ in range(3)
            ]
            another = open_ones.enter_context(socket.create_connection(place, timeout=30))
            with contextlib.suppress(ConnectionResetError):
                assert another.recv(100) == b""
            for one in few:
                one.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
                assert b" 204 " in one.recv(100)
        assert eventually(lambda: httpx.get(f"http://127.0.0.1:{place[1]}").status_code == 204)
    finally:
        server.should_exit = True
        thread.join(60)


# ---- Refusals that can be read, names, other sites, headers


@pytest.mark.parametrize("path", ["/v1/generate", "/v1/execute", "/v1/nothing", UPLOAD, JOIN])
def test_an_ordinary_client_can_read_that_60_megabytes_are_too_much(
    server: Server, path: str
) -> None:
    request = urllib.request.Request(f"{server.url}{path}", bytes(60_000_000), BEARER)
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(request, timeout=60)
    assert refused.value.code == 413
    assert json.load(refused.value)["error"]["code"] == "too_large"
    keyless = urllib.request.Request(f"{server.url}{path}", bytes(60_000_000))
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(keyless, timeout=60)
    assert refused.value.code == (401 if path.startswith("/v1/") else 413)
    assert json.load(refused.value)["error"]["message"]


PATHS = {
    "/": 200, "/health": 200, "/v1/models": 401, "/nowhere": 404, "/gradio_api/info": 200,
    "/docs": 200, "/config": 200,
}  # fmt: skip


def test_every_answer_has_the_headers_and_other_names_none(server: Server) -> None:
    port = server.place[1]
    for path, status in PATHS.items():
        for name in (f"127.0.0.1:{port}", f"localhost:{port}", "cad.example.org", "[::1]:80"):
            answer = httpx.get(f"{server.url}{path}", headers={"Host": name})
            assert answer.status_code == status, (path, name)
            assert answer.headers["x-content-type-options"] == "nosniff"
            policy = answer.headers["content-security-policy"]
            assert "frame-ancestors 'self'" in policy and "connect-src 'self' data:" in policy
            assert answer.headers["x-frame-options"] == "SAMEORIGIN"
            assert answer.headers["referrer-policy"] == "same-origin"
        for name in ("evil.example", "cad.example.org.evil.example", "127.0.0.1.evil.example", "x"):
            answer = httpx.get(f"{server.url}{path}", headers={"Host": name, **BEARER})
            assert answer.status_code == 400 and "host" in answer.text.lower(), (path, name)
            assert answer.headers["x-content-type-options"] == "nosniff"


def test_pages_of_other_sites_send_nothing_and_read_nothing(server: Server) -> None:
    elsewhere = {"Origin": "https://evil.example", "Sec-Fetch-Site": "cross-site"}
    for path in ("/v1/execute", JOIN, UPLOAD, "/gradio_api/call/execute"):
        for headers in (elsewhere, {"Origin": "https://evil.example"}, {"Origin": "null"}):
            answer = httpx.post(f"{server.url}{path}", json=PROGRAM, headers={**headers, **BEARER})
            assert answer.status_code == 403 and "--origins" in answer.text
            assert "access-control-allow-origin" not in answer.headers
    for headers in ({"Origin": server.url}, {**elsewhere, "Sec-Fetch-Site": "same-origin"}):
        answer = httpx.post(
            f"{server.url}/v1/execute", json=PROGRAM, headers={**headers, **BEARER}, timeout=60
        )
        assert answer.status_code == 200
    for host in ("localhost", "cad.example.org"):
        answer = httpx.get(f"{server.url}/config", headers={**elsewhere, "Host": host})
        assert "access-control-allow-origin" not in answer.headers


def test_what_the_page_does_not_use_is_closed(server: Server) -> None:
    for path in (
        "file=http://127.0.0.1:1/x", "file=https://example.com/x.png", "file/http://example.com/",
        "proxy=https://x.hf.space/", "deep_link?session_hash=x", "run-history/buckets", "runs",
    ):  # fmt: skip
        answer = httpx.get(f"{server.url}/gradio_api/{path}")
        assert answer.status_code == 404 and "there is no GET" in answer.text, path
    answer = httpx.post(f"{server.url}/gradio_api/process_recording", files={"x": b"x"})
    assert answer.status_code == 404


def test_keys_are_exchanged_while_the_server_runs(server: Server) -> None:
    def status(key: str) -> int:
        headers = {"Authorization": f"Bearer {key}"}
        return httpx.get(f"{server.url}/v1/models", headers=headers).status_code

    file, other = server.folder / "keys", "another-key-that-nobody-guesses"
    assert status(KEY) == 200
    try:
        file.write_text(other)
        assert eventually(lambda: status(other) == 200, 20) and status(KEY) == 401
        file.write_text("")  # by mistake: nobody is let in, and nobody locked out
        time.sleep(1.5)  # longer than the server waits between two looks
        assert status(other) == 200 and httpx.get(f"{server.url}/v1/models").status_code == 401
    finally:
        file.write_text(KEY)
    assert eventually(lambda: status(KEY) == 200, 20) and status(other) == 401


# ---- A page that is closed


class Closed(Slow):
    """A service for the API as well."""

    workers, backend = 1, Backend("stub", lambda image, effort: [BOX])

    def load(self) -> dict:
        return {}

    def close(self) -> None:
        pass


@pytest.fixture(scope="module")
def closed(uploads: Path) -> Iterator[SimpleNamespace]:
    """The address of a server in this process, its key file and its limits: three tries."""
    service, file = Closed(), uploads.parent / "closed-keys"
    service.limits = limits = Limits(tries=3, tries_seconds=2, picture_bytes=100_000)
    service.figures = new_figures("none", dict)
    file.write_text(f"{KEY}\nshort")
    keys = Keys([], file, limits)
    api = make_api(service, keys=keys, closed_page=True)
    app = mount_page(api, make_page(service), limits, uploads, **PAGE_LOOK)
    config = uvicorn.Config(app, port=0, log_level="critical", timeout_graceful_shutdown=1)
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run)
    thread.start()
    assert eventually(lambda: server.started)
    url = f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    yield SimpleNamespace(url=url, file=file)
    server.should_exit = True
    thread.join(60)
    assert not thread.is_alive()


HTML = {"accept": "text/html,*/*"}


def shown(browser: httpx.Client, key: str) -> httpx.Response:
    form = {"password": key}
    return browser.post("/login", data=form, headers=HTML, follow_redirects=False)


def test_a_closed_page_shows_a_form_and_takes_nothing(closed: SimpleNamespace) -> None:
    with httpx.Client(base_url=closed.url) as browser:
        answer = browser.get("/", headers=HTML)
        assert answer.status_code == 401 and 'type="password"' in answer.text
        assert "gradio" not in answer.text
        picture = {"files": ("a.png", PICTURE.read_bytes())}
        for method, path in [
            ("GET", "/config"), ("GET", "/gradio_api/info"), ("POST", JOIN), ("POST", UPLOAD),
            ("GET", "/assets/x.js"), ("POST", "/gradio_api/call/execute"), ("GET", "/nowhere"),
        ]:  # fmt: skip
            more = {"files": picture} if method == "POST" else {}
            answer = browser.request(method, path, **more)
            assert answer.status_code == 401, path
            assert answer.json()["error"]["code"] == "invalid_api_key"
        assert browser.get("/docs").status_code == browser.get("/health").status_code == 200
        files = re.findall(r"(?:src|href)=\"(/[^\"]+)\"", browser.get("/docs").text)
        assert files and all(browser.get(path).status_code == 200 for path in files)
        answer = browser.post("/login", data={"password": "x" * 10_000})
        assert answer.status_code == 413


def test_a_key_opens_the_page_until_it_is_withdrawn(closed: SimpleNamespace) -> None:
    with httpx.Client(base_url=closed.url) as browser:
        assert browser.get("/config", headers=BEARER).status_code == 200
        answer = shown(browser, KEY)
        assert answer.status_code == 303 and answer.headers["location"] == "./"
        cookie = answer.headers["set-cookie"]
        assert "HttpOnly" in cookie and "SameSite=lax" in cookie and KEY not in cookie
        assert browser.get("/", headers=HTML).status_code == 200
        assert browser.get("/config").status_code == 200
        session = browser.cookies["image2cad-session"]
        later = str(int(session.partition(".")[0]) + 9)
        for forged in (later + session[len(later) :], "", ".", "9" * 50 + ".x", "x.y"):
            headers = {"cookie": f"image2cad-session={forged}"}
            assert httpx.get(f"{closed.url}/config", headers=headers).status_code == 401
        try:
            closed.file.write_text("another-key-that-nobody-guesses")
            assert eventually(lambda: browser.get("/config").status_code == 401, 20)
        finally:
            closed.file.write_text(f"{KEY}\nshort")
        assert eventually(lambda: browser.get("/config").status_code == 200, 20)
        assert browser.get("/logout").status_code == 303 and not browser.cookies


def test_gradios_own_client_comes_in_with_a_key(closed: SimpleNamespace) -> None:
    client = Client(closed.url, auth=("anybody", KEY), verbose=False)
    assert client.predict(BOX, api_name="/execute")["volume"] == pytest.approx(48_000)
    got = client.predict(handle_file(PICTURE), "low", api_name="/generate")
    assert got["code"].strip() == BOX
    with pytest.raises(AuthenticationError):
        Client(closed.url, auth=("anybody", "wrong key"), verbose=False)


def test_tries_are_limited_and_long_keys_are_not_locked_out(closed: SimpleNamespace) -> None:
    with httpx.Client(base_url=closed.url) as browser:
        assert eventually(lambda: shown(browser, "short").status_code == 303, 20)
        wrong = [shown(browser, f"wrong {i}").status_code for i in range(4)]
        # Those of tests before count as well.
        assert wrong[-1] == 429 and set(wrong) <= {401, 429} and wrong == sorted(wrong)
        bearer = browser.get("/v1/models", headers={"Authorization": "Bearer wrong"})
        assert bearer.status_code == 429  # they count together
        late = shown(browser, "short")
        assert late.status_code == 429 and 1 <= int(late.headers["retry-after"]) <= 2
        headers = {"Authorization": "Bearer short"}
        assert browser.get("/v1/models", headers=headers).status_code == 429
        assert browser.get("/config").status_code == 200  # a session goes on
        assert browser.get("/v1/models", headers=BEARER).status_code == 200
        assert shown(browser, KEY).status_code == 303
        assert eventually(lambda: shown(browser, "short").status_code == 303, 20)


def test_tries_are_counted_by_subscriber() -> None:
    tries = Tries(Limits(tries=2))
    tries.wrong("2001:db8::1"), tries.wrong("2001:db8::ffff")
    with pytest.raises(TooManyTries):
        tries.check("2001:db8::2")
    tries.check("2001:db8:0:1::1"), tries.check("192.0.2.1")


# ---- Settings


@pytest.fixture(scope="module")
def app() -> dict:
    return runpy.run_path(str(ROOT / "app.py"))


def started(host: str = "127.0.0.1", file: Path | None = None) -> SimpleNamespace:
    return SimpleNamespace(host=host, key_file=file and str(file), limits=None)


def test_keys_that_were_meant_and_are_not_there(
    app: dict, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    for name in ("IMAGE2CAD_KEYS", "IMAGE2CAD_BACKEND_KEY"):
        for blank in ("", " ", ",", " , "):
            monkeypatch.setenv(name, blank)
            with pytest.raises(InputError, match=f"{name} is set but blank"):
                app["secret"](name)
        monkeypatch.delenv(name)
    monkeypatch.setenv("IMAGE2CAD_KEYS", "")
    with pytest.raises(InputError, match="IMAGE2CAD_KEYS is set but blank"):
        app["known_keys"](started())
    monkeypatch.delenv("IMAGE2CAD_KEYS")
    file = tmp_path / "keys"
    with pytest.raises(InputError, match="cannot be read"):
        app["known_keys"](started(file=file))
    file.write_text("# none yet\n\n")
    with pytest.raises(InputError, match="holds no key"):
        app["known_keys"](started(file=file))
    assert not capsys.readouterr().err
    for host, warned in [("0.0.0.0", True), ("::", True), ("127.0.0.2", False), ("::1", False)]:
        assert not app["known_keys"](started(host))
        assert ("anybody who reaches" in capsys.readouterr().err) == warned, host
    file.write_text(KEY)
    assert app["known_keys"](started("0.0.0.0", file)) and not capsys.readouterr().err
    monkeypatch.setenv("IMAGE2CAD_KEYS", "short")
    keys = app["known_keys"](started("0.0.0.0", file))
    assert keys.now() == ("short", KEY) and "can be guessed" in capsys.readouterr().err


def test_limits_are_settings() -> None:
    limits = limits_from("waiting=0, picture_bytes=1_000, body_seconds=2.5, seconds.low=9")
    assert (limits.waiting, limits.picture_bytes, limits.body_seconds) == (0, 1000, 2.5)
    assert limits.seconds == {**Limits().seconds, "low": 9}
    assert limits_from("") == Limits()
    for wrong, why in [
        ("wating=1", "'wating=1' is no limit"), ("waiting", "no limit"), ("tries=x", "whole"),
        ("tries=1.5", "whole"), ("body_seconds=inf", "above 0"), ("pixels=0", "above 0"),
        ("seconds=9", "no limit"),
    ]:  # fmt: skip
        with pytest.raises(InputError, match=why):
            limits_from(wrong)


def test_the_page_can_have_names_and_no_others(app: dict) -> None:
    settings = SimpleNamespace(host="0.0.0.0", names="cad.example.org, *.example.com")
    names = app["own_names"](settings)
    assert {"localhost", "cad.example.org", "*.example.com"} <= set(names) and "*" not in names
    for wrong in ("http://x", "x:80", "a*b", "*x", "x y"):
        with pytest.raises(InputError, match="is no name"):
            app["own_names"](SimpleNamespace(host="127.0.0.1", names=wrong))


# ---- Files on disk


def test_a_guest_pushes_out_guests_and_a_visitor_himself(tmp_path: Path) -> None:
    size = 100_000
    limits = Limits(visitor_uploads_bytes=3 * size, uploads_bytes=10 * size)
    shelf = Shelf(limits)

    def put(name: str, owner: str, guest: bool) -> None:
        shelf.put(tmp_path / name / "a.png", bytes(size), owner, guest)

    def there() -> list[str]:
        return sorted(folder.name for folder in tmp_path.iterdir())

    for number in range(5):
        put(f"one{number}", "one", False)
    assert there() == ["one2", "one3", "one4"]
    for number in range(9):
        put(f"guest{number}", f"guest{number}", True)
    assert there() == [*(f"guest{number}" for number in range(4, 9)), "one2", "one3", "one4"]


def test_old_files_go_and_the_oldest_where_there_are_too_many(tmp_path: Path) -> None:
    def write(name: str, age: float) -> None:
        file = tmp_path / name / "file"
        file.parent.mkdir()
        file.write_bytes(bytes(1000))
        for path in (file, file.parent):
            os.utime(path, (time.time() - age,) * 2)

    write("bundled", 9000)
    bundled = set(tmp_path.rglob("*"))
    for name, age in [("old", 5000), ("a", 300), ("b", 200), ("c", 100)]:
        write(name, age)
    sweep(tmp_path, bundled, Limits(files_seconds=4000, files_bytes=2500))
    sweep(tmp_path, bundled, Limits(files_seconds=4000, files_bytes=2500))
    assert {file.parent.name for file in tmp_path.rglob("file")} == {"bundled", "b", "c"}


def test_a_programs_error_is_shown_as_text() -> None:
    from image2cad.serving.page.visitors import in_toast

    error = in_toast(InputError("<img src=http://evil.example/x> 'a'"))
    assert isinstance(error, gr.Error)
    assert error.message == "&lt;img src=http://evil.example/x&gt; 'a'"
