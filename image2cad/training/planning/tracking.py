"""Watches every operation on fake tensors: bytes in use by kind, the peak, the work done.

    with FakeTensorMode() as mode, Tracker(card, vocabulary) as tracker:
        ...
    tracker.peaks                                     # {place: (bytes, {part: bytes})}

A fake tensor has shape, type and the size of its storage, and no data. A storage is counted from
the operation that makes it until Python lets go of it. Left out: what a step is (steps.py), and
how the allocator places what is counted here (allocator.py).
"""

from __future__ import annotations

import weakref
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from math import prod
from typing import Any

import torch
from torch._subclasses.fake_tensor import FakeTensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from image2cad.training.planning.allocator import block_bytes
from image2cad.training.planning.cards import PER_OPERATOR, Card

_aten = torch.ops.aten

# What a byte belongs to
WEIGHTS, ADAPTER, OPTIMISER = "weights", "adapter", "optimiser"
ACTIVATIONS, TEMPORARIES, LOGITS = "activations", "temporaries", "logits and loss"
PARTS = (WEIGHTS, ADAPTER, OPTIMISER, ACTIVATIONS, TEMPORARIES, LOGITS)

# Operations that make no kernel run.
_VIEWS = {
    getattr(_aten, name)
    for name in (
        "view", "t", "transpose", "expand", "slice", "unsqueeze", "squeeze", "detach", "alias",
        "select", "permute", "_unsafe_view", "split", "unbind", "as_strided", "reshape", "empty",
        "empty_like", "lift_fresh", "new_empty",
    )
}  # fmt: skip
FEW_ROWS = 128  # up to so many, bitsandbytes multiplies 4-bit weights without unpacking them first


