"""Protects how the nano base is made: its fast examples are the real ones, and it can be loaded."""

from __future__ import annotations

import itertools
import os
import runpy
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from image2cad.cad.program import to_code
from image2cad.common.paths import NANO
from image2cad.data.samples import load_samples
from image2cad.rendering.raster import draw
from image2cad.synthesis.families import FAMILIES
from image2cad.synthesis.parts import random_parts
from image2cad.vlm.loading import load_model
from image2cad.vlm.nano import NanoShape, build_nano, train_tokenizer
from image2cad.vlm.prompting import encode_example
from pretrain_nano import Drawings

ROOT = Path(__file__).resolve().parent.parent


def test_pretraining_sees_the_same_examples_as_fine_tuning() -> None:
    pairs = list(itertools.islice(random_parts(3), 6))
    codes = [to_code(program) for program, _ in pairs]
    _, processor = build_nano(train_tokenizer(codes))
    pictures = np.stack([draw(drawing, NanoShape.image)[..., 0] for _, drawing in pairs])
    drawings = Drawings(pictures, codes, processor)
    for i, (_, drawing) in enumerate(pairs):
        wanted = encode_example(processor, Image.fromarray(draw(drawing)), codes[i])
        got = drawings[i]
        for name in ("input_ids", "attention_mask", "labels"):
            assert torch.equal(got[name], wanted[name])
        # One channel of three is kept; GenCAD's grey is (141, 141, 138).
        assert (got["pixel_values"] - wanted["pixel_values"]).abs().max() < 4 / 255 / 0.3


def test_numbers_are_single_tokens_and_any_text_survives() -> None:
    codes = [to_code(program) for program, _ in itertools.islice(random_parts(4), 20)]
    tokenizer = train_tokenizer(codes)
    for number in range(101):
        assert len(tokenizer(str(number), add_special_tokens=False)["input_ids"]) == 1
    for text in [*codes, 'text = "größer \U0001f600"\n\tx = 6.123233995736766e-17  # <s\n']:
        ids = tokenizer(text, add_special_tokens=False)["input_ids"]
        assert tokenizer.decode(ids) == text


@pytest.mark.slow
def test_a_short_pretraining_leaves_a_model_that_loads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "nano"
    flags = ["--parts", "24", "--processes", "1", "--short-steps", "2", "--max-steps", "2"]
    flags += ["--per-device-train-batch-size", "4"]
    folders = ["--data", str(tmp_path / "parts"), "--out", str(out)]
    done = subprocess.run(
        [sys.executable, "pretrain_nano.py", *flags, *folders],
        cwd=ROOT, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    model, _ = load_model(out / "model")
    assert model.config.model_type == "llava"
    # Another round starts from those weights, with other parts.
    more = ["--base", str(out / "model"), "--seed", "2", "--out", str(tmp_path / "more")]
    monkeypatch.setattr(sys, "argv", ["pretrain_nano.py", *flags, *folders, *more])
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(str(ROOT / "pretrain_nano.py"), run_name="__main__")
    said = capsys.readouterr().out
    assert not ended.value.code and "all: " in said and "short: " not in said
    assert {file.name[:5] for file in (tmp_path / "parts").iterdir()} == {"seed1", "seed2"}
    longer, _ = load_model(tmp_path / "more" / "model")
    pairs = zip(model.parameters(), longer.parameters(), strict=True)
    assert any(not torch.equal(one, other) for one, other in pairs)


def test_the_bundled_base_is_small_and_has_not_seen_the_bundled_parts() -> None:
    weights = sum(file.stat().st_size for file in NANO.glob("*.safetensors"))
    assert 0 < weights < 30e6
    options = {"check_code": False, "progress": False}
    train, test = (load_samples("bundled", split, **options)[0] for split in ("train", "test"))
    assert len(train) >= 64 and len(test) >= 32
    assert not {s.cadquery for s in train} & {s.cadquery for s in test}
    assert {s.image.size for s in train + test} == {(448, 448)}
    general = {to_code(program) for program, _ in itertools.islice(random_parts(100_000), 200)}
    assert not general & {s.cadquery for s in train + test}
    assert "general" not in FAMILIES
