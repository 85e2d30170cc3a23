"""Build and mesh a program as GenCAD-Code's pictures had it: DeepCAD's solid, as B-splines.

    mesh = build_exactly(program)       # Mesh
    picture = draw(mesh)                # SSIM .9999 with the real picture

DeepCAD fused and cut prisms without cleaning the faces afterwards, those of a sketch
extruded to both sides too (`as_drawn`). The result
was turned into B-splines (that is why circles have uneven chords) and meshed
with the defaults of OpenCASCADE's viewer. All of that is done again here.

No generated code runs: a program is numbers. But OpenCASCADE can hang or crash on
odd numbers, and here it does so in the caller's process; for programs that are not
trusted use `render_rows`, which works in processes with a deadline.
`light_engine.build` draws nearly the same at a tenth of the cost. Left out: measuring.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import dist, radians
from typing import Any

import numpy as np
from OCP.Bnd import Bnd_Box
from OCP.BRep import BRep_Builder, BRep_Tool
from OCP.BRepAlgoAPI import BRepAlgoAPI_Common, BRepAlgoAPI_Cut, BRepAlgoAPI_Fuse
from OCP.BRepBndLib import BRepBndLib
from OCP.BRepBuilderAPI import (
    BRepBuilderAPI_MakeEdge,
    BRepBuilderAPI_MakeFace,
    BRepBuilderAPI_MakeWire,
    BRepBuilderAPI_NurbsConvert,
)
from OCP.BRepMesh import BRepMesh_IncrementalMesh
from OCP.BRepPrimAPI import BRepPrimAPI_MakePrism
from OCP.GC import GC_MakeArcOfCircle
from OCP.gp import gp_Ax2, gp_Ax3, gp_Circ, gp_Dir, gp_Pln, gp_Pnt, gp_Vec
from OCP.TopAbs import TopAbs_ShapeEnum
from OCP.TopLoc import TopLoc_Location
from OCP.TopoDS import TopoDS, TopoDS_Compound
from OCP.TopTools import TopTools_IndexedMapOfShape

from image2cad.cad.chords import CHORD_ANGLE, CHORD_ERROR, SHORTEST_LINE, nesting, outline
from image2cad.cad.prisms import Mesh
from image2cad.cad.program import (
    Circle,
    Extrusion,
    Loop,
    Path,
    Plane,
    Point,
    Program,
    Segment,
)
from image2cad.cad.transforms import as_path
from metrics import face_mesh, subshapes

BOOLEANS = {"union": BRepAlgoAPI_Fuse, "cut": BRepAlgoAPI_Cut, "intersect": BRepAlgoAPI_Common}


class NotBuilt(Exception):
    """OpenCASCADE could not build or mesh the program; the message says why."""


def build_exactly(program: Program) -> Mesh:
    """The program's solid as it was drawn. Raises NotBuilt where there is none."""
    if not program:
        raise NotBuilt("the program is empty")
    try:
        shape = _prism(program[0])
        for step in program[1:]:
            shape = BOOLEANS[step.operation](shape, _prism(step)).Shape()
        if any(_is_round(loop) for step in program for loop in step.loops):
            shape = BRepBuilderAPI_NurbsConvert(shape).Shape()
        return _mesh(shape)
    except Exception as error:
        # OpenCASCADE's exceptions have no base class of their own in Python.
        if type(error).__module__.startswith("OCP."):
            raise NotBuilt(f"{type(error).__name__}: {error}") from error
        raise


def _is_round(loop: Loop) -> bool:
    if isinstance(loop, Path):
        return any(segment.mid is not None for segment in loop.segments)
    return isinstance(loop, Circle)


def _prism(step: Extrusion) -> Any:
    plane = step.plane
    axes = gp_Ax3(gp_Pnt(*plane.origin), gp_Dir(*plane.normal), gp_Dir(*plane.x))
    faces = []
    for outer, holes in _regions(step.loops):
        face = BRepBuilderAPI_MakeFace(gp_Pln(axes), _wire(outer, plane))
        for hole in holes:
            face.Add(TopoDS.Wire_s(_wire(hole, plane).Reversed()))
        faces.append(face.Face())
    profile = faces[0]
    if len(faces) > 1:
        builder, profile = BRep_Builder(), TopoDS_Compound()
        builder.MakeCompound(profile)
        for one in faces:
            builder.Add(profile, one)
    return BRepPrimAPI_MakePrism(profile, gp_Vec(*plane.normal) * step.depth).Shape()


