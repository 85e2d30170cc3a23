"""Protects the levers of the T4 recipe: each saves memory or time and leaves the result as it is.

Loss and gradients with a lever are those without it, on every architecture; a run that was
killed ends with the adapter of one that was not; several processes learn what one learns.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
import torch
from safetensors.torch import load_file
from transformers import set_seed
from transformers.modeling_layers import GradientCheckpointingLayer

import image2cad.towers as towers
import image2cad.training as training
from image2cad.bases import language_model
from image2cad.checkpoints import TRAINED, last_whole_checkpoint
from image2cad.examples import CodeDataset, LengthOrder, collate
from image2cad.modeling import attach_lora, load_base, load_model, save_adapter
from image2cad.prompting import encode_prompt, padding_id
from image2cad.samples import Sample
from image2cad.towers import cache_features
from image2cad.training import Settings, fit, labelled_loss, recompute_activations

ROOT = Path(__file__).resolve().parent.parent


def with_lora(base: Path, quantize: bool = False) -> tuple[Any, Any]:
    """A model whose adapter does something already: a new one has no gradient for its A."""
    set_seed(0)
    model, processor = load_base(base, quantize)
    model = attach_lora(model, rank=4, alpha=8, dropout=0.0)
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
        tower = next(p for n, p in other.named_parameters() if "vis" in n and p.dim() > 1)
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
    monkeypatch.setattr(towers.shutil, "disk_usage", lambda _: free._replace(free=9_000))
    assert towers.features_for(model, processor, parts, tmp_path) is None
    assert "5 pictures need 0 GB, 0 GB are free" in capsys.readouterr().out
    monkeypatch.undo()
    place = towers.features_for(model, processor, parts, tmp_path)
    assert place is not None and len(list(place.rglob("*.safetensors"))) == 5
    monkeypatch.setattr(type(model), "forward", lambda self, input_ids: None)
    assert towers.features_for(model, processor, parts, tmp_path) is None
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


RUN = """
import sys
from pathlib import Path
sys.path[:0] = [{root!r}, {tests!r}]
from accelerate import PartialState
from image2cad.modeling import quiet
from image2cad.samples import load_samples
from test_levers import train
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
    settings = Settings(
        epochs=6, batch_size=batch_size, accumulate=2, learning_rate=1e-2, save_steps=3, seed=3,
        log_steps=1, patience=9, by_length=True, recompute="language",
    )  # fmt: skip
    set_seed(settings.seed)
    model, processor = load_base(base)
    model = attach_lora(model, rank=4, alpha=8, dropout=dropout)
    images = [sample.image for sample in samples]
    place = cache_features(model, processor, images, folder.parent / "features", progress=False)
    data = CodeDataset(samples[:10], processor, features=place)
    validation = CodeDataset(samples[10:], processor, features=place)
    fit(model, data, settings, folder, padding_id(processor), resume, validation)
    if int(os.environ.get("RANK", "0")) == 0:
        model.save_pretrained(folder / "adapter")


def command(base: Path, folder: Path, **options: Any) -> list[str]:
    """`train` as a program of its own."""
    names = {"root": str(ROOT), "tests": str(ROOT / "tests"), "base": str(base)}
    file = folder.parent / f"{folder.name}.py"
    file.write_text(RUN.format(**names, folder=str(folder), options=options))
    return [sys.executable, str(file)]


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
        process = subprocess.Popen(
            command(base, folder, resume=resume),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        wanted = int(chance.integers(1, 4)) * 3 + 3 * kills
        while process.poll() is None and not (folder / f"checkpoints/checkpoint-{wanted}").exists():
            time.sleep(0.005)
        time.sleep(float(chance.uniform(0, 0.1)))
        if process.poll() is None:
            process.send_signal(signal.SIGKILL)
            kills += 1
        process.wait()
        if (folder / "adapter").exists():
            break
    assert kills, "every run ended before it could be killed"
    if not (folder / "adapter").exists():
        subprocess.run(command(base, folder, resume=True), check=True, capture_output=True)
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
    model = attach_lora(model, rank=8, alpha=16, dropout=0.0)
    # Learning two rows by heart makes others worse.
    data, others = CodeDataset(samples[:2], processor), CodeDataset(samples[6:], processor)
    settings = Settings(steps=200, batch_size=2, learning_rate=0.05, save_steps=4, patience=2)
    settings = replace(settings, warmup=0.0)
    history = fit(model, data, settings, tmp_path, padding_id(processor), validation=others)
    losses = [entry["validation_loss"] for entry in history if "validation_loss" in entry]
    assert len(losses) < 50 and min(losses) == losses[-3] < losses[-1]
    ended = {n: p.detach().clone() for n, p in model.named_parameters() if p.requires_grad}
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data.zero_()
    pad = padding_id(processor)
    assert fit(model, data, settings, tmp_path, pad, True, others) == history, "it had ended"
    assert all(torch.equal(p, ended[n]) for n, p in model.named_parameters() if n in ended)
    batch = collate([others[i] for i in range(6)], padding_id(processor))
    labels = batch.pop("labels")
    model.eval()
    with torch.no_grad():
        now = float(labelled_loss(model(**batch), labels))
    assert abs(now - losses[-3]) < abs(now - losses[-1])


def test_a_model_trained_in_half_precision_is_the_one_that_is_saved(
    base: Path, samples: list[Sample], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(training, "precision", lambda: torch.bfloat16)
    model, processor = with_lora(base)
    data = CodeDataset(samples[:4], processor)
    settings = Settings(steps=3, batch_size=2, learning_rate=1e-2)
    fit(model, data, settings, tmp_path, padding_id(processor))
    assert {p.dtype for n, p in model.named_parameters() if "lora" in n} == {torch.float32}
    save_adapter(model, processor, tmp_path / "adapter", base, "card")
    again, _ = load_model(tmp_path / "adapter")
    batch = encode_prompt(processor, [samples[0].image])
    with torch.no_grad():
        assert torch.equal(model.eval()(**batch).logits, again(**batch).logits)


def test_a_checkpoint_that_lacks_a_file_is_passed_over(
    base: Path, samples: list[Sample], tmp_path: Path
) -> None:
    model, processor = with_lora(base)
    data = CodeDataset(samples[:4], processor)
    settings = Settings(steps=4, batch_size=2, save_steps=2)
    fit(model, data, settings, tmp_path, padding_id(processor))
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
    assert (tmp_path / TRAINED).is_file()
