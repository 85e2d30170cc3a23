"""The page that a run leaves behind: every picture beside what was made of it.

    write_report(Path("runs/mine/report.html"), "mine", samples, summary, rows, parts)

One HTML file without scripts or links; pictures are inside it. All text from
samples and programs is escaped. Left out: the numbers themselves (scoring.py).
"""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import Any

from PIL import Image

from image2cad.data import Sample
from image2cad.rendering import draw
from metrics import Failure, Part

CURVE_SIZE = (480, 160)  # pixels
PICTURE_SIDE = 240  # pixels of a picture on the page and on the sheet
PAGE_STYLE = """
body{font:15px/1.45 system-ui,sans-serif;max-width:76rem;margin:2rem auto;padding:0 1rem}
h1{font-size:1.5rem;margin-bottom:.2rem} p{max-width:48rem}
table{border-collapse:collapse;margin:1rem 0}
td,th{padding:.25rem .9rem;text-align:right;border-bottom:1px solid #ddd}
td:first-child,th:first-child{text-align:left;padding-left:0}
.sheet{display:grid;grid-template-columns:repeat(auto-fill,minmax(33rem,1fr));gap:1rem}
figure{margin:0;border:1px solid #ddd;border-radius:6px;padding:.7rem;min-width:0}
.pair{display:flex;gap:.6rem} .pair div{flex:1;text-align:center;color:#666;font-size:.8rem}
.pair img,.none{width:100%;aspect-ratio:1;border:1px solid #eee;box-sizing:border-box}
.none{display:flex;align-items:center;justify-content:center;padding:1rem;color:#a33}
figcaption{display:flex;justify-content:space-between;font-weight:600;margin-bottom:.4rem}
pre{font-size:.75rem;overflow-x:auto;background:#f6f6f4;padding:.5rem;margin:.5rem 0 0}
summary{color:#666;font-size:.8rem;margin-top:.4rem;cursor:pointer}
.bad{color:#a33}.good{color:#276b2b}
"""


