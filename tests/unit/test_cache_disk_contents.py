"""What is in the warm tier: listed, removed by what it is, kept within bounds, loaded at start."""

import math
import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from paceline.cache.disk.room import Room
from paceline.cache.disk.rows import DamagedRowError, pack, unpack
from paceline.cache.disk.tier import DiskTier, Found
from paceline.cache.entry import PLAIN, About
from paceline.errors import InvalidInputError, StorageError
from paceline.testing.virtual_time import VirtualClock

_HOUR = 3_600 * 1_000_000_000
_KEY = b"k" * 32
_ABOUT = About(
    "read", "user:ada", "path=/x", ("file:/x", "disk"), 7_000_000, 0.25, stale_ns=5, rescue_ns=6
)


def _unexpected(exc: StorageError) -> None:
    raise exc


class _Opened:
    """A tier and its clock."""

    def __init__(self, path: Path, *, max_bytes: int = 4_000_000, entries: int | None = None):
        self.clock = VirtualClock()
        self.path = path
        self.tier = DiskTier(
            path, clock=self.clock, max_bytes=max_bytes, on_trouble=_unexpected, max_entries=entries
        )

    def put(self, number: int, about: About = PLAIN, size: int = 10, ttl_ns: float = _HOUR) -> None:
        self.tier.put(_key(number), bytes(size), ttl_ns, about)

    def has(self, *numbers: int) -> list[bool]:
        return [self.tier.get(_key(number)) is not None for number in numbers]

    def flush(self) -> None:
        assert self.tier.flush(30)


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """The file, held by another process."""
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        db.execute("BEGIN IMMEDIATE")
        yield


def _key(number: int) -> bytes:
    return number.to_bytes(32, "big")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "cache.db"


@pytest.fixture
def opened(path: Path) -> Iterator[_Opened]:
    opened = _Opened(path)
    yield opened
    opened.tier.close()


# -- what a value is ---------------------------------------------------------------------------


@given(
    payload=st.binary(max_size=200),
    about=st.builds(
        About,
        name=st.text(max_size=20),
        scope=st.text(max_size=20),
        tags=st.lists(st.text(max_size=5)).map(tuple),
        cost_ns=st.integers(0, 2**63 - 1),
        cost_usd=st.floats(0, 1e9),
    ),
    stored_ns=st.integers(0, 2**62),
    ttl_ns=st.integers(1, 2**62),
)
def test_what_is_packed_is_unpacked(
    payload: bytes, about: About, stored_ns: int, ttl_ns: int
) -> None:
    """A row gives back the value, what is left of its lifetime, and what it is. (S0-45)"""
    until_ns = stored_ns + ttl_ns
    _, _, _, _, head, kept = pack(_KEY, payload, about, stored_ns, until_ns)
    found = unpack(_KEY, kept, head, stored_ns)  # type: ignore[arg-type]
    assert found == Found(payload, ttl_ns, about)
    assert unpack(_KEY, kept, head, until_ns) is None  # type: ignore[arg-type]
    assert unpack(_KEY, kept, head, stored_ns - 1) is None  # type: ignore[arg-type]


@given(at=st.integers(0, 200), bit=st.integers(0, 7))
def test_every_flipped_bit_is_noticed(at: int, bit: int) -> None:
    """Whichever bit of head or payload is flipped, the row is not believed. (D81)"""
    _, _, _, _, head, payload = pack(_KEY, b"p" * 50, _ABOUT, 1, 1_000)
    assert isinstance(head, bytes)
    assert isinstance(payload, bytes)
    row = bytearray(head + payload)
    row[at % len(row)] ^= 1 << bit
    with pytest.raises(DamagedRowError):
        unpack(_KEY, bytes(row[len(head) :]), bytes(row[: len(head)]), 500)


