"""How often one of the first cameras that are tried is the one a picture was taken with.

    PYTHONPATH=. python benchmarks/cameras.py --out runs/styles         # 60 parts, about 20 minutes
    PYTHONPATH=. python benchmarks/cameras.py --out runs/styles --parts 24 --rows direction lines

The pictures are those of styles.py, kept in the same folder, whose cameras are known. A camera is
right within 3 degrees of turning, for some of the 24 ways to name the axes; of a part that is round
about an axis only this axis counts. A reading that is reversed in depth is wrong. Of a perspective
camera the turn where the middle of the part is seen counts.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image
from styles import GENCAD_DEV, cases_of, solid
from vtk_pictures import Solid

from image2cad.common.errors import InputError, run_cli
from image2cad.common.files import read_kept
from image2cad.common.gencad import METADATA, read_programs
from image2cad.common.processes import Lost, each
from image2cad.reading import namings, scene_of, sightings
from image2cad.rendering import Camera, camera_from

ROWS = ("colours", "direction", "perspective", "shaded", "lines")
RIGHT_WITHIN = 3.0  # degrees
RANKS = (1, 3, 5)  # of the first so many cameras, the best counts
ROUND_WITHIN = 0.004  # of the part's size: what turning moves its points off themselves at most
TURNS = (0.35, 0.8)  # radians, of which no regular outline is the same at both
LONGEST = 120  # seconds for one picture
STEP = 1e-4  # of the part's size, over which a perspective camera is as good as orthographic


def turn_at(camera: Camera, point: np.ndarray) -> np.ndarray:
    """(3, 3) unit vectors to the right, upwards and to the viewer, near a point (3,)."""
    ends = camera.project(np.vstack([point, point + STEP * np.eye(3)]))[:, :2]
    right, down = (ends[1:] - ends[0]).T
    right = right / np.linalg.norm(right)
    up = -down + (down @ right) * right
    up /= np.linalg.norm(up)
    return np.stack([right, up, np.cross(right, up)])


def seen_at(camera: Camera, pixel: np.ndarray) -> np.ndarray:
    """A point near the origin, (3,), that is seen in a pixel."""
    point, reach = np.zeros(3), 1.0
    for _ in range(8):
        right, up, _ = turn_at(camera, point)
        ends = camera.project(np.stack([point, point + reach * right, point + reach * up]))[:, :2]
        moves = np.linalg.solve((ends[1:] - ends[0]).T / reach, pixel - ends[0])
        point = point + moves[0] * right + moves[1] * up
    return point


def degrees_off(found: np.ndarray, true: np.ndarray, axis: int | None) -> float:
    """The least turn between two cameras; axis: that the part is round about."""
    if axis is not None:
        cosine = np.abs(true[:, axis] @ found).max()
        return float(np.degrees(np.arccos(min(cosine, 1.0))))
    traces = [np.trace(found @ naming @ true.T) for naming in namings()]
    return float(np.degrees(np.arccos(np.clip((max(traces) - 1) / 2, -1, 1))))


def round_axis(part: Solid) -> int | None:
    """The axis about which turns leave the part as it is, if there is one."""
    import vtk

    surface = vtk.vtkImplicitPolyDataDistance()
    surface.SetInput(part.mesh)
    for axis in range(3):
        others = [i for i in range(3) if i != axis]
        worst = 0.0
        for angle in TURNS:
            turned = part.points.copy()
            turned[:, others] @= np.array(
                [[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]]
            )
            away = (abs(surface.EvaluateFunction(point)) for point in turned)
            worst = max(worst, max(away))
            if worst > ROUND_WITHIN:
                break
        if worst <= ROUND_WITHIN:
            return axis
    return None


@dataclass(frozen=True, eq=False)
class Job:
    """A picture, the matrix of its camera, and the axis that its part is round about."""

    file: Path
    matrix: np.ndarray
    axis: int | None


def off_by(job: Job) -> list[float]:
    """Degrees by which the cameras of a picture are off, the likeliest first."""
    camera = camera_from(job.matrix)
    true, middle = turn_at(camera, np.zeros(3)), camera.project(np.zeros((1, 3)))[0, :2]
    with Image.open(job.file) as image:
        scene = scene_of(image)
    if scene is None:
        return []
    place = scene.place
    pixel = place.scale * (middle - (place.left, place.top))
    turns = [turn_at(one.camera, seen_at(one.camera, pixel)) for one in sightings(scene)]
    return [degrees_off(turn, true, job.axis) for turn in turns]


def main() -> int:
    """Draw what is not drawn yet, estimate, count."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("runs/styles"))
    parser.add_argument("--rows", nargs="+", choices=ROWS, default=ROWS)
    parser.add_argument("--parts", type=int, default=60, help="the first by id")
    parser.add_argument("--pictures", type=Path, help="where pictures are kept; default: in --out")
    parser.add_argument("--workers", type=int, default=2, help="pictures at a time")
    options = parser.parse_args()
    if not (GENCAD_DEV / METADATA).is_file():
        print(f"{GENCAD_DEV} is not there: nothing to measure")
        return 0
    if options.workers < 1 or options.parts < 1:
        raise InputError("--workers and --parts must be at least 1")
    rows = sorted(read_programs(GENCAD_DEV), key=lambda row: str(row["id"]))[: options.parts]
    folder = options.pictures or options.out / "pictures"
    solids: dict[str, Solid] = {}
    axes = {row["id"]: round_axis(solid(row, solids)) for row in rows}
    print("| pictures | parts | " + " | ".join(f"of {rank}" for rank in RANKS) + " | not right |")
    print("| --- | --: |" + " --: |" * len(RANKS) + " --- |")
    total: list[list[bool]] = []
    for row in options.rows:
        cases = cases_of(row, folder, rows, solids)
        known = read_kept(folder / row / "drawn.jsonl")
        matrices = [np.array(known[case.id]["cameras"][0]["matrix"]) for case in cases]
        jobs = [
            Job(case.files[0], matrix, axes[case.id])
            for case, matrix in zip(cases, matrices, strict=True)
        ]
        hits: dict[int, list[bool]] = {}
        for index, off in each(off_by, jobs, options.workers, LONGEST):
            off = [] if isinstance(off, Lost) else off
            hits[index] = [min(off[:rank], default=180.0) < RIGHT_WITHIN for rank in RANKS]
        told = [hits[index] for index in sorted(hits)]
        wrong = [case.id for case, hit in zip(cases, told, strict=True) if not hit[1]]
        print(_line(row, told, wrong), flush=True)
        total += told
    print(_line("all", total, []))
    return 0


def _line(row: str, told: list[list[bool]], wrong: list[str]) -> str:
    shares = " | ".join(f"{share:.3f}" for share in np.mean(told, axis=0))
    return f"| {row} | {len(told)} | {shares} | {' '.join(wrong)} |"


if __name__ == "__main__":
    run_cli(main)
