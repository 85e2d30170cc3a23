"""What the planner knows of graphics cards: their memory, their speed, how they compute.

    card_named("T4"), card_named("24 GiB"), card_here()

A processor without a card is one too: its memory is RAM and its precision float32. Left out: what a
step needs on it (steps.py).
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, replace

import torch

from image2cad.common import InputError

GIB = 2**30
# Beside the allocator: CUDA's context and modules, cuBLAS's workspace. Not counted by torch.
CONTEXT = int(0.45 * GIB)
LIBRARIES = int(0.6 * GIB)  # of RAM: Python and what is imported
# Of a card's memory, left free: by so much figures of published runs were above the predicted ones.
LEFT_FREE = 0.05
PER_OPERATOR = 20e-6  # s that Python and torch take to start one, on Colab's processors; a guess
SCATTERED = 2.5  # resident memory of a processor's run, in sizes of its tensors, up to
_STEP = GIB // 4
AMPERE = 8  # the compute capability from which on a card has bfloat16 and flash attention


@dataclass(frozen=True)
class Card:
    """memory: bytes that CUDA reports (or RAM); capability: the major number, 0 for a processor;
    half, single: FLOP/s at most in 16 bits (tensor cores) and in float32; bandwidth: B/s at most;
    matrices, attention: the share of these FLOP/s that products and attention reach (attention's
    FLOPs count the masked half, which kernels leave out); moving: the share of the bandwidth that
    element-wise work reaches; as_fast_as: the card whose speed was taken, where its own is not
    known. half is 0 for a processor, whose speed is not predicted."""

    name: str
    memory: int
    capability: int
    half: float = 0.0
    single: float = 0.0
    bandwidth: float = 0.0
    matrices: float = 0.6
    attention: float = 1.2
    moving: float = 0.8
    as_fast_as: str = ""

    @property
    def cuda(self) -> bool:
        return self.capability > 0

    @property
    def flash(self) -> bool:
        return self.capability >= AMPERE

    @property
    def dtype(self) -> torch.dtype:
        """As `vlm.precision` says it on that card."""
        if not self.cuda:
            return torch.float32
        return torch.bfloat16 if self.capability >= AMPERE else torch.float16

    @property
    def usable(self) -> int:
        """Bytes that tensors may surely take."""
        rest = int(self.memory * (1 - LEFT_FREE))
        return rest - CONTEXT if self.cuda else int(rest / SCATTERED)

    @property
    def beside(self) -> int:
        """Bytes that are taken before any tensor is."""
        return CONTEXT if self.cuda else LIBRARIES

    @property
    def most(self) -> int:
        """Bytes that tensors may take at most: a run that needs more is refused."""
        return self.memory - self.beside

    def seconds(self, kind: str, flops: float, moved: float, dtype: torch.dtype) -> float:
        """Of one operation: "matrices", "attention" or another kind."""
        if not self.half:
            return 0.0
        peak = self.single if dtype == torch.float32 else self.half
        share = self.attention if kind == "attention" else self.matrices
        return max(flops / (peak * share), moved / (self.bandwidth * self.moving), 5e-6)


# Memory as CUDA reports it, rates from NVIDIA's data sheets. What kernels reach of them: on the
# A100 as LLaMA-Factory's published times have it, on the T4 24 of 65 TFLOP/s (NVIDIA's forum,
# topic 264462); on the others taken to be as on the A100.
CARDS = {
    card.name: card
    for card in (
        Card("T4", int(14.74 * GIB), 7, 65e12, 8.1e12, 320e9, matrices=0.38, attention=0.4),
        Card("L4", int(22.03 * GIB), 8, 121e12, 30e12, 300e9),
        Card("A100", int(39.39 * GIB), 8, 312e12, 19.5e12, 1555e9),
        Card("A100-80GB", int(79.15 * GIB), 8, 312e12, 19.5e12, 2039e9),
        Card("H100", int(79.1 * GIB), 9, 989e12, 67e12, 3350e9),
    )
}


def card_named(name: str) -> Card:
    """A card by its name, or by its memory alone: "24 GiB" is taken for one of Ampere or later.

    Raises InputError naming those that are known.
    """
    for known, card in CARDS.items():
        if name.strip().lower() == known.lower():
            return card
    size = re.fullmatch(r"(\d+(?:\.\d+)?) ?Gi?B", name.strip(), re.IGNORECASE)
    if size:
        return _unknown(name.strip(), int(float(size[1]) * GIB), AMPERE)
    raise InputError(f'--gpu is {", ".join(CARDS)}, or a memory as "24 GiB", not {name!r}')


def card_here() -> Card:
    """This machine's card, without the memory that others hold on it now, or its processor."""
    if not torch.cuda.is_available():
        pages = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
        return Card("CPU", pages, 0)
    name, device = torch.cuda.get_device_name(), torch.cuda.current_device()
    free, total = torch.cuda.mem_get_info(device)
    taken = total - free - torch.cuda.memory_reserved(device) - CONTEXT  # by others
    # in whole steps, so that a resumed run plans as the first did
    memory = total - max(-(-taken // _STEP), 0) * _STEP
    capability = torch.cuda.get_device_capability(device)[0]
    words = re.split(r"[ -]", name)
    known = [card for card in CARDS.values() if card.name.split("-")[0] in words]
    if not known:
        return _unknown(name, memory, capability)
    nearest = min(known, key=lambda card: abs(card.memory - total))
    return replace(nearest, name=name, memory=memory, capability=capability)


def _unknown(name: str, memory: int, capability: int) -> Card:
    """A card of that memory, taken to be as fast as an L4, or before Ampere as a T4."""
    like = CARDS["L4" if capability >= AMPERE else "T4"]
    return replace(like, name=name, memory=memory, capability=capability, as_fast_as=like.name)
