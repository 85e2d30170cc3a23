"""Parts drawn in other viewers' looks by VTK: what pictures from elsewhere are like.

    PYTHONPATH=. python benchmarks/vtk_pictures.py sheet.png [--parts 8]    # a look at all of them

An independent renderer: nothing here comes from image2cad.rendering, whose drawings the product
compares with. `LOOKS` holds the kinds of pictures that styles.py measures and the tests compare
our own drawings with. Parts are meshed again from their B-rep, finer than they are scored by,
which is for reference programs that are trusted. Left out: CADBench's photoreal pictures.
"""

from __future__ import annotations

import argparse
import io
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import vtk
from PIL import Image
from vtkmodules.util.numpy_support import numpy_to_vtk, numpy_to_vtkIdTypeArray, vtk_to_numpy

from image2cad.common.gencad import read_programs
from metrics.execution import run_many
from metrics.parts import Part

vtk.vtkObject.GlobalWarningDisplayOff()
ROOT = Path(__file__).resolve().parent.parent
GENCAD_EYE = (1.0, -1.0, 1.0)
CHORD_ERROR = 5e-4  # of the longest side, between a round face and its mesh
TURN_ERROR = 0.1  # radians between the normals of neighbouring triangles
ELEVATIONS = (15.0, 55.0)  # degrees, of directions that are drawn by lot
ANGLES_OF_VIEW = (20.0, 50.0)  # degrees, of perspective pictures
OUTLINE_DEGREES = 20.0  # between two faces, from which a line drawing has a line
SHADOW_LIGHTS = 6  # directions that stand in for CADBench's 50 lights
SHADOW_AZIMUTH = 135.0  # degrees: they stand behind the viewer of the single view

Colour = tuple[float, float, float]
WHITE: Colour = (1.0, 1.0, 1.0)


# ---- What is drawn, from where, and how


@dataclass(frozen=True, eq=False)
class Solid:
    """A part about the origin, its longest side 1, as VTK takes it."""

    mesh: Any  # vtkPolyData of triangles with normals, split at sharp edges
    edges: Any  # vtkPolyData of the B-rep's edges, seams left out
    points: np.ndarray  # (N, 3)


@dataclass(frozen=True, eq=False)
class Vantage:
    """Where from a picture of `size` (width, height) is seen.

    matrix: (3, 4) from (x, y, z, 1) to (column w, row w, w) in pixels. eye: (3,) direction to the
    viewer. angle: of view in degrees, from the top to the bottom of the picture; 0: orthographic.
    """

    size: tuple[int, int]
    matrix: np.ndarray
    eye: np.ndarray
    angle: float
    place: np.ndarray  # of the camera
    middle: np.ndarray  # that it looks at
    up: np.ndarray
    half_height: float  # of the picture at the part, in units of length

    def moved(self, columns: float, rows: float) -> dict[str, Any]:
        """What a row keeps of it, where the picture is pasted at (columns, rows)."""
        shift = np.array([[1, 0, columns], [0, 1, rows], [0, 0, 1]])
        kept = {"matrix": (shift @ self.matrix).tolist(), "eye": self.eye.tolist()}
        return {**kept, "angle": self.angle, "size": list(self.size)}


@dataclass(frozen=True)
class Appearance:
    """Colours, light and lines. `ground`: at the bottom and at the top of the picture."""

    colour: Colour = (0.7, 0.7, 0.75)
    ground: tuple[Colour, Colour] = (WHITE, WHITE)
    lights: str = "head"  # "head": one at the viewer; "kit": VTK's own set of four
    ambient: float = 0.1
    diffuse: float = 0.9
    specular: float = 0.0
    lines: str = "edges"  # "edges" of the B-rep, "none", or from so many "degrees" between faces
    degrees: float = OUTLINE_DEGREES
    line_colour: Colour = (0.0, 0.0, 0.0)
    line_width: float = 1.3  # pixels
    outlines: bool = False  # lines where a round face turns away, as in drawings


@dataclass(frozen=True, eq=False)
class Shot:
    """A picture and the cameras of its views, as `Vantage.moved` gives them."""

    image: Image.Image
    cameras: list[dict[str, Any]] = field(default_factory=list)


