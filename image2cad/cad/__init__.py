"""A part as a program: its text, its solid, its files. No torch."""

from typing import TYPE_CHECKING

from image2cad.common.lazy import load

if TYPE_CHECKING:
    from image2cad.cad.arcs import bulge_of, bulged
    from image2cad.cad.chords import tangled
    from image2cad.cad.compacting import compact, compact_many
    from image2cad.cad.exact_engine import NotBuilt, build_exactly
    from image2cad.cad.exports import FORMATS, export
    from image2cad.cad.light_engine import Drawing, build
    from image2cad.cad.numbered import Number, numbers, replaced, with_numbers
    from image2cad.cad.parsing import Unread, parse
    from image2cad.cad.prisms import Mesh, drawn_as_one, prism
    from image2cad.cad.program import Circle, Extrusion, Loop, NAMED, Operation, Path, Plane, Point
    from image2cad.cad.program import Program, Rect, Segment, as_drawn, to_code
    from image2cad.cad.reply import CutOff, extract_code
    from image2cad.cad.sizing import Size, headed, measured, measures_text, rounded_off, size_named
    from image2cad.cad.sizing import sized, unheaded
    from image2cad.cad.tidying import PART_SIDE, cleaned, ordered
    from image2cad.cad.transforms import canonical, centred, extent, grounded, mapped, mirrored
    from image2cad.cad.transforms import moved, renamed_axes, rounded, scaled, shifted, snapped
    from image2cad.cad.transforms import transposed, zoomed

__all__ = [
    "Circle", "CutOff", "Drawing", "Extrusion", "FORMATS", "Loop", "Mesh", "NAMED", "NotBuilt",
    "Number", "Operation", "PART_SIDE", "Path", "Plane", "Point", "Program", "Rect", "Segment",
    "Size", "Unread", "as_drawn", "build", "build_exactly", "bulge_of", "bulged", "canonical",
    "centred", "cleaned", "compact", "compact_many", "drawn_as_one", "export", "extent",
    "extract_code", "grounded", "headed", "mapped", "measured", "measures_text", "mirrored",
    "moved", "numbers", "ordered", "parse", "prism", "renamed_axes", "replaced", "rounded",
    "rounded_off", "scaled", "shifted", "size_named", "sized", "snapped", "tangled", "to_code",
    "transposed", "unheaded", "with_numbers", "zoomed",
]  # fmt: skip


def __getattr__(name: str) -> object:
    return load(__name__, name)
