"""Measures a solid from B-rep bytes: exact mass properties, mesh, edges.

Runs in a second confined child (see fork_server.py) in which no generated code ever runs, because
the bytes may crash the reader. Mass properties are OpenCASCADE's own integrals over the exact
surfaces. The mesh is made at a fixed deflection on a copy scaled to radius of gyration 1, so that
parts of any size are meshed alike, and scaled back.

One stated answer for each odd input: no solid -> "no solid"; a closed shell counts as a solid;
an inside-out solid is turned round; overlapping solids count as their union; a closed shell
inside another is its cavity; zero or non-finite volume, and what cannot be closed to a mesh ->
"invalid solid". Where a closed mesh and the integral differ, the integral is wrong. A shape that
`BRepCheck` finds invalid is measured and flagged, because some real parts fail that check and
measure well.
"""

from __future__ import annotations

import functools
import io
import math
from dataclasses import dataclass

import manifold3d
import numpy as np
from OCP.BinTools import BinTools
from OCP.Bnd import Bnd_Box
from OCP.BRep import BRep_Builder, BRep_Tool
from OCP.BRepAlgoAPI import BRepAlgoAPI_Fuse
from OCP.BRepBndLib import BRepBndLib
from OCP.BRepBuilderAPI import BRepBuilderAPI_MakeSolid
from OCP.BRepCheck import BRepCheck_Analyzer, BRepCheck_Face, BRepCheck_Status, BRepCheck_Wire
from OCP.BRepClass3d import BRepClass3d_SolidClassifier
from OCP.BRepGProp import BRepGProp
from OCP.BRepLib import BRepLib
from OCP.GProp import GProp_GProps
from OCP.ShapeFix import ShapeFix_Shape
from OCP.TopAbs import TopAbs_ShapeEnum, TopAbs_State
from OCP.TopExp import TopExp, TopExp_Explorer
from OCP.TopoDS import TopoDS, TopoDS_Compound, TopoDS_Edge, TopoDS_Face, TopoDS_Shape, TopoDS_Solid
from OCP.TopTools import TopTools_IndexedMapOfShape, TopTools_ListOfShape

from .. import wire
from ..meshes import MERGED, SAME_VOLUME_WITHIN, manifolds_of_part
from ..triangles import mesh_mass, mesh_of, radius_of_gyration, triangle_areas, union
from .mesh_repair import closed_bodies
from .tessellation import MeshTooLarge, many_edged_faces, subshapes, tessellate

FINER = 2.0  # times as fine is the mesh that decides where mesh and integral differ
MANY_HOLES = 100  # in one face
CLOSE = 3e-3  # share of its volume by which a mesh may miss the solid before a finer one is made
CLOSER_BY = 1.25  # than CLOSE the finer mesh aims to be
FINEST = 4.0  # times as fine is the finest mesh
LARGEST_FINER_MESH = 20_000  # of a mesh that is made finer
CORNER_TOLERANCE = 1e-7  # a corner that near to a surface, in the part's units, lies on it
ZERO_VOLUME = 1e-8  # volume / area^1.5 below this is no volume; a cube has 0.068


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
        return radius_of_gyration(self.volume, self.inertia)


def measure(brep: bytes) -> bytes:
    """Measure B-rep bytes; returns a message of wire.py, either arrays or a failure."""
    try:
        return _measure(brep)
    except NotMeasurable as error:
        return wire.pack({"ok": False, "kind": error.kind, "message": str(error)})
    except MeshTooLarge as error:
        return wire.pack({"ok": False, "kind": "too large", "message": f"the solid: {error}"})
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
    found = _united(_settled(_compound(solids), notes), notes)
    valid = _valid(found.shape)
    if not valid and _faces_inwards(found):
        notes.append("healed: a piece of the solid faced inwards")
        found = _united(_turned_outwards(found), notes)
        valid = _valid(found.shape)
    whole, mass = found.shape, found.mass
    header = {
        "ok": True,
        "volume": mass.volume,
        "area": found.area,
        "center": mass.center.tolist(),
        "inertia": mass.inertia.tolist(),
        "bounding_box": _bounding_box(whole),
        "solids": len(subshapes(whole, TopAbs_ShapeEnum.TopAbs_SOLID)),
        "valid": valid,
        "notes": notes,
    }
    stream = io.BytesIO()
    BinTools.Write_s(whole, stream)
    return wire.pack_arrays(header, found.arrays, stream.getvalue())


