"""Opening cache files, and getting those out of the way that cannot be used."""

import fcntl
import logging
import os
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Final

import msgspec

from paceline.cache.disk.rows import GET
from paceline.database import BatchWriter, Schema, connect, storage_errors
from paceline.errors import Category, CorruptStoreError, StorageError

__all__ = [
    "Files",
    "Identity",
    "forked",
    "identity_of",
    "open_files",
    "set_aside",
    "taken_away",
    "trouble_with",
]

_log = logging.getLogger("paceline")

_LOG_PAGES: Final = 4_000
"""Pages in the log before they go to the file: four times as many as SQLite's own, so that those
of the index by key, which every batch changes, go there less often. Still so few that one table
finds each of them: reads take no longer."""

_SQLITE_LOG_PAGES: Final = 1_000
_SHARE_OF_LOG: Final = 32
_PAGE_BYTES: Final = 4_096

Identity = tuple[int, int] | None
"""Device and inode of a file."""


class Files(msgspec.Struct, frozen=True):
    """An open cache file: which one it is, the two ways into it, and whose they are."""

    identity: Identity
    writer: BatchWriter
    reader: sqlite3.Connection
    cursor: sqlite3.Cursor
    """For single reads: one that is made anew for each costs as much as the rest of the call."""
    pid: int


Tell = Callable[[StorageError], None]


def open_files(path: Path, schema: Schema, *, on_loss: Tell, on_trouble: Tell) -> Files | None:
    """The open file, a new one if what is there is not usable as a cache; None if that cannot be
    made either. Damage is told as trouble, another version is not."""
    known = identity_of(path)
    try:
        try:
            return _connected(path, schema, on_loss)
        except CorruptStoreError as exc:
            if exc.category is Category.INVALID:
                _log.info("%s A new file is begun.", exc)
                _move(path, known, None)
            else:
                on_trouble(set_aside(path, known, exc))
            return _connected(path, schema, on_loss)
    except StorageError as exc:
        on_trouble(exc)
        return None


def _connected(path: Path, schema: Schema, on_loss: Tell) -> Files:
    writer = BatchWriter(path, schema, on_loss=on_loss)
    try:
        with storage_errors(path):
            reader = connect(path, schema, read_only=True)
            try:
                reader.execute("PRAGMA busy_timeout=0")
                reader.execute(GET, (b"",)).fetchone()  # prepared once, here
            except BaseException:
                reader.close()
                raise
    except BaseException:
        writer.close()
        raise
    pages = min(_LOG_PAGES, (schema.max_bytes or 0) // _PAGE_BYTES // _SHARE_OF_LOG)
    if pages > _SQLITE_LOG_PAGES:
        writer.run(lambda db: db.execute(f"PRAGMA wal_autocheckpoint={pages}"))
    return Files(identity_of(path), writer, reader, reader.cursor(), os.getpid())


def identity_of(path: Path) -> Identity:
    """Which file is at this path; None if there is none, or it is out of reach, which opening
    it will tell."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino


def set_aside(path: Path, known: Identity, error: CorruptStoreError) -> StorageError:
    """Moves the damaged file away; what to tell of it."""
    aside = path.with_name(f"{path.name}.damaged")
    try:
        _move(path, known, aside)
    except StorageError as exc:
        return exc
    return CorruptStoreError(
        f"{error}; it was moved aside",
        next_step=f"Results are kept in a new file; delete {aside} when you like.",
    )


def trouble_with(path: Path, error: Exception) -> StorageError:
    """What an error of the file means."""
    try:
        with storage_errors(path):
            raise error
    except StorageError as exc:
        return exc


def taken_away(path: Path) -> StorageError:
    """The file is not the one that was opened."""
    return StorageError(
        f"{path} was removed or replaced while in use",
        next_step="A new one is begun; `paceline cache clear` empties it in place.",
    )


def forked(path: Path) -> StorageError:
    """The file was opened by another process, whose locks and threads it has."""
    return StorageError(
        f"{path} was opened before this process was forked off",
        next_step="Open it anew in the child process, or start that by spawning.",
    )


def _move(path: Path, known: Identity, target: Path | None) -> None:
    """Moves (None: removes) the file, unless another process already did and made a new one."""
    with storage_errors(path):
        directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            fcntl.flock(directory, fcntl.LOCK_EX)
            if identity_of(path) != known:
                return
            for suffix in ("-wal", "-shm", ""):
                part = Path(f"{path}{suffix}")
                if target is None:
                    part.unlink(missing_ok=True)
                elif part.exists():
                    part.replace(f"{target}{suffix}")
                else:
                    Path(f"{target}{suffix}").unlink(missing_ok=True)
        finally:
            os.close(directory)
