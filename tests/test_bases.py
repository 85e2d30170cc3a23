"""Protects the promise that one flag changes the base: seven architectures through the recipe.

Tiny random models of LLaVA-1.5, Qwen2.5-VL, Qwen3-VL, Gemma 3, InternVL3, SmolVLM and GLM-4.5V:
their prompts, what LoRA and 4 bits touch, the size of their pictures, the whole of
colab_training.py, and what it leaves: adapter, card, merged model.
"""

from __future__ import annotations

import io
import json
import math
import runpy
import subprocess
import sys
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
import torch
from PIL import Image, ImageOps
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoImageProcessor, pipeline

from image2cad.common.errors import InputError
from image2cad.common.gencad import QUESTION
from image2cad.data.rows import outlines
from image2cad.data.samples import Sample
from image2cad.vlm import loading, publishing
from image2cad.vlm.bases import load_processor
from image2cad.vlm.facts import base_facts, picture_token, resized
from image2cad.vlm.features import features_shape, picture_features
from image2cad.vlm.generation import generate_codes
from image2cad.vlm.loading import attach_lora, load_base, load_model, save_adapter
from image2cad.vlm.merging import merge
from image2cad.vlm.prompting import (
    PADDING_VALUES,
    chat_template,
    encode_code,
    encode_example,
    encode_picture,
    encode_prompt,
    prompt_text,
)
from image2cad.vlm.publishing import push, reload_and_compare

ROOT = Path(__file__).resolve().parent.parent
PROMPTS = {
    "llava": "<s>USER: <image>\nGenerate CADQuery code: ASSISTANT:",
    "qwen": "USER: <|vision_start|><|image_pad|><|vision_end|>\nGenerate CADQuery code: ASSISTANT:",
    "qwen3": "USER: <|vision_start|><|image_pad|><|vision_end|>\n"
    "Generate CADQuery code: ASSISTANT:",
    "gemma": "<s>USER: <start_of_image>\nGenerate CADQuery code: ASSISTANT:",
    "internvl": "USER: <IMG_CONTEXT>\nGenerate CADQuery code: ASSISTANT:",
    "smolvlm": "<s>USER: <image>\nGenerate CADQuery code: ASSISTANT:",
    "glm": "[gMASK]<sop>USER: <|begin_of_image|><|image|><|end_of_image|>\n"
    "Generate CADQuery code: ASSISTANT:",
}


@pytest.fixture(scope="module", params=tiny.BASES)
def kind(request: Any) -> str:
    return request.param


@pytest.fixture(scope="module")
def any_base(kind: str, tmp_path_factory: Any, samples: list[Sample]) -> Path:
    folder = tmp_path_factory.mktemp("bases") / kind
    tiny.BASES[kind](folder, [sample.cadquery for sample in samples])
    (folder / "chat_template.json").write_text('{"chat_template": "the template of the base"}')
    return folder


def test_the_sequence_is_what_the_processor_makes_of_the_whole_text(
    kind: str, any_base: Path, samples: list[Sample]
) -> None:
    processor = load_processor(str(any_base))
    tokenizer = processor.tokenizer
    image, code = samples[0].image, samples[0].cadquery
    row = encode_example(processor, image, code)
    text = f"{prompt_text(processor)} {code}"
    whole = processor(images=[image], text=[text], add_special_tokens=False, return_tensors="pt")
    bos = [] if tokenizer.bos_token_id is None else [tokenizer.bos_token_id]
    ids = whole["input_ids"][0].tolist()
    assert row["input_ids"].tolist() == [*bos, *ids, tokenizer.eos_token_id]
    assert row["input_ids"].tolist()[-len(encode_code(processor, code)) :] == encode_code(
        processor, code
    )
    assert (tokenizer.bos_token or "") + prompt_text(processor) == PROMPTS[kind]
    for name, value in whole.items():
        if value.dim() != 2 or name == "image_grid_thw":
            assert torch.equal(row[name], value), name
    labels = row["labels"][row["labels"] >= 0].tolist()
    assert tokenizer.decode(labels[:-1]) == f" {code}" and labels[-1] == tokenizer.eos_token_id


