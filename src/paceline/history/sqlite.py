"""The history in an SQLite file: written behind, by one thread, in batches."""

import contextlib
import sqlite3
from collections.abc import Callable, Generator, Iterator, Mapping
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import Any, Final, final

import msgspec

from paceline.call import SPECULATED, Call, Kind, Outcome, Source, Tokens
from paceline.clock import Clock
from paceline.database import BatchWriter, connect, storage_errors
from paceline.errors import Category, CorruptStoreError, StorageError
from paceline.history.layout import SCHEMA, TABLE, open_to_read, upgrade
from paceline.history.record import Bill, Facts, Record, capture, storable
from paceline.history.store import MOST_OF_A_RUN, Tally, the_one, too_long
from paceline.redaction import Redactor

__all__ = ["SqliteHistory", "SqliteReader"]

_COLUMNS: Final = ", ".join(Record.__struct_fields__)
_MARKS: Final = ", ".join("?" for _ in Record.__struct_fields__)
# By name, so that it still fits when a later version has added columns.
_INSERT: Final = f"INSERT INTO calls ({_COLUMNS}) VALUES ({_MARKS})"  # noqa: S608 (of constants)
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

_FACTS: Final = (
    "name, kind, source, category, instead_of, attempts, queue_ns, execute_ns, total_ns, saved_ns,"
    " error_type, message, tokens_input, tokens_output, tokens_cached, tokens_written, tokens_reasoning,"
    " cost_usd, price_usd, at_ns, raw_usd, unpriced, saved_usd,"
    f" substr(id, -{len(SPECULATED)}) = '{SPECULATED}'"
)
# As `paceline.usage.spent_on` has it; added up here, as a month can have a million calls.
_BILLS: Final = """
SELECT name, user, tenant, SUM(COALESCE(tokens_input, 0) + COALESCE(tokens_output, 0)),
    SUM(COALESCE(raw_usd, cost_usd, price_usd * attempts)), MAX(at_ns)
FROM calls WHERE at_ns >= ? AND source = 'executed'
    AND (cost_usd IS NOT NULL OR tokens_input IS NOT NULL OR price_usd > 0)
GROUP BY at_ns / 86400000000000, name, user, tenant
"""
_RUN: Final = "CASE trace WHEN '' THEN id ELSE trace END"
_RUNS_OF: Final = (
    f"SELECT DISTINCT {_RUN} FROM calls WHERE id = ?",  # noqa: S608 (of constants)
    "SELECT DISTINCT trace FROM calls WHERE trace = ? AND trace <> ''",
)
_RUNS_LIKE: Final = (
    f"SELECT {_RUN} FROM calls WHERE id >= ?1 AND id < ?2"  # noqa: S608 (of constants)
    " UNION SELECT trace FROM calls WHERE trace <> '' AND trace >= ?1 AND trace < ?2 LIMIT 2"
)
_OF_RUN: Final = (
    "SELECT * FROM calls WHERE trace = ?1 OR (id = ?1 AND trace = '')"
    " ORDER BY at_ns - total_ns, seq LIMIT ?2"
)

_LEAN: Final = ", ".join(
    ["seq", *["NULL" if name == "input" else name for name in Record.__struct_fields__]]
)

