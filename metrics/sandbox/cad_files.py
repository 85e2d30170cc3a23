"""Reads STEP, STL, 3MF and OBJ files, and writes STEP files.

Runs in a confined child in which no generated code ever runs, because a file or B-rep bytes may
crash the reader. A STEP file becomes B-rep bytes and is measured like a program's result. An STL
file has no B-rep: its mass properties are those of the closed triangle mesh, it counts as one face
per connected piece, and it has no edges.

Files are bytes at both ends, because the child can open none for writing. Left out: names and
colours in STEP files.
"""

from __future__ import annotations

import io
import re
from typing import Any

import numpy as np

from .. import wire

SAME_VOLUME = 1e-3  # relative difference between a solid and its STEP file
STL_TRIANGLE = np.dtype([("normal", "<f4", 3), ("corners", "<f4", (3, 3)), ("attribute", "<u2")])


def step_to_brep(data: bytes) -> bytes:
    """B-rep bytes of everything in a STEP file. Raises ValueError if it cannot be read."""
    from OCP.BinTools import BinTools
    from OCP.IFSelect import IFSelect_ReturnStatus
    from OCP.STEPControl import STEPControl_Reader

    reader = STEPControl_Reader()
    if reader.ReadStream("reference", io.BytesIO(data)) != IFSelect_ReturnStatus.IFSelect_RetDone:
        raise ValueError("not a readable STEP file")
    reader.TransferRoots()
    shape = reader.OneShape()
    if shape.IsNull():
        raise ValueError("the STEP file holds no shape")
    stream = io.BytesIO()
    BinTools.Write_s(shape, stream)
    return stream.getvalue()


def brep_to_step(brep: bytes) -> bytes:
    """A STEP file (AP214) in millimetres of the shape in B-rep bytes.

    It is read back, and written as splines where it is not the same then. Raises ValueError if
    there is no shape, or if no file holds it. The bytes may also crash
    OpenCASCADE: call it only in a confined child.
    """
    from OCP.BRepBuilderAPI import BRepBuilderAPI_NurbsConvert

    shape = _read_brep(brep)
    wanted, volume = _solids(shape)
    files = [_written(shape)]
    held = [_read_back(files[0])]
    if held[0][0] != wanted or abs(held[0][1] - volume) > SAME_VOLUME * abs(volume):
        # Curves that STEP has no name for, such as an ellipse's offset, are lost; splines are not.
        files.append(_written(BRepBuilderAPI_NurbsConvert(shape).Shape()))
        held.append(_read_back(files[1]))
        if held[1][0] == wanted and abs(held[1][1] - volume) <= SAME_VOLUME * abs(volume):
            return files[1]
    # A volume alone that differs may be OpenCASCADE's integral of a solid that is there.
    for file, (count, _) in zip(files, held, strict=True):
        if count >= wanted:
            return file
    raise ValueError("the solid cannot be written as STEP: it is lost when its file is read")


def _read_brep(brep: bytes) -> Any:
    from OCP.BinTools import BinTools
    from OCP.TopoDS import TopoDS_Shape

    shape = TopoDS_Shape()
    try:
        BinTools.Read_s(shape, io.BytesIO(brep))
    except MemoryError:
        raise
    except Exception as error:  # OpenCASCADE's, or of a message that is no text
        raise ValueError("the B-rep cannot be read") from error
    if shape.IsNull():
        raise ValueError("the B-rep holds no shape")
    return shape


def _written(shape: Any) -> bytes:
    from OCP.IFSelect import IFSelect_ReturnStatus
    from OCP.Interface import Interface_Static
    from OCP.STEPControl import STEPControl_StepModelType, STEPControl_Writer

    done = IFSelect_ReturnStatus.IFSelect_RetDone
    writer = STEPControl_Writer()  # the settings exist only from here on
    Interface_Static.SetCVal_s("write.step.unit", "MM")
    Interface_Static.SetCVal_s("write.step.product.name", "part")
    if writer.Transfer(shape, STEPControl_StepModelType.STEPControl_AsIs) != done:
        raise ValueError("the solid cannot be written as STEP")
    stream = io.BytesIO()
    if writer.WriteStream(stream) != done:
        raise ValueError("the STEP file cannot be written")
    return stream.getvalue()


def _read_back(step: bytes) -> tuple[int, float]:
    """How many solids a STEP file holds, -1 if it cannot be read, and their volume."""
    try:
        return _solids(_read_brep(step_to_brep(step)))
    except ValueError:
        return -1, 0.0


def _solids(shape: Any) -> tuple[int, float]:
    """How many solids a shape holds, and their volume."""
    from OCP.BRepGProp import BRepGProp
    from OCP.GProp import GProp_GProps
    from OCP.TopAbs import TopAbs_ShapeEnum
    from OCP.TopExp import TopExp
    from OCP.TopTools import TopTools_IndexedMapOfShape

    solids = TopTools_IndexedMapOfShape()
    TopExp.MapShapes_s(shape, TopAbs_ShapeEnum.TopAbs_SOLID, solids)
    mass = GProp_GProps()
    BRepGProp.VolumeProperties_s(shape, mass)
    return solids.Extent(), mass.Mass()


def measure_mesh(data: bytes, kind: str) -> bytes:
    """Measure the bytes of a mesh file, kind "3mf" or "obj", as `measure_stl` does.

    Raises ValueError if trimesh is not installed, or if the file is no closed mesh.
    """
    try:
        return measure_stl(_as_stl(data, kind))
    except ValueError as error:
        raise ValueError(str(error).replace("STL file", f"{kind.upper()} file")) from error