def solid_of(part: Part) -> Solid:
    """The part of a trusted program, meshed finely."""
    import cadquery as cq

    shape = cq.Shape.importBin(io.BytesIO(part.brep))
    size = float(np.ptp(part.bounding_box, axis=0).max())
    middle = part.bounding_box.mean(axis=0)
    corners, triangles = shape.tessellate(CHORD_ERROR * size, TURN_ERROR)
    points = (np.array([corner.toTuple() for corner in corners]) - middle) / size
    mesh = _with_normals(points, np.array(triangles), 20.0)
    lines = [(np.array(line) - middle) / size for line in _edges(shape)]
    return Solid(mesh, _polylines(lines), points)


def _edges(shape: Any) -> list[list[tuple[float, float, float]]]:
    from OCP.BRep import BRep_Tool

    found: dict[int, list[tuple[float, float, float]]] = {}
    for face in shape.Faces():
        for edge in face.Edges():
            gone = BRep_Tool.Degenerated_s(edge.wrapped)
            if gone or BRep_Tool.IsClosed_s(edge.wrapped, face.wrapped):
                continue  # a point, or the seam of a round face
            count = 2 if edge.geomType() == "LINE" else 64
            shares = [i / (count - 1) for i in range(count)]
            found.setdefault(hash(edge), [edge.positionAt(share).toTuple() for share in shares])
    return list(found.values())


def _with_normals(points: np.ndarray, triangles: np.ndarray, degrees: float) -> Any:
    data = vtk.vtkPolyData()
    corners = vtk.vtkPoints()
    corners.SetData(numpy_to_vtk(np.ascontiguousarray(points, dtype=float), deep=1))
    data.SetPoints(corners)
    cells = vtk.vtkCellArray()
    starts = np.arange(0, 3 * len(triangles) + 1, 3, dtype=np.int64)
    rows = np.ascontiguousarray(triangles, dtype=np.int64).ravel()
    cells.SetData(*(numpy_to_vtkIdTypeArray(values, deep=1) for values in (starts, rows)))
    data.SetPolys(cells)
    welded = vtk.vtkCleanPolyData()
    welded.SetInputData(data)
    welded.SetTolerance(1e-6)
    normals = vtk.vtkPolyDataNormals()
    normals.SetInputConnection(welded.GetOutputPort())
    normals.SetFeatureAngle(degrees)
    normals.SplittingOn()
    normals.ConsistencyOn()
    normals.Update()
    return normals.GetOutput()


def _polylines(lines: Sequence[np.ndarray]) -> Any:
    data, points, cells = vtk.vtkPolyData(), vtk.vtkPoints(), vtk.vtkCellArray()
    for line in lines:
        cells.InsertNextCell(len(line))
        for point in line:
            cells.InsertCellPoint(points.InsertNextPoint(*point))
    data.SetPoints(points)
    data.SetLines(cells)
    return data


# ---- Cameras


