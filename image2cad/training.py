"""Train a vision-language model on pictures and programs with the plain transformers Trainer.

    data = CodeDataset(samples, processor)
    history = fit(model, data, Settings(epochs=3), Path("runs/mine"))

Samples are never cut: rows longer than the limit are left out and named. A loss
that is zero or not a number stops the run. Checkpoints go to <folder>/checkpoints,
and `resume=True` goes on from the last one. Left out: saving the model
(modeling.py) and scores (evaluation.py).
"""

from __future__ import annotations

import dataclasses
import math
import resource
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import Dataset
from transformers import Trainer, TrainerCallback, TrainingArguments

from image2cad.compact import compact_many
from image2cad.errors import InputError
from image2cad.prompting import IGNORED, encode_example, encode_prompt
from image2cad.samples import Rejected, Sample

TARGET_IOU = 0.97  # a rounding error that no one sees in the picture, for far fewer digits


@dataclass(frozen=True)
class Settings:
    """How to train.

    epochs: passes over the data; steps: if positive, optimiser steps instead of epochs;
    batch_size: samples a device and forward pass; accumulate: passes a step;
    learning_rate: peak of a cosine schedule; warmup: share of steps until the peak;
    save_steps: steps between checkpoints; log_steps: steps between logged losses;
    eight_bit: paged 8-bit Adam (CUDA); checkpointing: recompute activations to save memory;
    by_length: batches of similar length, faster, but a resumed run then sees another order;
    tower_rate: share of the learning rate for everything outside the language model.
    """

    epochs: float = 3.0
    steps: int = -1
    batch_size: int = 8
    accumulate: int = 1
    learning_rate: float = 2e-4
    warmup: float = 0.05
    weight_decay: float = 0.0
    save_steps: int = 50
    log_steps: int = 5
    seed: int = 0
    eight_bit: bool = False
    checkpointing: bool = False
    by_length: bool = False
    tower_rate: float = 1.0


def compact_targets(samples: Sequence[Sample]) -> tuple[list[Sample], int]:
    """The samples with short programs to learn from, and how many programs changed.

    A picture shows neither position nor size, so the part is centred and made 100
    units long; the numbers then are whole or nearly so.
    """
    codes = compact_many([sample.cadquery for sample in samples], size=100, least_iou=TARGET_IOU)
    pairs = list(zip(samples, codes, strict=True))
    changed = sum(sample.cadquery != code for sample, code in pairs)
    return [dataclasses.replace(sample, cadquery=code) for sample, code in pairs], changed


class CodeDataset(Dataset[dict[str, torch.Tensor]]):
    """Samples as training examples, encoded when asked for.

    `limit` is the longest sequence in tokens, BOS, picture, prompt and EOS included
    (default: the model's positions). Longer rows are in `dropped`, never cut.
    Raises InputError if nothing is left.
    """

    def __init__(self, samples: Sequence[Sample], processor: Any, limit: int | None = None) -> None:
        self.processor = processor
        self.samples: list[Sample] = []
        self.dropped: list[Rejected] = []
        head = encode_prompt(processor, [samples[0].image])["input_ids"].shape[1] if samples else 0
        for sample in samples:
            tokens = processor.tokenizer(f" {sample.cadquery}", add_special_tokens=False)
            length = head + len(tokens["input_ids"]) + 1
            special = [t for t in processor.tokenizer.all_special_tokens if t in sample.cadquery]
            if special:
                reason = f"the code holds {special[0]!r}, a special token of the tokenizer"
                self.dropped.append(Rejected(sample.id, reason))
            elif limit is not None and length > limit:
                reason = f"{length} tokens; the limit is {limit}"
                self.dropped.append(Rejected(sample.id, reason))
            else:
                self.samples.append(sample)
        if not self.samples:
            raise InputError(
                f"no sample left to train on of {len(samples)}; the first: "
                + (f"{self.dropped[0].id}: {self.dropped[0].reason}" if samples else "none given")
            )

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        sample = self.samples[index]
        return encode_example(self.processor, sample.image, sample.cadquery)


def collate(examples: Sequence[dict[str, torch.Tensor]], pad: int) -> dict[str, torch.Tensor]:
    """Stack examples, padded on the right to the longest; padding has no label."""
    fills = {"input_ids": pad, "attention_mask": 0, "labels": IGNORED}
    batch = {
        name: torch.nn.utils.rnn.pad_sequence([e[name] for e in examples], True, fill)
        for name, fill in fills.items()
    }
    batch["pixel_values"] = torch.stack([e["pixel_values"] for e in examples])
    return batch


