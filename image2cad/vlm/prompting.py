"""The one prompt format: pictures and programs to token ids, and a reply back to a program.

    USER: <image>
    Generate CADQuery code: ASSISTANT: {code}

Training, generation, the app and the rewards all come through here, so they cannot disagree.
A base that marks pictures in another way gets its own marks in the place of <image>. Several views
of one part stand one behind the other, where the base was made for that.
Left out: dropping over-long samples, which training/examples.py does.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from image2cad.common import QUESTION, InputError

if TYPE_CHECKING:
    from PIL import Image
    from torch import Tensor

IMAGE_TOKEN = "<image>"
IGNORED = -100  # the label that cross entropy leaves out

# What stands for a token that is not there; fields that are not named here belong to the picture.
PADDING_VALUES = {
    "input_ids": None,  # the tokenizer's own
    "attention_mask": 0,
    "mm_token_type_ids": 0,
    "token_type_ids": 0,
    "labels": IGNORED,
}

# Processors whose bases expect more around a picture than its own token: before all, before, after.
PICTURE_MARKS = {
    "Qwen2_5_VLProcessor": ("", "<|vision_start|>", "<|vision_end|>"),
    "Qwen3VLProcessor": ("", "<|vision_start|>", "<|vision_end|>"),
    "Glm4vProcessor": ("[gMASK]<sop>", "<|begin_of_image|>", "<|end_of_image|>"),
}


ONE_PICTURE = ("LlavaProcessor",)  # their bases have only seen one picture at a time


def prompt_text(processor: Any = None, views: int = 1) -> str:
    """The text before the code, without BOS; training puts one space and the code behind it."""
    first = PICTURE_MARKS.get(type(processor).__name__, ("", "", ""))[0]
    return f"{first}USER: {_picture_text(processor) * views}\n{QUESTION} ASSISTANT:"


def _picture_text(processor: Any) -> str:
    _, before, after = PICTURE_MARKS.get(type(processor).__name__, ("", "", ""))
    return before + getattr(processor, "image_token", IMAGE_TOKEN) + after


def chat_template(processor: Any) -> str:
    """A Jinja template for servers: a user's pictures and QUESTION become the trained prompt.

    It writes BOS, because those that use templates add none. Raises InputError where no text
    has the tokens that training puts there.
    """
    before, _, after = prompt_text(processor).partition(QUESTION)
    tokenizer = processor.tokenizer
    plain = {"add_special_tokens": False, "truncation": False}
    wanted, heads = tokenizer(before, **plain)["input_ids"], [before]
    if tokenizer.bos_token is not None:
        # Llama's tokenizer splits the word after a written BOS as if no space came before it.
        wanted = [tokenizer.bos_token_id, *wanted]
        heads = [tokenizer.bos_token + before, f"{tokenizer.bos_token} {before}"]
    head = next((text for text in heads if tokenizer(text, **plain)["input_ids"] == wanted), None)
    if head is None:
        raise InputError("no chat template gives the tokens that this base was trained with")
    picture = _picture_text(processor)
    start, _, _ = head.partition(picture)
    return (
        "{%- for message in messages %}{%- if message.role == 'user' %}"
        "{%- set views = namespace(count=0) %}{%- if message.content is not string %}"
        "{%- for part in message.content if part.type == 'image' %}"
        "{%- set views.count = views.count + 1 %}{%- endfor %}{%- endif %}"
        f"{{{{ {start!r} + {picture!r} * [views.count, 1] | max }}}}"
        "{%- if message.content is string %}{{ '\\n' + message.content }}"
        "{%- else %}{%- for part in message.content if part.type == 'text' %}"
        "{{ '\\n' + part.text }}{%- endfor %}{%- endif %}"
        "{%- endif %}{%- endfor %}"
        f"{{%- if add_generation_prompt %}}{{{{ {' ' + after.strip()!r} }}}}{{%- endif %}}"
    )


def encode_example(
    processor: Any, image: Image.Image | Sequence[Image.Image], code: str
) -> dict[str, Tensor]:
    """One training sample: BOS, the prompt with its image tokens, " {code}", EOS.

    Returns input_ids, attention_mask and labels (L,) int64, and what the base wants of the
    picture: for LLaVA pixel_values (1, 3, H, W) float32. Labels are -100 except on the tokens of
    the code and on EOS. Nothing is ever cut: L grows with the code. Raises InputError as
    `encode_code` does.
    """
    return add_code(encode_picture(processor, image), encode_code(processor, code))


def can_see(
    processor: Any, image: Image.Image | Sequence[Image.Image]
) -> Image.Image | Sequence[Image.Image]:
    """Of several views the first, where the base has only seen one picture at a time."""
    if isinstance(image, Sequence) and type(processor).__name__ in ONE_PICTURE:
        return image[0]
    return image


def encode_picture(processor: Any, image: Image.Image | Sequence[Image.Image]) -> dict[str, Tensor]:
    """The prompt of one picture, or of several views: (L,) for every token, and their own fields.

    The tokens depend on the pictures' sizes alone. Raises InputError for several views and a base
    that has only seen one picture at a time.
    """
    views = list(image) if isinstance(image, Sequence) else [image]
    if len(views) != 1 and (not views or type(processor).__name__ in ONE_PICTURE):
        raise InputError(f"this base takes one picture at a time, not {len(views)}")
    batch = processor(
        images=[[view.convert("RGB") for view in views]],
        text=[prompt_text(processor, len(views))],
        add_special_tokens=False,
        padding=False,
        truncation=False,
        return_tensors="pt",
    )
    fields = {name: value[0] if name in PADDING_VALUES else value for name, value in batch.items()}
    # BOS as an id, not as text: a tokenizer splits a word after a written "<s>" differently.
    if processor.tokenizer.bos_token_id is None:
        return fields
    first = {"input_ids": int(processor.tokenizer.bos_token_id), "attention_mask": 1}
    return {
        name: _with(value, first.get(name, 0), at_start=True) if name in PADDING_VALUES else value
        for name, value in fields.items()
    }


def encode_code(processor: Any, code: str) -> list[int]:
    """The ids of " {code}" as they follow the prompt, and EOS.

    Raises InputError where the code contains one of the tokenizer's special tokens, or where the
    tokenizer merges the end of the prompt with the start of the code.
    """
    tokenizer = processor.tokenizer
    special = [token for token in tokenizer.all_special_tokens if token in code]
    if special:
        raise InputError(f"the code contains {special[0]!r}, a special token of the tokenizer")
    # One image token is enough here: what follows a special token does not depend on what precedes.
    plain = {"add_special_tokens": False, "truncation": False}
    prompt = tokenizer(prompt_text(processor), **plain)["input_ids"]
    whole = tokenizer(f"{prompt_text(processor)} {code}", **plain)["input_ids"]
    if whole[: len(prompt)] != prompt:
        raise InputError(
            "the tokenizer merges the end of the prompt with the start of the code, so that "
            "generation would start from tokens that training never saw; use a tokenizer that "
            "splits words at spaces"
        )
    if tokenizer.eos_token_id is None:
        raise InputError("the tokenizer has no EOS token; the prompt format needs one")
    # No processor or collator adds EOS, and a model that never saw it does not stop.
    return [*whole[len(prompt) :], int(tokenizer.eos_token_id)]


def add_code(picture: dict[str, Tensor], ids: Sequence[int]) -> dict[str, Tensor]:
    """What `encode_picture` gives, continued with the ids of a program and with labels on these."""
    tokens = picture["input_ids"]
    out = dict(picture)
    for name in picture.keys() & PADDING_VALUES.keys():
        fill = 1 if name == "attention_mask" else 0
        out[name] = _with(picture[name], ids if name == "input_ids" else [fill] * len(ids))
    out["labels"] = _with(tokens.new_full((len(tokens),), IGNORED), ids)
    return out


def stack(examples: Sequence[dict[str, Tensor]], pad: int, left: bool = False) -> dict[str, Tensor]:
    """A batch: tokens (N, L) padded to the longest, the pictures' fields one behind the other."""
    import torch

    batch = {}
    for name in examples[0]:
        values = [example[name] for example in examples]
        if name in PADDING_VALUES:
            fill = pad if name == "input_ids" else PADDING_VALUES[name]
            side = "left" if left else "right"
            batch[name] = torch.nn.utils.rnn.pad_sequence(values, True, fill, padding_side=side)
        else:
            batch[name] = torch.cat(_as_many(values) if name.startswith("pixel") else values)
    return batch