def test_what_a_value_is_goes_with_it(path: Path, opened: _Opened) -> None:
    """What was said of a value is found with it, in this process and the next."""
    opened.put(1, _ABOUT)
    opened.put(2)
    opened.flush()
    other = _Opened(path)
    for each in (opened, other):
        one, two = each.tier.get(_key(1)), each.tier.get(_key(2))
        assert one is not None
        assert two is not None
        assert (one.about, two.about) == (_ABOUT, PLAIN)
    other.tier.close()


def test_what_cannot_be_kept_costs_itself_alone(opened: _Opened) -> None:
    """A name that has no encoding, or a cost beyond bounds, costs its own value at most, and those
    around it are written."""
    opened.put(1)
    opened.put(2, About(name="\ud800"))
    opened.put(3, About(cost_ns=2**63))
    opened.put(4, About(cost_ns=2**70))
    opened.put(5)
    opened.flush()
    assert opened.has(1, 2, 3, 4, 5) == [True, False, True, False, True]
    assert opened.tier.snapshot().dropped == 2


# -- lifetimes ----------------------------------------------------------------------------------


@pytest.mark.parametrize("ttl_ns", [0, -1, -(10**30), -math.inf, math.nan])
def test_a_lifetime_that_is_none_stores_nothing(opened: _Opened, ttl_ns: float) -> None:
    """With a lifetime of 0, less, or no number, nothing is stored and what was there is gone, and
    other values are. (D91)"""
    opened.put(1)
    opened.put(1, ttl_ns=ttl_ns)
    opened.put(2)
    opened.flush()
    assert opened.has(1, 2) == [False, True]


@pytest.mark.parametrize("ttl_ns", [10**29, 2**63, 1e29, math.inf, 2**62])
def test_a_lifetime_beyond_all_bounds_is_long(opened: _Opened, ttl_ns: float) -> None:
    """However long a lifetime, the value is stored, and there in a century. (D91)"""
    opened.put(1, ttl_ns=ttl_ns)
    opened.flush()
    opened.clock.advance(100 * 365 * 86_400)
    assert opened.has(1) == [True]


@pytest.mark.parametrize("jump_s", [-3_600, 86_400])
def test_a_clock_that_jumps_prolongs_nothing(opened: _Opened, jump_s: int) -> None:
    """When the clock jumps, an hour back or a day on, a value is a miss; set right again, it has
    what was left of its lifetime. (D90)"""
    opened.put(1, ttl_ns=1_000)
    opened.flush()
    opened.clock.advance(jump_s)
    assert opened.has(1) == [False]
    opened.clock.advance(-jump_s)
    found = opened.tier.get(_key(1))
    assert found is not None
    assert found.remaining_ns == 1_000


