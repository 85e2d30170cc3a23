"""Reads the STEP and STL files that are given as references, and writes STEP files.

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

import numpy as np

from .. import wire

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

    Raises ValueError if there is no shape or it cannot be written. The bytes may also crash
    OpenCASCADE: call it only in a confined child.
    """
    from OCP.BinTools import BinTools
    from OCP.IFSelect import IFSelect_ReturnStatus
    from OCP.Interface import Interface_Static
    from OCP.STEPControl import STEPControl_StepModelType, STEPControl_Writer
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
    if len(data) == 84 + count * STL_TRIANGLE.itemsize:
        return np.frombuffer(data, STL_TRIANGLE, count, 84)["corners"]
    if not data.lstrip()[:5].lower() == b"solid":
        raise ValueError("not a readable STL file")
    numbers = re.findall(rb"vertex\s+(\S+)\s+(\S+)\s+(\S+)", data)
    return np.array(numbers, dtype=float).reshape(-1, 3, 3)


def _pieces(count: int, faces: np.ndarray) -> np.ndarray:
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components

    ends = np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]]])
    links = coo_matrix((np.ones(len(ends)), ends.T), (count, count))
    return connected_components(links, directed=False)[1]
