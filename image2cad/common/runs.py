"""The folder of a run: claimed once, resumed with the same settings, never mixed up.

    folder = run_folder("train_cpu", out=None, resume=False)      # runs/train_cpu-001
    prepare_run(folder, settings, resume=False)

A run is finished when it holds metrics.json. Left out: what a run writes.
"""

from __future__ import annotations

import json
import os
import zipfile
from collections.abc import Collection
from pathlib import Path
from typing import Any

from image2cad.common.errors import InputError
from image2cad.common.files import write_whole

RUNS = Path("runs")
DRIVE = Path("/content/drive/MyDrive")  # where Colab mounts what outlives a runtime
SETTINGS_FILE = "settings.json"
RESULT_FILE = "metrics.json"
NOT_IN_ZIP = ("checkpoints", "merged", "trained.safetensors")  # large, and of use here only


def runs_root() -> Path:
    """Where runs go: ./runs, or in Colab the mounted Google Drive."""
    return DRIVE / "image2cad" / RUNS if DRIVE.is_dir() else RUNS


def run_folder(name: str, out: str | None = None, resume: bool = False) -> Path:
    """The folder named by `out`, else the next free runs/<name>-NNN, or the last one to resume.

    Raises InputError if there is nothing to resume.
    """
    if out:
        return Path(out)
    runs = runs_root()
    earlier = sorted(runs.glob(f"{name}-[0-9][0-9][0-9]"))
    if resume:
        if not earlier:
            raise InputError(f"nothing to resume: there is no {runs}/{name}-001")
        return earlier[-1]
    last = int(earlier[-1].name[-3:]) if earlier else 0
    return runs / f"{name}-{last + 1:03d}"


def unfinished(name: str, out: str | None = None) -> bool:
    """Whether the run that `run_folder` would resume was begun and has not ended."""
    folders = [Path(out)] if out else sorted(runs_root().glob(f"{name}-[0-9][0-9][0-9]"))[-1:]
    return any((f / SETTINGS_FILE).is_file() and not (f / RESULT_FILE).is_file() for f in folders)


def check_free(folder: Path) -> None:
    """Raise InputError unless `folder` is empty or can be made."""
    if folder.exists() and not folder.is_dir():
        raise InputError(f"{folder} is a file; name a folder")
    if folder.exists() and any(folder.iterdir()):
        raise InputError(
            f"{folder} already holds something; name another folder, "
            "or go on with that run with --resume"
        )
    above = next(place for place in (folder, *folder.absolute().parents) if place.exists())
    if not above.is_dir() or not os.access(above, os.W_OK):
        raise InputError(f"cannot write to {folder}: {above} is no folder that can be written to")


def check_run(
    folder: Path, settings: dict[str, Any], resume: bool, free: Collection[str] = ()
) -> None:
    """Check that `folder` is free for a new run, or holds this run if it is to go on.

    free: settings that may change when a run goes on, because training does not depend on them
    ("out" and "resume" are among them always). Raises InputError if the folder holds another run,
    if there is nothing to resume, or if the run there was started with other settings.
    """
    if not resume:
        check_free(folder)
        return
    if (folder / RESULT_FILE).is_file():
        raise InputError(f"the run in {folder} is finished; start a new one without --resume")
    file = folder / SETTINGS_FILE
    try:
        before = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"nothing to resume in {folder}: no readable {SETTINGS_FILE}") from error
    now = _remembered(settings)
    names = {*before, *now} - {*free}
    other = sorted(k for k in names if before.get(k) != now.get(k))
    if other:
        changes = "; ".join(f"{k}: {before.get(k)!r} then, {now.get(k)!r} now" for k in other)
        raise InputError(f"{folder} was started with other settings ({changes})")


def prepare_run(
    folder: Path, settings: dict[str, Any], resume: bool, free: Collection[str] = ()
) -> None:
    """Check as `check_run` does, and claim `folder` for a new run."""
    check_run(folder, settings, resume, free)
    if resume:
        return
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"cannot make {folder}: {error.strerror}") from error
    write_whole(folder / SETTINGS_FILE, json.dumps(_remembered(settings), indent=2) + "\n")


def finish_run(folder: Path, summary: dict[str, Any]) -> None:
    """Write metrics.json, by which a run counts as finished."""
    write_whole(folder / RESULT_FILE, json.dumps(summary, indent=2) + "\n")


def zip_results(folder: Path) -> Path:
    """<folder>.zip, beside it: all that a run leaves but its checkpoints and merged weights."""
    archive = folder.with_name(f"{folder.name}.zip")
    part = archive.with_name(f"{archive.name}.part")
    with zipfile.ZipFile(part, "w", zipfile.ZIP_DEFLATED) as out:
        for file in sorted(path for path in folder.rglob("*") if path.is_file()):
            place = file.relative_to(folder)
            if place.parts[0] not in NOT_IN_ZIP:
                out.write(file, Path(folder.name) / place)
    os.replace(part, archive)
    return archive


def _remembered(settings: dict[str, Any]) -> dict[str, Any]:
    kept = {k: v for k, v in settings.items() if k not in ("out", "resume")}
    return json.loads(json.dumps(kept))