_KINDS: Final[dict[str, Kind]] = {kind.value: kind for kind in Kind}
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
            f"substr(id, -{len(SPECULATED)}) <> ?": SPECULATED if errors_only else None,
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

    def trace(self, id: str, *, limit: int = MOST_OF_A_RUN) -> list[Record]:  # noqa: A002 (as above)
        """All calls of the run that this is, or the beginning of, the id of or in, in the order in
        which they began.

        Raises UsageError when there is none, more than one, or it has more than `limit` calls;
        StorageError.
        """
        id = storable(id)  # noqa: A001
        with self._open() as db:
            run = _the_run(db, id)
            rows = db.execute(_OF_RUN, (run, max(0, limit) + 1)).fetchall()
        if len(rows) > limit:
            raise too_long(run, limit)
        return [_read(row, self.path) for row in rows]

    def runs(self, *, since_ns: int | None = None) -> Iterator[list[Record]]:
        """The calls of each run, one run after the other, inputs left out; those of a run that
        ended since a moment of the wall clock. Raises StorageError."""
        given = {} if since_ns is None else {"at_ns >= ?": since_ns}
        sql = f"SELECT {_LEAN} FROM calls {_where(given)} ORDER BY trace"  # noqa: S608 (as above)
        with self._open() as db:
            rows = db.execute(sql, tuple(given.values()))
            for trace, group in groupby(rows, key=itemgetter(2)):
                records = [_read(row, self.path) for row in group]
                yield from [records] if trace else [[record] for record in records]

    def fold(self, add: Tally, *, since_ns: int | None = None) -> int:
        """Calls `add` with the facts of each record; returns how many there were.

        Raises StorageError.
        """
        given = {} if since_ns is None else {"at_ns >= ?": since_ns}
        sql = f"SELECT {_FACTS} FROM calls {_where(given)}"  # noqa: S608 (as above)
        count = 0
        with self._open() as db:
            for row in db.execute(sql, tuple(given.values())):
                add(_facts(row, self.path))
                count += 1
        return count

    def bills(self, since_ns: int) -> list[Bill]:
        """What calls since a moment cost, by day, agent and user. Raises StorageError."""
        with self._open() as db:
            return [Bill(*row) for row in db.execute(_BILLS, (since_ns,))]

    @contextlib.contextmanager
    def _open(self) -> Generator[sqlite3.Connection]:
        with storage_errors(self.path), contextlib.ExitStack() as stack:
            if self.path.exists() and self.path.stat().st_size:
                db = stack.enter_context(contextlib.closing(open_to_read(self.path)))
            else:
                db = stack.enter_context(contextlib.closing(sqlite3.connect(":memory:")))
                db.execute(TABLE)
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
        upgrade(path)
        schema = msgspec.structs.replace(SCHEMA, max_bytes=max_bytes)
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

    def trace(self, id: str, *, limit: int = MOST_OF_A_RUN) -> list[Record]:  # noqa: A002 (as above)
        """All calls of one run, in the order in which they began; see `SqliteReader.trace`."""
        return self._reader.trace(id, limit=limit)

    def fold(self, add: Tally, *, since_ns: int | None = None) -> int:
        """Calls `add` with the facts of each record; returns how many there were.

        Raises StorageError.
        """
        return self._reader.fold(add, since_ns=since_ns)

    def bills(self, since_ns: int) -> list[Bill]:
        """What calls since a moment cost, by day, agent and user; see `SqliteReader.bills`."""
        return self._reader.bills(since_ns)

    def prune(self, *, max_age_s: float | None = None, max_records: int | None = None) -> int:
        """Removes records older than an age (seconds), and the oldest beyond a number; returns
        how many. What fails is told to `on_loss`; what was removed until then stays removed."""
        removed = 0
        try:
            with (
                storage_errors(self._writer.path),
                contextlib.closing(connect(self._writer.path, SCHEMA)) as db,
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
            f"{self.lost:,} calls were not recorded: {exc}",
            next_step=exc.next_step,
            category=exc.category,
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


def _facts(row: tuple[Any, ...], path: Path) -> Facts:
    name, kind, source, category, instead_of, *others = row
    known = category in _CATEGORIES and instead_of in _CATEGORIES
    if kind not in _KINDS or source not in _SOURCES or not known:
        raise _unreadable(path)
    attempts, queue_ns, execute_ns, total_ns, saved_ns, error_type, message, *others = others
    used, made, cached, written, thought, *others, speculated = others
    others.append(bool(speculated))
    return Facts(
        name,
        _KINDS[kind],
        _SOURCES[source],
        _CATEGORIES[category],
        _CATEGORIES[instead_of],
        attempts,
        queue_ns,
        execute_ns,
        total_ns,
        saved_ns,
        error_type,
        message,
        None if used is None else Tokens(used, made or 0, cached or 0, written or 0, thought or 0),
        *others,
    )


def _the_run(db: sqlite3.Connection, id: str) -> str:  # noqa: A002 (as above)
    found: list[str] = []
    for sql in _RUNS_OF:
        found = found or [row[0] for row in db.execute(sql, (id,))]
    if not found:
        found = [row[0] for row in db.execute(_RUNS_LIKE, (id, id + _LAST_CHARACTER))]
    return the_one(id, found, "run")


def _unreadable(path: Path) -> CorruptStoreError:
    return CorruptStoreError(
        f"{path} has a record that this version of Paceline cannot read",
        next_step="Use the version of Paceline that wrote it, or move the file away.",
    )
