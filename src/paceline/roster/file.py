"""The roster in an SQLite file, which all processes of a home share."""

import contextlib
import sqlite3
import threading
from collections.abc import Callable, Generator, Sequence
from pathlib import Path
from typing import Final, cast, final

import msgspec
from msgspec.structs import astuple, replace

from paceline.cache.disk.files import Identity, identity_of, set_aside
from paceline.clock import Clock
from paceline.database import Schema, connect, storage_errors
from paceline.errors import Category, CorruptStoreError, StorageError
from paceline.roster.process import is_gone, this_process
from paceline.roster.records import Status, Wish

__all__ = ["FRESH_NS", "Roster", "open_to_read"]

FRESH_NS: Final = 10_000_000_000
"""What a process published is believed for so long."""

_BUSY_MS: Final = 1_000
"""A write is over in a millisecond; who publishes each second must not wait for long."""
_OF_WISHES: Final = """CREATE TABLE wishes (
    agent TEXT NOT NULL, instance TEXT NOT NULL, kind TEXT NOT NULL, by TEXT NOT NULL,
    at_ns INTEGER NOT NULL, until_ns INTEGER, PRIMARY KEY (agent, instance)
) WITHOUT ROWID"""
_OF_PROCESSES: Final = """CREATE TABLE processes (
    process TEXT NOT NULL PRIMARY KEY, at_ns INTEGER NOT NULL, statuses BLOB NOT NULL
) WITHOUT ROWID"""
_SCHEMA: Final = Schema(version=1, statements=(_OF_WISHES, _OF_PROCESSES))
_WISHES: Final = "SELECT agent, instance, kind, by, at_ns, until_ns FROM wishes"
_WITHDRAW: Final = (
    "DELETE FROM wishes WHERE agent = ? AND instance = ?"
    " RETURNING agent, instance, kind, by, at_ns, until_ns"
)


