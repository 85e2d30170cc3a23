# %% [markdown]
# # image2cad: fine-tune on Kaggle, on two T4 GPUs
#
# Choose the accelerator GPU T4 x2 and switch the internet on. Attach the project (Add Input,
# Upload, `image2cad.zip`), or name where it lies in REPOSITORY. Then run all cells, or Save & Run
# All, which goes on when the browser is closed, for 12 hours at most. What the run leaves is the
# notebook's output.

# %% 1. Setup
"""Fine-tune with colab_training.py, a process for each of two GPUs that share every step.

    python kaggle_training.py                                    # as in the notebook
    python kaggle_training.py --base models/nano --data bundled --more "--max-new-tokens 64"

As a notebook: notebooks/kaggle_training.ipynb is made from this file. Leaves what colab_training.py
leaves, in runs/kaggle. Not run on Kaggle yet. Left out: everything that colab_training.py does.
"""

import importlib.util
import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

# Settings of colab_training.py, which says what they mean; others are given in MORE, as its flags.
BASE = "llava-hf/llava-1.5-7b-hf"
DATA = "CADCODER/GenCAD-Code"
MAX_TRAIN_SAMPLES: int | None = 2000
VALIDATION = 50
HELD_OUT = 50
NUM_TRAIN_EPOCHS = 1.0
PER_DEVICE_TRAIN_BATCH_SIZE = 1
GRADIENT_ACCUMULATION_STEPS = 4  # of each GPU: 8 rows a step in all
LEARNING_RATE = 2e-4
MAX_NEW_TOKENS = 1024
OUT = "runs/kaggle"
RESUME = False  # go on with a run: attach the output of the notebook that began it
MORE = ""  # as "--seed 1 --no-compact"
# The machine, and where the project comes from if it is not attached
NUM_PROCESSES = 2  # one for each GPU
REPOSITORY = ""
TAG = ""

ATTACHED = Path("/kaggle/input")
if importlib.util.find_spec("image2cad") is None:
    # Kaggle unpacks archives when they are attached.
    package = next(ATTACHED.rglob("image2cad/__init__.py"), None)
    if package is None:
        if not REPOSITORY:
            sys.exit(f"error: no image2cad in {ATTACHED}: attach image2cad.zip, or set REPOSITORY")
        branch = ["--branch", TAG] if TAG else []
        place = Path("/tmp/image2cad-project")
        clone = ["git", "clone", "--quiet", "--depth=1", *branch, REPOSITORY, str(place)]
        if not place.is_dir() and subprocess.run(clone).returncode != 0:
            sys.exit(f"error: nothing to clone at {REPOSITORY}")
        package = place / "image2cad" / "__init__.py"
    sys.path.insert(0, str(package.parent.parent))
    needed = ["-r", str(package.parent.parent / "requirements.txt")]
    subprocess.run([sys.executable, "-m", "pip", "install", "-q", *needed], check=True)

import image2cad
from image2cad.common import InputError, friendly_exit, in_notebook, read_flags

friendly_exit()
settings = read_flags(__doc__, globals())
out = Path(settings.out)
if settings.resume and not out.exists():
    earlier = next(ATTACHED.rglob(f"{out.name}/settings.json"), None)
    if earlier is None:
        raise InputError(f"nothing to resume: there is no {out}, nor one in {ATTACHED}")
    shutil.copytree(earlier.parent, out)

# %% 2. Train, generate and score
own = ("more", "num_processes", "repository", "tag")
flags = shlex.split(settings.more)
for name, value in vars(settings).items():
    flag = name.replace("_", "-")
    if isinstance(value, bool):
        flags.append(f"--{flag}" if value else f"--no-{flag}")
    elif name not in own:
        flags.append(f"--{flag}={value}")
launch = [sys.executable, "-m", "accelerate.commands.launch", "--multi_gpu"]
launch += ["--num_machines", "1", "--num_processes", str(settings.num_processes)]
launch += ["--mixed_precision", "no", "--dynamo_backend", "no", "--main_process_port", "0"]
project = str(Path(image2cad.__file__).parents[1])
paths = filter(None, [project, os.environ.get("PYTHONPATH")])
environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}
environment.setdefault("TQDM_MININTERVAL", "20")  # a notebook that is saved keeps every line
with subprocess.Popen(
    [*launch, str(Path(project) / "colab_training.py"), *flags],
    env=environment,
    stdout=subprocess.PIPE,
    stderr=subprocess.STDOUT,
    text=True,
) as process:
    assert process.stdout is not None
    last = ""
    for line in process.stdout:
        print(line, end="", flush=True)
        last = line if line.startswith("error: ") else last
if process.returncode != 0:
    raise InputError(last.removeprefix("error: ").strip() or "the run stopped; see above")

# %% 3. What it leaves
print(f"adapter: {out / 'adapter'}\nreport:  {out / 'report.html'}")
if in_notebook():
    from IPython.display import Image, display

    display(Image(out / "sheet.png"))
