"""A plan of a run: what it will need, and the settings that are chosen by what the card has.

    plan = plan_run(settings, card_here())          # settings: a recipe's, by name
    print(plan.text())
    plan.recompute, plan.rows, plan.accumulation, plan.pictures

Everything is predicted, nothing measured. Memory on a processor is within 2 % of what torch's
allocator counts (tests/test_planning.py). Times are rougher: take them times or by 1.5.
Left out: loading, the tower's own passes, and several cards that share one model.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import cache
from typing import Any, NoReturn

import numpy as np
import torch

from image2cad.common import InputError
from image2cad.training.planning.allocator import needed
from image2cad.training.planning.cards import CONTEXT, GIB, LIBRARIES, SCATTERED, Card
from image2cad.training.planning.fakes import Work
from image2cad.training.planning.steps import (
    Use,
    answers_use,
    estimated_use,
    training_use,
    validation_use,
)
from image2cad.training.planning.tracking import PARTS
from image2cad.training.supervised import Recompute, layers_for, optim_of
from image2cad.vlm import BaseFacts, base_facts, check_float16, features_shape, layer_numbers

# What is taken for granted before the data is read
ALL_ROWS = 147_289  # of GenCAD-Code's training split
PROMPT_TOKENS = 17  # beside the picture's
CODE_TOKENS = {False: 611, True: 170}  # of an average program as it is, and written shorter
GAP = int(0.9 * GIB)  # between what is in use and what the allocator has to hold, to begin with

MOST_PICTURES = 8  # answered at a time
# Bytes of a row that is kept on disk: GenCAD's picture as PNG, and its program twice.
ROW = 11_000
LIBRARIES_CUDA = 3 * GIB  # of RAM: Python and what is imported, with CUDA's


@dataclass(frozen=True)
class Wanted:
    """The settings of a recipe that a plan depends on, under the recipe's names.

    per_device_train_batch_size 0: chosen, of gradient_accumulation_steps rows a step; recompute:
    "auto", or as TrainingSettings has it, a number also as text; max_train_samples None: all.
    """

    base: str
    max_train_samples: int | None
    validation: int
    held_out: int
    compact: bool
    max_length: int
    load_in_4bit: bool
    lora_r: int
    target_modules: str
    layers_to_transform: str | None
    use_dora: bool
    image_size: int | None
    num_train_epochs: float
    per_device_train_batch_size: int
    gradient_accumulation_steps: int
    recompute: str
    cache_features: bool
    max_new_tokens: int
    merge: bool

    @property
    def features_kept(self) -> bool:
        """Whether a picture's features are computed once, and kept on disk."""
        return self.cache_features and self.num_train_epochs > 1


@dataclass(frozen=True)
class Memory:
    """Bytes of a card: in use at the peak, by part; held, with the gaps between blocks."""

    held: int
    parts: dict[str, int]

    @property
    def used(self) -> int:
        return sum(self.parts.values())


@dataclass(frozen=True)
class Plan:
    """What a run will need, and what was chosen for it.

    rows, accumulation: per_device_train_batch_size and gradient_accumulation_steps; recompute: for
    TrainingSettings; pictures: answered at a time. tokens: of the longest row; mean: of an average
    one; assumed: before the rows are read; assumed_picture: tokens that a picture was taken to be
    where no one says it, else 0. training, validation, answers: memory of the card, without CUDA's
    context. download, disk, ram: bytes; hours, answer_hours: None where the speed is not known.
    """

    wanted: Wanted
    card: Card
    parameters: int
    trained: int
    layers: int
    rows: int
    accumulation: int
    recompute: Recompute
    pictures: int
    tokens: int
    mean: int
    assumed: bool
    assumed_picture: int
    training: Memory
    validation: Memory
    answers: Memory
    samples: int
    processes: int
    download: int
    disk: int
    ram: int
    hours: float | None
    answer_hours: float | None

    @property
    def peak(self) -> int:
        """Bytes of the card at the worst moment of the run, CUDA's context included."""
        held = max(self.training.held, self.validation.held, self.answers.held)
        return held + (CONTEXT if self.card.cuda else 0)

    def steps_of(self, samples: int) -> int:
        """Optimiser steps of a run over so many rows, as transformers' Trainer counts them.

        The last pass and the last step of an epoch may be smaller than the others.
        """
        passes = math.ceil(samples / (self.rows * self.processes))
        an_epoch = max(math.ceil(passes / self.accumulation), 1)
        return math.ceil(self.wanted.num_train_epochs * an_epoch)

    @property
    def steps(self) -> int:
        return self.steps_of(self.samples)

    def text(self) -> str:
        """The plan for people, a line a matter."""
        return _text(self)


