"""Training rows whose program is drawn again in another style and from another side.

    train = redrawn(train, share=0.3, seed=0, folder=Path("runs/redrawn"))

A base that has seen one viewer's pictures only is tied to it. Colours, ground, lines and the
direction are drawn by lot from the seed, the row's id and its program, so that every epoch, every
process and a resumed run see the same pictures; they are kept as PNG files, drawn once, about 0.1
seconds each. The program stays as it is. Left out: parts that neither the light engine builds nor
CadQuery; these rows keep their picture.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import overload

from PIL import Image
from tqdm.auto import tqdm

from image2cad.common import InputError
from image2cad.data import Sample
from image2cad.rendering import SIZE, draw_in_style, drawn_shape, save_picture
from image2cad.training.examples import outlines
from metrics import Failure, run_cadquery, usable_cores

LOOKS_VERSION = 1  # raised when the same lot draws another picture


class RedrawnRows(Sequence[Sample]):
    """The samples, those in `files` (index to PNG file) with the picture that is there."""

    def __init__(self, samples: Sequence[Sample], files: dict[int, Path]) -> None:
        self.samples, self.files = samples, files

    def __len__(self) -> int:
        return len(self.samples)

    @overload
    def __getitem__(self, index: int) -> Sample: ...
    @overload
    def __getitem__(self, index: slice) -> list[Sample]: ...
    def __getitem__(self, index: int | slice) -> Sample | list[Sample]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        sample = self.samples[index]
        file = self.files.get(index % len(self))
        if file is None:
            return sample
        with Image.open(file) as image:
            return replace(sample, image=image.convert("RGB"))

    def outlines(self) -> Iterator[tuple[str, tuple[tuple[int, int], ...], str]]:
        """(id, sizes of the pictures, program) of every row, without reading its pictures."""
        for index, (name, sizes, code) in enumerate(outlines(self.samples)):
            yield name, ((SIZE, SIZE), *sizes[1:]) if index in self.files else sizes, code


def redrawn(
    samples: Sequence[Sample], share: float, seed: int, folder: Path, progress: bool = True
) -> Sequence[Sample]:
    """The samples, about `share` of them with another picture of their program from `folder`.

    Raises InputError for a share that is not from 0 to 1.
    """
    if not 0 <= share <= 1:
        raise InputError(f"the share of redrawn rows is from 0 to 1, not {share}")
    if share == 0:
        return samples
    tasks: dict[int, tuple[str, str, Path]] = {}
    for index, (name, _, code) in enumerate(outlines(samples)):
        lot = hashlib.sha256(f"{LOOKS_VERSION} {seed} {name} {code}".encode()).hexdigest()
        if int(lot[:12], 16) < share * 16**12:
            tasks[index] = (code, lot, folder / lot[12:14] / f"{lot[14:46]}.png")
    with ThreadPoolExecutor(usable_cores()) as pool:
        there = tqdm(
            pool.map(_draw, tasks.values()), "redrawn pictures", len(tasks), disable=not progress
        )
        files = {
            index: file
            for (index, (_, _, file)), drawn in zip(tasks.items(), there, strict=True)
            if drawn
        }
    if len(files) < len(tasks):
        print(f"{len(tasks) - len(files)} rows keep their picture: they cannot be redrawn")
    return RedrawnRows(samples, files)


def _draw(task: tuple[str, str, Path]) -> bool:
    """Draw a program into its file, if it is not there; False if it cannot be drawn."""
    code, lot, file = task
    if file.is_file():
        return True
    shape = drawn_shape(code) or run_cadquery(code)
    if isinstance(shape, Failure):
        return False
    file.parent.mkdir(parents=True, exist_ok=True)
    save_picture(draw_in_style(shape, "any", chance=random.Random(lot)), file)
    return True
