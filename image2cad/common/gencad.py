"""GenCAD-Code's schema: its columns, its question, metadata.jsonl."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from image2cad.common.errors import InputError
from image2cad.common.files import read_json_lines

QUESTION = "Generate CADQuery code:"

COLUMNS = ("file_name", "deepcad_id", "cadquery", "token_count", "prompt", "hundred_subset")
METADATA, FAILURES = "metadata.jsonl", "failures.jsonl"


def read_programs(source: Path) -> list[dict[str, Any]]:
    """The rows of a JSONL file or of a folder's metadata.jsonl, each with `id` and `code`.

    Raises InputError if the file cannot be read or a line is no such row.
    """
    file = source / METADATA if source.is_dir() else source
    rows = []
    for number, row in read_json_lines(file):
        name = next((row[key] for key in ("deepcad_id", "id") if row.get(key) is not None), None)
        if name is None or not {"code", "cadquery"} & set(row):
            raise InputError(
                f"{file}, line {number}: a row needs an id (id or deepcad_id) "
                "and a program (code or cadquery)"
            )
        code = row["cadquery"] if "cadquery" in row else row["code"]
        rows.append({**row, "id": str(name), "code": code})
    if not rows:
        raise InputError(f"{file} has no rows")
    return rows


def token_count(code: str) -> int:
    """GenCAD-Code's column: code tokens + 577 for the picture + 69 for the prompt.

    Counted as Llama's tokenizer splits code, digit by digit; an estimate.
    """
    return len(re.findall(r"\d|[A-Za-z_]+|[^\sA-Za-z_\d]+|\n", code)) + 577 + 69


def metadata_row(name: str, code: str, **columns: Any) -> dict[str, Any]:
    """One line of metadata.jsonl: the picture <name>.png shows what `code` builds.

    columns: token_count, prompt and hundred_subset where they are known.
    """
    known = {"file_name": f"{name}.png", "deepcad_id": name, "cadquery": code, **columns}
    known["prompt"] = columns.get("prompt") or QUESTION
    return {column: known[column] for column in COLUMNS if column in known}
