"""Removals from the warm tier: at once, for good, and hidden no longer than they take."""

import sqlite3
from pathlib import Path
from typing import Any

import msgspec
import pytest

from paceline.cache.disk.tier import DiskTier
from paceline.testing.virtual_time import VirtualClock

_HOUR = 3_600 * 1_000_000_000
_KEY = b"k" * 32


class _Opened:
    """A tier and the trouble it told."""

    def __init__(self, path: Path) -> None:
        self.trouble: list[object] = []
        self.tier = DiskTier(
            path, clock=VirtualClock(), max_bytes=4_000_000, on_trouble=self.trouble.append
        )

    def put(self, key: bytes, value: bytes) -> None:
        self.tier.put(key, value, _HOUR)
        assert self.tier.flush(30)

    def get(self, key: bytes) -> bytes | None:
        found = self.tier.get(key)
        return None if found is None else found.value


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state" / "cache.db"


def test_removals_are_remembered_in_bounded_space(path: Path) -> None:
    """Ten thousand removals in a row cost no memory for long, and none comes back."""
    opened = _Opened(path)
    opened.put(_KEY, b"value")
    opened.tier.delete(_KEY)
    for number in range(10_000):
        opened.tier.delete(number.to_bytes(32, "big"))
        assert opened.get(_KEY) is None
    assert opened.tier.flush(30)
    assert opened.get(b"o" * 32) is None
    assert len(opened.tier._removals) <= 1_000
    opened.tier.close()


def test_a_file_that_stays_locked_costs_a_batch(path: Path) -> None:
    """A writer that meets a locked file loses what it was to write, and the tier goes on; but no
    value that was to be removed comes back."""
    opened = _Opened(path)
    opened.put(_KEY, b"value")
    opened.put(b"o" * 32, b"other")
    assert opened.tier._files is not None
    opened.tier._files.writer._db.execute("PRAGMA busy_timeout=0")  # instead of seconds
    db = sqlite3.connect(path, isolation_level=None)
    db.execute("BEGIN IMMEDIATE")
    opened.put(b"n" * 32, b"lost")
    assert opened.get(b"o" * 32) == b"other"
    opened.tier.delete(_KEY)
    for _ in range(3):
        assert opened.tier.flush(30)
        assert opened.get(_KEY) is None
    db.execute("ROLLBACK")
    db.close()
    for _ in range(3):
        assert opened.get(_KEY) is None
        assert opened.tier.flush(30)
    assert opened.get(b"n" * 32) is None
    opened.put(_KEY, b"again")
    assert opened.get(_KEY) == b"again"
    assert opened.tier.usable
    assert opened.trouble == []
    opened.tier.close()


def test_trouble_after_a_lock_is_told(path: Path) -> None:
    """A disk that is full by the time a locked file is free again is still told. (D83)"""
    opened = _Opened(path)
    assert opened.tier._files is not None
    writer = opened.tier._files.writer
    writer._db.execute("PRAGMA busy_timeout=0")
    db = sqlite3.connect(path, isolation_level=None)
    db.execute("BEGIN IMMEDIATE")
    opened.put(_KEY, b"value")
    db.execute("ROLLBACK")
    db.close()
    writer._db.execute("PRAGMA max_page_count=1")
    opened.put(_KEY, bytes(100_000))
    assert "full" in str(opened.trouble[0])
    opened.tier.close()


class _Writer:
    """A writer that writes when told to."""

    lost = settled = submitted = backlog_bytes = 0

    def submit(self, *_: Any) -> int:
        self.submitted += 1
        return self.submitted


def test_a_removal_hides_no_longer_than_it_takes(path: Path) -> None:
    """Under a steady stream of writes, what was stored after a removal is found as soon as that
    removal is written: the stream need not end."""
    opened = _Opened(path)
    for key in (_KEY, b"o" * 32):
        opened.put(key, b"value")
    files = opened.tier._files
    assert files is not None
    writer = _Writer()
    opened.tier._files = msgspec.structs.replace(files, writer=writer)
    opened.tier.delete(_KEY)
    assert (opened.get(_KEY), opened.get(b"o" * 32)) == (None, b"value")
    opened.tier.delete(b"p" * 32)
    writer.settled = 1
    assert opened.get(_KEY) == b"value"
    opened.tier.clear()
    assert (opened.get(_KEY), opened.get(b"o" * 32)) == (None, None)
    opened.tier.put(b"n" * 32, b"value", _HOUR)
    opened.tier.delete(b"p" * 32)
    writer.settled = 3
    assert writer.submitted > 4
    assert (opened.get(_KEY), opened.get(b"o" * 32)) == (b"value", b"value")
    opened.tier._files = files
    opened.tier.close()


def test_a_tier_that_forgets_losses_is_caught(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The check of locked files fails for a writer that does not count what it lost."""
    monkeypatch.setattr("paceline.database.BatchWriter.lost", 0, raising=False)
    monkeypatch.setattr("paceline.database.BatchWriter._lose", lambda *_: None)
    with pytest.raises(AssertionError):
        test_a_file_that_stays_locked_costs_a_batch(path)
