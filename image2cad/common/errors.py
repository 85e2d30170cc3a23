"""Bad input: one exception, and one place that turns it into a message and an exit code.

A recipe ends with `if __name__ == "__main__": run_cli(main)`. Only `InputError` is turned into a
single line; any other exception is a defect of the program and keeps its stack trace.
"""

import sys
from collections.abc import Callable
from types import TracebackType
from typing import NoReturn

EXIT_BAD_INPUT = 2
EXIT_INTERRUPTED = 130  # 128 + SIGINT, as a shell reports it


class InputError(Exception):
    """The user gave something that cannot be used; the message says what, and what to do."""


def run_cli(main: Callable[[], int | None]) -> NoReturn:
    """Call `main` and leave the process with its exit code (None counts as 0).

    `InputError` becomes `error: <message>` on stderr and exit code 2, Ctrl-C one line and 130.
    """
    try:
        code = main()
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        code = EXIT_BAD_INPUT
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        code = EXIT_INTERRUPTED
    sys.exit(code or 0)


def friendly_exit() -> None:
    """The same for a script that reads top to bottom, without a main function."""

    def hook(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        if issubclass(kind, InputError):
            print(f"error: {error}", file=sys.stderr)
            sys.exit(EXIT_BAD_INPUT)
        if issubclass(kind, KeyboardInterrupt):
            print("interrupted", file=sys.stderr)
            sys.exit(EXIT_INTERRUPTED)
        sys.__excepthook__(kind, error, trace)

    sys.excepthook = hook
