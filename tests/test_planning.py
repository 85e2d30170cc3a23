"""Protects the planner: what it predicts is what is measured, it is quick, and it is used.

The peak of tensors in `fine_tune` on a processor, as torch's own allocator counts it; figures for
cards as worked out before by another program; plans that fit, and settings that are refused.
"""

from __future__ import annotations

import copy
import io
import runpy
import sys
from collections.abc import Iterator
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import replace
from functools import wraps
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.profiler import ProfilerActivity, profile
from transformers import (
    AutoConfig,
    AutoModelForImageTextToText,
    CLIPImageProcessor,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaProcessor,
    Trainer,
    TrainingArguments,
    set_seed,
)

from image2cad.common import InputError
from image2cad.training.checkpoints import rows_begun
from image2cad.training.planning import plans
from image2cad.training.planning.allocator import Replayed, needed, replay
from image2cad.training.planning.cards import CARDS, CONTEXT, GIB, LEFT_FREE, Card, card_named
from image2cad.training.planning.cuda_manners import patched
from image2cad.training.planning.fakes import Work, shallower, tensors_of
from image2cad.training.planning.plans import GAP, plan_run
from image2cad.training.planning.steps import (
    answers_use,
    estimated_use,
    training_use,
    validation_use,
)
from image2cad.training.planning.tracking import LOGITS
from image2cad.training.supervised import TrainingSettings, fine_tune
from image2cad.vlm.facts import base_facts, shipped_bases
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
            "features": [torch.randn(work.picture, width)],
        }  # fmt: skip

    def __len__(self) -> int:
        return 8

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        return {name: copy.deepcopy(value) for name, value in self.row.items()}


def measured(base: Path, work: Work, folder: Path) -> tuple[int, int]:
    """(bytes of the model, bytes at the peak) of two steps of `fine_tune` on a processor."""
    set_seed(0)
    model, _ = load_base(base, work.load_in_4bit)
    model = attach_lora(
        model, work.r, 2 * work.r, work.lora_dropout, use_dora=work.use_dora,
        target_modules=work.target_modules, layers_to_transform=work.layers_to_transform,
    )  # fmt: skip
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
MIDDLING_WORK = replace(NANO_WORK, tokens=320, labelled=48, picture=256, rows=1)


@pytest.mark.parametrize(
    "which, changes",
    [
        ("nano", {"loss_in_chunks": False, "use_dora": True, "target_modules": "q_proj,up_proj"}),
        ("nano", {"recompute": "nothing", "layers_to_transform": "1-2"}),
        ("nano", {"load_in_4bit": True}),
        ("middling", {"recompute": 5}),
    ],
)
def test_the_predicted_peak_is_the_one_that_is_measured(
    which: str, changes: dict[str, Any], middling: Path, tmp_path: Path
) -> None:
    base = ROOT / "models" / "nano" if which == "nano" else middling
    work = replace(NANO_WORK if which == "nano" else MIDDLING_WORK, **changes)
    use = training_use(AutoConfig.from_pretrained(base), work, CPU)
    assert rows_begun(tmp_path) == 0
    weights, peak = measured(base, work, tmp_path)
    assert rows_begun(tmp_path) == work.rows
    assert use.weights == pytest.approx(weights, rel=1e-3)
    assert use.peak == pytest.approx(peak, rel=0.02)
    assert use.peak - use.weights == pytest.approx(peak - weights, rel=0.05)


# ---- Figures for cards

FIGURES = [  # GiB in use, of an earlier program that ran whole models: base, tokens, labelled, peak
    ("llava-hf/llava-1.5-7b-hf", 1024, 431, 5.01),
    ("llava-hf/llava-1.5-7b-hf", 2700, 2107, 5.88),
    ("Qwen/Qwen2.5-VL-7B-Instruct", 1024, 744, 8.08),
    ("Qwen/Qwen2.5-VL-7B-Instruct", 2700, 2420, 11.28),
]


