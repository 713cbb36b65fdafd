"""The warm tier: results in a SQLite file that outlives the process and that others share.

Reads happen where they are asked for, on a connection of their own that never waits for a lock;
writes are batched on a thread. Each row carries a checksum over key, lifetime and value, so a
damaged or displaced value is a miss. The file is a cache and may be lost at any time: whatever
is wrong with it, the answer is a miss.
"""

import fcntl
import hashlib
import logging
import os
import sqlite3
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Final, NamedTuple, final

import msgspec

from paceline.clock import Clock
from paceline.database import BatchWriter, Schema, connect, storage_errors
from paceline.errors import Category, CorruptStoreError, StorageError

__all__ = ["DiskTier", "Found"]

_log = logging.getLogger("paceline")

_SHARE: Final = 32
"""A value may take this part of the limit, and as much is written between two sweeps."""

_PUTS_PER_SWEEP: Final = 256
_MAX_HIDDEN: Final = 1_000
_TABLES: Final = (
    """CREATE TABLE results (
         key BLOB NOT NULL UNIQUE, stored_ns INTEGER NOT NULL, expires_ns INTEGER NOT NULL,
         payload BLOB NOT NULL, digest BLOB NOT NULL) STRICT""",
    "CREATE INDEX results_by_expiry ON results (expires_ns)",
)
_GET: Final = "SELECT payload, stored_ns, expires_ns, digest FROM results WHERE key = ?"
# A replaced row gets a new row id: row ids are the order of storing.
_PUT: Final = "INSERT OR REPLACE INTO results (key, stored_ns, expires_ns, payload, digest) VALUES (?, ?, ?, ?, ?)"
_DELETE: Final = "DELETE FROM results WHERE key = ?"
_CLEAR: Final = "DELETE FROM results"
_SWEEP: Final = """DELETE FROM results WHERE rowid IN
  (SELECT rowid FROM results WHERE expires_ns <= ? ORDER BY expires_ns LIMIT 1000)"""
_EVICT: Final = """
WITH excess (bytes) AS (
  SELECT (page_count - freelist_count) * page_size - ?
  FROM pragma_page_count, pragma_freelist_count, pragma_page_size),
oldest (id, freed) AS (
  SELECT id, sum(size) OVER (ORDER BY id) - size FROM (
    SELECT results.rowid AS id, length(payload) + 200 AS size
    FROM excess CROSS JOIN results WHERE bytes > 0 ORDER BY results.rowid LIMIT 10000))
DELETE FROM results WHERE rowid IN (SELECT id FROM oldest, excess WHERE freed < bytes)"""


class Found(NamedTuple):
    """A stored value and how long it is still valid, in nanoseconds."""

    value: bytes
    remaining_ns: int


class _Files(msgspec.Struct, frozen=True):
    """An open cache file: which one it is, and the two ways into it."""

    identity: tuple[int, int] | None
    writer: BatchWriter
    reader: sqlite3.Connection


