"""The byte format between the confined processes and the scorer.

A message is a 4-byte big-endian length, a JSON header of that length, then one raw block of
bytes. Arrays are described in the header and laid one after the other in the block. Nothing is
ever unpickled: the sender may be hostile, so every field is checked before it is used.

Leaves out: compression and versioning. Both ends are always the same copy of this folder.
"""

from __future__ import annotations

import json
import struct
from typing import Any

import numpy as np

MAX_HEADER = 1 << 20
MAX_BODY = 256 << 20

# name -> (dtype, columns); 0 columns means a flat array.
ARRAYS: dict[str, tuple[str, int]] = {
    "vertices": ("<f8", 3),
    "normals": ("<f8", 3),
    "triangles": ("<i4", 3),
    "faces": ("<i4", 0),
    "edge_points": ("<f8", 3),
    "edge_starts": ("<i4", 0),
    "solid_of_face": ("<i4", 0),
}


class WireError(ValueError):
    """The bytes are not a message that this module wrote."""


def pack(header: dict[str, Any], body: bytes = b"") -> bytes:
    """One message: `header` as JSON (no NaN) and `body` as it is."""
    text = json.dumps(header, allow_nan=False).encode()
    return struct.pack(">I", len(text)) + text + body


def unpack(message: bytes) -> tuple[dict[str, Any], bytes]:
    """The header and the body of a message. Raises WireError on anything malformed."""
    if len(message) < 4:
        raise WireError("message is shorter than its length field")
    (length,) = struct.unpack(">I", message[:4])
    if length > MAX_HEADER or 4 + length > len(message):
        raise WireError("header length does not fit the message")
    if len(message) - 4 - length > MAX_BODY:
        raise WireError("body is too large")
    try:
        header = json.loads(message[4 : 4 + length])
    except (ValueError, RecursionError) as error:
        raise WireError(f"header is not JSON: {error}") from error
    if not isinstance(header, dict):
        raise WireError("header is not an object")
    return header, message[4 + length :]


def pack_arrays(header: dict[str, Any], arrays: dict[str, np.ndarray], tail: bytes) -> bytes:
    """A message that holds the arrays named in ARRAYS, then `tail`."""
    blocks, counts = [], {}
    for name, (dtype, _) in ARRAYS.items():
        array = np.ascontiguousarray(arrays[name], dtype=dtype)
        counts[name] = len(array)
        blocks.append(array.tobytes())
    return pack({**header, "counts": counts}, b"".join(blocks) + tail)


def unpack_arrays(header: dict[str, Any], body: bytes) -> tuple[dict[str, np.ndarray], bytes]:
    """The arrays of ARRAYS and the tail. Checks sizes, finiteness and every index range."""
    counts = header.get("counts")
    if not isinstance(counts, dict):
        raise WireError("no array counts")
    arrays: dict[str, np.ndarray] = {}
    offset = 0
    for name, (dtype, columns) in ARRAYS.items():
        count = counts.get(name)
        if type(count) is not int or count < 0:
            raise WireError(f"bad count for {name}")
        size = count * max(columns, 1) * np.dtype(dtype).itemsize
        if offset + size > len(body):
            raise WireError(f"{name} does not fit the body")
        array = np.frombuffer(body, dtype, count * max(columns, 1), offset).copy()
        arrays[name] = array.reshape(count, columns) if columns else array
        offset += size
    _check_arrays(arrays)
    return arrays, body[offset:]


def _check_arrays(arrays: dict[str, np.ndarray]) -> None:
    points, triangles = arrays["vertices"], arrays["triangles"]
    starts, edge_points = arrays["edge_starts"], arrays["edge_points"]
    for name in ("vertices", "normals", "edge_points"):
        if not np.isfinite(arrays[name]).all():
            raise WireError(f"{name} are not finite")
    if len(arrays["normals"]) != len(points) or len(arrays["faces"]) != len(triangles):
        raise WireError("array lengths disagree")
    _check_range("triangles", triangles, len(points))
    _check_range("faces", arrays["faces"], len(arrays["solid_of_face"]))
    _check_range("solid_of_face", arrays["solid_of_face"], len(arrays["solid_of_face"]))
    if not len(starts) or starts[0] != 0 or starts[-1] != len(edge_points):
        raise WireError("edge starts do not cover the edge points")
    if (np.diff(starts) < 0).any():
        raise WireError("edge starts decrease")


def _check_range(name: str, array: np.ndarray, end: int) -> None:
    if len(array) and (array.min() < 0 or array.max() >= end):
        raise WireError(f"{name} hold an index out of range")
