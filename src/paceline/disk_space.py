"""Whether a disk is full, and what to do about it: one text wherever something of ours is written."""

import errno
import os
from pathlib import Path
from typing import Final

from paceline.errors import Category, StorageError

__all__ = ["free_some", "full", "is_full", "storage_error"]

_FULL: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
_LEAST: Final = 64 * 1024
"""Bytes without which not even the index of a database's log can be made."""


def full(exc: OSError) -> bool:
    """Whether it says that the disk, or the share of it that we may use, is full."""
    return exc.errno in _FULL


def is_full(path: Path) -> bool:
    """Whether there is hardly any space, or no room for one more file, where this path lies; False
    where that cannot be told. Others say "disk I/O error" of it."""
    for place in (path, *path.parents):
        try:
            there = os.statvfs(place)
        except FileNotFoundError:
            continue
        except OSError:
            return False
        if not there.f_blocks or there.f_flag & os.ST_RDONLY:
            return False  # it does not count them, or its writer left no space
        no_file = there.f_files > 0 and there.f_favail == 0
        return there.f_bavail * there.f_frsize < _LEAST or no_file
    return False


def free_some(directory: Path) -> str:
    """What to do about the full disk of this directory."""
    return (
        f"Free some space on the disk of {directory}, or set PACELINE_HOME to a directory on"
        " another disk."
    )


def storage_error(
    message: str, exc: OSError, directory: Path, *, next_step: str | None = None
) -> StorageError:
    """The error for what the system says of a file of ours in this directory. On a full disk it is of
    category EXHAUSTED and says what helps then; else `next_step` does."""
    if full(exc):
        return StorageError(message, next_step=free_some(directory), category=Category.EXHAUSTED)
    return StorageError(message, next_step=next_step)
