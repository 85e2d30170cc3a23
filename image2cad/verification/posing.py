"""Several views of one part, whose cameras are not known, brought into the axes of one program.

    views = posed(program, target, scenes)      # (scene, camera) of each view, the target's first

Each view shows its own axes at best up to their names, its own scale and its own place. A program
that explains one view, seen by another's likely cameras in all 24 ways to name the axes, tells
which it is: by its silhouette, moved and scaled to lie on the view's. Left out: views that show no
axes of their own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from image2cad.cad import Program, build
from image2cad.common import Array
from image2cad.reading import Scene, Sighting, namings, sightings
from image2cad.rendering import Camera
from image2cad.verification.cost import BUILDS_NOTHING, Target, cost_of, look_at_sights
from image2cad.verification.features import COARSEST_BLOCK
from image2cad.verification.sights import sight_of

CAMERAS_POSED = 3  # of each further view


def posed(program: Program, target: Target, others: Sequence[Scene]) -> list[tuple[Scene, Camera]]:
    """The target's view and the others, each with its camera in the program's axes."""
    first = target.sights[0]
    out = [(first.scene, first.camera)]
    for scene in others:
        found = [
            (cost, camera)
            for one in sightings(scene, CAMERAS_POSED)
            for cost, camera in _ways(program, scene, one)
        ]
        if found:
            out.append((scene, min(found, key=lambda pair: pair[0])[1]))
    return out


def _ways(program: Program, scene: Scene, sighting: Sighting) -> list[tuple[float, Camera]]:
    """The cost of the program in a view for each way to name its axes, and the camera."""
    drawing = build(program)
    if drawing is None:
        return []
    rows, columns = np.nonzero(scene.part)
    goal = np.array([[columns.min(), rows.min()], [columns.max() + 1, rows.max() + 1]])
    known = look_at_sights([sight_of(scene, sighting.camera)])
    out = []
    for turn in namings():
        camera = _onto(drawing.vertices, sighting.camera.turned(turn), goal)
        target = replace(known, camera=camera, sights=(replace(known.sights[0], camera=camera),))
        cost = cost_of(program, target, COARSEST_BLOCK)
        if cost < BUILDS_NOTHING:
            out.append((cost, camera))
    return out


def _onto(points: Array, camera: Camera, goal: Array) -> Camera:
    """The camera zoomed and panned so that points (N, 3) are seen in the box `goal` (2, 2)."""
    seen = camera.project(points)[:, :2]
    low, high = seen.min(axis=0), seen.max(axis=0)
    factor = float(np.sqrt(np.prod(goal[1] - goal[0]) / max(np.prod(high - low), 1e-9)))
    left, top = goal.mean(axis=0) - factor * (low + high) / 2
    return camera.zoomed(factor).panned(float(left), float(top))