class Tracker(TorchDispatchMode):
    """Bytes of live storages by part, and the work of every operation.

    card: whose rounding, workspaces and speed count. vocabulary: by which logits are known.
    kept: how many columns of labels are used, and seen: how many tokens are of pictures, the shapes
    that depend on data.
    """

    def __init__(self, card: Card, vocabulary: int, kept: int = 0, seen: int = 0) -> None:
        super().__init__()
        self.card, self.vocabulary, self.kept, self.seen = card, vocabulary, kept, seen
        self.part = ACTIVATIONS  # of what is made from now on
        self.place = "set-up"
        self.now = self.weights = 0
        self.by: dict[str, int] = defaultdict(int)
        self.peaks: dict[str, tuple[int, dict[str, int]]] = {}
        self.events: list[tuple[int, int]] = []
        self.flops = self.seconds = 0.0
        self.operations = 0
        self._live: dict[int, tuple[int, str]] = {}  # number: bytes, part
        self._numbers: dict[int, int] = {}  # id of a storage: number
        self._references: dict[int, Any] = {}
        self._last = 0

    # ---- Storages
    def add(self, tensor: torch.Tensor, part: str) -> None:
        """Count a tensor's storage from now on, unless it is counted already."""
        if not isinstance(tensor, FakeTensor):
            return
        storage = tensor.untyped_storage()
        key, size = id(storage), storage.nbytes()
        if size == 0 or key in self._numbers:
            return
        self._last += 1
        number = self._last
        taken = block_bytes(size) if self.card.cuda else size
        self._numbers[key] = number
        self._live[number] = (taken, part)
        self._references[number] = weakref.ref(storage, lambda _: self._gone(number, key))
        self.now += taken
        self.by[part] += taken
        self.events.append((number, size))

    def _gone(self, number: int, key: int) -> None:
        taken, part = self._live.pop(number)
        if self._numbers.get(key) == number:
            del self._numbers[key]
        del self._references[number]
        self.now -= taken
        self.by[part] -= taken
        self.events.append((number, 0))

    def rename(self, tensor: torch.Tensor, part: str) -> None:
        """Count a tensor under another part."""
        number = self._numbers.get(id(tensor.untyped_storage()))
        if number is None:
            self.add(tensor, part)
            return
        taken, old = self._live[number]
        self._live[number] = (taken, part)
        self.by[old] -= taken
        self.by[part] += taken

    @contextmanager
    def at(self, place: str, part: str) -> Iterator[None]:
        """What is made inside belongs to `part`; peaks inside are kept under `place`."""
        before = self.place, self.part
        self.place, self.part = place, part
        try:
            yield
        finally:
            self.place, self.part = before

    def _look(self, name: str, extra: int, part: str) -> None:
        """Is this a peak? extra: bytes that the operation needs while it runs."""
        if extra:
            self._last += 1
            self.events += [(self._last, extra), (self._last, 0)]
        total, key = self.now + extra, f"{self.place}: {name}"
        if total > self.peaks.get(key, (0, {}))[0]:
            parts = dict(self.by)
            if extra:
                parts[part] = parts.get(part, 0) + extra
            self.peaks[key] = (total, parts)

    # ---- Operations
    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        packet = func._overloadpacket
        if packet is torch.ops.prim.device:  # asked of every fake tensor by the autograd engine
            return func(*args, **kwargs)
        if packet is _aten._local_scalar_dense:
            return args[0].dtype == torch.bool or 1  # what data would say of checks and counts
        if packet is _aten.index:
            args = (args[0], self._counted(args[1]))
        elif packet in (_aten.index_put, _aten.index_put_):
            args = (args[0], self._counted(args[1]), *args[2:])
        out = func(*args, **kwargs)
        ins, outs = list(_tensors((args, tuple(kwargs.values())))), list(_tensors(out))
        before = self._last
        for tensor in outs:
            wide = tensor.dim() > 1 and tensor.shape[-1] == self.vocabulary
            self.add(tensor, LOGITS if wide and self.place != "set-up" else self.part)
        self.operations += 1
        new = self._last > before
        extra = _workspace(packet, args, self.card)
        self._look(str(packet), extra, TEMPORARIES)
        self._count(func, args, kwargs, out, ins, outs, new)
        return out

    def begin(self) -> None:
        """Count work and peaks from here on."""
        self.peaks.clear()
        self.start_clock()

    def start_clock(self) -> None:
        self.flops, self.seconds, self.operations = 0.0, 0.0, 0

    def _counted(self, indices: Any) -> list[Any]:
        """A mask as an index of as many columns as hold a label, or of as many tokens as are seen.

        The mask of labels has one dimension, that of pictures rows and columns.
        """
        found: list[Any] = []
        for index in indices:
            if isinstance(index, torch.Tensor) and index.dtype == torch.bool:
                count = self.kept if index.dim() == 1 else self.seen
                one = torch.empty(count, dtype=torch.long, device=index.device)
                found += [one] * index.dim()
            else:
                found.append(index)
        return found

    def _count(
        self, func: Any, args: Any, kwargs: Any, out: Any, ins: Any, outs: Any, new: bool
    ) -> None:
        packet = func._overloadpacket
        kind, flops = "", 0
        if packet in flop_registry:
            flops = flop_registry[packet](*args, **kwargs, out_val=out)
            kind = "attention" if "attention" in str(packet) else "matrices"
        elif packet is _gemm_4bit():
            rows, size = args[0].numel() // args[0].shape[-1], prod(args[2])
            kind, flops = "matrices", 2 * rows * size
            if rows > FEW_ROWS:
                unpacked = size // 2 + size * args[0].dtype.itemsize
                self.seconds += self.card.seconds("", 0, unpacked, args[0].dtype)
        elif packet in _VIEWS or not (new or func._schema.is_mutable):
            return
        tensors = {id(t): t for t in (*ins, *outs)}.values()
        moved = sum(t.numel() * t.element_size() for t in tensors)
        if packet is _aten.embedding or packet is _aten.index:
            moved = 2 * sum(t.numel() * t.element_size() for t in outs)
        self.flops += flops
        dtype = ins[0].dtype if ins else torch.float32
        self.seconds += self.card.seconds(kind, flops, moved, dtype)

    @property
    def time(self) -> float:
        """Seconds by the card's rates, but not less than it takes to start the operations."""
        return max(self.seconds, self.operations * PER_OPERATOR)


def _tensors(value: Any) -> Iterator[torch.Tensor]:
    if isinstance(value, torch.Tensor):
        yield value
    elif isinstance(value, (tuple, list)):
        for one in value:
            yield from _tensors(one)


def _gemm_4bit() -> Any:
    """bitsandbytes' product; None where it is not installed, or has not been used."""
    return getattr(torch.ops.bitsandbytes, "gemm_4bit", None)


def _workspace(packet: Any, args: Any, card: Card) -> int:
    """Bytes that a kernel takes from the allocator while it runs, and that torch's fakes lack."""
    if packet is _gemm_4bit():
        given, _, shape = args[:3]
        rows = given.numel() // given.shape[-1]
        if not card.cuda or rows > FEW_ROWS:  # unpacked weights, and their scales in float32
            return int(prod(shape) * given.dtype.itemsize + 8 * (prod(shape) // 64))
        return 0
    if not card.cuda:
        return 0
    if packet is _aten._scaled_dot_product_efficient_attention_backward:
        query, key = args[1], args[2]
        if query.dtype == torch.float32:
            return int(4 * query.numel())
        return int(4 * (query.numel() + (2 * key.numel() if query.shape[-1] > 64 else 0)))
    if packet is _aten._scaled_dot_product_flash_attention_backward:
        query = args[1]
        return int(4 * query.numel() + 4 * query.numel() // query.shape[-1])
    if packet in (_aten.masked_scatter, _aten.masked_scatter_):  # prefix sums of the mask
        return int(9 * args[0].numel())
    return 0
