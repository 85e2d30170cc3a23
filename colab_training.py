# %% [markdown]
# # image2cad: fine-tune LLaVA-1.5-7B on pictures of CAD parts, on a free Colab T4
#
# [![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/image2cad/image2cad/blob/v0.1.0/notebooks/colab_training.ipynb)
#
# Four cells: setup; data and model; train; generate, score and try your own picture. Choose
# Runtime, Change runtime type, T4 GPU, then run them in order. The settings stand in the first
# cell. With DRIVE the run outlives the runtime: after a disconnect set RESUME and run all again.

# %% 1. Setup
"""Fine-tune a vision-language model (4-bit NF4, LoRA) on GenCAD-Code and score what it writes.

    python colab_training.py                                        # 30 samples, one GPU
    python colab_training.py --max-train-samples 1000 --held-out 50
    python colab_training.py --max-train-samples none --num-train-epochs 1   # all, from disk
    accelerate launch colab_training.py --max-train-samples none    # on several GPUs
    python colab_training.py --base models/nano --data bundled      # the whole file on a CPU
    python colab_training.py --plan --gpu T4         # what it will need; no network, no GPU

As a notebook: notebooks/colab_training.ipynb is made from this file. Leaves the adapter,
predictions.jsonl, metrics.json and report.html in runs/colab-NNN, or on the mounted Drive.
Memory and time on a T4 are predicted, not measured (benchmarks/t4_budget.py measures them).
"""

import argparse
import importlib.metadata
import importlib.util
import math
import os
import shutil
import subprocess
import sys
import time
import zipfile
from datetime import timedelta
from pathlib import Path
from typing import NoReturn

from packaging.requirements import Requirement

# @markdown ### Data
# @markdown MAX_TRAIN_SAMPLES: None takes all rows. COMPACT: programs are rewritten shorter.
# @markdown CHECK_CODE: every program is run first. MAX_LENGTH: in tokens; longer rows are left out.
DATA = "CADCODER/GenCAD-Code"  # @param {type:"string"}
MAX_TRAIN_SAMPLES: int | None = 30  # @param {type:"raw"}
VALIDATION = 10  # @param {type:"integer"}
HELD_OUT = 10  # @param {type:"integer"}
COMPACT = True  # @param {type:"boolean"}
CHECK_CODE = True  # @param {type:"boolean"}
MAX_LENGTH = 2700  # @param {type:"integer"}
# @markdown ### Model
BASE = "llava-hf/llava-1.5-7b-hf"  # @param {type:"string"}
LOAD_IN_4BIT = True  # @param {type:"boolean"}
LORA_R = 16  # @param {type:"integer"}
LORA_ALPHA = 32  # @param {type:"integer"}
# @markdown ### Training
# @markdown PATIENCE: the run ends after this share of it without a better validation.
# @markdown PER_DEVICE_TRAIN_BATCH_SIZE: 0 chooses rows a pass; a step has as many rows as
# @markdown GRADIENT_ACCUMULATION_STEPS then. RECOMPUTE: "auto" as much as memory demands, or
# @markdown "nothing", "language", "everything", or a number of layers.
NUM_TRAIN_EPOCHS = 3.0  # @param {type:"number"}
PER_DEVICE_TRAIN_BATCH_SIZE = 0  # @param {type:"integer"}
GRADIENT_ACCUMULATION_STEPS = 8  # @param {type:"integer"}
LEARNING_RATE = 2e-4  # @param {type:"number"}
RECOMPUTE = "auto"  # @param {type:"string"}
CACHE_FEATURES = True  # @param {type:"boolean"}
PATIENCE = 0.3  # @param {type:"number"}
SAVE_STEPS = 50  # @param {type:"integer"}
SEED = 0  # @param {type:"integer"}
# @markdown ### Answers
# @markdown PICTURE: a file of your own, as "part.png", or "upload" to be asked for one.
MAX_NEW_TOKENS = 1024  # @param {type:"integer"}
PICTURE: str | None = None  # @param {type:"raw"}
EFFORT = "low"  # @param ["none", "low", "high"]
# @markdown ### The run, and where it goes
# @markdown PLAN: only say what it will need, here or on a GPU as "T4", "L4", "A100", "24 GiB".
PLAN = False  # @param {type:"boolean"}
GPU: str | None = None  # @param {type:"raw"}
# @markdown DRIVE: to Google Drive. HUB_MODEL_ID: a name on the hub that the model is pushed to.
DRIVE = False  # @param {type:"boolean"}
OUT: str | None = None  # @param {type:"raw"}
RESUME = False  # @param {type:"boolean"}
MERGE = False  # @param {type:"boolean"}
HUB_MODEL_ID: str | None = None  # @param {type:"raw"}
# @markdown ### Where the project comes from
REPOSITORY = "https://github.com/image2cad/image2cad"  # @param {type:"string"}
TAG = "v0.1.0"  # @param {type:"string"}

in_colab = "google.colab" in sys.modules
if in_colab and DRIVE:
    from google.colab import drive

    drive.mount("/content/drive")


