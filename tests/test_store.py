"""Protects training at scale: rows on disk, read once, with memory that does not grow with them.

Interrupted reading goes on, a higher limit adds rows, and no program is in two places.
"""

from __future__ import annotations

import io
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

import image2cad.data.rows as store
from image2cad.common.errors import InputError
from image2cad.data.rows import hold_apart, load_rows, store_rows

ROOT = Path(__file__).resolve().parent.parent


def code(number: int) -> str:
    return f"import cadquery as cq\nresult = cq.Workplane().box({number}, 2, 3)\n"


def folder_of(place: Path, count: int, start: int = 0, side: int = 8) -> Path:
    """An image folder of `count` rows, each with a program and a picture of its own."""
    place.mkdir(parents=True, exist_ok=True)
    with open(place / "metadata.jsonl", "a", encoding="utf-8") as file:
        for number in range(start, start + count):
            Image.new("RGB", (side, side), (number % 256, 0, 0)).save(place / f"{number}.png")
            row = {
                "file_name": f"{number}.png",
                "cadquery": code(number),
                "deepcad_id": f"p{number}",
            }
            file.write(json.dumps(row) + "\n")
    return place


def quick(source: Path, folder: Path, limit: int | None = None, **more: Any) -> Any:
    options = {"compact": False, "check_code": False, "progress": False, **more}
    return store_rows(str(source), "train", folder, limit, **options)


def test_rows_come_back_as_they_were_and_a_higher_limit_adds_to_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = folder_of(tmp_path / "data", 300)
    rows, rejected = quick(source, tmp_path / "rows", 40)
    assert [row.id for row in rows] == [f"p{i}" for i in range(40)] and not rejected
    assert rows[7].cadquery == code(7) and rows[7].image.getpixel((0, 0)) == (7, 0, 0)
    read = [0]
    chunks = store.read_chunks

    def counting(*arguments: Any) -> Any:
        for chunk in chunks(*arguments):
            read[0] += chunk.read
            yield chunk

    monkeypatch.setattr(store, "read_chunks", counting)
    rows, _ = quick(source, tmp_path / "rows", 200)
    assert [row.id for row in rows] == [f"p{i}" for i in range(200)] and read[0] == 160
    rows, _ = quick(source, tmp_path / "rows", 30)
    assert len(rows) == 30 and read[0] == 160, "what is there is not read again"
    rows, _ = quick(source, tmp_path / "rows")
    assert len(rows) == 300 and len({row.id for row in rows}) == 300 and read[0] == 260
    assert len(quick(source, tmp_path / "rows", 5000)[0]) == 300
    folder_of(source, 5, start=300)
    rows, _ = quick(source, tmp_path / "rows")
    assert len(rows) == 305, "a folder that changed is read anew"


def test_interrupted_reading_goes_on_after_the_last_whole_shard(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store, "ROWS_A_SHARD", 64)
    source = folder_of(tmp_path / "data", 300)
    write = store._write

    def stopped(place: Path, start: int, *rest: Any) -> None:
        if start >= 128:
            raise KeyboardInterrupt
        write(place, start, *rest)

    with monkeypatch.context() as patch:
        patch.setattr(store, "_write", stopped)
        with pytest.raises(KeyboardInterrupt):
            quick(source, tmp_path / "rows")
    rows, _ = quick(source, tmp_path / "rows")
    assert [row.id for row in rows] == [f"p{i}" for i in range(300)]


def test_two_readers_at_once_leave_no_row_twice(tmp_path: Path) -> None:
    source = folder_of(tmp_path / "data", 120)
    quick(source, tmp_path / "rows", 40)
    place = next((tmp_path / "rows").iterdir())
    shard = next(place.glob("rows-*"))
    other = tmp_path / "other"
    quick(source, other, 100)
    longer = next(next(other.iterdir()).glob("rows-*"))
    longer.rename(place / longer.name)  # as a second run would have left it
    rows, _ = quick(source, tmp_path / "rows")
    assert [row.id for row in rows] == [f"p{i}" for i in range(120)]
    assert shard.exists()


