"""Turns a B-rep shape into the mesh, normals and edge polylines of a Part.

Runs in the confined measuring child (measure.py). Vertices come one block per B-rep face and are
not welded, so that a renderer can shade each face on its own; vertices that two faces share are
equal bit by bit, so that meshes.py can weld them exactly.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from OCP.BRep import BRep_Tool
from OCP.BRepBuilderAPI import BRepBuilderAPI_Transform
from OCP.BRepCheck import BRepCheck_Analyzer
from OCP.BRepLib import BRepLib_ToolTriangulatedShape
from OCP.BRepMesh import BRepMesh_IncrementalMesh
from OCP.gp import gp_Pnt, gp_Trsf, gp_Vec
from OCP.IMeshTools import IMeshTools_MeshAlgoType, IMeshTools_Parameters
from OCP.ShapeFix import ShapeFix_Shape
from OCP.TopAbs import TopAbs_Orientation, TopAbs_ShapeEnum
from OCP.TopExp import TopExp_Explorer
from OCP.TopLoc import TopLoc_Location
from OCP.TopoDS import TopoDS, TopoDS_Shape
from OCP.TopTools import TopTools_IndexedMapOfShape

from .. import wire

LINEAR_DEFLECTION = 0.005  # chord error at radius of gyration 1
ANGULAR_DEFLECTION = 0.2  # radians
LARGEST_MESH = 500_000  # triangles; comparing two of more takes minutes
MANY_EDGES = 100  # of one face; OpenCASCADE's own way takes time by their square


class MeshTooLarge(Exception):
    """A mesh would have more triangles than LARGEST_MESH."""


def tessellate(
    shape: TopoDS_Shape,
    center: np.ndarray,
    size: float,
    notes: list[str],
    finer: float = 1.0,
    fast: bool = False,
) -> dict[str, np.ndarray] | None:
    """The arrays of wire.ARRAYS, in the part's own units and place; None if nothing meshes.

    `center` (3,) and `size`, the radius of gyration, are in the units of `shape`. The solids of
    `shape` are numbered in the order in which an explorer meets them. finer: divides both
    deflections. fast: as for `many_edged_faces`. Raises MeshTooLarge.
    """
    shape, center, size = _meshed(shape, center, size, notes, finer, fast)
    blocks: dict[str, list[Any]] = {name: [] for name in wire.ARRAYS}
    edges_seen = TopTools_IndexedMapOfShape()
    count = 0
    for index, solid in enumerate(subshapes(shape, TopAbs_ShapeEnum.TopAbs_SOLID)):
        for child in subshapes(solid, TopAbs_ShapeEnum.TopAbs_FACE):
            face = TopoDS.Face_s(child)
            number = len(blocks["solid_of_face"])
            blocks["solid_of_face"].append(index)
            place = TopLoc_Location()
            mesh = BRep_Tool.Triangulation_s(face, place)
            if mesh is None or mesh.NbTriangles() == 0:
                notes.append("a face could not be meshed")
                continue
            nodes, normals, triangles = face_mesh(face, mesh, place)
            _edges(face, mesh, place, nodes, edges_seen, blocks["edge_points"])
            blocks["vertices"].append(nodes)
            blocks["normals"].append(normals)
            blocks["triangles"].append(triangles + count)
            blocks["faces"].append(np.full(len(triangles), number, np.int32))
            count += len(nodes)
    if not count:
        return None
    lengths = [len(line) for line in blocks["edge_points"]]
    lines = np.concatenate(blocks["edge_points"]) if lengths else np.zeros((0, 3))
    return {
        "vertices": np.concatenate(blocks["vertices"]) * size + center,
        "normals": np.concatenate(blocks["normals"]),
        "triangles": np.concatenate(blocks["triangles"]),
        "faces": np.concatenate(blocks["faces"]),
        "edge_points": lines * size + center,
        "edge_starts": np.concatenate([[0], np.cumsum(lengths)]),
        "solid_of_face": np.array(blocks["solid_of_face"]),
    }


def many_edged_faces(shape: TopoDS_Shape) -> list[TopoDS_Shape]:
    """The faces with more than MANY_EDGES edges. A shape with any is first meshed the fast way.

    That is the algorithm Delabella: a plate of 400 holes takes 0.8 s of it in place of 22. But
    where a face is no plain outline it may leave holes or fill them, so its mesh has to be looked
    at.
    """
    edge = TopAbs_ShapeEnum.TopAbs_EDGE
    faces = subshapes(shape, TopAbs_ShapeEnum.TopAbs_FACE)
    return [face for face in faces if len(subshapes(face, edge)) > MANY_EDGES]


def _meshed(
    shape: TopoDS_Shape,
    center: np.ndarray,
    size: float,
    notes: list[str],
    finer: float,
    fast: bool,
) -> tuple[TopoDS_Shape, np.ndarray, float]:
    """The shape with its mesh, and where it is: x of the mesh is size * x + center of the part.

    At radius of gyration 1, where the smallest parts mesh too. A face that has no mesh there may
    have one at its own size: OpenCASCADE's tolerances do not shrink with a shape. What still has
    none is healed, as where a hole touches a face; only if it is valid, for healing would make
    something else of the others.
    """
    move, shrink = gp_Trsf(), gp_Trsf()
    move.SetTranslation(gp_Vec(*(-center)))
    shrink.SetScale(gp_Pnt(0, 0, 0), 1 / size)
    small = BRepBuilderAPI_Transform(shape, shrink.Multiplied(move), True).Shape()
    if _mesh(small, 1.0, finer, fast):
        return small, center, size
    own = BRepBuilderAPI_Transform(shape, gp_Trsf(), True).Shape()
    if _mesh(own, size, finer, fast):
        return own, np.zeros(3), 1.0
    if not BRepCheck_Analyzer(small).IsValid():
        return small, center, size
    fix = ShapeFix_Shape(small)
    fix.Perform()
    healed = fix.Shape()
    solid = TopAbs_ShapeEnum.TopAbs_SOLID
    if not _mesh(healed, 1.0, finer, fast) or len(subshapes(healed, solid)) != len(
        subshapes(small, solid)
    ):
        return small, center, size
    notes.append("healed before meshing")
    return healed, center, size


def _mesh(shape: TopoDS_Shape, size: float, finer: float, fast: bool) -> bool:
    """Mesh every face; whether every face has a mesh now."""
    options = IMeshTools_Parameters()
    options.Deflection, options.Angle = LINEAR_DEFLECTION * size / finer, ANGULAR_DEFLECTION / finer
    if fast:
        options.MeshAlgo = IMeshTools_MeshAlgoType.IMeshTools_MeshAlgoType_Delabella
    BRepMesh_IncrementalMesh(shape, options)
    place = TopLoc_Location()
    faces = subshapes(shape, TopAbs_ShapeEnum.TopAbs_FACE)
    meshes = [BRep_Tool.Triangulation_s(TopoDS.Face_s(face), place) for face in faces]
    count = sum(mesh.NbTriangles() for mesh in meshes if mesh is not None)
    if count > LARGEST_MESH:
        raise MeshTooLarge(f"its mesh has {count:,} triangles, {LARGEST_MESH:,} are allowed")
    return all(mesh is not None for mesh in meshes)


def subshapes(shape: TopoDS_Shape, kind: TopAbs_ShapeEnum) -> list[TopoDS_Shape]:
    """The sub-shapes of one kind, in the explorer's order."""
    explorer, found = TopExp_Explorer(shape, kind), []
    while explorer.More():
        found.append(explorer.Current())
        explorer.Next()
    return found


