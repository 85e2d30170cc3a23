"""Several views of one part, whose cameras are not known, brought into the axes of one program.

    views = posed(program, target, scenes, stop)    # (scene, camera), the target's views first

Each view shows its own axes at best up to their names and to which way depths go, its own scale and
its own place. A program that explains one view is seen by another's likely cameras in all ways;
which it is shows in how it draws that view, moved and scaled to lie on it. Left out: views that
show no axes of their own.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from image2cad.cad import Program, build
from image2cad.common import NEVER, Array, Stop
from image2cad.reading import Scene, Sighting, camera_turned, namings, sightings
from image2cad.rendering import Camera
from image2cad.verification.cost import BUILDS_NOTHING, Target, cost_of, look_at_sights
from image2cad.verification.features import COARSEST_BLOCK
from image2cad.verification.fitting import rough_cost_of
from image2cad.verification.sights import sight_of

CAMERAS_POSED = 3  # of each further view
WAYS_JUDGED = 6  # the best when they are drawn roughly, drawn with care
NOT_LEVEL = 1.25  # times its cost: a pose in which z is not upright; viewers mostly have it so
LEVEL = 0.03  # cosine between what is upright in a picture and across it, and z
STRANGE_COST = 0.3  # in coarse blocks, from which a view is left out: nothing says how it lies
REVERSED = np.diag([-1.0, -1.0, 1.0])  # depths the other way round explain the same lines


def posed(
    program: Program, target: Target, others: Sequence[Scene], stop: Stop = NEVER
) -> list[tuple[Scene, Camera]]:
    """The target's views and the others, each with its camera in the program's axes.

    Views on which the program lies badly whatever the axes are called are left out, and those for
    which no time is left.
    """
    out = [(sight.scene, sight.camera) for sight in target.sights]
    for number, scene in enumerate(others):
        until = stop.share(1 / (len(others) - number))
        if until.due():
            break
        cameras = sightings(scene, CAMERAS_POSED)
        known = look_at_sights([sight_of(scene, cameras[0].camera)])
        ways = sorted(_ways(program, known, cameras, until), key=lambda way: way[0])
        found = [
            (strangeness * cost_of(program, seen, COARSEST_BLOCK), seen.camera)
            for _, strangeness, seen in ways[:WAYS_JUDGED]
        ]
        cost, camera = min(found, key=lambda one: one[0], default=(BUILDS_NOTHING, None))
        if camera is not None and cost < STRANGE_COST:
            out.append((scene, camera))
    return out


def _ways(
    program: Program, known: Target, cameras: Sequence[Sighting], stop: Stop
) -> list[tuple[float, float, Target]]:
    """Each way to name the axes of each camera: the rough cost, its factor, and what is seen."""
    drawing = build(program)
    if drawing is None:
        return []
    rows, columns = np.nonzero(known.sights[0].scene.part)
    goal = np.array([[columns.min(), rows.min()], [columns.max() + 1, rows.max() + 1]])
    out: list[tuple[float, float, Target]] = []
    for sighting in cameras:
        turns = [sighting.turn]
        if sighting.lens is None:
            turns.append(REVERSED @ sighting.turn)
        for turn, naming in itertools.product(turns, namings()):
            if stop.due():
                return out
            way = turn @ naming
            camera = _onto(drawing.vertices, camera_turned(way, sighting.lens), goal)
            seen = replace(known, camera=camera, sights=(replace(known.sights[0], camera=camera),))
            level = abs(way[0, 2]) < LEVEL and way[1, 2] > LEVEL
            factor = 1.0 if level else NOT_LEVEL
            out.append((factor * rough_cost_of(program, seen), factor, seen))
    return out


def _onto(points: Array, camera: Camera, goal: Array) -> Camera:
    """The camera zoomed and panned so that points (N, 3) are seen in the box `goal` (2, 2)."""
    seen = camera.project(points)[:, :2]
    low, high = seen.min(axis=0), seen.max(axis=0)
    factor = float(np.sqrt(np.prod(goal[1] - goal[0]) / max(np.prod(high - low), 1e-9)))
    left, top = goal.mean(axis=0) - factor * (low + high) / 2
    return camera.zoomed(factor).panned(float(left), float(top))
