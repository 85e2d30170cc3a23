# %% [markdown]
# # image2cad: score CadQuery programs
#
# [![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/image2cad/image2cad/blob/v0.1.0/notebooks/evaluate.ipynb)
#
# The metrics ad hoc: your own predictions against reference programs, whatever model wrote them.
# Every program runs in a confined process; no torch is needed. Without files of your own the
# cells score the four predictions that stand below.

# %%
"""Score predictions against references: VSR, IoU_best, failures by reason, every row.

    python score_predictions.py                                     # the worked example
    python score_predictions.py --predictions mine.jsonl --references truth.jsonl

Each line of a file is a JSON object with "id" and "code". As a notebook: notebooks/evaluate.ipynb.
Left out: caches, resuming, reference files in STEP, which `python -m metrics` has.
"""

import importlib.util
import subprocess
import sys

PREDICTIONS: str | None = None  # @param {type:"raw"}
REFERENCES: str | None = None  # @param {type:"raw"}
ALIGNMENT = "best"  # @param ["best", "pca", "published"]
REPOSITORY = "https://github.com/image2cad/image2cad"  # @param {type:"string"}
TAG = "v0.1.0"  # @param {type:"string"}

if importlib.util.find_spec("metrics") is None:
    pip = [sys.executable, "-m", "pip", "install", "-q"]
    needs = ["cadquery>=2.5", "manifold3d>=3.0", "trimesh>=4.4", "scipy", "tqdm"]
    subprocess.run([*pip, *needs], check=True)
    subprocess.run([*pip, "--no-deps", f"image2cad @ git+{REPOSITORY}@{TAG}"], check=True)

from pathlib import Path

from image2cad.common import InputError, friendly_exit, read_flags
from metrics import ALIGNMENTS, BadInput, compute, get_iou_best, read_codes, run_cadquery

friendly_exit()
settings = read_flags(__doc__, globals())
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
lacking = predictions.keys() - references.keys()
if lacking:
    raise InputError(f"{len(lacking)} predictions have no reference, first {min(lacking)}")

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
