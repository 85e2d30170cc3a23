"""What a picture shows whatever its style: silhouette, lines, and regions with their colours.

    scene = scene_of(image)
    scene.labels           # (448, 448): 0 beside the part, 1.. the regions
    scene.masks            # their masks, largest first

Where the style has lines, regions are what they enclose; else quiet patches are found first, and
grow until they meet where the tone changes. Left out: hidden lines, texture and shadows, which
read as regions of their own.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numba import njit
from PIL import Image
from scipy import ndimage

from image2cad.common import Array
from image2cad.reading.framing import FINER_CANVAS, Framed, Place, frame, greys, largest_channel
from image2cad.rendering import SIZE

LEAST_REGION_PIXELS = 25  # of 448
LINED_RIM = 0.78  # share of the rim with a line beside it, from which the style has lines
LINED_STEPS = 0.5  # and share of the steps of tone inside
LINED_TOGETHER = 1.7  # or what both shares make together: round faces may have no outlines
FEW_STEPS = 50  # pixels of steps inside that say nothing
FLAT_SPREAD = 7.0  # greys that a flat face varies by at most
SLIVER_SHARE = 0.3  # of a region that lies beside the ground with no line between
# Pixels: narrow gaps first, so that thin faces are known when wide ones are closed.
CUT_REACHES = (1, 4, 10)
STEP_WINDOW = 4  # pixels in which a step of tone is whole
MOST_SLOPED, SLOPED_SPREAD = 40.0, 5.0  # greys along a flat face in soft light, and off its slope
COST_LEVELS = 256  # of the flooding
VOTES = 3  # pixels: the radius in which regions vote where they end


@dataclass(frozen=True, eq=False)
class Scene:
    """What a picture shows, on 448 pixels a side.

    labels: int32, 0 beside the part. lines: bool, one pixel wide borders that the picture draws.
    ink: bool, all dark thin pixels, as thick as they are. colours: (448, 448, 3). tints: (N + 1, 3)
    the regions' own. flat: (N + 1,) bool, regions of one tone. has_lines: the style draws edges.
    line_drawing: nothing but lines. noise: greys. place: how the picture lies on the canvas.
    """

    labels: Array
    lines: Array
    ink: Array
    colours: Array
    tints: Array
    flat: Array
    has_lines: bool
    line_drawing: bool
    noise: float
    place: Place

    @property
    def part(self) -> Array:
        """(448, 448) bool, the silhouette."""
        inside: Array = self.labels > 0
        return inside

    @cached_property
    def masks(self) -> list[tuple[Array, int]]:
        """(mask without its lines, label) of the regions, largest first."""
        found = []
        sizes = np.bincount(self.labels.ravel(), minlength=len(self.flat))
        for i in np.argsort(-sizes, kind="stable"):
            if i == 0 or sizes[i] < LEAST_REGION_PIXELS:
                continue
            mask = (self.labels == i) & ~self.lines
            pieces, count = ndimage.label(mask)
            if count > 1:
                counts = np.bincount(pieces.ravel())
                counts[0] = 0
                mask = pieces == counts.argmax()
            if mask.sum() >= LEAST_REGION_PIXELS:
                found.append((mask, int(i)))
        return found


def scene_of(
    image: Image.Image, most_enlarged: float = float("inf"), lined: bool = False
) -> Scene | None:
    """What a picture of any size and mode shows; None where nothing differs from its ground.

    most_enlarged: see `framing.frame`. lined: it is known that its style draws edges.
    """
    framed = frame(image, most_enlarged)
    scene = None if framed is None else regions(framed, lined)
    return scene if scene is not None and scene.part.any() else None  # letters enclose nothing


def regions(framed: Framed, lined: bool = False) -> Scene:
    """The regions of a framed picture. lined: see `scene_of`."""
    colours, ink, solid, noise = framed.colours, framed.ink, framed.solid, framed.noise
    steps = _steps(colours)
    has_lines = lined or _has_lines(framed, steps)
    lined = has_lines or framed.line_drawing
    if lined:
        seeds = _without_slivers(_enclosed(solid & ~ink), solid)
        if not framed.line_drawing:
            ranges = _ranges(colours)
            for reach in CUT_REACHES:
                seeds = _cut_along_steps(seeds, colours, steps, ranges, ink, noise, reach)
    else:
        seeds = _quiet(colours, steps, solid, noise)
    marks = _packed(seeds)
    outside = int(marks.max()) + 1
    cost = np.where(ink, framed.depth_of_ink, 0.0) if lined else steps
    # The silhouette's own line belongs half to each side.
    marks[~solid & ~ink if lined else ~solid] = outside
    whole = flooded(cost, marks)
    whole[whole == outside] = 0
    whole = _voted(whole, _disc(VOTES))
    if not lined:
        whole = _half_covered(whole, colours, framed.place.scale * FINER_CANVAS)
    half, step = FINER_CANVAS // 2, FINER_CANVAS
    labels = np.ascontiguousarray(whole[half::step, half::step])
    thick: Array = np.zeros((SIZE, SIZE), dtype=bool)
    if lined:
        thick = np.asarray(ink.reshape(SIZE, step, SIZE, step).any(axis=(1, 3)))
    lines = np.logical_and(_borders(labels), ndimage.binary_dilation(thick))
    tints, flat = _tints(colours, whole, ink, noise)
    return Scene(
        labels, lines, thick, colours[half::step, half::step], tints, flat,
        has_lines, framed.line_drawing, noise, framed.place,
    )  # fmt: skip


def _steps(colours: Array) -> Array:
    """(C, C) the largest change of a channel to a neighbour."""
    out = np.zeros(colours.shape[:2])
    across = largest_channel(np.abs(np.diff(colours, axis=1)))
    down = largest_channel(np.abs(np.diff(colours, axis=0)))
    for values, one in ((across, out[:, :-1]), (across, out[:, 1:]), (down, out[:-1])):
        np.maximum(one, values, out=one)
    np.maximum(out[1:], down, out=out[1:])
    return out


def _ranges(colours: Array) -> Array:
    """(C, C) how much a channel varies in a few pixels: a blurred step is found whole."""
    highest, lowest = (
        one(colours, size=(STEP_WINDOW, STEP_WINDOW, 1))
        for one in (ndimage.maximum_filter, ndimage.minimum_filter)
    )
    return largest_channel(highest - lowest)


def _has_lines(framed: Framed, steps: Array) -> bool:
    """Whether edges are drawn as lines: where tones change inside, and along the rim.

    The rim says little where it is the outline of round faces, which many viewers leave out.
    """
    solid, pixel = framed.solid, framed.place.scale * FINER_CANVAS
    inner = (steps > max(14, 6 * framed.noise)) & ndimage.binary_erosion(solid, iterations=5)
    near = ndimage.binary_dilation(framed.ink, iterations=max(4, round(pixel)))
    rim = solid & ~ndimage.binary_erosion(solid, iterations=2)
    around = (rim & near).sum() / max(rim.sum(), 1)
    if inner.sum() < FEW_STEPS:
        return bool(around > LINED_RIM)
    inside = (inner & near).sum() / inner.sum()
    # A thin dark side looks like a line, but it is only along the lower half of the rim.
    return bool(inside > LINED_STEPS and (around > LINED_RIM or around + inside > LINED_TOGETHER))


# ---- Where regions begin


def _enclosed(free: Array) -> Array:
    """(C, C) numbers of what lines enclose. A gap of up to four pixels does not join two faces."""
    finer = FINER_CANVAS**2
    seeds, count = ndimage.label(free)
    sizes = np.bincount(seeds.ravel(), minlength=count + 1)
    large = sizes >= 6 * finer
    large[0] = False
    seeds = np.where(large[seeds], seeds, 0)
    cores, cored = ndimage.label(ndimage.binary_erosion(seeds > 0, iterations=2))
    core_sizes = np.bincount(cores.ravel(), minlength=cored + 1)
    good = core_sizes >= 10 * finer
    good[0] = False
    cores = np.where(good[cores], cores, 0)
    has_core = np.zeros(count + 1, dtype=bool)
    has_core[np.unique(seeds[cores > 0])] = True
    rest = np.where(has_core[seeds], 0, seeds)
    found = _packed(np.where(cores > 0, cores, np.where(rest > 0, rest + cored + 1, 0)))
    near = free & ndimage.binary_dilation(found > 0, iterations=4)
    return np.where(near, flooded(np.zeros(free.shape), np.where(near, found, -1)), 0)


def _without_slivers(seeds: Array, solid: Array) -> Array:
    """Without those that no line parts from the ground: they lie outside the line on the rim."""
    beside = solid & ~ndimage.binary_erosion(solid, iterations=2)
    count = int(seeds.max()) + 1
    sizes = np.bincount(seeds.ravel(), minlength=count)
    open_ = np.bincount(seeds[beside], minlength=count) > SLIVER_SHARE * sizes
    open_[0] = False
    return np.where(open_[seeds], 0, seeds)


def _cut_along_steps(
    seeds: Array,
    colours: Array,
    steps: Array,
    ranges: Array,
    ink: Array,
    noise: float,
    reach: int,
) -> Array:
    """Regions with a step of tone inside, whose line was broken, cut along it.

    steps, ranges: of the colours. reach: half as wide as the gaps that are closed, pixels.
    """
    least = max(12.0, 6 * noise)
    quiet = (seeds > 0) & (ranges < least)
    sharp = ndimage.binary_dilation((steps > least) | ink, iterations=2)
    out, following = np.zeros_like(seeds), 1
    boxes = ndimage.find_objects(seeds)
    for i, box in enumerate(boxes, 1):
        if box is None:
            continue
        at, mine = seeds[box] == i, colours[box]
        pieces, count = ndimage.label(ndimage.binary_erosion(at & quiet[box], iterations=reach))
        sizes = np.bincount(pieces.ravel(), minlength=count + 1)[1:]
        large = [j for j in np.flatnonzero(sizes > max(60, 0.02 * at.sum())) + 1]
        plain = [
            j
            for j in large
            if mine[pieces == j].std(axis=0).max() < max(3.0, 2 * noise)
            or _sharply_bounded(pieces == j, at, sharp[box], reach) > 0.6
        ]
        tints = [np.median(mine[pieces == j], axis=0) for j in plain]
        apart = max((np.abs(a - b).max() for a in tints for b in tints), default=0.0)
        if apart > least:
            local = np.zeros(at.shape, dtype=np.int32)
            for j in plain:
                local[pieces == j] = following
                following += 1
            nearest = ndimage.distance_transform_edt(
                local == 0, return_distances=False, return_indices=True
            )
            out[box][at] = local[tuple(nearest)][at]
        else:
            out[box][at] = following
            following += 1
    return out


def _sharply_bounded(piece: Array, at: Array, sharp: Array, reach: int) -> float:
    """Share of a piece's border inside its region that is a step of tone or a line."""
    whole = ndimage.binary_dilation(piece, iterations=max(reach - 1, 0))
    ring = ndimage.binary_dilation(whole, iterations=4) & ~whole
    ring &= ndimage.binary_erosion(at, iterations=3)
    if ring.sum() < 20:
        return 1.0
    return float(sharp[ring].mean())


