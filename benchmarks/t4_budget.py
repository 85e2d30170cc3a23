"""What each lever of the T4 recipe saves, beside a plain correct recipe, in one run.

    python benchmarks/t4_budget.py                  # CPU: models/nano; GPU: LLaVA-1.5-7B
    python benchmarks/t4_budget.py --memory 14.7    # GiB that the GPU may use, as a T4's
    python benchmarks/t4_budget.py --predict        # LLaVA-1.5-7B on a T4, by calculation alone

Without a GPU what LLaVA-1.5-7B would need on a T4 is predicted (image2cad/training/planning) and
marked as such; on a GPU the prediction stands beside what is measured.

On a GPU: builds a LLaVA-1.5-7B of the true shapes with random weights, saves it in shards, loads it
through the recipe in NF4, and trains in float16 without flash attention and within a T4's memory,
at 1,024 and 2,700 tokens, one row a pass. On a CPU: models/nano in float32, eight rows
a pass, on synthetic programs as GenCAD-Code writes their numbers, and compact. The plain
recipe has no cache, all logits, everything recomputed, rows in random order, and on a GPU torch's
AdamW. Time is that of the last steps of a run through `training.fine_tune`: two runs of different
length are subtracted, so that set-up does not count.
"""

from __future__ import annotations

import argparse
import io
import itertools
import logging
import math
import random
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from transformers import (
    CLIPImageProcessor,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaProcessor,
)

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from image2cad.cad.program import to_code  # noqa: E402
from image2cad.cad.transforms import scaled  # noqa: E402
from image2cad.rendering.raster import draw  # noqa: E402
from image2cad.synthesis.parts import random_parts  # noqa: E402
from image2cad.training import supervised as training  # noqa: E402
from image2cad.training.planning.allocator import replay  # noqa: E402
from image2cad.training.planning.cards import CARDS, CONTEXT, GIB, Card, card_here  # noqa: E402
from image2cad.training.planning.fakes import Work  # noqa: E402
from image2cad.training.planning.plans import PROMPT_TOKENS, plan_run  # noqa: E402
from image2cad.training.planning.steps import (  # noqa: E402
    Use,
    answers_use,
    estimated_use,
    training_use,
)
from image2cad.training.supervised import layers_for  # noqa: E402
from image2cad.training.vision_cache import (  # noqa: E402
    cache_features,
    read_features,
    takes_features,
)
from image2cad.vlm import loading as modeling  # noqa: E402
from image2cad.vlm.facts import base_facts  # noqa: E402
from image2cad.vlm.nano import train_tokenizer  # noqa: E402
from image2cad.vlm.prompting import (  # noqa: E402
    add_code,
    encode_code,
    encode_picture,
    encode_prompt,
    padding_id,
)

ROWS = 64
ANSWER_TOKENS = 256
SEVEN_BILLION = "llava-hf/llava-1.5-7b-hf"
GENCAD = 0.7532 / 100  # GenCAD's parts are about this long for our 100 units: numbers have decimals
RECIPE = training.TrainingSettings(recompute="language", labelled_only=True, group_by_length=True)
LEVERS: dict[
    str, tuple[dict[str, Any], bool]
] = {  # what is switched off: changed settings, and whether features are cached
    "the recipe": ({}, True),
    "- feature cache": ({}, False),
    "- labelled rows only": ({"labelled_only": False}, True),
    "- loss in chunks": ({"loss_in_chunks": False}, True),
    "- language model only recomputed": ({"recompute": "everything"}, True),
    "- grouped by length": ({"group_by_length": False}, True),
    "- 8-bit Adam": ({"optim": "adamw_torch"}, True),
    "- recomputation": ({"recompute": "nothing"}, True),
}
# Of GPUs alone: the number of layers is planned for the length.
PLANNED = "recomputation as memory demands"
PLAIN = {
    "labelled_only": False,
    "loss_in_chunks": False,
    "recompute": "everything",
    "group_by_length": False,
    "optim": "adamw_torch",
}


class Rows(torch.utils.data.Dataset[dict[str, torch.Tensor]]):
    """Pictures and the ids of their programs, with pixels or with cached features."""

    def __init__(self, processor: Any, rows: list[tuple[Image.Image, list[int]]]) -> None:
        self.processor, self.rows = processor, rows
        self.features: Path | None = None
        self.head = {
            name: value
            for name, value in encode_picture(processor, rows[0][0]).items()
            if name != "pixel_values"
        }
        self.lengths = np.array([len(self.head["input_ids"]) + len(ids) for _, ids in rows])

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        image, ids = self.rows[index]
        if self.features is None:
            return add_code(encode_picture(self.processor, image), ids)
        return {**add_code(self.head, ids), "features": [read_features(self.features, image)]}


