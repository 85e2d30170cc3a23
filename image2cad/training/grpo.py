"""Reinforcement learning by GRPO (Shao et al. 2024): programs that earn more become likelier.

    history = fit_grpo(model, processor, rows, {iou_reward: 1.0}, Plan(steps=200), folder)

For every picture of a step the model writes several programs; each is pushed by how much its
reward is above or below the mean of that picture. Rewards are scaled over the whole batch, so that
pictures whose programs are about as good as each other push little (Liu et al. 2025); the loss is
averaged over tokens (DAPO, Yu et al. 2025), and nothing holds the model to its start. TRL's
GRPOTrainer does it; what is here gives it the one prompt format, our precision, checkpoints and one
line of progress a log.
Left out: the rewards (rewards.py), and saving the adapter (vlm/loading.py).
"""

from __future__ import annotations

import io
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from transformers import ProgressCallback, TrainerState
from trl import GRPOConfig, GRPOTrainer

from image2cad.common import QUESTION, InputError
from image2cad.data import StoredRows
from image2cad.training.rewards import Reward
from image2cad.training.supervised import (
    TRAINED,
    last_whole_checkpoint,
    load_trained,
    restore_forward,
    save_trained,
    trainable,
)
from image2cad.vlm import chat_template, precision

NAMES = {  # of TRL's metrics -> of ours
    "reward": "reward",
    "completions/mean_length": "tokens",
    "completions/clipped_ratio": "cut_off",
    "entropy": "entropy",
}


@dataclass(frozen=True)
class Plan:
    """How to train.

    steps: optimiser steps; pictures: at a time; programs: for each picture; updates: steps with
    the same programs; passes: programs a forward and backward pass; learning_rate: at its peak,
    then falling to 0 as a cosine; temperature: of the samples; max_new_tokens: longest program;
    save_steps, log_steps: steps between checkpoints and between logs; save_steps is rounded up to
    whole batches of programs. seed: of samples and order.
    """

    steps: int = 240
    pictures: int = 16
    programs: int = 8
    updates: int = 2
    passes: int = 128
    learning_rate: float = 3e-4
    temperature: float = 0.6
    max_new_tokens: int = 100
    save_steps: int = 24
    log_steps: int = 5
    seed: int = 0


def fit_grpo(
    model: Any,
    processor: Any,
    rows: StoredRows,
    rewards: Mapping[Reward, float],
    plan: Plan,
    folder: Path,
    resume: bool = False,
) -> list[dict[str, float]]:
    """Train the adapter of `model` in place; return the logs, one dict each.

    rewards: functions of rewards.py, and their weights. `passes` has to divide pictures times
    programs. With `resume`, goes on from the last checkpoint in <folder>/checkpoints to the adapter
    of the uninterrupted run. Raises InputError for fewer rows than pictures at a time, and where
    the weights stop being numbers.
    """
    check_enough(rows, plan.pictures)
    if resume and (folder / TRAINED).is_file():
        return load_trained(model, folder)
    processor.chat_template = chat_template(processor)
    dtype = precision()
    arguments = GRPOConfig(
        output_dir=str(folder / "checkpoints"),
        max_steps=plan.steps,
        per_device_train_batch_size=plan.passes,
        gradient_accumulation_steps=plan.pictures * plan.programs // plan.passes,
        num_generations=plan.programs,
        num_iterations=plan.updates,
        max_completion_length=plan.max_new_tokens,
        temperature=plan.temperature,
        learning_rate=plan.learning_rate,
        lr_scheduler_type="cosine",
        warmup_steps=0.05,
        adam_beta2=0.98,
        reward_weights=list(rewards.values()),
        scale_rewards="batch",
        disable_dropout=True,  # of the samples' probabilities and of those that are compared
        beta=0.0,
        fp16=dtype == torch.float16,
        bf16=dtype == torch.bfloat16,
        gradient_checkpointing=torch.cuda.is_available(),
        gradient_checkpointing_kwargs={"use_reentrant": False},
        # Between two updates with the same programs a checkpoint would forget the programs.
        save_steps=math.ceil(plan.save_steps / plan.updates) * plan.updates,
        save_total_limit=2,
        logging_steps=plan.log_steps,
        seed=plan.seed,
        use_cpu=not torch.cuda.is_available(),
        dataloader_pin_memory=False,
        report_to="none",
    )
    arguments._n_gpu = 1  # one process trains on one GPU
    start = {name: p.detach().clone() for name, p in trainable(model)}
    trainer = _Recipe(
        model=model,
        reward_funcs=list(rewards),
        args=arguments,
        train_dataset=rows.table.with_transform(_as_prompts),
        processing_class=processor,
    )
    for name, parameter in trainable(model):
        # TRL makes that of a quantised model bfloat16, which float16's GradScaler refuses
        parameter.data = start[name].to(parameter.device)
    trainer.remove_callback(ProgressCallback)
    trainer.add_callback(_Progress())
    last = last_whole_checkpoint(folder / "checkpoints") if resume else None
    if last is not None:
        state = TrainerState.load_from_json(str(Path(last) / "trainer_state.json"))
        trainer.passed = int((state.epoch or 0.0) + 1e-6)
    try:
        trainer.train(resume_from_checkpoint=last)
    finally:
        restore_forward(model, model.get_base_model())
    history = [_ours(entry) for entry in trainer.state.log_history if "reward" in entry]
    save_trained(model, folder, history)
    return history


