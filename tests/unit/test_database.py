"""SQLite files of ours: told from others, written in order, and every trouble a StorageError."""

import functools
import os
import sqlite3
import stat
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from paceline.database import BatchWriter, Schema, connect, storage_errors
from paceline.errors import Category, CorruptStoreError, StorageError

SCHEMA = Schema(version=3, statements=("CREATE TABLE t (n INTEGER PRIMARY KEY, text)",))
INSERT = "INSERT INTO t VALUES (?, ?)"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state" / "test.db"


@pytest.fixture
def losses() -> list[StorageError]:
    return []


@pytest.fixture
def writer(path: Path, losses: list[StorageError]) -> Iterator[BatchWriter]:
    writer = BatchWriter(path, SCHEMA, on_loss=losses.append)
    yield writer
    writer.close()


def unexpected(exc: StorageError) -> None:
    raise exc


def rows(path: Path, schema: Schema = SCHEMA) -> list[tuple[object, ...]]:
    with closing(connect(path, schema, read_only=True)) as db:
        return db.execute("SELECT * FROM t ORDER BY n").fetchall()


# -- opening ----------------------------------------------------------------------------------


def test_a_new_file_is_made_for_its_owner_only(path: Path) -> None:
    """A file that is not there is made, in WAL mode, readable by nobody else."""
    with closing(connect(path, SCHEMA)) as db:
        assert db.execute("PRAGMA journal_mode").fetchone() == ("wal",)
        assert db.execute("PRAGMA synchronous").fetchone() == (1,)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


def test_durable_waits_for_the_disk(path: Path) -> None:
    """A durable schema waits for the disk at every commit."""
    with closing(connect(path, Schema(1, (), durable=True))) as db:
        assert db.execute("PRAGMA synchronous").fetchone() == (2,)


def test_an_empty_file_is_taken_and_ours_is_opened_again(path: Path) -> None:
    """An empty file is filled; one of the same schema is opened with what it has."""
    path.parent.mkdir()
    path.touch()
    with closing(connect(path, SCHEMA)) as db:
        db.execute(INSERT, (1, "kept"))
    with closing(connect(path, SCHEMA)):
        assert rows(path) == [(1, "kept")]


def foreign(path: Path) -> None:
    with closing(sqlite3.connect(path)) as db:
        db.execute("CREATE TABLE theirs (x)")


def newer(path: Path) -> None:
    connect(path, Schema(SCHEMA.version + 1, SCHEMA.statements)).close()


def junk(path: Path) -> None:
    path.write_bytes(b"no database at all, but a text. " * 200)


@pytest.mark.parametrize(
    ("make", "words"), [(foreign, "another program"), (newer, "version"), (junk, "damaged")]
)
@pytest.mark.parametrize("read_only", [False, True])
def test_files_that_are_not_ours_are_refused(
    make: Callable[[Path], None], words: str, read_only: bool, path: Path
) -> None:
    """A damaged, foreign or newer file is an error that says so, and keeps its bytes."""
    path.parent.mkdir()
    make(path)
    before = path.read_bytes()
    with pytest.raises(CorruptStoreError, match=words):
        connect(path, SCHEMA, read_only=read_only)
    assert path.read_bytes() == before


def test_reading_needs_a_file(tmp_path: Path) -> None:
    """Read-only, a missing or empty file is an error, and none is made."""
    (tmp_path / "empty").touch()
    for name in ("missing", "empty", "no/such/directory"):
        with pytest.raises(StorageError):
            connect(tmp_path / name, SCHEMA, read_only=True)
    assert [file.name for file in tmp_path.iterdir()] == ["empty"]


def test_a_reader_cannot_write(path: Path) -> None:
    """A read-only connection refuses to write, and the error advises on permissions."""
    connect(path, SCHEMA).close()
    with (
        closing(connect(path, SCHEMA, read_only=True)) as db,
        pytest.raises(StorageError) as caught,
        storage_errors(path),
    ):
        db.execute(INSERT, (1, ""))
    assert "writable" in caught.value.next_step


