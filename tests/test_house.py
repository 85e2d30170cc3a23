"""Protects the house: its floors and faces, its independence, what a newcomer relies on.

Rooms import lower floors only, through faces; a face lists names and loads nothing heavy;
a public name has one address; `metrics` stands alone; everything needed is required and pinned.
"""

import ast
import graphlib
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("metrics", "image2cad")
MODULES = {  # import name -> name in requirements.txt, where they differ
    "PIL": "pillow",
    "OCP": "cadquery",
    "huggingface_hub": "transformers",
    "multipart": "python-multipart",
    "prometheus_client": "prometheus-client",
    "fastapi_offline": "fastapi-offline",
}
NOTEBOOK_ONLY = {"IPython", "google"}  # imported where a notebook runs, which has them


def python_files():
    """Every .py file of the repository: the recipes, the packages, the tests, the benchmarks."""
    files = sorted(ROOT.glob("*.py"))
    for folder in (*PACKAGES, "tests", "benchmarks"):
        files += sorted((ROOT / folder).rglob("*.py"))
    return files


def module_name(path):
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imported_names(path):
    """Dotted names that a file imports, function bodies included, TYPE_CHECKING left out."""
    package = module_name(path).split(".")
    if path.name != "__init__.py":
        package = package[:-1]
    names = set()
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in ast.walk(tree):  # what only annotations need is no arrow
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            node.body = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            start = ".".join([*base, *([node.module] if node.module else [])])
            names |= {start, *(f"{start}.{alias.name}" for alias in node.names)}
    return names


def run_python(program, cwd, **environment):
    env = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"} | environment
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, cwd=cwd, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_metrics_needs_no_torch():
    heavy = run_python(
        "import sys, metrics; print([m for m in ('torch', 'transformers') if m in sys.modules])",
        ROOT,
    )
    assert heavy.strip() == "[]"


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


FLOORS = (  # from the ground up; a room imports from lower floors only
    {"common", "metrics"},
    {"cad"},
    {"rendering", "data", "vlm"},
    {"reading", "synthesis"},
    {"verification"},
    {"serving", "training", "evaluation"},
)
NEVER = {("vlm", "data"), ("verification", "vlm"), ("verification", "synthesis")}
NEVER |= {("rendering", "vlm"), ("data", "synthesis")}
TORCHLESS = {"common", "cad", "rendering", "reading", "verification", "synthesis", "metrics"}
FACE_LINES = 40


def room_of(name):
    """The room of a dotted module name, "recipes" for what stands above all rooms."""
    parts = name.split(".")
    if parts[0] == "metrics":
        return "metrics"
    if parts[0] == "image2cad" and len(parts) > 1 and parts[1] not in ("__main__",):
        return parts[1]
    return "recipes"


def library():
    """{dotted name: path} of every module of the rooms."""
    return {module_name(path): path for name in PACKAGES for path in (ROOT / name).rglob("*.py")}


def test_rooms_import_lower_floors_only():
    floor = {room: height for height, rooms in enumerate(FLOORS) for room in rooms}
    wrong = []
    for name, path in library().items():
        room = room_of(name)
        if room == "recipes":
            continue
        for other in imported_names(path):
            below = room_of(other)
            if other.split(".")[0] not in PACKAGES or below in (room, "recipes"):
                continue
            if floor[below] >= floor[room] or (room, below) in NEVER:
                wrong.append(f"{name} imports {other}")
            if below == "metrics" and room == "common":
                wrong.append(f"{name} imports {other}")
    assert not wrong


def test_recipes_and_rooms_import_faces():
    wrong = []
    paths = {**library(), **{p.stem: p for p in [*ROOT.glob("*.py"), *ROOT.glob("models/*.py")]}}
    for name, path in paths.items():
        tree = ast.parse(path.read_text(encoding="utf-8"))
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom) and not node.level and node.module:
                names = [node.module]
            elif isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            else:
                continue
            for other in names:
                if other.split(".")[0] not in PACKAGES or room_of(other) == room_of(name):
                    continue
                inside = other.count(".") > (0 if room_of(other) == "metrics" else 1)
                if inside and not (name.endswith("__init__") or path.name == "__init__.py"):
                    wrong.append(f"{name} reaches into {other}")
    assert not wrong


def faces():
    rooms = sorted(room for rooms in FLOORS for room in rooms)
    return {r: ROOT / ("metrics" if r == "metrics" else f"image2cad/{r}") for r in rooms}


