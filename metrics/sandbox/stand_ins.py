"""What a program finds in place of what the layers refuse: viewers, exports, an event loop.

A courtesy to honest programs, not a protection. Everything here happens in the confined child,
before it runs its program, and the layers around it stay as they are.
"""

from __future__ import annotations

import contextlib
import functools
import io
import os
import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any

import cadquery as cq
import numpy as np

from . import cad_files, landlock
from .pretend_files import PretendFiles

PROGRAM_NAME = "program.py"
# Modules that show a part in a window or a browser, hardly ever installed beside a scorer.
VIEWERS = (
    "cadquery.vis", "ocp_vscode", "jupyter_cadquery", "cq_vscode", "cq_server", "cq_server.ui",
)  # fmt: skip
# Where CadQuery has its exporters; each is called with what it exports first, then a file.
EXPORTERS: dict[Any, tuple[str, ...]] = {
    cq.exporters: ("export", "exportDXF", "exportVTP"),
    cq.exporters.dxf: ("exportDXF",),
    cq.exporters.assembly: (
        "exportAssembly", "exportStepMeta", "exportCAF", "exportVTKJS", "exportVRML", "exportGLTF",
    ),
    cq.Shape: ("export", "exportStep", "exportStl", "exportBrep", "exportBin"),
    cq.Workplane: ("export", "exportSvg"),
    cq.Assembly: ("export", "save", "exportStep"),
    cq.Sketch: ("export",),
}  # fmt: skip
# Of viewers, for `import *`: what sets them up, and shows nothing by itself.
SETTINGS = ("set_port", "set_defaults", "set_viewer_config", "reset_show", "show_all")
FILE_ARGUMENTS = ("fname", "fileName", "filename", "path", "f")
# Where a program may look for modules: of what the scorer searches, what the layers let it read.
SEARCHED = [
    path for path in sys.path
    if any(f"{os.path.realpath(path)}/".startswith(f"{one}/") for one in landlock.readable_paths())
]  # fmt: skip


def forget_the_scorer() -> None:
    """Leave nothing of the scorer in `sys.argv`, `sys.path` and the module `__main__`."""
    sys.argv[:] = sys.orig_argv[:] = [PROGRAM_NAME]
    sys.path[:] = SEARCHED
    main = vars(sys.modules["__main__"])
    for name in [name for name in main if not name.startswith("__")]:
        del main[name]


class _Setting:
    """What a viewer has besides, such as `Camera.KEEP`: called, it gives back its argument."""

    def __call__(self, thing: Any = None, *_: Any, **__: Any) -> Any:
        return thing

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return self


def show_in(show: Callable[[Any], None]) -> None:
    """Give every viewer's function to `show`, thing by thing."""

    def show_all(*things: Any, **_: Any) -> None:
        for thing in things:
            show(thing)

    def show_first(thing: Any, *_: Any, **__: Any) -> None:
        show(thing)

    same = _Setting()

    for name in VIEWERS:
        module = ModuleType(name)
        vars(module).update(dict.fromkeys(SETTINGS, same))
        vars(module).update(
            show=show_all, show_object=show_first, style=same, __getattr__=same.__getattr__
        )
        sys.modules[name] = module
    cq.vis = sys.modules["cadquery.vis"]


# ---- Exports, and reading them back


def export_to(files: PretendFiles, exported: Callable[[Any], list[cq.Shape]]) -> None:
    """Keep every export in `files`. `exported` is told of what, and gives its shapes."""
    for owner, names in EXPORTERS.items():
        for name in names:
            if hasattr(owner, name):
                setattr(owner, name, _exporter(getattr(owner, name), files, exported))


def _exporter(
    real: Callable[..., Any], files: PretendFiles, exported: Callable[[Any], list[cq.Shape]]
) -> Callable[..., Any]:
    @functools.wraps(real)
    def call(*arguments: Any, **options: Any) -> Any:
        if files.writing:  # for an exporter, which noted what is exported itself
            return real(*arguments, **options)
        given = [*arguments, *(options[name] for name in FILE_ARGUMENTS if name in options)]
        thing = arguments[0] if arguments else options.get("w")
        file = given[1] if len(given) > 1 else given[0] if given and not arguments else None
        shapes = exported(thing)
        if hasattr(file, "write"):
            return real(*arguments, **options)
        with contextlib.suppress(TypeError):
            files.put(file, lambda: _written(real, files, file, shapes, arguments, options))
        return thing if isinstance(thing, (cq.Workplane, cq.Assembly, cq.Sketch)) else True

    return call


