# %% [markdown]
# # image2cad: fine-tune LLaVA-1.5-7B on pictures of CAD parts, on a free Colab T4
#
# <!-- colab: colab_training -->
#
# Five cells: setup; data and model; train; scores; your own pictures. Choose Runtime, Change
# runtime type, T4 GPU. Then upload image2cad.zip (`make zip`, or a zip of the repository) to the
# folder on the left, and run the cells in order; the settings stand in the first. With DRIVE the
# run outlives the runtime: after a disconnect set RESUME and run all again.

# %% 1. Setup
"""Fine-tune a vision-language model (4-bit NF4, LoRA) on GenCAD-Code and score what it writes.

    python colab_training.py                                        # 320 samples, one GPU
    python colab_training.py --max-train-samples 30                 # a look, of 12 steps
    python colab_training.py --max-train-samples none --num-train-epochs 1   # all, from disk
    accelerate launch colab_training.py --max-train-samples none    # on several GPUs
    python colab_training.py --base models/nano --data bundled      # the whole file on a CPU
    python colab_training.py --plan --gpu T4         # what it will need; no network, no GPU

As a notebook: notebooks/colab_training.ipynb is made from this file. Leaves the adapter,
predictions.jsonl, metrics.json and report.html in runs/colab-NNN, or on the mounted Drive.
Memory and time on a T4 are predicted, not measured (benchmarks/t4_budget.py measures them).
"""

# @markdown ### Data
# @markdown MAX_TRAIN_SAMPLES: None takes all rows; 30 are a look. COMPACT: programs are rewritten
# @markdown shorter. CHECK_CODE: every program is run first. MAX_LENGTH: in tokens; longer rows are
# @markdown left out. HELD_OUT: rows to score on; 100 for a figure that compares with papers.
# @markdown REDRAWN: share of the training rows drawn again in other styles and from other sides.
DATA = "CADCODER/GenCAD-Code"  # @param {type:"string"}
MAX_TRAIN_SAMPLES: int | None = 320  # @param {type:"raw"}
VALIDATION = 16  # @param {type:"integer"}
HELD_OUT = 10  # @param {type:"integer"}
REDRAWN = 0.0  # @param {type:"number"}
COMPACT = True  # @param {type:"boolean"}
CHECK_CODE = True  # @param {type:"boolean"}
MAX_LENGTH = 2700  # @param {type:"integer"}
# @markdown ### Model
BASE = "llava-hf/llava-1.5-7b-hf"  # @param {type:"string"}
LOAD_IN_4BIT = True  # @param {type:"boolean"}
LORA_R = 16  # @param {type:"integer"}
LORA_ALPHA = 32  # @param {type:"integer"}
# @markdown TARGET_MODULES: as "q_proj,v_proj". LAYERS_TO_TRANSFORM: as "16-31"; None: all.
# @markdown IMAGE_SIZE: pixels a side that the base sees; None: its own.
TARGET_MODULES = "all-linear"  # @param {type:"string"}
LAYERS_TO_TRANSFORM: str | None = None  # @param {type:"raw"}
USE_RSLORA = False  # @param {type:"boolean"}
USE_DORA = False  # @param {type:"boolean"}
IMAGE_SIZE: int | None = None  # @param {type:"raw"}
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
# @markdown PICTURE: a file of your own, as "part.png"; "upload" to be asked for some; None: a
# @markdown held-out one. EFFORT: how long the fit may look for something better. For another
# @markdown picture afterwards change them and run this cell and the last one.
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
REPORT_TO = "none"  # @param ["none", "tensorboard", "trackio", "wandb"]
# @markdown ### Where the project comes from, unless it is here or in image2cad.zip
REPOSITORY = ""  # @param {type:"string"}
TAG = ""  # @param {type:"string"}

# ---- Getting the project: the same lines stand in every notebook that can be opened alone
import argparse
import hashlib
import importlib.metadata
import importlib.util
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path
from typing import NoReturn

KEPT = ("numpy", "pyarrow", "pillow", "torch", "torchvision")  # Colab's own stay as they are


