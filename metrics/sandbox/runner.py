"""Runs one generated program and hands its solid on as B-rep bytes.

This code runs in the confined child only (see fork_server.py). Whatever it reports is a claim of
the program, because a hostile program can patch everything in this process. The scorer therefore
takes nothing from here but an explanation of a failure and bytes that another confined process
measures (measure.py).

What counts as the result: everything given to `show_object`, else the variables `result`,
`solid`, `r`, else the CadQuery object assigned last. A Workplane stands for all the shapes it
selects, an Assembly for its compound.

Programs may export files: the exporters and files opened for writing go nowhere. That is a
courtesy to honest programs, not a protection. Leaves out: reading back what was exported.
"""

from __future__ import annotations

import builtins
import io
import os
import textwrap
import traceback
from typing import Any

import cadquery as cq
import numpy as np
from OCP.BinTools import BinTools

PROGRAM_FILE = "<program>"
MAX_MESSAGE = 2000
RESULT_NAMES = ("result", "solid", "r")
CADQUERY_TYPES = (cq.Workplane, cq.Shape, cq.Assembly, cq.Sketch)
ERROR_HINTS = {
    "StdFail_NotDone": "OpenCASCADE could not build this feature (often a fillet or chamfer that"
    " is too large, a boolean of touching faces, or a profile that is open or crosses itself)",
    "Standard_ConstructionError": "OpenCASCADE refused these dimensions (zero length, equal"
    " points, or a negative radius)",
    "Standard_NullObject": "the operation left an empty shape",
    "Standard_DomainError": "a number is outside the range of this operation",
    "gp_VectorWithNullMagnitude": "a direction has length zero",
    "BRep_API: command not done": "OpenCASCADE could not build this feature (often a profile that"
    " is open or crosses itself, or a radius that is too large)",
}


class Namespace(dict):
    """The program's globals, kept in the order in which names were last assigned."""

    def __setitem__(self, name: Any, value: Any) -> None:
        self.pop(name, None)
        super().__setitem__(name, value)


def run(code: str) -> tuple[dict[str, Any], bytes]:
    """Run the program. Returns (header, B-rep bytes); the header of a failure has a kind."""
    try:
        tree = compile(textwrap.dedent(code), PROGRAM_FILE, "exec")
    except (SyntaxError, ValueError, RecursionError, MemoryError, OverflowError) as error:
        line = getattr(error, "lineno", None)
        return _failure("syntax error", getattr(error, "msg", None) or str(error), line)
    shown: list[Any] = []
    names = _namespace(shown)
    try:
        exec(tree, names, names)
    except SystemExit:
        pass  # `exit()` on the last line is a normal end; the result is looked at as usual
    except BaseException as error:  # generated code may raise anything, also outside Exception
        return _explain(error)
    try:
        shapes = _shapes(_chosen(names, shown))
        if not shapes:
            return _failure("no solid", _what_was_there(names), None)
        return {"ok": True}, to_brep(_one(shapes))
    except BaseException as error:
        return _explain(error)


def to_brep(shape: cq.Shape) -> bytes:
    """The shape as OpenCASCADE's binary B-rep."""
    stream = io.BytesIO()
    BinTools.Write_s(shape.wrapped, stream)
    return stream.getvalue()


def _namespace(shown: list[Any]) -> Namespace:
    def show_object(thing: Any, *_: Any, **__: Any) -> None:
        shown.append(thing)

    def nothing(*_: Any, **__: Any) -> None:
        return None

    _swallow_exports(nothing)
    names = Namespace()
    names.update(
        __name__="__main__", __file__="program.py", __builtins__=builtins,
        cq=cq, cadquery=cq, np=np, numpy=np, show_object=show_object, debug=nothing, log=nothing,
    )  # fmt: skip
    return names


def _swallow_exports(nothing: Any) -> None:
    cq.exporters.export = nothing
    cq.exporters.exportShape = nothing
    for owner in (cq.Shape, cq.Workplane, cq.Assembly, cq.Sketch):
        for name in ("export", "save", "exportStep", "exportStl", "exportBrep", "exportBin",
                     "exportSvg"):  # fmt: skip
            if hasattr(owner, name):
                setattr(owner, name, nothing)
    real_open = builtins.open

    def open_nowhere(file: Any, mode: str = "r", *args: Any, **options: Any) -> Any:
        if any(letter in mode for letter in "wax+"):
            return io.BytesIO() if "b" in mode else io.StringIO()
        return real_open(file, mode, *args, **options)

    builtins.open = open_nowhere
    os.makedirs = nothing
    os.mkdir = nothing


def _chosen(names: Namespace, shown: list[Any]) -> Any:
    if shown:
        return shown
    for name in RESULT_NAMES:
        if _is_geometry(names.get(name)):
            return names[name]
    found = [value for value in names.values() if isinstance(value, CADQUERY_TYPES)]
    return found[-1] if found else None


def _is_geometry(value: Any) -> bool:
    if isinstance(value, (list, tuple)):
        return any(isinstance(item, CADQUERY_TYPES) for item in value)
    return isinstance(value, CADQUERY_TYPES)


def _shapes(thing: Any) -> list[cq.Shape]:
    if isinstance(thing, (list, tuple)):
        return [shape for item in thing for shape in _shapes(item)]
    if isinstance(thing, cq.Assembly):
        return [thing.toCompound()]
    if isinstance(thing, cq.Workplane):
        return [shape for item in thing.vals() for shape in _shapes(item)]
    if isinstance(thing, cq.Sketch):
        return [shape for item in (thing.vals() or [thing._faces]) for shape in _shapes(item)]
    if isinstance(thing, cq.Shape) and not thing.wrapped.IsNull():
        return [thing]
    return []


def _one(shapes: list[cq.Shape]) -> cq.Shape:
    return shapes[0] if len(shapes) == 1 else cq.Compound.makeCompound(shapes)


def _what_was_there(names: Namespace) -> str:
    if any(isinstance(value, CADQUERY_TYPES) for value in names.values()):
        return "the result holds no shape; assign the finished solid to `result`"
    return "no CadQuery object was assigned; assign the finished solid to `result`"


def _explain(error: BaseException) -> tuple[dict[str, Any], bytes]:
    line = None
    for frame in traceback.extract_tb(error.__traceback__):
        if frame.filename == PROGRAM_FILE:
            line = frame.lineno
    name = type(error).__name__
    text = f"{name}: {error}" if str(error) else name
    if isinstance(error, MemoryError) or "bad_alloc" in text or "OutOfMemory" in name:
        return _failure("memory", "the program asked for more memory than it may use", line)
    if isinstance(error, PermissionError):
        return _failure("forbidden", text, line)
    for mark, hint in ERROR_HINTS.items():
        if mark in text:
            text = f"{hint} [{text}]"
            break
    return _failure("exception", text, line)


def _failure(kind: str, message: str, line: int | None) -> tuple[dict[str, Any], bytes]:
    return {"ok": False, "kind": kind, "message": message[:MAX_MESSAGE], "line": line}, b""
