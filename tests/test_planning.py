"""Protects the planner: what it predicts is what is measured, it is quick, and it is used.

The peak of tensors in `fine_tune` on a processor, as torch's own allocator counts it; figures for
cards as worked out before by another program; plans that fit, and settings that are refused.
"""

from __future__ import annotations

import io
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.profiler import ProfilerActivity, profile
from transformers import (
    AutoConfig,
    CLIPImageProcessor,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaProcessor,
    set_seed,
)

from image2cad.training.planning.cards import GIB, Card
from image2cad.training.planning.fakes import Work, tensors_of
from image2cad.training.planning.steps import training_use
from image2cad.training.supervised import TrainingSettings, fine_tune
from image2cad.vlm.loading import attach_lora, load_base
from image2cad.vlm.nano import train_tokenizer
from image2cad.vlm.prompting import IGNORED

ROOT = Path(__file__).resolve().parent.parent
CPU = Card("CPU", 8 * GIB, 0)


class Rows(torch.utils.data.Dataset[dict[str, torch.Tensor]]):
    """Rows of one length, with features in the place of a picture."""

    def __init__(self, config: Any, work: Work) -> None:
        ids = torch.full((work.tokens,), 7)
        ids[1 : 1 + work.picture] = config.image_token_index
        labels = torch.full_like(ids, IGNORED)
        labels[-work.labelled :] = 7
        width = config.text_config.hidden_size
        self.row = {
            "input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": labels,
            "features": torch.randn(work.picture, width),
        }  # fmt: skip

    def __len__(self) -> int:
        return 8

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        return {name: value.clone() for name, value in self.row.items()}


def measured(base: Path, work: Work, folder: Path) -> tuple[int, int]:
    """(bytes of the model, bytes at the peak) of two steps of `fine_tune` on a processor."""
    set_seed(0)
    model, _ = load_base(base, work.load_in_4bit)
    model = attach_lora(model, work.r, 2 * work.r, work.lora_dropout)
    held = [tensor.untyped_storage() for _, tensor in tensors_of(model)]
    storages = {storage.data_ptr(): storage for storage in held}
    weights = sum(storage.nbytes() for storage in storages.values())
    settings = TrainingSettings(
        max_steps=2, per_device_train_batch_size=work.rows, save_steps=1000, logging_steps=1000,
        optim=work.optim, recompute=work.recompute, loss_in_chunks=work.loss_in_chunks,
    )  # fmt: skip
    data = Rows(model.config, work)
    profiler = profile(activities=[ProfilerActivity.CPU], profile_memory=True)
    with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()), profiler:
        fine_tune(model, data, settings, folder, 0)
    events = profiler.profiler.kineto_results.events()
    changes = sorted((e.start_ns(), e.nbytes()) for e in events if e.name() == "[memory]")
    now = peak = 0
    for _, change in changes:
        now += change
        peak = max(peak, now)
    return weights, weights + peak


@pytest.fixture(scope="module")
def middling(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A LLaVA of 100 M parameters with random weights and Llama's vocabulary."""
    tokenizer = train_tokenizer(["import cadquery as cq"], 300)
    config = LlavaConfig(
        vision_config={
            "model_type": "clip_vision_model", "hidden_size": 256, "intermediate_size": 1024,
            "num_hidden_layers": 2, "num_attention_heads": 4, "image_size": 224, "patch_size": 14,
        },
        text_config={
            "model_type": "llama", "vocab_size": 32064, "hidden_size": 640,
            "intermediate_size": 1728, "num_hidden_layers": 12, "num_attention_heads": 10,
            "num_key_value_heads": 10, "max_position_embeddings": 4096,
        },
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"), image_seq_length=256,
    )  # fmt: skip
    folder = tmp_path_factory.mktemp("models") / "middling"
    set_seed(0)
    LlavaForConditionalGeneration(config).save_pretrained(folder)
    images = CLIPImageProcessor(size={"shortest_edge": 224}, crop_size=224)
    LlavaProcessor(
        images, tokenizer, patch_size=14, num_additional_image_tokens=1,
        vision_feature_select_strategy="default",
    ).save_pretrained(folder)  # fmt: skip
    return folder


NANO_WORK = Work(
    256, 200, 49, rows=4, load_in_4bit=False, optim="adamw_torch", recompute="language"
)
MIDDLING_WORK = replace(NANO_WORK, tokens=320, labelled=48, picture=256, rows=2)


@pytest.mark.parametrize(
    "which, changes",
    [
        ("nano", {}),
        ("nano", {"recompute": "nothing"}),
        ("nano", {"load_in_4bit": True}),
        ("middling", {"recompute": 5}),
        ("middling", {"loss_in_chunks": False}),
    ],
)
def test_the_predicted_peak_is_the_one_that_is_measured(
    which: str, changes: dict[str, Any], middling: Path, tmp_path: Path
) -> None:
    base = ROOT / "models" / "nano" if which == "nano" else middling
    work = replace(NANO_WORK if which == "nano" else MIDDLING_WORK, **changes)
    use = training_use(AutoConfig.from_pretrained(base), work, CPU)
    weights, peak = measured(base, work, tmp_path)
    print(which, changes, use.weights, weights, use.peak, peak, use.peak / peak - 1)
    assert use.weights == pytest.approx(weights, rel=1e-3)
    assert use.peak == pytest.approx(peak, rel=0.05)
    assert use.peak - use.weights == pytest.approx(peak - weights, rel=0.05)
