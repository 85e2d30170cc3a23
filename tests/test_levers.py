"""Protects the levers of the T4 recipe: each saves memory or time and leaves the result as it is.

Loss and gradients with a lever are those without it, on every architecture, in four bits and in
half precision.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
import torch
from transformers import set_seed
from transformers.modeling_layers import GradientCheckpointingLayer

from image2cad.data.samples import Sample
from image2cad.training import supervised, vision_cache
from image2cad.training.examples import CodeDataset, LengthOrder, collate
from image2cad.training.supervised import (
    TrainingSettings,
    fine_tune,
    labelled_loss,
    recompute_activations,
)
from image2cad.training.vision_cache import cache_features
from image2cad.vlm.bases import language_model
from image2cad.vlm.loading import attach_lora, load_base, load_model, save_adapter
from image2cad.vlm.prompting import encode_prompt, padding_id

ROOT = Path(__file__).resolve().parent.parent


def with_lora(base: Path, quantize: bool = False) -> tuple[Any, Any]:
    """A model whose adapter does something already: a new one has no gradient for its A."""
    set_seed(0)
    model, processor = load_base(base, quantize)
    model = attach_lora(model, r=4, lora_alpha=8, lora_dropout=0.0)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.05)
    return model.train(), processor


def loss_and_gradient(model: Any, batch: dict[str, Any]) -> tuple[float, torch.Tensor]:
    batch = dict(batch)
    labels = batch.pop("labels")
    model.zero_grad()
    loss = labelled_loss(model(**batch), labels)
    loss.backward()
    trained = [p for p in model.parameters() if p.requires_grad]
    assert all(p.grad is not None for p in trained)
    return float(loss), torch.cat([p.grad.flatten() for p in trained])


def assert_same(a: tuple[float, torch.Tensor], b: tuple[float, torch.Tensor]) -> None:
    assert a[0] == pytest.approx(b[0], rel=1e-5)
    assert a[1].abs().max() > 1e-4
    assert (a[1] - b[1]).abs().max() <= 1e-4 * a[1].abs().max()


def tower_layer(model: Any) -> Any:
    """The first layer of the tower that a base may recompute."""
    names = ("vision_tower", "visual", "vision_model")
    layers = [
        module
        for name, module in model.named_modules()
        if hasattr(module, "gradient_checkpointing")
        and any(part in names for part in name.split("."))
        and isinstance(module, GradientCheckpointingLayer)
    ]
    return layers[0]


@pytest.fixture(scope="module", params=tiny.BASES)
def any_base(request: Any, tmp_path_factory: Any, samples: list[Sample]) -> Path:
    folder = tmp_path_factory.mktemp("bases") / request.param
    return tiny.BASES[request.param](folder, [sample.cadquery for sample in samples])


@pytest.mark.parametrize("what", ["labelled_only", "features", "language", "everything"])
def test_a_lever_changes_neither_loss_nor_gradient(
    what: str, any_base: Path, samples: list[Sample], tmp_path: Path
) -> None:
    model, processor = with_lora(any_base)
    pad = padding_id(processor)
    data = CodeDataset(samples[:4], processor)
    lengths = {len(data[i]["input_ids"]) for i in range(4)}
    assert len(lengths) > 1, "rows of one length would not show what padding does"
    plain = loss_and_gradient(model, collate([data[i] for i in range(4)], pad, False))
    if what == "labelled_only":
        batch = collate([data[i] for i in range(4)], pad, True)
        assert len(batch["logits_to_keep"]) < batch["input_ids"].shape[1]
    elif what == "features":
        images = [sample.image for sample in samples[:4]]
        place = cache_features(model, processor, images, tmp_path, progress=False)
        cached = CodeDataset(samples[:4], processor, features=place)
        batch = collate([cached[i] for i in range(4)], pad, False)
        assert "pixel_values" not in batch
        again = cache_features(model, processor, images[::-1], tmp_path, progress=False)
        assert again == place
        other, _ = with_lora(any_base)
        tower = next(
            p for n, p in other.named_parameters() if "vis" in n and p.dim() > 1 and p.any()
        )
        tower.data *= 1.01
        assert cache_features(other, processor, [], tmp_path, progress=False) != place
    else:
        recompute_activations(model, what)
        batch = collate([data[i] for i in range(4)], pad, False)
        calls = {"language": 0, "tower": 0}
        layers = {"language": language_model(model).layers[0], "tower": tower_layer(model)}
        for name, layer in layers.items():

            def count(*_: Any, name: str = name) -> None:
                calls[name] += 1

            # A piece of the layer: the layer's own hooks stay outside of what is recomputed.
            next(layer.children()).register_forward_pre_hook(count)
    assert_same(loss_and_gradient(model, batch), plain)
    if what in ("language", "everything"):
        assert calls["language"] == 2, "once forward, once again on the way back"
        assert what == "everything" or calls["tower"] == 1, "the tower is left alone"


def test_all_levers_together_change_nothing_in_four_bits_and_after_an_evaluation(
    any_base: Path, samples: list[Sample], tmp_path: Path
) -> None:
    pytest.importorskip("bitsandbytes", reason="bitsandbytes is installed on Linux only")
    model, processor = with_lora(any_base, quantize=True)
    stored = {name for name, p in model.named_parameters() if p.dtype == torch.uint8}
    assert stored and not [name for name in stored if "vis" in name or "connector" in name]
    pad = padding_id(processor)
    data = CodeDataset(samples[:3], processor)
    plain = loss_and_gradient(model, collate([data[i] for i in range(3)], pad, False))
    place = cache_features(
        model, processor, [s.image for s in samples[:3]], tmp_path, progress=False
    )
    cached = CodeDataset(samples[:3], processor, features=place)
    batch = collate([cached[i] for i in range(3)], pad)
    recompute_activations(model, "language")
    model.eval()  # where bitsandbytes would pack weights that then have no gradient
    with torch.no_grad():
        model(**{name: value for name, value in batch.items() if name != "labels"})
    assert_same(loss_and_gradient(model.train(), batch), plain)


def test_features_that_do_not_fit_or_are_not_taken_are_computed_every_time_and_it_is_said(
    base: Path,
    samples: list[Sample],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    model, processor = load_base(base)
    parts = [samples[:3], samples[3:5]]
    free = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(vision_cache.shutil, "disk_usage", lambda _: free._replace(free=9_000))
    assert vision_cache.features_for(model, processor, parts, tmp_path) is None
    assert "5 pictures need 0 GB, 0 GB are free" in capsys.readouterr().out
    monkeypatch.undo()
    place = vision_cache.features_for(model, processor, parts, tmp_path)
    assert place is not None and len(list(place.rglob("*.safetensors"))) == 5
    monkeypatch.setattr(type(model), "forward", lambda self, input_ids: None)
    assert vision_cache.features_for(model, processor, parts, tmp_path) is None
    assert "takes none" in capsys.readouterr().out


def test_rows_of_a_batch_are_about_equally_long_and_the_order_depends_on_seed_and_epoch_only():
    lengths = np.random.default_rng(0).integers(100, 3000, 1003)

    def order(seed: int, epoch: int) -> list[int]:
        rows = LengthOrder(lengths, 4, seed)
        rows.set_epoch(epoch)
        return list(rows)

    assert sorted(order(0, 0)) == list(range(1003))
    assert order(0, 1) == order(0, 1) != order(0, 0) != order(1, 0)

    def padding(rows: Sequence[int]) -> float:
        batches = [lengths[rows[i : i + 4]] for i in range(0, len(rows), 4)]
        return sum(float(b.max() * len(b) - b.sum()) for b in batches) / float(lengths.sum())

    chance = np.random.default_rng(1).permutation(1003).tolist()
    assert padding(order(0, 0)) < 0.1 * padding(chance)
    starts = [int(lengths[i]) for i in order(0, 0)[:200:4]]
    assert starts != sorted(starts, reverse=True), "long rows are spread over the epoch"


def test_a_model_trained_in_half_precision_is_the_one_that_is_saved(
    base: Path, samples: list[Sample], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supervised, "precision", lambda: torch.bfloat16)
    model, processor = with_lora(base)
    data = CodeDataset(samples[:4], processor)
    settings = TrainingSettings(max_steps=3, per_device_train_batch_size=2, learning_rate=1e-2)
    fine_tune(model, data, settings, tmp_path, padding_id(processor))
    assert {p.dtype for n, p in model.named_parameters() if "lora" in n} == {torch.float32}
    save_adapter(model, processor, tmp_path / "adapter", base, "card")
    again, _ = load_model(tmp_path / "adapter")
    batch = encode_prompt(processor, [samples[0].image])
    with torch.no_grad():
        assert torch.equal(model.eval()(**batch).logits, again(**batch).logits)
