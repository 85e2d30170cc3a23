"""Rows to train on, read once as a stream and kept on disk: memory does not grow with them.

    rows, rejected = store_rows("CADCODER/GenCAD-Code", "train", Path("runs/rows"), limit=147_289)
    rows[0].image, rows[0].cadquery     # a Sequence[Sample]; pictures are decoded when asked for

Reading, running and shortening every program takes a while, so it is done once: what is in the
folder is used again, an interrupted run goes on after its last shard, and a higher limit adds
rows. Rows to score on are kept too, so that a run that is resumed needs no network. Shards are
Arrow files of Hugging Face `datasets`, mapped into memory. Left out: examples
(training/examples.py).
"""

from __future__ import annotations

import dataclasses
import hashlib
import io
import json
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, overload

from PIL import Image
from tqdm.auto import tqdm

from image2cad.cad import compact_many
from image2cad.common import BUNDLED, InputError, move_whole, write_whole
from image2cad.data.samples import Rejected, Sample, read_chunks
from image2cad.data.sources import split_names

ROWS_A_SHARD = 256  # usable ones
TARGET_IOU = 0.97  # a rounding error that no one sees in the picture, for far fewer digits
REJECTED_FILE = "rejected.json"
COMPLETE_FILE = "complete"  # is there once all rows of the source are
Sizes = tuple[tuple[int, int], ...]  # (width, height) of a sample's pictures
LAYOUT = 3  # of a shard's columns; another one is not read


def compact_targets(samples: Sequence[Sample]) -> tuple[list[Sample], int]:
    """The samples with short programs to learn from, and how many programs changed.

    A picture shows neither position nor size, so the part is centred and made 100
    units long; the numbers then are whole or nearly so.
    """
    codes = compact_many([sample.cadquery for sample in samples], size=100, least_iou=TARGET_IOU)
    pairs = list(zip(samples, codes, strict=True))
    changed = sum(sample.cadquery != code for sample, code in pairs)
    return [dataclasses.replace(sample, cadquery=code) for sample, code in pairs], changed


class StoredRows(Sequence[Sample]):
    """Rows with the columns id, pictures, sizes (width, height), code (to learn), original (to
    score by), published.

    Samples have the program of `column`.
    """

    def __init__(self, table: Any, column: str = "code") -> None:
        self.table, self.column = table, column

    def __len__(self) -> int:
        return len(self.table)

    @overload
    def __getitem__(self, index: int) -> Sample: ...
    @overload
    def __getitem__(self, index: slice) -> StoredRows: ...
    def __getitem__(self, index: int | slice) -> Sample | StoredRows:
        if isinstance(index, slice):
            return self.select(range(*index.indices(len(self))))
        row = self.table[index]
        image, *views = map(decoded, row["pictures"])
        published = {"published": row["published"], "views": tuple(views)}
        return Sample(image, row[self.column], row["id"], **published)

    def select(self, indices: Iterable[int]) -> StoredRows:
        """Those rows, in that order."""
        return StoredRows(self.table.select(list(indices)), self.column)

    def originals(self) -> StoredRows:
        """The same rows with the programs that the source has."""
        return StoredRows(self.table, "original")

    def outlines(self) -> Iterator[tuple[str, Sizes, str]]:
        """(id, sizes of the pictures, program) of every row, without reading its pictures."""
        for batch in self.table.select_columns(["id", "sizes", self.column]).iter(1000):
            sizes = (tuple((width, height) for width, height in row) for row in batch["sizes"])
            yield from zip(batch["id"], sizes, batch[self.column], strict=True)


def outlines(samples: Sequence[Sample]) -> Iterator[tuple[str, Sizes, str]]:
    """(id, sizes of its pictures, program) of every sample; rows on disk are not decoded for it."""
    if isinstance(samples, StoredRows):
        yield from samples.outlines()
        return
    for sample in samples:
        sizes = tuple(picture.size for picture in (sample.image, *sample.views))
        yield sample.id, sizes, sample.cadquery


@dataclass(frozen=True)
class Rows:
    """Rows to learn from, rows whose loss says when to stop, rows to score on, and the rest."""

    train: StoredRows
    validation: StoredRows
    held_out: list[Sample]
    rejected: list[Rejected]