def get_project(home: Path) -> Path:
    """Where the project is: in `home`, unpacked from image2cad.zip or cloned at the pinned tag."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--repository", default=REPOSITORY)
    parser.add_argument("--tag", default=TAG)
    flags, _ = parser.parse_known_args()
    place, archive = home / "image2cad-project", home / "image2cad.zip"
    part = home / f"image2cad-project.{os.getpid()}"
    if not place.is_dir():
        if archive.is_file():
            if not zipfile.is_zipfile(archive):
                stop(f"{archive} is no whole zip file; upload it again")
            zipfile.ZipFile(archive).extractall(part)
        else:
            clone = ["git", "clone", "--quiet", "--depth=1", "--branch", flags.tag]
            if subprocess.run([*clone, flags.repository, str(part)]).returncode != 0:
                stop(f"no {flags.tag} at {flags.repository}; upload the project as {archive}")
        if place.is_dir():  # another process was faster
            shutil.rmtree(part)
        else:
            part.rename(place)
    package = next(place.rglob("image2cad/__init__.py"), None)
    if package is None:
        stop(f"{place} holds no image2cad; delete it and upload a whole image2cad.zip")
    return package.parent.parent.resolve()


def lacking(requirements: Path) -> list[str]:
    """What is not installed, or too old. Colab's own torch, for one, stays as it is."""
    found = []
    for line in requirements.read_text(encoding="utf-8").splitlines():
        text = line.split("#")[0].strip()
        if not text or ((one := Requirement(text)).marker and not one.marker.evaluate()):
            continue
        try:
            if not one.specifier.contains(importlib.metadata.version(one.name), prereleases=True):
                found.append(text)
        except importlib.metadata.PackageNotFoundError:
            found.append(text)
    return found


def stop(message: str) -> NoReturn:
    print(f"error: {message}", file=sys.stderr)
    sys.exit(2)


spec = importlib.util.find_spec("image2cad")
alone = spec is None or spec.origin is None  # not installed, and not beside this file
if alone or in_colab:
    found = spec.origin if spec is not None else None
    home = Path("/content") if in_colab else Path()
    project = Path(found).parents[1] if found else get_project(home)
    sys.path.insert(0, str(project))
    first = os.environ.get("LOCAL_RANK", "0") == "0"  # of several processes
    if (needed := lacking(project / "requirements.txt")) and first:
        print(f"installing {', '.join(needed)}")
        subprocess.run([sys.executable, "-m", "pip", "install", "-q", *needed], check=True)
    while not first and lacking(project / "requirements.txt"):
        time.sleep(1)

import torch
from accelerate import PartialState
from PIL import Image
from transformers import set_seed

from image2cad.common import (
    RUNS,
    InputError,
    at_least,
    check_run,
    effort_named,
    finish_run,
    friendly_exit,
    in_notebook,
    prepare_run,
    read_flags,
    run_folder,
    runs_root,
    unfinished,
)
from image2cad.data import Sample, load_rows
from image2cad.evaluation import evaluate, summarise, summary_text, write_results, write_sheet
from image2cad.training import (
    CodeDataset,
    TrainingSettings,
    card_here,
    card_named,
    features_for,
    fine_tune,
    memory_text,
    plan_run,
)
from image2cad.verification import verify
from image2cad.vlm import (
    attach_lora,
    generate_codes,
    load_base,
    merge,
    model_card,
    padding_id,
    precision,
    push,
    quiet,
    reload_and_compare,
    save_adapter,
    trainable_share,
)
from metrics import run_cadquery

friendly_exit()
quiet()
settings = read_flags(__doc__, globals())
at_least(
    settings,
    {"max_train_samples": 1, "validation": 0, "held_out": 1, "max_length": 64}
    | {"lora_r": 1, "lora_alpha": 1, "num_train_epochs": 0.01, "learning_rate": 1e-9}
    | {"per_device_train_batch_size": 0, "gradient_accumulation_steps": 1}
    | {"max_new_tokens": 1, "patience": 0, "save_steps": 1, "seed": 0},
)
effort_named(settings.effort)
if settings.picture and settings.picture != "upload" and not Path(settings.picture).is_file():
    raise InputError(f"there is no picture {settings.picture}")
# One process a GPU. The first one prepares data while the others wait, for hours if need be.
process = PartialState(cpu=not torch.cuda.is_available(), timeout=timedelta(days=2))
if not process.is_main_process:
    sys.stdout = open(os.devnull, "w")  # noqa: SIM115 - until the process ends
card = card_named(settings.gpu) if settings.plan and settings.gpu else card_here()
plan = plan_run(vars(settings), card, processes=process.num_processes)
print(plan.text())  # before anything is downloaded
if settings.plan:
    sys.exit()
if settings.resume and not unfinished("colab", settings.out):
    print("no unfinished run to go on with: this is a new one")  # cut off before it trained
    settings.resume = False