def encode_prompt(processor: Any, images: Sequence[Image.Image | Sequence[Image.Image]]) -> Any:
    """The batch for `model.generate`: a BatchFeature with `.to(device)`, ready for `**`.

    images: one for each row, or several views. The batch holds input_ids and attention_mask (N, L)
    int64 and the pictures' fields. Pictures of one size make rows of one length; else rows are
    padded on the left. The reply starts at column L.
    """
    from transformers import BatchFeature

    rows = [encode_picture(processor, image) for image in images]
    return BatchFeature(stack(rows, padding_id(processor), left=True))


def padding_id(processor: Any) -> int:
    """The token that fills up a row: it has no label and is never attended to."""
    pad = processor.tokenizer.pad_token_id
    return int(processor.tokenizer.eos_token_id if pad is None else pad)


def _with(row: Tensor, more: int | Sequence[int], at_start: bool = False) -> Tensor:
    added = [more] if isinstance(more, int) else list(more)
    old = row.tolist()
    return row.new_tensor([*added, *old] if at_start else [*old, *added])


def _as_many(pictures: list[Tensor]) -> list[Tensor]:
    """SmolVLM cuts a picture into tiles, (1, tiles, ...): as many for all, black where missing."""
    import torch

    most = max(value.shape[1] for value in pictures) if pictures[0].dim() > 3 else 0
    if len({value.shape[1:] for value in pictures}) == 1 or most == 0:
        return pictures
    return [
        torch.cat([value, value.new_zeros(1, most - value.shape[1], *value.shape[2:])], dim=1)
        for value in pictures
    ]
