"""How well and how fast GenCAD's pictures are drawn, and whether a picture tells programs apart.

    PYTHONPATH=. python benchmarks/rendering.py [--data FOLDER]

The real pictures lie beside the checkout (../shared/data/gencad_dev, an image folder
in GenCAD-Code's schema). Four routes are measured against them in one run: the light
engine, OpenCASCADE as DeepCAD used it, and the part that running the program gives;
times are CPU milliseconds on one core, the least of several rounds. The ranking
draws every program with one number wrong or one feature missing, and asks whether
the true program's picture is more like the real one.
"""

from __future__ import annotations

import argparse
import os
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path as FilePath
from typing import Any

import numpy as np
from PIL import Image

from image2cad.cad.exact_engine import build_exactly
from image2cad.cad.light_engine import build
from image2cad.cad.parsing import read
from image2cad.cad.program import Circle, Loop, Path, Point, Program, Rect, Segment
from image2cad.common.gencad import read_programs
from image2cad.rendering.raster import draw
from image2cad.rendering.similarity import likeness, line_iou, silhouette_iou, ssim
from metrics.execution import run_cadquery, run_many
from metrics.parts import Part

ROOT = FilePath(__file__).resolve().parent.parent
ODD = "00129614"  # this sample's picture shows another part
FACTORS = (0.8, 1.25)
ROUNDS = 5


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", type=FilePath, default=ROOT / "../shared/data/gencad_dev")
    options = parser.parse_args()
    if not (options.data / "metadata.jsonl").is_file():
        return print(f"{options.data} is not there; name a folder with --data")
    rows = [row for row in read_programs(options.data) if row["id"] != ODD]
    real = []
    for row in rows:
        with Image.open(options.data / row["file_name"]) as picture:
            real.append(np.asarray(picture.convert("RGB")))
    codes = [row["cadquery"] for row in rows]
    programs = [program for program in map(read, codes) if program is not None]
    print(f"{len(rows)} real pictures; {len(programs)} programs are read without running them")
    if len(programs) < len(rows):
        return print("the routes are compared on programs that are all read; stopping")
    shapes: dict[str, list[Any]] = {
        "light engine": [build(program) for program in programs],
        "OpenCASCADE": [build_exactly(program) for program in programs],
        "Part": [part for part in run_many(codes) if isinstance(part, Part)],
    }
    likenesses(shapes, real)
    speeds(shapes, codes, programs)
    ranking(programs, real)


def likenesses(shapes: dict[str, list[Any]], real: list[np.ndarray]) -> None:
    """Print how alike the drawn and the real pictures are, by route."""
    print("\nagainst the real pictures   SSIM mean  worst   silhouette IoU   line IoU")
    for name, some in shapes.items():
        pictures = [draw(shape) for shape in some]
        pairs = list(zip(pictures, real, strict=True))
        alike = [ssim(a, b) for a, b in pairs]
        outer = np.mean([silhouette_iou(a, b) for a, b in pairs])
        inner = np.mean([line_iou(a, b) for a, b in pairs])
        print(
            f"  {'from a ' + name if name == 'Part' else 'program, ' + name:24}"
            f" {np.mean(alike):9.5f}  {min(alike):.4f} {outer:12.5f} {inner:14.4f}"
        )


def speeds(shapes: dict[str, list[Any]], codes: list[str], programs: list[Program]) -> None:
    """Print CPU milliseconds a picture by step, and pictures a second by route."""

    def each(work: Callable[[Any], Any], items: list[Any]) -> float:
        """CPU milliseconds an item: the least of some rounds, as other work disturbs."""
        best = np.inf
        for _ in range(ROUNDS):
            start = time.process_time()
            for item in items:
                work(item)
            best = min(best, time.process_time() - start)
        return 1e3 * best / len(items)

    reading = each(read, codes)
    builds = {
        "light engine": each(build, programs),
        "OpenCASCADE": each(build_exactly, programs),
    }
    draws = {name: each(draw, some) for name, some in shapes.items()}
    print("\nCPU ms a picture, one core: read   build and mesh   draw   program to picture")
    totals = {}
    for name, building in builds.items():
        totals[name] = reading + building + draws[name]
        print(
            f"  {name:25} {reading:6.2f} {building:16.2f} {draws[name]:6.2f}"
            f" {totals[name]:8.2f}, {1e3 / totals[name]:.0f} a second"
        )
    started = time.perf_counter()
    for code in codes:
        run_cadquery(code)
    running = 1e3 * (time.perf_counter() - started) / len(codes)
    print(f"  a Part {running:42.2f} {draws['Part']:6.2f}   (running the program: wall time)")
    ratio = totals["OpenCASCADE"] / totals["light engine"]
    print(f"  the light engine is {ratio:.1f} times as fast as OpenCASCADE")
    picture, other = draw(shapes["Part"][0]), draw(shapes["Part"][1])
    score = each(lambda _: likeness(picture, other), codes)
    print(f"  comparing two pictures: {score:.2f} ms")


def ranking(programs: list[Program], real: list[np.ndarray]) -> None:
    """Print how often the true program's picture is the likest, one change at a time."""
    counts: dict[str, Counter[str]] = {}
    for program, picture in zip(programs, real, strict=True):
        true_drawing = build(program)
        assert true_drawing is not None  # the routes above were measured on it
        truth = likeness(draw(true_drawing), picture)
        for kind, changed in changes(program):
            drawing = build(changed)
            if drawing is None:
                continue
            score = likeness(draw(drawing), picture)
            found = "first" if score < truth else "tied" if score == truth else "wrong"
            counts.setdefault(kind, Counter())[found] += 1
    print("\nthe true program against one with one change, by likeness to the real picture")
    for kind, count in [*counts.items(), ("all", sum(counts.values(), Counter()))]:
        total = sum(count.values())
        shares = ", ".join(
            f"{name} {count[name] / total:.1%}" for name in ("first", "tied", "wrong")
        )
        print(f"  {kind:20} {total:4} candidates: {shares}")


def changes(program: Program) -> Iterator[tuple[str, Program]]:
    """The program with one number wrong, one hole or one extrusion missing."""
    for i, step in enumerate(program):
        variants = [("depth", replace(step, depth=step.depth * f)) for f in FACTORS]
        for factor in FACTORS:
            loops = (widened(step.loops[0], factor), *step.loops[1:])
            variants.append(("width", replace(step, loops=loops)))
        for j in range(1, len(step.loops)):
            loops = step.loops[:j] + step.loops[j + 1 :]
            variants.append(("a hole dropped", replace(step, loops=loops)))
        for kind, changed in variants:
            yield kind, (*program[:i], changed, *program[i + 1 :])
        if len(program) > 1:
            yield "an extrusion dropped", program[:i] + program[i + 1 :]


def widened(loop: Loop, factor: float) -> Loop:
    """The loop with its radius, its width or a straight path's x coordinates times `factor`."""
    if isinstance(loop, Circle):
        return replace(loop, radius=loop.radius * factor)
    if isinstance(loop, Rect):
        return replace(loop, width=loop.width * factor)
    # Arcs stay arcs of circles only if both axes are stretched.
    tall = factor if any(segment.mid for segment in loop.segments) else 1.0

    def stretched(point: Point) -> Point:
        return (point[0] * factor, point[1] * tall)

    segments = (
        Segment(stretched(one.end), stretched(one.mid) if one.mid else None)
        for one in loop.segments
    )
    return Path(stretched(loop.start), tuple(segments))


if __name__ == "__main__":
    print(f"{os.cpu_count()} cores")
    main()
