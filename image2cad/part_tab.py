"""The first tab of the page: from a picture to a part, its program, its numbers and its files.

    with gr.Tab("Picture to part"):
        editor = part_tab(service, stops)           # the gr.Code component that holds the program

Components and what they are wired to. What happens then is in visiting.py, the words and
pictures are in viewing.py, the rest of the page in page.py.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import gradio as gr

from image2cad.asking import THREADS, Stops, wanted
from image2cad.service import Service
from image2cad.sliders import numbers
from image2cad.sources import BUNDLED
from image2cad.uploads import unopened
from image2cad.verification import EFFORTS
from image2cad.viewing import remark
from image2cad.visiting import Entry, edit, generate, go_back, move, save

EXAMPLES = 8  # two rows
FORMATS = {"step": "STEP", "stl": "STL", "3mf": "3MF", "glb": "GLB", "dxf": "DXF", "py": ".py"}
BACKGROUND = (0.95, 0.96, 0.97, 1.0)  # behind the part: red, green, blue, opacity
START = "Give a picture, or write a program and press Rebuild."
SAVE = """(file) => {
  if (!file) return;
  const link = document.createElement("a");
  link.href = file.url; link.download = file.orig_name;
  document.body.append(link); link.click(); link.remove();
}"""


def part_tab(service: Service, stops: Stops) -> gr.Code:
    """Build the tab inside the current context; return the editor."""
    entry, visit, template = gr.State(Entry()), gr.State([]), gr.State("")
    with gr.Row():
        with gr.Column(scale=3, min_width=300):
            given = unopened(gr.Image(
                label="Picture of a part", type="filepath", image_mode=None, height=300,
                sources=["upload", "clipboard"], elem_id="given",
            ))  # fmt: skip
            effort = gr.Radio(_efforts(), value="low", label="Effort", elem_id="effort")
            with gr.Row():
                start = gr.Button("Make the part", variant="primary", elem_id="start", scale=2)
                cancel = gr.Button("Cancel", interactive=False, elem_id="cancel", scale=1)
            message = gr.HTML(remark(START), elem_id="message")
            examples = sorted((BUNDLED / "test").glob("*.png"))[:EXAMPLES]
            gr.Examples([[str(file)] for file in examples], given, label="Bundled pictures")
        with gr.Column(scale=9, min_width=600):
            with gr.Row():
                with gr.Column(scale=5, min_width=360):
                    model = gr.Model3D(
                        label="Part", height=420, interactive=False, elem_id="model",
                        display_mode="solid", clear_color=BACKGROUND,
                    )  # fmt: skip
                    with gr.Row(elem_id="downloads"):
                        savers = {
                            kind: gr.Button(name, size="sm", min_width=56, elem_id=f"save-{kind}")
                            for kind, name in FORMATS.items()
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
                    rebuild = gr.Button("Rebuild", size="md", elem_id="rebuild")
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
        file: str | None, effort: str, visit: list[Entry], request: gr.Request,
        progress: gr.Progress = gr.Progress(),  # noqa: B008  (gradio's way to hand one over)
    ) -> tuple[Any, ...]:  # fmt: skip
        return await generate(service, stops, file, effort, visit, request.session_hash, progress)

    async def on_choice(
        visit: list[Entry], chosen: gr.SelectData, request: gr.Request
    ) -> tuple[Any, ...]:
        work = partial(go_back, service, visit, chosen.index)
        return await wanted(stops, request.session_hash, work)

    async def on_rebuild(request: gr.Request, *values: Any) -> tuple[Any, ...]:
        return await wanted(stops, request.session_hash, partial(edit, service, *values))

    async def on_move(request: gr.Request, *values: Any) -> tuple[Any, ...]:
        return await wanted(stops, request.session_hash, partial(move, service, *values))

    async def on_save(kind: str, code: str, request: gr.Request) -> str:
        return await wanted(stops, request.session_hash, partial(save, service, kind, code))

    alone: dict[str, Any] = {"queue": False, "api_visibility": "private"}
    start.click(lambda: gr.update(interactive=True), None, cancel, **alone)
    run = start.click(
        on_start, [given, effort, visit], show_progress_on=model, concurrency_limit=THREADS,
        **private,
    )  # fmt: skip
    run.then(lambda: gr.update(interactive=False), None, cancel, **alone)
    cancel.click(stops.stop, None, None, **alone)
    rebuild.click(on_rebuild, [editor, entry, visit], show_progress_on=model, **private)
    gallery.select(on_choice, [visit], show_progress_on=model, **private)
    for kind, button in savers.items():
        made = button.click(on_save, [gr.State(kind), editor], file, api_visibility="private")
        made.success(None, file, None, js=SAVE)

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


def _efforts() -> list[tuple[str, str]]:
    """Labels with the seconds that an effort may take, and its name."""
    words = {"none": "none: the model's first program", "low": "low", "high": "high"}
    return [
        (f"{words[name]}, about {seconds:.0f} s" if seconds else words[name], name)
        for name, seconds in EFFORTS.items()
    ]


def _shown_picture(label: str) -> gr.Image:
    return gr.Image(
        label=label,
        interactive=False,
        height=240,
        format="png",
        min_width=140,
        buttons=["fullscreen"],
    )
