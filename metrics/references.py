"""References: code, STEP, STL, 3MF or OBJ files, or Parts; each executed once and kept.

Kept in this process for the last MOST_KEPT references, and, where a folder is given, on disk under
the hash of their content, in the checked byte format of wire.py.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import tempfile
import threading
from collections import OrderedDict
from collections.abc import Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Any

from . import wire
from .execution import JOB_OF_SUFFIX, measure_file, run_cadquery
from .parts import Failure, Part, part_from_message, part_to_bytes

Reference = str | Path | Part
MOST_KEPT = 512
CACHE_FORMAT = "2"  # part of the key; change it when measuring changes
_kept: OrderedDict[str, Future[Part]] = OrderedDict()
_lock = threading.Lock()


class BadReference(ValueError):
    """A reference has no usable solid."""


def code_or_file(given: str | Path) -> str | Path:
    """A program's text, or the path of a file of CAD data.

    A single line of text that ends like a file's name, in letters of either case, is a path; a
    path that ends in .py is the program in it. Raises OSError and ValueError where that cannot be
    read.
    """
    if isinstance(given, str):
        if not file_suffix(given):
            return given
        given = Path(given.strip())
    return given.read_text(encoding="utf-8-sig") if given.suffix.lower() == ".py" else given


def reference_part(reference: Reference, limits: dict[str, Any], folder: str | None = None) -> Part:
    """The Part of a reference. Raises BadReference where it has no usable solid."""
    if isinstance(reference, Part):
        return reference
    if not isinstance(reference, str | Path):
        raise BadReference(f"{reference!r} is neither code, nor a path, nor a Part")
    try:
        reference = code_or_file(reference)
    except (OSError, UnicodeDecodeError) as error:
        raise BadReference(f"{reference} cannot be read: {error}") from None
    key = _key(reference)
    with _lock:
        known = _kept.get(key)
        if known is None:
            mine: Future[Part] = Future()
            _kept[key] = mine
            while len(_kept) > MOST_KEPT:
                _kept.popitem(last=False)
        else:
            _kept.move_to_end(key)
    if known is not None:
        return known.result()
    try:
        mine.set_result(_from_disk_or_run(reference, key, limits, folder))
    except BaseException as error:
        with _lock:
            _kept.pop(key, None)
        mine.set_exception(error)
    return mine.result()


def reference_kinds(references: Sequence[Reference]) -> str:
    """What the references are: "code", "part", "step", "stl", ..., joined by "+"."""
    names = set()
    for one in references:
        if isinstance(one, Part):
            names.add("part")
        else:
            suffix = one.suffix if isinstance(one, Path) else file_suffix(one)
            names.add("code" if suffix.lower() in ("", ".py") else suffix.lstrip(".").lower())
    return "+".join(sorted(names))


def file_suffix(text: str) -> str:
    """The ending of a text that is a path and no program, as it is written; else nothing."""
    name = text.strip()
    suffix = "" if "\n" in name else Path(name[-12:]).suffix
    return suffix if suffix.lower() in (*JOB_OF_SUFFIX, ".py") else ""


def _key(reference: str | Path) -> str:
    if isinstance(reference, str):
        content, kind = reference.encode("utf-8", "surrogatepass"), "code"
    else:
        try:
            content, kind = reference.read_bytes(), reference.suffix.lower()
        except OSError as error:
            raise BadReference(f"{reference} cannot be read: {error.strerror}") from None
    return hashlib.sha256(f"{CACHE_FORMAT} {kind} ".encode() + content).hexdigest()


def _from_disk_or_run(
    reference: str | Path, key: str, limits: dict[str, Any], folder: str | None
) -> Part:
    file = Path(folder) / f"{key}.part" if folder else None
    if file is not None:
        # Unreadable or damaged: run it again and write it anew.
        with contextlib.suppress(OSError, wire.WireError):
            return part_from_message(*wire.unpack(file.read_bytes()))
    if isinstance(reference, Path):
        got = measure_file(reference, **limits)
    else:
        got = run_cadquery(reference, **limits)
    if isinstance(got, Failure):
        raise BadReference(str(got))
    if file is not None:
        _write_whole(file, part_to_bytes(got))
    return got


def _write_whole(file: Path, content: bytes) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=file.parent)
    with os.fdopen(handle, "wb") as stream:
        stream.write(content)
    os.replace(name, file)
