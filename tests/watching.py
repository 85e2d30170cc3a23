"""Processes seen from outside, and waiting for something to become true."""

import time
from pathlib import Path


def descendants(parent):
    """Processes below `parent`, zombies and multiprocessing's own tracker left out."""
    children = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
            command = (stat.parent / "cmdline").read_text()
        except OSError:  # it has just ended
            continue
        if fields[0] != "Z" and "resource_tracker" not in command:
            children.setdefault(int(fields[1]), []).append(int(stat.parent.name))
    found, todo = set(), [parent]
    while todo:
        more = children.get(todo.pop(), [])
        found |= set(more)
        todo += more
    return found


def alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def eventually(condition, seconds=60):
    """Whether it becomes true in time."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        if condition():
            return True
        time.sleep(0.05)
    return False