# ---- is it solid, and are its mass properties right ----------------------------------------------


@dataclass(frozen=True, eq=False)
class Measured:
    """A shape with its mass properties and its mesh.

    arrays: as in wire.py. solids: the closed mesh of each solid, in radii of gyration. exact:
    whether mass is OpenCASCADE's integral; else it is that of the mesh.
    """

    shape: TopoDS_Shape
    mass: Mass
    arrays: dict[str, np.ndarray]
    solids: list[manifold3d.Manifold]
    repairs: list[str]
    exact: bool = True

    @property
    def area(self) -> float:
        """Area of the surface: exact, or that of the mesh, as `mass` is."""
        if self.exact:
            return _area(self.shape)
        return float(triangle_areas(self.arrays["vertices"], self.arrays["triangles"]).sum())

    @property
    def mesh_volume(self) -> float:
        """Volume of the meshes, one by one, in the part's own units."""
        return sum(solid.volume() for solid in self.solids) * self.mass.gyration**3

    @property
    def agrees(self) -> bool:
        """Whether mesh and integral are the same volume, of a surface that is closed."""
        if abs(self.mesh_volume - self.mass.volume) > SAME_VOLUME_WITHIN * self.mass.volume:
            return False
        return set(self.repairs) <= {MERGED} or not _has_open_shell(self.shape)


def _settled(shape: TopoDS_Shape, notes: list[str]) -> Measured:
    """The shape measured, once its mesh and its integral agree.

    Where they differ, the mesh may be too coarse: a finer one says so. Else the surfaces may be
    broken: ShapeFix may mend them. Else, if the mesh is closed as it is, the integral is wrong.
    Raises NotMeasurable where none of this helps.
    """
    mass = _mass(shape)
    said: list[str] = []
    first = _looked_at(shape, mass, 1.0, said)
    if first is not None and first.agrees:
        close = _closer(first, said)
        notes.extend(said)
        return close
    said = []
    try:
        fine = _looked_at(shape, mass, FINER, said)
    except MeshTooLarge:
        fine = None
    if fine is not None and (fine.agrees or _nearing(first, fine)):
        notes.extend(said)
        return fine
    whole = next((one for one in (fine, first) if one is not None and not one.repairs), None)
    healed = _healed(shape, whole)
    if healed is not None:
        notes.append("healed: the integral over its surfaces was wrong")
        return healed
    if first is None and fine is None:
        raise NotMeasurable("invalid solid", "the surface of the solid cannot be closed")
    if whole is None:
        if _has_open_shell(shape):
            raise NotMeasurable("invalid solid", "the surface of the solid is open")
        raise NotMeasurable(
            "invalid solid", "the surface of the solid is broken: its mesh is not closed"
        )
    points = (whole.arrays["vertices"] - mass.center) / mass.gyration
    own = _mass_of_mesh(points, whole.arrays["triangles"], mass)
    share = mass.volume / own.volume
    solids, _ = manifolds_of_part(whole.arrays, own.center, own.gyration)
    notes.append(f"mass properties of the closed mesh; the integral was {share:.3f} of its volume")
    return Measured(shape, own, whole.arrays, solids, [], exact=False)


def _closer(found: Measured, notes: list[str]) -> Measured:
    """With a finer mesh where this one would cost too much IoU; its notes take the place of these.

    So it is for thin round walls, and where a round part far out pulls the centre of mass of its
    chords out of a thin plate.
    """
    missed = 0.0 if found.repairs else _missed(found)
    if missed <= CLOSE:
        return found
    # What is missed falls with the square of this; triangles grow with it, or with its square.
    most = np.sqrt(LARGEST_FINER_MESH / len(found.arrays["triangles"]))
    finer = float(min(np.sqrt(CLOSER_BY * missed / CLOSE), FINEST, most))
    if finer <= 1:
        return found
    said: list[str] = []
    got = _looked_at(found.shape, found.mass, finer, said)
    if got is None or not got.agrees or _missed(got) > missed:
        return found
    notes[:] = said
    return got


