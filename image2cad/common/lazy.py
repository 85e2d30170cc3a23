"""What a room's face lists, loaded when it is first used.

    def __getattr__(name: str) -> object:
        return load(__name__, name)

A face names what the room gives in imports under TYPE_CHECKING, which type checkers read
and nothing runs. `load` reads the same imports, so every name stands there once, and
importing a face loads neither torch nor cadquery nor numba.
"""

from __future__ import annotations

import ast
import importlib
import sys
from functools import cache
from typing import Any


def load(face: str, name: str) -> object:
    """The object that the face of the room `face` (a dotted name) lists as `name`.

    Raises AttributeError for a name that is not on the face.
    """
    home = None if name.startswith("__") else _homes(face).get(name)
    if home is None:
        raise AttributeError(f"module {face!r} has no attribute {name!r}")
    found = getattr(importlib.import_module(home), name)
    setattr(sys.modules[face], name, found)
    return found


@cache
def _homes(face: str) -> dict[str, str]:
    """Each name on the face, and the module that defines it."""
    loader: Any = sys.modules[face].__loader__
    tree = ast.parse(loader.get_source(face))
    return {
        alias.name: node.module
        for checked in tree.body
        if isinstance(checked, ast.If)
        for node in checked.body
        if isinstance(node, ast.ImportFrom) and node.module
        for alias in node.names
    }
