"""What a picture is made of, how a program looks, and what the difference costs.

    target = look_at(picture)                     # (448, 448, 3) uint8
    cost_of(program, target)                      # 0 is equal, 1 an empty picture
    target = look_at(picture, camera)             # seen by a camera that is known

A cost is the squared difference of shares of part, line and shade in blurred blocks of
16, 8, 4 or 2 pixels. Programs that look alike are told apart by what they are made of:
every extrusion and every number has a price.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numba import njit
from numpy.typing import NDArray

from image2cad.cad import Drawing, Extrusion, Mesh, Program, build, drawn_as_one, prism, tangled
from image2cad.reading import FACE_SHADE, READ_CAMERA
from image2cad.rendering import SIZE, Camera, Picture, draw, draw_roughly

Floats = NDArray[np.float32]
COARSEST_BLOCK = 16  # pixels a side, in which guesses are ranked
FIT_BLOCKS = (COARSEST_BLOCK, 8, 4)  # from coarse to fine
FINEST_BLOCK = 4  # the block that costs are given at
PIXEL_BLOCK = 2  # the block that tells what rounding changes
SHARE_WEIGHTS = np.array([1.0, 1.5, 2.0], dtype=np.float32)  # part, line, shade
FACE_DARKNESS = 1 - FACE_SHADE / 255  # of a face along a main plane
BUILDS_NOTHING = float("inf")  # cost of a program that builds nothing

EXTRUSION_PRICE = 1e-4  # of cost: what an extrusion must bring
NUMBER_PRICE = 1.5e-5  # of cost: what a number must bring
LOOSE_PRICE = 8e-4  # of cost: what a piece that touches no other must bring, without a frame
WHOLE_NUMBER_PRICE = 4e-5  # of cost, on top of that for each number of a whole program
NUMBER_WORTH = 0.002  # of likeness: what a number of a program that can be run must bring


# ---- What a picture is made of


@dataclass(frozen=True, eq=False)
class Target:
    """A picture as weighted features for each size of block, and how it is seen.

    blank: an empty picture's cost. camera: by which it is read, and programs are grown. framed:
    the picture frames its part as GenCAD's do, so that a whole part is drawn by its own camera
    and place and size cancel out; else by `camera`, and they do not.
    """

    picture: Picture
    features: dict[int, Floats]
    blank: dict[int, float]
    camera: Camera = READ_CAMERA
    framed: bool = True

    def camera_for(self, fixed: bool) -> Camera | None:
        """The camera that programs are drawn by; None is each one's own. fixed: held as it is."""
        return self.camera if fixed or not self.framed else None


def look_at(picture: Picture, camera: Camera | None = None) -> Target:
    """The features of a (448, 448, 3) uint8 picture with a white background and black lines.

    camera: what it is seen by; None: it is framed as GenCAD's are.
    """
    features = {block: features_of(picture, block) for block in (PIXEL_BLOCK, *FIT_BLOCKS)}
    blank = {block: max(squared(values), 1e-9) for block, values in features.items()}
    return Target(picture, features, blank, camera or READ_CAMERA, camera is None)


