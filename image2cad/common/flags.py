"""Settings at the top of a recipe, and a command-line flag for each.

    NUM_TRAIN_EPOCHS = 3.0
    LIMIT: int | None = None                        # not given
    settings = read_flags(__doc__, globals())       # settings.limit, set by --limit 5

Every upper-case name that the recipe assigns becomes a flag of its value's type, or of the type
that it is annotated with; names that begin with _ do not. In a notebook the values stay as they
stand in the cell. A server's may come from the environment as well. Left out: nested settings and
configuration files.
"""

from __future__ import annotations

import argparse
import ast
import linecache
import math
import os
import sys
from collections.abc import Callable, Mapping
from types import SimpleNamespace
from typing import Any

from image2cad.common.errors import InputError

_KINDS: dict[str, type] = {"str": str, "int": int, "float": float, "bool": bool}
_YES, _NO = ("1", "true", "yes", "on"), ("0", "false", "no", "off")  # in the environment


def in_notebook() -> bool:
    """Whether a Jupyter kernel runs this, whose command line is not the user's."""
    ipython = sys.modules.get("IPython")
    return ipython is not None and ipython.get_ipython() is not None


def show(thing: Any) -> None:
    """Show a picture, or text of HTML that begins with "<", in a notebook; elsewhere nothing."""
    if in_notebook():
        from IPython.display import HTML, display

        display(HTML(thing) if isinstance(thing, str) else thing)


def read_flags(
    description: str | None, names: Mapping[str, Any], environment: str = ""
) -> SimpleNamespace:
    """The settings that the calling file assigns, changed by the command line's flags.

    names: the caller's `globals()`. Strings, numbers, booleans and None count; booleans get --name
    and --no-name; a setting annotated with `| None` takes the word none. What is imported is no
    setting. A wrong flag ends the program with argparse's message and exit code 2.

    environment: how variables begin that stand for flags that are not given, "IMAGE2CAD_" for
    IMAGE2CAD_PORT=8000. Raises InputError for a variable that cannot be read.
    """
    if in_notebook():
        return SimpleNamespace(
            **{name.lower(): names[name] for name in names if _plain(name, names)}
        )
    parser = argparse.ArgumentParser(
        description=description,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    for name, annotation in _assigned(sys._getframe(1).f_code.co_filename, names).items():
        if not _plain(name, names):
            continue
        value, flag = names[name], "--" + name.lower().replace("_", "-")
        reader = _reader(annotation or type(value).__name__)
        text, variable = f"default: {value!r}".replace("%", "%%"), environment + name
        if environment:
            text += f"; or {variable}"
            if variable in os.environ:
                value = _from_environment(variable, reader)
        if reader.__name__ == "bool":
            parser.add_argument(
                flag, action=argparse.BooleanOptionalAction, default=value, help=text
            )
        else:
            parser.add_argument(flag, type=reader, default=value, help=text)
    return SimpleNamespace(**vars(parser.parse_args()))


def at_least(settings: SimpleNamespace, least: Mapping[str, float]) -> None:
    """Raise InputError naming the first setting that is below its least value or has no end.

    What is not given (None) is not looked at. A seed has to be below 2**32 as well, which is as
    far as numpy's go.
    """
    for name, bound in least.items():
        value = getattr(settings, name)
        flag = "--" + name.replace("_", "-")
        if value is None:
            continue
        if not bound <= value < math.inf:
            raise InputError(f"{flag} must be at least {bound}, not {value}")
        if name == "seed" and value >= 2**32:
            raise InputError(f"{flag} must be below 2**32, not {value}")


def _plain(name: str, names: Mapping[str, Any]) -> bool:
    value = names.get(name, ...)
    named = name.isupper() and not name.startswith("_")
    return named and (value is None or isinstance(value, (str, int, float)))


def _assigned(file: str, names: Mapping[str, Any]) -> dict[str, str]:
    """{name: its annotation as text, or nothing} of what the top level of a file assigns."""
    found: dict[str, str] = {}
    for node in ast.parse("".join(linecache.getlines(file, dict(names)))).body:
        if isinstance(node, ast.AnnAssign):
            found[ast.unparse(node.target)] = ast.unparse(node.annotation)
        elif isinstance(node, ast.Assign):
            found |= {ast.unparse(target): "" for target in node.targets}
    return found


def _reader(annotation: str) -> Callable[[str], Any]:
    """What turns a flag's text into a value of "int", "float | None", ..."""
    words = [word.strip() for word in annotation.split("|")]
    kind = _KINDS[words[0]]  # a KeyError: a setting that is None has to be annotated

    def read(text: str) -> Any:
        if "None" in words and text.lower() == "none":
            return None
        if kind is bool:
            if text.lower() not in _YES + _NO:
                raise ValueError(f"{text!r} is neither yes nor no")
            return text.lower() in _YES
        return kind(text)

    read.__name__ = kind.__name__  # argparse says it: invalid int value
    return read


def _from_environment(variable: str, reader: Callable[[str], Any]) -> Any:
    text = os.environ[variable]
    try:
        return reader(text)
    except ValueError as error:
        what = {"int": "a whole number", "float": "a number", "bool": "1 or 0"}[reader.__name__]
        raise InputError(f"{variable} must be {what}, not {text!r:.100}") from error
