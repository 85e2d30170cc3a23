"""Protects what a user reads when something fails: one line that says what to do, nothing lost.

Out of memory, a full disk, a model that wants its licence accepted, no GPU, no login; on the
command line with exit code 2, in a notebook without a traceback and in the names of the form.
A defect of the program keeps its stack trace.
"""

from __future__ import annotations

import errno
import json
import subprocess
import sys
import types
import zipfile
from pathlib import Path
from typing import Any

import pytest

from image2cad.common.errors import InputError, as_in_form, explained
from image2cad.common.network import keep_trying
from image2cad.common.runs import check_run, finish_run, prepare_run, zip_results
from image2cad.training import preflight

CUDA_FULL = (
    "CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 14.74 GiB of "
    "which 312.06 MiB is free. Including non-PyTorch memory, this process has 14.42 GiB"
)


def test_what_a_user_can_put_right_is_one_line_and_a_defect_is_none() -> None:
    import torch

    said = explained(torch.OutOfMemoryError(CUDA_FULL)) or ""
    assert "out of GPU memory; 2.00 GiB more were wanted, 312.06 MiB of 14.74 GiB" in said
    assert "--max-length" in said and "--max-new-tokens" in said
    assert "--recompute to everything" in said and "a new run with a lower --max-length" in said
    try:
        torch.empty(1 << 60, dtype=torch.uint8)
    except RuntimeError as error:
        assert "1073741824.00 GiB more were wanted" in (explained(error) or "")
    full = OSError(errno.ENOSPC, "No space left on device", "/content/x")
    for error in (full, RuntimeError("SafetensorError: I/O error: No space left on device (28)")):
        said = explained(error) or ""
        assert said.startswith("the disk is full") and "--resume" in said
    gated = type("GatedRepoError", (Exception,), {})("403 Client Error.")
    assert "accepted its licence" in (explained(gated) or "")
    for error in (ValueError("a defect"), OSError(errno.ENOENT, "no such file"), KeyError("x")):
        assert explained(error) is None
    assert as_in_form("lower --max-length; --no-compact, a--b and 3 -- 4 stay") == (
        "lower MAX_LENGTH; COMPACT = False, a--b and 3 -- 4 stay"
    )


NOTEBOOK = """
import sys, types
from IPython.core.interactiveshell import InteractiveShell
shell = InteractiveShell.instance()
from image2cad.common import friendly_exit
friendly_exit()
for code in (
    "from image2cad.common import InputError; raise InputError('--lora-r must be at least 1')",
    "raise MemoryError('')",
    "1 / 0",
):
    print("==", shell.run_cell(code).success)
"""


