"""Protects the house: its floors and faces, its independence, what a newcomer relies on.

Rooms import lower floors only, through faces; a face lists names and loads nothing heavy;
a public name has one address; `metrics` stands alone; everything needed is required and pinned.
"""

import ast
import graphlib
import json
import os
import re
import shutil
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent

# ---- The rules

FLOORS = (  # from the ground up; a room imports from lower floors only
    {"common", "metrics"},
    {"cad"},
    {"rendering", "data", "vlm"},
    {"reading", "synthesis"},
    {"verification"},
    {"serving", "training", "evaluation"},
)
NEVER = {("verification", "vlm"), ("verification", "synthesis")}  # though the floors allow it
WITHOUT_TORCH = {"common", "cad", "rendering", "reading", "verification", "synthesis", "metrics"}
FACE_LINES = 40
FACE_IMPORTS = {"typing.TYPE_CHECKING", "image2cad.common.lazy.load", "metrics.lazy.load"}
# metrics/ also works alone, so it has its own of what image2cad/common has.
TWICE = {"load": {"metrics.lazy", "image2cad.common.lazy"}}

REQUIREMENT = {  # import name -> name in requirements.txt, where they differ
    "PIL": "pillow",
    "OCP": "cadquery",
    "pyarrow": "datasets",
    "huggingface_hub": "transformers",
    "multipart": "python-multipart",
    "prometheus_client": "prometheus-client",
    "fastapi_offline": "fastapi-offline",
}
NOT_REQUIRED = {"IPython", "google"}  # imported where a notebook runs, which has them
NOT_REQUIRED |= {"setuptools"}  # by setup.py, for which pip brings it

# ---- What is there


def module_name(path):
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def python_files(*folders):
    return sorted(path for folder in folders for path in (ROOT / folder).rglob("*.py"))


RECIPES = {module_name(path): path for path in [*ROOT.glob("*.py"), *python_files("models")]}
LIBRARY = {module_name(path): path for path in python_files("image2cad", "metrics")}
FACES = {
    room: "metrics" if room == "metrics" else f"image2cad.{room}"
    for floor in FLOORS
    for room in sorted(floor)
}


def room_of(module):
    """The room of a dotted module name; None for what stands above or outside all rooms."""
    top, *rest = module.split(".")
    if top == "metrics":
        return "metrics"
    return rest[0] if top == "image2cad" and rest and rest[0] != "__main__" else None


@cache
def tree_of(path):
    return ast.parse(path.read_text(encoding="utf-8"))


