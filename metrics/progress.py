"""A progress bar where tqdm is installed, and one line that says so where it is not."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import Any, TypeVar

Item = TypeVar("Item")


def bar(items: Iterable[Item], **options: Any) -> Iterable[Item]:
    """`items` behind a tqdm bar with these options; without tqdm, `items` as they are."""
    try:
        from tqdm import tqdm
    except ModuleNotFoundError:
        print("no progress bar: tqdm is not installed", file=sys.stderr)
        return items
    return tqdm(items, **options)