out = run_folder("colab", settings.out, settings.resume)
check_run(out, vars(settings), settings.resume)
process.wait_for_everyone()  # none may claim the folder before all have looked
device = torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU"
print(f"{device}, {precision()}, torch {torch.__version__}, Python {sys.version.split()[0]}")

# %% 2. Data and model
# Rows are read as a stream and kept on disk, so that memory does not grow with their number.
with process.main_process_first():
    rows = load_rows(
        settings.data,
        runs_root() / "rows",
        train=settings.max_train_samples,
        validation=settings.validation,
        held_out=settings.held_out,
        seed=settings.seed,
        compact=settings.compact,
        check_code=settings.check_code,
    )
for row in rows.rejected[:20]:
    print(f"left out: {row.id}: {row.reason}")

set_seed(settings.seed)
model, processor = load_base(settings.base, settings.load_in_4bit)
model = attach_lora(model, settings.lora_r, settings.lora_alpha)
print(trainable_share(model))

# Tower and projector are frozen: what they make of a picture is computed once.
features = None
if settings.cache_features and settings.num_train_epochs > 1:
    with process.main_process_first():
        parts = [rows.train, rows.validation]
        features = features_for(model, processor, parts, Path("runs/features"))
data = CodeDataset(rows.train, processor, settings.max_length, features)
for row in data.dropped[:20]:
    print(f"not trained on: {row.id}: {row.reason}")
validation = None
if len(rows.validation):
    validation = CodeDataset(rows.validation, processor, settings.max_length, features)
    for row in validation.dropped:
        print(f"not validated on: {row.id}: {row.reason}")
left_out = len(rows.rejected) + len(data.dropped)
counts = (
    f"{len(rows.validation)} to validate on, {len(rows.held_out)} held out; {left_out} left out"
)
print(f"{len(data)} samples to train on, {counts}")

# %% 3. Train
if process.is_main_process:
    prepare_run(out, vars(settings), settings.resume)
process.wait_for_everyone()
if card.cuda:  # now that the lengths of the rows are known
    plan = plan_run(vars(settings), card, data.lengths, process.num_processes)
    print(plan.text())
steps = plan.steps_of(len(data))
save_steps = min(settings.save_steps, max(steps // 3, 1))  # a short run is validated too
training = TrainingSettings(
    num_train_epochs=settings.num_train_epochs,
    per_device_train_batch_size=plan.rows,
    gradient_accumulation_steps=plan.accumulation,
    learning_rate=settings.learning_rate,
    save_steps=save_steps,
    early_stopping_patience=math.ceil(settings.patience * steps / save_steps),
    seed=settings.seed,
    optim="paged_adamw_8bit" if torch.cuda.is_available() else "adamw_torch",
    recompute=plan.recompute,
    group_by_length=True,
)
pad = padding_id(processor)
losses = fine_tune(model, data, training, out, pad, settings.resume, validation)
print(memory_text())
process.destroy_process_group()
if not process.is_main_process:
    sys.exit()

# %% 4. Generate, score, try your own picture
with model.disable_adapter():
    before = evaluate(model, processor, rows.held_out, plan.pictures, settings.max_new_tokens)
after = evaluate(model, processor, rows.held_out, plan.pictures, settings.max_new_tokens)
facts = {"trained_on": len(data), "left_out": left_out, "losses": losses}
summary = summarise(after, before, {"settings": vars(settings), **facts})
adapter = out / "adapter"
save_adapter(model, processor, adapter, settings.base, model_card(settings.base, summary))
write_results(out, rows.held_out, summary, after, before, f"{settings.base} on {settings.data}")
one = rows.held_out[0]
difference = reload_and_compare(
    model, processor, adapter, one.image, one.cadquery, settings.load_in_4bit
)
finish_run(out, summary)
print(f"reloaded in a new process: log-probabilities differ by {difference:.1e} at most")
print(summary_text(summary))
print(f"adapter: {adapter}\nreport:  {out / 'report.html'}")

merged = RUNS / out.name / "merged"  # not on the Drive: 14 GB
if settings.merge:
    print(f"{merge(adapter, merged)} matrices merged in float16: {merged}")
if settings.hub_model_id:
    print(f"pushed to {push(merged if settings.merge else adapter, settings.hub_model_id)}")

sheet = out / "sheet.png"  # six held-out pictures, and drawings of what their programs build
if settings.picture == "upload" and in_colab:
    from google.colab import files

    settings.picture = next(iter(files.upload()))
if settings.picture:
    image = Image.open(settings.picture).convert("RGB")
    guesses = generate_codes(model, processor, [image], 1, settings.max_new_tokens)
    answer = verify(image, guesses, settings.effort)
    code = answer.code or guesses[0]
    sheet = out / "picture.png"
    write_sheet(sheet, [Sample(image, code, "picture")], [run_cadquery(code)], 1)
    (out / "picture.py").write_text(code, encoding="utf-8")
    print(f"{code}\nlikeness {answer.likeness:.3f}; {out / 'picture.py'}, {sheet}")
if in_notebook():
    from IPython.display import display

    display(Image.open(sheet))