def check_enough(rows: StoredRows, pictures: int) -> None:
    """Raise InputError for fewer rows than a step takes: TRL would train on none of them."""
    if len(rows) < pictures:
        raise InputError(
            f"{len(rows)} pictures to learn from are fewer than the {pictures} of a step; "
            "give more samples or a lower --pictures"
        )


class _Recipe(GRPOTrainer):
    """TRL's trainer, which begins with the order of the first pass wherever it goes on."""

    passed = 0  # whole passes over the rows before the checkpoint

    def _get_train_sampler(self, dataset: Any = None) -> Any:
        sampler = super()._get_train_sampler(dataset)
        for _ in range(self.passed):
            torch.randperm(sampler.num_samples, generator=sampler.generator)
        return sampler


def _as_prompts(batch: dict[str, list[Any]]) -> dict[str, list[Any]]:
    """Rows of the store as TRL wants them, and with the columns that rewards read."""
    images = [Image.open(io.BytesIO(data)).convert("RGB") for data in batch["picture"]]
    question = [{"role": "user", "content": QUESTION}]
    return {"prompt": [question] * len(images), "image": images, "cadquery": batch["code"]}


def _ours(entry: Mapping[str, Any]) -> dict[str, float]:
    """A log of TRL's under our names."""
    named = {ours: float(entry[theirs]) for theirs, ours in NAMES.items() if theirs in entry}
    for key, value in entry.items():
        if key.startswith("rewards/") and key.endswith("/mean"):
            named[key.split("/")[1]] = float(value)
    return {"step": float(entry["step"]), **{k: round(v, 4) for k, v in named.items()}}


class _Progress(ProgressCallback):
    """The bar, one line a log instead of all that TRL knows, and an end to what cannot learn."""

    def on_step_end(self, args: Any, state: Any, control: Any, **more: Any) -> None:
        super().on_step_end(args, state, control, **more)
        if not all(bool(p.isfinite().all()) for _, p in trainable(more["model"])):
            raise InputError(
                f"the weights are no numbers any more at step {state.global_step}; start a new run "
                "with a lower --learning-rate"
            )

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **_: Any) -> None:
        if state.is_world_process_zero and logs and "reward" in logs and self.training_bar:
            ours = _ours({**logs, "step": state.global_step})
            words = [f"{name} {value:.3g}" for name, value in ours.items()]
            self.training_bar.write(", ".join(words))