def test_in_a_notebook_an_error_is_one_line_in_the_words_of_the_form() -> None:
    done = subprocess.run([sys.executable, "-c", NOTEBOOK], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    first, second, third = done.stdout.split("== False\n")[:3]
    assert first.strip() == "error: LORA_R must be at least 1"
    assert second.strip().startswith("error: out of memory") and "RESUME" in second
    assert "ZeroDivisionError" in third and "Traceback" in third


def hub_with(monkeypatch: pytest.MonkeyPatch, files: dict[str, int] | Exception) -> None:
    """A hub whose model has these files, or which raises that."""
    import huggingface_hub

    def model_info(self: Any, name: str, files_metadata: bool) -> Any:
        if isinstance(files, Exception):
            raise files
        siblings = [types.SimpleNamespace(rfilename=n, size=s) for n, s in files.items()]
        return types.SimpleNamespace(siblings=siblings)

    monkeypatch.setattr(huggingface_hub.HfApi, "model_info", model_info)
    monkeypatch.setattr(huggingface_hub.HfApi, "auth_check", lambda self, name: None)


def test_what_a_base_lacks_is_said_before_it_is_fetched(monkeypatch: pytest.MonkeyPatch) -> None:
    large = {"config.json": 900, "model-1.safetensors": int(14e9), "pytorch_model.bin": int(14e9)}
    hub_with(monkeypatch, large)
    assert preflight.check_base("models/nano") == ""
    with pytest.raises(
        InputError, match=r"no GPU here, and a/b has 14\.0 GB: .*--base models/nano"
    ):
        preflight.check_base("a/b")
    monkeypatch.setattr(preflight.torch.cuda, "is_available", lambda: True)
    usage = types.SimpleNamespace(free=int(15e9))
    monkeypatch.setattr(preflight.shutil, "disk_usage", lambda place: usage)
    with pytest.raises(InputError, match=r"a/b has 14\.0 GB and 15\.0 GB of disk are free"):
        preflight.check_base("a/b")
    usage.free = int(70e9)
    assert preflight.check_base("a/b").startswith("14.0 GB of a/b are to be fetched; 70 GB")
    hub_with(monkeypatch, ConnectionError("no network"))
    assert "the hub was not asked about a/b" in preflight.check_base("a/b")


def test_login_and_tracker_are_checked_at_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match="--hub-model-id me/mine"):
        preflight.check_login("me/mine")
    preflight.check_tracker("none")
    with pytest.raises(InputError, match="--report-to is one of none, tensorboard, trackio, wandb"):
        preflight.check_tracker("paper")
    monkeypatch.setattr(preflight.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(InputError, match="pip install wandb"):
        preflight.check_tracker("wandb")
    said = preflight.machine_text()
    assert "no GPU" in said and "RAM " in said and "GB free" in said and "transformers " in said


def test_a_stalled_download_is_tried_again_and_a_refused_one_is_not(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    waits: list[float] = []
    monkeypatch.setattr("time.sleep", waits.append)
    tries: list[int] = []

    def later() -> str:
        tries.append(1)
        if len(tries) < 3:
            raise TimeoutError("stalled")
        return "there"

    assert keep_trying(later) == "there" and len(waits) == 2 and waits[1] > waits[0]
    assert "the download stalled (TimeoutError); again in 2 s" in capsys.readouterr().out

    def never() -> None:
        tries.append(1)
        raise FileNotFoundError("no such file")

    tries.clear()
    with pytest.raises(FileNotFoundError):
        keep_trying(never)
    assert len(tries) == 1


def test_a_base_that_cannot_be_fetched_is_tried_again_and_is_one_line(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from huggingface_hub import constants
    from huggingface_hub.errors import LocalEntryNotFoundError

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    waits: list[float] = []
    monkeypatch.setattr("time.sleep", waits.append)
    # As the hub's client names it, which snapshot_download turns into a file that is not here.
    broken = type("ConnectError", (Exception,), {"__module__": "httpx2"})("no route to host")
    causes: list[Exception | None] = [broken]

    def snapshot(name: str, **_: Any) -> str:
        raise LocalEntryNotFoundError("not on the disk\nmore") from causes[0]

    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot)
    preflight.fetch_base("models/nano")
    with pytest.raises(InputError, match="^a/b could not be fetched: no route to host; look to"):
        preflight.fetch_base("a/b")
    assert len(waits) == 3
    causes[0] = None
    with pytest.raises(InputError, match="^a/b could not be fetched: not on the disk; look to"):
        preflight.fetch_base("a/b")
    assert len(waits) == 3, "nothing that waiting helps"


def test_a_run_that_goes_on_may_change_what_training_does_not_depend_on(tmp_path: Path) -> None:
    run = tmp_path / "run"
    prepare_run(run, {"lora_r": 8, "picture": None, "effort": "low"}, resume=False)
    later = {"lora_r": 8, "picture": "mine.png", "effort": "high"}
    with pytest.raises(InputError, match="other settings"):
        check_run(run, later, True)
    check_run(run, later, True, free=["picture", "effort"])
    with pytest.raises(InputError, match=r"\(lora_r: 8 then, 9 now\)"):
        check_run(run, {**later, "lora_r": 9}, True, free=["picture", "effort"])

    for name in ("adapter/weights", "checkpoints/checkpoint-1/weights", "trained.safetensors"):
        (run / name).parent.mkdir(parents=True, exist_ok=True)
        (run / name).write_text("x")
    finish_run(run, {"n": 1})
    with zipfile.ZipFile(zip_results(run)) as archive:
        assert sorted(archive.namelist()) == [
            "run/adapter/weights", "run/metrics.json", "run/settings.json",
        ]  # fmt: skip
        assert json.loads(archive.read("run/metrics.json")) == {"n": 1}