def test_a_served_prompt_has_the_tokens_that_were_trained_with_a_llama_tokenizer(
    base: Path, samples: list[Sample]
) -> None:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import LlavaProcessor, PreTrainedTokenizerFast

    nano = load_processor(str(base))
    for scheme in ("first", "always"):  # how versions of Llama's tokenizer differ
        fast = Tokenizer(models.BPE(unk_token="<unk>"))
        fast.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme=scheme)
        fast.decoder = decoders.Metaspace(prepend_scheme=scheme)
        special = ["<unk>", "<s>", "</s>", "<image>"]
        trainer = trainers.BpeTrainer(special_tokens=special, show_progress=False)
        fast.train_from_iterator([prompt_text(), samples[0].cadquery] * 3, trainer)
        tokenizer = PreTrainedTokenizerFast(
            tokenizer_object=fast, bos_token="<s>", eos_token="</s>", unk_token="<unk>",
            extra_special_tokens={"image_token": "<image>"},
        )  # fmt: skip
        processor = LlavaProcessor(
            nano.image_processor, tokenizer, patch_size=14, num_additional_image_tokens=1,
            vision_feature_select_strategy="default",
        )  # fmt: skip
        processor.chat_template = chat_template(processor)
        content = [{"type": "image"}, {"type": "text", "text": QUESTION}]
        chat = processor.apply_chat_template(
            [{"role": "user", "content": content}], add_generation_prompt=True
        )
        trained = encode_prompt(processor, [samples[0].image])["input_ids"][0].tolist()
        served = processor(
            images=[samples[0].image], text=[chat], add_special_tokens=False, return_tensors="pt"
        )
        assert served["input_ids"][0].tolist() == trained, scheme


def test_pictures_of_several_sizes_share_a_batch(any_base: Path, samples: list[Sample]) -> None:
    model, processor = load_model(any_base)
    images = [samples[0].image, samples[1].image.resize((224, 448)), Image.new("RGB", (60, 60))]
    alone = [generate_codes(model, processor, [i], 1, 8, progress=False)[0] for i in images]
    assert generate_codes(model, processor, images, 3, 8, progress=False) == alone
    fields = encode_picture(processor, images[0])
    tokens = int((fields["input_ids"] == picture_token(model.config)).sum())
    fields = {name: value for name, value in fields.items() if name not in PADDING_VALUES}
    with torch.no_grad():
        features = picture_features(model, fields)
    assert features.numel() == math.prod(features_shape(model.config, tokens))
    assert features.dim() == len(features_shape(model.config, tokens))


def test_several_views_stand_one_behind_the_other_where_the_base_takes_them(
    kind: str, any_base: Path, samples: list[Sample]
) -> None:
    model, processor = load_model(any_base)
    views = [samples[0].image, samples[1].image.resize((224, 448))]
    if kind == "llava":
        with pytest.raises(InputError, match="one picture at a time, not 2"):
            encode_prompt(processor, [views])
        return
    whole = processor(
        images=[views], text=[prompt_text(processor, 2)], add_special_tokens=False,
        return_tensors="pt",
    )["input_ids"][0].tolist()  # fmt: skip
    bos = [] if processor.tokenizer.bos_token_id is None else [processor.tokenizer.bos_token_id]
    assert encode_prompt(processor, [views])["input_ids"][0].tolist() == [*bos, *whole]
    parts = [views, views[0], views[::-1]]
    alone = [generate_codes(model, processor, [part], 1, 8, progress=False)[0] for part in parts]
    assert generate_codes(model, processor, parts, 3, 8, progress=False) == alone
    with torch.no_grad():
        rows = [model(**encode_prompt(processor, [part])).logits[0, -1] for part in parts]
    assert (rows[0] - rows[1]).abs().max() > 1e-4, "the second view makes no difference"
    processor.chat_template = chat_template(processor)
    content = [{"type": "image"}, {"type": "image"}, {"type": "text", "text": QUESTION}]
    chat = processor.apply_chat_template(
        [{"role": "user", "content": content}], add_generation_prompt=True
    )
    assert chat == (processor.tokenizer.bos_token or "") + prompt_text(processor, 2)


