"""That rows are stored and trained on with flat memory: peaks for 2,000 and 20,000 rows.

    python benchmarks/streaming.py
    python benchmarks/streaming.py --rows 500 5000

Writes parquet files of that many rows (the bundled pictures, each row with a program of its
own), stores them with image2cad.data.rows, and encodes every row once as training does, each count
in a new process. The peak is of memory that the system cannot take back; pages of the rows' own
files, which it can, are left out (read from /proc, so Linux only). Programs are neither run nor
shortened here: that has the same memory and takes most of the time.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

FILE = 1000  # rows a parquet file


def write(folder: Path, count: int) -> None:
    """Parquet files with the hub's columns."""
    from datasets import Dataset, disable_progress_bars

    disable_progress_bars()
    pictures = [path.read_bytes() for path in sorted((ROOT / "data/samples").rglob("*.png"))]
    folder.mkdir()
    for start in range(0, count, FILE):
        numbers = range(start, min(start + FILE, count))
        columns = {
            "image": [{"bytes": pictures[i % len(pictures)], "path": None} for i in numbers],
            "deepcad_id": [f"{i:08d}" for i in numbers],
            "cadquery": [
                f"import cadquery as cq\nresult = cq.Workplane().box({1 + i / 7}, 2, 3)\n"
                for i in numbers
            ],
        }
        Dataset.from_dict(columns).to_parquet(folder / f"train-{start:06d}.parquet")


def use(folder: Path) -> None:
    """Store the rows, encode every one; print rows, seconds and the peak of this process."""
    from image2cad.data.rows import load_rows
    from image2cad.training.examples import CodeDataset
    from image2cad.vlm.loading import load_base, quiet

    quiet()
    seen: list[float] = []
    threading.Thread(target=watch, args=(seen,), daemon=True).start()
    start = time.perf_counter()
    _, processor = load_base("models/nano")
    options = {"compact": False, "check_code": False}
    rows = load_rows(str(folder / "data"), folder / "rows", None, 20, 20, **options)
    stored = time.perf_counter()
    data = CodeDataset(rows.train, processor)
    for index in range(len(data)):
        data[index]
    times = f"{stored - start:6.0f} s to store {time.perf_counter() - stored:6.0f} s to encode"
    print(f"{len(data):7,} rows {times} {max(seen):7.0f} MiB peak")


def watch(seen: list[float]) -> None:
    """Append this process's anonymous memory in MiB, ten times a second."""
    while True:
        status = Path("/proc/self/status").read_text(encoding="ascii")
        seen.append(float(status.partition("RssAnon:")[2].split()[0]) / 1024)
        time.sleep(0.1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, nargs="+", default=[2_000, 20_000])
    parser.add_argument("--use", type=Path, help="(internal) measure with this folder")
    options = parser.parse_args()
    if options.use:
        return use(options.use)
    for count in options.rows:
        with tempfile.TemporaryDirectory() as folder:
            write(Path(folder) / "data", count)
            command = [sys.executable, __file__, "--use", folder]
            subprocess.run(command, check=True, stderr=subprocess.DEVNULL)


if __name__ == "__main__":
    main()
