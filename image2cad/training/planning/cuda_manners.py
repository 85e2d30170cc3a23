"""What CUDA does otherwise than a processor, put in where fake tensors say that they are on one.

    with cuda_manners(card):
        model(...)

Without a card torch has no backward pass for fake tensors of the device "cuda" (its autograd
engine asks for streams), so the planner's tensors are on "cpu" and what differs is patched while a
step is watched: fused dropout, layer norm in float32 under autocast, the kernel of attention, and
PEFT's question whether autocast is on. Read from the sources of torch 2.13.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from transformers import masking_utils
from transformers.integrations import moe

from image2cad.training.planning.cards import Card

_aten = torch.ops.aten


@contextmanager
def patched(where: Any, **names: Any) -> Iterator[None]:
    """Other values for those names of a module that it has, for a while."""
    kept = {name: getattr(where, name) for name in names if hasattr(where, name)}
    for name in kept:
        setattr(where, name, names[name])
    try:
        yield
    finally:
        for name, value in kept.items():
            setattr(where, name, value)


@contextmanager
def cuda_manners(card: Card) -> Iterator[None]:
    """On a card: dropout, norms, attention and autocast as CUDA has them. Else nothing of that.

    Either way transformers is told that this is no tracing: it builds no mask where the data says
    that none is needed.
    """
    asked = torch.is_autocast_enabled
    with (
        patched(masking_utils, is_tracing=lambda *_: False),
        # Experts: torch's fake of this kernel takes bfloat16 alone; the other way has a fake too.
        patched(moe, _can_use_grouped_mm=lambda _, weight, __: weight.dtype == torch.bfloat16),
    ):
        if not card.cuda:
            yield
            return
        with (
            patched(
                F,
                scaled_dot_product_attention=_attention(card.flash),
                dropout=_dropout,
                layer_norm=_layer_norm(F.layer_norm),
            ),
            # PEFT asks for CUDA's autocast, and would cast what goes into LoRA to float32.
            patched(torch, is_autocast_enabled=lambda kind=None: asked("cpu")),
        ):
            yield


def _attention(flash: bool) -> Callable[..., torch.Tensor]:
    """Flash attention from Ampere on, else the memory-efficient one, else the plain one.

    Before Ampere grouped heads have the plain one only (sdp_utils.cpp of torch up to 2.13). A mask
    rules out flash attention.
    """

    def attend(
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        attn_mask: torch.Tensor | None = None,
        dropout_p: float = 0.0,
        is_causal: bool = False,
        scale: float | None = None,
        enable_gqa: bool = False,
    ) -> torch.Tensor:
        if torch.is_autocast_enabled("cpu"):
            half = torch.get_autocast_dtype("cpu")
            query, key, value = (
                t.to(half) if t.dtype == torch.float32 else t for t in (query, key, value)
            )
        width = query.shape[-1]
        if flash and attn_mask is None and query.dtype != torch.float32:
            if width % 8:
                query, key, value = (F.pad(t, (0, 8 - width % 8)) for t in (query, key, value))
            out = _aten._scaled_dot_product_flash_attention(
                query, key, value, dropout_p, is_causal, False, scale=scale or width**-0.5
            )[0]
            return out[..., :width]
        if enable_gqa and query.shape[1] != key.shape[1]:
            return _aten._scaled_dot_product_attention_math(
                query, key, value, attn_mask, dropout_p, is_causal, None,
                scale=scale, enable_gqa=True,
            )[0]  # fmt: skip
        if attn_mask is not None:
            attn_mask = _additive(attn_mask, query, key)
        grad = torch.is_grad_enabled() and any(t.requires_grad for t in (query, key, value))
        return _aten._scaled_dot_product_efficient_attention(
            query, key, value, attn_mask, grad, dropout_p, is_causal, scale=scale
        )[0]

    return attend


def _additive(mask: torch.Tensor, query: torch.Tensor, key: torch.Tensor) -> torch.Tensor:
    """A mask as the memory-efficient kernel takes it: added, its rows padded to 16 numbers."""
    if mask.dtype == torch.bool:
        zeros = torch.zeros_like(mask, dtype=query.dtype)
        mask = zeros.masked_fill_(~mask, float("-inf"))
    length = mask.shape[-1]
    if length % 16:
        mask = F.pad(mask, (0, 16 - length % 16))[..., :length]
    return mask.expand(query.shape[0], query.shape[1], query.shape[2], key.shape[2])


def _dropout(
    input: torch.Tensor, p: float = 0.5, training: bool = True, inplace: bool = False
) -> torch.Tensor:
    """Fused: keeps a mask of one byte a number."""
    if not training or p == 0.0:
        return input
    return _aten.native_dropout(input, p, True)[0]


def _layer_norm(plain: Callable[..., torch.Tensor]) -> Callable[..., torch.Tensor]:
    def layer_norm(
        input: torch.Tensor,
        normalized_shape: Any,
        weight: torch.Tensor | None = None,
        bias: torch.Tensor | None = None,
        eps: float = 1e-5,
    ) -> torch.Tensor:
        if torch.is_autocast_enabled("cpu"):  # on CUDA's list for float32
            input = input.float()
            weight, bias = (None if t is None else t.float() for t in (weight, bias))
        return plain(input, normalized_shape, weight, bias, eps)

    return layer_norm
