"""The hot tier: expiry, least recently used first, and threads."""

import gc
import itertools
import math
import random
import statistics
import sys
import threading
import tracemalloc
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from paceline.cache.entry import PLAIN, About, Entry, Table
from paceline.cache.memory.sizes import size_of
from paceline.cache.memory.tier import NEVER_NS, MemoryTier, lifetime_ns
from paceline.cache.policies import POLICIES
from paceline.clock import SystemClock
from paceline.errors import InvalidInputError
from paceline.testing.virtual_time import VirtualClock

_S = 1_000_000_000
_MAX = 2


_STEPS = st.tuples(
    st.sampled_from(["put", "put", "get", "advance", "delete"]),
    st.sampled_from("abc"),
    st.sampled_from([10, 1, 5, 60, 0]),
)


class _Model:
    """A list of what should be there, oldest use first, beside the tier."""

    def __init__(self, make: Callable[[VirtualClock], Any]) -> None:
        self.clock = VirtualClock()
        self.tier = make(self.clock)
        self.entries: OrderedDict[str, tuple[int, int]] = OrderedDict()
        self.values = itertools.count()

    def step(self, what: str, key: str, seconds: int) -> None:
        """Does one thing to both and compares what they hold."""
        match what:
            case "put":
                self.put(key, next(self.values), seconds)
            case "get":
                self.get(key)
            case "advance":
                self.clock.advance(min(seconds, 5))
            case _:
                known = self.entries.pop(key, None)
                assert self.tier.delete(key) == (known is not None and self.valid(known))
        kept = {key for key, entry in self.entries.items() if self.valid(entry)}
        assert {key for key in "abc" if self.tier.peek(key) is not None} == kept
        assert len(kept) <= len(self.tier) <= _MAX

    def valid(self, entry: tuple[int, int]) -> bool:
        return self.clock.monotonic_ns() < entry[1]

    def put(self, key: str, value: int, seconds: int) -> None:
        self.tier.put(key, value, seconds * _S)
        self.entries.pop(key, None)
        if seconds:
            for dead in [key for key, entry in self.entries.items() if not self.valid(entry)]:
                del self.entries[dead]
            if len(self.entries) == _MAX:
                self.entries.popitem(last=False)
            self.entries[key] = (value, self.clock.monotonic_ns() + seconds * _S)

    def get(self, key: str) -> None:
        found = self.tier.get(key)
        known = self.entries.get(key)
        if known is None or not self.valid(known):
            assert found is None
            return
        assert found is not None
        assert (found.value, found.fresh_ns) == known
        self.entries.move_to_end(key)


def _tier(clock: VirtualClock) -> MemoryTier[str, int]:
    return MemoryTier(_MAX, clock=clock)


@given(st.lists(_STEPS, max_size=60))
def test_the_tier_behaves_as_its_model(steps: list[tuple[str, str, int]]) -> None:
    """Any sequence of puts, gets, removals and time leaves what a plain model holds: expired
    entries go first, then the least recently used, and updates evict nobody. (S0-33, S0-35,
    S0-36, S1-07, X-10)"""
    model = _Model(_tier)
    for step in steps:
        model.step(*step)


class _Seeded:
    """A tier to put a bug into."""

    def __init__(self, clock: VirtualClock) -> None:
        self.tier = MemoryTier[str, int](_MAX, clock=clock)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.tier, name)

    def __len__(self) -> int:
        return len(self.tier)


class _FirstInFirstOut(_Seeded):
    def get(self, key: str) -> Any:
        return self.tier.peek(key)


class _UpdateEvicts(_Seeded):
    def put(self, key: str, value: int, ttl_ns: int) -> None:
        if len(self.tier) == _MAX and ttl_ns:
            self.tier.delete(self.tier.entries()[0].key)
        self.tier.put(key, value, ttl_ns)


class _LiveBeforeDead(_Seeded):
    def put(self, key: str, value: int, ttl_ns: int) -> None:
        self.tier._held.expiries.clear()
        self.tier.put(key, value, ttl_ns)


