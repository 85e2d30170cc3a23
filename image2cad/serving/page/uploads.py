"""Files that visitors send, taken as files only: no links, and no paths of this machine.

given = taken_as_path(gr.Image(type="filepath"))      # hands on the path, unopened
file = uploaded_file(path)                      # which is checked here
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gradio as gr
from gradio import processing_utils
from gradio.utils import get_upload_folder

from image2cad.common import InputError


def taken_as_path(component: gr.Image) -> gr.Image:
    """The component, handing on what was sent as a path. `uploaded_file` has to check it."""

    def path_of(payload: Any) -> str | None:
        return payload.path if payload else None

    component.preprocess = path_of  # type: ignore[method-assign]
    return component


def taken_as_paths(component: gr.File) -> gr.File:
    """The same of a component that takes several files."""

    def paths_of(payload: Any) -> list[str]:
        return [one.path for one in payload] if payload else []

    component.preprocess = paths_of  # type: ignore[method-assign]
    return component


def uploaded_file(path: str | None) -> Path:
    """The uploaded file. Raises InputError for no file, and for a path that is no upload."""
    if not path:
        raise InputError("give a picture first: drop it, paste it or take an example")
    file = Path(path).resolve()
    if not file.is_relative_to(Path(get_upload_folder()).resolve()) or not file.is_file():
        raise InputError("this file is not here; please upload it again")
    return file


def refuse_links() -> None:
    """Let gradio fetch nothing in this process."""

    async def refuse(url: str, cache_dir: str) -> str:
        raise gr.Error("Give the picture as a file, not as a link.", print_exception=False)

    processing_utils.async_ssrf_protected_download = refuse