def seven_billion(folder: Path) -> None:
    """LLaVA-1.5-7B's shapes, random weights in float16, in shards of 2 GB."""
    tokenizer = train_tokenizer(["import cadquery as cq"], 300)
    config = LlavaConfig(
        vision_config={
            "model_type": "clip_vision_model", "hidden_size": 1024, "intermediate_size": 4096,
            "num_hidden_layers": 24, "num_attention_heads": 16, "image_size": 336,
            "patch_size": 14, "projection_dim": 768, "vocab_size": 32000,
        },
        text_config={
            "model_type": "llama", "vocab_size": 32064, "hidden_size": 4096,
            "intermediate_size": 11008, "num_hidden_layers": 32, "num_attention_heads": 32,
            "num_key_value_heads": 32, "max_position_embeddings": 4096, "rms_norm_eps": 1e-5,
        },
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
        image_seq_length=576, vision_feature_layer=-2, vision_feature_select_strategy="default",
    )  # fmt: skip
    torch.set_default_dtype(torch.float16)
    with torch.device("cuda"):
        model = LlavaForConditionalGeneration(config)
    torch.set_default_dtype(torch.float32)
    print(f"{sum(p.numel() for p in model.parameters()) / 1e6:,.0f} M parameters")
    model.save_pretrained(folder, max_shard_size="2GB")
    images = CLIPImageProcessor(size={"shortest_edge": 336}, crop_size=336)
    LlavaProcessor(
        images, tokenizer, patch_size=14, num_additional_image_tokens=1,
        vision_feature_select_strategy="default",
    ).save_pretrained(folder)  # fmt: skip


def measure(
    model: Any, data: Rows, settings: training.TrainingSettings, steps: int, pad: int
) -> tuple[float, float]:
    """(seconds a step, peak GiB of the GPU or nan) of the last `steps` steps of a run."""
    model.gradient_checkpointing_disable()
    best = {2: math.inf, 2 + steps: math.inf}
    # Other work on the machine makes a run longer, never shorter; nothing else works on a GPU.
    for count in [*best] * (2 if torch.cuda.is_available() else 3):
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()
        with tempfile.TemporaryDirectory() as folder, quiet():
            start = time.perf_counter()
            plan = replace(settings, max_steps=count, save_steps=10_000, logging_steps=10_000)
            training.fine_tune(model, data, plan, Path(folder), pad)
            best[count] = min(best[count], time.perf_counter() - start)
    peak = torch.cuda.max_memory_reserved() / 2**30 if torch.cuda.is_available() else float("nan")
    return (best[2 + steps] - best[2]) / steps, peak


@contextmanager
def quiet() -> Iterator[None]:
    """Nothing of what the Trainer prints."""
    with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
        yield


def kept_features(model: Any, processor: Any, images: list[Image.Image], at: Path) -> Path | None:
    """Where the pictures' features are; None, and a remark, where the base takes none."""
    if takes_features(model):
        return cache_features(model, processor, images, at, progress=False)
    print("this version of the base takes no picture features: they are computed every time")
    return None


def compare(
    model: Any,
    data: Rows,
    plain: Rows,
    base: training.TrainingSettings,
    steps: int,
    pad: int,
    place: Path | None,
) -> None:
    """Print a line for the plain recipe and one for the recipe without each lever."""
    gpu = torch.cuda.is_available()
    more = "   peak GiB   s a step   predicted: GiB   s a step" if gpu else ""
    print(f"{'':34} samples/s   ratio  tokens/s{more}")
    cases: list[tuple[str, Rows, dict[str, Any], bool]] = [
        (name, data, changes, cached)
        for name, (changes, cached) in LEVERS.items()
        if gpu or "8-bit" not in name
    ]
    if plain is not data:
        cases += [("- compact programs", plain, {}, True)]
    if gpu:
        planned = recomputed(int(data.lengths.max()), as_a_t4())
        cases += [(PLANNED, data, {"recompute": planned}, True)]
    cases += [("plain, compact programs", data, PLAIN, False)]
    if plain is not data:
        cases += [("plain, verbose programs", plain, PLAIN, False)]
    found = {}
    for name, rows, changes, cached in cases:
        rows.features = place if cached else None  # both programs of a part have one picture
        settings = replace(base, **{k: v for k, v in changes.items() if gpu or k != "optim"})
        try:
            seconds, peak = measure(model, rows, settings, steps, pad)
        except torch.cuda.OutOfMemoryError:
            print(f"{name:34} does not fit")
            continue
        samples = base.per_device_train_batch_size * base.gradient_accumulation_steps
        found[name] = rate = samples / seconds
        tokens = rate * float(rows.lengths.mean())
        extra = ""
        if gpu:
            use = predicted(settings, int(rows.lengths.max()), cached, as_a_t4())
            held = replay(use.events).reserved / GIB
            extra = f"   {peak:8.2f}   {seconds:8.2f}   {held:14.2f}   {use.seconds:8.2f}"
        ratio = rate / found["the recipe"]
        print(f"{name:34} {rate:9.2f}   {ratio:5.2f}  {tokens:8.0f}{extra}", flush=True)
    for name in ("plain, compact programs", "plain, verbose programs"):
        if name in found:
            print(f"the recipe is {found['the recipe'] / found[name]:.2f} times as fast as: {name}")


