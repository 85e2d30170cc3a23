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
ATTACHED = "/kaggle/input"
REPOSITORY = ""
TAG = ""

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
spec = importlib.util.find_spec("image2cad")
if spec is None or spec.origin is None:  # Kaggle unpacks archives that are attached
    depths = ("*/" * depth + "image2cad/__init__.py" for depth in range(5))
    found = [file for pattern in depths for file in Path(ATTACHED).glob(pattern)]
    project = found[0].parents[1] if found else get_project(Path())
    sys.path.insert(0, str(project))
else:
    project = Path(spec.origin).parents[1]
requirements = project / "requirements-colab.txt"  # a package that pip installed has none
needs = requirements.read_text(encoding="utf-8").splitlines() if requirements.is_file() else []
if needed := lacking(needs):
    install(needed)

import shlex

from image2cad.common import InputError, friendly_exit, in_notebook, read_flags

friendly_exit()
settings = read_flags(__doc__, globals())
out = Path(settings.out)
if settings.resume and not out.exists():
    earlier = next(Path(settings.attached).rglob(f"{out.name}/settings.json"), None)
    if earlier is None:
        raise InputError(f"nothing to resume: there is no {out}, nor one in {settings.attached}")
    shutil.copytree(earlier.parent, out)

# %% 2. Train, generate and score
own = ("more", "num_processes", "attached", "repository", "tag")
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
paths = filter(None, [str(project), os.environ.get("PYTHONPATH")])
environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}
environment.setdefault("TQDM_MININTERVAL", "20")  # a notebook that is saved keeps every line
with subprocess.Popen(
    [*launch, str(project / "colab_training.py"), *flags],
    env=environment,
    stdout=subprocess.PIPE,
    stderr=subprocess.STDOUT,
    text=True,
) as process:
    assert process.stdout is not None
    last = ""
    for line in process.stdout:
        print(line, end="", flush=True)
        if "error: " in line:
            last = line.split("error: ", 1)[1].strip()
if process.returncode != 0:
    raise InputError(last or "the run stopped; see above")

# %% 3. What it leaves
print(f"adapter: {out / 'adapter'}\nreport:  {out / 'report.html'}")
if in_notebook():
    from IPython.display import Image, display

    display(Image(out / "sheet.png"))
