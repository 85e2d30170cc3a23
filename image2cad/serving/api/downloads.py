"""Files as files: a part in the one format that a client accepts, in place of JSON.

    kind = wanted_kind(request, format)     # of ?format=step or Accept: model/step; None is JSON
    return file_answer(made, kind, "bracket", {"likeness": 0.99})

The name of a file is that of the picture; the size and where it is from stand in the headers.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

from fastapi import HTTPException, Request, Response

from image2cad.cad import FORMATS
from image2cad.serving.api.errors import error
from image2cad.serving.jobs import Built, size_text
from image2cad.serving.service import Generated
from metrics import Failure

MEDIA_TYPES = {
    "step": "model/step",
    "stl": "model/stl",
    "3mf": "model/3mf",
    "glb": "model/gltf-binary",
    "dxf": "image/vnd.dxf",
    "py": "text/x-python",
}
JSON_TYPES = ("application/json", "application/*", "*/*")
MOST_ACCEPTED = 32  # types in a header
FORMAT_HELP = "one file in place of JSON, as the header Accept with its type does"
NO_LETTERS = {ord(one): "_" for one in '"\\/'} | dict.fromkeys(range(32), "_")


def wanted_kind(request: Request, named: str) -> str | None:
    """The format that a client wants to have as a file; None for JSON.

    named: by ?format=, which goes before the header. Raises HTTPException 422 for an unknown one,
    406 where the header accepts nothing that is made here.
    """
    if named:
        if named != "json" and named not in FORMATS:
            known = ", ".join(FORMATS)
            raise HTTPException(422, f"format is json or one of {known}, not {named!r:.100}")
        return None if named == "json" else named
    kinds = {media: kind for kind, media in MEDIA_TYPES.items()}
    accepted = _accepted(request.headers.get("accept", ""))
    for media in accepted:
        if media in JSON_TYPES:
            return None
        if media in kinds:
            return kinds[media]
    if accepted:
        known = ", ".join(["application/json", *kinds])
        raise HTTPException(406, f"none of the types in Accept is made here; there are {known}")
    return None


def _accepted(header: str) -> list[str]:
    """The media types of a header, the most wanted first."""
    found = []
    for place, one in enumerate(header.split(",")[:MOST_ACCEPTED]):
        media, *parameters = (word.strip().lower() for word in one.split(";"))
        weight = 1.0
        for parameter in parameters:
            if parameter.startswith("q="):
                try:
                    weight = float(parameter[2:])
                except ValueError:
                    weight = 0.0
        if media and weight > 0:
            found.append((-weight, place, media))
    return [media for _, _, media in sorted(found)]


def file_answer(
    made: Built | Generated, kind: str, name: str, told: Mapping[str, Any] | None = None
) -> Response:
    """The file, or the error that says why there is none.

    name: without an ending. told: what else the headers say, such as the likeness.
    """
    if isinstance(made.part, Failure):
        return error(422, str(made.part), "no_part")
    if kind not in made.files:
        return error(422, made.no_files[kind], "no_file")
    words = {"size": made.size, "measures": size_text(made.part, made.size), **(told or {})}
    return file_response(made.files[kind], kind, name, words)


def file_response(data: bytes, kind: str, name: str, told: Mapping[str, Any]) -> Response:
    """A file under a name, and what is said of it in headers."""
    full = f"{name.translate(NO_LETTERS)}.{kind}"
    plain = full.encode("ascii", "replace").decode().replace("?", "_")
    encoded = quote(full, errors="replace")  # for names that are not ASCII
    headers = {
        "Content-Disposition": f"attachment; filename=\"{plain}\"; filename*=UTF-8''{encoded}"
    }
    for word, value in told.items():
        headers[f"X-Image2cad-{word.title()}"] = f"{value}".encode("ascii", "replace").decode()
    return Response(data, media_type=MEDIA_TYPES[kind], headers=headers)


def file_answers() -> dict[str, Any]:
    """The files that a route may answer with, for its responses in /openapi.json."""
    binary = {"schema": {"type": "string", "format": "binary"}}
    return {media: binary for media in MEDIA_TYPES.values()}
