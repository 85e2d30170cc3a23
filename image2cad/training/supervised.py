"""Train a vision-language model on pictures and programs with the plain transformers Trainer.

    data = CodeDataset(samples, processor)
    history = fine_tune(model, data, TrainingSettings(num_train_epochs=3), Path("runs/mine"), pad)

A loss that is zero or not a number stops the run. Checkpoints go to
<folder>/checkpoints, and `resume=True` goes on from the last one, to the adapter that the
uninterrupted run would have ended with (checkpoints.py). Several processes: `accelerate
launch`. Left out: examples and their order (examples.py), saving the model (vlm/loading.py),
scores (evaluation/scoring.py).
"""

from __future__ import annotations

import math
import os
import resource
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import Dataset, Sampler
from transformers import EarlyStoppingCallback, Trainer, TrainerCallback, TrainingArguments

from image2cad.common import InputError
from image2cad.training.checkpoints import (
    TRAINED_FILE,
    last_whole_checkpoint,
    load_trained,
    save_trained,
    trainable,
)
from image2cad.training.examples import LengthOrder, collate
from image2cad.vlm import IGNORED, language_model, precision

# ---- Settings
OWN_SETTINGS = (  # the others are TrainingArguments' own and mean the same
    "early_stopping_patience",
    "tower_rate",
    "recompute",
    "labelled_only",
    "group_by_length",
)


@dataclass(frozen=True)
class TrainingSettings:
    """How to train.

    num_train_epochs: passes over the data; max_steps: if positive, optimiser steps instead;
    per_device_train_batch_size: samples a device and forward pass; gradient_accumulation_steps:
    passes a step; learning_rate: peak of a cosine schedule; warmup_steps: steps until the peak,
    below 1 a share of all; save_steps: steps between checkpoints, and between validations;
    logging_steps: between logged losses; report_to: "none" or a tracker as transformers names it;
    early_stopping_patience: validations without a better loss before the run ends, 0: never;
    tower_rate: share of the learning rate for everything outside the language model.

    The levers: optim: "adamw_torch", or "paged_adamw_8bit" (CUDA); recompute: activations made
    again in the backward pass, of "nothing", the "language" model or "everything"; labelled_only:
    logits only where a label is; group_by_length: batches of similar length.
    """

    num_train_epochs: float = 3.0
    max_steps: int = -1
    per_device_train_batch_size: int = 8
    gradient_accumulation_steps: int = 1
    learning_rate: float = 2e-4
    warmup_steps: float = 0.05
    weight_decay: float = 0.0
    save_steps: int = 50
    logging_steps: int = 5
    early_stopping_patience: int = 0
    report_to: str = "none"
    seed: int = 0
    tower_rate: float = 1.0
    optim: str = "adamw_torch"
    recompute: str = "nothing"
    labelled_only: bool = True
    group_by_length: bool = False


# ---- Training
def fine_tune(
    model: Any,
    data: Dataset[dict[str, torch.Tensor]],
    settings: TrainingSettings,
    folder: Path,
    pad: int,
    resume: bool = False,
    validation: Dataset[dict[str, torch.Tensor]] | None = None,
) -> list[dict[str, float]]:
    """Train `model` in place; return the logged losses, one dict a log.

    With `validation`, its loss is measured whenever a checkpoint is written, and the best
    checkpoint is what `model` holds in the end. With `resume`, goes on from the last
    checkpoint in <folder>/checkpoints if there is one, and trains no more if the run had
    ended. Raises InputError when the loss is zero or not finite.
    """
    checkpoints = folder / "checkpoints"
    if resume and (folder / TRAINED_FILE).is_file():
        return load_trained(model, folder)
    dtype = precision()
    # Paged states of several processes do not survive a checkpoint (bitsandbytes issue 1708).
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        settings = replace(settings, optim=settings.optim.removeprefix("paged_"))
    arguments = TrainingArguments(
        output_dir=str(checkpoints),
        **{name: value for name, value in vars(settings).items() if name not in OWN_SETTINGS},
        per_device_eval_batch_size=settings.per_device_train_batch_size,
        lr_scheduler_type="cosine",
        adam_beta2=0.98,
        fp16=dtype == torch.float16,
        bf16=dtype == torch.bfloat16,
        remove_unused_columns=False,
        label_names=["labels"],
        prediction_loss_only=True,
        eval_strategy="steps" if validation is not None else "no",
        eval_steps=settings.save_steps,
        load_best_model_at_end=validation is not None,
        metric_for_best_model="eval_loss" if validation is not None else None,
        greater_is_better=False if validation is not None else None,
        restore_callback_states_from_checkpoint=True,
        save_total_limit=2,
        logging_first_step=True,
        logging_nan_inf_filter=False,
        data_seed=settings.seed,
        use_cpu=not torch.cuda.is_available(),
        ddp_find_unused_parameters=False,
        dataloader_pin_memory=False,  # the pinning thread cannot copy the features' container
        disable_tqdm=False,  # `quiet` would take the bar with the time left away
    )
    if arguments.n_gpu > 1:
        print(f"{arguments.n_gpu} GPUs, one is used; `accelerate launch` starts one process each")
        arguments._n_gpu = 1  # DataParallel would cut the batch's position list in pieces
    recompute_activations(model, settings.recompute)
    order = None
    if settings.group_by_length:
        lengths = getattr(data, "lengths")  # noqa: B009 - a promise of the examples, not of torch
        batch = settings.per_device_train_batch_size * arguments.world_size
        order = LengthOrder(lengths, batch, settings.seed)
    patience = settings.early_stopping_patience if validation else 0
    stops = [EarlyStoppingCallback(patience)] if patience else []
    watch = _Watch(order)
    trainer = _ResumableTrainer(
        model=model,
        args=arguments,
        train_dataset=data,
        eval_dataset=validation,
        data_collator=lambda examples: collate(examples, pad, settings.labelled_only),
        compute_loss_func=labelled_loss,
        callbacks=[watch, *stops],
        optimizers=(_two_rates(model, settings) if settings.tower_rate != 1.0 else None, None),
    )
    trainer.order = order
    last = last_whole_checkpoint(checkpoints) if resume else None
    try:
        trainer.train(resume_from_checkpoint=last)
    finally:
        restore_forward(model)
    if watch.skipped:
        print(f"{watch.skipped} of {watch.steps} steps changed nothing: gradients left float16")
    names = {"loss": "loss", "eval_loss": "validation_loss"}
    history = [
        {"step": float(entry["step"]), name: float(entry[key])}
        for entry in trainer.state.log_history
        for key, name in names.items()
        if key in entry
    ]
    if trainer.is_world_process_zero():
        save_trained(model, folder, history)
    return history


