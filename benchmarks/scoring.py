"""What a score costs and how exact it is, beside exact OpenCASCADE booleans, in one run.

    python benchmarks/scoring.py --data ../shared/data/gencad_dev

Prints, for the same real parts: CPU time a pair by stage; the time of exact booleans after the
same alignment and how far our IoU is from theirs; programs and pairs a second; the CPU time that
isolation adds. Pairs are a part with itself turned, with a perturbed copy, with another part.

The exact route follows the published definition of IoU_best: both solids moved to the centre of
mass and scaled, four alignments of the principal axes, volumes of intersection and union by OCC.
It runs in a child of its own with a deadline, because OCC's booleans can hang or crash.
Leaves out: wall times of other people's code, which is not shipped here.
"""

from __future__ import annotations

import argparse
import io
import json
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
from metrics import warm  # noqa: E402
from metrics.alignment import principal_turns  # noqa: E402
from metrics.execution import Part, run_cadquery, run_many  # noqa: E402
from metrics.geometry import body, iou_aligned, iou_rotated  # noqa: E402
from metrics.references import _kept  # noqa: E402

DEADLINE = 60.0  # seconds for the exact booleans of one pair
CONSISTENT = 1e-4  # relative: |V(a) + V(b) - V(common) - V(union)| where OCC is to be trusted


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=ROOT / "../shared/data/gencad_dev")
    parser.add_argument("--pairs", type=int, default=210)
    parser.add_argument("--timed", type=int, default=24, help="pairs timed by the exact route")
    options = parser.parse_args()
    lines = (options.data / "metadata.jsonl").read_text().splitlines()
    codes = [json.loads(line)["cadquery"] for line in lines]
    random = np.random.default_rng(0)
    parts = [part for part in run_many(codes) if isinstance(part, Part)]
    print(f"{len(codes)} programs, {len(parts)} valid; {os.cpu_count()} cores;"
          f" protection {', '.join(parts[0].protection)}")  # fmt: skip
    in_process(codes)
    isolation(codes)
    pairs = make_pairs(codes, parts, options.pairs, random)
    ours = cost_of_a_pair(pairs)
    exact(pairs, options.timed, ours)
    throughput(codes)


def cpu(work: Callable[[], Any]) -> float:
    """CPU seconds of this process for one call."""
    start = time.process_time()
    work()
    return time.process_time() - start


def in_process(codes: list[str]) -> None:
    """What running and measuring costs where nothing is isolated, in a fork of its own."""

    def work(pipe: Any) -> None:
        from metrics import measure, program

        breps = []
        program.run(codes[0])
        run = cpu(lambda: breps.extend(program.run(code)[1] for code in codes))
        measured = cpu(lambda: [measure.measure(brep) for brep in breps])
        pipe.send((run / len(codes), measured / len(codes)))

    BASE.update(zip(("run", "measure"), with_deadline(work, 600) or (0, 0), strict=True))
    print("\nCPU milliseconds a program")
    print(f"  in process: run {1e3 * BASE['run']:.1f}, measure {1e3 * BASE['measure']:.1f}")


BASE: dict[str, float] = {}


def isolation(codes: list[str]) -> None:
    """CPU of the whole process tree for running and measuring, less what it costs in process."""
    warm.stop()
    run_cadquery(codes[0])
    start = tree_cpu()
    for code in codes:
        run_cadquery(code)
    both = (tree_cpu() - start) / len(codes)
    start = tree_cpu()
    for code in codes:
        job = code.encode()
        warm.run_job(warm.worker.PROGRAM, job, 30, 4 << 30, 64 << 20)
    run = (tree_cpu() - start) / len(codes)
    print(f"  isolated:   run {1e3 * run:.1f}, run and measure {1e3 * both:.1f}")
    print(f"  isolation adds {1e3 * (run - BASE['run']):.1f} to a run,"
          f" {1e3 * (both - BASE['run'] - BASE['measure']):.1f} with re-measuring")  # fmt: skip


def tree_cpu() -> float:
    """CPU seconds of this process, of the warm process and its wardens, ended children included."""
    assert warm._state.root is not None
    total, root = time.process_time(), warm._state.root.pid
    for stat in Path("/proc").glob("[0-9]*/stat"):
        fields = stat.read_text().rpartition(")")[2].split()
        if int(stat.parent.name) == root or int(fields[1]) == root:
            total += sum(map(int, fields[11:15])) / os.sysconf("SC_CLK_TCK")
    return total


def make_pairs(
    codes: list[str], parts: list[Part], count: int, random: np.random.Generator
) -> list[tuple[str, Part, Part]]:
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


def cost_of_a_pair(pairs: list[tuple[str, Part, Part]]) -> float:
    """CPU seconds of our pca score; prints it by stage, with the cost of the search."""
    from metrics.geometry import _bodies

    bodies = sum(cpu(lambda p=p: (_bodies.clear(), body(p))) for _, p, _ in pairs) / len(pairs)
    for _, a, b in pairs:
        body(a), body(b)
    costs = {}
    for alignment in ("published", "pca", "best"):
        times = [cpu(lambda a=a, b=b, k=alignment: iou_aligned(a, b, k)) for _, a, b in pairs]
        costs[alignment] = float(np.mean(times))
        print(f"\nCPU milliseconds a pair, {alignment}" if alignment == "published" else
              f"CPU milliseconds a pair, {alignment}", end=": ")  # fmt: skip
        print(f"weld and make solid {1e3 * bodies:.1f}, align and booleans mean"
              f" {1e3 * np.mean(times):.1f}, median {1e3 * np.median(times):.1f},"
              f" p95 {1e3 * np.percentile(times, 95):.1f}")  # fmt: skip
    return bodies + costs["pca"]


def exact(pairs: list[tuple[str, Part, Part]], timed: int, ours: float) -> None:
    """Agreement with OCC on every pair under one alignment, and OCC's time on some pairs."""
    errors, dropped, kinds = [], 0, []
    for kind, a, b in pairs:
        first, second = body(a), body(b)
        turns = principal_turns(first, second, mirrored=False)
        turn = turns[int(np.argmax([iou_rotated(first, second, t) for t in turns]))]
        got = with_deadline(lambda pipe, x=(a, b, turn): pipe.send(occ_volumes(*x)), DEADLINE)
        if got is None or not consistent(*got):
            dropped += 1
            continue
        volume_a, volume_b, common, _ = got
        errors.append(
            abs(iou_rotated(first, second, turn) - common / (volume_a + volume_b - common))
        )
        kinds.append(kind)
    table = np.array(errors)
    print(f"\nagreement with exact booleans, same rigid alignment: {len(table)} pairs,"
          f" {dropped} left out where OCC fails or its volumes do not add up")  # fmt: skip
    print(f"  |difference of IoU|: mean {table.mean():.1e}, p99 {np.percentile(table, 99):.1e},"
          f" worst {table.max():.1e}")  # fmt: skip
    for kind in ("self", "perturbed", "random"):
        mine = table[np.array(kinds) == kind]
        print(f"  {kind}: {len(mine)} pairs, mean {mine.mean():.1e}, worst {mine.max():.1e}")
    step = max(1, len(pairs) // timed)
    times = [with_deadline(lambda pipe, x=(a, b): pipe.send(occ_route(*x)), 4 * DEADLINE)
             for _, a, b in pairs[::step]]  # fmt: skip
    route = float(np.mean([t for t in times if t is not None]))
    print(f"\nexact route, four alignments, intersection and union: {1e3 * route:.0f} CPU ms a pair"
          f" over {len(times)} pairs")  # fmt: skip
    print(f"  ours, four alignments: {1e3 * ours:.1f} ms, {route / ours:.0f} times less")


def consistent(volume_a: float, volume_b: float, common: float, union: float) -> bool:
    """Whether OCC's volumes satisfy inclusion and exclusion."""
    return abs(volume_a + volume_b - common - union) <= CONSISTENT * (volume_a + volume_b)


def occ_solid(part: Part, turn: np.ndarray) -> Any:
    """The part's exact solid at its centre of mass, radius of gyration 1, turned."""
    import cadquery as cq
    from OCP.BRepBuilderAPI import BRepBuilderAPI_Transform
    from OCP.gp import gp_Pnt, gp_Trsf, gp_Vec

    move, scale, rotate = gp_Trsf(), gp_Trsf(), gp_Trsf()
    move.SetTranslation(gp_Vec(*(-part.center)))
    scale.SetScale(gp_Pnt(0, 0, 0), float(np.sqrt(2 * part.volume / np.trace(part.inertia))))
    rotate.SetValues(*np.hstack([turn, np.zeros((3, 1))]).ravel())
    whole = rotate.Multiplied(scale).Multiplied(move)
    shape = cq.Shape.importBin(io.BytesIO(part.brep))
    return cq.Shape.cast(BRepBuilderAPI_Transform(shape.wrapped, whole, True).Shape())


def occ_volumes(a: Part, b: Part, turn: np.ndarray) -> tuple[float, float, float, float]:
    """Exact volumes of a, b, their intersection and their union."""
    first, second = occ_solid(a, np.eye(3)), occ_solid(b, turn)
    common, union = first.intersect(second), first.fuse(second)
    return first.Volume(), second.Volume(), common.Volume(), union.Volume()


def occ_route(a: Part, b: Part) -> float:
    """CPU seconds of the exact score: four alignments, two booleans each."""
    moments = [np.linalg.eigh(part.inertia)[1] for part in (a, b)]
    from metrics.alignment import SIGNS, proper

    start = time.process_time()
    for signs in SIGNS:
        occ_volumes(a, b, proper(moments[0]) @ np.diag(signs) @ proper(moments[1]).T)
    return time.process_time() - start


def with_deadline(work: Callable[[Any], None], seconds: float) -> Any:
    """What `work` sends through its pipe, from a forked child; None if it does not in time."""
    context = multiprocessing.get_context("fork")
    ours, theirs = context.Pipe(duplex=False)
    child = context.Process(target=work, args=(theirs,))
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
