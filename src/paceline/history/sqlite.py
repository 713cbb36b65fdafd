"""The history in an SQLite file: written behind, by one thread, in batches."""

import contextlib
import sqlite3
from collections.abc import Callable, Generator, Mapping
from pathlib import Path
from typing import Final, final

import msgspec

from paceline.call import Call, Outcome, Source
from paceline.clock import Clock
from paceline.database import BatchWriter, Schema, connect, storage_errors
from paceline.errors import Category, CorruptStoreError, StorageError
from paceline.history.record import Record, capture, storable
from paceline.history.store import Tally, the_one
from paceline.redaction import Redactor

__all__ = ["SqliteHistory", "SqliteReader"]

# The columns after the first are the fields of Record, in their order.
_TABLE: Final = """
CREATE TABLE calls (
    seq INTEGER PRIMARY KEY,
    id TEXT NOT NULL, trace TEXT NOT NULL, parent TEXT, kind TEXT NOT NULL, name TEXT NOT NULL,
    user TEXT, session TEXT, tenant TEXT, scope TEXT NOT NULL,
    input TEXT, input_hash TEXT, output_hash TEXT, output_bytes INTEGER,
    source TEXT NOT NULL, instance TEXT NOT NULL, attempts INTEGER NOT NULL,
    queue_ns INTEGER NOT NULL, execute_ns INTEGER NOT NULL, total_ns INTEGER NOT NULL,
    category TEXT, message TEXT,
    tokens_input INTEGER, tokens_output INTEGER, tokens_cached INTEGER, cost_usd REAL,
    at_ns INTEGER NOT NULL
)
"""
_MARKS: Final = ", ?" * len(Record.__struct_fields__)
_INSERT: Final = f"INSERT INTO calls VALUES (NULL{_MARKS})"  # noqa: S608 (of constants)
_SCHEMA: Final = Schema(
    version=1,
    statements=(
        _TABLE,
        "CREATE INDEX calls_by_id ON calls (id)",
        "CREATE INDEX calls_by_time ON calls (at_ns)",
        "CREATE INDEX calls_by_name ON calls (name, at_ns)",
    ),
)
_REMOVE_OLDER: Final = (
    "DELETE FROM calls WHERE seq IN (SELECT seq FROM calls WHERE at_ns < ? LIMIT ?)"
)
_REMOVE: Final = (
    "DELETE FROM calls WHERE seq IN (SELECT seq FROM calls ORDER BY at_ns, seq LIMIT ?)"
)
_LAST_CHARACTER: Final = "\U0010ffff"
_MAX_PENDING: Final = 50_000
"""Calls that may wait to be written: seconds of the fastest caller, some tens of megabytes."""
_CHUNK: Final = 10_000
"""Rows removed in one transaction, so that no other process has to wait long."""

_SOURCES: Final[dict[str, Source]] = {source.value: source for source in Source}
_CATEGORIES: Final[dict[str | None, Category | None]] = {
    None: None,
    **{category.value: category for category in Category},
}


@final
class SqliteReader:
    """Reads a history file, which another process may be writing. A missing file has no records.

    Each question opens the file anew: use it from any thread, and close nothing.
    """

    __slots__ = ("path",)

    def __init__(self, path: Path) -> None:
        """Nothing is opened yet."""
        self.path = path

    def query(
        self,
        *,
        name: str | None = None,
        user: str | None = None,
        since_ns: int | None = None,
        errors_only: bool = False,
        limit: int = 50,
    ) -> list[Record]:
        """The newest records that fit, newest first. Raises StorageError."""
        asked = {
            "name = ?": name and storable(name),
            "user = ?": user and storable(user),
            "at_ns >= ?": since_ns,
            "category <> ?": Category.CANCELLED.value if errors_only else None,
        }
        given = {condition: value for condition, value in asked.items() if value is not None}
        sql = f"SELECT * FROM calls {_where(given)} ORDER BY at_ns DESC, seq DESC LIMIT ?"  # noqa: S608 (conditions are constants, values are bound)
        with self._open() as db:
            rows = db.execute(sql, (*given.values(), max(0, limit))).fetchall()
        return [_read(row, self.path) for row in rows]

    def get(self, id: str) -> Record:  # noqa: A002 (the protocol's word)
        """The record of this id, or of the one id that begins so.

        Raises UsageError when there is none or more than one, StorageError.
        """
        id = storable(id)  # noqa: A001
        sql = "SELECT DISTINCT id FROM calls WHERE id >= ? AND id < ? ORDER BY id LIMIT 2"
        with self._open() as db:
            rows = db.execute(sql, (id, id + _LAST_CHARACTER)).fetchall()
            found = the_one(id, [row[0] for row in rows])
            newest = "SELECT * FROM calls WHERE id = ? ORDER BY seq DESC LIMIT 1"
            return _read(db.execute(newest, (found,)).fetchone(), self.path)

    def fold(self, add: Tally, *, since_ns: int | None = None) -> int:
        """Calls `add` with the figures of each record; returns how many there were.

        Raises StorageError.
        """
        given = {} if since_ns is None else {"at_ns >= ?": since_ns}
        sql = (
            "SELECT name, source, category, queue_ns, execute_ns, total_ns"  # noqa: S608 (as above)
            f" FROM calls {_where(given)}"
        )
        count = 0
        with self._open() as db:
            for row in db.execute(sql, tuple(given.values())):
                name, source, category, queue_ns, execute_ns, total_ns = row
                if source not in _SOURCES or category not in _CATEGORIES:
                    raise _unreadable(self.path)
                add(
                    name,
                    source=_SOURCES[source],
                    category=_CATEGORIES[category],
                    queue_ns=queue_ns,
                    execute_ns=execute_ns,
                    total_ns=total_ns,
                )
                count += 1
        return count

    @contextlib.contextmanager
    def _open(self) -> Generator[sqlite3.Connection]:
        with storage_errors(self.path), contextlib.ExitStack() as stack:
            if self.path.exists() and self.path.stat().st_size:
                db = stack.enter_context(
                    contextlib.closing(connect(self.path, _SCHEMA, read_only=True))
                )
            else:
                db = stack.enter_context(contextlib.closing(sqlite3.connect(":memory:")))
                db.execute(_TABLE)
            yield db