def _missed(found: Measured) -> float:
    """Volume between the mesh and the solid, both at radius of gyration 1, as share of the solid.

    A surface bulges over a triangle by a 24th of the sum, over its edges, of the edge times the
    change of the normal along it; besides, centre and size of the mesh are a little off.
    """
    mesh, mass = found.arrays, found.mass
    normals, corners = mesh["normals"][mesh["triangles"]], mesh["vertices"][mesh["triangles"]]
    if (normals == normals[:, :1]).all():  # all is flat
        return 0.0
    along = np.roll(corners, -1, axis=1) - corners
    bulge = np.einsum("tij,tij->t", along, np.roll(normals, -1, axis=1) - normals) / 24
    across = np.cross(along[:, 0], along[:, 1]) / 2
    points = (mesh["vertices"] - mass.center) / mass.gyration
    volume, center, inertia = mesh_mass(points, mesh["triangles"].astype(np.int64))
    larger = 1 - 1 / radius_of_gyration(volume, inertia)  # the mesh, once it has the size of 1
    shift = center * mass.gyration + larger * (corners.mean(1) - mass.center)
    off = np.linalg.norm(across, axis=1) * bulge + np.einsum("ti,ti->t", across, shift)
    return float(np.abs(off).sum() / mass.volume)


def _looked_at(shape: TopoDS_Shape, mass: Mass, finer: float, notes: list[str]) -> Measured | None:
    """The shape with its mesh; None where that cannot be closed. Raises MeshTooLarge."""
    if many_edged_faces(shape):
        said: list[str] = []
        quick = _closed(shape, mass, finer, said, fast=True)
        if quick is not None and not quick.repairs:
            notes.extend(said)
            return quick
    return _closed(shape, mass, finer, notes, fast=False)


def _closed(
    shape: TopoDS_Shape, mass: Mass, finer: float, notes: list[str], fast: bool
) -> Measured | None:
    arrays = tessellate(shape, mass.center, mass.gyration, notes, finer, fast)
    if arrays is None:
        return None
    try:
        solids, repairs = manifolds_of_part(arrays, mass.center, mass.gyration)
    except ValueError:
        return None
    return Measured(shape, mass, arrays, solids, repairs)


def _nearing(coarse: Measured | None, fine: Measured) -> bool:
    """Whether two whole meshes of one shape come nearer to its integral the finer they are."""
    if coarse is None or coarse.repairs or fine.repairs:
        return False
    left = abs(fine.mesh_volume - fine.mass.volume)
    return left <= abs(coarse.mesh_volume - coarse.mass.volume) / 2


def _fixed(shape: TopoDS_Shape) -> Measured | None:
    """What ShapeFix makes of it, if the mesh and the integral of that agree."""
    fix = ShapeFix_Shape(shape)
    fix.Perform()
    whole = _compound(subshapes(fix.Shape(), TopAbs_ShapeEnum.TopAbs_SOLID))
    try:
        got = _looked_at(whole, _mass(whole), 1.0, [])
    except NotMeasurable:
        return None
    return got if got is not None and got.agrees else None


def _healed(shape: TopoDS_Shape, mesh: Measured | None) -> Measured | None:
    """What ShapeFix makes of it, if that is closed, agrees, and is the same solid as the mesh."""
    got = _fixed(shape)
    if got is None or got.repairs or mesh is None:
        return None
    solids = [subshapes(one, TopAbs_ShapeEnum.TopAbs_SOLID) for one in (got.shape, shape)]
    if len(solids[0]) != len(solids[1]):
        return None
    differ = abs(got.mesh_volume - mesh.mesh_volume)
    return got if differ <= SAME_VOLUME_WITHIN * got.mesh_volume else None


def _faces_inwards(found: Measured) -> bool:
    """Whether a piece of a solid, inside no other, faces inwards, so that its volume is taken off.

    OpenCASCADE's boolean leaves a post so that touches a wall along a line. A mesh that had to be
    repaired tells nothing: outlines that cross leave one whose pieces face either way.
    """
    if found.repairs:
        return False
    try:
        bodies = [body for solid in found.solids for body in closed_bodies(*mesh_of(solid))[0]]
    except ValueError:  # once its near points are welded it is not closed: it tells nothing either
        return False
    outwards = sum(body.manifold.volume() for body in bodies)
    return outwards > sum(solid.volume() for solid in found.solids) * (1 + SAME_VOLUME_WITHIN)


def _turned_outwards(found: Measured) -> Measured:
    """What ShapeFix makes of it, if it faces outwards. Raises NotMeasurable."""
    got = _fixed(found.shape)
    if got is None or _faces_inwards(got):
        raise NotMeasurable("invalid solid", "a piece of the solid faces inwards")
    return got


