"""Where rows come from: the hub, a folder, the bundled set; every trouble is one clear line.

`samples.py` is what to call; this file opens a source and hands out its rows with the pictures
still encoded: parquet files by row groups (row_groups.py), the rest with Hugging Face `datasets`.
"""

from __future__ import annotations

import csv
import functools
import itertools
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from image2cad.common import BUNDLED, METADATA, InputError, read_json_lines, shipped
from image2cad.data.row_groups import grouped_rows, parquet_files

METADATA_CSV = "metadata.csv"
NEEDED_COLUMNS = ("image", "cadquery")
PUBLISHED = "hundred_subset"  # the column that marks the hundred test rows that papers score on


def stream_rows(source: str, split: str, skip: int = 0) -> Iterator[tuple[int, dict[str, Any]]]:
    """(row number, row) with pictures still encoded; every failure below becomes an InputError.

    skip: rows at the start that are passed over. Of a test split in parquet files, the rows that
    papers score on (PUBLISHED) come before the others.
    """
    where = source
    if not source.strip():
        raise InputError("no data named; give bundled, a folder, or a data set on the hub")
    try:
        if source == "bundled" or Path(source).exists():
            folder = shipped(BUNDLED) if source == "bundled" else Path(source)
            rows = _open_folder(folder, split, skip)
        else:
            where = f"{source}, which is no folder here, from the hub"
            rows = _open_hub(source, split, skip)
        for place, (number, row) in enumerate(rows):
            if place == 0:
                _need_columns(source, list(row), NEEDED_COLUMNS)
            yield number, row
    except InputError:
        raise
    except Exception as error:  # `datasets` raises many kinds; the user gets one line of each
        raise InputError(f"cannot read {where}: {first_line(error)}") from error


def split_names(source: str) -> list[str]:
    """The splits of the bundled set, of a folder or of a data set on the hub.

    Raises InputError where the hub cannot be reached.
    """
    if source == "bundled":
        return list(metadata_files(shipped(BUNDLED)))
    if Path(source).is_dir() and (found := metadata_files(Path(source))):
        return list(found)
    try:
        import datasets

        return list(_files_of(source)) or list(datasets.get_dataset_split_names(source))
    except InputError:
        raise
    except Exception as error:  # as above
        raise InputError(f"cannot read {source}: {first_line(error)}") from error


def _open_folder(folder: Path, split: str, skip: int) -> Iterator[tuple[int, dict[str, Any]]]:
    """Streamed, so that nothing is copied into a cache and a folder's changes are seen at once."""
    from datasets import load_dataset

    if not folder.is_dir():
        raise InputError(f"{folder} is not a folder; give the folder that holds it")
    name, rows = _parse_split(split)
    metadata = metadata_files(folder)
    if metadata:
        if name not in metadata:
            raise InputError(f"{folder} has no split {name!r}; it has: {', '.join(metadata)}")
        features = _check_metadata(metadata[name])
        files = {name: [str(metadata[name])]}
        dataset = load_dataset(
            "imagefolder", data_files=files, features=features, split=name, streaming=True
        )
        return _part(dataset, rows, skip)
    if next(folder.rglob("*.parquet"), None):
        return _grouped(_files_of(str(folder)), str(folder), name, rows, skip)
    if any(folder.iterdir()):
        raise InputError(
            f"{folder} has no {METADATA} or {METADATA_CSV} and no parquet files; "
            f"put one line a picture into {METADATA}: "
            '{"file_name": "a.png", "cadquery": "..."}'
        )
    raise InputError(f"{folder} is empty")


def _open_hub(name: str, split: str, skip: int) -> Iterator[tuple[int, dict[str, Any]]]:
    import datasets

    plain, rows = _parse_split(split)
    if files := _files_of(name):
        return _grouped(files, name, plain, rows, skip)
    return _part(datasets.load_dataset(name, split=plain, streaming=True), rows, skip)


