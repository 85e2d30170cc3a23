"""Protects the isolation of metrics/: each program of attacks.py must be contained.

Contained means: no side effect, no secret in what comes back, no process left, and the sample
that comes next gets its right score. Runs as whoever runs the tests; under root once more as an
ordinary user where Python is readable for one; and with the OS layers switched off, where only
the next sample's score is asked for.
"""

from __future__ import annotations

import os
import re
import shutil
import socket
import stat
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from attacks import (
    ATTACKS,
    FORGERIES,
    MEMORY,
    NEEDS_LAYERS,
    PROCESSES,
    SLOW,
    TAMPERING,
    TIME,
)

from metrics import execution
from metrics.execution import ProtectionError, protection, run_cadquery, run_many
from metrics.geometry import iou_aligned
from metrics.parts import Failure, Part
from metrics.sandbox import client

SECRET = "the-secret-that-must-not-leave"
REFERENCE = "# REFERENCE_MARK\nresult = cq.Workplane().box(1, 2, 3)"
NEXT = "result = cq.Workplane().box(1, 2, 4)"
# Two concentric boxes with sides over their radius of gyration, sqrt(sum of squares / 12).
SIDES = np.array([[1, 2, 3] / np.sqrt(14 / 12), [1, 2, 4] / np.sqrt(21 / 12)])
COMMON = SIDES.min(0).prod()
RIGHT_SCORE = COMMON / (SIDES.prod(1).sum() - COMMON)
OS_LAYERS = ("no_new_privs", "uid", "landlock", "seccomp")
linux = pytest.mark.skipif(sys.platform != "linux", reason="needs Landlock and seccomp")


@pytest.fixture(autouse=True)
def short_sleeps(monkeypatch):
    """Those who sleep are waited for a few seconds only."""
    monkeypatch.setattr(execution, "WALL_SPARE", 0.0)


@pytest.fixture(scope="module")
def targets():
    """What attacks aim at: a secret file, a folder open to all, sockets that listen."""
    os.environ["ATTACK_SECRET"] = SECRET
    folder = Path(tempfile.mkdtemp(prefix="canary"))
    secret = folder / "secret.txt"
    secret.write_text(SECRET)
    canary = folder / "canary"
    canary.mkdir()
    (canary / "keep.txt").write_text("keep")
    for path, mode in ((folder, 0o755), (secret, 0o644), (canary, 0o777)):
        path.chmod(mode)
    (canary / "keep.txt").chmod(0o666)
    tcp, udp = socket.create_server(("127.0.0.1", 0)), socket.socket(type=socket.SOCK_DGRAM)
    port = tcp.getsockname()[1]
    udp.bind(("127.0.0.1", port))
    unix = socket.socket(socket.AF_UNIX)
    sockets = [tcp, udp, unix]
    if sys.platform == "linux":
        unix.bind(f"\0canary{port}")
        unix.listen()
    for one in sockets:
        one.setblocking(False)
    yield {"SECRET_FILE": secret, "CANARY": canary, "PORT": port, "ABSTRACT": f"canary{port}"}, (
        canary, sockets,
    )  # fmt: skip
    for one in sockets:
        one.close()
    shutil.rmtree(folder)
    del os.environ["ATTACK_SECRET"]


@pytest.fixture(scope="module")
def reference():
    client.restart()
    part = run_cadquery(REFERENCE)
    assert isinstance(part, Part)
    return part


def launch(name: str, values: dict, seconds: float) -> Part | Failure:
    code = ATTACKS[name]
    for key, value in values.items():
        code = code.replace(key, str(value))
    return run_cadquery(code, timeout=seconds, memory=400 << 20)


def score_of_next(reference: Part) -> float:
    part = run_cadquery(NEXT)
    assert isinstance(part, Part), part
    return iou_aligned(reference, part)


def survivors() -> list[str]:
    """Processes below the warm one that belong neither to it nor to its wardens.

    One that was killed may still be ending on a busy machine: it is gone at a second look.
    """
    found = strangers()
    if found:
        time.sleep(1.0)
        found = strangers()
    return sorted(found)


def strangers() -> set[str]:
    """Their numbers, at this moment."""
    root = client._state.root
    if root is None:
        return set()
    parents = {}
    for entry in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = entry.read_text().rpartition(")")[2].split()
        except OSError:
            continue  # it ended meanwhile
        parents[int(entry.parent.name)] = (int(fields[1]), int(fields[3]), fields[0])
    found = set()
    for pid, (parent, session, state) in parents.items():
        while parent in parents and parent != root.pid:
            parent = parents[parent][0]
        if parent == root.pid and session != root.pid and state != "Z":
            found.add(str(pid))
    return found


@linux
@pytest.mark.parametrize("name", ATTACKS)
def test_attack_is_contained(name, targets, reference):
    values, (canary, sockets) = targets
    got = launch(name, values, 1.0 if name in SLOW else 4.0)
    text = got.message if isinstance(got, Failure) else " ".join(got.notes)
    assert SECRET not in text and "LEAK" not in text and "root:" not in text
    assert all(c.isprintable() or c == "\n" for c in text) and len(text) <= 2000
    if name in TIME and not isinstance(got, Part):
        assert got.kind in ("timeout", "memory"), got
    if name in MEMORY and not isinstance(got, Part):
        assert got.kind in ("memory", "crash", "exception", "syntax error", "timeout", "too large",
                            "forbidden")  # fmt: skip
    assert [path.name for path in canary.iterdir()] == ["keep.txt"]
    assert (canary / "keep.txt").read_text() == "keep"
    assert stat.S_IMODE((canary / "keep.txt").stat().st_mode) == 0o666
    assert not Path("/dev/shm/attack_probe").exists()
    for one in sockets:
        with pytest.raises(BlockingIOError):
            one.accept() if one.type == socket.SOCK_STREAM else one.recv(10)
    assert survivors() == []
    assert score_of_next(reference) == pytest.approx(RIGHT_SCORE, abs=1e-9)


def test_attacks_aim_at_what_is_there():
    aims = re.findall(r"sys\.modules\['(metrics[\w.]*)'\]\.(\w+)", "\n".join(ATTACKS.values()))
    assert ("metrics.sandbox.measure", "measure") in aims
    look = f"import sys\nfor module, name in {aims}: getattr(sys.modules[module], name)\n"
    assert isinstance(run_cadquery(look + NEXT), Part)


@linux
def test_all_layers_are_reached_and_required(reference):
    expected = set(client.fork_server.layers.LAYERS) - (set() if os.getuid() == 0 else {"uid"})
    assert set(protection()) == expected == set(reference.protection)
    assert isinstance(run_cadquery(NEXT, require=("landlock", "seccomp")), Part)
    with pytest.raises(ProtectionError, match="moat"):
        run_cadquery(NEXT, require=("moat",))


@linux
def test_lost_parents_cost_no_other_sample(reference):
    assert client._state.root is not None
    client._state.root.kill()
    assert score_of_next(reference) == pytest.approx(RIGHT_SCORE, abs=1e-9)
    codes = [NEXT, "import time; time.sleep(1)", NEXT, NEXT]
    got = run_many(codes, workers=2, timeout=5)
    assert [isinstance(one, Part) for one in got] == [True, False, True, True]


@linux
def test_next_score_is_right_without_the_os_layers(targets, reference):
    client.restart(without=OS_LAYERS)
    try:
        assert protection() == ("process", "rlimits")
        with pytest.raises(ProtectionError, match="seccomp"):
            run_cadquery(NEXT, require=("seccomp",))
        one_is_enough = set(list(TIME)[1:]) | {"endless mesh"}  # the clock was tested above
        names = [n for n in ATTACKS if n not in NEEDS_LAYERS and n not in one_is_enough]
        for i, name in enumerate(names):
            launch(name, targets[0], 1.0)
            # After every attack on processes and code, after every fourth of the others.
            if name in PROCESSES or name in TAMPERING or name in FORGERIES or i % 4 == 3:
                assert score_of_next(reference) == pytest.approx(RIGHT_SCORE, abs=1e-9), name
            assert survivors() == [], name
    finally:
        client.restart()
        Path("/dev/shm/attack_probe").unlink(missing_ok=True)


@linux
@pytest.mark.skipif(os.getuid() != 0, reason="the whole file already runs as an ordinary user")
def test_attacks_as_an_ordinary_user():
    user = 65_534
    command = [sys.executable, "-c", "import cadquery, pytest, metrics"]
    root = Path(__file__).resolve().parents[1]
    options: dict[str, Any] = {"cwd": root, "user": user, "group": user, "extra_groups": []}
    environment = {"PATH": os.defpath, "HOME": "/tmp", "PYTHONDONTWRITEBYTECODE": "1"}
    try:
        reachable = subprocess.run(command, env=environment, capture_output=True, **options)
    except PermissionError:
        pytest.skip("an ordinary user cannot start this Python")
    if reachable.returncode:
        pytest.skip("an ordinary user cannot import cadquery with this Python")
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", __file__]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, **options)
    assert done.returncode == 0, done.stdout[-3000:]
