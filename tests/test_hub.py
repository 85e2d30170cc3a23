"""Protects reading from the hub: a few rows cost a few megabytes, and nothing is fetched twice.

A server on this machine stands in for the hub (hub.py); what reads it is the real
`huggingface_hub`. The hub's own validation split and its published hundred test rows are used,
and a run that is resumed needs no network.
"""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hub import Hub
from PIL import Image

ROOT = Path(__file__).resolve().parent.parent
NAME = "someone/parts"
SHARD_BYTES = 300_000_000
ROWS_A_GROUP = 100
PICTURE_BYTES = 5_000  # as on the real hub
UNUSABLE = 7  # validation rows without a program, of which the real hub has hundreds
MARKED = range(3, 600, 37)  # test rows of hundred_subset here

READ = """
import json, resource, sys
from pathlib import Path
# What is loaded anyway is no growth.
import datasets, datasets.packaged_modules.parquet.parquet, numba, pyarrow.parquet
from huggingface_hub import HfFileSystem
from image2cad.common import friendly_exit
from image2cad.data import load_rows
from metrics import run_many
from PIL import Image
friendly_exit()
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
for counts in json.loads(sys.argv[2]):
    rows = load_rows({name!r}, Path(sys.argv[1]), *counts, check_code=False, compact=False)
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    print(json.dumps(dict(
        mib=grown / (2**20 if sys.platform == "darwin" else 2**10),
        train=[row.id for row in rows.train], validation=[row.id for row in rows.validation],
        held_out=[row.id for row in rows.held_out],
        published=[row.published for row in rows.held_out],
        size=rows.train[0].image.size, left_out=[row.reason for row in rows.rejected],
    )))
"""


def write_shard(file: Path, start: int, count: int, picture: bytes, unusable: int = 0) -> None:
    """`count` rows in row groups of a hundred; every picture has bytes of its own."""
    file.parent.mkdir(parents=True, exist_ok=True)
    chance = np.random.default_rng(start)
    names = ["image", "deepcad_id", "cadquery", "token_count", "prompt", "hundred_subset"]
    writer = None
    for first in range(0, count, ROWS_A_GROUP):
        numbers = range(start + first, start + min(first + ROWS_A_GROUP, count))
        noise = [chance.bytes(PICTURE_BYTES - len(picture)) for _ in numbers]
        columns = [
            pa.array([{"bytes": picture + more, "path": None} for more in noise]),
            pa.array([f"{n:08d}" for n in numbers]),
            pa.array(["none" if n - start < unusable else
                      f"import cadquery as cq\nresult = cq.Workplane().box({n + 1}, 2, 3)\n"
                      for n in numbers]),
            pa.array([1200 for _ in numbers]),
            pa.array(["Generate CADQuery code:" for _ in numbers]),
            pa.array([file.name.startswith("test") and n - start in MARKED for n in numbers]),
        ]  # fmt: skip
        table = pa.table(dict(zip(names, columns, strict=True)))
        writer = writer or pq.ParquetWriter(file, table.schema, compression="none")
        writer.write_table(table, row_group_size=ROWS_A_GROUP)
    assert writer is not None
    writer.close()


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data set as the hub has it: one big training shard, a validation and a test split."""
    place = tmp_path_factory.mktemp("hub") / "data"
    picture = io.BytesIO()
    Image.new("RGB", (448, 448), "white").save(picture, "PNG")
    rows = SHARD_BYTES // PICTURE_BYTES
    write_shard(place / "train-00000-of-00001.parquet", 0, rows, picture.getvalue())
    validation = place / "validation-00000-of-00001.parquet"
    write_shard(validation, rows, 300, picture.getvalue(), UNUSABLE)
    write_shard(place / "test-00000-of-00001.parquet", rows + 300, 600, picture.getvalue())
    assert (place / "train-00000-of-00001.parquet").stat().st_size > 0.95 * SHARD_BYTES
    return place.parent


def read(place: Path, hub: Hub | None, *counts: tuple[int, int, int]) -> list[dict[str, Any]]:
    """What `load_rows` gives for each of these counts of rows to train on, to validate on and held
    out, in a process of its own, which reaches that hub or none.
    """
    environment = {**os.environ, "HF_HOME": str(place / "hf")}
    environment |= hub.environment if hub else {"HF_HUB_OFFLINE": "1"}
    command = [sys.executable, "-c", READ.format(name=NAME), str(place / "rows")]
    done = subprocess.run(
        [*command, json.dumps(counts)], cwd=ROOT, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]


def test_fifty_rows_cost_a_few_megabytes_and_a_resumed_run_none(data: Path, tmp_path: Path) -> None:
    with Hub(data, NAME) as hub:
        [rows] = read(tmp_path, hub, (50, 10, 10))
        assert rows["train"] == [f"{n:08d}" for n in range(50)] and rows["size"] == [448, 448]
        assert hub.sent < 10e6, f"{hub.sent / 1e6:.1f} MB"
        assert rows["mib"] < 100, f"memory grew by {rows['mib']:.0f} MiB"
        first = SHARD_BYTES // PICTURE_BYTES
        assert rows["validation"] == [f"{first + UNUSABLE + n:08d}" for n in range(10)]
        assert rows["left_out"] == ["no code"] * UNUSABLE
        marked = [f"{first + 300 + n:08d}" for n in MARKED]
        assert rows["held_out"] == marked[:10] and all(rows["published"])

        [again] = read(tmp_path, None, (50, 10, 10))
        for name in ("train", "validation", "held_out", "published"):
            assert again[name] == rows[name]

        fetched = hub.sent
        [more] = read(tmp_path, hub, (250, 10, 10))
        assert more["train"] == [f"{n:08d}" for n in range(250)]
        # Row groups 0 (its second half), 1 and 2, and the file's own index once more.
        assert hub.sent - fetched < 5e6, f"{(hub.sent - fetched) / 1e6:.1f} MB"


def test_all_published_rows_come_before_the_others_and_a_stalled_download_goes_on(
    data: Path, tmp_path: Path
) -> None:
    count = len(MARKED)
    with Hub(data, NAME, broken=2) as hub:
        fewer, rows = read(tmp_path, hub, (5, 0, count + 2), (5, 0, count + 4))
        assert hub.broken == 0 and len(rows["train"]) == 5
    assert fewer["held_out"] == rows["held_out"][:-2], "read on in the same order"
    first = SHARD_BYTES // PICTURE_BYTES + 300
    others = [n for n in range(600) if n not in MARKED][:4]
    assert rows["held_out"] == [f"{first + n:08d}" for n in [*MARKED, *others]]
    assert rows["published"] == [True] * len(MARKED) + [False] * 4


def test_an_image_folder_on_the_hub_keeps_its_test_split(tmp_path: Path) -> None:
    for split in ("train", "test"):
        place = tmp_path / "hub" / "data" / split
        place.mkdir(parents=True)
        lines = []
        for n in range(3):
            Image.new("RGB", (20, 10), "red").save(place / f"{split}-{n}.png")
            code = f"import cadquery as cq\nresult = cq.Workplane().box({n + 1}, 2, {len(split)})\n"
            lines.append(json.dumps({"file_name": f"{split}-{n}.png", "cadquery": code}))
        (place / "metadata.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    with Hub(tmp_path / "hub", NAME) as hub:
        [rows] = read(tmp_path, hub, (2, 0, 2))
    assert (rows["train"], rows["held_out"]) == (["train-0", "train-1"], ["test-0", "test-1"])
