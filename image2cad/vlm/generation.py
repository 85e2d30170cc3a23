"""Pictures in, programs out: batched generation with any model of loading.py.

    codes = generate_codes(model, processor, [sample.image for sample in samples])

Greedy by default; with a temperature it samples, reproducibly under one seed.
Left out: running the programs (metrics/execution.py) and choosing between them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from PIL import Image
from tqdm.auto import tqdm

from image2cad.cad import CutOff, extract_code
from image2cad.common import SAMPLING_TEMPERATURE, effort_named
from image2cad.vlm.prompting import can_see, encode_prompt
from image2cad.vlm.watching import TokenWatch


def generate_codes(
    model: Any,
    processor: Any,
    images: Sequence[Image.Image | Sequence[Image.Image]],
    batch_size: int = 8,
    max_new_tokens: int = 1024,
    temperature: float = 0.0,
    seed: int = 0,
    progress: bool = True,
) -> list[str]:
    """One program a picture, or a list of views of one part, in order, taken from the reply.

    A reply that has not ended after `max_new_tokens`, or that only repeats itself
    (watching.py), is returned as it is, a `CutOff`, and will most likely fail to run.
    temperature: 0 is greedy.
    """
    tokenizer = processor.tokenizer
    pad = tokenizer.eos_token_id if tokenizer.pad_token_id is None else tokenizer.pad_token_id
    options: dict[str, Any] = {"do_sample": False}
    if temperature > 0:
        torch.manual_seed(seed)
        options = {"do_sample": True, "temperature": temperature, "top_p": 1.0, "top_k": 0}
    training, cache = model.training, getattr(model.config, "use_cache", None)
    model.eval()
    codes: list[str] = []
    stopped = 0
    with tqdm(total=len(images), desc="generate", unit="picture", disable=not progress) as bar:
        for start in range(0, len(images), batch_size):
            batch = encode_prompt(processor, images[start : start + batch_size]).to(model.device)
            batch["pixel_values"] = batch["pixel_values"].to(model.dtype)
            watch = TokenWatch(batch["input_ids"].shape[1], bar, tokenizer.eos_token_id)
            with torch.inference_mode():
                rows = model.generate(
                    **batch,
                    **options,
                    use_cache=True,
                    max_new_tokens=max_new_tokens,
                    eos_token_id=tokenizer.eos_token_id,
                    pad_token_id=pad,
                    stopping_criteria=[watch],
                )
            stopped += len(watch.stopped)
            replies = rows[:, watch.prompt :]
            texts = tokenizer.batch_decode(replies, skip_special_tokens=True)
            ended = (replies == tokenizer.eos_token_id).any(dim=1).tolist()
            found = map(extract_code, texts)
            codes.extend(c if whole else CutOff(c) for c, whole in zip(found, ended, strict=True))
            bar.update(len(texts))
    if stopped and progress:
        print(f"{stopped} of {len(images)} replies only repeated themselves and were ended")
    if cache is not None:
        model.config.use_cache = cache
    model.train(training)
    return codes


def propose(
    model: Any,
    processor: Any,
    images: Sequence[Image.Image | Sequence[Image.Image]],
    effort: str = "none",
    batch_size: int = 16,
    max_new_tokens: int = 1024,
    seed: int = 0,
    progress: bool = True,
) -> list[list[str]]:
    """For each picture the model's greedy program first, then as many samples as the effort has.

    Of several views a base that takes one picture at a time is shown the first.
    """
    images = [can_see(processor, image) for image in images]
    greedy = generate_codes(model, processor, images, batch_size, max_new_tokens, progress=progress)
    codes = [[code] for code in greedy]
    for number in range(effort_named(effort).samples):
        more = generate_codes(
            model, processor, images, batch_size, max_new_tokens,
            temperature=SAMPLING_TEMPERATURE, seed=seed + number, progress=False,
        )  # fmt: skip
        for mine, code in zip(codes, more, strict=True):
            if code not in mine:
                mine.append(code)
    return codes
