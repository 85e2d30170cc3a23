"""Processes in which verification at effort low takes two seconds in the place of seven and more.

    subprocess.run(command, env=hurried())

For tests of what lies around a search: the same way, and nothing that depends on how well it ends.
How good answers are at the real effort is measured in benchmarks/.
"""

from __future__ import annotations

import os
from pathlib import Path

HURRY = Path(__file__).resolve().parent / "hurry"  # Python imports its sitecustomize first
ROOT = HURRY.parent.parent


def hurried(*places: Path, **variables: str) -> dict[str, str]:
    """The environment of such a process, which finds modules in `places` too."""
    path = os.pathsep.join(map(str, (*places, HURRY, ROOT)))
    return {**os.environ, **variables, "PYTHONPATH": path}
