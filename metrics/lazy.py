"""What the face of this folder lists, loaded when it is first used.

A face names what it gives in imports under TYPE_CHECKING, which type checkers read and nothing
runs. `load` reads the same imports, so that every name stands there once and `import metrics`
is cheap. (image2cad/common/lazy.py is its twin: this folder also works alone.)
"""

from __future__ import annotations

import ast
import importlib
import sys
from functools import cache
from typing import Any


def load(face: str, name: str) -> object:
    """The object that the package `face` (its dotted name) lists as `name`.

    Raises AttributeError for a name that is not on the face.
    """
    home = None if name.startswith("__") else _homes(face).get(name)
    if home is None:
        raise AttributeError(f"module {face!r} has no attribute {name!r}")
    found = getattr(importlib.import_module(f".{home}", face), name)
    setattr(sys.modules[face], name, found)
    return found


@cache
def _homes(face: str) -> dict[str, str]:
    """Each name on the face, and the module in the package that defines it."""
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
