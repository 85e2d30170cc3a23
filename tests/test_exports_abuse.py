"""Protects the server that exports parts: B-rep bytes of a hostile program cost one export only."""

import numpy as np
import pytest

from metrics import execution
from metrics.execution import ProtectionError, export_step, run_cadquery
from metrics.parts import KINDS, Failure


@pytest.fixture(scope="module")
def brep():
    code = "result = cq.Workplane().box(10, 20, 30).edges('|Z').fillet(2).faces('>Z').hole(4)"
    return run_cadquery(code).brep


def test_hostile_brep_bytes_cost_one_export(brep):
    wanted = strip(export_step(brep))
    random = np.random.default_rng(0)
    hostile = [b"", b"\0" * 9, random.bytes(5000), brep[: len(brep) // 2], brep[:-1], b"x" + brep]
    for number in range(40):
        changed = bytearray(brep)
        for place in random.integers(len(brep), size=1 + number):
            changed[place] = random.integers(256)
        hostile.append(bytes(changed))
    failures = 0
    for data in hostile:
        got = export_step(data, timeout=10)
        assert isinstance(got, bytes | Failure)
        if isinstance(got, Failure):
            failures += 1
            assert got.kind in KINDS and got.message.isprintable() and got.protection
        else:
            assert got.startswith(b"ISO-10303-21;")
    assert failures > len(hostile) / 2
    assert strip(export_step(brep)) == wanted


def strip(step):
    """A STEP file without its time stamp."""
    assert isinstance(step, bytes), step
    return step[step.index(b"DATA;") :]


def test_limits_of_an_export(brep, monkeypatch):
    got = export_step(brep, timeout=0)
    assert isinstance(got, Failure) and got.kind == "timeout"
    with pytest.raises(ProtectionError, match="moat"):
        export_step(brep, require=("moat",))
    with pytest.raises(TypeError, match="bytes"):
        export_step("text")
    monkeypatch.setattr(execution, "MAX_STEP", 1000)
    got = export_step(brep)
    assert isinstance(got, Failure) and got.kind == "too large" and "STEP" in got.message
    monkeypatch.setattr(execution, "MAX_BREP", 1000)
    got = export_step(brep)
    assert isinstance(got, Failure) and got.kind == "too large" and "1000 are allowed" in str(got)
    monkeypatch.undo()
    assert isinstance(export_step(brep), bytes)
