"""PyTorch's caching allocator for CUDA, replayed on a list of allocations and frees.

    replay([(1, 600), (1, 0)]) -> Replayed(allocated=1024, ...)      # (number, bytes or 0: freed)

The rules of c10/cuda/CUDACachingAllocator.cpp with its default settings, one stream: sizes are
rounded to 512 B; a block of up to 1 MiB comes from a segment of 2 MiB, one of up to 10 MiB from
one of 20 MiB, a larger one gets a segment of its own, rounded to 2 MiB; best fit; a small block is
split when 512 B are left over, a large one when more than 1 MiB is; free neighbours are merged;
when the card is full, every segment without a block in use is given back.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Sequence
from dataclasses import dataclass

UNIT = 512
MIB = 2**20
SMALL = MIB  # the largest block that comes from a small segment
SMALL_SEGMENT, LARGE_SEGMENT = 2 * MIB, 20 * MIB
OWN_SEGMENT = 10 * MIB  # from this size on a block has a segment of its own
OWN_UNIT = 2 * MIB

Events = Sequence[tuple[int, int]]


@dataclass(frozen=True)
class Replayed:
    """allocated: most bytes in use, as torch.cuda.max_memory_allocated; reserved: most bytes taken
    from the card, as max_memory_reserved; full: it did not get by with the limit."""

    allocated: int
    reserved: int
    full: bool


@dataclass(eq=False)
class _Block:
    size: int
    small: bool
    segment: int
    offset: int
    before: _Block | None = None
    after: _Block | None = None
    free: bool = True

    @property
    def key(self) -> tuple[int, int, int]:
        return self.size, self.segment, self.offset


def block_bytes(size: int) -> int:
    """Bytes that a tensor of so many takes."""
    return max(-(-size // UNIT) * UNIT, UNIT)


def replay(events: Events, limit: int | None = None) -> Replayed:
    """What the allocator takes for these events, of a card with `limit` bytes."""
    free: dict[bool, list[_Block]] = {True: [], False: []}  # sorted by key
    used: dict[int, _Block] = {}
    allocated = reserved = most_allocated = most_reserved = segments = 0
    for number, wanted in events:
        if not wanted:
            block = used.pop(number)
            allocated -= block.size
            _give_back(block, free[block.small])
            continue
        size = block_bytes(wanted)
        small = size <= SMALL
        found = bisect_left(free[small], (size, -1, -1), key=lambda b: b.key)
        if found < len(free[small]):
            block = free[small].pop(found)
        else:
            own = -(-size // OWN_UNIT) * OWN_UNIT
            more = SMALL_SEGMENT if small else LARGE_SEGMENT if size < OWN_SEGMENT else own
            if limit is not None and reserved + more > limit:
                reserved -= _release(free)
                if reserved + more > limit:
                    return Replayed(most_allocated, most_reserved, True)
            segments += 1
            reserved += more
            block = _Block(more, small, segments, 0)
        rest = block.size - size
        if (rest >= UNIT) if small else (rest > SMALL):
            _split(block, size, free[small])
        block.free = False
        used[number] = block
        allocated += block.size
        most_allocated = max(most_allocated, allocated)
        most_reserved = max(most_reserved, reserved)
    return Replayed(most_allocated, most_reserved, False)


def needed(events: Events, step: int = 32 * MIB) -> int:
    """The least memory, to within `step` bytes, with which the allocator gets through."""
    whole = replay(events)
    low, high = whole.allocated, whole.reserved
    while high - low > step:
        middle = (low + high) // 2
        low, high = (middle, high) if replay(events, middle).full else (low, middle)
    return high


def _split(block: _Block, size: int, pool: list[_Block]) -> None:
    rest = _Block(block.size - size, block.small, block.segment, block.offset + size)
    rest.before, rest.after = block, block.after
    if rest.after is not None:
        rest.after.before = rest
    block.after, block.size = rest, size
    insort(pool, rest, key=lambda b: b.key)


def _give_back(block: _Block, pool: list[_Block]) -> None:
    block.free = True
    if (other := block.before) is not None and other.free:
        pool.pop(bisect_left(pool, other.key, key=lambda b: b.key))
        block.offset, block.size = other.offset, block.size + other.size
        block.before = other.before
        if block.before is not None:
            block.before.after = block
    if (other := block.after) is not None and other.free:
        pool.pop(bisect_left(pool, other.key, key=lambda b: b.key))
        block.size += other.size
        block.after = other.after
        if block.after is not None:
            block.after.before = block
    insort(pool, block, key=lambda b: b.key)


def _release(free: dict[bool, list[_Block]]) -> int:
    """Give whole free segments back to the card; return their bytes."""
    given = 0
    for pool in free.values():
        whole = [block for block in pool if block.before is None and block.after is None]
        given += sum(block.size for block in whole)
        pool[:] = [block for block in pool if block.before is not None or block.after is not None]
    return given
