"""What one region or several that meet are together: the rims of openings, and rings.

    for mask, plane in openings(scene, camera): ...      # for tracing.caps_of
    for mask, plane in rings(scene, camera): ...         # the same of faces around a through hole

Through an opening its walls and its floor are seen, regions of their own. Together they end at its
rim, and read as a sketch on the plane of the rim, where most of them alone do not. A thick rim is a
face with a hole; one as thin as a line is no region, and this is what is left of it. Where seams
part a thin face around a through hole, its pieces are one again. Left out: openings that something
stands in front of.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import combinations

import numpy as np
from scipy import ndimage

from image2cad.common import Array
from image2cad.reading.cameras import sketch_quality
from image2cad.reading.planes import MOST_SKETCH_CORNERS, SURE_QUALITY
from image2cad.reading.regions import Scene
from image2cad.reading.tracing import border_of, without_holes
from image2cad.rendering import Camera

MOST_LOOKED_AT = 8  # regions, the largest
MOST_JOINED = 3  # two walls and a floor
LEAST_SEEN, LEAST_OPENING = 0.004, 0.02  # of the part: a region of an opening, and all of it
MEETING_PIXELS = 6  # of a border, along which regions meet
MOST_ON_GROUND = 0.1  # of an opening's border, that lies on the ground: a rim is between
MOST_OPENINGS = 8
LEAST_THROUGH = 0.3  # of all that the outline of a part encloses, that is a through hole
SLIT_PIXELS = 3  # by which regions grow together, so twice as wide a slit is bridged
MOST_RINGS = 4


def openings(scene: Scene, camera: Camera) -> list[tuple[Array, int]]:
    """(mask, plane) of outlines that read well as sketches, largest first; lines are bridged."""
    whole = int(scene.part.sum())
    looked_at = [label for mask, label in scene.masks if mask.sum() > LEAST_SEEN * whole]
    looked_at = looked_at[:MOST_LOOKED_AT]
    meeting = _meeting(scene.labels)
    found = []
    for labels in _together(looked_at, meeting):
        if meeting[0, list(labels)].sum() > MOST_ON_GROUND * _around(labels, meeting):
            continue
        inside = np.isin(scene.labels, labels) & ~scene.lines
        mask = without_holes(ndimage.binary_closing(inside, iterations=2))
        if mask.sum() < LEAST_OPENING * whole:
            continue
        found.append(mask)
    return _as_sketches(found, camera, MOST_OPENINGS)


def rings(scene: Scene, camera: Camera) -> list[tuple[Array, int]]:
    """(mask, plane) of faces around a large through hole, which seams part, largest first."""
    whole = without_holes(scene.part)
    through, _ = ndimage.label(whole & ~scene.part)
    sizes = np.bincount(through.ravel())
    if len(sizes) < 2 or sizes[1:].max() < LEAST_THROUGH * whole.sum():
        return []
    hole = through == 1 + int(sizes[1:].argmax())
    reach = _box(hole)
    looked_at = [label for mask, label in scene.masks[:MOST_LOOKED_AT]]
    boxes = {label: _box(scene.labels == label) for label in looked_at}
    found: list[Array] = []
    enough: list[set[int]] = []
    for count in range(1, MOST_JOINED + 1):
        for some in combinations(looked_at, count):
            if any(one <= set(some) for one in enough):
                continue
            if (np.max([boxes[label] for label in some], axis=0) < reach).any():
                continue
            apart = np.isin(scene.labels, some)
            mask = ndimage.binary_closing(apart, iterations=SLIT_PIXELS) & ~hole
            if not without_holes(mask)[hole].all():
                continue
            enough.append(set(some))
            if count == 1 and without_holes(apart & ~scene.lines)[hole].all():
                continue  # it is read with its hole anyway
            found.append(mask)
    return _as_sketches(found, camera, MOST_RINGS)


def _as_sketches(masks: list[Array], camera: Camera, most: int) -> list[tuple[Array, int]]:
    """(mask, plane) where the outline reads well as a sketch on a main plane, largest first."""
    found = []
    for mask in masks:
        points = border_of(without_holes(mask))
        for plane in range(3):
            if sketch_quality(points, camera, plane, MOST_SKETCH_CORNERS) > SURE_QUALITY:
                found.append((mask, plane))
    found.sort(key=lambda one: -int(one[0].sum()))
    return found[:most]


def _box(mask: Array) -> Array:
    """(4,) how far a region reaches up, down, left and right."""
    rows, columns = np.nonzero(mask)
    return np.array([-rows.min(), rows.max(), -columns.min(), columns.max()])


def _meeting(labels: Array) -> Array:
    """(N + 1, N + 1) pixels along which regions meet; 0 is the ground."""
    count = int(labels.max()) + 1
    pairs = np.zeros((count, count), dtype=int)
    np.add.at(pairs, (labels[:, :-1], labels[:, 1:]), 1)
    np.add.at(pairs, (labels[:-1], labels[1:]), 1)
    np.fill_diagonal(pairs, 0)
    meeting: Array = pairs + pairs.T
    return meeting


def _around(labels: tuple[int, ...], meeting: Array) -> int:
    """Pixels along which regions together meet any others."""
    some = list(labels)
    return int(meeting[some].sum() - meeting[np.ix_(some, some)].sum())


def _together(labels: list[int], meeting: Array) -> Iterator[tuple[int, ...]]:
    """Up to MOST_JOINED of the regions that hang together."""
    for count in range(1, MOST_JOINED + 1):
        for some in combinations(labels, count):
            near = (meeting[np.ix_(some, some)] >= MEETING_PIXELS) | np.eye(count, dtype=bool)
            if (np.linalg.matrix_power(near.astype(int), count) > 0).all():
                yield some
