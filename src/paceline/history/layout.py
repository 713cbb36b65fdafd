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
_ADDED: Final = (
    "link TEXT",
    "error_type TEXT",
    "saved_ns INTEGER NOT NULL DEFAULT 0",
    "price_usd REAL NOT NULL DEFAULT 0",
    "tokens_written INTEGER",
    "tokens_reasoning INTEGER",
    "raw_usd REAL",
    "unpriced INTEGER NOT NULL DEFAULT 0",
    "saved_usd REAL",
)
TABLE: Final = f"CREATE TABLE calls ({_FIRST_COLUMNS}, {', '.join(_ADDED)})"
_FIRST_INDICES: Final = (
    "CREATE INDEX calls_by_id ON calls (id)",
    "CREATE INDEX calls_by_time ON calls (at_ns)",
    "CREATE INDEX calls_by_name ON calls (name, at_ns)",
)
_BY_TRACE: Final = "CREATE INDEX calls_by_trace ON calls (trace)"

SCHEMA: Final = Schema(version=2, statements=(TABLE, *_FIRST_INDICES, _BY_TRACE))
_FIRST: Final = Schema(
    version=1, statements=(f"CREATE TABLE calls ({_FIRST_COLUMNS})", *_FIRST_INDICES)
)
_UPGRADE: Final = (
    *[f"ALTER TABLE calls ADD COLUMN {column}" for column in _ADDED],
    _BY_TRACE,
    f"PRAGMA user_version={SCHEMA.version}",
)
_AS_IF_UPGRADED: Final = """
CREATE TEMP VIEW calls AS
SELECT *, NULL AS link, NULL AS error_type, 0 AS saved_ns, 0.0 AS price_usd,
    NULL AS tokens_written, NULL AS tokens_reasoning, NULL AS raw_usd, 0 AS unpriced,
    NULL AS saved_usd
FROM main.calls
"""


def open_to_read(path: Path) -> sqlite3.Connection:
    """A connection that only reads, and sees `calls` as `SCHEMA` has it in earlier files too.

    Raises CorruptStoreError (INVALID for a file of a later version) and StorageError.
    """
    try:
        return connect(path, SCHEMA, read_only=True)
    except CorruptStoreError as other:
        if other.category is not Category.INVALID:
            raise
        with contextlib.suppress(CorruptStoreError):
            db = connect(path, _FIRST, read_only=True)
            db.execute(_AS_IF_UPGRADED)
            return db
        raise  # it is later, not earlier


def upgrade(path: Path) -> None:
    """Gives a file of the first version the columns it lacks, all or none; leaves any other file
    as it is. Raises StorageError."""
    with storage_errors(path):
        if not path.is_file() or not path.stat().st_size:
            return
        try:
            # Without a limit of size: a file that is full must not be shut out for good.
            db = connect(path, _FIRST)
        except CorruptStoreError:
            return  # current, or something that whoever opens it next is told of
        with contextlib.closing(db):
            db.execute("BEGIN IMMEDIATE")
            try:
                # Another process may have been first.
                if db.execute("PRAGMA user_version").fetchone()[0] == _FIRST.version:
                    for statement in _UPGRADE:
                        db.execute(statement)
                db.execute("COMMIT")
            except BaseException:
                if db.in_transaction:
                    db.execute("ROLLBACK")
                raise
