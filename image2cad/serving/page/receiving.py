"""The page's uploads and files on disk: pictures only, so many bytes of each visitor and of all.

    mount_page(app, page, service.limits, folder)   # gradio's page at /, its uploads taken here

gradio would keep files of any kind, for as long as it is told. A visitor who has used his share
loses his oldest picture, and no other's. Left out: how large a request may be (api/guard.py).
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import re
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gradio as gr
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse
from gradio.utils import get_upload_folder
from starlette.datastructures import UploadFile

from image2cad.common import InputError
from image2cad.serving.api.errors import answer_to, error
from image2cad.serving.keys import network
from image2cad.serving.limits import Limits, unread_picture
from image2cad.serving.page.login import UPLOAD_PATH, address_of

MOST_OF_UPLOAD = 16  # of one upload
MOST_NAME_LETTERS = 100  # of a file's name, its end
NOT_IN_NAMES = re.compile(r"[^\w .-]")
LEAST_CHARGE = 64 << 10  # bytes that a file counts as: small ones take room as well
SWEEP_SECONDS = 30.0  # between two looks at the folder


@dataclass(frozen=True)
class Kept:
    """A picture on disk. owner: whose. charge: bytes that it counts as."""

    owner: str
    guest: bool
    charge: int


class Shelf:
    """The pictures that visitors have sent, oldest first."""

    def __init__(self, limits: Limits) -> None:
        self._limits, self._files = limits, dict[Path, Kept]()

    def put(self, file: Path, data: bytes, owner: str, guest: bool) -> None:
        """Write a picture, after as many old ones are gone as it takes.

        First the owner's own, then guests' for a guest, then any.
        """
        limits, charge = self._limits, max(len(data), LEAST_CHARGE)
        self._files.pop(file, None)
        self._make_room(charge, limits.visitor_uploads_bytes, lambda kept: kept.owner == owner)
        if guest:
            self._make_room(charge, limits.uploads_bytes // 2, lambda kept: kept.guest)
        self._make_room(charge, limits.uploads_bytes, lambda kept: True)
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(data)
        self._files[file] = Kept(owner, guest, charge)

    def _make_room(self, charge: int, most: int, counts: Any) -> None:
        held = [(file, kept.charge) for file, kept in self._files.items() if counts(kept)]
        total = charge + sum(size for _, size in held)
        for file, size in held:
            if total <= most:
                return
            total -= size
            del self._files[file]
            file.unlink(missing_ok=True)
            with contextlib.suppress(OSError):  # the same picture by another name
                file.parent.rmdir()


def mount_page(app: FastAPI, page: gr.Blocks, limits: Limits, folder: Path, **look: Any) -> FastAPI:
    """The app with the page at /, whose files are kept within the limits.

    folder: where gradio keeps them, and nobody else anything. look: for gr.mount_gradio_app.
    """
    shelf, lock = Shelf(limits), asyncio.Lock()

    @app.post(UPLOAD_PATH, include_in_schema=False)
    async def upload(request: Request) -> Any:
        guest = getattr(request.state, "guest", False)
        owner = network(address_of(request.scope))
        paths = []
        async with request.form(max_files=MOST_OF_UPLOAD, max_fields=MOST_OF_UPLOAD) as form:
            for sent in form.getlist("files"):
                if not isinstance(sent, UploadFile):
                    return error(422, "send the pictures as files named files")
                data = await sent.read(limits.picture_bytes + 1)
                try:
                    await asyncio.to_thread(unread_picture, data, limits)
                except InputError as refused:
                    return answer_to(refused)
                name = NOT_IN_NAMES.sub("", Path(sent.filename or "").name).lstrip(".")
                place = Path(get_upload_folder()) / hashlib.sha256(data).hexdigest()
                file = place / (name[-MOST_NAME_LETTERS:] or "picture")
                async with lock:
                    await asyncio.to_thread(shelf.put, file, data, owner, guest)
                paths.append(str(file))
        return JSONResponse(paths)

    before = app.router.lifespan_context

    @contextlib.asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[Any]:
        bundled = set(folder.rglob("*"))  # the examples
        sweeper = asyncio.create_task(_sweep_always(folder, bundled, limits))
        async with before(app) as state:
            yield state
        sweeper.cancel()

    app.router.lifespan_context = lifespan
    return gr.mount_gradio_app(
        app, page, path="/", max_file_size=limits.picture_bytes, ssr_mode=False, show_error=False,
        **look,
    )  # fmt: skip


async def _sweep_always(folder: Path, bundled: set[Path], limits: Limits) -> None:
    while True:
        await asyncio.sleep(SWEEP_SECONDS)
        await asyncio.to_thread(sweep, folder, bundled, limits)


def sweep(folder: Path, bundled: set[Path], limits: Limits) -> None:
    """Remove files that are too old, and the oldest where all together are too large.

    bundled: files and folders that stay.
    """
    files: list[tuple[float, int, Path]] = []
    folders: list[tuple[float, int, Path]] = []
    now = time.time()
    for path in set(folder.rglob("*")) - bundled:
        with contextlib.suppress(FileNotFoundError):  # removed meanwhile
            about = path.stat()
            kind = folders if path.is_dir() else files
            kind.append((about.st_mtime, about.st_size, path))
    total = sum(size for _, size, _ in files)
    for moment, size, path in sorted(files):
        if moment >= now - limits.files_seconds and total <= limits.files_bytes:
            break
        path.unlink(missing_ok=True)
        total -= size
    for moment, _, path in folders:
        if moment < now - SWEEP_SECONDS:  # gradio makes a folder first, and then its file
            with contextlib.suppress(OSError):  # it is not empty
                path.rmdir()
