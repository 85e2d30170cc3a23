"""Protects the figures and the page that a run reports: failures count, text is escaped."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from PIL import Image

from image2cad.evaluation import gain, score_codes, summarise, summary_text, write_results
from image2cad.samples import Sample

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
    assert json.loads((tmp_path / "metrics.json").read_text()) == json.loads(json.dumps(summary))
    rows = [json.loads(line) for line in (tmp_path / "predictions.jsonl").read_text().splitlines()]
    assert [row["id"] for row in rows] == names and [row["ok"] for row in rows] == [1, 1, 0]
    assert "ValueError" in rows[2]["failure"] and rows[2]["code"] == HOSTILE
    page = (tmp_path / "report.html").read_text()
    assert "<script" not in page and "<b>" not in page and "<i>" not in page
    assert page.count("<figure>") == 3 and page.count('alt="drawing of the result"') == 2
    assert "none" in summary_text(summary) and "0.667" in summary_text(summary)
