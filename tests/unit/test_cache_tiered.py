"""The result cache: memory before file, one expiry, and values that are the caller's own."""

import dataclasses
import datetime as dt
import enum
import logging
import math
import subprocess
import sys
import zoneinfo
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, ClassVar

import msgspec
import pytest

from paceline.cache.disk.tier import DiskTier
from paceline.cache.memory.tier import MemoryTier
from paceline.cache.snapshot import Form, Snapshot
from paceline.cache.tiered import ResultCache
from paceline.call import Source
from paceline.errors import CodecError, InvalidInputError, StorageError
from paceline.testing.virtual_time import VirtualClock

_KEY = b"k" * 32
_TTL_S = 300


@dataclasses.dataclass
class Report:
    text: str
    extra: Any = None
    notes: Any = dataclasses.field(default=None, compare=False)
    score: float = 0.0


class Level(enum.StrEnum):
    HIGH = "high"


@dataclasses.dataclass
class Spiteful:
    """Its own code raises when it is compared or made again."""

    x: int
    made: ClassVar[bool] = False

    def __post_init__(self) -> None:
        if self.made:
            raise KeyError

    def __eq__(self, other: object) -> bool:
        raise ZeroDivisionError

    __hash__ = None  # type: ignore[assignment]


class Link(msgspec.Struct):
    next: "Link | None" = None


class Row(msgspec.Struct):
    name: str
    parts: list[int]


class Opaque:
    """Neither plain data nor declared, but it can be copied."""

    def __init__(self) -> None:
        self.items = [1]


def _unexpected(exc: StorageError) -> None:
    raise exc


class _Process:
    """What one process has: its own memory, and the file."""

    def __init__(self, path: Path | None, clock: VirtualClock, entries: int = 10) -> None:
        self.clock = clock
        self.disk = (
            None
            if path is None
            else DiskTier(path, clock=clock, max_bytes=4_000_000, on_trouble=_unexpected)
        )
        self.memory = MemoryTier[bytes, Snapshot](entries, clock=clock)
        self.cache = ResultCache(self.memory, self.disk, clock=clock)

    def put(self, value: object, ttl_s: float | None = None, type_: Any = None) -> None:
        self.cache.put(_KEY, value, ttl_s, type_)
        if self.disk is not None:
            assert self.disk.flush(30)

    def get(self, type_: Any = None) -> Any:
        return self.cache.get(_KEY, type_)

    def found(self) -> tuple[Any, Source]:
        """What is found, and where."""
        hit = self.get()
        return hit.value, hit.source

    def close(self) -> None:
        if self.disk is not None:
            self.disk.close()


@pytest.fixture
def clock() -> VirtualClock:
    return VirtualClock()


@pytest.fixture
def alone(clock: VirtualClock) -> _Process:
    return _Process(None, clock)


@pytest.fixture
def pair(tmp_path: Path, clock: VirtualClock) -> Iterator[tuple[_Process, _Process]]:
    both = [_Process(tmp_path / "cache.db", clock) for _ in range(2)]
    yield both[0], both[1]
    for process in both:
        process.close()


_VALUES: list[tuple[Any, Any]] = [
    (None, None), (0, None), ("", None), ([], None), (False, None), ("text", None), (2**70, None),
    ({"a": [1, {"b": None}]}, None), ((1, (2, "x")), None), ({1, 2}, None), ({1: "x"}, None),
    (b"bytes", None), (1.5, None), ("text", str), (["a"], list[str]),
    (Report("text"), Report), (Row("a", [1, 2]), Row), (None, Report | None),
]  # fmt: skip


@pytest.mark.parametrize(("value", "type_"), _VALUES)
def test_every_tier_gives_back_what_was_put(
    pair: tuple[_Process, _Process], value: Any, type_: Any
) -> None:
    """Values come back equal and of the same type from memory and from the file, None and empty
    ones included. (S0-34, S0-45)"""
    pair[0].put(value, type_=type_)
    for process, source in [(pair[0], Source.HOT), (pair[1], Source.WARM), (pair[1], Source.HOT)]:
        hit = process.get(type_)
        assert hit.source is source
        assert hit.value == value
        assert type(hit.value) is type(value)