def test_two_openers_at_once_make_one_file(path: Path) -> None:
    """Threads that open a new file at the same moment all get it, made once."""
    failed: list[BaseException] = []
    start = threading.Barrier(8)

    def open_it() -> None:
        start.wait()
        try:
            connect(path, SCHEMA).close()
        except StorageError as exc:
            failed.append(exc)

    threads = [threading.Thread(target=open_it) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failed == []
    assert rows(path) == []


# -- errors -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("raised", "expected", "advice"),
    [
        (sqlite3.DatabaseError("database disk image is malformed"), CorruptStoreError, "Move"),
        (sqlite3.OperationalError("database or disk is full"), StorageError, "free space"),
        (
            sqlite3.OperationalError("attempt to write a readonly database"),
            StorageError,
            "writable",
        ),
        (sqlite3.OperationalError("database is locked"), StorageError, "Another process"),
        (sqlite3.ProgrammingError("Error binding parameter 1"), StorageError, "doctor"),
        (sqlite3.InterfaceError("Error binding parameter 0"), StorageError, "doctor"),
        (OverflowError("Python int too large"), StorageError, "doctor"),
        (PermissionError(13, "Permission denied"), StorageError, "doctor"),
    ],
)
def test_every_trouble_is_an_error_of_ours(
    raised: Exception, expected: type[StorageError], advice: str, path: Path
) -> None:
    """Exceptions of SQLite and the file system become StorageErrors with fitting advice."""
    with pytest.raises(StorageError) as caught, storage_errors(path):
        raise raised
    assert type(caught.value) is expected
    assert advice in caught.value.next_step
    assert str(path) in str(caught.value)
    assert caught.value.__cause__ is raised