def write_report(
    file: Path,
    title: str,
    samples: Sequence[Sample],
    summary: dict[str, Any],
    rows: Sequence[dict[str, Any]],
    parts: Sequence[Part | Failure],
    before: Sequence[dict[str, Any]] | None = None,
) -> None:
    """Write the page to `file`: one card a sample, from its row and part of `scoring.py`.

    `before`: the rows of the model before fine-tuning, shown beside.
    """
    cards = "\n".join(
        _card(sample, row, part, before[i] if before else None)
        for i, (sample, row, part) in enumerate(zip(samples, rows, parts, strict=True))
    )
    settings = {k: v for k, v in summary.items() if not isinstance(v, dict) or k == "settings"}
    file.write_text(
        f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>{escape(title)}</title><style>{PAGE_STYLE}</style></head><body>
<h1>{escape(title)}</h1>
<p>Each picture beside a drawing of the part that the generated program builds. IoU is the
overlap of the two solids, {escape(str(summary["alignment"]))} alignment, against the reference
{escape(str(summary["reference"]))}; a program that failed counts 0.</p>
{_table(summary)}
{loss_curve(summary.get("losses") or [])}
<details><summary>settings</summary><pre>{escape(json.dumps(settings, indent=2))}</pre></details>
<div class="sheet">
{cards}
</div></body></html>
""",
        encoding="utf-8",
    )


def loss_curve(losses: Sequence[dict[str, float]]) -> str:
    """Losses over steps as a picture in SVG: of training grey, of validation red; "" without any.

    losses: as `training.fine_tune` returns them, with "step" and "loss" or "validation_loss".
    """
    lines = {
        name: [(one["step"], one[name]) for one in losses if name in one]
        for name in ("loss", "validation_loss")
    }
    points = [point for line in lines.values() for point in line]
    if not points:
        return ""
    most = max(step for step, _ in points)
    low, high = min(loss for _, loss in points), max(loss for _, loss in points)
    width, height = CURVE_SIZE

    def place(step: float, loss: float) -> str:
        down = (high - loss) / (high - low or 1.0)
        return f"{step / (most or 1) * width:.1f},{down * height:.1f}"

    drawn = "".join(
        f'<polyline fill="none" stroke="{colour}" stroke-width="2" points="'
        + " ".join(place(*point) for point in lines[name])
        + '"/>'
        for name, colour in (("loss", "#999"), ("validation_loss", "#a33"))
    )
    last = "; ".join(
        f"{name.replace('_', ' ')} {line[0][1]:.3f} to {line[-1][1]:.3f}"
        for name, line in lines.items()
        if line
    )
    return (
        f'<svg viewBox="-4 -4 {width + 8} {height + 8}" width="{width}" height="{height}" '
        f'role="img" aria-label="losses over steps">{drawn}</svg>'
        f"<p>{last}, over {most:.0f} steps; training grey, validation red; "
        f"the picture goes from {low:.3f} to {high:.3f}.</p>"
    )


def write_sheet(
    file: Path, samples: Sequence[Sample], parts: Sequence[Part | Failure], columns: int = 6
) -> None:
    """Write a PNG of the first `columns` samples: inputs above, drawings of the results below."""
    sheet = Image.new("RGB", (PICTURE_SIDE * columns, 2 * PICTURE_SIDE), "white")
    pairs = list(zip(samples, parts, strict=True))[:columns]
    for i, (sample, part) in enumerate(pairs):
        sheet.paste(_small(sample.image), (i * PICTURE_SIDE, 0))
        if isinstance(part, Part):
            sheet.paste(_small(Image.fromarray(draw(part))), (i * PICTURE_SIDE, PICTURE_SIDE))
    sheet.save(file, optimize=True)


def _table(summary: dict[str, Any]) -> str:
    columns = [("", summary)]
    if "before" in summary:
        columns = [("before fine-tuning", summary["before"]), ("after", summary)]
    names = {
        "vsr": "VSR (programs that run)",
        "iou_best": "IoU_best, failures 0",
        "iou_best_valid": "IoU_best, valid only",
        "other_picture": "IoU_best for the wrong picture",
    }
    head = "".join(f"<th>{escape(name)}</th>" for name, _ in columns)
    rows = "".join(
        f"<tr><td>{name}</td>"
        + "".join(f"<td>{interval_text(one[key])}</td>" for _, one in columns)
        for key, name in names.items()
    )
    failures = ", ".join(f"{escape(k)}: {v}" for k, v in summary["failures"].items()) or "none"
    return (
        f"<table><tr><th>{summary['n']} samples</th>{head}</tr>{rows}</table>"
        f"<p>Brackets: 95 % bootstrap interval. Failures: {failures}.</p>"
    )


def interval_text(value: dict[str, float | None], sign: str = "") -> str:
    """A mean with its interval, "0.481 [0.429, 0.533]"; `sign` "+" shows plus signs too."""
    if value["mean"] is None:
        return "none"
    return f"{value['mean']:{sign}.3f} [{value['low']:{sign}.3f}, {value['high']:{sign}.3f}]"


def _card(
    sample: Sample, row: dict[str, Any], part: Part | Failure, before: dict[str, Any] | None
) -> str:
    if isinstance(part, Part):
        picture = f'<img alt="drawing of the result" src="{_png(Image.fromarray(draw(part)))}">'
    else:
        picture = f'<div class="none">{escape(str(part))}</div>'
    score = f"IoU {row['iou_best']:.3f}"
    if before is not None:
        score += f" (before {before['iou_best']:.3f})"
    note = ""
    if "likeness" in row:
        lost = "\n".join(
            f"{one['cost']:.4f} {one['source']}: {one['fate']}" for one in row["tried"]
        )
        note = f"""<p>likeness {row["likeness"]:.3f}, confidence {row["confidence"]:.2f}, found by
{escape(row["source"] or "none")}{_told(row)}</p>
<details><summary>other candidates: cost and fate</summary>
<pre>{escape(lost)}</pre></details>"""
    colour = "good" if row["iou_best"] >= 0.8 else "bad" if row["iou_best"] < 0.4 else ""
    return f"""<figure><figcaption><span>{escape(sample.id)}</span>
<span class="{colour}">{score}</span></figcaption>
<div class="pair"><div>{"".join(map(_shown, (sample.image, *sample.views)))}input</div>
<div>{picture}generated</div></div>
{note}<pre>{escape(row["code"])}</pre>
<details><summary>reference program</summary><pre>{escape(sample.cadquery)}</pre></details>
</figure>"""


def _told(row: dict[str, Any]) -> str:
    """The cameras of an answer and what is doubtful about its picture; rows kept by earlier
    versions have neither.
    """
    told = []
    if row.get("cameras"):  # only verified answers have some: others need no verification
        from image2cad.verification import Viewpoint

        told = [Viewpoint(**one).text for one in row["cameras"]]
    return escape("".join(f"; {text}" for text in (*told, row.get("reason", "")) if text))


def _shown(image: Image.Image) -> str:
    return f'<img alt="input" src="{_png(image)}">'


def _png(image: Image.Image) -> str:
    """The picture, reduced, as a data URL."""
    data = io.BytesIO()
    _small(image).save(data, "PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(data.getvalue()).decode("ascii")


def _small(image: Image.Image) -> Image.Image:
    return image.convert("RGB").resize((PICTURE_SIDE, PICTURE_SIDE), Image.Resampling.BOX)
