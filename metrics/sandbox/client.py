"""The scorer's end of the sandbox: starts the fork server and sends it jobs.

One fork server per scorer process, started on first use, started again when it is lost, and gone
when this process ends, however it ends, because it then reads end-of-file. Connections (one warden
each, see fork_server.py) are kept for reuse and are safe to use from several threads. A forked copy
of this process starts its own.
"""

from __future__ import annotations

import atexit
import json
import os
import select
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from . import fork_server

START_SECONDS = 120.0  # importing CadQuery takes 2-4 s; slow disks take longer
GRACE_SECONDS = 3.0  # beyond the wall limit, before the warden itself counts as lost
CHUNK_BYTES = 1 << 18

# -I keeps PYTHON* variables and the current folder out; the path is handed over instead, and the
# package is loaded from its folder so that a package around it (and what that imports) is not.
BOOTSTRAP = """
import importlib.util, json, sys
folder, path, descriptor, without = json.loads(sys.argv[1])
sys.path[:] = path
spec = importlib.util.spec_from_file_location(
    "metrics", folder + "/__init__.py", submodule_search_locations=[folder])
sys.modules["metrics"] = importlib.util.module_from_spec(spec)
spec.loader.exec_module(sys.modules["metrics"])
from metrics import geometry
from metrics.sandbox import fork_server
fork_server.main(descriptor, without, geometry.compare_sent)
"""


class ForkServerLost(Exception):
    """The fork server died while a job was running."""


class ForkServerStalled(Exception):
    """The fork server did not end a job in time."""


@dataclass
class _State:
    lock: threading.RLock = field(default_factory=threading.RLock)
    pid: int = 0
    root: subprocess.Popen | None = None
    control: socket.socket | None = None
    idle: list[socket.socket] = field(default_factory=list)
    layers: tuple[str, ...] = ()
    without: tuple[str, ...] = ()


_state = _State()


@dataclass(frozen=True)
class JobOutcome:
    """How a child ended. output: all it wrote, cut at `limit`. reason: see fork_server.py.

    seconds: wall time. cpu: seconds of CPU time. cpu_limit, wall_limit: what it had of them.
    """

    output: bytes
    status: int
    reason: int
    seconds: float
    cpu: float
    cpu_limit: float
    wall_limit: float


def start() -> tuple[str, ...]:
    """Start the fork server if it is not running; returns the protection layers it reached.

    Raises RuntimeError if it cannot start.
    """
    with _state.lock:
        _forget_if_forked()
        if _state.root is not None and _state.root.poll() is None:
            return _state.layers
        stop()
        if not hasattr(os, "fork"):
            raise RuntimeError("metrics needs os.fork; on Windows use WSL or a Linux container")
        ours, theirs = socket.socketpair()
        folder = str(Path(__file__).resolve().parents[1])
        argument = json.dumps([folder, sys.path, theirs.fileno(), _state.without])
        _state.root = subprocess.Popen(
            [sys.executable, "-I", "-c", BOOTSTRAP, argument],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            pass_fds=[theirs.fileno()],
            env=_clean_environment(),
            start_new_session=True,
        )
        theirs.close()
        _state.control = ours
        ours.settimeout(START_SECONDS)
        try:
            with ours.makefile("rb") as stream:
                _state.layers = tuple(json.loads(stream.readline()))
        except (OSError, ValueError):
            root, _state.root = _state.root, None
            root.kill()
            error = root.communicate()[1].decode(errors="replace").strip().splitlines()
            stop()
            message = f"the warm process did not start: {' | '.join(error[-3:])}"
            raise RuntimeError(message) from None
        return _state.layers


def restart(without: Sequence[str] = ()) -> tuple[str, ...]:
    """Start anew, leaving out protection layers: for tests of what the others contain."""
    with _state.lock:
        stop()
        _state.without = tuple(without)
        return start()


def stop() -> None:
    """End the fork server and every job it runs. The next job starts a new one."""
    with _state.lock:
        _forget_if_forked()
        for connection in [*_state.idle, *([_state.control] if _state.control else [])]:
            connection.close()
        _state.idle, _state.control = [], None
        if _state.root is not None:
            _state.root.kill()
            _state.root.wait()
            if _state.root.stderr:
                _state.root.stderr.close()
            _state.root = None