def stop(message: str) -> NoReturn:
    """End with one line: on the command line with code 2, in a notebook without a traceback."""
    if "ipykernel" in sys.modules:
        error = RuntimeError(message)
        error._render_traceback_ = lambda: [f"error: {message}"]  # type: ignore[attr-defined]
        raise error
    print(f"error: {message}", file=sys.stderr)
    sys.exit(2)


def get_project(home: Path) -> Path:
    """The project's folder: here, or from a zip, from REPOSITORY, or uploaded. Says which."""
    for pattern in (
        "image2cad/__init__.py",
        "*/image2cad/__init__.py",
        "*/*/image2cad/__init__.py",
    ):
        for file in sorted(path for path in home.glob(pattern) if ".image2cad" not in path.parts):
            if (file.parents[1] / "metrics" / "__init__.py").is_file():
                print(f"project: the folder {file.parents[1]}")
                return file.parents[1].resolve()
    if archive := newest_zip(home):
        return from_zip(home, archive)
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--repository", default=REPOSITORY)
    parser.add_argument("--tag", default=TAG)
    flags, _ = parser.parse_known_args()
    if flags.repository:
        return from_git(home, flags.repository, flags.tag or "HEAD")
    if "google.colab" in sys.modules:
        from google.colab import files

        print("choose image2cad.zip: from `make zip`, or the repository's, Download ZIP")
        files.upload()
        if archive := newest_zip(home):
            return from_zip(home, archive)
    stop(f"the project is not here: put image2cad.zip into {home.resolve()}, or set REPOSITORY")


def newest_zip(home: Path) -> Path | None:
    """image2cad.zip, image2cad-main (1).zip, owner-image2cad-1a2b3c.zip: the newest there is."""
    found = [file for file in home.glob("*image2cad*.zip") if file.is_file()]
    return max(found, key=lambda file: file.stat().st_mtime, default=None)


def from_zip(home: Path, archive: Path) -> Path:
    if not zipfile.is_zipfile(archive):
        stop(f"{archive} is no whole zip file; upload it again")
    digest = hashlib.sha256(archive.read_bytes()).hexdigest()[:12]
    place = home / ".image2cad" / f"zip-{digest}"  # another zip is another folder
    part = place.with_name(f"{place.name}.{os.getpid()}")
    if not place.is_dir():
        zipfile.ZipFile(archive).extractall(part)
        settle(part, place)
    print(f"project: {archive.name}, sha256 {digest}")
    return inside(place, str(archive))


def from_git(home: Path, address: str, name: str) -> Path:
    """A tag, a branch or a whole commit; a repository that asks for a password is not had."""
    key = hashlib.sha256(f"{address} {name}".encode()).hexdigest()[:12]
    place = home / ".image2cad" / f"git-{key}"
    part = place.with_name(f"{place.name}.{os.getpid()}")

    def git(folder: Path, *words: str) -> str:
        quiet = {"GIT_TERMINAL_PROMPT": "0", "GIT_ASKPASS": "true", "SSH_ASKPASS": "true"}
        command = ["git", "-C", str(folder), *words]
        done = subprocess.run(command, capture_output=True, text=True, env=os.environ | quiet)
        if done.returncode != 0:
            said = next(iter(done.stderr.strip().splitlines()[-1:]), "git said nothing")
            stop(f"no {name} at {address} ({said}); put image2cad.zip into {home.resolve()}")
        return done.stdout.strip()

    if not place.is_dir():
        part.mkdir(parents=True, exist_ok=True)  # is there where a try before this failed
        git(part, "init", "--quiet")
        git(part, "fetch", "--quiet", "--depth=1", address, name)
        git(part, "-c", "advice.detachedHead=false", "checkout", "--quiet", "FETCH_HEAD")
        settle(part, place)
    print(f"project: {address}, {name}, commit {git(place, 'rev-parse', 'HEAD')}")
    return inside(place, address)


def settle(part: Path, place: Path) -> None:
    try:
        part.rename(place)
    except OSError:  # another process was faster
        shutil.rmtree(part)


def inside(place: Path, source: str) -> Path:
    package = next(place.rglob("image2cad/__init__.py"), None)
    if package is None or not (package.parents[1] / "metrics").is_dir():
        stop(f"{source} holds no image2cad; take another one")
    return package.parents[1].resolve()


