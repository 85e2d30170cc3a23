"""A progress bar where tqdm is installed, and one line that says so where it is not."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import Any, TypeVar

_Item = TypeVar("_Item")


def progress_bar(items: Iterable[_Item], **options: Any) -> Iterable[_Item]:
    """`items` behind a tqdm bar with these options; without tqdm, `items` as they are."""
    try:
        from tqdm import tqdm
    except ModuleNotFoundError:
        print("no progress bar: tqdm is not installed", file=sys.stderr)
        return items
    return tqdm(items, **options)
