"""What a run leaves behind: a Part (geometry) or a Failure (a kind and a reason)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from . import wire

KINDS = (
    "syntax error",
    "exception",
    "no solid",
    "invalid solid",
    "timeout",
    "memory",
    "crash",
    "forbidden",
    "too large",
)
# notes that say where a Part came from, not that it was repaired
ORIGINS = {
    "stl": "from an STL mesh",
    "3mf": "from a mesh in a 3MF file",
    "obj": "from a mesh in an OBJ file",
}


@dataclass(frozen=True)
class Failure:
    """Why a program has no usable solid.

    kind: one of KINDS. message: one or more readable lines. line: line of the program, or None.
    seconds: wall time. protection: the layers under which it ran (see sandbox/layers.py).
    """

    kind: str
    message: str
    line: int | None = None
    seconds: float = 0.0
    protection: tuple[str, ...] = ()

    def __str__(self) -> str:
        place = f", line {self.line}" if self.line else ""
        return f"{self.kind}{place}: {self.message}"


@dataclass(frozen=True, eq=False)
class Part:
    """The measured geometry of a program's result, in the program's own units.

    volume, area: exact, from the B-rep. center: (3,) centre of mass. inertia: (3, 3) about the
    centre at density 1. bounding_box: (2, 3) minimum and maximum.

    vertices: (N, 3) float64, one block per B-rep face, not welded across faces. normals: (N, 3)
    unit vectors of the surface, outward. triangles: (M, 3) int32, counter-clockwise from outside.
    faces: (M,) int32, B-rep face of each triangle. edge_points: (P, 3) and edge_starts: (E + 1,)
    int32: the polyline of B-rep edge e is edge_points[edge_starts[e]:edge_starts[e + 1]], on the
    same tessellation, seams included, degenerate edges left out. solid_of_face: (F,) int32.

    solids: number of solids. valid: what OpenCASCADE's checker says (reported, never a gate).
    brep: binary B-rep; read it with `cq.Shape.importBin(io.BytesIO(part.brep))`, in a process
    that may crash. seconds: wall time. protection: layers reached. notes: what was unusual.
    """

    volume: float
    area: float
    center: np.ndarray
    inertia: np.ndarray
    bounding_box: np.ndarray
    vertices: np.ndarray
    normals: np.ndarray
    triangles: np.ndarray
    faces: np.ndarray
    edge_points: np.ndarray
    edge_starts: np.ndarray
    solids: int
    valid: bool
    brep: bytes = field(repr=False)
    seconds: float = 0.0
    protection: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    solid_of_face: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int32))

    def __repr__(self) -> str:
        return f"Part(volume={self.volume:.6g}, solids={self.solids}, faces={self.face_count})"

    @property
    def face_count(self) -> int:
        """Number of B-rep faces."""
        return len(self.solid_of_face)


def part_to_bytes(part: Part) -> bytes:
    """A Part as one message of wire.py, for caches on disk."""
    header = {
        "ok": True,
        "volume": part.volume,
        "area": part.area,
        "center": part.center.tolist(),
        "inertia": part.inertia.tolist(),
        "bounding_box": part.bounding_box.tolist(),
        "solids": part.solids,
        "valid": part.valid,
        "notes": list(part.notes),
    }
    arrays = {name: getattr(part, name) for name in wire.ARRAYS}
    return wire.pack_arrays(header, arrays, part.brep)


def part_from_message(
    header: dict[str, Any], body: bytes, seconds: float = 0.0, protection: tuple[str, ...] = ()
) -> Part:
    """Build a Part from an unpacked message. Raises wire.WireError on anything malformed."""
    arrays, brep = wire.unpack_arrays(header, body)
    notes = header.get("notes")
    if not isinstance(notes, list) or not all(isinstance(note, str) for note in notes):
        raise wire.WireError("bad notes")
    volume = float(_numbers(header, "volume", ()))
    if volume <= 0:
        raise wire.WireError("volume is not positive")
    solids = header.get("solids")
    if type(solids) is not int or solids < 1:
        raise wire.WireError("bad number of solids")
    return Part(
        volume=volume,
        area=float(_numbers(header, "area", ())),
        center=_numbers(header, "center", (3,)),
        inertia=_numbers(header, "inertia", (3, 3)),
        bounding_box=_numbers(header, "bounding_box", (2, 3)),
        solids=solids,
        valid=header.get("valid") is True,
        brep=brep,
        seconds=seconds,
        protection=protection,
        notes=tuple(notes),
        **arrays,
    )


def _numbers(header: dict[str, Any], name: str, shape: tuple[int, ...]) -> np.ndarray:
    try:
        array = np.array(header.get(name))
    except ValueError as error:
        raise wire.WireError(f"bad {name}") from error
    if array.dtype.kind not in "fi" or array.shape != shape or not np.isfinite(array).all():
        raise wire.WireError(f"bad {name}")
    return array.astype(np.float64)
