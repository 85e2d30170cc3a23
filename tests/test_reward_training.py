"""Protects learning from rewards: the trained prompt, resuming, and an adapter like any other.

TRL writes prompts by a chat template of its own way of thinking; if one token differs from what
fine-tuning had, the policy starts from nonsense and no reward says why.
"""

from __future__ import annotations

import json
import os
import runpy
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import tiny
import torch
from PIL import Image

from image2cad.common.errors import InputError
from image2cad.data.rows import store_rows
from image2cad.data.samples import Sample, load_samples
from image2cad.training import grpo
from image2cad.training.grpo import grpo_config, train_grpo
from image2cad.training.rejection import best_of
from image2cad.training.rewards import iou_reward, validity_reward
from image2cad.vlm.loading import attach_lora, load_base, load_model, load_trainable
from image2cad.vlm.prompting import encode_prompt

ROOT = Path(__file__).resolve().parents[1]
QUICK = {
    "max_steps": 4, "per_device_train_batch_size": 2, "gradient_accumulation_steps": 2,
    "num_generations": 2, "num_iterations": 1, "max_completion_length": 40, "temperature": 0.6,
    "learning_rate": 3e-4, "save_steps": 2, "logging_steps": 1, "seed": 0,
}  # fmt: skip
TINY = (
    "--max-train-samples", "8", "--held-out", "4", "--num-generations", "4",
    "--per-device-train-batch-size", "4", "--gradient-accumulation-steps", "2",
    "--max-new-tokens", "60", "--max-completion-length", "60",
)  # fmt: skip


@pytest.fixture(scope="module")
def rows(tmp_path_factory):
    folder = tmp_path_factory.mktemp("rows")
    return store_rows("bundled", "train", folder, 6, compact=False, check_code=False)[0]


def lengths(completions, completion_ids, **_):
    """A reward that depends on nothing but the tokens."""
    return [float(len(ids)) for ids in completion_ids]


def variety(completions, completion_ids, **_):
    """A reward that programs of one length differ in."""
    return [float(len(set(ids))) for ids in completion_ids]


def weights(model):
    return {n: p.detach().clone() for n, p in model.named_parameters() if p.requires_grad}


def trained(rows, folder, resume=False, rewards=None, **settings):
    torch.manual_seed(0)
    model, processor, _ = load_trainable("models/nano")
    config = grpo_config(folder, **QUICK | settings)
    history = train_grpo(model, processor, rows, rewards or {lengths: 1.0}, config, resume)
    return model, history


@pytest.mark.parametrize("kind", ["qwen3", "smolvlm"])
def test_small_bases_of_today_learn_from_rewards_too(kind, rows, samples, tmp_path, monkeypatch):
    """Their pictures are patches of many rows, or tiles: TRL has to hand each to its programs."""
    seen = []
    original = grpo.GRPOTrainer._generate_single_turn

    def spy(self, prompt_ids, images, fields, *rest, **more):
        seen.extend(list(ids) for ids in prompt_ids)
        return original(self, prompt_ids, images, fields, *rest, **more)

    monkeypatch.setattr(grpo.GRPOTrainer, "_generate_single_turn", spy)
    base = tiny.BASES[kind](tmp_path / "base", [sample.cadquery for sample in samples])
    model, processor, _ = load_trainable(base, r=4)
    before = weights(model)
    config = grpo_config(tmp_path / "run", **QUICK | {"max_steps": 2, "temperature": 1.0})
    history = train_grpo(model, processor, rows, {variety: 1.0}, config)
    assert len(history) == 2
    after = weights(model)
    assert all(value.isfinite().all() for value in after.values())
    assert any(not torch.equal(value, before[name]) for name, value in after.items())
    trained = encode_prompt(processor, [rows[0].image])["input_ids"][0].tolist()
    assert trained in seen


def test_trl_gives_the_model_the_prompt_that_was_trained(rows, tmp_path, monkeypatch):
    seen = []
    original = grpo.GRPOTrainer._generate_single_turn

    def spy(self, prompt_ids, images, fields, *rest, **more):
        ids, logprobs = original(self, prompt_ids, images, fields, *rest, **more)
        seen.append((prompt_ids, fields["pixel_values"], ids))
        return ids, logprobs

    pictures = []

    def spying(completions, image, **_):
        pictures.extend(image)
        return [float(i) for i in range(len(completions))]

    monkeypatch.setattr(grpo.GRPOTrainer, "_generate_single_turn", spy)
    torch.manual_seed(0)
    model, processor, _ = load_trainable("models/nano")
    settings = {"max_steps": 2, "per_device_train_batch_size": 4, "num_iterations": 2}
    settings |= {"gradient_accumulation_steps": 1, "max_completion_length": 300}
    config = grpo_config(tmp_path, **QUICK | settings)
    train_grpo(model, processor, rows, {spying: 1.0}, config)
    for prompts, pixels, completions in seen:
        for prompt, pixel, ids in zip(prompts, pixels, completions, strict=True):
            image = pictures.pop(0)
            ours = encode_prompt(processor, [image])
            assert list(prompt) == ours["input_ids"][0].tolist()
            assert prompt[0] == processor.tokenizer.bos_token_id
            assert torch.allclose(torch.as_tensor(np.array(pixel)), ours["pixel_values"][0])
            assert processor.tokenizer.eos_token_id in (ids[-1], *ids[-1:]) or len(ids) == 300
    assert any(ids[-1] == processor.tokenizer.eos_token_id for _, _, many in seen for ids in many)


