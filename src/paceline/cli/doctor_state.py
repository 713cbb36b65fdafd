"""`paceline doctor` on the state directory and the files in it.

Everything is opened to read only: looking must not repair or replace anything. What is written to see
whether that can be done has no name.
"""

import contextlib
import functools
import os
import shutil
import sqlite3
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

from paceline.cache.disk.rows import VERSION
from paceline.cache.generations import Generations
from paceline.cli.finding import Finding, broken, checked
from paceline.cli.recording import unwritable
from paceline.database import Schema, connect, storage_errors
from paceline.errors import CorruptStoreError, PacelineError, StorageError
from paceline.history.layout import open_to_read
from paceline.home import Home
from paceline.hostexec.audit import first_break

__all__ = ["examine_state"]

_LITTLE_SPACE: Final = 100 * 1024 * 1024
_CACHE: Final = Schema(version=VERSION, statements=())
_CHOOSE: Final = "Set PACELINE_HOME to a directory of your own."


def examine_state(home: Home) -> Iterator[Finding]:
    """The directory, the room in it, and each file that is there."""
    existing = next(p for p in (home.path, *home.path.parents) if os.path.lexists(p))
    yield _directory(home, existing)
    yield from _space(existing)
    looks = (
        ("result cache", home.cache, functools.partial(_database, opened=_cache)),
        ("history", home.history, functools.partial(_database, opened=open_to_read)),
        ("instances", home.roster, functools.partial(_database, opened=_roster)),
        ("predictions", home.predictions, _predictions),
        ("generations", home.generations, _generations),
        ("audit log", home.audit, _audit),
    )
    for what, path, look in looks:
        # False, too, where the directory cannot be entered, which was said before.
        if os.path.lexists(path):
            yield checked(what, functools.partial(_looked_at, path, look))


def _looked_at(path: Path, look: Callable[[Path], str]) -> str:
    """What `look` finds in a file; what is none (a directory, a link that leads nowhere) would
    look like an empty one."""
    if not path.is_file():
        raise StorageError(f"{path} is not a file", next_step=f"Remove {path}; a new one is made.")
    return look(path)


def _directory(home: Home, existing: Path) -> Finding:
    what, path = "state directory", home.path
    if not existing.is_dir():
        return Finding(what, "broken", f"{existing} is not a directory", _CHOOSE)
    if not os.access(existing, os.R_OK | os.W_OK | os.X_OK):
        return Finding(what, "broken", f"{existing} cannot be read and written", _CHOOSE)
    if (trouble := unwritable(home)) is not None:
        return broken(what, trouble)
    if existing != path:
        return Finding(what, "ok", f"{path} (not made yet)")
    mode = stat.S_IMODE(path.stat().st_mode)
    if mode & (stat.S_IWGRP | stat.S_IWOTH):
        told = f"{path} can be changed by others (mode {mode:04o})"
        return Finding(what, "warning", told, f"Close it: chmod 700 {path}")
    return Finding(what, "ok", str(path))


def _space(existing: Path) -> Iterator[Finding]:
    with contextlib.suppress(OSError):  # of a link that leads nowhere, which was said before
        free = shutil.disk_usage(existing).free
        little = free < _LITTLE_SPACE
        yield Finding(
            "disk space",
            "warning" if little else "ok",
            f"{free / 1024**2:,.1f} MiB free" if little else f"{free / 1024**3:.1f} GiB free",
            "Free some: results and history are not stored on a full disk." if little else "",
        )


def _cache(path: Path) -> sqlite3.Connection:
    return connect(path, _CACHE, read_only=True)


def _roster(path: Path) -> sqlite3.Connection:
    from paceline.roster.file import open_to_read as opened  # noqa: PLC0415 (where there is one)

    return opened(path)


def _database(path: Path, opened: Callable[[Path], sqlite3.Connection]) -> str:
    with storage_errors(path):
        size = path.stat().st_size
        if size:
            with contextlib.closing(opened(path)) as db:
                problem = db.execute("PRAGMA quick_check(1)").fetchone()[0]
            if problem != "ok":
                raise CorruptStoreError(
                    f"{path} is damaged: {problem}",
                    next_step=f"Move {path} away; a new one is made.",
                )
    return f"{path} ({size / 1024:,.0f} KiB)"


def _predictions(path: Path) -> str:
    from paceline.speculation.kept import peek  # noqa: PLC0415 (as above)

    learnt = peek(path)
    return f"{path} ({0 if learnt is None else learnt.size / 1024:,.0f} KiB)"


def _generations(path: Path) -> str:
    troubles: list[StorageError] = []
    Generations(path, on_trouble=troubles.append).close()
    if troubles:
        raise troubles[0]
    return str(path)


def _audit(path: Path) -> str:
    line = first_break(path)
    if line is None:
        return str(path)
    raise PacelineError(
        f"{path}: line {line} was changed, or one before it removed",
        next_step="Keep a copy of it, and find out who can write there.",
    )
