# %% [markdown]
# # image2cad: learn from execution, with the scores as reward
#
# The model writes several programs for a picture; each is run, measured and compared with the
# reference; what scores better becomes likelier (GRPO). Or the cheap way: sample, keep the best,
# fine-tune on it (rejection sampling). On a CPU and offline with the nano model.

# %%
"""Reinforcement learning with the scores as reward, from a fine-tuned model on.

    python train_reward.py                                      # nano, synthetic parts, CPU
    python train_reward.py --also ../shared/data/gencad_dev     # scored before and after, too
    python train_reward.py --method rejection                   # best of 8, then fine-tuning
    python train_reward.py --resume                             # after an interruption
    python train_reward.py --start runs/train_cpu-001/adapter --data bundled

LLaVA-1.5-7B from an adapter of colab_training.py, on a T4, and on a GPU of 40 GB and more
(neither has been run; 4 bits need Linux):

    python train_reward.py --start runs/colab-001/adapter --quantize --data CADCODER/GenCAD-Code \\
        --samples 2000 --held-out 100 --pictures 2 --programs 4 --passes 1 --batch 4 \\
        --sample-tokens 256 --learning-rate 1e-5
    python train_reward.py --start runs/colab-001/adapter --data CADCODER/GenCAD-Code \\
        --samples 20000 --held-out 200 --pictures 4 --programs 8 --passes 4 --batch 16 \\
        --sample-tokens 384 --learning-rate 1e-5 --steps 1000

All programs of a step are written at once: at half a MiB a token of key-value cache, pictures
times programs is what a GPU's memory bounds.

Leaves the adapter, predictions.jsonl, metrics.json and report.html in runs/train_reward-NNN.
Left out: several GPUs, and generating with vLLM.
"""

import torch

