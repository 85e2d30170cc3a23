"""The bases that the recipe knows, and what differs between them.

    processor = load_processor("llava-hf/llava-1.5-7b-hf")
    kind = architecture(model)              # kind.language, kind.sight: names of its pieces

LLaVA-1.5, Qwen2.5-VL, SmolVLM, GLM-4.1V and GLM-4.5V share one shape: a tower and a
projector that turn a picture into tokens, and a language model that reads them. How a
picture stands in the text is in prompting.py. Left out: everything that the four share.
"""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from transformers import (
    AutoConfig,
    AutoImageProcessor,
    AutoProcessor,
    AutoTokenizer,
    Glm4vProcessor,
    ProcessorMixin,
    Qwen2_5_VLProcessor,
    SmolVLMProcessor,
)

from image2cad.common import InputError

ATTENTION = "q_proj|k_proj|v_proj|o_proj"


@dataclass(frozen=True)
class Architecture:
    """language: the language model's name in the base; sight: those of tower and projector,
    which stay frozen and in full precision; trained: the linear layers that LoRA is added to;
    remark: what the recipe cannot do with it."""

    language: str
    sight: tuple[str, ...]
    trained: str = f"{ATTENTION}|gate_proj|up_proj|down_proj|gate_up_proj"
    remark: str = ""


ARCHITECTURES = {
    "llava": Architecture(
        "model.language_model", ("model.vision_tower", "model.multi_modal_projector")
    ),
    "qwen2_5_vl": Architecture("model.language_model", ("model.visual",)),
    "smolvlm": Architecture("model.text_model", ("model.vision_model", "model.connector")),
    "glm4v": Architecture("model.language_model", ("model.visual",)),
    "glm4v_moe": Architecture(
        "model.language_model",
        ("model.visual",),
        ATTENTION,  # PEFT takes any other name for a name of experts
        "GLM-4.5V: attention alone is trained, and its experts are not stored in 4 bits",
    ),
}


def _pictures_only(kind: type) -> Any:
    """The same processor without videos, under the same name: the name is saved with it."""

    def __init__(
        self: Any,
        image_processor: Any = None,
        tokenizer: Any = None,
        chat_template: Any = None,
        **_: Any,
    ) -> None:
        kind.__init__(self, image_processor, tokenizer, None, chat_template)  # type: ignore[misc]

    return type(kind.__name__, (kind,), {"__init__": __init__})


class _SmolPictures(SmolVLMProcessor):
    def __init__(
        self,
        image_processor: Any = None,
        tokenizer: Any = None,
        image_seq_len: int = 169,
        chat_template: Any = None,
        **_: Any,
    ) -> None:
        # Not SmolVLM's own: it also insists on num2words, which counts the frames of a video.
        self.image_seq_len = image_seq_len
        self.image_token, self.video_token = "<image>", "<video>"
        self.image_token_id = tokenizer.convert_tokens_to_ids("<image>")
        self.fake_image_token = "<fake_token_around_image>"
        self.global_image_token = "<global-img>"
        self.end_of_utterance_token = "<end_of_utterance>"
        ProcessorMixin.__init__(self, image_processor, tokenizer, chat_template=chat_template)

    apply_chat_template = ProcessorMixin.apply_chat_template  # SmolVLM's asks for videos


_SmolPictures.__name__ = "SmolVLMProcessor"

# transformers' own classes insist on a video processor, which insists on torchvision.
WITHOUT_VIDEOS: dict[str, Any] = {
    "qwen2_5_vl": _pictures_only(Qwen2_5_VLProcessor),
    "glm4v": _pictures_only(Glm4vProcessor),
    "glm4v_moe": _pictures_only(Glm4vProcessor),
    "smolvlm": _SmolPictures,
}


def load_processor(where: str, base: str | None = None) -> Any:
    """The processor in a folder or on the hub; for pictures only where packages for videos lack.

    base: the base it belongs to, where `where` holds an adapter. Raises what
    transformers raises where there is none.
    """
    kind = AutoConfig.from_pretrained(base or where).model_type
    videos = ["torchvision", *(["num2words"] if kind == "smolvlm" else [])]
    if kind not in WITHOUT_VIDEOS or all(importlib.util.find_spec(name) for name in videos):
        return AutoProcessor.from_pretrained(where)
    said = ProcessorMixin.get_processor_dict(where)[0]
    rest = {name: said[name] for name in ("chat_template", "image_seq_len") if name in said}
    images = AutoImageProcessor.from_pretrained(where)
    return WITHOUT_VIDEOS[kind](images, AutoTokenizer.from_pretrained(where), **rest)


def architecture(model: Any) -> Architecture:
    """What the recipe has to know of `model`, a base with or without an adapter.

    Raises InputError naming the architectures that it knows.
    """
    kind = _base(model).config.model_type
    if kind not in ARCHITECTURES:
        raise InputError(
            f"this base is a {kind}; the recipe knows {', '.join(ARCHITECTURES)}: "
            "see ARCHITECTURES in image2cad/vlm/bases.py"
        )
    return ARCHITECTURES[kind]


def unquantised(where: str) -> list[str]:
    """Full names of the modules that 4-bit storage leaves alone; partial names skip nothing."""
    kind = AutoConfig.from_pretrained(where).model_type
    sight = ARCHITECTURES[kind].sight if kind in ARCHITECTURES else ()
    return [*sight, "lm_head"]


def lora_targets(model: Any) -> str:
    """A regular expression for the language model's linear layers, for PEFT.

    Bare names would match the tower too, whose layers have the same names.
    """
    kind = architecture(model)
    return rf"(.*\.)?{re.escape(kind.language)}\..*\.({kind.trained})"


def language_model(model: Any) -> Any:
    """The part that reads and writes tokens."""
    return _base(model).get_submodule(architecture(model).language)


def language_head(model: Any) -> Any:
    """The linear layer that makes logits of the language model's hidden states."""
    return _base(model).get_output_embeddings()


def sight_parameters(model: Any) -> Iterator[tuple[str, Any]]:
    """Name and value of every parameter of tower and projector."""
    for name in architecture(model).sight:
        yield from _base(model).get_submodule(name).named_parameters(prefix=name)


def _base(model: Any) -> Any:
    return model.get_base_model() if hasattr(model, "get_base_model") else model
