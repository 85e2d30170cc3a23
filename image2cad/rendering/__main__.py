"""Draw a file of programs, as GenCAD-Code does or in another style, from the command line."""

from __future__ import annotations

import argparse
from collections import Counter
from pathlib import Path

from image2cad.common import FAILURES, InputError, read_programs, run_cli
from image2cad.rendering.camera import SIZE
from image2cad.rendering.folder import Look, render_folder
from image2cad.rendering.styles import FREE, STYLE_NAMES

STYLE_HELP = """styles:
  gencad          GenCAD-Code's pictures (the default)
  coloured        blue under a set of lights, on a grey gradient, with lines
  steel           grey under a headlight, on white, with lines
  shaded          shaded only, no lines
  lines           lines only, hidden lines removed
  any             colours, light, ground, lines and direction by lot, another for every row
  cadbench        CADBench's grey view, 512 pixels; cadbench-views: its four in a grid
  benchcad        BenchCAD's composite of four views, 524 pixels
  sheet           front, top and right view as lines, third angle; sheet-first: first angle
examples:
  python -m image2cad.rendering programs.jsonl out --style shaded --eye 1,1,0.7 --perspective 30
  python -m image2cad.rendering programs.jsonl out --style lines --eye any --size 600
"""


def main() -> int:
    """Draw a file of programs into an image folder; 1 if none of them could be drawn."""
    parser = argparse.ArgumentParser(
        description=(__doc__ or "").splitlines()[0],
        epilog=STYLE_HELP,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("programs", type=Path, help="a JSONL file, or an image folder")
    parser.add_argument("out", type=Path)
    parser.add_argument(
        "--style", choices=STYLE_NAMES, default="gencad", metavar="STYLE", help="see below"
    )
    parser.add_argument(
        "--eye", help="direction to the viewer, x,y,z, with z up, or any; default: 1,-1,1"
    )
    parser.add_argument(
        "--perspective", type=float, default=0.0, help="angle of view in degrees; 0: orthographic"
    )
    parser.add_argument(
        "--size",
        type=int,
        help=f"pixels a side: 1 to {SIZE}, in other styles 16 to {4 * SIZE}; default: the style's",
    )
    parser.add_argument("--seed", type=int, default=0, help="of what is drawn by lot")
    parser.add_argument("--exact", action="store_true", help="build with OpenCASCADE")
    parser.add_argument("--workers", type=int, help="processes; default: one a core")
    parser.add_argument(
        "--deadline", type=float, default=20.0, help="seconds a picture, CPU time for code"
    )
    parser.add_argument("--resume", action="store_true", help="go on with an unfinished folder")
    options = parser.parse_args()
    look = Look(options.style, eye_of(options.eye), options.perspective, options.seed)
    low, high = (1, SIZE) if options.style == "gencad" else (16, 4 * SIZE)
    if options.size is not None and not low <= options.size <= high:
        raise InputError(f"--size must be between {low} and {high}, not {options.size}")
    if options.style not in FREE and (options.eye or options.perspective):
        raise InputError(f"{options.style} has its own cameras; leave out --eye and --perspective")
    if not 0 <= options.perspective < 150:
        raise InputError(f"--perspective must be from 0 to below 150, not {options.perspective}")
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
        look,
    )
    print(f"{len(rows) - len(failures)} pictures in {options.out}")
    if failures:
        common = Counter(reason.splitlines()[0] for reason in failures.values()).most_common(3)
        reasons = "; ".join(f"{count} x {reason}" for reason, count in common)
        print(f"{len(failures)} rows could not be drawn ({FAILURES}): {reasons}")
    return int(len(failures) == len(rows))


def eye_of(text: str | None) -> tuple[float, ...] | None:
    """The direction that --eye names; () for any, None where it is not given."""
    if text is None or text == "any":
        return None if text is None else ()
    try:
        eye = tuple(float(number) for number in text.split(","))
    except ValueError:
        eye = ()
    if len(eye) != 3 or not 0 < sum(number * number for number in eye) < float("inf"):
        raise InputError(f"--eye is a direction such as 1,-1,1, or any, not {text}")
    return eye


if __name__ == "__main__":
    run_cli(main)
