"""The warm tier: shared between processes, bounded, and a miss whatever happens to the file."""

import os
import sqlite3
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import msgspec
import pytest

from paceline.cache.disk.tier import DiskTier
from paceline.cache.entry import PLAIN
from paceline.database import Schema, connect
from paceline.errors import CorruptStoreError, StorageError
from paceline.testing.virtual_time import VirtualClock

_S = 1_000_000_000
_HOUR = 3_600 * _S
_KEY = b"k" * 32


def _unexpected(exc: StorageError) -> None:
    raise exc


class _Opened:
    """A tier, its clock and the trouble it told."""

    def __init__(self, path: Path, max_bytes: int = 4_000_000) -> None:
        self.clock = VirtualClock()
        self.trouble: list[StorageError] = []
        self.path = path
        self.tier = DiskTier(
            path, clock=self.clock, max_bytes=max_bytes, on_trouble=self.trouble.append
        )

    def put(self, key: bytes, value: bytes, ttl_ns: int = _HOUR) -> None:
        self.tier.put(key, value, ttl_ns)
        assert self.tier.flush(30)

    def get(self, key: bytes) -> bytes | None:
        found = self.tier.get(key)
        return None if found is None else found.value

    def sql(self, statement: str) -> list[Any]:
        """What another program does to the file."""
        db = sqlite3.connect(self.path, isolation_level=None)
        try:
            return db.execute(statement).fetchall()
        finally:
            db.close()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state" / "cache.db"


def test_what_one_process_stores_another_finds(path: Path) -> None:
    """A second process hits what the first one stored, while that still runs. (S0-45, S0-46,
    S0-75)"""
    mine = _Opened(path)
    code = (
        "import sys, pathlib\n"
        "from paceline.cache.disk.tier import DiskTier\n"
        "from paceline.testing.virtual_time import VirtualClock\n"
        "def fail(exc): raise exc\n"
        "tier = DiskTier(pathlib.Path(sys.argv[1]), clock=VirtualClock(), max_bytes=4_000_000,"
        " on_trouble=fail)\n"
        "print(tier.get(b'k' * 32))\n"
        "tier.put(b'o' * 32, b'theirs', 3_600_000_000_000)\n"
        "tier.close()\n"
    )
    mine.put(_KEY, b"mine")
    done = subprocess.run(
        [sys.executable, "-c", code, path], capture_output=True, text=True, check=True
    )
    assert done.stdout == f"Found(b'mine', {_HOUR}, {PLAIN})\n"
    assert mine.get(b"o" * 32) == b"theirs"
    mine.tier.close()
    assert mine.trouble == []


def test_values_outlive_the_tier(path: Path) -> None:
    """What was stored before close is found after opening again, with what is left of its
    lifetime. (S0-47)"""
    first = _Opened(path)
    first.tier.put(_KEY, b"value", 10 * _S)
    first.tier.close()
    assert first.get(_KEY) is None
    second = _Opened(path)
    second.clock.advance(4)
    found = second.tier.get(_KEY)
    assert found is not None
    assert found.remaining_ns == 6 * _S
    second.tier.close()


def test_a_clock_set_back_prolongs_nothing(path: Path) -> None:
    """A result from what is now the future is not believed. (S0-27, D90)"""
    opened = _Opened(path)
    opened.put(_KEY, b"value", 10 * _S)
    opened.clock.advance(-3_600)
    assert opened.get(_KEY) is None
    opened.tier.close()