def plan_run(
    settings: Mapping[str, Any],
    card: Card,
    lengths: Sequence[int] | np.ndarray | None = None,
    processes: int = 1,
    longest_validated: int = 0,
    begun: int = 0,
) -> Plan:
    """Plan a run of a recipe on a card.

    settings: the recipe's by name, of which those of `Wanted` are read; lengths: tokens of the
    rows to train on, once they are known; processes: cards, each with the whole model;
    longest_validated: tokens of the longest row to validate on, counted where it is longer than
    those; begun: rows a pass of the run that goes on, which are not chosen anew. Raises InputError
    where the base is not known, and where the run cannot fit, saying what to change.
    """
    wanted = Wanted(**{field.name: settings[field.name] for field in fields(Wanted)})
    wanted = replace(wanted, recompute=str(wanted.recompute))  # in a cell a number may be bare
    facts = base_facts(wanted.base, wanted.image_size)
    if card.dtype == torch.float16:
        check_float16(facts.config.model_type)
    maker = _Maker(wanted, facts, card, processes, begun)
    head = facts.picture_tokens + PROMPT_TOKENS
    longest = int(max(lengths)) if lengths is not None else wanted.max_length
    guess = min(head + CODE_TOKENS[wanted.compact], longest)
    mean = round(float(np.mean(lengths))) if lengths is not None else guess
    if longest <= head + 1:
        raise InputError(
            f"--max-length is {wanted.max_length}, and picture and prompt alone are {head} tokens"
        )
    known_ways = ("auto", "nothing", "language", "everything")
    if wanted.recompute not in known_ways and not wanted.recompute.isdecimal():
        raise InputError(
            f"--recompute is {', '.join(known_ways)} or a number of layers, "
            f"not {wanted.recompute!r}"
        )
    rows, accumulation = maker.rows(longest, mean)
    recompute, training = maker.recomputation(longest, mean, rows)
    pictures, answers = maker.pictures(head)
    validation = maker.validation(max(longest, longest_validated), rows)
    samples = len(lengths) if lengths is not None else wanted.max_train_samples or ALL_ROWS
    passes = samples * wanted.num_train_epochs
    known = card.half > 0
    seconds = maker.seconds(mean, rows, recompute) if known else 0.0
    one = maker.answering(head, pictures)
    download = 0 if facts.local else 2 * (one.parameters - one.trained)
    features = 0
    if wanted.features_kept:
        picture = math.prod(features_shape(facts.config, facts.picture_tokens))
        features = picture * card.dtype.itemsize * (samples + wanted.validation)
    kept = ROW * (samples + wanted.validation + wanted.held_out)
    merged = 2 * (one.parameters - one.trained) if wanted.merge else 0
    adapter = 4 * one.trained
    checkpoints = 2 * (adapter + one.trained * (2 if card.cuda else 8))
    batches = 2 * math.ceil(wanted.held_out / pictures)  # before and after
    return Plan(
        wanted, card, one.parameters, one.trained, maker.layers, rows, accumulation, recompute,
        pictures, longest, mean, lengths is None,
        facts.picture_tokens if facts.assumed else 0, training, validation, answers, samples,
        processes=processes,
        download=download,
        disk=download + kept + features + adapter + checkpoints + merged,
        ram=_ram(card, max(training.used, answers.used), one),
        hours=passes * seconds / processes / 3600 if known else None,
        answer_hours=batches * wanted.max_new_tokens * one.seconds / 3600 if known else None,
    )  # fmt: skip


