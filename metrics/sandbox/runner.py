"""Runs one generated program and hands its solid on as B-rep bytes.

This code runs in the confined child only (see fork_server.py). Whatever it reports is a claim of
the program, because a hostile program can patch everything in this process. The scorer therefore
takes nothing from here but an explanation of a failure and bytes that another confined process
measures (measure.py).

Which object is the part says choosing.py: what a program shows, else what it exported last, else
its variables. A Workplane stands for all the shapes it selects, an Assembly for its compound, a
list or a dict for all its values. Closed shells count where nothing holds a solid.

What a program finds in place of files, viewers and exporters is in stand_ins.py and
pretend_files.py: a courtesy to honest programs, not a protection.
"""

from __future__ import annotations

import ast
import builtins
import functools
import io
import re
import textwrap
import traceback
from typing import Any

import cadquery as cq
import numpy as np
from OCP.BinTools import BinTools
from OCP.BRep import BRep_Tool
from OCP.TopAbs import TopAbs_ShapeEnum
from OCP.TopExp import TopExp_Explorer

from . import pretend_files, stand_ins
from .choosing import RESULT_NAME, choose_result
from .pretend_files import PretendFiles

PROGRAM_FILE = "<program>"
BYTE_ORDER_MARK = "\ufeff"
MAX_MESSAGE = 2000
CADQUERY_TYPES = (cq.Workplane, cq.Shape, cq.Assembly, cq.Sketch)
HOLDERS = (*CADQUERY_TYPES, list, tuple, dict)
# What a text holds if its program may export, write or read: most do not, and run sooner.
MAY_USE_FILES = re.compile(
    r"export|save|open|write|read|load|file|path|exec|eval|__|(import|from)\s+(?!cadquery|numpy|math)",
    re.IGNORECASE,
)
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
    """The program's globals, kept in the order in which names were last assigned.

    watched: names that functions declare `global`; Python stores these without asking us, so they
    are looked at again whenever the program assigns something, and at its end.
    """

    watched: tuple[str, ...] = ()

    def __setitem__(self, name: Any, value: Any) -> None:
        self.notice()
        self.pop(name, None)
        super().__setitem__(name, value)
        if name in self.watched:
            self._seen[name] = value

    def notice(self) -> None:
        """Move to the end what functions assigned since the last look."""
        for name in self.watched:
            value = self.get(name)
            if value is not self._seen.get(name):
                self._seen[name] = value
                super().__setitem__(name, self.pop(name))

    @functools.cached_property
    def _seen(self) -> dict[str, Any]:
        return {}


class Results:
    """What a program shows and exports, each as the shapes that it had at that moment."""

    def __init__(self) -> None:
        self.shown: list[list[cq.Shape]] = []
        self.exported: list[list[cq.Shape]] = []

    def show_object(self, thing: Any, *_: Any, **__: Any) -> None:
        """As in CQ-editor: what is shown comes first, its name and colour after it."""
        self.shown.append(_shapes_or_none(thing))

    def export(self, thing: Any) -> list[cq.Shape]:
        """Take note of an export; returns its shapes."""
        self.exported.append(_shapes_or_none(thing))
        return self.exported[-1]


def run(code: str) -> tuple[dict[str, Any], bytes]:
    """Run the program. Returns (header, B-rep bytes); the header of a failure has a kind."""
    try:
        text = ast.parse(textwrap.dedent(code.lstrip(BYTE_ORDER_MARK)), PROGRAM_FILE)
        tree = compile(text, PROGRAM_FILE, "exec")
    except (SyntaxError, ValueError, RecursionError, MemoryError, OverflowError) as error:
        line = getattr(error, "lineno", None)
        return _failure("syntax error", getattr(error, "msg", None) or str(error), line)
    results = Results()
    names = _namespace(results)
    _furnish(results, code)
    nodes = list(ast.walk(text))
    names.watched = _set_in_functions(nodes)
    try:
        exec(tree, names, names)
    except SystemExit:
        pass  # `exit()` on the last line is a normal end; the result is looked at as usual
    except BaseException as error:  # generated code may raise anything, also outside Exception
        return _explain(error)
    try:
        shapes = _chosen(results, _assigned(names, _loops_only(nodes)))
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


