"""What is scored, as it lies on disk: predictions as JSONL, references as JSONL or in a folder.

    codes = read_codes(Path("predictions.jsonl"))            # {id: code}
    references = read_references(Path("steps"), list(codes)) # {id: code, or a path}

Left out: measuring what they hold (references.py).
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from .references import Reference


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
    """{id: code} of a JSONL file. Raises BadInput, naming the line."""
    try:
        lines = path.read_text().splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise BadInput(f"{path} cannot be read: {error}") from None
    codes: dict[str, str] = {}
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        row = read_row(path, number, line)
        name, code = row.get("id", row.get("deepcad_id")), row.get("code", row.get("cadquery"))
        if name is None or not isinstance(code, str):
            raise BadInput(f'{path}, line {number}: expected "id" and "code"')
        if str(name) in codes:
            raise BadInput(f"{path}, line {number}: id {name} appears twice")
        codes[str(name)] = code
    if not codes:
        raise BadInput(f"{path}: no rows")
    return codes


def read_references(path: Path, names: list[str]) -> dict[str, Reference]:
    """{id: code or path} for the given ids. Raises BadInput where one is missing."""
    found: dict[str, Reference] = {}
    if path.is_dir():
        for name in names:
            for suffix in (".py", ".step", ".stp", ".stl"):
                file = path / f"{name}{suffix}"
                if file.exists():
                    found[name] = file.read_text() if suffix == ".py" else file
                    break
    else:
        codes = read_codes(path)
        found.update({name: codes[name] for name in names if name in codes})
    missing = [name for name in names if name not in found]
    if missing:
        shown = ", ".join(missing[:5])
        raise BadInput(f"{path}: no reference for {len(missing)} ids, such as {shown}")
    return found
