# %% [markdown]
# # image2cad: score CadQuery programs
#
# <!-- colab: evaluate -->
#
# The metrics ad hoc: your own predictions against reference programs, whatever model wrote them.
# Every program runs in a confined process; no torch is needed. Without files of your own the
# cells score the four predictions that stand below. In Colab, upload image2cad.zip (`make zip`, or
# a zip of the repository) first.

# %%
"""Score predictions against references: VSR, IoU_best, failures by reason, every row.

    python score_predictions.py                                     # the worked example
    python score_predictions.py --predictions mine.jsonl --references truth.jsonl

Each line of a file is a JSON object with "id" and "code". As a notebook: notebooks/evaluate.ipynb.
Left out: caches, resuming, reference files in STEP, which `python -m metrics` has.
"""

PREDICTIONS: str | None = None  # @param {type:"raw"}
REFERENCES: str | None = None  # @param {type:"raw"}
ALIGNMENT = "best"  # @param ["best", "pca", "published"]
# @markdown TIMEOUT: seconds of a processor that a program may take.
TIMEOUT = 30.0  # @param {type:"number"}
# @markdown Where the project comes from, unless it is here or in image2cad.zip:
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
spec = importlib.util.find_spec("metrics")
if spec is None or spec.origin is None:  # not installed, and not beside this file
    sys.path.insert(0, str(get_project(Path())))
    needs = ["cadquery>=2.5", "manifold3d>=3.0", "trimesh>=4.4", "scipy>=1.11", "tqdm>=4.66"]
    if needed := lacking(needs):
        install(needed)

from image2cad.common import InputError, at_least, friendly_exit, read_flags
from metrics import ALIGNMENTS, BadInput, compute, get_iou_best, read_codes, run_cadquery

friendly_exit()
settings = read_flags(__doc__, globals())
at_least(settings, {"timeout": 0.1})
if settings.alignment not in ALIGNMENTS:
    raise InputError(f"--alignment is one of {', '.join(ALIGNMENTS)}, not {settings.alignment}")
if bool(settings.predictions) != bool(settings.references):
    raise InputError("name both files: --predictions and --references")

# %% [markdown]
# ## Programs
# A plate with a hole, and what four models might answer: the same part elsewhere and larger, the
# plate without its hole, a program that does not run, and one that never ends.

# %%
PLATE = """import cadquery as cq
result = cq.Workplane("XY").rect(60, 40).extrude(10).faces(">Z").workplane().hole(20)
"""
references = dict.fromkeys(["moved", "no-hole", "broken", "endless"], PLATE)
predictions = {
    "moved": """import cadquery as cq
plate = cq.Workplane("YZ", origin=(5, 5, 5)).rect(120, 80).circle(20).extrude(20)
""",
    "no-hole": 'import cadquery as cq\nresult = cq.Workplane("XY").box(60, 40, 10)\n',
    "broken": "import cadquery as cq\nresult = cq.Workplane().bocks(60, 40, 10)\n",
    "endless": "while True:\n    pass\n",
}
if settings.predictions:
    try:
        predictions = read_codes(Path(settings.predictions))
        references = read_codes(Path(settings.references))
    except BadInput as error:
        raise InputError(str(error)) from error
alone = predictions.keys() - references.keys()
if alone:
    raise InputError(f"{len(alone)} predictions have no reference, first {min(alone)}")

# %% [markdown]
# ## Scores
# A prediction that fails counts 0 in IoU_best; intervals are 95 % bootstrap intervals.

# %%
scores = compute(
    predictions=list(predictions.values()),
    references=[references[name] for name in predictions],
    ids=list(predictions),
    alignment=settings.alignment,
    progress=True,
    timeout=settings.timeout,
)
for name in ("vsr", "iou_best", "iou_best_valid"):
    mean, low, high = (scores[name][key] for key in ("mean", "low", "high"))
    print(f"{name:15} " + ("none" if mean is None else f"{mean:.3f} [{low:.3f}, {high:.3f}]"))
print(f"{scores['n']} programs; failures: {scores['failures'] or 'none'}")

# %%
for row in scores["rows"]:
    print(f"{row['id']:12} {row['iou_best']:.3f}  {row['failure'] or ''}")

# %% [markdown]
# ## One pair, one program

# %%
first = next(iter(predictions))
print("IoU_best of the first:", round(get_iou_best(references[first], predictions[first]), 3))
part = run_cadquery(references[first])  # a Part with its measures, or a Failure with its reason
print(part)