def test_programs_are_shortened_checked_and_never_in_two_places(tmp_path: Path) -> None:
    source = folder_of(tmp_path / "data", 12)
    long = "import cadquery as cq\nw = cq.Workplane(cq.Plane(cq.Vector(0, 0, 0), cq.Vector(1, 0, 0)"
    long += ", cq.Vector(0, 0, 1)))\nresult = w.rect(0.50000001, 0.25).extrude(1.0)\n"
    with open(source / "metadata.jsonl", "a", encoding="utf-8") as file:
        for name, text in [("long", long), ("twin", code(5)), ("bad", "result = oops"), ("no", "")]:
            file.write(
                json.dumps({"file_name": "1.png", "cadquery": text, "deepcad_id": name}) + "\n"
            )
    rows = load_rows(str(source), tmp_path / "rows", None, validation=3, held_out=3, seed=1)
    reasons = {row.id: row.reason for row in rows.rejected}
    assert set(reasons) == {"bad", "no", "p0"} and "oops" in reasons["bad"]
    places = [rows.train, rows.validation, rows.held_out]
    assert [len(place) for place in places] == [13 - 6, 3, 3]
    programs = [
        {row.cadquery for row in place}
        for place in (rows.train.originals(), rows.validation.originals(), rows.held_out)
    ]
    assert not programs[0] & programs[1] | programs[0] & programs[2] | programs[1] & programs[2]
    usable = {f"p{i}" for i in range(1, 12)} | {"long", "twin"}
    assert {row.id for place in places for row in place} == usable
    everything, _ = store_rows(str(source), "train", tmp_path / "rows", progress=False)
    short = next(row.cadquery for row in everything if row.id == "long")
    assert len(short) < len(long) and "rect(50, 25)" in short
    again = load_rows(str(source), tmp_path / "rows", None, validation=3, held_out=3, seed=1)
    assert [r.id for r in again.held_out] == [r.id for r in rows.held_out]
    other = load_rows(str(source), tmp_path / "rows", None, validation=3, held_out=3, seed=2)
    assert {r.id for r in other.held_out} != {r.id for r in rows.held_out}


def test_programs_of_the_test_split_are_not_learned_from(tmp_path: Path) -> None:
    source = tmp_path / "data"
    folder_of(source / "train", 10)
    folder_of(source / "test", 4, start=8)
    rows = load_rows(str(source), tmp_path / "rows", None, 0, 4, compact=False, check_code=False)
    assert [row.id for row in rows.held_out] == ["p8", "p9", "p10", "p11"]
    assert [row.id for row in rows.train] == [f"p{i}" for i in range(8)]
    assert [row.reason for row in rows.rejected] == ["its program is held out"] * 2


def test_a_source_without_usable_rows_is_said_in_one_line(tmp_path: Path) -> None:
    source = tmp_path / "data"
    source.mkdir()
    Image.new("RGB", (8, 8)).save(source / "a.png")
    row = {"file_name": "a.png", "cadquery": "none", "deepcad_id": "a"}
    (source / "metadata.jsonl").write_text(json.dumps(row) + "\n")
    with pytest.raises(InputError, match="no usable row; the first: a: no code"):
        quick(source, tmp_path / "rows")


def test_validation_is_at_most_a_third(tmp_path: Path) -> None:
    rows, _ = quick(folder_of(tmp_path / "data", 9), tmp_path / "rows")
    train, validation = hold_apart(rows, 100)
    assert len(validation) == 3 and len(train) == 6


MEASURE = """
import resource, sys
from pathlib import Path
from image2cad.training.examples import CodeDataset
from image2cad.vlm.loading import load_base
from image2cad.data.rows import load_rows
_, processor = load_base({base!r})
count = int(sys.argv[1])
rows = load_rows({source!r}, Path({rows!r}), count, 10, 10, compact=False, check_code=False)
data = CodeDataset(rows.train, processor)
assert len(data) == count, len(data)
for index in range(0, count, 7):
    data[index]
unit = 2**20 if sys.platform == "darwin" else 2**10
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit)
"""


@pytest.mark.slow
def test_memory_does_not_grow_with_the_rows(base: Path, tmp_path: Path) -> None:
    from datasets import Dataset

    # Pictures take 0.6 MB each in memory: 1,400 more of them would be 0.8 GB.
    picture = io.BytesIO()
    Image.new("RGB", (448, 448), "white").save(picture, "JPEG")
    source = tmp_path / "data"
    source.mkdir()
    for part in range(4):
        numbers = range(part * 500, part * 500 + 500)
        columns = {
            "image": [{"bytes": picture.getvalue(), "path": None} for _ in numbers],
            "cadquery": [code(number) for number in numbers],
            "deepcad_id": [str(number) for number in numbers],
        }
        Dataset.from_dict(columns).to_parquet(source / f"train-{part}.parquet")
    names = {"base": str(base), "source": str(source)}
    peaks = []
    for count in (300, 1700):
        script = MEASURE.format(**names, rows=str(tmp_path / f"rows-{count}"))
        done = subprocess.run(
            [sys.executable, "-c", script, str(count)], cwd=ROOT, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr[-2000:]
        peaks.append(float(done.stdout.split()[-1]))
    assert peaks[1] - peaks[0] < 100, peaks
