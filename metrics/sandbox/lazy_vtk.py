"""Puts off loading VTK in the warm process until a program uses it.

CadQuery imports VTK for its viewer and for `toVtkPolyData`, which hardly any generated program
touches, and VTK's Python wrappers are two thirds of the memory mappings that every fork and every
exit of a child has to walk: without them a child costs about 10 ms of CPU less. So the names that
CadQuery imports from `vtkmodules` stand for themselves until one is called, read or subclassed;
then the real modules are loaded, in the child that asked.

Call `import_cadquery` once, before any fork. A program that imports more of VTK by itself gets
all of it for real. Leaves out: `isinstance` with a name that CadQuery imported, before any use.
"""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Sequence
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

VTK_PACKAGES = ("vtk", "vtkmodules")
VTK_BRIDGES = ("OCP.IVtkOCC", "OCP.IVtkVTK")  # OpenCASCADE's, which load all of VTK


class _Name:
    """A name of a VTK module, which becomes the real thing when it is used."""

    def __init__(self, module: str, name: str) -> None:
        self._module, self._name = module, name

    def _real(self) -> Any:
        _load()
        return getattr(importlib.import_module(self._module), self._name)

    def __call__(self, *args: Any, **options: Any) -> Any:
        return self._real()(*args, **options)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return getattr(self._real(), name)

    def __mro_entries__(self, bases: Sequence[Any]) -> tuple[Any, ...]:
        return (self._real(),)

    def __or__(self, other: Any) -> Any:  # an annotation such as `vtkActor | None`
        return self

    __ror__ = __or__


class _Finder:
    """Finds every VTK module as an empty one, whose names are made when they are asked for.

    settled: CadQuery is imported; who looks for a further module wants VTK itself.
    """

    settled = False

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        if name.partition(".")[0] not in VTK_PACKAGES and name not in VTK_BRIDGES:
            return None
        if self.settled:
            _load()
            return importlib.util.find_spec(name)  # not by `path`, which the stand-in gave
        return ModuleSpec(name, self, is_package=name in VTK_PACKAGES)  # type: ignore[arg-type]

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        return ModuleType(spec.name)

    def exec_module(self, module: ModuleType) -> None:
        def name_of(name: str) -> _Name:
            if name.startswith("__"):
                raise AttributeError(name)
            return _Name(module.__name__, name)

        module.__getattr__ = name_of  # type: ignore[method-assign]
        _made.append(module.__name__)


_finder = _Finder()
_made: list[str] = []


def import_cadquery() -> ModuleType:
    """Import CadQuery without VTK; returns it."""
    if "cadquery" not in sys.modules:
        sys.meta_path.insert(0, _finder)
    cadquery = importlib.import_module("cadquery")
    _finder.settled = True
    return cadquery


def _load() -> None:
    """Load what was stood in for. From now on VTK is VTK."""
    if _finder not in sys.meta_path:
        return
    sys.meta_path.remove(_finder)
    for name in _made:
        del sys.modules[name]
    for name in _made:
        importlib.import_module(name)
