"""One training pass and step, one validation and one batch of answers, on fake tensors.

    use = training_use(config, work, card)          # use.peak, use.parts, use.seconds
    use = estimated_use(training_use, config, work, card)       # the same, of two shallow models

The project's own pieces run: its LoRA, its batch, its loss, its recomputation, under the autocast
of the Trainer. Every place's peak is linear in the number of layers, so two shallow models tell
those of a deep one (`estimated_use`); how the allocator's blocks come to lie takes the whole model.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from operator import attrgetter
from typing import Any

import torch
from accelerate.utils.operations import convert_outputs_to_fp32
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._pytree import tree_map
from transformers import DynamicCache

from image2cad.training.planning.cards import Card
from image2cad.training.planning.cuda_manners import cuda_manners
from image2cad.training.planning.fakes import (
    Adam,
    Adam8bit,
    Work,
    fake_batch,
    fake_model,
    parameters_of,
    positions,
    real_tables,
    shallower,
    tensors_of,
    whole_weights,
)
from image2cad.training.planning.tracking import (
    ACTIVATIONS,
    ADAPTER,
    PARTS,
    TEMPORARIES,
    Tracker,
)
from image2cad.training.supervised import as_trained, labelled_loss, recompute_activations
from image2cad.vlm import language_model, layer_numbers

FEW = 2  # layers of the shallower of two models


@dataclass(frozen=True)
class Use:
    """What one pass, with its step, needs.

    peaks: {place: (bytes, {part: bytes})}; weights: bytes before anything runs, adapter included;
    seconds, flops, operations: of the pass and the step; parameters, trained: numbers of the model;
    events: allocations for `allocator.replay`, none where it was carried on.
    """

    peaks: dict[str, tuple[int, dict[str, int]]]
    weights: int
    seconds: float
    flops: float
    parameters: int
    trained: int
    operations: int
    events: list[tuple[int, int]]

    @property
    def place(self) -> str:
        return max(self.peaks, key=lambda place: self.peaks[place][0])

    @property
    def peak(self) -> int:
        return self.peaks[self.place][0]

    @property
    def parts(self) -> dict[str, int]:
        return self.peaks[self.place][1]


def training_use(config: Any, work: Work, card: Card) -> Use:
    """Of a forward and backward pass and the optimiser's step that follows."""
    with _watched(config, work, card, fake_batch(config, work, card)) as (model, tracker, batch):
        model.train()
        recompute_activations(model, work.recompute)
        optimiser = _with_states(model, work, card, tracker)
        trained = [p for p in model.parameters() if p.requires_grad]
        buckets = _buckets(trained, work, tracker)
        if work.accumulated:
            for p in trained:
                p.grad = torch.zeros_like(p)
                tracker.rename(p.grad, ADAPTER)
        with _follow(model, tracker):
            tracker.begin()
            loss = _loss(model, batch, work, card, tracker)
            del batch
            with tracker.at("backward", TEMPORARIES):
                if card.dtype == torch.float16:
                    loss = loss * torch.full((), 65536.0)
                loss.backward()
                del loss
        for p in trained:
            if p.grad is not None:
                tracker.rename(p.grad, ADAPTER)
        with tracker.at("optimiser", TEMPORARIES), torch.no_grad():
            torch.nn.utils.clip_grad_norm_(trained, 1.0, foreach=True if card.cuda else None)
            optimiser.step()
        del buckets
        return _use(model, tracker)


def validation_use(config: Any, work: Work, card: Card) -> Use:
    """Of the loss of one batch, without gradients, between two steps of training."""
    batch = fake_batch(config, work, card)
    with _watched(config, work, card, batch) as (model, tracker, batch):
        kept = _with_states(model, work, card, tracker)
        trained = [p for p in model.parameters() if p.requires_grad]
        buckets = _buckets(trained, work, tracker)
        model.eval()
        tracker.begin()
        with torch.no_grad():
            _loss(model, batch, work, card, tracker)
        del kept, buckets
        return _use(model, tracker)


