"""What the service's worker processes do, each in one call, and how they warm up.

    built = build_program(code, ["step", "glb"], run_cadquery, Size(80))    # part and files
    solved = solve_picture(picture, codes, "low", None, ["glb"], run_cadquery)
    compared = compare_programs(prediction, reference, ["best"], run_cadquery)

Importable by name, as common/processes.py wants it. A part leaves its process once, with its
files: pickled it has megabytes. `run` is `run_cadquery` with the service's limits.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from PIL import Image

from image2cad.cad import Size, headed, measures_text, sized
from image2cad.common import EFFORTS, InputError
from image2cad.verification import Viewpoint, round_as_seen, verify
from metrics import Failure, Part, run_cadquery

EXAMPLE_PROGRAM = "import cadquery as cq\nresult = cq.Workplane().box(1, 2, 3)"
SAID_OTHERWISE = ("id", "code", "ok", "failure")  # keys of a row that scores say in its own way
# Where a size is from, in the words of the command line.
SIZE_ASSUMED, SIZE_GIVEN, SIZE_OF_PROGRAM = "assumed", "given", "as in the program"
NO_PROGRAM = Failure("no solid", "no program was found whose drawing is like the picture")

Run = Callable[[str], Part | Failure]


@dataclass(frozen=True, eq=False)
class Built:
    """What a program builds, or why nothing; its files by kind, and why there are no others.

    code: the program, brought to the size that was asked for. size: where its size is from.
    """

    part: Part | Failure
    files: dict[str, bytes] = field(default_factory=dict)
    no_files: dict[str, str] = field(default_factory=dict)
    code: str = ""
    size: str = SIZE_OF_PROGRAM


@dataclass(frozen=True, eq=False)
class Solved:
    """The program for a picture and what it builds.

    code: the best; where none was valid, the model's first, or "". likeness, confidence, source:
    as verification gives them, 0 and "" where none was valid. candidates: how many were
    considered. cameras, reason: as in verification's Answer.
    """

    code: str
    built: Built
    likeness: float
    confidence: float
    source: str
    candidates: int
    cameras: tuple[Viewpoint, ...] = ()
    reason: str = ""


@dataclass(frozen=True, eq=False)
class Compared:
    """Two programs' parts and their scores by alignment, each as `Service.score` returns them.

    prediction: None where it was not run, because the reference builds nothing.
    """

    prediction: Part | Failure | None
    reference: Part | Failure
    scores: dict[str, dict[str, Any]]


def distinct_kinds(kinds: Sequence[str]) -> list[str]:
    """The kinds, each once. Raises InputError unless all are formats of cad/exports.py."""
    from image2cad.cad import FORMATS

    kinds = list(dict.fromkeys(kinds))
    if unknown := [kind for kind in kinds if kind not in FORMATS]:
        raise InputError(f"unknown format {unknown[0]!r:.100}; choose from {', '.join(FORMATS)}")
    return kinds


def build_program(
    code: str,
    kinds: Sequence[str],
    run: Run,
    size: Size | None = None,
    otherwise: str = SIZE_OF_PROGRAM,
) -> Built:
    """The part of a program and its files of the kinds named, all of it scaled to `size`.

    otherwise: where its size is from, if none is given. Raises InputError for a measure that the
    part does not have, and for a program that cannot be scaled.
    """
    return with_files(run(code), code, kinds, run, size, otherwise)


def with_files(
    part: Part | Failure,
    code: str,
    kinds: Sequence[str],
    run: Run,
    size: Size | None = None,
    otherwise: str = SIZE_OF_PROGRAM,
) -> Built:
    """The part at its size with files of the kinds named, and for the others why there is none.

    Raises as `build_program`.
    """
    from image2cad.cad import export

    if isinstance(part, Failure):
        return Built(part, code=code, size=otherwise)
    if size is not None:
        code, part = sized(code, part, size, run)
    origin = otherwise if size is None else SIZE_GIVEN
    # A program that was sent and stays as it was keeps its text.
    text = code if origin == SIZE_OF_PROGRAM else headed(code, size_text(part, origin))
    files, reasons = {}, {}
    for kind in kinds:
        try:
            files[kind] = export(part, text if kind == "py" else code, kind)
        except InputError as error:
            reasons[kind] = str(error)
    return Built(part, files, reasons, code, origin)


def size_text(part: Part, origin: str) -> str:
    """How large a part is, with units, and where that is from, in a line."""
    return f"{measures_text(part)}; size {origin}"


def solve_picture(
    image: Image.Image | Sequence[Image.Image],
    codes: Sequence[str],
    effort: str,
    camera: Sequence[float] | None,
    kinds: Sequence[str],
    run: Run,
    size: Size | None = None,
) -> Solved:
    """The program whose drawing is most like the picture, its part and files.

    image: a picture, or views of one part. codes: of a model, its best guess first. camera: the
    direction to the picture's viewer, or None. size: what all of the program is scaled to; without
    it the size is assumed. Raises as `build_program`.
    """
    answer = verify(image, codes, effort, camera=camera)
    if answer.code is None or answer.part is None:
        nothing = replace(NO_PROGRAM, message=answer.reason) if answer.reason else NO_PROGRAM
        built = Built(nothing, size=SIZE_ASSUMED)
        if codes:
            built = build_program(codes[0], kinds, run, size, SIZE_ASSUMED)
        return replace(unverified(codes, built), reason=answer.reason)
    code, part = answer.code, answer.part
    if size is not None:
        code, part = sized(code, part, size, run)
    if EFFORTS[effort].seconds:  # else it is the model's program as it is
        first = image if isinstance(image, Image.Image) else image[0]
        code, part = round_as_seen(first, code, part, run)
    built = with_files(part, code, kinds, run, None, SIZE_ASSUMED if size is None else SIZE_GIVEN)
    figures = answer.likeness, answer.confidence, answer.source, len(answer.tried) + 1
    return Solved(built.code, built, *figures, answer.cameras, answer.reason)


def unverified(codes: Sequence[str], built: Built) -> Solved:
    """The model's first program as the answer, where verification has none."""
    return Solved(built.code, built, 0.0, 0.0, "", len(codes))


