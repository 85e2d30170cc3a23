"""What a user is shown of a part: pictures, a table of measures, a verdict, an error in words.

    drawing = drawing_of(part)                      # GenCAD's view of it, (448, 448, 3) uint8
    likeness = likeness_to(picture, drawing)        # against the user's picture
    html = table_html(measure_rows(part))
    html = failure_html(failure, code)              # with the line of the program it is about

All lengths are in millimetres. Texts that end up in HTML are escaped here.
"""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from PIL import Image

from image2cad.reading import difference
from image2cad.rendering import EYE, as_picture, draw, likeness
from image2cad.serving.jobs import SIZE_ASSUMED, SIZE_GIVEN, SIZE_OF_PROGRAM
from image2cad.serving.service import Generated
from image2cad.verification import Viewpoint
from metrics import Failure, Part

FAILURE_HEADINGS = {
    "syntax error": "This is not valid Python",
    "exception": "The program stopped with an error",
    "no solid": "The program ran, but left no solid",
    "invalid solid": "The program left a shape that is no usable solid",
    "timeout": "The program took too long",
    "memory": "The program needed too much memory",
    "crash": "The process that ran the program died",
    "forbidden": "The program tried something that is not allowed here",
    "too large": "The program or its result is too large",
}
SOURCE_NAMES = {
    "model": "a model, {model}",
    "traced": "tracing the picture, without a model",
    "library": "the library of parts, fitted to the picture",
    "templates": "a template, fitted to the picture",
}
SIZE_NAMES = {
    SIZE_ASSUMED: "assumed: a picture shows none. Give a length to make it real",
    SIZE_GIVEN: "given",
    SIZE_OF_PROGRAM: "as in the program",
}
RIGHT_FROM, WRONG_BELOW = 0.8, 0.4  # of the chance of an IoU over 0.9
PROBABLY_RIGHT, LOOK_CLOSELY, PROBABLY_WRONG = "probably right", "look closely", "probably wrong"
Row = tuple[str, ...]


def drawing_of(part: Part, eye: Sequence[float] | None = None) -> Image.Image | None:
    """The part as GenCAD's pictures show one, 448 pixels a side; None if it cannot be drawn.

    eye: the direction to the viewer, where it is not GenCAD's.
    """
    try:
        return Image.fromarray(draw(part, eye=eye or EYE))
    except ValueError:  # no triangles, or coordinates beyond what can be projected
        return None


def as_compared(picture: Image.Image) -> Image.Image:
    """A user's picture as it is compared: 448 pixels a side, on white."""
    return Image.fromarray(as_picture(picture))


def likeness_to(picture: Image.Image, drawing: Image.Image) -> float:
    """How alike a user's picture and a drawing are, 0 to 1."""
    return likeness(as_picture(picture), as_picture(drawing))


def difference_of(picture: Image.Image, drawing: Image.Image, framed: bool) -> Image.Image | None:
    """Blue what is missing, orange what is too much; see `reading.difference`."""
    shown = difference(picture, drawing, framed)
    return None if shown is None else Image.fromarray(shown)


def verdict(sure: float) -> str:
    """What a chance of an IoU over 0.9 comes to in words."""
    return (
        PROBABLY_RIGHT
        if sure >= RIGHT_FROM
        else LOOK_CLOSELY
        if sure >= WRONG_BELOW
        else PROBABLY_WRONG
    )


def verdict_text(sure: float) -> str:
    """The same with the chance beside it."""
    return f"{verdict(sure)}: {sure:.0%} chance that it overlaps with the part by over 0.9"


def likeness_rows(value: float, sure: float | None = None) -> list[Row]:
    """Picture likeness, 0 to 1, and the chance of an IoU over 0.9 where it is known."""
    rows: list[Row] = [("Picture likeness", f"{value:.3f}")]
    if sure is not None:
        rows.append(("Confidence", f"{verdict(sure)}, {sure:.0%} (chance of an IoU over 0.9)"))
    return rows


def answer_rows(got: Generated, model: str) -> tuple[Row, ...]:
    """How well an answer fits its picture, and who wrote its program. model: the name of ours."""
    if isinstance(got.part, Failure):
        return ()
    author = SOURCE_NAMES.get(got.source, got.source).format(model=model)
    rows = (
        *likeness_rows(got.likeness, got.confidence),
        ("Written by", f"{author}; best of {got.candidates} programs"),
    )
    return (*rows, *camera_rows(got.cameras))


def camera_rows(cameras: Sequence[Viewpoint]) -> list[Row]:
    """Where each view is seen from, z up."""
    names = ["Camera"] if len(cameras) == 1 else [f"Camera {i + 1}" for i in range(len(cameras))]
    return [(name, one.text) for name, one in zip(names, cameras, strict=True)]


def measure_rows(part: Part, size: str = SIZE_OF_PROGRAM) -> list[Row]:
    """Names and values of what is measured on a part. size: where its size is from."""
    low, high = part.bounding_box
    rows: list[Row] = [
        ("Size", SIZE_NAMES.get(size, size)),
        ("Longest side", f"{_number((high - low).max())} mm"),
        ("Bounding box", " × ".join(_number(side) for side in high - low) + " mm"),
        ("Volume", f"{_number(part.volume)} mm³"),
        ("Surface", f"{_number(part.area)} mm²"),
        ("Solids, faces", f"{part.solids}, {part.face_count}"),
        ("Valid", "yes" if part.valid else "no: OpenCASCADE finds faults in its faces or edges"),
    ]
    return rows + [("Note", note) for note in part.notes]


def in_words(failure: Failure, code: str) -> str:
    """A failure in plain language: what happened, in which line, and why; several lines."""
    head = FAILURE_HEADINGS.get(failure.kind, failure.kind)
    lines = code.splitlines()
    if failure.line and 0 < failure.line <= len(lines):
        head = f"{head}, line {failure.line}: {lines[failure.line - 1].strip()[:200]}"
    return f"{head}\n{failure.message}"


def failure_html(failure: Failure, code: str) -> str:
    """`in_words` as HTML."""
    head, _, why = in_words(failure, code).partition("\n")
    return problem_html(head, why)


def problem_html(head: str, why: str = "") -> str:
    """Something that went wrong, as HTML."""
    below = f"<div>{escape(why)}</div>" if why else ""
    return f'<div class="message problem" role="alert"><b>{escape(head)}</b>{below}</div>'


def remark_html(text: str, heading: str = "") -> str:
    """News that are no problem, as HTML. heading: what is said first."""
    first = f"<b>{escape(heading)}</b><br>" if heading else ""
    return f'<div class="message" role="status">{first}{escape(text)}</div>'


def table_html(rows: Sequence[Row], head: Row = ()) -> str:
    """Rows of cells as HTML; the first of a row says what it is about."""
    lines = ["<tr>" + "".join(f"<th>{escape(one)}</th>" for one in head) + "</tr>"] if head else []
    for first, *others in rows:
        cells = "".join(f"<td>{escape(one)}</td>" for one in others)
        lines.append(f"<tr><th>{escape(first)}</th>{cells}</tr>")
    return f'<table class="measures">{"".join(lines)}</table>'


def _number(value: float) -> str:
    """Six digits, with thin spaces between thousands: 12 345.7."""
    text = f"{float(value):.6g}"
    if "e" in text:
        return text
    whole, dot, rest = text.partition(".")
    return f"{int(whole):,}".replace(",", "\u2009") + dot + rest
