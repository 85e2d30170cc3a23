"""Protects generation from replies that never end, and real programs from being taken for one.

What ends a reply is that its last few hundred tokens are one passage over and over. No program of
GenCAD-Code or of the bundle may be ended so at any of its tokens, whatever tokenizer cut it.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from tqdm import tqdm

from image2cad.common.gencad import read_programs
from image2cad.common.paths import BUNDLED, NANO
from image2cad.data.samples import Sample
from image2cad.vlm.bases import load_processor
from image2cad.vlm.generation import generate_codes
from image2cad.vlm.loading import load_base
from image2cad.vlm.watching import LEAST_TIMES, LEAST_TOKENS, TokenWatch, repeats

Tokenizer = Callable[[str], list[int]]


@pytest.fixture(scope="module")
def tokenizers() -> dict[str, Tokenizer]:
    """The nano base's, one token a letter, and numbers digit by digit as Llama's cuts them."""
    nano = load_processor(str(NANO)).tokenizer
    ids: dict[str, int] = {}

    def llama_like(text: str) -> list[int]:
        pieces = re.findall(r"\d|[A-Za-z]{1,5}|\s+|[^\sA-Za-z\d]{1,2}", text)
        return [ids.setdefault(piece, len(ids)) for piece in pieces]

    return {
        "nano": lambda text: nano(text, add_special_tokens=False)["input_ids"],
        "letters": lambda text: [ord(letter) for letter in text],
        "like Llama's": llama_like,
    }


def never_ended(codes: list[str], tokenizers: dict[str, Tokenizer]) -> None:
    for name, tokenize in tokenizers.items():
        for code in codes:
            tokens = tokenize(code)
            for end in range(LEAST_TOKENS, len(tokens) + 1):
                assert not repeats(tokens[:end]), (name, code)


def test_no_bundled_program_is_taken_for_a_loop(tokenizers: dict[str, Tokenizer]) -> None:
    rows = [row for split in ("train", "test") for row in read_programs(BUNDLED / split)]
    never_ended([row["code"] for row in rows], tokenizers)


def test_no_real_program_is_taken_for_a_loop(
    gencad_dev: Path, tokenizers: dict[str, Tokenizer]
) -> None:
    codes = [row["code"] for row in read_programs(gencad_dev)]
    assert len(codes) == 60 and max(map(len, codes)) > 2500
    never_ended(codes, tokenizers)


def test_loops_of_every_length_are_seen_and_near_ones_are_not() -> None:
    start = list(range(1000, 1300))
    for period in (1, 2, 7, 40, 160):
        passage = list(range(period))
        times = max(LEAST_TIMES, -(-LEAST_TOKENS // period))
        assert repeats(start + passage * times)
        assert not repeats(start + passage * (times - 1)), period
        broken = start + passage * times
        broken[-period - 1] = -1
        assert not repeats(broken), period
        counted = [t for n in range(times) for t in [*passage, 2000 + n]]
        assert not repeats(start + counted), "a number that counts up is no loop"


def test_a_reply_that_repeats_is_ended_and_the_others_go_on(
    base: Path, samples: list[Sample], monkeypatch: pytest.MonkeyPatch
) -> None:
    watch = TokenWatch(3, tqdm(disable=True), end=7000)
    loop = [9] * 3 + [1, 2] * LEAST_TOKENS
    other = [9] * 3 + list(range(2 * LEAST_TOKENS))
    ended = [9] * 3 + [5, 6, 7000] + [0] * (2 * LEAST_TOKENS - 3)  # padded while the others go on
    assert watch(torch.tensor([loop, other, ended]), None).tolist() == [True, False, False]
    assert watch.stopped == {0}

    model, processor = load_base(base)
    images = [sample.image for sample in samples[:3]]
    counts: list[int] = []
    watched = TokenWatch.__call__

    def counting(self: TokenWatch, ids: torch.Tensor, *rest: Any, **more: Any) -> torch.Tensor:
        counts.append(ids.shape[1] - self.prompt)
        return watched(self, ids, *rest, **more)

    monkeypatch.setattr(TokenWatch, "__call__", counting)
    codes = generate_codes(model, processor, images, 3, 1500, progress=False)
    # Random weights write the same token for ever.
    assert len(codes) == 3 and LEAST_TOKENS <= counts[-1] < 1000