def load_rows(
    source: str,
    folder: Path,
    train: int | None,
    validation: int,
    held_out: int,
    seed: int = 0,
    compact: bool = True,
    check_code: bool = True,
) -> Rows:
    """`train` rows (None: all), some to validate on and some to score on, no program in two places.

    Rows to score on come from the test split where there is one, as they are there, those that
    papers score on first; rows to validate on from the validation split, else from the others.
    """
    splits = _splits(source, folder)
    known: set[str] = set()
    apart: list[Sample] = []
    validated: StoredRows | None = None
    rejected: list[Rejected] = []
    extra = 0
    if "test" in splits and held_out:
        stored, rejected = store_rows(source, "test", folder, held_out, False)
        apart = list(stored.originals())
        known |= {sample.cadquery for sample in apart}
    else:
        extra += held_out
    options = (folder, compact, check_code)
    if "validation" in splits and validation:
        validated, more = _without(known, source, "validation", validation, *options)
        known |= {code for _, _, code in validated.originals().outlines()}
        rejected += more
    else:
        extra += validation
    wanted = None if train is None else train + extra
    stored, more = _without(known, source, "train", wanted, *options)
    if not apart:
        stored, scored = hold_apart(stored, held_out, seed)
        apart = list(scored.originals())
    if validated is None:
        stored, validated = hold_apart(stored, validation, seed)
    return Rows(stored[:train], validated, apart, rejected + more)


def _without(
    known: set[str],
    source: str,
    split: str,
    limit: int | None,
    folder: Path,
    compact: bool,
    check_code: bool,
) -> tuple[StoredRows, list[Rejected]]:
    """`store_rows`, but for rows whose program is known; more are read in their place."""
    wanted = limit
    while True:
        rows, rejected = store_rows(source, split, folder, wanted, compact, check_code)
        programs = [(name, code in known) for name, _, code in rows.originals().outlines()]
        new = [index for index, (_, is_known) in enumerate(programs) if not is_known]
        lacking = 0 if limit is None else limit - len(new)
        if wanted is None or lacking <= 0 or len(rows) < wanted:
            copies = [name for name, is_known in programs if is_known]
            rejected += [Rejected(name, "its program is held out") for name in copies]
            return rows.select(new), rejected
        wanted += lacking


def _splits(source: str, folder: Path) -> list[str]:
    """The splits of a source; those of the hub are kept, so that they are asked for once."""
    if source == "bundled" or Path(source).exists():
        return split_names(source)
    file = folder / f"splits-{hashlib.sha256(source.encode()).hexdigest()[:16]}.json"
    if not file.is_file():
        folder.mkdir(parents=True, exist_ok=True)
        write_whole(file, json.dumps(split_names(source)) + "\n")
    return list(json.loads(_text(file)))


def store_rows(
    source: str,
    split: str,
    folder: Path,
    limit: int | None = None,
    compact: bool = True,
    check_code: bool = True,
    progress: bool = True,
) -> tuple[StoredRows, list[Rejected]]:
    """At most `limit` usable rows of a source, and those that were read and left out.

    source, split, check_code: as for samples.load_samples. compact: with short programs. Raises
    InputError where nothing usable is found.
    """
    place = folder / _key(source, split, compact, check_code)
    place.mkdir(parents=True, exist_ok=True)
    shards = _shards(place)
    have = sum(count for _, _, count in shards)
    if not (place / COMPLETE_FILE).exists() and (limit is None or have < limit):
        with tqdm(desc=f"storing {source} ({split})", unit=" rows", total=limit, initial=have,
                  disable=not progress) as bar:  # fmt: skip
            _read(source, split, place, limit, compact, check_code, bar)
        shards = _shards(place)
    rejected = [
        Rejected(**row)
        for shard, _, _ in shards
        for row in json.loads(_text(shard / REJECTED_FILE))
    ]
    filled = [shard for shard, _, count in shards if count]
    if not filled:
        first = f"; the first: {rejected[0].id}: {rejected[0].reason}" if rejected else ""
        raise InputError(f"{source} ({split}) has no usable row{first}")
    rows = StoredRows(_open(filled))
    return rows if limit is None else rows[:limit], rejected


