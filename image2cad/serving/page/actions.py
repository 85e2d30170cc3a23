"""What happens when a visitor of the page acts: a picture given, code edited, a slider moved.

Each action takes the service and the values of some components and returns a `Shown`: new values
for the components that change together. A visit remembers `Entry`s, which are text and file names:
a part is built again when it is needed, in isolation as always. The components are in layout.py;
what outlives a visit is in keeping.py.
"""

from __future__ import annotations

import asyncio
import io
import time
import zipfile
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import gradio as gr
from gradio.processing_utils import save_bytes_to_cache, save_pil_to_cache
from gradio.utils import get_upload_folder
from PIL import Image

from image2cad.cad import headed, numbers, replaced, with_numbers
from image2cad.common import NEVER, Cancelled, InputError, Stop
from image2cad.serving.jobs import SIZE_GIVEN, SIZE_OF_PROGRAM, Built, size_text
from image2cad.serving.limits import Limits, box_named, open_pictures
from image2cad.serving.page.display import (
    Row,
    answer_rows,
    as_compared,
    difference_of,
    drawing_of,
    failure_html,
    in_words,
    likeness_rows,
    likeness_to,
    measure_rows,
    problem_html,
    remark_html,
    table_html,
    verdict_text,
)
from image2cad.serving.page.keeping import Entry, link_of, packed, program_in, unpacked
from image2cad.serving.page.view3d import shown_in_3d
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
STALE = "The program was edited since. Press Rebuild first."
EDITED_NOT_BUILT = (
    "Edited and not built: the part, its measures and its files are those of the program before. "
    "Press Rebuild, or Ctrl+Enter in the program."
)
BUILDS_NO_PART = (
    "This program builds no part: the part, its measures and its files are of the one before."
)
DOUBTFUL_LIKENESS = 0.9  # below it an answer is likely to be wrong
PARTS_OF_A_VISIT = 24  # that are remembered
MOVED_CAPTION = "moved"
LONGEST_SIDE_NAME = "longest side"


@dataclass(frozen=True)
class Shown:
    """New values for the components of the tab, in the order of their list; those left out stay."""

    message: Any = ...
    code: Any = ...
    state: Any = ...  # whether the part on the screen is that of the program in the editor
    model: Any = ...
    picture: Any = ...
    drawing: Any = ...
    difference: Any = ...
    measures: Any = ...
    measure: Any = ...  # the names of what can be set
    gallery: Any = ...
    entry: Any = ...
    visit: Any = ...
    kept: Any = ...  # what the browser keeps of the visit
    template: Any = ...  # the program that the sliders were made from
    turn: Any = ...  # another whenever the sliders have to be made anew

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
    before: Entry | None = None,
) -> tuple[Any, ...]:
    """Find the program of a picture, and of what was given beside it, and show its part.

    before: what is shown until then.
    """

    def tell(share: float, text: str) -> None:
        progress(share, desc=text)

    try:
        got = await find_program(service, stops, file, effort, session, tell, ["glb"], asked)
    except Cancelled as error:
        return Shown(remark_html(f"{message_of(error)}.")).values()
    except EXPECTED_ERRORS as error:
        return Shown(problem_html(message_of(error))).values()
    first = str(file or asked.views[0])
    work = (got, first, effort, visit, service.limits, asked, service.backend.name)
    return await asyncio.to_thread(_answered, *work, before or Entry())


async def make_parts(
    service: Service,
    stops: Stops,
    files: Sequence[str],
    effort: str,
    visit: list[Entry],
    session: str | None,
    progress: gr.Progress,
    asked: Asked,
    before: Entry,
) -> AsyncIterator[tuple[Any, ...]]:
    """As `make_part` for each picture in turn; after each its values, and a table of all."""
    rows: list[Row] = []
    if not files:
        yield Shown(problem_html("Give the pictures first, a part each.")).values()
    for number, file in enumerate(files or (), 1):
        where = f"picture {number} of {len(files)}, {Path(file).stem}"

        def tell(share: float, text: str, desc: str = "", where: str = where) -> None:
            progress(share, desc=f"{where}: {text or desc}")

        try:
            got = await find_program(service, stops, file, effort, session, tell, ["glb"], asked)
            work = (got, file, effort, visit, service.limits, asked, service.backend.name)
            values = await asyncio.to_thread(_answered, *work, before)
            shown = Shown(*values)
            before, visit = shown.entry, shown.visit if isinstance(shown.visit, list) else visit
            failed = isinstance(got.part, Failure)
            said = str(got.part) if failed else verdict_text(got.confidence)
            rows.append((Path(file).stem, said))
        except EXPECTED_ERRORS as error:
            rows.append((Path(file).stem, message_of(error)))
            shown = Shown()
            if isinstance(error, Cancelled):
                yield Shown(remark_html(f"Cancelled at {where}.") + table_html(rows)).values()
                return
        done = remark_html(f"{number} of {len(files)} pictures are done.") + table_html(rows)
        yield replace(shown, message=done).values()


