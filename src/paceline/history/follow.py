"""A history file read as it grows: each look brings what was recorded since the last, once.

Records are told apart by their place in the file, not by their time: several processes write behind,
so the later of two calls may be recorded first.
"""

import contextlib
import sqlite3
from collections.abc import Collection, Generator
from pathlib import Path
from typing import Final, final

import msgspec

from paceline.database import storage_errors
from paceline.history.layout import open_to_read
from paceline.history.record import Record

__all__ = ["Batch", "Follower"]

_MOST: Final = 20_000
"""Records of one look: some tenths of a second, and tens of megabytes."""


_FIELDS: Final = Record.__struct_fields__
_COLUMNS: Final = ", ".join(["NULL" if name == "input" else name for name in _FIELDS])
_NEXT: Final = f"SELECT seq, {_COLUMNS} FROM calls WHERE seq > ? ORDER BY seq LIMIT ?"  # noqa: S608 (of constants)


class Batch(msgspec.Struct, frozen=True):
    """What one look found."""

    rows: list[Record] = []
    """In the order in which they were recorded; without their inputs."""
    anew: bool = False
    """Another file, or an emptied one, is there: what was seen before is not in it."""
    missing: bool = False
    """There is no file."""
    more: bool = False
    """There is more to be had at once."""
    latest_ns: int | None = None
    """When the latest of all recorded calls ended, by the wall clock."""
    unreadable: int = 0
    """Records left out, because this version cannot read them."""


@final
class Follower:
    """Reads a history file, which other processes are writing, as it grows.

    Each look opens the file anew, so it may vanish, come back and be replaced; one thread at a time.
    """

    __slots__ = ("_file", "_id", "_most", "_seq", "path")

    def __init__(self, path: Path, most: int = _MOST) -> None:
        """Nothing is opened yet; `most` is the number of records of one look."""
        self.path = path
        self._most = most
        self._file: tuple[int, int] | None = None
        self._seq = 0
        self._id = ""

    def look(self, since_ns: int | None = None) -> Batch:
        """The records since the last look, at most so many. The first look at a file begins with
        the first record of a call that ended at or after `since_ns` of the wall clock.

        Raises StorageError; then the next look goes on where this one should have.
        """
        with storage_errors(self.path):
            if not self.path.exists() or not self.path.stat().st_size:
                return Batch(missing=True)
            status = self.path.stat()
            with self._open() as db:
                return self._read(db, (status.st_dev, status.st_ino), since_ns)

    def restart(self) -> None:
        """Makes the next look the first."""
        self._file = None

    def inputs(self, ids: Collection[str]) -> dict[str, str]:
        """The recorded arguments of calls, as JSON, where there are any. Raises StorageError."""
        if not ids or not self.path.exists():
            return {}
        marks = ", ".join("?" for _ in ids)
        sql = f"SELECT id, input FROM calls WHERE id IN ({marks}) AND input IS NOT NULL"  # noqa: S608 (of marks)
        with storage_errors(self.path), self._open() as db:
            return dict(db.execute(sql, tuple(ids)).fetchall())

    @contextlib.contextmanager
    def _open(self) -> Generator[sqlite3.Connection]:
        with contextlib.closing(open_to_read(self.path)) as db:
            db.execute("BEGIN")  # one state of the file, whatever others write meanwhile
            yield db

    def _read(self, db: sqlite3.Connection, file: tuple[int, int], since_ns: int | None) -> Batch:
        last, latest_ns = db.execute(
            "SELECT (SELECT max(seq) FROM calls), (SELECT max(at_ns) FROM calls)"
        ).fetchone()
        anew = self._file != file or not self._goes_on(db, last or 0)
        after = _start(db, last or 0, since_ns) if anew else self._seq
        found = db.execute(_NEXT, (after, self._most)).fetchall()
        rows = _converted(found)
        self._file = file
        self._seq, self._id = found[-1][:2] if found else (after, "" if anew else self._id)
        return Batch(
            rows,
            anew=anew,
            more=len(found) == self._most,
            latest_ns=latest_ns,
            unreadable=len(found) - len(rows),
        )

    def _goes_on(self, db: sqlite3.Connection, last: int) -> bool:
        """Whether this file still has what was read of it, or had it until that grew too old.

        A file that replaced another may have got its number, and a new one uses places again."""
        if last < self._seq:
            return False
        row = db.execute("SELECT id FROM calls WHERE seq = ?", (self._seq,)).fetchone()
        return row is None or not self._id or row[0] == self._id


def _start(db: sqlite3.Connection, last: int, since_ns: int | None) -> int:
    """The place before the first record of a call that ended at or after a moment."""
    if since_ns is None:
        return 0
    first = db.execute("SELECT min(seq) FROM calls WHERE at_ns >= ?", (since_ns,)).fetchone()[0]
    return last if first is None else int(first) - 1


def _converted(found: list[tuple[object, ...]]) -> list[Record]:
    """The records; without those that cannot be read, which must not hide the others."""
    named = [dict(zip(_FIELDS, row[1:], strict=True)) for row in found]
    try:
        return msgspec.convert(named, list[Record])
    except msgspec.ValidationError:
        rows: list[Record] = []
        for each in named:
            with contextlib.suppress(msgspec.ValidationError):
                rows.append(msgspec.convert(each, Record))
        return rows
