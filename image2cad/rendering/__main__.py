"""Draw a file of programs from the command line."""

from __future__ import annotations

import argparse
from collections import Counter
from pathlib import Path

from image2cad.common import FAILURES, InputError, read_programs, run_cli
from image2cad.rendering.camera import SIZE
from image2cad.rendering.folder import render_folder


def main() -> int:
    """Draw a file of programs into an image folder; 1 if none of them could be drawn."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("programs", type=Path, help="a JSONL file, or an image folder")
    parser.add_argument("out", type=Path)
    parser.add_argument("--size", type=int, default=SIZE, help=f"1 to {SIZE} pixels a side")
    parser.add_argument("--exact", action="store_true", help="build with OpenCASCADE")
    parser.add_argument("--workers", type=int, help="processes; default: one a core")
    parser.add_argument(
        "--deadline", type=float, default=20.0, help="seconds a picture, CPU time for code"
    )
    parser.add_argument("--resume", action="store_true", help="go on with an unfinished folder")
    options = parser.parse_args()
    if not 1 <= options.size <= SIZE:
        raise InputError(f"--size must be between 1 and {SIZE}, not {options.size}")
    if (options.workers is not None and options.workers < 1) or not options.deadline > 0:
        raise InputError("--workers must be at least 1, and --deadline above 0")
    rows = read_programs(options.programs)
    failures = render_folder(
        rows,
        options.out,
        options.size,
        options.exact,
        options.workers,
        options.deadline,
        options.resume,
    )
    print(f"{len(rows) - len(failures)} pictures in {options.out}")
    if failures:
        common = Counter(reason.splitlines()[0] for reason in failures.values()).most_common(3)
        reasons = "; ".join(f"{count} x {reason}" for reason, count in common)
        print(f"{len(failures)} rows could not be drawn ({FAILURES}): {reasons}")
    return int(len(failures) == len(rows))


if __name__ == "__main__":
    run_cli(main)
