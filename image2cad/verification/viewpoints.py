"""Where a picture is seen from, in the words and numbers that users give and get. z is up.

    eye = eye_named("front")                # or "-90, 0": azimuth and elevation in degrees
    seen = viewpoints(target, "estimated")  # one for each view that programs were drawn in
    seen[0].text                            # "azimuth -45°, elevation 35°, orthographic, estimated"

The azimuth is counted from x towards y, seen from above, so that the front, which is seen along y,
is at -90 and GenCAD's pictures at -45; the elevation is counted upwards from level.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from image2cad.common import InputError
from image2cad.reading import Scene
from image2cad.rendering import EYE, Camera, axes_seen_from
from image2cad.verification.cost import Target

EYES: Mapping[str, tuple[float, float, float]] = {
    "isometric": EYE,
    "front": (0.0, -1.0, 0.0),
    "back": (0.0, 1.0, 0.0),
    "left": (-1.0, 0.0, 0.0),
    "right": (1.0, 0.0, 0.0),
    "top": (0.0, 0.0, 1.0),
    "bottom": (0.0, 0.0, -1.0),
}
MOST_CAMERA_LETTERS = 40  # of what a user writes
LEAST_ROLL = 0.5  # degrees, below which a camera stands level


@dataclass(frozen=True)
class Viewpoint:
    """The camera of one view, in the axes of the program that was drawn with it.

    azimuth, elevation: of the direction to the viewer, degrees, -180 to 180 and -90 to 90. roll:
    degrees that the camera is turned counter-clockwise. angle: of view from the picture's top to
    its bottom in degrees; None is orthographic. origin: "known" of pictures whose makers are known,
    "given" or "estimated". picture: the number, from 0, of the picture that the view is in.
    """

    azimuth: float
    elevation: float
    roll: float
    angle: float | None
    origin: str
    picture: int = 0

    @property
    def direction(self) -> tuple[float, float, float]:
        """The unit vector to the viewer."""
        a, e = np.radians([self.azimuth, self.elevation])
        return float(np.cos(a) * np.cos(e)), float(np.sin(a) * np.cos(e)), float(np.sin(e))

    @property
    def text(self) -> str:
        """One plain line."""
        roll = f", rolled {self.roll:.0f}°" if abs(self.roll) >= LEAST_ROLL else ""
        lens = "orthographic" if self.angle is None else f"perspective of {self.angle:.0f}°"
        return (
            f"azimuth {self.azimuth + 0.0:.0f}°, elevation {self.elevation + 0.0:.0f}°{roll}, "
            f"{lens}, {self.origin}"
        )


def eye_named(text: str) -> tuple[float, float, float] | None:
    """The direction to the viewer that a user means, (3,); None where the camera is not known.

    text: "" or "not known", a name of EYES, or azimuth and elevation in degrees, "-45, 35".
    Raises InputError for anything else.
    """
    said = text.strip().lower()
    if said in ("", "not known"):
        return None
    if said in EYES:
        return EYES[said]
    try:
        azimuth, elevation = (float(one) for one in said[:MOST_CAMERA_LETTERS].split(","))
    except ValueError:
        azimuth = elevation = float("nan")
    if not (abs(azimuth) <= 360 and abs(elevation) <= 90):  # not true of what is no number
        raise InputError(
            f"camera is one of {', '.join(EYES)}, or azimuth (-360 to 360) and elevation (-90 to "
            f'90) in degrees, such as "-45, 35", not {text!r:.60}'
        )
    return Viewpoint(azimuth, elevation, 0.0, None, "given").direction


def viewpoints(
    target: Target, origin: str, pictures: Sequence[tuple[Scene, int]] = ()
) -> tuple[Viewpoint, ...]:
    """Where the target's views are seen from. pictures: which picture each scene is in."""
    if not target.sights:
        return (_viewpoint(target.camera, 0.0, origin, 0),)
    out = []
    for sight in target.sights:
        place = sight.scene.place
        number = next((i for scene, i in pictures if scene is sight.scene), 0)
        out.append(_viewpoint(sight.camera, place.height * place.scale, origin, number))
    return tuple(out)


def _viewpoint(camera: Camera, height: float, origin: str, picture: int) -> Viewpoint:
    """height: of the whole picture, in the camera's pixels."""
    x, y, z = camera.view
    across = np.hypot(x, y)
    # Straight from above x is right, as axes_seen_from has it: that is the azimuth of the front.
    azimuth = float(np.degrees(np.arctan2(y, x))) if across > 1e-9 else -90.0
    level_right, level_up, view = axes_seen_from(camera.view)
    right = camera.matrix[0, :3] - (camera.matrix[0, :3] @ view) * view
    roll = float(np.degrees(np.arctan2(right @ level_up, right @ level_right)))
    angle = None
    if camera.in_perspective:
        focal = np.linalg.norm(camera.matrix[2, :3]) / np.linalg.norm(camera.matrix[3, :3])
        angle = round(float(np.degrees(2 * np.arctan2(height / 2, focal))), 1)
    elevation = float(np.degrees(np.arctan2(z, across)))
    return Viewpoint(round(azimuth, 1), round(elevation, 1), round(roll, 1), angle, origin, picture)
