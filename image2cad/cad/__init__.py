"""A part as a program: its text, its solid, its files. No torch."""

from typing import TYPE_CHECKING

from image2cad.common.lazy import load

if TYPE_CHECKING:
    from image2cad.cad.chords import tangled
    from image2cad.cad.compacting import compact, compact_many
    from image2cad.cad.exact_engine import NotBuilt, build_exactly
    from image2cad.cad.exports import FORMATS, export
    from image2cad.cad.light_engine import Drawing, build
    from image2cad.cad.parsing import Unread, parse
    from image2cad.cad.prisms import Mesh, drawn_as_one, prism
    from image2cad.cad.program import Circle, Extrusion, Loop, NAMED, Operation, Path, Plane, Point
    from image2cad.cad.program import Program, Rect, Segment, as_drawn, to_code
    from image2cad.cad.reply import extract_code
    from image2cad.cad.tidying import PART_SIDE, cleaned, ordered
    from image2cad.cad.transforms import canonical, centred, extent, grounded, mapped, mirrored
    from image2cad.cad.transforms import moved, renamed_axes, rounded, scaled, shifted, snapped
    from image2cad.cad.transforms import transposed, zoomed

__all__ = [
    "Circle", "Drawing", "Extrusion", "FORMATS", "Loop", "Mesh", "NAMED", "NotBuilt", "Operation",
    "PART_SIDE", "Path", "Plane", "Point", "Program", "Rect", "Segment", "Unread", "as_drawn",
    "build", "build_exactly", "canonical", "centred", "cleaned", "compact", "compact_many",
    "drawn_as_one", "export", "extent", "extract_code", "grounded", "mapped", "mirrored", "moved",
    "ordered", "parse", "prism", "renamed_axes", "rounded", "scaled", "shifted", "snapped",
    "tangled", "to_code", "transposed", "zoomed",
]  # fmt: skip


def __getattr__(name: str) -> object:
    return load(__name__, name)