# ---- By calculation
def as_a_t4() -> Card:
    """This machine's GPU with a T4's ways: float16, no flash attention. Without one, a T4."""
    here = card_here()
    return replace(here, capability=CARDS["T4"].capability) if here.cuda else CARDS["T4"]


def recomputed(tokens: int, card: Card) -> int:
    """Layers that a row of so many tokens recomputes by the plan."""
    plan = plan_run(
        {
            "base": SEVEN_BILLION, "max_train_samples": ROWS, "validation": 0, "held_out": 1,
            "compact": True, "max_length": tokens, "load_in_4bit": True, "lora_r": 16,
            "target_modules": "all-linear", "layers_to_transform": None, "use_dora": False,
            "image_size": None,
            "num_train_epochs": 2.0, "per_device_train_batch_size": 1,
            "gradient_accumulation_steps": 8, "recompute": "auto", "cache_features": True,
            "max_new_tokens": 64, "merge": False,
        },
        card,
        lengths=[tokens],
    )  # fmt: skip
    how = plan.recompute
    if isinstance(how, tuple):
        return layers_for(how, tokens)
    return how if isinstance(how, int) else 0 if how == "nothing" else plan.layers


def predicted(
    settings: training.TrainingSettings,
    tokens: int,
    cached: bool,
    card: Card,
    load_in_4bit: bool = True,
    lora_dropout: float = 0.05,
) -> Use:
    """What one row of LLaVA-1.5-7B needs with these settings."""
    facts = base_facts(SEVEN_BILLION)
    picture = facts.picture_tokens
    work = Work(
        tokens, tokens - picture - PROMPT_TOKENS, picture,
        load_in_4bit=load_in_4bit, lora_dropout=lora_dropout, optim=settings.optim,
        recompute=settings.recompute, labelled_only=settings.labelled_only,
        loss_in_chunks=settings.loss_in_chunks, cached=cached,
    )  # fmt: skip
    return training_use(facts.config, work, card)


def predict() -> None:
    """Print what LLaVA-1.5-7B would need on a T4, with each lever and without."""
    card = CARDS["T4"]
    base = replace(RECIPE, optim="paged_adamw_8bit")
    print(f"\npredicted, not measured: {SEVEN_BILLION} on a T4, float16, one row a pass")
    for tokens in (700, 1024, 2700):
        planned = recomputed(tokens, card)
        named = f"{PLANNED} ({planned} of 32)"
        cases: dict[str, tuple[dict[str, Any], bool, dict[str, Any]]] = {
            name: (changes, cached, {})
            for name, (changes, cached) in LEVERS.items()
            if name != "- grouped by length"  # one row a pass has no padding
        }
        cases[named] = ({"recompute": planned}, True, {})
        cases["- 4 bits"] = ({}, True, {"load_in_4bit": False})
        cases["plain"] = (PLAIN, False, {})
        print(
            f"\n{tokens} tokens: in use, reserved GiB, s a row, ratio of times; a T4 has 14.74 GiB"
        )
        first = 0.0
        for name, (changes, cached, more) in cases.items():
            use = predicted(replace(base, **changes), tokens, cached, card, **more)
            first = first or use.seconds
            held = replay(use.events).reserved / GIB
            fits = "" if held + CONTEXT / GIB < card.memory / GIB else "   does not fit"
            print(
                f"{name:42} {use.peak / GIB:6.2f} {held:6.2f} {use.seconds:6.2f} "
                f"{use.seconds / first:5.2f}{fits}",
                flush=True,
            )


