"""The history file: trouble with it loses records, says so, and never disturbs a call."""

import asyncio
import os
import sqlite3
import stat
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from paceline.clock import SystemClock
from paceline.database import BatchWriter, connect
from paceline.errors import CorruptStoreError, StorageError
from paceline.history import sqlite as module
from paceline.history.layout import SCHEMA
from paceline.history.record import Record
from paceline.history.sqlite import SqliteHistory, SqliteReader
from paceline.redaction import Redactor
from paceline.testing.history_suite import a_call, an_outcome
from paceline.testing.virtual_time import VirtualClock


class Losses(list[StorageError]):
    """What `on_loss` was told."""


@pytest.fixture
def losses() -> Losses:
    return Losses()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state" / "history.db"


def open_history(path: Path, losses: Losses, **options: int) -> SqliteHistory:
    return SqliteHistory(
        path,
        clock=VirtualClock(),
        redactor=Redactor(),
        on_loss=losses.append,
        max_bytes=options.get("max_bytes"),
    )


@pytest.fixture
def history(path: Path, losses: Losses) -> Iterator[SqliteHistory]:
    history = open_history(path, losses)
    yield history
    history.close()


def observe(history: SqliteHistory, id: str, value: object = "v") -> None:  # noqa: A002
    call = a_call(id)
    history.observe(call, an_outcome(call, value))


def test_records_outlive_the_process(path: Path, losses: Losses) -> None:
    """What was observed is there after closing and opening again. (S1-55)"""
    history = open_history(path, losses)
    observe(history, "1")
    history.close()
    history = open_history(path, losses)
    observe(history, "2")
    history.close()
    assert [found.id for found in SqliteReader(path).query()] == ["2", "1"]
    assert losses == []


def test_the_file_is_its_owners(history: SqliteHistory, path: Path) -> None:
    """Nobody but its owner can read the history, nor its journal."""
    observe(history, "1")
    history.flush()
    old = os.umask(0)
    os.umask(old)
    for file in path.parent.iterdir():
        assert stat.S_IMODE(file.stat().st_mode) & 0o077 == 0, file


def test_the_columns_are_the_record(history: SqliteHistory, path: Path) -> None:
    """The table has the fields of a record in their order, after the number of the row."""
    with closing(connect(path, SCHEMA, read_only=True)) as db:
        columns = [row[1] for row in db.execute("PRAGMA table_info(calls)")]
    assert columns == ["seq", *Record.__struct_fields__]


def test_another_process_reads_while_one_writes(history: SqliteHistory, path: Path) -> None:
    """A reader sees all that is flushed, while the writer has the file open."""
    for number in range(3):
        observe(history, str(number))
        history.flush()
        assert len(SqliteReader(path).query()) == number + 1


@pytest.mark.parametrize("make", [lambda path: None, lambda path: path.touch()])
def test_no_file_is_no_records(make: object, tmp_path: Path) -> None:
    """Reading where nothing was recorded yet finds nothing and makes nothing."""
    assert callable(make)
    path = tmp_path / "history.db"
    make(path)
    before = [file.stat().st_size for file in tmp_path.iterdir()]
    reader = SqliteReader(path)
    assert reader.query(name="a", user="b", since_ns=1, errors_only=True) == []
    assert reader.fold(lambda facts: None) == 0
    assert [file.stat().st_size for file in tmp_path.iterdir()] == before


def test_observing_does_not_wait_for_the_disk(history: SqliteHistory, path: Path) -> None:
    """While another process holds the file locked, calls are observed at once, and kept."""
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        for number in range(100):
            observe(history, str(number))
        assert not history.flush(timeout_s=0.05)
        assert history.query() == []
        other.execute("COMMIT")
    assert history.flush()
    assert len(history.query(limit=200)) == 100


