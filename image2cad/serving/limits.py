"""What a request may bring and how many there may be: the limits of the service, and its queue.

    limits = limits_from("waiting=4, body_seconds=30")     # the rest as it comes
    image = open_picture(data, limits)              # bytes from anywhere -> RGB picture
    views = open_pictures([data, more], limits)     # of one part
    (part,) = open_pictures([data], limits, box_named("40,60,300,200"))     # of what holds more
    queue = Queue(running=2, waiting=16, seconds=60)
    with queue.place(stop):                         # one of two places; Busy where none is free
        ...

Left out: counting the bytes of a request as it comes (bodies.py).
"""

from __future__ import annotations

import io
import math
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, fields, replace
from typing import Any

from PIL import Image, ImageOps

from image2cad.common import EFFORTS, NEVER, TICK, InputError, Stop
from image2cad.reading import as_read
from metrics import usable_cores

# ---- What one request may bring

PICTURE_FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "AVIF")
# What else is sent as a picture, by what stands at the beginning of its file.
OTHER_FORMATS = (
    (b"<svg", "an SVG drawing"), (b"%PDF", "a PDF document"), (b"%!PS", "a PostScript file"),
    (b"ftyphei", "a HEIC picture"), (b"ftyphev", "a HEIC picture"), (b"ftypmif1", "a HEIC picture"),
    (b"ISO-10303-21", "a STEP file"), (b"AC10", "a DWG drawing"), (b"solid ", "an STL file"),
)  # fmt: skip
MARK_BYTES, HEAD_BYTES = 16, 1024  # of a file, in which these are looked for; in which SVG's is
LEAST_BOX = 16  # pixels a side, of a region with a part in it
MOST_BOX_LETTERS = 200
SEVERAL_PAGES = "has several pages or frames: the first was read, and no other."
_decoding = threading.Lock()  # a large picture takes hundreds of megabytes until it is reduced


class TooLarge(InputError):
    """More bytes or pixels than the limits allow."""


@dataclass(frozen=True)
class Limits:
    """What one request may take, and how many there may be.

    picture_bytes, pixels: of a picture as it comes; several views of a part have these pixels
    together, and their bytes as body_bytes says. pictures: views of a part. text_letters: beside
    them. code_bytes: of one program. body_bytes: of
    a request, which has body_seconds to arrive and stall_seconds for the next piece of it;
    program_body_bytes: of one that brings programs only, as all of the page but its uploads;
    bodies_bytes: of all requests that are being answered. values: of JSON in a request of the API;
    page_values: of the page.
    Where there are keys, who has shown none is a guest. guest_bodies_bytes: as bodies_bytes, of
    all guests; guest_requests: that they may have open. tries: wrong keys from one address within
    tries_seconds, after which short keys are no longer compared (keys.py).
    uploads_bytes: of pictures that the page keeps on disk, of which guests have half and one
    visitor visitor_uploads_bytes; files_bytes: of all files of the page; files_seconds: how long
    they are kept. linger_seconds: how long a body that is refused is read and thrown away, so that
    its sender comes to read why.
    running: executions and scores at a time. waiting: how many more may wait, and as many again
    for `generate`; queue_seconds: how long. seconds: the deadline of `generate` for each effort,
    once it runs; quick_seconds: of the others. These are wall time. program_seconds (of CPU time),
    program_memory (bytes): what a program may take; one that sleeps is ended after three times
    the seconds and ten, which quick_seconds leaves room for.
    jobs: of /v1/jobs that may wait or run; jobs_bytes: of pictures and answers of all that are
    kept, for jobs_seconds after their end at most (api/stored_jobs.py).
    """

    picture_bytes: int = 20 << 20
    pixels: int = 50_000_000
    pictures: int = 8
    text_letters: int = 4000
    code_bytes: int = 200_000
    body_bytes: int = 32 << 20
    program_body_bytes: int = 2_500_000  # two programs, each letter written as \u0000
    bodies_bytes: int = 256 << 20
    values: int = 500_000
    page_values: int = 100_000
    body_seconds: float = 60.0
    stall_seconds: float = 15.0
    head_seconds: float = 15.0
    address_connections: int = 1000
    linger_seconds: float = 10.0
    guest_bodies_bytes: int = 64 << 20
    guest_requests: int = 256
    tries: int = 10
    tries_seconds: float = 60.0
    uploads_bytes: int = 1 << 30
    visitor_uploads_bytes: int = 128 << 20
    files_bytes: int = 4 << 30
    files_seconds: float = 4 * 3600.0
    running: int = field(default_factory=usable_cores)
    waiting: int = 16
    queue_seconds: float = 60.0
    seconds: Mapping[str, float] = field(
        default_factory=lambda: {name: effort.deadline for name, effort in EFFORTS.items()}
    )
    quick_seconds: float = 60.0
    program_seconds: float = 15.0
    program_memory: int = 2 << 30
    jobs: int = 100
    jobs_bytes: int = 1 << 30
    jobs_seconds: float = 24 * 3600.0