@pytest.mark.parametrize(
    "damage",
    [
        "UPDATE results SET payload = CAST(x'00' || substr(payload, 2) AS BLOB)",
        "UPDATE results SET key = x'" + "61" * 32 + "'",
        "UPDATE results SET head = CAST(substr(head, 1, 19) || x'ff' || substr(head, 21) AS BLOB)",
        "UPDATE results SET head = CAST(x'00000000' || substr(head, 5) AS BLOB)",
        "UPDATE results SET head = x''",
        "UPDATE results SET head = CAST(head || x'01' AS BLOB)",
        "UPDATE results SET payload = x'80049503000000000000004b012e'",  # a pickle
        "UPDATE results SET payload = CAST(substr(payload, 1, 3) AS BLOB)",
        "UPDATE results SET payload = x'01c67fffffff'",  # of two gigabytes, it says
    ],
)
def test_a_changed_row_is_a_miss(path: Path, damage: str) -> None:
    """A value whose bytes, key or lifetime were changed in the file is never handed out, and is
    counted and removed. (D80, D81)"""
    opened = _Opened(path)
    opened.put(_KEY, b"value")
    opened.sql(damage)
    assert opened.get(_KEY) is None
    assert opened.get(b"a" * 32) is None
    assert opened.tier.flush(30)
    assert opened.sql("SELECT count(*) FROM results") == [(0,)]
    assert opened.tier.snapshot().damaged == 1
    opened.put(_KEY, b"again")
    assert opened.get(_KEY) == b"again"
    assert opened.trouble == []
    opened.tier.close()