def _answered(
    got: Generated,
    file: str,
    effort: str,
    visit: list[Entry],
    limits: Limits,
    asked: Asked,
    model: str,
    before: Entry,
) -> tuple[Any, ...]:
    (picture,) = open_pictures([Path(file).read_bytes()], limits, box_named(asked.box))
    seen = as_compared(picture)
    path = save_pil_to_cache(seen, get_upload_folder(), "picture", "png")
    code = got.code.strip()  # as the editor keeps it
    strange = [one.direction for one in got.cameras if one.origin != "known"]
    entry = before.then(
        code=code, picture=path, thumbnail="", caption=f"answer, {effort}",
        found=answer_rows(got, model), eye=strange[0] if strange else None,
        name=own_name(file, path, visit), size=got.size,
    )  # fmt: skip
    told = " ".join(one for one in (got.reason, *got.notes) if one)
    if isinstance(got.part, Failure):
        text = failure_html(got.part, code)
        if told and got.part.message != told:
            text += remark_html(told)
        nothing = Shown(
            text, code, problem_html(BUILDS_NO_PART) if code else "", None, path, None, None, "",
            gr.update(choices=[], value=None), entry=replace(entry, code=""),
            template="", turn=time.time_ns(),
        )  # fmt: skip
        return nothing.values()
    done = f"Made in {got.seconds:.1f} s."
    if got.likeness < DOUBTFUL_LIKENESS and not got.reason:
        done += " It does not look like the picture"
        done += "." if effort == "high" else ": a higher effort may help."
    done += f" {told}" if told else ""
    heading = message_of(verdict_text(got.confidence))
    return _shown(got, entry, visit, done, sliders=True, heading=heading)


def own_name(file: str, picture: str, visit: list[Entry]) -> str:
    """What the files of a picture's part are called: as the picture, and no two pictures alike."""
    stem = Path(file).stem or "part"
    taken = {one.name for one in visit if one.picture != picture}
    numbered = (f"{stem}-{count}" for count in range(2, len(taken) + 3))
    return next(name for name in (stem, *numbered) if name not in taken)


def rebuild(
    service: Service, code: str, entry: Entry, visit: list[Entry], stop: Stop = NEVER
) -> tuple[Any, ...]:
    """Build the program as it stands in the editor."""
    built = _build(service, code, stop)
    if isinstance(built, str):
        return Shown(built, state=problem_html(BUILDS_NO_PART) if entry.code else "").values()
    if code.strip() != entry.code:
        entry = entry.then(code=code.strip(), caption="edited", found=())
    return _shown(built, entry, visit, REBUILT, sliders=True)


def mark_edited(code: str, entry: Entry) -> str:
    """What is said beside the part of a program that is being edited."""
    return "" if str(code).strip() == entry.code else remark_html(EDITED_NOT_BUILT)


def move_slider(
    service: Service,
    code: str,
    entry: Entry,
    visit: list[Entry],
    template: str,
    *values: float,
    stop: Stop = NEVER,
) -> tuple[Any, ...]:
    """Build the program with the numbers of the sliders.

    A field that loses the focus says so although nothing in it changed; then all stays as it is.
    """
    known = numbers(template)
    changed = {i: v for i, v in enumerate(values) if i < len(known) and v != known[i].value}
    problem = ""
    try:
        moved = replaced(template, changed)
    except InputError as error:
        moved, problem = "", problem_html(message_of(error))
    if moved.strip() == str(code).strip():
        return Shown().values()
    if str(code).strip() != entry.code:
        problem = problem_html(STALE)
    if problem:
        return _refused(problem, entry)
    return _changed(service, moved, entry, visit, stop, sliders=False)