@pytest.mark.parametrize("base, tokens, labelled, peak", FIGURES)
def test_a_t4_needs_what_was_worked_out_before_and_the_loss_in_chunks_is_no_peak(
    base: str, tokens: int, labelled: int, peak: float
) -> None:
    facts = base_facts(base)
    work = Work(tokens, labelled, facts.picture_tokens, loss_in_chunks=False)
    whole = estimated_use(training_use, facts.config, work, CARDS["T4"])
    assert whole.peak / GIB == pytest.approx(peak, rel=0.05)
    if labelled == 2420:
        use = estimated_use(
            training_use, facts.config, replace(work, loss_in_chunks=True), CARDS["T4"]
        )
        logits = [parts.get(LOGITS, 0) for _, parts in use.peaks.values()]
        assert whole.parts[LOGITS] / GIB > 4 and max(logits) / GIB < 0.5


@pytest.mark.parametrize(
    "base", ["Qwen/Qwen3-VL-2B-Instruct", "google/gemma-3-4b-it", "OpenGVLab/InternVL3-1B-hf",
             "HuggingFaceTB/SmolVLM2-2.2B-Instruct", "zai-org/GLM-4.1V-9B-Thinking"],
)  # fmt: skip
def test_every_architecture_is_planned_from_its_config(base: str) -> None:
    facts = base_facts(base)
    config = shallower(facts.config, 1)
    tokens = facts.picture_tokens + 200
    use = training_use(config, Work(tokens, 180, facts.picture_tokens), CARDS["L4"])
    text = config.get_text_config()
    kept = 2 * text.num_hidden_layers * text.hidden_size * tokens
    assert kept < use.peak - use.weights < 2 * GIB and use.trained > 1e5


def test_shallow_models_tell_what_a_deep_one_needs(middling: Path) -> None:
    config = shallower(AutoConfig.from_pretrained(middling), 7)
    work = replace(MIDDLING_WORK, load_in_4bit=True, optim="paged_adamw_8bit", accumulated=True)
    for use_of in (training_use, validation_use, answers_use):
        guessed = estimated_use(use_of, config, work, CARDS["T4"])
        whole = use_of(config, work, CARDS["T4"])
        assert (guessed.peak, guessed.place) == (whole.peak, whole.place), use_of
        assert guessed.parts == whole.parts
        assert guessed.flops == whole.flops and guessed.parameters == whole.parameters
    for chosen, way in (("3-6", "nothing"), ("0,3,4", "language")):
        some = replace(work, layers_to_transform=chosen, recompute=way, target_modules="q_proj")
        guessed = estimated_use(training_use, config, some, CARDS["T4"])
        whole = training_use(config, some, CARDS["T4"])
        assert guessed.peak == pytest.approx(whole.peak, rel=0.01), chosen
        assert guessed.trained == whole.trained
    long = replace(work, tokens=4272, labelled=4000)
    use = estimated_use(answers_use, config, long, CARDS["T4"])
    cache = 2 * work.rows * long.tokens * 640 * 7 * 2
    assert use.place.startswith("answer")
    # Keys and values of every token, and a layer's once more while they grow.
    assert cache < use.peak - use.weights < cache + 1.1 * cache / 7


def test_the_allocator_rounds_splits_and_gives_back_as_torchs_does() -> None:
    small, large = 600, 3 * 2**20
    assert replay([(1, small)]) == Replayed(1024, 2 * 2**20, False)
    assert replay([(1, large)]) == Replayed(large, 20 * 2**20, False)
    assert replay([(1, 11 * 2**20)]) == Replayed(12 * 2**20, 12 * 2**20, False)
    # 7 MiB after 10 MiB in a segment of 20 MiB, then its place is taken again
    events = [(1, 9 * 2**20), (2, 9 * 2**20), (1, 0), (3, 8 * 2**20), (2, 0), (3, 0)]
    assert replay(events) == Replayed(18 * 2**20, 20 * 2**20, False)
    # a freed segment of its own is given back where the card is full, and only whole
    freed = [(1, 40 * 2**20), (1, 0), (2, 60 * 2**20)]
    assert replay(freed).reserved == 100 * 2**20
    assert not replay(freed, 90 * 2**20).full
    assert replay([*freed[:1], *freed[2:]], 90 * 2**20).full
    assert 60 * 2**20 <= needed(freed) <= 92 * 2**20


