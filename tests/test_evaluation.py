"""Protects the figures and the page that a run reports: failures count, text is escaped."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from image2cad.common.runs import finish_run
from image2cad.data.samples import Sample
from image2cad.evaluation.scoring import gain, score_codes, summarise, summary_text, write_results
from image2cad.evaluation.verified import evaluate_verified, writer_text
from image2cad.verification.candidate import Candidate
from image2cad.verification.choosing import Answer
from image2cad.verification.pipeline import SOURCES

BOX = "import cadquery as cq\nsolid = cq.Workplane().box(4, 2, 1)\n"
TWICE = "import cadquery as cq\nsolid = cq.Workplane().box(8, 4, 2).translate((9, 9, 9))\n"
ROD = "import cadquery as cq\nsolid = cq.Workplane().circle(1).extrude(30)\n"
HOSTILE = "raise ValueError('<script>alert(1)</script>')"


def test_failures_stay_in_the_mean_and_the_page_shows_all_of_it_escaped(tmp_path: Path) -> None:
    picture = Image.new("RGB", (64, 64), "white")
    names = ["same", "other <b>", "fails"]
    samples = [
        Sample(picture, code, name) for name, code in zip(names, [BOX, ROD, BOX], strict=True)
    ]
    before = score_codes([HOSTILE] * 3, samples, progress=False)
    after = score_codes([TWICE, TWICE, HOSTILE], samples, progress=False)
    assert before.totals["vsr"]["mean"] == 0 and before.totals["iou_best_valid"]["mean"] is None
    first, second, third = (row["iou_best"] for row in after.rows)
    assert first == pytest.approx(1, abs=1e-3) and second < 0.6 and third == 0
    assert after.totals["vsr"]["mean"] == pytest.approx(2 / 3)
    assert after.totals["iou_best"]["mean"] == pytest.approx((first + second) / 3)
    assert after.totals["iou_best_valid"]["mean"] == pytest.approx((first + second) / 2)
    # The first answer against the second sample's program, the second against the third's.
    assert after.totals["other_picture"]["mean"] == pytest.approx((second + first) / 3, abs=1e-3)
    assert gain(before, after)["mean"] == pytest.approx(after.totals["iou_best"]["mean"])

    summary = summarise(after, before)
    write_results(tmp_path, samples, summary, after, before, title="a <i>run</i>")
    assert not (tmp_path / "metrics.json").exists(), "the run is not finished yet"
    finish_run(tmp_path, summary)
    assert json.loads((tmp_path / "metrics.json").read_text()) == json.loads(json.dumps(summary))
    rows = [json.loads(line) for line in (tmp_path / "predictions.jsonl").read_text().splitlines()]
    assert [row["id"] for row in rows] == names and [row["ok"] for row in rows] == [1, 1, 0]
    assert "ValueError" in rows[2]["failure"] and rows[2]["code"] == HOSTILE
    page = (tmp_path / "report.html").read_text()
    assert "<script" not in page and "<b>" not in page and "<i>" not in page
    assert page.count("<figure>") == 3 and page.count('alt="drawing of the result"') == 2
    assert "none" in summary_text(summary) and "0.667" in summary_text(summary)
    assert "papers" not in summary_text(summary) and "<svg" not in page
    few = summary_text({**summary, "published": 2})
    assert "2 of the hundred that papers score on: this is no published figure" in few
    all_of_them = summary_text({**summary, "n": 100, "published": 100})
    assert "these are the hundred that papers score on" in all_of_them

    losses = [{"step": step, "loss": 4.0 / step} for step in (1.0, 2.0, 8.0)]
    losses += [{"step": 4.0, "validation_loss": 2.0}, {"step": 8.0, "validation_loss": 1.5}]
    write_results(tmp_path, samples, {**summary, "losses": losses}, after, before)
    page = (tmp_path / "report.html").read_text()
    assert page.count("<polyline") == 2 and 'points="60.0,0.0 120.0,91.4 480.0,160.0"' in page
    assert "loss 4.000 to 0.500; validation loss 2.000 to 1.500, over 8 steps" in page


def test_who_wrote_an_answer_is_said() -> None:
    def said(code: str | None, source: str) -> str:
        return writer_text(Answer(code, None, 1.0, 1.0, source, (), 0.1), [BOX])

    assert said(BOX, "model") == "the model, as it stands"
    assert "its numbers fitted" in said(TWICE, "model")
    for source in set(SOURCES) - {"model"}:
        assert "the model has no part in it" in said(TWICE, source)
    assert said(None, "").startswith("nobody")


def test_a_verified_run_goes_on_where_it_was_stopped(tmp_path: Path, monkeypatch) -> None:
    rng = np.random.default_rng(0)
    samples = [
        Sample(Image.fromarray(rng.integers(0, 255, (64, 64, 3), dtype=np.uint8)), BOX, name)
        for name in ("done", "open")
    ]
    row = {
        "id": "done", "code": BOX, "likeness": 0.9, "confidence": 0.5, "source": "traced",
        "verified_in": 1.5, "tried": [],
    }  # fmt: skip
    kept = tmp_path / "answers.jsonl"
    kept.write_text(json.dumps(row) + "\n" + '{"id": "open", "code": "cut of', encoding="utf-8")
    asked = []

    def answer_many(images, codes, effort, sources, workers, keep):
        asked.extend(images)
        keep(0, Answer(None, None, 0.0, 0.0, "", (Candidate((), "model", 2.0, fate="lost"),), 0.5))

    monkeypatch.setattr("image2cad.verification.answer_many", answer_many)
    result = evaluate_verified(None, None, samples, "low", ["traced"], kept=kept)
    assert len(asked) == 1 and asked[0] is samples[1].image
    assert [row["ok"] for row in result.rows] == [True, False]
    assert result.rows[1]["tried"] == [{"source": "model", "cost": 2.0, "fate": "lost"}]
    assert [json.loads(line)["id"] for line in kept.read_text().splitlines()] == ["done", "open"]
    write_results(tmp_path, samples, summarise(result), result)
    page = (tmp_path / "report.html").read_text()
    assert "found by\ntraced" in page and "model: lost" in page
