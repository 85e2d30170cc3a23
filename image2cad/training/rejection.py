"""Rejection sampling: many programs for a picture, the one that earns most to learn from.

    samples = best_of(model, processor, rows, {iou_reward: 1.0}, 8, Path("runs/mine/best.jsonl"))
    fine_tune(model, CodeDataset(samples, processor), ...)

The cheap alternative to GRPO: one round of sampling, then plain fine-tuning on what was good.
Left out: the rewards (rewards.py) and the fine-tuning (supervised.py).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tqdm.auto import tqdm

from image2cad.common import read_kept
from image2cad.data import Sample, StoredRows
from image2cad.training.rewards import Reward
from image2cad.vlm import generate_codes

PICTURES_A_ROUND = 16  # their programs are made and scored together


def best_of(
    model: Any,
    processor: Any,
    rows: StoredRows,
    rewards: Mapping[Reward, float],
    num_generations: int,
    file: Path,
    temperature: float = 0.6,
    max_new_tokens: int = 200,
    batch_size: int = 128,
    seed: int = 0,
) -> tuple[StoredRows, dict[str, float]]:
    """(the rows with the best of `num_generations` sampled programs each, what was earned).

    A row for which no program earned anything is left out; with validity among the rewards, that is
    one without any usable solid. What is earned: "mean" over all programs, "best" over the rows,
    "kept" rows. Every row is written to `file` as soon as it is there, and not made again.
    """
    done = read_kept(file)
    with tqdm(desc="sampling", unit=" pictures", total=len(rows), initial=len(done)) as bar:
        for start in range(0, len(rows), PICTURES_A_ROUND):
            chunk = [rows[i] for i in range(start, min(start + PICTURES_A_ROUND, len(rows)))]
            chunk = [sample for sample in chunk if sample.id not in done]
            if not chunk:
                continue
            many = [sample for sample in chunk for _ in range(num_generations)]
            codes = generate_codes(
                model, processor, [sample.pictures for sample in many], batch_size, max_new_tokens,
                temperature, seed + start, progress=False,
            )  # fmt: skip
            earned = total_rewards(codes, rewards, many)
            with open(file, "a", encoding="utf-8") as out:
                for index, sample in enumerate(chunk):
                    mine = range(index * num_generations, (index + 1) * num_generations)
                    best = max(mine, key=lambda i: earned[i])
                    mean = sum(earned[i] for i in mine) / num_generations
                    row = {"code": codes[best], "best": earned[best], "mean": mean}
                    done[sample.id] = row
                    out.write(json.dumps({"id": sample.id, **row}) + "\n")
            bar.update(len(chunk))
    answers = [done[name] for name, _, _ in rows.outlines()]
    n = max(len(answers), 1)
    means = {key: sum(answer[key] for answer in answers) / n for key in ("mean", "best")}
    kept = _with_programs(rows, answers)
    return kept, {**means, "kept": len(kept)}


def _with_programs(rows: StoredRows, answers: list[dict[str, Any]]) -> StoredRows:
    """The rows whose answer earned something, with its program.

    A program ends as its row's reference does, in a newline or in none: else fine-tuning would
    first have to unlearn the last token.
    """
    kept, codes = [], []
    for index, (_, _, reference) in enumerate(rows.outlines()):
        if answers[index]["best"] > 0:
            kept.append(index)
            codes.append(answers[index]["code"] + reference[len(reference.rstrip()) :])
    table = rows.table.select(kept).remove_columns(rows.column)
    return StoredRows(table.add_column(rows.column, codes), rows.column)


def total_rewards(
    codes: list[str], rewards: Mapping[Reward, float], samples: list[Sample]
) -> list[float]:
    """The weighted sum of the rewards of every program."""
    columns: dict[str, Any] = {
        "cadquery": [sample.cadquery for sample in samples],
        "image": [sample.image for sample in samples],
    }
    each = [[weight * x for x in reward(codes, **columns)] for reward, weight in rewards.items()]
    return [sum(values) for values in zip(*each, strict=True)]
