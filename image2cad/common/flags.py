"""Settings at the top of a recipe, and a command-line flag for each.

    EPOCHS = 3
    settings = read_flags(__doc__, globals())       # settings.epochs, set by --epochs 5

Every upper-case name becomes a flag of its value's type. In a notebook the values
stay as they stand in the cell. Left out: nested settings and configuration files.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Mapping, Sequence
from types import SimpleNamespace
from typing import Any

from image2cad.common.errors import InputError


def in_notebook() -> bool:
    """Whether a Jupyter kernel runs this, whose command line is not the user's."""
    ipython = sys.modules.get("IPython")
    return ipython is not None and ipython.get_ipython() is not None


def read_flags(
    description: str | None, names: Mapping[str, Any], arguments: Sequence[str] | None = None
) -> SimpleNamespace:
    """The upper-case values in `names`, changed by the command line's flags.

    Strings, numbers and booleans count; booleans get --name and --no-name. A wrong
    flag ends the program with argparse's message and exit code 2.
    """
    values = {
        name.lower(): value
        for name, value in names.items()
        if name.isupper() and isinstance(value, (str, int, float))
    }
    if arguments is None:
        arguments = [] if in_notebook() else sys.argv[1:]
    parser = argparse.ArgumentParser(
        description=description,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    for name, value in values.items():
        flag = "--" + name.replace("_", "-")
        if isinstance(value, bool):
            parser.add_argument(flag, action=argparse.BooleanOptionalAction, default=value)
        else:
            parser.add_argument(flag, type=type(value), default=value, help=f"default: {value!r}")
    return SimpleNamespace(**vars(parser.parse_args(arguments)))


def at_least(settings: SimpleNamespace, least: Mapping[str, float]) -> None:
    """Raise InputError naming the first setting that is below its least value or has no end.

    A seed has to be below 2**32 as well, which is as far as numpy's go.
    """
    for name, bound in least.items():
        value = getattr(settings, name)
        flag = "--" + name.replace("_", "-")
        if not bound <= value < math.inf:
            raise InputError(f"{flag} must be at least {bound}, not {value}")
        if name == "seed" and value >= 2**32:
            raise InputError(f"{flag} must be below 2**32, not {value}")