def set_number(
    service: Service,
    code: str,
    entry: Entry,
    visit: list[Entry],
    name: str,
    value: str,
    stop: Stop = NEVER,
) -> tuple[Any, ...]:
    """Build the program with another value for the number of this name, in mm."""
    if str(code).strip() != entry.code:
        return _refused(problem_html(STALE), entry)
    try:
        try:
            number = float(str(value).strip().removesuffix("mm").replace(",", "."))
        except ValueError as error:
            raise InputError(f"a value is a number of millimetres, not {value!r:.60}") from error
        code = with_numbers(entry.code, {name or "": number})
    except InputError as error:
        return Shown(problem_html(message_of(error))).values()
    return _changed(service, code, entry, visit, stop, sliders=True)


def resize(
    service: Service,
    code: str,
    entry: Entry,
    visit: list[Entry],
    length: str,
    stop: Stop = NEVER,
) -> tuple[Any, ...]:
    """Scale the whole part to a length, as cad.size_named reads it."""
    if not str(length).strip():
        return Shown().values()
    if str(code).strip() != entry.code:
        return _refused(problem_html(STALE), entry)
    if not entry.code:
        return Shown(remark_html("The part that is made will have this size.")).values()
    built = _build(service, entry.code, stop, str(length))
    if isinstance(built, str):
        return Shown(built).values()
    entry = entry.then(code=built.code.strip(), caption="sized", size=SIZE_GIVEN)
    return _shown(built, entry, visit, "Scaled.", sliders=True)


def _refused(text: str, entry: Entry) -> tuple[Any, ...]:
    """What went wrong, and sliders that stand where the part is."""
    return Shown(text, template=entry.code, turn=time.time_ns()).values()


def _changed(
    service: Service, code: str, entry: Entry, visit: list[Entry], stop: Stop, *, sliders: bool
) -> tuple[Any, ...]:
    """The part with other numbers; a row of changes is one entry of the visit."""
    built = _build(service, code, stop)
    if isinstance(built, str):
        return _refused(built, entry)
    if entry.caption == MOVED_CAPTION and visit and visit[0] == entry:
        visit = visit[1:]
    entry = entry.then(code=code.strip(), caption=MOVED_CAPTION, found=())
    return _shown(built, entry, visit, REBUILT, sliders=sliders)


def go_back(
    service: Service, visit: list[Entry], index: int, stop: Stop = NEVER
) -> tuple[Any, ...]:
    """Show an earlier part of the visit again."""
    return show_entry(service, visit[index], visit, f"Back at: {visit[index].caption}.", stop)


def undo(service: Service, entry: Entry, visit: list[Entry], stop: Stop = NEVER) -> tuple[Any, ...]:
    """Show what was shown before this part."""
    if not entry.trail:
        return Shown(remark_html("There is nothing to undo.")).values()
    code, trail = entry.trail[-1], entry.trail[:-1]
    known = (one for one in visit if one.code == code)
    before = next(known, replace(entry, code=code, caption="undone", found=()))
    return show_entry(service, replace(before, trail=trail), visit, "Undone.", stop)


def show_entry(
    service: Service, entry: Entry, visit: list[Entry], text: str, stop: Stop = NEVER
) -> tuple[Any, ...]:
    """Build a part that was shown before, and show it."""
    built = _build(service, entry.code, stop)
    if isinstance(built, str):
        return Shown(built).values()
    return _shown(built, entry, visit, text, sliders=True)


def open_again(service: Service, kept: Any, link: str, stop: Stop = NEVER) -> tuple[Any, ...]:
    """The program of a link, or what the browser kept of the last visit, where there is any.

    link: what stands behind the # of the page's address.
    """
    entry, visit = unpacked(kept)
    try:
        code = program_in(link or "")
    except InputError as error:
        return Shown(problem_html(message_of(error))).values()
    if code:
        shared = Entry(code, caption="from a link", trail=(entry.code,) if entry.code else ())
        return show_entry(service, shared, visit, "The program of the link.", stop)
    if not entry.code:
        return Shown().values()
    return show_entry(service, entry, visit, "Your last part, kept by this browser.", stop)


def download(
    service: Service, kind: str, code: str, entry: Entry | None = None, stop: Stop = NEVER
) -> str:
    """The path of a file of the part on the screen; where there is none, of what `code` builds.

    Raises gr.Error, `in_toast`.
    """
    entry = entry if entry is not None and entry.code else Entry(code)
    try:
        built = service.build(entry.code, [kind], stop)
        if isinstance(built.part, Failure):
            raise InputError(in_words(built.part, entry.code))
        if kind not in built.files:
            raise InputError(built.no_files[kind])
    except EXPECTED_ERRORS as error:
        raise in_toast(error) from error
    data = built.files[kind]
    if kind == "py" and entry.size != SIZE_OF_PROGRAM:
        data = headed(entry.code, size_text(built.part, entry.size)).encode()
    return _kept(data, f"{entry.name}.{kind}")


