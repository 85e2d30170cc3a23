"""Tiny bases with random weights, of the same architectures as the real ones, made in a second.

LLaVA-1.5, Qwen2.5-VL, Qwen3-VL, Gemma 3, InternVL3, SmolVLM and GLM-4.5V (a mixture of experts).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from transformers import (
    Gemma3Config,
    Gemma3ForConditionalGeneration,
    Gemma3Processor,
    Glm4vMoeConfig,
    Glm4vMoeForConditionalGeneration,
    InternVLConfig,
    InternVLForConditionalGeneration,
    PreTrainedTokenizerFast,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen3VLConfig,
    Qwen3VLForConditionalGeneration,
    SmolVLMConfig,
    SmolVLMForConditionalGeneration,
    set_seed,
)
from transformers.models.gemma3.image_processing_pil_gemma3 import Gemma3ImageProcessorPil
from transformers.models.glm4v.image_processing_pil_glm4v import Glm4vImageProcessorPil
from transformers.models.got_ocr2.image_processing_pil_got_ocr2 import GotOcr2ImageProcessorPil
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil
from transformers.models.smolvlm.image_processing_pil_smolvlm import SmolVLMImageProcessorPil

from image2cad.vlm.bases import WITHOUT_VIDEOS
from image2cad.vlm.nano import NanoShape, build_nano, train_tokenizer

TEXT = {  # widths are multiples of 64: 4-bit inference on a CPU needs that
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "max_position_embeddings": 4096,
}


def llava(folder: Path, codes: Sequence[str], shape: NanoShape | None = None) -> Path:
    shape = shape or NanoShape(
        image=56, patch=14, vision_width=32, vision_layers=1, vision_heads=2,
        text_width=192, text_layers=1, text_heads=2,
    )  # fmt: skip
    set_seed(0)
    model, processor = build_nano(train_tokenizer(codes, 400), shape)
    return _save(folder, model, processor)


def qwen(folder: Path, codes: Sequence[str]) -> Path:
    tokenizer, ids = _tokenizer(
        codes, "<|image_pad|>", "<|video_pad|>", "<|vision_start|>", "<|vision_end|>", bos=False
    )
    config = Qwen2_5_VLConfig(
        text_config={
            **TEXT, **_special(tokenizer), "vocab_size": len(tokenizer),
            "rope_parameters": {"rope_type": "default", "mrope_section": [4, 6, 6],
                                "rope_theta": 1e6},
        },
        vision_config={"depth": 2, "hidden_size": 32, "intermediate_size": 64, "num_heads": 2,
                       "out_hidden_size": 64, "fullatt_block_indexes": [1]},
        image_token_id=ids[0], video_token_id=ids[1], vision_start_token_id=ids[2],
        vision_end_token_id=ids[3],
    )  # fmt: skip
    images = Qwen2VLImageProcessorPil(size={"shortest_edge": 28**2, "longest_edge": 4 * 28**2})
    processor = WITHOUT_VIDEOS["qwen2_5_vl"](images, tokenizer)
    set_seed(0)
    return _save(folder, Qwen2_5_VLForConditionalGeneration(config), processor)


def qwen3(folder: Path, codes: Sequence[str]) -> Path:
    tokenizer, ids = _tokenizer(
        codes, "<|image_pad|>", "<|video_pad|>", "<|vision_start|>", "<|vision_end|>", bos=False
    )
    config = Qwen3VLConfig(
        text_config={
            **TEXT, **_special(tokenizer), "vocab_size": len(tokenizer), "head_dim": 32,
            "rope_parameters": {"rope_type": "default", "mrope_section": [4, 6, 6],
                                "mrope_interleaved": True, "rope_theta": 5e6},
        },
        vision_config={"depth": 3, "hidden_size": 32, "intermediate_size": 64, "num_heads": 2,
                       "out_hidden_size": 64, "num_position_embeddings": 16,
                       "deepstack_visual_indexes": [0, 1]},
        image_token_id=ids[0], video_token_id=ids[1], vision_start_token_id=ids[2],
        vision_end_token_id=ids[3],
    )  # fmt: skip
    size = {"shortest_edge": 32**2, "longest_edge": 4 * 32**2}
    images = Qwen2VLImageProcessorPil(size=size, patch_size=16)
    processor = WITHOUT_VIDEOS["qwen3_vl"](images, tokenizer)
    set_seed(0)
    return _save(folder, Qwen3VLForConditionalGeneration(config), processor)


def gemma(folder: Path, codes: Sequence[str]) -> Path:
    marks = ("<image_soft_token>", "<start_of_image>", "<end_of_image>")
    names = ("image_token", "boi_token", "eoi_token")
    tokenizer, ids = _tokenizer(codes, *marks, names=names)
    config = Gemma3Config(
        text_config={
            **TEXT, **_special(tokenizer), "vocab_size": len(tokenizer), "head_dim": 32,
            "sliding_window": 64, "layer_types": ["sliding_attention", "full_attention"],
        },
        vision_config={"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2,
                       "num_attention_heads": 2, "image_size": 56, "patch_size": 14},
        mm_tokens_per_image=4, image_token_index=ids[0], boi_token_index=ids[1],
        eoi_token_index=ids[2],
    )  # fmt: skip
    images = Gemma3ImageProcessorPil(size={"height": 56, "width": 56})
    processor = Gemma3Processor(images, tokenizer, image_seq_length=4)
    set_seed(0)
    return _save(folder, Gemma3ForConditionalGeneration(config), processor)


def internvl(folder: Path, codes: Sequence[str]) -> Path:
    marks = ("<IMG_CONTEXT>", "<img>", "</img>", "<video>")
    names = ("context_image_token", "start_image_token", "end_image_token", "video_token")
    tokenizer, ids = _tokenizer(codes, *marks, bos=False, names=names)
    config = InternVLConfig(
        text_config={
            "model_type": "qwen2", **TEXT, **_special(tokenizer), "vocab_size": len(tokenizer)
        },
        vision_config={"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2,
                       "num_attention_heads": 2, "image_size": [56, 56], "patch_size": [14, 14]},
        image_token_id=ids[0], image_seq_length=4,
    )  # fmt: skip
    images = GotOcr2ImageProcessorPil(size={"height": 56, "width": 56}, max_patches=4)
    processor = WITHOUT_VIDEOS["internvl"](images, tokenizer, image_seq_length=4)
    set_seed(0)
    return _save(folder, InternVLForConditionalGeneration(config), processor)


def smolvlm(folder: Path, codes: Sequence[str]) -> Path:
    tokenizer, ids = _tokenizer(
        codes, "<image>", "<fake_token_around_image>", "<global-img>", "<end_of_utterance>"
    )
    config = SmolVLMConfig(
        text_config={
            "model_type": "llama", **TEXT, **_special(tokenizer), "vocab_size": len(tokenizer)
        },
        vision_config={"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2,
                       "num_attention_heads": 2, "image_size": 56, "patch_size": 14},
        scale_factor=2, image_token_id=ids[0],
    )  # fmt: skip
    images = SmolVLMImageProcessorPil(
        size={"longest_edge": 112}, max_image_size={"longest_edge": 56}
    )
    processor = WITHOUT_VIDEOS["smolvlm"](images, tokenizer, image_seq_len=4)
    set_seed(0)
    return _save(folder, SmolVLMForConditionalGeneration(config), processor)


def glm(folder: Path, codes: Sequence[str]) -> Path:
    marks = ("<|image|>", "<|video|>", "<|begin_of_image|>", "<|end_of_image|>")
    marks += ("<|begin_of_video|>", "<|end_of_video|>", "[gMASK]", "<sop>")
    tokenizer, ids = _tokenizer(codes, *marks, bos=False)
    config = Glm4vMoeConfig(
        text_config={
            **TEXT, **_special(tokenizer), "vocab_size": len(tokenizer), "head_dim": 32,
            "moe_intermediate_size": 64, "n_routed_experts": 4, "num_experts_per_tok": 2,
            "rope_parameters": {"rope_type": "default", "mrope_section": [2, 3, 3],
                                "partial_rotary_factor": 0.5, "rope_theta": 1e4},
        },
        vision_config={"depth": 2, "hidden_size": 32, "intermediate_size": 64, "num_heads": 2,
                       "out_hidden_size": 64, "image_size": 56, "patch_size": 14},
        image_token_id=ids[0], video_token_id=ids[1], image_start_token_id=ids[2],
        image_end_token_id=ids[3], video_start_token_id=ids[4], video_end_token_id=ids[5],
    )  # fmt: skip
    images = Glm4vImageProcessorPil(size={"shortest_edge": 28**2, "longest_edge": 8 * 28**2})
    processor = WITHOUT_VIDEOS["glm4v_moe"](images, tokenizer)
    set_seed(0)
    return _save(folder, Glm4vMoeForConditionalGeneration(config), processor)


BASES = {
    "llava": llava, "qwen": qwen, "qwen3": qwen3, "gemma": gemma, "internvl": internvl,
    "smolvlm": smolvlm, "glm": glm,
}  # fmt: skip


def _tokenizer(
    codes: Sequence[str], *marks: str, bos: bool = True, names: Sequence[str] = ()
) -> tuple[Any, list[int]]:
    """A tokenizer with those special tokens, the first of which stands for a picture.

    names: what the base's processor asks the tokenizer for them by, where it does.
    """
    tokenizer = train_tokenizer(codes, 400)
    if names:
        tokenizer = PreTrainedTokenizerFast(
            tokenizer_object=tokenizer.backend_tokenizer,
            **tokenizer.special_tokens_map | {"image_token": marks[0]},
            extra_special_tokens=dict(zip(names, marks, strict=True)),
        )
    tokenizer.add_special_tokens({"extra_special_tokens": list(marks)})
    tokenizer.image_token = marks[0]
    tokenizer.image_token_id = tokenizer.convert_tokens_to_ids(marks[0])
    if not bos:  # Qwen's and GLM's have none
        tokenizer.bos_token = None
    return tokenizer, tokenizer.convert_tokens_to_ids(list(marks))


def _special(tokenizer: Any) -> dict[str, Any]:
    return {f"{name}_token_id": getattr(tokenizer, f"{name}_token_id")
            for name in ("bos", "eos", "pad")}  # fmt: skip


def _save(folder: Path, model: Any, processor: Any) -> Path:
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder
