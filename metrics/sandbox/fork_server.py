"""The fork server: a warm process that imported CadQuery once and forks a child for every job.

    scorer --- root --+-- warden --- child
                      +-- warden --- child

The root imports CadQuery and forks a warden per connection of the scorer. A warden forks a child
per job, kills it with its whole session at a limit, and reports how it ended. There are two
limits: of CPU time, so that a verdict does not depend on what else the machine does, and of wall
time, for who sleeps. Root and wardens only ever see file descriptors and numbers: the code of a job
and its result travel between the scorer and the child on a socket that the warden hands on unread.
So a child inherits no other sample, no reference and no score, however deep it digs in its own
memory.

Started by client.py; not meant to be run by hand. What a child does is in runner.py, measure.py
and cad_files.py.
"""

from __future__ import annotations

import contextlib
import functools
import gc
import json
import os
import select
import signal
import socket
import struct
import sys
import time
from collections.abc import Callable
from typing import Any, NoReturn

from . import layers

JOB_FORMAT = struct.Struct(">BddQ")  # kind of job, CPU seconds, wall seconds, bytes of memory
DONE_FORMAT = struct.Struct(">iBdd")  # wait status, reason, wall seconds, CPU seconds

# Kinds of job.
RUN_PROGRAM, MEASURE_BREP, READ_STEP, MEASURE_STL, WRITE_STEP = 1, 2, 3, 4, 5
MEASURE_3MF, MEASURE_OBJ, COMPARE = 6, 7, 8
# Why a child is gone.
ENDED, PAST_CPU_LIMIT, PAST_WALL_LIMIT, CANCELLED = 0, 1, 2, 3
# Exit codes of a child that had no answer.
EXIT_UNEXPECTED, EXIT_UNCONFINED = 70, 71

SHORTEST_NAP = 0.01  # seconds between two looks at a child's CPU time

# Run once before the forks, so that no child pays for first calls: symbols to resolve, dispatch
# tables to fill, code to specialise.
WARM_UP = """
import cadquery as cq
plane = cq.Workplane(cq.Plane(cq.Vector(0, 0, 0), cq.Vector(1, 0, 0), cq.Vector(0, 0, 1)))
loop = plane.moveTo(1, 0).lineTo(1, 1).threePointArc((0.5, 1.5), (0, 1)).lineTo(0, 0).close()
hole = plane.moveTo(0.5, 0.5).circle(0.2)
solid = plane.add(loop).add(hole).extrude(0.5)
solid = solid.cut(cq.Workplane("XY").moveTo(0, 0).circle(0.3).extrude(2))
solid = solid.union(cq.Workplane("XY").box(1, 1, 1)).intersect(cq.Workplane("XY").box(3, 3, 3))
"""


def main(descriptor: int, without: list[str], compare: Callable[[bytes], bytes]) -> None:
    """Be the root: warm up, say so, then fork a warden for every connection received.

    Says so with one line of JSON: the names of the protection layers. without: layers to leave
    out, for tests of what the others contain. compare: what answers a job of the kind COMPARE.
    """
    control = socket.socket(fileno=descriptor)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the scorer to handle
    _warm_up()
    layers.guard_supervisor(die_with_parent=False)
    how = layers.probe(without)
    control.sendall(json.dumps(how.layers).encode() + b"\n")
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # wardens need no waiting for
    while True:
        message, handles, _, _ = socket.recv_fds(control, 1, 1)
        if not message:
            os._exit(0)
        _end_strangers()
        if os.fork() == 0:
            control.close()
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            layers.guard_supervisor(die_with_parent=True)
            _serve(socket.socket(fileno=handles[0]), how, compare)
        os.close(handles[0])


def _warm_up() -> None:
    from . import lazy_vtk

    cadquery = lazy_vtk.import_cadquery()
    from OCP.OSD import OSD_ThreadPool

    from . import cad_files, measure, runner

    # A pool thread does not survive a fork, and a child that waits for one hangs in every boolean.
    OSD_ThreadPool.DefaultPool_s(1).Init(1)
    del cad_files
    exec(WARM_UP, {})
    measure.measure(runner.to_brep(cadquery.Workplane().box(1, 1, 1).edges("|Z").fillet(0.1).val()))
    gc.collect()
    gc.freeze()  # children then touch fewer pages that they share with this process
    gc.disable()


def _end_strangers() -> None:
    """Kill what a lost warden left behind: adopted processes that are not in our session."""
    for child in _children(os.getpid()):
        with contextlib.suppress(OSError):
            if os.getsid(child) != os.getsid(0):
                os.kill(child, signal.SIGKILL)


def _serve(
    connection: socket.socket, how: layers.Confinement, compare: Callable[[bytes], bytes]
) -> NoReturn:
    while True:
        message, handles, _, _ = socket.recv_fds(connection, JOB_FORMAT.size, 1)
        if len(message) != JOB_FORMAT.size or len(handles) != 1:
            os._exit(0)
        kind, cpu_limit, wall_limit, memory = JOB_FORMAT.unpack(message)
        started = time.monotonic()
        child = os.fork()
        if child == 0:
            connection.close()
            answer = compare if kind == COMPARE else functools.partial(_answer, kind)
            _child(handles[0], answer, cpu_limit, memory, how)
        os.close(handles[0])
        status, reason, cpu = _watch(child, connection, started, cpu_limit, wall_limit)
        connection.sendall(DONE_FORMAT.pack(status, reason, time.monotonic() - started, cpu))


def _watch(
    child: int, connection: socket.socket, started: float, cpu_limit: float, wall_limit: float
) -> tuple[int, int, float]:
    """Wait for the child; kill its session at a limit or when the scorer says so.

    Returns wait status, reason and CPU seconds, once nothing that the child started is left.
    """
    cores = os.cpu_count() or 1
    reason, hung_up, cpu = ENDED, False, 0.0
    ended, status, usage = os.wait4(child, os.WNOHANG)
    while not ended:
        cpu_left, wall_left = cpu_limit - cpu, started + wall_limit - time.monotonic()
        # As many threads as there are cores may use up CPU time side by side.
        nap = min(max(cpu_left / cores, SHORTEST_NAP), wall_left)
        if cpu_left <= 0:
            reason = PAST_CPU_LIMIT
        elif wall_left <= 0:
            reason = PAST_WALL_LIMIT
        elif _readable_within(child, connection, nap):
            reason, hung_up = CANCELLED, not connection.recv(1)
        if reason != ENDED:
            os.kill(child, signal.SIGKILL)
            _, status, usage = os.wait4(child, 0)
            break
        ended, status, usage = os.wait4(child, os.WNOHANG)
        if not ended:
            cpu = _cpu_seconds(time.monotonic() - started)
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(child, signal.SIGKILL)
    _reap_orphans()
    if hung_up:
        os._exit(0)
    cpu = usage.ru_utime + usage.ru_stime
    killed = os.WIFSIGNALED(status) and os.WTERMSIG(status) in (signal.SIGKILL, signal.SIGXCPU)
    if reason == ENDED and killed and cpu >= cpu_limit:
        reason = PAST_CPU_LIMIT  # by the system, where layers.py set a limit as well
    return status, reason, cpu


def _cpu_seconds(wall: float) -> float:
    """CPU seconds of all that came from this process and is still there, threads included.

    Where the system does not tell them, the `wall` seconds stand for them.
    """
    found, seconds, seen = _children(os.getpid()), 0.0, 0
    while found:
        pid = found.pop()
        with contextlib.suppress(OSError), open(f"/proc/{pid}/stat") as stat:
            used = stat.read().rpartition(")")[2].split()[11:15]  # its own, and of those it lost
            seconds += sum(map(int, used)) / os.sysconf("SC_CLK_TCK")
            seen += 1
            found += _children(pid)
    return seconds if seen else wall


