"""The nano model: LLaVA-1.5's architecture, small enough for a repository and a laptop CPU.

    tokenizer = train_tokenizer(codes)
    model, processor = build_nano(tokenizer, NanoShape())

A CLIP vision tower, a two-layer projector and a Llama decoder under
`LlavaForConditionalGeneration`, built from config with random weights;
`pretrain_nano.py` trains it. The tokenizer is trained on CadQuery: every whole
number up to 100 is one token, and so is most of the text between two numbers.
Left out: weights (models/nano/) and training (training/supervised.py).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from tokenizers import Regex, Tokenizer, decoders, pre_tokenizers, trainers
from tokenizers.models import BPE
from transformers import (
    CLIPVisionConfig,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaProcessor,
    PreTrainedTokenizerFast,
)
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

from image2cad.vlm.prompting import IMAGE_TOKEN, prompt_text

BOS, EOS, UNK, PAD = "<s>", "</s>", "<unk>", "<pad>"


@dataclass(frozen=True)
class NanoShape:
    """Sizes of a nano model; the defaults are those of models/nano.

    image: picture side in pixels; patch: side of a patch in pixels; vocabulary:
    tokens at most; vision_*, text_*: width, layers and heads of tower and decoder;
    positions: the longest sequence, in tokens.
    """

    image: int = 112
    patch: int = 16
    vocabulary: int = 1024
    vision_width: int = 160
    vision_layers: int = 3
    vision_heads: int = 4
    text_width: int = 192
    text_layers: int = 3
    text_heads: int = 4
    positions: int = 4096


def train_tokenizer(
    codes: Iterable[str], vocabulary: int = NanoShape.vocabulary
) -> PreTrainedTokenizerFast:
    """A byte-level BPE tokenizer for `codes`, with Llama's special tokens.

    Numbers are split into at most two digits (100 stays whole) and never merge
    with the text around them; the end of the prompt never merges with the code.
    Any text can be encoded.
    """
    tokenizer = Tokenizer(BPE())
    pieces = Regex(r"ASSISTANT:|100(?!\d)|\d{1,2}")
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Split(pieces, behavior="isolated"),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
    ])  # fmt: skip
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        min_frequency=2,
        special_tokens=[UNK, BOS, EOS, PAD, IMAGE_TOKEN],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    numbers = [str(number) for number in range(101)] * 2
    texts = [prompt_text().replace(IMAGE_TOKEN, "")] * 2 + numbers
    tokenizer.train_from_iterator([*texts, *(f" {code}" for code in codes)], trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=BOS,
        eos_token=EOS,
        unk_token=UNK,
        pad_token=PAD,
        extra_special_tokens={"image_token": IMAGE_TOKEN},
        clean_up_tokenization_spaces=False,
        padding_side="left",
    )


def build_nano(
    tokenizer: PreTrainedTokenizerFast, shape: NanoShape | None = None
) -> tuple[LlavaForConditionalGeneration, Any]:
    """A nano model with random weights, and its processor."""
    shape = shape or NanoShape()
    vision = CLIPVisionConfig(
        image_size=shape.image,
        patch_size=shape.patch,
        hidden_size=shape.vision_width,
        intermediate_size=4 * shape.vision_width,
        num_hidden_layers=shape.vision_layers,
        num_attention_heads=shape.vision_heads,
        projection_dim=shape.vision_width,
    )
    text = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=shape.text_width,
        intermediate_size=int(shape.text_width * 8 / 3) // 16 * 16,
        num_hidden_layers=shape.text_layers,
        num_attention_heads=shape.text_heads,
        num_key_value_heads=shape.text_heads,
        max_position_embeddings=shape.positions,
        tie_word_embeddings=True,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    config = LlavaConfig(
        vision_config=vision,
        text_config=text,
        image_token_index=tokenizer.convert_tokens_to_ids(IMAGE_TOKEN),
        image_seq_length=(shape.image // shape.patch) ** 2,
        # LLaVA-1.5 reads the layer before the last, which would leave the last untrained.
        vision_feature_layer=-1,
        vision_feature_select_strategy="default",
        tie_word_embeddings=True,
        pad_token_id=tokenizer.pad_token_id,
    )
    model = LlavaForConditionalGeneration(config)
    side = {"height": shape.image, "width": shape.image}
    pictures = CLIPImageProcessorPil(
        size=side, crop_size=side, do_center_crop=False, resample=4,  # box: averages areas
        image_mean=[0.8, 0.8, 0.8], image_std=[0.3, 0.3, 0.3],
    )  # fmt: skip
    processor = LlavaProcessor(
        image_processor=pictures,
        tokenizer=tokenizer,
        patch_size=shape.patch,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        image_token=IMAGE_TOKEN,
    )
    return model, processor
