"""How many completions a second the rewards score, beside scoring each program by itself.

    PYTHONPATH=. python benchmarks/rewards.py

Completions are what models/nano writes for new synthetic parts at temperature 1, several for a
picture, as GRPO has them: compact, partly equal, partly broken. Equal ones are run once. The plain
way beside it runs program and reference for every completion, one after the other.
"""

from __future__ import annotations

import argparse
import itertools
import os
import time

from PIL import Image

from image2cad.cad.program import to_code
from image2cad.rendering.raster import draw
from image2cad.synthesis.parts import random_parts
from image2cad.training.rewards import Reward, iou_reward, validity_reward
from image2cad.vlm.generation import generate_codes
from image2cad.vlm.loading import load_model, quiet
from metrics import get_iou_best, run_cadquery

SEED = 987


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--pictures", type=int, default=32)
    parser.add_argument("--programs", type=int, default=8, help="for each picture")
    parser.add_argument("--plain", type=int, default=64, help="completions scored the plain way")
    arguments = parser.parse_args()
    quiet()
    source = itertools.islice(random_parts(SEED), arguments.pictures)
    pairs = [(to_code(program), Image.fromarray(draw(drawing))) for program, drawing in source]
    many = [pair for pair in pairs for _ in range(arguments.programs)]
    references, pictures = [code for code, _ in many], [picture for _, picture in many]
    model, processor = load_model("models/nano")
    codes = generate_codes(model, processor, pictures, 128, 200, 1.0, progress=False)

    run_cadquery(references[0])  # the warm process, and compiled functions
    rewards: list[Reward] = [validity_reward, iou_reward]
    for reward in rewards:
        reward(references[:2], cadquery=references[1:3])
    seconds, means = {}, {}
    for reward in rewards:
        started = time.perf_counter()
        values = reward(codes, cadquery=references)
        seconds[reward.__name__] = time.perf_counter() - started
        means[reward.__name__] = sum(values) / len(values)
    started = time.perf_counter()
    step = max(len(codes) // arguments.plain, 1)
    chosen = range(0, len(codes), step)
    for index in chosen:
        get_iou_best(codes[index], references[index])
    plain = len(chosen) / (time.perf_counter() - started)

    distinct = len(set(zip(codes, references, strict=True)))
    print(f"{os.cpu_count()} cores; {len(codes)} completions, {distinct} distinct")
    for name, value in seconds.items():
        note = " (runs the programs)" if name == "validity_reward" else ""
        print(f"{name:16} {1000 * value / len(codes):6.1f} ms each, mean {means[name]:.3f}{note}")
    both = sum(seconds.values())
    print(f"both:             {len(codes) / both:.1f} a second, {distinct / both:.1f} distinct")
    print(f"one by one:       {plain:.1f} a second; the batch is {len(codes) / both / plain:.1f}x")


if __name__ == "__main__":
    main()
