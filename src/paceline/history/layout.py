"""What the history file looks like, looked like before, and how the one becomes the other.

A file of an earlier version is brought up to date by the first process that writes to it, and keeps
its records. Who only reads does not wait for that: it sees an earlier file through a view.
"""

import contextlib
import sqlite3
from pathlib import Path
from typing import Final

from paceline.database import Schema, connect, storage_errors
from paceline.errors import Category, CorruptStoreError

__all__ = ["SCHEMA", "TABLE", "open_to_read", "upgrade"]

# The columns after the first are the fields of Record, in their order.
_FIRST_COLUMNS: Final = """
    seq INTEGER PRIMARY KEY,
    id TEXT NOT NULL, trace TEXT NOT NULL, parent TEXT, kind TEXT NOT NULL, name TEXT NOT NULL,
    user TEXT, session TEXT, tenant TEXT, scope TEXT NOT NULL,
    input TEXT, input_hash TEXT, output_hash TEXT, output_bytes INTEGER,
    source TEXT NOT NULL, instance TEXT NOT NULL, attempts INTEGER NOT NULL,
    queue_ns INTEGER NOT NULL, execute_ns INTEGER NOT NULL, total_ns INTEGER NOT NULL,
    category TEXT, message TEXT,
    tokens_input INTEGER, tokens_output INTEGER, tokens_cached INTEGER, cost_usd REAL,
    at_ns INTEGER NOT NULL
"""
# What each later version added, in this order.
_ADDED: Final = {
    2: (
        "link TEXT",
        "error_type TEXT",
        "saved_ns INTEGER NOT NULL DEFAULT 0",
        "price_usd REAL NOT NULL DEFAULT 0",
        "tokens_written INTEGER",
        "tokens_reasoning INTEGER",
        "raw_usd REAL",
        "unpriced INTEGER NOT NULL DEFAULT 0",
        "saved_usd REAL",
    ),
    3: ("instead_of TEXT",),
}
_INDICES: Final = (
    "CREATE INDEX calls_by_id ON calls (id)",
    "CREATE INDEX calls_by_time ON calls (at_ns)",
    "CREATE INDEX calls_by_name ON calls (name, at_ns)",
)
_MORE_INDICES: Final = {2: ("CREATE INDEX calls_by_trace ON calls (trace)",)}


def _of_version(version: int) -> Schema:
    """What a file of this version looks like."""
    later = range(2, version + 1)
    columns = ", ".join([_FIRST_COLUMNS, *(column for v in later for column in _ADDED[v])])
    indices = (*_INDICES, *(index for v in later for index in _MORE_INDICES.get(v, ())))
    return Schema(version, (f"CREATE TABLE calls ({columns})", *indices))


SCHEMA: Final = _of_version(max(_ADDED))
TABLE: Final = SCHEMA.statements[0]
_EARLIER: Final = tuple([_of_version(version) for version in range(1, SCHEMA.version)])
_UPGRADES: Final = {
    version: (
        *[f"ALTER TABLE calls ADD COLUMN {column}" for column in columns],
        *_MORE_INDICES.get(version, ()),
    )
    for version, columns in _ADDED.items()
}
"""What makes a file one of this version, of one of the version before."""


def _as_if_upgraded(version: int) -> str:
    """A view of the calls in a file of this version as they will look once it is upgraded."""
    added = [column for later in range(version + 1, SCHEMA.version + 1) for column in _ADDED[later]]
    values = [f"{_default(column)} AS {column.split()[0]}" for column in added]
    return f"CREATE TEMP VIEW calls AS SELECT *, {', '.join(values)} FROM main.calls"  # noqa: S608 (of constants)


def _default(column: str) -> str:
    _, _, default = column.partition(" DEFAULT ")
    return default or "NULL"


def open_to_read(path: Path) -> sqlite3.Connection:
    """A connection that only reads, and sees `calls` as `SCHEMA` has it in earlier files too.

    Raises CorruptStoreError (INVALID for a file of a later version) and StorageError.
    """
    try:
        return connect(path, SCHEMA, read_only=True)
    except CorruptStoreError as other:
        if other.category is not Category.INVALID:
            raise
        for earlier in _EARLIER:
            with contextlib.suppress(CorruptStoreError):
                db = connect(path, earlier, read_only=True)
                db.execute(_as_if_upgraded(earlier.version))
                return db
        raise  # it is later, not earlier


def upgrade(path: Path) -> None:
    """Gives a file of an earlier version the columns it lacks, all or none; leaves any other file
    as it is. Raises StorageError."""
    with storage_errors(path):
        if not path.is_file() or not path.stat().st_size:
            return
        for earlier in _EARLIER:
            # What is not of this version is of another, or something that whoever opens it next
            # is told of.
            with contextlib.suppress(CorruptStoreError):
                # Without a limit of size: a file that is full must not be shut out for good.
                with contextlib.closing(connect(path, earlier)) as db:
                    _upgrade(db)
                return


def _upgrade(db: sqlite3.Connection) -> None:
    db.execute("BEGIN IMMEDIATE")
    try:
        # Another process may have been first.
        version = db.execute("PRAGMA user_version").fetchone()[0]
        for later in range(version + 1, SCHEMA.version + 1):
            for statement in _UPGRADES[later]:
                db.execute(statement)
            db.execute(f"PRAGMA user_version={later}")
        db.execute("COMMIT")
    except BaseException:
        if db.in_transaction:
            db.execute("ROLLBACK")
        raise
