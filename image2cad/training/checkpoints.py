"""What a run leaves to go on from: whole checkpoints, and the weights that it ended with.

    last = last_whole_checkpoint(folder / "checkpoints")        # None: begin at the start
    save_trained(model, folder, history)                        # a resumed run trains no more

Left out: the adapter as others load it (vlm/loading.py).
"""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from image2cad.common import write_whole

TRAINED_FILE = "trained.safetensors"


def trainable(model: Any) -> list[tuple[str, torch.nn.Parameter]]:
    """The parameters that training changes, by name."""
    return [(name, p) for name, p in model.named_parameters() if p.requires_grad]


def save_trained(model: Any, folder: Path, history: list[dict[str, float]]) -> None:
    """Write what a run ended with, in one file, and its history.

    Without it, a run that was stopped early would go on when it is resumed.
    """
    trained = {name: parameter.detach().cpu() for name, parameter in trainable(model)}
    write_whole(folder / TRAINED_FILE, save(trained, {"history": json.dumps(history)}))


def load_trained(model: Any, folder: Path) -> list[dict[str, float]]:
    """Give `model` what `save_trained` wrote; return the history of that run."""
    with safe_open(folder / TRAINED_FILE, "pt") as file, torch.no_grad():
        for name, parameter in trainable(model):
            parameter.copy_(file.get_tensor(name))
        return list(json.loads(file.metadata()["history"]))


def last_whole_checkpoint(folder: Path) -> str | None:
    """The newest checkpoint with all its files; a Drive may have taken the small ones only."""
    found = sorted(folder.glob("checkpoint-*"), key=lambda path: int(path.name.split("-")[1]))
    return next((str(path) for path in reversed(found) if _whole(path)), None)


def rows_begun(folder: Path) -> int:
    """Rows a pass that a run goes on with, by its checkpoints in <folder>/checkpoints; 0: none.

    The order of rows depends on it (examples.py).
    """
    last = last_whole_checkpoint(folder / "checkpoints")
    if last is None:
        return 0
    state = json.loads((Path(last) / "trainer_state.json").read_text(encoding="utf-8"))
    return int(state.get("train_batch_size") or 0)


def _whole(checkpoint: Path) -> bool:
    weights = [*checkpoint.glob("*model*.safetensors")]
    needed = [checkpoint / name for name in ("optimizer.pt", "scheduler.pt")]
    needed += [next(checkpoint.glob("rng_state*.pth"), checkpoint / "rng_state.pth")]
    try:
        for file in weights:
            with safe_open(file, "pt"):
                pass  # raises if the file is shorter than its header says
        json.loads((checkpoint / "trainer_state.json").read_text(encoding="utf-8"))
        return bool(weights) and all(zipfile.is_zipfile(file) for file in needed)
    except (OSError, ValueError, SafetensorError):
        return False
