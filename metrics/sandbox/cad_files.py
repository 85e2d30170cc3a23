"""Reads STEP, STL, 3MF and OBJ files, and writes STEP files.

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
from typing import Any

import manifold3d
import numpy as np

from .. import wire
from ..meshes import manifolds_of_part
from ..parts import ORIGINS
from ..triangles import mesh_mass, radius_of_gyration
from .mesh_faces import face_groups
from .mesh_repair import closed_bodies

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


def measure_mesh_file(data: bytes, kind: str) -> bytes:
    """Measure a mesh file, kind "3mf" or "obj"; a message of wire.py.

    Each body counts where the file places it. Raises ValueError if trimesh is not installed, or if
    the file is no closed mesh.
    """
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
    return _measure_corners(corners, kind)


def measure_stl(data: bytes) -> bytes:
    """Measure an STL file; a message of wire.py. Raises ValueError if it is not a closed mesh."""
    return _measure_corners(_stl_corners(data).astype(float), "stl")


def _measure_corners(corners: np.ndarray, kind: str) -> bytes:
    """Measure the triangles of a file, from their corners (M, 3, 3); a message of wire.py.

    kind: "stl", "3mf" or "obj". Raises ValueError, saying what is wrong, where they cannot be made
    a closed mesh.
    """
    if not len(corners) or not np.isfinite(corners).all():
        raise ValueError(f"the {kind.upper()} file holds no usable triangles")
    numbers = np.arange(3 * len(corners)).reshape(-1, 3)
    bodies, repairs = closed_bodies(corners.reshape(-1, 3), numbers)
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
        "notes": [ORIGINS[kind], *repairs],
    }
    manifolds_of_part(arrays, center, radius_of_gyration(volume, inertia))
    return wire.pack_arrays(header, arrays, b"")


def _components(solid: manifold3d.Manifold) -> int:
    """The connected pieces of a body; what it holds inside out are its cavities."""
    return sum(piece.volume() > 0 for piece in solid.decompose())


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
