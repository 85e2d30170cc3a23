"""Protects the prompt format: what the loss sees, and which program is taken from a reply.

A wrong label or a cut sample trains quietly into nothing, and a reply read badly turns a right
program into a failure; neither shows up as an error anywhere else.
"""

import pytest
import torch
from PIL import Image

from image2cad.cad.reply import extract_code
from image2cad.common.errors import InputError
from image2cad.vlm.prompting import encode_example, encode_prompt, prompt_text

BOX = 'import cadquery as cq\nresult = cq.Workplane("XY").box(1, 2, 3)\n'
PICTURE = Image.new("RGB", (448, 448), "white")


def test_the_sequence_is_byte_exact(processor):
    row = encode_example(processor, PICTURE, BOX)
    text = processor.tokenizer.decode(row["input_ids"])
    expected = f"<s>USER: <image>\nGenerate CADQuery code: ASSISTANT: {BOX}</s>"
    assert text == expected.replace("<image>", "<image>" * 4)


def test_the_loss_touches_code_and_eos_only(processor):
    row = encode_example(processor, PICTURE, BOX)
    ids, labels = row["input_ids"], row["labels"]
    kept = labels != -100
    assert processor.tokenizer.decode(labels[kept]) == f" {BOX}</s>"
    assert torch.equal(labels[kept], ids[kept])
    first = int(kept.nonzero()[0])
    assert kept[first:].all() and not kept[:first].any()
    assert labels[-1] == processor.tokenizer.eos_token_id
    assert int((ids == processor.tokenizer.bos_token_id).sum()) == 1
    assert ids[0] == processor.tokenizer.bos_token_id
    assert int((ids == processor.tokenizer.eos_token_id).sum()) == 1
    assert row["pixel_values"].shape == (1, 3, 28, 28)
    assert row["attention_mask"].tolist() == [1] * len(ids)


def test_no_code_is_ever_cut(processor):
    # a limit saved with the tokenizer, as checkpoints often have one, must not matter either
    processor.tokenizer.backend_tokenizer.enable_truncation(64)
    limit, processor.tokenizer.model_max_length = processor.tokenizer.model_max_length, 64
    try:
        code = "".join(f"x{i} = {i / 7}\n" for i in range(4000))
        row = encode_example(processor, PICTURE, code)
    finally:
        processor.tokenizer.model_max_length = limit
        processor.tokenizer.backend_tokenizer.no_truncation()
    labels = row["labels"][row["labels"] != -100]
    assert len(labels) > 20_000
    assert processor.tokenizer.decode(labels) == f" {code}</s>"


def test_generation_starts_where_training_labels_start(processor):
    row = encode_example(processor, PICTURE, BOX)
    other = Image.new("L", (100, 300))
    batch = encode_prompt(processor, [PICTURE, other])
    start = int((row["labels"] != -100).nonzero()[0])
    assert batch["input_ids"].tolist() == [row["input_ids"][:start].tolist()] * 2
    assert batch["attention_mask"].shape == batch["input_ids"].shape
    assert batch["attention_mask"].all()
    assert batch["pixel_values"].shape == (2, 3, 28, 28)
    assert torch.equal(batch["pixel_values"][:1], row["pixel_values"])
    assert set(batch.keys()) == {"input_ids", "attention_mask", "pixel_values"}


def test_a_special_token_in_the_code_is_refused(processor):
    with pytest.raises(InputError, match="</s>"):
        encode_example(processor, PICTURE, BOX + "# </s>\n")
    with pytest.raises(InputError, match="<image>"):
        encode_example(processor, PICTURE, BOX + "# <image>\n")


CODE = BOX.strip()
OTHER = "pip install cadquery"
REPLIES = {
    "plain": BOX,
    "with the space that training puts before it": f" {CODE}",
    "with special tokens": f"<s> {CODE}</s> and more",
    "with the prompt": f"{prompt_text()} {CODE}",
    "fenced": f"```python\n{CODE}\n```",
    "fenced, no language, Windows lines": f"```\n{CODE}\n```".replace("\n", "\r\n"),
    "fenced in a list": "1. Code:\n   ```py\n"
    + "".join(f"   {line}\n" for line in CODE.splitlines())
    + "   ```\n2. Done.",
    "fence never closed": f"Sure!\n```python\n{CODE}\n",
    "several fences": f"First:\n```bash\n{OTHER}\n```\nthen\n```python\n{CODE}\n```\n"
    f"prints\n```\n{'volume 6 ' * 20}\n```",
    "sentences around it": f"Here is the CadQuery code for the part:\n\n{CODE}\n\n"
    "This creates a box of 1 by 2 by 3 (in mm).\nLet me know if you need changes!",
    "thoughts first": f"<think>\nresult = maybe(\n```python\nwrong()\n```\n</think>\n{CODE}",
}


@pytest.mark.parametrize("kind", REPLIES)
def test_the_program_is_found(kind):
    assert extract_code(REPLIES[kind]) == CODE


def test_code_is_never_repaired():
    broken_off = 'import cadquery as cq\nresult = cq.Workplane("XY").box(1, 2'
    assert extract_code(broken_off) == broken_off
    half_an_import = "import cadquery as cq\nresult = 1\nfrom math import"
    assert extract_code(half_an_import) == half_an_import


def test_a_reply_without_code_comes_back_as_it_is():
    assert extract_code("  I cannot see a part in this picture.\n") == (
        "I cannot see a part in this picture."
    )
    assert extract_code("") == ""


def test_strings_in_the_code_may_look_like_prose_or_quotes():
    code = (
        'import cadquery as cq\n"""\nThis makes a box of the given size\n"""\n'
        's = "see ``` and the rest of it"\nresult = cq.Workplane().box(1, 1, 1)'
    )
    assert extract_code(code) == code