def compare_programs(
    prediction: str, reference: str, alignments: Sequence[str], run: Run
) -> Compared:
    """Both programs, each run once, and the scores under each alignment.

    Scores are rows of metrics.compute with extras, with "vsr" 0 or 1 and "failure" a Failure or
    None; there are none where the reference has no usable solid. Raises InputError for an unknown
    alignment, and for a reference whose mesh cannot be compared.
    """
    import metrics

    wanted = run(reference)
    if isinstance(wanted, Failure):
        return Compared(None, wanted, {})
    got = run(prediction)
    scores = {}
    for alignment in alignments:
        try:
            found = metrics.compute([got], [wanted], alignment=alignment, workers=1, extras=True)
        except ValueError as error:
            raise InputError(str(error)) from error
        (row,) = found["rows"]
        failure = got if isinstance(got, Failure) else None
        if failure is None and not row["ok"]:  # it ran, but its mesh cannot be compared
            failure = Failure("invalid solid", row["failure"].partition(": ")[2])
        rest = {name: value for name, value in row.items() if name not in SAID_OTHERWISE}
        told = {"vsr": float(row["ok"]), "alignment": alignment, "failure": failure}
        scores[alignment] = told | rest
    return Compared(got, wanted, scores)


def score_programs(prediction: str, reference: str, alignment: str, run: Run) -> dict[str, Any]:
    """The scores of `compare_programs` under one alignment, without the parts.

    Raises InputError for a reference without a usable solid too.
    """
    compared = compare_programs(prediction, reference, [alignment], run)
    if isinstance(compared.reference, Failure):
        raise InputError(f"the reference has no usable solid: {compared.reference}")
    return compared.scores[alignment]


# ---- Before the first request


def warm_for_programs() -> None:
    """Load and compile what the first program of a process would wait for."""
    score_programs(EXAMPLE_PROGRAM, EXAMPLE_PROGRAM, "best", run_cadquery)
