"""Rows of GenCAD-Code from three places, in one schema: Sample(image, cadquery, id, prompt).

    train, rejected = load_samples("bundled")                                  # data/samples/
    train, rejected = load_samples("path/to/folder", limit=100)                # your own pictures
    train, rejected = load_samples("CADCODER/GenCAD-Code", split="train[:30]")  # the hub

A folder is a Hugging Face image folder (pictures beside a metadata.jsonl or metadata.csv with the
columns file_name and cadquery; subfolders train/, test/ are splits) or parquet files with the
columns image and cadquery. deepcad_id and prompt may be missing. Further pictures of a part are in
image_1, image_2 and so on; in a metadata.jsonl they are named by image_1_file_name.

A row without code, with an unreadable picture or with code that does not run is left out and
listed with its reason. Everything that the user can put right is an InputError of one line.
Left out: pictures stay in memory as RGB, 0.6 MB each at 448 pixels, so give a limit on the hub.
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image
from tqdm.auto import tqdm

from image2cad.common import BUNDLED, QUESTION, InputError
from image2cad.data.row_groups import is_true
from image2cad.data.sources import PUBLISHED, first_line, metadata_files, stream_rows

ROWS_A_CHUNK = 64  # their programs are run together


@dataclass(frozen=True)
class Sample:
    """A picture (RGB, any size), the program that draws it, and the row's id.

    prompt: the row's own, kept with it. Training asks common's QUESTION of every picture.
    published: whether it is one of the hundred test rows that papers score on. views: further
    pictures of the same part.
    """

    image: Image.Image
    cadquery: str
    id: str
    prompt: str = QUESTION
    published: bool = False
    views: tuple[Image.Image, ...] = ()

    @property
    def pictures(self) -> Image.Image | list[Image.Image]:
        """What a model is shown: the picture, or all views in their order."""
        return [self.image, *self.views] if self.views else self.image


@dataclass(frozen=True)
class Rejected:
    """A row that was left out, and why in one line."""

    id: str
    reason: str


@dataclass(frozen=True)
class Chunk:
    """Some rows in their order: usable ones, rejected ones, and how many were read for them."""

    samples: list[Sample]
    rejected: list[Rejected]
    read: int


def load_samples(
    source: str,
    split: str = "train",
    limit: int | None = None,
    check_code: bool = True,
    at_least: int = 1,
    progress: bool = True,
) -> tuple[list[Sample], list[Rejected]]:
    """Read rows in order until `limit` of them are usable; return those and the rejected ones.

    source: "bundled", a folder, or a data set's name on the hub, of which no more is fetched than
    is read. split: its name, with a slice if wished, "train[:30]". check_code: run every program
    in a confined process and reject those that leave no solid.
    Raises InputError where the source cannot be read, lacks a column, or has fewer than `at_least`
    usable rows.
    """
    samples: list[Sample] = []
    rejected: list[Rejected] = []
    with tqdm(desc=f"reading {source}", unit=" rows", total=limit, disable=not progress) as bar:
        for chunk in read_chunks(source, split, limit, check_code):
            samples += chunk.samples
            rejected += chunk.rejected
            bar.update(len(chunk.samples))
    if len(samples) < at_least:
        why = f"; left out: {_reasons(rejected)}" if rejected else ""
        raise InputError(
            f"{source} ({split}) has {len(samples)} usable rows, {at_least} are needed{why}"
        )
    return samples, rejected


def read_chunks(
    source: str,
    split: str = "train",
    limit: int | None = None,
    check_code: bool = True,
    skip: int = 0,
    seen: Iterable[str] = (),
) -> Iterator[Chunk]:
    """The rows of `load_samples` a few at a time, so that memory does not grow with their number.

    skip: rows at the start that were read before, and seen: their ids. limit: usable rows at most.
    """
    rows = stream_rows(source, split, skip)
    ids, left = set(seen), limit
    while left is None or left > 0:
        taken = list(itertools.islice(rows, min(ROWS_A_CHUNK, left or ROWS_A_CHUNK)))
        if not taken:
            return
        parsed = [_parse(row, number, ids) for number, row in taken]
        readable = [item for item in parsed if isinstance(item, Sample)]
        unreadable = [item for item in parsed if isinstance(item, Rejected)]
        good, failed = that_run(readable) if check_code else (readable, [])
        left = None if left is None else left - len(good)
        yield Chunk(good, [*unreadable, *failed], len(taken))


def load_train_and_held_out(
    source: str, split: str, held_out: int | None = None, limit: int | None = None, seed: int = 0
) -> tuple[list[Sample], list[Sample], list[Rejected]]:
    """Samples to train on, samples to score on, and the rows that could not be used.

    From a test split, where there is one, the first `held_out` are taken; of a folder
    without one, `held_out` samples are set apart by id and seed. None: the whole test
    split, 50 rows from the hub, a third of the folder. `limit`: rows to train
    on at most; a folder is read whole all the same, so that the held-out samples do
    not depend on it.
    """
    stream = source != "bundled" and not Path(source).exists()  # reads the rows asked for only
    if stream and limit is None:
        raise InputError(f"{source} is on the hub and large; say how many rows to train on")
    if stream or has_split(source, "test"):
        wanted = 50 if stream and held_out is None else held_out
        train, rejected = load_samples(source, split, limit)
        apart, more = load_samples(source, "test", wanted)
        known = {sample.cadquery for sample in apart}
        train, copies = [s for s in train if s.cadquery not in known], len(train)
        if len(train) < copies:
            print(f"{copies - len(train)} rows to train on have a held-out program: left out")
        return train, apart, rejected + more
    samples, rejected = load_samples(source, split, at_least=max((held_out or 0) + 1, 2))
    if held_out is not None:
        train, apart = split_samples(samples, held_out, seed)
        return train[:limit], apart, rejected
    for count in range(max(len(samples) // 3, 1), len(samples)):
        with contextlib.suppress(InputError):  # copies of one program may stand in the way
            train, apart = split_samples(samples, count, seed)
            return train[:limit], apart, rejected
    raise InputError(f"all {len(samples)} programs of {source} are the same: nothing to hold out")


def has_split(source: str, split: str) -> bool:
    """Whether the bundled set, or a folder, has a split of that name in a subfolder."""
    folder = BUNDLED if source == "bundled" else Path(source)
    return folder.is_dir() and split in metadata_files(folder)


def split_samples(
    samples: Sequence[Sample], held_out: int, seed: int = 0
) -> tuple[list[Sample], list[Sample]]:
    """Set `held_out` samples apart: (the others, those), each in the order given.

    The choice depends on the ids and the seed only, not on the order. Samples with the same
    program stay on one side, because CAD data holds many copies of simple parts.
    """
    if not 0 <= held_out < max(len(samples), 1):
        raise InputError(f"cannot hold out {held_out} of {len(samples)} samples; lower the number")
    groups: dict[str, list[str]] = {}
    for sample in samples:
        groups.setdefault(sample.cadquery, []).append(sample.id)
    chosen: set[str] = set()
    for ids in sorted(groups.values(), key=lambda ids: _rank(min(ids), seed)):
        if len(chosen) + len(ids) <= held_out:
            chosen.update(ids)
    if len(chosen) < held_out:
        raise InputError(
            f"cannot hold out exactly {held_out} of {len(samples)} samples: too many share one "
            f"program; {len(chosen)} works"
        )
    return (
        [sample for sample in samples if sample.id not in chosen],
        [sample for sample in samples if sample.id in chosen],
    )


def _rank(sample_id: str, seed: int) -> str:
    return hashlib.sha256(f"{seed}:{sample_id}".encode()).hexdigest()


def _parse(row: dict[str, Any], number: int, seen: set[str]) -> Sample | Rejected:
    """Check one row; `seen` collects the ids used so far."""
    name = _row_id(row, number)
    if name in seen:
        return Rejected(name, "an earlier row has the same id")
    seen.add(name)
    code = row["cadquery"]
    if code is None or not str(code).strip() or str(code).strip().lower() in ("none", "nan"):
        return Rejected(name, "no code")
    if not isinstance(code, str):
        return Rejected(name, f"the code is no text but {type(code).__name__}")
    if row["image"] is None:
        return Rejected(name, "no picture")
    try:
        image, *views = (_picture(row[name]) for name in ("image", *_more_views(row)))
    except Exception as error:  # Pillow raises nearly any type on a damaged file
        return Rejected(name, f"unreadable picture: {first_line(error)}")
    published = is_true(row.get(PUBLISHED))
    return Sample(image, code, name, row.get("prompt") or QUESTION, published, tuple(views))


def _more_views(row: dict[str, Any]) -> list[str]:
    """image_1, image_2, ... as far as the row has them."""
    names = (f"image_{number}" for number in itertools.count(1))
    return list(itertools.takewhile(lambda name: row.get(name) is not None, names))


def _row_id(row: dict[str, Any], number: int) -> str:
    if row.get("deepcad_id") is not None:
        return str(row["deepcad_id"])
    image = row["image"]
    path = image.get("path") if isinstance(image, dict) else None
    return Path(path).stem if path else str(number)


def _picture(value: Any) -> Image.Image:
    """RGB from what `datasets` gives undecoded; transparency becomes white paper."""
    from datasets import Image as ImageFeature

    encoded = {"bytes": value, "path": None} if isinstance(value, bytes) else value
    image = ImageFeature().decode_example(encoded)
    if image.mode.startswith(("I", "F")):
        raise ValueError(f"{image.mode} pixels; save it with 8 bits a channel")
    if image.has_transparency_data:
        paper = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(paper, image.convert("RGBA"))
    return image.convert("RGB")


def that_run(samples: list[Sample]) -> tuple[list[Sample], list[Rejected]]:
    """Those whose program leaves a usable solid, and the others."""
    from metrics import Failure, run_many

    good, failed = [], []
    results = run_many([sample.cadquery for sample in samples])
    for sample, result in zip(samples, results, strict=True):
        if isinstance(result, Failure):
            line = f" (line {result.line})" if result.line else ""
            reason = f"code does not run: {result.kind}: {result.message}{line}"
            failed.append(Rejected(sample.id, reason))
        else:
            good.append(sample)
    return good, failed


def _reasons(rejected: Sequence[Rejected]) -> str:
    """The commonest reasons with their counts and one id each."""
    kinds = Counter(item.reason.split(": ")[0] for item in rejected)
    example = {item.reason.split(": ")[0]: item for item in reversed(rejected)}
    return ", ".join(
        f"{count} x {example[kind].reason} (first: {example[kind].id})"
        for kind, count in kinds.most_common(3)
    )