def lacking(needed: list[str]) -> list[str]:
    """Which of these requirements are not installed, or too old."""
    from packaging.requirements import Requirement

    found = []
    for text in (line.split("#")[0].strip() for line in needed):
        if not text or ((one := Requirement(text)).marker and not one.marker.evaluate()):
            continue
        try:
            if not one.specifier.contains(importlib.metadata.version(one.name), prereleases=True):
                found.append(text)
        except importlib.metadata.PackageNotFoundError:
            found.append(text)
    return found


def install(needed: list[str]) -> None:
    """Install these and leave KEPT as they are; stop where something loaded was replaced."""
    homes = importlib.metadata.packages_distributions()
    loaded = {name for top in list(sys.modules) for name in homes.get(top, ())}
    before = {name: importlib.metadata.version(name) for name in loaded}
    print(f"installing {', '.join(needed)}")
    with tempfile.TemporaryDirectory() as folder:
        kept = [name for name in KEPT if importlib.util.find_spec(name.replace("pillow", "PIL"))]
        pins = Path(folder, "kept.txt")
        pins.write_text("".join(f"{n}=={importlib.metadata.version(n)}\n" for n in kept))
        pip = [sys.executable, "-m", "pip", "install", "-q", "-c", str(pins), *needed]
        if subprocess.run(pip).returncode != 0:
            stop("pip could not install them; its own words stand above")
    importlib.invalidate_caches()
    changed = [n for n, old in before.items() if importlib.metadata.version(n) != old]
    if changed:
        stop(f"{', '.join(changed)} was replaced: restart the session, then run this again")


# ---- The project is here from now on
import time

in_colab = "google.colab" in sys.modules
if in_colab and DRIVE:
    from google.colab import drive

    drive.mount("/content/drive")
spec = importlib.util.find_spec("image2cad")
if spec is None or spec.origin is None:  # not installed, and not beside this file
    project = get_project(Path())
    sys.path.insert(0, str(project))
else:
    project = Path(spec.origin).parents[1]
import image2cad  # noqa: F401 - before all others: it keeps a loud import of bitsandbytes quiet

requirements = project / "requirements-colab.txt"  # a package that pip installed has none
needs = requirements.read_text(encoding="utf-8").splitlines() if requirements.is_file() else []
first = os.environ.get("LOCAL_RANK", "0") == "0"  # of several processes
if first and (needed := lacking(needs)):
    install(needed)
until = time.monotonic() + 1800
while not first and lacking(needs):
    if time.monotonic() > until:
        stop("the first process has not installed what is needed in half an hour; see its words")
    time.sleep(1)

import gc
import math
from datetime import timedelta

import torch
from accelerate import PartialState
from accelerate.utils import gather_object
from PIL import Image
from transformers import set_seed

from image2cad.common import (
    RUNS,
    SETTINGS_FILE,
    InputError,
    as_in_form,
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
    show,
    unfinished,
    zip_results,
)
from image2cad.data import Sample, load_rows
from image2cad.evaluation import (
    evaluate,
    loss_curve,
    summarise,
    summary_text,
    write_results,
    write_sheet,
    writer_text,
)
from image2cad.training import (
    CodeDataset,
    TrainingSettings,
    card_here,
    card_named,
    check_base,
    check_login,
    check_tracker,
    features_for,
    fetch_base,
    fine_tune,
    machine_text,
    memory_text,
    plan_run,
    redrawn,
    rows_begun,
)
from image2cad.verification import verify, warm_up
from image2cad.vlm import (
    attach_lora,
    generate_codes,
    load_base,
    merge,
    model_card,
    padding_id,
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
    {
        "max_train_samples": 1,
        "validation": 0,
        "held_out": 1,
        "max_length": 64,
        "lora_r": 1,
        "lora_alpha": 1,
        "image_size": 28,
        "num_train_epochs": 0.01,
        "learning_rate": 1e-9,
        "per_device_train_batch_size": 0,
        "gradient_accumulation_steps": 1,
        "max_new_tokens": 1,
        "patience": 0,
        "save_steps": 1,
        "seed": 0,
        "redrawn": 0,
    },
)
effort_named(settings.effort)
if settings.picture and settings.picture != "upload" and not Path(settings.picture).is_file():
    raise InputError(f"there is no picture {settings.picture}")
