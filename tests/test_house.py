"""Protects the house: its floors, its independence and what a newcomer relies on when reading it.

`metrics` stands alone and without torch, imports point down only, everything imports, and
everything needed is in the requirements.
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


def test_imports_point_down_only():
    recipes = {path.stem for path in ROOT.glob("*.py")}
    modules = {module_name(path): path for name in PACKAGES for path in (ROOT / name).rglob("*.py")}
    forbidden = {"metrics": {"image2cad", "tests"} | recipes, "image2cad": {"tests"} | recipes}
    graph = {}
    for name, path in modules.items():
        imports = imported_names(path)
        upwards = {i for i in imports if i.split(".")[0] in forbidden[name.split(".")[0]]}
        assert not upwards, f"{name} imports {upwards}"
        # `from metrics import x` reads the package, which is no arrow back from its own files
        graph[name] = {i for i in imports if i in modules and i != name and i not in PACKAGES}
    list(graphlib.TopologicalSorter(graph).static_order())  # raises CycleError, which names it


def test_every_module_imports():
    names = [module_name(path) for name in PACKAGES for path in (ROOT / name).rglob("*.py")]
    names = sorted(name for name in names if not name.endswith("__main__"))
    run_python(f"import importlib\nfor n in {names!r}: importlib.import_module(n)", ROOT)


def test_every_file_is_one_idea_and_says_which():
    texts = {path.relative_to(ROOT): path.read_text(encoding="utf-8") for path in python_files()}
    assert not [str(p) for p, text in texts.items() if not ast.get_docstring(ast.parse(text))]
    lengths = {str(path): len(text.splitlines()) for path, text in texts.items()}
    assert not {path: length for path, length in lengths.items() if length > 300}


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