def axes_of(eye: Sequence[float]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Unit vectors to the right, upwards and to the viewer; from straight above x is right."""
    view = np.array(eye, dtype=float) / np.linalg.norm(eye)
    right = np.cross([0.0, 0.0, 1.0], view)
    length = float(np.linalg.norm(right))
    right = right / length if length > 1e-9 else np.array([1.0, 0.0, 0.0])
    return right, np.cross(view, right), view


def eye_at(azimuth: float, elevation: float) -> tuple[float, float, float]:
    """The direction at these angles in degrees; azimuth 0 is x, 90 is y."""
    a, e = np.radians([azimuth, elevation])
    return float(np.cos(a) * np.cos(e)), float(np.sin(a) * np.cos(e)), float(np.sin(e))


def orthographic(
    eye: Sequence[float], size: tuple[int, int], half_height: float, middle: Any = (0, 0, 0)
) -> Vantage:
    """Seen from `eye` with `middle` in the middle; half the picture's height is `half_height`."""
    right, up, view = axes_of(eye)
    width, height = size
    scale, centre = height / 2 / half_height, np.array(middle, dtype=float)
    matrix = np.zeros((3, 4))
    matrix[0, :3], matrix[1, :3] = scale * right, -scale * up
    matrix[:2, 3] = np.array([width / 2, height / 2]) - matrix[:2, :3] @ centre
    matrix[2, 3] = 1
    return Vantage(size, matrix, view, 0.0, centre + 10 * view, centre, up, half_height)


def filling(
    points: np.ndarray,
    eye: Sequence[float],
    size: tuple[int, int],
    share: float,
    pan: tuple[float, float] = (0.0, 0.0),
) -> Vantage:
    """Orthographic: the part fills `share` of the picture, moved by `pan` of its sides."""
    right, up, _ = axes_of(eye)
    across, along = points @ right, points @ up
    width, height = size
    half = max(np.ptp(across) * height / width, np.ptp(along)) / 2 / share
    middle = (across.max() + across.min()) / 2 * right + (along.max() + along.min()) / 2 * up
    middle = middle + 2 * half * (pan[0] * width / height * right + pan[1] * up)
    return orthographic(eye, size, float(half), middle)


def perspective(
    points: np.ndarray,
    eye: Sequence[float],
    size: tuple[int, int],
    angle: float,
    share: float,
    pan: tuple[float, float] = (0.0, 0.0),
) -> Vantage:
    """The same in perspective, from as near as the part then fills `share`."""
    right, up, view = axes_of(eye)
    width, height = size
    slope = np.tan(np.radians(angle) / 2)
    near, far = 0.5, 100.0
    for _ in range(60):
        distance = (near * far) ** 0.5
        depths = distance - points @ view
        seen = np.abs(points @ right / depths).max() / (slope * width / height)
        seen = max(seen, np.abs(points @ up / depths).max() / slope)
        near, far = (near, distance) if depths.min() > 0.05 and seen < share else (distance, far)
    half = slope * far
    middle = 2 * half * (pan[0] * width / height * right + pan[1] * up)
    place = middle + far * view
    focal = height / 2 / slope
    turn = np.stack([right, -up, -view])
    inner = np.array([[focal, 0, width / 2], [0, focal, height / 2], [0, 0, 1]])
    matrix = inner @ np.hstack([turn, (-turn @ place)[:, None]])
    return Vantage(size, matrix, view, angle, place, middle, up, half)


# ---- Drawing


def shot(solid: Solid, at: Vantage, look: Appearance, finer: int = 2) -> Image.Image:
    """The solid as VTK draws it, `finer` times as large and then reduced."""
    renderer = _scene(solid, at, look, finer)
    if look.lights == "kit":
        vtk.vtkLightKit().AddLightsToRenderer(renderer)
    return _taken(renderer, at, finer)


def in_shade(solid: Solid, at: Vantage, look: Appearance) -> Image.Image:
    """The same under lights from above, spread over 30 degrees, that throw shadows.

    CADBench's 50 lights are SHADOW_LIGHTS here, one picture each, whose mean is taken.
    """
    total = np.zeros((at.size[1], at.size[0], 3))
    for turn in np.linspace(-15, 15, SHADOW_LIGHTS):
        renderer = _scene(solid, at, replace(look, lines="none"), 1)
        renderer.AutomaticLightCreationOff()
        light = vtk.vtkLight()  # VTK's shadows want a cone
        light.SetPositional(1)
        light.SetConeAngle(30)
        light.SetPosition(*(6 * np.array(eye_at(SHADOW_AZIMUTH + float(turn), 60))))
        light.SetFocalPoint(0, 0, 0)
        light.SetIntensity(1.8)
        renderer.AddLight(light)
        shadows, passes, whole = (
            vtk.vtkShadowMapPass(), vtk.vtkRenderPassCollection(), vtk.vtkSequencePass(),
        )  # fmt: skip
        shadows.GetShadowMapBakerPass().SetResolution(1024)
        passes.AddItem(shadows.GetShadowMapBakerPass())
        passes.AddItem(shadows)
        whole.SetPasses(passes)
        camera_pass = vtk.vtkCameraPass()
        camera_pass.SetDelegatePass(whole)
        renderer.SetPass(camera_pass)
        total += np.asarray(_taken(renderer, at, 1))
    # The pass colours lines wrongly, so they are drawn apart, on white faces.
    lines = replace(look, colour=WHITE, ambient=1.0, diffuse=0.0, line_colour=(0.0, 0.0, 0.0))
    share = np.asarray(shot(solid, at, lines, 1)) / 255.0
    colour = 255 * np.array(look.line_colour)
    mixed = share * total / SHADOW_LIGHTS + (1 - share) * colour
    return Image.fromarray(np.rint(mixed).astype(np.uint8))


def _scene(solid: Solid, at: Vantage, look: Appearance, finer: int) -> Any:
    renderer = vtk.vtkRenderer()
    mapper = vtk.vtkPolyDataMapper()
    mapper.SetInputData(solid.mesh)
    mapper.SetResolveCoincidentTopologyToPolygonOffset()
    mapper.SetRelativeCoincidentTopologyPolygonOffsetParameters(1, 1)
    faces = vtk.vtkActor()
    faces.SetMapper(mapper)
    surface = faces.GetProperty()
    surface.SetColor(*look.colour)
    surface.SetAmbient(look.ambient)
    surface.SetDiffuse(look.diffuse)
    surface.SetSpecular(look.specular)
    surface.SetSpecularPower(20)
    surface.SetInterpolationToPhong()
    renderer.AddActor(faces)
    sharp = vtk.vtkFeatureEdges()
    sharp.SetInputData(_whole(solid.mesh))
    sharp.SetFeatureAngle(look.degrees)
    sharp.BoundaryEdgesOff()
    sharp.NonManifoldEdgesOff()
    sharp.ColoringOff()
    drawn: list[Any] = []
    if look.lines == "edges":
        drawn.append(solid.edges)
    elif look.lines == "degrees":
        sharp.Update()
        drawn.append(sharp.GetOutput())
    if look.outlines:
        turning = vtk.vtkPolyDataSilhouette()
        turning.SetInputData(_whole(solid.mesh))
        camera = renderer.GetActiveCamera()
        _aim(camera, at)
        turning.SetCamera(camera)
        turning.SetEnableFeatureAngle(0)
        turning.BorderEdgesOff()
        turning.Update()
        drawn.append(turning.GetOutput())
    for data in drawn:
        lines = vtk.vtkActor()
        line_mapper = vtk.vtkPolyDataMapper()
        line_mapper.SetInputData(data)
        line_mapper.ScalarVisibilityOff()
        lines.SetMapper(line_mapper)
        lines.GetProperty().SetColor(*look.line_colour)
        lines.GetProperty().SetLineWidth(look.line_width * finer)
        lines.GetProperty().LightingOff()
        renderer.AddActor(lines)
    renderer.SetBackground(*look.ground[0])
    if look.ground[0] != look.ground[1]:
        renderer.GradientBackgroundOn()
        renderer.SetBackground2(*look.ground[1])
    _aim(renderer.GetActiveCamera(), at)
    return renderer


def _whole(mesh: Any) -> Any:
    """The mesh without the splits of its normals, so that neighbours are neighbours again."""
    bare = vtk.vtkPolyData()
    bare.SetPoints(mesh.GetPoints())
    bare.SetPolys(mesh.GetPolys())
    welded = vtk.vtkCleanPolyData()
    welded.SetInputData(bare)
    welded.SetTolerance(1e-6)
    welded.Update()
    return welded.GetOutput()


def _aim(camera: Any, at: Vantage) -> None:
    camera.SetFocalPoint(*at.middle)
    camera.SetPosition(*at.place)
    camera.SetViewUp(*at.up)
    if at.angle:
        camera.SetViewAngle(at.angle)
    else:
        camera.ParallelProjectionOn()
        camera.SetParallelScale(at.half_height)


def _taken(renderer: Any, at: Vantage, finer: int) -> Image.Image:
    window = vtk.vtkRenderWindow()
    window.SetOffScreenRendering(1)
    window.SetMultiSamples(8)
    window.SetSize(at.size[0] * finer, at.size[1] * finer)
    window.AddRenderer(renderer)
    renderer.ResetCameraClippingRange()
    window.Render()
    grab = vtk.vtkWindowToImageFilter()
    grab.SetInput(window)
    grab.ReadFrontBufferOff()
    grab.Update()
    output = grab.GetOutput()
    width, height, _ = output.GetDimensions()
    pixels = vtk_to_numpy(output.GetPointData().GetScalars()).reshape(height, width, -1)
    picture = Image.fromarray(np.ascontiguousarray(pixels[::-1, :, :3]))
    renderer.RemoveAllViewProps()
    window.RemoveRenderer(renderer)
    window.Finalize()
    return picture if finer == 1 else picture.resize(at.size, Image.Resampling.LANCZOS)


# ---- The kinds of pictures


GRADIENT: tuple[Colour, Colour] = ((0.95, 0.95, 0.95), (0.62, 0.66, 0.72))
COLOURED = Appearance((0.35, 0.55, 0.80), GRADIENT, "kit", specular=0.2, line_width=1.4)
STEEL = Appearance((0.72, 0.74, 0.78), line_width=1.2)
FAINT = Appearance((0.80, 0.80, 0.82), lights="kit", line_colour=(0.05, 0.05, 0.05), line_width=1.5)
UNLINED = Appearance((0.52, 0.60, 0.75), lights="kit", lines="none")
INK = Appearance(WHITE, ambient=1, diffuse=0, lines="degrees", line_width=1.6, outlines=True)
GREY = 0x61 / 255
CADBENCH = Appearance(
    (0xBF / 255, 0xBE / 255, 0xBA / 255), ambient=0.4, diffuse=0.5, lines="degrees", degrees=30,
    line_colour=(GREY, GREY, GREY), line_width=2,
)  # fmt: skip
BENCHCAD = Appearance(
    (110 / 255, 195 / 255, 192 / 255), ambient=0.3, diffuse=0.7, lines="degrees", degrees=35,
    line_colour=(0.12, 0.12, 0.12), line_width=1.6,
)  # fmt: skip
# In reading order. CADBench turns the part by 180 degrees first: in its own axes azimuth 135.
CADBENCH_EYES = (
    eye_at(135, 35.26), eye_at(315, 35.26), eye_at(225, -35.26), eye_at(45, -35.26),
)  # fmt: skip
BENCHCAD_EYES = ((-1, -1, -1), (1, 1, 1), (1, -1, 1), (-1, 1, -1))


def _one(image: Image.Image, at: Vantage) -> Shot:
    return Shot(image, [at.moved(0, 0)])


def _pan(chance: random.Random) -> tuple[float, float]:
    return chance.uniform(-0.05, 0.05), chance.uniform(-0.05, 0.05)


def _anywhere(chance: random.Random) -> tuple[float, float, float]:
    return eye_at(chance.uniform(0, 360), chance.uniform(*ELEVATIONS))


def coloured(solid: Solid, chance: random.Random) -> Shot:
    """GenCAD's direction, coloured and shaded on a grey gradient, with lines."""
    at = filling(solid.points, GENCAD_EYE, (640, 480), 0.72)
    return _one(shot(solid, at, COLOURED), at)


def directed(solid: Solid, chance: random.Random) -> Shot:
    """Any direction, steel under a headlight, with lines."""
    at = filling(solid.points, _anywhere(chance), (448, 448), 0.75, _pan(chance))
    return _one(shot(solid, at, STEEL), at)


def in_perspective(solid: Solid, chance: random.Random) -> Shot:
    """Any direction, in perspective, with lines."""
    eye, angle = _anywhere(chance), chance.uniform(*ANGLES_OF_VIEW)
    at = perspective(solid.points, eye, (800, 600), angle, 0.70, _pan(chance))
    return _one(shot(solid, at, FAINT), at)


def unlined(solid: Solid, chance: random.Random) -> Shot:
    """Any direction, shaded only."""
    at = filling(solid.points, _anywhere(chance), (512, 512), 0.75, _pan(chance))
    return _one(shot(solid, at, UNLINED), at)


def inked(solid: Solid, chance: random.Random) -> Shot:
    """GenCAD's direction, a line drawing without hidden lines."""
    at = filling(solid.points, GENCAD_EYE, (600, 600), 0.72)
    return _one(shot(solid, at, INK), at)


def _cadbench(solid: Solid, eye: Sequence[float], side: int) -> tuple[Image.Image, Vantage]:
    """CADBench's camera: 1.2 times the mean of the box's sides, and more until nothing is cut."""
    low, high = solid.points.min(axis=0), solid.points.max(axis=0)
    right, up, _ = axes_of(eye)
    mean, factor = float((high - low).mean()), 1.2
    reach = max(np.abs(solid.points @ right).max(), np.abs(solid.points @ up).max())
    while factor * mean < reach:
        factor += 0.1
    at = orthographic(eye, (side, side), factor * mean, (low + high) / 2)
    return in_shade(solid, at, CADBENCH), at


def cadbench(solid: Solid, chance: random.Random) -> Shot:
    """CADBench's single view as models are shown it: drawn at 1,200 pixels, 512 a side."""
    picture, at = _cadbench(solid, CADBENCH_EYES[0], 1200)
    smaller = np.diag([512 / 1200, 512 / 1200, 1]) @ at.matrix
    seen = Vantage(
        (512, 512), smaller, at.eye, 0.0, at.place, at.middle, at.up, at.half_height
    )  # fmt: skip
    return _one(picture.resize((512, 512), Image.Resampling.LANCZOS), seen)


def cadbench_grid(solid: Solid, chance: random.Random) -> Shot:
    """CADBench's four views with black bars between them."""
    side, bar = 300, 10
    whole = Image.new("RGB", (2 * side + bar, 2 * side + bar), "black")
    cameras = []
    for i, eye in enumerate(CADBENCH_EYES):
        picture, at = _cadbench(solid, eye, side)
        place = (i % 2 * (side + bar), i // 2 * (side + bar))
        whole.paste(picture, place)
        cameras.append(at.moved(*place))
    return Shot(whole, cameras)


def benchcad(solid: Solid, chance: random.Random) -> Shot:
    """BenchCAD's composite of four views at one scale."""
    side, gap = 256, 4
    whole = Image.new("RGB", (524, 524), "white")
    cameras = []
    for i, eye in enumerate(BENCHCAD_EYES):
        at = orthographic(eye, (side, side), 0.90)
        place = (gap + i % 2 * (side + gap), gap + i // 2 * (side + gap))
        whole.paste(shot(solid, at, BENCHCAD), place)
        cameras.append(at.moved(*place))
    return Shot(whole, cameras)


def drawing_sheet(solid: Solid, chance: random.Random) -> Shot:
    """Front, top and right view at one scale, in first or third angle by lot."""
    side, gap = 900, 60
    box = np.ptp(solid.points, axis=0)
    scale = min((side - 3 * gap) / (box[0] + box[1]), (side - 3 * gap) / (box[2] + box[1]))
    wide, deep, high = (int(np.ceil(scale * length)) + gap for length in box)
    third = chance.random() < 0.5
    # Third angle: the top view stands above the front view, the right one to its right.
    columns = (gap // 2, gap // 2 + wide) if third else (gap // 2 + deep, gap // 2)
    rows = (gap // 2 + deep, gap // 2) if third else (gap // 2, gap // 2 + high)
    whole = Image.new("RGB", (side, side), "white")
    cameras = []
    for eye, size, place in (
        ((0, -1, 0), (wide, high), (columns[0], rows[0])),
        ((0, 0, 1), (wide, deep), (columns[0], rows[1])),
        ((1, 0, 0), (deep, high), (columns[1], rows[0])),
    ):
        at = orthographic(eye, size, size[1] / 2 / scale)
        whole.paste(shot(solid, at, INK), place)
        cameras.append(at.moved(*place))
    return Shot(whole, cameras)


LOOKS: dict[str, Callable[[Solid, random.Random], Shot]] = {
    "colours": coloured,
    "direction": directed,
    "perspective": in_perspective,
    "shaded": unlined,
    "lines": inked,
    "cadbench": cadbench,
    "cadbench grid": cadbench_grid,
    "benchcad": benchcad,
    "sheet": drawing_sheet,
}


def taken(look: str, name: str, solid: Solid) -> Shot:
    """The picture of a look for the part called `name`: what is drawn by lot depends on both."""
    return LOOKS[look](solid, random.Random(f"{look} {name}"))


# ---- A look at them


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("out", type=Path, nargs="?", help="a PNG file to write")
    parser.add_argument("--data", type=Path, default=ROOT / "data/samples/test")
    parser.add_argument("--parts", type=int, default=8)
    parser.add_argument("--side", type=int, default=224, help="pixels of each picture")
    options = parser.parse_args()
    if options.out is None:
        return print("name a PNG file to write a sheet of all looks to")
    rows = read_programs(options.data)[: options.parts]
    parts = run_many([str(row["code"]) for row in rows])
    side = options.side
    sheet = Image.new("RGB", (side * len(rows), side * len(LOOKS)), (255, 240, 200))
    for column, (row, part) in enumerate(zip(rows, parts, strict=True)):
        if not isinstance(part, Part):
            raise SystemExit(f"{row['id']} does not run: {part}")
        solid = solid_of(part)
        for line, look in enumerate(LOOKS):
            picture = taken(look, str(row["id"]), solid).image
            picture.thumbnail((side - 4, side - 4))
            sheet.paste(picture, (side * column + 2, side * line + 2))
    sheet.save(options.out)


if __name__ == "__main__":
    main()