def _regions(loops: Sequence[Loop]) -> list[tuple[Loop, list[Loop]]]:
    """Each outer loop with its holes; a loop inside a hole is an outer one again."""
    rings = [np.concatenate([curve for curve, _, _ in outline(loop)]) for loop in loops]
    around = nesting(rings)
    if around is None:
        raise NotBuilt("two loops of a sketch cross")
    regions: dict[int, list[Loop]] = {i: [] for i, by in enumerate(around) if len(by) % 2 == 0}
    for i, by in enumerate(around):
        if i not in regions:
            innermost = max(by, key=lambda j: len(around[j]))
            regions[innermost].append(loops[i])
    return [(loops[i], holes) for i, holes in regions.items()]


def _wire(loop: Loop, plane: Plane) -> Any:
    if isinstance(loop, Circle):
        # Only a centre and a normal, as in DeepCAD: OpenCASCADE chooses where the seam is.
        axes = gp_Ax2(_point(plane, (loop.x, loop.y)), gp_Dir(*plane.normal))
        edge = BRepBuilderAPI_MakeEdge(gp_Circ(axes, loop.radius)).Edge()
        return BRepBuilderAPI_MakeWire(edge).Wire()
    wire = BRepBuilderAPI_MakeWire()
    path = as_path(loop)
    here = path.start
    for segment in (*path.segments, Segment(path.start)):
        if segment.mid is not None:
            points = (_point(plane, point) for point in (here, segment.mid, segment.end))
            wire.Add(BRepBuilderAPI_MakeEdge(GC_MakeArcOfCircle(*points).Value()).Edge())
        elif dist(here, segment.end) > SHORTEST_LINE:
            edge = BRepBuilderAPI_MakeEdge(_point(plane, here), _point(plane, segment.end))
            wire.Add(edge.Edge())
        here = segment.end
    return wire.Wire()


def _point(plane: Plane, point: Point) -> Any:
    return gp_Pnt(*plane.point(*point))


def _mesh(shape: Any) -> Mesh:
    box = Bnd_Box()
    BRepBndLib.Add_s(shape, box, False)
    if box.IsVoid():
        raise NotBuilt("nothing is left of the solid")
    x0, y0, z0, x1, y1, z1 = box.Get()
    chord = CHORD_ERROR * max(x1 - x0, y1 - y0, z1 - z0)
    BRepMesh_IncrementalMesh(shape, chord, False, radians(CHORD_ANGLE), False)
    vertices, normals, triangles, lines, seams = [], [], [], [], []
    seen = TopTools_IndexedMapOfShape()
    count = 0
    for child in subshapes(shape, TopAbs_ShapeEnum.TopAbs_FACE):
        face, place = TopoDS.Face_s(child), TopLoc_Location()
        mesh = BRep_Tool.Triangulation_s(face, place)
        if mesh is None or mesh.NbTriangles() == 0:
            raise NotBuilt("a face could not be meshed")
        nodes, away, corners = face_mesh(face, mesh, place)
        for one in subshapes(face, TopAbs_ShapeEnum.TopAbs_EDGE):
            edge = TopoDS.Edge_s(one)
            if seen.Contains(edge) or BRep_Tool.Degenerated_s(edge):
                continue
            polygon = BRep_Tool.PolygonOnTriangulation_s(edge, mesh, place)
            if polygon is not None:
                seen.Add(edge)
                lines.append(nodes[[polygon.Node(i) - 1 for i in range(1, polygon.NbNodes() + 1)]])
                seams.append(BRep_Tool.IsClosed_s(edge, face))
        vertices.append(nodes)
        normals.append(away)
        triangles.append(corners + count)
        count += len(nodes)
    if not vertices:
        raise NotBuilt("nothing is left of the solid")
    points = np.concatenate(vertices)
    return Mesh(
        vertices=points,
        normals=np.concatenate(normals),
        triangles=np.concatenate(triangles),
        edge_points=np.concatenate(lines),
        edge_starts=np.concatenate([[0], np.cumsum([len(line) for line in lines])]),
        seams=np.array(seams, dtype=bool),
        bounding_box=np.stack([points.min(axis=0), points.max(axis=0)]),
    )
