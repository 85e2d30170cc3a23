"""Which of the programs that are left is the answer to a picture, and how far to trust it.

    answer = choose(target, finalists, tried, started)

Finalists run in isolation, the most promising first, until none that is left can be better.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

from image2cad.cad import build
from image2cad.common import NEVER, Stop
from image2cad.verification.candidate import Candidate
from image2cad.verification.confidence import confidence
from image2cad.verification.cost import Target, likeness_of
from image2cad.verification.viewpoints import Viewpoint
from metrics import Failure, Part, run_cadquery

RUN_SECONDS = 5.0  # of CPU time that a finalist may run; one that sleeps is ended after 25 s
VOLUME_TOLERANCE = 0.01  # share by which CadQuery's solid may differ from the drawn one


@dataclass(frozen=True, eq=False)
class Answer:
    """What came of a picture.

    code: the program, or None if no candidate was valid. part: what it builds.
    likeness: SSIM of its drawing and the picture where either shows something, 0 to 1.
    confidence: chance of an IoU over 0.9 (see confidence.py).
    source: where its structure came from. tried: the others, those that cost least first.
    cameras: those that the program was drawn and compared with, one for each view; none where it
    was not. reason: why the picture may be none of one part, or why one of several was left out,
    in sentences; "" where nothing says so.
    """

    code: str | None
    part: Part | None
    likeness: float
    confidence: float
    source: str
    tried: tuple[Candidate, ...]
    seconds: float
    cameras: tuple[Viewpoint, ...] = ()
    reason: str = ""


def choose(
    target: Target,
    finalists: Sequence[Candidate],
    tried: Sequence[Candidate],
    started: float,
    compare: bool = True,
    stop: Stop = NEVER,
) -> Answer:
    """The finalist that runs in isolation and is most like the target's picture.

    tried: all that have a fate, those of the finalists that were drawn among them. started:
    when, by `time.monotonic`, the picture came. compare: False takes the first that runs.
    stop: when it is due, no more than one that is valid is looked for.
    """
    best: tuple[Candidate, Part] | None = None
    fates = {one.code: one for one in tried}
    hopes = (_looked_at(one, target) for one in finalists)
    for one, volume in sorted(hopes, key=lambda hope: -hope[0].worth) if compare else hopes:
        if best is not None and one.likeness >= 0 and one.worth <= best[0].worth:
            continue  # it draws the picture less well, and need not run
        if best is not None and stop.due():
            fates[one.code] = replace(one, fate="not run: no time was left")
            continue
        part = run_cadquery(one.code, timeout=RUN_SECONDS)
        if isinstance(part, Failure):
            fates[one.code] = replace(one, fate=str(part))
            continue
        agrees = abs(volume - part.volume) <= VOLUME_TOLERANCE * part.volume
        if not agrees and not target.sights:
            one = replace(one, likeness=likeness_of(part, target))
        if best is None or one.worth > best[0].worth:
            best = (one, part)
        if not compare:
            break
    seconds = time.monotonic() - started
    others = tuple(sorted(fates.values(), key=lambda one: one.cost))
    if best is None:
        return Answer(None, None, 0.0, 0.0, "", others, seconds)
    one, part = best
    rest = tuple(other for other in others if other.code != one.code)
    return Answer(one.code, part, one.likeness, confidence(one.likeness), one.source, rest, seconds)


def _looked_at(one: Candidate, target: Target) -> tuple[Candidate, float]:
    """The candidate with its likeness, and its volume (-1: it has to run to be seen).

    Better seen so than as a part that was run, which has lost the edges between fused faces.
    """
    drawing = build(one.program) if one.program else None
    if drawing is None:
        return replace(one, program=()), -1.0
    if not target.sights:
        one = replace(one, likeness=likeness_of(drawing, target))
    return one, drawing.volume
