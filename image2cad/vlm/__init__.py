"""The vision-language model: bases, prompt, LoRA, generation, publishing."""

from typing import TYPE_CHECKING

from image2cad.common.lazy import load

if TYPE_CHECKING:
    from image2cad.vlm.bases import architecture, check_float16, language_head, language_model
    from image2cad.vlm.bases import layer_numbers, sight_parameters, unquantised
    from image2cad.vlm.facts import BaseFacts, base_facts, picture_token, shipped_bases
    from image2cad.vlm.features import encoder_outputs, features_shape, picture_features
    from image2cad.vlm.generation import generate_codes, propose
    from image2cad.vlm.loading import attach_lora, four_bits, load_base, load_model, load_trainable
    from image2cad.vlm.loading import locate, portable, precision, quiet, save_adapter
    from image2cad.vlm.loading import trainable_share
    from image2cad.vlm.merging import merge
    from image2cad.vlm.nano import NanoShape, build_nano, train_tokenizer
    from image2cad.vlm.prompting import IGNORED, PADDING_VALUES, add_code, can_see
    from image2cad.vlm.prompting import chat_template, encode_code, encode_picture, encode_prompt
    from image2cad.vlm.prompting import padding_id, stack
    from image2cad.vlm.publishing import model_card, push, reload_and_compare

__all__ = [
    "BaseFacts", "IGNORED", "NanoShape", "PADDING_VALUES", "add_code", "architecture",
    "attach_lora", "base_facts", "build_nano", "can_see", "chat_template", "check_float16",
    "encode_code", "encode_picture", "encode_prompt", "encoder_outputs", "features_shape",
    "four_bits", "generate_codes", "language_head", "language_model", "layer_numbers", "load_base",
    "load_model", "load_trainable", "locate", "merge", "model_card", "padding_id",
    "picture_features", "picture_token", "portable", "precision", "propose", "push", "quiet",
    "reload_and_compare", "save_adapter", "shipped_bases", "sight_parameters", "stack",
    "train_tokenizer", "trainable_share", "unquantised",
]  # fmt: skip


def __getattr__(name: str) -> object:
    return load(__name__, name)
