"""Train a vision-language model on pictures and programs with the plain transformers Trainer.

    data = CodeDataset(samples, processor)
    history = fit(model, data, Settings(epochs=3), Path("runs/mine"), pad)

A loss that is zero or not a number stops the run. Checkpoints go to
<folder>/checkpoints, and `resume=True` goes on from the last one, to the adapter that the
uninterrupted run would have ended with. Several processes: `accelerate launch`. Left
out: examples and their order (examples.py), saving the model (vlm/loading.py), scores
(evaluation/scoring.py).
"""

from __future__ import annotations

import dataclasses
import json
import math
import os
import resource
import sys
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch.utils.data import Dataset, Sampler
from transformers import EarlyStoppingCallback, Trainer, TrainerCallback, TrainingArguments

from image2cad.common import InputError
from image2cad.training.examples import LengthOrder, collate
from image2cad.vlm import IGNORED, language_model, precision


@dataclass(frozen=True)
class Settings:
    """How to train.

    epochs: passes over the data; steps: if positive, optimiser steps instead of epochs;
    batch_size: samples a device and forward pass; accumulate: passes a step;
    learning_rate: peak of a cosine schedule; warmup: share of steps until the peak;
    save_steps: steps between checkpoints, and between validations; log_steps: steps between
    logged losses; patience: validations without a better loss before the run ends, 0: never;
    tower_rate: share of the learning rate for everything outside the language model.

    The levers: eight_bit: paged 8-bit Adam (CUDA); recompute: activations made again in the
    backward pass, of "nothing", the "language" model or "everything"; labelled_only: logits only
    where a label is; by_length: batches of similar length.
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
    patience: int = 0
    seed: int = 0
    tower_rate: float = 1.0
    eight_bit: bool = False
    recompute: str = "nothing"
    labelled_only: bool = True
    by_length: bool = False


class _Recipe(Trainer):
    """The Trainer with our order of rows."""

    order: LengthOrder | None = None

    def _get_train_sampler(self, train_dataset: Any = None) -> Sampler[int] | None:
        return self.order or super()._get_train_sampler(train_dataset)


class _Watch(TrainerCallback):
    """Stops a run that cannot be learning, and tells the order which epoch it is."""

    def __init__(self, order: LengthOrder | None) -> None:
        self.order = order

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


def fit(
    model: Any,
    data: Dataset[dict[str, torch.Tensor]],
    settings: Settings,
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
    if resume and (folder / TRAINED).is_file():
        return load_trained(model, folder)
    dtype = precision()
    # Paged states of several processes do not survive a checkpoint (bitsandbytes issue 1708).
    several = int(os.environ.get("WORLD_SIZE", "1")) > 1
    optimiser = "adamw_8bit" if several else "paged_adamw_8bit"
    arguments = TrainingArguments(
        output_dir=str(checkpoints),
        num_train_epochs=settings.epochs,
        max_steps=settings.steps,
        per_device_train_batch_size=settings.batch_size,
        per_device_eval_batch_size=settings.batch_size,
        gradient_accumulation_steps=settings.accumulate,
        learning_rate=settings.learning_rate,
        lr_scheduler_type="cosine",
        warmup_steps=settings.warmup,
        weight_decay=settings.weight_decay,
        adam_beta2=0.98,
        optim=optimiser if settings.eight_bit else "adamw_torch",
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
        save_steps=settings.save_steps,
        save_total_limit=2,
        logging_steps=settings.log_steps,
        logging_first_step=True,
        logging_nan_inf_filter=False,
        seed=settings.seed,
        data_seed=settings.seed,
        use_cpu=not torch.cuda.is_available(),
        ddp_find_unused_parameters=False,
        dataloader_pin_memory=False,  # the pinning thread cannot copy the features' container
        report_to="none",
    )
    if arguments.n_gpu > 1:
        print(f"{arguments.n_gpu} GPUs, one is used; `accelerate launch` starts one process each")
        arguments._n_gpu = 1  # DataParallel would cut the batch's position list in pieces
    recompute_activations(model, settings.recompute)
    order = None
    if settings.by_length:
        lengths = getattr(data, "lengths")  # noqa: B009 - a promise of the examples, not of torch
        order = LengthOrder(lengths, settings.batch_size * arguments.world_size, settings.seed)
    stops = [EarlyStoppingCallback(settings.patience)] if validation and settings.patience else []
    trainer = _Recipe(
        model=model,
        args=arguments,
        train_dataset=data,
        eval_dataset=validation,
        data_collator=lambda examples: collate(examples, pad, settings.labelled_only),
        compute_loss_func=labelled_loss,
        callbacks=[_Watch(order), *stops],
        optimizers=(_two_rates(model, settings) if settings.tower_rate != 1.0 else None, None),
    )
    trainer.order = order
    last = last_whole_checkpoint(checkpoints) if resume else None
    try:
        trainer.train(resume_from_checkpoint=last)
    finally:
        restore_forward(model)
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


def restore_forward(*modules: Any) -> None:
    """Take off the forward passes that trainers leave behind; the saved adapter has none.

    accelerate's is in half precision, TRL's leaves out logits.
    """
    for module in modules:
        for name in ("forward", "_original_forward"):
            module.__dict__.pop(name, None)


def as_dict(settings: Settings) -> dict[str, Any]:
    """The settings as plain JSON values."""
    return dataclasses.asdict(settings)


def _two_rates(model: Any, settings: Settings) -> torch.optim.Optimizer:
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


def memory_text() -> str:
    """Peak memory so far: the GPU's where there is one, else the process's."""
    if torch.cuda.is_available():
        return f"peak GPU memory {torch.cuda.max_memory_allocated() / 2**30:.2f} GiB"
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    # Linux counts kibibytes, macOS bytes.
    return f"peak memory {peak / (2**30 if sys.platform == 'darwin' else 2**20):.2f} GiB"


# ---- What a run leaves to go on from: whole checkpoints, and the weights that it ended with
TRAINED = "trained.safetensors"


def trainable(model: Any) -> list[tuple[str, torch.nn.Parameter]]:
    """The parameters that training changes, by name."""
    return [(name, p) for name, p in model.named_parameters() if p.requires_grad]


def save_trained(model: Any, folder: Path, history: list[dict[str, float]]) -> None:
    """Write what a run ended with, in one file, and its history.

    Without it, a run that was stopped early would go on when it is resumed.
    """
    trained = {name: parameter.detach().cpu() for name, parameter in trainable(model)}
    part = folder / f"{TRAINED}.part"
    save_file(trained, part, metadata={"history": json.dumps(history)})
    os.replace(part, folder / TRAINED)


def load_trained(model: Any, folder: Path) -> list[dict[str, float]]:
    """Give `model` what `save_trained` wrote; return the history of that run."""
    with safe_open(folder / TRAINED, "pt") as file, torch.no_grad():
        for name, parameter in trainable(model):
            parameter.copy_(file.get_tensor(name))
        return list(json.loads(file.metadata()["history"]))


def last_whole_checkpoint(folder: Path) -> str | None:
    """The newest checkpoint with all its files; a Drive may have taken the small ones only."""
    found = sorted(folder.glob("checkpoint-*"), key=lambda path: int(path.name.split("-")[1]))
    return next((str(path) for path in reversed(found) if _whole(path)), None)


def _whole(checkpoint: Path) -> bool:
    weights = [*checkpoint.glob("*model*.safetensors")]
    needed = [checkpoint / name for name in ("optimizer.pt", "scheduler.pt")]
    needed += [next(checkpoint.glob("rng_state*.pth"), checkpoint / "rng_state.pth")]
    try:
        for file in weights:
            with safe_open(file, "pt"):
                pass  # raises if the file is shorter than its header says
        json.loads((checkpoint / "trainer_state.json").read_text(encoding="utf-8"))
        return bool(weights) and all(zipfile.is_zipfile(file) for file in needed)
    except (OSError, ValueError, SafetensorError):
        return False
