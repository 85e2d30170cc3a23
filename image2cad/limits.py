"""What a request may bring: the limits of the service, pictures and programs within them.

    image = open_picture(data, Limits())            # bytes from anywhere -> RGB picture

Left out: how many requests at a time (queueing.py), and counting a request's bytes (bodies.py).
"""

from __future__ import annotations

import io
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field

from PIL import Image, ImageOps

from image2cad.errors import InputError
from metrics.execution import default_workers

FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP")
SIDE = 2048  # pixels; larger pictures are reduced, as models and drawings have 448 at most
_decoding = threading.Lock()  # a large picture takes hundreds of megabytes until it is reduced


class TooLarge(InputError):
    """More bytes or pixels than the limits allow."""


@dataclass(frozen=True)
class Limits:
    """What one request may take, and how many there may be.

    picture_bytes, pixels: of a picture as it comes. code_bytes: of one program. body_bytes: of
    a request, which has body_seconds to arrive; program_body_bytes: of one that brings programs
    only; bodies_bytes: of all requests that are being answered. values: of JSON in a chat.
    running: executions and scores at a time. waiting: how many more may wait, and as many again
    for `generate`; queue_seconds: how long. seconds: the deadline of `generate` for each effort,
    once it runs; quick_seconds: of the others. program_seconds, program_memory (bytes): what a
    program may take.
    """

    picture_bytes: int = 20 << 20
    pixels: int = 50_000_000
    code_bytes: int = 200_000
    body_bytes: int = 32 << 20
    program_body_bytes: int = 2_500_000  # two programs, each letter written as \u0000
    bodies_bytes: int = 256 << 20
    values: int = 500_000
    body_seconds: float = 60.0
    running: int = field(default_factory=default_workers)
    waiting: int = 16
    queue_seconds: float = 60.0
    seconds: Mapping[str, float] = field(
        default_factory=lambda: {"none": 60.0, "low": 90.0, "high": 240.0}
    )
    quick_seconds: float = 60.0
    program_seconds: float = 20.0
    program_memory: int = 2 << 30


def check_program(code: str, limits: Limits) -> None:
    """Raise InputError unless `code` is text, and TooLarge where it is too long."""
    if not isinstance(code, str):  # a client of the page may send anything
        raise InputError("code must be text")
    if len(code.encode("utf-8", "surrogatepass")) > limits.code_bytes:
        raise TooLarge(f"a program may have {limits.code_bytes:,} bytes")


def open_picture(data: bytes, limits: Limits) -> Image.Image:
    """The picture in `data`, upright, on white, RGB.

    Its size is read from the file's head: one that is too large is refused before it is decoded.
    Raises InputError for what is no picture or has one colour, TooLarge for too many bytes or
    pixels.
    """
    if not data:
        raise InputError("the picture is empty")
    if len(data) > limits.picture_bytes:
        most = f"{limits.picture_bytes:,} are allowed"
        raise TooLarge(f"the picture has {len(data):,} bytes; {most}")
    try:
        image: Image.Image = Image.open(io.BytesIO(data), formats=FORMATS)
        width, height = image.size
    except Image.DecompressionBombError as error:
        raise TooLarge(f"the picture has more than {limits.pixels:,} pixels") from error
    except Exception as error:  # decoders raise all sorts of things at damaged files
        kinds = ", ".join(FORMATS)
        raise InputError(f"this is no picture that can be read; send one of {kinds}") from error
    if width * height > limits.pixels:
        most = f"{limits.pixels:,} pixels are allowed"
        raise TooLarge(f"the picture has {width} x {height} pixels; {most}")
    try:
        with _decoding:
            image.thumbnail((SIDE, SIDE), reducing_gap=3.0)
        if image.mode.startswith("I;16"):  # whose conversion would cut off all above 255
            image = image.point(lambda value: value * (1 / 256)).convert("L")
        rgba = ImageOps.exif_transpose(image).convert("RGBA")
    except Exception as error:  # as above
        raise InputError("the picture is damaged: it cannot be decoded") from error
    white = Image.new("RGBA", rgba.size, "white")
    picture = Image.alpha_composite(white, rgba).convert("RGB")
    darkest, lightest = picture.convert("L").getextrema()
    if darkest == lightest:
        raise InputError("the picture is blank: all of it has one colour")
    return picture