check_tracker(settings.report_to)
if settings.hub_model_id:
    print(f"will be pushed to {settings.hub_model_id} as {check_login(settings.hub_model_id)}")
# One process a GPU. The first one prepares data while the others wait, for hours if need be.
process = PartialState(cpu=not torch.cuda.is_available(), timeout=timedelta(days=2))
if not process.is_main_process:
    sys.stdout = open(os.devnull, "w")  # noqa: SIM115 - until the process ends
if not settings.plan:
    print(machine_text())
    if said := check_base(settings.base):
        print(said)
if settings.gpu and not settings.plan:
    print(f"--gpu {settings.gpu} counts with --plan alone: this run is planned for this machine")
card = card_named(settings.gpu) if settings.plan and settings.gpu else card_here()
card = min(gather_object([card]), key=lambda one: one.memory)  # so that all plan alike
print(f"planning for {card.name}")
plan = plan_run(vars(settings), card, processes=process.num_processes)
print(plan.text())  # before anything is downloaded
if settings.plan:
    if in_notebook():
        stop("PLAN is set: nothing more is done")
    sys.exit()
begun = settings.out and Path(settings.out, SETTINGS_FILE).is_file()  # check_run looks further
if settings.resume and not begun and not unfinished("colab", settings.out):
    print("no unfinished run to go on with: this is a new one")  # cut off before it trained
    settings.resume = False
# What a run that goes on may change, because what it learns does not depend on it.
free = ["cache_features", "drive", "effort", "hub_model_id", "max_new_tokens", "merge"]
free += ["gpu", "picture", "plan", "recompute", "report_to", "repository", "tag"]
out = run_folder("colab", settings.out, settings.resume)
check_run(out, vars(settings), settings.resume, free)
process.wait_for_everyone()  # none may claim the folder before all have looked

# %% 2. Data and model
# What an earlier run in this session left on the card; the plan counts on its place.
if globals().pop("model", None) is not None:
    gc.collect()
    torch.cuda.empty_cache()
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
if not rows.held_out:
    raise InputError(f"no usable row of {settings.data} is left to score on; give it more rows")
for sample in rows.train[:3]:  # what is learned from
    for picture in (sample.image, *sample.views):
        show(picture)
    print(f"{sample.id}:\n{sample.cadquery}")

with process.main_process_first():
    train = redrawn(rows.train, settings.redrawn, settings.seed, runs_root() / "redrawn")
    fetch_base(settings.base)
set_seed(settings.seed)
model, processor = load_base(settings.base, settings.load_in_4bit, settings.image_size)
model = attach_lora(
    model,
    settings.lora_r,
    settings.lora_alpha,
    use_rslora=settings.use_rslora,
    use_dora=settings.use_dora,
    target_modules=settings.target_modules,
    layers_to_transform=settings.layers_to_transform,
)
print(trainable_share(model))

# Tower and projector are frozen: what they make of a picture is computed once.
features = None
if settings.cache_features and settings.num_train_epochs > 1:
    with process.main_process_first():
        parts = [train, rows.validation]
        features = features_for(model, processor, parts, Path("runs/features"))
data = CodeDataset(train, processor, settings.max_length, features)
for row in data.dropped[:20]:
    print(f"not trained on: {row.id}: {row.reason}")
validation = None
if len(rows.validation):
    validation = CodeDataset(rows.validation, processor, settings.max_length, features)
    for row in validation.dropped:
        print(f"not validated on: {row.id}: {row.reason}")
left_out = len(rows.rejected) + len(data.dropped)
lengths = sorted(data.lengths.tolist())
tokens = f"{lengths[0]} to {lengths[-1]} tokens, half of them up to {lengths[len(lengths) // 2]}"
counts = (
    f"{len(rows.validation)} to validate on, {len(rows.held_out)} held out; {left_out} left out"
)
print(f"{len(data)} samples to train on, {counts}\na sample has {tokens}")

# %% 3. Train
if process.is_main_process:
    prepare_run(out, vars(settings), settings.resume, free)
process.wait_for_everyone()
one = rows.held_out[0]
if process.is_main_process:
    with model.disable_adapter():
        few = min(settings.max_new_tokens, 256)
        [said] = generate_codes(model, processor, [one.pictures], 1, few)
    print(f"before training the base says of {one.id}:\n{said}")
