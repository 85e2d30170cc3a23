"""Protects `python -m image2cad`: real sizes, names, files, sets of numbers, resuming, bad input.

One run with three searches is shared by the tests; all else takes programs, which need none.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import cadquery as cq
import pytest
from hurried import hurried
from PIL import Image

from image2cad import __main__ as command_line
from image2cad.common.errors import InputError
from image2cad.verification.choosing import Answer
from metrics.execution import export_step, run_cadquery

ROOT = Path(__file__).resolve().parent.parent
SAMPLES = ROOT / "data" / "samples" / "test"
BLOCK = """import cadquery as cq
solid = cq.Workplane("XY").rect(40, 30).extrude(10)
solid = solid.union(cq.Workplane("XY", origin=(0, 0, 10)).circle(8).extrude(6))
"""


def call(*words: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "image2cad", *map(str, words)]
    return subprocess.run(
        command, cwd=ROOT, env=hurried(), capture_output=True, text=True, timeout=300
    )


def here(monkeypatch: pytest.MonkeyPatch, *words: object) -> int:
    monkeypatch.setattr(sys, "argv", ["image2cad", *map(str, words)])
    return command_line.main()


def rows_of(folder: Path) -> dict[str, dict]:
    lines = (folder / "parts.jsonl").read_text().splitlines()
    return {row["id"]: row for row in map(json.loads, lines)}


def longest(file: Path) -> float:
    box = cq.importers.importStep(str(file)).val().BoundingBox()
    return max(box.xlen, box.ylen, box.zlen)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """Two pictures of one name and a STEP file, at 80 mm."""
    place = tmp_path_factory.mktemp("command")
    for folder, sample in (("a", "s20200007"), ("b", "s20200003")):
        (place / folder).mkdir()
        (place / folder / "part.png").write_bytes((SAMPLES / f"{sample}.png").read_bytes())
    part = run_cadquery(BLOCK)
    (place / "block.step").write_bytes(export_step(part.brep))
    files = (place / "a", place / "b" / "part.png", place / "block.step")
    options = ("--model", "none", "--workers", 1, "--format", "step,stl,py,dxf")
    done = call(*files, "--length", 80, *options, "--out", place / "out")
    assert done.returncode == 0, done.stderr
    return place / "out", done.stdout


def test_pictures_become_files_at_their_real_size(run: tuple[Path, str]) -> None:
    folder, told = run
    rows = rows_of(folder)
    assert set(rows) == {"part", "part-2", "block"}
    for name, row in rows.items():
        assert row["size"] == "given" and row["longest_side_mm"] == pytest.approx(80, abs=1e-4)
        assert longest(folder / f"{name}.step") == pytest.approx(80, abs=1e-3)
        assert (folder / f"{name}.stl").stat().st_size > 500 and f"{name}: " in told
    for name in ("part", "part-2"):
        code = (folder / f"{name}.py").read_text()
        assert code.startswith("# image2cad: lengths in mm; ") and "size given" in code
        assert max(sides(code)) == pytest.approx(80, abs=1e-4) and rows[name]["numbers"]
        assert 0 < rows[name]["likeness"] <= 1 and 0 <= rows[name]["confidence"] <= 1
        assert Image.open(folder / f"{name}.png").size == (896, 448)
        assert (folder / f"{name}.dxf").is_file()
    report = (folder / "report.html").read_text()
    assert "3 of 3 parts" in report and 'src="part-2.png"' in report and " mm" in report


def sides(code: str) -> list[float]:
    box = run_cadquery(code).bounding_box
    return (box[1] - box[0]).tolist()


def test_a_step_file_is_offered_with_numbers_only_if_they_are_its_own(
    run: tuple[Path, str],
) -> None:
    note = rows_of(run[0])["block"]["note"]
    assert "overlaps with it by" in note or note == command_line.NOTHING_FOUND
    elsewhere = BLOCK.replace("rect(40", "moveTo(5, 0).rect(40")
    moved = run_cadquery(elsewhere.replace("circle(8", "moveTo(5, 0).circle(8"))
    found = run_cadquery(BLOCK)
    for code, part in ((BLOCK, found), (BLOCK.replace("circle(8)", "circle(13)"), None)):
        answer = Answer(code, part or run_cadquery(code), 1.0, 1.0, "traced", (), 0.0)
        got, note = command_line.program_of_solid(answer, moved)
        if part is None:
            assert got == "" and "its numbers are not read: the best program" in note
        else:
            assert "by 1.000" in note and ".moveTo(5, 0).rect(40, 30)" in got  # at its place


def test_a_program_takes_other_numbers_and_units_are_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "block.py").write_text(BLOCK)
    given = tmp_path / "block.py"
    assert here(monkeypatch, given, "--set", "boss diameter=12", "--out", tmp_path / "one") == 0
    told = capsys.readouterr().out
    assert "40 x 30 x 16 mm (size as in the program)" in told and "boss diameter" in told
    code = (tmp_path / "one" / "block.py").read_text()
    assert ".circle(6).extrude(6)" in code and "size as in the program" in code.splitlines()[0]
    again = tmp_path / "one" / "block.py"  # what it wrote is read again
    size = ("--length", "plate length=20", "--set", "boss diameter=5")
    assert here(monkeypatch, again, *size, "--out", tmp_path / "two") == 0
    code = (tmp_path / "two" / "block.py").read_text()
    assert ".rect(20, 15)" in code and ".circle(2.5)" in code and code.count("# image2cad") == 1


def test_an_interrupted_run_goes_on_and_makes_nothing_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = [tmp_path / f"{name}.py" for name in ("one", "two", "three")]
    for file in files:
        file.write_text(BLOCK)
    out = tmp_path / "out"
    whole = command_line.kept

    def cut_off(made: command_line.Made, *rest: object) -> dict:
        if made.task.name == "three":
            raise KeyboardInterrupt
        return whole(made, *rest)

    monkeypatch.setattr(command_line, "kept", cut_off)
    with pytest.raises(KeyboardInterrupt):
        here(monkeypatch, *files, "--out", out)
    assert set(rows_of(out)) == {"one", "two"}
    monkeypatch.setattr(command_line, "kept", whole)
    with pytest.raises(InputError, match="already holds something"):
        here(monkeypatch, *files, "--out", out)
    with pytest.raises(InputError, match="other settings"):
        here(monkeypatch, *files, "--out", out, "--resume", "--length", 5)
    before = (out / "one.step").stat().st_mtime_ns
    assert here(monkeypatch, *files, "--out", out, "--resume") == 0
    assert set(rows_of(out)) == {"one", "two", "three"}
    assert (out / "one.step").stat().st_mtime_ns == before and (out / "three.step").is_file()
    with pytest.raises(InputError, match="finished"):
        here(monkeypatch, *files, "--out", out, "--resume")


def test_views_are_one_part_and_the_bundled_model_proposes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    views = (SAMPLES / "s20200007.png", SAMPLES / "s20200003.png")
    here(monkeypatch, *views, "--views", "--effort", "none", "--out", tmp_path / "out")
    (row,) = rows_of(tmp_path / "out").values()
    assert row["inputs"] == [str(view) for view in views]
    assert row["source"] == "model" and row["size"] == "assumed"


def test_of_a_folder_the_rest_is_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "broken.py").write_text("import cadquery as cq\nresult = oops\n")
    (tmp_path / "block.py").write_text(BLOCK)
    (tmp_path / "pictures").mkdir()
    (tmp_path / "pictures" / "bad.png").write_bytes(b"no picture")
    files = (tmp_path / "broken.py", tmp_path / "block.py", tmp_path / "pictures")
    assert here(monkeypatch, *files, "--out", tmp_path / "out") == 1
    rows = rows_of(tmp_path / "out")
    assert rows["block"]["ok"] and "oops" in rows["broken"]["failure"]
    assert "no picture" in rows["bad"]["failure"] and "2 of" not in rows["bad"]["failure"]


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["missing.png"], "there is no missing.png"),
        (["{file}", "--length", "-5"], "above 0"),
        (["{file}", "--format", "step,dwg"], "no 'dwg'"),
        (["{file}", "--workers", "0"], "--workers"),
        (["{file}", "--set", "wide"], "NAME=VALUE"),
        (["{file}", "--set", "wide=3"], "no number 'wide'"),
        (["{file}", "--length", "wide=3"], "no measure 'wide'"),
        (["{file}", "--views"], "--views takes pictures"),
        (["{text}"], "no picture that can be read"),
        (["{empty}"], "holds no pictures"),
        (["{file}", "--out", "{text}"], "is a file"),
        (["{file}", "{file}", "--set", "a=3"], "--set needs one part"),
        (["{picture}", "--effort", "none", "--model", "none"], "name a --model"),
    ],
)
def test_bad_input_is_one_line(
    words: list[str], told: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "block.py").write_text(BLOCK)
    (tmp_path / "notes.txt").write_text("no picture")
    (tmp_path / "empty").mkdir()
    places = {
        "file": tmp_path / "block.py", "text": tmp_path / "notes.txt",
        "empty": tmp_path / "empty", "picture": SAMPLES / "s20200007.png",
    }  # fmt: skip
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError) as error:
        here(monkeypatch, *(word.format(**places) for word in words))
    assert told in str(error.value) and "\n" not in str(error.value)


def test_the_exit_code_of_bad_input_is_two() -> None:
    done = call("no such picture.png")
    assert done.returncode == 2 and done.stdout == ""
    assert done.stderr == "error: there is no no such picture.png\n"
