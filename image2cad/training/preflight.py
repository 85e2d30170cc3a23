"""What can be known before hours are spent: machine, download, disk, login, trackers.

    print(machine_text())
    print(check_base("llava-hf/llava-1.5-7b-hf"))   # InputError: no GPU, no room, no licence
    fetch_base("llava-hf/llava-1.5-7b-hf")          # a stalled download is tried again

Left out: whether a run fits into the GPU's memory.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import platform
import shutil
from pathlib import Path
from typing import Any

import torch

from image2cad.common import InputError, keep_trying, may_pass
from image2cad.vlm import locate, precision

VERSIONS_SHOWN = (
    "torch",
    "transformers",
    "peft",
    "accelerate",
    "bitsandbytes",
    "datasets",
    "cadquery",
)
TRACKERS = ("none", "tensorboard", "trackio", "wandb")  # as their packages are called
LARGEST_FOR_CPU = 6e9  # bytes to fetch where there is no GPU
SPARE_DISK = 2e9  # bytes left free beside a download
FETCHED = ("*.json", "*.safetensors", "*.model", "*.txt", "*.jinja")


# ---- The machine
def machine_text() -> str:
    """GPU, memory and disk that are free, and the versions that matter, in two lines."""
    disk = shutil.disk_usage(Path.cwd()).free
    words = [_gpu_text(), _memory_text(), f"disk {disk / 1e9:.0f} GB free"]
    versions = [f"Python {platform.python_version()}"]
    for name in VERSIONS_SHOWN:
        try:
            versions.append(f"{name} {importlib.metadata.version(name)}")
        except importlib.metadata.PackageNotFoundError:
            versions.append(f"no {name}")
    return f"{'; '.join(words)}\n{', '.join(versions)}"


def _gpu_text() -> str:
    if not torch.cuda.is_available():
        return f"no GPU, {precision()}"
    free, total = torch.cuda.mem_get_info()
    name = torch.cuda.get_device_name()
    return f"{name}, {free / 2**30:.1f} of {total / 2**30:.1f} GiB free, {precision()}"


def _memory_text() -> str:
    file = Path("/proc/meminfo")
    if not file.is_file():  # macOS
        total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
        return f"RAM {total / 2**30:.1f} GiB"
    kibibytes = {
        line.split(":")[0]: int(line.split()[1])
        for line in file.read_text(encoding="ascii").splitlines()
    }
    free, all_of_it = (kibibytes[name] / 2**20 for name in ("MemAvailable", "MemTotal"))
    return f"RAM {free:.1f} of {all_of_it:.1f} GiB free"


# ---- The base
def check_base(name: str) -> str:
    """What has to be fetched of a base, in one line, or nothing.

    Asks the hub; where it cannot be reached, loading says so later. Raises InputError where the
    base is not public, does not fit on the disk, or is large and there is no GPU for it.
    """
    from huggingface_hub import HfApi, try_to_load_from_cache
    from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError

    if Path(locate(name)).is_dir():
        return ""
    without_gpu = not torch.cuda.is_available()
    try:
        info = HfApi().model_info(name, files_metadata=True)
        HfApi().auth_check(name)
    except GatedRepoError:
        raise  # its one line is in common/errors.py
    except RepositoryNotFoundError as error:
        raise InputError(f"{name} is no folder here and no public model on the hub") from error
    except Exception as error:  # offline, or the hub is not well: what was fetched may still do
        return f"the hub was not asked about {name} ({type(error).__name__})"
    needed = 0
    for file in info.siblings or []:
        wanted = Path(file.rfilename).match("*.safetensors") or file.rfilename.endswith(".json")
        if wanted and not isinstance(try_to_load_from_cache(name, file.rfilename), str):
            needed += file.size or 0
    if needed == 0:
        return f"{name} has been fetched before"
    if without_gpu and needed > LARGEST_FOR_CPU:
        raise InputError(
            f"no GPU here, and {name} has {needed / 1e9:.1f} GB: in Colab choose Runtime, Change "
            "runtime type, T4 GPU; or take --base models/nano, which trains on a CPU; or fetch it "
            "with `hf download` and give the folder"
        )
    place = Path(os.environ.get("HF_HOME", Path.home()))
    free = shutil.disk_usage(next(p for p in (place, *place.parents) if p.exists())).free
    if needed + SPARE_DISK > free:
        raise InputError(
            f"{name} has {needed / 1e9:.1f} GB and {free / 1e9:.1f} GB of disk are free: delete "
            "something, or take a smaller --base"
        )
    return (
        f"{needed / 1e9:.1f} GB of {name} are to be fetched; {free / 1e9:.0f} GB of disk are free"
    )


def fetch_base(name: str) -> None:
    """Fetch a base from the hub into its cache, and go on where a download stalled.

    Nothing where it is a folder, or where the hub is not to be asked (HF_HUB_OFFLINE). Raises
    InputError where the connection fails to the end.
    """
    from huggingface_hub import constants
    from huggingface_hub.errors import LocalEntryNotFoundError

    if Path(locate(name)).is_dir() or constants.HF_HUB_OFFLINE:
        return
    try:
        keep_trying(lambda: _fetch(name))
    except Exception as error:
        if not (may_pass(error) or isinstance(error, LocalEntryNotFoundError)):
            raise
        said = next(iter(str(error).strip().splitlines()), type(error).__name__)
        raise InputError(
            f"{name} could not be fetched: {said}; look to the connection and run this again"
        ) from error


def _fetch(name: str) -> None:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    try:
        snapshot_download(name, allow_patterns=list(FETCHED))
    except LocalEntryNotFoundError as error:  # said of a broken connection, too: what broke counts
        raise error.__cause__ or error from None


# ---- Where results go
def check_login(name: str) -> str:
    """The user as whom the hub knows us, who will push to `name`. Raises InputError without one."""
    from huggingface_hub import HfApi
    from huggingface_hub.errors import LocalTokenNotFoundError

    try:
        user: Any = HfApi().whoami()
    except LocalTokenNotFoundError as error:
        raise InputError(
            f"--hub-model-id {name} wants a login: `hf auth login`, or in Colab the secret HF_TOKEN"
        ) from error
    except Exception as error:  # the hub raises many kinds; the user gets one line of each
        said = next(iter(str(error).strip().splitlines()), type(error).__name__)
        raise InputError(f"--hub-model-id {name}: the login was not accepted: {said}") from error
    return str(user["name"])


def check_tracker(report_to: str) -> None:
    """Raise InputError unless `report_to` is none, or a tracker whose package is installed."""
    if report_to not in TRACKERS:
        raise InputError(f"--report-to is one of {', '.join(TRACKERS)}, not {report_to}")
    if report_to != "none" and importlib.util.find_spec(report_to) is None:
        raise InputError(f"--report-to {report_to} needs its package: pip install {report_to}")