def test_configs_that_ship_are_those_of_the_bases() -> None:
    """Parameters as the hub counts them, in billions."""
    counts = {
        "llava-1.5-7b-hf": 7.06, "Qwen2.5-VL-3B-Instruct": 3.75, "Qwen2.5-VL-7B-Instruct": 8.29,
        "SmolVLM2-2.2B-Instruct": 2.25, "GLM-4.1V-9B-Thinking": 10.29, "GLM-4.5V": 107.7,
        "Qwen3-VL-2B-Instruct": 2.13, "Qwen3-VL-4B-Instruct": 4.44, "Qwen3-VL-8B-Instruct": 8.77,
        "gemma-3-4b-it": 4.30, "InternVL3-1B-hf": 0.938, "InternVL3-2B-hf": 2.09,
        "InternVL3-8B-hf": 7.94,
    }  # fmt: skip
    assert {name.split("/")[1] for name in shipped_bases()} == set(counts)
    for name in shipped_bases():
        config = base_facts(name).config
        with torch.device("meta"):
            model = AutoModelForImageTextToText.from_config(config)
        model.tie_weights()
        count = sum(p.numel() for p in model.parameters()) / 1e9
        assert count == pytest.approx(counts[name.split("/")[1]], rel=2e-3), name


# ---- Plans

LAYERS = 3
SETTINGS = {
    "max_train_samples": 20, "validation": 4, "held_out": 4, "compact": True, "max_length": 4000,
    "load_in_4bit": True, "lora_r": 16, "target_modules": "all-linear",
    "layers_to_transform": None, "use_dora": False, "image_size": None,
    "num_train_epochs": 2.0, "per_device_train_batch_size": 1,
    "gradient_accumulation_steps": 8, "recompute": "auto", "cache_features": True,
    "max_new_tokens": 256, "merge": False,
}  # fmt: skip


@pytest.fixture(scope="module", autouse=True)
def watched_once() -> Iterator[None]:
    """What a pass needs does not depend on how much memory a card has: watch each one once."""
    kept: dict[Any, Any] = {}

    def once(use_of: Any) -> Any:
        @wraps(use_of)
        def remembered(*given: Any) -> Any:
            *first, config, work, card = given
            names = [one.__name__ for one in first]
            key = (use_of.__name__, *names, config.to_json_string(), work, replace(card, memory=0))
            if key not in kept:
                kept[key] = use_of(*given)
            return kept[key]

        return remembered

    names = ("training_use", "estimated_use", "answers_use", "validation_use")
    with patched(plans, **{name: once(getattr(plans, name)) for name in names}):
        yield


