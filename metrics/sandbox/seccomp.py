"""A system call allowlist for the confined child (Linux, x86-64 and ARM64), through ctypes.

What is not on the list fails with "operation not permitted", so that an honest library goes on
and a program gets a PermissionError that names the line. Some calls are allowed with certain
arguments only: signals and limits for the process itself, threads but no processes, files for
reading. Numbers are those of Linux's own headers.

Leaves out: path names, which a filter cannot see (landlock.py does those).
"""

from __future__ import annotations

import ctypes
import errno
import os
import struct
from collections.abc import Callable

# name: (x86-64, ARM64); None where the machine has no such call. Frequent ones first.
ALLOWED_CALLS: dict[str, tuple[int | None, int | None]] = {
    "read": (0, 63), "write": (1, 64), "mmap": (9, 222), "munmap": (11, 215), "brk": (12, 214),
    "madvise": (28, 233), "futex": (202, 98), "mprotect": (10, 226), "newfstatat": (262, 79),
    "fstat": (5, 80), "close": (3, 57), "lseek": (8, 62), "pread64": (17, 67),
    "readv": (19, 65), "writev": (20, 66), "stat": (4, None), "lstat": (6, None),
    "statx": (332, 291), "statfs": (137, 43), "fstatfs": (138, 44), "access": (21, None),
    "faccessat": (269, 48), "faccessat2": (439, 439), "readlink": (89, None),
    "readlinkat": (267, 78), "getdents64": (217, 61), "getcwd": (79, 17), "dup": (32, 23),
    "mremap": (25, 216), "membarrier": (324, 283), "sched_yield": (24, 124),
    "sched_getaffinity": (204, 123), "rt_sigaction": (13, 134), "rt_sigprocmask": (14, 135),
    "rt_sigreturn": (15, 139), "sigaltstack": (131, 132), "restart_syscall": (219, 128),
    "select": (23, None), "pselect6": (270, 72), "poll": (7, None), "ppoll": (271, 73),
    "nanosleep": (35, 101), "clock_nanosleep": (230, 115), "alarm": (37, None),
    "setitimer": (38, 103), "getitimer": (36, 102), "clock_gettime": (228, 113),
    "clock_getres": (229, 114), "gettimeofday": (96, 169), "time": (201, None),
    "times": (100, 153), "getrusage": (98, 165), "getrlimit": (97, 163), "sysinfo": (99, 179),
    "uname": (63, 160), "getpid": (39, 172), "getppid": (110, 173), "gettid": (186, 178),
    "getuid": (102, 174), "geteuid": (107, 175), "getgid": (104, 176), "getegid": (108, 177),
    "getrandom": (318, 278), "arch_prctl": (158, None), "set_robust_list": (273, 99),
    "rseq": (334, 293), "set_tid_address": (218, 96), "wait4": (61, 260), "exit": (60, 93),
    "exit_group": (231, 94),
}  # fmt: skip
# column in the table, and AUDIT_ARCH of the kernel
AUDIT_ARCHITECTURES = {"x86_64": (0, 0xC000003E), "aarch64": (1, 0xC00000B7)}

# Calls that are allowed with certain arguments only; the same two columns.
NR_KILL, NR_TGKILL, NR_PRLIMIT = (62, 129), (234, 131), (302, 261)
NR_CLONE, NR_CLONE3 = (56, 220), (435, 435)
NR_FCNTL, NR_IOCTL, NR_OPEN, NR_OPENAT = (72, 25), (16, 29), (2, None), (257, 56)

# A filter is a program of the kernel's packet filter (BPF): load a word, jump if it equals a value
# or has a bit, return a verdict. The names from here on are those of Linux's headers, shortened.
BPF_LOAD, BPF_JUMP_EQUAL, BPF_JUMP_SET, BPF_RETURN = 0x20, 0x15, 0x45, 0x06
RET_ALLOW, RET_ERRNO, RET_KILL = 0x7FFF0000, 0x00050000, 0x80000000
CLONE_THREAD = 0x10000
F_DUPFD, F_GETFD, F_SETFD, F_GETFL, F_SETFL, F_DUPFD_CLOEXEC = 0, 1, 2, 3, 4, 1030
TCGETS, FIONREAD = 0x5401, 0x541B
SECCOMP_MODE_FILTER, PR_SET_SECCOMP = 2, 22