class _OldTimerKills(_Seeded):
    """The expiry of a replaced entry removes the newer one."""

    def __init__(self, clock: VirtualClock) -> None:
        super().__init__(clock)
        self.timers: list[tuple[int, str]] = []

    def put(self, key: str, value: int, ttl_ns: int) -> None:
        now = self.tier.now_ns()
        for end, name in self.timers:
            if end <= now:
                self.tier.delete(name)
        self.tier.put(key, value, ttl_ns)
        self.timers.append((now + ttl_ns, key))


class _StillFresh(_Seeded):
    """What is replaced stays as fresh as it was, for those who have it in hand."""

    def __init__(self, clock: VirtualClock) -> None:
        super().__init__(clock)
        self.hands: dict[str, Any] = {}

    def peek(self, key: str) -> Any:
        held = self.hands.get(key)
        if held is not None and self.tier.now_ns() < held[1]:
            return held[0]
        return self.tier.peek(key)

    def put(self, key: str, value: int, ttl_ns: int) -> None:
        self.tier.put(key, value, ttl_ns)
        entry = self.tier.peek(key)
        if entry is not None:
            self.hands[key] = (entry, entry.fresh_ns)


@pytest.mark.parametrize(
    "bug", [_FirstInFirstOut, _UpdateEvicts, _LiveBeforeDead, _OldTimerKills, _StillFresh]
)
def test_the_model_catches_seeded_bugs(bug: type[Any]) -> None:
    """A tier that evicts in order of arrival, evicts on update, keeps dead entries before live
    ones, lets an old expiry remove a newer entry or serves what left differs from the model."""

    with pytest.raises(AssertionError):
        _walk(_Model(bug), random.Random(1))


def _walk(model: _Model, rng: random.Random) -> None:
    for _ in range(5_000):
        what = rng.choice(["put", "put", "get", "advance", "delete"])
        model.step(what, rng.choice("abc"), rng.choice([10, 1, 5, 60, 0]))


def test_a_full_tier_can_be_updated() -> None:
    """An update in a full cache evicts nobody, even if there is room for one entry. (S0-36)"""
    for size in (1, 2):
        tier = MemoryTier[str, int](size, clock=VirtualClock())
        for key in "ab"[:size]:
            tier.put(key, 1, _S)
        tier.put("a", 2, _S)
        assert [tier.get(key) is not None for key in "ab"[:size]] == [True] * size
        assert tier.evictions == 0


def test_no_room_keeps_nothing() -> None:
    """With room for 0 entries nothing is kept and nothing fails; less makes no sense. (S0-36)"""
    tier = MemoryTier[str, int](0, clock=VirtualClock())
    tier.put("a", 1, _S)
    assert tier.get("a") is None
    assert len(tier) == 0
    with pytest.raises(InvalidInputError):
        MemoryTier[str, int](-1, clock=VirtualClock())


@pytest.mark.parametrize("value", [None, 0, "", [], False])
def test_empty_values_are_values(value: Any) -> None:
    """None, 0, "" and [] are found like any other value. (S0-34)"""
    tier = MemoryTier[str, Any](1, clock=VirtualClock())
    tier.put("a", value, _S)
    found = tier.get("a")
    assert found is not None
    assert found.value == value


def test_the_figures_tell_eviction_from_expiry() -> None:
    """Entries removed for room and entries past their time are counted apart. (S0-39)"""
    clock = VirtualClock()
    tier = MemoryTier[str, int](2, clock=clock)
    tier.put("a", 1, _S)
    tier.put("b", 1, 5 * _S)
    clock.advance(1)
    tier.put("c", 1, 5 * _S)
    tier.put("d", 1, 5 * _S)
    assert (tier.expirations, tier.evictions) == (1, 1)
    clock.advance(5)
    assert tier.get("d") is None
    assert (tier.expirations, tier.evictions) == (2, 1)


