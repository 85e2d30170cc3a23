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

import ctypes
import math
import os
import resource
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch.utils.checkpoint import checkpoint
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
from image2cad.vlm import IGNORED, language_head, language_model, precision

# ---- Settings
OWN_SETTINGS = (  # the others are TrainingArguments' own and mean the same
    "early_stopping_patience",
    "tower_rate",
    "recompute",
    "labelled_only",
    "loss_in_chunks",
    "group_by_length",
)
# Logits that the loss makes at a time: 128 MiB in float32, of which it needs about four copies.
LOGITS_AT_ONCE = 2**25
# Of a machine's RAM, from which on a model on a processor gives freed memory back at once.
MUCH_OF_RAM = 0.1
GIVEN_BACK = 1_000_000  # bytes of a block that is given back
M_MMAP_THRESHOLD = -3  # the name of that limit in glibc's malloc.h

Recompute = str | int | tuple[tuple[int, int], ...]


@dataclass(frozen=True)
class TrainingSettings:
    """How to train.

    num_train_epochs: passes over the data; max_steps: if positive, optimiser steps instead;
    per_device_train_batch_size: samples a device and forward pass; gradient_accumulation_steps:
    passes a step; learning_rate: peak of a cosine schedule; warmup_steps: steps before the peak,
    below 1 a share of all, the first of which moves already; save_steps: steps between
    checkpoints, and between validations; logging_steps: between logged losses;
    report_to: "none" or a tracker as transformers names it;
    early_stopping_patience: validations without a better loss before the run ends, 0: never;
    tower_rate: share of the learning rate for everything outside the language model.

    The levers: optim: "adamw_torch", or "paged_adamw_8bit" (CUDA); recompute: activations made
    again in the backward pass, as `recompute_activations` has it; labelled_only: logits only where
    a label is; loss_in_chunks: of some rows at a time; group_by_length: batches of similar length.
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
    recompute: Recompute = "nothing"
    labelled_only: bool = True
    loss_in_chunks: bool = True
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
    processes = int(os.environ.get("WORLD_SIZE", "1"))
    settings = replace(settings, optim=optim_of(settings.optim, processes))
    arguments = TrainingArguments(
        output_dir=str(checkpoints),
        **{name: value for name, value in vars(settings).items() if name not in OWN_SETTINGS},
        per_device_eval_batch_size=settings.per_device_train_batch_size,
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
    if give_freed_memory_back(model):
        print("a large model on a CPU: freed memory is given back at once; steps take longer")
    order = None
    if settings.group_by_length:
        lengths = getattr(data, "lengths")  # noqa: B009 - a promise of the examples, not of torch
        batch = settings.per_device_train_batch_size * arguments.world_size
        order = LengthOrder(lengths, batch, settings.seed)
    patience = settings.early_stopping_patience if validation else 0
    stops = [EarlyStoppingCallback(patience)] if patience else []
    watch = _Watch(order)
    last = last_whole_checkpoint(checkpoints) if resume else None
    with as_trained(model, dtype, settings.loss_in_chunks) as head:
        trainer = _OurTrainer(
            model=model,
            args=arguments,
            train_dataset=data,
            eval_dataset=validation,
            data_collator=lambda examples: collate(examples, pad, settings.labelled_only),
            compute_loss_func=partial(labelled_loss, head=head),
            callbacks=[watch, *stops],
            optimizers=(_two_rates(model, settings) if settings.tower_rate != 1.0 else None, None),
        )
        trainer.order, trainer.recompute = order, settings.recompute
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


def optim_of(optim: str, processes: int) -> str:
    """The optimiser that so many processes use where that one is asked for.

    Paged states of several do not survive a checkpoint (bitsandbytes issue 1708).
    """
    return optim.removeprefix("paged_") if processes > 1 else optim


class _OurTrainer(Trainer):
    """The Trainer with our order of rows, our learning rates, and recomputation by length."""

    order: LengthOrder | None = None
    recompute: Recompute = "nothing"
    lr_scheduler: Any

    def _get_train_sampler(self, train_dataset: Any = None) -> Sampler[int] | None:
        return self.order or super()._get_train_sampler(train_dataset)

    def create_scheduler(self, num_training_steps: int, optimizer: Any = None) -> Any:
        if self.lr_scheduler is None:
            warmup = self.args.get_warmup_steps(num_training_steps)
            share = partial(_rate_share, warmup=warmup, steps=num_training_steps)
            optimizer = self.optimizer if optimizer is None else optimizer
            self.lr_scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, share)
        return self.lr_scheduler

    def training_step(self, model: Any, inputs: dict[str, Any], *rest: Any, **more: Any) -> Any:
        if isinstance(self.recompute, tuple):
            tokens = inputs["input_ids"].numel()
            _recompute_first(self.model, layers_for(self.recompute, tokens))
        return super().training_step(model, inputs, *rest, **more)


def _rate_share(step: int, warmup: int, steps: int) -> float:
    """The share of the peak rate at a step counted from 0: up in a line, down in half a cosine.

    transformers' own schedule begins at 0, so that the first step changes nothing.
    """
    if step < warmup:
        return (step + 1) / (warmup + 1)
    return 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(steps - warmup, 1)))


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
def labelled_loss(
    outputs: Any,
    labels: torch.Tensor,
    num_items_in_batch: Any = None,
    head: LogitsHead | None = None,
) -> Any:
    """Cross entropy of the labelled tokens, summed and divided by their number in the whole step.

    Takes logits (N, L, V) of all positions, or (N, K, V) of the positions before the K
    columns that hold a label in any row, which is what `collate` asks the base for. With a
    `head`, of `as_trained`, what stands there in the place of logits are hidden states (..., H):
    the head makes logits of some rows at a time, and makes them again on the way back.
    """
    wanted = labels[:, 1:]
    found = outputs.logits
    if found.shape[1] == labels.shape[1]:
        found = found[:, :-1]
    else:
        wanted = wanted[:, (wanted != IGNORED).any(0)]
    count = (wanted != IGNORED).sum() if num_items_in_batch is None else num_items_in_batch
    found, wanted = found.flatten(0, 1), wanted.flatten()
    if head is None:
        return _summed_loss(found, wanted, None) / count
    rows = max(LOGITS_AT_ONCE // head.vocabulary, 1)
    *others, last = zip(found.split(rows), wanted.split(rows), strict=True)
    # The last rows come first on the way back, so theirs need not be made twice.
    total = _summed_loss(*last, head)
    for hidden, ids in others:
        kept = checkpoint(
            _summed_loss, hidden, ids, head, use_reentrant=False, preserve_rng_state=False
        )
        total = total + kept
    return total / count


def _summed_loss(
    found: torch.Tensor, wanted: torch.Tensor, head: LogitsHead | None
) -> torch.Tensor:
    logits = found if head is None else head(found)
    return torch.nn.functional.cross_entropy(
        logits.float(), wanted, ignore_index=IGNORED, reduction="sum"
    )


@contextmanager
def as_trained(
    model: Any, dtype: torch.dtype, loss_in_chunks: bool = True
) -> Iterator[LogitsHead | None]:
    """The base keeps no keys and values, and gives hidden states where it gave logits.

    What is yielded makes logits of them. dtype: the precision of autocast, in which the base's
    forward pass would have made them. Without `loss_in_chunks` logits come as ever, and None is
    yielded.
    """
    text, module = language_model(model).config, language_head(model)
    kept = {"use_cache": text.use_cache, "forward": module.__dict__.get("forward")}
    text.use_cache = False
    head = None
    if loss_in_chunks:
        head = LogitsHead(module.forward, module.weight.shape[0], dtype)
        module.forward = _as_it_is
    try:
        yield head
    finally:
        text.use_cache = kept["use_cache"]
        module.__dict__.pop("forward", None)
        if kept["forward"] is not None:
            module.forward = kept["forward"]


@dataclass(frozen=True)
class LogitsHead:
    """Hidden states (K, H) to logits (K, V)."""

    forward: Callable[[torch.Tensor], torch.Tensor]
    vocabulary: int
    dtype: torch.dtype

    def __call__(self, hidden: torch.Tensor) -> torch.Tensor:
        half = self.dtype != torch.float32
        with torch.autocast(hidden.device.type, self.dtype, enabled=half):
            return self.forward(hidden)


def _as_it_is(hidden: torch.Tensor) -> torch.Tensor:
    return hidden


# ---- Memory
def recompute_activations(model: Any, what: Recompute) -> None:
    """Keep no activations of `what`, and make them again in the backward pass.

    "nothing", the "language" model, "everything", or how many of the language model's layers, of
    the first ones: the last ones' activations are used and freed before the others are made
    again. `fine_tune` also takes pairs (tokens, layers), rising: for passes of so many tokens at
    most, padding included, so many layers; longer ones recompute all.

    The tower is frozen: nothing flows back through it, so keeping it out saves its second
    forward pass and a backward pass that no one needs.
    """
    if isinstance(what, str) and what not in ("nothing", "language", "everything"):
        raise ValueError(f"recompute is nothing, language, everything or a number, not {what!r}")
    if what == "nothing":
        return
    target = model if what == "everything" else language_model(model)
    target.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    if isinstance(what, int):
        _recompute_first(model, what)


def _recompute_first(model: Any, layers: int) -> None:
    for number, layer in enumerate(language_model(model).layers):
        layer.gradient_checkpointing = number < layers


def layers_for(recompute: tuple[tuple[int, int], ...], tokens: int) -> int:
    """How many layers a pass of so many tokens recomputes; all of them beyond the last pair."""
    return next((layers for most, layers in recompute if tokens <= most), sys.maxsize)


def give_freed_memory_back(model: Any) -> bool:
    """On a processor and for a model that takes much of its RAM: freed blocks go back at once.

    glibc keeps blocks of up to 32 MiB that were freed, in pieces: a step of a 7B in 4 bits took
    more than 15 GiB, and 7.1 with blocks from 1 MB on given back. It costs time, as new blocks are
    made of zeros: 1.5 and 1.8 times for models of 3 and 164 M, which therefore keep the default.
    Returns whether it was done; glibc alone knows how.
    """
    if torch.cuda.is_available() or not sys.platform.startswith("linux"):
        return False
    size = sum(p.numel() * p.element_size() for p in model.parameters())
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    if size < memory * MUCH_OF_RAM:
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    return mallopt is not None and mallopt(M_MMAP_THRESHOLD, GIVEN_BACK) == 1


def restore_forward(*modules: Any) -> None:
    """Take off the forward passes that trainers leave behind; the saved adapter has none.

    accelerate's is in half precision, TRL's leaves out logits. accelerate's mark goes too: a model
    that has it gets no half precision from the next trainer, which takes 2.1 GiB more of a 7B.
    """
    for module in modules:
        for name in ("forward", "_original_forward", "_is_accelerate_prepared"):
            module.__dict__.pop(name, None)


def memory_text() -> str:
    """Peak memory so far: the GPU's where there is one, else the process's."""
    if torch.cuda.is_available():
        used = [torch.cuda.max_memory_allocated(), torch.cuda.max_memory_reserved()]
        return "peak GPU memory {:.2f} GiB, reserved {:.2f} GiB".format(*(x / 2**30 for x in used))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    # Linux counts kibibytes, macOS bytes.
    return f"peak memory {peak / (2**30 if sys.platform == 'darwin' else 2**20):.2f} GiB"