def _as_stl(data: bytes, kind: str) -> bytes:
    """The triangles of a whole scene, each body where it is placed, as a binary STL file."""
    try:
        import trimesh
    except ImportError:
        raise ValueError(f"reading {kind.upper()} files needs trimesh, which is not here") from None
    options = {"skip_materials": True} if kind == "obj" else {}
    try:
        mesh = trimesh.load(
            io.BytesIO(data), file_type=kind, force="mesh", process=False, **options
        )
        corners = np.asarray(mesh.triangles)
    except MemoryError:
        raise
    except ImportError as error:
        raise ValueError(f"reading {kind.upper()} files needs {error.name}") from error
    except Exception as error:  # trimesh raises whatever its parsers do
        raise ValueError(f"not a readable {kind.upper()} file") from error
    if not len(corners):
        raise ValueError(f"the {kind.upper()} file holds no usable triangles")
    rows = np.zeros(len(corners), STL_TRIANGLE)
    rows["corners"] = corners
    return bytes(80) + len(rows).to_bytes(4, "little") + rows.tobytes()


def measure_stl(data: bytes) -> bytes:
    """Measure an STL file; a message of wire.py. Raises ValueError if it is not a closed mesh."""
    from ..meshes import solid_manifolds, union, weld

    corners = _stl_corners(data).astype(float)
    if not len(corners) or not np.isfinite(corners).all():
        raise ValueError("the STL file holds no usable triangles")
    vertices = corners.reshape(-1, 3)
    triangles = np.arange(len(vertices), dtype=np.int32).reshape(-1, 3)
    points, faces = weld(vertices, triangles)
    piece = _pieces(len(points), faces)[faces[:, 0]]
    volume, center, inertia = mesh_mass(points, faces)
    if volume < 0:
        faces, volume, inertia = faces[:, ::-1], -volume, -inertia
    if not volume > 0:
        raise ValueError("the STL file has no volume")
    size = float(np.sqrt(np.trace(inertia) / (2 * volume)))
    solids, notes = solid_manifolds((points - center) / size, faces, np.zeros(len(faces), int))
    whole = union(solids)
    corners = points[faces]
    normals = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    lengths = np.linalg.norm(normals, axis=1, keepdims=True)
    normals = np.repeat(normals / np.where(lengths > 0, lengths, 1), 3, axis=0)
    header = {
        "ok": True,
        "volume": volume,
        "area": float(lengths.sum() / 2),
        "center": center.tolist(),
        "inertia": inertia.tolist(),
        "bounding_box": [points.min(0).tolist(), points.max(0).tolist()],
        "solids": len(whole.decompose()),
        "valid": not notes,
        "notes": ["from an STL mesh", *notes],
    }
    arrays = {
        "vertices": corners.reshape(-1, 3),
        "normals": normals,
        "triangles": np.arange(3 * len(faces)).reshape(-1, 3),
        "faces": piece,
        "edge_points": np.zeros((0, 3)),
        "edge_starts": np.zeros(1),
        "solid_of_face": np.zeros(piece.max() + 1),
    }
    return wire.pack_arrays(header, arrays, b"")


def mesh_mass(points: np.ndarray, faces: np.ndarray) -> tuple[float, np.ndarray, np.ndarray]:
    """Volume, centre (3,) and inertia (3, 3) about it, density 1, of a closed oriented mesh.

    Sums over the tetrahedra between each triangle and a point inside the bounding box; the second
    moment of a tetrahedron with corners 0, a, b, c is det/120 (sum of the outer products of
    a, b, c and of a + b + c with themselves).
    """
    base = (points.min(0) + points.max(0)) / 2
    corners = points[faces] - base
    det = np.einsum("ij,ij->i", corners[:, 0], np.cross(corners[:, 1], corners[:, 2]))
    volume = float(det.sum() / 6)
    if volume == 0:
        return 0.0, base, np.zeros((3, 3))
    total = corners.sum(1)
    center = (det[:, None] * total).sum(0) / 24 / volume
    second = np.einsum("t,tki,tkj->ij", det, corners, corners)
    second = (second + np.einsum("t,ti,tj->ij", det, total, total)) / 120
    second -= volume * np.outer(center, center)
    return volume, base + center, np.trace(second) * np.eye(3) - second


def _stl_corners(data: bytes) -> np.ndarray:
    count = int.from_bytes(data[80:84], "little") if len(data) >= 84 else -1
    # More bytes than triangles: some writers leave a signature or zeros at the end. Text never
    # passes for that, because four letters are a number of triangles that no file holds.
    if count > 0 and len(data) >= 84 + count * STL_TRIANGLE.itemsize:
        return np.frombuffer(data, STL_TRIANGLE, count, 84)["corners"]
    text = data.removeprefix(b"\xef\xbb\xbf").lstrip()
    if text[:5].lower() != b"solid":
        whole = (len(data) - 84) // STL_TRIANGLE.itemsize
        if whole > 0:
            raise ValueError(f"the STL file was cut short: {whole} of {count} triangles are there")
        raise ValueError("not a readable STL file")
    numbers = re.findall(rb"vertex\s+(\S+)\s+(\S+)\s+(\S+)", text, re.IGNORECASE)
    try:
        return np.array(numbers, dtype=float).reshape(-1, 3, 3)
    except ValueError:
        raise ValueError("the STL file's text is damaged or was cut short") from None


def _pieces(count: int, faces: np.ndarray) -> np.ndarray:
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components

    ends = np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]]])
    links = coo_matrix((np.ones(len(ends)), ends.T), (count, count))
    return connected_components(links, directed=False)[1]