def test_expired_entries_leave_a_few_at_a_time() -> None:
    """Each store lets go of a few entries that are past their time, never of all at once; an idle
    moment may be used for as many as wanted. (S0-35, S1-08)"""
    clock = VirtualClock()
    tier = MemoryTier[int, int](1_000, clock=clock)
    for key in range(500):
        tier.put(key, key, _S)
    clock.advance(1)
    tier.put(1_000, 0, _S)
    assert len(tier) == 499
    assert tier.sweep(99) == 99
    for key in range(1_001, 1_300):
        tier.put(key, 0, _S)
    assert len(tier) == 300
    assert tier.evictions == 0
    assert tier.sweep(1_000) == 0


def test_expired_entries_go_before_live_ones() -> None:
    """A full tier evicts no valid entry as long as it holds one past its time, late by no more
    than a hundredth of its lifetime. (S0-35)"""
    clock = VirtualClock()
    tier = MemoryTier[int, int](100, clock=clock)
    for key in range(50):
        tier.put(key, key, 1_234_567_890)
    for key in range(50, 100):
        tier.put(key, key, 100 * _S)
    for key in range(50):
        tier.get(key)
    clock.advance(1.234567890 * 1.01)
    for key in range(100, 150):
        tier.put(key, key, 100 * _S)
    assert (tier.evictions, tier.expirations) == (0, 50)
    assert all(tier.peek(key) is not None for key in range(50, 150))


def test_what_is_kept_of_expiries_is_bounded() -> None:
    """Storing under the same keys again and again does not grow the lists of expiries, nor does
    evicting before the time."""
    tier = MemoryTier[int, int](100, clock=VirtualClock())
    for number in range(5_000):
        tier.put(number % 7, number, (1 + number % 50) * _S)
        assert tier._held.expiries.size <= 2 * 7 + 64 + 128
    for number in range(5_000):
        tier.put(number, number, (1 + number % 50) * _S)
        assert tier._held.expiries.size <= 2 * 100 + 64 + 128


def test_expiries_that_are_never_tidied_are_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    """The bound above fails if nothing is dropped before its time."""
    monkeypatch.setattr("paceline.cache.memory.expiry.Expiries._tidy", lambda _: None)
    with pytest.raises(AssertionError):
        test_what_is_kept_of_expiries_is_bounded()


