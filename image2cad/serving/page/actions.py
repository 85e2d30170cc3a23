"""What happens when a visitor of the page acts: a picture given, code edited, a slider moved.

Each action takes the service and the values of some components and returns a `Shown`: new values
for the components that change together. A visit remembers `Entry`s, which are text and file names:
a part is built again when it is needed, in isolation as always. The components are in layout.py.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import gradio as gr
import numpy as np
from gradio.processing_utils import save_bytes_to_cache, save_pil_to_cache
from gradio.utils import get_upload_folder
from PIL import Image

from image2cad.cad import numbers, replaced
from image2cad.common import NEVER, Cancelled, InputError, Stop
from image2cad.serving.jobs import Built
from image2cad.serving.limits import Limits, open_picture
from image2cad.serving.page.display import (
    Row,
    answer_rows,
    as_compared,
    drawing_of,
    failure_html,
    in_words,
    likeness_rows,
    likeness_to,
    measure_rows,
    problem_html,
    remark_html,
    table_html,
)
from image2cad.serving.page.visitors import (
    EXPECTED_ERRORS,
    NOTHING_MORE,
    Asked,
    Stops,
    find_program,
    in_toast,
    message_of,
)
from image2cad.serving.service import Generated, Service
from metrics import Failure, Part

REBUILT = "Rebuilt."
DOUBTFUL_LIKENESS = 0.9  # below it an answer is likely to be wrong
PARTS_OF_A_VISIT = 24  # that are remembered
MOVED_CAPTION = "moved"

CAMERA_ANGLES = (45, 54.7)  # degrees
CAMERA_DISTANCE = 1.3  # diagonals of the part


@dataclass(frozen=True)
class Entry:
    """One part of a visit.

    code: its program. picture, thumbnail: files, the user's picture as it is compared and the
    drawing of the part. caption: how it came about. found: figures of the answer, if it is one.
    eye: the direction that the picture is seen from, where it is not one of GenCAD's.
    """

    code: str = ""
    picture: str | None = None
    thumbnail: str = ""
    caption: str = ""
    found: tuple[Row, ...] = ()
    eye: tuple[float, float, float] | None = None


@dataclass(frozen=True)
class Shown:
    """New values for the components of the tab, in the order of their list; those left out stay."""

    message: Any = ...
    code: Any = ...
    model: Any = ...
    picture: Any = ...
    drawing: Any = ...
    measures: Any = ...
    gallery: Any = ...
    entry: Any = ...
    visit: Any = ...
    template: Any = ...  # the program that the sliders were made from

    def values(self) -> tuple[Any, ...]:
        """For a gradio event whose outputs are these components."""
        return tuple(gr.skip() if one is ... else one for one in vars(self).values())


# ---- The first tab: a picture given, a program edited, a slider moved, a file wanted


async def make_part(
    service: Service,
    stops: Stops,
    file: str | None,
    effort: str,
    visit: list[Entry],
    session: str | None,
    progress: gr.Progress,
    asked: Asked = NOTHING_MORE,
) -> tuple[Any, ...]:
    """Find the program of a picture, and of what was given beside it, and show its part."""

    def tell(share: float, text: str) -> None:
        progress(share, desc=text)

    try:
        got = await find_program(service, stops, file, effort, session, tell, ["glb"], asked)
    except Cancelled as error:
        return Shown(remark_html(f"{message_of(error)}.")).values()
    except EXPECTED_ERRORS as error:
        return Shown(problem_html(message_of(error))).values()
    first = str(file or asked.views[0])
    return await asyncio.to_thread(_answered, got, first, effort, visit, service.limits)


def _answered(
    got: Generated, file: str, effort: str, visit: list[Entry], limits: Limits
) -> tuple[Any, ...]:
    seen = as_compared(open_picture(Path(file).read_bytes(), limits))
    path = save_pil_to_cache(seen, get_upload_folder(), "picture", "png")
    code = got.code.strip()  # as the editor keeps it
    strange = [one.direction for one in got.cameras if one.origin != "known"]
    entry = Entry(code, path, found=answer_rows(got), eye=strange[0] if strange else None)
    told = " ".join(one for one in (got.reason, *got.notes) if one)
    if isinstance(got.part, Failure):
        text = failure_html(got.part, code)
        if told and got.part.message != told:
            text += remark_html(told)
        nothing = Shown(text, code, None, path, None, "", entry=entry, template="")
        return nothing.values()
    done = f"Made in {got.seconds:.1f} s."
    if got.likeness < DOUBTFUL_LIKENESS and not got.reason:
        done += " It does not look like the picture"
        done += "." if effort == "high" else ": a higher effort may help."
    done += f" {told}" if told else ""
    entry = replace(entry, caption=f"answer, {effort}")
    return _shown(got.part, _glb(got), entry, visit, done, sliders=True)


def rebuild(
    service: Service, code: str, entry: Entry, visit: list[Entry], stop: Stop = NEVER
) -> tuple[Any, ...]:
    """Build the program as it stands in the editor."""
    built = _build(service, code, stop)
    if isinstance(built, str):
        return Shown(built).values()
    if code != entry.code:
        entry = replace(entry, code=code.strip(), caption="edited", found=())
    return _shown(*built, entry, visit, REBUILT, sliders=True)


def move_slider(
    service: Service,
    code: str,
    entry: Entry,
    visit: list[Entry],
    template: str,
    *values: float,
    stop: Stop = NEVER,
) -> tuple[Any, ...]:
    """Build the program with the numbers of the sliders."""
    if str(code).strip() != entry.code:
        stale = "The program was edited since. Press Rebuild, then move."
        return Shown(problem_html(stale)).values()
    known = numbers(template)
    changed = {i: v for i, v in enumerate(values) if i < len(known) and v != known[i].value}
    try:
        code = replaced(template, changed)
    except InputError as error:
        return Shown(problem_html(message_of(error))).values()
    built = _build(service, code, stop)
    if isinstance(built, str):
        return Shown(built).values()
    if entry.caption == MOVED_CAPTION and visit and visit[0] == entry:
        visit = visit[1:]  # one entry for a row of moves
    entry = replace(entry, code=code, caption=MOVED_CAPTION, found=())
    return _shown(*built, entry, visit, REBUILT)


def go_back(
    service: Service, visit: list[Entry], index: int, stop: Stop = NEVER
) -> tuple[Any, ...]:
    """Show an earlier part of the visit again."""
    entry = visit[index]
    built = _build(service, entry.code, stop)
    if isinstance(built, str):
        return Shown(built).values()
    return _shown(*built, entry, visit, f"Back at: {entry.caption}.", sliders=True)


def download(service: Service, kind: str, code: str, stop: Stop = NEVER) -> str:
    """The path of a file of the part that `code` builds. Raises gr.Error, `in_toast`."""
    try:
        built = service.build(code, [kind], stop)
        if isinstance(built.part, Failure):
            raise InputError(in_words(built.part, code))
        if kind not in built.files:
            raise InputError(built.no_files[kind])
    except EXPECTED_ERRORS as error:
        raise in_toast(error) from error
    return _kept(built.files[kind], kind)


# ---- What the actions of the first tab share


def _build(service: Service, code: str, stop: Stop) -> tuple[Part, bytes | str] | str:
    """The part and its GLB, as of `_glb`; or what went wrong as HTML."""
    try:
        built = service.build(code, ["glb"], stop)
    except EXPECTED_ERRORS as error:
        return problem_html(message_of(error))
    if isinstance(built.part, Failure):
        return failure_html(built.part, code)
    return built.part, _glb(built)


def _glb(made: Built | Generated) -> bytes | str:
    """The file, or why there is none."""
    return made.files["glb"] if "glb" in made.files else made.no_files["glb"]


def _shown(
    part: Part,
    glb: bytes | str,
    entry: Entry,
    visit: list[Entry],
    text: str,
    *,
    sliders: bool = False,
) -> tuple[Any, ...]:
    """All that is shown of a part. Adds it to the visit unless it is there.

    sliders: make new ones, for this program.
    """
    drawing = drawing_of(part, entry.eye)
    rows = list(entry.found)
    picture = entry.picture if entry.picture and Path(entry.picture).is_file() else None
    if not rows and picture and drawing and entry.eye is None:
        with Image.open(picture) as seen:
            rows = likeness_rows(likeness_to(seen, drawing))
    if entry not in visit and drawing:
        small = drawing.resize((160, 160), Image.Resampling.LANCZOS)
        thumbnail = save_pil_to_cache(small, get_upload_folder(), "part", "png")
        entry = replace(entry, thumbnail=thumbnail)
        visit = [entry, *visit][:PARTS_OF_A_VISIT]
    if isinstance(glb, str):
        message, model = problem_html("The part cannot be shown in 3D", glb), None
    else:
        message, model = remark_html(text), _turned(part, _kept(glb, "glb"))
    return Shown(
        message=message,
        code=entry.code,
        model=model,
        picture=picture,
        drawing=drawing,
        measures=table_html(rows + measure_rows(part)),
        gallery=[(one.thumbnail, one.caption) for one in visit],
        entry=entry,
        visit=visit,
        template=entry.code if sliders else ...,
    ).values()


def _turned(part: Part, file: str) -> Any:
    """The file for gr.Model3D, seen from where the pictures are drawn, all of it in the frame."""
    size = float(np.linalg.norm(part.bounding_box[1] - part.bounding_box[0]))
    return gr.update(value=file, camera_position=(*CAMERA_ANGLES, CAMERA_DISTANCE * size))


def _kept(data: bytes, kind: str) -> str:
    """The path of a file with this content."""
    return save_bytes_to_cache(data, f"part.{kind}", get_upload_folder())


# ---- The second tab: two programs compared


def compare(
    service: Service, first: str, second: str, stop: Stop = NEVER
) -> tuple[Image.Image | None, Image.Image | None, str]:
    """The drawings of both parts, and their scores as HTML. Raises what the service raises."""
    compared = service.compare(first, second, stop=stop)
    if isinstance(compared.reference, Failure):
        why = in_words(compared.reference, second)
        raise InputError(f"there is nothing to compare with. {why}")
    rows = [
        (name, f"{scores['vsr']:.0f}", f"{scores['iou_best']:.4f}")
        for name, scores in compared.scores.items()
    ]
    text = table_html(rows, ("Alignment", "VSR", "IoU_best"))
    drawing = None
    if isinstance(compared.prediction, Failure):
        text = failure_html(compared.prediction, first) + text
    elif compared.prediction is not None:
        drawing = drawing_of(compared.prediction)
    return drawing, drawing_of(compared.reference), text
