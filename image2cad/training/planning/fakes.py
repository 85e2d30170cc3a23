"""A base with its adapter, a batch and an optimiser, out of fake tensors: shapes without data.

    model = fake_model(config, work, card, mode)       # as load_base and attach_lora give it
    batch = fake_batch(config, work, card)             # as collate makes it; real, and small

4-bit weights are what bitsandbytes' own quantiser makes of a fake tensor, double quantisation
included. Left out: pixels for bases other than LLaVA, whose features are inputs instead.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from math import prod
from typing import Any

import torch
from peft.tuners.lora import dora
from torch._subclasses.fake_tensor import FakeTensorMode
from transformers import AutoModelForImageTextToText
from transformers.initialization import no_init_weights

from image2cad.training.examples import collate
from image2cad.training.planning.cards import Card
from image2cad.training.planning.cuda_manners import patched
from image2cad.training.planning.tracking import ADAPTER, OPTIMISER, WEIGHTS
from image2cad.training.supervised import Recompute
from image2cad.vlm import (
    IGNORED,
    attach_lora,
    features_shape,
    four_bits,
    picture_token,
    unquantised,
)

PAGED = 100_000  # numbers, from which on bitsandbytes' paged optimiser keeps states elsewhere
BLOCK = 256  # numbers that share a scale in its 8-bit states
FEWEST = 4096  # numbers, below which its states stay in float32


@dataclass(frozen=True)
class Work:
    """What is done at a time.

    tokens: of a row, the picture's included; labelled: of these, the ones with a label; rows: of a
    pass; picture: tokens of a picture. The others: as TrainingSettings and `attach_lora` name them;
    accumulated: the pass is not the first of its step; cached: the picture's features are given;
    padded: rows are not equally long, so that a mask is needed; processes: that share their
    gradients, which are copied for it.
    """

    tokens: int
    labelled: int
    picture: int
    rows: int = 1
    load_in_4bit: bool = True
    r: int = 16
    lora_dropout: float = 0.05
    use_dora: bool = False
    target_modules: str = "all-linear"
    layers_to_transform: str | None = None
    optim: str = "paged_adamw_8bit"
    recompute: Recompute = "language"
    labelled_only: bool = True
    loss_in_chunks: bool = True
    accumulated: bool = False
    cached: bool = True
    padded: bool = False
    processes: int = 1


# ---- The model
def fake_model(config: Any, work: Work, card: Card, mode: FakeTensorMode) -> Any:
    """The base of a config with LoRA. Raises InputError for an architecture that is not known."""
    with torch.device("meta"), no_init_weights():
        model = AutoModelForImageTextToText.from_config(
            config, dtype=card.dtype, attn_implementation="sdpa"
        )
    if work.load_in_4bit:
        from transformers.integrations.bitsandbytes import replace_with_bnb_linear

        settings = four_bits(card.dtype, unquantised(config.model_type))
        skipped = settings.llm_int8_skip_modules
        model = replace_with_bnb_linear(model, skipped, settings)
        model.is_loaded_in_4bit = True
    with whole_weights():
        model = attach_lora(
            model,
            work.r,
            2 * work.r,
            work.lora_dropout,
            use_dora=work.use_dora,
            target_modules=work.target_modules,
            layers_to_transform=work.layers_to_transform,
        )
    with mode:
        _fill(model, card.dtype)
    return model


def _fill(model: Any, dtype: torch.dtype) -> None:
    """Fake tensors in the place of meta ones."""
    for module in model.modules():
        quantised = hasattr(module, "quant_state")
        for name, parameter in module._parameters.items():
            if parameter is None:
                continue
            if quantised and name == "weight":
                new = _quantised(parameter.shape, dtype)
                # bitsandbytes' class for such weights moves real data, and takes no fakes
                module.quant_state, module.support_avx512bf16_for_cpu = new.quant_state, False
            else:
                data = torch.empty(parameter.shape, dtype=parameter.dtype)
                new = torch.nn.Parameter(data, parameter.requires_grad)
            module._parameters[name] = new
        for name, value in module._buffers.items():
            if value is not None:
                module._buffers[name] = torch.empty(value.shape, dtype=value.dtype)
    model.get_base_model().tie_weights()


def _quantised(shape: torch.Size, dtype: torch.dtype) -> Any:
    from bitsandbytes import functional

    packed, state = functional.quantize_4bit(
        torch.empty(shape, dtype=dtype), blocksize=64, compress_statistics=True, quant_type="nf4"
    )
    weight: Any = torch.nn.Parameter(packed, requires_grad=False)
    weight.quant_state, weight.quant_type, weight.compress_statistics = state, "nf4", True
    return weight


def real_tables() -> None:
    """Make the table that bitsandbytes makes on first use and keeps, while tensors are real."""
    from bitsandbytes import functional

    functional.name2qmap.setdefault("dynamic", functional.create_dynamic_map())


def tensors_of(model: Any) -> Iterator[tuple[str, torch.Tensor]]:
    """(part, tensor) of all that a model holds, with what belongs to quantised weights."""
    for parameter in model.parameters():
        yield ADAPTER if parameter.requires_grad else WEIGHTS, parameter
        state = getattr(parameter, "quant_state", None)
        if state is not None:
            nested = (state.state2.absmax, state.state2.code) if state.nested else ()
            for tensor in (state.absmax, state.code, state.offset, *nested):
                if tensor is not None:
                    yield WEIGHTS, tensor
    for buffer in model.buffers():
        yield WEIGHTS, buffer


def parameters_of(model: Any) -> int:
    """How many numbers a model has, also where two of them share a byte."""
    states = ((p, getattr(p, "quant_state", None)) for p in model.parameters())
    return sum(p.numel() if state is None else prod(state.shape) for p, state in states)


def shallower(config: Any, layers: int) -> Any:
    """The same base with so many layers in its language model."""
    smaller = copy.deepcopy(config)
    text = smaller.get_text_config()
    text.num_hidden_layers = layers
    for name in ("layer_types", "mlp_layer_types"):
        if getattr(text, name, None):
            setattr(text, name, getattr(text, name)[:layers])
    return smaller


@contextmanager
def whole_weights() -> Iterator[None]:
    """DoRA unpacks 4-bit weights that are no bitsandbytes class: they are fake, or have no data."""

    def unpacked(module: Any) -> Any:
        state = getattr(module.weight, "quant_state", None)
        if state is None:
            return module.weight
        from bitsandbytes import functional

        return functional.dequantize_4bit(module.weight.data, state)

    with patched(dora, dequantize_module_weight=unpacked, deepcopy=lambda module: module):
        yield


# ---- What goes through it
def fake_batch(config: Any, work: Work, card: Card) -> dict[str, Any]:
    """A batch as `collate` makes it: a picture, then text, the last tokens of which have labels."""
    tokens = torch.full((work.tokens,), 5)
    tokens[1 : 1 + work.picture] = picture_token(config)
    labels = torch.full_like(tokens, IGNORED)
    labels[work.tokens - work.labelled :] = 5
    row = {
        "input_ids": tokens,
        "attention_mask": torch.ones_like(tokens),
        "labels": labels,
        **_sight(config, work, card.dtype),
    }
    batch = collate([row] * work.rows, 0, work.labelled_only)
    batch |= positions(config, torch.arange(work.tokens), work.rows)
    # Where all of it is 1, transformers goes on without a mask. Else it makes one of this shape.
    batch.pop("attention_mask")
    if work.padded:
        shape = (work.rows, 1, work.tokens, work.tokens)
        batch["attention_mask"] = torch.ones(shape, dtype=torch.bool)
    return batch


def _sight(config: Any, work: Work, dtype: torch.dtype) -> dict[str, Any]:
    if work.cached:
        return {"features": [torch.zeros(features_shape(config, work.picture), dtype=dtype)]}
    size = config.vision_config.image_size
    return {"pixel_values": torch.zeros(1, 3, size, size)}


def positions(config: Any, places: torch.Tensor, rows: int) -> dict[str, torch.Tensor]:
    """Positions in three directions, which these bases else read from the pictures' sizes."""
    if "mrope_section" not in (getattr(config.get_text_config(), "rope_parameters", None) or {}):
        return {}
    return {"position_ids": places.expand(3, rows, -1).clone()}