# ---- Measured
def on_gpu(options: argparse.Namespace, folder: Path) -> None:
    name, total = torch.cuda.get_device_name(), torch.cuda.get_device_properties(0).total_memory
    print(f"{name}, {options.memory} GiB allowed, float16, no flash attention, one row a pass")
    seven_billion(folder / "base")
    torch.cuda.empty_cache()
    torch.cuda.set_per_process_memory_fraction(min(options.memory * 2**30 / total, 1.0))
    torch.backends.cuda.enable_flash_sdp(False)
    training.precision = modeling.precision = lambda: torch.float16  # as on a T4
    model, processor = modeling.load_base(folder / "base", load_in_4bit=True)
    model = modeling.attach_lora(model)
    print(modeling.trainable_share(model))
    base = replace(
        RECIPE,
        per_device_train_batch_size=1,
        gradient_accumulation_steps=1,
        optim="paged_adamw_8bit",
    )
    chance = random.Random(0)
    images = [Image.effect_noise((448, 448), 10 + i).convert("RGB") for i in range(8)]
    place = kept_features(model, processor, images, folder / "features")
    answers(model, processor, images)
    for tokens in (1024, 2700):
        print(f"\n{tokens} tokens")
        head = len(encode_picture(processor, images[0])["input_ids"])
        rows = [(i, [chance.randrange(300, 32000) for _ in range(tokens - head)]) for i in images]
        data = Rows(processor, rows)
        compare(model, data, data, base, options.steps, padding_id(processor), place)


def answers(model: Any, processor: Any, images: list[Image.Image]) -> None:
    """Print what answering all pictures at a time takes, beside what is predicted."""
    model.gradient_checkpointing_disable()
    model.eval()
    batch = encode_prompt(processor, images).to(model.device)
    batch["pixel_values"] = batch["pixel_values"].to(model.dtype)
    head, seconds = batch["input_ids"].shape[1], {}
    for count in (2, ANSWER_TOKENS):
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        start = time.perf_counter()
        with torch.inference_mode():
            model.generate(
                **batch, do_sample=False, use_cache=True, min_new_tokens=count,
                max_new_tokens=count, pad_token_id=padding_id(processor),
            )  # fmt: skip
        torch.cuda.synchronize()
        seconds[count] = time.perf_counter() - start
    peak = torch.cuda.max_memory_allocated() / GIB
    facts = base_facts(SEVEN_BILLION)
    work = Work(
        head + ANSWER_TOKENS, ANSWER_TOKENS, facts.picture_tokens, rows=len(images),
        recompute="nothing",
    )  # fmt: skip
    use = estimated_use(answers_use, facts.config, work, as_a_t4())
    token = (seconds[ANSWER_TOKENS] - seconds[2]) / (ANSWER_TOKENS - 2)
    print(
        f"\n{len(images)} pictures answered at a time, {ANSWER_TOKENS} new tokens each: "
        f"{peak:.2f} GiB in use (predicted {use.peak / GIB:.2f}), "
        f"{token * 1e3:.0f} ms a new token of all (predicted {use.seconds * 1e3:.0f})"
    )


def on_cpu(options: argparse.Namespace, folder: Path) -> None:
    print(f"CPU, {torch.get_num_threads()} threads, float32, 8 rows a pass")
    programs = list(itertools.islice(random_parts(5), ROWS))
    images = [Image.fromarray(draw(drawing)) for _, drawing in programs]
    compact = [to_code(program) for program, _ in programs]
    verbose = [to_code(scaled(program, GENCAD), 16) for program, _ in programs]
    model, processor = modeling.load_base("models/nano")
    model = modeling.attach_lora(model, lora_dropout=0.0)
    print(modeling.trainable_share(model))
    place = kept_features(model, processor, images, folder / "features")
    data, plain = (
        Rows(
            processor, [(i, encode_code(processor, c)) for i, c in zip(images, codes, strict=True)]
        )
        for codes in (compact, verbose)
    )
    print(f"tokens a row: {data.lengths.mean():.0f} compact, {plain.lengths.mean():.0f} verbose")
    base = replace(RECIPE, per_device_train_batch_size=8)
    compare(model, data, plain, base, options.steps, padding_id(processor), place)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--memory", type=float, default=14.7, help="GiB the GPU may use")
    parser.add_argument("--steps", type=int, default=16, help="steps that are timed")
    parser.add_argument("--predict", action="store_true", help="by calculation alone")
    options = parser.parse_args()
    logging.disable(logging.WARNING)
    modeling.quiet()
    if options.predict:
        predict()
        return
    with tempfile.TemporaryDirectory() as folder:
        (on_gpu if torch.cuda.is_available() else on_cpu)(options, Path(folder))
    if not torch.cuda.is_available():
        predict()


if __name__ == "__main__":
    main()