class _ResumableTrainer(Trainer):
    """The Trainer with our order of rows."""

    order: LengthOrder | None = None

    def _get_train_sampler(self, train_dataset: Any = None) -> Sampler[int] | None:
        return self.order or super()._get_train_sampler(train_dataset)


class _Watch(TrainerCallback):
    """Stops a run that cannot be learning, tells the order which epoch it is, counts skipped steps.

    Of float16, whose loss scale is lowered when gradients overflow; a few at the start are usual.
    """

    def __init__(self, order: LengthOrder | None) -> None:
        self.order = order
        self.steps = self.skipped = 0

    def on_step_end(
        self, args: Any, state: Any, control: Any, optimizer: Any = None, **_: Any
    ) -> None:
        self.steps += 1
        self.skipped += bool(getattr(optimizer, "step_was_skipped", False))

    def on_epoch_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if self.order is not None:
            self.order.set_epoch(int(state.epoch or 0))

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


def _two_rates(model: Any, settings: TrainingSettings) -> torch.optim.Optimizer:
    """Adam with a smaller rate for tower and projector: at the full one their output explodes."""
    groups: dict[bool, list[torch.nn.Parameter]] = {True: [], False: []}
    for name, parameter in trainable(model):
        groups["language_model" in name].append(parameter)
    return torch.optim.AdamW(
        [
            {"params": groups[True], "lr": settings.learning_rate},
            {"params": groups[False], "lr": settings.learning_rate * settings.tower_rate},
        ],
        betas=(0.9, 0.98),
        weight_decay=settings.weight_decay,
    )


# ---- Loss
def labelled_loss(outputs: Any, labels: torch.Tensor, num_items_in_batch: Any = None) -> Any:
    """Cross entropy of the labelled tokens, summed and divided by their number in the whole step.

    Takes logits (N, L, V) of all positions, or (N, K, V) of the positions before the K
    columns that hold a label in any row, which is what `collate` asks the base for.
    """
    wanted = labels[:, 1:]
    logits = outputs.logits
    if logits.shape[1] == labels.shape[1]:
        logits = logits[:, :-1]
    else:
        wanted = wanted[:, (wanted != IGNORED).any(0)]
    count = (wanted != IGNORED).sum() if num_items_in_batch is None else num_items_in_batch
    total = torch.nn.functional.cross_entropy(
        logits.flatten(0, 1).float(), wanted.flatten(), ignore_index=IGNORED, reduction="sum"
    )
    return total / count


# ---- Memory
def recompute_activations(model: Any, what: str) -> None:
    """Keep no activations of `what`: "nothing", the "language" model or "everything".

    The tower is frozen: nothing flows back through it, so keeping it out saves its second
    forward pass and a backward pass that no one needs.
    """
    if what not in ("nothing", "language", "everything"):
        raise ValueError(f"recompute is nothing, language or everything, not {what!r}")
    if what == "nothing":
        return
    target = model if what == "everything" else language_model(model)
    target.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})


def restore_forward(*modules: Any) -> None:
    """Take off the forward passes that trainers leave behind; the saved adapter has none.

    accelerate's is in half precision, TRL's leaves out logits.
    """
    for module in modules:
        for name in ("forward", "_original_forward"):
            module.__dict__.pop(name, None)


def memory_text() -> str:
    """Peak memory so far: the GPU's where there is one, else the process's."""
    if torch.cuda.is_available():
        used = [torch.cuda.max_memory_allocated(), torch.cuda.max_memory_reserved()]
        return "peak GPU memory {:.2f} GiB, reserved {:.2f} GiB".format(*(x / 2**30 for x in used))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    # Linux counts kibibytes, macOS bytes.
    return f"peak memory {peak / (2**30 if sys.platform == 'darwin' else 2**20):.2f} GiB"