def test_a_picture_is_seen_at_the_size_asked_for_where_the_base_leaves_it_open(
    kind: str, any_base: Path, samples: list[Sample], tmp_path: Path
) -> None:
    def picture_tokens(processor: Any) -> int:
        ids = encode_prompt(processor, [samples[0].image])["input_ids"][0].tolist()
        return max(ids.count(token) for token in set(ids))

    sides = {  # to tokens of a square picture: patches of 28 or 32 pixels, tiles of 56
        "qwen": {112: 16, 224: 64},
        "qwen3": {128: 16, 256: 64},
        "internvl": {56: 4, 112: 5 * 4},
        "smolvlm": {56: 4, 112: 5 * 4},
        "glm": {112: 16, 224: 64},
    }
    config = AutoConfig.from_pretrained(any_base)
    wrong = "sees pictures at one size; leave --image-size"
    if kind in ("internvl", "smolvlm"):
        wrong = "sees tiles of 56 pixels"
    if kind in ("internvl", "smolvlm") or kind not in sides:
        with pytest.raises(InputError, match=wrong):
            load_base(any_base, image_size=28)
        with pytest.raises(InputError, match=wrong):
            resized(config, 28)
    if kind not in sides:
        return
    for side in (100, 180) if kind in ("internvl", "smolvlm") else (100, 130, 300, 460, 500):
        processor = load_processor(str(any_base), image_size=side)
        assert resized(config, side) == picture_tokens(processor), side
    for side, tokens in sides[kind].items():
        model, processor = load_base(any_base, image_size=side)
        assert picture_tokens(processor) == tokens == resized(config, side)
        assert base_facts(any_base, side).picture_tokens == tokens
    save_adapter(attach_lora(model, r=4), processor, tmp_path, any_base, "card")
    model, processor = load_model(tmp_path)
    assert picture_tokens(processor) == tokens, "the adapter forgot the size it was trained at"
    assert generate_codes(model, processor, [samples[0].image], 1, 4, progress=False)


def test_what_peft_offers_is_trained_saved_and_merged(
    base: Path, samples: list[Sample], tmp_path: Path
) -> None:
    torch.manual_seed(0)
    options = {"target_modules": "q_proj, down_proj", "layers_to_transform": "0"}
    options |= {"use_rslora": True, "use_dora": True}
    batch: Any = None
    for load_in_4bit in (True, False):
        model, processor = load_base(base, load_in_4bit)
        model = attach_lora(model, r=4, lora_alpha=8, lora_dropout=0.0, **options)
        trained = {n: p for n, p in model.named_parameters() if p.requires_grad}
        assert {p.dtype for p in trained.values()} == {torch.float32}
        assert len(trained) == 6 and all("q_proj" in n or "down_proj" in n for n in trained)
        for parameter in trained.values():
            parameter.data += 0.1 * torch.randn_like(parameter)
        batch = encode_prompt(processor, [samples[0].image])
        model(**batch).logits.sum().backward()
        assert all(p.grad is not None and p.grad.isfinite().all() for p in trained.values())
    save_adapter(model, processor, tmp_path / "adapter", base, "card")
    assert merge(tmp_path / "adapter", tmp_path / "merged", progress=False) == 2
    others = (load_model(place)[0] for place in (tmp_path / "adapter", tmp_path / "merged", base))
    with torch.no_grad():
        wanted, again, merged, plain = (m.eval()(**batch).logits for m in (model, *others))
    assert torch.equal(again, wanted)
    assert (merged - wanted).abs().max() < 0.01 * (plain - wanted).abs().max()

    model, _ = load_base(base)
    wrong = {"target_modules": ["q_proj,router", "conv"], "layers_to_transform": ["1", "0-x", ""]}
    for name, values in wrong.items():
        for value in values:
            with pytest.raises(InputError, match=f"--{name.replace('_', '-')} is "):
                attach_lora(model, **{name: value})