def download_all(service: Service, visit: list[Entry], stop: Stop = NEVER) -> str:
    """The path of a ZIP file with the program and the STEP file of every part of the visit.

    Raises gr.Error, `in_toast`.
    """
    stream, taken = io.BytesIO(), set[str]()
    try:
        if not visit:
            raise InputError("there is no part yet")
        with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as package:
            for one in visit:
                built = service.build(one.code, ["step"], stop)
                count = sum(name.startswith(f"{one.name} ") or name == one.name for name in taken)
                name = f"{one.name} {count + 1}" if count else one.name
                taken.add(name)
                code = one.code
                if not isinstance(built.part, Failure) and one.size != SIZE_OF_PROGRAM:
                    code = headed(code, size_text(built.part, one.size))
                package.writestr(f"{name}.py", code)
                if "step" in built.files:
                    package.writestr(f"{name}.step", built.files["step"])
    except EXPECTED_ERRORS as error:
        raise in_toast(error) from error
    return _kept(stream.getvalue(), "parts.zip")


def shared_link(entry: Entry) -> str:
    """What stands behind the # of an address that holds the program. Raises gr.Error."""
    try:
        if not entry.code:
            raise InputError("there is no part yet: make one, or press Rebuild")
        return link_of(entry.code)
    except InputError as error:
        raise in_toast(error) from error


# ---- What the actions of the first tab share


def _build(service: Service, code: str, stop: Stop, length: str = "") -> Built | str:
    """The part and its GLB; or what went wrong as HTML."""
    try:
        built = service.build(code, ["glb"], stop, *([length] if length else []))
    except EXPECTED_ERRORS as error:
        return problem_html(message_of(error))
    if isinstance(built.part, Failure):
        return failure_html(built.part, code)
    return built


def _glb(made: Built | Generated) -> bytes | str:
    """The file, or why there is none."""
    return made.files["glb"] if "glb" in made.files else made.no_files["glb"]


def _shown(
    made: Built | Generated,
    entry: Entry,
    visit: list[Entry],
    text: str,
    *,
    sliders: bool = False,
    heading: str = "",
) -> tuple[Any, ...]:
    """All that is shown of a part. Adds it to the visit unless it is there.

    sliders: make new ones, for this program. heading: what is most important to say.
    """
    part, glb = made.part, _glb(made)
    assert isinstance(part, Part)  # failures are told, not shown
    drawing = drawing_of(part, entry.eye)
    rows, unlike = list(entry.found), None
    picture = entry.picture if entry.picture and Path(entry.picture).is_file() else None
    if picture and drawing:
        with Image.open(picture) as seen:
            unlike = difference_of(seen, drawing, framed=entry.eye is None)
            if not rows and entry.eye is None:
                rows = likeness_rows(likeness_to(seen, drawing))
    if entry not in visit and drawing:
        small = drawing.resize((160, 160), Image.Resampling.LANCZOS)
        thumbnail = save_pil_to_cache(small, get_upload_folder(), "part", "png")
        entry = replace(entry, thumbnail=thumbnail)
        visit = [entry, *visit][:PARTS_OF_A_VISIT]
    if isinstance(glb, str):
        message, model = problem_html("The part cannot be shown in 3D", glb), None
    else:
        message = remark_html(text, heading)
        model = shown_in_3d(_kept(glb, "part.glb"), entry.eye, entry.picture or "")
    names = [LONGEST_SIDE_NAME, *(one.name for one in numbers(entry.code, None))]
    return Shown(
        message=message,
        code=entry.code,
        state="",
        model=model,
        picture=picture,
        drawing=drawing,
        difference=unlike,
        measures=table_html(rows + measure_rows(part, entry.size)),
        measure=gr.update(choices=names) if sliders else ...,
        gallery=[(one.thumbnail, f"{one.name}: {one.caption}") for one in visit],
        entry=entry,
        visit=visit,
        kept=packed(entry, visit),
        template=entry.code if sliders else ...,
        turn=time.time_ns() if sliders else ...,
    ).values()


def _kept(data: bytes, name: str) -> str:
    """The path of a file with this content."""
    return save_bytes_to_cache(data, name, get_upload_folder())


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
