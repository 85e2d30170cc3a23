"""A part as the bytes of a file: STEP, STL, 3MF, GLB, DXF of its sketches, or the program.

    data = export(part, code, "step")       # part from run_cadquery(code)

STEP is exact and written in a confined process. STL and 3MF are the part's mesh, closed; GLB is
the mesh with the smooth normals of its surfaces. STL and GLB hold 32-bit numbers, so that there is
none of a part that is very far from the origin. DXF holds every sketch of the program on a layer of
its own, in the sketch plane's coordinates: the text is read, never run.

A length of 1 is a millimetre, which every file says that has a place for it. In GLB it stays 1,
as in CadQuery's own, though glTF counts in metres: viewers frame what they show, and some fail at
parts of a thousandth of a unit. GLB is y-up, so that they show a part upright.
Left out: colours, several parts in a file, drawings with dimensions.
"""

from __future__ import annotations

import io
import math
import zipfile

import ezdxf
import numpy as np
import trimesh
from ezdxf import units
from ezdxf.layouts import Modelspace
from trimesh.path import Path3D
from trimesh.path.entities import Line
from trimesh.visual import TextureVisuals
from trimesh.visual.material import PBRMaterial

from image2cad.cad.arcs import arc_through
from image2cad.cad.parsing import Unread, parse
from image2cad.cad.program import Circle, Loop, Segment
from image2cad.cad.transforms import as_path
from image2cad.common import InputError
from metrics import Failure, Part, export_step, solid_manifolds, weld

FORMATS = ("step", "stl", "3mf", "glb", "dxf", "py")
GREY = (0.3, 0.3, 0.3, 1.0)  # linear; viewers' lights make it paler
Z_UP_TO_Y_UP = np.array([[1.0, 0.0, 0.0], [0.0, 0.0, 1.0], [0.0, -1.0, 0.0]])
MOST_DXF_COLOURS = 6  # of layers, red to magenta; the next, 7, is black or white
SHORTEST_CLOSING = 1e-6  # CadQuery's close() draws no line shorter than this
STL_HEADER, STL_HEADER_BYTES = b"image2cad, lengths in millimetres", 80
LARGEST_COORDINATE = 1e30  # STL and GLB hold 32-bit numbers
FARTHEST_IN_SIZES = 1e5  # of the part; 32-bit numbers have about 100 steps a size there

# The parts of a 3MF package, as the core specification lays them out.
CONTENT_TYPES_XML = """<?xml version="1.0" encoding="UTF-8"?>
<Types xmlns="http://schemas.openxmlformats.org/package/2006/content-types">
<Default Extension="rels" \
ContentType="application/vnd.openxmlformats-package.relationships+xml"/>
<Default Extension="model" ContentType="application/vnd.ms-package.3dmanufacturing-3dmodel+xml"/>
</Types>
"""
RELATIONS_XML = """<?xml version="1.0" encoding="UTF-8"?>
<Relationships xmlns="http://schemas.openxmlformats.org/package/2006/relationships">
<Relationship Id="rel0" Target="/3D/3dmodel.model" \
Type="http://schemas.microsoft.com/3dmanufacturing/2013/01/3dmodel"/>
</Relationships>
"""
MODEL_XML = """<?xml version="1.0" encoding="UTF-8"?>
<model unit="millimeter" xml:lang="en-US" \
xmlns="http://schemas.microsoft.com/3dmanufacturing/core/2015/02">
<resources><object id="1" type="model" name="part"><mesh>
<vertices>
{vertices}
</vertices>
<triangles>
{triangles}
</triangles>
</mesh></object></resources>
<build><item objectid="1"/></build>
</model>
"""


def export(part: Part, code: str, kind: str) -> bytes:
    """The part, or the program that made it, as a file of the kind named (one of FORMATS).

    Raises InputError for another kind, for a part without a B-rep or that STEP cannot hold, for
    numbers that a mesh file cannot hold, and for a program whose sketch cannot be read.
    """
    if kind == "step":
        return _step(part)
    if kind == "stl":
        _check_single(part, "STL")
        data = trimesh.Trimesh(*_closed_mesh(part), process=False).export(file_type="stl")
        return STL_HEADER.ljust(STL_HEADER_BYTES) + data[STL_HEADER_BYTES:]
    if kind == "3mf":
        return _3mf(part)
    if kind == "glb":
        return _glb(part)
    if kind == "dxf":
        return _dxf(code)
    if kind == "py":
        try:
            return code.encode()
        except UnicodeEncodeError as error:
            text = "the program holds half a character (a lone surrogate), which no file can hold"
            raise InputError(text) from error
    raise InputError(f"unknown format {kind!r}; choose one of {', '.join(FORMATS)}")


def _step(part: Part) -> bytes:
    if not part.brep:
        raise InputError("the part has no exact surfaces to write as STEP; export STL, 3MF or GLB")
    written = export_step(part.brep)
    if isinstance(written, Failure):
        raise InputError(f"no STEP file: {written}")
    return written


def _closed_mesh(part: Part) -> tuple[np.ndarray, np.ndarray]:
    """Vertices (N, 3) and triangles (M, 3) in which every edge has two triangles.

    Each solid is closed by itself. One that only voxels could close keeps its gaps: blocks would
    be no likeness of it, and slicers can close a gap.
    """
    _check_mesh(part)
    points, faces, count = [], [], 0
    owner = part.solid_of_face[part.faces]
    for solid in np.unique(owner):
        triangles = part.triangles[owner == solid]
        mesh = _closed(part.vertices, triangles) or weld(part.vertices, triangles)
        points.append(mesh[0])
        faces.append(mesh[1] + count)
        count += len(mesh[0])
    return np.concatenate(points), np.concatenate(faces)


