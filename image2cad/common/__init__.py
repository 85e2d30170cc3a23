"""What every room may use: errors, flags, runs, files, processes, paths, effort. No torch."""

from typing import TYPE_CHECKING

from image2cad.common.lazy import load

if TYPE_CHECKING:
    from image2cad.common.arrays import Array
    from image2cad.common.effort import EFFORTS, Effort, SAMPLING_TEMPERATURE, effort_named
    from image2cad.common.errors import InputError, as_in_form, friendly_exit, run_cli
    from image2cad.common.files import move_whole, read_json_lines, read_kept, write_whole
    from image2cad.common.flags import at_least, in_notebook, read_flags, show
    from image2cad.common.gencad import FAILURES, METADATA, QUESTION, metadata_row, read_programs
    from image2cad.common.gencad import token_count
    from image2cad.common.network import keep_trying, may_pass
    from image2cad.common.paths import BUNDLED, LIBRARY, NANO, ROOT, shipped
    from image2cad.common.processes import Lost, Pool, TICK, each
    from image2cad.common.runs import RUNS, SETTINGS_FILE, check_run, finish_run, prepare_run
    from image2cad.common.runs import run_folder, runs_root, unfinished, zip_results
    from image2cad.common.stopping import Cancelled, Late, NEVER, Stop
    from image2cad.common.version import VERSION

__all__ = [
    "Array", "BUNDLED", "Cancelled", "EFFORTS", "Effort", "FAILURES", "InputError", "LIBRARY",
    "Late", "Lost", "METADATA", "NANO", "NEVER", "Pool", "QUESTION", "ROOT", "RUNS",
    "SAMPLING_TEMPERATURE", "SETTINGS_FILE", "Stop", "TICK", "VERSION", "as_in_form", "at_least",
    "check_run", "each", "effort_named", "finish_run", "friendly_exit", "in_notebook",
    "keep_trying", "may_pass", "metadata_row", "move_whole", "prepare_run", "read_flags",
    "read_json_lines", "read_kept", "read_programs", "run_cli", "run_folder", "runs_root",
    "shipped", "show", "token_count", "unfinished", "write_whole", "zip_results",
]  # fmt: skip


def __getattr__(name: str) -> object:
    return load(__name__, name)
