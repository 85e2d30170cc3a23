"""The common part of two solids: its IoU, and a climb to a turn near by where they overlap more.

One boolean gives the IoU of a turn and its slope as well. When B turns by a small w, the volume of
the common part grows by w times the integral of x cross n over that piece of its surface which
comes from B. So a climb needs about one boolean a step and no differences.

Leaves out: ridges, where faces of both parts lie in one plane. The slope jumps there; the climb
then stops, and the turns of alignment.py have to hit them.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import manifold3d
import numpy as np

from .normalised import NormalisedPart
from .rotations import turn_by

MOST_BOOLEANS = 4  # of one climb
FIRST_STEP = np.radians(2.0)
LONGEST_STEP = np.radians(10.0)
LEAST_PROMISE = 1e-3  # a step that promises less IoU than this is not made
MOST_FAILURES = 2  # steps in a row that lead down

_until: ContextVar[float] = ContextVar("_until", default=float("inf"))


class OutOfPatience(Exception):
    """The booleans of a pair take longer than they may here."""


@contextmanager
def patience(seconds: float) -> Iterator[None]:
    """Within it no boolean begins once this thread has used so much CPU time: OutOfPatience."""
    before = _until.set(time.thread_time() + seconds)
    try:
        yield
    finally:
        _until.reset(before)


def common_part(a: NormalisedPart, b: NormalisedPart, turn: np.ndarray) -> manifold3d.Manifold:
    """The intersection of `a` and of `b` turned by the (3, 3) matrix `turn`.

    Raises OutOfPatience.
    """
    if time.thread_time() > _until.get():
        raise OutOfPatience
    return a.solid ^ b.solid.transform(np.hstack([turn, np.zeros((3, 1))]))


def iou_of_volumes(common: float, a: float, b: float) -> float:
    """IoU, in [0, 1], of two solids with volumes `a` and `b` and this volume in common."""
    together = a + b - common
    return float(min(max(common / together, 0.0), 1.0)) if together > 0 else 0.0


def climb(
    a: NormalisedPart, b: NormalisedPart, turn: np.ndarray, common: manifold3d.Manifold
) -> float:
    """The best IoU met on the way up from `turn`, whose common part is `common`; never less
    than there. By the quasi-Newton steps of BFGS, with at most MOST_BOOLEANS booleans."""
    own = np.array(b.solid.to_mesh64().run_original_id)
    iou = iou_of_volumes(common.volume(), a.volume, b.volume)
    slope = _slope(a, b, common, own)
    curve: np.ndarray | None = None  # inverse of the second derivative, turned positive
    way = _first_step(slope)
    failures = 0
    for _ in range(MOST_BOOLEANS):
        promised = float(slope @ way)
        if promised < LEAST_PROMISE:
            break
        there = turn_by(way) @ turn
        common = common_part(a, b, there)
        reached = iou_of_volumes(common.volume(), a.volume, b.volume)
        if reached <= iou:
            failures += 1
            if failures == MOST_FAILURES:
                break
            # to the top of the parabola through both heights and the slope
            way = way * np.clip(promised / (2 * (promised + iou - reached)), 0.1, 0.5)
            continue
        failures = 0
        after = _slope(a, b, common, own)
        curve = _updated(curve, way, slope - after)
        turn, iou, slope = there, reached, after
        way = _first_step(slope) if curve is None else curve @ slope
        way = way * min(1.0, LONGEST_STEP / max(float(np.linalg.norm(way)), 1e-12))
    return iou


def _first_step(slope: np.ndarray) -> np.ndarray:
    return slope * (FIRST_STEP / max(float(np.linalg.norm(slope)), 1e-12))


def _updated(curve: np.ndarray | None, way: np.ndarray, bend: np.ndarray) -> np.ndarray | None:
    """The BFGS update; nothing where the slope did not fall along the way."""
    along = float(way @ bend)
    if along <= 1e-12:
        return None
    if curve is None:
        curve = np.eye(3) * along / (bend @ bend)
    left = np.eye(3) - np.outer(way, bend) / along
    return left @ curve @ left.T + np.outer(way, way) / along


def _slope(
    a: NormalisedPart, b: NormalisedPart, common: manifold3d.Manifold, own: np.ndarray
) -> np.ndarray:
    """(3,) growth of the IoU, a radian about each axis. own: marks of the surface of `b`."""
    mesh = common.to_mesh64()
    ends = np.array(mesh.run_index, dtype=np.int64) // 3
    marks = np.repeat(np.array(mesh.run_original_id), ends[1:] - ends[:-1])
    triangles = np.array(mesh.tri_verts).astype(np.int64)[np.isin(marks, own)]
    corners = np.array(mesh.vert_properties)[:, :3][triangles]
    across = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]) / 2
    growth = np.cross(corners.mean(1), across).sum(0)
    both = a.volume + b.volume
    return growth * both / (both - common.volume()) ** 2
