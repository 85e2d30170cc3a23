"""What a score costs and how exact it is, beside exact OpenCASCADE booleans, in one run.

    python benchmarks/scoring.py --data ../shared/data/gencad_dev

Prints, for the same real parts: CPU time a pair by stage; the time of exact booleans after the
same alignment and how far our IoU is from theirs; programs and pairs a second; the CPU time that
isolation adds. Pairs are a part with itself turned, with a perturbed copy, with another part.

The exact routes follow the published definition of IoU_best: both solids moved to the centre of
mass and scaled, four alignments of the principal axes, volumes of intersection and union by OCC.
One uses rigid transforms, which keep planes and cylinders; the other general ones, as published.
They run in children of their own with a deadline, because OCC's booleans can hang or crash.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import multiprocessing
import os
import re
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import metrics  # noqa: E402
from image2cad.common.gencad import read_programs  # noqa: E402
from metrics.alignment import PROPER_SIGNS, principal_turns, right_handed  # noqa: E402
from metrics.execution import run_cadquery, run_many  # noqa: E402
from metrics.geometry import compare_here, iou_rotated  # noqa: E402
from metrics.normalised import _known, normalise  # noqa: E402
from metrics.parts import Part  # noqa: E402
from metrics.references import _kept  # noqa: E402
from metrics.sandbox import client  # noqa: E402

Pair = tuple[str, Part, Part]  # kind of pair, and the two parts

DEADLINE = 60.0  # seconds for the exact booleans of one pair
CONSISTENT = 1e-4  # relative: |V(a) + V(b) - V(common) - V(union)| where OCC is to be trusted


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=ROOT / "../shared/data/gencad_dev")
    parser.add_argument("--pairs", type=int, default=210)
    parser.add_argument("--timed", type=int, default=10, help="pairs timed by the exact routes")
    options = parser.parse_args()
    if not options.data.exists():
        return print(f"{options.data} is not there; name a folder with --data")
    codes = [row["code"] for row in read_programs(options.data)]
    random = np.random.default_rng(0)
    parts = [part for part in run_many(codes) if isinstance(part, Part)]
    print(f"{len(codes)} programs, {len(parts)} valid; {os.cpu_count()} cores;"
          f" protection {', '.join(parts[0].protection)}")  # fmt: skip
    isolation(codes)
    pairs = make_pairs(codes, parts, options.pairs, random)
    ours = cost_of_a_pair(pairs)
    exact(pairs, options.timed, ours)
    throughput(codes)


def cpu(work: Callable[..., Any], *arguments: Any) -> float:
    """CPU seconds of this process for one call."""
    start = time.process_time()
    work(*arguments)
    return time.process_time() - start


def run_and_measure_here(codes: list[str]) -> tuple[float, float]:
    """CPU seconds a program to run it, and to measure its result, in this process.

    Run as `exec` runs it: what stands in for files and viewers in a child is counted as isolation.
    """
    import cadquery as cq
    from OCP.OSD import OSD_ThreadPool

    from metrics.sandbox import measure, runner

    OSD_ThreadPool.DefaultPool_s(1).Init(1)  # as in the children

    def run(code: str) -> bytes:
        names: dict[str, Any] = {"cq": cq, "np": np}
        exec(code, names)
        shapes = [one for one in names.values() if isinstance(one, cq.Workplane)]
        return runner.to_brep(shapes[-1].val())

    run(codes[0])
    breps: list[bytes] = []
    ran = cpu(lambda: breps.extend(run(code) for code in codes))
    measured = cpu(lambda: [measure.measure(brep) for brep in breps])
    return ran / len(codes), measured / len(codes)


def isolation(codes: list[str]) -> None:
    """CPU of the whole process tree for running and measuring, beside what it costs in process."""
    here, measured = with_deadline(600, run_and_measure_here, codes)
    client.restart()
    run_cadquery(codes[0])
    start = tree_cpu()
    for code in codes:
        run_cadquery(code)
    both = (tree_cpu() - start) / len(codes)
    start = tree_cpu()
    for code in codes:
        client.run_job(client.fork_server.RUN_PROGRAM, code.encode(), 30, 100, 4 << 30, 64 << 20)
    run = (tree_cpu() - start) / len(codes)
    print(
        f"\nCPU milliseconds a program\n"
        f"  in process: run {1e3 * here:.1f}, measure {1e3 * measured:.1f}\n"
        f"  isolated: run {1e3 * run:.1f}, run and measure {1e3 * both:.1f}\n"
        f"  isolation adds {1e3 * (run - here):.1f} to a run,"
        f" {1e3 * (both - here - measured):.1f} with re-measuring"
    )


def tree_cpu() -> float:
    """CPU seconds of this process, of the warm process and its wardens, ended children included."""
    assert client._state.root is not None
    total, root = time.process_time(), client._state.root.pid
    for stat in Path("/proc").glob("[0-9]*/stat"):
        fields = stat.read_text().rpartition(")")[2].split()
        if int(stat.parent.name) == root or int(fields[1]) == root:
            total += sum(map(int, fields[11:15])) / os.sysconf("SC_CLK_TCK")
    return total


def make_pairs(
    codes: list[str], parts: list[Part], count: int, random: np.random.Generator
) -> list[Pair]:
    """Equal shares of self, perturbed and random pairs."""
    pairs = []
    perturbed = run_many([perturb(code, random) for code in codes])
    for i in range(count):
        part = parts[i // 3 % len(parts)]
        kind = ("self", "perturbed", "random")[i % 3]
        other: Any = part
        if kind == "perturbed":
            other = perturbed[i // 3 % len(parts)]
        if kind == "random":
            other = parts[random.integers(len(parts))]
        if isinstance(other, Part):
            with contextlib.suppress(ValueError):  # a mesh that cannot be made solid
                normalise(other)
                pairs.append((kind, part, other))
    return pairs


def perturb(code: str, random: np.random.Generator) -> str:
    """The program with a third of its numbers off by up to a fifth."""

    def change(match: re.Match[str]) -> str:
        factor = random.uniform(0.8, 1.2) if random.random() < 1 / 3 else 1.0
        return repr(float(match[0]) * factor)

    lines = code.splitlines()
    return "\n".join(
        line if "Plane(" in line else re.sub(r"(?<![\w.])\d+\.\d+(e-?\d+)?", change, line)
        for line in lines
    )


def cost_of_a_pair(pairs: list[Pair]) -> float:
    """CPU seconds of our score by `pca`, the part's own preparation included; prints the rest."""

    def prepare(part: Part) -> None:
        _known.clear()
        normalise(part)

    prepared = float(np.mean([cpu(prepare, second) for _, _, second in pairs]))
    for _, first, second in pairs:
        normalise(first)
        normalise(second)
    print(f"\nCPU milliseconds a pair: weld and make solid {1e3 * prepared:.1f}; then")
    costs = {}
    for alignment in ("published", "pca", "best"):
        times = [cpu(compare_here, first, second, alignment) for _, first, second in pairs]
        costs[alignment] = float(np.mean(times))
        print(
            f"  {alignment}: align and booleans mean {1e3 * np.mean(times):.1f},"
            f" median {1e3 * np.median(times):.1f}, p95 {1e3 * np.percentile(times, 95):.1f}"
        )
    return prepared + costs["pca"]


