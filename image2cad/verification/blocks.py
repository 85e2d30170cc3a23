"""Extrusions along the main axes, from sketches on the planes that face the viewer."""

from __future__ import annotations

from image2cad.cad import NAMED, Extrusion, Loop, Operation, Plane
from image2cad.reading import FACING_AXES, FACING_PLANES


def block_of(
    plane: int, loops: tuple[Loop, ...], start: float, end: float, operation: Operation = "union"
) -> Extrusion:
    """The sketch on FACING_PLANES[plane] extruded from one level of its axis to another."""
    x, normal = NAMED[FACING_PLANES[plane]]
    axis = FACING_AXES[plane]
    low, high = min(start, end), max(start, end)
    origin = [0.0, 0.0, 0.0]
    origin[axis] = low if normal[axis] > 0 else high
    place = (origin[0], origin[1], origin[2])
    return Extrusion(Plane(place, x, normal), loops, high - low, operation)
