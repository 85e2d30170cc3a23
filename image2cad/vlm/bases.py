"""The bases that the recipe knows, and what differs between them.

    processor = load_processor("llava-hf/llava-1.5-7b-hf")
    kind = architecture(model)              # kind.language, kind.sight: names of its pieces

LLaVA-1.5, Qwen2.5-VL, Qwen3-VL, Gemma 3, InternVL3, SmolVLM, GLM-4.1V and GLM-4.5V share one
shape: a tower and a projector that turn a picture into tokens, and a language model that reads
them. How a picture stands in the text is in prompting.py. Left out: everything that they share.
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
    AutoVideoProcessor,
    Glm4vProcessor,
    InternVLProcessor,
    ProcessorMixin,
    Qwen2_5_VLProcessor,
    Qwen3VLProcessor,
    SmolVLMProcessor,
)

from image2cad.common import InputError

ATTENTION = "q_proj|k_proj|v_proj|o_proj"


@dataclass(frozen=True)
class Architecture:
    """language: the language model's name in the base; sight: those of tower and projector,
    which stay frozen and in full precision; trained: the linear layers that LoRA is added to;
    resized: how the size at which it sees a picture is set, by a number of "pixels", of those of
    all "frames" of a video, of "tiles", by the "longest_edge", or not at all; float16: whether its
    activations stay within float16; remark: what the recipe cannot do with it."""

    language: str
    sight: tuple[str, ...]
    trained: str = f"{ATTENTION}|gate_proj|up_proj|down_proj|gate_up_proj"
    resized: str = ""
    float16: bool = True
    remark: str = ""


_TOWER = ("model.vision_tower", "model.multi_modal_projector")
ARCHITECTURES = {
    "llava": Architecture("model.language_model", _TOWER),
    "qwen2_5_vl": Architecture("model.language_model", ("model.visual",), resized="pixels"),
    "qwen3_vl": Architecture("model.language_model", ("model.visual",), resized="pixels"),
    "gemma3": Architecture("model.language_model", _TOWER, float16=False),
    "internvl": Architecture("model.language_model", _TOWER, resized="tiles"),
    "smolvlm": Architecture(
        "model.text_model", ("model.vision_model", "model.connector"), resized="longest_edge"
    ),
    "glm4v": Architecture("model.language_model", ("model.visual",), resized="frames"),
    "glm4v_moe": Architecture(
        "model.language_model",
        ("model.visual",),
        ATTENTION,  # PEFT takes any other name for a name of experts
        resized="frames",
        remark="GLM-4.5V: attention alone is trained, and its experts are not stored in 4 bits",
    ),
}


# ---- Processors
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


class _InternPictures(InternVLProcessor):
    def __init__(
        self,
        image_processor: Any = None,
        tokenizer: Any = None,
        image_seq_length: int = 256,
        chat_template: Any = None,
        **_: Any,
    ) -> None:
        super().__init__(image_processor, tokenizer, None, image_seq_length, chat_template)


_InternPictures.__name__ = "InternVLProcessor"


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

SAVED = ("chat_template", "image_seq_len", "image_seq_length")  # with a processor, beside its parts

# transformers' own classes insist on a video processor, which insists on torchvision.
WITHOUT_VIDEOS: dict[str, Any] = {
    "qwen2_5_vl": _pictures_only(Qwen2_5_VLProcessor),
    "qwen3_vl": _pictures_only(Qwen3VLProcessor),
    "internvl": _InternPictures,
    "glm4v": _pictures_only(Glm4vProcessor),
    "glm4v_moe": _pictures_only(Glm4vProcessor),
    "smolvlm": _SmolPictures,
}


def load_processor(where: str, base: str | None = None, image_size: int | None = None) -> Any:
    """The processor in a folder or on the hub; for pictures only where those for videos lack.

    Pictures are prepared by Pillow whether torchvision is installed or not: torchvision has no
    averaging over areas, and what it makes of a picture differs. base: the base it belongs to,
    where `where` holds an adapter. image_size: as `resize_pictures` has it; None: as it was saved.
    Raises what transformers raises where there is none.
    """
    kind = AutoConfig.from_pretrained(base or where).model_type
    images = AutoImageProcessor.from_pretrained(where, backend="pil")
    if kind in WITHOUT_VIDEOS and not _has_videos(where, kind):
        said = ProcessorMixin.get_processor_dict(where)[0]
        rest = {name: said[name] for name in SAVED if name in said}
        processor = WITHOUT_VIDEOS[kind](images, AutoTokenizer.from_pretrained(where), **rest)
    else:
        processor = AutoProcessor.from_pretrained(where)  # a backend would be asked of videos, too
        processor.image_processor = images
    if image_size is not None:
        resize_pictures(processor, kind, image_size)
    return processor


def _has_videos(where: str, kind: str) -> bool:
    """Whether the packages for videos are here, and were where the processor was saved."""
    packages = ["torchvision", *(["num2words"] if kind == "smolvlm" else [])]
    if not all(importlib.util.find_spec(name) for name in packages):
        return False
    try:
        AutoVideoProcessor.from_pretrained(where)
    except (OSError, ValueError):
        return False
    return True


def resize_pictures(processor: Any, kind: str, side: int) -> None:
    """Have a square picture seen at about `side` pixels a side, others with as many pixels.

    kind: the base's model_type. Raises InputError where the base sees pictures at one size only,
    or where its tiles are larger.
    """
    images = processor.image_processor
    largest = getattr(images, "max_image_size", None)
    tile = largest["longest_edge"] if largest else images.size.get("height", 0)
    how = check_size(kind, side, tile)
    if how in ("pixels", "frames"):
        pixels = side * side * (images.temporal_patch_size if how == "frames" else 1)
        # so transformers calls the least and the most pixels of these bases
        images.size = {"shortest_edge": pixels, "longest_edge": pixels}
    elif how == "longest_edge":
        images.size = {"longest_edge": side}
    else:
        images.min_patches = images.max_patches = round(side / tile) ** 2


def check_size(kind: str, side: int, tile: int) -> str:
    """How a base sees pictures at a size of one's own, Architecture's `resized`.

    tile: pixels a side of its tiles, where it has some. Raises what `resize_pictures` raises.
    """
    how = architecture_named(kind).resized
    if not how:
        raise InputError(f"a {kind} sees pictures at one size; leave --image-size out")
    if how in ("tiles", "longest_edge") and side < tile:
        raise InputError(f"a {kind} sees tiles of {tile} pixels; --image-size is at least that")
    return how


# ---- Their pieces
def architecture(model: Any) -> Architecture:
    """What the recipe has to know of `model`, a base with or without an adapter.

    Raises InputError as `architecture_named` does.
    """
    return architecture_named(_base(model).config.model_type)


def architecture_named(kind: str) -> Architecture:
    """The architecture with the model_type `kind`; an InputError names those that are known."""
    if kind not in ARCHITECTURES:
        raise InputError(
            f"this base is a {kind}; the recipe knows {', '.join(ARCHITECTURES)}: "
            "see ARCHITECTURES in image2cad/vlm/bases.py"
        )
    return ARCHITECTURES[kind]


def unquantised(kind: str) -> list[str]:
    """Full names of the modules that 4-bit storage leaves alone; partial names skip nothing."""
    return [*architecture_named(kind).sight, "lm_head"]


def lora_targets(
    model: Any, target_modules: str = "all-linear", layers_to_transform: str | None = None
) -> str:
    """A regular expression for the language model's linear layers, for PEFT.

    Bare names would match the tower too, whose layers have the same names. target_modules and
    layers_to_transform: as loading.attach_lora has them, which says what is raised.
    """
    kind = architecture(model)
    known = kind.trained.split("|")
    names = known
    if target_modules != "all-linear":
        names = [name.strip() for name in target_modules.split(",")]
        if wrong := [name for name in names if name not in known]:
            raise InputError(
                f"LoRA is added to {', '.join(known)} here, not to {wrong[0]!r}; "
                "--target-modules is all-linear or some of these, with commas"
            )
    layer = r"\..*"
    if layers_to_transform is not None:
        count = language_model(model).config.num_hidden_layers
        numbers = layer_numbers(layers_to_transform, count)
        layer = rf"\.(.*\.)?layers\.({'|'.join(map(str, numbers))})\..*"
    return rf"(.*\.)?{re.escape(kind.language)}{layer}\.({'|'.join(names)})"


def layer_numbers(text: str | int, count: int) -> list[int]:
    """Numbers from "20-31" or "0,1,31", rising. Raises InputError unless all are below `count`.

    A number is one too: 20-31 without its quotes is -11 in a cell, and refused as "-11" is.
    """
    parts = [part.strip().split("-") for part in str(text).split(",")]
    try:
        found = {n for part in parts for n in range(int(part[0]), int(part[-1]) + 1)}
    except ValueError:
        found = set()
    if not found or max(found) >= count or any(len(part) > 2 for part in parts):
        raise InputError(
            f"--layers-to-transform is as 20-31 or 0,1,2, of layers 0 to {count - 1}, not {text!r}"
        )
    return sorted(found)


def check_float16(kind: str) -> None:
    """Raise InputError for a base whose activations overflow float16 (transformers issue 36822)."""
    if not architecture_named(kind).float16:
        raise InputError(
            f"a {kind} overflows float16, and this GPU has no bfloat16: use an L4 or A100, "
            "or another base"
        )


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