# ---- What the program finds when it starts


def _namespace(results: Results) -> Namespace:
    def nothing(*_: Any, **__: Any) -> None:
        return None

    names = Namespace()
    names.update(
        __name__="__main__", __file__=stand_ins.PROGRAM_NAME, __builtins__=builtins,
        cq=cq, cadquery=cq, np=np, numpy=np, show_object=results.show_object,
        debug=nothing, log=nothing,
    )  # fmt: skip
    return names


def _furnish(results: Results, code: str) -> None:
    stand_ins.forget_the_scorer()
    stand_ins.show_in(results.show_object)
    if MAY_USE_FILES.search(code):
        files = PretendFiles()
        stand_ins.export_to(files, results.export)
        stand_ins.import_from(files)
        pretend_files.stand_in(files)
    if "asyncio" in code:
        stand_ins.run_event_loops()


# ---- Which object is the part


def _set_in_functions(nodes: list[ast.AST]) -> tuple[str, ...]:
    """The names declared `global` in functions, in the order of their last place in the text."""
    declared = {name for node in nodes if isinstance(node, ast.Global) for name in node.names}
    places = {name: 0 for name in declared}
    for node in nodes if declared else ():
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store) and node.id in declared:
            places[node.id] = max(places[node.id], node.lineno)
    return tuple(sorted(places, key=lambda name: (places[name], name)))


def _loops_only(nodes: list[ast.AST]) -> set[str]:
    """The names that only loops give a value, as in `for one in part.solids().vals(): ...`."""
    looped = {id(inner): inner for node in nodes if isinstance(node, (ast.For, ast.comprehension))
              for inner in ast.walk(node.target) if isinstance(inner, ast.Name)}  # fmt: skip
    if not looped:
        return set()
    stored = [node for node in nodes
              if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)]  # fmt: skip
    elsewhere = {node.id for node in stored if id(node) not in looped}
    return {node.id for node in looped.values()} - elsewhere


def _assigned(names: Namespace, loops_only: set[str]) -> dict[str, Any]:
    """The program's variables that may hold geometry, those assigned last at the end.

    What merely ran through a loop counts as assigned first of all.
    """
    names.notice()
    order = sorted(names, key=lambda name: name not in loops_only)
    return {name: names[name] for name in order if isinstance(names[name], HOLDERS)}


def _chosen(results: Results, assigned: dict[str, Any]) -> list[cq.Shape]:
    """The shapes of the part; where there is no solid, those that were meant to be it."""
    for kind in (TopAbs_ShapeEnum.TopAbs_SOLID, TopAbs_ShapeEnum.TopAbs_SHELL):
        holds = functools.partial(_holds_closed, kind)
        if part := choose_result(results.shown, results.exported, assigned, holds):
            return _shapes(part)
    meant = (results.shown, results.exported[-1:], assigned.get(RESULT_NAME),
             *reversed(assigned.values()))  # fmt: skip
    return next((shapes for thing in meant if (shapes := _shapes_or_none(thing))), [])


def _holds_closed(kind: TopAbs_ShapeEnum, thing: Any) -> bool:
    """Whether there is a solid or, of that kind, a closed shell in it."""
    for shape in _shapes_or_none(thing):
        found = TopExp_Explorer(shape.wrapped, kind)
        while found.More():
            if kind == TopAbs_ShapeEnum.TopAbs_SOLID or BRep_Tool.IsClosed_s(found.Current()):
                return True
            found.Next()
    return False


def _shapes_or_none(thing: Any) -> list[cq.Shape]:
    """Its shapes; none where asking for them fails, as an assembly of nothing does."""
    try:
        return _shapes(thing)
    except Exception:
        return []


def _shapes(thing: Any) -> list[cq.Shape]:
    if isinstance(thing, dict):
        return _shapes(list(thing.values()))
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