def test_reads_without_checks_are_caught(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the checksum a displaced row would be found: the check above can fail."""
    monkeypatch.setattr("paceline.cache.disk.rows.crc32", lambda *_: 0)
    opened = _Opened(path)
    opened.put(_KEY, b"value")
    opened.sql("UPDATE results SET key = x'" + "61" * 32 + "'")
    assert opened.get(b"a" * 32) == b"value"
    opened.tier.close()


def _valid_file(path: Path) -> None:
    opened = _Opened(path)
    for number in range(200):
        opened.tier.put(bytes([number]) * 32, os.urandom(2_000), _HOUR)
    opened.tier.close()


def _text(path: Path) -> None:
    path.write_text("not a database " * 1_000)


def _zeroed(path: Path) -> None:
    _valid_file(path)
    path.write_bytes(bytes(100) + path.read_bytes()[100:])


def _foreign(path: Path) -> None:
    db = sqlite3.connect(path)
    db.execute("CREATE TABLE theirs (x)")
    db.close()


def _newer(path: Path) -> None:
    _valid_file(path)
    db = sqlite3.connect(path)
    db.execute("PRAGMA user_version=99")
    db.close()


@pytest.mark.parametrize("damage", [_text, _zeroed, _foreign])
def test_a_file_that_is_not_ours_is_moved_aside(path: Path, damage: Any) -> None:
    """A damaged or foreign file is moved aside as it is, trouble is told once, and a new file
    works. (D82)"""
    path.parent.mkdir()
    damage(path)
    content = path.read_bytes()
    opened = _Opened(path)
    assert [type(exc) for exc in opened.trouble] == [CorruptStoreError]
    aside = path.with_name("cache.db.damaged")
    assert aside.read_bytes() == content
    assert str(aside) in opened.trouble[0].next_step
    opened.put(_KEY, b"value")
    assert opened.get(_KEY) == b"value"
    opened.tier.close()
    again = _Opened(path)
    assert again.trouble == []
    assert again.get(_KEY) == b"value"
    again.tier.close()


def test_a_file_of_another_version_is_replaced(path: Path) -> None:
    """A cache file of another version of ours is no trouble: a new one takes its place, and a
    process that has the old one open goes on with that. (D87)"""
    path.parent.mkdir()
    _newer(path)
    opened = _Opened(path)
    opened.put(_KEY, b"value")
    opened.sql("PRAGMA user_version=99")
    again = _Opened(path)
    assert again.get(_KEY) is None
    assert opened.get(_KEY) == b"value"
    for each in (opened, again):
        each.tier.close()
        assert each.trouble == []
    assert [file.name for file in path.parent.iterdir()] == ["cache.db"]


def test_one_damaged_file_is_kept(path: Path) -> None:
    """Of damaged files that were moved aside the last is kept, and of it all that there is."""
    path.parent.mkdir()
    for text in (b"first ", b"second "):
        path.write_bytes(text * 1_000)
        path.with_name(f"{path.name}.damaged-wal").write_bytes(b"of an earlier one")
        _Opened(path).tier.close()
        assert path.with_name("cache.db.damaged").read_bytes() == text * 1_000
    assert sorted(file.name for file in path.parent.iterdir()) == ["cache.db", "cache.db.damaged"]


def test_an_empty_file_becomes_a_cache(path: Path) -> None:
    """A file of no bytes is used as a new one. (D82)"""
    path.parent.mkdir()
    path.touch()
    opened = _Opened(path)
    opened.put(_KEY, b"value")
    assert opened.get(_KEY) == b"value"
    assert opened.trouble == []
    opened.tier.close()


@pytest.mark.parametrize("keep", [0.1, 0.5, 0.9])
def test_a_truncated_file_is_moved_aside(path: Path, keep: float) -> None:
    """With a file that was cut, trouble is told once, when it is opened or read; a value is found
    whole or not at all, and the next process starts with a new file. (D82)"""
    path.parent.mkdir()
    _valid_file(path)
    with path.open("r+b") as file:
        file.truncate(int(path.stat().st_size * keep) // 4096 * 4096)
    opened = _Opened(path)
    found = [opened.get(bytes([number]) * 32) for number in range(200)]
    assert {len(value) for value in found if value is not None} <= {2_000}
    opened.tier.flush(30)
    opened.tier.close()
    assert [type(exc) for exc in opened.trouble] == [CorruptStoreError]
    again = _Opened(path)
    again.put(_KEY, b"value")
    assert again.get(_KEY) == b"value"
    assert again.trouble == []
    again.tier.close()


def test_damage_while_in_use_is_a_miss(path: Path) -> None:
    """When the file turns out damaged while in use, trouble is told once, everything is a miss
    from then on, and the file is moved aside for the next process. (D82)"""
    path.parent.mkdir()
    _valid_file(path)
    opened = _Opened(path)
    with path.open("r+b") as file:
        file.seek(4096)
        file.write(os.urandom(path.stat().st_size - 4096))
    assert [opened.get(bytes([number]) * 32) for number in range(200)] == [None] * 200
    assert [type(exc) for exc in opened.trouble] == [CorruptStoreError]
    assert not opened.tier.usable
    opened.put(_KEY, b"value")
    assert opened.get(_KEY) is None
    opened.tier.close()
    assert not path.exists()
    assert len(opened.trouble) == 1


def test_a_file_that_another_process_replaced_stays(path: Path) -> None:
    """Who finds its file damaged after another process made a new one leaves that alone."""
    path.parent.mkdir()
    _valid_file(path)
    late = _Opened(path)
    path.rename(path.with_name("theirs"))
    fresh = _Opened(path)
    fresh.put(_KEY, b"value")
    late.tier._fail(CorruptStoreError("damaged"))
    assert fresh.get(_KEY) == b"value"
    assert path.exists()
    late.tier.close()
    fresh.tier.close()


@pytest.mark.parametrize("place", ["/proc/none/cache.db", "directory"])
def test_a_place_that_cannot_be_used_is_told(tmp_path: Path, place: str) -> None:
    """Where no file can be opened, trouble is told once, and everything is a miss. (D84)"""
    (tmp_path / "directory").mkdir()
    opened = _Opened(tmp_path / place)
    _check_all_misses(opened)


def test_a_read_only_file_is_told(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a file that may not be written, trouble is told once, and everything is a miss. (D84)"""
    _Opened(path).tier.close()

    def read_only(path: Path, schema: Schema, **_: Any) -> sqlite3.Connection:
        return connect(path, schema, read_only=True)

    monkeypatch.setattr("paceline.database.connect", read_only)
    opened = _Opened(path)
    opened.put(_KEY, b"value")
    _check_all_misses(opened)
    assert "readonly" in str(opened.trouble[0])


def test_a_full_disk_is_told(path: Path) -> None:
    """When the disk is full, trouble is told once, what was stored is still found, what is to be
    stored is dropped and counted, and later, with room again, storing works. (D83)"""
    opened = _Opened(path)
    opened.put(_KEY, b"value")
    _limit(opened, 1)
    opened.put(b"o" * 32, bytes(100_000))
    for _ in range(3):
        opened.put(b"n" * 32, bytes(100_000))
        assert opened.get(b"n" * 32) is None
        assert opened.get(_KEY) == b"value"
    assert opened.tier.snapshot().dropped == 4
    _limit(opened, 1_000)
    opened.put(b"n" * 32, b"too early")
    opened.clock.advance(10)
    opened.put(b"n" * 32, b"value")
    assert opened.get(b"n" * 32) == b"value"
    assert [str(exc) for exc in opened.trouble if "full" not in str(exc)] == []
    assert len(opened.trouble) == 1
    opened.tier.close()


def test_a_full_disk_brings_nothing_back(path: Path) -> None:
    """What was removed on a full disk is never found again: all is a miss until the removal is
    written. (D83)"""
    opened = _Opened(path)
    opened.put(_KEY, b"value")
    opened.put(b"o" * 32, b"other")
    _limit(opened, 1)
    opened.put(b"n" * 32, bytes(100_000))

    writer = opened.tier._files.writer  # type: ignore[union-attr]
    writer._perform = _full  # type: ignore[method-assign]
    opened.put(_KEY, b"newer")
    assert (opened.get(_KEY), opened.get(b"o" * 32)) == (None, None)
    for _ in range(3):
        opened.clock.advance(20)
        assert opened.get(_KEY) is None
        assert opened.tier.flush(30)
    del writer._perform
    _limit(opened, 1_000)
    opened.clock.advance(20)
    assert opened.get(_KEY) is None
    assert opened.tier.flush(30)
    opened.put(_KEY, b"again")
    assert (opened.get(_KEY), opened.get(b"o" * 32)) == (b"again", None)
    assert len(opened.trouble) == 1
    opened.tier.close()


def _full(*_: object) -> None:
    raise sqlite3.OperationalError("database or disk is full")


def _limit(opened: _Opened, pages: int) -> None:
    assert opened.tier._files is not None
    opened.tier._files.writer._db.execute(f"PRAGMA max_page_count={pages}")


def _check_all_misses(opened: _Opened) -> None:
    assert not opened.tier.usable
    opened.put(b"n" * 32, b"value")
    opened.tier.delete(b"n" * 32)
    opened.tier.clear()
    opened.tier.sweep()
    assert opened.get(b"n" * 32) is None
    assert opened.get(_KEY) is None
    opened.tier.close()
    opened.tier.close()
    assert [type(exc) for exc in opened.trouble] == [StorageError]


def test_a_locked_file_is_a_miss_and_no_trouble(path: Path) -> None:
    """A read of a file that somebody holds exclusively misses at once; when it is free again,
    values are found."""
    opened = _Opened(path)
    opened.put(_KEY, b"value")
    locked: list[str] = []

    class Locked:
        def execute(self, *_: Any) -> Any:  # of a cursor
            locked.append("asked")
            error = sqlite3.OperationalError("database is locked")
            error.sqlite_errorcode = sqlite3.SQLITE_BUSY
            raise error

    files = opened.tier._files
    assert files is not None
    assert files.reader.execute("PRAGMA busy_timeout").fetchone() == (0,)
    opened.tier._files = msgspec.structs.replace(files, cursor=Locked())
    assert opened.get(_KEY) is None
    assert locked
    opened.tier._files = files
    assert opened.get(_KEY) == b"value"
    assert opened.trouble == []
    opened.tier.close()


def test_a_writer_at_work_holds_up_no_read(path: Path) -> None:
    """A read in the midst of another process's long transaction finds what was there before."""
    opened = _Opened(path)
    opened.put(_KEY, b"value")
    db = sqlite3.connect(path, isolation_level=None)
    db.execute("BEGIN IMMEDIATE")
    db.execute("DELETE FROM results")
    assert opened.get(_KEY) == b"value"
    db.execute("COMMIT")
    assert opened.get(_KEY) is None
    db.close()
    opened.tier.close()


def test_the_file_stays_within_its_limit(path: Path) -> None:
    """However much is stored, the file stays within its limit, the newest values are found, the
    oldest are gone, and there is no trouble. (S0-43)"""
    limit = 1_000_000
    opened = _Opened(path, limit)
    for number in range(2_000):
        opened.tier.put(number.to_bytes(32, "big"), os.urandom(3_000), _HOUR)
        if number % 20 == 0:
            assert opened.tier.flush(30)
    assert opened.tier.flush(30)
    assert path.stat().st_size <= limit
    newest = [opened.get(number.to_bytes(32, "big")) for number in range(1_900, 2_000)]
    assert None not in newest
    assert opened.get((0).to_bytes(32, "big")) is None
    assert opened.trouble == []
    opened.tier.close()


@pytest.mark.parametrize(("max_bytes", "pages"), [(4_000_000, 1_000), (1 << 30, 4_000)])
def test_the_log_grows_with_the_limit(path: Path, max_bytes: int, pages: int) -> None:
    """The log of a large file takes 16 MB before it is emptied, that of a small one what SQLite
    gives it."""
    opened = _Opened(path, max_bytes)
    told: list[int] = []
    files = opened.tier._files
    assert files is not None
    files.writer.run(lambda db: told.extend(db.execute("PRAGMA wal_autocheckpoint").fetchone()))
    assert opened.tier.flush(30)
    assert told == [pages]
    opened.tier.close()


def test_without_eviction_the_limit_is_met_hard(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The check above would fail if nothing were evicted: the file is then full."""
    monkeypatch.setattr(DiskTier, "sweep", lambda _: None)
    opened = _Opened(path, 200_000)
    for number in range(100):
        opened.put(number.to_bytes(32, "big"), os.urandom(3_000))
    assert len(opened.trouble) == 1
    assert "full" in str(opened.trouble[0])
    assert opened.tier.snapshot().dropped > 0
    opened.tier.close()


def test_the_dead_leave_before_the_oldest(path: Path) -> None:
    """Expired rows are removed as new ones come. (S0-35, S1-08)"""
    opened = _Opened(path)
    for number in range(100):
        opened.tier.put(bytes([number]) * 32, b"value", _S)
    opened.put(_KEY, b"value")
    opened.clock.advance(1)
    opened.tier.sweep()
    assert opened.tier.flush(30)
    assert opened.sql("SELECT count(*) FROM results") == [(1,)]
    opened.tier.close()


def test_what_is_too_large_is_not_stored(path: Path) -> None:
    """A value larger than a 32nd of the limit is not stored, and what it would have replaced is
    gone. (S0-43, D91)"""
    opened = _Opened(path, 320_000)
    opened.put(_KEY, b"small")
    opened.put(_KEY, bytes(10_001))
    assert opened.get(_KEY) is None
    opened.tier.close()


def test_what_waits_to_be_written_is_bounded(path: Path) -> None:
    """When values come faster than they can be written, they are dropped instead of piling up in
    memory."""
    opened = _Opened(path, 4_000_000)
    db = sqlite3.connect(path, isolation_level=None)
    db.execute("BEGIN IMMEDIATE")  # the writer waits
    for number in range(100):
        opened.tier.put(number.to_bytes(32, "big"), bytes(100_000), _HOUR)
    db.execute("ROLLBACK")
    db.close()
    assert opened.tier.flush(30)
    assert opened.sql("SELECT count(*) FROM results")[0][0] <= 20
    assert opened.trouble == []
    opened.tier.close()


def test_threads_share_the_tier(path: Path) -> None:
    """Threads that read and write at once find only whole values under their keys. (S0-44)"""
    opened = _Opened(path)
    wrong: list[object] = []

    def work() -> None:
        for step in range(300):
            key = bytes([step % 20]) * 32
            opened.tier.put(key, key * 10, _HOUR)
            if opened.get(key) not in (None, key * 10):
                wrong.append(key)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert opened.tier.flush(30)
    assert wrong == []
    assert [opened.get(bytes([n]) * 32) for n in range(20)] == [bytes([n]) * 320 for n in range(20)]
    assert opened.trouble == []
    opened.tier.close()


@pytest.mark.parametrize("replaced", [False, True])
def test_a_file_that_was_taken_away_in_use_is_begun_anew(path: Path, replaced: bool) -> None:
    """A file that is removed, or replaced by another, under a running process is told, and results
    are kept in a new one. (D82)"""
    opened = _Opened(path)
    opened.put(b"k" * 32, b"old")
    opened.tier.check()
    assert opened.trouble == []

    path.unlink()
    if replaced:
        path.write_bytes(b"")
    opened.tier.check()

    assert "removed or replaced" in str(opened.trouble[0])
    assert opened.get(b"k" * 32) is None
    opened.put(b"n" * 32, b"new")
    assert opened.get(b"n" * 32) == b"new"
    assert path.stat().st_size
    opened.tier.close()