def face_mesh(face: Any, mesh: Any, place: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Vertices (N, 3), outward unit normals (N, 3), and triangles (M, 3) of a meshed face."""
    BRepLib_ToolTriangulatedShape.ComputeNormals_s(face, mesh)
    places = range(1, mesh.NbNodes() + 1)
    nodes = np.array([mesh.Node(i).Coord() for i in places])
    normals = np.array([mesh.Normal(i).Coord() for i in places])
    triangles = np.array([mesh.Triangle(i + 1).Get() for i in range(mesh.NbTriangles())], np.int32)
    if not place.IsIdentity():
        matrix = _matrix(place)
        nodes = nodes @ matrix[:, :3].T + matrix[:, 3]
        normals = normals @ matrix[:, :3].T
    if face.Orientation() == TopAbs_Orientation.TopAbs_REVERSED:
        triangles = triangles[:, ::-1]
        normals = -normals
    return nodes, normals, triangles - 1


def _matrix(place: Any) -> np.ndarray:
    transform = place.Transformation()
    return np.array([[transform.Value(i, j) for j in (1, 2, 3, 4)] for i in (1, 2, 3)])


def _edges(face: Any, mesh: Any, place: Any, nodes: np.ndarray, seen: Any, lines: list) -> None:
    for child in subshapes(face, TopAbs_ShapeEnum.TopAbs_EDGE):
        edge = TopoDS.Edge_s(child)
        if seen.Contains(edge) or BRep_Tool.Degenerated_s(edge):
            continue
        polygon = BRep_Tool.PolygonOnTriangulation_s(edge, mesh, place)
        if polygon is None:
            continue
        seen.Add(edge)
        indices = [polygon.Node(i + 1) - 1 for i in range(polygon.NbNodes())]
        lines.append(nodes[indices])
