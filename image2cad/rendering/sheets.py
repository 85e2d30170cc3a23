"""Several views of a part in one picture: four views, a strip round the part, a sheet of parts.

    four_views(part)                    # front, right, top and GenCAD's view, (448, 448, 3)
    turntable(part, count=8)            # a strip of views round the vertical axis

    python -m image2cad.rendering.sheets docs/views.png --data data/samples/test --parts 6

Every view is scaled to fill its own place. Left out: labels, dimensions, hidden lines.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from math import cos, pi, sin, sqrt
from pathlib import Path

import numpy as np

from image2cad.common import Array, InputError, read_programs, run_cli
from image2cad.rendering.camera import EYE, SIZE
from image2cad.rendering.raster import Shape, draw

FRONT, RIGHT, TOP = (0.0, -1.0, 0.0), (1.0, 0.0, 0.0), (0.0, 0.0, 1.0)


def four_views(shape: Shape, size: int = SIZE) -> Array:
    """Top and GenCAD's view above, front and right view below, as in drawings; `size` is even."""
    if size % 2:
        raise ValueError(f"four views need an even size, not {size}")
    return grid([draw(shape, size // 2, eye) for eye in (TOP, EYE, FRONT, RIGHT)], 2)


def turntable(shape: Shape, count: int = 8, size: int = 112) -> Array:
    """`count` views from GenCAD's height in equal steps, from GenCAD's view on, side by side."""
    angles = [2 * pi * i / count - pi / 4 for i in range(count)]
    eyes = [(sqrt(2) * cos(angle), sqrt(2) * sin(angle), 1.0) for angle in angles]
    return grid([draw(shape, size, eye) for eye in eyes], count)


def grid(pictures: Sequence[Array], columns: int) -> Array:
    """Equal (H, W, 3) pictures in rows of `columns`; the last row is filled up with white."""
    if not pictures:
        raise ValueError("no pictures for a sheet")
    white = np.full_like(pictures[0], 255)
    filled = [*pictures, *[white] * (-len(pictures) % columns)]
    rows = [np.hstack(filled[i : i + columns]) for i in range(0, len(filled), columns)]
    return np.vstack(rows)


def main() -> int:
    """Write a sheet with four views each of some parts of a folder."""
    from PIL import Image

    from metrics import Failure, run_many

    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("out", type=Path, help="the PNG file to write")
    parser.add_argument("--data", type=Path, required=True, help="an image folder or JSONL file")
    parser.add_argument("--parts", type=int, default=6, help="how many, from the first on")
    parser.add_argument("--size", type=int, default=320, help="pixels a side of four views")
    options = parser.parse_args()
    if options.parts < 1 or options.size not in range(2, SIZE + 1, 2):
        raise InputError(f"--parts must be at least 1, --size even and 2 to {SIZE}")
    if options.out.suffix != ".png" or not options.out.parent.is_dir():
        raise InputError(f"{options.out}: name a .png file in a folder that is there")
    chosen = read_programs(options.data)[: options.parts]
    tiles = []
    for row, part in zip(chosen, run_many([str(row["code"]) for row in chosen]), strict=True):
        if isinstance(part, Failure):
            raise InputError(f"{row['id']} cannot be drawn: {part}")
        tiles.append(four_views(part, options.size))
    Image.fromarray(grid(tiles, min(len(tiles), 3))).save(options.out, optimize=True)
    return 0


if __name__ == "__main__":
    run_cli(main)
