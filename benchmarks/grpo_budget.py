"""GPU memory of learning from rewards, by arithmetic from a base's shapes. Nothing is measured.

    PYTHONPATH=. python benchmarks/grpo_budget.py
    PYTHONPATH=. python benchmarks/grpo_budget.py --programs 64 --rows 4 --tokens 256

Two moments count. While programs are written there is the key-value cache of all of them; while a
pass is trained there are its logits and the activations that are kept. Both stand on weights,
adapter and optimiser. Left out: the CUDA context (about 0.4 GiB), fragments, kernels' scratch.
"""

from __future__ import annotations

import argparse
from typing import Any

import torch
from transformers import AutoModelForImageTextToText, Qwen3VLConfig, SmolVLMConfig

GIB = 2**30
PROMPT = 20  # tokens around the picture
NF4 = 0.516  # bytes a number, with the constants of its blocks
LOGIT_BYTES = 16  # float16 and float32 logits, their gradient, one copy, a number
LAYER_COPIES = 20  # of a hidden state, that one recomputed layer holds at a time

BASES: dict[str, tuple[Any, int]] = {  # config, and tokens of a picture
    "Qwen/Qwen3-VL-2B-Instruct": (
        Qwen3VLConfig(
            text_config={
                "vocab_size": 151936, "hidden_size": 2048, "intermediate_size": 6144,
                "num_hidden_layers": 28, "num_attention_heads": 16, "num_key_value_heads": 8,
                "head_dim": 128,
            },
            vision_config={
                "depth": 24, "hidden_size": 1024, "intermediate_size": 4096, "num_heads": 16,
                "out_hidden_size": 2048, "patch_size": 16, "deepstack_visual_indexes": [5, 11, 17],
            },
            tie_word_embeddings=True,
        ),
        196,
    ),
    "HuggingFaceTB/SmolVLM2-2.2B-Instruct, --image-size 384": (
        SmolVLMConfig(
            text_config={
                "model_type": "llama", "vocab_size": 49280, "hidden_size": 2048,
                "intermediate_size": 8192, "num_hidden_layers": 24, "num_attention_heads": 32,
                "num_key_value_heads": 32,
            },
            vision_config={
                "hidden_size": 1152, "intermediate_size": 4304, "num_hidden_layers": 27,
                "num_attention_heads": 16, "image_size": 384, "patch_size": 14,
            },
            scale_factor=3, tie_word_embeddings=False,
        ),
        81,
    ),
}  # fmt: skip


def budget(config: Any, picture: int, options: argparse.Namespace, four_bits: bool) -> list[float]:
    """Bytes of weights, adapter with optimiser, cache, logits, activations."""
    with torch.device("meta"):
        model = AutoModelForImageTextToText.from_config(config)
    text = config.text_config
    names = {name: module for name, module in model.named_modules()}
    linear = [
        module.weight.shape
        for name, module in names.items()
        if isinstance(module, torch.nn.Linear) and ".layers." in name and "vis" not in name
    ]
    in_linear = sum(a * b for a, b in linear)
    rest = sum(p.numel() for p in model.parameters()) - in_linear
    weights = 2 * rest + in_linear * (NF4 if four_bits else 2)
    adapter = 16 * options.lora_r * sum(a + b for a, b in linear)  # weight, gradient, two moments
    length = picture + PROMPT + options.tokens
    head = getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads
    cache = 2 * 2 * text.num_hidden_layers * text.num_key_value_heads * head * length
    logits = LOGIT_BYTES * text.vocab_size * options.tokens * options.rows
    kept = 2 * text.hidden_size * length * options.rows * (text.num_hidden_layers + LAYER_COPIES)
    return [weights, adapter, cache * options.programs, logits, kept]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--programs", type=int, default=64, help="written at a time")
    parser.add_argument("--rows", type=int, default=4, help="programs a pass")
    parser.add_argument("--tokens", type=int, default=256, help="of a program, at most")
    parser.add_argument("--lora-r", type=int, default=16)
    options = parser.parse_args()
    print("predicted, GiB: weights  adapter  cache  logits  kept | writing  training")
    for name, (config, picture) in BASES.items():
        for four_bits in (False, True):
            parts = [part / GIB for part in budget(config, picture, options, four_bits)]
            writing, training = sum(parts[:3]), sum(parts) - parts[2]
            print(f"{name}, {'4 bits' if four_bits else 'float16'}:")
            columns = "  ".join(f"{part:6.2f}" for part in parts)
            print(f"{'':15} {columns} | {writing:6.2f}  {training:6.2f}")


if __name__ == "__main__":
    main()
