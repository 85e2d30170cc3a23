"""A program to its picture, without running it.

picture = draw_code(code)       # (448, 448, 3) uint8, as GenCAD-Code shows it, or None
shape = drawn_shape(code)       # what to draw in other styles (styles.py), or None
"""

from __future__ import annotations

from typing import Any

from image2cad.cad import as_drawn, build, parse
from image2cad.common import Array
from image2cad.rendering.camera import SIZE
from image2cad.rendering.raster import draw


def draw_code(code: str, size: int = SIZE, exact: bool = False) -> Array | None:
    """The picture of the program in `code`, or None if it has to be run to be drawn.

    That is a program that is not understood, or that is not built here: CadQuery may
    still build it, or say why not. Runs no generated code, but works in the caller's
    process: with odd numbers a C++ library can hang or crash there; `render_rows` is
    for programs that are not trusted. `exact` asks for OpenCASCADE instead of the
    light engine.
    """
    shape = drawn_shape(code, exact)
    return None if shape is None else draw(shape, size)


def drawn_shape(code: str, exact: bool = False) -> Any:
    """The shape that `draw_code` draws, or None."""
    program = parse(code)
    if not program:
        return None
    program = as_drawn(program)
    if not exact:
        return build(program)
    from image2cad.cad import NotBuilt, build_exactly  # a second of CPU

    try:
        return build_exactly(program)
    except NotBuilt:
        return None
