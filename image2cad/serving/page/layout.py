"""The page of the app: a picture in, a part out that can be looked at, changed and downloaded.

    page = make_page(service)                       # gr.Blocks; app.py mounts it beside the API
    app = gr.mount_gradio_app(api, page, path="/", **PAGE_LOOK)

Everything a visitor sends is untrusted: pictures are opened within the service's limits, links are
refused, programs run in isolation only. Left out: accounts, and parts kept beyond a visit.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path
from typing import Any

import gradio as gr

from image2cad.cad import numbers
from image2cad.common import BUNDLED, EFFORTS
from image2cad.reading import MISSING, TOO_MUCH
from image2cad.serving.backends import Backend
from image2cad.serving.page.actions import (
    LONGEST_SIDE_NAME,
    compare,
    download,
    download_all,
    go_back,
    make_part,
    make_parts,
    mark_edited,
    move_slider,
    open_again,
    rebuild,
    resize,
    set_number,
    shared_link,
    undo,
)
from image2cad.serving.page.display import problem_html, remark_html
from image2cad.serving.page.endpoints import endpoints
from image2cad.serving.page.guidance import guidance
from image2cad.serving.page.keeping import Entry
from image2cad.serving.page.regions import region_of, with_corner
from image2cad.serving.page.uploads import refuse_links, taken_as_path, taken_as_paths
from image2cad.serving.page.view3d import view_3d
from image2cad.serving.page.visitors import (
    EXPECTED_ERRORS,
    PICTURE_THREADS,
    Asked,
    Stops,
    message_of,
    run_for,
)
from image2cad.serving.service import Service
from image2cad.verification import EYES

# ---- The page

VISIT_FILES = (600, 4 * 3600)  # seconds between two looks, and that files are kept
PAGE_CSS = """
.message {padding: 6px 12px; border-left: 3px solid var(--color-accent)}
.problem {border-left-color: var(--error-border-color, #b91c1c)}
.problem div {font-family: var(--font-mono); font-size: 13px; white-space: pre-wrap;
  margin-top: 4px}
#numbers .head span, #numbers input {font-size: 13px}
#title h1 {font-size: 18px; margin: 0}
/* The colours of the editor's marks are too pale on white, and too dark on black. */
.cm-line span {color: #1d4ed8 !important}
.dark .cm-line span {color: #93c5fd !important}
.cm-gutterElement {color: var(--body-text-color-subdued)}
#legend i {display: inline-block; width: 12px; height: 12px; margin: 0 4px -1px 8px}
#legend {font-size: 13px; color: var(--body-text-color)}
table.measures {width: 100%; border-collapse: collapse; font-size: 14px}
table.measures, table.measures * {border: none !important}
table.measures tr > * {padding: 4px 8px !important; text-align: left; font-weight: normal;
  border-bottom: 1px solid var(--border-color-primary) !important}
table.measures th {color: var(--body-text-color-subdued); white-space: nowrap}
"""
TEXT_FONTS = ("system-ui", "Segoe UI", "Roboto", "sans-serif")
CODE_FONTS = ("ui-monospace", "Menlo", "Consolas", "monospace")
READABLE = {  # gradio's own greys are too pale for small text
    "body_text_color_subdued": "*neutral_600",
    "body_text_color_subdued_dark": "*neutral_300",
    "block_info_text_color": "*neutral_600",
    "block_info_text_color_dark": "*neutral_300",
    "block_label_text_color": "*neutral_700",
    "block_label_text_color_dark": "*neutral_200",
    "block_title_text_color": "*neutral_700",
    "block_title_text_color_dark": "*neutral_200",
    "input_placeholder_color": "*neutral_500",
    "input_placeholder_color_dark": "*neutral_400",
    "slider_color": "*primary_600",
    "button_primary_background_fill": "*primary_600",
    "button_primary_background_fill_hover": "*primary_700",
}
PAGE_LOOK: dict[str, Any] = {  # for gr.mount_gradio_app; fonts of the visitor's machine only
    "theme": gr.themes.Default(
        primary_hue="blue", neutral_hue="slate", font=TEXT_FONTS, font_mono=CODE_FONTS
    ).set(**READABLE),
    "css": PAGE_CSS,
    "js": Path(__file__).with_name("page.js").read_text(encoding="utf-8"),
    "footer_links": ["api"],
    "run_history": False,
}


def make_page(service: Service) -> gr.Blocks:
    """The whole page. `service` does all the work."""
    stops = Stops()
    refuse_links()
    with gr.Blocks(
        title="image2cad",
        fill_width=True,
        delete_cache=VISIT_FILES,
        analytics_enabled=False,
    ) as page:
        gr.Markdown(
            "# image2cad: a picture of a CAD part in, the program that rebuilds it out",
            elem_id="title",
        )
        with gr.Tab("Picture to part"):
            editor = part_tab(service, stops, page)
        with gr.Tab("Compare two programs"):
            compare_tab(service, stops, editor)
        endpoints(service, stops)
        page.unload(stops.end_all)
    # gradio checks paths in requests only for pages that were launched; this one is mounted.
    page.has_launched = True
    return page.queue(max_size=32, default_concurrency_limit=4)


# ---- The first tab: from a picture to a part, its program, its numbers and its files

MOST_EXAMPLES = 8  # two rows
DOWNLOAD_BUTTONS = {
    "step": "STEP",
    "stl": "STL",
    "3mf": "3MF",
    "glb": "GLB",
    "dxf": "DXF",
    "py": ".py",
}
FIRST_MESSAGE = "Give a picture, or write a program and press Rebuild."
LEGEND_HTML = (
    f'<div id="legend">Difference: <i style="background:rgb{MISSING}"></i>missing'
    f'<i style="background:rgb{TOO_MUCH}"></i>too much</div>'
)
SAVE_IN_BROWSER = """(file) => {
  if (!file) return;
  const link = document.createElement("a");
  link.href = file.url; link.download = file.orig_name;
  document.body.append(link); link.click(); link.remove();
}"""
SHARE_IN_BROWSER = """(link) => {
  if (!link) return link;
  history.replaceState(null, "", "#" + link);
  if (navigator.clipboard) navigator.clipboard.writeText(location.href).catch(() => {});
  return location.href;
}"""
LINK_OF_ADDRESS = "(kept, link) => [kept, location.hash]"
KEPT_UNDER = "image2cad-visit"  # in the browser's storage

CAMERA_CHOICES = [("not known", ""), *((name, name) for name in EYES)]


def what_is_read(backend: Backend) -> str:
    """What pictures the page can do something with, for users."""
    known = (
        "Reads pictures of CAD viewers, shaded or as lines, from any side, on a plain background, "
        "and sheets of three views. "
    )
    if backend.reads_text:
        return known + (
            "Photographs, dimensioned drawings and the text beside a picture go to the model "
            "of another server; its programs are checked here."
        )
    return known + (
        "Photographs and the numbers of dimensioned drawings are not read here: that takes a "
        "server with a vision model behind this page."
    )


def part_tab(service: Service, stops: Stops, page: gr.Blocks) -> gr.Code:
    """Build the tab inside the current context; return the editor."""
    entry, visit, template, turn = gr.State(Entry()), gr.State([]), gr.State(""), gr.State(0)
    kept = gr.BrowserState(None, storage_key=KEPT_UNDER, secret=KEPT_UNDER)
    with gr.Row():
        with gr.Column(scale=3, min_width=300):
            given = taken_as_path(gr.Image(
                label="Picture of a part", type="filepath", image_mode=None, height=300,
                sources=["upload", "clipboard"], elem_id="given",
            ))  # fmt: skip
            length = gr.Textbox(
                label="Length of the longest side, mm", placeholder="not known", max_length=80,
                info="Left empty, the size is assumed. Enter scales the part that is shown.",
                elem_id="length",
            )  # fmt: skip
            effort = gr.Radio(
                [(one.text, name) for name, one in EFFORTS.items()],
                value="low",
                label="Effort",
                elem_id="effort",
            )
            with gr.Accordion("Region, further views, camera, text", open=False, elem_id="more"):
                box = gr.Textbox(
                    label="Region of the picture that holds the part, pixels", max_length=80,
                    info="Click two opposite corners in the picture, or type them.",
                    placeholder="x0, y0, x1, y1", elem_id="box",
                )  # fmt: skip
                region = gr.Image(
                    label="Region", interactive=False, height=160, format="png", visible=False,
                    buttons=[], elem_id="region",
                )  # fmt: skip
                views = taken_as_paths(gr.File(
                    label="Further pictures of the same part, from other sides",
                    file_count="multiple", height=120, elem_id="views",
                ))  # fmt: skip
                camera = gr.Dropdown(
                    CAMERA_CHOICES, value="", label="Seen from (z is up)", elem_id="camera",
                    info="Of one picture. Not known: it is estimated.", allow_custom_value=False,
                )  # fmt: skip
                degrees = gr.Textbox(
                    label="Azimuth, elevation in degrees", placeholder="-45, 35", max_length=40,
                    info="In the place of a name above; -90, 0 is the front.", elem_id="degrees",
                )  # fmt: skip
                text = gr.Textbox(
                    label="Text beside the picture", lines=2, elem_id="text",
                    max_length=service.limits.text_letters, visible=service.backend.reads_text,
                )  # fmt: skip
            gr.Markdown(what_is_read(service.backend), elem_id="reads")
            with gr.Row():
                start = gr.Button("Make the part", variant="primary", elem_id="start", scale=2)
                cancel = gr.Button("Cancel", elem_id="cancel", scale=1)
            with gr.Accordion("What a good picture is", open=False, elem_id="good"):
                guidance()
            with gr.Accordion("Several parts, a picture each", open=False, elem_id="batch"):
                many = taken_as_paths(gr.File(
                    label="Pictures, each of a part of its own", file_count="multiple", height=120,
                    elem_id="many",
                ))  # fmt: skip
                with gr.Row():
                    start_many = gr.Button("Make all parts", size="md", elem_id="batch-start")
                    save_all = gr.Button("Save all of this visit", size="md", elem_id="save-all")
            examples = sorted((BUNDLED / "test").glob("*.png"))[:MOST_EXAMPLES]
            gr.Examples([[str(file)] for file in examples], given, label="Bundled pictures")
        with gr.Column(scale=9, min_width=300):
            message = gr.HTML(remark_html(FIRST_MESSAGE), elem_id="message")
            with gr.Row():
                with gr.Column(scale=5, min_width=300):
                    model = view_3d()
                    state = gr.HTML("", elem_id="state")
                    with gr.Row(elem_id="downloads"):
                        savers = {
                            kind: gr.Button(name, size="sm", min_width=56, elem_id=f"save-{kind}")
                            for kind, name in DOWNLOAD_BUTTONS.items()
                        }
                    file = gr.DownloadButton(visible="hidden")
                with gr.Column(scale=4, min_width=300):
                    with gr.Row():
                        picture = _shown_picture("Picture")
                        drawing = _shown_picture("Part, drawn alike")
                        unlike = _shown_picture("Difference", "difference")
                    gr.HTML(LEGEND_HTML)
                    table_of = gr.HTML(elem_id="measures")
            with gr.Row():
                with gr.Column(scale=5, min_width=300):
                    editor = gr.Code(
                        language="python", label="Program, lengths in mm", lines=12, max_lines=24,
                        interactive=True, wrap_lines=True, elem_id="program",
                    )  # fmt: skip
                    with gr.Row():
                        build_again = gr.Button("Rebuild", size="md", elem_id="rebuild")
                        undo_last = gr.Button("Undo", size="md", elem_id="undo")
                        share = gr.Button("Copy a link", size="md", elem_id="share")
                    link = gr.Textbox(
                        label="Link with the program in it", interactive=False, visible="hidden",
                        elem_id="link", buttons=["copy"],
                    )  # fmt: skip
                with gr.Column(scale=4, min_width=300):
                    with gr.Row(elem_id="one-number"):
                        measure = gr.Dropdown(
                            [], label="Any number of the part", elem_id="measure", min_width=140,
                            allow_custom_value=False,
                        )  # fmt: skip
                        value = gr.Textbox(
                            label="Its value, mm", max_length=40, elem_id="value", min_width=90
                        )
                    with gr.Row():
                        set_one = gr.Button("Change it", size="md", elem_id="set")
                        scale_all = gr.Button("Scale all to it", size="md", elem_id="scale")
                    slots = gr.Column(min_width=300)
    gallery = gr.Gallery(
        label="This visit: choose a part to go back to it", columns=8, height=190,
        allow_preview=False, interactive=False, object_fit="contain", elem_id="visit",
        fit_columns=False, buttons=[],
    )  # fmt: skip
    shown: list[Any] = [message, editor, state, model, picture, drawing, unlike, table_of, measure]
    shown += [gallery, entry, visit, kept, template, turn]
    private: dict[str, Any] = {"outputs": shown, "api_visibility": "private"}

    # Functions and no partials, where gradio looks at the arguments' types.
    async def on_start(
        file: str | None, effort: str, visit: list[Entry], views: list[str], camera: str,
        degrees: str, text: str, length: str, box: str, entry: Entry, request: gr.Request,
        progress: gr.Progress = gr.Progress(),  # noqa: B008  (gradio's way to hand one over)
    ) -> tuple[Any, ...]:  # fmt: skip
        where = (degrees or "").strip() or camera or ""
        asked = Asked(tuple(views or ()), where, text or "", length or "", box or "")
        session = request.session_hash
        return await make_part(service, stops, file, effort, visit, session, progress, asked, entry)

    async def on_start_many(
        files: list[str], effort: str, visit: list[Entry], length: str, entry: Entry,
        request: gr.Request,
        progress: gr.Progress = gr.Progress(),  # noqa: B008
    ) -> AsyncIterator[tuple[Any, ...]]:  # fmt: skip
        asked, session = Asked(length=length or ""), request.session_hash
        parts = make_parts(service, stops, files, effort, visit, session, progress, asked, entry)
        async for values in parts:
            yield values

    async def on_choice(
        visit: list[Entry], chosen: gr.SelectData, request: gr.Request
    ) -> tuple[Any, ...]:
        work = partial(go_back, service, visit, chosen.index)
        return await run_for(stops, request.session_hash, work)

    async def on_rebuild(request: gr.Request, *values: Any) -> tuple[Any, ...]:
        return await run_for(stops, request.session_hash, partial(rebuild, service, *values))

    async def on_move(request: gr.Request, *values: Any) -> tuple[Any, ...]:
        return await run_for(stops, request.session_hash, partial(move_slider, service, *values))

    async def on_set(request: gr.Request, *values: Any) -> tuple[Any, ...]:
        return await run_for(stops, request.session_hash, partial(set_number, service, *values))

    async def on_length(request: gr.Request, *values: Any) -> tuple[Any, ...]:
        return await run_for(stops, request.session_hash, partial(resize, service, *values))

    async def on_scale(
        code: str, entry: Entry, visit: list[Entry], name: str, value: str, request: gr.Request
    ) -> tuple[Any, ...]:
        length = value if not name or name == LONGEST_SIDE_NAME else f"{name}={value}"
        work = partial(resize, service, code, entry, visit, length)
        return await run_for(stops, request.session_hash, work)

    async def on_undo(entry: Entry, visit: list[Entry], request: gr.Request) -> tuple[Any, ...]:
        return await run_for(stops, request.session_hash, partial(undo, service, entry, visit))

    async def on_load(kept: Any, link: str, request: gr.Request) -> tuple[Any, ...]:
        return await run_for(stops, request.session_hash, partial(open_again, service, kept, link))

    async def on_save(kind: str, code: str, entry: Entry, request: gr.Request) -> str:
        work = partial(download, service, kind, code, entry)
        return await run_for(stops, request.session_hash, work)

    async def on_save_all(visit: list[Entry], request: gr.Request) -> str:
        return await run_for(stops, request.session_hash, partial(download_all, service, visit))

    def on_corner(text: str, chosen: gr.SelectData) -> str:
        return with_corner(text, chosen.index)

    def on_region(text: str, file: str | None) -> Any:
        return gr.update(value=region_of(text, file, service.limits), visible=bool(text and file))

    def on_share(entry: Entry) -> str:
        return shared_link(entry)

    alone: dict[str, Any] = {"queue": False, "api_visibility": "private"}
    for button, work, values in (
        (start, on_start, [given, effort, visit, views, camera, degrees, text, length, box, entry]),
        (start_many, on_start_many, [many, effort, visit, length, entry]),
    ):
        asked = button.click(stops.expect, None, None, **alone)
        asked.then(
            work, values, show_progress_on=message, concurrency_limit=PICTURE_THREADS,
            **private,
        )  # fmt: skip
    cancel.click(stops.end_all, None, None, **alone)
    now = [editor, entry, visit]
    build_again.click(on_rebuild, now, show_progress_on=model, **private)
    undo_last.click(on_undo, [entry, visit], show_progress_on=model, **private)
    length.submit(on_length, [*now, length], show_progress_on=model, **private)
    gr.on([set_one.click, value.submit], on_set, [*now, measure, value], show_progress_on=model,
          **private)  # fmt: skip
    scale_all.click(on_scale, [*now, measure, value], show_progress_on=model, **private)
    gallery.select(on_choice, [visit], show_progress_on=model, **private)
    editor.input(mark_edited, [editor, entry], state, show_progress="hidden",
                 trigger_mode="always_last", **alone)  # fmt: skip
    share.click(on_share, [entry], link, **alone).then(
        None, link, link, js=SHARE_IN_BROWSER, api_visibility="private"
    ).then(lambda: gr.update(visible=True), None, link, **alone)
    for kind, button in savers.items():
        made = button.click(on_save, [gr.State(kind), editor, entry], file,
                            api_visibility="private")  # fmt: skip
        made.success(None, file, None, js=SAVE_IN_BROWSER)
    made = save_all.click(on_save_all, [visit], file, api_visibility="private")
    made.success(None, file, None, js=SAVE_IN_BROWSER)
    given.select(on_corner, [box], [box], **alone)
    page.load(on_load, [kept, gr.Textbox(visible=False)], js=LINK_OF_ADDRESS,
              show_progress="hidden", **private)  # fmt: skip

    with slots:

        @gr.render(inputs=[template], triggers=[turn.change])
        def sliders(code: str) -> None:
            found = numbers(code)
            if not found:
                return
            with gr.Row(elem_id="numbers"):
                handles = [
                    gr.Slider(
                        n.low,
                        n.high,
                        n.value,
                        step=n.step,
                        label=f"{n.name}, {n.unit}" if n.unit else n.name,
                        min_width=200,
                        interactive=True,
                    )  # fmt: skip
                    for n in found
                ]
            for handle in handles:
                handle.release(
                    on_move, [editor, entry, visit, template, *handles],
                    show_progress="hidden", trigger_mode="always_last", **private,
                )  # fmt: skip

    gr.on([box.change, given.change], on_region, [box, given], region, **alone)
    return editor


def _shown_picture(label: str, name: str | None = None) -> gr.Image:
    return gr.Image(
        label=label,
        interactive=False,
        height=240,
        format="png",
        min_width=140,
        buttons=["fullscreen"],
        elem_id=name,
    )


# ---- The second tab: two programs, their scores and their pictures

ABOUT_SCORES = """
**VSR**: whether the first program runs and leaves a solid. **IoU_best**: both parts are moved to
their centre of mass, scaled to the same radius of gyration and aligned; then the volume they share
over the volume of both. Aligned as they fit best, by any rotation (`best`); along the principal
axes, four rotations (`pca`); in CAD-Coder's frames, mirrored ones too (`published`). Figures of
different alignments cannot be compared.
"""
FIRST_PROGRAM = (
    'import cadquery as cq\nresult = cq.Workplane("XY").box(30, 20, 10).faces(">Z").hole(8)\n'
)
SECOND_PROGRAM = 'import cadquery as cq\nresult = cq.Workplane("YZ").box(60, 40, 20)\n'


def compare_tab(service: Service, stops: Stops, editor: gr.Code) -> None:
    """Build the tab inside the current context."""
    with gr.Row():
        sides = []
        for label, name, code in (
            ("Program", "first", FIRST_PROGRAM),
            ("Reference", "second", SECOND_PROGRAM),
        ):
            with gr.Column(min_width=360):
                field = gr.Code(
                    code, language="python", label=label, lines=12, max_lines=24,
                    interactive=True, wrap_lines=True, elem_id=name,
                )  # fmt: skip
                sides.append(field)
    with gr.Row():
        take = gr.Button("Take the program of the first tab", size="md")
        start = gr.Button("Score", variant="primary", size="md", elem_id="score")
        cancel = gr.Button("Cancel", size="md")
    with gr.Row():
        pictures = [
            gr.Image(label=label, interactive=False, height=300, buttons=["fullscreen"])
            for label in ("Program's part", "Reference's part")
        ]
        with gr.Column(min_width=360):
            result = gr.HTML(elem_id="scores")
    gr.Markdown(ABOUT_SCORES)

    async def on_score(first: str, second: str, request: gr.Request) -> tuple[Any, ...]:
        try:
            work = partial(compare, service, first, second)
            return await run_for(stops, request.session_hash, work)
        except EXPECTED_ERRORS as error:
            return None, None, problem_html(message_of(error))

    cancel.click(stops.end_all, None, None, queue=False, api_visibility="private")
    take.click(lambda code: code, editor, sides[0], api_visibility="private")
    start.click(on_score, sides, [*pictures, result], api_visibility="private")