def hold_apart(rows: StoredRows, count: int, seed: int = 0) -> tuple[StoredRows, StoredRows]:
    """(rows to train on, about `count` rows to validate on), by program and seed.

    Rows with the same program stay on one side. At most a third is held apart.
    """
    groups: dict[str, list[int]] = {}
    for index, (_, _, code) in enumerate(rows.originals().outlines()):
        groups.setdefault(hashlib.sha256(f"{seed}:{code}".encode()).hexdigest(), []).append(index)
    wanted, chosen = min(count, len(rows) // 3), set[int]()
    for _, indices in sorted(groups.items()):
        if len(chosen) + len(indices) <= wanted:
            chosen.update(indices)
    others = [index for index in range(len(rows)) if index not in chosen]
    return rows.select(others), rows.select(sorted(chosen))


def _read(
    source: str,
    split: str,
    place: Path,
    limit: int | None,
    compact: bool,
    check_code: bool,
    bar: Any,
) -> None:
    """Read on after the last shard, and write shards until there are `limit` rows."""
    shards = _shards(place)
    read, have = shards[-1][1] if shards else 0, sum(count for _, _, count in shards)
    seen = set(_open([s for s, _, n in shards if n])["id"]) if have else set()
    seen |= {row["id"] for s, _, _ in shards for row in json.loads(_text(s / REJECTED_FILE))}
    left = None if limit is None else limit - have
    stored: list[dict[str, Any]] = []
    rejected: list[Rejected] = []
    start = read
    for chunk in read_chunks(source, split, left, check_code, read, seen):
        new = chunk.samples
        rejected += chunk.rejected
        short = compact_targets(new)[0] if compact else new
        stored += [as_row(s, original.cadquery) for s, original in zip(short, new, strict=True)]
        read += chunk.read
        bar.update(len(new))
        if len(stored) >= ROWS_A_SHARD:
            _write(place, start, read, stored, rejected)
            stored, rejected, start = [], [], read
    if read > start:
        _write(place, start, read, stored, rejected)
    if limit is None or sum(count for _, _, count in _shards(place)) < limit:
        (place / COMPLETE_FILE).touch()


def _write(
    place: Path, start: int, end: int, rows: list[dict[str, Any]], rejected: list[Rejected]
) -> None:
    """One shard, there completely or not at all."""
    from datasets import Dataset, disable_progress_bars, enable_progress_bars

    name = f"rows-{start:08d}-{end:08d}-{len(rows)}"
    part = place / f"{name}.{os.getpid()}.part"
    if rows:
        disable_progress_bars()  # one bar for all shards is enough
        Dataset.from_list(rows).save_to_disk(str(part))
        enable_progress_bars()
    part.mkdir(exist_ok=True)
    left_out = json.dumps([dataclasses.asdict(row) for row in rejected])
    write_whole(part / REJECTED_FILE, left_out + "\n")
    move_whole(part, place / name)


def as_row(sample: Sample, original: str) -> dict[str, Any]:
    """The columns of a `StoredRows`; original: the program to score by."""
    pictures = [sample.image, *sample.views]
    seen = {"pictures": [_encoded(p) for p in pictures], "sizes": [list(p.size) for p in pictures]}
    codes = {"code": sample.cadquery, "original": original}
    return {"id": sample.id, **seen, **codes, "published": sample.published}


def _encoded(picture: Image.Image) -> bytes:
    data = io.BytesIO()
    picture.save(data, "PNG", compress_level=1)
    return data.getvalue()


def decoded(encoded: bytes) -> Image.Image:
    """One of a row's pictures, RGB."""
    return Image.open(io.BytesIO(encoded)).convert("RGB")


def _shards(place: Path) -> list[tuple[Path, int, int]]:
    """(folder, rows of the source read up to its end, usable rows) of every whole shard.

    One begins where the last one ended; others were left by a run at the same time.
    """
    chain: list[tuple[Path, int, int]] = []
    for path in sorted(place.glob("rows-*")):
        if path.name.endswith(".part"):
            continue
        start, end, count = map(int, path.name.split("-")[1:])
        if start == (chain[-1][1] if chain else 0):
            chain.append((path, end, count))
    return chain


def _open(shards: Sequence[Path]) -> Any:
    from datasets import concatenate_datasets, load_from_disk

    return concatenate_datasets([load_from_disk(str(shard)) for shard in shards])


def _key(source: str, split: str, compact: bool, check_code: bool) -> str:
    """A name for these rows; a changed folder gets another one."""
    place = BUNDLED if source == "bundled" else Path(source)
    stamps = []
    if place.exists():
        source = str(place.resolve())
        stats = sorted((str(p), p.stat()) for p in place.rglob("*") if p.is_file())
        stamps = [(name, stat.st_size, stat.st_mtime_ns) for name, stat in stats]
    whole = json.dumps([LAYOUT, source, split, compact, check_code, stamps])
    return hashlib.sha256(whole.encode()).hexdigest()[:16]


def _text(file: Path) -> str:
    return file.read_text(encoding="utf-8")
