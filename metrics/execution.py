r"""Runs generated CadQuery code: the only place that does. run_cadquery(code) -> Part | Failure.

Two confined children per program, both forked from a warm process (sandbox/fork_server.py): the
first runs the code and hands over B-rep bytes, the second runs no generated code and measures
them. This process parses nothing but numbers and arrays, each checked (wire.py), and never
unpickles. Where a STEP file is wanted, export_step has it written by one more child of the second
kind.

    >>> from metrics.execution import run_cadquery
    >>> run_cadquery("import cadquery as cq\nresult = cq.Workplane().box(1, 2, 3)").volume
    6.0
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

from . import wire
from .parts import KINDS, Failure, Part, part_from_message
from .progress import progress_bar
from .sandbox import client, fork_server

DEFAULT_TIMEOUT = 30.0  # CPU seconds
# A program that sleeps uses no CPU time: its wall limit is so many times its timeout, and so many
# seconds more.
WALL_TIMES, WALL_SPARE = 3.0, 10.0
DEFAULT_MEMORY = 4 << 30  # bytes, as are those below
MAX_CODE = 4 << 20
MAX_BREP = 64 << 20
MAX_ARRAYS = 256 << 20
MAX_STEP = 64 << 20
MAX_ANSWER = 1 << 16
JOB_OF_SUFFIX = {
    ".step": fork_server.READ_STEP,
    ".stp": fork_server.READ_STEP,
    ".stl": fork_server.MEASURE_STL,
    ".3mf": fork_server.MEASURE_3MF,
    ".obj": fork_server.MEASURE_OBJ,
}
MEASURED_AT_ONCE = (fork_server.MEASURE_STL, fork_server.MEASURE_3MF, fork_server.MEASURE_OBJ)
_Read = TypeVar("_Read")


class ProtectionError(RuntimeError):
    """A protection named in `require` cannot be reached on this machine."""


def run_cadquery(
    code: str,
    timeout: float = DEFAULT_TIMEOUT,
    memory: int = DEFAULT_MEMORY,
    require: Sequence[str] = (),
) -> Part | Failure:
    """Run one program and measure its result.

    timeout: seconds of CPU time, of all threads together, for the program, and again for the
    measuring; so a verdict does not depend on what else runs on the machine. Only for who sleeps
    or waits there is a limit of wall time, `wall_limit(timeout)`. memory: bytes the
    program may take on top of the warm process. require: names of protection layers without
    which nothing is run; ProtectionError says what is missing. Everything that a program can do
    wrong comes back as a Failure.
    """
    if not isinstance(code, str):
        raise TypeError(f"code must be a string, not {type(code).__name__}")
    job = code.encode("utf-8", "surrogatepass")
    if len(job) > MAX_CODE:
        return Failure("too large", f"the program has {len(job)} bytes, {MAX_CODE} are allowed")
    return _run(fork_server.RUN_PROGRAM, job, timeout, memory, require)


def measure_file(
    path: str | Path,
    timeout: float = DEFAULT_TIMEOUT,
    memory: int = DEFAULT_MEMORY,
    require: Sequence[str] = (),
) -> Part | Failure:
    """Measure a .step, .stp, .stl, .3mf or .obj file, confined like a program.

    The last two need trimesh; without it they are a Failure that says so. Raises ValueError for
    other suffixes and OSError if the file cannot be read.
    """
    path = Path(path)
    kind = JOB_OF_SUFFIX.get(path.suffix.lower())
    if kind is None:
        raise ValueError(f"{path}: expected one of {', '.join(JOB_OF_SUFFIX)}")
    return _run(kind, path.read_bytes(), timeout, memory, require)


def export_step(
    brep: bytes,
    timeout: float = DEFAULT_TIMEOUT,
    memory: int = DEFAULT_MEMORY,
    require: Sequence[str] = (),
) -> bytes | Failure:
    """The STEP file, in millimetres, of a part's B-rep bytes. Limits as for run_cadquery.

    Confined, because B-rep bytes that a program had a hand in may crash the reader.
    """
    if not isinstance(brep, bytes):
        raise TypeError(f"brep must be bytes, not {type(brep).__name__}")
    if len(brep) > MAX_BREP:
        return Failure("too large", f"the B-rep has {len(brep)} bytes, {MAX_BREP} are allowed")
    reached = _protected(require)
    answer = _run_job(fork_server.WRITE_STEP, brep, timeout, memory, MAX_STEP)
    if isinstance(answer, Failure):
        return answer
    return _read_trusted(answer, answer.seconds, reached, lambda _, body: body, "written as STEP")


def compare_in_child(job: bytes, timeout: float, memory: int = DEFAULT_MEMORY) -> float | Failure:
    """The IoU of a pair of parts (comparing.py), in a child. Limits as for run_cadquery."""
    reached = protection()
    answer = _run_job(fork_server.COMPARE, job, timeout, memory, MAX_ANSWER)
    if isinstance(answer, Failure):
        return answer

    def read(header: dict[str, Any], _: bytes) -> float:
        iou = header.get("iou")
        if not isinstance(iou, float) or not 0 <= iou <= 1:
            raise wire.WireError("no IoU")
        return iou

    if answer.reason == fork_server.ENDED and os.WIFSIGNALED(answer.status):
        name = signal.Signals(os.WTERMSIG(answer.status)).name
        return Failure("crash", f"the process that compared two parts died of {name}")
    return _read_trusted(answer, answer.seconds, reached, read, "compared")


def wall_limit(timeout: float) -> float:
    """Seconds of wall time after which a job of `timeout` CPU seconds is ended all the same."""
    return WALL_TIMES * timeout + WALL_SPARE


def _run(
    kind: int, job: bytes, timeout: float, memory: int, require: Sequence[str]
) -> Part | Failure:
    reached = _protected(require)
    seconds = 0.0
    if kind in MEASURED_AT_ONCE:
        answer = _run_job(kind, job, timeout, memory, MAX_ARRAYS)
        if isinstance(answer, Failure):
            return answer
        return _read_measure(answer, answer.seconds, reached)
    if kind != fork_server.MEASURE_BREP:
        answer = _run_job(kind, job, timeout, memory, MAX_BREP)
        if isinstance(answer, Failure):
            return answer
        seconds = answer.seconds
        failure, job = _read_program(answer, reached)
        if failure:
            return failure
    answer = _run_job(fork_server.MEASURE_BREP, job, timeout, memory, MAX_ARRAYS)
    if isinstance(answer, Failure):
        return answer
    return _read_measure(answer, seconds + answer.seconds, reached)


def protection() -> tuple[str, ...]:
    """The protection layers that children run under on this machine (see sandbox/layers.py)."""
    return client.start()


def _protected(require: Sequence[str]) -> tuple[str, ...]:
    reached = protection()
    missing = [name for name in require if name not in reached]
    if missing:
        raise ProtectionError(
            f"this machine cannot reach {', '.join(missing)}; it reaches {', '.join(reached)}"
        )
    return reached


def _run_job(
    kind: int, job: bytes, timeout: float, memory: int, limit: int
) -> client.JobOutcome | Failure:
    for _ in range(2):  # once more, because the fault may be another program's
        try:
            return client.run_job(kind, job, timeout, wall_limit(timeout), memory, limit)
        except client.ForkServerLost as error:
            reason = str(error)
        except client.ForkServerStalled as error:
            return Failure("crash", str(error))
    return Failure("crash", f"{reason}, twice, while this program ran")


def _read_program(
    answer: client.JobOutcome, reached: tuple[str, ...]
) -> tuple[Failure | None, bytes]:
    def failed(kind: str, message: str, line: int | None = None) -> tuple[Failure, bytes]:
        return Failure(kind, message, line, answer.seconds, reached), b""

    death = _cause_of_death(answer)
    if death:
        return failed(*death)
    try:
        header, brep = wire.unpack(answer.output)
    except wire.WireError:
        return failed("crash", "the program ended without a readable result")
    if header.get("ok") is True:
        return None, brep
    kind, message, line = header.get("kind"), header.get("message"), header.get("line")
    if kind not in KINDS or not isinstance(message, str):
        return failed("crash", "the program ended without a readable result")
    return failed(kind, _printable(message), line if type(line) is int else None)


def _read_measure(
    answer: client.JobOutcome, seconds: float, reached: tuple[str, ...]
) -> Part | Failure:
    def read(header: dict[str, Any], body: bytes) -> Part:
        return part_from_message(header, body, seconds, reached)

    return _read_trusted(answer, seconds, reached, read, "measured")


def _read_trusted(
    answer: client.JobOutcome,
    seconds: float,
    reached: tuple[str, ...],
    read: Callable[[dict[str, Any], bytes], _Read],
    done: str,
) -> _Read | Failure:
    """What a child made that ran no generated code; `done` says what happened to the solid."""

    def failed(kind: str, message: str) -> Failure:
        return Failure(kind, message, None, seconds, reached)

    late = _how_late(answer)
    if late:
        return failed("timeout", f"the solid took too long to be {done}: {late}")
    if answer.reason == fork_server.CANCELLED:
        return failed("too large", f"the solid is too large to be {done}")
    try:
        header, body = wire.unpack(answer.output)
        if answer.status == 0 and header.get("ok") is True:
            return read(header, body)
    except wire.WireError:
        header = {}
    kind, message = header.get("kind"), header.get("message")
    if answer.status == 0 and kind in KINDS and isinstance(message, str):
        return failed(str(kind), _printable(message))
    return failed("invalid solid", f"the solid cannot be read or {done}")


def _cause_of_death(answer: client.JobOutcome) -> tuple[str, str] | None:
    late = _how_late(answer)
    if late:
        return "timeout", late
    if answer.reason == fork_server.CANCELLED:
        return "too large", f"the result is larger than {MAX_BREP >> 20} MB"
    if os.WIFSIGNALED(answer.status):
        number = os.WTERMSIG(answer.status)
        if number == signal.SIGXCPU:
            return "timeout", "stopped at the limit of CPU time"
        if number == signal.SIGKILL:
            return "memory", "killed by the system, most likely for its use of memory"
        return "crash", f"the process died of {signal.Signals(number).name}"
    if answer.status != 0:
        code = os.waitstatus_to_exitcode(answer.status)
        if code == fork_server.EXIT_UNCONFINED:
            return "crash", "the process could not be confined, so nothing was run"
        return "crash", f"the process ended with code {code} and without a result"
    return None


def _how_late(answer: client.JobOutcome) -> str:
    """Which limit of time ended a job; nothing if none did."""
    if answer.reason == fork_server.PAST_CPU_LIMIT:
        return f"stopped after {answer.cpu_limit:g} s of CPU time"
    if answer.reason == fork_server.PAST_WALL_LIMIT:
        used = f"of which it used {answer.cpu:.1f} s of CPU time"
        return f"stopped after {answer.wall_limit:g} s, {used}"
    return ""


def _printable(text: str) -> str:
    kept = "".join(c if c.isprintable() or c == "\n" else " " for c in text[:2000])
    return kept.strip() or "no message"


def run_many(
    codes: Sequence[str], workers: int | None = None, progress: bool = False, **limits: Any
) -> list[Part | Failure]:
    """Run programs side by side, each in its own process; the order is kept.

    workers: how many at a time; default is the number of cores this process may use. limits: as
    for run_cadquery.
    """
    codes = list(codes)
    with ThreadPoolExecutor(workers or usable_cores()) as pool:
        results = pool.map(lambda code: run_cadquery(code, **limits), codes)
        if not progress:
            return list(results)
        return list(
            progress_bar(results, total=len(codes), desc="running programs", unit="program")
        )


def usable_cores() -> int:
    """The number of cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
