"""How much a command may fill of the disk that its workspace is on."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import final

from paceline.errors import SandboxError

__all__ = ["Room"]


def _free_bytes(path: Path) -> int:
    try:
        state = os.statvfs(path)
    except OSError as exc:
        raise SandboxError(
            f"the workspace {path} cannot be used: {exc.strerror}",
            next_step="Set hostexec.workspace to a directory that exists.",
        ) from exc
    return state.f_bfree * state.f_frsize


@final
class Room:
    """Bounds what is added to a file system from now on, by looking at how much is free.

    Costs a system call a look, however many files there are. What others write there counts
    too: a command may be stopped early then, but never fills the disk.
    """

    __slots__ = ("_free", "_least", "_path")

    def __init__(
        self, path: Path, most_bytes: int, *, free: Callable[[Path], int] = _free_bytes
    ) -> None:
        """Begins to count. `free` tells the free bytes of the file system of a path."""
        self._path = path
        self._free = free
        self._least = free(path) - most_bytes

    def used_up(self) -> bool:
        """Whether more than that has been added."""
        return self._free(self._path) < self._least