def _forget_if_forked() -> None:
    if _state.pid not in (0, os.getpid()):
        # A forked copy must not use, nor end, what belongs to the process it came from.
        for connection in [*_state.idle, *([_state.control] if _state.control else [])]:
            connection.close()
        _state.root, _state.control, _state.idle = None, None, []
    _state.pid = os.getpid()


def _clean_environment() -> dict[str, str]:
    # Huge pages make the fork of a process this large cheaper.
    huge = {"GLIBC_TUNABLES": "glibc.malloc.hugetlb=1"}
    single = ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS")
    return {
        "PATH": os.defpath,
        "LANG": "C.UTF-8",
        "HOME": "/",
        **huge,
        **dict.fromkeys(single, "1"),
    }


def _connection() -> socket.socket:
    with _state.lock:
        start()
        if _state.idle:
            return _state.idle.pop()
        ours, theirs = socket.socketpair()
        try:
            assert _state.control is not None
            socket.send_fds(_state.control, [b"W"], [theirs.fileno()])
        except OSError as error:
            ours.close()
            raise ForkServerLost("the warm process is gone") from error
        finally:
            theirs.close()
        return ours


def run_job(
    kind: int, job: bytes, cpu_limit: float, wall_limit: float, memory: int, limit: int
) -> JobOutcome:
    """Run one job in a confined child, within CPU and wall seconds.

    Raises ForkServerLost, ForkServerStalled.
    """
    connection = _connection()
    ours, theirs = socket.socketpair()
    try:
        with ours:
            try:
                message = fork_server.JOB_FORMAT.pack(kind, cpu_limit, wall_limit, memory)
                socket.send_fds(connection, [message], [theirs.fileno()])
            finally:
                theirs.close()
            answer = _exchange(connection, ours, job, cpu_limit, wall_limit, limit)
    except OSError as error:
        connection.close()
        raise ForkServerLost("the warm process died") from error
    except BaseException:
        connection.close()
        raise
    with _state.lock:
        # Without seccomp a program can change the limits of its warden, so none serves twice.
        reusable = _state.pid == os.getpid() and _state.root is not None
        if reusable and "seccomp" in _state.layers:
            _state.idle.append(connection)
        else:
            connection.close()
    return answer


def _exchange(
    connection: socket.socket,
    channel: socket.socket,
    job: bytes,
    cpu_limit: float,
    wall_limit: float,
    limit: int,
) -> JobOutcome:
    channel.setblocking(False)
    deadline = time.monotonic() + wall_limit + GRACE_SECONDS
    unsent, received, size, cancelled = memoryview(job), [], 0, False
    if not unsent:
        channel.shutdown(socket.SHUT_WR)
    reading = [connection, channel]
    while True:
        left = deadline - time.monotonic()
        writing = [channel] if unsent else []
        readable, writable, _ = select.select(reading, writing, [], max(left, 0))
        if not readable and not writable and left <= 0:
            stop()  # a warden that does not kill in time may be stopped itself
            raise ForkServerStalled("the supervising process was stopped while this program ran")
        if writable:
            try:
                unsent = unsent[channel.send(unsent[:CHUNK_BYTES]) :]
                if not unsent:
                    channel.shutdown(socket.SHUT_WR)
            except OSError:
                unsent = unsent[:0]  # the child is gone; its status tells why
        if channel in readable:
            try:
                part = channel.recv(CHUNK_BYTES)
            except OSError:
                part = b""
            size += len(part)
            if not part:
                reading.remove(channel)
            elif size <= limit:
                received.append(part)
            elif not cancelled:
                connection.sendall(b"K")
                cancelled = True
        elif connection in readable:  # only once the channel has nothing left to give
            message = connection.recv(fork_server.DONE_FORMAT.size, socket.MSG_WAITALL)
            if len(message) != fork_server.DONE_FORMAT.size:
                raise ForkServerLost("the warm process died")
            status, reason, wall, cpu = fork_server.DONE_FORMAT.unpack(message)
            output = b"".join(received)
            return JobOutcome(output, status, reason, wall, cpu, cpu_limit, wall_limit)


atexit.register(stop)
