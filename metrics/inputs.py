"""What is scored, as it lies on disk: predictions as JSONL or in a folder, and references.

    codes = read_codes(Path("predictions.jsonl"))            # {id: code}
    references = read_references(Path("steps"), list(codes)) # {id: code, or a path}

Left out: measuring what they hold (references.py).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .execution import JOB_OF_SUFFIX
from .references import Reference, file_suffix
from .scores import Prediction

SUFFIXES = (".py", *JOB_OF_SUFFIX)


class BadInput(Exception):
    """The command line or a file is wrong; the message says what to do."""


def read_row(path: Path, number: int, line: str) -> dict[str, Any]:
    """The JSON object in a line of a JSONL file. Raises BadInput, naming the line."""
    try:
        row = json.loads(line)
    except ValueError:
        raise BadInput(f"{path}, line {number}: not JSON") from None
    if not isinstance(row, dict):
        raise BadInput(f"{path}, line {number}: not a JSON object")
    return row


def read_codes(path: Path) -> dict[str, str]:
    """{id: code} of a JSONL file, "" where the code is null. Raises BadInput, naming the line."""
    return {name: code or "" for name, code in _rows(path).items()}


def _rows(path: Path) -> dict[str, str | None]:
    try:
        # Only line feeds end a line: JSON may hold U+2028 as it is.
        lines = path.read_text(encoding="utf-8-sig").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise BadInput(f"{path} cannot be read: {error}") from None
    codes: dict[str, str | None] = {}
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        row = read_row(path, number, line)
        name = row.get("id", row.get("deepcad_id"))
        held = next((key for key in ("code", "cadquery") if key in row), None)
        code = row.get(held or "code")
        if name is None or held is None or not isinstance(code, str | None):
            raise BadInput(f'{path}, line {number}: expected "id" and "code"')
        if str(name) in codes:
            raise BadInput(f"{path}, line {number}: id {name} appears twice")
        codes[str(name)] = code
    if not codes:
        raise BadInput(f"{path}: no rows")
    return codes


def read_predictions(path: Path) -> dict[str, Prediction]:
    """{id: code, path or None} of a JSONL file or a folder. Raises BadInput.

    In place of code there may be a path, seen from the folder of the JSONL file. Code is whatever a
    model wrote, so only files inside that folder are read: a reference elsewhere is no answer.
    """
    if path.is_dir():
        files = _files(path)
        if not files:
            raise BadInput(f"{path}: no {', '.join(SUFFIXES)} files")
        return {**files}
    folder = path.parent.resolve()
    held: dict[str, Prediction] = {}
    for name, code in _rows(path).items():
        file = _file_beside(path, code)
        held[name] = file if file is not None and file.resolve().is_relative_to(folder) else code
    return held


def read_references(path: Path, names: list[str]) -> dict[str, Reference]:
    """{id: code or path} for the given ids. Raises BadInput where one is missing."""
    held: Mapping[str, str | Path | None]
    if path.is_dir():
        held = _files(path)
    else:
        held = {name: _file_beside(path, code) or code for name, code in _rows(path).items()}
    found: dict[str, Reference] = {
        name: one for name in names if (one := held.get(name)) is not None
    }
    missing = [name for name in names if name not in found]
    if missing:
        shown = ", ".join(missing[:5])
        raise BadInput(f"{path}: no reference for {len(missing)} ids, such as {shown}")
    return found


def _file_beside(path: Path, code: str | None) -> Path | None:
    """The file that a row of the JSONL file `path` names in place of code, if it is there."""
    if code is None or not file_suffix(code):
        return None
    file = path.parent / code.strip()
    return file if file.is_file() else None


def _files(folder: Path) -> dict[str, Path]:
    """{id: file} of a folder; of several files of one id the first kind in SUFFIXES."""
    found: dict[str, Path] = {}
    files = [file for file in sorted(folder.iterdir()) if file.suffix.lower() in SUFFIXES]
    for file in sorted(files, key=lambda file: SUFFIXES.index(file.suffix.lower())):
        found.setdefault(file.name[: -len(file.suffix)], file)
    return found
