# %% [markdown]
# # image2cad on a laptop: fine-tune, generate, score
#
# The whole recipe of `colab_training.py` with a nano model of the same architecture,
# offline and on a CPU in a few minutes.

# %%
"""Fine-tune the nano LLaVA with LoRA on pictures of CAD parts, on a CPU and offline.

    python train_cpu.py                                     # the bundled parts
    python train_cpu.py --data ../shared/data/gencad_dev    # real GenCAD-Code rows in a folder
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
)
from image2cad.data import compact_targets, load_train_and_held_out
from image2cad.evaluation import evaluate, summarise, summary_text, write_results
from image2cad.training import CodeDataset, Settings, fit, memory_text
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
# Each is also a flag: `--epochs 3`, `--data my_folder`.

# %%
DATA = "bundled"  # "bundled", a folder with metadata.jsonl, or a data set on the hub
HELD_OUT = 0  # samples to score on and not to train on; 0: the test split, or a third of a folder
LIMIT = 0  # samples to train on at most, 0: all
COMPACT = True  # train on short programs that build the same part, 100 units long
BASE = "models/nano"  # a folder or a name on the hub
RANK = 16  # LoRA rank
ALPHA = 32  # LoRA scale
EPOCHS = 20.0
BATCH_SIZE = 16
LEARNING_RATE = 0.0  # 0: 2e-3 for the bundled parts, 1.5e-4 for other data: see the README
MAX_TOKENS = 1024  # longest training sequence; longer rows are left out, never cut
MAX_NEW_TOKENS = 512  # longest answer
SEED = 0
OUT = ""  # default: the next free runs/train_cpu-NNN
RESUME = False  # go on with an interrupted run

settings = read_flags(__doc__, globals())
at_least(
    settings,
    {"held_out": 0, "limit": 0, "rank": 1, "alpha": 1, "epochs": 0.01, "batch_size": 1}
    | {"learning_rate": 0, "max_tokens": 64, "max_new_tokens": 1, "seed": 0},
)
settings.learning_rate = settings.learning_rate or (2e-3 if settings.data == "bundled" else 1.5e-4)
out = run_folder("train_cpu", settings.out, settings.resume)
check_run(out, vars(settings), settings.resume)

# %% [markdown]
# ## Data
# Rows that cannot be used are named and left out.

# %%
train, held_out, rejected = load_train_and_held_out(
    settings.data, "train", settings.held_out, settings.limit or None, settings.seed
)
for row in rejected:
    print(f"left out: {row.id}: {row.reason}")
print(f"{len(train)} samples to train on, {len(held_out)} held out")

if settings.compact and settings.data != "bundled":  # the bundled programs are compact already
    train, changed = compact_targets(train)
    print(f"{changed} of {len(train)} programs rewritten shorter")

# %% [markdown]
# ## Model
# A frozen base with LoRA matrices in its language model.

# %%
torch.manual_seed(settings.seed)
model, processor = load_base(settings.base)
model = attach_lora(model, settings.rank, settings.alpha, dropout=0.0)
print(trainable_share(model))
data = CodeDataset(train, processor, settings.max_tokens)
for row in data.dropped:
    print(f"not trained on: {row.id}: {row.reason}")

prepare_run(out, vars(settings), settings.resume)

# %% [markdown]
# ## Train
# The untrained adapter changes nothing, so the first score is the base's.

# %%
before = evaluate(model, processor, held_out, max_new_tokens=settings.max_new_tokens)
plan = Settings(
    epochs=settings.epochs,
    batch_size=settings.batch_size,
    learning_rate=settings.learning_rate,
    seed=settings.seed,
)
losses = fit(model, data, plan, out, padding_id(processor), settings.resume)
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
