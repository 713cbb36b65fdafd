"""A history file of an earlier version: upgraded with its records, and read before that too."""

import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import msgspec
import pytest

from paceline.call import Kind, Source, Tokens
from paceline.cli.doctor_state import examine_state
from paceline.database import connect
from paceline.errors import AgentError, Category, CorruptStoreError, StorageError
from paceline.history import layout
from paceline.history.layout import SCHEMA, open_to_read, upgrade
from paceline.history.record import Facts, Record
from paceline.history.sqlite import SqliteHistory, SqliteReader
from paceline.home import Home
from paceline.redaction import Redactor
from paceline.testing.history_suite import a_call, an_outcome
from paceline.testing.virtual_time import VirtualClock

EARLIER = range(1, SCHEMA.version)
EMPTY = {"saved_ns": 0, "price_usd": 0.0, "unpriced": 0}


def added(version: int) -> list[str]:
    """The fields that files of this version lack."""
    later = range(version + 1, SCHEMA.version + 1)
    return [column.split()[0] for one in later for column in layout._ADDED[one]]


def a_history(path: Path) -> SqliteHistory:
    def fail(exc: StorageError) -> None:
        raise exc

    return SqliteHistory(path, clock=VirtualClock(), redactor=Redactor(), on_loss=fail)


@pytest.fixture(params=EARLIER)
def written(request: pytest.FixtureRequest) -> int:
    """The version of a file."""
    return int(request.param)


@pytest.fixture
def path(tmp_path: Path, written: int) -> Path:
    """A file as an earlier version wrote it, with two records."""
    now, then = tmp_path / "now.db", tmp_path / "history.db"
    history = a_history(now)
    for id in ("1", "2"):  # noqa: A001
        history.observe(call := a_call(id), an_outcome(call))
    history.close()
    lacks = added(written)
    columns = ", ".join(n for n in ("seq", *Record.__struct_fields__) if n not in lacks)
    with closing(connect(then, layout._of_version(written))) as db:
        db.execute("ATTACH ? AS now", (str(now),))
        db.execute(f"INSERT INTO calls ({columns}) SELECT {columns} FROM now.calls")  # noqa: S608
    return then


def version(path: Path) -> int:
    with closing(sqlite3.connect(path)) as db:
        return int(db.execute("PRAGMA user_version").fetchone()[0])


def old_form(record: Record, written: int) -> Record:
    lacks: dict[str, Any] = {name: EMPTY.get(name) for name in added(written)}
    return msgspec.structs.replace(record, **lacks)


def test_an_earlier_file_keeps_its_records(path: Path) -> None:
    """The first writer upgrades a file of an earlier version, keeps what is in it, and adds to it. (S1-55)"""
    before = SqliteReader(path).query()
    history = a_history(path)
    assert version(path) == SCHEMA.version
    history.observe(call := a_call("3"), an_outcome(call))
    history.close()
    third, *rest = SqliteReader(path).query()
    assert rest == before
    assert third.link == "another"
    assert third.saved_ns == 1_000


def test_an_earlier_file_is_read_as_it_is(path: Path, written: int) -> None:
    """Who only reads sees the records of an earlier file, and leaves the file so. (S1-55)"""
    reader = SqliteReader(path)
    expected = [old_form(found, written) for found in SqliteReader(path.parent / "now.db").query()]
    assert reader.query() == expected
    assert reader.query(name="echo", user="ada") == expected
    assert reader.get("1") == expected[1]
    assert reader.trace("trace") == expected[::-1]
    facts: list[Facts] = []
    assert reader.fold(facts.append) == 2
    assert facts == [found.facts for found in expected[::-1]]
    assert version(path) == written


def test_an_upgraded_file_is_a_new_one(path: Path) -> None:
    """An upgraded file has the columns and indices that a new one has, in the same order."""

    def shape(file: Path) -> list[object]:
        with closing(connect(file, SCHEMA, read_only=True)) as db:
            columns = db.execute("PRAGMA table_info(calls)").fetchall()
            indices = [row[1] for row in db.execute("PRAGMA index_list(calls)")]
        return [columns, sorted(indices)]

    upgrade(path)
    assert shape(path) == shape(path.parent / "now.db")


