"""File access by path for the confined child (Linux 5.13 and later), through ctypes.

Reading is allowed below a few folders that hold Python, its packages, shared libraries and
fonts; everything else, and every kind of writing, is refused. Where the kernel knows how, TCP,
abstract sockets and signals to other processes are refused as well.
"""

from __future__ import annotations

import ctypes
import os
import site
import struct
import sys
import sysconfig
from pathlib import Path

CREATE_RULESET, ADD_RULE, RESTRICT_SELF = 444, 445, 446  # same numbers on x86-64 and ARM64

VERSION_FLAG, PATH_BENEATH = 1, 1

READ_FILE, READ_DIR = 1 << 2, 1 << 3
ALL_ACCESS = {1: 13, 2: 14, 3: 15, 4: 15, 5: 16}  # ABI version: number of file access rights

ALL_NETWORK, ALL_SCOPES = 0b11, 0b11
SYSTEM_FOLDERS = (
    "/lib", "/lib64", "/usr/lib", "/usr/lib64", "/usr/local/lib", "/usr/share/fonts",
    "/usr/local/share/fonts", "/usr/share/zoneinfo", "/etc/fonts", "/etc/ld.so.cache",
    "/dev/null", "/dev/zero", "/dev/urandom",
)  # fmt: skip
_libc = ctypes.CDLL(None, use_errno=True)


def ruleset() -> int:
    """Descriptor of the rules; made once, before the forks. Raises OSError without Landlock."""
    version = _call(CREATE_RULESET, None, 0, VERSION_FLAG)
    rights = (1 << ALL_ACCESS[min(version, 5)]) - 1
    fields = [rights, ALL_NETWORK if version >= 4 else 0, ALL_SCOPES if version >= 6 else 0]
    size = 8 if version < 4 else 16 if version < 6 else 24
    attributes = struct.pack("QQQ", *fields)[:size]
    rules = _call(CREATE_RULESET, attributes, size, 0)
    for path in readable_paths():
        handle = os.open(path, os.O_PATH | os.O_CLOEXEC)
        try:
            allowed = READ_FILE | READ_DIR if os.path.isdir(path) else READ_FILE
            _call(ADD_RULE, rules, PATH_BENEATH, struct.pack("=Qi", allowed, handle), 0)
        finally:
            os.close(handle)
    return rules


def restrict(rules: int) -> None:
    """Put this process under the rules for good. Needs no_new_privs. Raises OSError."""
    _call(RESTRICT_SELF, rules, 0)


def readable_paths() -> list[str]:
    """The folders and files that a program may read: Python, its packages, libraries, fonts."""
    names = ("stdlib", "platstdlib", "purelib", "platlib")
    paths = [sysconfig.get_paths()[name] for name in names]
    paths += [*site.getsitepackages(), site.getusersitepackages()]
    paths += [str(Path(sys.base_prefix) / "lib"), *SYSTEM_FOLDERS]
    for name in ("cadquery", "OCP", "numpy", "manifold3d", "scipy"):
        file = getattr(sys.modules.get(name), "__file__", None)
        if file and Path(file).parent.name == name:
            paths.append(str(Path(file).parent))
    return sorted({os.path.realpath(path) for path in paths if os.path.exists(path)})


def _call(number: int, *arguments: object) -> int:
    # Widened to long: syscall() is variadic, and a bare int would leave the upper half undefined.
    wide = [ctypes.c_long(a) if isinstance(a, int) else a for a in arguments]
    result = _libc.syscall(ctypes.c_long(number), *wide)
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"Landlock: {os.strerror(number)}")
    return result
