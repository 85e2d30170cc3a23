"""A stand-in for the Hugging Face hub: a data set's files over HTTP, with ranges, on this machine.

    with Hub(folder, "someone/parts") as hub:
        subprocess.run(command, env=os.environ | hub.environment)
        hub.sent                        # bytes of files that were sent

It answers what `huggingface_hub` and `datasets` ask for a public data set; all else is 404.
"""

from __future__ import annotations

import hashlib
import json
import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlparse

COMMIT = "0123456789abcdef0123456789abcdef01234567"


class Hub:
    """Serves `folder` as the data set `name`. broken: so many requests for data are cut off."""

    def __init__(self, folder: Path, name: str, broken: int = 0) -> None:
        self.folder, self.name, self.broken = folder, name, broken
        self.sent = 0
        self.asked: list[str] = []
        hub = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_: Any) -> None: ...

            def do_HEAD(self) -> None:
                hub.answer(self, body=False)

            def do_GET(self) -> None:
                hub.answer(self, body=True)

            def do_POST(self) -> None:
                self.posted = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                hub.answer(self, body=True)

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True

    def __enter__(self) -> Hub:
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: Any) -> None:
        self.server.shutdown()
        self.server.server_close()

    @property
    def environment(self) -> dict[str, str]:
        address = f"http://127.0.0.1:{self.server.server_address[1]}"
        return {
            "HF_ENDPOINT": address,
            "HF_HUB_OFFLINE": "0",
            "HF_HUB_DISABLE_XET": "1",
            "NO_PROXY": "127.0.0.1",
        }

    def answer(self, request: Any, body: bool) -> None:
        path = unquote(urlparse(request.path).path)
        self.asked.append(f"{request.command} {request.path}")
        if file := re.fullmatch(rf"/datasets/{self.name}/resolve/[^/]+/(.+)", path):
            self._send_file(request, self.folder / file[1], body)
            return
        found = self._api(path, getattr(request, "posted", b""))
        data = json.dumps(found if found is not None else {"error": "not found"}).encode()
        request.send_response(200 if found is not None else 404)
        request.send_header("Content-Type", "application/json")
        request.send_header("Content-Length", str(len(data)))
        request.end_headers()
        if body:
            request.wfile.write(data)

    def _api(self, path: str, posted: bytes) -> Any:
        start = f"/api/datasets/{self.name}"
        files = sorted(file for file in self.folder.rglob("*") if file.is_file())
        if path == start or re.fullmatch(rf"{start}/revision/[^/]+", path):
            siblings = [{"rfilename": str(file.relative_to(self.folder))} for file in files]
            return {"id": self.name, "sha": COMMIT, "private": False, "gated": False,
                    "siblings": siblings, "tags": [], "downloads": 0, "likes": 0}  # fmt: skip
        if found := re.fullmatch(rf"{start}/tree/[^/]+(?:/(.*))?", path):
            place = self.folder / (found[1] or "")
            found_there = sorted(place.rglob("*")) if place.is_dir() else None
            return found_there and [self._entry(one) for one in found_there]
        if re.fullmatch(rf"{start}/paths-info/[^/]+", path):
            given = re.findall(r"paths=([^&]+)", posted.decode())
            names = [unquote(name) for name in given] or json.loads(posted or "{}").get("paths", [])
            return [self._entry(self.folder / n) for n in names if (self.folder / n).exists()]
        return None

    def _entry(self, place: Path) -> dict[str, Any]:
        name = str(place.relative_to(self.folder))
        oid = hashlib.sha1(name.encode()).hexdigest()
        if place.is_dir():
            return {"type": "directory", "oid": oid, "size": 0, "path": name}
        return {"type": "file", "oid": oid, "size": place.stat().st_size, "path": name}

    def _send_file(self, request: Any, file: Path, body: bool) -> None:
        if not file.is_file():
            request.send_response(404)
            request.send_header("X-Error-Code", "EntryNotFound")
            request.send_header("Content-Length", "0")
            request.end_headers()
            return
        size = file.stat().st_size
        start, end = 0, size
        if asked := re.fullmatch(r"bytes=(\d+)-(\d*)", request.headers.get("Range", "")):
            start, end = int(asked[1]), min(int(asked[2] or size - 1) + 1, size)
        request.send_response(206 if asked else 200)
        request.send_header("Content-Length", str(end - start))
        request.send_header("Accept-Ranges", "bytes")
        request.send_header("ETag", f'"{hashlib.sha1(str(file).encode()).hexdigest()}"')
        request.send_header("X-Repo-Commit", COMMIT)
        if asked:
            request.send_header("Content-Range", f"bytes {start}-{end - 1}/{size}")
        request.end_headers()
        if not body:
            return
        if asked and self.broken > 0:
            self.broken -= 1
            request.close_connection = True
            return
        with open(file, "rb") as stream:
            stream.seek(start)
            request.wfile.write(stream.read(end - start))
        self.sent += end - start
