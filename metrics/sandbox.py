"""Confines the calling process for good: limits, no privileges, no files, no network.

Each layer is switched on in the child after the fork and before generated code runs.
"""

from __future__ import annotations

import os
import resource
import signal

LAYERS = ("process", "limits")
SPARE_CPU_SECONDS = 5


def limit(memory: int, seconds: float) -> None:
    """Resource limits. `memory` bytes come on top of the address space already in use."""
    space = _address_space() + memory
    _set(resource.RLIMIT_AS, space)
    cpu = int(seconds) + SPARE_CPU_SECONDS
    _set(resource.RLIMIT_CPU, cpu)
    _set(resource.RLIMIT_CORE, 0)
    _set(resource.RLIMIT_FSIZE, 0)
    _set(resource.RLIMIT_NOFILE, 64)
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)


def _set(kind: int, value: int) -> None:
    hard = resource.getrlimit(kind)[1]
    if hard != resource.RLIM_INFINITY:
        value = min(value, hard)
    resource.setrlimit(kind, (value, value))


def _address_space() -> int:
    try:
        with open("/proc/self/statm") as statm:
            return int(statm.read().split()[0]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return 0  # not Linux: RLIMIT_AS is ignored there anyway
