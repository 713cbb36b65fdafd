"""Opening cache files, and getting those out of the way that cannot be used."""

import fcntl
import logging
import os
import sqlite3
from collections.abc import Callable
from pathlib import Path

import msgspec

from paceline.cache.disk.rows import GET
from paceline.database import BatchWriter, Schema, connect, storage_errors
from paceline.errors import Category, CorruptStoreError, StorageError

__all__ = ["Files", "Identity", "open_files", "set_aside"]

_log = logging.getLogger("paceline")

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
    known = _identity(path)
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
    return Files(_identity(path), writer, reader, reader.cursor(), os.getpid())


def _identity(path: Path) -> Identity:
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


def _move(path: Path, known: Identity, target: Path | None) -> None:
    """Moves (None: removes) the file, unless another process already did and made a new one."""
    with storage_errors(path):
        directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            fcntl.flock(directory, fcntl.LOCK_EX)
            if _identity(path) != known:
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
