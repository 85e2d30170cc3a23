r"""How models/nano was made: a small LLaVA trained from scratch on synthetic parts.

    python pretrain_nano.py                     # about an hour on 2 cores
    python pretrain_nano.py --resume            # after an interruption
    python pretrain_nano.py --parts 2000 --short-steps 50 --max-steps 50 --out runs/nano-try

models/nano had four rounds, about two hours and a half of training on one core:

    python pretrain_nano.py
    python pretrain_nano.py --seed 2 --parts 120000 --max-steps 2800 --out runs/nano-2 \
        --base runs/nano/model
    python pretrain_nano.py --seed 3 --max-steps 2200 --out runs/nano-3 --base runs/nano-2/model
    python pretrain_nano.py --seed 2 --parts 120000 --max-steps 1450 --out runs/nano-4 \
        --base runs/nano-3/model

First makes the parts (shards that are kept and reused), then trains the
tokenizer and the model. With --base both come from a folder, and the first stage,
which teaches a new model to look, is skipped. Uses a GPU where there is one. Left out:
the families of the bundled samples, which the base shall not have seen, and any real sample.
"""

# %% Settings
from __future__ import annotations

import io
import itertools
import multiprocessing
import random
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from tqdm import tqdm
from transformers import set_seed

from image2cad.cad import to_code
from image2cad.common import InputError, at_least, prepare_run, read_flags, run_cli, write_whole
from image2cad.rendering import draw, draw_in_style
from image2cad.synthesis import random_parts
from image2cad.training import TrainingSettings, collate, fine_tune, labelled_loss
from image2cad.vlm import IGNORED, NanoShape, build_nano, encode_prompt, load_base, train_tokenizer

# Parts
PARTS = 60_000  # distinct drawings
DATA = "runs/nano-parts"  # where the drawn parts are kept
PROCESSES = 2  # that draw
REDRAWN = 0.0  # share of the parts drawn in another style and from another side
# Model
BASE: str | None = None  # a nano model to go on from instead of random weights
MOST_TOKENS = 72  # of a program; the few longer ones cost time and teach little
# Training
SHORT_TOKENS = 30  # of a program, in the first stage
SHORT_STEPS = 1_200  # of the first stage
MAX_STEPS = 1_600  # of the second stage, with all programs
PER_DEVICE_TRAIN_BATCH_SIZE = 64
LEARNING_RATE = 8e-4
SEED = 1  # of the parts and of the order
# The run
OUT = "runs/nano"
RESUME = False  # go on with an interrupted run

_PARTS_A_SHARD = 2_000  # a shard is a file
_TOKENIZER_PARTS = 20_000


# %% Data
def make_shard(job: tuple[Path, int, int, float]) -> None:
    """Draw one shard's parts: grey pictures (N, side, side) uint8 and their programs."""
    file, seed, count, redrawn = job
    source = itertools.islice(random_parts(seed), count)
    chance = random.Random(seed)
    pairs = []
    for program, drawing in source:
        if chance.random() < redrawn:
            picture = Image.fromarray(draw_in_style(drawing, "any", chance=chance)).convert("L")
            side = (NanoShape.image, NanoShape.image)
            grey = np.asarray(picture.resize(side, Image.Resampling.BOX))
        else:
            grey = draw(drawing, NanoShape.image)[..., 0]
        pairs.append((to_code(program), grey))
    data = io.BytesIO()
    np.savez(
        data,
        pictures=np.stack([picture for _, picture in pairs]),
        codes=np.array([code for code, _ in pairs]),
    )
    write_whole(file, data.getvalue())


