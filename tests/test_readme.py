"""Protects the README's examples of the app and the API: they run as they are written.

The app runs as a process of its own on a free port; only the port is put in their place.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
SECTION = README[README.index("### 4. The app and the API") : README.index("## The house")]
ADDRESS = "http://127.0.0.1:7860"


def examples(language: str) -> list[str]:
    return [
        block
        for block in re.findall(rf"```{language}\n(.*?)```", SECTION, re.DOTALL)
        if ADDRESS in block and "make app" not in block
    ]


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    log = tmp_path_factory.mktemp("app") / "log"
    with open(log, "w") as stream:
        command = [sys.executable, "app.py", "--port", "0", "--workers", "1"]
        app = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=stream, text=True)
    assert app.stdout is not None
    for line in app.stdout:
        if found := re.search(r"http://127\.0\.0\.1:\d+", line):
            yield found[0]
            break
    else:
        pytest.fail(f"the app did not start: {log.read_text()[-2000:]}")
    app.terminate()
    assert app.wait(60) in (0, -15)


def run(command: list[str]) -> str:
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


def test_the_curl_examples(address: str) -> None:
    if shutil.which("curl") is None:
        pytest.skip("curl is not installed")
    (block,) = examples("bash")
    commands = [c for c in re.split(r"^(?=curl)", block, flags=re.MULTILINE) if c.strip()]
    answers = [json.loads(run(["bash", "-c", c.replace(ADDRESS, address)])) for c in commands]
    generated, executed, scored = answers
    assert "import cadquery" in generated["code"] and generated["part"]["volume"] > 0
    assert set(generated["files"]) == {"step"}
    assert executed["part"]["volume"] == pytest.approx(6)
    assert scored["iou_best"] == pytest.approx(1, abs=1e-3)


def test_the_examples_of_the_official_clients(address: str, tmp_path: Path) -> None:
    blocks = examples("python")
    assert ["openai" in block for block in blocks] == [True, False]
    os.environ.pop("OPENAI_API_KEY", None)
    for block in blocks:
        script = tmp_path / "example.py"
        script.write_text(block.replace(ADDRESS, address))
        assert "import cadquery as cq" in run([sys.executable, str(script)])