class _Watch(TrainerCallback):
    """Stops a run that cannot be learning."""

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **_: Any) -> None:
        loss = (logs or {}).get("loss")
        if loss is None:
            return
        _check_loss(float(loss), state.global_step)


def _check_loss(loss: float, step: int) -> None:
    if not math.isfinite(loss):
        raise InputError(
            f"the loss is {loss} at step {step}; start a new run with a lower --learning-rate"
        )
    if loss == 0.0:
        raise InputError(f"the loss is exactly 0 at step {step}: no token carries a label")


def precision() -> torch.dtype:
    """float32 on a CPU, bfloat16 on a GPU that computes in it, else float16.

    By compute capability: `torch.cuda.is_bf16_supported` says yes on a T4, which emulates it.
    """
    if not torch.cuda.is_available():
        return torch.float32
    return torch.bfloat16 if torch.cuda.get_device_capability()[0] >= 8 else torch.float16


def fit(
    model: Any,
    data: Dataset[dict[str, torch.Tensor]],
    settings: Settings,
    folder: Path,
    pad: int,
    resume: bool = False,
) -> list[dict[str, float]]:
    """Train `model` in place; return the logged losses, one dict a log.

    With `resume`, goes on from the last checkpoint in <folder>/checkpoints if there is
    one. Raises InputError when the loss is zero or not finite.
    """
    checkpoints = folder / "checkpoints"
    dtype = precision()
    recompute: dict[str, Any] = {}
    if settings.checkpointing:
        recompute = {
            "gradient_checkpointing": True,
            "gradient_checkpointing_kwargs": {"use_reentrant": False},
        }
    arguments = TrainingArguments(
        output_dir=str(checkpoints),
        num_train_epochs=settings.epochs,
        max_steps=settings.steps,
        per_device_train_batch_size=settings.batch_size,
        gradient_accumulation_steps=settings.accumulate,
        learning_rate=settings.learning_rate,
        lr_scheduler_type="cosine",
        warmup_steps=settings.warmup,
        weight_decay=settings.weight_decay,
        adam_beta2=0.98,
        optim="paged_adamw_8bit" if settings.eight_bit else "adamw_torch",
        fp16=dtype == torch.float16,
        bf16=dtype == torch.bfloat16,
        **recompute,
        train_sampling_strategy="group_by_length" if settings.by_length else "random",
        remove_unused_columns=False,
        save_steps=settings.save_steps,
        save_total_limit=2,
        logging_steps=settings.log_steps,
        logging_first_step=True,
        logging_nan_inf_filter=False,
        seed=settings.seed,
        data_seed=settings.seed,
        use_cpu=not torch.cuda.is_available(),
        report_to="none",
    )
    trainer = Trainer(
        model=model,
        args=arguments,
        train_dataset=data,
        data_collator=lambda examples: collate(examples, pad),
        callbacks=[_Watch()],
        optimizers=(_two_rates(model, settings) if settings.tower_rate != 1.0 else None, None),
    )
    last = _last_whole_checkpoint(checkpoints) if resume else None
    trainer.train(resume_from_checkpoint=last)
    return [
        {"step": float(entry["step"]), "loss": float(entry["loss"])}
        for entry in trainer.state.log_history
        if "loss" in entry
    ]


def as_dict(settings: Settings) -> dict[str, Any]:
    """The settings as plain JSON values."""
    return dataclasses.asdict(settings)


def _last_whole_checkpoint(folder: Path) -> str | None:
    """The newest checkpoint that was written to its end: the Trainer's state comes last."""
    whole = [file.parent for file in folder.glob("checkpoint-*/trainer_state.json")]
    return str(max(whole, key=lambda path: int(path.name.split("-")[1]))) if whole else None


def _two_rates(model: Any, settings: Settings) -> torch.optim.Optimizer:
    """Adam with a smaller rate for tower and projector: at the full one their output explodes."""
    groups: dict[bool, list[torch.nn.Parameter]] = {True: [], False: []}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            groups["language_model" in name].append(parameter)
    return torch.optim.AdamW(
        [
            {"params": groups[True], "lr": settings.learning_rate},
            {"params": groups[False], "lr": settings.learning_rate * settings.tower_rate},
        ],
        betas=(0.9, 0.98),
        weight_decay=settings.weight_decay,
    )


def memory_text() -> str:
    """Peak memory so far: the GPU's where there is one, else the process's."""
    if torch.cuda.is_available():
        return f"peak GPU memory {torch.cuda.max_memory_allocated() / 2**30:.2f} GiB"
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    # Linux counts kibibytes, macOS bytes.
    return f"peak memory {peak / (2**30 if sys.platform == 'darwin' else 2**20):.2f} GiB"