def test_faces_hold_names_only():
    for room, folder in faces().items():
        text = (folder / "__init__.py").read_text(encoding="utf-8")
        assert len(text.splitlines()) <= FACE_LINES, room
        tree = ast.parse(text)
        for node in tree.body:
            name = getattr(node, "name", None) or ast.unparse(node).split(" ")[0]
            assert (
                isinstance(node, ast.Import | ast.ImportFrom)
                or node is tree.body[0]
                or name in ("__all__", "__getattr__")
                or (isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING")
            ), f"{room}: {ast.unparse(node)}"
        listed = {
            alias.asname or alias.name
            for node in ast.walk(tree)
            if isinstance(node, ast.If)
            for inner in node.body
            for alias in inner.names
        }
        (everything,) = [n.value for n in tree.body if ast.unparse(n).startswith("__all__")]
        names = ast.literal_eval(everything)
        assert set(names) == listed and len(names) == len(listed), room
        modules = {path.stem for path in folder.glob("*.py")} | {
            path.name for path in folder.iterdir() if path.is_dir()
        }
        assert not listed & modules, f"{room}: a module bears the name of what the face exports"


def test_faces_load_nothing_heavy_until_something_is_used():
    names = ["image2cad", *(f"image2cad.{room}" for room in faces() if room != "metrics")]
    heavy = run_python(
        f"import importlib, sys\nfor name in {names!r}: importlib.import_module(name)\n"
        "print([m for m in ('torch', 'transformers', 'cadquery', 'OCP', 'numba', 'gradio')"
        " if m in sys.modules])",
        ROOT,
    )
    assert heavy.strip() == "[]"


def test_what_faces_list_is_there():
    rooms = [room for room in faces() if room != "metrics"]
    run_python(
        f"import importlib\nfor room in {rooms!r}:\n"
        "    face = importlib.import_module('image2cad.' + room)\n"
        "    for name in face.__all__: getattr(face, name)\n"
        "import metrics\nfor name in metrics.__all__: getattr(metrics, name)\n",
        ROOT,
    )


def test_rooms_below_the_models_have_no_torch():
    for name, path in library().items():
        if room_of(name) in TORCHLESS:
            tops = {other.split(".")[0] for other in imported_names(path)}
            assert not tops & {"torch", "transformers", "peft", "trl"}, name


def test_no_circles():
    modules = library()
    graph = {}
    for name, path in modules.items():
        if path.name == "__init__.py":  # a face loads its rooms later
            continue
        wanted = imported_names(path)
        graph[name] = {i for i in wanted if i in modules and i != name}
    list(graphlib.TopologicalSorter(graph).static_order())  # raises CycleError, which names it


def test_a_public_name_has_one_address():
    where = {}
    for name, path in library().items():
        if path.name in ("__init__.py", "__main__.py"):
            continue
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            targets = []
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
                targets = [node.name]
            elif isinstance(node, ast.Assign | ast.AnnAssign):
                sides = node.targets if isinstance(node, ast.Assign) else [node.target]
                targets = [n.id for s in sides for n in ast.walk(s) if isinstance(n, ast.Name)]
            for target in targets:
                if not target.startswith("_") and target != "main":
                    where.setdefault(target, set()).add(name)
    # metrics/ also works alone, so it has its own of what image2cad/common has.
    double = {
        name: sorted(homes)
        for name, homes in where.items()
        if len(homes) > 1 and homes != {"metrics.lazy", "image2cad.common.lazy"}
    }
    assert not double


def test_every_module_imports():
    names = [module_name(path) for name in PACKAGES for path in (ROOT / name).rglob("*.py")]
    names = sorted(name for name in names if not name.endswith("__main__"))
    run_python(f"import importlib\nfor n in {names!r}: importlib.import_module(n)", ROOT)


def test_every_file_says_what_it_is():
    texts = {path.relative_to(ROOT): path.read_text(encoding="utf-8") for path in python_files()}
    assert not [str(p) for p, text in texts.items() if not ast.get_docstring(ast.parse(text))]


def requirement_names(file):
    lines = (line.split("#")[0].strip() for line in (ROOT / file).read_text().splitlines())
    return {re.split(r"[^\w.-]", line)[0].lower() for line in lines if line and line[0] != "-"}


def test_everything_imported_is_required_and_pinned():
    required = requirement_names("requirements.txt")
    own = {*PACKAGES, *(path.stem for path in ROOT.glob("*.py"))}
    for path in [
        *ROOT.glob("*.py"),
        *(p for name in PACKAGES for p in (ROOT / name).rglob("*.py")),
    ]:
        for name in imported_names(path):
            top = name.split(".")[0]
            if top and top not in sys.stdlib_module_names | own | NOTEBOOK_ONLY:
                assert MODULES.get(top, top).lower() in required, f"{path} imports {top}"
    pinned = requirement_names("constraints.txt")
    assert not (required | requirement_names("requirements-dev.txt")) - pinned
