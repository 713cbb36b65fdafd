"""The warm tier: results in a SQLite file that outlives the process and that others share.

Reads happen where they are asked for, on a connection of their own that never waits for a lock;
writes are batched on a thread. Each row carries a checksum over key, lifetime and value, so a
damaged or displaced value is a miss. The file is a cache and may be lost at any time: whatever
is wrong with it, the answer is a miss.
"""

import functools
import itertools
import logging
import os
import sqlite3
import threading
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, Final, final

import msgspec

from paceline.cache.disk.files import (
    Files,
    forked,
    identity_of,
    open_files,
    set_aside,
    taken_away,
    trouble_with,
)
from paceline.cache.disk.removals import Condition, Hiding, Removals
from paceline.cache.disk.room import Room
from paceline.cache.disk.rows import (
    GET,
    GET_MANY,
    HOLDS,
    HOTTEST,
    LIST,
    MANY,
    PUT,
    SIZES,
    TABLES,
    TOUCH,
    VERSION,
    DamagedRowError,
    Found,
    Listed,
    Order,
    Wanted,
    end_ns,
    listed,
    pack,
    unpack,
)
from paceline.cache.entry import PLAIN, About
from paceline.clock import Clock
from paceline.database import BatchWriter, Schema
from paceline.errors import Category, CorruptStoreError, InvalidInputError, StorageError

__all__ = ["DiskStats", "DiskTier", "Found", "Listed", "Order", "Wanted"]

_log = logging.getLogger("paceline")

_SHARE: Final = 32
"""A value may take this part of the limit, and as much is written between two sweeps."""

_PUTS_PER_SWEEP: Final = 256
_CHUNK: Final = 1_000
_CACHE_KIB: Final = 16_384
_PAUSE_NS: Final = 10_000_000_000
"""After a full disk, the time until writing is tried again."""


class DiskStats(msgspec.Struct, frozen=True):
    """The size of the file, and what this process has done to it.

    `damaged` rows were not believed. `dropped` values were not stored: too large, too many at
    once, or the disk full.
    """

    entries: int
    bytes: int
    evictions: int
    expirations: int
    damaged: int
    dropped: int


