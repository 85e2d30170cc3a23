"""The proportions of a solid whatever its place and size, and how far two solids' differ.

    one = proportions_of(program)           # None where nothing is built
    unlikeness(one, other)                  # 0 for one solid, however it is turned or mirrored
    change(one, other)                      # (7,) in one's own axes, for small changes

How volume lies about the middle says enough to tell readings of one picture apart, and costs no
intersection of solids. Left out: solids of one shape of mass that differ in detail.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from image2cad.cad import Program, build
from image2cad.common import Array

ABOVE_DIAGONAL = np.triu_indices(3)


@dataclass(frozen=True, eq=False)
class Proportions:
    """Second moments of a solid about its middle, as a share of their trace, and its fill.

    moments: (3, 3). fill: volume over the trace of (moments / volume) to the power of 3/2.
    """

    moments: Array
    fill: float

    @cached_property
    def axes(self) -> Array:
        """(3,) logarithms of the main moments at equal volume, ascending."""
        out: Array = np.log(np.linalg.eigvalsh(self.moments) / self.fill ** (2 / 3))
        return out


def proportions_of(program: Program) -> Proportions | None:
    """Those of the solid that a program builds; None where it builds none.

    Integrals over the tetrahedra between the triangles and one point (Mirtich 1996).
    """
    drawing = build(program)
    if drawing is None or drawing.volume <= 0:
        return None
    corners = drawing.vertices[drawing.triangles] - drawing.vertices.mean(axis=0)
    first, second, third = corners.transpose(1, 0, 2)
    volumes = np.einsum("ti,ti->t", first, np.cross(second, third)) / 6
    volume, sums = float(volumes.sum()), corners.sum(axis=1)
    if volume <= 0:
        return None
    middle = volumes @ sums / 4 / volume
    moments = np.einsum("t,ti,tj->ij", volumes, sums, sums)
    moments = (moments + np.einsum("t,tki,tkj->ij", volumes, corners, corners)) / 20 / volume
    moments = moments - np.outer(middle, middle)
    trace = float(np.trace(moments))
    return Proportions(moments / trace, volume / trace**1.5)


def unlikeness(one: Proportions, other: Proportions) -> float:
    """The largest difference of a main moment at equal volume, as a logarithm; 0 for alike."""
    return float(np.abs(one.axes - other.axes).max())


def change(one: Proportions, other: Proportions) -> Array:
    """(7,) relative changes of length from one to the other: six of the moments, one of the fill.

    In one's axes of main moments of length 1, so that a plate's thickness counts as its length.
    """
    values, ways = np.linalg.eigh(one.moments)
    whitened = ways @ np.diag(values**-0.5) @ ways.T
    stretched = 0.5 * whitened @ (other.moments - one.moments) @ whitened
    return np.append(stretched[ABOVE_DIAGONAL], np.log(other.fill / one.fill) / 3)
