"""Protects runs that are interrupted, spread over processes, or end by themselves.

A run that was killed ends with the adapter of one that was not; several processes learn what one
learns; the best checkpoint is kept, and one that lacks a file is passed over.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import PartialState
from safetensors.torch import load_file
from transformers import set_seed

from image2cad.data.samples import Sample
from image2cad.training.checkpoints import TRAINED_FILE, last_whole_checkpoint
from image2cad.training.examples import CodeDataset, collate
from image2cad.training.supervised import (
    TrainingSettings,
    fine_tune,
    labelled_loss,
)
from image2cad.training.vision_cache import cache_features
from image2cad.vlm.loading import attach_lora, load_base, quiet
from image2cad.vlm.prompting import padding_id

ROOT = Path(__file__).resolve().parent.parent

RUN = """
import sys
from pathlib import Path
sys.path[:0] = [{root!r}, {tests!r}]
from accelerate import PartialState
from image2cad.vlm.loading import quiet
from image2cad.data.samples import load_samples
from test_resume import train
quiet()
PartialState(cpu=True)
samples = load_samples("bundled", "train", 12, check_code=False, progress=False)[0]
train(Path({base!r}), samples, Path({folder!r}), **{options!r})
"""


def train(
    base: Path,
    samples: list[Sample],
    folder: Path,
    resume: bool = False,
    batch_size: int = 2,
    dropout: float = 0.1,
) -> None:
    """A run with every lever: 15 steps of 4 rows, validated and written every third step."""
    settings = TrainingSettings(
        num_train_epochs=6, per_device_train_batch_size=batch_size, gradient_accumulation_steps=2,
        learning_rate=1e-2, save_steps=3, seed=3, logging_steps=1, early_stopping_patience=9,
        group_by_length=True, recompute="language",
    )  # fmt: skip
    set_seed(settings.seed)
    model, processor = load_base(base)
    model = attach_lora(model, r=4, lora_alpha=8, lora_dropout=dropout)
    images = [sample.image for sample in samples]
    place = cache_features(model, processor, images, folder.parent / "features", progress=False)
    data = CodeDataset(samples[:10], processor, features=place)
    validation = CodeDataset(samples[10:], processor, features=place)
    fine_tune(model, data, settings, folder, padding_id(processor), resume, validation)
    if int(os.environ.get("RANK", "0")) == 0:
        model.save_pretrained(folder / "adapter")


def command(base: Path, folder: Path, **options: Any) -> list[str]:
    """`train` as a program of its own."""
    names = {"root": str(ROOT), "tests": str(ROOT / "tests"), "base": str(base)}
    file = folder.parent / f"{folder.name}.py"
    file.write_text(RUN.format(**names, folder=str(folder), options=options))
    return [sys.executable, str(file)]


def started(base: Path, samples: list[Sample], folder: Path, resume: bool) -> Any:
    """`train` in a new process, which need not import what it takes seconds to import."""
    server = multiprocessing.get_context("forkserver")
    server.set_forkserver_preload(["image2cad.training.supervised", "peft", "transformers.trainer"])
    process = server.Process(target=alone, args=(base, samples, folder, resume))
    process.start()
    return process


def alone(base: Path, samples: list[Sample], folder: Path, resume: bool) -> None:
    quiet()
    PartialState(cpu=True)
    train(base, samples, folder, resume)


def adapter(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "adapter" / "adapter_model.safetensors")


def test_a_run_killed_at_any_step_ends_with_the_adapter_of_one_that_was_not(
    base: Path, samples: list[Sample], tmp_path: Path
) -> None:
    train(base, samples, tmp_path / "whole")
    # Not always the same step, nor the same moment in it: the checkpoint may be half written.
    chance = np.random.default_rng()
    folder = tmp_path / "killed"
    kills = 0
    for resume in (False, True, True):
        process = started(base, samples, folder, resume)
        wanted = int(chance.integers(1, 4)) * 3 + 3 * kills
        while process.is_alive() and not (folder / f"checkpoints/checkpoint-{wanted}").exists():
            time.sleep(0.005)
        time.sleep(float(chance.uniform(0, 0.1)))
        if process.is_alive():
            process.kill()
            kills += 1
        process.join()
        assert process.exitcode in (0, -signal.SIGKILL)
        if (folder / "adapter").exists():
            break
    assert kills, "every run ended before it could be killed"
    if not (folder / "adapter").exists():
        process = started(base, samples, folder, resume=True)
        process.join()
        assert process.exitcode == 0
    wanted_adapter = adapter(tmp_path / "whole")
    for name, value in adapter(folder).items():
        assert torch.allclose(value, wanted_adapter[name], atol=1e-6), (name, kills)


def test_two_processes_learn_what_one_learns(
    base: Path, samples: list[Sample], tmp_path: Path
) -> None:
    two = command(base, tmp_path / "two", batch_size=1, dropout=0.0)
    launch = [sys.executable, "-m", "accelerate.commands.launch", "--multi_gpu"]
    launch += ["--num_processes", "2", "--num_machines", "1", "--mixed_precision", "no"]
    launch += ["--dynamo_backend", "no", "--main_process_port", "0"]
    done = subprocess.run(
        [*launch, two[1]], capture_output=True, text=True, cwd=tmp_path, timeout=300
    )
    assert done.returncode == 0, done.stderr[-3000:]
    # The same rows in every step: two processes of one row each, one process of two rows.
    train(base, samples, tmp_path / "one", batch_size=2, dropout=0.0)
    wanted = adapter(tmp_path / "one")
    assert max(float(value.abs().max()) for value in wanted.values()) > 1e-2
    for name, value in adapter(tmp_path / "two").items():
        assert torch.allclose(value, wanted[name], atol=1e-5), name


def test_the_best_checkpoint_is_kept_and_a_run_that_gets_worse_ends_early(
    base: Path, samples: list[Sample], tmp_path: Path
) -> None:
    set_seed(0)
    model, processor = load_base(base)
    model = attach_lora(model, r=8, lora_alpha=16, lora_dropout=0.0)
    # Learning two rows by heart makes others worse.
    data, others = CodeDataset(samples[:2], processor), CodeDataset(samples[6:], processor)
    settings = TrainingSettings(
        max_steps=200,
        per_device_train_batch_size=2,
        learning_rate=0.05,
        save_steps=4,
        early_stopping_patience=2,
    )
    settings = replace(settings, warmup_steps=0.0)
    history = fine_tune(model, data, settings, tmp_path, padding_id(processor), validation=others)
    losses = [entry["validation_loss"] for entry in history if "validation_loss" in entry]
    assert len(losses) < 50 and min(losses) == losses[-3] < losses[-1]
    ended = {n: p.detach().clone() for n, p in model.named_parameters() if p.requires_grad}
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data.zero_()
    pad = padding_id(processor)
    assert fine_tune(model, data, settings, tmp_path, pad, True, others) == history, "it had ended"
    assert all(torch.equal(p, ended[n]) for n, p in model.named_parameters() if n in ended)
    batch = collate([others[i] for i in range(6)], padding_id(processor))
    labels = batch.pop("labels")
    model.eval()
    with torch.no_grad():
        now = float(labelled_loss(model(**batch), labels))
    assert abs(now - losses[-3]) < abs(now - losses[-1])


def test_a_checkpoint_that_lacks_a_file_is_passed_over(
    base: Path, samples: list[Sample], tmp_path: Path
) -> None:
    model, processor = load_base(base)
    model = attach_lora(model, r=4)
    data = CodeDataset(samples[:4], processor)
    settings = TrainingSettings(max_steps=4, per_device_train_batch_size=2, save_steps=2)
    fine_tune(model, data, settings, tmp_path, padding_id(processor))
    checkpoints = tmp_path / "checkpoints"
    second, fourth = checkpoints / "checkpoint-2", checkpoints / "checkpoint-4"
    for name in ("adapter_model.safetensors", "optimizer.pt", "trainer_state.json"):
        assert last_whole_checkpoint(checkpoints) == str(fourth)
        whole = (fourth / name).read_bytes()
        (fourth / name).write_bytes(whole[: len(whole) // 2])
        assert last_whole_checkpoint(checkpoints) == str(second), name
        (fourth / name).unlink()
        assert last_whole_checkpoint(checkpoints) == str(second), name
        (fourth / name).write_bytes(whole)
    assert (tmp_path / TRAINED_FILE).is_file()