def limits_from(text: str) -> Limits:
    """The limits with those that `text` names changed: "waiting=4, seconds.low=20".

    The deadlines of `generate` are seconds.none, seconds.low and seconds.high. Raises InputError
    for a name that is none, and for what is no number above zero.
    """
    usual = Limits()
    deadlines = dict(usual.seconds)
    kinds = {one.name: type(getattr(usual, one.name)) for one in fields(Limits)}
    del kinds["seconds"]
    kinds |= {f"seconds.{effort}": float for effort in deadlines}
    changed: dict[str, Any] = {}
    for one in filter(None, map(str.strip, text.split(","))):
        name, equals, number = (word.strip() for word in one.partition("="))
        if not equals or name not in kinds:
            raise InputError(f"{one!r:.100} is no limit; give NAME=NUMBER, of {', '.join(kinds)}")
        try:
            value = kinds[name](number.replace("_", ""))
        except ValueError as error:
            kind = "a whole number" if kinds[name] is int else "a number"
            raise InputError(f"the limit {name} must be {kind}, not {number!r:.100}") from error
        if not 0 < value < math.inf and not (name == "waiting" and value == 0):
            raise InputError(f"the limit {name} must be above 0, not {number}")
        if name.startswith("seconds."):
            deadlines[name.partition(".")[2]] = value
        else:
            changed[name] = value
    return replace(usual, seconds=deadlines, **changed)


def check_program(code: str, limits: Limits) -> None:
    """Raise InputError unless `code` is text, and TooLarge where it is too long."""
    if not isinstance(code, str):  # a client of the page may send anything
        raise InputError("code must be text")
    if len(code.encode("utf-8", "surrogatepass")) > limits.code_bytes:
        raise TooLarge(f"a program may have {limits.code_bytes:,} bytes")


def check_count(pictures: int, limits: Limits) -> None:
    """Raise InputError unless there are pictures, and TooLarge where there are too many."""
    if not pictures:
        raise InputError("there is no picture")
    if pictures > limits.pictures:
        raise TooLarge(f"a part may have {limits.pictures} pictures, not {pictures}")


CutOut = tuple[float, float, float, float]  # x0, y0, x1, y1 in pixels, y downwards


def box_named(text: str) -> CutOut | None:
    """The region "x0,y0,x1,y1" of a picture; None for "". Raises InputError for anything else."""
    if not text.strip():
        return None
    try:
        x0, y0, x1, y1 = (float(one) for one in text[:MOST_BOX_LETTERS].split(","))
    except ValueError:
        x0 = y0 = x1 = y1 = math.nan
    if not (0 <= x0 < x1 < math.inf and 0 <= y0 < y1 < math.inf):  # not true of what is no number
        raise InputError(
            "box is x0,y0,x1,y1 in pixels of the picture, from its upper left corner, such as "
            f'"40,60,300,200", not {text!r:.60}'
        )
    return x0, y0, x1, y1


