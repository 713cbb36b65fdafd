"""Which process this is, in words that no other process will ever have.

The number of a process is given to another one after its end, and in each container the numbers are
others: so its start is part of the word, and the boot and the numbering that both are counted in.
"""

import os
from pathlib import Path
from typing import Final

__all__ = ["is_gone", "pid_of", "this_process"]

_PROC: Final = Path("/proc")
_DEAD: Final = frozenset("ZXx")


def this_process() -> str:
    """The word for this process."""
    pid = os.getpid()
    _, started = _look(pid) or ("", "")
    return f"{pid}:{started}:{_numbering()}"


def pid_of(process: str) -> str:
    """The number of a process."""
    return process.partition(":")[0]


def is_gone(process: str) -> bool:
    """Whether that process has ended. False, too, where that cannot be seen from here, as of
    another container or machine."""
    pid, started, numbering = process.split(":", 2)
    if not started or numbering != _numbering():
        return False
    state, now_started = _look(int(pid)) or ("Z", "")
    return state in _DEAD or started != now_started


def _look(pid: int) -> tuple[str, str] | None:
    """The state of a process and when it started, in ticks since the boot; None if there is none."""
    try:
        text = (_PROC / str(pid) / "stat").read_text(errors="replace")
    except OSError:
        return None
    fields = text.rpartition(")")[2].split()  # the name before it may hold anything
    return fields[0], fields[19]


def _numbering() -> str:
    try:
        boot = (_PROC / "sys/kernel/random/boot_id").read_text().strip()
        return f"{boot}:{(_PROC / 'self/ns/pid').readlink()}"
    except OSError:
        return ""
