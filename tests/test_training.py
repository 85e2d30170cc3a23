"""Protects the recipe: what is learned from, what is saved, what a resumed or broken run does.

The models are real LLaVA architectures of a few thousand parameters, built here.
"""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import set_seed

import image2cad.common.runs as runs
from image2cad.common.errors import InputError
from image2cad.common.runs import RESULT_FILE, prepare_run, run_folder, unfinished
from image2cad.data.samples import Sample
from image2cad.training.examples import CodeDataset, collate
from image2cad.training.supervised import TrainingSettings, fine_tune, labelled_loss
from image2cad.vlm.generation import generate_codes
from image2cad.vlm.loading import (
    attach_lora,
    load_base,
    load_model,
    save_adapter,
    trainable_share,
)
from image2cad.vlm.prompting import IGNORED, encode_prompt

ROOT = Path(__file__).resolve().parent.parent


def train(base: Path, samples: list[Sample], folder: Path, resume: bool, **changes: Any) -> Any:
    settings = replace(
        TrainingSettings(
            max_steps=6, per_device_train_batch_size=4, learning_rate=1e-2, save_steps=2
        ),
        **changes,
    )
    set_seed(settings.seed)
    model, processor = load_base(base)
    model = attach_lora(model, r=4, lora_alpha=8, lora_dropout=0.1)
    data = CodeDataset(samples, processor)
    losses = fine_tune(model, data, settings, folder, processor.tokenizer.pad_token_id, resume)
    return model, processor, losses


def adapter_of(model: Any) -> dict[str, torch.Tensor]:
    return {n: p.detach().clone() for n, p in model.named_parameters() if "lora_" in n}


def test_the_loss_is_the_cross_entropy_of_code_and_eos_alone(
    base: Path, samples: list[Sample]
) -> None:
    model, processor = load_base(base)
    data = CodeDataset(samples, processor)
    batch = collate([data[0], data[1], data[2]], processor.tokenizer.pad_token_id, False)
    labels = batch.pop("labels")
    with torch.no_grad():
        output = model(**batch)
    log = output.logits[:, :-1].log_softmax(-1)
    terms = []
    for row in range(3):
        answer = processor.tokenizer(f" {samples[row].cadquery}", add_special_tokens=False)
        ids = [*answer["input_ids"], processor.tokenizer.eos_token_id]
        length = int(batch["attention_mask"][row].sum())
        assert batch["input_ids"][row, length - len(ids) : length].tolist() == ids, "nothing is cut"
        assert (labels[row] != IGNORED).sum() == len(ids)
        for place, token in enumerate(ids, start=length - len(ids) - 1):
            terms.append(-log[row, place, token])
    loss = labelled_loss(output, labels)
    assert torch.isclose(loss, torch.stack(terms).mean(), atol=1e-5)
    assert torch.isclose(loss, model(**batch, labels=labels).loss, atol=1e-5), (
        "as transformers has it"
    )


def test_long_rows_are_left_out_by_name_and_never_cut(base: Path, samples: list[Sample]) -> None:
    _, processor = load_base(base)
    huge = replace(samples[0], id="huge", cadquery=samples[0].cadquery + "# x" * 5000)
    data = CodeDataset([samples[1], huge], processor, max_length=2000)
    assert [row.id for row in data.dropped] == ["huge"]
    assert "the limit is 2000" in data.dropped[0].reason
    whole = CodeDataset([huge], processor)[0]
    assert len(whole["input_ids"]) > 5000 and "# x" in processor.tokenizer.decode(
        whole["input_ids"][-6:], skip_special_tokens=True
    )
    with pytest.raises(InputError, match="no sample left"):
        CodeDataset([huge], processor, max_length=2000)


@pytest.mark.slow
def test_lora_trains_the_language_model_only_and_saved_logits_come_back_in_a_new_process(
    base: Path, samples: list[Sample], tmp_path: Path
) -> None:
    model, processor, losses = train(base, samples, tmp_path / "run", resume=False, logging_steps=1)
    assert losses[-1]["loss"] < losses[0]["loss"]
    trained = [name for name, p in model.named_parameters() if p.requires_grad]
    assert trained and all("language_model" in name and "lora_" in name for name in trained)
    save_adapter(model, processor, tmp_path / "adapter", base, "card")
    model.eval()
    with torch.no_grad():
        logits = model(**encode_prompt(processor, [samples[0].image])).logits
    torch.save(logits, tmp_path / "logits.pt")
    samples[0].image.save(tmp_path / "picture.png")
    script = f"""
import torch
from PIL import Image
from image2cad.vlm.loading import load_model
from image2cad.vlm.prompting import encode_prompt
model, processor = load_model(r"{tmp_path / "adapter"}")
batch = encode_prompt(processor, [Image.open(r"{tmp_path / "picture.png"}")])
with torch.no_grad():
    got = model(**batch).logits
wanted = torch.load(r"{tmp_path / "logits.pt"}")
plain, _ = load_model(r"{base}")
with torch.no_grad():
    untrained = plain(**batch).logits
print(float((got - wanted).abs().max()), float((untrained - wanted).abs().max()))
"""
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True
    )
    difference, untrained = map(float, done.stdout.split()[-2:])
    assert difference <= 1e-4 < untrained