def features_of(picture: Picture, block: int) -> Floats:
    """Part, line and shade shares in blurred blocks, weighted and flattened: (3 n n,) float32.

    picture: (N, N, 3), or its red channel (N, N). It may be drawn smaller than 448; `block`
    still counts pixels of 448.
    """
    zoom = SIZE // len(picture)
    shares = _shares(picture if picture.ndim == 2 else picture[..., 0], block // zoom)
    # A line is one pixel wide at any size: what is too much of it was face.
    shares[2] += shares[1] * np.float32((1 - 1 / zoom) * FACE_DARKNESS)
    shares[1] /= zoom
    values: Floats = _blurred(shares) * SHARE_WEIGHTS[:, None, None]
    return values.ravel() * np.float32(block)


@njit(cache=True)
def _shares(picture, block):  # type: ignore[no-untyped-def]
    """(3, n, n) of blocks: share of pixels on the part, share on lines, mean darkness of faces."""
    n = picture.shape[0] // block
    out = np.zeros((3, n, n), dtype=np.float32)
    weight = np.float32(1.0 / (block * block))
    for row in range(n * block):
        for col in range(n * block):
            value = picture[row, col]
            if value >= 250:
                continue
            i, j = row // block, col // block
            out[0, i, j] += weight
            if value < 50:
                out[1, i, j] += weight
            else:
                out[2, i, j] += weight * (1.0 - value / 255.0)
    return out


@njit(cache=True)
def _blurred(shares):  # type: ignore[no-untyped-def]
    """Each plane convolved with [1 2 1] / 4 along both sides; the border repeats."""
    planes, n, m = shares.shape
    rows, out = np.empty_like(shares), np.empty_like(shares)
    for p in range(planes):
        for i in range(n):
            for j in range(m):
                left, right = shares[p, i, max(j - 1, 0)], shares[p, i, min(j + 1, m - 1)]
                rows[p, i, j] = 0.25 * left + 0.5 * shares[p, i, j] + 0.25 * right
        for i in range(n):
            for j in range(m):
                above, below = rows[p, max(i - 1, 0), j], rows[p, min(i + 1, n - 1), j]
                out[p, i, j] = 0.25 * above + 0.5 * rows[p, i, j] + 0.25 * below
    return out


# ---- How a program looks


def drawn(
    program: Program, camera: Camera | None = None, size: int = SIZE, quick: bool = False
) -> Picture | None:
    """The picture of a program, or None if it builds nothing or a sketch crosses itself.

    camera: None is the part's own, as in GenCAD's pictures. size: with less
    than 448 its red channel only, drawn roughly. quick: lay the extrusions of a part
    without cuts over each other, each built once as long as its numbers stay; only the
    lines where they pass through each other are then missing.
    """
    if quick and all(step.operation == "union" for step in program):
        prisms = [_alone(step) for step in program]
        whole = [one for one in prisms if one is not None]
        return picture_of(drawn_as_one(whole), camera, size) if len(whole) == len(prisms) else None
    if any(tangled(step.loops) for step in program):
        return None
    drawing = build(program)
    return None if drawing is None else picture_of(drawing, camera, size)


@lru_cache(maxsize=256)
def _alone(step: Extrusion) -> Mesh | None:
    return None if tangled(step.loops) else prism(step)


def picture_of(
    drawing: Drawing | Mesh, camera: Camera | None = None, size: int = SIZE
) -> Picture | None:
    """The picture of a built part; see `drawn`. None if it reaches behind the viewer."""
    if camera is not None and not camera.sees(drawing.vertices):
        return None
    return draw(drawing, camera=camera) if size == SIZE else draw_roughly(drawing, size, camera)


# ---- What the difference costs, and what a program is made of


def cost_of(
    program: Program, target: Target, block: int = FINEST_BLOCK, fixed: bool = False
) -> float:
    """Squared difference of the features as a share of an empty picture's, or BUILDS_NOTHING.

    fixed: seen by the target's camera, where it would be by the part's own.
    """
    picture = drawn(program, target.camera_for(fixed))
    if picture is None:
        return BUILDS_NOTHING
    gap = features_of(picture, block) - target.features[block]
    return squared(gap) / target.blank[block]


def squared(gap: Floats) -> float:
    """What a difference of features costs, before it is a share: its squares, summed.

    Ranking, growing and the least squares of the fit all go by it.
    """
    return float(gap @ gap)


def growing_price(cost: float, extrusions: int, numbers: int, loose: int = 0) -> float:
    """The cost and a charge for every extrusion and number: what each that is added must bring.

    loose: pieces that touch no other, in a picture that frames nothing.
    """
    return cost + EXTRUSION_PRICE * extrusions + NUMBER_PRICE * numbers + LOOSE_PRICE * loose


def whole_price(cost: float, extrusions: int, numbers: int, loose: int = 0) -> float:
    """The same of whole programs: of those that look alike the one with fewer numbers is likelier.

    Charged while programs grow it would end them before the last extrusion is found.
    """
    return growing_price(cost, extrusions, numbers, loose) + WHOLE_NUMBER_PRICE * numbers


def worth_of(likeness: float, numbers: int) -> float:
    """The likeness less the same charge, of programs that are written down."""
    return likeness - NUMBER_WORTH * numbers
