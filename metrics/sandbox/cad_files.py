"""Reads the STEP and STL files that are given as references, and writes STEP files.

Runs in a confined child in which no generated code ever runs, because a file or B-rep bytes may
crash the reader. A STEP file becomes B-rep bytes and is measured like a program's result. An STL
file has no B-rep: its triangles are made closed bodies (mesh_repair.py), whose mass properties
count, and are grouped into faces (mesh_faces.py); it has no edges.

Files are bytes at both ends, because the child can open none for writing. Left out: names and
colours in STEP files.
"""

from __future__ import annotations

import io
import re

import manifold3d
import numpy as np

from .. import wire
from ..meshes import manifolds_of_part
from ..triangles import mesh_mass, radius_of_gyration
from .mesh_faces import face_groups
from .mesh_repair import closed_bodies

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
    corners = _stl_corners(data).astype(float)
    return measure_mesh(
        corners.reshape(-1, 3), np.arange(3 * len(corners)).reshape(-1, 3), "from an STL mesh"
    )


def measure_mesh(vertices: np.ndarray, triangles: np.ndarray, origin: str) -> bytes:
    """Measure the triangles of a file; a message of wire.py.

    vertices: (N, 3). triangles: (M, 3) indices. origin: the first of the notes. Raises ValueError,
    saying what is wrong, where they cannot be made a closed mesh.
    """
    if not len(triangles) or not np.isfinite(vertices).all():
        raise ValueError("the file holds no usable triangles")
    bodies, repairs = closed_bodies(vertices, triangles)
    groups = [face_groups(body.points, body.triangles) for body in bodies]
    sizes = [group.max() + 1 for group in groups]
    corners = np.concatenate([body.points[body.triangles] for body in bodies])
    points = corners.reshape(-1, 3)
    numbers = np.arange(len(points)).reshape(-1, 3)
    volume, center, inertia = mesh_mass(points, numbers)
    across = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    lengths = np.linalg.norm(across, axis=1, keepdims=True)
    arrays = {
        "vertices": points,
        "normals": np.repeat(across / np.where(lengths > 0, lengths, 1), 3, axis=0),
        "triangles": numbers,
        "faces": np.concatenate(
            [group + sum(sizes[:index]) for index, group in enumerate(groups)]
        ),
        "edge_points": np.zeros((0, 3)),
        "edge_starts": np.zeros(1),
        "solid_of_face": np.repeat(np.arange(len(bodies)), sizes),
    }  # fmt: skip
    header = {
        "ok": True,
        "volume": volume,
        "area": float(lengths.sum() / 2),
        "center": center.tolist(),
        "inertia": inertia.tolist(),
        "bounding_box": [points.min(0).tolist(), points.max(0).tolist()],
        "solids": sum(_components(body.manifold) for body in bodies),
        "valid": not repairs,
        "notes": [origin, *repairs],
    }
    manifolds_of_part(arrays, center, radius_of_gyration(volume, inertia))
    return wire.pack_arrays(header, arrays, b"")


def _components(solid: manifold3d.Manifold) -> int:
    """The connected pieces of a body; what it holds inside out are its cavities."""
    return sum(piece.volume() > 0 for piece in solid.decompose())


def _stl_corners(data: bytes) -> np.ndarray:
    count = int.from_bytes(data[80:84], "little") if len(data) >= 84 else -1
    if len(data) == 84 + count * STL_TRIANGLE.itemsize:
        return np.frombuffer(data, STL_TRIANGLE, count, 84)["corners"]
    if not data.lstrip()[:5].lower() == b"solid":
        raise ValueError("not a readable STL file")
    numbers = re.findall(rb"vertex\s+(\S+)\s+(\S+)\s+(\S+)", data)
    return np.array(numbers, dtype=float).reshape(-1, 3, 3)