def _readable_within(child: int, connection: socket.socket, left: float) -> bool:
    """Sleep until the child ends, the deadline passes or the scorer speaks; True if it spoke."""
    try:
        handle = os.pidfd_open(child)
    except (AttributeError, OSError):  # macOS, old kernels: look every few milliseconds
        return bool(select.select([connection], [], [], min(left, 0.005))[0])
    try:
        watched: list[Any] = [handle, connection]
        return connection in select.select(watched, [], [], left)[0]
    finally:
        os.close(handle)


def _reap_orphans() -> None:
    """Kill what left the session: orphans come to this process, as their subreaper."""
    while True:
        try:
            if os.waitpid(-1, os.WNOHANG)[0]:
                continue
        except ChildProcessError:
            return
        for orphan in _children(os.getpid()):
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(orphan, signal.SIGKILL)
        time.sleep(0.001)


def _children(parent: int) -> list[int]:
    if sys.platform != "linux":
        return []  # and orphans do not come to this process either
    with contextlib.suppress(OSError):
        lines = []
        for task in os.listdir(f"/proc/{parent}/task"):
            with open(f"/proc/{parent}/task/{task}/children") as children:
                lines.append(children.read())
        return [int(number) for line in lines for number in line.split()]
    found: list[int] = []
    for name in os.listdir("/proc"):  # a kernel without that file
        if name.isdigit():
            with contextlib.suppress(OSError), open(f"/proc/{name}/stat") as stat:
                if stat.read().rpartition(")")[2].split()[1] == str(parent):
                    found.append(int(name))
    return found


def _child(
    handle: int,
    answer: Callable[[bytes], bytes],
    cpu_limit: float,
    memory: int,
    how: layers.Confinement,
) -> NoReturn:
    code = EXIT_UNCONFINED
    try:
        channel = _isolate(handle, how.rules)
        layers.confine(how, memory, cpu_limit)
        code = EXIT_UNEXPECTED
        job = _read_all(channel)
        _write_all(channel, _answer_or_reason(answer, job))
        code = 0
    finally:
        os._exit(code)


def _isolate(handle: int, rules: int) -> int:
    """New session, empty environment, null streams; only channel and Landlock rules stay open."""
    os.setsid()
    os.dup2(handle, 3)
    null = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1, 2):
        os.dup2(null, stream)
    os.closerange(4, max(rules, 4))
    os.closerange(max(rules, 3) + 1, 1 << 16)
    os.environ.clear()
    os.chdir("/")
    os.umask(0o077)
    return 3


def _answer_or_reason(answer: Callable[[bytes], bytes], job: bytes) -> bytes:
    from .. import wire

    try:
        return answer(job)
    except ValueError as error:
        return wire.pack({"ok": False, "kind": "invalid solid", "message": str(error)})
    except MemoryError:
        return wire.pack({"ok": False, "kind": "memory", "message": "out of memory"})


def _answer(kind: int, job: bytes) -> bytes:
    """What a job of any other kind asks for. Raises ValueError for a file that cannot be read."""
    from .. import wire
    from . import cad_files, measure, runner

    if kind == MEASURE_BREP:
        return measure.measure(job)
    if kind == MEASURE_STL:
        return cad_files.measure_stl(job)
    if kind in (MEASURE_3MF, MEASURE_OBJ):
        return cad_files.measure_mesh_file(job, "3mf" if kind == MEASURE_3MF else "obj")
    if kind in (READ_STEP, WRITE_STEP):
        convert = cad_files.step_to_brep if kind == READ_STEP else cad_files.brep_to_step
        return wire.pack({"ok": True}, convert(job))
    header, brep = runner.run(job.decode("utf-8", "surrogatepass"))
    return wire.pack(header, brep)


def _read_all(channel: int) -> bytes:
    parts = []
    while part := os.read(channel, 1 << 20):
        parts.append(part)
    return b"".join(parts)


def _write_all(channel: int, message: Any) -> None:
    view = memoryview(message)
    while view:
        view = view[os.write(channel, view) :]


if __name__ == "__main__":
    sys.exit("metrics.sandbox.fork_server is started by metrics.sandbox.client")