def exact(pairs: list[Pair], timed: int, ours: float) -> None:
    """Agreement with OCC on every pair under one alignment, and OCC's time on some pairs."""
    # Imported before the forks, for all children; one thread, as a pool does not survive a fork.
    import cadquery  # noqa: F401
    from OCP.OSD import OSD_ThreadPool

    OSD_ThreadPool.DefaultPool_s(1).Init(1)
    errors, kinds = [], []
    for kind, a, b in pairs:
        turns = principal_turns(normalise(a), normalise(b), mirrored=False)
        ours_of = [iou_rotated(normalise(a), normalise(b), turn) for turn in turns]
        turn = turns[int(np.argmax(ours_of))]
        got = with_deadline(DEADLINE, occ_volumes, a, b, turn)
        if got and abs(got[0] + got[1] - got[2] - got[3]) <= CONSISTENT * (got[0] + got[1]):
            exactly = got[2] / (got[0] + got[1] - got[2])
            errors.append(abs(max(ours_of) - exactly))
            kinds.append(kind)
    table = np.array(errors)
    print(
        f"\nagreement with exact booleans, same rigid alignment: {len(table)} pairs;"
        f" {len(pairs) - len(table)} left out where OCC fails or its volumes do not add up"
    )
    for name in ("", "self", "perturbed", "random"):
        mine = table[[name in kind for kind in kinds]]
        print(
            f"  {name or 'all'}: {len(mine)} pairs, |difference of IoU| mean {mine.mean():.1e},"
            f" p99 {np.percentile(mine, 99):.1e}, worst {mine.max():.1e}"
        )
    some = pairs[:: max(1, len(pairs) // timed)]
    print(
        f"\nexact OCC routes, four alignments, {len(some)} pairs;"
        f" ours {1e3 * ours:.1f} CPU ms a pair"
    )
    for name, general in (("rigid transforms", False), ("published: general transforms", True)):
        times = [with_deadline(DEADLINE, occ_route, a, b, general) for _, a, b in some]
        ended = [one for one in times if one is not None]
        route = float(np.mean(ended))
        print(
            f"  {name}: {1e3 * route:.0f} CPU ms a pair over {len(ended)} that ended,"
            f" {route / ours:.0f} times ours"
        )


def occ_solid(part: Part, turn: np.ndarray, general: bool = False) -> Any:
    """The part's exact solid at its centre of mass, radius of gyration 1, turned.

    general: by CadQuery's transformGeometry, which makes every face a B-spline.
    """
    import cadquery as cq
    from OCP.BRepBuilderAPI import BRepBuilderAPI_Transform
    from OCP.gp import gp_Pnt, gp_Trsf, gp_Vec

    move, scale, rotate = gp_Trsf(), gp_Trsf(), gp_Trsf()
    move.SetTranslation(gp_Vec(*(-part.center)))
    scale.SetScale(gp_Pnt(0, 0, 0), float(np.sqrt(2 * part.volume / np.trace(part.inertia))))
    rotate.SetValues(*np.hstack([turn, np.zeros((3, 1))]).ravel())
    whole = rotate.Multiplied(scale).Multiplied(move)
    shape = cq.Shape.importBin(io.BytesIO(part.brep))
    if general:
        return shape.transformGeometry(cq.Matrix(whole))
    return cq.Shape.cast(BRepBuilderAPI_Transform(shape.wrapped, whole, True).Shape())


def occ_volumes(
    a: Part, b: Part, turn: np.ndarray, general: bool = False
) -> tuple[float, float, float, float]:
    """Exact volumes of a, b, their intersection and their union."""
    first, second = occ_solid(a, np.eye(3), general), occ_solid(b, turn, general)
    common, union = first.intersect(second), first.fuse(second)
    return first.Volume(), second.Volume(), common.Volume(), union.Volume()


def occ_route(a: Part, b: Part, general: bool) -> float:
    """CPU seconds of the exact score: four alignments, two booleans each."""
    axes = [right_handed(np.linalg.eigh(part.inertia)[1]) for part in (a, b)]
    start = time.process_time()
    for signs in PROPER_SIGNS:
        occ_volumes(a, b, axes[0] @ np.diag(signs) @ axes[1].T, general)
    return time.process_time() - start


def with_deadline(seconds: float, work: Callable[..., Any], *arguments: Any) -> Any:
    """What `work` returns, from a forked child; None if it crashes or does not end in time."""
    context = multiprocessing.get_context("fork")
    ours, theirs = context.Pipe(duplex=False)

    def send() -> None:
        try:
            theirs.send(work(*arguments))
        except Exception as error:  # OCC gave up; that is a result here
            print(f"  (left out: {type(error).__name__}: {error})", file=sys.stderr)

    child = context.Process(target=send)
    child.start()
    theirs.close()
    try:
        return ours.recv() if ours.poll(seconds) else None
    except EOFError:
        return None
    finally:
        child.kill()
        child.join()


def throughput(codes: list[str]) -> None:
    """Pairs a second end to end: both programs run, and references kept from before."""
    others = codes[1:] + codes[:1]
    print("\nend to end on all cores, wall time")
    for name in ("both programs run", "references kept"):
        if name == "both programs run":
            _kept.clear()
        start = time.perf_counter()
        metrics.compute(predictions=codes, references=others)
        seconds = time.perf_counter() - start
        print(f"  {name}: {len(codes) / seconds:.1f} pairs a second")


if __name__ == "__main__":
    main()