from image2cad.common import (
    InputError,
    at_least,
    check_run,
    finish_run,
    friendly_exit,
    prepare_run,
    read_flags,
    run_folder,
    runs_root,
)
from image2cad.data import Rejected, Sample, has_split, load_rows, load_samples
from image2cad.evaluation import evaluate, summarise, summary_text, write_results
from image2cad.training import (
    CodeDataset,
    Plan,
    Reward,
    Settings,
    best_of,
    check_enough,
    fit,
    fit_grpo,
    format_reward,
    fresh_rows,
    iou_reward,
    length_reward,
    likeness_reward,
    memory_text,
    validity_reward,
)
from image2cad.vlm import (
    load_trainable,
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
# Each is also a flag: `--steps 20`, `--method rejection`.

# %%
START = "models/nano"  # an adapter that fine-tuning left, or a base that writes programs already
METHOD = "grpo"  # "grpo" or "rejection"
DATA = "synthetic"  # parts made for this run, "bundled", a folder, or a data set on the hub
SAMPLES = 3000  # pictures to learn from, 0: all
HELD_OUT = 1000  # pictures to score on
ALSO = ""  # another data set that is scored before and after
COMPACT = True  # shorten the references of other data, as programs were when fine-tuning
IOU_WEIGHT = 1.0  # reward: IoU_best against the reference
VALIDITY_WEIGHT = 0.2  # reward: the program leaves a usable solid
LIKENESS_WEIGHT = 0.0  # reward: its drawing is like the picture; needs no reference
LENGTH_WEIGHT = 0.0  # reward: no longer than the reference
FORMAT_WEIGHT = 0.0  # reward: the program and nothing else
PROGRAMS = 8  # for each picture
TEMPERATURE = 0.6  # of the samples: at 1 their mean is far below the greedy answer
SAMPLE_TOKENS = 100  # longest of them; what is cut off fails
STEPS = 240  # GRPO: optimiser steps
PICTURES = 16  # GRPO: pictures at a time
UPDATES = 2  # GRPO: steps with the same programs
PASSES = 0  # programs a forward and backward pass, 0: all of a step
LEARNING_RATE = 3e-4  # at 2e-3 programs became valid more often and fitted worse
EPOCHS = 3.0  # rejection: passes over the best programs
QUANTIZE = False  # the base in 4 bits
RANK = 16  # LoRA rank of a new adapter
ALPHA = 32  # LoRA scale of a new adapter
BATCH = 128  # programs written at a time, when scoring and for rejection
MAX_NEW_TOKENS = 512  # longest answer when it is scored
SAVE_STEPS = 24  # steps between checkpoints
SEED = 0
OUT = ""  # default: the next free runs/train_reward-NNN
RESUME = False  # go on with an interrupted run

settings = read_flags(__doc__, globals())
at_least(
    settings,
    {"samples": 0, "held_out": 1, "programs": 2, "temperature": 0.01, "steps": 1, "pictures": 1}
    | {"passes": 0, "updates": 1, "sample_tokens": 1, "learning_rate": 1e-9, "epochs": 0.01}
    | {"rank": 1, "alpha": 1, "batch": 1, "max_new_tokens": 1, "save_steps": 1, "seed": 0}
    | {"iou_weight": 0, "validity_weight": 0, "likeness_weight": 0, "length_weight": 0}
    | {"format_weight": 0},
)
if settings.method not in ("grpo", "rejection"):
    raise InputError(f"--method is grpo or rejection, not {settings.method}")
step = settings.pictures * settings.programs
passes = settings.passes or step
if settings.method == "grpo" and step % passes:
    raise InputError("--passes has to divide --pictures times --programs")
if settings.data == "synthetic" and not settings.samples:
    raise InputError("--samples says how many synthetic parts are made; 0 is for other data")
rewards: dict[Reward, float] = {
    iou_reward: settings.iou_weight,
    validity_reward: settings.validity_weight,
    likeness_reward: settings.likeness_weight,
    length_reward: settings.length_weight,
    format_reward: settings.format_weight,
}
rewards = {reward: weight for reward, weight in rewards.items() if weight > 0}
if not rewards:
    raise InputError("give at least one reward a weight above 0")
out = run_folder("train_reward", settings.out, settings.resume)
check_run(out, vars(settings), settings.resume)

# %% [markdown]
# ## Data
# Rows that cannot be used are named and left out. The synthetic parts are like those that the
# nano base was trained on, with other random numbers.

# %%
also: list[Sample] = []
unusable: list[Rejected] = []
if settings.also:
    split = "test" if has_split(settings.also, "test") else "train"
    also, unusable = load_samples(settings.also, split)
made = settings.data in ("synthetic", "bundled")  # by us: compact, and known to run
if settings.data == "synthetic":
    rows = fresh_rows(runs_root() / "rows", settings.samples, settings.held_out, settings.seed)
else:
    rows = load_rows(
        settings.data, runs_root() / "rows", settings.samples or None, 0, settings.held_out,
        settings.seed, compact=settings.compact and not made, check_code=not made,
    )  # fmt: skip
for row in [*rows.rejected, *unusable][:20]:
    print(f"left out: {row.id}: {row.reason}")
if not rows.held_out:
    raise InputError(f"{settings.data} has too few rows to hold any out")
if settings.method == "grpo":
    check_enough(rows.train, settings.pictures)
print(f"{len(rows.train)} pictures to learn from, {len(rows.held_out)} held out")

# %% [markdown]
# ## Model
# The adapter goes on from where fine-tuning left it. The first score is the start's.

# %%
torch.manual_seed(settings.seed)
model, processor, base = load_trainable(
    settings.start, settings.quantize, settings.rank, settings.alpha
)
print(trainable_share(model))
prepare_run(out, vars(settings), settings.resume)
scoring = (settings.batch, settings.max_new_tokens)
before = evaluate(model, processor, rows.held_out, *scoring)
also_before = evaluate(model, processor, also, *scoring) if also else None

# %% [markdown]
# ## Train

# %%
used = len(rows.train)
if settings.method == "grpo":
    plan = Plan(
        steps=settings.steps,
        pictures=settings.pictures,
        programs=settings.programs,
        updates=settings.updates,
        passes=passes,
        learning_rate=settings.learning_rate,
        temperature=settings.temperature,
        max_new_tokens=settings.sample_tokens,
        save_steps=settings.save_steps,
        seed=settings.seed,
    )
    learned = fit_grpo(model, processor, rows.train, rewards, plan, out, settings.resume)
else:
    best, earned = best_of(
        model, processor, rows.train, rewards, settings.programs, out / "best.jsonl",
        settings.temperature, settings.sample_tokens, settings.batch, settings.seed,
    )  # fmt: skip
    used = len(best)
    if not used:
        raise InputError(
            "no program earned anything: fine-tune first, or --start from another model"
        )
    print(f"reward: {earned['mean']:.3f} on average, {earned['best']:.3f} for the best of each")
    tuning = Settings(
        epochs=settings.epochs,
        batch_size=min(passes, 16),
        accumulate=max(16 // passes, 1),
        recompute="language" if torch.cuda.is_available() else "nothing",
        learning_rate=settings.learning_rate,
        save_steps=settings.save_steps,
        seed=settings.seed,
        by_length=True,
    )
    examples = CodeDataset(best, processor)
    learned = [earned, *fit(model, examples, tuning, out, padding_id(processor), settings.resume)]
print(memory_text())

# %% [markdown]
# ## Generate and score

# %%
after = evaluate(model, processor, rows.held_out, *scoring)
facts = {"settings": vars(settings), "trained_on": used, "curve": learned}
summary = summarise(after, before, facts)
if also:
    also_after = evaluate(model, processor, also, *scoring)
    summary["also"] = summarise(also_after, also_before)
save_adapter(model, processor, out / "adapter", base, model_card(base, summary))
write_results(out, rows.held_out, summary, after, before, f"{settings.start} on {settings.data}")
finish_run(out, summary)
print(summary_text(summary))
if also:
    print(f"\n{settings.also}\n{summary_text(summary['also'])}")
print(f"adapter: {out / 'adapter'}\nreport:  {out / 'report.html'}")
