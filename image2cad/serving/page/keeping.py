"""What is remembered of a visit, and what outlives it: in the visitor's browser, or in a link.

    kept = packed(entry, visit)                     # JSON for gr.BrowserState
    entry, visit = unpacked(kept)                   # of anything that a browser may send
    link = link_of(code)                            # letters for an address, behind its #
    code = program_in(link)

What stands behind the # of an address stays in the browser until the page's script hands it over,
so that no log has it. Both come back from outside and are not believed: texts are texts, and files
have to be the page's own. Left out: pictures, which are gone after some hours.
"""

from __future__ import annotations

import base64
import binascii
import zlib
from dataclasses import dataclass, field, replace
from typing import Any

from gradio.processing_utils import save_pil_to_cache
from gradio.utils import get_upload_folder
from PIL import Image

from image2cad.common import InputError
from image2cad.serving.jobs import SIZE_ASSUMED, SIZE_GIVEN, SIZE_OF_PROGRAM
from image2cad.serving.page.display import Row
from image2cad.serving.page.uploads import uploaded_file

STEPS_TO_UNDO = 50
MOST_KEPT_PARTS = 24  # parts in a browser
MOST_KEPT_LETTERS = 500_000  # of all their programs
MOST_TEXT = 1_000  # letters of anything but a program
LINK_MARK = "program="
LARGEST_LINKED = 200_000  # letters of a program


@dataclass(frozen=True)
class Entry:
    """One part of a visit.

    code: its program. picture, thumbnail: files, the user's picture as it is compared and the
    drawing of the part. caption: how it came about. found: figures of the answer, if it is one.
    eye: the direction that the picture is seen from, where it is not one of GenCAD's. name: of its
    files. size: where its size is from, as in `Built`. trail: the programs that were shown before.
    """

    code: str = ""
    picture: str | None = None
    thumbnail: str = ""
    caption: str = ""
    found: tuple[Row, ...] = ()
    eye: tuple[float, float, float] | None = None
    name: str = "part"
    size: str = SIZE_OF_PROGRAM
    trail: tuple[str, ...] = field(default=(), compare=False)

    def then(self, **changes: Any) -> Entry:
        """What is shown after this one, which can be undone."""
        trail = (*self.trail, self.code)[-STEPS_TO_UNDO:] if self.code else self.trail
        return replace(self, trail=trail, **changes)


# ---- In the browser


def packed(entry: Entry, visit: list[Entry]) -> dict[str, Any]:
    """The part that is shown, and the visit, as JSON."""
    rows, letters = [], 0
    for one in [entry, *visit[:MOST_KEPT_PARTS]]:
        letters += len(one.code)
        if letters > MOST_KEPT_LETTERS:
            break
        rows.append({name: value for name, value in vars(one).items() if name != "trail"})
    return {"parts": rows}


def unpacked(kept: Any) -> tuple[Entry, list[Entry]]:
    """What `packed` has packed; nothing of what is none of that."""
    rows = kept.get("parts") if isinstance(kept, dict) else None
    found = [_entry(row) for row in rows[: MOST_KEPT_PARTS + 1]] if isinstance(rows, list) else []
    entries = [one for one in found if one is not None]
    return (entries[0], entries[1:]) if entries else (Entry(), [])


def _entry(row: Any) -> Entry | None:
    if not isinstance(row, dict) or not isinstance(row.get("code"), str) or not row["code"].strip():
        return None

    def text(name: str) -> str:
        value = row.get(name)
        return value[:MOST_TEXT] if isinstance(value, str) else ""

    found = row.get("found")
    rows = [one for one in found if _is_row(one)] if isinstance(found, list) else []
    eye = row.get("eye")
    if not (isinstance(eye, list) and len(eye) == 3 and all(isinstance(x, float) for x in eye)):
        eye = None
    thumbnail = _own(text("thumbnail")) or _blank()
    name = "".join(c for c in text("name") if c.isalnum() or c in " ._-").strip(". ") or "part"
    return Entry(
        row["code"], _own(text("picture")), thumbnail, text("caption"),
        tuple(tuple(one) for one in rows), tuple(eye) if eye else None, name,
        text("size") if text("size") in (SIZE_ASSUMED, SIZE_GIVEN) else SIZE_OF_PROGRAM,
    )  # fmt: skip


def _is_row(row: Any) -> bool:
    return isinstance(row, list) and len(row) == 2 and all(isinstance(one, str) for one in row)


def _own(path: str) -> str | None:
    """The path, if it is that of a file of the page's that is still there."""
    try:
        return str(uploaded_file(path))
    except (InputError, OSError, ValueError):
        return None


def _blank() -> str:
    """A thumbnail in the place of one that is gone."""
    return save_pil_to_cache(
        Image.new("RGB", (160, 160), "white"), get_upload_folder(), "part", "png"
    )


# ---- In a link


def link_of(code: str) -> str:
    """The program as letters for an address, behind its #; "" for none.

    Raises InputError for one that is too long for `program_in`.
    """
    if not code.strip():
        return ""
    if len(code) > LARGEST_LINKED:
        raise InputError(f"a link holds {LARGEST_LINKED:,} letters of a program, not {len(code):,}")
    packed_text = zlib.compress(code.encode("utf-8", "replace"), 9)
    return LINK_MARK + base64.urlsafe_b64encode(packed_text).decode().rstrip("=")


def program_in(link: str) -> str:
    """The program in what stands behind the # of an address; "" where there is none.

    Raises InputError where it is damaged or too long.
    """
    mark, _, text = link.lstrip("#").partition("=")
    if f"{mark}=" != LINK_MARK:
        return ""
    try:
        data = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
        stream = zlib.decompressobj()
        code = stream.decompress(data, 4 * LARGEST_LINKED)
        if stream.unconsumed_tail or not stream.eof:
            raise InputError("the program of the link is too long, or cut off")
        return code.decode()
    except (binascii.Error, zlib.error, ValueError) as error:
        raise InputError("the link holds no program: it is damaged") from error