def open_pictures(
    files: Sequence[bytes], limits: Limits, box: CutOut | None = None
) -> list[Image.Image]:
    """The pictures in `files`, views of one part, each as `open_picture` has it.

    box: the region of the only one that holds the part, in pixels of the upright picture. Raises
    what `open_picture` raises, with the picture's number where there are several; all bytes and
    all pixels together are limited too.
    """
    check_count(len(files), limits)
    if box is not None and len(files) > 1:
        raise InputError("a box can be given with one picture only")
    if sum(map(len, files)) > max(limits.body_bytes, limits.picture_bytes):
        raise TooLarge(f"all pictures together may have {limits.body_bytes:,} bytes")
    out, left = [], limits.pixels
    for number, data in enumerate(files, 1):
        try:
            picture, pixels = _opened(data, replace(limits, pixels=left), box)
        except InputError as error:
            if len(files) == 1:
                raise
            raise type(error)(f"picture {number}: {error}") from error
        left -= pixels
        out.append(picture)
    return out


def open_picture(data: bytes, limits: Limits) -> Image.Image:
    """The picture in `data`, upright, on white, RGB.

    Its size is read from the file's head: one that is too large is refused before it is decoded.
    Raises InputError for what is no picture or has one colour, TooLarge for too many bytes or
    pixels.
    """
    return _opened(data, limits)[0]


def page_notes(files: Sequence[bytes], limits: Limits) -> tuple[str, ...]:
    """A sentence for each picture whose file has more pages or frames than the one that is read.

    Raises as `open_picture`.
    """
    notes = []
    for number, data in enumerate(files, 1):
        try:
            several = getattr(unread_picture(data, limits), "is_animated", False)
        except (OSError, ValueError, SyntaxError):  # of a second page, which is damaged
            several = True
        if several:
            which = "The picture's file" if len(files) == 1 else f"The file of picture {number}"
            notes.append(f"{which} {SEVERAL_PAGES}")
    return tuple(notes)


def _opened(data: bytes, limits: Limits, box: CutOut | None = None) -> tuple[Image.Image, int]:
    """The picture, and how many pixels its file has."""
    image = unread_picture(data, limits)
    size = image.width * image.height
    try:
        with _decoding:
            ImageOps.exif_transpose(image, in_place=True)
            picture = as_read(image if box is None else _cut_out(image, box))
    except InputError:
        raise
    except Exception as error:  # decoders raise all sorts of things at damaged files
        raise InputError("the picture is damaged: it cannot be decoded") from error
    darkest, lightest = picture.convert("L").getextrema()
    if darkest == lightest:
        where = "the picture is blank: all of it" if box is None else "the box is blank: all in it"
        raise InputError(f"{where} has one colour")
    return picture, size


def _cut_out(image: Image.Image, box: CutOut) -> Image.Image:
    """The region of a picture. Raises InputError where it is outside, or too small for a part."""
    x0, y0, x1, y1 = box
    if x1 > image.width or y1 > image.height:
        raise InputError(
            f"the box reaches to {x1:g}, {y1:g}; the picture has {image.width} x {image.height} "
            "pixels"
        )
    region = math.floor(x0), math.floor(y0), math.ceil(x1), math.ceil(y1)
    if min(region[2] - region[0], region[3] - region[1]) < LEAST_BOX:
        raise InputError(f"the box must be at least {LEAST_BOX} pixels wide and high")
    return image.crop(region)


