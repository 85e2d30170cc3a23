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
from image2cad.serving.api.schemas import told
from image2cad.serving.page.display import in_words
from image2cad.serving.page.uploads import taken_as_path, taken_as_paths
from image2cad.serving.page.visitors import (
    EXPECTED_ERRORS,
    PICTURE_THREADS,
    Asked,
    Stops,
    find_program,
    in_toast,
    run_for,
)
from image2cad.serving.service import Service
from metrics import ALIGNMENTS, Failure, Part


def endpoints(service: Service, stops: Stops) -> None:
    """Add /generate, /generate_views, /execute and /score to the gr.Blocks that is being built."""

    async def generate(picture: str, effort: str, request: gr.Request) -> dict:
        """Find the CadQuery program that rebuilds the CAD part in a picture.

        Args:
            picture: A drawing of one part, as a file.
            effort: none, low (seconds) or high (a minute or two).
        """
        return await found(picture, Asked(), effort, request.session_hash)

    async def generate_views(
        pictures: list[str], effort: str, camera: str, text: str, request: gr.Request
    ) -> dict:
        """Find the program of a part from one picture or from several views of it.

        Args:
            pictures: Drawings of one part from one or more sides, as files.
            effort: none, low (seconds) or high (a minute or two).
            camera: Where one picture is seen from: isometric, front, back, left, right, top,
                bottom, or azimuth and elevation in degrees ("-45, 35"); empty, it is estimated.
            text: What is known beside the picture, for servers whose model reads text.
        """
        first, *views = pictures or [""]
        asked = Asked(tuple(views), str(camera or ""), str(text or ""))
        return await found(first, asked, effort, request.session_hash)

    async def found(picture: str, asked: Asked, effort: str, session: str | None) -> dict:
        try:
            got = await find_program(
                service, stops, picture, effort, session, _quietly, asked=asked
            )
        except EXPECTED_ERRORS as error:
            raise in_toast(error) from error
        return {"code": got.code, **told(got), **as_json(got.part, got.code)}

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
        pictures = taken_as_paths(gr.File(file_count="multiple", label="pictures"))
        camera = gr.Textbox("", label="camera")
        text = gr.Textbox("", label="text", max_length=service.limits.text_letters)
        answer, button = gr.JSON(label="answer"), gr.Button()
    most: dict[str, Any] = {"concurrency_limit": PICTURE_THREADS}
    button.click(generate, [picture, effort], answer, api_name="generate", **most)
    several = [pictures, effort, camera, text]
    button.click(generate_views, several, answer, api_name="generate_views", **most)
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
