"""What a picture shows, read without a model: its frame, its camera, its flat faces. No torch."""

from typing import TYPE_CHECKING

from image2cad.common.lazy import load

if TYPE_CHECKING:
    from image2cad.reading.boards import CADBENCH_KIND, cadbenchs
    from image2cad.reading.cameras import GIVEN_KIND, Sighting, camera_turned, lens_of, namings
    from image2cad.reading.cameras import seen_from, sightings
    from image2cad.reading.contours import corners_of, squared_off
    from image2cad.reading.differing import MISSING, TOO_MUCH, difference
    from image2cad.reading.doubts import doubt_about
    from image2cad.reading.framing import Framing, Place, as_read, gencads
    from image2cad.reading.planes import MOST_SKETCH_CORNERS, lying, tones
    from image2cad.reading.regions import Scene, scene_of
    from image2cad.reading.restoring import likeness_to_copy, restored
    from image2cad.reading.rims import openings, rings
    from image2cad.reading.rods import rods_of
    from image2cad.reading.tiles import BENCHCAD_STYLE, Tile, views_in
    from image2cad.reading.tracing import Cap, FACE_SHADE, FACING_AXES, FACING_PLANES, LEAST_FACING
    from image2cad.reading.tracing import READ_CAMERA, SHADE_TOLERANCE, UNIT_PIXELS, caps, caps_of
    from image2cad.reading.tracing import face_shade

__all__ = [
    "BENCHCAD_STYLE", "CADBENCH_KIND", "Cap", "FACE_SHADE", "FACING_AXES", "FACING_PLANES",
    "Framing", "GIVEN_KIND", "LEAST_FACING", "MISSING", "MOST_SKETCH_CORNERS",
    "Place", "READ_CAMERA", "SHADE_TOLERANCE", "Scene", "Sighting", "TOO_MUCH", "Tile",
    "UNIT_PIXELS", "as_read", "cadbenchs", "camera_turned", "caps", "caps_of", "corners_of",
    "difference", "doubt_about", "face_shade", "gencads", "lens_of", "likeness_to_copy", "lying",
    "namings", "openings", "restored", "rings", "rods_of", "scene_of", "seen_from", "sightings",
    "squared_off", "tones", "views_in",
]  # fmt: skip


def __getattr__(name: str) -> object:
    return load(__name__, name)
