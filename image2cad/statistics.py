"""What parts are made of: the same figures for real and for synthetic programs, side by side.

    python -m image2cad.statistics --data folder_of_rows --synthetic 3000 --seed 1 \\
        --tokenizer models/nano

Prints Markdown tables; docs/statistics.md shows them and says what differs. Real rows
are few, so each of their shares has its 95 % interval (Wilson); a synthetic share
outside of it is marked. Left out: what no single program says, such as duplicates.
"""

from __future__ import annotations

import argparse
import itertools
import math
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tqdm import tqdm

from image2cad.candidates import parts
from image2cad.errors import InputError, run_cli
from image2cad.measures import normal_form, numbers_of, of_part, of_step
from image2cad.parsing import parse
from image2cad.programs import Program, to_code
from image2cad.sources import read_rows
from image2cad.transforms import snapped

Z = 1.959964  # of the 95 % interval
TOKENS = "tokens of the program, on the grid"
QUANTILES = (0.1, 0.25, 0.5, 0.75, 0.9)


@dataclass(frozen=True)
class Figures:
    """One set of parts: how many, share -> (yes, of), and the values to take quantiles of."""

    parts: int
    shares: dict[str, tuple[int, int]]
    values: dict[str, list[float]]


def measure(programs: Iterable[Program], tokens: Callable[[str], int] | None = None) -> Figures:
    """The figures of some programs; those that build nothing are left out.

    `tokens` counts the tokens of a program's text on the grid.
    """
    yes: Counter[str] = Counter()
    of: Counter[str] = Counter()
    values: dict[str, list[float]] = {}
    count = 0
    for program in programs:
        form = normal_form(program)
        if form is None:
            continue
        count += 1
        steps = form[0]
        answers = [of_part(*form), *(of_step(steps, i) for i in range(len(steps)))]
        for name, true in ((name, true) for facts in answers for name, true in facts.items()):
            yes[name] += true
            of[name] += 1
        numbers = numbers_of(*form)
        if tokens:
            numbers[TOKENS] = float(tokens(to_code(snapped(steps))))
        for name, value in numbers.items():
            values.setdefault(name, []).append(value)
    return Figures(count, {name: (yes[name], of[name]) for name in of}, values)


def wilson(yes: int, of: int) -> tuple[float, float]:
    """The 95 % interval of a share after `yes` of `of`, in [0, 1]."""
    if of == 0:
        return 0.0, 1.0
    p, n = yes / of, float(of)
    middle = (p + Z * Z / (2 * n)) / (1 + Z * Z / n)
    half = Z * math.sqrt(p * (1 - p) / n + Z * Z / (4 * n * n)) / (1 + Z * Z / n)
    return max(middle - half, 0.0), min(middle + half, 1.0)


def table(real: Figures, synthetic: Figures) -> str:
    """Shares and quantiles of both, as Markdown."""
    lines = []
    groups: dict[str, list[str]] = {}
    for name in sorted(dict.fromkeys([*real.shares, *synthetic.shares]), key=_order):
        group, _, question = name.partition(": ")
        yes, of = real.shares.get(name, (0, 0))
        low, high = wilson(yes, of)
        got, all_ = synthetic.shares.get(name, (0, 0))
        share = got / all_ if all_ else 0.0
        mark = "" if low <= share <= high else " *"
        groups.setdefault(group, []).append(
            f"| {question} | {yes} of {of} | {_percent(low)} to {_percent(high)} "
            f"| {_percent(share)}{mark} |"
        )
    for group, rows in groups.items():
        title = group[0].upper() + group[1:]
        lines += [f"| {title} | real | 95 % interval | synthetic |", "| --- | --: | --: | --: |"]
        lines += [*rows, ""]
    heads = " | ".join(f"{100 * q:.0f} %" for q in QUANTILES)
    lines += [f"| Quantiles | of | {heads} |", "| --- | --- |" + " --: |" * len(QUANTILES)]
    for name, ours in synthetic.values.items():
        for label, values in (("real", real.values.get(name, [])), ("synthetic", ours)):
            numbers = np.quantile(values, QUANTILES).tolist() if values else [math.nan] * 5
            texts = " | ".join(f"{number:.3g}" for number in numbers)
            lines.append(f"| {name if label == 'real' else ''} | {label} | {texts} |")
    return "\n".join(lines) + "\n"


ORDER = (
    "parts", "of several", "planes", "first sketch", "later sketch, added",
    "later sketch, cut away", "rectangles", "sketches with holes", "later steps",
)  # fmt: skip


def _order(name: str) -> int:
    return ORDER.index(name.partition(": ")[0])


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"


def _counter(folder: Path) -> Callable[[str], int]:
    from transformers import PreTrainedTokenizerFast

    if not (folder / "tokenizer.json").is_file():
        raise InputError(f"{folder} holds no tokenizer.json")
    tokenizer = PreTrainedTokenizerFast.from_pretrained(folder)
    return lambda code: len(tokenizer(code, add_special_tokens=False)["input_ids"])


def main() -> int:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", required=True, help="a folder or a data set on the hub")
    parser.add_argument("--split", default="train")
    parser.add_argument("--synthetic", type=int, default=2000, help="how many synthetic parts")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--tokenizer", type=Path, help="a model's folder, to count tokens with")
    given = parser.parse_args()
    if given.synthetic < 1:
        raise InputError("--synthetic must be at least 1")
    codes = [str(row["cadquery"]) for _, row in read_rows(given.data, given.split, False)]
    programs = [program for code in codes if (program := parse(code))]
    if not programs:
        raise InputError(f"no program in {given.data} could be read")
    made = itertools.islice((program for program, _ in parts(given.seed)), given.synthetic)
    tokens = _counter(given.tokenizer) if given.tokenizer else None
    real = measure(tqdm(programs, desc="real", unit="part"), tokens)
    ours = measure(tqdm(made, total=given.synthetic, desc="synthetic", unit="part"), tokens)
    symmetric = sum("both=True" in code for code in codes)
    print(
        f"Real: {real.parts} parts of {len(codes)} rows, {symmetric} with a symmetric extrusion. "
        f"Synthetic: {ours.parts} parts of seed {given.seed}.\n"
    )
    print(table(real, ours), end="")
    return 0


if __name__ == "__main__":
    run_cli(main)
