"""Puts what comes with the project into a wheel: models/ without its scripts, and data/samples/.

All else about the package stands in pyproject.toml. An editable installation copies nothing: there
image2cad/common/paths.py finds the originals.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

SHIPPED = ("models", "data/samples")


class BuildWithShipped(build_py):
    """The usual step, then the copies below image2cad/bundled."""

    def run(self) -> None:
        super().run()
        if self.editable_mode:
            return
        leave_out = shutil.ignore_patterns("*.py", "__pycache__")
        for folder in SHIPPED:
            target = Path(self.build_lib, "image2cad", "bundled", folder)
            shutil.rmtree(target, ignore_errors=True)  # of an earlier build
            shutil.copytree(folder, target, ignore=leave_out)


setup(cmdclass={"build_py": BuildWithShipped})
