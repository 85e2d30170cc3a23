"""Pictures and programs from the hub, a folder or the bundled set, kept on disk."""

from typing import TYPE_CHECKING

from image2cad.common.lazy import load

if TYPE_CHECKING:
    from image2cad.data.rows import Rows, Sizes, StoredRows, as_row, compact_targets, decoded
    from image2cad.data.rows import load_rows, outlines
    from image2cad.data.samples import Rejected, Sample, has_split, load_samples
    from image2cad.data.samples import load_train_and_held_out, that_run
    from image2cad.data.sources import stream_rows

__all__ = [
    "Rejected", "Rows", "Sample", "Sizes", "StoredRows", "as_row", "compact_targets", "decoded",
    "has_split", "load_rows", "load_samples", "load_train_and_held_out", "outlines", "stream_rows",
    "that_run",
]  # fmt: skip


def __getattr__(name: str) -> object:
    return load(__name__, name)