def unread_picture(data: bytes, limits: Limits) -> Image.Image:
    """The picture in `data` by the head of its file, not decoded. Raises as `open_picture`."""
    if not data:
        raise InputError("the picture is empty")
    if len(data) > limits.picture_bytes:
        most = f"{limits.picture_bytes:,} are allowed"
        raise TooLarge(f"the picture has {len(data):,} bytes; {most}")
    try:
        image: Image.Image = Image.open(io.BytesIO(data), formats=PICTURE_FORMATS)
        width, height = image.size
    except Image.DecompressionBombError as error:
        raise TooLarge(f"the picture has more than {limits.pixels:,} pixels") from error
    except Exception as error:  # decoders raise all sorts of things at damaged files
        kinds, head = ", ".join(PICTURE_FORMATS), data[:HEAD_BYTES]
        if b"<svg" in head:  # after what XML begins with
            head = b"<svg"
        named = next((name for mark, name in OTHER_FORMATS if mark in head[:MARK_BYTES]), None)
        what = f"this is {named}, and no picture" if named else "this is no picture"
        raise InputError(f"{what} that can be read; send one of {kinds}") from error
    if width * height > limits.pixels:
        most = f"{limits.pixels:,} pixels are allowed"
        raise TooLarge(f"the picture has {width} x {height} pixels; {most}")
    return image


# ---- So many at a time, so many waiting, the rest is turned away: a queue for a server's threads

NEWEST_WEIGHT = 0.2  # weight of the newest duration in the mean that Busy is estimated from


class Busy(Exception):
    """No place was free. retry_after: seconds until one is likely to be."""

    def __init__(self, retry_after: int) -> None:
        super().__init__(f"all places are taken; try again in {retry_after} s")
        self.retry_after = retry_after


@dataclass(eq=False)
class _Ticket:
    """Of one who waits."""

    guest: bool


class Queue:
    """Places for work that takes all of a core, given in the order of arrival, to guests last."""

    def __init__(
        self,
        running: int,
        waiting: int,
        seconds: float,
        waited: Callable[[float], object] = lambda seconds: None,
    ) -> None:
        """running, waiting: how many at most. seconds: the longest that one may wait.

        waited: told how many seconds each has waited who has got a place.
        """
        self._waited = waited
        self._most, self._room, self._seconds = running, waiting, seconds
        self._change = threading.Condition()
        self._line: deque[_Ticket] = deque()
        self._running = self._guests = 0
        self._mean = 1.0  # seconds of work

    def load(self) -> tuple[int, int]:
        """How many are running and how many are waiting."""
        with self._change:
            return self._running, len(self._line)

    @contextmanager
    def place(self, stop: Stop = NEVER, guest: bool = False) -> Iterator[None]:
        """A place as long as the block runs. Guests have half of all at most.

        Raises Busy at once where too many wait, and after `seconds`; Late and Cancelled while it
        waits.
        """
        came = time.monotonic()
        self._enter(stop, guest)
        started = time.monotonic()
        self._waited(started - came)
        try:
            yield
        finally:
            with self._change:
                self._running -= 1
                self._guests -= guest
                self._mean += NEWEST_WEIGHT * (time.monotonic() - started - self._mean)
                self._change.notify_all()

    def _enter(self, stop: Stop, guest: bool) -> None:
        ticket, until = _Ticket(guest), time.monotonic() + self._seconds
        with self._change:
            most = self._most + self._room
            if self._running + len(self._line) >= most or (guest and self._guests >= most / 2):
                raise self._busy()
            behind = sum(one.guest for one in self._line) if not guest else 0
            self._line.insert(len(self._line) - behind, ticket)
            self._guests += guest
            entered = False
            try:
                while self._line[0] is not ticket or self._running >= self._most:
                    stop.check()
                    if time.monotonic() > until:
                        raise self._busy()
                    self._change.wait(TICK)
                self._running += 1
                entered = True
            finally:
                self._line.remove(ticket)
                self._guests -= guest and not entered
                self._change.notify_all()

    def _busy(self) -> Busy:
        rounds = (self._running + len(self._line)) / max(self._most, 1)
        return Busy(min(max(math.ceil(rounds * self._mean), 1), 600))
