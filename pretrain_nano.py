r"""How models/nano was made: a small LLaVA trained from scratch on synthetic parts.

    python pretrain_nano.py                     # about an hour on 2 cores
    python pretrain_nano.py --resume            # after an interruption
    python pretrain_nano.py --parts 2000 --short-steps 50 --steps 50 --out runs/nano-try   # a look

models/nano had four rounds, about two hours and a half of training on one core:

    python pretrain_nano.py
    python pretrain_nano.py --seed 2 --parts 120000 --steps 2800 --out runs/nano-2 \
        --base runs/nano/model
    python pretrain_nano.py --seed 3 --steps 2200 --out runs/nano-3 --base runs/nano-2/model
    python pretrain_nano.py --seed 2 --parts 120000 --steps 1450 --out runs/nano-4 \
        --base runs/nano-3/model

First makes the parts (shards that are kept and reused), then trains the
tokenizer and the model. With --base both come from a folder, and the first stage,
which teaches a new model to look, is skipped. Uses a GPU where there is one. Left out:
the families of the bundled samples, which the base shall not have seen, and any real sample.
"""

# %% Settings
from __future__ import annotations

import argparse
import itertools
import multiprocessing
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm
from transformers import set_seed

from image2cad.cad import to_code
from image2cad.common import InputError, prepare_run, run_cli
from image2cad.rendering import draw
from image2cad.synthesis import random_parts
from image2cad.training import Settings, as_dict, collate, fit, labelled_loss
from image2cad.vlm import IGNORED, Shape, build_nano, encode_prompt, load_base, train_tokenizer

PARTS = 60_000  # distinct drawings
SHARD = 2_000  # parts a file
SHORT = 30  # tokens of a program at most, in the first stage
SHORT_STEPS = 1_200
STEPS = 1_600
BATCH = 64
LEARNING_RATE = 8e-4
LONGEST = 72  # tokens of a program; the few longer ones cost time and teach little
SEED = 1
PROCESSES = 2
TOKENIZER_PARTS = 20_000


# %% Data
def make_shard(job: tuple[Path, int, int]) -> None:
    """Draw one shard's parts: grey pictures (N, side, side) uint8 and their programs."""
    file, seed, count = job
    source = itertools.islice(random_parts(seed), count)
    pairs = [(to_code(program), draw(drawing, Shape.image)[..., 0]) for program, drawing in source]
    part = file.with_suffix(".part")
    with open(part, "wb") as out:
        np.savez(
            out,
            pictures=np.stack([picture for _, picture in pairs]),
            codes=np.array([code for code, _ in pairs]),
        )
    part.rename(file)


def make_parts(
    folder: Path, count: int, processes: int, seed: int = SEED
) -> tuple[np.ndarray, list[str]]:
    """All parts, drawn where they are not on disk yet; equal programs are kept once."""
    folder.mkdir(parents=True, exist_ok=True)
    jobs = [
        (folder / f"seed{seed}-{number:04d}-{size}.npz", seed * 100_000 + number, size)
        for number, size in enumerate(min(SHARD, count - start) for start in range(0, count, SHARD))
    ]
    missing = [job for job in jobs if not job[0].is_file()]
    if missing:
        with multiprocessing.get_context("spawn").Pool(processes) as pool:
            shards = pool.imap_unordered(make_shard, missing)
            list(tqdm(shards, total=len(missing), desc=f"parts ({SHARD} each)", unit="shard"))
    pictures: list[np.ndarray] = []
    codes: list[str] = []
    for file, _, _ in jobs:
        with np.load(file) as shard:
            pictures.append(shard["pictures"])
            codes.extend(str(code) for code in shard["codes"])
    first = sorted({code: i for i, code in reversed(list(enumerate(codes)))}.values())
    return np.concatenate(pictures)[first], [codes[i] for i in first]


class Drawings(torch.utils.data.Dataset[dict[str, torch.Tensor]]):
    """The examples that `prompting.encode_example` makes, from shards and faster."""

    def __init__(self, pictures: np.ndarray, codes: list[str], processor: object) -> None:
        from PIL import Image

        self.pictures = pictures
        blank = Image.fromarray(np.zeros((Shape.image, Shape.image, 3), dtype=np.uint8))
        self.head = encode_prompt(processor, [blank])["input_ids"][0]
        tokenizer = processor.tokenizer  # type: ignore[attr-defined]
        bodies = tokenizer([f" {code}" for code in codes], add_special_tokens=False)["input_ids"]
        self.bodies = [np.array([*body, tokenizer.eos_token_id], dtype=np.int16) for body in bodies]
        self.lengths = np.array([len(self.head) + len(body) for body in self.bodies])
        images = processor.image_processor  # type: ignore[attr-defined]
        self.mean, self.std = float(images.image_mean[0]), float(images.image_std[0])

    def __len__(self) -> int:
        return len(self.bodies)

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        body = torch.from_numpy(self.bodies[index].astype(np.int64))
        ids = torch.cat([self.head, body])
        labels = torch.cat([torch.full_like(self.head, IGNORED), body])
        grey = torch.from_numpy(self.pictures[index].astype(np.float32) / 255)
        pixels = ((grey - self.mean) / self.std).expand(1, 3, -1, -1)
        return {
            "input_ids": ids,
            "attention_mask": torch.ones_like(ids),
            "labels": labels,
            "pixel_values": pixels,
        }


