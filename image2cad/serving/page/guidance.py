"""What a good picture is, with one and a bad one, drawn by our own renderer.

guidance()                                      # inside gr.Blocks
"""

from __future__ import annotations

import gradio as gr
from PIL import Image

from image2cad.cad import build, parse
from image2cad.rendering import draw

EXAMPLE_PART = """import cadquery as cq
result = cq.Workplane("XY").center(40, 25).rect(80, 50).extrude(12)
result = result.union(cq.Workplane("XY").center(40, 40).rect(80, 20).extrude(40))
result = result.cut(cq.Workplane("XY").center(20, 15).circle(8).extrude(12))
result = result.cut(cq.Workplane("XY").center(60, 15).circle(8).extrude(12))
"""
GOOD_PICTURE = """
- One part, all of it in the picture, on a plain ground.
- Seen from a corner, so that three sides show; best with its edges drawn, as CAD viewers do.
- No dimensions, text, hands or shadows. A region can be drawn around the part where there are.
- At least 200 pixels a side. What is hidden in the picture cannot be found: add a view of it.

The bad one below is cut off, and shows two parts.
"""


def guidance() -> None:
    """Text and two pictures, inside what is being built."""
    good, bad = example_pictures()
    gr.Markdown(GOOD_PICTURE)
    with gr.Row():
        for label, picture in (
            ("Good: one whole part", good),
            ("Bad: cut off, and two parts", bad),
        ):
            gr.Image(
                picture, label=label, interactive=False, height=170, min_width=120, buttons=[],
                format="png",
            )  # fmt: skip


def example_pictures() -> tuple[Image.Image, Image.Image]:
    """A picture that is read well, and one that is not."""
    drawing = build(parse(EXAMPLE_PART) or ())
    assert drawing is not None
    good = Image.fromarray(draw(drawing))
    bad = Image.new("RGB", good.size, "white")
    bad.paste(good.resize((330, 330)), (-90, 150))
    bad.paste(good.resize((250, 250)).rotate(20, fillcolor="white"), (230, -20))
    return good, bad