async def test_hashing_is_left_to_the_writer(
    history: SqliteHistory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Redaction runs on the writer's thread, not on the event loop's."""
    threads: set[str] = set()
    real = Redactor.data

    def spy(self: Redactor, value: object) -> object:
        threads.add(threading.current_thread().name)
        return real(self, value)

    monkeypatch.setattr(Redactor, "data", spy)
    observe(history, "1")
    await asyncio.to_thread(history.flush)
    assert threads == {"paceline-history-writer"}


def test_a_full_disk_loses_records_and_says_how_many(path: Path, losses: Losses) -> None:
    """On a full disk nothing is raised; the loss is told once, counted, and reading works."""
    history = open_history(path, losses, max_bytes=100_000)
    kept = 0
    for number in range(40):
        call = a_call(str(number), arguments={"query": "x" * 8_000})
        history.observe(call, an_outcome(call))
        history.flush()
        kept += history.lost == 0
    assert 0 < kept < 40
    assert history.lost == 40 - kept
    assert len(losses) == 1
    assert str(losses[0]).startswith("1 calls were not recorded")
    assert "full" in losses[0].next_step
    assert len(history.query(limit=500)) == kept
    history.close()


@pytest.mark.parametrize(
    "damage",
    [b"this is no database, but text" * 40, b"\0" * 8_192, b"SQLite format 3\0" + b"\xff" * 4_096],
    ids=["text", "zeroes", "bad header"],
)
def test_a_damaged_file_is_refused_untouched(damage: bytes, path: Path, losses: Losses) -> None:
    """A damaged history is refused with advice, and keeps its name and bytes. (D82)"""
    path.parent.mkdir()
    path.write_bytes(damage)
    with pytest.raises(CorruptStoreError) as caught:
        open_history(path, losses)
    assert "Move" in caught.value.next_step
    assert path.read_bytes() == damage


@pytest.mark.parametrize("pragma", ["application_id=1", "user_version=99"])
def test_a_file_that_is_not_ours_is_left_alone(pragma: str, path: Path, losses: Losses) -> None:
    """A file of another program or a newer version is refused with advice, and not moved."""
    open_history(path, losses).close()
    with closing(sqlite3.connect(path)) as db:
        db.execute(f"PRAGMA {pragma}")
    with pytest.raises(CorruptStoreError):
        open_history(path, losses)
    assert [file.name for file in path.parent.glob("*damaged*")] == []
    assert losses == []


def test_a_place_that_cannot_be_written_is_known_at_once(tmp_path: Path, losses: Losses) -> None:
    """Where the file cannot be made, opening says so."""
    (tmp_path / "file").touch()
    with pytest.raises(StorageError):
        open_history(tmp_path / "file" / "history.db", losses)


def test_damage_met_later_is_told_and_not_raised(
    history: SqliteHistory, path: Path, losses: Losses
) -> None:
    """When the table is gone under a running history, observing goes on and the loss is told."""
    with closing(sqlite3.connect(path)) as db:
        db.execute("DROP TABLE calls")
    observe(history, "1")
    history.flush()
    assert history.lost == 1
    assert history.prune(max_records=0) == 0
    assert len(losses) == 2
    with pytest.raises(StorageError):
        history.query()


def test_a_word_from_the_future_is_an_error(history: SqliteHistory, path: Path) -> None:
    """A record with a source that this version does not know is an error of ours, not a KeyError."""
    observe(history, "1")
    history.flush()
    with closing(sqlite3.connect(path)) as db:
        db.execute("UPDATE calls SET source = 'telepathy'")
        db.commit()
    for read in (
        history.query,
        lambda: history.get("1"),
        lambda: history.fold(lambda facts: None),
    ):
        with pytest.raises(CorruptStoreError):
            read()


def test_pruning_goes_on_in_chunks(history: SqliteHistory, monkeypatch: pytest.MonkeyPatch) -> None:
    """More records than fit one transaction are all removed."""
    monkeypatch.setattr(module, "_CHUNK", 3)
    for number in range(20):
        observe(history, str(number))
    history.flush()
    assert history.prune(max_records=12) == 8
    assert history.prune(max_age_s=-1) == 12
    assert history.query() == []


def test_threads_may_observe_together(history: SqliteHistory) -> None:
    """Calls observed from several threads are all recorded."""

    def work(number: int) -> None:
        for each in range(200):
            observe(history, f"{number}-{each}")

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    history.close()
    assert len(history.query(limit=1_000)) == 800


def test_seeded_faults_show(
    path: Path, losses: Losses, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Redacting on the caller's thread is found."""

    def eager(writer: object, sql: str, parameters: object) -> None:
        assert callable(parameters)
        parameters()

    history = SqliteHistory(
        tmp_path / "other.db", clock=SystemClock(), redactor=Redactor(), on_loss=losses.append
    )
    with monkeypatch.context() as patch:
        patch.setattr(BatchWriter, "submit", eager)
        with pytest.raises(AssertionError):
            asyncio.run(test_hashing_is_left_to_the_writer(history, patch))
    history.close()
