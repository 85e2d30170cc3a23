# %% [markdown]
# # image2cad: fine-tune LLaVA-1.5-7B on pictures of CAD parts, on a free Colab T4
#
# Four cells: setup; data and model; train; generate and score. Choose Runtime, Change
# runtime type, T4 GPU, then run them in order. The settings stand in the first cell.

# %% 1. Setup
"""Fine-tune LLaVA-1.5-7B (4-bit NF4, LoRA) on GenCAD-Code and score what it writes.

    python colab_training.py                                        # 30 samples, one GPU
    python colab_training.py --samples 1000 --held-out 50
    python colab_training.py --base models/nano --data bundled      # the whole file on a CPU

As a notebook: notebooks/colab_training.ipynb is made from this file. Leaves the
adapter, predictions.jsonl, metrics.json and report.html in runs/colab-NNN.
Not measured on a GPU yet: memory and time on a T4.
"""

import importlib.util
import subprocess
import sys
import zipfile
from pathlib import Path

BASE = "llava-hf/llava-1.5-7b-hf"  # @param {type:"string"}
QUANTIZE = True  # @param {type:"boolean"}
DATA = "CADCODER/GenCAD-Code"  # @param {type:"string"}
SAMPLES = 30  # @param {type:"integer"}
HELD_OUT = 10  # @param {type:"integer"}
COMPACT = True  # @param {type:"boolean"}
RANK = 16  # @param {type:"integer"}
ALPHA = 32  # @param {type:"integer"}
EPOCHS = 3.0  # @param {type:"number"}
BATCH_SIZE = 1  # @param {type:"integer"}
ACCUMULATE = 8  # @param {type:"integer"}
LEARNING_RATE = 2e-4  # @param {type:"number"}
MAX_TOKENS = 2700  # @param {type:"integer"}
MAX_NEW_TOKENS = 1024  # @param {type:"integer"}
SEED = 0  # @param {type:"integer"}
OUT = ""  # @param {type:"string"}
RESUME = False  # @param {type:"boolean"}
REPOSITORY = ""  # @param {type:"string"}

PROJECT = Path("/content/image2cad")
if importlib.util.find_spec("image2cad") is None:
    if Path(f"{PROJECT}.zip").is_file():
        zipfile.ZipFile(f"{PROJECT}.zip").extractall(PROJECT.parent)
    elif REPOSITORY and not PROJECT.is_dir():
        subprocess.run(["git", "clone", "--depth=1", REPOSITORY, str(PROJECT)], check=True)
    if not (PROJECT / "image2cad").is_dir():
        print(f"error: upload the project as {PROJECT}.zip, or set REPOSITORY to its git URL")
        sys.exit(2)
    sys.path.insert(0, str(PROJECT))
    needs = ["-r", str(PROJECT / "requirements.txt")]  # ranges that Colab's own torch satisfies
    subprocess.run([sys.executable, "-m", "pip", "install", "-q", *needs], check=True)

import torch
from transformers import set_seed

from image2cad.errors import friendly_exit
from image2cad.evaluation import evaluate, summarise, summary_text, write_results
from image2cad.flags import at_least, read_flags
from image2cad.modeling import (
    attach_lora,
    load_base,
    model_card,
    quiet,
    save_adapter,
    trainable_share,
)
from image2cad.runs import check_run, prepare_run, run_folder
from image2cad.samples import load_train_and_held_out
from image2cad.training import CodeDataset, Settings, compact_targets, fit, memory_text, precision

friendly_exit()
quiet()
settings = read_flags(__doc__, globals())
at_least(
    settings,
    {"samples": 1, "held_out": 0, "rank": 1, "alpha": 1, "epochs": 0.01, "batch_size": 1}
    | {"accumulate": 1, "learning_rate": 1e-9, "max_tokens": 64, "max_new_tokens": 1, "seed": 0},
)
out = run_folder("colab", settings.out, settings.resume)
check_run(out, vars(settings), settings.resume)
device = torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU"
print(f"{device}, {precision()}, torch {torch.__version__}, Python {sys.version.split()[0]}")

# %% 2. Data and model
train, held_out, rejected = load_train_and_held_out(
    settings.data, "train", settings.held_out, settings.samples, settings.seed
)
for row in rejected:
    print(f"left out: {row.id}: {row.reason}")
if settings.compact:
    train, changed = compact_targets(train)
    print(f"{changed} of {len(train)} programs rewritten shorter")

set_seed(settings.seed)
model, processor = load_base(settings.base, settings.quantize)
model = attach_lora(model, settings.rank, settings.alpha)
print(trainable_share(model))
data = CodeDataset(train, processor, settings.max_tokens)
for row in data.dropped:
    print(f"not trained on: {row.id}: {row.reason}")
print(f"{len(data)} samples to train on, {len(held_out)} held out")

# %% 3. Train
prepare_run(out, vars(settings), settings.resume)
before = evaluate(model, processor, held_out, 4, settings.max_new_tokens)
plan = Settings(
    epochs=settings.epochs,
    batch_size=settings.batch_size,
    accumulate=settings.accumulate,
    learning_rate=settings.learning_rate,
    seed=settings.seed,
    eight_bit=torch.cuda.is_available(),
    checkpointing=True,
)
losses = fit(model, data, plan, out, processor.tokenizer.pad_token_id, settings.resume)
print(memory_text())

# %% 4. Generate and score
after = evaluate(model, processor, held_out, 4, settings.max_new_tokens)
notes = {
    "settings": vars(settings),
    "trained_on": len(data),
    "left_out": len(rejected),
    "losses": losses,
}
summary = summarise(after, before, notes)
save_adapter(model, processor, out / "adapter", settings.base, model_card(settings.base, summary))
write_results(out, held_out, summary, after, before, f"{settings.base} on {settings.data}")
print(summary_text(summary))
print(f"adapter: {out / 'adapter'}\nreport:  {out / 'report.html'}")
