"""Rows of parquet files, on the hub or in a folder, one row group at a time.

    files = parquet_files("CADCODER/GenCAD-Code")["train"]
    for number, row in grouped_rows(files, skip=200): ...       # the first 200 are not fetched

A streamed data set of Hugging Face `datasets` reads ahead without bound: 50 rows cost more than a
whole shard. Here a row group (about 100 rows on the hub) is the most that is fetched and held, and
a column alone can be read. Left out: what a row has to hold (sources.py, samples.py).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from tqdm.auto import tqdm

from image2cad.common import keep_trying

BLOCK_BYTES = 1 << 20  # fetched at once where whole row groups are read
SMALL_BLOCK_BYTES = 1 << 14  # where one narrow column is
ROWS_AT_ONCE = 64  # of a row group that become Python objects


def parquet_files(source: str) -> dict[str, list[str]]:
    """{split: its files in order} of a folder or of a data set on the hub; {} if it has no parquet.

    Raises what `datasets` raises where there is no such source or the hub cannot be reached.
    """
    from datasets import load_dataset_builder
    from datasets.packaged_modules.parquet.parquet import Parquet

    if Path(source).is_dir():
        builder = load_dataset_builder("parquet", data_dir=source)
    else:
        builder = load_dataset_builder(source)
    if not isinstance(builder, Parquet):
        return {}
    return {str(split): list(files) for split, files in builder.config.data_files.items()}


def grouped_rows(
    files: Sequence[str], skip: int = 0, first: str | None = None
) -> Iterator[tuple[int, dict[str, Any]]]:
    """(row number, row) in order, from row `skip` of that order on; pictures stay encoded.

    first: a column of marks (is_true); where there is such a column, its rows come before the
    others.
    """
    marked = _marked(files, first) if first is not None else set()
    if not marked:
        yield from _runs(files, skip, None)
        return
    yield from _runs(files, skip, marked)
    yield from _runs(files, max(skip - len(marked), 0), marked, wanted=False)


def _runs(
    files: Sequence[str], skip: int, chosen: set[int] | None, wanted: bool = True
) -> Iterator[tuple[int, dict[str, Any]]]:
    """Rows whose number is in `chosen` (or, with wanted=False, is not), but for `skip` of them."""
    start = passed = 0
    for file in files:
        opened = _File(file, BLOCK_BYTES)
        for group, count in enumerate(opened.counts):
            numbers = range(start, start + count)
            start += count
            mine = [n for n in numbers if chosen is None or (n in chosen) == wanted]
            if passed + len(mine) <= skip:
                passed += len(mine)
                continue
            mine, passed = mine[max(skip - passed, 0) :], max(passed, skip)
            taken = set(mine)
            for number, row in zip(numbers, opened.rows(group), strict=True):
                if number in taken:
                    yield number, row


def is_true(value: Any) -> bool:
    """Whether a row is marked; some data sets say it in text."""
    return value in (True, "True", "true")


def _marked(files: Sequence[str], column: str) -> set[int]:
    """The numbers of the rows where `column`, which is read alone, is true."""
    found: set[int] = set()
    start = 0
    for file in files:
        opened = _File(file, SMALL_BLOCK_BYTES)
        if column not in opened.columns:
            return set()
        groups = range(len(opened.counts))
        for group in tqdm(groups, f"reading {column}", unit=" row groups", leave=False):
            values = opened.column(group, column)
            found.update(start + place for place, value in enumerate(values) if is_true(value))
            start += len(values)
    return found


class _File:
    """A parquet file that is opened again where the connection broke."""

    def __init__(self, name: str, block: int) -> None:
        self.name, self.block = name, block
        self._open()
        metadata = self.parquet.metadata
        self.counts = [metadata.row_group(i).num_rows for i in range(metadata.num_row_groups)]
        self.columns = self.parquet.schema_arrow.names

    def _open(self) -> None:
        self.parquet = keep_trying(lambda: _parquet(self.name, self.block))

    def rows(self, group: int) -> Iterator[dict[str, Any]]:
        """The rows of a row group."""
        for batch in self._table(group, None).to_batches(ROWS_AT_ONCE):
            yield from batch.to_pylist()

    def column(self, group: int, name: str) -> list[Any]:
        """One column of a row group."""
        return list(self._table(group, [name])[name].to_pylist())

    def _table(self, group: int, columns: list[str] | None) -> Any:
        return keep_trying(lambda: self.parquet.read_row_group(group, columns), self._open)


def _parquet(name: str, block: int) -> Any:
    import pyarrow.parquet as pq

    if "://" not in name:
        return pq.ParquetFile(name)
    from huggingface_hub import HfFileSystem

    return pq.ParquetFile(HfFileSystem().open(name, block_size=block))
