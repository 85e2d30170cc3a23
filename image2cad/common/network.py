"""Downloads that stall, tried again, as far as that can help.

    table = keep_trying(lambda: file.read_row_group(3), before_again=reopen)

A read that gets no answer within `huggingface_hub`'s time limit raises an error, which is then
one of those that pass. Left out: what is downloaded.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

WAITS = (2.0, 10.0, 30.0)  # seconds before another try

Got = TypeVar("Got")


def keep_trying(action: Callable[[], Got], before_again: Callable[[], None] | None = None) -> Got:
    """What `action` gives. Where the network failed it is called again, after a while and a word.

    before_again: called between two tries. Raises what the last try raised.
    """
    for wait in WAITS:
        try:
            return action()
        except Exception as error:
            if not may_pass(error):
                raise
            print(f"the download stalled ({type(error).__name__}); again in {wait:g} s")
            time.sleep(wait)
            if before_again is not None:
                before_again()
    return action()


def may_pass(error: Exception) -> bool:
    """Whether an error is one of the network, and may be gone in a while."""
    from huggingface_hub.errors import HfHubHTTPError, OfflineModeIsEnabled

    if isinstance(error, OfflineModeIsEnabled | FileNotFoundError | PermissionError):
        return False
    if isinstance(error, HfHubHTTPError):
        status = getattr(error.response, "status_code", 0)
        return status == 429 or status >= 500
    module = type(error).__module__.split(".")[0]
    clients = ("httpx", "httpx2", "requests")  # of huggingface_hub, by its version
    return isinstance(error, ConnectionError | TimeoutError) or module in clients
