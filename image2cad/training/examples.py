"""Samples as training examples, the batches made of them, and the order they come in.

    data = CodeDataset(samples, processor, max_length=2700)
    data.dropped                                    # rows that are too long, with their lengths
    batch = collate([data[0], data[1]], pad)

Samples are never cut. Left out: reading them (data/samples.py, data/rows.py) and training
(supervised.py).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset, Sampler

from image2cad.common import InputError
from image2cad.data import Rejected, Sample, Sizes, outlines
from image2cad.training.vision_cache import read_features
from image2cad.vlm import (
    IGNORED,
    add_code,
    encode_code,
    encode_picture,
    encoder_outputs,
    stack,
)

SORTED_TOGETHER = 50  # batches


class CodeDataset(Dataset[dict[str, torch.Tensor]]):
    """Samples as training examples, encoded when asked for.

    `max_length` is the longest sequence in tokens, BOS, picture, prompt and EOS included
    (default: the model's positions). Longer rows are in `dropped`, never cut.
    `lengths` are those of the rows that are left. With `features`, a folder of
    vision_cache.cache_features, an example carries these instead of pixels. Raises
    InputError if nothing is left.
    """

    def __init__(
        self,
        samples: Sequence[Sample],
        processor: Any,
        max_length: int | None = None,
        features: Path | None = None,
    ) -> None:
        self.samples, self.processor, self.features = samples, processor, features
        self.dropped: list[Rejected] = []
        self._heads: dict[Sizes, dict[str, torch.Tensor]] = {}
        kept, lengths = [], []
        for index, (name, sizes, code) in enumerate(outlines(samples)):
            try:
                length = len(self._head(sizes)["input_ids"]) + len(encode_code(processor, code))
            except InputError as error:
                self.dropped.append(Rejected(name, str(error)))
                continue
            if max_length is not None and length > max_length:
                self.dropped.append(Rejected(name, f"{length} tokens; the limit is {max_length}"))
                continue
            kept.append(index)
            lengths.append(length)
        self.rows, self.lengths = np.array(kept, dtype=int), np.array(lengths, dtype=int)
        if not kept:
            raise InputError(
                f"no sample left to train on of {len(samples)}; the first: "
                + (f"{self.dropped[0].id}: {self.dropped[0].reason}" if samples else "none given")
            )

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        sample = self.samples[int(self.rows[index])]
        code = encode_code(self.processor, sample.cadquery)
        if self.features is None:
            return add_code(encode_picture(self.processor, sample.pictures), code)
        pictures = [sample.image, *sample.views]
        head = self._head(tuple(picture.size for picture in pictures))
        features = [read_features(self.features, picture) for picture in pictures]
        return {**add_code(head, code), "features": features}

    def _head(self, sizes: Sizes) -> dict[str, torch.Tensor]:
        """All that `encode_picture` says of any pictures of those sizes: everything but pixels."""
        from PIL import Image

        if sizes not in self._heads:
            blank = [Image.new("RGB", size, "white") for size in sizes]
            fields = encode_picture(self.processor, blank)
            self._heads[sizes] = {k: v for k, v in fields.items() if not k.startswith("pixel")}
        return self._heads[sizes]


def collate(
    examples: Sequence[dict[str, Any]], pad: int, labelled_only: bool = True
) -> dict[str, Any]:
    """Stack examples, padded on the right to the longest; padding has no label.

    With `labelled_only` the batch says at which positions the base shall predict
    (`logits_to_keep`): those before a label of any row. The others have no loss, and
    their logits are most of the memory.
    """
    plain = [{k: v for k, v in example.items() if k != "features"} for example in examples]
    batch: dict[str, Any] = stack(plain, pad)
    if "features" in examples[0]:
        seen = [features for example in examples for features in example["features"]]
        batch["mm_encoder_outputs"] = encoder_outputs(seen)
    if labelled_only:
        batch["logits_to_keep"] = (batch["labels"][:, 1:] != IGNORED).any(0).nonzero()[:, 0]
    return batch


class LengthOrder(Sampler[int]):
    """A random order in which the rows of a batch are about equally long.

    It depends on seed and epoch alone, so a resumed run sees what the interrupted one
    would have seen. batch: rows that are padded together, over all processes.
    """

    def __init__(self, lengths: np.ndarray, batch: int, seed: int) -> None:
        self.lengths, self.batch, self.seed, self.epoch = lengths, batch, seed, 0

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __len__(self) -> int:
        return len(self.lengths)

    def __iter__(self) -> Iterator[int]:
        chance = np.random.default_rng((self.seed, self.epoch))
        order = chance.permutation(len(self.lengths))
        size = self.batch * SORTED_TOGETHER
        windows = [order[start : start + size] for start in range(0, len(order), size)]
        order = np.concatenate([w[np.argsort(-self.lengths[w], kind="stable")] for w in windows])
        whole = len(order) // self.batch * self.batch
        batches = order[:whole].reshape(-1, self.batch)
        # The rest is shorter than a batch and has to come last.
        return iter([*chance.permutation(batches).ravel().tolist(), *order[whole:].tolist()])