Instructions = list[tuple[int, int, int, int]]  # operation, jump if true, jump if false, value
ALLOW = (BPF_RETURN, 0, 0, RET_ALLOW)
REFUSE = (BPF_RETURN, 0, 0, RET_ERRNO | errno.EPERM)


def allow_only_listed(prctl: Callable[..., None]) -> None:
    """Switch the filter on for good. Raises OSError where the machine has no seccomp."""
    machine = os.uname().machine
    if machine not in AUDIT_ARCHITECTURES:
        raise OSError(errno.ENOSYS, f"no system call table for {machine}")
    code = _bpf_program(os.getpid())
    buffer = ctypes.create_string_buffer(code)
    filter_ = struct.pack("HxxxxxxP", len(code) // 8, ctypes.addressof(buffer))
    prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, ctypes.create_string_buffer(filter_))


def _bpf_program(pid: int) -> bytes:
    column, arch = AUDIT_ARCHITECTURES[os.uname().machine]
    write_flags = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
    code = [
        (BPF_LOAD, 0, 0, 4),
        (BPF_JUMP_EQUAL, 1, 0, arch),
        (BPF_RETURN, 0, 0, RET_KILL),
        (BPF_LOAD, 0, 0, 0),
    ]
    for numbers in ALLOWED_CALLS.values():
        number = numbers[column]
        if number is not None:
            code += [(BPF_JUMP_EQUAL, 0, 1, number), ALLOW]
    code += _when(NR_KILL[column], 0, [pid])
    code += _when(NR_TGKILL[column], 0, [pid])
    code += _when(NR_PRLIMIT[column], 0, [0, pid])
    # F_SETOWN is left out: with F_SETSIG it would send signals to the process that supervises.
    code += _when(
        NR_FCNTL[column], 1, [F_DUPFD, F_GETFD, F_SETFD, F_GETFL, F_SETFL, F_DUPFD_CLOEXEC]
    )
    code += _when(NR_IOCTL[column], 1, [TCGETS, FIONREAD])
    code += _with_bits(NR_CLONE[column], 0, CLONE_THREAD, wanted=True)
    code += _with_bits(NR_OPEN[column], 1, write_flags, wanted=False)
    code += _with_bits(NR_OPENAT[column], 2, write_flags, wanted=False)
    # clone3 hides its flags in memory; with ENOSYS the C library falls back to clone.
    no_clone3 = (BPF_RETURN, 0, 0, RET_ERRNO | errno.ENOSYS)
    code += [(BPF_JUMP_EQUAL, 0, 1, NR_CLONE3[column]), no_clone3, REFUSE]
    return b"".join(struct.pack("HBBI", op, yes, no, value) for op, yes, no, value in code)


def _when(number: int | None, argument: int, values: list[int]) -> Instructions:
    """Allow a call when the low word of one argument is one of `values`."""
    if number is None:
        return []
    count = len(values)
    tests = [(BPF_JUMP_EQUAL, count - i, 0, value) for i, value in enumerate(values)]
    body = [(BPF_LOAD, 0, 0, 16 + 8 * argument), *tests, REFUSE]
    return [(BPF_JUMP_EQUAL, 0, len(body) + 1, number), *body, ALLOW]


def _with_bits(number: int | None, argument: int, bits: int, wanted: bool) -> Instructions:
    """Allow a call when an argument has one of `bits`, or, if not wanted, none of them."""
    if number is None:
        return []
    yes, no = (1, 0) if wanted else (0, 1)
    return [
        (BPF_JUMP_EQUAL, 0, 4, number),
        (BPF_LOAD, 0, 0, 16 + 8 * argument),
        (BPF_JUMP_SET, yes, no, bits),
        REFUSE,
        ALLOW,
    ]