def _has_open_shell(shape: TopoDS_Shape) -> bool:
    shells = subshapes(shape, TopAbs_ShapeEnum.TopAbs_SHELL)
    return not all(BRep_Tool.IsClosed_s(shell) for shell in shells)


@functools.lru_cache(1)
def _area(shape: TopoDS_Shape) -> float:
    surface = GProp_GProps()
    BRepGProp.SurfaceProperties_s(shape, surface)
    return surface.Mass()


# ---- the solids of a shape -----------------------------------------------------------------------


def _valid(shape: TopoDS_Shape) -> bool:
    """What OpenCASCADE's checker says; raises NotMeasurable if a face's outline crosses itself.

    Then inside and outside have no meaning. Other faults are let pass: parts with them can have
    the right volume.

    A shape with a face of more than MANY_HOLES is checked face by face, and not whether these
    holes lie in their outline: that takes OpenCASCADE time by the square of their number.
    """
    faces = subshapes(shape, TopAbs_ShapeEnum.TopAbs_FACE)
    outlines = [subshapes(face, TopAbs_ShapeEnum.TopAbs_WIRE) for face in faces]
    if max(map(len, outlines)) > MANY_HOLES:
        found = [
            fault
            for face, wires in zip(faces, outlines, strict=True)
            for fault in _faults(TopoDS.Face_s(face), wires)
        ]
    else:
        checker = BRepCheck_Analyzer(shape)
        if checker.IsValid():
            return True
        found = [fault for wires in outlines for one in wires
                 for fault in checker.Result(one).Status()]  # fmt: skip
        found.append(BRepCheck_Status.BRepCheck_CheckFail)
    if BRepCheck_Status.BRepCheck_SelfIntersectingWire in found:
        raise NotMeasurable("invalid solid", "the outline of a face crosses itself")
    return not found


def _faults(face: TopoDS_Face, wires: list[TopoDS_Shape]) -> list[BRepCheck_Status]:
    """What is wrong with a face and its wires; where they lie only if they are few."""
    found = []
    if len(wires) > MANY_HOLES:
        found.append(BRepCheck_Face(face).IntersectWires(False))
    elif not BRepCheck_Analyzer(face).IsValid():
        found.append(BRepCheck_Status.BRepCheck_CheckFail)
    for one in wires:
        checked = BRepCheck_Wire(TopoDS.Wire_s(one))
        found.append(checked.SelfIntersect(face, TopoDS_Edge(), TopoDS_Edge(), False))
    return [fault for fault in found if fault != BRepCheck_Status.BRepCheck_NoError]


def _solids(shape: TopoDS_Shape, notes: list[str]) -> list[TopoDS_Shape]:
    found = TopTools_IndexedMapOfShape()
    TopExp.MapShapes_s(shape, TopAbs_ShapeEnum.TopAbs_SOLID, found)
    solids = [TopoDS.Solid_s(found.FindKey(i + 1)) for i in range(found.Extent())]
    solids.extend(_solids_of_shells(shape, notes))
    if not solids:
        raise NotMeasurable("no solid", f"the result holds {_contents(shape)} and no solid")
    kept = []
    for solid in solids:
        volume, area = _volume(solid), _area(solid)
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


def _solids_of_shells(shape: TopoDS_Shape, notes: list[str]) -> list[TopoDS_Shape]:
    """The closed shells outside solids as solids; one inside another is its cavity.

    STEP files hold a hollow solid that way where the writer knew of no solid.
    """
    shells = []
    explorer = TopExp_Explorer(shape, TopAbs_ShapeEnum.TopAbs_SHELL, TopAbs_ShapeEnum.TopAbs_SOLID)
    while explorer.More():
        shell = TopoDS.Shell_s(explorer.Current())
        if shell.Closed() or BRep_Tool.IsClosed_s(shell):
            solid = BRepBuilderAPI_MakeSolid(shell).Solid()
            volume = _volume(solid)
            shells.append((abs(volume), _turned(solid) if volume < 0 else solid, volume < 0))
        explorer.Next()
    shells.sort(key=lambda one: -one[0])
    depth: list[int] = []
    cavities: dict[int, list[TopoDS_Shape]] = {}
    for index, (_, solid, _) in enumerate(shells):
        holder = next((k for k in reversed(range(index)) if _is_inside(solid, shells[k][1])), None)
        depth.append(0 if holder is None else depth[holder] + 1)
        if holder is not None and depth[index] % 2:
            cavities.setdefault(holder, []).append(solid)
    solids = []
    for index, (_, solid, inside_out) in enumerate(shells):
        if depth[index] % 2:
            continue
        notes.append("closed shell taken as a solid")
        if inside_out:
            notes.append("inside-out solid turned round")
        solids.append(_hollow(solid, cavities.get(index, []), notes))
    return solids


