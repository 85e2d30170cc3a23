"""Score a file of predictions: python -m metrics predictions.jsonl --references references.jsonl

Predictions and references are each a JSONL file, or a folder of <id>.py, <id>.step, <id>.stl,
<id>.3mf or <id>.obj files. A line is a JSON object with "id" and "code" (or "deepcad_id" and
"cadquery"): the program, the path of such a file, or null for a failure. Prints the totals as
JSON, and a table of failures on the error stream.

--out writes one JSON row a sample as soon as it is scored; --resume goes on with such a file.
Exit code 2 for bad input, 130 when interrupted.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from .alignment import ALIGNMENTS
from .execution import DEFAULT_TIMEOUT
from .inputs import BadInput, read_predictions, read_references, read_row
from .progress import progress_bar
from .references import reference_kinds
from .scores import Prediction, pair_up, score_rows, shown, totals


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m metrics", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("predictions", type=Path)
    parser.add_argument("--references", type=Path, required=True)
    parser.add_argument("--alignment", choices=ALIGNMENTS, default="best")
    parser.add_argument("--extras", action="store_true", help="chamfer, unit-box IoU, errors")
    parser.add_argument("--out", type=Path, help="write one JSON row a sample to this file")
    parser.add_argument("--resume", action="store_true", help="keep the rows that --out holds")
    parser.add_argument("--cache", type=Path, help="folder that keeps measured references")
    parser.add_argument("--workers", type=int, help="default: the number of cores")
    parser.add_argument(
        "--timeout", type=float, default=DEFAULT_TIMEOUT, help="of CPU time, seconds"
    )
    parser.add_argument("--require", nargs="*", default=[], help="protection layers to insist on")
    options = parser.parse_args(arguments)
    try:
        print(json.dumps(_score(options), indent=2))
    except (BadInput, ValueError, RuntimeError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted; --resume goes on from the rows in --out", file=sys.stderr)
        return 130
    return 0


def _score(options: argparse.Namespace) -> dict[str, Any]:
    codes = read_predictions(options.predictions)
    references = read_references(options.references, list(codes))
    old = _old_rows(options, codes)
    todo = [name for name in codes if name not in old]
    jobs = pair_up([codes[name] for name in todo], [references[name] for name in todo], todo)
    settings = {
        "alignment": options.alignment,
        "extras": options.extras,
        "limits": {"timeout": options.timeout, "require": options.require},
    }
    rows = score_rows(jobs, settings, options.workers, cache=options.cache)
    counted = progress_bar(rows, total=len(codes), initial=len(old), unit="pair", disable=None)
    new = {}
    out = options.out.open("a") if options.out else None
    try:
        for row in counted:
            row["alignment"] = options.alignment
            new[row["id"]] = row
            if out:
                out.write(json.dumps(row) + "\n")
                out.flush()
    finally:
        if out:
            out.close()
    done = [old.get(name) or new[name] for name in codes]
    got = totals(done)
    for kind, count in got["failures"].items():
        print(f"{count:6d}  {100 * count / len(done):5.1f} %  {kind}", file=sys.stderr)
    kind = reference_kinds(list(references.values()))
    return {**got, "alignment": options.alignment, "reference": kind}


def _old_rows(
    options: argparse.Namespace, codes: dict[str, Prediction]
) -> dict[str, dict[str, Any]]:
    """The rows to keep. A last line that was cut short is dropped from the file."""
    if options.resume and not options.out:
        raise BadInput("--resume needs --out, the file to go on with")
    if not options.out or not options.out.exists():
        return {}
    if not options.resume:
        raise BadInput(f"{options.out} exists; add --resume to go on with it, or name another file")
    content = options.out.read_bytes()
    whole = content[: content.rfind(b"\n") + 1]
    if len(whole) < len(content):
        options.out.write_bytes(whole)
    rows = {}
    for number, line in enumerate(whole.decode().rstrip("\n").split("\n"), 1):
        if not line:
            continue
        row = read_row(options.out, number, line)
        name = str(row.get("id"))
        if shown(codes.get(name)) != row.get("code") or row.get("alignment") != options.alignment:
            raise BadInput(
                f"{options.out}, line {number}: sample {name} has another code or alignment than"
                " this run; name another file"
            )
        rows[name] = row
    return rows


if __name__ == "__main__":
    sys.exit(main())
