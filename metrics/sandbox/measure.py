"""Measures a solid from B-rep bytes: exact mass properties, mesh, edges.

Runs in a second confined child (see fork_server.py) in which no generated code ever runs, because
the bytes may crash the reader. Mass properties are OpenCASCADE's own integrals over the exact
surfaces. The mesh is made at a fixed deflection on a copy scaled to radius of gyration 1, so that
parts of any size are meshed alike, and scaled back.

One stated answer for each odd input: no solid -> "no solid"; a closed shell counts as a solid;
an inside-out solid is turned round; overlapping solids count as their union; zero or
non-finite volume -> "invalid solid". A shape that `BRepCheck` finds invalid is measured and
flagged, because some real parts fail that check and measure well.
"""

from __future__ import annotations

import io
import math
from dataclasses import dataclass

import numpy as np
from OCP.BinTools import BinTools
from OCP.Bnd import Bnd_Box
from OCP.BRep import BRep_Builder, BRep_Tool
from OCP.BRepAlgoAPI import BRepAlgoAPI_Fuse
from OCP.BRepBndLib import BRepBndLib
from OCP.BRepBuilderAPI import BRepBuilderAPI_MakeSolid
from OCP.BRepCheck import BRepCheck_Analyzer, BRepCheck_Status
from OCP.BRepGProp import BRepGProp
from OCP.BRepLib import BRepLib
from OCP.GProp import GProp_GProps
from OCP.TopAbs import TopAbs_ShapeEnum
from OCP.TopExp import TopExp, TopExp_Explorer
from OCP.TopoDS import TopoDS, TopoDS_Compound, TopoDS_Shape
from OCP.TopTools import TopTools_IndexedMapOfShape, TopTools_ListOfShape

from .. import wire
from ..meshes import solid_manifolds, union
from .tessellation import subshapes, tessellate

ZERO_VOLUME = 1e-10  # volume / area^1.5 below this is no volume; a cube has 0.068


class NotMeasurable(Exception):
    """The shape has no usable solid. `kind` is the kind of failure to report."""

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind


@dataclass(frozen=True)
class Mass:
    """Mass properties at density 1: volume, centre (3,), inertia (3, 3) about the centre."""

    volume: float
    center: np.ndarray
    inertia: np.ndarray

    @property
    def gyration(self) -> float:
        """Radius of gyration, sqrt(trace of the inertia / (2 volume)), in the part's units."""
        return math.sqrt(float(np.trace(self.inertia)) / (2 * self.volume))


def measure(brep: bytes) -> bytes:
    """Measure B-rep bytes; returns a message of wire.py, either arrays or a failure."""
    try:
        return _measure(brep)
    except NotMeasurable as error:
        return wire.pack({"ok": False, "kind": error.kind, "message": str(error)})
    except MemoryError:
        return wire.pack({"ok": False, "kind": "memory", "message": "out of memory"})
    except Exception as error:
        reason = str(error).partition("\n")[0]
        text = f"the solid cannot be measured [{type(error).__name__}: {reason}]"
        return wire.pack({"ok": False, "kind": "invalid solid", "message": text})


def _measure(brep: bytes) -> bytes:
    shape = TopoDS_Shape()
    BinTools.Read_s(shape, io.BytesIO(brep))
    if shape.IsNull():
        raise NotMeasurable("no solid", "the result is empty")
    notes: list[str] = []
    solids = _solids(shape, notes)
    whole = _compound(solids)
    mass = _mass(whole)
    arrays = tessellate(whole, mass.center, mass.gyration, notes)
    if arrays is None:
        raise NotMeasurable("invalid solid", "the solid cannot be meshed")
    if len(solids) > 1:
        fused = _union_if_overlapping(solids, arrays, mass, notes)
        if fused:
            solids, whole = fused, _compound(fused)
            mass = _mass(whole)
            arrays = tessellate(whole, mass.center, mass.gyration, notes) or arrays
    valid = _valid(whole)
    surface = GProp_GProps()
    BRepGProp.SurfaceProperties_s(whole, surface)
    header = {
        "ok": True,
        "volume": mass.volume,
        "area": surface.Mass(),
        "center": mass.center.tolist(),
        "inertia": mass.inertia.tolist(),
        "bounding_box": _bounding_box(whole),
        "solids": len(solids),
        "valid": valid,
        "notes": notes,
    }
    stream = io.BytesIO()
    BinTools.Write_s(solids[0] if len(solids) == 1 else whole, stream)
    return wire.pack_arrays(header, arrays, stream.getvalue())


def _valid(shape: TopoDS_Shape) -> bool:
    """What OpenCASCADE's checker says; raises NotMeasurable if a face's outline crosses itself.

    Then inside and outside have no meaning. Other faults are let pass: parts with them can have
    the right volume.
    """
    checker = BRepCheck_Analyzer(shape)
    if checker.IsValid():
        return True
    crossing = BRepCheck_Status.BRepCheck_SelfIntersectingWire
    for wire_ in subshapes(shape, TopAbs_ShapeEnum.TopAbs_WIRE):
        if crossing in list(checker.Result(wire_).Status()):
            raise NotMeasurable("invalid solid", "the outline of a face crosses itself")
    return False