def make_parts(
    folder: Path, count: int, processes: int, seed: int, redrawn: float = 0.0
) -> tuple[np.ndarray, list[str]]:
    """All parts, drawn where they are not on disk yet; equal programs are kept once."""
    folder.mkdir(parents=True, exist_ok=True)
    kind = f"-redrawn{redrawn}" if redrawn else ""
    jobs = [
        (
            folder / f"seed{seed}-{number:04d}-{size}{kind}.npz",
            seed * 100_000 + number,
            size,
            redrawn,
        )
        for number, size in enumerate(
            min(_PARTS_A_SHARD, count - start) for start in range(0, count, _PARTS_A_SHARD)
        )
    ]
    missing = [job for job in jobs if not job[0].is_file()]
    if missing:
        with multiprocessing.get_context("spawn").Pool(processes) as pool:
            shards = pool.imap_unordered(make_shard, missing)
            list(
                tqdm(
                    shards, total=len(missing), desc=f"parts ({_PARTS_A_SHARD} each)", unit="shard"
                )
            )
    pictures: list[np.ndarray] = []
    codes: list[str] = []
    for file, *_ in jobs:
        with np.load(file) as shard:
            pictures.append(shard["pictures"])
            codes.extend(str(code) for code in shard["codes"])
    first = sorted({code: i for i, code in reversed(list(enumerate(codes)))}.values())
    return np.concatenate(pictures)[first], [codes[i] for i in first]


class Drawings(torch.utils.data.Dataset[dict[str, torch.Tensor]]):
    """The examples that `prompting.encode_example` makes, from shards and faster."""

    def __init__(self, pictures: np.ndarray, codes: list[str], processor: object) -> None:
        self.pictures = pictures
        blank = Image.fromarray(np.zeros((NanoShape.image, NanoShape.image, 3), dtype=np.uint8))
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
    settings = read_flags(__doc__, globals())
    at_least(
        settings,
        {"parts": 1, "processes": 1, "most_tokens": 1, "short_tokens": 1, "short_steps": 1}
        | {"max_steps": 1, "per_device_train_batch_size": 1, "learning_rate": 1e-9, "seed": 0}
        | {"redrawn": 0},
    )
    out = Path(settings.out)
    training = TrainingSettings(
        per_device_train_batch_size=settings.per_device_train_batch_size,
        learning_rate=settings.learning_rate,
        warmup_steps=0.05,
        tower_rate=0.3,
        weight_decay=0.01,
        save_steps=200,
        logging_steps=20,
        seed=settings.seed,
    )
    kept = {k: v for k, v in vars(settings).items() if k not in ("data", "processes")}
    prepare_run(out, {**kept, "training": asdict(training)}, settings.resume)
    pictures, codes = make_parts(
        Path(settings.data), settings.parts, settings.processes, settings.seed, settings.redrawn
    )

    set_seed(settings.seed)
    if settings.base:
        model, processor = load_base(settings.base)
        model = model.float()  # all weights are trained: half precision would lose small steps
    else:
        model, processor = build_nano(train_tokenizer(codes[:_TOKENIZER_PARTS]))
    tokens = processor.tokenizer(codes, add_special_tokens=False)["input_ids"]
    lengths = np.array([len(ids) for ids in tokens])
    print(
        f"{len(codes):,} distinct parts, {lengths.mean():.0f} tokens a program on average; "
        f"{sum(p.numel() for p in model.parameters()) / 1e6:.1f} M parameters, "
        f"{len(processor.tokenizer)} tokens in the vocabulary"
    )
    # Short programs first: most of their tokens depend on the picture, so the model learns to look.
    stages = [
        ("short", settings.short_tokens, settings.short_steps),
        ("all", settings.most_tokens, settings.max_steps),
    ]
    for name, longest, steps in stages[1:] if settings.base else stages:
        rows = np.flatnonzero(lengths <= longest)
        if len(rows) < 2:
            raise InputError(f"too few parts have at most {longest} tokens; raise --parts")
        held_out, rows = rows[: len(rows) // 100 + 1], rows[len(rows) // 100 + 1 :]
        data = Drawings(pictures[rows], [codes[i] for i in rows], processor)
        fine_tune(
            model,
            data,
            replace(training, max_steps=steps, group_by_length=name == "all"),
            out / name,
            processor.tokenizer.pad_token_id,
            settings.resume,
        )
        unseen = Drawings(pictures[held_out], [codes[i] for i in held_out], processor)
        own, other = losses(model, unseen, processor.tokenizer.pad_token_id)
        print(
            f"{name}: {len(rows):,} parts; held-out loss {own:.3f}, "
            f"with another part's picture {other:.3f}"
        )
    model.save_pretrained(out / "model")
    processor.save_pretrained(out / "model")
    print(f"the model is in {out / 'model'}")
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
