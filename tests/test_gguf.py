"""Protects what docs/bases.md says of llama.cpp: which merged bases its converter takes.

Runs where LLAMA_CPP names a checkout of llama.cpp (there is one in the source archive of
llama-cpp-python) and sentencepiece is installed, which its converter wants. Tiny models stand in
for the real ones, so what the converter looks up of those is put in: the kind of tokenizer, names
of weights that transformers 5 saves otherwise.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from safetensors.torch import load_file, save_file

from image2cad.data.samples import Sample
from image2cad.vlm.loading import attach_lora, load_base, save_adapter
from image2cad.vlm.merging import merge

CHECKOUT = os.environ.get("LLAMA_CPP", "")
CONVERTER = """
import conversion.base, convert_hf_to_gguf
conversion.base.TextModel.get_vocab_base_pre = lambda self, tokenizer: "qwen2"
convert_hf_to_gguf.main()
"""


@pytest.fixture(scope="module")
def place() -> str:
    if not (Path(CHECKOUT) / "convert_hf_to_gguf.py").is_file():
        pytest.skip("LLAMA_CPP names no checkout of llama.cpp")
    pytest.importorskip("sentencepiece", reason="llama.cpp's converter wants sentencepiece")
    return os.pathsep.join([CHECKOUT, str(Path(CHECKOUT) / "gguf-py")])


@pytest.fixture(scope="module", params=["llava", "qwen", "qwen3", "gemma", "internvl", "smolvlm"])
def merged(request: Any, place: str, samples: list[Sample], tmp_path_factory: Any) -> Path:
    folder = tmp_path_factory.mktemp("gguf") / request.param
    base = tiny.BASES[request.param](folder / "base", [sample.cadquery for sample in samples])
    model, processor = load_base(base)
    model = attach_lora(model, r=4)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.05)
    save_adapter(model, processor, folder / "adapter", base, "card")
    merge(folder / "adapter", folder / "merged", progress=False)
    file, config_file = folder / "merged/model.safetensors", folder / "merged/config.json"
    weights, config = load_file(file), json.loads(config_file.read_text())
    if request.param == "gemma":
        old = "vision_tower.vision_model."
        weights = {name.replace("vision_tower.", old): value for name, value in weights.items()}
    if request.param == "qwen":  # its merger has three layers, and is counted by the tower's
        last = {n: v for n, v in weights.items() if "visual.blocks.1." in n}
        weights |= {n.replace("blocks.1.", "blocks.2."): v.clone() for n, v in last.items()}
        config["vision_config"]["depth"] = 3
    if request.param == "smolvlm":
        config["text_config"]["architectures"] = ["VLlama3ForCausalLM"]
    save_file(weights, file, metadata={"format": "pt"})
    config_file.write_text(json.dumps(config))
    return folder / "merged"


def convert(merged: Path, place: str, *flags: str) -> tuple[Path, str]:
    out = merged.parent / f"{len(flags)}.gguf"
    command = [sys.executable, "-c", CONVERTER, str(merged), "--outtype", "f16"]
    done = subprocess.run(
        [*command, "--outfile", str(out), *flags],
        capture_output=True, text=True, env={**os.environ, "PYTHONPATH": place},
    )  # fmt: skip
    return out, done.stderr


def test_the_converter_takes_these_and_refuses_those(
    merged: Path, place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    kind = merged.parent.name
    text, said = convert(merged, place)
    if kind == "internvl":
        assert not text.exists() and "is not supported" in said
        return
    for folder in place.split(os.pathsep):
        monkeypatch.syspath_prepend(folder)
    from gguf import GGUFReader

    assert text.exists(), said[-500:]
    reader = GGUFReader(text)
    weights = load_file(merged / "model.safetensors")
    (name,) = [n for n in weights if "layers.0.mlp.gate_proj" in n]
    (stored,) = [t for t in reader.tensors if t.name == "blk.0.ffn_gate.weight"]
    assert (stored.data.ravel() == weights[name].numpy().ravel()).all()
    template = reader.fields["tokenizer.chat_template"].contents()
    assert "Generate CADQuery" not in template and "USER: " in template
    picture, said = convert(merged, place, "--mmproj")
    if kind == "llava":
        assert not picture.exists() and "Unsupported model type: clip_vision_model" in said
    else:
        assert len(GGUFReader(picture).tensors) > 20, said[-500:]
