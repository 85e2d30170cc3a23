"""What the service's worker processes do for programs, and how they warm up.

    scores = score(prediction, reference, "best", run_cadquery)
    files, reasons = write_files(part, code, ["step", "glb"])

Importable by name, as common/processes.py wants it. Pictures need no function of their own: there
the worker calls `verify`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from PIL import Image

from image2cad.common import InputError
from image2cad.rendering import draw
from image2cad.verification import verify
from metrics import Failure, Part, run_cadquery

BOX = "import cadquery as cq\nresult = cq.Workplane().box(1, 2, 3)"
HAD = ("id", "code", "ok", "failure")  # of a row of scores, said in another way


def distinct_kinds(kinds: Sequence[str]) -> list[str]:
    """The kinds, each once. Raises InputError unless all are formats of cad/exports.py."""
    from image2cad.cad import FORMATS

    kinds = list(dict.fromkeys(kinds))
    if unknown := [kind for kind in kinds if kind not in FORMATS]:
        raise InputError(f"unknown format {unknown[0]!r:.100}; choose from {', '.join(FORMATS)}")
    return kinds


def warm_for_pictures() -> None:
    """Load and compile what the first picture of a process would wait for."""
    part = run_cadquery(BOX)
    if isinstance(part, Part):
        picture = Image.fromarray(draw(part))
        verify(picture, [BOX], "low", seconds=1)
        verify(picture, [], "low", seconds=1, sources=("library", "templates"))


def warm_for_programs() -> None:
    """The same for executing and scoring."""
    score(BOX, BOX, "best", run_cadquery)


def score(
    prediction: str, reference: str, alignment: str, run: Callable[[str], Part | Failure]
) -> dict[str, Any]:
    """The row of metrics.compute with extras, "vsr" 0 or 1, "failure" a Failure or None.

    run: runs a program. Raises InputError for an unknown alignment and a bad reference.
    """
    import metrics

    wanted = run(reference)
    if isinstance(wanted, Failure):
        raise InputError(f"the reference has no usable solid: {wanted}")
    got = run(prediction)
    try:
        scores = metrics.compute([got], [wanted], alignment=alignment, workers=1, extras=True)
    except ValueError as error:
        raise InputError(str(error)) from error
    row = scores["rows"][0]
    failure = got if isinstance(got, Failure) else None
    if failure is None and not row["ok"]:  # it ran, but its mesh cannot be compared
        failure = Failure("invalid solid", row["failure"].partition(": ")[2])
    extras = {name: value for name, value in row.items() if name not in HAD}
    return {"vsr": float(row["ok"]), "alignment": alignment, "failure": failure, **extras}


def write_files(
    part: Part, code: str, kinds: Sequence[str]
) -> tuple[dict[str, bytes], dict[str, str]]:
    """Files of the kinds named, and for the others why there is none."""
    from image2cad.cad import export

    files, reasons = {}, {}
    for kind in kinds:
        try:
            files[kind] = export(part, code, kind)
        except InputError as error:
            reasons[kind] = str(error)
    return files, reasons