def test_an_upgrade_is_whole_or_none(
    path: Path, written: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An upgrade that fails half way leaves the file as it was, and can be tried again."""
    before = SqliteReader(path).query()
    with monkeypatch.context() as patch:
        last = SCHEMA.version
        patch.setitem(layout._UPGRADES, last, (*layout._UPGRADES[last], "no such statement"))
        with pytest.raises(StorageError):
            upgrade(path)
    assert version(path) == written
    assert SqliteReader(path).query() == before
    upgrade(path)
    upgrade(path)
    assert version(path) == SCHEMA.version


def test_two_upgrades_at_once_are_one(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """When another process upgrades the file between our look and our turn, nothing is done twice."""
    real = connect

    def slow(*arguments: object) -> sqlite3.Connection:
        monkeypatch.setattr(layout, "connect", real)
        db = real(*arguments)  # type: ignore[arg-type]
        upgrade(path)
        return db

    monkeypatch.setattr(layout, "connect", slow)
    upgrade(path)
    assert version(path) == SCHEMA.version
    assert len(SqliteReader(path).query()) == 2


@pytest.mark.parametrize(
    "use", [open_to_read, a_history, lambda path: connect(path, layout._of_version(1))]
)
def test_a_later_file_is_refused_with_its_version(
    use: Callable[[Path], object], path: Path
) -> None:
    """A version that knows less than a file has says which versions these are, and changes nothing."""
    upgrade(path)
    later = SCHEMA.version
    if use is open_to_read or use is a_history:
        later += 1
        with closing(sqlite3.connect(path)) as db:
            db.execute(f"PRAGMA user_version={later}")
    with pytest.raises(CorruptStoreError, match=f"schema version {later}") as caught:
        use(path)
    assert caught.value.category is Category.INVALID
    assert "version of Paceline that wrote it" in caught.value.next_step
    assert version(path) == later


@pytest.mark.parametrize("make", [lambda path: None, lambda path: path.touch()])
def test_nothing_to_upgrade_is_left_alone(make: Callable[[Path], None], tmp_path: Path) -> None:
    """Where there is no file, or an empty one, an upgrade makes none."""
    path = tmp_path / "new.db"
    make(path)
    upgrade(path)
    assert not path.exists() or not path.stat().st_size


def test_facts_say_what_the_record_says(tmp_path: Path) -> None:
    """Folding hands on kind, moment, attempts, tokens, cost, saved time, and what the error was."""
    history = a_history(tmp_path / "h.db")
    error = AgentError("it broke")
    error.__cause__ = ValueError("inner")
    call = a_call("1")
    call = msgspec.structs.replace(call, plan=msgspec.structs.replace(call.plan, cost_usd=0.5))
    history.observe(call, an_outcome(call, error=error, source=Source.JOINED))
    history.close()
    found: list[Facts] = []
    assert history.fold(found.append) == 1
    [facts] = found
    assert (facts.kind, facts.source, facts.category) == (Kind.AGENT, Source.JOINED, error.category)
    assert (facts.error_type, facts.message) == ("builtins.ValueError", "it broke")
    assert (facts.tokens, facts.cost_usd, facts.price_usd) == (Tokens(7, 8, 9, 10, 11), 0.25, 0.5)
    assert (facts.attempts, facts.saved_ns) == (2, 1_000)
    assert facts.at_ns == VirtualClock().wall_ns()


def test_a_writer_goes_on_when_columns_are_added(tmp_path: Path) -> None:
    """A process that has the file open writes on after a later version has added a column."""
    history = a_history(tmp_path / "h.db")
    with closing(sqlite3.connect(tmp_path / "h.db")) as db:
        db.execute("ALTER TABLE calls ADD COLUMN later TEXT")
    history.observe(call := a_call("1"), an_outcome(call))
    history.close()
    with closing(sqlite3.connect(tmp_path / "h.db")) as db:
        assert db.execute("SELECT id, link, later FROM calls").fetchall() == [
            ("1", "another", None)
        ]


def test_the_doctor_reads_what_readers_read(path: Path) -> None:
    """An earlier file is in order, and one of a later version is not."""

    def state() -> str:
        [found] = [found for found in examine_state(Home(path.parent)) if found.what == "history"]
        return found.state

    assert state() == "ok"
    upgrade(path)
    assert state() == "ok"
    with closing(sqlite3.connect(path)) as db:
        db.execute("PRAGMA user_version=9")
    assert state() == "broken"
