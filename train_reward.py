# %% [markdown]
# # image2cad: learn from execution, with the scores as reward
#
# The model writes several programs for a picture; each is run, measured and compared with the
# reference; what scores better becomes likelier (GRPO). Or the cheap way: sample, keep the best,
# fine-tune on it (rejection sampling). On a CPU and offline with the nano model.

# %%
"""Reinforcement learning with the scores as reward, from a fine-tuned model on.

    python train_reward.py                                      # nano, synthetic parts, CPU
    python train_reward.py --also my_parts                      # scored before and after, too
    python train_reward.py --method rejection                   # best of 8, then fine-tuning
    python train_reward.py --resume                             # after an interruption
    python train_reward.py --model runs/train_cpu-001/adapter --data bundled

LLaVA-1.5-7B from an adapter of colab_training.py, on a T4, and on a GPU of 40 GB and more
(neither has been run; 4 bits need Linux):

    python train_reward.py --model runs/colab-001/adapter --load-in-4bit \\
        --data CADCODER/GenCAD-Code --max-train-samples 2000 --held-out 100 --num-generations 4 \\
        --per-device-train-batch-size 1 --gradient-accumulation-steps 8 \\
        --per-device-eval-batch-size 4 --max-completion-length 256 --learning-rate 1e-5
    python train_reward.py --model runs/colab-001/adapter --data CADCODER/GenCAD-Code \\
        --max-train-samples 20000 --held-out 200 --num-generations 8 --max-steps 1000 \\
        --per-device-train-batch-size 4 --gradient-accumulation-steps 8 \\
        --per-device-eval-batch-size 16 --max-completion-length 384 --learning-rate 1e-5

All programs of a step are written at once: at half a MiB a token of key-value cache, batch size
times accumulation is what a GPU's memory bounds. That product over --num-generations is the number
of pictures a step.

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
    Reward,
    TrainingSettings,
    best_of,
    check_enough,
    fine_tune,
    fresh_rows,
    grpo_config,
    iou_reward,
    memory_text,
    train_grpo,
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
# Each is also a flag: `--max-steps 20`, `--method rejection`.

# %%
# Model
MODEL = "models/nano"  # an adapter that fine-tuning left, or a base that writes programs already
LOAD_IN_4BIT = False  # the base
LORA_R = 16  # of a new adapter
LORA_ALPHA = 32  # of a new adapter
# Data
DATA = "synthetic"  # parts made for this run, "bundled", a folder, or a data set on the hub
MAX_TRAIN_SAMPLES: int | None = 3000  # pictures to learn from; None: all
HELD_OUT = 1000  # pictures to score on
ALSO: str | None = None  # another data set that is scored before and after
COMPACT = True  # shorten the references of other data, as programs were when fine-tuning
# Rewards
IOU_WEIGHT = 1.0  # IoU_best against the reference
VALIDITY_WEIGHT = 0.2  # the program leaves a usable solid
# Sampled programs
NUM_GENERATIONS = 8  # for each picture
TEMPERATURE = 0.6  # at 1 their mean is far below the greedy answer
MAX_COMPLETION_LENGTH = 100  # tokens; what is cut off fails
# Training
METHOD = "grpo"  # "grpo" or "rejection"
MAX_STEPS = 240  # GRPO: optimiser steps
PER_DEVICE_TRAIN_BATCH_SIZE = 128  # programs a forward and backward pass
GRADIENT_ACCUMULATION_STEPS = 1  # GRPO: passes a step, whose programs are written at once
NUM_ITERATIONS = 2  # GRPO: steps with the same programs
LEARNING_RATE = 3e-4  # at 2e-3 programs became valid more often and fitted worse
NUM_TRAIN_EPOCHS = 3.0  # rejection: passes over the best programs
SAVE_STEPS = 24  # steps between checkpoints
SEED = 0
# Answers that are scored
PER_DEVICE_EVAL_BATCH_SIZE = 128  # programs written at a time; for rejection, too
MAX_NEW_TOKENS = 512
# The run
OUT: str | None = None  # None: the next free runs/train_reward-NNN
RESUME = False  # go on with an interrupted run

# %%
settings = read_flags(__doc__, globals())
at_least(
    settings,
    {"lora_r": 1, "lora_alpha": 1, "max_train_samples": 1, "held_out": 1, "iou_weight": 0}
    | {"validity_weight": 0, "num_generations": 2, "temperature": 0.01, "max_steps": 1}
    | {"max_completion_length": 1, "per_device_train_batch_size": 1, "num_iterations": 1}
    | {"gradient_accumulation_steps": 1, "learning_rate": 1e-9, "num_train_epochs": 0.01}
    | {"save_steps": 1, "seed": 0, "per_device_eval_batch_size": 1, "max_new_tokens": 1},
)
if settings.method not in ("grpo", "rejection"):
    raise InputError(f"--method is grpo or rejection, not {settings.method}")
batch = settings.per_device_train_batch_size
programs = batch * settings.gradient_accumulation_steps
if settings.method == "grpo" and programs % settings.num_generations:
    raise InputError(
        "--num-generations has to divide --per-device-train-batch-size times "
        "--gradient-accumulation-steps"
    )
if settings.data == "synthetic" and settings.max_train_samples is None:
    raise InputError("--max-train-samples says how many synthetic parts are made; give a number")
rewards: dict[Reward, float] = {
    iou_reward: settings.iou_weight,
    validity_reward: settings.validity_weight,
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
place = runs_root() / "rows"
if settings.data == "synthetic":
    rows = fresh_rows(place, settings.max_train_samples, settings.held_out, settings.seed)
else:
    ours = settings.data == "bundled"  # compact, and known to run
    rows = load_rows(
        settings.data,
        place,
        train=settings.max_train_samples,
        validation=0,
        held_out=settings.held_out,
        seed=settings.seed,
        compact=settings.compact and not ours,
        check_code=not ours,
    )
for row in [*rows.rejected, *unusable][:20]:
    print(f"left out: {row.id}: {row.reason}")
if not rows.held_out:
    raise InputError(f"{settings.data} has too few rows to hold any out")
if settings.method == "grpo":
    check_enough(rows.train, programs // settings.num_generations)
print(f"{len(rows.train)} pictures to learn from, {len(rows.held_out)} held out")

# %% [markdown]
# ## Model
# The adapter goes on from where fine-tuning left it. The first score is that of the model as it is.

# %%
torch.manual_seed(settings.seed)
model, processor, base = load_trainable(
    settings.model, settings.load_in_4bit, settings.lora_r, settings.lora_alpha
)
print(trainable_share(model))
prepare_run(out, vars(settings), settings.resume)
scoring = (settings.per_device_eval_batch_size, settings.max_new_tokens)
before = evaluate(model, processor, rows.held_out, *scoring)
also_before = evaluate(model, processor, also, *scoring) if also else None

# %% [markdown]
# ## Train
# By GRPO, or by fine-tuning on the best of the sampled programs.


# %%
def reinforce() -> tuple[list[dict[str, float]], int]:
    """By GRPO: the logs, and how many pictures were learned from."""
    config = grpo_config(
        out,
        max_steps=settings.max_steps,
        per_device_train_batch_size=batch,
        gradient_accumulation_steps=settings.gradient_accumulation_steps,
        num_generations=settings.num_generations,
        num_iterations=settings.num_iterations,
        max_completion_length=settings.max_completion_length,
        temperature=settings.temperature,
        learning_rate=settings.learning_rate,
        save_steps=settings.save_steps,
        seed=settings.seed,
    )
    logs = train_grpo(model, processor, rows.train, rewards, config, settings.resume)
    return logs, len(rows.train)


# %%
def fine_tune_on_best() -> tuple[list[dict[str, float]], int]:
    """By rejection sampling: what was earned and the losses, and how many pictures it was."""
    best, earned = best_of(
        model, processor, rows.train, rewards, settings.num_generations, out / "best.jsonl",
        settings.temperature, settings.max_completion_length,
        settings.per_device_eval_batch_size, settings.seed,
    )  # fmt: skip
    if not len(best):
        raise InputError("no program earned anything: fine-tune first, or give another --model")
    print(f"reward: {earned['mean']:.3f} on average, {earned['best']:.3f} for the best of each")
    training = TrainingSettings(
        num_train_epochs=settings.num_train_epochs,
        per_device_train_batch_size=min(batch, 16),
        gradient_accumulation_steps=max(16 // batch, 1),
        recompute="language" if torch.cuda.is_available() else "nothing",
        learning_rate=settings.learning_rate,
        save_steps=settings.save_steps,
        seed=settings.seed,
        group_by_length=True,
    )
    data = CodeDataset(best, processor)
    losses = fine_tune(model, data, training, out, padding_id(processor), settings.resume)
    return [earned, *losses], len(best)


# %%
curve, used = reinforce() if settings.method == "grpo" else fine_tune_on_best()
print(memory_text())

# %% [markdown]
# ## Generate and score

# %%
after = evaluate(model, processor, rows.held_out, *scoring)
facts = {"settings": vars(settings), "trained_on": used, "curve": curve}
summary = summarise(after, before, facts)
if also:
    also_after = evaluate(model, processor, also, *scoring)
    summary["also"] = summarise(also_after, also_before)
save_adapter(model, processor, out / "adapter", base, model_card(base, summary))
write_results(out, rows.held_out, summary, after, before, f"{settings.model} on {settings.data}")
finish_run(out, summary)
print(summary_text(summary))
if also:
    print(f"\n{settings.also}\n{summary_text(summary['also'])}")
print(f"adapter: {out / 'adapter'}\nreport:  {out / 'report.html'}")
