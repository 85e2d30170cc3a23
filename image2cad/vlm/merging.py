"""Merge an adapter into its base, shard by shard: float16 weights that any server loads.

    merge(Path("runs/mine/adapter"), Path("runs/mine/merged"))
    python -m image2cad.vlm.merging runs/mine/adapter runs/mine/merged

The base is read from its own files, not from the 4-bit copy that was trained on, one shard in
memory at a time: a 7B base merges in the 12.7 GB of a Colab machine. Left out: serving, see the
model card that is written beside the weights.
"""

from __future__ import annotations

import argparse
import json
import math
import re
import shutil
from pathlib import Path
from typing import Any

import torch
from peft import PeftConfig
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from tqdm.auto import tqdm

from image2cad.common import InputError, run_cli
from image2cad.vlm.bases import load_processor
from image2cad.vlm.loading import locate, quiet
from image2cad.vlm.prompting import chat_template

LAYER_NAME = re.compile(r"(layers\.\d+\..*?)(?:\.base_layer)?(\.weight)?$")


def merge(adapter: Path, out: Path, progress: bool = True) -> int:
    """Write base plus adapter in float16 to `out`; return how many matrices changed.

    Raises InputError where a file is missing, or where a matrix of the adapter has none in the
    base, so that nothing is merged halfway.
    """
    if out.exists() and any(out.iterdir()):
        raise InputError(f"{out} already holds something; name another folder")
    try:
        config = PeftConfig.from_pretrained(str(adapter))
        deltas = _matrices(load_file(adapter / "adapter_model.safetensors"))
        scale = config.lora_alpha / (math.sqrt(config.r) if config.use_rslora else config.r)
    except (OSError, ValueError) as error:
        raise InputError(f"{adapter} holds no whole adapter: {error}") from error
    base = Path(_download(config.base_model_name_or_path or ""))
    shards = sorted(base.glob("*.safetensors"))
    if not shards:
        raise InputError(f"{base} has no .safetensors files to merge into")
    out.mkdir(parents=True, exist_ok=True)
    left = set(deltas)
    index: dict[str, str] = {}
    for shard in tqdm(shards, desc="merging", unit="shard", disable=not progress):
        tensors = {}
        with safe_open(shard, framework="pt") as file:
            for name in file.keys():  # noqa: SIM118 - not a mapping
                value = file.get_tensor(name)
                layer = _layer(name)
                if layer in deltas:
                    a, b, lengths = deltas[layer]
                    value = value.float() + scale * (b.float() @ a.float())
                    if lengths is not None:
                        value = value * (lengths.float() / value.norm(dim=1))[:, None]
                    left.discard(layer)
                tensors[name] = value.half().contiguous() if value.is_floating_point() else value
                index[name] = shard.name
        save_file(tensors, out / shard.name, metadata={"format": "pt"})
    if left:
        shutil.rmtree(out)
        raise InputError(f"{base} lacks {len(left)} of the adapter's matrices, first {min(left)}")
    _write_rest(base, adapter, out, index if len(shards) > 1 else {})
    return len(deltas)


def _write_rest(base: Path, adapter: Path, out: Path, index: dict[str, str]) -> None:
    """What belongs beside the weights: configuration, processor, index, model card.

    Nothing else of the base: an old chat_template.json there would come before ours.
    """
    config = json.loads((base / "config.json").read_text(encoding="utf-8"))
    config.pop("quantization_config", None)
    for part in (config, config.get("text_config", {}), config.get("vision_config", {})):
        part.pop("torch_dtype", None)  # as older versions called it
        part["dtype"] = "float16"
    (out / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    processor = load_processor(str(adapter), str(base))
    processor.chat_template = chat_template(processor)
    processor.save_pretrained(out)
    # Servers stop at what this file says; a base may name another token than the trained one.
    file = base / "generation_config.json"
    generation = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
    generation |= {
        "eos_token_id": processor.tokenizer.eos_token_id,
        "pad_token_id": processor.tokenizer.pad_token_id,
    }
    text = json.dumps(generation, indent=2) + "\n"
    (out / "generation_config.json").write_text(text, encoding="utf-8")
    if index:
        table = json.dumps({"metadata": {}, "weight_map": index}, indent=2)
        (out / "model.safetensors.index.json").write_text(table + "\n", encoding="utf-8")
    if (adapter / "README.md").is_file():
        shutil.copy(adapter / "README.md", out / "README.md")


def _matrices(
    tensors: dict[str, torch.Tensor],
) -> dict[str, tuple[torch.Tensor, torch.Tensor, torch.Tensor | None]]:
    """LoRA's A (rank, in) and B (out, rank) for every layer, and DoRA's lengths (out,) if any."""
    found: dict[str, tuple[torch.Tensor, torch.Tensor, torch.Tensor | None]] = {}
    for name, a in tensors.items():
        if ".lora_A." in name:
            start = name.split(".lora_A.")[0]
            lengths = tensors.get(f"{start}.lora_magnitude_vector")
            found[_layer(f"{start}.weight")] = a, tensors[name.replace("lora_A", "lora_B")], lengths
    return found


def _layer(name: str) -> str:
    """A name that checkpoints and modules share: they disagree on what precedes the layers."""
    match = LAYER_NAME.search(name)
    return match[1] if match and not re.search(r"vis(ion|ual)", name) else ""


def _download(base: str) -> str:
    where = locate(base)
    if Path(where).is_dir():
        return where
    from huggingface_hub import snapshot_download

    try:
        return str(snapshot_download(where, allow_patterns=["*.json", "*.safetensors", "*.model"]))
    except Exception as error:  # the hub raises many kinds; the user gets one line of each
        raise InputError(
            f"cannot read the base {base!r}: no folder here, nor on the hub"
        ) from error


def main() -> int:
    """Merge one adapter."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("adapter", type=Path)
    parser.add_argument("out", type=Path)
    arguments: Any = parser.parse_args()
    quiet()
    count = merge(arguments.adapter, arguments.out)
    print(f"{count} matrices merged, float16, in {arguments.out}")
    return 0


if __name__ == "__main__":
    run_cli(main)