def test_what_earns_more_becomes_likelier(rows, tmp_path):
    _, history = trained(
        rows, tmp_path, max_steps=12, num_generations=8, per_device_train_batch_size=16,
        gradient_accumulation_steps=1, max_completion_length=60, learning_rate=5e-3,
    )  # fmt: skip
    tokens = [entry["tokens"] for entry in history]
    assert len(tokens) == 12 and np.mean(tokens[-4:]) > 1.2 * np.mean(tokens[:4])


def test_all_rewards_as_trl_calls_them_and_no_dropout_while_learning(rows, tmp_path):
    torch.manual_seed(0)
    base, processor = load_base("models/nano")
    model = attach_lora(base, 4, 8, lora_dropout=0.5)
    rates = set()

    def looking(completions, **_):
        rates.update(m.p for m in model.modules() if isinstance(m, torch.nn.Dropout))
        return [0.0] * len(completions)

    each = (validity_reward, iou_reward, looking)
    settings = {"max_steps": 2, "num_generations": 4, "per_device_train_batch_size": 8}
    settings |= {"gradient_accumulation_steps": 1, "max_completion_length": 100}
    config = grpo_config(tmp_path, **QUICK | settings | {"num_iterations": 2})
    history = train_grpo(model, processor, rows, dict.fromkeys(each, 1.0), config)
    assert rates == {0.0}
    for entry in history:
        values = [entry[reward.__name__] for reward in each]
        assert all(0.0 <= value <= 1.0 for value in values)
        assert entry["reward"] == pytest.approx(sum(values), abs=1e-3)
    assert any(entry["validity_reward"] > 0 for entry in history)


def test_what_cannot_learn_is_said(rows, tmp_path):
    with pytest.raises(InputError, match="6 pictures to learn from are fewer than the 7"):
        trained(rows, tmp_path, gradient_accumulation_steps=7)
    with pytest.raises(InputError, match="no numbers any more at step"):
        trained(rows, tmp_path, learning_rate=1e39)


@pytest.mark.parametrize("updates", [1, 2])
def test_an_interrupted_run_ends_where_the_uninterrupted_one_does(rows, tmp_path, updates):
    # Resumed in the second pass over the six rows.
    plan = {"num_iterations": updates, "max_steps": 5 * updates, "save_steps": 2 * updates - 1}
    whole, history = trained(rows, tmp_path / "whole", **plan)
    assert [entry["step"] for entry in history] == list(range(1, 5 * updates + 1, updates))

    class Stop(Exception):
        pass

    calls = []

    def stopping(completions, completion_ids, **_):
        calls.append(1)
        if len(calls) == 5:
            raise Stop
        return lengths(completions, completion_ids)

    with pytest.raises(Stop):
        trained(rows, tmp_path / "cut", rewards={stopping: 1.0}, **plan)
    again, _ = trained(rows, tmp_path / "cut", resume=True, **plan)
    for name, value in weights(whole).items():
        assert torch.allclose(value, weights(again)[name], atol=1e-6), name
    same, _ = trained(rows, tmp_path / "cut", resume=True, **plan)  # a run that has ended
    for name, value in weights(again).items():
        assert torch.equal(value, weights(same)[name])


def test_the_best_of_many_is_kept_and_not_made_twice(rows, tmp_path, monkeypatch):
    model, processor = load_model("models/nano")
    rewards = {iou_reward: 1.0, validity_reward: 0.1}
    file = tmp_path / "best.jsonl"
    torch.manual_seed(0)
    kept, earned = best_of(model, processor, rows, rewards, 4, file, max_new_tokens=120)
    assert earned["best"] > earned["mean"] > 0 and len(kept) == earned["kept"]
    assert all(sample.cadquery.endswith(")\n") for sample in kept)  # as the references end
    for sample in kept:
        row = next(r for r in rows if r.id == sample.id)
        assert iou_reward([sample.cadquery], cadquery=[row.cadquery])[0] > 0
    text = file.read_text()
    file.write_text(text[:-9])  # the last line was cut off
    monkeypatch.setattr(
        "image2cad.training.rejection.total_rewards",
        lambda codes, *_: [float(i) for i in range(len(codes))],
    )
    again, _ = best_of(model, processor, rows, rewards, 4, file, max_new_tokens=120)
    assert file.read_text().splitlines()[:-1] == text.splitlines()[:-1]
    assert [s.id for s in again][:-1] == [s.id for s in kept if s.id != rows[len(rows) - 1].id]
    assert json.loads(file.read_text().splitlines()[-1])["best"] == 3.0


