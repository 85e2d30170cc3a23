"""Score a file of predictions: python -m metrics predictions.jsonl --references references.jsonl

Each line of the predictions is a JSON object with "id" and "code". References are a JSONL file
with "id" and "code" (or "cadquery"), or a folder of <id>.step, <id>.stl or <id>.py files.
Writes one row a sample to --out and prints the totals as JSON.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from .alignment import ALIGNMENTS
from .scores import compute


class BadInput(Exception):
    """The command line or a file is wrong; the message says what to do."""


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; returns the exit code (2 for bad input)."""
    parser = argparse.ArgumentParser(prog="python -m metrics", description=__doc__)
    parser.add_argument("predictions", type=Path)
    parser.add_argument("--references", type=Path, required=True)
    parser.add_argument("--alignment", choices=ALIGNMENTS, default="best")
    parser.add_argument("--out", type=Path, help="write one JSON row a sample to this file")
    parser.add_argument("--workers", type=int)
    parser.add_argument("--timeout", type=float, default=30.0, help="seconds a program")
    options = parser.parse_args(arguments)
    try:
        predictions = read_codes(options.predictions)
        references = read_references(options.references, list(predictions))
        got = compute(
            predictions=list(predictions.values()),
            references=[references[name] for name in predictions],
            ids=list(predictions),
            alignment=options.alignment,
            workers=options.workers,
            progress=sys.stderr.isatty(),
            timeout=options.timeout,
        )
    except (BadInput, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    rows = got.pop("rows")
    if options.out:
        with options.out.open("w") as out:
            out.writelines(json.dumps(row) + "\n" for row in rows)
    print(json.dumps(got, indent=2))
    return 0


def read_codes(path: Path) -> dict[str, str]:
    """{id: code} of a JSONL file; the code may be called "code" or "cadquery"."""
    try:
        lines = path.read_text().splitlines()
    except OSError as error:
        raise BadInput(f"{path}: {error.strerror}") from None
    codes: dict[str, str] = {}
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            row: Any = json.loads(line)
        except ValueError:
            raise BadInput(f"{path}, line {number}: not JSON") from None
        name = row.get("id", row.get("deepcad_id")) if isinstance(row, dict) else None
        code = row.get("code", row.get("cadquery")) if isinstance(row, dict) else None
        if name is None or not isinstance(code, str):
            raise BadInput(f'{path}, line {number}: expected "id" and "code"')
        if str(name) in codes:
            raise BadInput(f"{path}, line {number}: id {name} appears twice")
        codes[str(name)] = code
    if not codes:
        raise BadInput(f"{path}: no rows")
    return codes


def read_references(path: Path, names: list[str]) -> dict[str, str | Path]:
    """{id: code or path} for the given ids, from a JSONL file or a folder."""
    found: dict[str, str | Path] = {}
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


if __name__ == "__main__":
    sys.exit(main())