def _promotes_with_the_lifetime_that_is_left(first: _Process, second: _Process) -> None:
    first.put("value", 100)
    first.clock.advance(60)
    assert second.get().source is Source.WARM
    first.clock.advance(40 - 1e-9)
    assert second.found() == ("value", Source.HOT)
    first.clock.advance(1e-9)
    assert first.get() is None
    assert second.get() is None


def test_a_result_has_one_expiry(pair: tuple[_Process, _Process]) -> None:
    """Whichever tiers a result goes through, it ends when it was to end when it was stored.
    (S0-47)"""
    _promotes_with_the_lifetime_that_is_left(*pair)


def test_promotion_with_a_new_lifetime_is_caught(
    pair: tuple[_Process, _Process], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The check above fails for a promotion that gives a full lifetime again."""
    put = MemoryTier[bytes, Snapshot].put
    monkeypatch.setattr(
        MemoryTier,
        "put",
        lambda self, key, value, _, **more: put(self, key, value, 300_000_000_000, **more),
    )
    with pytest.raises(AssertionError):
        _promotes_with_the_lifetime_that_is_left(*pair)


def test_the_newest_put_is_what_every_tier_gives(pair: tuple[_Process, _Process]) -> None:
    """A put replaces what every tier of this process holds, and what others read next. (S0-49)"""
    pair[0].put("old")
    pair[0].put(["new"])
    assert pair[0].get().value == ["new"]
    assert pair[1].get().value == ["new"]
    pair[0].put(Opaque())  # which the file cannot hold
    pair[0].memory.clear()
    assert pair[0].get() is None


def test_what_memory_lets_go_the_file_still_has(tmp_path: Path, clock: VirtualClock) -> None:
    """A result that memory had no more room for is found in the file. (S0-48)"""
    process = _Process(tmp_path / "cache.db", clock, entries=1)
    process.put("value")
    process.cache.put(b"o" * 32, "other")
    assert process.found() == ("value", Source.WARM)
    process.close()


@pytest.mark.parametrize(
    ("value", "type_"), [([1, [2]], None), (Report("a", [1]), Report), (Opaque(), None)]
)
def test_callers_cannot_change_what_others_get(
    pair: tuple[_Process, _Process], value: Any, type_: Any
) -> None:
    """Changing a value that was put or handed out changes nothing for anybody else. (S0-42)"""
    first, second = pair
    first.put(value, type_=type_)
    _spoil(value)
    for process in (first, first, second, second):
        hit = process.get(type_)
        if hit is not None:
            assert not _spoiled(hit.value)
            _spoil(hit.value)


def _spoil(value: Any) -> None:
    items = value if isinstance(value, list) else getattr(value, "items", None) or value.extra
    items.append("spoiled")


def _spoiled(value: Any) -> bool:
    return "spoiled" in str(value if isinstance(value, list) else vars(value))


def test_immutable_values_are_shared() -> None:
    """Values that nobody can change are kept as they are, not encoded."""
    for value in ("text", 5, None, b"x", (1, "a")):
        snapshot = Snapshot.take(value)
        assert snapshot.form is Form.SHARED
        assert snapshot.thaw() is value
    assert Snapshot.take((1, [])).form is Form.ENCODED


def test_sharing_mutable_values_is_caught(
    pair: tuple[_Process, _Process], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The check above fails for a cache that hands out references."""
    monkeypatch.setattr("paceline.cache.snapshot._shareable", lambda _: True)
    with pytest.raises(AssertionError):
        test_callers_cannot_change_what_others_get(pair, [1], None)


def test_a_value_without_encoding_stays_in_memory(
    pair: tuple[_Process, _Process], caplog: pytest.LogCaptureFixture
) -> None:
    """A value that has no encoding is kept as a copy in memory, not in the file, and the log
    says so."""
    caplog.set_level(logging.INFO, "paceline")
    pair[0].put(Opaque())
    assert isinstance(pair[0].get().value, Opaque)
    assert pair[1].get() is None
    assert "in memory only" in caplog.text


def test_a_value_that_cannot_be_kept_is_not(
    alone: _Process, caplog: pytest.LogCaptureFixture
) -> None:
    """A value that can be neither encoded nor copied, such as a generator, is not kept, removes
    what was there, and the log says so."""
    caplog.set_level(logging.INFO, "paceline")
    alone.put("old")
    alone.put(item for item in [1])
    assert alone.get() is None
    assert "not stored" in caplog.text


@pytest.mark.parametrize(
    "value",
    [
        Report("a", (1, 2)),
        Report("a", Level.HIGH),
        Report("a", notes=(1, 2)),
        Report("a", score=1),
        Report("a", dt.datetime(2025, 1, 1, tzinfo=zoneinfo.ZoneInfo("Europe/Berlin"))),
    ],
)
def test_a_value_that_would_come_back_changed_stays_in_memory(
    pair: tuple[_Process, _Process], value: Report
) -> None:
    """A declared type that does not tell a tuple from a list, a member from its text or 1 from 1.0
    does not turn one into the other, equal or not."""
    pair[0].put(value, type_=Report)
    assert repr(pair[0].get(Report).value) == repr(value)
    assert pair[1].get(Report) is None


def test_comparing_by_equality_is_caught(
    pair: tuple[_Process, _Process], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The check above fails where values are only compared by `==`."""
    monkeypatch.setattr("paceline.cache.snapshot._canonical", lambda value: value)
    with pytest.raises(AssertionError):
        test_a_value_that_would_come_back_changed_stays_in_memory(pair, Report("a", notes=(1, 2)))


def test_put_returns_what_it_took(alone: _Process, clock: VirtualClock) -> None:
    """A put returns the value as it was at that moment, for those who wait for it; None if it
    kept nothing."""
    value = [1]
    taken = alone.cache.put(_KEY, value)
    value.append(2)
    assert taken is not None
    assert taken.thaw() == [1]
    assert alone.cache.put(_KEY, value, 0) is None
    assert alone.cache.put(_KEY, (item for item in value)) is None


def test_without_tiers_nothing_is_encoded(
    clock: VirtualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A cache that keeps nothing does no work for it, but still refuses a wrong lifetime."""
    monkeypatch.setattr(Snapshot, "take", None)
    none = _Process(None, clock, entries=0)
    assert none.cache.put(_KEY, [1]) is None
    for wrong in (-1, math.nan):
        with pytest.raises(InvalidInputError):
            none.cache.put(_KEY, [1], wrong)


def test_a_values_own_code_harms_nobody(
    pair: tuple[_Process, _Process], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A value whose own code raises, or that is nested too deep, is put without an error, and is
    kept if it can be copied."""
    spiteful = Spiteful(1)
    monkeypatch.setattr(Spiteful, "made", True)
    pair[0].put(spiteful, type_=Spiteful)
    assert pair[0].get(Spiteful).value.x == 1
    assert pair[1].get(Spiteful) is None
    chain = Link()
    for _ in range(5_000):
        chain = Link(chain)
    pair[0].put(chain, type_=Link)
    assert pair[0].get(Link) is None


def test_a_result_of_another_type_is_a_miss(pair: tuple[_Process, _Process]) -> None:
    """What cannot be read as the type that is asked for is a miss and is removed."""
    pair[0].put({"name": 1})
    for process in pair:
        assert process.get(Row) is None
    assert pair[0].get() is None
    assert pair[1].disk is not None
    assert pair[1].disk.flush(30)
    assert pair[1].get() is None


@pytest.mark.parametrize(
    ("ttl_s", "after_s"), [(None, _TTL_S), (60, 60), (0, 0), (0.5, 0.5), (math.inf, 1e9)]
)
def test_lifetimes_of_results(alone: _Process, ttl_s: float | None, after_s: float) -> None:
    """No lifetime means the default, 0 means not stored, infinity for ever. (S0-37, S0-74, X-11)"""
    alone.put("value", ttl_s)
    alone.clock.advance(after_s - 1e-9)
    assert (alone.get() is not None) == bool(after_s)
    alone.clock.advance(1e-9)
    assert (alone.get() is not None) == (ttl_s == math.inf)


def test_a_negative_lifetime_is_refused(alone: _Process) -> None:
    """A negative lifetime raises InvalidInputError. (S0-37)"""
    with pytest.raises(InvalidInputError):
        alone.put("value", -1)


def test_nothing_to_store_removes_what_was_there(pair: tuple[_Process, _Process]) -> None:
    """A put that stores nothing still replaces what was there. (S0-49)"""
    pair[0].put("old")
    pair[0].put("new", 0)
    assert pair[0].get() is None
    assert pair[1].get() is None


def test_removals_reach_every_tier(pair: tuple[_Process, _Process]) -> None:
    """A deleted result and a cleared cache are gone from memory and file. (S0-50)"""
    first, second = pair
    removals: list[Callable[[], None]] = [lambda: first.cache.delete(_KEY), first.cache.clear]
    for remove in removals:
        first.put("value")
        remove()
        assert first.get() is None
        assert first.disk is not None
        assert first.disk.flush(30)
        assert second.get() is None


def test_a_look_up_counts_once(pair: tuple[_Process, _Process]) -> None:
    """A hit in the file is no miss of memory: rates are of look-ups, and tiers share the hits.
    (S0-51, S0-76)"""
    first, second = pair
    assert first.cache.totals.hit_rate == 0
    first.put("value")
    first.get()
    first.cache.get(b"o" * 32)
    second.get()
    second.get()
    second.get()
    mine, theirs = first.cache.totals, second.cache.totals
    assert (mine.hot_hits, mine.warm_hits, mine.misses, mine.hit_rate) == (1, 0, 1, 0.5)
    assert (theirs.hot_hits, theirs.warm_hits, theirs.misses, theirs.hit_rate) == (2, 1, 0, 1.0)
    assert len(second.memory) == 1
    assert not any(second.memory.removed.values())


def test_a_second_process_hits(tmp_path: Path) -> None:
    """What one process stored, a second one finds after the first is gone. (S0-46, S0-75)"""
    code = (
        "import sys, pathlib\n"
        "from paceline.cache.disk.tier import DiskTier\n"
        "from paceline.cache.memory.tier import MemoryTier\n"
        "from paceline.cache.tiered import ResultCache\n"
        "from paceline.testing.virtual_time import VirtualClock\n"
        "clock = VirtualClock()\n"
        "disk = DiskTier(pathlib.Path(sys.argv[1]), clock=clock, max_bytes=4_000_000,"
        " on_trouble=print)\n"
        "cache = ResultCache(MemoryTier(10, clock=clock), disk, clock=clock)\n"
        "hit = cache.get(b'k' * 32)\n"
        "print(*(['nothing'] if hit is None else [hit.value, hit.source]))\n"
        "cache.put(b'k' * 32, {'answer': (42,)})\n"
        "disk.close()\n"
    )
    said = [
        subprocess.run(
            [sys.executable, "-c", code, tmp_path / "cache.db"],
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for _ in range(2)
    ]
    assert said == ["nothing\n", "{'answer': (42,)} warm\n"]


def test_a_copy_that_fails_is_a_codec_error() -> None:
    """A value whose copying raises is refused with CodecError, whatever it raised."""

    class Unwilling:
        def __deepcopy__(self, memo: object) -> "Unwilling":
            raise ZeroDivisionError

    with pytest.raises(CodecError, match="Unwilling"):
        Snapshot.take(Unwilling())
