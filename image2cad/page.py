"""The page of the app: a picture in, a part out that can be looked at, changed and downloaded.

    page = make_page(service)                       # gr.Blocks; app.py mounts it beside the API
    app = gr.mount_gradio_app(api, page, path="/", **LOOK)

Everything a visitor sends is untrusted: pictures are opened within the service's limits, links are
refused, programs run in isolation only. Left out: accounts, and parts kept beyond a visit.
"""

from __future__ import annotations

from typing import Any

import gradio as gr

from image2cad.asking import Stops
from image2cad.compare_tab import compare_tab
from image2cad.endpoints import endpoints
from image2cad.part_tab import part_tab
from image2cad.service import Service
from image2cad.uploads import refuse_links

DAY = 86_400  # seconds that the files of a visit are kept
STYLE = """
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
FONT = ("system-ui", "Segoe UI", "Roboto", "sans-serif")
MONO = ("ui-monospace", "Menlo", "Consolas", "monospace")
LOOK: dict[str, Any] = {  # for gr.mount_gradio_app; fonts of the visitor's machine only
    "theme": gr.themes.Default(primary_hue="blue", neutral_hue="slate", font=FONT, font_mono=MONO),
    "css": STYLE,
    "footer_links": ["api"],
    "run_history": False,
}


def make_page(service: Service) -> gr.Blocks:
    """The whole page. `service` does all the work."""
    stops = Stops()
    refuse_links()
    with gr.Blocks(
        title="image2cad", fill_width=True, delete_cache=(3600, DAY), analytics_enabled=False
    ) as page:
        gr.Markdown("### image2cad: a picture of a CAD part in, the program that rebuilds it out")
        with gr.Tab("Picture to part"):
            editor = part_tab(service, stops)
        with gr.Tab("Compare two programs"):
            compare_tab(service, stops, editor)
        endpoints(service, stops)
        page.unload(stops.stop)
    # gradio checks paths in requests only for pages that were launched; this one is mounted.
    page.has_launched = True
    return page.queue(max_size=32, default_concurrency_limit=4)
