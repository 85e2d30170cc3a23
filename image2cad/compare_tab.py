"""The second tab of the page: two programs, their scores and their pictures.

with gr.Tab("Compare two programs"):
    compare_tab(service, stops, editor)         # editor: of the first tab, to take a program from
"""

from __future__ import annotations

from functools import partial
from typing import Any

import gradio as gr
from PIL import Image

from image2cad.asking import EXPECTED, Stops, told, wanted
from image2cad.deadlines import Cancel
from image2cad.errors import InputError
from image2cad.service import Service
from image2cad.viewing import explain, explained, problem, table, view
from metrics.alignment import ALIGNMENTS
from metrics.execution import Failure

NOTE = """
**VSR**: whether the first program runs and leaves a solid. **IoU_best**: both parts are moved to
their centre of mass, scaled to the same radius of gyration and aligned; then the volume they share
over the volume of both. Aligned as they fit best, by any rotation (`best`); along the principal
axes, four rotations (`pca`); in CAD-Coder's frames, mirrored ones too (`published`). Figures of
different alignments cannot be compared.
"""
FIRST = 'import cadquery as cq\nresult = cq.Workplane("XY").box(30, 20, 10).faces(">Z").hole(8)\n'
SECOND = 'import cadquery as cq\nresult = cq.Workplane("YZ").box(60, 40, 20)\n'


def compare_tab(service: Service, stops: Stops, editor: gr.Code) -> None:
    """Build the tab inside the current context."""
    with gr.Row():
        sides = []
        for label, name, code in (("Program", "first", FIRST), ("Reference", "second", SECOND)):
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
    gr.Markdown(NOTE)

    async def on_score(first: str, second: str, request: gr.Request) -> tuple[Any, ...]:
        try:
            work = partial(compared, service, first, second)
            return await wanted(stops, request.session_hash, work)
        except EXPECTED as error:
            return None, None, problem(told(error))

    take.click(lambda code: code, editor, sides[0], api_visibility="private")
    start.click(on_score, sides, [*pictures, result], api_visibility="private")


def compared(
    service: Service, first: str, second: str, cancelled: Cancel = None
) -> tuple[Image.Image | None, Image.Image | None, str]:
    """The drawings of both parts, and their scores as HTML. Raises what the service raises."""
    parts = [service.execute(code, cancelled) for code in (first, second)]
    drawings = [None if isinstance(part, Failure) else view(part) for part in parts]
    if isinstance(parts[1], Failure):
        raise InputError(f"there is nothing to compare with. {explain(parts[1], second)}")
    rows = []
    for name in ALIGNMENTS:
        scores = service.score(first, second, name, cancelled)
        rows.append((name, f"{scores['vsr']:.0f}", f"{scores['iou_best']:.4f}"))
    text = table(rows, ("Alignment", "VSR", "IoU_best"))
    if isinstance(parts[0], Failure):
        text = explained(parts[0], first) + text
    return drawings[0], drawings[1], text
