"""After training: the adapter's model card, the proof that it loads again, the hub.

    card = model_card(base, summary)
    difference = reload_and_compare(model, processor, folder, picture, code, load_in_4bit=True)
    push(folder, "me/my-adapter")

Left out: writing the adapter (loading.py) and merging it into its base (merging.py).
"""

from __future__ import annotations

import argparse
import gc
import json
import re
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from image2cad.common import ROOT, InputError, run_cli
from image2cad.vlm.loading import load_model, portable, quiet
from image2cad.vlm.prompting import IGNORED, encode_example, padding_id, stack

LARGEST_DIFFERENCE = 0.02  # of log-probabilities, that half precision explains


def model_card(base: str | Path, summary: dict[str, Any]) -> str:
    """The adapter's README: what it is, data, settings, held-out scores, and how to serve it."""
    scores = {key: summary[key] for key in ("n", "vsr", "iou_best", "iou_best_valid", "alignment")}
    return f"""---
base_model: {portable(base)}
library_name: peft
pipeline_tag: image-text-to-text
---
# LoRA adapter: a picture of a CAD part to CadQuery code

Base: `{portable(base)}`. Trained on {summary["trained_on"]} samples of
`{summary["settings"]["data"]}`.
Prompt: `USER: <image>\\nGenerate CADQuery code: ASSISTANT:`, with BOS before it.

    from image2cad.vlm import load_model
    model, processor = load_model("this folder")

Its programs are untrusted code: run them through `metrics.run_cadquery`.

## Serve it

Merged into its base (`python -m image2cad.vlm.merging this_folder merged`) it is a plain float16
model, whose chat template writes the trained prompt:

    from transformers import AutoImageProcessor, pipeline
    pipe = pipeline("image-text-to-text", model="merged")
    # as in training, by Pillow, even where torchvision is installed
    pipe.processor.image_processor = AutoImageProcessor.from_pretrained("merged", backend="pil")
    content = [{{"type": "image", "image": "part.png"}},
               {{"type": "text", "text": "Generate CADQuery code:"}}]
    pipe(text=[{{"role": "user", "content": content}}], return_full_text=False, max_new_tokens=1024)

    vllm serve merged --dtype half --max-model-len 4096 --limit-mm-per-prompt '{{"image": 1}}'

## Scores on held-out samples

```json
{json.dumps(scores, indent=2)}
```

## Settings

```json
{json.dumps(summary["settings"], indent=2)}
```
"""


def reload_and_compare(
    model: Any,
    processor: Any,
    folder: Path,
    picture: Image.Image | Sequence[Image.Image],
    code: str,
    load_in_4bit: bool = False,
) -> float:
    """Load the saved adapter in a new process; the largest difference of log-probabilities there.

    Raises InputError if it cannot be loaded, if memory does not hold it beside the first, or if it
    does not say the same of `code` for `picture`.
    """
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()  # for a while two models share the GPU
    with tempfile.TemporaryDirectory() as temporary:
        place = Path(temporary)
        views = [picture] if isinstance(picture, Image.Image) else picture
        for number, view in enumerate(views):
            view.save(place / f"picture-{number:03d}.png")
        (place / "code.py").write_text(code, encoding="utf-8")
        wanted = _log_probabilities(model, processor, picture, code)
        save_file({"wanted": wanted}, place / "wanted")
        module = [sys.executable, "-m", "image2cad.vlm.publishing"]
        command = [*module, str(folder.resolve()), temporary]
        command += ["--load-in-4bit"] if load_in_4bit else []
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    if done.returncode != 0:
        said = (done.stderr.strip().splitlines() or ["it said nothing"])[-1]
        if done.returncode == -signal.SIGKILL or re.search("error: out of (GPU )?memory", said):
            raise InputError(
                f"the adapter in {folder} was not loaded again to compare: "
                "a second model does not fit into memory"
            )
        raise InputError(f"the adapter in {folder} cannot be loaded again: {said}")
    difference = float(done.stdout.split()[-1])
    if not difference <= LARGEST_DIFFERENCE:
        raise InputError(
            f"the adapter in {folder} answers otherwise when it is loaded again: "
            f"log-probabilities differ by {difference:.3f}"
        )
    return difference


def push(folder: Path, name: str) -> str:
    """Upload a folder to the hub as the model `name`; its address.

    Raises InputError where that cannot be done; what was trained is in `folder` all the same.
    """
    from huggingface_hub import HfApi

    try:
        api = HfApi()
        api.create_repo(name, exist_ok=True)
        return str(api.upload_folder(repo_id=name, folder_path=folder))
    except Exception as error:  # the hub raises many kinds; the user gets one line of each
        raise InputError(
            f"{folder} was not pushed to {name}: {str(error).strip().splitlines()[0]}; "
            "log in with `hf auth login` and try `hf upload` with that folder"
        ) from error


@torch.no_grad()
def _log_probabilities(
    model: Any, processor: Any, picture: Image.Image | Sequence[Image.Image], code: str
) -> torch.Tensor:
    """Of the program's own tokens, each after those before it."""
    batch = stack([encode_example(processor, picture, code)], padding_id(processor))
    labels = batch.pop("labels")[0, 1:]
    batch["logits_to_keep"] = (labels != IGNORED).nonzero()[:, 0]
    batch = {name: value.to(model.device) for name, value in batch.items()}
    batch["pixel_values"] = batch["pixel_values"].to(model.dtype)
    training = model.training
    model.eval()
    logits = model(**batch).logits[0].float().log_softmax(-1).cpu()
    model.train(training)
    return logits.gather(1, labels[labels != IGNORED][:, None])[:, 0].contiguous()


def main() -> int:
    """What `reload_and_compare` runs in its new process."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("adapter", type=Path)
    parser.add_argument("place", type=Path, help="pictures, code.py and wanted")
    parser.add_argument("--load-in-4bit", action="store_true")
    arguments: Any = parser.parse_args()
    quiet()
    model, processor = load_model(arguments.adapter, arguments.load_in_4bit)
    code = (arguments.place / "code.py").read_text(encoding="utf-8")
    files = sorted(arguments.place.glob("picture-*.png"))
    got = _log_probabilities(model, processor, [Image.open(file) for file in files], code)
    wanted = load_file(arguments.place / "wanted")["wanted"]
    print(float((got - wanted).abs().max()))
    return 0


if __name__ == "__main__":
    run_cli(main)
