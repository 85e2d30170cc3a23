"""Confines a forked child for good, in layers, and says which layers this machine has.

- process: own session, empty environment, null streams, no descriptor but the result channel,
  a deadline and a kill from outside (fork_server.py).
- rlimits: address space, CPU time, descriptors; no core files, no file contents.
- no_new_privs: no set-user-id programs.
- uid: when started by root, an unused user id per child, without capabilities.
- landlock: files by path (landlock.py).
- seccomp: a system call allowlist (seccomp.py).

Each layer is tried once in a child of its own (`probe`), and its effect is checked, not only its
return code. A child then switches on every layer that was found, or ends before it runs anything.
Works with fewer layers on macOS, under gVisor and in containers: the result names what was reached.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import os
import resource
import signal
import socket
import struct
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from . import landlock, seccomp

LAYERS = ("process", "rlimits", "no_new_privs", "uid", "landlock", "seccomp")
SPARE_CPU_SECONDS = 2  # more than the warden allows, which kills sooner unless it is stopped
MAX_DESCRIPTORS = 64
MAX_THREADS = 64  # counted per user id, so it binds only where the child has one of its own

FIRST_UID, UIDS, NOBODY = 0x7FFF0000 - 70_000, 60_000, 65_534

PR_SET_PDEATHSIG, PR_SET_KEEPCAPS, PR_SET_NO_NEW_PRIVS, PR_GET_NO_NEW_PRIVS = 1, 8, 38, 39

PR_SET_DUMPABLE, PR_SET_CHILD_SUBREAPER = 4, 36

# For capset: the header's version, and the bit that lets a process read whatever its owner.
CAPABILITY_VERSION_3, CAP_DAC_READ_SEARCH = 0x20080522, 1 << 2


@dataclass(frozen=True)
class Confinement:
    """What a child switches on. rules: Landlock descriptor or -1. read_search: see `_drop_user`."""

    layers: tuple[str, ...]
    rules: int = -1
    read_search: bool = False


def probe(without: Sequence[str] = ()) -> Confinement:
    """Find the layers that work here, leaving out those named in `without`."""
    rules = -1
    if sys.platform == "linux" and "landlock" not in without:
        with contextlib.suppress(OSError, KeyError):
            # Out of the way of descriptor 3, which becomes the result channel.
            rules = fcntl.fcntl(landlock.ruleset(), fcntl.F_DUPFD_CLOEXEC, 10)
    found: tuple[str, ...] = ("process",)
    for layer in LAYERS[1:]:
        if layer not in without and (layer != "landlock" or rules >= 0):
            candidate = Confinement((*found, layer), rules)
            if _works(candidate, layer):
                found = candidate.layers
    return Confinement(found, rules, {"landlock", "seccomp"} <= set(found) and _hidden_python())


def confine(how: Confinement, memory: int, cpu_limit: float) -> None:
    """Switch the layers on. `memory` bytes come on top of the address space already in use.

    cpu_limit: seconds of CPU time that the warden allows.
    """
    parent = os.getppid()
    if "rlimits" in how.layers:
        set_limits(memory, cpu_limit)
    if "uid" in how.layers:
        _drop_user(how.read_search)
    if sys.platform == "linux":
        # After the change of user, which would clear it.
        prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:
            os._exit(71)
    if "no_new_privs" in how.layers:
        prctl(PR_SET_NO_NEW_PRIVS, 1)
    if "landlock" in how.layers:
        landlock.restrict(how.rules)
    if how.rules >= 0:
        os.close(how.rules)
    if "seccomp" in how.layers:
        seccomp.allow_only_listed(prctl)


def set_limits(memory: int, cpu_limit: float) -> None:
    """Resource limits of this process and its children. cpu_limit: as for `confine`."""
    limits = {
        resource.RLIMIT_AS: _address_space() + memory,
        resource.RLIMIT_CPU: int(cpu_limit) + SPARE_CPU_SECONDS,
        resource.RLIMIT_CORE: 0,
        resource.RLIMIT_FSIZE: 0,
        resource.RLIMIT_NOFILE: MAX_DESCRIPTORS,
    }
    for kind, value in limits.items():
        hard = resource.getrlimit(kind)[1]
        if hard != resource.RLIM_INFINITY:
            value = min(value, hard)
        try:
            resource.setrlimit(kind, (value, value))
        except ValueError:
            if sys.platform == "linux":  # macOS refuses some limits; the deadline remains
                raise
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)


def guard_supervisor(die_with_parent: bool) -> None:
    """For root and wardens: adopt orphans, be no target for ptrace, die with the parent.

    Not for the root, whose parent is a thread of the scorer that may end before the scorer does.
    """
    if sys.platform == "linux":
        if die_with_parent:
            prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        prctl(PR_SET_CHILD_SUBREAPER, 1)
        prctl(PR_SET_DUMPABLE, 0)


def prctl(option: int, *arguments: object) -> None:
    """The system call of that name. Raises OSError."""
    wide = [ctypes.c_ulong(a) if isinstance(a, int) else a for a in arguments]
    wide += [ctypes.c_ulong(0)] * (4 - len(wide))
    if _libc.prctl(option, *wide) < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"prctl {option}: {os.strerror(number)}")


_libc = ctypes.CDLL(None, use_errno=True)


def _drop_user(read_search: bool) -> None:
    """Become a user that nobody is.

    With read_search the child keeps one capability, to read files whatever their owner: needed
    where Python itself lies in a folder of root's, and granted only together with Landlock, which
    still decides which files those may be, and seccomp.
    """
    if read_search:
        prctl(PR_SET_KEEPCAPS, 1)
    os.setgroups([])
    own = FIRST_UID + os.getpid() % UIDS
    for user in (own, NOBODY):  # user namespaces may know no ids that high
        try:
            os.setresgid(user, user, user)
            os.setresuid(user, user, user)
            break
        except OSError:
            if user == NOBODY:
                raise
    if sys.platform == "linux":
        kept = CAP_DAC_READ_SEARCH if read_search else 0
        header = struct.pack("Ii", CAPABILITY_VERSION_3, 0)
        data = struct.pack("6I", kept, kept, 0, 0, 0, 0)
        if _libc.capset(header, data) < 0:
            raise OSError(ctypes.get_errno(), "capset")
    resource.setrlimit(resource.RLIMIT_NPROC, (MAX_THREADS, MAX_THREADS))


def _hidden_python() -> bool:
    """Whether an ordinary user could not read the standard library."""
    path = os.path.realpath(os.__file__)
    while path != "/":
        if not os.stat(path).st_mode & (0o001 if os.path.isdir(path) else 0o004):
            return True
        path = os.path.dirname(path)
    return False


def _address_space() -> int:
    try:
        with open("/proc/self/statm") as statm:
            return int(statm.read().split()[0]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return 0  # not Linux: RLIMIT_AS is ignored there anyway


def _works(candidate: Confinement, layer: str) -> bool:
    child = os.fork()
    if child == 0:
        code = 1
        with contextlib.suppress(BaseException):
            confine(candidate, 1 << 30, 10)
            code = 0 if _EFFECTS[layer]() else 1
        os._exit(code)
    return os.waitpid(child, 0)[1] == 0


def _refused(action: Callable[[], object]) -> bool:
    try:
        action()
    except PermissionError:
        return True
    return False


def _new_privileges_off() -> bool:
    return _libc.prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0) == 1


_EFFECTS: dict[str, Callable[[], bool]] = {
    "rlimits": lambda: resource.getrlimit(resource.RLIMIT_CORE)[0] == 0,
    "no_new_privs": _new_privileges_off,
    "uid": lambda: 0 not in os.getresuid() and _refused(lambda: os.setuid(0)),
    "landlock": lambda: _refused(lambda: os.listdir("/")),
    "seccomp": lambda: _refused(lambda: socket.socket(socket.AF_UNIX)),
}