def _is_inside(inner: TopoDS_Shape, outer: TopoDS_Shape) -> bool:
    """Whether every corner of one closed solid is inside another."""
    low, high = np.array(_bounding_box(inner))
    outer_low, outer_high = np.array(_bounding_box(outer))
    if (low <= outer_low).any() or (high >= outer_high).any():
        return False
    where = BRepClass3d_SolidClassifier(outer)
    for vertex in subshapes(inner, TopAbs_ShapeEnum.TopAbs_VERTEX):
        where.Perform(BRep_Tool.Pnt_s(TopoDS.Vertex_s(vertex)), CORNER_TOLERANCE)
        if where.State() != TopAbs_State.TopAbs_IN:
            return False
    return True


def _hollow(solid: TopoDS_Shape, cavities: list[TopoDS_Shape], notes: list[str]) -> TopoDS_Shape:
    """The solid with the shells of others, all facing outwards, as its cavities."""
    if not cavities:
        return solid
    whole, builder = TopoDS_Solid(), BRep_Builder()
    builder.MakeSolid(whole)
    shell = TopAbs_ShapeEnum.TopAbs_SHELL
    builder.Add(whole, subshapes(solid, shell)[0])
    for cavity in cavities:
        builder.Add(whole, subshapes(cavity, shell)[0].Reversed())
        notes.append("a closed shell inside another taken as its cavity")
    return whole


def _volume(shape: TopoDS_Shape) -> float:
    mass = GProp_GProps()
    BRepGProp.VolumeProperties_s(shape, mass)
    return mass.Mass()


def _turned(solid: TopoDS_Shape) -> TopoDS_Shape:
    copy = TopoDS.Solid_s(solid)
    BRepLib.OrientClosedSolid_s(copy)
    return copy if _volume(copy) > 0 else TopoDS.Solid_s(solid.Reversed())


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


def _mass_of_mesh(points: np.ndarray, triangles: np.ndarray, at: Mass) -> Mass:
    """Of a closed mesh whose points are about the centre of `at`, in its radii of gyration."""
    (volume, center, inertia), size = mesh_mass(points, triangles), at.gyration
    return Mass(volume * size**3, at.center + center * size, inertia * size**5)


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


def _united(found: Measured, notes: list[str]) -> Measured:
    """The fused shape where solids overlap.

    Meshes say whether there is an overlap and check the fused volume, because OpenCASCADE's
    booleans can silently lose or double a part. Where they do, the mass properties are those of
    the united meshes.
    """
    if len(found.solids) == 1:
        return found
    separate = sum(mesh.volume() for mesh in found.solids)
    whole = union(found.solids)
    together = whole.volume()
    if separate - together <= 1e-6 * separate:
        return found
    mass = found.mass
    solids = subshapes(found.shape, TopAbs_ShapeEnum.TopAbs_SOLID)
    first, rest = TopTools_ListOfShape(), TopTools_ListOfShape()
    first.Append(solids[0])
    for solid in solids[1:]:
        rest.Append(solid)
    fuse = BRepAlgoAPI_Fuse()
    fuse.SetArguments(first)
    fuse.SetTools(rest)
    fuse.Build()
    fused = subshapes(fuse.Shape(), TopAbs_ShapeEnum.TopAbs_SOLID) if fuse.IsDone() else []
    if fused:
        said: list[str] = []
        try:
            got = _settled(_compound(fused), said)
        except NotMeasurable:
            got = None
        right = together * mass.gyration**3
        if got is not None and abs(got.mass.volume - right) <= 0.01 * right:
            notes.extend([*said, "overlapping solids fused"])
            return got
    own = _mass_of_mesh(*mesh_of(whole), mass)
    notes.append("overlapping solids could not be fused; mass properties of their meshes")
    return Measured(found.shape, own, found.arrays, found.solids, found.repairs, exact=False)
