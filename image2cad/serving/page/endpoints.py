"""The page's named endpoints, for gradio_client and, where it is installed, for MCP clients.

    with gr.Blocks() as page:
        endpoints(service, Stops())

    client = gradio_client.Client("http://127.0.0.1:7860")
    client.predict(gradio_client.handle_file("part.png"), "low", api_name="/generate")["code"]

They return JSON. The HTTP API (api/routes.py) has more: files, streams, keys, clear status codes.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import gradio as gr

from image2cad.common import EFFORTS, InputError
from image2cad.serving.page.display import in_words
from image2cad.serving.page.uploads import taken_as_path
from image2cad.serving.page.visitors import (
    EXPECTED_ERRORS,
    PICTURE_THREADS,
    Stops,
    find_program,
    in_toast,
    run_for,
)
from image2cad.serving.service import Service
from metrics import ALIGNMENTS, Failure, Part


def endpoints(service: Service, stops: Stops) -> None:
    """Add /generate, /execute and /score to the gr.Blocks that is being built."""

    async def generate(picture: str, effort: str, request: gr.Request) -> dict:
        """Find the CadQuery program that rebuilds the CAD part in a picture.

        Args:
            picture: A drawing of one part, as a file.
            effort: none, low (about 8 seconds) or high (about 50 seconds).
        """
        try:
            got = await find_program(
                service, stops, picture, effort, request.session_hash, _quietly
            )
        except EXPECTED_ERRORS as error:
            raise in_toast(error) from error
        figures = {"likeness": got.likeness, "confidence": got.confidence, "source": got.source}
        return {"code": got.code, **figures, **as_json(got.part, got.code)}

    async def execute(code: str, request: gr.Request) -> dict:
        """Run a CadQuery program in isolation and measure the part that it builds.

        Args:
            code: The program, which leaves its part in a variable named result.
        """
        try:
            part = await run_for(stops, request.session_hash, partial(service.execute, code))
        except EXPECTED_ERRORS as error:
            raise in_toast(error) from error
        return as_json(part, code)

    async def score(
        request: gr.Request, prediction: str, reference: str, alignment: str = "best"
    ) -> dict:
        """Compare the parts of two CadQuery programs: does the first run, and their IoU_best.

        Args:
            prediction: The program to score.
            reference: The program of the part as it should be.
            alignment: best, pca or published.
        """
        try:
            if alignment not in ALIGNMENTS:
                raise InputError(
                    f"alignment is one of {', '.join(ALIGNMENTS)}, not {alignment!r:.100}"
                )
            work = partial(service.score, prediction, reference, alignment)
            scores = await run_for(stops, request.session_hash, work)
        except EXPECTED_ERRORS as error:
            raise in_toast(error) from error
        failure = scores["failure"]
        return {**scores, "failure": in_words(failure, prediction) if failure else None}

    with gr.Column(visible=False):  # components, because they tell clients that it is a file
        picture = taken_as_path(gr.Image(type="filepath", image_mode=None, label="picture"))
        effort = gr.Radio(list(EFFORTS), value="low", label="effort")
        answer, button = gr.JSON(label="answer"), gr.Button()
    button.click(
        generate, [picture, effort], answer, api_name="generate", concurrency_limit=PICTURE_THREADS
    )
    gr.api(execute, api_name="execute")
    gr.api(score, api_name="score")


def as_json(part: Part | Failure, code: str) -> dict[str, Any]:
    """A part's measures, or what went wrong, as JSON."""
    if isinstance(part, Failure):
        return {"ok": False, "failure": in_words(part, code), "line": part.line}
    return {
        "ok": True,
        "volume": part.volume,
        "area": part.area,
        "center": part.center.tolist(),
        "bounding_box": part.bounding_box.tolist(),
        "solids": part.solids,
        "faces": part.face_count,
        "valid": part.valid,
    }


def _quietly(share: float, text: str) -> None:
    """No progress is told."""