# ---- Choosing
class _Maker:
    """What several choices ask for, computed once: uses of cards by length, rows and layers."""

    def __init__(
        self, wanted: Wanted, facts: BaseFacts, card: Card, processes: int, begun: int
    ) -> None:
        self.wanted, self.facts, self.card = wanted, facts, card
        self.processes, self.begun = processes, begun
        self.layers = int(facts.config.get_text_config().num_hidden_layers)
        chosen = wanted.layers_to_transform
        # Below the first layer that is trained nothing is kept, and nothing recomputed.
        self.below = layer_numbers(chosen, self.layers)[0] if chosen is not None else 0
        self.gap = GAP if card.cuda else 0
        self.training = cache(self._training)
        self.answering = cache(self._answering)

    def work(self, tokens: int, rows: int, recompute: Recompute) -> Work:
        picture = self.facts.picture_tokens
        return Work(
            tokens,
            max(tokens - picture - PROMPT_TOKENS, 1),
            picture,
            rows,
            load_in_4bit=self.wanted.load_in_4bit,
            r=self.wanted.lora_r,
            use_dora=self.wanted.use_dora,
            target_modules=self.wanted.target_modules,
            layers_to_transform=self.wanted.layers_to_transform,
            optim=optim_of("paged_adamw_8bit" if self.card.cuda else "adamw_torch", self.processes),
            recompute=recompute,
            accumulated=True,
            padded=rows > 1,
            processes=self.processes,
        )

    def _training(self, tokens: int, rows: int, recompute: str) -> Use:
        work = self.work(tokens, rows, recompute)
        return estimated_use(training_use, self.facts.config, work, self.card)

    def mixed(self, tokens: int, rows: int, recomputed: int, of: Callable[[Use], float]) -> float:
        """Between a pass that recomputes all layers and one that recomputes none, in a line."""
        share = self.share(recomputed)
        found = 0.0
        if share > 0:
            found += share * of(self.training(tokens, rows, "language"))
        if share < 1:
            found += (1 - share) * of(self.training(tokens, rows, "nothing"))
        return found

    def bound(self, tokens: int, rows: int, recomputed: int, grid: Sequence[int]) -> float:
        """Bytes in use at the peak, at most.

        Linear between the lengths of a grid and between all layers and none: both are chords of
        convex functions.
        """

        def at(length: int) -> float:
            return self.mixed(length, rows, recomputed, lambda use: use.peak)

        after = bisect_left(grid, tokens)
        if after == 0 or after == len(grid) or grid[after] == tokens:
            return at(grid[min(after, len(grid) - 1)])
        a, b = grid[after - 1], grid[after]
        return at(a) + (at(b) - at(a)) * (tokens - a) / (b - a)

    def share(self, recomputed: int) -> float:
        """Of the layers that keep activations, those that are among the first so many."""
        return min(max((recomputed - self.below) / (self.layers - self.below), 0.0), 1.0)

    def grid(self, longest: int, mean: int) -> tuple[int, ...]:
        """Lengths between which memory is taken for linear; a processor's is asked for one only."""
        if not self.card.cuda:
            return (longest,)
        return tuple(sorted({min(mean, longest), max(longest // 2, mean), longest}))

    def recomputation(self, longest: int, mean: int, rows: int) -> tuple[Recompute, Memory]:
        """How many layers are recomputed at which length, and what the longest pass then needs."""
        asked = self.wanted.recompute
        if asked != "auto":
            how: Recompute = int(asked) if asked.isdecimal() else asked
            return how, self.checked(longest, mean, rows, how)
        grid, usable = self.grid(longest, mean), self.card.usable

        def least(tokens: int) -> int:
            return next(
                (
                    n
                    for n in range(self.layers)
                    if self.bound(tokens, rows, n, grid) + self.gap <= usable
                ),
                self.layers,
            )

        most = least(longest)
        if most == self.layers:
            memory = self.checked(longest, mean, rows, "language")
        else:
            # Blocks come to lie otherwise with every number of layers: look before it is used.
            for _ in range(self.layers):
                use = self.whole(longest, rows, most)
                held = needed(use.events) if self.card.cuda else use.peak
                if held <= usable or most == self.layers:
                    break
                self.gap += held - usable
                most = max(least(longest), most + 1, self.below + 1)
            memory = self.judged(longest, mean, rows, most, held, use)
        if most == 0:
            return "nothing", memory
        if len(grid) == 1:
            return most, memory
        step = max(self.layers // 8, 1)
        pairs: list[tuple[int, int]] = []
        for n in [*range(0, most, step), most]:
            reach = longest if n == most else self.reach(rows, n, grid)
            if reach >= grid[0] and (not pairs or reach * rows > pairs[-1][0]):
                pairs.append((reach * rows, n))
        return tuple(pairs), memory

    def reach(self, rows: int, recomputed: int, grid: Sequence[int]) -> int:
        """The longest row that fits with so many layers recomputed; 0: none of the grid's."""
        low, high = 0, grid[-1] + 1
        while high - low > 1:
            middle = (low + high) // 2
            fits = self.bound(middle, rows, recomputed, grid) + self.gap <= self.card.usable
            low, high = (middle, high) if fits else (low, middle)
        return low if low >= grid[0] else 0

    def whole(self, tokens: int, rows: int, recompute: Recompute) -> Use:
        return training_use(self.facts.config, self.work(tokens, rows, recompute), self.card)

    def checked(self, longest: int, mean: int, rows: int, recompute: Recompute) -> Memory:
        """What a pass needs. Raises InputError if it is more than the card has."""
        use = self.whole(longest, rows, recompute)
        held = needed(use.events) if self.card.cuda else use.peak
        return self.judged(longest, mean, rows, recompute, held, use)

    def judged(
        self, longest: int, mean: int, rows: int, recompute: Recompute, held: int, use: Use
    ) -> Memory:
        """What a pass was found to need. Raises InputError if it is more than the card has."""
        if held > self.card.most:
            shorter = self.grid(longest, mean)
            raise InputError(self.refusal(longest, rows, recompute, held, use, shorter))
        return Memory(held, use.parts)

    def refusal(
        self,
        longest: int,
        rows: int,
        recompute: Recompute,
        held: int,
        use: Use,
        grid: Sequence[int],
    ) -> str:
        """That the longest pass does not fit, and what to change."""
        card, has = self.card, self.card.memory / GIB
        first = (
            f"{self.wanted.base} would need about {(held + card.beside) / GIB:.1f} of the "
            f"{has:.1f} GiB of this {card.name} (predicted)"
        )
        if use.weights > card.most:
            other = "" if self.wanted.load_in_4bit else "--load-in-4bit, "
            return f"{first}, its weights alone {use.weights / GIB:.1f}: {other}a smaller --base"
        advice = []
        if recompute not in ("language", "everything", self.layers):
            advice.append("--recompute auto")
        if rows > 1 and not self.begun:
            advice.append("--per-device-train-batch-size 0")
        if not self.wanted.load_in_4bit:
            advice.append("--load-in-4bit")
        if not advice:
            self.gap = held - use.peak
            shorter = self.reach(1, self.layers, grid) // 50 * 50
            head = self.facts.picture_tokens + PROMPT_TOKENS
            advice = [f"--max-length {shorter}"] if shorter > head else ["a smaller --base"]
        return f"{first} for a row of {longest} tokens: say {' and '.join(advice)}"

    def refuse(self, what: str, held: int, advice: str) -> NoReturn:
        raise InputError(
            f"{what} would need about {(held + self.card.beside) / GIB:.1f} of the "
            f"{self.card.memory / GIB:.1f} GiB of this {self.card.name} (predicted): {advice}"
        )

    def rows(self, longest: int, mean: int) -> tuple[int, int]:
        """Rows a pass, passes a step: what takes least time of what fits without recomputation."""
        asked = self.wanted.per_device_train_batch_size
        passes = self.wanted.gradient_accumulation_steps
        if asked:
            return asked, passes
        if self.begun:
            return self.begun, passes // self.begun
        use = self.training(longest, 1, "nothing")
        fitting = [
            rows
            for rows in (1, 2, 4, 8, 16)
            if passes % rows == 0
            and use.weights + rows * (use.peak - use.weights) + self.gap <= self.card.usable
        ] or [1]
        if not self.card.half:  # of unknown speed: as many as fit
            return fitting[-1], passes // fitting[-1]
        best, quickest = 1, math.inf
        for rows in fitting:
            seconds = self.training(mean, rows, "nothing").seconds / rows
            if seconds > 0.98 * quickest:  # more rows a pass are also more padding
                break
            best, quickest = rows, seconds
        return best, passes // best

    def seconds(self, tokens: int, rows: int, recompute: Recompute) -> float:
        """Of one row of so many tokens in training."""
        n = recompute
        if isinstance(n, tuple):
            n = min(layers_for(n, tokens * rows), self.layers)
        if isinstance(n, str):
            n = 0 if n == "nothing" else self.layers
        return self.mixed(tokens, rows, n, lambda use: use.seconds) / rows

    def _answering(self, head: int, pictures: int) -> Use:
        new = self.wanted.max_new_tokens
        work = replace(self.work(head + new, pictures, "nothing"), labelled=new, padded=False)
        return estimated_use(answers_use, self.facts.config, work, self.card)

    def pictures(self, head: int) -> tuple[int, Memory]:
        """Pictures answered at a time, as many as fit. Raises InputError if not even one does."""
        count = MOST_PICTURES
        while True:
            use = self.answering(head, count)
            # Growing keys and values move to new blocks at every token.
            held = use.peak + (use.peak - use.weights) // 8 + self.gap // 4
            if held <= self.card.usable or count == 1:
                break
            count //= 2
        if held > self.card.most:
            self.refuse(
                f"answers of {self.wanted.max_new_tokens} tokens", held, "lower --max-new-tokens"
            )
        return count, Memory(held, use.parts)

    def validation(self, longest: int, rows: int) -> Memory:
        work = replace(self.work(longest, rows, "nothing"), accumulated=False)
        use = estimated_use(validation_use, self.facts.config, work, self.card)
        if self.wanted.validation and use.peak > self.card.most:  # gaps are but guessed here
            fewer = "--per-device-train-batch-size 1" if rows > 1 else "a lower --max-length"
            self.refuse(f"validation of a row of {longest} tokens", use.peak, f"say {fewer}")
        return Memory(use.peak + self.gap, use.parts)


def _ram(card: Card, used: int, use: Use) -> int:
    """Bytes of RAM, about. Shards of weights are mapped; what is read of them can be dropped."""
    if card.cuda:
        return LIBRARIES_CUDA
    return LIBRARIES + int(used * SCATTERED)


# ---- Saying it
def _text(plan: Plan) -> str:
    card, wanted = plan.card, plan.wanted
    said = f"predicted for {wanted.base} on {card.name}, {card.memory / GIB:.1f} GiB; not measured"
    model = f"{plan.parameters / 1e6:,.0f} M parameters, {plan.trained / 1e6:.1f} M trained"
    lines = [f"{said}: {model}"]
    context = CONTEXT if card.cuda else 0
    moments = {
        "training": plan.training,
        "validation": plan.validation,
        f"answers, {plan.pictures} at a time": plan.answers,
    }
    for name, memory in moments.items():
        parts = [f"{part} {_size(memory.parts.get(part, 0))}" for part in PARTS]
        rest = memory.held - memory.used
        more = f", gaps {_size(rest)}, CUDA {_size(context)}" if card.cuda else ""
        lines.append(f"  {name}: {_size(memory.held + context)} GiB ({', '.join(parts)}{more})")
    fullest = max(moments, key=lambda name: moments[name].held)
    if moments[fullest].held > card.usable:
        why = "" if card.cuda else f", as up to {SCATTERED} times its tensors may be taken"
        lines.append(
            f"  it may not fit: {_size(card.usable + context)} GiB are surely usable{why}, "
            f"and {fullest} needs {_size(moments[fullest].held + context)}"
        )
    lines.append(f"  {plan.rows} x {plan.accumulation} rows a step; {_recomputed(plan)}")
    about = "assumed " if plan.assumed else ""
    passed = plan.samples * plan.mean / 1e6
    lines.append(
        f"  {plan.steps} steps; {plan.samples} rows of {about}{plan.mean} tokens on average, "
        f"{plan.tokens} at most: {passed:.2f} M tokens an epoch"
    )
    if plan.assumed_picture:
        lines.append(
            f"  a picture is assumed to be {plan.assumed_picture} tokens: "
            "the base's config does not say how many"
        )
    if not wanted.features_kept:
        lines.append("  no features are kept, and what the tower needs for them is not counted")
    lines.append(
        f"  download {plan.download / 1e9:.1f} GB, disk {plan.disk / 1e9:.1f} GB, "
        f"RAM about {plan.ram / GIB:.1f} GiB"
    )
    if plan.hours is not None and plan.answer_hours is not None:
        like = f", taken to be as fast as {card.as_fast_as}" if card.as_fast_as else ""
        lines.append(
            f"  about {_time(plan.hours)} of training (times or by 1.5{like}), "
            f"{_time(plan.answer_hours)} of answers at most"
        )
    return "\n".join(lines)


def _recomputed(plan: Plan) -> str:
    how = plan.recompute
    if isinstance(how, int):
        return f"{how} of {plan.layers} layers recomputed"
    if isinstance(how, str):
        return {"nothing": "nothing recomputed", "language": "all layers recomputed"}.get(how, how)
    words = [f"{layers or 'none'} up to {tokens:,} tokens" for tokens, layers in how]
    return f"of {plan.layers} layers recomputed: {', '.join(words)} a pass"


def _size(size: float) -> str:
    return f"{size / GIB:.2f}"


def _time(hours: float) -> str:
    return f"{hours:.1f} h" if hours >= 1 else f"{math.ceil(hours * 60)} min"
