"""Reinforcement learning by GRPO (Shao et al. 2024): programs that earn more become likelier.

    config = grpo_config(folder, max_steps=200, num_generations=8)
    history = train_grpo(model, processor, rows, {iou_reward: 1.0}, config)

For every picture of a step the model writes several programs; each is pushed by how much its
reward is above or below the mean of that picture. Rewards are scaled over the whole batch, so that
pictures whose programs are about as good as each other push little (Liu et al. 2025); the loss is
averaged over tokens (DAPO, Yu et al. 2025), and nothing holds the model to its start. TRL's
GRPOTrainer does it; what is here gives it the one prompt format, our precision, checkpoints and one
line of progress a log.
Left out: the rewards (rewards.py), and saving the adapter (vlm/loading.py).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from transformers import ProgressCallback, TrainerState
from trl import GRPOConfig, GRPOTrainer

from image2cad.common import QUESTION, InputError
from image2cad.data import StoredRows, decoded
from image2cad.training.checkpoints import (
    TRAINED_FILE,
    last_whole_checkpoint,
    load_trained,
    save_trained,
    trainable,
)
from image2cad.training.rewards import Reward
from image2cad.training.supervised import restore_forward
from image2cad.vlm import chat_template, precision

LOG_NAMES = {  # of TRL's metrics -> of ours
    "reward": "reward",
    "completions/mean_length": "tokens",
    "completions/clipped_ratio": "cut_off",
    "entropy": "entropy",
}


def grpo_config(folder: Path, **settings: Any) -> GRPOConfig:
    """TRL's configuration of a run in `folder`, with our few fixed choices.

    settings: GRPOConfig's own, which come before ours. save_steps is rounded up to whole batches of
    programs: between two updates with the same programs a checkpoint would forget the programs.
    """
    dtype, gpu = precision(), torch.cuda.is_available()
    choices: dict[str, Any] = {
        "lr_scheduler_type": "cosine",
        "warmup_steps": 0.05,
        "adam_beta2": 0.98,
        "scale_rewards": "batch",
        "disable_dropout": True,  # of the samples' probabilities and of those that are compared
        "beta": 0.0,
        "logging_steps": 5,
        "save_total_limit": 2,
        "fp16": dtype == torch.float16,
        "bf16": dtype == torch.bfloat16,
        "gradient_checkpointing": gpu,
        "gradient_checkpointing_kwargs": {"use_reentrant": False},
        "use_cpu": not gpu,
        "dataloader_pin_memory": False,
        "report_to": "none",
    }
    config = GRPOConfig(output_dir=str(folder / "checkpoints"), **choices | settings)
    updates = config.num_iterations
    config.save_steps = math.ceil(config.save_steps / updates) * updates
    config._n_gpu = 1  # one process trains on one GPU
    return config


def train_grpo(
    model: Any,
    processor: Any,
    rows: StoredRows,
    rewards: Mapping[Reward, float],
    config: GRPOConfig,
    resume: bool = False,
) -> list[dict[str, float]]:
    """Train the adapter of `model` in place; return the logs, one dict each.

    rewards: functions of rewards.py, and their weights. config: as `grpo_config` makes it. With
    `resume`, goes on from the last checkpoint to the adapter of the uninterrupted run. Raises
    InputError for fewer rows than pictures at a time, for rows with several pictures, and where the
    weights stop being numbers.
    """
    checkpoints = Path(config.output_dir)
    folder = checkpoints.parent
    if any(len(sizes) > 1 for _, sizes, _ in rows.outlines()):
        raise InputError("GRPO takes one picture a row; --method rejection takes several")
    check_enough(rows, (config.generation_batch_size or 0) // (config.num_generations or 1))
    if resume and (folder / TRAINED_FILE).is_file():
        return load_trained(model, folder)
    processor.chat_template = chat_template(processor)
    config.reward_weights = list(rewards.values())
    start = {name: p.detach().clone() for name, p in trainable(model)}
    trainer = _ResumableGRPOTrainer(
        model=model,
        reward_funcs=list(rewards),
        args=config,
        train_dataset=rows.table.with_transform(_as_prompts),
        processing_class=processor,
    )
    for name, parameter in trainable(model):
        # TRL makes that of a quantised model bfloat16, which float16's GradScaler refuses
        parameter.data = start[name].to(parameter.device)
    trainer.remove_callback(ProgressCallback)
    trainer.add_callback(_Progress())
    last = last_whole_checkpoint(checkpoints) if resume else None
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
            "give more samples or lower --gradient-accumulation-steps"
        )


class _ResumableGRPOTrainer(GRPOTrainer):
    """TRL's trainer, which begins with the order of the first pass wherever it goes on."""

    passed = 0  # whole passes over the rows before the checkpoint

    def _get_train_sampler(self, dataset: Any = None) -> Any:
        sampler = super()._get_train_sampler(dataset)
        for _ in range(self.passed):
            torch.randperm(sampler.num_samples, generator=sampler.generator)
        return sampler


def _as_prompts(batch: dict[str, list[Any]]) -> dict[str, list[Any]]:
    """Rows of the store as TRL wants them, and with the columns that rewards read."""
    images = [decoded(pictures[0]) for pictures in batch["pictures"]]
    question = [{"role": "user", "content": QUESTION}]
    return {"prompt": [question] * len(images), "image": images, "cadquery": batch["code"]}


def _ours(entry: Mapping[str, Any]) -> dict[str, float]:
    """A log of TRL's under our names."""
    named = {ours: float(entry[theirs]) for theirs, ours in LOG_NAMES.items() if theirs in entry}
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
