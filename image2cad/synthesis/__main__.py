"""Write a data set of random parts from the command line."""

from __future__ import annotations

import argparse
from pathlib import Path as FilePath

from image2cad.common import run_cli
from image2cad.synthesis.dataset import write_dataset


def main() -> int:
    """Write a data set of synthetic parts."""
    from metrics import usable_cores

    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folder", type=FilePath)
    parser.add_argument("--parts", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--families", nargs="+", default=["general"])
    parser.add_argument("--without", nargs="+", default=[], help="kinds of profiles to hold out")
    parser.add_argument("--workers", type=int, default=usable_cores())
    parser.add_argument("--resume", action="store_true", help="go on after an interruption")
    given = parser.parse_args()
    failed = write_dataset(
        given.folder,
        given.parts,
        given.seed,
        given.families,
        workers=given.workers,
        without=given.without,
        resume=given.resume,
    )
    print(f"{given.parts} parts in {given.folder}; {failed} others did not run")
    return 0


if __name__ == "__main__":
    run_cli(main)