def test_a_full_disk_is_told_from_a_full_file(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the disk is full it is not advised to raise the limit of the file."""
    monkeypatch.setattr("paceline.database.is_full", lambda _: True)
    with pytest.raises(StorageError) as caught, storage_errors(path):
        raise sqlite3.OperationalError("database or disk is full")
    assert "on another disk" in caught.value.next_step
    assert "limit" not in caught.value.next_step


def test_other_errors_pass(path: Path) -> None:
    """What is not about the file is not taken for it."""
    with pytest.raises(KeyError), storage_errors(path):
        raise KeyError


# -- writing ----------------------------------------------------------------------------------


@given(st.lists(st.integers(0, 3), max_size=60), st.integers(1, 7))
def test_statements_are_applied_in_order(keys: list[int], batch: int) -> None:
    """Whatever the size of batches, the result is that of the statements one after another."""
    import tempfile

    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "test.db"
        writer = BatchWriter(path, SCHEMA, on_loss=unexpected, linger_s=0, batch=batch)
        expected: dict[int, int] = {}
        for turn, key in enumerate(keys):
            writer.submit("INSERT OR REPLACE INTO t VALUES (?, ?)", (key, turn))
            expected[key] = turn
        assert writer.flush()
        assert rows(path) == sorted(expected.items())
        writer.close()


def test_flush_waits_for_what_came_before(writer: BatchWriter, path: Path) -> None:
    """After `flush` all that was submitted can be read by others."""
    for number in range(3_000):
        writer.submit(INSERT, (number, ""))
    assert writer.flush()
    assert len(rows(path)) == 3_000


def test_flush_can_give_up(writer: BatchWriter, path: Path) -> None:
    """A flush with a time limit says False when the file stays locked, and nothing is lost."""
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        writer.submit(INSERT, (1, "kept"))
        assert not writer.flush(timeout_s=0.02)
        other.execute("ROLLBACK")
    assert writer.flush()
    assert rows(path) == [(1, "kept")]


def test_parameters_are_made_on_the_writers_thread(writer: BatchWriter, path: Path) -> None:
    """Parameters given as a function are made by the writer, not by the caller."""
    writer.submit(INSERT, lambda: (1, threading.current_thread().name))
    writer.flush()
    assert rows(path) == [(1, "paceline-test-writer")]


@pytest.mark.parametrize("bad", [(object(), ""), (2**70, ""), (1, "\ud800"), (1,)])
def test_a_batch_that_fails_is_lost_whole_and_counted(
    bad: tuple[object, ...], path: Path, losses: list[StorageError]
) -> None:
    """A statement that cannot be written takes its batch along, and the next batch goes on."""
    writer = BatchWriter(path, SCHEMA, on_loss=losses.append)
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")  # so that what follows is one batch or two, never mixed
        for parameters in ((10, "a"), bad, (11, "b")):
            writer.submit(INSERT, parameters)
        other.execute("COMMIT")
    assert writer.flush()
    lost_first = writer.lost
    assert lost_first >= 1
    assert len(losses) == 1
    writer.submit(INSERT, (12, "after"))
    assert writer.flush()
    assert (12, "after") in rows(path)
    assert len(rows(path)) + lost_first == 4
    writer.submit(INSERT, bad)
    writer.flush()
    assert len(losses) == 2  # told anew once writing had worked again
    writer.close()


def test_loss_is_told_once_while_it_lasts(path: Path, losses: list[StorageError]) -> None:
    """While every batch fails, `on_loss` is told once; every statement is counted."""
    writer = BatchWriter(path, SCHEMA, on_loss=losses.append)
    for _ in range(5):
        writer.submit("INSERT INTO nowhere VALUES (1)", ())
        writer.flush()
    assert (len(losses), writer.lost) == (1, 5)
    writer.close()


def test_closing_writes_what_is_queued(path: Path, losses: list[StorageError]) -> None:
    """Close writes everything, may be repeated, and counts what comes later as lost."""
    writer = BatchWriter(path, SCHEMA, on_loss=losses.append)
    for number in range(2_500):
        writer.submit(INSERT, (number, ""))
    writer.close()
    writer.close()
    assert len(rows(path)) == 2_500
    writer.submit(INSERT, (9_999, ""))
    assert (writer.lost, losses) == (1, [])
    assert writer.flush()


def test_a_full_file_stays_readable(path: Path, losses: list[StorageError]) -> None:
    """At its size limit a file refuses more, with advice, and what it has can be read."""
    limited = Schema(SCHEMA.version, SCHEMA.statements, max_bytes=64 * 1024)
    writer = BatchWriter(path, limited, on_loss=losses.append)
    for number in range(40):
        writer.submit(INSERT, (number, "x" * 4_000))
        writer.flush()
    writer.close()
    assert 0 < len(rows(path)) == 40 - writer.lost < 40
    assert "full" in losses[0].next_step


def test_a_loss_for_another_reason_is_told(path: Path, losses: list[StorageError]) -> None:
    """When losing goes on for a reason of another kind, that is told too; a lock is transient."""
    writer = BatchWriter(path, SCHEMA, on_loss=losses.append)
    writer._db.execute("PRAGMA busy_timeout=0")
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        for _ in range(2):
            writer.submit(INSERT, (1, ""))
            assert writer.flush()
    for _ in range(2):
        writer.submit("INSERT INTO nowhere VALUES (1)", ())
        assert writer.flush()
    writer.close()
    assert [loss.category.transient for loss in losses] == [True, False]
    assert writer.lost == 4


def test_statements_are_numbered(writer: BatchWriter) -> None:
    """Every statement has the next number, whichever thread it comes from, and what is settled
    is counted by them."""
    numbers: list[int] = []

    def work() -> None:
        for number in range(500):
            numbers.append(writer.submit("INSERT OR REPLACE INTO t VALUES (?, '')", (number,)))

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(numbers) == list(range(1, 2_001))
    assert writer.flush()
    assert writer.settled == 2_000


def test_one_bad_row_costs_itself_alone(path: Path, losses: list[StorageError]) -> None:
    """Parameters that cannot be made lose their own statement, and those around it are written."""

    def bad() -> tuple[object, ...]:
        raise KeyError("no such field")

    writer = BatchWriter(path, SCHEMA, on_loss=losses.append)
    writer.submit(INSERT, (1, "a"))
    writer.submit(INSERT, bad)
    writer.submit(INSERT, (3, "c"))
    writer.close()
    assert rows(path) == [(1, "a"), (3, "c")]
    assert (writer.lost, len(losses)) == (1, 1)


def test_functions_run_in_their_turn(writer: BatchWriter, path: Path) -> None:
    """A function of the connection sees what was submitted before it and not what came after."""
    seen: list[object] = []
    for number in range(3):
        writer.submit(INSERT, (number, ""))
        writer.run(lambda db: seen.append(db.execute("SELECT count(*) FROM t").fetchone()[0]))
    assert writer.flush()
    assert seen == [1, 2, 3]


def test_a_function_that_raises_costs_itself_alone(path: Path, losses: list[StorageError]) -> None:
    """When a function raises, it is counted as lost, and what stands around it is written; when
    what it asks of the file fails, its batch is lost."""
    writer = BatchWriter(path, SCHEMA, on_loss=losses.append)
    writer.submit(INSERT, (1, "a"))
    writer.run(lambda _: 1 // 0)
    writer.submit(INSERT, (2, "b"))
    writer.flush()
    writer.run(lambda db: db.execute("SELECT * FROM nowhere"))
    writer.flush()
    writer.submit(INSERT, (3, "c"))
    writer.close()
    assert [row[0] for row in rows(path)] == [1, 2, 3]
    assert (writer.lost, [loss.category for loss in losses]) == (
        2,
        [Category.EXECUTION, Category.STORAGE],
    )


def test_a_callback_comes_after_the_commit(path: Path, losses: list[StorageError]) -> None:
    """A callback is called when others can read what was submitted before it, also when that was
    lost, when closing, and after a callback that raises."""
    writer = BatchWriter(path, SCHEMA, on_loss=losses.append)
    seen: list[int] = []

    def see(before: int) -> None:
        seen.append(len(rows(path)) - before)

    for number in range(300):
        writer.submit(INSERT, (number, ""))
        writer.after_written(functools.partial(see, number))
    writer.after_written(lambda: 1 // 0)
    writer.flush()
    writer.submit(INSERT, (1, "again"))
    writer.after_written(lambda: seen.append(1))
    writer.close()
    assert len(seen) == 301
    assert min(seen) >= 1
    writer.after_written(lambda: seen.append(2))
    assert seen[-1] == 2
    assert len(losses) == 2


def test_the_backlog_is_what_waits(path: Path, losses: list[StorageError]) -> None:
    """The backlog grows with what is submitted and is 0 when all is written, or refused."""
    writer = BatchWriter(path, SCHEMA, on_loss=losses.append, max_pending=3)
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        for number in range(10):
            writer.submit(INSERT, (number, ""), 100)
        assert 0 < writer.backlog_bytes <= 900
        assert writer.lost > 0
    assert writer.flush()
    assert writer.backlog_bytes == 0
    writer.close()


def test_a_child_process_writes_nothing(writer: BatchWriter, path: Path) -> None:
    """In a process forked off after opening, everything is counted as lost, and nothing waits for
    a thread that is not there. (D89)"""
    writer._on_loss = lambda exc: told.append(str(exc))
    told: list[str] = []
    read, write = os.pipe()
    with writer._order:  # as if another thread held it in that moment
        child = os.fork()
    if child == 0:
        try:
            for _ in range(2):
                writer.submit(INSERT, (9, "theirs"))
            writer.flush()
            writer.close()
            os.write(write, f"{writer.lost} {told}".encode())
        finally:
            os._exit(0)
    os.close(write)
    with os.fdopen(read) as said:
        assert "forked" in (text := said.read())
        assert text.startswith("2 ")
        assert text.count("forked") == 1
    assert os.waitpid(child, 0)[1] == 0
    writer.submit(INSERT, (1, "mine"))
    assert writer.flush()
    assert (rows(path), told) == ([(1, "mine")], [])


def test_a_writer_that_cannot_keep_up_loses_and_counts(
    path: Path, losses: list[StorageError]
) -> None:
    """With its queue full, further statements are counted as lost, which is told once: memory is
    bounded."""
    go = threading.Event()

    def slow() -> tuple[object, ...]:
        assert go.wait(30)
        return (0, "")

    writer = BatchWriter(path, SCHEMA, on_loss=losses.append, batch=1, max_pending=10)
    writer.submit(INSERT, slow)
    for number in range(1, 100):
        writer.submit(INSERT, (number, ""))
    go.set()
    writer.close()
    assert 100 - 11 <= writer.lost < 100
    assert len(rows(path)) == 100 - writer.lost
    assert [loss.category.transient for loss in losses] == [True]


def test_an_unusable_place_is_known_when_opening(tmp_path: Path) -> None:
    """Opening raises at once where no file can be made, and leaves no thread behind."""
    (tmp_path / "file").touch()
    before = threading.active_count()
    with pytest.raises(StorageError):
        BatchWriter(tmp_path / "file" / "x.db", SCHEMA, on_loss=unexpected)
    assert threading.active_count() == before


def test_seeded_faults_show(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A writer that drops its queue when closing, or one that reverses it, is found."""

    class Forgetful(BatchWriter):  # type: ignore[misc]
        def submit(self, sql: str, parameters: Any, size: int = 0) -> int:
            return super().submit(sql, parameters) if parameters != (2_499, "") else 0

    monkeypatch.setitem(globals(), "BatchWriter", Forgetful)
    with pytest.raises(AssertionError):
        test_closing_writes_what_is_queued(path, [])

    class Backwards(BatchWriter):  # type: ignore[misc]
        held: tuple[tuple[str, Any], ...] = ()

        def submit(self, sql: str, parameters: Any, size: int = 0) -> int:
            self.held = ((sql, parameters), *self.held)
            return len(self.held)

        def flush(self, timeout_s: float | None = None) -> bool:
            for statement in self.held:
                super().submit(*statement)
            return super().flush(timeout_s)

    monkeypatch.setitem(globals(), "BatchWriter", Backwards)
    law = test_statements_are_applied_in_order.hypothesis.inner_test  # type: ignore[attr-defined]
    with pytest.raises(AssertionError):
        law([1, 1, 1], 60)
