"""Rewards for reinforcement learning: completions in, floats out, as TRL's GRPOTrainer calls them.

    iou_reward(["import cadquery as cq ..."], cadquery=[reference])     # [0.87]
    trainer = GRPOTrainer(model, reward_funcs=[validity_reward, iou_reward], ...)

Every reward is in [0, 1], and 0 unless the program, run and measured by metrics/execution.py,
leaves a usable solid of usual size: what crashes, hangs, forges or leaves an open shell earns
nothing from either. Completions are replies, as text or as TRL's messages; what is neither is an
empty reply. Columns of the data come by name, one value a completion; another number of them is
a ValueError. Programs run side by side, equal ones once, and both rewards of one batch share the
runs. Time is CPU time, so a reward does not depend on what else the machine does; two parts that
cannot be compared in theirs (metrics/comparing.py) give 0. Left out: how rewards are weighed
(train_reward.py).
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from image2cad.cad import extract_code
from metrics import (
    BadReference,
    Failure,
    Part,
    iou_aligned,
    reference_part,
    run_many,
    usable_cores,
)

Completion = str | Sequence[dict[str, Any]]
Reward = Callable[..., list[float]]
PROGRAM_TIMEOUT = 5.0  # CPU seconds a program may run, and again may be measured
PROGRAM_MEMORY = 2 << 30  # bytes
USUAL_SIDES = (1e-2, 1e4)  # of the longest side of a box; parts in GenCAD are about 1, ours 100
MOST_TRIANGLES = 50_000  # of a part's mesh; more is no part that a picture shows
LONGEST_REPLY = 20_000  # characters; finding the program in it takes time before any deadline
_last: dict[str, Part | None] = {}  # the parts of the last batch: its next reward asks for them
_lock = threading.Lock()


def validity_reward(completions: Sequence[Completion], **_: Any) -> list[float]:
    """1 for a program that leaves a usable solid, else 0."""
    return [float(part is not None) for part in built(completions)]


def iou_reward(completions: Sequence[Completion], cadquery: Sequence[str], **_: Any) -> list[float]:
    """IoU_best against the reference program, alignment `best`.

    A reference that leaves no solid gives 0 to all: its group then teaches nothing.
    """
    if len(cadquery) != len(completions):
        raise ValueError(f"{len(completions)} completions, but {len(cadquery)} values of cadquery")
    pairs = list(zip(built(completions), cadquery, strict=True))
    wanted = list(dict.fromkeys(reference for part, reference in pairs if part is not None))
    with ThreadPoolExecutor(usable_cores()) as pool:
        targets = dict(zip(wanted, pool.map(_reference, wanted), strict=True))
    # One after the other: manifold3d spreads each comparison over the cores itself.
    scores = {pair: _iou(pair[0], targets.get(pair[1])) for pair in dict.fromkeys(pairs)}
    return [scores[pair] for pair in pairs]


def built(completions: Sequence[Completion]) -> list[Part | None]:
    """The part of every completion, None where there is none that earns anything."""
    global _last
    codes = [extract_code(_text(reply)) for reply in completions]
    with _lock:
        known = _last
    wanted = [code for code in dict.fromkeys(codes) if code not in known]
    found = run_many(wanted, timeout=PROGRAM_TIMEOUT, memory=PROGRAM_MEMORY)
    fresh = {code: _earning(got) for code, got in zip(wanted, found, strict=True)}
    parts = {code: fresh[code] if code in fresh else known[code] for code in codes}
    with _lock:
        _last = parts
    return [parts[code] for code in codes]


def _earning(got: Part | Failure) -> Part | None:
    """The part if it is one that a picture can show, of a size at which numbers mean something."""
    if isinstance(got, Failure):
        return None
    longest = float(np.ptp(got.bounding_box, axis=0).max())
    usual = USUAL_SIDES[0] <= longest <= USUAL_SIDES[1] and len(got.triangles) <= MOST_TRIANGLES
    return got if usual else None


def _reference(program: str) -> Part | None:
    """The part of a reference, None where there is none."""
    if not isinstance(program, str):
        return None
    try:
        return reference_part(program, {"timeout": PROGRAM_TIMEOUT, "memory": PROGRAM_MEMORY})
    except BadReference:
        return None


def _iou(part: Part | None, target: Part | None) -> float:
    if part is None or target is None:
        return 0.0
    try:
        return iou_aligned(target, part, "best")
    except ValueError:  # a mesh that nothing closes, or no time left to compare
        return 0.0


def _text(reply: Any) -> str:
    """The text of a reply or of the last message; nothing for what is none or far too long."""
    if isinstance(reply, (list, tuple)) and reply:
        reply = reply[-1]
    if isinstance(reply, dict):
        reply = reply.get("content")
    if isinstance(reply, (list, tuple)):  # a message in pieces
        pieces = [piece.get("text") for piece in reply if isinstance(piece, dict)]
        reply = "".join(piece for piece in pieces if isinstance(piece, str))
    return reply if isinstance(reply, str) and len(reply) <= LONGEST_REPLY else ""
