"""Files that are whole or not there, and rows that are kept as they come."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any


def write_whole(file: Path, data: str | bytes) -> None:
    """Write a file that is there completely or not at all, whenever the process ends."""
    part = file.with_name(file.name + ".part")
    part.write_bytes(data.encode() if isinstance(data, str) else data)
    os.replace(part, file)


def move_whole(part: Path, place: Path) -> None:
    """Give a finished folder its name; where another process was faster, that one's stays."""
    try:
        part.rename(place)
    except OSError:
        shutil.rmtree(part)
        if not place.is_dir():
            raise


def read_kept(file: Path | None) -> dict[str, dict[str, Any]]:
    """Rows of JSON by id, as far as they are whole; a last line that was cut off is taken off."""
    rows: dict[str, dict[str, Any]] = {}
    if file is None or not file.is_file():
        return rows
    whole = []
    for line in file.read_text(encoding="utf-8").splitlines():
        try:
            row = json.loads(line)
        except ValueError:
            break
        whole.append(line)
        rows[row.pop("id")] = row
    write_whole(file, "".join(line + "\n" for line in whole))
    return rows
