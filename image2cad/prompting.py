"""The one prompt format: pictures and programs to token ids, and a reply back to a program.

    USER: <image>
    Generate CADQuery code: ASSISTANT: {code}

Training, generation, the app and the rewards all come through here, so they cannot disagree.
Left out: dropping over-long samples and padding a training batch, which training.py does.
"""

from __future__ import annotations

import ast
import keyword
import re
import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from image2cad.errors import InputError

if TYPE_CHECKING:  # annotations only: importing this file must not cost the import of torch
    from PIL import Image
    from torch import Tensor

QUESTION = "Generate CADQuery code:"
IMAGE_TOKEN = "<image>"
IGNORED = -100  # the label that cross entropy leaves out


def prompt_text() -> str:
    """The text before the code, without BOS; training puts one space and the code behind it."""
    return f"USER: {IMAGE_TOKEN}\n{QUESTION} ASSISTANT:"


def encode_example(processor: Any, image: Image.Image, code: str) -> dict[str, Tensor]:
    """One training sample: BOS, the prompt with its image tokens, " {code}", EOS.

    Returns input_ids, attention_mask and labels (L,) int64 and pixel_values (3, H, W) float32.
    Labels are -100 except on the tokens of the code and on EOS. Nothing is ever cut: L grows with
    the code. Raises InputError where the code contains one of the tokenizer's special tokens, or
    where the tokenizer merges the end of the prompt with the start of the code.
    """
    tokenizer = processor.tokenizer
    special = [token for token in tokenizer.all_special_tokens if token in code]
    if special:
        raise InputError(f"the code contains {special[0]!r}, a special token of the tokenizer")
    encoded = _encode(processor, [image], [f"{prompt_text()} {code}"])
    body = encoded["input_ids"][0]
    pictures = int((body == tokenizer.convert_tokens_to_ids(IMAGE_TOKEN)).sum())
    expanded = prompt_text().replace(IMAGE_TOKEN, IMAGE_TOKEN * pictures)
    prompt = tokenizer(expanded, add_special_tokens=False, truncation=False)["input_ids"]
    if body[: len(prompt)].tolist() != list(prompt):
        raise InputError(
            "the tokenizer merges the end of the prompt with the start of the code, so that "
            "generation would start from tokens that training never saw; use a tokenizer that "
            "splits words at spaces"
        )
    # BOS and EOS as ids, not as text: a tokenizer splits a word after a written "<s>" differently,
    # and no processor or collator adds EOS. A model that never saw EOS does not stop.
    row = _with_bos(processor, body[None])[0]
    row = row.new_tensor([*row.tolist(), _special_id(tokenizer, "eos")])
    labels = row.clone()
    labels[: 1 + len(prompt)] = IGNORED
    return {
        "input_ids": row,
        "attention_mask": row.new_ones(len(row)),
        "labels": labels,
        "pixel_values": encoded["pixel_values"][0],
    }


def encode_prompt(processor: Any, images: Sequence[Image.Image]) -> Any:
    """The batch for `model.generate`: a BatchFeature with `.to(device)`, ready for `**`.

    It holds input_ids and attention_mask (N, L) int64 and pixel_values (N, 3, H, W) float32. The
    text is the same for every picture and so is the number of image tokens, so the rows have one
    length: the batch is left-padded with no padding needed, and the reply starts at column L.
    """
    batch = _encode(processor, list(images), [prompt_text()] * len(images))
    batch["input_ids"] = _with_bos(processor, batch["input_ids"])
    batch["attention_mask"] = batch["input_ids"].new_ones(batch["input_ids"].shape)
    return batch


def _encode(processor: Any, images: list[Image.Image], texts: list[str]) -> Any:
    """Let the processor expand <image>; no special tokens, no padding, no truncation."""
    batch = processor(
        images=[image.convert("RGB") for image in images],
        text=texts,
        add_special_tokens=False,
        padding=False,
        truncation=False,
        return_tensors="pt",
    )
    for name in set(batch.keys()) - {"input_ids", "attention_mask", "pixel_values"}:
        del batch[name]
    return batch


def _with_bos(processor: Any, ids: Tensor) -> Tensor:
    bos = ids.new_full((len(ids), 1), _special_id(processor.tokenizer, "bos"))
    return bos.new_tensor([[*b, *row] for b, row in zip(bos.tolist(), ids.tolist(), strict=True)])


def _special_id(tokenizer: Any, name: str) -> int:
    number = getattr(tokenizer, f"{name}_token_id")
    if number is None:
        raise InputError(f"the tokenizer has no {name.upper()} token; the prompt format needs one")
    return int(number)


THOUGHT = re.compile(r"<think>.*?</think>", re.DOTALL)
FENCE = re.compile(r"^[ \t]*(```+|~~~+)[^\n`]*\n(?P<code>.*?)(?:^[ \t]*\1|\Z)", re.M | re.S)
# `import x`, `from x import y`, `name = `, `call(`, `def f`, a decorator: how a program begins
FIRST_CODE = re.compile(
    r"(import|from)\s+[\w.]+(\s+(import|as)\b.*)?$|[A-Za-z_]\w*\s*=[^=]|[\w.]+\(|(def|class)\s\w|@\w"
)
# three words in a row that are no statement
PROSE = re.compile(r"\s*[-*>#]*\s*(?P<word>[A-Za-z][\w'’,*`-]*)( [\w'’,(*`:.-]+){2,}")


def extract_code(reply: str) -> str:
    """The program in a model's reply: plain, fenced or wrapped in sentences.

    Prose is taken off; code is never repaired, so that a reply that broke off still fails. Without
    anything that looks like code the stripped reply comes back, to fail where it is run.
    """
    text = THOUGHT.sub("", reply.replace("\r\n", "\n"))
    if text.lstrip().startswith("USER:"):
        text = text.partition("ASSISTANT:")[2]
    text = text.removeprefix("<s>").partition("</s>")[0]
    blocks = [match["code"] for match in FENCE.finditer(text)]
    if blocks:
        # a chatty reply also fences its install command and its output
        return _clean(max(blocks, key=lambda block: (_mentions_cadquery(block), len(block))))
    text = _clean(text)
    return text if _parses(text) else _clean(_without_prose(text.splitlines()))


def _clean(text: str) -> str:
    return textwrap.dedent(text).strip()


def _mentions_cadquery(block: str) -> bool:
    return bool(re.search(r"\bcq\.|^\s*(import|from) cadquery", block, re.MULTILINE))


def _parses(text: str) -> bool:
    try:
        ast.parse(text)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return False
    return True


def _without_prose(lines: list[str]) -> str:
    """Sentences before the first line of code and after the last one taken off."""
    first = next((i for i, line in enumerate(lines) if FIRST_CODE.match(line.strip())), None)
    if first is None:
        return "\n".join(lines)
    lines = lines[first:]
    while not _parses("\n".join(lines)):
        last = max(i for i, line in enumerate(lines) if line.strip())
        if last == 0 or not _is_prose(lines[last]):
            break  # broken code, not a sentence: it has to fail
        lines = lines[:last]
    return "\n".join(lines)


def _is_prose(line: str) -> bool:
    match = PROSE.match(line)
    return match is not None and not keyword.iskeyword(match["word"])
