# %% [markdown]
# # image2cad on a laptop: fine-tune, generate, score
#
# The whole recipe of `colab_training.py` with a nano model of the same architecture,
# offline and on a CPU in a few minutes.

# %%
"""Fine-tune the nano LLaVA with LoRA on pictures of CAD parts, on a CPU and offline.

    python train_cpu.py                                     # the bundled parts
    python train_cpu.py --data my_parts                     # a folder of your own
    python train_cpu.py --resume                            # after an interruption

Leaves the adapter, predictions.jsonl, metrics.json and report.html in runs/train_cpu-NNN.
Left out: the 7B model and its memory levers, which are in colab_training.py.
"""

import torch

from image2cad.common import (
    at_least,
    check_run,
    finish_run,
    friendly_exit,
    prepare_run,
    read_flags,
    run_folder,
    runs_root,
)
from image2cad.data import compact_targets, load_train_and_held_out
from image2cad.evaluation import evaluate, summarise, summary_text, write_results
from image2cad.training import CodeDataset, TrainingSettings, fine_tune, memory_text, redrawn
from image2cad.vlm import (
    attach_lora,
    load_base,
    model_card,
    padding_id,
    quiet,
    save_adapter,
    trainable_share,
)

friendly_exit()
quiet()

# %% [markdown]
# ## Settings
# Each is also a flag: `--num-train-epochs 3`, `--data my_folder`.

# %%
# Data
DATA = "bundled"  # "bundled", a folder with metadata.jsonl, or a data set on the hub
HELD_OUT: int | None = None  # samples to score on; None: the test split, or a third of a folder
MAX_TRAIN_SAMPLES: int | None = None  # None: all
COMPACT = True  # train on short programs that build the same part, 100 units long
REDRAWN = 0.0  # share of the training rows drawn again in another style and from another side
MAX_LENGTH = 1024  # tokens of a training sequence; longer rows are left out, never cut
# Model
BASE = "models/nano"  # a folder or a name on the hub
LORA_R = 16
LORA_ALPHA = 32
# Training
NUM_TRAIN_EPOCHS = 20.0
PER_DEVICE_TRAIN_BATCH_SIZE = 16
LEARNING_RATE: float | None = None  # None: 2e-3 for the bundled parts, 1.5e-4 for other data
SEED = 0
# Answers
MAX_NEW_TOKENS = 512
# The run
OUT: str | None = None  # None: the next free runs/train_cpu-NNN
RESUME = False  # go on with an interrupted run

settings = read_flags(__doc__, globals())
at_least(
    settings,
    {"held_out": 1, "max_train_samples": 1, "max_length": 64, "lora_r": 1, "lora_alpha": 1}
    | {"num_train_epochs": 0.01, "per_device_train_batch_size": 1, "learning_rate": 1e-9}
    | {"max_new_tokens": 1, "seed": 0, "redrawn": 0},
)
if settings.learning_rate is None:
    settings.learning_rate = 2e-3 if settings.data == "bundled" else 1.5e-4
out = run_folder("train_cpu", settings.out, settings.resume)
free = ["max_new_tokens"]  # what training does not depend on may change when a run goes on
check_run(out, vars(settings), settings.resume, free)

# %% [markdown]
# ## Data
# Rows that cannot be used are named and left out.

# %%
train, held_out, rejected = load_train_and_held_out(
    settings.data, "train", settings.held_out, settings.max_train_samples, settings.seed
)
for row in rejected:
    print(f"left out: {row.id}: {row.reason}")
print(f"{len(train)} samples to train on, {len(held_out)} held out")

if settings.compact and settings.data != "bundled":  # the bundled programs are compact already
    train, changed = compact_targets(train)
    print(f"{changed} of {len(train)} programs rewritten shorter")
train_rows = redrawn(train, settings.redrawn, settings.seed, runs_root() / "redrawn")

# %% [markdown]
# ## Model
# A frozen base with LoRA matrices in its language model.

# %%
torch.manual_seed(settings.seed)
model, processor = load_base(settings.base)
model = attach_lora(model, settings.lora_r, settings.lora_alpha, lora_dropout=0.0)
print(trainable_share(model))
data = CodeDataset(train_rows, processor, settings.max_length)
for row in data.dropped:
    print(f"not trained on: {row.id}: {row.reason}")

prepare_run(out, vars(settings), settings.resume, free)

# %% [markdown]
# ## Train
# The untrained adapter changes nothing, so the first score is the base's.

# %%
before = evaluate(model, processor, held_out, max_new_tokens=settings.max_new_tokens)
training = TrainingSettings(
    num_train_epochs=settings.num_train_epochs,
    per_device_train_batch_size=settings.per_device_train_batch_size,
    learning_rate=settings.learning_rate,
    seed=settings.seed,
)
losses = fine_tune(model, data, training, out, padding_id(processor), settings.resume)
print(memory_text())

# %% [markdown]
# ## Generate and score

# %%
after = evaluate(model, processor, held_out, max_new_tokens=settings.max_new_tokens)
notes = {
    "settings": vars(settings),
    "trained_on": len(data),
    "left_out": len(rejected),
    "losses": losses,
}
summary = summarise(after, before, notes)
save_adapter(model, processor, out / "adapter", settings.base, model_card(settings.base, summary))
write_results(out, held_out, summary, after, before, f"{settings.base} on {settings.data}")
finish_run(out, summary)
print(summary_text(summary))
print(f"adapter: {out / 'adapter'}\nreport:  {out / 'report.html'}")
