"""Records in a history file, for tests that read one."""

import contextlib
from collections.abc import Iterable
from pathlib import Path

import msgspec

from paceline.call import Kind, ScopeLevel, Source
from paceline.database import connect
from paceline.history.layout import SCHEMA
from paceline.history.record import Record

_COLUMNS = ", ".join(Record.__struct_fields__)
_MARKS = ", ".join("?" for _ in Record.__struct_fields__)
_EMPTY = {field.name: None for field in msgspec.structs.fields(Record) if field.required}


def row(id_: str, at_ns: int, **fields: object) -> Record:
    """A call of `echo` that was executed in 5 ms, save what is said of it."""
    given = {
        "id": id_,
        "trace": "",
        "kind": Kind.AGENT,
        "name": "echo",
        "scope": ScopeLevel.GLOBAL,
        "source": Source.EXECUTED,
        "instance": "",
        "attempts": 1,
        "queue_ns": 0,
        "execute_ns": 5_000_000,
        "total_ns": 5_000_000,
        "at_ns": at_ns,
        "saved_ns": 0,
        "price_usd": 0.0,
    }
    return msgspec.convert(_EMPTY | given | fields, Record)


def write(path: Path, records: Iterable[Record]) -> None:
    """Adds records to a history file, made if need be."""
    with contextlib.closing(connect(path, SCHEMA)) as db:
        db.execute("BEGIN IMMEDIATE")
        db.executemany(
            f"INSERT INTO calls ({_COLUMNS}) VALUES ({_MARKS})",  # noqa: S608 (of constants)
            [msgspec.structs.astuple(record) for record in records],
        )
        db.execute("COMMIT")
