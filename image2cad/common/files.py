"""Files that are whole or not there, and rows of JSON, one a line."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from image2cad.common.errors import InputError


def write_whole(file: Path, data: str | bytes, shared: bool = False) -> None:
    """Write a file that is there completely or not at all, whenever the process ends.

    shared: several processes may write it at the same time.
    """
    part = file.with_name(f"{file.name}.{os.getpid()}.part" if shared else f"{file.name}.part")
    part.write_bytes(data.encode("utf-8") if isinstance(data, str) else data)
    os.replace(part, file)


def move_whole(part: Path, place: Path) -> None:
    """Give a finished folder its name; where another process was faster, that one's stays."""
    try:
        part.rename(place)
    except OSError:
        shutil.rmtree(part)
        if not place.is_dir():
            raise


def read_json_lines(
    file: Path, kind: type = dict, cut_off: bool = False
) -> Iterator[tuple[int, Any]]:
    """(line number from 1 on, row) of a file with one JSON object (or list) a line.

    Empty lines are passed over. Raises InputError naming file and line where the file cannot be
    read or a line is no such row. cut_off: the file was written by a run that may have been
    stopped, so the first line that is no such row ends it instead.
    """
    try:
        with open(file, "rb") as lines:
            for number, line in enumerate(lines, start=1):
                if not line.strip():
                    continue
                try:
                    row, problem = json.loads(line), ""
                except ValueError as error:
                    row, problem = None, f"not JSON: {error}"
                if not problem and not isinstance(row, kind):
                    problem = "not a JSON object" if kind is dict else "not a JSON list"
                if problem and cut_off:
                    return
                if problem:
                    raise InputError(f"{file}, line {number}: {problem}")
                yield number, row
    except OSError as error:
        raise InputError(f"cannot read {file}: {error}") from error


def read_kept(file: Path | None) -> dict[str, dict[str, Any]]:
    """Rows of JSON by id, as far as they are whole; a last line that was cut off is taken off."""
    if file is None or not file.is_file():
        return {}
    rows = [row for _, row in read_json_lines(file, cut_off=True)]
    write_whole(file, "".join(json.dumps(row) + "\n" for row in rows))
    return {row.pop("id"): row for row in rows}