# %% Pretrain
def main() -> int:
    """Make the parts, train, save."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--parts", type=int, default=PARTS)
    parser.add_argument("--short-steps", type=int, default=SHORT_STEPS)
    parser.add_argument("--steps", type=int, default=STEPS)
    parser.add_argument("--batch", type=int, default=BATCH)
    parser.add_argument("--learning-rate", type=float, default=LEARNING_RATE)
    parser.add_argument("--processes", type=int, default=PROCESSES)
    parser.add_argument("--seed", type=int, default=SEED, help="of the parts and of the order")
    parser.add_argument("--base", help="a nano model to go on from instead of random weights")
    parser.add_argument("--data", type=Path, default=Path("runs/nano-parts"))
    parser.add_argument("--out", type=Path, default=Path("runs/nano"))
    parser.add_argument("--resume", action="store_true")
    arguments = parser.parse_args()
    for name in ("parts", "short_steps", "steps", "batch", "processes"):
        if getattr(arguments, name) < 1:
            raise InputError(f"--{name.replace('_', '-')} must be at least 1")

    settings = Settings(
        batch_size=arguments.batch,
        learning_rate=arguments.learning_rate,
        warmup=0.05,
        tower_rate=0.3,
        weight_decay=0.01,
        save_steps=200,
        log_steps=20,
        seed=arguments.seed,
    )
    plan = {k: v for k, v in vars(arguments).items() if k not in ("data", "processes")}
    prepare_run(arguments.out, {**plan, "settings": as_dict(settings)}, arguments.resume)
    pictures, codes = make_parts(
        arguments.data, arguments.parts, arguments.processes, arguments.seed
    )

    set_seed(arguments.seed)
    if arguments.base:
        model, processor = load_base(arguments.base)
        model = model.float()  # all weights are trained: half precision would lose small steps
    else:
        model, processor = build_nano(train_tokenizer(codes[:TOKENIZER_PARTS]))
    tokens = processor.tokenizer(codes, add_special_tokens=False)["input_ids"]
    lengths = np.array([len(ids) for ids in tokens])
    print(
        f"{len(codes):,} distinct parts, {lengths.mean():.0f} tokens a program on average; "
        f"{sum(p.numel() for p in model.parameters()) / 1e6:.1f} M parameters, "
        f"{len(processor.tokenizer)} tokens in the vocabulary"
    )
    # Short programs first: most of their tokens depend on the picture, so the model learns to look.
    stages = [("short", SHORT, arguments.short_steps), ("all", LONGEST, arguments.steps)]
    for name, longest, steps in stages[1:] if arguments.base else stages:
        rows = np.flatnonzero(lengths <= longest)
        if len(rows) < 2:
            raise InputError(f"too few parts have at most {longest} tokens; raise --parts")
        held_out, rows = rows[: len(rows) // 100 + 1], rows[len(rows) // 100 + 1 :]
        data = Drawings(pictures[rows], [codes[i] for i in rows], processor)
        fit(
            model,
            data,
            replace(settings, steps=steps, by_length=name == "all"),
            arguments.out / name,
            processor.tokenizer.pad_token_id,
            arguments.resume,
        )
        unseen = Drawings(pictures[held_out], [codes[i] for i in held_out], processor)
        own, other = losses(model, unseen, processor.tokenizer.pad_token_id)
        print(
            f"{name}: {len(rows):,} parts; held-out loss {own:.3f}, "
            f"with another part's picture {other:.3f}"
        )
    model.save_pretrained(arguments.out / "model")
    processor.save_pretrained(arguments.out / "model")
    print(f"the model is in {arguments.out / 'model'}")
    return 0


@torch.no_grad()
def losses(model: torch.nn.Module, data: Drawings, pad: int) -> tuple[float, float]:
    """Loss on at most 128 examples with their own picture, and with their neighbour's."""
    examples = collate([data[i] for i in range(min(len(data), 128))], pad)
    batch = {name: value.to(next(model.parameters()).device) for name, value in examples.items()}
    labels = batch.pop("labels")
    model.eval()
    own = float(labelled_loss(model(**batch), labels))
    batch["pixel_values"] = batch["pixel_values"].roll(1, 0)
    other = float(labelled_loss(model(**batch), labels))
    model.train()
    return own, other


if __name__ == "__main__":
    run_cli(main)