def test_a_loss_that_says_nothing_stops_the_run(
    base: Path, samples: list[Sample], tmp_path: Path
) -> None:
    class Unlabelled(CodeDataset):
        def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
            item = super().__getitem__(index)
            return {**item, "labels": torch.full_like(item["labels"], IGNORED)}

    model, processor = load_base(base)
    model = attach_lora(model)
    pad = processor.tokenizer.pad_token_id
    quick = TrainingSettings(max_steps=2, per_device_train_batch_size=2)
    with pytest.raises(InputError, match="loss"):
        fine_tune(model, Unlabelled(samples, processor), quick, tmp_path / "a", pad)
    model, processor = load_base(base)
    with torch.no_grad():
        model.model.language_model.norm.weight.fill_(float("nan"))
    with pytest.raises(InputError, match="lower --learning-rate"):
        fine_tune(attach_lora(model), CodeDataset(samples, processor), quick, tmp_path / "b", pad)


def test_a_damaged_or_orphaned_adapter_is_named(
    base: Path, samples: list[Sample], tmp_path: Path
) -> None:
    model, processor = load_base(base)
    save_adapter(attach_lora(model, r=4), processor, tmp_path, tmp_path / "gone", "card")
    with pytest.raises(InputError, match="was trained on the base .*gone"):
        load_model(tmp_path)
    save_adapter(attach_lora(load_base(base)[0], r=4), processor, tmp_path, base, "card")
    weights = tmp_path / "adapter_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:500])
    with pytest.raises(InputError, match="holds no whole adapter"):
        load_model(tmp_path)


def test_a_special_token_in_a_program_costs_that_row_only(
    base: Path, samples: list[Sample]
) -> None:
    _, processor = load_base(base)
    odd = replace(samples[0], id="odd", cadquery=samples[0].cadquery + "# </s>")
    data = CodeDataset([odd, samples[1]], processor)
    assert [row.id for row in data.dropped] == ["odd"] and len(data) == 1


def test_four_bits_store_the_language_model_only_and_still_train(
    base: Path, samples: list[Sample], tmp_path: Path
) -> None:
    pytest.importorskip("bitsandbytes", reason="bitsandbytes is installed on Linux only")
    model, processor = load_base(base, load_in_4bit=True)
    stored = {name for name, p in model.named_parameters() if p.dtype == torch.uint8}
    assert stored and all("language_model.layers" in name for name in stored)
    model = attach_lora(model, r=4, lora_alpha=8, lora_dropout=0.0)
    whole = attach_lora(load_base(base)[0], r=4, lora_alpha=8, lora_dropout=0.0)
    assert trainable_share(model) == trainable_share(whole), "two numbers share a byte"
    assert all(p.dtype == torch.float32 for _, p in adapter_of(model).items())
    before = adapter_of(model)
    pad = processor.tokenizer.pad_token_id
    fine_tune(
        model,
        CodeDataset(samples, processor),
        TrainingSettings(max_steps=2, per_device_train_batch_size=2),
        tmp_path,
        pad,
    )
    assert any(not torch.equal(value, before[name]) for name, value in adapter_of(model).items())


def test_generation_does_not_depend_on_the_batch_and_samples_by_seed(
    base: Path, samples: list[Sample]
) -> None:
    model, processor = load_model(base)
    images = [sample.image for sample in samples[:5]]
    quiet = {"max_new_tokens": 12, "progress": False}
    one = generate_codes(model, processor, images, batch_size=1, **quiet)
    assert one == generate_codes(model, processor, images, batch_size=3, **quiet)
    warm = {**quiet, "temperature": 1.5}
    drawn = generate_codes(model, processor, images, seed=1, **warm)
    assert drawn == generate_codes(model, processor, images, seed=1, **warm)
    assert drawn != generate_codes(model, processor, images, seed=2, **warm)


def test_a_run_folder_is_never_overwritten_nor_resumed_with_other_settings(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match="nothing to resume"):
        run_folder("train_cpu", resume=True)
    assert not unfinished("train_cpu")
    first = run_folder("train_cpu")
    prepare_run(first, {"epochs": 1, "out": "", "resume": False}, resume=False)
    with pytest.raises(InputError, match="already holds"):
        prepare_run(first, {"epochs": 1}, resume=False)
    with pytest.raises(InputError, match="epochs: 1 then, 2 now"):
        prepare_run(run_folder("train_cpu", resume=True), {"epochs": 2}, resume=True)
    prepare_run(run_folder("train_cpu", resume=True), {"epochs": 1, "resume": True}, resume=True)
    assert unfinished("train_cpu") and unfinished("", str(first))
    (first / RESULT_FILE).write_text("{}")
    assert not unfinished("train_cpu")
    with pytest.raises(InputError, match="finished"):
        prepare_run(first, {"epochs": 1}, resume=True)
    assert run_folder("train_cpu") != first
    monkeypatch.setattr(runs, "DRIVE", tmp_path / "drive")
    assert run_folder("train_cpu") == Path("runs/train_cpu-002"), "no Drive is mounted"
    (tmp_path / "drive").mkdir()
    assert run_folder("train_cpu") == tmp_path / "drive/image2cad/runs/train_cpu-001"
    with pytest.raises(InputError, match="nothing to resume"):
        prepare_run(tmp_path / "other", {}, resume=True)
    assert not (tmp_path / "other").exists()


def test_a_large_model_on_a_processor_gives_freed_memory_back() -> None:
    script = """
import resource, torch
from image2cad.training import supervised
from image2cad.training.supervised import give_freed_memory_back
model = torch.nn.Linear(10, 10)
assert not give_freed_memory_back(model), "a small one is quicker without"
supervised.MUCH_OF_RAM = 0.0
done = give_freed_memory_back(model)
faults = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(50):
    torch.ones(2**20)
print(done, resource.getrusage(resource.RUSAGE_SELF).ru_minflt - faults)
"""
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True
    )
    worked, faults = done.stdout.split()
    if sys.platform.startswith("linux") and not torch.cuda.is_available():
        assert worked == "True" and int(faults) > 40 * 1024, "each block of 4 MiB is a new one"
    else:
        assert worked == "False"
