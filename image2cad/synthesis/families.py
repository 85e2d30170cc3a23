"""Named families of parts: kinds that a general random draw hardly ever makes.

    program = FAMILIES["flange"](np.random.default_rng(0))

Each function draws one part's numbers and returns its program in free units;
`parts.on_grid` brings it onto the grid. The nano base never sees these
in pretraining, so that fine-tuning on the bundled samples has something to teach.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from image2cad.cad import NAMED, Circle, Extrusion, Operation, Path, Plane, Program, Rect, Segment
from image2cad.synthesis.shapes import Rng, polygon


def _step(
    name: str, level: float, loops: tuple, depth: float, operation: Operation = "union"
) -> Extrusion:
    x, normal = NAMED[name]
    origin = (normal[0] * level, normal[1] * level, normal[2] * level)
    return Extrusion(Plane(origin, x, normal), loops, depth, operation)


def flange(rng: Rng) -> Program:
    """A disc with a bolt circle, and a bored hub on it."""
    radius, thickness = 50.0, float(rng.uniform(6, 20))
    hub = radius * float(rng.uniform(0.3, 0.5))
    bore = hub * float(rng.uniform(0.4, 0.8))
    ring = (hub + radius) / 2
    bolt = (radius - hub) * float(rng.uniform(0.15, 0.25))
    count = int(rng.choice([3, 4, 6]))
    turns = 2 * np.pi * np.arange(count) / count
    holes = tuple(Circle(ring * np.cos(t), ring * np.sin(t), bolt) for t in turns.tolist())
    plane = str(rng.choice(["XY", "XZ", "YZ"]))
    disc = _step(plane, 0, (Circle(0, 0, radius), Circle(0, 0, bore), *holes), thickness)
    length = float(rng.uniform(10, 60))
    return (disc, _step(plane, thickness, (Circle(0, 0, hub), Circle(0, 0, bore)), length))


def bracket(rng: Rng) -> Program:
    """An angle bracket with two holes in each leg."""
    width, foot, leg = (
        float(rng.uniform(40, 110)),
        float(rng.uniform(40, 90)),
        float(rng.uniform(40, 110)),
    )
    wall = float(rng.uniform(5, 14))
    corner = polygon([(0, 0), (foot, 0), (foot, wall), (wall, wall), (wall, leg), (0, leg)])
    body = _step("XZ", 0, (corner,), width)
    radius = width * float(rng.uniform(0.06, 0.12))
    ends = (-width * 0.75, -width * 0.25)
    middle = (foot + wall) / 2
    across = (leg + wall) / 2
    down = _step("XY", 0, tuple(Circle(middle, y, radius) for y in ends), wall, "cut")
    back = _step("YZ", 0, tuple(Circle(y, across, radius) for y in ends), wall, "cut")
    return (body, down, back)


def clevis(rng: Rng) -> Program:
    """A plate with two round-ended ears that share a pin hole."""
    length, width, base = 80.0, float(rng.uniform(30, 70)), float(rng.uniform(6, 16))
    ear, height = float(rng.uniform(6, 14)), float(rng.uniform(15, 45))
    half, pin = width / 2, width * float(rng.uniform(0.12, 0.3))
    plate = _step("XY", 0, (Rect(0, 0, length, width),), base)
    top = base + height
    outline = Path(
        (-half, base),
        (Segment((half, base)), Segment((half, top)), Segment((-half, top), (0, top + half))),
    )
    gap = float(rng.uniform(0.2, 0.42)) * length
    ears = [_step("YZ", x, (outline, Circle(0, top, pin)), ear) for x in (-gap - ear, gap)]
    return (plate, *ears)


def shaft(rng: Rng) -> Program:
    """A stepped shaft with a flat milled on its thinnest end."""
    plane = str(rng.choice(["XY", "XZ", "YZ"]))
    radii = np.sort(rng.uniform(8, 40, 3))[::-1].tolist()
    lengths = rng.uniform(15, 60, 3).tolist()
    steps, level = [], 0.0
    for radius, length in zip(radii, lengths, strict=True):
        steps.append(_step(plane, level, (Circle(0, 0, radius),), length))
        level += length
    flat = radii[2] * float(rng.uniform(0.3, 0.6))
    cut = Rect(0, (flat + radii[2]) / 2, 2 * radii[2], radii[2] - flat)
    return (*steps, _step(plane, level - lengths[2], (cut,), lengths[2], "cut"))


FAMILIES: dict[str, Callable[[Rng], Program]] = {
    "flange": flange,
    "bracket": bracket,
    "clevis": clevis,
    "shaft": shaft,
}