@final
class DiskTier:
    """At most `max_bytes` of results in the file at `path`, each until its own expiry.

    A damaged or foreign file is moved aside, in place of an earlier one, and a new one made; one
    of another version is replaced. `on_trouble` is told of the former, and once when the file
    cannot be used (read-only, damaged while in use); from then on everything is a miss and
    nothing is stored. On a full disk, which is told too, reads go on and nothing is stored until
    there is room; only after a removal that could not be written everything is a miss until
    then. `on_trouble` may be called on another thread. A file that another process holds locked
    for long costs what was to be stored meanwhile, no more. In a process forked off after
    opening everything is a miss, which is told as trouble.

    What is stored is seen by reads, here and in other processes, a few milliseconds later, or
    after `flush`. Expired rows go first, then those that nobody asks for, the oldest before the
    newer; `max_entries` bounds their number, give or take a 32nd until `flush`. A value larger
    than a 32nd of `max_bytes` is not stored.
    """

    def __init__(
        self,
        path: Path,
        *,
        clock: Clock,
        max_bytes: int,
        on_trouble: Callable[[StorageError], None],
        max_entries: int | None = None,
    ) -> None:
        self.path = path
        self.max_bytes = max_bytes
        self.max_entries = max_entries
        self._largest = max_bytes // _SHARE if max_entries != 0 else -1
        self._most_waiting = max_bytes // 4
        self._clock = clock
        self._on_trouble = on_trouble
        self._schema = Schema(
            version=VERSION, statements=TABLES, max_bytes=max_bytes, cache_kib=_CACHE_KIB
        )
        self._lock = threading.Lock()
        self._removals = Removals()
        self._room = Room(max_bytes, max_entries)
        self._stalled_until_ns = 0  # of the monotonic clock, after a full disk; 0: not stalled
        self._sweep_every = (
            _PUTS_PER_SWEEP if max_entries is None else max(1, max_entries // _SHARE)
        )
        self._bytes_to_sweep = 0
        self._puts = 0
        self._unswept = False
        self._damaged = 0
        self._dropped = 0
        self._open()

    def _open(self) -> None:
        self._opened = open_files(
            self.path, self._schema, on_loss=self._fail, on_trouble=self._on_trouble
        )
        self._files = self._opened  # None from the first trouble on
        self.sweep()

    @property
    def usable(self) -> bool:
        """Whether results are stored and found; False after trouble or `close`."""
        return self._files is not None

    def get(self, key: bytes) -> Found | None:
        """The value stored under this key and its remaining lifetime, or None."""
        files = self._mine()
        if files is None:
            return None
        hiding = self._hiding(files.writer) if self._removals.latest else None
        try:
            with self._lock:
                row = files.cursor.execute(GET, (key,)).fetchone()
            if row is None:
                return None
            found = unpack(key, row[0], row[1], self._clock.wall_ns())
        except sqlite3.Error as exc:
            self._fail(exc)
            return None
        except DamagedRowError:
            self._drop_damaged(key)
            return None
        if found is None or (hiding is not None and hiding.hides(key, found.about)):
            return None
        if self._room.crowded and not row[2] and self._room.notes(key):
            files.writer.submit(TOUCH, (key,))
        return found

    def get_many(self, keys: Iterable[bytes]) -> dict[bytes, Found]:
        """The values that are stored under these keys; faster than one by one."""
        found: dict[bytes, Found] = {}
        left = iter(keys)
        while part := list(itertools.islice(left, MANY)):
            files = self._mine()
            if files is None:
                break
            hiding = self._hiding(files.writer)
            asked = (*part, *[None] * (MANY - len(part)))
            for key, payload, head, used in self._rows(files, GET_MANY, asked):
                value = self._shown(key, payload, head, hiding)
                if value is not None:
                    found[key] = value
                    if not used and self._room.notes(key):
                        files.writer.submit(TOUCH, (key,))
        return found

    def put(self, key: bytes, payload: bytes, ttl_ns: float, about: About = PLAIN) -> None:
        """Stores a value for `ttl_ns` nanoseconds, in place of what was there.

        With 0, less, or what is no number nothing is stored, and what was there is removed. The
        same value with the same end, to a millisecond, as one that is there costs a look-up.
        """
        files = self._mine()
        if files is None:
            return
        size = len(payload)
        writer = files.writer
        if not ttl_ns > 0:
            self.delete(key)
        elif (
            size > self._largest
            or writer.backlog_bytes > self._most_waiting
            or (self._stalled_until_ns and self._is_stalled(writer))
        ):
            self._dropped += 1
            # A removal that cannot be written would hide all there is.
            if not self._stalled_until_ns or self._rows(files, HOLDS, (key,)):
                self.delete(key)
        else:
            now_ns = self._clock.wall_ns()
            until_ns = end_ns(now_ns, ttl_ns)
            row = functools.partial(pack, key, payload, about, now_ns, until_ns)
            writer.submit(PUT, row, size)
            self._puts += 1
            self._bytes_to_sweep -= size
            self._unswept = True
            if self._bytes_to_sweep < 0 or self._puts % self._sweep_every == 0:
                self.sweep()

    def delete(self, key: bytes) -> None:
        """Removes a value; no read finds it from now on."""
        files = self._mine()
        if files is not None:
            with self._lock:
                self._removals.remove(key, files.writer)

    def clear(self) -> None:
        """Removes all values; no read finds them from now on."""
        files = self._mine()
        if files is not None:
            with self._lock:
                self._removals.remove_all(files.writer)

    def delete_where(
        self,
        *,
        name: str | None = None,
        prefix: str | None = None,
        predicate: Wanted | None = None,
        timeout_s: float | None = 10.0,
    ) -> int:
        """Removes the values that meet all the conditions given; returns how many there were.

        `name` is that of what was run, `prefix` how it begins; `predicate` is asked about key
        and `About` of each that is left, on other threads, and true when it raises. No read of
        this process finds them from now on. Waits until it is written: milliseconds, or until
        `timeout_s` (then the count is 0) where another process holds the file locked. Raises
        InvalidInputError without any condition.
        """
        if name is None and prefix is None and predicate is None:
            raise InvalidInputError("no condition is given", next_step="Give one, or use `clear`.")
        files = self._mine()
        if files is None:
            return 0
        counts: list[int] = []
        with self._lock:
            condition = Condition(name, prefix, predicate)
            self._removals.remove_where(condition, files.writer, counts.append)
        files.writer.flush(timeout_s)
        return sum(counts)

    def entries(self, limit: int = 1_000, order: Order = "stored") -> Iterator[Listed]:
        """What is stored and valid: the last stored, next to expire, largest or dearest first."""
        files = self._mine()
        if files is None:
            return
        hiding = self._hiding(files.writer)
        now_ns = self._clock.wall_ns()
        for row in self._rows(files, LIST[order], (now_ns, limit)):
            found = listed(row, now_ns)
            if found is not None and not (hiding and hiding.hides(found.key, found.about)):
                yield found

    def hottest(self, limit: int) -> Iterator[tuple[bytes, Found]]:
        """The most valuable rows, for a warm start: first those that were hit, then the others,
        the newest of each first. Others may read and write meanwhile."""
        for used in (1, 0):
            last = 2**63 - 1
            files = self._mine()
            while limit > 0 and files is not None:
                hiding = self._hiding(files.writer)
                rows = self._rows(files, HOTTEST, (used, last, min(limit, _CHUNK)))
                for last, key, payload, head in rows:  # noqa: B007 (where to go on)
                    found = self._shown(key, payload, head, hiding)
                    if found is not None:
                        limit -= 1
                        yield key, found
                files = self._mine() if rows else None

    def snapshot(self) -> DiskStats:
        """The size of the file now, and what was done so far."""
        files = self._mine()
        sizes = self._rows(files, SIZES, ()) if files is not None else []
        entries, size = sizes[0] if sizes else (0, 0)
        return DiskStats(
            entries=entries,
            bytes=size,
            evictions=self._room.evictions,
            expirations=self._room.expirations,
            damaged=self._damaged,
            dropped=self._dropped + (files.writer.lost if files is not None else 0),
        )

    def sweep(self) -> None:
        """Removes some expired rows, and others if room is short; part of storing."""
        files = self._mine()
        if files is not None:
            self._bytes_to_sweep = self.max_bytes // _SHARE
            self._unswept = False
            files.writer.run(lambda db: self._room.make(db, self._clock.wall_ns()))

    def flush(self, timeout_s: float | None = None) -> bool:
        """Waits until all that was stored before can be read; False on time-out."""
        if self._unswept and self.max_entries is not None:
            self.sweep()
        files = self._mine()
        return files is None or files.writer.flush(timeout_s)

    def after_written(self, callback: Callable[[], object]) -> None:
        """Calls `callback`, on the writer's thread, once all that was stored and removed before
        is in the file or lost; at once when the file is not used."""
        files = self._mine()
        if files is None:
            callback()
        else:
            files.writer.after_written(callback)

    def check(self) -> None:
        """Begins a new file if this one was removed or replaced, and tells so. To be called at times."""
        files = self._mine()
        if files is None or identity_of(self.path) == files.identity:
            return
        self.close()
        self._on_trouble(taken_away(self.path))
        self._open()

    def close(self) -> None:
        """Writes what is queued and closes the file; everything is a miss from then on."""
        if self._files is not None and self._mine() is None:
            return
        with self._lock:
            self._files = None
            opened, self._opened = self._opened, None
            if opened is not None:
                opened.reader.close()  # first: the last to close tidies up, which needs a writer
        if opened is not None:
            opened.writer.close()

    def _mine(self) -> Files | None:
        """The files, if they are open and of this process."""
        files = self._files
        if files is None or files.pid == os.getpid():
            return files
        self._files = None  # and never closed here: locks and threads are the parent's
        self._on_trouble(forked(self.path))
        return None

    def _rows(self, files: Files, sql: str, parameters: tuple[object, ...]) -> list[Any]:
        """What the file says, nothing if it cannot be read."""
        try:
            with self._lock:
                return files.reader.execute(sql, parameters).fetchall()
        except sqlite3.Error as exc:
            self._fail(exc)
            return []

    def _shown(
        self, key: bytes, payload: bytes, head: bytes, hiding: Hiding | None
    ) -> Found | None:
        """What a row holds, if it is to be believed and was not removed."""
        try:
            found = unpack(key, payload, head, self._clock.wall_ns())
        except DamagedRowError:
            self._drop_damaged(key)
            return None
        if found is not None and hiding is not None and hiding.hides(key, found.about):
            return None
        return found

    def _drop_damaged(self, key: bytes) -> None:
        _log.warning("%s: a damaged result is removed", self.path)
        self._damaged += 1
        self.delete(key)

    def _is_stalled(self, writer: BatchWriter) -> bool:
        """Whether the disk was full a moment ago; after a while it is tried again."""
        if not self._stalled_until_ns:
            return False
        now_ns = self._clock.monotonic_ns()
        if now_ns < self._stalled_until_ns:
            return True
        self._stalled_until_ns = now_ns + _PAUSE_NS
        lost = writer.lost
        self.sweep()

        def see() -> None:
            if writer.lost == lost:
                self._stalled_until_ns = 0

        writer.after_written(see)
        return False

    def _hiding(self, writer: BatchWriter) -> Hiding | None:
        """What was removed, and the file may not say so yet."""
        if not self._removals.latest:
            return None
        stalled = self._is_stalled(writer)
        with self._lock:
            return self._removals.hiding(writer, stalled=stalled)

    def _fail(self, error: Exception) -> None:
        """Ends the use of the file, unless it is only busy, or full, or one value was bad. It
        stays open until `close`: a thread may be using it."""
        trouble = trouble_with(self.path, error)
        if trouble.category.transient or trouble.category is Category.EXECUTION:
            _log.info("results are not stored or found for the moment: %s", trouble)
            return
        if trouble.category is Category.EXHAUSTED:
            told = self._stalled_until_ns
            self._stalled_until_ns = self._clock.monotonic_ns() + _PAUSE_NS
            if not told:
                self._on_trouble(trouble)
            return
        with self._lock:
            files, self._files = self._files, None
        if files is None:
            return
        if isinstance(trouble, CorruptStoreError):
            trouble = set_aside(self.path, files.identity, trouble)
        self._on_trouble(trouble)
