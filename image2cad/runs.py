"""The folder of a run: claimed once, resumed with the same settings, never mixed up.

    folder = run_folder("train_cpu", out="", resume=False)      # runs/train_cpu-001
    prepare_run(folder, settings, resume=False)

A run is finished when it holds metrics.json. Left out: what a run writes.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from image2cad.errors import InputError

RUNS = Path("runs")
SETTINGS_FILE = "settings.json"
RESULT_FILE = "metrics.json"


def run_folder(name: str, out: str = "", resume: bool = False) -> Path:
    """The folder named by `out`, else the next free runs/<name>-NNN, or the last one to resume.

    Raises InputError if there is nothing to resume.
    """
    if out:
        return Path(out)
    earlier = sorted(RUNS.glob(f"{name}-[0-9][0-9][0-9]"))
    if resume:
        if not earlier:
            raise InputError(f"nothing to resume: there is no {RUNS}/{name}-001")
        return earlier[-1]
    last = int(earlier[-1].name[-3:]) if earlier else 0
    return RUNS / f"{name}-{last + 1:03d}"


def prepare_run(folder: Path, settings: dict[str, Any], resume: bool) -> None:
    """Claim `folder` for a run, or check that it holds this run.

    Raises InputError if it holds another run, if there is nothing to resume, or if
    the run there was started with other settings; nothing is written then. The
    settings "out" and "resume" do not count.
    """
    file = folder / SETTINGS_FILE
    settings = {k: v for k, v in settings.items() if k not in ("out", "resume")}
    settings = json.loads(json.dumps(settings))
    if not resume:
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise InputError(
                f"{folder} already holds something; name another folder with --out, "
                "or go on with that run with --resume"
            )
        folder.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")
        return
    if (folder / RESULT_FILE).is_file():
        raise InputError(f"the run in {folder} is finished; start a new one without --resume")
    if not file.is_file():
        raise InputError(f"nothing to resume in {folder}: there is no {SETTINGS_FILE}")
    before = json.loads(file.read_text(encoding="utf-8"))
    other = sorted(k for k in {*before, *settings} if before.get(k) != settings.get(k))
    if other:
        changes = "; ".join(f"{k}: {before.get(k)!r} then, {settings.get(k)!r} now" for k in other)
        raise InputError(f"{folder} was started with other settings ({changes})")
