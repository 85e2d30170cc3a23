"""Rewards for reinforcement learning: completions in, floats out, as TRL's GRPOTrainer calls them.

    iou_reward(["import cadquery as cq ..."], cadquery=[reference])     # [0.87]
    trainer = GRPOTrainer(model, reward_funcs=[validity_reward, iou_reward], ...)

Every reward is in [0, 1], and 0 unless the program, run and measured by metrics/execution.py,
leaves a usable solid of usual size: what crashes, hangs, forges or leaves an open shell earns
nothing from any of them. Completions are replies, as text or as TRL's messages; columns of the
data come by name, one value a completion. Programs run side by side, equal ones once, and all
rewards of one batch share the runs. Left out: how rewards are weighed (train_reward.py).
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from PIL import Image

from image2cad.comparing import likeness
from image2cad.prompting import extract_code
from image2cad.rasterising import SIZE, draw
from metrics import Failure, Part, run_many
from metrics.execution import default_workers
from metrics.geometry import iou_aligned
from metrics.references import reference_part

Completion = str | Sequence[dict[str, Any]]
Reward = Callable[..., list[float]]

TIMEOUT = 5.0  # seconds a program may run, and again may be measured
MEMORY = 2 << 30  # bytes
SIDES = (1e-2, 1e4)  # of the longest side of a part's box; parts in GenCAD are about 1, ours 100
TRIANGLES = 50_000  # of a part's mesh; more is no part that a picture shows
WHITE = 255

_last: dict[str, Part | None] = {}  # the parts of the last batch: its next reward asks for them
_lock = threading.Lock()


def validity_reward(completions: Sequence[Completion], **_: Any) -> list[float]:
    """1 for a program that leaves a usable solid, else 0."""
    return [float(part is not None) for part in built(completions)]


def iou_reward(completions: Sequence[Completion], cadquery: Sequence[str], **_: Any) -> list[float]:
    """IoU_best against the reference program, alignment `best`.

    A reference that leaves no solid gives 0 to all: its group then teaches nothing.
    """
    pairs = list(zip(built(completions), cadquery, strict=True))
    # One after the other: manifold3d spreads each comparison over the cores itself.
    scores = {pair: _iou(*pair) for pair in dict.fromkeys(pairs)}
    return [scores[pair] for pair in pairs]


def likeness_reward(
    completions: Sequence[Completion], image: Sequence[Image.Image], **_: Any
) -> list[float]:
    """How alike the part's drawing and the input picture are (comparing.likeness); no reference.

    Stretched so that a white sheet, about .6, earns nothing.
    """
    pairs = list(zip(built(completions), image, strict=True))
    with ThreadPoolExecutor(default_workers()) as pool:
        return list(pool.map(_likeness, pairs))


def length_reward(
    completions: Sequence[Completion], cadquery: Sequence[str], **_: Any
) -> list[float]:
    """1 for a program no longer than the reference, half for twice as long, and so on."""
    rows = zip(completions, built(completions), cadquery, strict=True)
    return [
        0.0 if part is None else min(1.0, len(code.strip()) / len(_text(reply).strip()))
        for reply, part, code in rows
    ]


def format_reward(completions: Sequence[Completion], **_: Any) -> list[float]:
    """1 for a reply that is the program and nothing else: no sentences, no fences."""
    rows = zip(completions, built(completions), strict=True)
    return [
        float(part is not None and extract_code(_text(reply)) == _text(reply).strip())
        for reply, part in rows
    ]


def built(completions: Sequence[Completion]) -> list[Part | None]:
    """The part of every completion, None where there is none that earns anything."""
    global _last
    codes = [extract_code(_text(reply)) for reply in completions]
    with _lock:
        known = _last
    wanted = [code for code in dict.fromkeys(codes) if code not in known]
    found = run_many(wanted, timeout=TIMEOUT, memory=MEMORY)
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
    usual = SIDES[0] <= longest <= SIDES[1] and len(got.triangles) <= TRIANGLES
    return got if usual else None


def _iou(part: Part | None, reference: str) -> float:
    if part is None:
        return 0.0
    try:
        target = reference_part(reference, {})
        return iou_aligned(target, part, "best")
    except ValueError:  # no solid reference, or a mesh that nothing closes
        return 0.0


def _likeness(pair: tuple[Part | None, Image.Image]) -> float:
    part, picture = pair
    if part is None:
        return 0.0
    shown = np.asarray(picture.convert("RGB").resize((SIZE, SIZE), Image.Resampling.BOX))
    floor = likeness(shown, np.full_like(shown, WHITE))
    if floor >= 1.0:  # a white picture shows no part
        return 0.0
    return max(0.0, (likeness(shown, draw(part, SIZE)) - floor) / (1.0 - floor))


def _text(reply: Completion) -> str:
    return reply if isinstance(reply, str) else str(reply[-1]["content"])