def _quiet(colours: Array, steps: Array, solid: Array, noise: float) -> Array:
    """Without lines: flat faces first, then what is curved, each bounded by steps of tone."""
    finer = FINER_CANVAS**2
    blur = 0.7 + 0.25 * min(noise, 4)
    smooth = np.stack([ndimage.gaussian_filter(colours[..., i], blur) for i in range(3)], axis=-1)
    least = 0.55 + 0.5 * max(noise - 0.7, 0)
    quiet = ndimage.binary_erosion(solid) & (_steps(smooth) < least)
    labels, count = ndimage.label(ndimage.binary_opening(quiet))
    sizes = np.bincount(labels.ravel(), minlength=count + 1)
    out, following = np.zeros(solid.shape, dtype=np.int32), 1
    for i in np.flatnonzero(sizes >= 25 * finer):
        if i and smooth[labels == i].std(axis=0).max() < 2.5 + noise:
            out[labels == i] = following
            following += 1
    rest = solid & ~ndimage.binary_dilation(out > 0, iterations=3) & (steps < max(14.0, 6 * noise))
    labels, count = ndimage.label(ndimage.binary_erosion(rest, iterations=2))
    sizes = np.bincount(labels.ravel(), minlength=count + 1)
    for i in np.flatnonzero(sizes >= 12 * finer):
        if i:
            out[labels == i] = following
            following += 1
    return out