class Adam8bit:
    """What bitsandbytes' AdamW8bit keeps; paged: large states lie where the driver puts them."""

    def __init__(self, parameters: list[torch.nn.Parameter], paged: bool) -> None:
        self.parameters, self.paged = parameters, paged
        self.states: dict[torch.nn.Parameter, list[torch.Tensor]] = {}

    def step(self) -> None:
        for p in self.parameters:
            if p.grad is None or p in self.states:
                continue
            kind = torch.float32 if p.numel() < FEWEST else torch.uint8
            paged = self.paged and p.numel() >= PAGED
            states = [] if paged else [torch.zeros_like(p, dtype=kind) for _ in range(2)]
            if p.numel() >= FEWEST:
                scales = -(-p.numel() // BLOCK)
                states += [torch.zeros(scales, dtype=torch.float32) for _ in range(2)]
            self.states[p] = states

    def tensors(self) -> Iterator[tuple[str, torch.Tensor]]:
        for states in self.states.values():
            for tensor in states:
                yield OPTIMISER, tensor


class Adam:
    """torch's AdamW as the Trainer makes it."""

    def __init__(self, parameters: list[torch.nn.Parameter], cuda: bool) -> None:
        self.real = torch.optim.AdamW(parameters, lr=1e-4, foreach=True if cuda else None)

    def step(self) -> None:
        self.real.step()

    def tensors(self) -> Iterator[tuple[str, torch.Tensor]]:
        for states in self.real.state.values():
            for value in states.values():
                if isinstance(value, torch.Tensor):
                    yield OPTIMISER, value
