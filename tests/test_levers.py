"""Protects the levers of the T4 recipe: each saves memory or time and leaves the result as it is.

Loss and gradients with a lever are those without it, on every architecture, in four bits and in
half precision.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import replace
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
    as_trained,
    fine_tune,
    labelled_loss,
    layers_for,
    recompute_activations,
)
from image2cad.training.vision_cache import cache_features
from image2cad.vlm.bases import language_head, language_model
from image2cad.vlm.loading import attach_lora, load_base, load_model, save_adapter
from image2cad.vlm.nano import NanoShape
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


def chunked_loss_and_gradient(model: Any, batch: dict[str, Any]) -> tuple[float, torch.Tensor]:
    """The same, by the way that training goes: hidden states out, logits of some rows at a time."""
    batch = dict(batch)
    labels = batch.pop("labels")
    model.zero_grad()
    with as_trained(model, torch.float32) as head:
        loss = labelled_loss(model(**batch), labels, head=head)
        loss.backward()
    trained = [p for p in model.parameters() if p.requires_grad]
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


@pytest.mark.parametrize(
    "what", ["labelled_only", "chunks", "features", "language", "everything", 1, 0]
)
def test_a_lever_changes_neither_loss_nor_gradient(
    what: str | int,
    any_base: Path,
    samples: list[Sample],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model, processor = with_lora(any_base)
    pad = padding_id(processor)
    rows = samples[:4]
    if what == "features" and any_base.name != "llava":  # a base that takes several views
        seen = [(), (samples[5].image,), (), (samples[6].image, samples[7].image)]
        rows = [replace(row, views=views) for row, views in zip(rows, seen, strict=True)]
    data = CodeDataset(rows, processor)
    lengths = {len(data[i]["input_ids"]) for i in range(4)}
    assert len(lengths) > 1, "rows of one length would not show what padding does"
    plain = loss_and_gradient(model, collate([data[i] for i in range(4)], pad, False))
    if what == "labelled_only":
        batch = collate([data[i] for i in range(4)], pad, True)
        assert len(batch["logits_to_keep"]) < batch["input_ids"].shape[1]
    elif what == "chunks":
        call, made = supervised.LogitsHead.__call__, []
        vocabulary = language_head(model).weight.shape[0]
        monkeypatch.setattr(supervised, "LOGITS_AT_ONCE", 7 * vocabulary)

        def counted(head: Any, hidden: torch.Tensor) -> torch.Tensor:
            made.append(len(hidden))
            return call(head, hidden)

        monkeypatch.setattr(supervised.LogitsHead, "__call__", counted)
        batch = collate([data[i] for i in range(4)], pad, True)
        rows = len(batch["logits_to_keep"]) * 4
        assert_same(chunked_loss_and_gradient(model, batch), plain)
        assert max(made) == 7 and sum(made) > rows, "all but the last are made twice"
        assert_same(loss_and_gradient(model, batch), plain)  # the head is back in its place
        return
    elif what == "features":
        images = [image for row in rows for image in (row.image, *row.views)]
        place = cache_features(model, processor, images, tmp_path, progress=False)
        cached = CodeDataset(rows, processor, features=place)
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
        layers = {"language": language_model(model).layers, "tower": [tower_layer(model)]}
        calls = {name: [0] * len(some) for name, some in layers.items()}
        for name, number in [(name, n) for name, some in layers.items() for n in range(len(some))]:

            def count(*_: Any, name: str = name, number: int = number) -> None:
                calls[name][number] += 1

            # A piece of the layer: the layer's own hooks stay outside of what is recomputed.
            next(layers[name][number].children()).register_forward_pre_hook(count)
    assert_same(loss_and_gradient(model, batch), plain)
    if what not in ("labelled_only", "features"):
        again = what == "everything" or what == "language"
        of_layers = [1 + (again or number < what) for number in range(len(calls["language"]))]
        assert calls["language"] == of_layers, "once forward, once again where it is recomputed"
        assert what == "everything" or calls["tower"] == [1], "the tower is left alone"


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


def test_a_pass_recomputes_as_many_layers_as_its_length_asks_for_and_the_first_step_moves(
    base: Path, samples: list[Sample], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "deep"
    shape = NanoShape(
        image=56, patch=14, vision_width=32, vision_layers=1, vision_heads=2,
        text_width=64, text_layers=3, text_heads=2,
    )  # fmt: skip
    tiny.llava(folder, [sample.cadquery for sample in samples], shape)
    results = {}
    step = supervised._OurTrainer.training_step
    for name, plan in {"nothing": "nothing", "planned": ((130, 0), (155, 2))}.items():
        model, processor = with_lora(folder)
        data = CodeDataset(samples, processor)
        used = []

        def watched(trainer: Any, model: Any, inputs: Any, *rest: Any, used: Any = used) -> Any:
            loss = step(trainer, model, inputs, *rest)
            layers = language_model(model).layers
            flags = [layer.gradient_checkpointing for layer in layers]
            used.append((inputs["input_ids"].numel(), flags))
            return loss

        monkeypatch.setattr(supervised._OurTrainer, "training_step", watched)
        before = {n: p.detach().clone() for n, p in model.named_parameters() if p.requires_grad}
        settings = TrainingSettings(
            max_steps=1, per_device_train_batch_size=1, gradient_accumulation_steps=12,
            learning_rate=1e-2, recompute=plan,
        )  # fmt: skip
        fine_tune(model, data, settings, tmp_path / name, padding_id(processor))
        monkeypatch.setattr(supervised._OurTrainer, "training_step", step)
        after = {n: p.detach() for n, p in model.named_parameters() if n in before}
        assert all(not torch.equal(after[n], before[n]) for n in before), "the rate is not 0"
        results[name] = torch.cat([after[n].flatten() for n in before])
        if name == "planned":
            wanted = {n: [k < layers_for(plan, n) for k in range(3)] for n, _ in used}
            assert dict(used) == wanted
            assert {sum(flags) for _, flags in used} == {0, 2, 3}, "all three kinds occurred"
    assert torch.allclose(results["planned"], results["nothing"], atol=1e-6)


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


def test_a_second_training_of_one_model_is_in_half_precision_too(
    base: Path, samples: list[Sample], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supervised, "precision", lambda: torch.bfloat16)
    model, processor = with_lora(base)
    data = CodeDataset(samples[:2], processor)
    settings = TrainingSettings(max_steps=1, per_device_train_batch_size=2)
    cast = []
    language_model(model).layers[0].register_forward_pre_hook(
        lambda *_: cast.append(torch.is_autocast_enabled("cpu"))
    )
    for round_ in ("first", "second"):
        fine_tune(model, data, settings, tmp_path / round_, padding_id(processor))
    assert cast == [True, True]