def answers_use(config: Any, work: Work, card: Card) -> Use:
    """Of `work.rows` pictures answered with `work.labelled` new tokens each, at the last of these.

    seconds, operations: of one new token for all of them. The prompt is what is left of
    `work.tokens`; its pass is looked at too.
    """
    prompt = replace(work, tokens=work.tokens - work.labelled, labelled=1, labelled_only=False)
    given = fake_batch(config, prompt, card)
    with _watched(config, work, card, given) as (model, tracker, given), torch.no_grad():
        model.eval()
        given.pop("labels")
        tracker.begin()
        with tracker.at("prompt", ACTIVATIONS):
            out = model(**given, logits_to_keep=1, use_cache=True)
        del out, given
        with tracker.at("answer", ACTIVATIONS):
            past = _filled_cache(model, work, card)
            tracker.start_clock()
            ids = torch.zeros(work.rows, 1, dtype=torch.long)
            places = positions(config, ids[0], work.rows)
            model(input_ids=ids, past_key_values=past, use_cache=True, logits_to_keep=1, **places)
        return _use(model, tracker)


def estimated_use(
    use_of: Callable[[Any, Work, Card], Use], config: Any, work: Work, card: Card
) -> Use:
    """The use of a deep base, carried on from shallow ones: exact but for fragments.

    Every kind of layer has a line of its own: below the first that is trained, trained, and others
    (`work.layers_to_transform`; where these lie among each other is not looked at).
    """
    layers = config.get_text_config().num_hidden_layers
    if layers <= FEW + 1:
        return use_of(config, work, card)
    kept = 0
    if isinstance(work.recompute, int):
        kept = layers - min(work.recompute, layers)
        if 0 < kept < layers:
            raise ValueError("estimated_use takes recomputation of all layers or of none")
        work = replace(work, recompute="nothing" if kept else "language")
    counts = _kinds(work.layers_to_transform, layers)
    few = tuple(min(count, FEW) for count in counts)
    first = _shallow(use_of, config, work, card, few)
    more = {
        kind: _shallow(use_of, config, work, card, (*few[:kind], FEW + 1, *few[kind + 1 :]))
        for kind, count in enumerate(counts)
        if count > FEW
    }

    def line(of: Callable[[Use], Any]) -> Any:
        at_first = of(first)
        return at_first + sum((counts[k] - FEW) * (of(use) - at_first) for k, use in more.items())

    def peak(place: str) -> tuple[int, dict[str, int]]:
        def of(part: str) -> int:
            return line(lambda use: use.peaks[place][1].get(part, 0))

        parts = {part: size for part in PARTS if (size := of(part))}
        return line(lambda use: use.peaks[place][0]), parts

    return Use(
        peaks={
            place: peak(place)
            for place in first.peaks
            if all(place in use.peaks for use in more.values())
        },
        events=[],
        **{
            name: line(attrgetter(name))
            for name in ("weights", "seconds", "flops", "parameters", "trained", "operations")
        },
    )


def _kinds(layers_to_transform: str | None, layers: int) -> tuple[int, int, int]:
    """How many layers lie below the first that is trained, are trained, and do neither."""
    if layers_to_transform is None:
        return 0, layers, 0
    trained = layer_numbers(layers_to_transform, layers)
    return trained[0], len(trained), layers - trained[0] - len(trained)


def _shallow(
    use_of: Callable[[Any, Work, Card], Use],
    config: Any,
    work: Work,
    card: Card,
    counts: tuple[int, ...],
) -> Use:
    below, trained, others = counts
    if work.layers_to_transform is not None:
        work = replace(work, layers_to_transform=f"{below}-{below + trained - 1}")
    return use_of(shallower(config, below + trained + others), work, card)


# ---- Pieces
@contextmanager
def _watched(
    config: Any, work: Work, card: Card, batch: dict[str, Any]
) -> Iterator[tuple[Any, Tracker, dict[str, Any]]]:
    """A model and the batch, fake, and all that happens to them inside watched."""
    if work.load_in_4bit:
        real_tables()
    mode = FakeTensorMode(allow_non_fake_inputs=True)
    model = fake_model(config, work, card, mode)
    vocabulary = config.get_text_config().vocab_size
    tracker = Tracker(card, vocabulary, work.labelled, work.picture * work.rows)
    with ExitStack() as stack:
        stack.enter_context(mode)
        stack.enter_context(whole_weights())
        stack.enter_context(cuda_manners(card))
        for part, tensor in tensors_of(model):
            tracker.add(tensor, part)
        tracker.weights = tracker.now
        batch = _moved(batch, mode, tracker)
        stack.enter_context(tracker)
        yield model, tracker, batch


