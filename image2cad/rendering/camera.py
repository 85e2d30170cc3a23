"""The one camera: from model units to pixels and back, orthographic or in perspective.

    camera = camera_of(box)                     # GenCAD-Code's, as its pictures frame a part
    camera = orthographic((1, 1, 1), scale=2.5)
    camera = perspective((3, -2, 1), focal=900, distance=500)
    camera.project(points)                      # (N, 3): columns, rows, depths
    camera.on_plane(pixels, axis=2)             # (K, 2): where pixels lie on a plane across z

Drawing, tracing, growing, placing and fitting all go by it. Pixels count from the upper left
corner of the picture; a pixel's middle is at .5. Left out: lenses that bend straight lines.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from math import radians, sqrt, tan

import numpy as np

from image2cad.common import Array

SIZE = 448  # the pictures of GenCAD-Code
EYE = (1.0, -1.0, 1.0)
MARGIN = 1.5  # picture side over the part's side: FitAll(0.5)
ASPECT = 0.75  # the viewer was 640 x 480 before the resize to a square
EYE_LENGTH = sqrt(3)  # of a direction to the viewer, so that GenCAD's is (1, -1, 1)
NEAREST = 1e-3  # of the eye's distance from the origin: what is nearer is drawn as if it were there


@dataclass(frozen=True, eq=False)
class Camera:
    """How the points of a model come onto a picture.

    matrix: (4, 4) from (x, y, z, 1) to (column w, row w, depth w, w). Columns grow to the right,
    rows downwards, depths towards the viewer; depths are about as long as columns are. w is 1 in
    an orthographic camera. eye: (3,) the direction to the viewer, EYE_LENGTH long; in perspective
    the place of the viewer.
    """

    matrix: Array
    eye: Array

    @property
    def in_perspective(self) -> bool:
        """Whether lines of sight meet in the eye; else all run along it."""
        return bool(self.matrix[3, :3].any())

    @property
    def projection(self) -> Array:
        """The usual (3, 4) matrix, from (x, y, z, 1) to (column w, row w, w)."""
        return self.matrix[[0, 1, 3]]

    @cached_property
    def view(self) -> Array:
        """(3,) unit vector across the picture, to the viewer."""
        way: Array = self.matrix[2, :3] / np.linalg.norm(self.matrix[2, :3])
        return way

    @cached_property
    def scale(self) -> float:
        """Pixels to a unit of length at the origin, across the line of sight."""
        across = np.linalg.norm(self.matrix[2, :3])
        return float(across / self.matrix[3, 3])

    @cached_property
    def _linear(self) -> Array:
        return np.ascontiguousarray(self.matrix[:3, :3])

    # ---- From the model to the picture

    def project(self, points: Array) -> Array:
        """(N, 3) columns, rows and depths of (N, 3) points. Those behind the viewer are clamped."""
        seen: Array = points @ self._linear.T + self.matrix[:3, 3]
        if self.in_perspective:
            seen /= np.maximum(self._shrinking(points), self._nearest)[:, None]
        return seen

    def across(self, right: float, down: float) -> Array:
        """(3,) the shortest way by which a point moves so many pixels; orthographic cameras."""
        way: Array = np.linalg.pinv(self._linear[:2]) @ (right, down)
        return way

    def sees(self, points: Array) -> bool:
        """Whether all (N, 3) points are in front of the viewer."""
        return not self.in_perspective or bool((self._shrinking(points) > self._nearest).all())

    def _shrinking(self, points: Array) -> Array:
        w: Array = points @ self.matrix[3, :3] + self.matrix[3, 3]
        return w

    @property
    def _nearest(self) -> float:
        return NEAREST * float(np.linalg.norm(self.eye))

    def homography(self, axis: int, level: float = 0.0) -> Array:
        """(3, 3) from (u, v, 1) to (column w, row w, w), on the plane across `axis` at `level`.

        u and v are the coordinates on the two other axes, in their order: those of a sketch on
        XY, XZ or YZ.
        """
        u, v = (other for other in range(3) if other != axis)
        flat = self.projection
        return np.stack([flat[:, u], flat[:, v], flat[:, axis] * level + flat[:, 3]], axis=1)

    # ---- Back from the picture

    def on_plane(self, pixels: Array, axis: int, level: float = 0.0) -> Array:
        """(K, 2) sketch coordinates of (K, 2) columns and rows, on the plane of `homography`."""
        seen = np.column_stack([pixels, np.ones(len(pixels))])
        flat = seen @ np.linalg.inv(self.homography(axis, level)).T
        return flat[:, :2] / flat[:, 2:]

    def unproject(self, seen: Array) -> Array:
        """(N, 3) points of (N, 3) columns, rows and depths: `project` undone."""
        whole = np.column_stack([seen, np.ones(len(seen))]) @ np.linalg.inv(self.matrix).T
        return whole[:, :3] / whole[:, 3:]

    # ---- Along the line of sight

    def facing(self, axis: int) -> float:
        """How squarely a plane across `axis` is seen from the eye, 0 edge on to 1."""
        return float(abs(self.eye[axis]) / np.linalg.norm(self.eye))

    def inwards(self, axis: int) -> float:
        """1 or -1: which way along `axis` leads away from the viewer."""
        return -1.0 if self.eye[axis] > 0 else 1.0

    def slide(self, t: float) -> tuple[float, Array]:
        """(factor, (3,) shift): factor * point + shift is seen where `point` is.

        The origin moves by `t` times EYE_LENGTH towards the viewer; all else moves along its own
        line of sight, and is scaled about the eye in perspective.
        """
        if not self.in_perspective:
            return 1.0, t * self.eye
        factor = 1.0 - t * EYE_LENGTH / float(np.linalg.norm(self.eye))
        return factor, (1.0 - factor) * self.eye

    def slides(self, start: Array, end: Array, axis: int) -> Array:
        """The t of `slide` that brings a plane across `axis` from level `start` to `end`."""
        eye = self.eye[axis]
        if not self.in_perspective:
            return (end - start) / eye
        distance = float(np.linalg.norm(self.eye)) / EYE_LENGTH
        ahead: Array = (1.0 - (end - eye) / (start - eye)) * distance
        return ahead

    # ---- Other cameras

    def zoomed(self, factor: float) -> Camera:
        """The camera of the same picture, `factor` times as many pixels a side."""
        return Camera(np.array([factor] * 3 + [1.0])[:, None] * self.matrix, self.eye)

    def panned(self, columns: float, rows: float) -> Camera:
        """The camera of the same picture, pasted so far right and down in another."""
        matrix = self.matrix.copy()
        matrix[0] += columns * matrix[3]
        matrix[1] += rows * matrix[3]
        return Camera(matrix, self.eye)

    def enlarged(self, factor: float) -> Camera:
        """The camera in a unit of length that is `factor` times as long."""
        matrix = self.matrix.copy()
        matrix[:, :3] *= factor
        eye = self.eye / factor if self.in_perspective else self.eye
        return Camera(matrix, eye)

    def from_further(self, factor: float) -> Camera:
        """The perspective camera from `factor` times as far off the origin, which is seen as here.

        The focal length grows likewise. An orthographic camera stays as it is.
        """
        if not self.in_perspective:
            return self
        flat = self.projection / self.matrix[3, 3]
        ahead = flat[2, :3].copy()
        for row in flat[:2]:  # about the principal point, which stays
            row[:3] -= (row[:3] @ ahead) / (ahead @ ahead) * (1 - 1 / factor) * ahead
        flat[2, :3] = ahead / factor
        return camera_from(flat)

    def turned(self, rotation: Array) -> Camera:
        """The camera that shows the model, turned about the origin by a (3, 3) rotation, as here.

        The model's point p is then seen where `rotation` @ p is now.
        """
        matrix = self.matrix.copy()
        matrix[:, :3] = matrix[:, :3] @ rotation
        return Camera(matrix, rotation.T @ self.eye)


# ---- Making cameras


def axes_seen_from(eye: Sequence[float] | Array) -> tuple[Array, Array, Array]:
    """Unit vectors to the right, upwards and to the viewer, z up; from straight above x is right.

    Raises ValueError for an eye without direction.
    """
    view = np.asarray(eye, dtype=np.float64)
    length = float(np.linalg.norm(view))
    if view.shape != (3,) or not np.isfinite(length) or length == 0:
        raise ValueError(f"the eye must be a direction in space, not {eye}")
    view = view / length
    right = np.array([-view[1], view[0], 0.0])
    across = float(np.linalg.norm(right))
    right = right / across if across > 1e-9 else np.array([1.0, 0.0, 0.0])
    return right, np.cross(view, right), view


def camera_of(box: Array, eye: Sequence[float] = EYE) -> Camera:
    """GenCAD-Code's camera of a part whose lowest and highest corner are `box` (2, 3).

    Raises ValueError for an eye without direction.
    """
    right, up, view = axes_seen_from(eye)
    sides = box[1] - box[0]
    width, height = np.abs(right) @ sides, np.abs(up) @ sides
    scale = SIZE / (MARGIN * max(height, ASPECT * width, 1e-300))
    matrix = np.eye(4)
    matrix[:3, :3] = scale * np.stack([right, -up, view])
    middle = np.array([SIZE / 2, SIZE / 2, 0.0])
    matrix[:3, 3] = middle - np.ascontiguousarray(matrix[:3, :3]) @ (box[0] + box[1]) / 2
    return Camera(matrix, _direction(eye))


def _direction(eye: Sequence[float] | Array) -> Array:
    """The eye, EYE_LENGTH long."""
    way = np.asarray(eye, dtype=np.float64)
    out: Array = way / (float(np.linalg.norm(way)) / EYE_LENGTH)
    return out


def orthographic(
    eye: Sequence[float] | Array,
    scale: float,
    middle: Sequence[float] | Array = (0.0, 0.0, 0.0),
    at: tuple[float, float] = (SIZE / 2, SIZE / 2),
) -> Camera:
    """Seen from the direction `eye`, `scale` pixels to a unit, `middle` at (column, row) `at`."""
    right, up, _ = axes_seen_from(eye)
    flat = np.zeros((3, 4))
    flat[0, :3], flat[1, :3], flat[2, 3] = scale * right, -scale * up, 1.0
    flat[:2, 3] = np.array(at) - flat[:2, :3] @ np.asarray(middle, dtype=np.float64)
    return camera_from(flat)


def perspective(
    eye: Sequence[float] | Array,
    focal: float,
    distance: float,
    middle: Sequence[float] | Array = (0.0, 0.0, 0.0),
    at: tuple[float, float] = (SIZE / 2, SIZE / 2),
) -> Camera:
    """Seen from `distance` units off `middle` in the direction `eye`; `middle` is at `at`.

    focal: the focal length in pixels: half the picture's height over the tangent of half the
    angle of view. `at` is also where the line of sight that is square to the picture meets it.
    """
    right, up, view = axes_seen_from(eye)
    turn = np.stack([right, -up, -view])
    place = np.asarray(middle, dtype=np.float64) + distance * view
    inner = np.array([[focal, 0.0, at[0]], [0.0, focal, at[1]], [0.0, 0.0, 1.0]])
    return camera_from(inner @ np.hstack([turn, (-turn @ place)[:, None]]))


def camera_from(projection: Array) -> Camera:
    """The camera of any (3, 4) matrix from (x, y, z, 1) to (column w, row w, w), w > 0 ahead.

    Raises ValueError where the matrix is no camera: not finite, or without a direction.
    """
    flat = np.array(projection, dtype=np.float64)
    if flat.shape != (3, 4) or not np.isfinite(flat).all():
        raise ValueError("a camera's matrix has 3 x 4 finite numbers")
    across = np.cross(flat[0, :3], flat[1, :3])
    if not flat[2, :3].any():  # orthographic
        if flat[2, 3] == 0 or not across.any():
            raise ValueError("this matrix sees nothing: its rows have no direction")
        flat /= flat[2, 3]
        view = -across / np.linalg.norm(across)  # rows grow downwards
        scale = sqrt(float(np.linalg.norm(np.cross(flat[0, :3], flat[1, :3]))))
        depth = np.append(scale * view, 0.0)
        return Camera(np.stack([flat[0], flat[1], depth, flat[2]]), _direction(view))
    if abs(np.linalg.det(flat[:, :3])) == 0:
        raise ValueError("this matrix sees nothing: its rows have no direction")
    flat /= np.linalg.norm(flat[2, :3])
    place = -np.linalg.solve(flat[:, :3], flat[:, 3])
    ahead = flat[2, :3]
    focal = float(np.mean([np.linalg.norm(row - row @ ahead * ahead) for row in flat[:2, :3]]))
    depth = -focal * flat[2]
    depth[3] += focal * flat[2, 3]  # 0 at the origin's distance
    return Camera(np.stack([flat[0], flat[1], depth, flat[2]]), place)


def filling(
    points: Array,
    eye: Sequence[float] | Array,
    size: tuple[int, int] = (SIZE, SIZE),
    share: float = 0.72,
    angle: float = 0.0,
) -> Camera:
    """The camera in which (N, 3) points fill `share` of a picture of `size` (width, height).

    angle: of view in degrees from top to bottom, below 150; 0 is orthographic.
    """
    right, up, view = axes_seen_from(eye)
    width, height = size
    across, along = points @ right, points @ up
    if not angle:
        sides = max(float(np.ptp(across)) / width, float(np.ptp(along)) / height, 1e-300)
        middle = (across.max() + across.min()) / 2 * right + (along.max() + along.min()) / 2 * up
        return orthographic(eye, share / sides, middle, (width / 2, height / 2))
    middle = (points.min(axis=0) + points.max(axis=0)) / 2
    focal = height / 2 / tan(radians(angle) / 2)
    centred = points - middle
    sideways = np.abs(centred @ right) * focal / (share * width / 2)
    upwards = np.abs(centred @ up) * focal / (share * height / 2)
    # A point is inside the share from where its distance is at least that.
    distance = float((centred @ view + np.maximum(sideways, upwards)).max())
    return perspective(eye, focal, distance, middle, (width / 2, height / 2))