def test_a_base_that_overflows_float16_is_refused_before_its_weights_are_read(
    tmp_path: Path, samples: list[Sample], monkeypatch: pytest.MonkeyPatch
) -> None:
    tiny.gemma(tmp_path, [sample.cadquery for sample in samples])
    (tmp_path / "model.safetensors").unlink()
    monkeypatch.setattr(loading, "precision", lambda: torch.float16)
    with pytest.raises(InputError, match="gemma3 overflows float16, and this GPU has no bfloat16"):
        load_base(tmp_path)


def test_an_old_torchao_is_left_alone(
    base: Path, samples: list[Sample], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Colab has torchao 0.10; PEFT raises where it finds one older than 0.16."""
    from peft.tuners.lora import torchao

    def too_old() -> bool:
        raise ImportError("Found an incompatible version of torchao. Found version 0.10.0")

    monkeypatch.setattr(torchao, "is_torchao_available", too_old)
    model, processor = load_base(base)
    save_adapter(attach_lora(model, r=4), processor, tmp_path, base, "card")
    monkeypatch.setattr(torchao, "is_torchao_available", too_old)
    model, _ = load_model(tmp_path)
    assert model(**encode_prompt(processor, [samples[0].image])).logits.isfinite().all()


def test_pictures_are_prepared_by_pillow_where_torchvision_is_installed(
    tmp_path: Path, samples: list[Sample]
) -> None:
    """Colab has torchvision, which cannot average over areas as models/nano wants it."""
    pytest.importorskip("torchvision", reason="this environment has no torchvision")
    from transformers import Qwen2_5_VLProcessor, Qwen2VLVideoProcessor
    from transformers.models.qwen2_vl.image_processing_qwen2_vl import Qwen2VLImageProcessor

    processor = load_processor(str(ROOT / "models/nano"))
    row = encode_example(processor, samples[0].image, samples[0].cadquery)
    side = processor.image_processor.size["height"]
    wanted = np.asarray(samples[0].image.resize((side, side), Image.Resampling.BOX)) / 255
    assert np.abs(row["pixel_values"][0].permute(1, 2, 0) - (wanted - 0.8) / 0.3).max() < 1e-5

    # A base from the hub has a processor for videos, which stays for those who serve it.
    base = tiny.qwen(tmp_path / "base", [sample.cadquery for sample in samples])
    pictures_only = load_processor(str(base))
    size = dict(pictures_only.image_processor.size)
    whole = Qwen2_5_VLProcessor(
        Qwen2VLImageProcessor(size=size), pictures_only.tokenizer, Qwen2VLVideoProcessor()
    )
    whole.save_pretrained(base)
    loaded = load_processor(str(base))
    assert loaded.video_processor is not None and "Pil" in type(loaded.image_processor).__name__
    prompts = [encode_prompt(p, [samples[0].image]) for p in (pictures_only, loaded)]
    assert torch.equal(prompts[0]["pixel_values"], prompts[1]["pixel_values"])
    assert torch.equal(prompts[0]["input_ids"], prompts[1]["input_ids"])


def in_this_process(command: list[str], **_: Any) -> subprocess.CompletedProcess[str]:
    """What the new process of `reload_and_compare` does, without its minute of imports."""
    out, arguments = io.StringIO(), command[command.index("image2cad.vlm.publishing") + 1 :]
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(out):
        patch.setattr(sys, "argv", ["publishing", *arguments])
        code = publishing.main()
    return subprocess.CompletedProcess(command, code, out.getvalue(), "")


def test_the_whole_recipe_runs_and_what_it_leaves_is_usable(
    kind: str,
    any_base: Path,
    samples: list[Sample],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)
    if kind != "qwen3":  # one really loads its adapter in a new process; so do other tests' LLaVAs
        monkeypatch.setattr(publishing.subprocess, "run", in_this_process)
    data = "bundled"
    if kind == "qwen3":  # every part from two sides
        data = str(tmp_path / "parts")
        rows = []
        (tmp_path / "parts").mkdir()
        for sample in samples:
            names = [f"{sample.id}-front.png", f"{sample.id}-back.png"]
            sample.image.save(tmp_path / "parts" / names[0])
            ImageOps.mirror(sample.image).save(tmp_path / "parts" / names[1])
            files = {"file_name": names[0], "image_1_file_name": names[1]}
            rows.append(json.dumps({**files, "cadquery": sample.cadquery, "deepcad_id": sample.id}))
        (tmp_path / "parts" / "metadata.jsonl").write_text("\n".join(rows))
    flags = ["--base", str(any_base), "--data", data]
    flags += ["--max-train-samples", "6", "--validation", "2"]
    flags += ["--held-out", "2", "--num-train-epochs", "2", "--gradient-accumulation-steps", "2"]
    flags += ["--learning-rate", "0.01", "--per-device-train-batch-size", "1"]
    flags += ["--max-new-tokens", "16", "--no-check-code", "--no-compact", "--merge"]
    flags += ["--picture", str(ROOT / "data/samples/test/s20200000.png"), "--effort", "none"]
    monkeypatch.setattr(sys, "argv", ["colab_training.py", *flags])
    names = runpy.run_path(str(ROOT / "colab_training.py"), run_name="__main__")
    out = Path("runs/colab-001")
    said = capsys.readouterr().out
    assert "log-probabilities differ by" in said and "matrices merged" in said
    assert ("its experts are not stored" in said) == (kind == "glm")
    summary = json.loads((out / "metrics.json").read_text())
    assert summary["n"] == summary["before"]["n"] == 2 and summary["trained_on"] == 6
    assert any("validation_loss" in entry for entry in summary["losses"])
    views = 2 if kind == "qwen3" else 1
    assert (out / "report.html").read_text().count('<img alt="input"') == 2 * views
    assert {len(sizes) for _, sizes, _ in outlines(names["data"].samples)} == {views}
    assert len(names["data"][0]["features"]) == views
    trained = [n for n, p in names["model"].named_parameters() if p.requires_grad]
    assert trained and not [n for n in trained if "lora_" not in n or "vis" in n]

    model, processor = load_model(out / "adapter")
    merged, merged_processor = load_model(out / "merged")
    plain, _ = load_base(any_base)
    batch = encode_prompt(processor, [samples[0].image])
    with torch.no_grad():
        wanted, got, base = (m.eval()(**batch).logits for m in (model, merged, plain))
    assert (got - wanted).abs().max() < 0.1 * (base - wanted).abs().max()
    stored = load_file(next((out / "merged").glob("*.safetensors")))
    assert {v.dtype for v in stored.values() if v.is_floating_point()} == {torch.float16}

    # Servers write the prompt from the chat template: it has to be the one that was trained.
    content = [{"type": "image"}, {"type": "text", "text": QUESTION}]
    chat = merged_processor.apply_chat_template(
        [{"role": "user", "content": content}], add_generation_prompt=True
    )
    assert chat == PROMPTS[kind], "not the template that lay beside the base"
    assert "runs/colab-001" not in (out / "adapter/README.md").read_text()
    assert '"max_train_samples": 6' in (out / "merged/README.md").read_text()


def test_a_pipeline_serves_the_merged_model(
    base: Path, samples: list[Sample], tmp_path: Path
) -> None:
    model, processor = load_base(base)
    model = attach_lora(model, r=4, lora_alpha=8)
    save_adapter(model, processor, tmp_path / "adapter", base, "card")
    assert merge(tmp_path / "adapter", tmp_path / "merged", progress=False) == 7
    place = str(tmp_path / "merged")
    pipe = pipeline("image-text-to-text", model=place, dtype=torch.float32)
    pipe.processor.image_processor = AutoImageProcessor.from_pretrained(place, backend="pil")
    content = [{"type": "image", "image": samples[0].image}, {"type": "text", "text": QUESTION}]
    said = pipe(
        text=[{"role": "user", "content": content}], return_full_text=False, max_new_tokens=9
    )
    served, own = load_model(tmp_path / "merged")
    wanted = generate_codes(served, own, [samples[0].image], max_new_tokens=9, progress=False)
    assert said[0]["generated_text"].strip() == wanted[0]


def test_an_adapter_that_answers_otherwise_or_not_at_all_is_not_called_done(
    base: Path, samples: list[Sample], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, processor = load_base(base)
    model = attach_lora(model, r=4, lora_alpha=8)
    save_adapter(model, processor, tmp_path, base, "card")
    weights = tmp_path / "adapter_model.safetensors"
    tensors = load_file(weights)
    save_file({name: value + 0.5 for name, value in tensors.items()}, weights)
    with monkeypatch.context() as patch, pytest.raises(InputError, match="answers otherwise"):
        patch.setattr(publishing.subprocess, "run", in_this_process)
        reload_and_compare(model, processor, tmp_path, samples[0].image, samples[0].cadquery)
    weights.write_bytes(weights.read_bytes()[:300])
    with pytest.raises(InputError, match="cannot be loaded again: .*no whole adapter"):
        reload_and_compare(model, processor, tmp_path, samples[0].image, samples[0].cadquery)


def test_merging_and_pushing_say_what_is_wrong_and_lose_nothing(
    base: Path, samples: list[Sample], tmp_path: Path
) -> None:
    model, processor = load_base(base)
    save_adapter(attach_lora(model, r=4), processor, tmp_path / "adapter", base, "card")
    weights = tmp_path / "adapter" / "adapter_model.safetensors"
    tensors = load_file(weights)
    renamed = {name.replace("layers.0", "layers.7"): value for name, value in tensors.items()}
    save_file(renamed, weights)
    with pytest.raises(InputError, match="lacks 7 of the adapter's matrices"):
        merge(tmp_path / "adapter", tmp_path / "merged", progress=False)
    assert not (tmp_path / "merged").exists()
    save_file(tensors, weights)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine").write_text("mine")
    with pytest.raises(InputError, match="already holds something"):
        merge(tmp_path / "adapter", tmp_path / "full", progress=False)
    with pytest.raises(InputError, match="was not pushed to me/mine"):
        push(tmp_path / "adapter", "me/mine")
    assert weights.is_file()


def test_an_unknown_architecture_is_named(base: Path, tmp_path: Path) -> None:
    from transformers import Blip2Config, Blip2ForConditionalGeneration

    model = Blip2ForConditionalGeneration(
        Blip2Config(
            vision_config={"hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 1,
                           "num_attention_heads": 2, "image_size": 28, "patch_size": 14},
            qformer_config={"hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 1,
                            "num_attention_heads": 2, "encoder_hidden_size": 32},
            text_config={"model_type": "opt", "hidden_size": 32, "ffn_dim": 32, "vocab_size": 400,
                         "num_hidden_layers": 1, "num_attention_heads": 2,
                         "word_embed_proj_dim": 32},
        )
    )  # fmt: skip
    model.save_pretrained(tmp_path)
    load_processor(str(base)).save_pretrained(tmp_path)
    with pytest.raises(InputError, match="is a blip-2; the recipe knows llava, qwen2_5_vl"):
        load_base(tmp_path)
