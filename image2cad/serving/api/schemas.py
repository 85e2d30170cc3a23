"""The requests and answers of the API's own routes, as /openapi.json describes them.

    Executed(**outcome(part))

Left out: OpenAI's format (openai.py).
"""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

from image2cad.cad import FORMATS
from image2cad.common import EFFORTS
from image2cad.serving.api.errors import Problem
from image2cad.serving.jobs import (
    EXAMPLE_PROGRAM,
    SIZE_ASSUMED,
    SIZE_GIVEN,
    SIZE_OF_PROGRAM,
    size_text,
)
from image2cad.serving.service import Generated
from image2cad.verification import EYES, SOURCES
from metrics import ALIGNMENTS, Failure, Part

MOST_FILES = 32
CAMERA_HELP = (
    f"where one picture is seen from, z up: {', '.join(EYES)}, or azimuth and elevation in "
    'degrees, such as "-45, 35"; left out, it is estimated'
)
EFFORT_HELP = "; ".join(effort.text for effort in EFFORTS.values())
LENGTH_HELP = (
    'mm of the longest side, or NAME=MM of another measure, such as "plate thickness=6": all of '
    "the part is scaled; left out, the size of a picture's part is assumed"
)
BOX_HELP = (
    "the region of one picture that holds the part: x0, y0, x1, y1 in pixels from its upper left"
)
ANSWER_SOURCES = (*SOURCES, "")  # empty where none was found
JOB_STATES = ("queued", "running", "done", "failed", "cancelled")
SIZES = (SIZE_ASSUMED, SIZE_GIVEN, SIZE_OF_PROGRAM)


def one_of(*names: str) -> dict[str, Any]:
    """For json_schema_extra: what a text may be, where the service checks it in its own words."""
    return {"enum": list(names)}


Length = Annotated[float, Field(strict=True)] | str


def length_text(length: float | str | None) -> str:
    """A length as the service takes it."""
    return "" if length is None else str(length)


class Execute(BaseModel):
    """A program to run."""

    model_config = ConfigDict(
        json_schema_extra={"example": {"code": EXAMPLE_PROGRAM, "files": ["step"]}}
    )

    code: str
    # One error is enough: each of them takes more memory than what is wrong.
    files: list[str] = Field(
        [], description="formats that are wanted beside the measures", max_length=MOST_FILES,
        fail_fast=True, json_schema_extra={"items": {"type": "string", **one_of(*FORMATS)}},
    )  # fmt: skip
    length: Length | None = Field(None, description=LENGTH_HELP)
    name: str = Field("part", description="of the files, without its ending", max_length=100)


class Score(BaseModel):
    """A program to compare with another."""

    model_config = ConfigDict(
        json_schema_extra={
            "example": {
                "prediction": EXAMPLE_PROGRAM,
                "reference": EXAMPLE_PROGRAM.replace("3", "4"),
            }
        }
    )

    prediction: str
    reference: str
    alignment: str = Field("best", json_schema_extra=one_of(*ALIGNMENTS))


class Measures(BaseModel):
    """A part; lengths are in millimetres, areas in mm2, volumes in mm3."""

    volume: float = Field(description="mm3")
    area: float = Field(description="mm2")
    bounding_box: list[list[float]] = Field(description="least and greatest x, y, z, mm")
    longest_side: float = Field(description="mm")
    unit: str = Field("mm", description="of lengths", json_schema_extra=one_of("mm"))
    size: str = Field(description="where the size is from", json_schema_extra=one_of(*SIZES))
    text: str = Field(description="sides and volume with their units, and where the size is from")
    solids: int
    valid: bool = Field(description="what OpenCASCADE's checker says")
    notes: list[str] = []


class Reason(BaseModel):
    """Why a program has no usable solid."""

    kind: str
    message: str
    line: int | None = None