@final
class SqliteHistory:
    """Records calls in a file; a call pays for little more than an append to a queue.

    Trouble with the file (a full disk, damage) loses records and never disturbs a call:
    `on_loss` is told, on the writer's thread, when losing starts. A file that is damaged already
    when opened is refused. Readable only by its owner.
    """

    __slots__ = ("_clock", "_keep_inputs", "_on_loss", "_reader", "_redactor", "_writer")

    def __init__(
        self,
        path: Path,
        *,
        clock: Clock,
        redactor: Redactor,
        keep_inputs: bool = True,
        on_loss: Callable[[StorageError], None],
        max_bytes: int | None = None,
    ) -> None:
        """`max_bytes` limits the file, None does not.

        Raises StorageError if the file cannot be written, and CorruptStoreError if it is
        damaged, of another program or of a newer version: it is left as it is, for nobody
        but its owner can say what a record of the past is worth.
        """
        self._clock = clock
        self._redactor = redactor
        self._keep_inputs = keep_inputs
        self._on_loss = on_loss
        self._reader = SqliteReader(path)
        schema = msgspec.structs.replace(_SCHEMA, max_bytes=max_bytes)
        self._writer = BatchWriter(path, schema, on_loss=self._tell, max_pending=_MAX_PENDING)

    @property
    def lost(self) -> int:
        """Calls that were observed and could not be recorded."""
        return self._writer.lost

    def observe(self, call: Call, outcome: Outcome) -> None:
        """Queues the record of a finished call; hashing and redaction are left to the writer."""
        taken = capture(call, outcome, self._clock)

        def row() -> tuple[object, ...]:
            made = taken.record(self._redactor, keep_inputs=self._keep_inputs)
            return msgspec.structs.astuple(made)

        self._writer.submit(_INSERT, row)

    def query(
        self,
        *,
        name: str | None = None,
        user: str | None = None,
        since_ns: int | None = None,
        errors_only: bool = False,
        limit: int = 50,
    ) -> list[Record]:
        """The newest records that fit, newest first. Raises StorageError."""
        return self._reader.query(
            name=name, user=user, since_ns=since_ns, errors_only=errors_only, limit=limit
        )

    def get(self, id: str) -> Record:  # noqa: A002 (the protocol's word)
        """The record of this id, or of the one id that begins so; see `SqliteReader.get`."""
        return self._reader.get(id)

    def fold(self, add: Tally, *, since_ns: int | None = None) -> int:
        """Calls `add` with the figures of each record; returns how many there were.

        Raises StorageError.
        """
        return self._reader.fold(add, since_ns=since_ns)

    def prune(self, *, max_age_s: float | None = None, max_records: int | None = None) -> int:
        """Removes records older than an age (seconds), and the oldest beyond a number; returns
        how many. What fails is told to `on_loss`; what was removed until then stays removed."""
        removed = 0
        try:
            with (
                storage_errors(self._writer.path),
                contextlib.closing(connect(self._writer.path, _SCHEMA)) as db,
            ):
                if max_age_s is not None:
                    oldest_ns = self._clock.wall_ns() - round(max_age_s * 1e9)
                    while gone := db.execute(_REMOVE_OLDER, (oldest_ns, _CHUNK)).rowcount:
                        removed += gone
                if max_records is not None:
                    surplus = db.execute("SELECT count(*) FROM calls").fetchone()[0] - max_records
                    while gone := db.execute(_REMOVE, (max(0, min(surplus, _CHUNK)),)).rowcount:
                        surplus -= gone
                        removed += gone
        except StorageError as exc:
            self._on_loss(exc)
        return removed

    def flush(self, timeout_s: float | None = None) -> bool:
        """Waits until all that was observed is recorded or lost; False on time-out."""
        return self._writer.flush(timeout_s)

    def close(self) -> None:
        """Writes what is queued and closes the file; it can still be read."""
        self._writer.close()

    def _tell(self, exc: StorageError) -> None:
        lost = StorageError(
            f"{self.lost:,} calls were not recorded: {exc}", next_step=exc.next_step
        )
        lost.__cause__ = exc
        self._on_loss(lost)


def _where(given: Mapping[str, object]) -> str:
    return f"WHERE {' AND '.join(given)}" if given else ""


def _read(row: tuple[object, ...], path: Path) -> Record:
    try:
        return msgspec.convert(dict(zip(Record.__struct_fields__, row[1:], strict=True)), Record)
    except msgspec.ValidationError as exc:
        raise _unreadable(path) from exc


def _unreadable(path: Path) -> CorruptStoreError:
    return CorruptStoreError(
        f"{path} has a record that this version of Paceline cannot read",
        next_step="Use the version of Paceline that wrote it, or move the file away.",
    )