def _closed(vertices: np.ndarray, triangles: np.ndarray) -> tuple[np.ndarray, np.ndarray] | None:
    try:
        solids, notes = solid_manifolds(vertices, triangles, np.zeros(len(triangles), int))
    except ValueError:
        return None
    if any("voxels" in note for note in notes):
        return None
    mesh = solids[0].to_mesh64()
    return np.array(mesh.vert_properties), np.array(mesh.tri_verts, dtype=np.int64)


def _check_mesh(part: Part) -> None:
    if not len(part.triangles):
        raise InputError("the part has no mesh")
    if np.abs(part.vertices).max() > LARGEST_COORDINATE:
        raise InputError(f"the part is too large for a mesh file: over {LARGEST_COORDINATE:g} mm")


def _check_single(part: Part, name: str) -> None:
    """Raise InputError where 32-bit numbers cannot hold the mesh."""
    _check_mesh(part)
    far, size = np.abs(part.vertices).max(), np.ptp(part.bounding_box, axis=0).max()
    if far > FARTHEST_IN_SIZES * size:
        raise InputError(
            f"no {name}: the part is over {FARTHEST_IN_SIZES:,.0f} times as far from the origin "
            "as it is large, and the format's 32-bit numbers would distort it; export STEP or 3MF, "
            "or move the part"
        )


def _3mf(part: Part) -> bytes:
    points, faces = _closed_mesh(part)
    model = MODEL_XML.format(
        vertices="\n".join(
            f'<vertex x="{x:.15g}" y="{y:.15g}" z="{z:.15g}"/>' for x, y, z in points.tolist()
        ),
        triangles="\n".join(
            f'<triangle v1="{a}" v2="{b}" v3="{c}"/>' for a, b, c in faces.tolist()
        ),
    )
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as package:
        package.writestr("[Content_Types].xml", CONTENT_TYPES_XML)
        package.writestr("_rels/.rels", RELATIONS_XML)
        package.writestr("3D/3dmodel.model", model)
    return stream.getvalue()


def _glb(part: Part) -> bytes:
    _check_single(part, "GLB")
    # glTF's own default is a metal, which is black where a viewer has no surroundings to mirror.
    grey = PBRMaterial(name="grey", baseColorFactor=GREY, metallicFactor=0.0, roughnessFactor=0.6)
    mesh = trimesh.Trimesh(
        part.vertices @ Z_UP_TO_Y_UP.T,
        part.triangles,
        vertex_normals=part.normals @ Z_UP_TO_Y_UP.T,
        visual=TextureVisuals(material=grey),
        process=False,
    )
    scene = trimesh.Scene()
    scene.add_geometry(mesh, node_name="part", geom_name="part")
    ends = zip(part.edge_starts[:-1], part.edge_starts[1:], strict=True)
    lines = [Line(list(range(start, end))) for start, end in ends]
    if lines:  # a ball has none
        points, black = part.edge_points @ Z_UP_TO_Y_UP.T, [[20, 20, 20, 255]] * len(lines)
        edges = Path3D(lines, points, colors=black, process=False)
        scene.add_geometry(edges, node_name="edges")
    return scene.export(file_type="glb", include_normals=True)


def _dxf(code: str) -> bytes:
    program = parse(code)
    if isinstance(program, Unread):
        raise InputError(
            "no DXF: the program cannot be read as sketches and extrusions "
            f"({program.reason}). It has to draw with center, moveTo, lineTo, threePointArc, "
            "polyline, close, rect and circle, to extrude, and to give plain numbers"
        )
    document = ezdxf.new("R2010", units=units.MM)
    for number, step in enumerate(program, 1):
        layer = f"sketch {number}"
        made = document.layers.add(layer, color=(number - 1) % MOST_DXF_COLOURS + 1)
        origin = ", ".join(f"{one:.6g}" for one in step.plane.origin)
        plane = f"{step.plane.name} plane at" if step.plane.name else "plane at"
        made.description = f"{step.operation}, {abs(step.depth):.6g} mm deep, {plane} ({origin}) mm"
        for loop in step.loops:
            _draw_loop(document.modelspace(), loop, {"layer": layer})
    stream = io.StringIO()
    document.write(stream)
    return document.encode(stream.getvalue())


def _draw_loop(space: Modelspace, loop: Loop, on: dict[str, str]) -> None:
    """on: the attributes of what is drawn."""
    if isinstance(loop, Circle):
        space.add_circle((loop.x, loop.y), loop.radius, on)
        return
    path = as_path(loop)
    segments = list(path.segments)
    if math.dist(segments[-1].end, path.start) > SHORTEST_CLOSING:
        segments.append(Segment(path.start))
    here = path.start
    for segment in segments:
        if segment.mid is not None:
            arc = arc_through(here, segment.mid, segment.end)
            if arc is None:
                raise InputError(
                    f"no DXF: the arc through {here}, {segment.mid} and {segment.end} is too "
                    "large or straight, and has no centre"
                )
            # A DXF arc runs counter-clockwise.
            first, last = sorted((arc.first, arc.first + arc.sweep))
            ends = math.degrees(first) % 360, math.degrees(last) % 360
            space.add_arc(arc.centre, arc.radius, *ends, dxfattribs=on)
        elif segment.end != here:
            space.add_line(here, segment.end, on)
        here = segment.end
