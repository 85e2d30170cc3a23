"""Many pictures to answers: a model proposes, pipeline.py chooses and corrects.

    codes = propose(model, processor, images, effort="low")      # a list a picture
    answers = answer_many(images, codes, effort="low", workers=2)

Verification takes one core a picture; pictures are spread over processes. Left out:
the scores (evaluation/scoring.py).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from PIL import Image

from image2cad.common import Lost, each, effort_named
from image2cad.rendering import draw, draw_in_style
from image2cad.verification.candidate import Candidate
from image2cad.verification.choosing import Answer
from image2cad.verification.pipeline import SOURCES, verify
from metrics import Part, run_cadquery, usable_cores

WARMING_PROGRAM = "import cadquery as cq\nresult = cq.Workplane().box(1, 2, 3)"
WARMING_STYLES = ("coloured", "lines")  # which other code reads and compares than GenCAD's
WARMING_EYE = (1.0, -1.5, 1.0)  # given, it is not searched for
SPARE_SECONDS = 120.0  # seconds beyond the budget before a picture counts as lost


@dataclass(frozen=True, eq=False)
class PictureJob:
    """One picture, or views of one part, to verify."""

    image: Image.Image | Sequence[Image.Image]
    codes: tuple[str, ...]
    effort: str
    sources: tuple[str, ...]


def answer_many(
    images: Sequence[Image.Image | Sequence[Image.Image]],
    codes: Sequence[Sequence[str]],
    effort: str = "low",
    sources: Sequence[str] = SOURCES,
    workers: int | None = None,
    progress: bool = True,
    keep: Callable[[int, Answer], None] = lambda index, answer: None,
) -> list[Answer]:
    """`verify` for every picture, in order. A picture that is lost gets an empty answer.

    images: many parts, each one picture or a list of its views.
    keep: called with every answer as soon as it is there, and the number of its picture.
    """
    from tqdm.auto import tqdm

    jobs = [
        PictureJob(image, tuple(mine), effort, tuple(sources))
        for image, mine in zip(images, codes, strict=True)
    ]
    deadline = effort_named(effort).longest + SPARE_SECONDS
    out: list[Answer | None] = [None] * len(jobs)
    with tqdm(total=len(jobs), desc="verify", unit="picture", disable=not progress) as bar:
        for index, answer in each(_verify, jobs, workers or usable_cores(), deadline, warm_up):
            if isinstance(answer, Lost):
                lost = Candidate((), "", fate=answer.reason)
                answer = Answer(None, None, 0.0, 0.0, "", (lost,), deadline)
            out[index] = answer
            keep(index, answer)
            bar.update()
    return [answer for answer in out if answer is not None]


def warm_up() -> None:
    """Load and compile in this process what its first picture would wait for, out of its time."""
    part = run_cadquery(WARMING_PROGRAM)
    if isinstance(part, Part):
        picture = Image.fromarray(draw(part))
        verify(picture, [WARMING_PROGRAM], "low", seconds=1)
        verify(picture, [], "low", seconds=1, sources=("library", "templates"))
        for style in WARMING_STYLES:
            picture = Image.fromarray(draw_in_style(part, style, WARMING_EYE))
            verify(picture, [], "low", seconds=0.1, camera=WARMING_EYE)


def _verify(job: PictureJob) -> Answer | Lost:
    try:
        return verify(job.image, job.codes, job.effort, sources=job.sources)
    except Exception as error:  # one picture's answer says so; the others go on
        return Lost(f"{type(error).__name__}: {error}")
