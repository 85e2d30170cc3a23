"""Generation watched token by token: a bar that moves, and an end to replies that only repeat.

    model.generate(..., stopping_criteria=[TokenWatch(prompt_length, bar, tokenizer.eos_token_id)])

A greedy reply that has begun to repeat itself goes on until its last token is used up, and builds
nothing. `repeats` tells such a reply from a program with equal passages, of which there are many:
tests/test_generation.py runs it over every beginning of real programs.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from transformers import StoppingCriteria

# A passage counts as a loop when it was said so often without a break, over at least so many
# tokens: several times what the repetitions in programs come to.
LEAST_TIMES = 6
LEAST_TOKENS = 240
LONGEST_PASSAGE = 160  # tokens
TOKENS_BETWEEN_LOOKS = 16
SECONDS_BETWEEN_NEWS = 0.5


def repeats(tokens: Sequence[int]) -> bool:
    """Whether the end of `tokens` is one passage said over and over, and nothing else.

    True where the last n tokens have a period p of at most LONGEST_PASSAGE, with
    n >= LEAST_TOKENS and n >= LEAST_TIMES * p.
    """
    if len(tokens) < LEAST_TOKENS:
        return False
    tail = np.asarray(tokens[-LEAST_TIMES * LONGEST_PASSAGE :])
    longest = min(LONGEST_PASSAGE, len(tail) // LEAST_TIMES)
    # Only at a period's distance can the last token stand once more.
    candidates = np.flatnonzero(tail[-2 : -longest - 2 : -1] == tail[-1]) + 1
    for period in candidates.tolist():
        needed = max(LEAST_TOKENS, LEAST_TIMES * period)
        if len(tail) >= needed and (tail[-needed + period :] == tail[-needed:-period]).all():
            return True
    return False


class TokenWatch(StoppingCriteria):
    """Ends the rows that only repeat, and says on the bar how far the replies are.

    prompt: tokens of the prompt. bar: a tqdm bar. end: the token that ends a reply; what follows
    it is padding. `stopped`: the rows that were ended.
    """

    def __init__(self, prompt: int, bar: Any, end: int) -> None:
        self.prompt, self.bar, self.end = prompt, bar, end
        self.stopped: set[int] = set()
        self._told = 0.0

    def __call__(self, input_ids: torch.Tensor, scores: Any, **_: Any) -> torch.Tensor:
        count = input_ids.shape[1] - self.prompt
        if time.monotonic() - self._told > SECONDS_BETWEEN_NEWS:
            self._told = time.monotonic()
            self.bar.set_postfix_str(f"{count} tokens")
        ends = torch.zeros(len(input_ids), dtype=torch.bool, device=input_ids.device)
        if count >= LEAST_TOKENS and count % TOKENS_BETWEEN_LOOKS == 0:
            for number, row in enumerate(input_ids[:, self.prompt :].cpu().numpy()):
                ends[number] = self.end not in row and repeats(row)
        self.stopped |= set(ends.nonzero()[:, 0].tolist())
        return ends