def _written(
    real: Callable[..., Any], files: PretendFiles, file: Any, shapes: list[cq.Shape],
    arguments: tuple[Any, ...], options: dict[str, Any],
) -> bytes:  # fmt: skip
    """The bytes of an export: empty where CadQuery cannot write them but to a disk."""
    kind = os.path.splitext(files.path(file))[1].lower()
    files.put(file, b"")
    with contextlib.suppress(Exception), files.as_exporter():
        whole = cq.Compound.makeCompound(shapes) if len(shapes) != 1 else shapes[0]
        stream = io.BytesIO()
        if kind in (".brep", ".bin"):
            (whole.exportBrep if kind == ".brep" else whole.exportBin)(stream)
            return stream.getvalue()
        if kind in (".step", ".stp"):
            whole.exportBin(stream)
            return cad_files.brep_to_step(stream.getvalue())
        if kind == ".stl":
            return _stl(whole)
        real(*arguments, **options)  # opens its file in Python, and so in `files`
    return files.get(file)


def _stl(shape: cq.Shape) -> bytes:
    points, triangles = shape.tessellate(0.001, 0.1)
    places = np.array([point.toTuple() for point in points], dtype="<f4").reshape(-1, 3)
    records = np.zeros(len(triangles), cad_files.STL_TRIANGLE)
    records["corners"] = places[np.array(triangles, dtype=int).reshape(-1, 3)]
    return bytes(80) + len(triangles).to_bytes(4, "little") + records.tobytes()


def import_from(files: PretendFiles) -> None:
    """Let CadQuery read what a program exported before."""

    def reader(real: Callable[..., Any], wrap: Callable[..., Any], kind: str) -> Callable[..., Any]:
        @functools.wraps(real)
        def call(*arguments: Any, **options: Any) -> Any:
            given = [*arguments, *(options[n] for n in FILE_ARGUMENTS if n in options)]
            file = next((one for one in given if isinstance(one, (str, os.PathLike))
                         and files.has(one)), None)  # fmt: skip
            if file is None:
                return real(*arguments, **options)
            data = files.get(file)
            if kind == "step":
                data = cad_files.step_to_brep(data)
            read = cq.Shape.importBrep if kind == "brep" else cq.Shape.importBin
            return wrap(read(io.BytesIO(data)))

        return call

    def workplane(shape: cq.Shape) -> cq.Workplane:
        return cq.Workplane("XY").newObject([shape])

    for kind in ("Step", "Brep", "Bin"):
        real = getattr(cq.importers, f"import{kind}")
        setattr(cq.importers, f"import{kind}", reader(real, workplane, kind.lower()))
    for name in ("importStep", "load"):
        if hasattr(cq.Assembly, name):
            real = getattr(cq.Assembly, name)
            setattr(cq.Assembly, name, staticmethod(reader(real, cq.Assembly, "step")))


# ---- asyncio


def run_event_loops() -> None:
    """Let `asyncio.run` do without sockets: it waits for time and threads only."""
    import asyncio
    import selectors
    import threading

    class Waiting(selectors.SelectSelector):
        """Waits for a wake-up only."""

        def __init__(self) -> None:
            super().__init__()
            self.woken = threading.Event()

        def select(self, timeout: float | None = None) -> list[Any]:
            self.woken.wait(timeout if timeout is None else max(timeout, 0))
            self.woken.clear()
            return []

    class Loop(asyncio.SelectorEventLoop):
        def __init__(self) -> None:
            self._waiting = Waiting()
            super().__init__(self._waiting)

        def _make_self_pipe(self) -> None:
            self._ssock = self._csock = None

        def _close_self_pipe(self) -> None:
            pass

        def _write_to_self(self) -> None:
            self._waiting.woken.set()

    class Policy(asyncio.DefaultEventLoopPolicy):
        _loop_factory = Loop

    asyncio.set_event_loop_policy(Policy())