def _use(model: Any, tracker: Tracker) -> Use:
    return Use(
        peaks=dict(tracker.peaks),
        weights=tracker.weights,
        seconds=tracker.time,
        flops=tracker.flops,
        parameters=parameters_of(model),
        trained=sum(p.numel() for p in model.parameters() if p.requires_grad),
        operations=tracker.operations,
        events=list(tracker.events),
    )


def _moved(batch: dict[str, Any], mode: FakeTensorMode, tracker: Tracker) -> dict[str, Any]:
    """A batch as fake tensors, counted as activations."""

    def move(value: Any) -> Any:
        if not isinstance(value, torch.Tensor):
            return value
        fake = mode.from_tensor(value)
        tracker.add(fake, ACTIVATIONS)
        return fake

    return {name: tree_map(move, value) for name, value in batch.items()}


def _loss(model: Any, batch: dict[str, Any], work: Work, card: Card, tracker: Tracker) -> Any:
    """As the Trainer takes it: the forward pass under autocast, what comes out in float32."""
    labels = batch.pop("labels")
    with tracker.at("forward", ACTIVATIONS):
        with as_trained(model, card.dtype, work.loss_in_chunks) as head:
            forward = model.forward
            if card.dtype != torch.float32:
                cast = torch.autocast("cpu", dtype=card.dtype)
                forward = convert_outputs_to_fp32(cast(model.forward))
            outputs = forward(**batch)
            batch.clear()
        with tracker.at("loss", ACTIVATIONS):
            return labelled_loss(outputs, labels, work.labelled * work.rows, head=head)


def _with_states(model: Any, work: Work, card: Card, tracker: Tracker) -> Any:
    """An optimiser that has made a step already."""
    trained = [p for p in model.parameters() if p.requires_grad]
    paged = work.optim.startswith("paged_")
    eight_bit = work.optim.endswith("_8bit")
    optimiser: Any = Adam8bit(trained, paged) if eight_bit else Adam(trained, card.cuda)
    for p in trained:
        p.grad = torch.zeros_like(p)
    with torch.no_grad():
        optimiser.step()
    for p in trained:
        p.grad = None
    for part, tensor in optimiser.tensors():
        tracker.rename(tensor, part)
    return optimiser


def _buckets(trained: list[torch.nn.Parameter], work: Work, tracker: Tracker) -> list[torch.Tensor]:
    """What DistributedDataParallel copies gradients to, to add up those of all processes."""
    if work.processes == 1:
        return []
    buckets = [torch.zeros_like(p, requires_grad=False) for p in trained]
    for bucket in buckets:
        tracker.rename(bucket, ADAPTER)
    return buckets


@contextmanager
def _follow(model: Any, tracker: Tracker) -> Iterator[None]:
    """Peaks in a layer, and in one that is made again, are kept apart: each is linear in layers."""
    kept = []
    for module in model.modules():
        inner = module.__dict__.get("_gradient_checkpointing_func")
        if inner is not None:
            kept.append((module, inner))
            module._gradient_checkpointing_func = _marked(inner, tracker)
    try:
        yield
    finally:
        for module, inner in kept:
            module._gradient_checkpointing_func = inner


def _marked(inner: Callable[..., Any], tracker: Tracker) -> Callable[..., Any]:
    def checkpointed(function: Callable[..., Any], *args: Any) -> Any:
        def marked(*given: Any) -> Any:
            again = tracker.place == "backward"
            place = "a layer made again" if again else "a layer that keeps nothing"
            with tracker.at(place, TEMPORARIES if again else ACTIVATIONS):
                return function(*given)

        return inner(marked, *args)

    return checkpointed


def _filled_cache(model: Any, work: Work, card: Card) -> Any:
    """Keys and values of all but the last token of the answers."""
    text = language_model(model).config
    past = DynamicCache(config=text)
    heads = text.num_key_value_heads
    width = getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads
    for layer in range(text.num_hidden_layers):
        shape = (work.rows, heads, work.tokens - 1, width)
        past.update(
            torch.zeros(shape, dtype=card.dtype), torch.zeros(shape, dtype=card.dtype), layer
        )
    return past
