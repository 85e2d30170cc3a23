"""How a program looks in a picture, and what the difference costs.

    target = look_at(picture)                     # (448, 448, 3) uint8, GenCAD's
    cost_of(program, target)                      # 0 is equal, 1 an empty picture
    target = look_at(picture, camera)             # seen by a camera that is known
    target = look_at_sights([sight_of(scene, camera)])      # in any style, any views

A cost is the squared difference of features.py, or of sights.py where the style is not known.
Programs that look alike are told apart by what they are made of: every extrusion and every
number has a price.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
from scipy.ndimage import uniform_filter

from image2cad.cad import Drawing, Extrusion, Mesh, Program, build, drawn_as_one, prism, tangled
from image2cad.common import Array
from image2cad.reading import READ_CAMERA, Cap, caps
from image2cad.rendering import (
    SIZE,
    Camera,
    Drawable,
    Painting,
    Picture,
    draw,
    draw_roughly,
    likeness,
    paint,
)
from image2cad.verification.carving import Space, space_of
from image2cad.verification.features import (
    FINEST_BLOCK,
    FIT_BLOCKS,
    PIXEL_BLOCK,
    Floats,
    features_of,
    squared,
)
from image2cad.verification.sights import SIGHT_BLOCKS, Sight, pictured, shortfall, toned

Looks = Picture | tuple[Painting, ...]  # how a part looks in GenCAD's style, or in each sight

BUILDS_NOTHING = float("inf")  # cost of a program that builds nothing

EXTRUSION_PRICE = 1e-4  # of cost: what an extrusion must bring
NUMBER_PRICE = 1.5e-5  # of cost: what a number must bring
LOOSE_PRICE = 8e-4  # of cost: what a piece that touches no other must bring, without a frame
STRAY_PRICE = 1e-4  # of cost: of a pixel between a part's middle and where it is known to be seen
LOOSE_SHARE = 0.1  # of the cost that is left, that it must bring too: a stray piece widens the part
WHOLE_NUMBER_PRICE = 4e-5  # of cost, on top of that for each number of a whole program
STRANGE_CHARGE = 4.0  # times these prices: a style that is not known leaves more unexplained
BLEMISH_BLOCK, BLEMISH_BLOCKS = 8, 3  # pixels of a block; blocks of a place
NUMBER_WORTH = 0.002  # of likeness: what a number of a program that can be run must bring


# ---- What a picture is made of


@dataclass(frozen=True, eq=False)
class Target:
    """What programs are compared with: one picture of GenCAD's, or sights of a part in any style.

    picture: GenCAD's, or (0, 0, 3). features: weighted, for each size of block. blank: an empty
    picture's cost. camera: by which it is read, and programs are grown; the first sight's. framed:
    the picture frames its part as GenCAD's do, so that a whole part is drawn by its own camera
    and place and size cancel out; else by `camera`, and they do not. sights: of a style that is
    not known. space: what several sights leave for the part. middle: (column, row) where the middle
    of the part's box is seen, where that is known without a frame.
    """

    picture: Picture
    features: dict[int, Floats]
    blank: dict[int, float]
    camera: Camera = READ_CAMERA
    framed: bool = True
    sights: tuple[Sight, ...] = ()
    space: Space | None = None
    middle: tuple[float, float] | None = None

    def camera_for(self, fixed: bool) -> Camera | None:
        """The camera that programs are drawn by; None is each one's own. fixed: held as it is."""
        return self.camera if fixed or not self.framed else None

    @property
    def charge(self) -> float:
        """How many times the prices of this file an extrusion and a number have."""
        return STRANGE_CHARGE if self.sights else 1.0

    def turned(self, rotation: Array, further: float = 1.0) -> Target:
        """The target with the part turned about the origin, (3, 3), before all cameras.

        further: how many times as far away they then stand, where they are in perspective.
        """

        def moved(camera: Camera) -> Camera:
            return camera.turned(rotation).from_further(further)

        sights = tuple(replace(sight, camera=moved(sight.camera)) for sight in self.sights)
        return replace(self, camera=moved(self.camera), sights=sights)


def look_at(picture: Picture, camera: Camera | None = None) -> Target:
    """The features of a (448, 448, 3) uint8 picture with a white background and black lines.

    camera: what it is seen by; None: it is framed as GenCAD's are.
    """
    features = {block: features_of(picture, block) for block in (PIXEL_BLOCK, *FIT_BLOCKS)}
    blank = {block: max(squared(values), 1e-9) for block, values in features.items()}
    return Target(picture, features, blank, camera or READ_CAMERA, camera is None)


def look_at_sights(sights: Sequence[Sight], middle: tuple[float, float] | None = None) -> Target:
    """One part in one or more views of a style that is not known; costs are sums over the views."""
    blank = {block: sum(sight.blank[block] for sight in sights) for block in SIGHT_BLOCKS}
    none = np.zeros((0, 0, 3), dtype=np.uint8)
    space = space_of(sights) if len(sights) > 1 else None
    return Target(none, {}, blank, sights[0].camera, False, tuple(sights), space, middle)