@pytest.mark.parametrize(
    ("ttl_s", "expected"),
    [(0, 0), (0.5, _S // 2), (60, 60 * _S), (1e20, NEVER_NS), (math.inf, NEVER_NS)],
)
def test_lifetimes(ttl_s: float, expected: int) -> None:
    """0 is not at all, infinity and absurd lifetimes are for ever. (S0-37)"""
    assert lifetime_ns(ttl_s) == expected


@pytest.mark.parametrize("ttl_s", [-1, -0.1, -math.inf, math.nan])
def test_lifetimes_that_make_no_sense_are_refused(ttl_s: float) -> None:
    """A negative lifetime, or one that is no number, raises InvalidInputError. (S0-37)"""
    with pytest.raises(InvalidInputError):
        lifetime_ns(ttl_s)


def test_threads_share_a_tier() -> None:  # noqa: C901 (many ways to use it at once)
    """Eight threads with 20,000 operations each raise nothing, find only what was put under the
    key, never exceed the bounds, and leave tables, policy, bytes and tags that agree. (S0-44,
    S1-09, T9)"""
    tier = MemoryTier[int, int](20, clock=VirtualClock(), max_bytes=20_000)
    tables = [Table("a"), Table("b")]
    failures: list[object] = []

    def look(key: int, table: Table) -> None:
        found = table.entries.get(key)
        if found is not None and tier.now_ns() < found.fresh_ns:
            tier.touch(found)
            if found.value != key or len(tier) > 20 + 8 or tier.bytes > 20_000 * 1.5:
                failures.append(found)

    def step(number: int, seed: int) -> None:
        key, table = (number * (seed + 3)) % 40, tables[number % 2]
        about = About(tags=(f"t{key % 3}",)) if key % 2 else PLAIN
        if number % 8 < 2:
            tier.put(key, key, _S, table=table, about=about, since=tier.epoch)
        elif number % 8 == 2:
            tier.delete((key * 7) % 40, table)
        elif number % 1_000 == 3:
            tier.invalidate(tag=f"t{key % 3}")
        elif number % 2_000 == 4:
            tier.clear(table if number % 4_000 == 4 else None)
        else:
            look(key, table)

    def work(seed: int) -> None:
        for number in range(20_000):
            step(number, seed)

    assert _together(work) == failures == []
    _check_books(tier, tables)


def _together(work: Callable[[int], None]) -> list[object]:
    """What eight threads at work raise."""
    raised: list[object] = []

    def one(seed: int) -> None:
        try:
            work(seed)
        except Exception as exc:  # noqa: BLE001 (whatever it is, the test fails)
            raised.append(exc)

    threads = [threading.Thread(target=one, args=(seed,)) for seed in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return raised


def _check_books(tier: Any, tables: list[Table]) -> None:
    """Tables, policy, weights and tags of a tier agree, and nothing exceeds its bounds."""
    held = tier.entries()
    assert len(held) == len(tier) <= tier.max_entries
    listed = [entry for table in (tier.main, *tables) for entry in table.entries.values()]
    assert {id(entry) for entry in listed} == {id(entry) for entry in held}
    assert all(entry.fresh_ns > 0 and entry.table.entries[entry.key] is entry for entry in held)
    assert tier.bytes == (sum(entry.weight for entry in held) if tier.max_bytes else 0)
    tagged = {id(e): e for entries in tier._held.tags.values() for e in entries}
    assert set(tagged) == {id(e) for e in held if e.terms is not None and e.terms.about.tags}
    assert tier.stats().stored == len(tier) + sum(tier.stats().removed.values())


class _Watched:
    """A value that says when it goes."""

    def __init__(self, gone: Callable[[], object]) -> None:
        self.gone = gone

    def __del__(self) -> None:
        self.gone()


def test_values_may_use_the_cache_as_they_go() -> None:
    """A value whose end runs code that uses the cache blocks nobody, however it leaves. (S0-44)"""
    clock = VirtualClock()
    tier = MemoryTier[str, Any](1, clock=clock)
    seen: list[int] = []

    def gone() -> None:
        tier.delete("nothing")
        seen.append(len(tier))

    tier.put("a", _Watched(gone), _S)
    tier.put("a", _Watched(gone), _S)
    tier.put("b", _Watched(gone), _S)
    clock.advance(1)
    tier.put("c", _Watched(gone), _S)
    tier.delete("c")
    tier.put("d", _Watched(gone), _S)
    tier.clear()
    gc.collect()
    assert len(seen) == 5


def test_what_is_asked_in_the_middle_is_done_after() -> None:
    """A store, a removal or a look that a value asks for as it goes, in the middle of another
    store, happens right after that one, and leaves the books in order. (S0-44)"""
    clock = VirtualClock()
    told: list[object] = []
    tier = MemoryTier[str, Any](9, clock=clock, on_evict=told.append)
    requests: list[Callable[[], object]] = [
        lambda: tier.put("late", 1, _S),
        lambda: tier.put("late", 2, _S, since=tier.epoch, about=About(tags=("t",))),
        lambda: tier.delete("new"),
        lambda: tier.invalidate(tag="t"),
        tier.clear,
        tier.sweep,
        tier.entries,
        lambda: tier.put("late", 3, 0),
    ]
    for request in requests:
        epoch = tier.epoch
        tier.put("old", _Watched(request), _S)
        tier.put("old", 0, _S)  # the watched value is in the list of expiries still
        clock.advance(1)
        tier.put("new", 0, _S)
        tier.put("newer", 0, _S)
        _check_books(tier, [])
        changed = request in requests[2:5]
        assert (tier.epoch > epoch) == changed
        assert (tier.peek("late") is not None) == (request in requests[:2])
    assert told == []


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("most_bytes", [None, 20_000])
def test_every_policy_keeps_the_books(policy: str, most_bytes: int | None) -> None:
    """Under every policy, by entries or bytes, with equal keys in several tables and keys of one
    hash, what is held stays what was stored and within its bounds. (S0-30, S0-43)"""
    rng, clock = random.Random(1), VirtualClock()
    tier = MemoryTier[int, int](30, clock=clock, policy=POLICIES[policy], max_bytes=most_bytes)
    tables = [Table("a"), Table("b")]
    for number in range(5_000):
        key, table = rng.choice([-1, -2, *range(60)]), rng.choice(tables)
        match rng.randrange(100):
            case n if n < 40:
                found = table.entries.get(key)
                if found is not None and clock.monotonic_ns() < found.fresh_ns:
                    tier.touch(found)
                    assert found.value == key
            case n if n < 90:
                tier.put(key, key, rng.choice([1, 5, 10]) * _S, table=table)
            case n if n < 97:
                tier.delete(key, table)
            case n:
                clock.advance(n == 98)
        if number % 50 == 0:
            _check_books(tier, tables)


def test_bytes_are_bounded() -> None:
    """A tier of so many bytes holds no more, by an estimate that knows containers, and refuses
    what is too large for one entry, letting go of what was there. (S0-43)"""
    tier = MemoryTier[str, Any](1_000, clock=VirtualClock(), max_bytes=100_000)
    for number in range(500):
        tier.put(str(number), ["x" * 1_000], _S)
        assert tier.bytes <= 100_000
    assert 70 <= len(tier) <= 82
    assert tier.stats().removed["bytes"] == 500 - len(tier)
    tier.put("499", "x" * 13_000, _S)
    assert tier.find("499") is None
    assert tier.refused == 1
    _check_books(tier, [])


@pytest.mark.parametrize("size", [0, 1])
def test_a_bound_of_no_bytes_keeps_nothing(size: int) -> None:
    """Without room for a single entry nothing is kept, and nothing loops. (D91)"""
    tier = MemoryTier[str, Any](10, clock=VirtualClock(), max_bytes=size, max_entry_bytes=10_000)
    assert tier.put("a", 1, _S) is not None
    assert len(tier) == 0


@given(
    st.recursive(
        st.text(max_size=50) | st.binary(max_size=50) | st.integers() | st.none(),
        lambda inner: st.lists(inner, max_size=6) | st.dictionaries(st.text(max_size=5), inner),
        max_leaves=60,
    )
)
def test_sizes_of_small_values_are_exact(value: Any) -> None:
    """The estimate of a value with few items is the sum of what all its objects take. (S0-43)"""

    def size(item: Any, seen: set[int]) -> int:
        if id(item) in seen and isinstance(item, list | dict):
            return 0
        seen.add(id(item))
        inside: list[Any] = []
        if isinstance(item, list):
            inside = item
        elif isinstance(item, dict):
            inside = [*item, *item.values()]
        total = sys.getsizeof(item)
        for one in inside:
            total += 0 if id(one) in seen else size(one, seen)
        return total

    assert size_of(value) == size(value, set())


def test_sizes_of_large_values_are_cheap_estimates() -> None:
    """A large value is measured by some of its items, within a tenth; what refers to itself, or
    cannot count itself, has a size all the same. (S0-43)"""
    rows = [[f"{number:09}" * (1 + number % 9), float(number)] for number in range(20_000)]
    exact = sum(map(size_of, rows)) + sys.getsizeof(rows)
    assert abs(size_of(rows) - exact) < exact / 10

    looked = []

    class Counting:
        def __sizeof__(self) -> int:
            looked.append(1)
            return 1_000

    assert size_of([Counting() for _ in range(100_000)]) > 90_000_000
    assert len(looked) <= 600

    class Shy:
        def __sizeof__(self) -> int:
            raise ZeroDivisionError

    endless: list[Any] = [Shy()]
    endless.append(endless)
    assert size_of(endless) > 0


def test_an_entry_takes_little() -> None:
    """An entry of a full-sized cache takes at most 200 bytes beside its key and value, and 220
    with a lifetime."""
    keys = list(range(10_000, 35_000))
    for ttl_ns, most in [(NEVER_NS, 200), (300 * _S, 220)]:
        tracemalloc.start()
        try:
            before = tracemalloc.get_traced_memory()[0]
            tier = MemoryTier[int, str](25_000, clock=SystemClock())
            for key in keys:
                tier.put(key, "x", ttl_ns)
            taken = tracemalloc.get_traced_memory()[0] - before
        finally:
            tracemalloc.stop()
        assert taken / len(keys) <= most
        assert len(tier) == len(keys)


def test_victims_are_handed_on() -> None:
    """What had to make room is told, outside of the lock and with its key and value; what expired
    or was removed is not. (S0-48)"""
    clock = VirtualClock()
    told: list[tuple[str, int]] = []

    def demote(entry: Entry) -> None:
        told.append((entry.key, entry.value))
        assert tier.delete("nothing") is False  # would wait for ever under the lock

    tier = MemoryTier[str, int](2, clock=clock, on_evict=demote)
    for number, key in enumerate("abc"):
        tier.put(key, number, _S)
    tier.delete("b")
    tier.put("c", 9, _S)
    clock.advance(1)
    tier.put("d", 4, _S)
    tier.put("e", 5, _S)
    assert told == [("a", 0)]


def test_removal_by_tag_prefix_and_predicate() -> None:
    """Entries are removed by tag, by the beginning of their name, by what is true of them, or by
    all of these together; the index of tags holds nothing of entries that left. (S0-38, S0-78)"""
    tier = MemoryTier[str, int](100, clock=VirtualClock())
    weather = Table("tools.weather")
    for number in range(6):
        tags = ("even",) if number % 2 == 0 else ("odd", "all")
        tier.put(f"n{number}", number, _S, about=About(tags=tags))
        tier.put(f"n{number}", number, _S, table=weather)
    tier.put("named", 1, _S, about=About(name="tools.news"))
    assert tier.invalidate(tag="odd", predicate=lambda entry: entry.value > 1) == 2
    assert tier.invalidate(tag="even") == 3
    assert tier.invalidate(tag="even") == 0
    assert tier.invalidate(prefix="tools.") == 7
    assert [entry.key for entry in tier.entries()] == ["n1"]
    tier.put("n1", 2, _S)
    assert tier._held.tags == {}
    assert tier.invalidate(predicate=lambda entry: entry.key == "n1") == 1
    _check_books(tier, [weather])


def _late(tier: MemoryTier[str, int], remove: Callable[[], object]) -> bool:
    """Whether a result that was computed before a removal is stored after it."""
    tier.put("k", 0, _S)
    since = tier.epoch
    remove()
    kept = tier.put("k", 1, _S, about=About(tags=("t",)), since=since)
    found = tier.peek("k")
    assert (kept is not None) == (found is not None and found.value == 1)
    tier.put("k", 2, _S, since=tier.epoch)
    assert tier.peek("k") is not None
    return kept is not None


def test_what_was_computed_before_a_removal_is_not_stored() -> None:
    """A result under a key that was removed while it was computed, by itself, with its tag or
    with everything, is not stored; removals that do not concern it are no hindrance. (S0-78)"""
    tier = MemoryTier[str, int](10, clock=VirtualClock())
    other = Table()
    for remove in (
        lambda: tier.delete("k"),
        lambda: tier.invalidate(tag="t"),
        lambda: tier.invalidate(prefix="k"),
        tier.clear,
        lambda: tier.clear(tier.main),
        lambda: [tier.delete(f"j{number}") for number in range(8_193)],
        lambda: [tier.invalidate(tag="u") for _ in range(257)],
    ):
        assert not _late(tier, remove)
    for remove in (
        lambda: tier.delete("j"),
        lambda: tier.delete("k", other),
        lambda: tier.invalidate(tag="u"),
        lambda: tier.clear(other),
    ):
        assert _late(tier, remove)


def test_the_order_of_use_survives_threads_and_floods() -> None:
    """The policy learns of hits in their order, of the last 1,024 between two stores."""
    tier = MemoryTier[int, int](3, clock=VirtualClock())
    for key in range(3):
        tier.put(key, key, _S)
    for key in (2, *[1] * 5_000, 0, 1):
        tier.get(key)
    assert [entry.key for entry in tier.entries()] == [2, 0, 1]


def test_jitter_shortens_lifetimes_within_its_bounds() -> None:
    """With a jitter of a fifth lifetimes lie between four fifths and all of what was asked for,
    spread evenly, and never end in what lasts for ever. (D92)"""
    clock = VirtualClock()
    tier = MemoryTier[int, int](5_000, clock=clock, jitter=0.2, rng=random.Random(1))
    ends = []
    for key in range(2_000):
        entry = tier.put(key, key, 100 * _S)
        assert entry is not None
        ends.append(entry.fresh_ns / _S)
    assert 80 <= min(ends) < 80.1
    assert 99.9 < max(ends) <= 100
    assert abs(statistics.mean(ends) - 90) < 0.5
    for_ever = tier.put(1, 1, NEVER_NS)
    assert for_ever is not None
    assert for_ever.fresh_ns == NEVER_NS
    for wrong in (-0.1, 1.1, math.nan):
        with pytest.raises(InvalidInputError):
            MemoryTier(1, clock=clock, jitter=wrong)


def test_early_refresh_follows_its_law() -> None:
    """A request made before the expiry by t costs asks for computing anew with a chance of
    exp(-t): hardly ever long before, always from the expiry on. (Vattani 2015, S0-41)"""
    clock = VirtualClock()
    tier = MemoryTier[int, int](10, clock=clock, rng=random.Random(1))
    entry = tier.put(1, 1, 1_000 * _S, about=About(cost_ns=2 * _S), early=1.0)
    assert entry is not None
    assert tier.get(1) is entry
    for costs, passed_s in ((10, 980), (2, 16), (1, 2), (0.5, 1)):
        clock.advance(passed_s)
        due = sum(tier.due(entry) for _ in range(4_000)) / 4_000
        assert abs(due - math.exp(-costs)) < 0.03
    clock.advance(1)
    assert all(tier.due(entry) for _ in range(100))


def test_without_early_refresh_only_the_expired_is_due() -> None:
    """An entry without early refresh is due from its expiry on, and one that left at any time."""
    clock = VirtualClock()
    tier = MemoryTier[int, int](10, clock=clock)
    entry = tier.put(1, 1, 10 * _S, about=About(stale_ns=5 * _S))
    assert entry is not None
    clock.advance(9)
    assert not tier.due(entry)
    clock.advance(1)
    assert tier.due(entry)
    tier.put(1, 2, 10 * _S, about=About(stale_ns=5 * _S))
    assert tier.due(entry)


def test_every_hit_counts_on_its_entry() -> None:
    """An entry knows how often it was used; looking at it is no use. (S0-29)"""
    tier = MemoryTier[int, int](3, clock=VirtualClock())
    tier.put(1, 1, _S)
    for _ in range(3):
        tier.get(1)
    tier.peek(1)
    tier.get(2)
    assert [entry.uses for entry in tier.entries()] == [3]


def test_figures_add_up() -> None:
    """Hits of entries that are there and of those that left are counted, and every entry that was
    stored is there or left for a reason. (S0-39)"""
    clock = VirtualClock()
    tier = MemoryTier[int, int](3, clock=clock)
    for key in range(5):
        tier.put(key, key, _S if key == 4 else 9 * _S)
        tier.get(key)
    tier.get(4)
    tier.delete(3)
    tier.put(2, 0, 9 * _S)
    clock.advance(1)
    tier.get(4)
    tier.clear()
    stats = tier.stats()
    assert (stats.hits, stats.stored, stats.entries) == (6, 6, 0)
    assert stats.removed == {
        "capacity": 2, "bytes": 0, "expired": 1, "deleted": 1, "replaced": 1, "cleared": 1,
    }  # fmt: skip