@pytest.fixture
def here(monkeypatch):
    """The recipe in this process, without the seconds that a new one imports for."""
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)

    def run_here(*flags, folder):
        monkeypatch.chdir(folder)
        monkeypatch.setattr(sys, "argv", ["train_reward.py", *flags])
        runpy.run_path(str(ROOT / "train_reward.py"), run_name="__main__")

    return run_here


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("recipe")


def test_the_recipe_killed_resumed_and_its_adapter_used_elsewhere(folder, here, capsys):
    few = folder / "few"
    few.mkdir()
    with open(few / "metadata.jsonl", "w") as file:
        for sample in load_samples("bundled", "test", 3)[0]:
            sample.image.save(few / f"{sample.id}.png")
            row = {"file_name": f"{sample.id}.png", "cadquery": sample.cadquery}
            file.write(json.dumps(row) + "\n")
    flags = ("--max-steps", "6", "--save-steps", "1", "--also", str(few))
    command = [sys.executable, ROOT / "train_reward.py", *TINY, *flags]
    process = subprocess.Popen(
        command, cwd=folder, env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    out = folder / "runs" / "train_reward-001"
    until = time.monotonic() + 240
    while not (out / "checkpoints" / "checkpoint-2").is_dir() and time.monotonic() < until:
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    here(*TINY, *flags, "--resume", folder=folder)
    said = capsys.readouterr().out
    assert said.count("gain in IoU_best") == 2 and str(few) in said
    summary = json.loads((out / "metrics.json").read_text())
    assert summary["n"] == 4 and summary["also"]["n"] == 3
    assert summary["before"]["iou_best"]["mean"] is not None
    assert [entry["step"] for entry in summary["curve"]][-1] >= 5
    for name in ("report.html", "predictions.jsonl", "sheet.png", "adapter/README.md"):
        assert (out / name).is_file()

    sample = load_samples("bundled", "test", 1)[0][0]
    assert isinstance(sample, Sample) and isinstance(sample.image, Image.Image)
    evaluated = subprocess.run(
        [sys.executable, "-m", "image2cad.evaluation", "--model", out / "adapter", "--data",
         "bundled", "--limit", "4", "--effort", "none", "--max-new-tokens", "60",
         "--out", folder / "eval"],
        cwd=ROOT, capture_output=True, text=True,
    )  # fmt: skip
    assert evaluated.returncode == 0, evaluated.stderr[-2000:]
    from image2cad.serving.backends import local_backend

    backend = local_backend(str(out / "adapter"))  # what app.py asks for candidates
    assert "cadquery" in backend.propose(sample.image, "none")[0]


def test_the_recipe_by_rejection_from_an_adapter(folder, here):
    start = str(folder / "runs" / "train_reward-001" / "adapter")
    flags = ("--model", start, "--num-train-epochs", "1", "--out", "rejected")
    here(*TINY, "--method", "rejection", *flags, folder=folder)
    config = json.loads((folder / "rejected/adapter/adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == "models/nano"
    summary = json.loads((folder / "rejected/metrics.json").read_text())
    assert summary["curve"][0]["best"] >= summary["curve"][0]["mean"]


def test_bad_flags_are_one_clear_line(folder, here, tmp_path, capsys):
    with pytest.raises(InputError) as refused:
        here(*TINY, "--model", "nowhere", folder=folder)
    with pytest.raises(SystemExit) as ended:  # as the recipe's own process ends
        sys.excepthook(InputError, refused.value, None)
    assert ended.value.code == 2 and "'nowhere'" in capsys.readouterr().err.splitlines()[-1]
    for flags, message in {
        ("--method", "ppo"): "--method is grpo or rejection",
        ("--num-generations", "3"): "--num-generations has to divide",
        ("--iou-weight", "0", "--validity-weight", "0"): "at least one reward",
        ("--max-train-samples", "none"): "--max-train-samples says",
        ("--temperature", "0"): "--temperature must be at least",
        ("--learning-rate", "inf"): "--learning-rate must be at least",
        ("--iou-weight", "nan"): "--iou-weight must be at least 0",
        ("--seed", str(2**32)): "--seed must be below",
    }.items():
        with pytest.raises(InputError, match=message):
            here(*flags, folder=tmp_path)
        assert not list(tmp_path.iterdir())