def _solids(shape: TopoDS_Shape, notes: list[str]) -> list[TopoDS_Shape]:
    found = TopTools_IndexedMapOfShape()
    TopExp.MapShapes_s(shape, TopAbs_ShapeEnum.TopAbs_SOLID, found)
    solids = [TopoDS.Solid_s(found.FindKey(i + 1)) for i in range(found.Extent())]
    shells = TopExp_Explorer(
        shape, TopAbs_ShapeEnum.TopAbs_SHELL, TopAbs_ShapeEnum.TopAbs_SOLID
    )  # only the shells outside solids
    while shells.More():
        shell = TopoDS.Shell_s(shells.Current())
        if shell.Closed() or BRep_Tool.IsClosed_s(shell):
            solids.append(BRepBuilderAPI_MakeSolid(shell).Solid())
            notes.append("closed shell taken as a solid")
        shells.Next()
    if not solids:
        raise NotMeasurable("no solid", f"the result holds {_contents(shape)} and no solid")
    kept = []
    for solid in solids:
        mass = GProp_GProps()
        BRepGProp.VolumeProperties_s(solid, mass)
        surface = GProp_GProps()
        BRepGProp.SurfaceProperties_s(solid, surface)
        volume, area = mass.Mass(), surface.Mass()
        if not (math.isfinite(volume) and math.isfinite(area)):
            raise NotMeasurable("invalid solid", "the solid has no finite volume")
        if abs(volume) <= ZERO_VOLUME * abs(area) ** 1.5:
            notes.append("a solid without volume left out")
            continue
        if volume < 0:
            solid = _turned(solid)
            notes.append("inside-out solid turned round")
        kept.append(solid)
    if not kept:
        raise NotMeasurable("invalid solid", "the solid has no volume")
    return kept


def _turned(solid: TopoDS_Shape) -> TopoDS_Shape:
    copy = TopoDS.Solid_s(solid)
    BRepLib.OrientClosedSolid_s(copy)
    mass = GProp_GProps()
    BRepGProp.VolumeProperties_s(copy, mass)
    return copy if mass.Mass() > 0 else TopoDS.Solid_s(solid.Reversed())


def _contents(shape: TopoDS_Shape) -> str:
    for kind, name in (
        (TopAbs_ShapeEnum.TopAbs_SHELL, "open shells"),
        (TopAbs_ShapeEnum.TopAbs_FACE, "faces"),
        (TopAbs_ShapeEnum.TopAbs_WIRE, "wires"),
        (TopAbs_ShapeEnum.TopAbs_EDGE, "edges"),
        (TopAbs_ShapeEnum.TopAbs_VERTEX, "points"),
    ):
        if TopExp_Explorer(shape, kind).More():
            return f"only {name}"
    return "nothing"


def _compound(solids: list[TopoDS_Shape]) -> TopoDS_Shape:
    if len(solids) == 1:
        return solids[0]
    compound, builder = TopoDS_Compound(), BRep_Builder()
    builder.MakeCompound(compound)
    for solid in solids:
        builder.Add(compound, solid)
    return compound


def _mass(shape: TopoDS_Shape) -> Mass:
    props = GProp_GProps()
    BRepGProp.VolumeProperties_s(shape, props)
    center, matrix = props.CentreOfMass(), props.MatrixOfInertia()
    mass = Mass(
        props.Mass(),
        np.array([center.X(), center.Y(), center.Z()]),
        np.array([[matrix.Value(i, j) for j in (1, 2, 3)] for i in (1, 2, 3)]),
    )
    finite = np.isfinite(mass.center).all() and np.isfinite(mass.inertia).all()
    if not finite or mass.volume <= 0 or np.trace(mass.inertia) <= 0:
        raise NotMeasurable("invalid solid", "the solid has no usable mass properties")
    return mass


def _bounding_box(shape: TopoDS_Shape) -> list[list[float]]:
    box = Bnd_Box()
    BRepBndLib.AddOptimal_s(shape, box, False, False)
    low, high = box.CornerMin(), box.CornerMax()
    return [[low.X(), low.Y(), low.Z()], [high.X(), high.Y(), high.Z()]]


def _union_if_overlapping(
    solids: list[TopoDS_Shape], arrays: dict[str, np.ndarray], mass: Mass, notes: list[str]
) -> list[TopoDS_Shape]:
    """The solids of the fused shape where solids overlap, else an empty list.

    The meshes say whether there is an overlap and check the fused volume, because OpenCASCADE's
    booleans can silently lose or double a part.
    """
    points = (arrays["vertices"] - mass.center) / mass.gyration
    owner = arrays["solid_of_face"][arrays["faces"]]
    try:
        meshes, _ = solid_manifolds(points, arrays["triangles"], owner)
    except ValueError:
        notes.append("not known whether solids overlap; counted one by one")
        return []
    separate = sum(mesh.volume() for mesh in meshes)
    together = union(meshes).volume()
    if separate - together <= 1e-6 * separate:
        return []
    first, rest = TopTools_ListOfShape(), TopTools_ListOfShape()
    first.Append(solids[0])
    for solid in solids[1:]:
        rest.Append(solid)
    fuse = BRepAlgoAPI_Fuse()
    fuse.SetArguments(first)
    fuse.SetTools(rest)
    fuse.Build()
    fused = subshapes(fuse.Shape(), TopAbs_ShapeEnum.TopAbs_SOLID) if fuse.IsDone() else []
    volume = _mass(_compound(fused)).volume / mass.gyration**3 if fused else 0.0
    if abs(volume - together) > 0.01 * together:
        notes.append("overlapping solids could not be fused; counted one by one")
        return []
    notes.append("overlapping solids fused")
    return fused
