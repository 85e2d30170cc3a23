"""Bad input: one exception, and one place that turns it into a message and an exit code.

A recipe ends with `if __name__ == "__main__": run_cli(main)`. Only what a user can put right is
turned into a single line: `InputError`, and what `explained` knows, memory and disk among it. Any
other exception is a defect of the program and keeps its stack trace.
"""

from __future__ import annotations

import errno
import re
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, NoReturn

EXIT_BAD_INPUT = 2
EXIT_INTERRUPTED = 130  # 128 + SIGINT, as a shell reports it
NO_MEMORY = "DefaultCPUAllocator: can't allocate memory"  # torch's words on a CPU
NO_SPACE = "No space left on device"  # safetensors' words
STREAM_CUT = "PytorchStreamWriter failed writing file"  # torch.save's words


class InputError(Exception):
    """The user gave something that cannot be used; the message says what, and what to do."""


def run_cli(main: Callable[[], int | None]) -> NoReturn:
    """Call `main` and leave the process with its exit code (None counts as 0).

    What `explained` knows becomes `error: <message>` on stderr and exit code 2, Ctrl-C one line
    and 130.
    """
    try:
        code = main()
    except Exception as error:
        if (message := explained(error)) is None:
            raise
        print(f"error: {message}", file=sys.stderr)
        code = EXIT_BAD_INPUT
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        code = EXIT_INTERRUPTED
    sys.exit(code or 0)


def friendly_exit() -> None:
    """The same for a script that reads top to bottom, or a notebook.

    In a notebook the line stands in the place of the traceback, and names the settings as the
    form does: LORA_R, not --lora-r.
    """
    ipython = sys.modules.get("IPython")
    shell: Any = ipython.get_ipython() if ipython is not None else None
    if shell is not None:
        shell.set_custom_exc((Exception,), _show_in_notebook)
        return

    def hook(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        if message := explained(error):
            print(f"error: {message}", file=sys.stderr)
            sys.exit(EXIT_BAD_INPUT)
        if issubclass(kind, KeyboardInterrupt):
            print("interrupted", file=sys.stderr)
            sys.exit(EXIT_INTERRUPTED)
        sys.__excepthook__(kind, error, trace)

    sys.excepthook = hook


def _show_in_notebook(
    shell: Any, kind: type, error: Exception, trace: Any, tb_offset: int | None = None
) -> None:
    """IPython asks an error for a traceback of its own, if it has one."""
    message = explained(error)
    if message is not None:
        line = f"error: {as_in_form(message)}"
        error._render_traceback_ = lambda: [line]  # type: ignore[attr-defined]
    shell.showtraceback((kind, error, trace), tb_offset=tb_offset)


def as_in_form(message: str) -> str:
    """A message with the settings' names in the place of flags: --no-compact is COMPACT = False."""

    def name(flag: re.Match[str]) -> str:
        word = flag[1].upper().replace("-", "_")
        return f"{word.removeprefix('NO_')} = False" if word.startswith("NO_") else word

    return re.sub(r"(?<![\w-])--([a-z][a-z0-9]*(?:-[a-z0-9]+)*)", name, message)


def explained(error: BaseException) -> str | None:
    """What a user can do about an error, in one line; None for a defect of the program.

    Besides InputError: memory, disk, and models that want a licence accepted. By their names and
    texts, because the libraries that raise them are not loaded here.
    """
    text, kind = str(error).strip(), type(error).__name__
    if isinstance(error, InputError):
        return text
    if isinstance(error, MemoryError) or kind == "OutOfMemoryError" or NO_MEMORY in text:
        return _out_of_memory(text)
    full = isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)
    if full or NO_SPACE in text or STREAM_CUT in text:
        free = shutil.disk_usage(Path.cwd()).free / 1e9
        place = f" ({error.filename})" if isinstance(error, OSError) and error.filename else ""
        return (
            f"the disk is full{place}; {free:.1f} GB are free here: delete old runs and "
            "checkpoints, or name another place with --out, then go on with --resume"
        )
    if kind == "GatedRepoError":
        return (
            "the hub gives this model or data only to those who accepted its licence: open its "
            "page, accept, and log in with `hf auth login` (in Colab the secret HF_TOKEN)"
        )
    return None


def _out_of_memory(text: str) -> str:
    """How much was wanted, as torch says it, and what to lower.

    A run goes on with the settings that it was begun with (runs.py), but for those that what it
    learns does not depend on.
    """
    wanted = re.search(r"[Tt]ried to allocate ([\d.]+ \w+)", text)
    free = re.search(r"total capacity of ([\d.]+ \w+) of which ([\d.]+ \w+) is free", text)
    bare = re.search(r"you tried to allocate (\d+) bytes", text)
    much = f"; {wanted[1]} more were wanted" if wanted else ""
    if bare:
        much = f"; {int(bare[1]) / 2**30:.2f} GiB more were wanted"
    if free:
        much += f", {free[2]} of {free[1]} were free"
    return (
        f"out of {'GPU ' if free else ''}memory{much}: restart the session; then, if it was in "
        "training, set --recompute to everything (in colab_training.py) and go on with --resume, "
        "or start a new run with a lower --max-length or --per-device-train-batch-size; if "
        "programs were generated, lower --max-new-tokens and go on with --resume"
    )
