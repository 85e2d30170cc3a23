"""What happens when a visitor of the page acts: a picture given, code edited, a slider moved.

Each action takes the service and the values of some components and returns a `Shown`: new values
for the components that change together. A visit remembers `Entry`s, which are text and file names:
a part is built again when it is needed, in isolation as always. layout.py has the components.
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

from image2cad.common import InputError
from image2cad.serving.limits import Limits, open_picture
from image2cad.serving.page.display import (
    Row,
    compare,
    explain,
    explained,
    found_by,
    framed,
    likenesses,
    measures,
    problem,
    remark,
    table,
    view,
)
from image2cad.serving.page.sliders import numbers, replaced
from image2cad.serving.page.visitors import EXPECTED, Stops, ask, told
from image2cad.serving.service import Built, Generated, Service
from image2cad.serving.stopping import Cancel, Cancelled
from metrics import Failure, Part

REBUILT = "Rebuilt."
ALIKE = 0.9  # likeness below which an answer is likely to be wrong
REMEMBERED = 24  # parts of a visit
MOVED = "moved"

ANGLES, FAR = (45, 54.7), 1.3  # of the camera: degrees, and distance in diagonals of the part


@dataclass(frozen=True)
class Entry:
    """One part of a visit.

    code: its program. picture, thumbnail: files, the user's picture as it is compared and the
    drawing of the part. caption: how it came about. found: figures of the answer, if it is one.
    """

    code: str = ""
    picture: str | None = None
    thumbnail: str = ""
    caption: str = ""
    found: tuple[Row, ...] = ()


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


async def generate(
    service: Service,
    stops: Stops,
    file: str | None,
    effort: str,
    visit: list[Entry],
    session: str | None,
    progress: gr.Progress,
) -> tuple[Any, ...]:
    """Find the program of a picture and show its part."""

    def tell(share: float, text: str) -> None:
        progress(share, desc=text)

    try:
        got = await ask(service, stops, file, effort, session, tell, ["glb"])
    except Cancelled as error:
        return Shown(remark(f"{told(error)}.")).values()
    except EXPECTED as error:
        return Shown(problem(told(error))).values()
    return await asyncio.to_thread(_answered, got, str(file), effort, visit, service.limits)


def _answered(
    got: Generated, file: str, effort: str, visit: list[Entry], limits: Limits
) -> tuple[Any, ...]:
    seen = framed(open_picture(Path(file).read_bytes(), limits))
    path = save_pil_to_cache(seen, get_upload_folder(), "picture", "png")
    code = got.code.strip()  # as the editor keeps it
    entry = Entry(code, path, found=found_by(got))
    if isinstance(got.part, Failure):
        text = explained(got.part, code)
        nothing = Shown(text, code, None, path, None, "", entry=entry, template="")
        return nothing.values()
    done = f"Made in {got.seconds:.1f} s."
    if got.likeness < ALIKE:
        done += " It does not look like the picture: a higher effort may help."
    entry = replace(entry, caption=f"answer, {effort}")
    return _shown(got.part, _glb(got), entry, visit, done, sliders=True)


def edit(
    service: Service, code: str, entry: Entry, visit: list[Entry], cancelled: Cancel = None
) -> tuple[Any, ...]:
    """Build the program as it stands in the editor."""
    built = _build(service, code, cancelled)
    if isinstance(built, str):
        return Shown(built).values()
    if code != entry.code:
        entry = replace(entry, code=code.strip(), caption="edited", found=())
    return _shown(*built, entry, visit, REBUILT, sliders=True)


def move(
    service: Service,
    code: str,
    entry: Entry,
    visit: list[Entry],
    template: str,
    *values: float,
    cancelled: Cancel = None,
) -> tuple[Any, ...]:
    """Build the program with the numbers of the sliders."""
    if str(code).strip() != entry.code:
        return Shown(problem("The program was edited since. Press Rebuild, then move.")).values()
    known = numbers(template)
    changed = {i: v for i, v in enumerate(values) if i < len(known) and v != known[i].value}
    code = replaced(template, changed)
    built = _build(service, code, cancelled)
    if isinstance(built, str):
        return Shown(built).values()
    if entry.caption == MOVED and visit and visit[0] == entry:
        visit = visit[1:]  # one entry for a row of moves
    entry = replace(entry, code=code, caption=MOVED, found=())
    return _shown(*built, entry, visit, REBUILT)


def go_back(
    service: Service, visit: list[Entry], index: int, cancelled: Cancel = None
) -> tuple[Any, ...]:
    """Show an earlier part of the visit again."""
    entry = visit[index]
    built = _build(service, entry.code, cancelled)
    if isinstance(built, str):
        return Shown(built).values()
    return _shown(*built, entry, visit, f"Back at: {entry.caption}.", sliders=True)


def save(service: Service, kind: str, code: str, cancelled: Cancel = None) -> str:
    """The path of a file of the part that `code` builds. Raises gr.Error in plain language."""
    try:
        built = service.build(code, [kind], cancelled)
        if isinstance(built.part, Failure):
            raise InputError(explain(built.part, code))
        if kind not in built.files:
            raise InputError(built.no_files[kind])
    except EXPECTED as error:
        raise gr.Error(told(error), print_exception=False) from error
    return _kept(built.files[kind], kind)


def _build(service: Service, code: str, cancelled: Cancel) -> tuple[Part, bytes | str] | str:
    """The part and its GLB, as of `_glb`; or what went wrong as HTML."""
    try:
        built = service.build(code, ["glb"], cancelled)
    except EXPECTED as error:
        return problem(told(error))
    if isinstance(built.part, Failure):
        return explained(built.part, code)
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
    drawing = view(part)
    rows = list(entry.found)
    picture = entry.picture if entry.picture and Path(entry.picture).is_file() else None
    if not rows and picture and drawing:
        with Image.open(picture) as seen:
            rows = likenesses(compare(seen, drawing))
    if entry not in visit and drawing:
        small = drawing.resize((160, 160), Image.Resampling.LANCZOS)
        thumbnail = save_pil_to_cache(small, get_upload_folder(), "part", "png")
        entry = replace(entry, thumbnail=thumbnail)
        visit = [entry, *visit][:REMEMBERED]
    if isinstance(glb, str):
        message, model = problem("The part cannot be shown in 3D", glb), None
    else:
        message, model = remark(text), _turned(part, _kept(glb, "glb"))
    return Shown(
        message=message,
        code=entry.code,
        model=model,
        picture=picture,
        drawing=drawing,
        measures=table(rows + measures(part)),
        gallery=[(one.thumbnail, one.caption) for one in visit],
        entry=entry,
        visit=visit,
        template=entry.code if sliders else ...,
    ).values()


def _turned(part: Part, file: str) -> Any:
    """The file for gr.Model3D, seen from where the pictures are drawn, all of it in the frame."""
    size = float(np.linalg.norm(part.bounding_box[1] - part.bounding_box[0]))
    return gr.update(value=file, camera_position=(*ANGLES, FAR * size))


def _kept(data: bytes, kind: str) -> str:
    """The path of a file with this content."""
    return save_bytes_to_cache(data, f"part.{kind}", get_upload_folder())