@final
class DiskTier:
    """At most `max_bytes` of results in the file at `path`, each until its own expiry.

    A damaged or foreign file is moved aside, in place of an earlier one, and a new one made; one
    of another version is replaced. `on_trouble` is told of the former, and once when the file
    cannot be used (read-only, disk full, damaged while in use); from then on everything is a
    miss and nothing is stored. It may be called on another thread. A file that another process
    holds locked for long costs what was to be stored meanwhile, no more.

    What is stored is seen by reads, here and in other processes, a few milliseconds later, or
    after `flush`. Expired rows go first, then the least recently stored. A value larger than a
    32nd of `max_bytes` is not stored. Do not carry it across a fork.
    """

    def __init__(
        self,
        path: Path,
        *,
        clock: Clock,
        max_bytes: int,
        on_trouble: Callable[[StorageError], None],
    ) -> None:
        self.path = path
        self.max_bytes = max_bytes
        self._clock = clock
        self._on_trouble = on_trouble
        self._schema = Schema(version=1, statements=_TABLES, max_bytes=max_bytes)
        self._lock = threading.Lock()
        # What the file may still show after its removal: until the statement of this number.
        self._hidden: dict[bytes, int] = {}
        self._all_hidden = 0
        self._removing = 0  # the latest removal; 0 when all are known to be written
        self._lost_before = 0  # statements of the writer's, when that one was not written yet
        self._submitted_bytes = 0
        self._written_bytes = 0
        self._sweep_at_bytes = 0
        self._puts = 0
        self._opened = self._open()
        self._files = self._opened  # None from the first trouble on

    @property
    def usable(self) -> bool:
        """Whether results are stored and found; False after trouble or `close`."""
        return self._files is not None

    def get(self, key: bytes) -> Found | None:
        """The value stored under this key and its remaining lifetime, or None."""
        files = self._files
        if files is None or (self._removing and self._is_hidden(key, files.writer)):
            return None
        try:
            with self._lock:
                row = files.reader.execute(_GET, (key,)).fetchone()
        except sqlite3.Error as exc:
            self._fail(exc)
            return None
        if row is None:
            return None
        payload, stored_ns, expires_ns, check = row
        now_ns = self._clock.wall_ns()
        # The first comparison keeps a clock that was set back from prolonging lives.
        if not stored_ns <= now_ns < expires_ns:
            return None
        if check != _digest(key, stored_ns, expires_ns, payload):
            _log.warning("%s: a damaged result is removed", self.path)
            self.delete(key)
            return None
        return Found(payload, expires_ns - now_ns)

    def put(self, key: bytes, payload: bytes, ttl_ns: int) -> None:
        """Stores a value for `ttl_ns` nanoseconds, in place of what was there.

        With 0 nothing is stored, and what was there is removed.
        """
        files = self._files
        if files is None:
            return
        backlog = self._submitted_bytes - self._written_bytes
        if ttl_ns <= 0 or len(payload) > self.max_bytes // _SHARE or backlog > self.max_bytes // 4:
            self.delete(key)
            return
        now_ns = self._clock.wall_ns()
        expires_ns = now_ns + ttl_ns

        def row() -> tuple[object, ...]:
            self._written_bytes += len(payload)
            return key, now_ns, expires_ns, payload, _digest(key, now_ns, expires_ns, payload)

        self._submitted_bytes += len(payload)
        self._puts += 1
        if self._submitted_bytes >= self._sweep_at_bytes or self._puts % _PUTS_PER_SWEEP == 0:
            self.sweep()
        files.writer.submit(_PUT, row)

    def delete(self, key: bytes) -> None:
        """Removes a value; no read finds it from now on."""
        files = self._files
        if files is None:
            return
        with self._lock:
            self._remove(files.writer, _DELETE, (key,))
            self._hidden[key] = self._removing
            if len(self._hidden) > _MAX_HIDDEN:
                self._hidden.clear()
                self._all_hidden = self._removing

    def clear(self) -> None:
        """Removes all values; no read finds them from now on."""
        files = self._files
        if files is None:
            return
        with self._lock:
            self._clear(files.writer)

    def sweep(self) -> None:
        """Removes some expired rows, and the oldest ones if room is short; part of storing."""
        files = self._files
        if files is not None:
            self._sweep_at_bytes = self._submitted_bytes + self.max_bytes // _SHARE
            files.writer.submit(_SWEEP, (self._clock.wall_ns(),))
            files.writer.submit(_EVICT, (self.max_bytes * 3 // 4,))

    def flush(self, timeout_s: float | None = None) -> bool:
        """Waits until all that was stored before can be read; False on time-out."""
        files = self._files
        return files is None or files.writer.flush(timeout_s)

    def close(self) -> None:
        """Writes what is queued and closes the file; everything is a miss from then on."""
        with self._lock:
            self._files = None
            opened, self._opened = self._opened, None
            if opened is not None:
                opened.reader.close()  # first: the last to close tidies up, which needs a writer
        if opened is not None:
            opened.writer.close()

    def _clear(self, writer: BatchWriter) -> None:
        self._remove(writer, _CLEAR, ())
        self._hidden.clear()
        self._all_hidden = self._removing

    def _remove(self, writer: BatchWriter, sql: str, parameters: tuple[bytes, ...]) -> None:
        if not self._removing:
            self._lost_before = writer.lost
        self._removing = writer.submit(sql, parameters)

    def _is_hidden(self, key: bytes, writer: BatchWriter) -> bool:
        """Whether this key was removed, and the file may not say so yet."""
        with self._lock:
            settled = writer.settled  # read first: what is lost is counted before it is settled
            if writer.lost > self._lost_before:  # a removal, perhaps: nothing can be believed
                self._lost_before = writer.lost
                self._clear(writer)
            elif self._removing <= settled:
                self._hidden.clear()
                self._removing = 0
                return False
            return max(self._all_hidden, self._hidden.get(key, 0)) > settled

    def _open(self) -> _Files | None:
        """The open file, a new one if what is there is not usable as a cache."""
        identity = _identity(self.path)
        try:
            try:
                return self._connect()
            except CorruptStoreError as exc:
                if exc.category is Category.INVALID:
                    _log.info("%s A new file is begun.", exc)
                    _move(self.path, identity, None)
                else:
                    self._on_trouble(_set_aside(self.path, identity, exc))
                return self._connect()
        except StorageError as exc:
            self._on_trouble(exc)
            return None

    def _connect(self) -> _Files:
        writer = BatchWriter(self.path, self._schema, on_loss=self._fail)
        try:
            with storage_errors(self.path):
                reader = connect(self.path, self._schema, read_only=True)
                try:
                    reader.execute("PRAGMA busy_timeout=0")
                    reader.execute(_GET, (b"",)).fetchone()  # prepared once, here
                except BaseException:
                    reader.close()
                    raise
        except BaseException:
            writer.close()
            raise
        return _Files(_identity(self.path), writer, reader)

    def _fail(self, error: Exception) -> None:
        """Ends the use of the file, unless it is only busy.

        It stays open until `close`: a thread may be using it.
        """
        try:
            with storage_errors(self.path):
                raise error
        except StorageError as exc:
            trouble = exc
        if trouble.category.transient:
            _log.info("results are not stored or found for the moment: %s", trouble)
            return
        with self._lock:
            files, self._files = self._files, None
        if files is None:
            return
        if isinstance(trouble, CorruptStoreError):
            trouble = _set_aside(self.path, files.identity, trouble)
        self._on_trouble(trouble)


def _digest(key: bytes, stored_ns: int, expires_ns: int, payload: bytes) -> bytes:
    header = b"%b%d,%d;" % (key, stored_ns, expires_ns)
    return hashlib.blake2b(header + payload, digest_size=16).digest()


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None  # not there, or out of reach, which opening it will tell
    return found.st_dev, found.st_ino


def _set_aside(
    path: Path, identity: tuple[int, int] | None, error: CorruptStoreError
) -> StorageError:
    """Moves the damaged file away; what to tell of it."""
    aside = path.with_name(f"{path.name}.damaged")
    try:
        _move(path, identity, aside)
    except StorageError as exc:
        return exc
    return CorruptStoreError(
        f"{error}; it was moved aside",
        next_step=f"Results are kept in a new file; delete {aside} when you like.",
    )


def _move(path: Path, identity: tuple[int, int] | None, target: Path | None) -> None:
    """Moves (None: removes) the file, unless another process already did and made a new one."""
    with storage_errors(path):
        directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            fcntl.flock(directory, fcntl.LOCK_EX)
            if _identity(path) != identity:
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
