"""Where the files lie that come with the project: models/ and data/samples/.

In a checkout they lie at its top; a wheel carries copies inside the package (setup.py).
"""

from __future__ import annotations

from pathlib import Path

from image2cad.common.errors import InputError

_PACKAGE = Path(__file__).resolve().parents[1]
_COPIES = _PACKAGE / "bundled"
# The folder that relative names such as models/nano are looked for in, after the current one.
ROOT = _COPIES if _COPIES.is_dir() else _PACKAGE.parent
NANO = ROOT / "models" / "nano"
LIBRARY = ROOT / "models" / "library.npz"
BUNDLED = ROOT / "data" / "samples"


def shipped(place: Path) -> Path:
    """`place`, one of the above. Raises InputError if this installation lacks it."""
    if not place.exists():
        raise InputError(f"{place} is missing: this installation of image2cad is not whole")
    return place
