"""The requests and answers of the API's own routes, as /openapi.json describes them.

    Executed(**outcome(part))

Left out: OpenAI's format (openai.py).
"""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from image2cad.serving.jobs import EXAMPLE_PROGRAM
from image2cad.serving.service import Generated
from image2cad.verification import EYES
from metrics import Failure, Part

MOST_FILES = 32
CAMERA_HELP = (
    f"where one picture is seen from, z up: {', '.join(EYES)}, or azimuth and elevation in "
    'degrees, such as "-45, 35"; left out, it is estimated'
)


class Execute(BaseModel):
    """A program to run."""

    model_config = ConfigDict(
        json_schema_extra={"example": {"code": EXAMPLE_PROGRAM, "files": ["step"]}}
    )

    code: str
    # One error is enough: each of them takes more memory than what is wrong.
    files: list[str] = Field(
        [], description="step, stl, 3mf, glb, dxf, py", max_length=MOST_FILES, fail_fast=True
    )


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
    alignment: str = Field("best", description="best, pca or published")


class Measures(BaseModel):
    """A part, in the program's units."""

    volume: float
    area: float
    bounding_box: list[list[float]] = Field(description="least and greatest x, y, z")
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
    origin: str = Field(description="known, given or estimated")
    picture: int = Field(description="which of the pictures, from 0")
    text: str = Field(description="all that in a line")


class Found(Executed):
    """The program that draws a picture best, and how far to trust it."""

    code: str
    likeness: float = Field(description="of its drawing and the picture, 0 to 1")
    confidence: float = Field(description="chance of an IoU over 0.9")
    source: str = Field(description="model, traced, library or templates")
    candidates: int = Field(description="how many programs were considered")
    cameras: list[SeenFrom] = Field([], description="one for each view that was compared")
    reason: str = Field("", description="why the picture may be none of one part, or empty")
    notes: list[str] = Field([], description="what else to know, a sentence each")


class Scored(BaseModel):
    """Scores as of metrics.compute; those after `failure` only where there is none."""

    vsr: float
    iou_best: float
    alignment: str
    failure: Reason | None = None
    iou_unit_box: float | None = None
    chamfer: float | None = None
    volume_error: float | None = None
    box_error: float | None = None
    solids: int | None = None
    valid: bool | None = None
    notes: list[str] = []
    seconds: float


def outcome(part: Part | Failure) -> dict[str, Any]:
    """The fields of `Executed` that say what a program built."""
    if isinstance(part, Failure):
        return {"failure": reason(part), "seconds": part.seconds}
    measures = Measures(
        volume=part.volume,
        area=part.area,
        bounding_box=part.bounding_box.tolist(),
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
