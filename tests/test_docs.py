"""Protects what README and docs/ promise: examples run as written, links and commands exist.

The app runs once, as a process of its own on a free port; only the port is put in the examples'
place. Python examples without a server run as they stand, and what a comment below the last line
says of its value has to be so. Commands are not run: their modules, scripts, files and flags exist.
"""

from __future__ import annotations

import ast
import importlib.util
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hurried import hurried
from test_house import FLOORS

ROOT = Path(__file__).resolve().parent.parent
PAGES = sorted(
    [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")]
    + list((ROOT / "docs").glob("*.md"))
    + [ROOT / "models/nano/README.md", ROOT / "metrics/README.md"]
)
SERVING = ROOT / "docs" / "serving.md"
ADDRESS = "http://127.0.0.1:7860"
README_LINES = 160
ELSEWHERE = {  # what marks a Python example that cannot run here -> the test file that runs it
    "runs/colab-001/merged": "tests/test_bases.py",
    "dask.distributed": "tests/test_metrics_scale.py",
}


def text_of(page: Path) -> str:
    return page.read_text(encoding="utf-8")


def blocks(page: Path, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", text_of(page), re.DOTALL | re.MULTILINE)


def run(command: list[str]) -> str:
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


# ---- Examples that run


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    log = tmp_path_factory.mktemp("app") / "log"
    with open(log, "w") as stream:
        command = [sys.executable, "app.py", "--port", "0", "--workers", "1"]
        app = subprocess.Popen(
            command, cwd=ROOT, env=hurried(), stdout=subprocess.PIPE, stderr=stream, text=True
        )
    assert app.stdout is not None
    for line in app.stdout:
        if found := re.search(r"http://127\.0\.0\.1:\d+", line):
            yield found[0]
            break
    else:
        pytest.fail(f"the app did not start: {log.read_text()[-2000:]}")
    app.terminate()
    assert app.wait(60) in (0, -15)


def test_the_curl_examples(address: str) -> None:
    if shutil.which("curl") is None:
        pytest.skip("curl is not installed")
    (block,) = [block for block in blocks(SERVING, "bash") if "curl" in block]
    commands = [c for c in re.split(r"^(?=curl)", block, flags=re.MULTILINE) if c.strip()]
    answers = [json.loads(run(["bash", "-c", c.replace(ADDRESS, address)])) for c in commands]
    generated, executed, scored, job = answers
    assert "import cadquery" in generated["code"] and generated["part"]["volume"] > 0
    assert set(generated["files"]) == {"step"}
    assert executed["part"]["volume"] == pytest.approx(6)
    assert scored["iou_best"] == pytest.approx(1, abs=1e-3)
    assert job["status"] in ("queued", "running") and job["error"] is None


def test_the_examples_of_the_official_clients(address: str, tmp_path: Path) -> None:
    examples = blocks(SERVING, "python")
    assert ["openai" in block for block in examples] == [True, False]
    os.environ.pop("OPENAI_API_KEY", None)
    for block in examples:
        script = tmp_path / "example.py"
        script.write_text(block.replace(ADDRESS, address))
        assert "import cadquery as cq" in run([sys.executable, str(script)])


def runnable() -> dict[str, str]:
    """Every Python example that needs neither a server nor a file of a run, by page and number."""
    found = {}
    for page in PAGES:
        for number, block in enumerate(blocks(page, "python"), 1):
            if ADDRESS not in block and not any(mark in block for mark in ELSEWHERE):
                found[f"{page.relative_to(ROOT)} {number}"] = block
    return found


@pytest.mark.parametrize("name", runnable())
def test_the_python_examples(name: str, tmp_path: Path) -> None:
    example = runnable()[name].rstrip()
    *_, comment = example.splitlines()
    last = ast.parse(example).body[-1]
    if says := isinstance(last, ast.Expr) and comment.startswith("# "):
        before = example.splitlines()[: last.lineno - 1]
        example = "\n".join([*before, f"print(repr({ast.unparse(last)}))"])
    script = tmp_path / "example.py"
    script.write_text(example)
    done = subprocess.run(
        [sys.executable, str(script)], cwd=ROOT, env=hurried(), capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert not says or f"# {done.stdout.strip()}" == comment


def test_examples_that_cannot_run_here_run_elsewhere() -> None:
    every = "".join(block for page in PAGES for block in blocks(page, "python"))
    for mark, file in ELSEWHERE.items():
        assert mark in every, f"no example has {mark} any more"
        assert (ROOT / file).is_file(), file


# ---- Links, files and commands that exist


def anchors(page: Path) -> set[str]:
    """The names under which GitHub links to the headings of a page."""
    titles = re.findall(r"^#+ (.+)$", re.sub(r"```.*?```", "", text_of(page), flags=re.S), re.M)
    return {re.sub(r"[^\w\- ]", "", title.lower()).strip().replace(" ", "-") for title in titles}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    for link in re.findall(r"\]\(([^)\s]+)\)", text_of(page)):
        if re.match(r"[a-z]+:", link):
            continue
        name, _, anchor = link.partition("#")
        target = (page.parent / name).resolve() if name else page
        assert target.exists() and target.is_relative_to(ROOT), link
        if anchor:
            assert anchor in anchors(target), link


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_files_that_are_named_exist(page: Path) -> None:
    text = re.sub(r"https?://\S+", "", text_of(page))
    tops = "image2cad|metrics|tests|benchmarks|models|data|docs|notebooks"
    for name in re.findall(rf"(?<![\w./-])(?:{tops})/[\w./-]*\w(?:/|\.\w+)", text):
        assert (ROOT / name).exists() or (page.parent / name).exists(), name


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_tests_that_are_named_exist(page: Path) -> None:
    for file, test in re.findall(r"(tests/\w+\.py)::(\w+)", text_of(page)):
        assert f"def {test}(" in text_of(ROOT / file), f"{file}::{test}"


def test_the_floors_in_the_docs_are_those_that_are_tested() -> None:
    rows = re.findall(r"^\| (\d) \| ([\w, ]+) \|", text_of(ROOT / "docs/house.md"), re.MULTILINE)
    told = {int(floor): set(rooms.split(", ")) for floor, rooms in rows}
    assert told == dict(enumerate(FLOORS, 1))


def commands(page: Path) -> list[list[str]]:
    """Every command line that starts Python, in blocks and in running text, word by word."""
    text = text_of(page)
    lines = [line for block in re.findall(r"```(?:bash)?\n(.*?)```", text, re.S)
             for line in block.replace("\\\n", " ").splitlines()]  # fmt: skip
    lines += [line for line in text.replace("\\\n", " ").splitlines() if line.startswith("    ")]
    prose = re.sub(r"```.*?```", "", text, flags=re.S)
    lines += [" ".join(code.split()) for code in re.findall(r"`([^`]+)`", prose)]
    found = []
    for line in lines:
        start = r"(?:\S+/)?(?:python|accelerate launch(?: --\w+)*)\s+(?=-m |\w+[\w/]*\.py)"
        if match := re.match(rf"\s*(?:[A-Z_]+=\S+\s+)*{start}", line):
            found.append(shlex.split(line[match.end() :], comments=True))
    return found


def flags_of(source: str) -> set[str]:
    """The flags that a script or module takes, as its text says."""
    flags = set(re.findall(r"\"(--[a-z][\w-]*)\"", source)) | {"--help"}
    if "read_flags(" in source:
        for name, value in re.findall(r"^([A-Z][A-Z0-9_]*)(?:: [^=]+)? = (.+)$", source, re.M):
            flag = name.lower().replace("_", "-")
            flags.add(f"--{flag}")
            if value.startswith(("True", "False")):
                flags.add(f"--no-{flag}")
    return flags


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_commands_exist_with_their_flags(page: Path) -> None:
    for words in commands(page):
        if words[0] == "-m":
            name, given = words[1], words[2:]
            if name.split(".")[0] not in ("image2cad", "metrics", "benchmarks"):
                continue  # pip, pytest
            spec = importlib.util.find_spec(name)
            assert spec is not None and spec.origin is not None, name
            file = Path(spec.origin)
            if file.name == "__init__.py":
                file = file.with_name("__main__.py")
        else:
            file, given = ROOT / words[0], words[1:]
        assert file.is_file(), f"{page.name}: {words}"
        source = file.read_text(encoding="utf-8")
        assert "__main__" in source or "read_flags(" in source, f"{file} is no command"
        for word in given:
            if word.startswith("--"):
                assert word.split("=")[0] in flags_of(source), f"{page.name}: {words}: {word}"


def test_settings_of_the_notebook_that_are_named_exist() -> None:
    source = text_of(ROOT / "colab_training.py")
    for name in re.findall(r"`([A-Z][A-Z_]{2,})`", text_of(ROOT / "docs/colab.md")):
        assert re.search(rf"^{name}(?:: [^=]+)? = ", source, re.MULTILINE), name


def test_the_commands_are_found() -> None:
    """The two tests above say nothing if the reading of commands breaks."""
    assert ["train_cpu.py", "--data", "my_parts", "--held-out", "10"] in commands(
        ROOT / "docs/data.md"
    )
    every = [words for page in PAGES for words in commands(page)]
    assert len(every) > 30
    assert flags_of("read_flags(x)\nRANK = 1\nQUANTIZE = True\n") >= {"--rank", "--no-quantize"}
    assert "--nonsense" not in flags_of(text_of(ROOT / "train_cpu.py"))


def test_the_readme_can_be_read_in_one_sitting() -> None:
    assert len(text_of(ROOT / "README.md").splitlines()) <= README_LINES