class Executed(BaseModel):
    """What a program builds, or why it builds nothing."""

    code: str = Field("", description="the program at its size, where a length was given")
    part: Measures | None = None
    failure: Reason | None = None
    seconds: float
    files: dict[str, str] = Field({}, description="format to content in base64")
    no_files: dict[str, str] = Field({}, description="format to why there is no such file")


class SeenFrom(BaseModel):
    """A camera that the program was drawn with, z up; degrees."""

    azimuth: float = Field(description="from x towards y; -90 is the front, -45 GenCAD's")
    elevation: float
    roll: float
    angle: float | None = Field(description="of view, top to bottom; null is orthographic")
    origin: str = Field(json_schema_extra=one_of("known", "given", "estimated"))
    picture: int = Field(description="which of the pictures, from 0")
    text: str = Field(description="all that in a line")


class Found(Executed):
    """The program that draws a picture best, and how far to trust it."""

    code: str = Field(description="the program, at its size where a length was given")
    likeness: float = Field(description="of its drawing and the picture, 0 to 1")
    confidence: float = Field(description="chance of an IoU over 0.9, 0 to 1")
    source: str = Field(
        description="what wrote the program; empty where none was found",
        json_schema_extra=one_of(*ANSWER_SOURCES),
    )
    candidates: int = Field(description="how many programs were considered")
    cameras: list[SeenFrom] = Field([], description="one for each view that was compared")
    reason: str = Field("", description="why the picture may be none of one part, or empty")
    notes: list[str] = Field([], description="what else to know, a sentence each")


class Job(BaseModel):
    """Work that goes on when the connection is closed."""

    id: str
    status: str = Field(json_schema_extra=one_of(*JOB_STATES))
    progress: float = Field(description="0 to 1")
    doing: str = Field(description="what is going on, in words")
    created: float = Field(description="seconds since 1970")
    ended: float | None = Field(description="the same")
    result: Found | None = Field(description="of a job that is done")
    error: Problem | None = Field(description="of a job that failed")


class Model(BaseModel):
    """A model in OpenAI's format."""

    id: str
    object: str = Field("model", json_schema_extra=one_of("model"))
    created: int
    owned_by: str


class Models(BaseModel):
    """The models of this server."""

    object: str = Field("list", json_schema_extra=one_of("list"))
    data: list[Model]


class Version(BaseModel):
    """What is running."""

    name: str
    version: str
    model: str


class Said(BaseModel):
    """How the server does."""

    status: str


class Scored(BaseModel):
    """Scores as of metrics.compute; those after `failure` only where there is none."""

    vsr: float
    iou_best: float
    alignment: str = Field(json_schema_extra=one_of(*ALIGNMENTS))
    failure: Reason | None = None
    iou_unit_box: float | None = None
    chamfer: float | None = None
    volume_error: float | None = None
    box_error: float | None = None
    solids: int | None = None
    valid: bool | None = None
    notes: list[str] = []
    seconds: float


def outcome(part: Part | Failure, size: str) -> dict[str, Any]:
    """The fields of `Executed` that say what a program built. size: where its size is from."""
    if isinstance(part, Failure):
        return {"failure": reason(part), "seconds": part.seconds}
    measures = Measures(
        volume=part.volume,
        area=part.area,
        bounding_box=part.bounding_box.tolist(),
        longest_side=float((part.bounding_box[1] - part.bounding_box[0]).max()),
        unit="mm",
        size=size,
        text=size_text(part, size),
        solids=part.solids,
        valid=part.valid,
        notes=list(part.notes),
    )
    return {"part": measures, "seconds": part.seconds}


def told(made: Generated) -> dict[str, Any]:
    """The fields of `Found` that say how far to trust an answer, and what it was made from."""
    return {
        "likeness": made.likeness,
        "confidence": made.confidence,
        "source": made.source,
        "cameras": [{**asdict(one), "text": one.text} for one in made.cameras],
        "reason": made.reason,
        "notes": list(made.notes),
    }


def reason(failure: Failure) -> Reason:
    """The failure as it is sent."""
    return Reason(kind=failure.kind, message=failure.message, line=failure.line)