@final
class Roster:
    """The wishes of operators, and how the instances of each process stand.

    A file that is not there is empty, and made by the first that writes. Wishes stay until their
    end or until they are withdrawn; what a process published goes with it, and is shown only while
    that process renews it. Every method may be called from any thread, and raises StorageError:
    of category UNAVAILABLE after a second in which another process holds the file. A damaged file
    is moved aside when that is found, which raises CorruptStoreError; the next call begins a new
    one.
    """

    def __init__(
        self,
        path: Path,
        clock: Clock,
        *,
        process: str | None = None,
        gone: Callable[[str], bool] = is_gone,
    ) -> None:
        """Nothing is opened yet. `process` is who publishes (default: this one); `gone` says
        whether another has ended."""
        self.path = path
        self.process = this_process() if process is None else process
        self._clock = clock
        self._gone = gone
        self._lock = threading.Lock()
        self._db: sqlite3.Connection | None = None
        self._opened: Identity = None
        self._read: tuple[int, list[Wish]] | None = None  # wishes, and the version of the file

    def wishes(self) -> list[Wish]:
        """What is wanted now. Cheap where nothing has been written since the last time."""
        with self._reading() as db:
            if db is None:
                return []
            version = db.execute("PRAGMA data_version").fetchone()[0]  # of what others wrote
            if self._read is None or self._read[0] != version:
                self._read = version, [_wish(row) for row in db.execute(_WISHES)]
            now_ns = self._clock.wall_ns()
            return [w for w in self._read[1] if w.until_ns is None or w.until_ns > now_ns]

    def wish(self, wish: Wish) -> None:
        """Wants something of an instance, in place of what was wanted of it before."""
        with self._writing() as db:
            db.execute("INSERT OR REPLACE INTO wishes VALUES (?, ?, ?, ?, ?, ?)", astuple(wish))

    def withdraw(self, agent: str, instance: str) -> Wish | None:
        """Takes back what is wanted of an instance; returns that, None if nothing was."""
        with self._reading() as db:
            if db is None:
                return None
        with self._writing() as db:
            row = db.execute(_WITHDRAW, (agent, instance)).fetchone()
            return None if row is None else _wish(row)

    def publish(self, statuses: Sequence[Status]) -> None:
        """How the instances of this process stand now, in place of what it published before."""
        if not statuses and not self.path.exists():
            return
        with self._writing() as db:
            if statuses:
                row = (self.process, self._clock.wall_ns(), msgspec.json.encode(statuses))
                db.execute("INSERT OR REPLACE INTO processes VALUES (?, ?, ?)", row)
            else:
                db.execute("DELETE FROM processes WHERE process = ?", (self.process,))

    def statuses(self) -> list[Status]:
        """How the instances of all running processes stand."""
        with self._reading() as db:
            if db is None:
                return []
            rows = db.execute(
                "SELECT process, statuses FROM processes WHERE at_ns BETWEEN ? AND ?"
                " ORDER BY process",
                self._fresh(),
            ).fetchall()
            return [
                replace(status, process=process)
                for process, statuses in rows
                if not self._gone(process)
                for status in _decoded(statuses)
            ]

    def close(self) -> None:
        """Closes the file; the next use opens it again."""
        with self._lock:
            self._forget()

    def _fresh(self) -> tuple[int, int]:
        """From when to when something must be of to be believed; a clock that was set back must
        not keep it for ever."""
        now_ns = self._clock.wall_ns()
        return now_ns - FRESH_NS, now_ns + FRESH_NS

    @contextlib.contextmanager
    def _reading(self) -> Generator[sqlite3.Connection | None]:
        """The open file; None if there is none."""
        with self._lock, self._guarded():
            yield self._connected() if self.path.exists() else None

    @contextlib.contextmanager
    def _writing(self) -> Generator[sqlite3.Connection]:
        """The open file in a transaction, in which what nobody needs any more goes too."""
        with self._lock, self._guarded():
            db = self._connected()
            db.execute("BEGIN IMMEDIATE")  # any error closes the file, which undoes it
            self._tidy(db)
            yield db
            self._read = None  # its version is for what others write
            db.execute("COMMIT")

    def _tidy(self, db: sqlite3.Connection) -> None:
        now_ns = self._clock.wall_ns()
        db.execute("DELETE FROM wishes WHERE until_ns <= ?", (now_ns,))
        db.execute("DELETE FROM processes WHERE at_ns NOT BETWEEN ? AND ?", self._fresh())
        for (process,) in db.execute("SELECT process FROM processes").fetchall():
            if self._gone(process):
                db.execute("DELETE FROM processes WHERE process = ?", (process,))

    @contextlib.contextmanager
    def _guarded(self) -> Generator[None]:
        """After an error the file is closed; a damaged one is moved aside."""
        known = identity_of(self.path)
        try:
            with storage_errors(self.path):
                yield
        except CorruptStoreError as exc:
            self._forget()
            if exc.category is Category.INVALID:  # of another version: nothing is wrong with it
                raise
            raise _moved_aside(self.path, known, exc) from exc
        except BaseException:
            self._forget()
            raise

    def _connected(self) -> sqlite3.Connection:
        """The open file, made if there is none."""
        if self._current() is None:
            self._db = connect(self.path, _SCHEMA)
            self._db.execute(f"PRAGMA busy_timeout={_BUSY_MS}")
            self._opened = identity_of(self.path)
        return cast("sqlite3.Connection", self._db)

    def _current(self) -> sqlite3.Connection | None:
        """The open file, if it is still the one that is there."""
        if self._db is not None and identity_of(self.path) != self._opened:
            self._forget()
        return self._db

    def _forget(self) -> None:
        db, self._db, self._read = self._db, None, None
        if db is not None:
            db.close()


def open_to_read(path: Path) -> sqlite3.Connection:
    """The file of a roster, as it is. Raises StorageError and CorruptStoreError."""
    return connect(path, _SCHEMA, read_only=True)


def _moved_aside(path: Path, known: Identity, error: CorruptStoreError) -> StorageError:
    moved = set_aside(path, known, error)
    if not isinstance(moved, CorruptStoreError):
        return moved
    return CorruptStoreError(
        str(moved),
        next_step="Try again; what was drained or ejected by hand has to be so once more.",
    )


def _wish(row: tuple[object, ...]) -> Wish:
    try:
        return msgspec.convert(dict(zip(Wish.__struct_fields__, row, strict=True)), Wish)
    except msgspec.ValidationError as exc:
        raise CorruptStoreError(f"a wish in the roster cannot be read: {exc}") from exc


def _decoded(statuses: bytes) -> list[Status]:
    try:
        return msgspec.json.decode(statuses, type=list[Status])
    except (msgspec.DecodeError, TypeError) as exc:
        raise CorruptStoreError(f"a status in the roster cannot be read: {exc}") from exc