def test_reads_that_forget_the_time_are_caught(
    opened: _Opened, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The check above fails for a tier that does not look at the clock."""
    monkeypatch.setattr(
        "paceline.cache.disk.tier.unpack", lambda key, payload, *_: Found(payload, 1_000)
    )
    with pytest.raises(AssertionError):
        test_a_clock_that_jumps_prolongs_nothing(opened, -3_600)


def test_no_room_at_all_is_told(path: Path) -> None:
    """With a limit of no bytes trouble is told once and everything is a miss. (D91)"""
    trouble: list[StorageError] = []
    tier = DiskTier(path, clock=VirtualClock(), max_bytes=0, on_trouble=trouble.append)
    for _ in range(3):
        tier.put(_KEY, b"", _HOUR)
        assert tier.flush(30)
        assert tier.get(_KEY) is None
    assert len(trouble) == 1
    tier.close()


def test_what_is_there_is_not_written_again(opened: _Opened) -> None:
    """The same value with the same end, to a millisecond, is not written; another value, what it
    is, or another end is. (S0-48)"""
    opened.put(1)
    opened.flush()
    first = _head(opened)
    opened.clock.advance(0.0005)
    opened.put(1)
    opened.flush()
    assert _head(opened) == first
    for change in ({"about": _ABOUT}, {"size": 11, "about": _ABOUT}, {"ttl_ns": 2 * _HOUR}):
        opened.put(1, **change)
        opened.flush()
        assert _head(opened) != first
        first = _head(opened)


def _head(opened: _Opened) -> Any:
    with closing(sqlite3.connect(opened.path)) as db, db:
        row = db.execute("SELECT head, payload FROM results").fetchone()
    db.close()
    return row


# -- reading many -------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [0, 1, 63, 64, 65, 200])
def test_many_are_found_at_once(opened: _Opened, count: int) -> None:
    """Of many keys all are found that are there, those removed and damaged are not."""
    for number in range(count):
        opened.put(number)
    opened.flush()
    with closing(sqlite3.connect(opened.path)) as db, db:
        db.execute("UPDATE results SET payload = x'ff' WHERE key = ?", (_key(0),))
    db.close()
    opened.tier.delete(_key(1))
    found = opened.tier.get_many(_key(number) for number in range(count + 10))
    assert set(found) == {_key(number) for number in range(2, count)}
    assert opened.tier.snapshot().damaged == (count > 0)


def test_the_hottest_come_first(path: Path, opened: _Opened) -> None:
    """For a warm start come first the rows that were hit, then the others, the newest of each
    first, no more than asked for, and none that was removed or expired. (S1-52)"""
    for number in range(2_500):
        opened.put(number, ttl_ns=10 if number == 7 else _HOUR)
    opened.flush()
    with closing(sqlite3.connect(path)) as db, db:
        db.execute("UPDATE results SET used = 1 WHERE key IN (?, ?)", (_key(3), _key(2_000)))
    db.close()
    opened.clock.advance(1)
    opened.tier.delete(_key(2_498))
    expected = [2_000, 3, 2_499, *(n for n in range(2_497, -1, -1) if n not in (3, 7, 2_000))]
    got = [int.from_bytes(key, "big") for key, _ in opened.tier.hottest(10_000)]
    assert got == expected
    assert [key for key, _ in opened.tier.hottest(5)] == [_key(n) for n in expected[:5]]
    assert list(opened.tier.hottest(0)) == []


def test_a_list_says_what_is_there(opened: _Opened) -> None:
    """A list has what is valid, in the order asked for, each with what it is and its size."""
    for number, (name, cost, size, ttl) in enumerate(
        [("a", 5, 30, 300), ("b", 9, 10, 100), ("c", 1, 20, 200)]
    ):
        opened.put(number, About(name, cost_ns=cost), size, ttl * 10**9)
        opened.clock.advance(1)
    opened.put(9, ttl_ns=1)
    opened.flush()
    opened.clock.advance(1)
    for order, names in {"stored": "cba", "expiry": "bca", "size": "acb", "cost": "bac"}.items():
        rows = list(opened.tier.entries(order=order))  # type: ignore[arg-type]
        assert "".join(row.about.name for row in rows) == names
    first = next(opened.tier.entries(1, "size"))
    assert (first.key, first.size_bytes, first.remaining_ns) == (_key(0), 30, 296 * 10**9)
    assert first.stored_ns == opened.clock.wall_ns() - 4 * 10**9
    opened.tier.delete(_key(0))
    assert [row.about.name for row in opened.tier.entries()] == ["c", "b"]


def test_the_figures_count(opened: _Opened) -> None:
    """The figures say how many rows there are, and what became of the others."""
    for number in range(20):
        opened.put(number, ttl_ns=1 if number < 5 else _HOUR)
    opened.put(99, size=1_000_000)
    opened.flush()
    opened.clock.advance(1)
    opened.tier.sweep()
    opened.flush()
    stats = opened.tier.snapshot()
    assert (stats.entries, stats.expirations, stats.dropped, stats.damaged) == (15, 5, 1, 0)
    assert 0 < stats.bytes < 4_000_000


# -- removing by what it is ---------------------------------------------------------------------


_FILES = (("read", "a"), ("read", "b"), ("read_dir", "a"), ("READ", "a"), ("re%d", "a"))


@pytest.mark.parametrize(
    ("condition", "left"),
    [
        ({"name": "read"}, [False, False, True, True, True]),
        ({"name": "re%d"}, [True, True, True, True, False]),
        ({"name": "'; DROP TABLE results; --"}, [True] * 5),
        ({"prefix": "read"}, [False, False, False, True, True]),
        ({"prefix": "re%"}, [True, True, True, True, False]),
        ({"prefix": ""}, [False] * 5),
        ({"predicate": lambda _, about: "a" in about.tags}, [False, True, False, False, False]),
        ({"name": "read", "predicate": lambda _, about: "b" in about.tags}, [True, False] + [True] * 3),
        ({"predicate": lambda key, _: key == _key(3)}, [True, True, True, False, True]),
        ({"name": "re%d", "predicate": lambda *_: 1 / 0}, [True, True, True, True, False]),
    ],
)  # fmt: skip
def test_values_are_removed_by_what_they_are(
    opened: _Opened, condition: dict[str, Any], left: list[bool]
) -> None:
    """All that meet the conditions are removed and counted, what still waits to be written
    included, and no others. (S0-50)"""
    for number, (name, tag) in enumerate(_FILES):
        opened.put(number, About(name, tags=(tag,)))
    assert opened.tier.delete_where(**condition) == left.count(False)
    assert opened.has(*range(5)) == left
    assert opened.tier.delete_where(**condition) == 0


def test_a_removal_needs_a_condition(opened: _Opened) -> None:
    """Removing without a condition is an error, not everything."""
    with pytest.raises(InvalidInputError):
        opened.tier.delete_where()


def test_what_is_removed_is_hidden_before_it_is_written(opened: _Opened) -> None:
    """While another process holds the file locked, what was removed by name is hidden all the
    same, from every way of reading, and the rest is not. (S0-50)"""
    opened.put(1, About("read"))
    opened.put(2, About("other"))
    opened.flush()
    with _locked(opened.path):
        assert opened.tier.delete_where(name="read", timeout_s=0.001) == 0
        assert opened.has(1, 2) == [False, True]
        assert list(opened.tier.get_many([_key(1), _key(2)])) == [_key(2)]
        assert [key for key, _ in opened.tier.hottest(9)] == [_key(2)]
        assert [row.key for row in opened.tier.entries()] == [_key(2)]
    opened.flush()
    opened.put(1, About("read"))
    opened.flush()
    assert opened.has(1, 2) == [True, True]


def test_removal_without_hiding_is_caught(opened: _Opened, monkeypatch: pytest.MonkeyPatch) -> None:
    """The check above fails for a tier that hides nothing."""
    monkeypatch.setattr(DiskTier, "_hiding", lambda *_: None)
    with pytest.raises(AssertionError):
        test_what_is_removed_is_hidden_before_it_is_written(opened)


def test_many_removals_at_once_are_bounded(opened: _Opened) -> None:
    """A hundred removals by condition while the file is locked hide at least what they mean, in
    bounded space, and all of it is found right afterwards."""
    for number in range(3):
        opened.put(number, About(f"n{number}"))
    opened.flush()
    with _locked(opened.path):
        for _ in range(100):
            opened.tier.delete_where(name="n1", timeout_s=0)
            assert opened.has(1) == [False]
        assert len(opened.tier._removals) <= 20
    opened.flush()
    assert opened.has(0, 1, 2) == [True, False, True]


# -- bounds -------------------------------------------------------------------------------------


@pytest.mark.parametrize("limit", [0, 1, 5, 100, 500])
def test_the_number_of_values_is_bounded(path: Path, limit: int) -> None:
    """However many are stored, no more than the limit stay, the newest. (S0-43, S0-46)"""
    opened = _Opened(path, entries=limit)
    for number in range(700):
        opened.put(number)
        if number % 50 == 0:
            opened.flush()
    opened.flush()
    stats = opened.tier.snapshot()
    assert stats.entries == limit
    assert opened.has(*range(700)) == [number >= 700 - limit for number in range(700)]
    assert stats.evictions == (700 - limit if limit else 0)
    opened.tier.close()


def test_an_update_evicts_nobody(path: Path) -> None:
    """Storing again under a key of a full tier removes no other. (S0-36)"""
    opened = _Opened(path, entries=10)
    for turn in range(3):
        for number in range(10):
            opened.put(number, size=turn + 1)
            opened.flush()
    assert opened.has(*range(10)) == [True] * 10
    assert opened.tier.snapshot().evictions == 0
    opened.tier.close()


def test_what_is_hit_stays(path: Path) -> None:
    """In a full tier a value that is asked for again and again outlives newer ones."""
    opened = _Opened(path, entries=20)
    for number in range(20):
        opened.put(number)
    opened.flush()
    for number in range(20, 200):
        assert opened.has(3) == [True]
        opened.put(number)
        opened.flush()
    assert opened.has(2, 198, 199) == [False, True, True]
    opened.tier.close()


def test_eviction_blind_to_hits_is_caught(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The check above fails for a tier that does not note hits."""
    monkeypatch.setattr(Room, "notes", lambda *_: False)
    with pytest.raises(AssertionError):
        test_what_is_hit_stays(path)


def test_what_was_dear_stays_longer(path: Path) -> None:
    """Of two values whose turn it is, the one goes that cost less to compute for its size."""
    opened = _Opened(path, entries=2)
    opened.put(1, About("dear", cost_ns=9_000_000_000))
    opened.put(2, About("cheap", cost_ns=1_000))
    opened.flush()
    opened.put(3)
    opened.flush()
    assert opened.has(1, 2, 3) == [True, False, True]
    opened.tier.close()


def test_a_tier_full_of_hits_still_makes_room(path: Path) -> None:
    """When every value was hit, the oldest go all the same, and the bytes stay bounded."""
    opened = _Opened(path, max_bytes=400_000)
    for number in range(600):
        opened.put(number, size=2_000)
        opened.flush()
        opened.has(number)
    stats = opened.tier.snapshot()
    assert stats.bytes <= 400_000
    assert stats.dropped == 0
    assert opened.has(0, 599) == [False, True]
    opened.tier.close()


def test_room_ends_its_walk(path: Path) -> None:
    """Asked for more room than there are rows, eviction empties the table and comes to an end."""
    opened = _Opened(path)
    for number in range(50):
        opened.put(number)
    opened.flush()
    db = sqlite3.connect(path, isolation_level=None)
    room = Room(1, 0)
    for _ in range(3):
        room.make(db, 0)
    assert db.execute("SELECT count(*) FROM results").fetchone() == (0,)
    assert room.evictions == 50
    db.close()
    opened.tier.close()


# -- the life of a tier -------------------------------------------------------------------------


def test_after_written_means_written(path: Path, opened: _Opened) -> None:
    """A callback comes when all that was stored before can be read by others."""
    seen: list[int] = []
    other = _Opened(path)
    opened.put(1)
    opened.tier.after_written(lambda: seen.append(sum(other.has(1))))
    opened.flush()
    opened.tier.close()
    assert seen == [1]
    opened.tier.after_written(lambda: seen.append(2))
    assert seen == [1, 2]
    other.tier.close()


def test_a_read_holds_nothing_open(path: Path, opened: _Opened) -> None:
    """After reads, of whatever kind, nothing keeps the log from being written back."""
    for number in range(100):
        opened.put(number)
    opened.flush()
    opened.has(1, 2, 500)
    opened.tier.get_many([_key(3)])
    next(opened.tier.hottest(3))
    next(opened.tier.entries())
    db = sqlite3.connect(path, isolation_level=None)
    busy, left, _ = db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
    db.close()
    assert (busy, left) == (0, 0)


def test_a_closed_tier_has_nothing(opened: _Opened) -> None:
    """After close, twice, every way of reading is empty and every way of writing does nothing.
    (D89)"""
    opened.put(1)
    opened.tier.close()
    opened.tier.close()
    opened.put(2)
    assert opened.has(1, 2) == [False, False]
    assert opened.tier.get_many([_key(1)]) == {}
    assert list(opened.tier.hottest(5)) == []
    assert list(opened.tier.entries()) == []
    assert opened.tier.delete_where(prefix="") == 0
    assert opened.tier.snapshot().entries == 0
    assert opened.tier.flush(1)


def test_a_child_process_leaves_the_file_alone(path: Path) -> None:
    """In a process forked off after opening everything is a miss, told once, whatever is called,
    and the parent's tier goes on. (D89)"""
    trouble: list[StorageError] = []
    tier = DiskTier(path, clock=VirtualClock(), max_bytes=4_000_000, on_trouble=trouble.append)
    tier.put(_KEY, b"value", _HOUR)
    assert tier.flush(30)
    read, write = os.pipe()
    with tier._lock:  # as if another thread held it in that moment
        child = os.fork()
    if child == 0:
        try:
            tier.put(_KEY, b"theirs", _HOUR)
            tier.delete(_KEY)
            told = f"{tier.get(_KEY)} {tier.flush()} {len(trouble)} {trouble[0]}"
            tier.close()
            os.write(write, told.encode())
        finally:
            os._exit(0)
    os.close(write)
    with os.fdopen(read) as said:
        told = said.read()
    assert os.waitpid(child, 0)[1] == 0
    assert told.startswith("None True 1 ")
    assert "forked" in told
    tier.put(b"o" * 32, b"other", _HOUR)
    assert tier.flush(30)
    assert tier.get(_KEY) == Found(b"value", _HOUR)
    assert tier.get(b"o" * 32) == Found(b"other", _HOUR)
    assert trouble == []
    tier.close()


def test_a_file_that_disappears_troubles_nobody(path: Path, opened: _Opened) -> None:
    """When file and directory are deleted while in use, values are found or missed, without an
    error, and the next process starts anew. (D84)"""
    opened.put(1)
    opened.flush()
    for file in path.parent.iterdir():
        file.unlink()
    path.parent.rmdir()
    for number in range(2, 300):
        opened.put(number, size=3_000)
    opened.flush()
    assert opened.has(1)[0] in (True, False)
    fresh = _Opened(path)
    fresh.put(5)
    fresh.flush()
    assert fresh.has(1, 5) == [False, True]
    fresh.tier.close()


def test_a_directory_in_the_place_is_told_once(path: Path) -> None:
    """Where the place of the file is taken by what is no file, trouble is told once. (D84)"""
    path.mkdir()
    trouble: list[StorageError] = []
    tier = DiskTier(path, clock=VirtualClock(), max_bytes=4_000_000, on_trouble=trouble.append)
    for _ in range(5):
        tier.put(_KEY, b"value", _HOUR)
        assert tier.get(_KEY) is None
    assert len(trouble) == 1
    tier.close()


def test_a_copy_without_its_log_is_whole_or_empty(path: Path, opened: _Opened) -> None:
    """A file copied without the log beside it gives whole values or none. (D87)"""
    for number in range(50):
        opened.put(number, size=1_000)
        opened.flush()
    copy = path.with_name("copy.db")
    copy.write_bytes(path.read_bytes())
    told: list[StorageError] = []
    tier = DiskTier(copy, clock=opened.clock, max_bytes=4_000_000, on_trouble=told.append)
    found = [tier.get(_key(number)) for number in range(50)]
    assert all(each is None or each.value == bytes(1_000) for each in found)
    tier.put(_KEY, b"value", _HOUR)
    assert tier.flush(30)
    assert tier.get(_KEY) is not None
    tier.close()
