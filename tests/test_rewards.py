"""Protects the rewards of reinforcement learning: right for honest programs, 0 for all others.

A policy finds every way to a reward that was not meant. So nothing that crashes, hangs, forges
what is measured or leaves no usable solid earns anything, from any reward, and it does not change
what the next program earns.
"""

from __future__ import annotations

import pytest
from attacks import FORGE

from image2cad.training import rewards
from image2cad.training.rewards import iou_reward, validity_reward
from metrics import get_iou_best

HEAD = "import cadquery as cq\n"
BRACKET = (
    HEAD + "solid = cq.Workplane('XY').rect(100, 60).extrude(10)\n"
    "solid = solid.union(cq.Workplane('XY').moveTo(-45, 0).rect(10, 60).extrude(50))"
)
BOX = HEAD + "solid = cq.Workplane('XY').rect(100, 60).extrude(50)"
ALL = (validity_reward, iou_reward)

FORGERIES = {
    "volume and validity patched": (
        "cq.Shape.Volume = lambda self, *a: 1e6\ncq.Shape.isValid = lambda self: True\n"
        "result = cq.Workplane().rect(1, 1)"
    ),
    "CadQuery patched, no solid": (
        "cq.Workplane.vals = lambda self: []\nresult = cq.Workplane('XY').box(1, 1, 1).faces()"
    ),
    "a measured part handed over": FORGE
    + "forge({'ok': True, 'volume': 1.0, 'iou_best': 1.0, 'reward': 1.0}, b'')",
    "a crash, said to be fine": FORGE + "forge({'ok': True}, np.random.default_rng(0).bytes(99))",
    "a file with the reference": "result = cq.importers.importStep('/tmp/reference.step')",
    "frames up to the trainer": (
        "import sys\nframe = sys._getframe()\n"
        "while frame:\n    for name in ('cadquery', 'rewards', 'scores', 'reference'):\n"
        "        if name in frame.f_locals: result = cq.Workplane(frame.f_locals[name])\n"
        "    frame = frame.f_back\n"
    ),
    "the trainer's modules": (
        "import gc\nfor one in gc.get_objects():\n"
        "    if isinstance(one, dict) and 'iou_reward' in one:\n"
        "        one['iou_reward'] = lambda completions, **_: [1.0] * len(completions)\n"
    ),
    "nothing": "",
    "an empty workplane": "result = cq.Workplane()",
    "an empty cut": "result = cq.Workplane().box(1, 1, 1).cut(cq.Workplane().box(2, 2, 2))",
    "a face": "result = cq.Workplane().rect(100, 60).wires().toPending().consolidateWires()",
    "an unclosed shell": (
        "faces = cq.Workplane().box(100, 60, 50).faces().vals()\n"
        "result = cq.Workplane(cq.Shell.makeShell(faces[:5]))"
    ),
    "a shell without a lid": (
        "faces = cq.Workplane().box(100, 60, 50).faces('not >Z').vals()\n"
        "result = cq.Workplane(cq.Solid(cq.Shell.makeShell(faces).wrapped))"
    ),
    "a giant": "result = cq.Workplane().box(1e9, 6e8, 5e8)",
    "a grain": "result = cq.Workplane().box(1e-5, 6e-6, 5e-6)",
    "a whole city": ("result = cq.Workplane().rarray(2, 2, 70, 70).box(1, 1, 1, combine=False)"),
    "an endless loop": "while True: pass",
    "an endless extrusion": "result = cq.Workplane().rect(1, 1).extrude(float('inf'))",
    "a memory bomb": "x = [bytearray(1 << 26) for _ in range(1 << 20)]",
    "a segmentation fault": "import ctypes\nctypes.string_at(0)",
    "a silent end": "import os\nos._exit(0)",
    "a flood": "import sys\nwhile True: sys.stdout.write('1.0' * 10 ** 6)",
    "prose": "I am sorry, I cannot draw this part.",
    "half a program": "result = cq.Workplane().rect(1",
    "a surrogate": "result = '\ud800'",
}


@pytest.fixture(autouse=True)
def short(monkeypatch):
    monkeypatch.setattr(rewards, "PROGRAM_TIMEOUT", 3.0)
    rewards.built([])  # nothing is remembered


def earned(completions):
    columns = {"cadquery": [BRACKET] * len(completions), "image": [None] * len(completions)}
    return {reward.__name__: reward(completions, **columns) for reward in ALL}


@pytest.mark.slow
def test_forgeries_earn_nothing_and_spoil_nothing():
    codes = []
    for code in FORGERIES.values():
        codes += [HEAD + code, BRACKET]
    for name, values in earned(codes).items():
        assert len(values) == len(codes)
        for forgery, value in zip(FORGERIES, values[::2], strict=True):
            assert value == 0.0, (name, forgery)
        assert min(values[1::2]) > 0.9, name


def test_a_program_that_patches_what_measures_it_earns_what_its_solid_is_worth():
    patch = "\nfor name in ('Volume', 'tessellate', 'isValid', 'Center'):\n"
    patch += "    setattr(cq.Shape, name, lambda *a, **k: ([], []))\n"
    honest, patched = (earned([code]) for code in (BOX, BOX + patch))
    assert patched == honest


def test_values_in_every_form_that_trl_has():
    worse = BRACKET.replace("extrude(50)", "extrude(30)")
    fenced = f"Here it is:\n```python\n{BOX}\n```"
    texts = [BRACKET, worse, BOX, fenced, BRACKET + " " * 9 + "# the same" * 40, "oops", BOX]
    got = earned(texts)
    messages = [[{"role": "assistant", "content": text}] for text in texts]
    assert earned(messages) == got
    expected = [get_iou_best(text, BRACKET) for text in texts[:3]]
    assert got["iou_reward"][:3] == pytest.approx(expected, abs=1e-9)
    assert got["iou_reward"][3] == got["iou_reward"][2] == got["iou_reward"][6]
    assert got["validity_reward"] == [1, 1, 1, 1, 1, 0, 1]
    for values in got.values():
        assert all(type(value) is float and 0.0 <= value <= 1.0 for value in values)


def test_a_batch_runs_every_program_once(monkeypatch):
    ran = []
    run_many = rewards.run_many

    def counted(codes, **limits):
        ran.extend(codes)
        return run_many(codes, **limits)

    monkeypatch.setattr(rewards, "run_many", counted)
    earned([BOX, BRACKET, BOX, "oops"])
    assert ran == [BOX, BRACKET, "oops"]


def test_without_a_reference_nothing_is_earned():
    assert iou_reward([BOX, BOX, BOX], cadquery=["oops", BOX, None]) == pytest.approx([0, 1, 0])
    assert all(reward([], cadquery=[], image=[]) == [] for reward in ALL)


def test_a_reply_in_any_shape_is_a_reply():
    pieces = [{"type": "text", "text": BOX[:30]}, {"type": "image"}, {"type": "text"}]
    pieces.append({"type": "text", "text": BOX[30:]})
    odd = [None, [], {}, 3, [None], [{}], [{"role": "assistant"}], [{"content": None}], [[]]]
    huge = [BOX + "#" * 10**7, "<think>" * 10**6, "x = (\n" + "so on and on\n" * 10**5]
    replies = [[{"role": "assistant", "content": pieces}], *odd, *huge]
    for name, values in earned(replies).items():
        assert values[0] > 0 and not any(values[1:]), name


def test_another_number_of_references_is_said_before_anything_runs():
    with pytest.raises(ValueError, match="2 completions, but 1 values of cadquery"):
        iou_reward([BOX, BOX], cadquery=[BOX])