kept = rows_begun(out) if settings.resume else 0  # a pass; another number is another order
if card.cuda or kept not in (0, plan.rows):  # now that the lengths of the rows are known
    longest = int(validation.lengths.max()) if validation is not None else 0
    plan = plan_run(vars(settings), card, data.lengths, process.num_processes, longest, kept)
    print(plan.text())
steps = plan.steps_of(len(data))
if steps < 30:
    print(f"{steps} steps are few: expect the form of an answer, not the part; take more samples")
save_steps = min(settings.save_steps, max(steps // 3, 1))  # a short run is validated too
training = TrainingSettings(
    num_train_epochs=settings.num_train_epochs,
    per_device_train_batch_size=plan.rows,
    gradient_accumulation_steps=plan.accumulation,
    learning_rate=settings.learning_rate,
    save_steps=save_steps,
    early_stopping_patience=math.ceil(settings.patience * steps / save_steps),
    report_to=settings.report_to,
    seed=settings.seed,
    optim="paged_adamw_8bit" if torch.cuda.is_available() else "adamw_torch",
    recompute=plan.recompute,
    group_by_length=True,
)
pad = padding_id(processor)
losses = fine_tune(model, data, training, out, pad, settings.resume, validation)
print(memory_text())
show(loss_curve(losses))
process.destroy_process_group()
if not process.is_main_process:
    sys.exit()

# %% 4. Scores
with model.disable_adapter():
    before = evaluate(model, processor, rows.held_out, plan.pictures, settings.max_new_tokens)
after = evaluate(model, processor, rows.held_out, plan.pictures, settings.max_new_tokens)
facts = {"trained_on": len(data), "left_out": left_out, "losses": losses}
facts["published"] = sum(sample.published for sample in rows.held_out)
summary = summarise(after, before, {"settings": vars(settings), **facts})
adapter = out / "adapter"
save_adapter(model, processor, adapter, settings.base, model_card(settings.base, summary))
write_results(out, rows.held_out, summary, after, before, f"{settings.base} on {settings.data}")
finish_run(out, summary)
print(summary_text(summary))
print(f"adapter: {adapter}\nreport:  {out / 'report.html'}")
show(Image.open(out / "sheet.png"))  # held-out pictures, and drawings of what their programs build
try:
    difference = reload_and_compare(
        model, processor, adapter, one.pictures, one.cadquery, settings.load_in_4bit
    )
    print(f"reloaded in a new process: log-probabilities differ by {difference:.1e} at most")
except InputError as error:
    print(f"warning: {as_in_form(str(error)) if in_notebook() else error}")

if in_colab and not settings.drive:  # what the runtime would take with it
    from google.colab import files

    files.download(str(zip_results(out)))
merged = RUNS / out.name / "merged"  # not on the Drive: 14 GB
if settings.merge:
    print(f"{merge(adapter, merged)} matrices merged in float16: {merged}")
if settings.hub_model_id:
    print(f"pushed to {push(merged if settings.merge else adapter, settings.hub_model_id)}")

# %% 5. Your own pictures
pictures = [settings.picture] if settings.picture else []
if settings.picture == "upload":
    if not in_colab:
        raise InputError("--picture upload works in Colab; elsewhere name a file")
    from google.colab import files

    pictures = list(files.upload())
if settings.effort != "none":
    warm_up()  # else the first picture's time goes by in compiling
mine = [Sample(Image.open(name).convert("RGB"), "", Path(name).stem) for name in pictures]
place = adapter.parent  # of the run that trained it; `out` is another one if cell 1 ran again
for sample in mine or [one]:
    guesses = generate_codes(model, processor, [sample.pictures], 1, settings.max_new_tokens)
    answer = verify(sample.image, guesses, settings.effort)
    code = answer.code or guesses[0]
    sheet = place / f"picture-{sample.id}.png"
    write_sheet(sheet, [sample], [run_cadquery(code)], 1)
    sheet.with_suffix(".py").write_text(code, encoding="utf-8")
    print(f"{code}\nwritten by {writer_text(answer, guesses)}")
    print(f"likeness {answer.likeness:.3f}; {sheet.with_suffix('.py')}, {sheet}")
    show(Image.open(sheet))
