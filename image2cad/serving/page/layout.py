"""The page of the app: a picture in, a part out that can be looked at, changed and downloaded.

    page = make_page(service)                       # gr.Blocks; app.py mounts it beside the API
    app = gr.mount_gradio_app(api, page, path="/", **PAGE_LOOK)

Everything a visitor sends is untrusted: pictures are opened within the service's limits, links are
refused, programs run in isolation only. Left out: accounts, and parts kept beyond a visit.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import gradio as gr

from image2cad.cad import numbers
from image2cad.common import BUNDLED, EFFORTS
from image2cad.serving.backends import Backend
from image2cad.serving.page.actions import (
    Entry,
    compare,
    download,
    go_back,
    make_part,
    move_slider,
    rebuild,
)
from image2cad.serving.page.display import problem_html, remark_html
from image2cad.serving.page.endpoints import endpoints
from image2cad.serving.page.uploads import refuse_links, taken_as_path, taken_as_paths
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
table.measures {width: 100%; border-collapse: collapse; font-size: 14px}
table.measures, table.measures * {border: none !important}
table.measures tr > * {padding: 4px 8px !important; text-align: left; font-weight: normal;
  border-bottom: 1px solid var(--border-color-primary) !important}
table.measures th {color: var(--body-text-color-subdued); white-space: nowrap}
"""
TEXT_FONTS = ("system-ui", "Segoe UI", "Roboto", "sans-serif")
CODE_FONTS = ("ui-monospace", "Menlo", "Consolas", "monospace")
PAGE_LOOK: dict[str, Any] = {  # for gr.mount_gradio_app; fonts of the visitor's machine only
    "theme": gr.themes.Default(
        primary_hue="blue", neutral_hue="slate", font=TEXT_FONTS, font_mono=CODE_FONTS
    ),
    "css": PAGE_CSS,
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
        gr.Markdown("### image2cad: a picture of a CAD part in, the program that rebuilds it out")
        with gr.Tab("Picture to part"):
            editor = part_tab(service, stops)
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
MODEL_BACKGROUND = (0.95, 0.96, 0.97, 1.0)  # behind the part: red, green, blue, opacity
FIRST_MESSAGE = "Give a picture, or write a program and press Rebuild."
SAVE_IN_BROWSER = """(file) => {
  if (!file) return;
  const link = document.createElement("a");
  link.href = file.url; link.download = file.orig_name;
  document.body.append(link); link.click(); link.remove();
}"""


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


def part_tab(service: Service, stops: Stops) -> gr.Code:
    """Build the tab inside the current context; return the editor."""
    entry, visit, template = gr.State(Entry()), gr.State([]), gr.State("")
    with gr.Row():
        with gr.Column(scale=3, min_width=300):
            given = taken_as_path(gr.Image(
                label="Picture of a part", type="filepath", image_mode=None, height=300,
                sources=["upload", "clipboard"], elem_id="given",
            ))  # fmt: skip
            effort = gr.Radio(
                [(one.text, name) for name, one in EFFORTS.items()],
                value="low",
                label="Effort",
                elem_id="effort",
            )
            with gr.Accordion("Further views, camera, text", open=False, elem_id="more"):
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
                cancel = gr.Button("Cancel", interactive=False, elem_id="cancel", scale=1)
            message = gr.HTML(remark_html(FIRST_MESSAGE), elem_id="message")
            examples = sorted((BUNDLED / "test").glob("*.png"))[:MOST_EXAMPLES]
            gr.Examples([[str(file)] for file in examples], given, label="Bundled pictures")
        with gr.Column(scale=9, min_width=600):
            with gr.Row():
                with gr.Column(scale=5, min_width=360):
                    model = gr.Model3D(
                        label="Part", height=420, interactive=False, elem_id="model",
                        display_mode="solid", clear_color=MODEL_BACKGROUND,
                    )  # fmt: skip
                    with gr.Row(elem_id="downloads"):
                        savers = {
                            kind: gr.Button(name, size="sm", min_width=56, elem_id=f"save-{kind}")
                            for kind, name in DOWNLOAD_BUTTONS.items()
                        }
                    file = gr.DownloadButton(visible="hidden")
                with gr.Column(scale=4, min_width=320):
                    with gr.Row():
                        picture = _shown_picture("Picture")
                        drawing = _shown_picture("Part, drawn alike")
                    table_of = gr.HTML(elem_id="measures")
            with gr.Row():
                with gr.Column(scale=5, min_width=360):
                    editor = gr.Code(
                        language="python", label="Program", lines=12, max_lines=24,
                        interactive=True, wrap_lines=True, elem_id="program",
                    )  # fmt: skip
                    build_again = gr.Button("Rebuild", size="md", elem_id="rebuild")
                slots = gr.Column(scale=4, min_width=320)
    gallery = gr.Gallery(
        label="This visit: choose a part to go back to it", columns=8, height=190,
        allow_preview=False, interactive=False, object_fit="contain", elem_id="visit",
        fit_columns=False, buttons=[],
    )  # fmt: skip
    shown: list[Any] = [message, editor, model, picture, drawing, table_of, gallery]
    shown += [entry, visit, template]
    private: dict[str, Any] = {"outputs": shown, "api_visibility": "private"}

    # Functions and no partials, where gradio looks at the arguments' types.
    async def on_start(
        file: str | None, effort: str, visit: list[Entry], views: list[str], camera: str,
        degrees: str, text: str, request: gr.Request,
        progress: gr.Progress = gr.Progress(),  # noqa: B008  (gradio's way to hand one over)
    ) -> tuple[Any, ...]:  # fmt: skip
        asked = Asked(tuple(views or ()), (degrees or "").strip() or camera or "", text or "")
        session = request.session_hash
        return await make_part(service, stops, file, effort, visit, session, progress, asked)

    async def on_choice(
        visit: list[Entry], chosen: gr.SelectData, request: gr.Request
    ) -> tuple[Any, ...]:
        work = partial(go_back, service, visit, chosen.index)
        return await run_for(stops, request.session_hash, work)

    async def on_rebuild(request: gr.Request, *values: Any) -> tuple[Any, ...]:
        return await run_for(stops, request.session_hash, partial(rebuild, service, *values))

    async def on_move(request: gr.Request, *values: Any) -> tuple[Any, ...]:
        return await run_for(stops, request.session_hash, partial(move_slider, service, *values))

    async def on_save(kind: str, code: str, request: gr.Request) -> str:
        return await run_for(stops, request.session_hash, partial(download, service, kind, code))

    alone: dict[str, Any] = {"queue": False, "api_visibility": "private"}

    def on_asked(request: gr.Request) -> dict[str, Any]:
        stops.expect(request)
        return gr.update(interactive=True)

    asked = start.click(on_asked, None, cancel, **alone)
    run = asked.then(
        on_start, [given, effort, visit, views, camera, degrees, text], show_progress_on=model,
        concurrency_limit=PICTURE_THREADS, **private,
    )  # fmt: skip
    run.then(lambda: gr.update(interactive=False), None, cancel, **alone)
    cancel.click(stops.end_all, None, None, **alone)
    build_again.click(on_rebuild, [editor, entry, visit], show_progress_on=model, **private)
    gallery.select(on_choice, [visit], show_progress_on=model, **private)
    for kind, button in savers.items():
        made = button.click(on_save, [gr.State(kind), editor], file, api_visibility="private")
        made.success(None, file, None, js=SAVE_IN_BROWSER)

    with slots:

        @gr.render(inputs=[template], triggers=[template.change])
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
                        label=n.name,
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

    return editor


def _shown_picture(label: str) -> gr.Image:
    return gr.Image(
        label=label,
        interactive=False,
        height=240,
        format="png",
        min_width=140,
        buttons=["fullscreen"],
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

    take.click(lambda code: code, editor, sides[0], api_visibility="private")
    start.click(on_score, sides, [*pictures, result], api_visibility="private")