def _files_of(source: str) -> dict[str, list[str]]:
    """{split: parquet files} of a folder or of a data set on the hub; {} where it has none."""
    import huggingface_hub

    huggingface_hub.utils.logging.set_verbosity_error()  # its retries would bury our one line
    if Path(source).is_dir():
        return parquet_files(source)
    if not re.fullmatch(r"[\w.-]+(/[\w.-]+)?", source) or source.startswith("."):
        raise InputError(f"there is no folder {source}")
    return _files_on_hub(source)


@functools.cache
def _files_on_hub(name: str) -> dict[str, list[str]]:
    """Asked for once a process; it takes half a dozen requests."""
    return parquet_files(name)


def _grouped(
    files: dict[str, list[str]], source: str, split: str, rows: slice, skip: int
) -> Iterator[tuple[int, dict[str, Any]]]:
    """Rows of parquet files; a slice is one of the order in which they are handed out."""
    if split not in files:
        raise InputError(f"{source} has no split {split!r}; it has: {', '.join(files)}")
    first = PUBLISHED if split == "test" else None
    found = grouped_rows(files[split], rows.start + skip, first)
    return found if rows.stop is None else itertools.islice(found, _left(rows, skip))


def _part(dataset: Any, rows: slice, skip: int) -> Iterator[tuple[int, dict[str, Any]]]:
    """Those rows of a streamed data set, pictures left encoded: a broken one costs one row."""
    dataset = dataset.decode(False).skip(rows.start + skip)
    if rows.stop is not None:
        dataset = dataset.take(_left(rows, skip))
    return enumerate(dataset, start=skip)


def _left(rows: slice, skip: int) -> int:
    return max(rows.stop - rows.start - skip, 0)


def metadata_files(folder: Path) -> dict[str, Path]:
    """The metadata file of every split: the folder's own is "train", subfolders name theirs."""
    found: dict[str, Path] = {}
    subfolders = sorted(path for path in folder.iterdir() if path.is_dir())
    for split, place in [("train", folder), *((path.name, path) for path in subfolders)]:
        for name in (METADATA, METADATA_CSV):
            if (place / name).is_file():
                found.setdefault(split, place / name)
    return found


def _check_metadata(path: Path) -> Any:
    """Raise InputError on an unusable metadata file; return the features to read it with."""
    from datasets import Features, Value
    from datasets import Image as ImageFeature

    if path.suffix == ".csv":
        with path.open(newline="", encoding="utf-8-sig") as file:
            columns = next(csv.reader(file), [])
    else:
        columns = list(dict.fromkeys(key for _, row in read_json_lines(path) for key in row))
    if not columns:
        raise InputError(f"{path} is empty")
    _need_columns(str(path), columns, ("file_name", "cadquery"))
    if path.suffix != ".csv":
        return None
    # without this a CSV's 00014960 would be read as the number 14960
    files = [name for name in columns if name.endswith("file_name")]
    pictures = {name.removesuffix("file_name").rstrip("_") or "image" for name in files}
    text = {name: Value("string") for name in columns if name not in files}
    return Features({name: ImageFeature(decode=False) for name in sorted(pictures)} | text)


def _parse_split(split: str) -> tuple[str, slice]:
    match = re.fullmatch(r"([\w.-]+)(?:\[(\d*):(\d*)\])?", split)
    if not match:
        raise InputError(
            f"cannot read the split {split!r}; write train, train[:30] or train[10:40]"
        )
    name, start, stop = match.groups()
    return name, slice(int(start or 0), int(stop) if stop else None)


def _need_columns(source: str, present: Sequence[str], needed: Sequence[str]) -> None:
    missing = [repr(name) for name in needed if name not in present]
    if missing:
        raise InputError(
            f"{source} has no column {' and no column '.join(missing)}; "
            f"it has: {', '.join(present)}"
        )


def first_line(error: Exception) -> str:
    """What an error says, in one line."""
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