# ---- Where they end


def _packed(labels: Array) -> Array:
    """Numbers without gaps; 0 stays 0."""
    used = np.bincount(labels.ravel()) > 0
    used[0] = True
    return (np.cumsum(used) - 1).astype(np.int32)[labels]


def flooded(cost: Array, marks: Array) -> Array:
    """Watershed: (H, W) int32 `marks` (0: free, -1: closed) spread, over lower `cost` first.

    Meyer's flooding (1994) with a queue for each of COST_LEVELS levels of cost.
    """
    top = float(cost.max()) or 1.0
    level = np.minimum(cost / top * (COST_LEVELS - 1), COST_LEVELS - 1).astype(np.int32)
    out = np.array(marks, dtype=np.int32)
    _flood(level, out)
    return np.maximum(out, 0)


@njit(cache=True)
def _flood(level, out):  # type: ignore[no-untyped-def]
    height, width = out.shape
    heads = np.full(COST_LEVELS, -1, dtype=np.int64)
    tails = np.full(COST_LEVELS, -1, dtype=np.int64)
    following = np.full(height * width, -1, dtype=np.int64)
    queued = np.zeros(height * width, dtype=np.bool_)
    for start in range(height * width):
        if out[start // width, start % width] > 0:
            _queue(start, 0, heads, tails, following)
            queued[start] = True
    lowest = 0
    while lowest < COST_LEVELS:
        here = heads[lowest]
        if here < 0:
            lowest += 1
            continue
        heads[lowest] = following[here]
        if heads[lowest] < 0:
            tails[lowest] = -1
        row, col = here // width, here % width
        for way in range(4):
            r, c = row + (way == 0) - (way == 1), col + (way == 2) - (way == 3)
            if 0 <= r < height and 0 <= c < width:
                there = r * width + c
                if not queued[there] and out[r, c] == 0:
                    out[r, c] = out[row, col]
                    queued[there] = True
                    _queue(there, max(level[r, c], lowest), heads, tails, following)
    return out


@njit(cache=True)
def _queue(pixel, level, heads, tails, following):  # type: ignore[no-untyped-def]
    following[pixel] = -1
    if heads[level] < 0:
        heads[level] = pixel
    else:
        following[tails[level]] = pixel
    tails[level] = pixel


def _half_covered(whole: Array, colours: Array, pixel: float) -> Array:
    """Regions that end at the ground where the ground is half covered.

    The largest change of tone lies up to half a pixel further in or out. pixel: how wide one of the
    picture is here.
    """
    reach = 2 * pixel
    part = whole > 0
    inner = ndimage.distance_transform_edt(part)
    outer, nearest = ndimage.distance_transform_edt(~part, return_indices=True)
    rim = (inner <= reach) & (outer <= reach)
    deep, ground = inner > reach, outer > reach
    if not deep.any() or not ground.any():
        return whole
    off, at = ndimage.distance_transform_edt(~deep, return_indices=True)
    rim &= off < 2.5 * reach
    beside = ndimage.distance_transform_edt(~ground, return_distances=False, return_indices=True)
    face, paper = (colours[tuple(places)][rim] for places in (at, beside))
    contrast = face - paper
    covered = ((colours[rim] - paper) * contrast).sum(axis=1) > 0.5 * (contrast**2).sum(axis=1)
    out = whole.copy()
    out[rim] = np.where(covered, whole[tuple(nearest)][rim], 0)
    return out


def _disc(radius: int) -> Array:
    steps = np.arange(-radius, radius + 1)
    rows, columns = np.nonzero(np.hypot(steps[:, None], steps) <= radius)
    return np.stack([rows - radius, columns - radius], axis=1)


@njit(cache=True)
def _voted(labels, near):  # type: ignore[no-untyped-def]
    """Each pixel's label by majority of those `near`, where they differ."""
    height, width = labels.shape
    out = labels.copy()
    votes = np.zeros(labels.max() + 1, dtype=np.int32)
    for row in range(height):
        for col in range(width):
            here, mixed = labels[row, col], False
            for r, c in near:
                i, j = row + r, col + c
                if 0 <= i < height and 0 <= j < width and labels[i, j] != here:
                    mixed = True
                    break
            if not mixed:
                continue
            best = here
            for r, c in near:
                i, j = row + r, col + c
                if 0 <= i < height and 0 <= j < width:
                    votes[labels[i, j]] += 1
            for r, c in near:
                i, j = row + r, col + c
                inside = 0 <= i < height and 0 <= j < width
                if inside and votes[labels[i, j]] > votes[best]:
                    best = labels[i, j]
            for r, c in near:
                i, j = row + r, col + c
                if 0 <= i < height and 0 <= j < width:
                    votes[labels[i, j]] = 0
            out[row, col] = best
    return out


def _borders(labels: Array) -> Array:
    """One pixel wide borders, in the region; of two regions in the one that is left or above."""
    out = np.zeros(labels.shape, dtype=bool)
    across, down = labels[:, :-1] != labels[:, 1:], labels[:-1] != labels[1:]
    left, above = labels[:, :-1] == 0, labels[:-1] == 0
    out[:, :-1] |= across & ~left
    out[:, 1:] |= across & left
    out[:-1] |= down & ~above
    out[1:] |= down & above
    return out


def _spread(values: Array) -> float:
    low, high = np.percentile(values, [8, 92])
    return float(high - low)


def _tints(colours: Array, whole: Array, ink: Array, noise: float) -> tuple[Array, Array]:
    """(N + 1, 3) median colours of the regions, and (N + 1,) whether they hardly vary."""
    count = int(whole.max())
    tints, flat = np.zeros((count + 1, 3)), np.zeros(count + 1, dtype=bool)
    for i, box in enumerate(ndimage.find_objects(whole), 1):
        if box is None:
            continue
        at = whole[box] == i
        inner = ndimage.binary_erosion(at & ~ink[box], iterations=2)
        inside = colours[box][inner if inner.sum() > 20 else at]
        tints[i] = np.median(inside, axis=0)
        spread = _spread(greys(inside))
        flat[i] = spread < max(FLAT_SPREAD, 3.5 * noise)
        if not flat[i] and spread < MOST_SLOPED and inner.sum() > 20:  # soft light on a flat face
            rows, columns = np.nonzero(inner)
            terms = np.column_stack([np.ones(len(rows)), rows, columns])
            values = greys(inside)
            rest = values - terms @ np.linalg.lstsq(terms, values, rcond=None)[0]
            flat[i] = _spread(rest) < max(SLOPED_SPREAD, 2.5 * noise)
    return tints, flat