def regions_of(target: Target) -> list[list[Cap]]:
    """The readings of a target's flat regions, those of all its sights, largest first."""
    if not target.sights:
        return caps(target.picture, camera=target.camera)
    found = [readings for sight in target.sights for readings in sight.regions]
    return sorted(found, key=lambda readings: -int(readings[0].mask.sum()))


# ---- How a program looks


def drawn(
    program: Program, target: Target, fixed: bool = False, size: int = SIZE, quick: bool = False
) -> Looks | None:
    """How a program looks, or None if it builds nothing or a sketch crosses itself.

    fixed: seen by the target's camera, where it would be by the part's own. size: with less
    than 448 drawn roughly, of a picture its red channel only. quick: lay the extrusions of a part
    without cuts over each other, each built once as long as its numbers stay; only the
    lines where they pass through each other are then missing.
    """
    if quick and all(step.operation == "union" for step in program):
        prisms = [_alone(step) for step in program]
        whole = [one for one in prisms if one is not None]
        if len(whole) < len(prisms):
            return None
        return looks_of(drawn_as_one(whole), target, fixed, size)
    if any(tangled(step.loops) for step in program):
        return None
    drawing = build(program)
    return None if drawing is None else looks_of(drawing, target, fixed, size)


@lru_cache(maxsize=256)
def _alone(step: Extrusion) -> Mesh | None:
    return None if tangled(step.loops) else prism(step)


def looks_of(
    drawing: Drawing | Mesh, target: Target, fixed: bool = False, size: int = SIZE
) -> Looks | None:
    """How a built part looks; see `drawn`. None if it reaches behind the viewer."""
    if target.sights:
        if not all(sight.camera.sees(drawing.vertices) for sight in target.sights):
            return None
        return tuple(
            paint(drawing, sight.camera.zoomed(size / SIZE), size, sight.lined)
            for sight in target.sights
        )
    camera = target.camera_for(fixed)
    if camera is not None and not camera.sees(drawing.vertices):
        return None
    return draw(drawing, camera=camera) if size == SIZE else draw_roughly(drawing, size, camera)


def gap_of(looks: Looks, target: Target, block: int) -> Floats:
    """What how a part looks lacks of the target, weighted features."""
    if isinstance(looks, tuple):
        pairs = zip(looks, target.sights, strict=True)
        return np.concatenate([shortfall(seen, sight, block) for seen, sight in pairs])
    return features_of(looks, block) - target.features[block]


# ---- What the difference costs, and what a program is made of


def cost_of(
    program: Program, target: Target, block: int = FINEST_BLOCK, fixed: bool = False
) -> float:
    """Squared difference of the features as a share of an empty picture's, or BUILDS_NOTHING.

    fixed: seen by the target's camera, where it would be by the part's own.
    """
    looks = drawn(program, target, fixed)
    if looks is None:
        return BUILDS_NOTHING
    return squared(gap_of(looks, target, block)) / target.blank[block]


def blemish_of(program: Program, target: Target) -> float:
    """The most of a program's cost that lies in one place, BLEMISH_BLOCKS a side, of a sight.

    A hole that is missing is one place, a camera that is a little off is the whole picture.
    BUILDS_NOTHING as in `cost_of`.
    """
    looks = drawn(program, target, fixed=True)
    if looks is None:
        return BUILDS_NOTHING
    side = SIZE // BLEMISH_BLOCK
    gaps = gap_of(looks, target, BLEMISH_BLOCK).reshape(-1, 3, side, side)
    costs = np.square(gaps).sum(axis=1) / target.blank[BLEMISH_BLOCK]
    means = [uniform_filter(cost, BLEMISH_BLOCKS) for cost in costs]
    return float(BLEMISH_BLOCKS**2 * np.max(means))


def growing_price(
    cost: float, extrusions: int, numbers: int, loose: int = 0, charge: float = 1.0
) -> float:
    """The cost and a charge for every extrusion and number: what each that is added must bring.

    loose: pieces that touch no other, in a picture that frames nothing. charge: see `Target`.
    """
    made_of = EXTRUSION_PRICE * extrusions + NUMBER_PRICE * numbers
    return cost * (1 + LOOSE_SHARE * loose) + charge * made_of + LOOSE_PRICE * loose


def whole_price(
    cost: float, extrusions: int, numbers: int, loose: int = 0, charge: float = 1.0
) -> float:
    """The same of whole programs: of those that look alike the one with fewer numbers is likelier.

    Charged while programs grow it would end them before the last extrusion is found.
    """
    price = growing_price(cost, extrusions, numbers, loose, charge)
    return price + WHOLE_NUMBER_PRICE * numbers


def worth_of(likeness: float, numbers: int) -> float:
    """The likeness less the same charge, of programs that are written down."""
    return likeness - NUMBER_WORTH * numbers


def likeness_of(shape: Drawable, target: Target, fixed: bool = False) -> float:
    """SSIM of how a shape looks and the picture, 0 to 1; of several sights their mean."""
    if not target.sights:
        return likeness(draw(shape, camera=target.camera_for(fixed)), target.picture)
    looks = [paint(shape, sight.camera, SIZE, sight.lined) for sight in target.sights]
    pairs = zip(looks, target.sights, strict=True)
    return float(np.mean([likeness(toned(seen, sight), pictured(sight)) for seen, sight in pairs]))