@pytest.fixture(scope="module")
def wide(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Settings for a base of which there is a config alone: wide, so that layers are large."""
    config = LlavaConfig(
        vision_config={
            "model_type": "clip_vision_model", "hidden_size": 256, "intermediate_size": 1024,
            "num_hidden_layers": 1, "num_attention_heads": 4, "image_size": 224, "patch_size": 14,
        },
        text_config={
            "model_type": "llama", "vocab_size": 32064, "hidden_size": 4096,
            "intermediate_size": 11008, "num_hidden_layers": LAYERS, "num_attention_heads": 32,
            "num_key_value_heads": 32, "max_position_embeddings": 4096,
        },
        image_token_index=4, image_seq_length=256,
    )  # fmt: skip
    folder = tmp_path_factory.mktemp("models") / "wide"
    config.save_pretrained(folder)
    # Fewer matrices are watched sooner.
    return {**SETTINGS, "base": str(folder), "target_modules": "q_proj,down_proj"}


def of_memory(size: float) -> Card:
    """A T4 with so many bytes for the allocator."""
    memory = int((size + CONTEXT) / (1 - LEFT_FREE)) + 1
    return replace(CARDS["T4"], memory=memory)


def test_a_plan_recomputes_as_little_as_memory_demands_and_what_it_says_fits(
    wide: dict[str, Any],
) -> None:
    nothing = plan_run({**wide, "recompute": "nothing"}, CARDS["L4"])
    assert plan_run({**wide, "recompute": 0}, CARDS["L4"]).recompute == 0
    everything = plan_run({**wide, "recompute": "language"}, CARDS["L4"])
    assert nothing.recompute == "nothing" and everything.recompute == "language"
    spared = nothing.training.used - everything.training.used
    assert spared > 1.4 * GIB
    card = of_memory(everything.training.used + 0.5 * spared + GAP)
    tight = plan_run(wide, card)
    assert isinstance(tight.recompute, tuple)
    lengths, layers = zip(*tight.recompute, strict=True)
    assert list(lengths) == sorted(lengths) and list(layers) == sorted(layers)
    assert lengths[-1] == 4000 and layers[0] == 0 < layers[-1] < LAYERS
    config = base_facts(wide["base"]).config
    for tokens, number in tight.recompute:  # every line of it, looked at anew
        work = Work(
            tokens, tokens - 273, 256, recompute=number, accumulated=True,
            target_modules="q_proj,down_proj",
        )  # fmt: skip
        use = training_use(config, work, card)
        assert needed(use.events) <= card.usable
    short = plan_run(wide, card, lengths=[600, 620, 580])
    assert short.recompute == "nothing", "rows turned out to be short"
    assert (short.samples, short.tokens, short.mean) == (3, 620, 600)
    assert short.steps == 2 and tight.steps == 6
    longer = plan_run(wide, card, lengths=[600, 620, 580], longest_validated=2000)
    assert longer.training == short.training
    assert longer.validation.used > short.validation.used + 1380 * 4096 * 2
    assert {"weights", "adapter", "optimiser", "activations"} <= set(tight.training.parts)


def test_rows_a_pass_are_chosen_and_make_the_same_step(wide: dict[str, Any]) -> None:
    free = {**wide, "max_length": 400, "per_device_train_batch_size": 0}
    plan = plan_run(free, replace(CARDS["T4"], memory=64 * GIB))
    assert plan.rows > 1 and plan.rows * plan.accumulation == 8
    one = plan_run({**free, "per_device_train_batch_size": 1}, plan.card)
    assert plan.hours is not None and one.hours is not None and plan.hours < one.hours
    odd = plan_run({**free, "gradient_accumulation_steps": 5}, plan.card)
    assert (odd.rows, odd.accumulation) == (1, 5)
    begun = plan_run(free, plan.card, begun=2)
    assert (begun.rows, begun.accumulation) == (2, 4), "a run goes on as it began"


def test_several_processes_keep_states_and_gradients_for_each_other_on_the_card(
    wide: dict[str, Any],
) -> None:
    short = {**wide, "max_length": 400, "recompute": "nothing"}
    one, two = (plan_run(short, CARDS["L4"], processes=count) for count in (1, 2))
    for alone, among in ((one.training, two.training), (one.validation, two.validation)):
        more = {part: among.parts[part] - alone.parts.get(part, 0) for part in among.parts}
        # 8-bit states that cannot be paged, and a copy of the gradients in float32
        assert among.parts["optimiser"] == pytest.approx(2 * one.trained, rel=0.02)
        assert more["optimiser"] > 0.9 * one.trained, "of matrices that are large enough"
        assert more["adapter"] == pytest.approx(4 * one.trained, rel=0.01)
        assert more["weights"] == 0


def test_steps_are_as_many_as_the_trainer_makes(wide: dict[str, Any], tmp_path: Path) -> None:
    plan = plan_run({**wide, "max_length": 400}, replace(CARDS["T4"], memory=64 * GIB))
    for rows, passes, samples, epochs, steps in (
        (1, 8, 30, 3.0, 12), (1, 8, 9, 3.0, 6), (1, 8, 317, 3.0, 120), (4, 2, 1, 1.0, 1),
        (4, 2, 21, 2.5, 8), (2, 4, 24, 0.01, 1),
    ):  # fmt: skip
        wanted = replace(plan.wanted, num_train_epochs=epochs)
        this = replace(plan, wanted=wanted, rows=rows, accumulation=passes)
        trainer = Trainer(
            torch.nn.Linear(1, 1),
            TrainingArguments(
                str(tmp_path), per_device_train_batch_size=rows, gradient_accumulation_steps=passes,
                num_train_epochs=epochs, use_cpu=True, report_to="none",
            ),
            train_dataset=[{"row": 0}] * samples,
        )  # fmt: skip
        loader = trainer.get_train_dataloader()
        assert trainer.set_initial_training_values(trainer.args, loader)[-1] == steps
        assert this.steps_of(samples) == steps
    assert replace(plan, rows=2, accumulation=4, processes=3).steps_of(25) == 4, "2 an epoch"


def test_disk_counts_rows_features_and_a_merged_model_and_a_plan_says_what_it_assumes(
    wide: dict[str, Any], tmp_path: Path
) -> None:
    short = {**wide, "max_length": 400, "recompute": "language"}
    plan = plan_run(short, CARDS["L4"])
    assert "is assumed" not in plan.text() and "not counted" not in plan.text()
    uncached = plan_run({**short, "cache_features": False}, CARDS["L4"])
    assert "no features are kept" in uncached.text()
    assert plan.disk - uncached.disk == 24 * 256 * 4096 * 2, "rows, tokens, width, bytes"
    more = plan_run({**short, "cache_features": False, "max_train_samples": 1020}, CARDS["L4"])
    assert 9e6 < more.disk - uncached.disk < 15e6, "1,000 rows"
    merged = plan_run({**short, "merge": True}, CARDS["L4"])
    assert merged.disk - plan.disk == 2 * (plan.parameters - plan.trained)
    deep = shallower(base_facts("Qwen/Qwen3-VL-2B-Instruct").config, 2)
    deep.save_pretrained(tmp_path)
    facts = base_facts(str(tmp_path))
    assert facts.assumed and facts.picture_tokens == 256
    short["base"] = str(tmp_path)
    plan, uncached = (
        plan_run({**short, "cache_features": cached}, CARDS["L4"]) for cached in (True, False)
    )
    assert "a picture is assumed to be 256 tokens" in plan.text()
    assert plan.disk - uncached.disk == 4 * 24 * 256 * 2048 * 2, "four levels"


def test_what_cannot_fit_is_refused_with_what_to_change(wide: dict[str, Any]) -> None:
    plain = {**wide, "max_length": 1500, "recompute": "nothing"}
    for card in (CARDS["L4"], replace(CPU, memory=64 * GIB)):
        roomy = plan_run(plain, card)
        assert "may not fit" not in roomy.text()
        enough = max(roomy.training.held, roomy.answers.held) + card.beside
        assert "may not fit" in plan_run(plain, replace(card, memory=enough)).text()
        with pytest.raises(InputError, match=f"of this {card.name} .predicted.*--recompute auto"):
            plan_run(plain, replace(card, memory=roomy.training.held + card.beside - 1))
    small = of_memory(1.9 * GIB)
    with pytest.raises(InputError, match="--recompute auto and --per-device-train-batch-size 0"):
        plan_run({**wide, "recompute": "nothing", "per_device_train_batch_size": 4}, small)
    with pytest.raises(InputError, match=r"--max-length \d+") as refused:
        plan_run(wide, small)
    shorter = int(str(refused.value).split()[-1])
    assert plan_run({**wide, "max_length": shorter}, small).tokens == shorter
    with pytest.raises(InputError, match="weights alone .* a smaller --base"):
        plan_run(wide, of_memory(0.1 * GIB))
    with pytest.raises(InputError, match="lower --max-new-tokens"):
        plan_run({**wide, "max_length": 300, "max_new_tokens": 60_000}, small)
    with pytest.raises(InputError, match="not 'much'"):
        plan_run({**wide, "recompute": "much"}, small)
    with pytest.raises(InputError, match="not '-3'"):
        plan_run({**wide, "recompute": -3}, small)
    with pytest.raises(InputError, match="is as 20-31 .* not -15"):
        plan_run({**wide, "layers_to_transform": 16 - 31}, small)
    with pytest.raises(InputError, match="picture and prompt alone"):
        plan_run({**wide, "max_length": 200}, small)
    with pytest.raises(InputError, match="T4, L4"):
        card_named("T800")
    with pytest.raises(InputError, match="known without it: .*llava"):
        base_facts("nobody/nothing")


def test_the_recipe_says_its_plan_without_network_or_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)
    flags = ["--plan", "--base", "models/nano", "--gpu", "T4"]
    flags += ["--per-device-train-batch-size", "1"]
    monkeypatch.setattr(sys, "argv", ["colab_training.py", *flags])
    with pytest.raises(SystemExit) as done:
        runpy.run_path(str(ROOT / "colab_training.py"), run_name="__main__")
    said = capsys.readouterr().out
    assert not done.value.code
    assert "predicted for models/nano on T4" in said and "not measured" in said
    for word in ("training:", "validation:", "answers", "weights", "download", "disk", "RAM"):
        assert word in said
    assert "training (times or by 1.5)" in said
    assert not list(tmp_path.iterdir()), "nothing is written"
