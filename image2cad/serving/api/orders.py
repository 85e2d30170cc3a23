"""What a client orders: pictures of a part, and how the answer shall be; from a form or as data.

    order: Annotated[Order, Depends(order_form)]        # a route's parameter
    made = filled(service, order, progress, stop)       # blocking
    found(made)                                         # as it is sent

Left out: OpenAI's format (openai.py), orders that are kept on disk (stored_jobs.py).
"""

from __future__ import annotations

import base64
from dataclasses import dataclass, replace
from typing import Annotated

from fastapi import File, Form, Request, UploadFile

from image2cad.cad import FORMATS
from image2cad.common import EFFORTS, NEVER, InputError, Stop, effort_named
from image2cad.serving.api.schemas import (
    BOX_HELP,
    CAMERA_HELP,
    EFFORT_HELP,
    LENGTH_HELP,
    Found,
    one_of,
    outcome,
    told,
)
from image2cad.serving.jobs import Built, distinct_kinds
from image2cad.serving.limits import (
    PICTURE_FORMATS,
    box_named,
    check_count,
    open_pictures,
    page_notes,
)
from image2cad.serving.service import Generated, Progress, Service, size_of
from image2cad.verification import eye_named

PICTURES_HELP = f"{', '.join(PICTURE_FORMATS)}; several are views of one part"
FILES_HELP = f"formats with commas between them, of {', '.join(FORMATS)}"
MOST_NAME = 100  # letters of a file's name, its end
TEXT_HELP = "beside the picture, for a model that reads it"


@dataclass(frozen=True)
class Order:
    """Pictures of a part, and how the answer shall be.

    pictures: files, one or several views. kinds: of files of the part. camera, text, length,
    max_tokens: as `Service.generate` takes them. box: as limits.box_named reads it. name: of the
    first picture's file, without its ending. notes: what is said beside those of the answer.
    """

    pictures: tuple[bytes, ...]
    effort: str = "low"
    kinds: tuple[str, ...] = ()
    camera: str = ""
    text: str = ""
    length: str = ""
    box: str = ""
    max_tokens: int | None = None
    name: str = "part"
    notes: tuple[str, ...] = ()


async def order_form(
    request: Request,
    image: Annotated[list[UploadFile], File(description=PICTURES_HELP)],
    effort: Annotated[
        str, Form(description=EFFORT_HELP, json_schema_extra=one_of(*EFFORTS))
    ] = "low",
    files: Annotated[str, Form(description=FILES_HELP)] = "",
    camera: Annotated[str, Form(description=CAMERA_HELP)] = "",
    text: Annotated[str, Form(description=TEXT_HELP)] = "",
    length: Annotated[str, Form(description=LENGTH_HELP)] = "",
    box: Annotated[str, Form(description=BOX_HELP)] = "",
) -> Order:
    """The order in a form with files."""
    check_count(len(image), request.app.state.service.limits)
    kinds = [kind.strip() for kind in files.split(",") if kind.strip()]
    return Order(
        tuple([await one.read() for one in image]), effort, tuple(kinds), camera, text, length,
        box, name=stem(image[0].filename or ""),
    )  # fmt: skip


def stem(name: str) -> str:
    """The name of a picture's file without folders and ending, "part" where nothing is left."""
    last = name.replace("\\", "/").rpartition("/")[2][-MOST_NAME:]
    return last.rpartition(".")[0].strip() or last.strip(". ") or "part"


def check_order(service: Service, order: Order) -> None:
    """Raise InputError for what can be seen to be wrong before any work is done."""
    effort_named(order.effort)
    distinct_kinds(order.kinds)
    size_of(order.length)
    for name, given in (("camera", eye_named(order.camera)), ("box", box_named(order.box))):
        if given is not None and len(order.pictures) > 1:
            raise InputError(f"a {name} can be given with one picture only")
    page_notes(order.pictures, service.limits)


def filled(
    service: Service, order: Order, progress: Progress = None, stop: Stop = NEVER
) -> Generated:
    """What the service makes of an order. Raises what it raises."""
    views = open_pictures(order.pictures, service.limits, box_named(order.box))
    notes = page_notes(order.pictures, service.limits)
    made = service.generate(
        views, order.effort, progress, order.kinds, stop, order.camera, order.text, order.length,
        order.max_tokens,
    )  # fmt: skip
    return replace(made, notes=(*notes, *order.notes, *made.notes))


def found(made: Generated) -> Found:
    """An answer as it is sent."""
    fields = outcome(made.part, made.size) | in_base64(made) | told(made)
    return Found(**fields | {"seconds": made.seconds}, code=made.code, candidates=made.candidates)


def in_base64(made: Generated | Built) -> dict[str, dict[str, str]]:
    """The fields of `Executed` that hold files, and why there are no others."""
    texts = {kind: base64.b64encode(data).decode() for kind, data in made.files.items()}
    return {"files": texts, "no_files": made.no_files}