@cache
def imports(path):
    """(module, name or None) of every import in a file, in functions too; relative ones resolved.

    Where the name is itself a module of the library, it is (that module, None).
    """
    package = module_name(path).split(".")
    if path.name != "__init__.py":
        package.pop()
    found = []
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.Import):
            found += [(alias.name, None) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            module = ".".join([*base, *filter(None, [node.module])])
            for alias in node.names:
                inner = f"{module}.{alias.name}"
                found.append((inner, None) if inner in LIBRARY else (module, alias.name))
    return found


def tops(path):
    return {module.split(".")[0] for module, _ in imports(path)}


@cache
def defined(path):
    """The names that a module defines at its top level."""
    names = set()
    for node in tree_of(path).body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            names.add(node.name)
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            names |= {n.id for t in targets for n in ast.walk(t) if isinstance(n, ast.Name)}
    return names


@cache
def listed(face):
    """The names in `__all__` of a face."""
    for node in tree_of(LIBRARY[face]).body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__":
            return ast.literal_eval(node.value)
    raise AssertionError(f"{face} has no __all__")


# ---- Floors


def test_the_floors_hold_every_room():
    folders = {path.parent.name for path in ROOT.glob("image2cad/*/__init__.py")}
    assert sorted(FACES) == sorted({*folders, "metrics"})
    assert len(FACES) == sum(map(len, FLOORS)), "a room is on two floors"


def test_rooms_import_lower_floors_only():
    height = {room: number for number, rooms in enumerate(FLOORS) for room in rooms}
    wrong = set()
    for name, path in LIBRARY.items():
        room = room_of(name)
        for other, _ in imports(path) if room else ():
            below = room_of(other)
            if other.split(".")[0] not in ("image2cad", "metrics", *RECIPES) or below == room:
                continue
            if not below or height[below] >= height[room] or (room, below) in NEVER:
                wrong.add(f"{name} imports {other}")
    assert not wrong


def test_no_circles():
    graph = {}
    for name, path in LIBRARY.items():
        if path.name != "__init__.py":  # a face loads its room later
            graph[name] = {other for other, _ in imports(path) if other in LIBRARY}
    list(graphlib.TopologicalSorter(graph).static_order())  # raises CycleError, which names it


def test_rooms_below_the_models_have_no_torch():
    for name, path in LIBRARY.items():
        if room_of(name) in WITHOUT_TORCH:
            assert not tops(path) & {"torch", "transformers", "peft", "trl"}, name


# ---- Faces


def test_recipes_and_rooms_import_faces():
    wrong = set()
    for name, path in {**LIBRARY, **RECIPES}.items():
        for other, what in imports(path):
            room = room_of(other)
            if room in (None, room_of(name)) or other == "image2cad.common.lazy":
                continue  # of its own room, or what makes a face one
            if other != FACES.get(room):
                wrong.add(f"{name} reaches into {other}")
            elif what and what not in listed(other):
                wrong.add(f"{name} wants {what}, which {other} does not list")
    assert not wrong


@pytest.mark.parametrize("face", FACES.values())
def test_a_face_lists_names_and_no_more(face):
    path = LIBRARY[face]
    assert len(path.read_text(encoding="utf-8").splitlines()) <= FACE_LINES
    parts = [node for node in tree_of(path).body if not isinstance(node, ast.ImportFrom)]
    assert [type(part) for part in parts] == [ast.Expr, ast.If, ast.Assign, ast.FunctionDef]
    _, checked, everything, getter = parts
    assert ast.unparse(checked.test) == "TYPE_CHECKING" and not checked.orelse
    assert ast.unparse(everything.targets) == "__all__" and getter.name == "__getattr__"
    assert ast.unparse(getter.body) == "return load(__name__, name)"
    given = [alias.name for line in checked.body for alias in line.names]
    assert sorted(given) == sorted(listed(face)), "__all__ and the imports differ"
    for module, name in imports(path):
        if f"{module}.{name}" not in FACE_IMPORTS:
            assert name in given, f"{name} is imported at once"
            assert room_of(module) == room_of(face), f"{module} is another room's"
            assert name in defined(LIBRARY[module]), f"{module} does not define {name}"
    modules = {name.rpartition(".")[2] for name in LIBRARY if name.startswith(f"{face}.")}
    assert not modules & set(given), "a module bears the name of what the face lists"


@pytest.fixture(scope="module")
def loaded():
    """What `import metrics` loads, and what all faces and their lightest names load on top."""
    program = f"""
import importlib, json, sys
at_first = set(sys.modules)
import metrics
by_metrics = set(sys.modules) - at_first
for face in {["image2cad", *FACES.values()]}: importlib.import_module(face)
from image2cad.common import InputError, effort_named
try: importlib.import_module("image2cad.cad").no_such_name
except AttributeError: print(json.dumps([sorted(by_metrics), sorted(sys.modules)]))
"""
    return json.loads(run_python(program, ROOT))


def test_metrics_loads_nothing_outside_it(loaded):
    names = {name.split(".")[0] for name in loaded[0]}
    assert "metrics" in names and names <= sys.stdlib_module_names | {"metrics"}


def test_faces_load_nothing_heavy_until_something_is_used(loaded):
    heavy = {"torch", "transformers", "cadquery", "OCP", "numba", "gradio", "numpy"}
    assert "image2cad.common.effort" in loaded[1] and not heavy & set(loaded[1])


@pytest.mark.slow
def test_every_module_imports_and_faces_give_what_they_list():
    modules = sorted(name for name in LIBRARY if not name.endswith("__main__"))
    run_python(
        f"import importlib\nfor name in {modules}: importlib.import_module(name)\n"
        f"for name in {list(FACES.values())}:\n"
        "    face = importlib.import_module(name)\n"
        "    for given in face.__all__: getattr(face, given)",
        ROOT,
    )


# ---- Names


def test_a_public_name_has_one_address():
    homes = {}
    for module, path in LIBRARY.items():
        for name in defined(path) - {"main", "__all__", "__getattr__"}:
            if not name.startswith("_"):
                homes.setdefault(name, set()).add(module)
    double = {name: sorted(where) for name, where in homes.items() if len(where) > 1}
    assert not {name for name in double if set(double[name]) != TWICE.get(name)}, double


def test_every_file_says_what_it_is():
    files = [*RECIPES.values(), *LIBRARY.values(), *python_files("tests", "benchmarks")]
    assert not [str(path) for path in files if not ast.get_docstring(tree_of(path))]


# ---- Standing alone


def run_python(program, cwd):
    env = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, cwd=cwd, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_metrics_works_when_copied_alone(tmp_path):
    ignore = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT / "metrics", tmp_path / "metrics", ignore=ignore)
    program = """
import sys
for name in ("image2cad", "torch", "transformers", "datasets", "numba", "PIL", "tokenizers"):
    sys.modules[name] = None  # whoever copies the folder has none of these
import metrics
from metrics.best_iou import get_iou_best
box = "import cadquery as cq\\nresult = cq.Workplane('XY').box(1, 2, 3)"
moved = "import cadquery as cq\\nresult = cq.Workplane('YZ').box(4, 2, 6).translate((5, 0, 1))"
cube = "import cadquery as cq\\nresult = cq.Workplane('XY').box(1, 1, 1)"
print(get_iou_best(box, moved), get_iou_best(box, cube), metrics.__file__)
"""
    same, other, place = run_python(program, tmp_path).split()
    assert float(same) == pytest.approx(1, abs=1e-3)
    assert 0.2 < float(other) < 0.8
    assert Path(place).resolve().is_relative_to(tmp_path.resolve())


def requirement_names(file):
    lines = (line.split("#")[0].strip() for line in (ROOT / file).read_text().splitlines())
    return {re.split(r"[^\w.-]", line)[0].lower() for line in lines if line and line[0] != "-"}


def test_everything_imported_is_required_and_pinned():
    required = requirement_names("requirements.txt")
    own = {"image2cad", "metrics", *RECIPES}
    for path in [*RECIPES.values(), *LIBRARY.values()]:
        for top in tops(path) - sys.stdlib_module_names - own - NOT_REQUIRED:
            assert REQUIREMENT.get(top, top).lower() in required, f"{path} imports {top}"
    pinned = requirement_names("constraints.txt")
    assert not (required | requirement_names("requirements-dev.txt")) - pinned


def test_ruff_checks_a_commit_in_the_version_that_is_pinned():
    (pinned,) = re.findall(r"^ruff==(\S+)", (ROOT / "constraints.txt").read_text(), re.M)
    assert f"rev: v{pinned} " in (ROOT / ".pre-commit-config.yaml").read_text()
