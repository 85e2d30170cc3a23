"""The part in 3D on the page: orthographic, with standard views, by a small script of our own.

    model = view_3d()                               # inside gr.Blocks; shows nothing yet
    return shown_in_3d(glb_file, eye, "picture 1")  # an update for it

gr.Model3D has a perspective that cannot be changed, and turns the part back whenever it changes.
The script (view3d.js) reads the GLB files of cad/exports.py and nothing else.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import gradio as gr
import numpy as np

from image2cad.rendering import EYE

STANDARD_VIEWS = ("iso", "front", "right", "back", "left", "top", "bottom")
VIEW_HTML = """<div class="view3d" role="group" aria-label="Part in 3D">
<div class="buttons">
<button type="button" data-view="start">As in the picture</button>{buttons}</div>
<div class="stage"><canvas tabindex="0" role="img" aria-label="The part in 3D. Arrow keys turn it, \
plus and minus zoom, Home goes back to the picture's view."></canvas>
<p class="told">No part yet.</p></div></div>
"""
VIEW_CSS = """
.view3d .buttons {display: flex; flex-wrap: wrap; gap: 4px; margin-bottom: 4px}
.view3d button {font-size: 13px; padding: 3px 8px; border-radius: 4px; cursor: pointer;
  color: var(--button-secondary-text-color); background: var(--button-secondary-background-fill);
  border: 1px solid var(--border-color-primary)}
.view3d .stage {position: relative; height: 420px; border: 1px solid var(--border-color-primary);
  border-radius: 4px; background: var(--background-fill-secondary)}
.view3d canvas {width: 100%; height: 100%; display: block; touch-action: pan-y; cursor: grab}
.view3d canvas:focus-visible, .view3d button:focus-visible {outline: 2px solid var(--color-accent);
  outline-offset: 1px}
.view3d .told {position: absolute; inset: 45% 0 auto 0; text-align: center; margin: 0;
  color: var(--body-text-color-subdued); pointer-events: none}
"""


def view_3d() -> gr.HTML:
    """The component, inside the gr.Blocks that is being built."""
    buttons = "".join(
        f'<button type="button" data-view="{name}">{name.capitalize()}</button>'
        for name in STANDARD_VIEWS
    )
    script = Path(__file__).with_name("view3d.js").read_text(encoding="utf-8")
    return gr.HTML(
        "", html_template=VIEW_HTML.format(buttons=buttons), css_template=VIEW_CSS,
        js_on_load=script, apply_default_css=False, elem_id="model", seen=[],
    )  # fmt: skip


def shown_in_3d(file: str, eye: Sequence[float] | None, name: str) -> Any:
    """An update that shows a GLB file.

    eye: the direction to the picture's viewer, GenCAD's if None. name: of what is seen; the
    visitor's own view stays until it is another.
    """
    x, y, z = eye or EYE
    azimuth, elevation = np.degrees([np.arctan2(y, x), np.arctan2(z, np.hypot(x, y))])
    return gr.update(value=file, seen=[float(azimuth), float(elevation), name])
