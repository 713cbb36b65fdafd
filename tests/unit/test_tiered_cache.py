"""`TieredCache`: three tiers, one copy of each value, one end of its life."""

import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from hypothesis import Phase, settings
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    rule,
    run_state_machine_as_test,
)
from hypothesis.strategies import permutations, sampled_from

from paceline.cache.function.decorator import cached
from paceline.cache.stack import levels
from paceline.cache.stack.cache import CacheTier, TieredCache
from paceline.cache.stack.levels import IndexedLevel, Kept
from paceline.cache.stack.stack import TierStack
from paceline.errors import CodecError, InvalidInputError, StorageError, UnkeyableError
from paceline.testing.virtual_time import VirtualClock


@pytest.fixture
def clock() -> VirtualClock:
    return VirtualClock()


@pytest.fixture(params=["memory", "directory", "store"])
def make(
    request: pytest.FixtureRequest, clock: VirtualClock, tmp_path: Path
) -> Iterator[Callable[..., TieredCache]]:
    """Makes a cache whose lower tiers are in memory, in a file, or in a store of ours."""
    made: list[TieredCache] = []

    def build(*sizes: int, **options: Any) -> TieredCache:
        if request.param == "directory":
            options["directory"] = tmp_path / "cache"
        if request.param == "store":
            options["cold"] = _Store(clock)
        made.append(TieredCache(*sizes, clock=clock, **options))
        return made[-1]

    yield build
    for cache in made:
        cache.close()


class _Found(NamedTuple):
    value: bytes


class _Store:
    """A store of bytes that does not even know when they end."""

    def __init__(self, clock: VirtualClock) -> None:
        self.held: dict[bytes, bytes] = {}
        self.broken = False

    def get(self, key: bytes, /) -> _Found | None:
        self._work()
        return _Found(self.held[key]) if key in self.held else None

    def put(self, key: bytes, value: bytes, ttl_ns: int, /) -> None:
        self._work()
        self.held[key] = value

    def delete(self, key: bytes, /) -> None:
        self._work()
        self.held.pop(key, None)

    def clear(self) -> None:
        self._work()
        self.held.clear()

    def _work(self) -> None:
        if self.broken:
            raise OSError("away")


def _sizes(cache: TieredCache) -> tuple[int, int, int]:
    stats = cache.stats()
    return stats.hot.size, stats.warm.size, stats.cold.size


def test_the_defaults_are_those_of_old() -> None:
    """100, 500 and 2,000 values for 300, 1,800 and 3,600 seconds. (S0-46, X-12)"""
    clock = VirtualClock()
    cache = TieredCache(clock=clock)
    stats = cache.stats()
    assert (stats.hot.max_size, stats.warm.max_size, stats.cold.max_size) == (100, 500, 2000)
    for tier, seconds in (("hot", 300), ("warm", 1800), ("cold", 3600)):
        cache = TieredCache(clock=clock)
        cache.put("k", tier, priority=CacheTier(tier))
        clock.advance(seconds - 0.001)
        assert "k" in cache
        clock.advance(0.001)
        assert "k" not in cache
        assert cache.get("k") is None


def test_every_value_is_a_value(make: Callable[..., TieredCache]) -> None:
    """None, 0, "" and [] are found in each tier; a default is for what is not there. (S0-34)"""
    cache = make()
    values: list[Any] = [None, 0, "", [], False, {"a": [1]}, (1, 2), b"\0"]
    for priority in CacheTier:
        for value in values:
            cache.put("k", value, priority)
            found = cache.get("k", "absent")
            assert found == value
            assert type(found) is type(value)
            assert cache.delete("k")
    assert cache.get("k", "absent") == "absent"


def test_a_lifetime_of_zero_stores_nothing(make: Callable[..., TieredCache]) -> None:
    """ttl=0 stores nothing and removes what was there; a negative one is refused. (S0-37, S0-74)"""
    cache = make()
    for priority in CacheTier:
        cache.put("k", 1, "hot")
        cache.put("k", 2, priority, ttl=0)
        assert cache.get("k") is None
        with pytest.raises(InvalidInputError):
            cache.put("k", 3, priority, ttl=-1)
    cache.put("k", 1, ttl=float("inf"))
    assert cache.get("k") == 1


def test_a_hit_below_lifts_the_value_and_keeps_its_end(
    make: Callable[..., TieredCache], clock: VirtualClock
) -> None:
    """A value put as cold and promoted ends when it was to end, not a tier's lifetime later.
    (S0-47, T7)"""
    cache = make()
    cache.put("k", "v", "cold", ttl=100)
    clock.advance(99)
    assert cache.get("k") == "v"
    assert _sizes(cache)[0] == 1
    clock.advance(0.999_999_999)
    assert cache.get("k") == "v"
    clock.advance(0.000_000_001)
    assert cache.get("k") is None


def test_a_promoted_value_is_gone_where_it_came_from(make: Callable[..., TieredCache]) -> None:
    """A value is in one tier at a time. (S0-47)"""
    cache = make()
    cache.put("k", "v", "warm")
    assert _sizes(cache) == (0, 1, 0)
    assert cache.get("k") == "v"
    assert _sizes(cache) == (1, 0, 0)
    assert cache.delete("k")
    assert cache.get("k") is None


def test_what_has_to_make_room_sinks(make: Callable[..., TieredCache], clock: VirtualClock) -> None:
    """The victim of a tier is in the next one, with the rest of its life. (S0-48, T7)"""
    cache = make(1, 1, 9)
    cache.put("a", 1, "hot", ttl=10)
    clock.advance(5)
    cache.put("b", 2, "hot", ttl=10)
    cache.put("c", 3, "hot", ttl=10)
    stats = cache.stats()
    assert (stats.hot.size, stats.warm.size, stats.hot.demoted, stats.warm.demoted) == (1, 1, 2, 1)
    assert all(key in cache for key in "abc")
    clock.advance(5)
    assert ("a" in cache, cache.get("b"), cache.get("c")) == (False, 2, 3)
    clock.advance(5)
    assert [key for key in "abc" if key in cache] == []


def test_an_expired_victim_does_not_sink(clock: VirtualClock) -> None:
    """What is past its time leaves for good when room is needed. (S0-48)"""
    cache = TieredCache(1, 1, 1, clock=clock)
    cache.put("a", 1, "hot", ttl=1)
    clock.advance(1)
    cache.put("b", 2, "hot")
    assert len(cache) == 1
    assert cache.stats().hot.demoted == 0


def test_a_put_is_seen_whatever_tier_had_the_key(make: Callable[..., TieredCache]) -> None:
    """A put replaces the value in every tier. (S0-49, T7)"""
    cache = make()
    for first in CacheTier:
        for second in CacheTier:
            cache.put("k", "old", first)
            cache.put("k", "new", second)
            assert cache.get("k") == "new"
            assert len([1 for size in _sizes(cache) if size]) <= 1
            assert cache.delete("k")
            assert cache.get("k") is None


def test_a_tier_there_is_not_is_refused() -> None:
    """A typo is a ValueError that names the tiers. (S0-49)"""
    cache = TieredCache()
    with pytest.raises(InvalidInputError, match="no tier 'Hot'") as error:
        cache.put("k", 1, priority="Hot")  # type: ignore[arg-type]
    assert error.value.next_step == "Use one of hot, warm, cold."
    assert isinstance(error.value, ValueError)
    assert len(cache) == 0
    with pytest.raises(TypeError):
        TieredCache(hot=1)  # type: ignore[call-arg]


def test_replacing_a_value_pushes_out_no_other(make: Callable[..., TieredCache]) -> None:
    """When all is full, a put on a key that is there, into any tier, loses nobody. (S0-36, T3)"""
    for target in CacheTier:
        for key in "abc":
            cache = make(1, 1, 1)
            for other in "abc":
                cache.put(other, 1, "hot")
            cache.put(key, 2, target)
            assert [other for other in "abc" if other in cache] == list("abc")
            assert cache.get(key) == 2
            cache.clear()


def test_a_tier_without_room_leaves_it_to_the_next(clock: VirtualClock) -> None:
    """A size of 0 turns a tier off; the values go to the others. (S0-36, T3)"""
    cache = TieredCache(0, 2, 0, clock=clock)
    for priority in CacheTier:
        cache.put(priority, 1, priority)
    assert [p.value for p in CacheTier if cache.get(p)] == ["warm", "cold"]
    nothing = TieredCache(0, 0, 0, clock=clock)
    nothing.put("k", 1)
    assert nothing.get("k") is None


def test_all_ways_to_remove(make: Callable[..., TieredCache]) -> None:
    """Values go by key, all at once, by tag, by prefix and by predicate, from every tier.
    (S0-50, S0-78)"""
    cache = make()
    for priority in CacheTier:
        cache.put(f"user:{priority}", 1, priority, tags=["users"])
        cache.put(f"file:{priority}", 2, priority, tags=["files"])
    assert cache.invalidate(tag="users") >= 2
    assert not any(f"user:{priority}" in cache for priority in CacheTier)
    assert "file:hot" in cache
    cache.put("user:1", 1, "warm")
    assert cache.invalidate(prefix="file:") >= 2
    assert not any(f"file:{priority}" in cache for priority in CacheTier)
    assert "user:1" in cache
    cache.put("user:2", 1, "hot", tags=["x"])
    assert cache.invalidate(predicate=lambda about: about.name == "user:1") == 1
    assert ("user:1" in cache, "user:2" in cache) == (False, True)
    assert not cache.delete("user:1")
    assert cache.clear() == 1
    assert len(cache) == 0
    with pytest.raises(InvalidInputError):
        cache.invalidate()


def test_tags_go_where_the_value_goes(make: Callable[..., TieredCache]) -> None:
    """A tag is kept when a value sinks and when it is lifted. (S0-78)"""
    cache = make(1, 1, 5)
    for key in "abc":
        cache.put(key, key, "hot", tags=[f"tag-{key}"])
    cache.get("a")
    for key in "abc":
        cache.invalidate(tag=f"tag-{key}")
        assert key not in cache


def test_a_returned_value_is_the_callers_own(make: Callable[..., TieredCache]) -> None:
    """What a caller does to a value no other caller sees, in any tier. (S0-42, T6)"""
    cache = make()
    for priority in CacheTier:
        value = [1, [2]]
        cache.put("k", value, priority)
        value.append(3)
        cache.get("k").append(4)
        assert cache.get("k") == [1, [2]]


def test_one_request_counts_once(make: Callable[..., TieredCache]) -> None:
    """A hit in a lower tier is one hit and no miss; shares are of all hits. (S0-51, S0-76, T8)"""
    cache = make()
    cache.put("w", 1, "warm")
    cache.put("c", 2, "cold")
    for key in "wccx":
        cache.get(key)
    stats = cache.stats()
    totals = stats.totals
    assert (totals.hot_hits, totals.warm_hits, totals.cold_hits, totals.misses) == (1, 1, 1, 1)
    assert stats.hit_rate == 0.75
    assert stats.hot.share == pytest.approx(1 / 3)
    assert (stats.warm.promoted, stats.cold.promoted, totals.stored) == (1, 1, 2)


def test_the_dictionary_of_old(clock: VirtualClock) -> None:
    """`get_stats` has a part for each tier, whose rates add up to the overall one. (S0-51, S0-77)"""
    cache = TieredCache(clock=clock)
    cache.put("w", 1)
    cache.get("w")
    cache.get("w")
    cache.get("x")
    cache.get("y")
    shown = cache.get_stats()
    assert list(shown) == ["hot", "warm", "cold", "overall"]
    assert [shown[tier]["hit_rate"] for tier in shown] == ["25.0%", "25.0%", "0.0%", "50.0%"]
    assert shown["overall"] == {
        "size": 1, "max_size": 2600, "hits": 2, "misses": 2,
        "hit_rate": "50.0%", "total_requests": 4,
    }  # fmt: skip
    assert shown["warm"]["max_size"] == 500


def test_latency_is_told_by_tier() -> None:
    """The mean time of a hit is that of the tier that answered. (S0-51)"""
    clock = _TickingClock()
    cache = TieredCache(clock=clock)
    cache.put("k", 1)
    cache.get("k")
    cache.get("k")
    stats = cache.stats()
    assert 0 < stats.hot.mean_ns < stats.warm.mean_ns
    assert stats.cold.mean_ns == 0


class _TickingClock:
    """A clock on which every look takes a nanosecond."""

    def __init__(self) -> None:
        self.now_ns = 0

    def monotonic_ns(self) -> int:
        self.now_ns += 1
        return self.now_ns

    def wall_ns(self) -> int:
        return VirtualClock.EPOCH_NS + self.monotonic_ns()


def test_moves_never_prolong_a_life() -> None:
    """However often a value moves, and whatever the clock does meanwhile, its end stays. (S0-47)"""
    clock = _TickingClock()
    cache = TieredCache(1, 1, 1, cold=_Store(VirtualClock()), clock=clock)
    cache.put("k", 1, "hot", ttl=1e-6)
    end_ns = clock.now_ns + 1_000
    while clock.now_ns < end_ns:
        cache.put("other", 2, "hot", ttl=10)
        cache.put("third", 3, "hot", ttl=10)
        cache.get("k")
    assert cache.get("k") is None


def test_it_says_how_full_it_is(make: Callable[..., TieredCache]) -> None:
    """`repr` tells what each tier holds and may hold, and nothing of the values."""
    cache = make(1, 2, 3)
    for key in ("secret", "b", "c"):
        cache.put(key, "secret", priority="hot")
    assert repr(cache) == "TieredCache(hot=1/1, warm=2/2, cold=0/3)"


def test_figures_of_the_last_minutes(clock: VirtualClock) -> None:
    """The hit rate of a window is that of the requests in it. (S0-39, S0-76)"""
    cache = TieredCache(clock=clock)
    cache.put("k", 1)
    for _ in range(8):
        cache.get("x")
    clock.advance(60)
    cache.get("k")
    clock.advance(35)
    for _ in range(7):
        cache.get("k")
    assert cache.recent(30).hit_rate == 1.0
    assert cache.recent(3600).hit_rate == 0.5


def test_what_is_in_the_directory_outlives_the_process(tmp_path: Path, clock: VirtualClock) -> None:
    """After `close`, another cache finds what was hot and warm, until the same end. (S0-46)"""
    directory = tmp_path / "new" / "cache"
    with TieredCache(2, 10, directory=directory, clock=clock) as cache:
        for key in "abcd":
            cache.put(key, [key], "hot", ttl=100, tags=["t"])
    assert directory.stat().st_mode & 0o777 == 0o700
    clock.advance(50)
    with TieredCache(2, 10, directory=directory, clock=clock) as again:
        assert [again.get(key) for key in "abcd"] == [["a"], ["b"], ["c"], ["d"]]
        clock.advance(50)
        assert [again.get(key) for key in "abcd"] == [None] * 4


def test_a_smaller_cache_takes_what_was_used_last(tmp_path: Path, clock: VirtualClock) -> None:
    """Opening a directory with less room keeps the newest values and forgets the others. (S0-46)"""
    with TieredCache(1, 10, directory=tmp_path, clock=clock) as cache:
        for key in "abcd":
            cache.put(key, key)
            clock.advance(1)
    with TieredCache(1, 2, 0, directory=tmp_path, clock=clock) as again:
        assert [key for key in "abcd" if key in again] == ["c", "d"]
    with TieredCache(1, 10, directory=tmp_path, clock=clock) as larger:
        assert [key for key in "abcd" if key in larger] == ["c", "d"]


def test_a_replaced_value_does_not_come_back_when_its_write_is_lost(
    tmp_path: Path, clock: VirtualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A value that the disk has in place of the one that was put last is not served. (S0-49)"""
    cache = TieredCache(1, 10, directory=tmp_path, clock=clock)
    cache.put("k", "old")
    shelf: Any = cache.tier.levels[0]._shelf  # type: ignore[attr-defined]
    assert shelf._disk.flush(30)
    monkeypatch.setattr(shelf._disk, "put", lambda *_: None)
    cache.put("k", "new")
    written = threading.Event()
    shelf._disk.after_written(written.set)
    assert written.wait(30)
    assert cache.get("k") is None
    cache.close()


def test_a_directory_that_cannot_be_used_costs_a_tier(
    tmp_path: Path, clock: VirtualClock, caplog: pytest.LogCaptureFixture
) -> None:
    """Without its file the warm tier is passed by, and somebody is told. (S0-46)"""
    (tmp_path / "file").write_text("in the way")
    cache = TieredCache(1, 10, 10, directory=tmp_path / "file", clock=clock)
    assert "warm tier" in caplog.text
    cache.put("k", 1)
    assert cache.get("k") == 1
    cache.close()


def test_lower_tiers_of_bytes_refuse_what_has_none(tmp_path: Path, clock: VirtualClock) -> None:
    """A value without a stored form, or a key without a canonical one, is refused at once, not
    lost later; keys are told apart by type. (S0-45, T4)"""
    cache = TieredCache(directory=tmp_path, clock=clock)
    with pytest.raises(CodecError):
        cache.put("k", object(), "hot")
    with pytest.raises(UnkeyableError):
        cache.put(object(), 1, "hot")
    keys: list[Any] = [1, True, 1.0, "1", b"1", (1,)]
    for number, key in enumerate(keys):
        cache.put(key, number, "hot")
    assert [cache.get(key) for key in keys] == [0, 1, 2, 3, 4, 5]
    cache.close()
    in_memory = TieredCache(clock=clock)
    thing = object()
    in_memory.put(thing, {"a": {1}}, "cold")
    assert in_memory.get(thing) == {"a": {1}}


def test_a_store_in_trouble_is_a_miss(clock: VirtualClock) -> None:
    """A cold store that fails or lies is a miss; a removal it did not make is told. (S0-50, S0-75)"""
    store = _Store(clock)
    cache = TieredCache(1, 1, cold=store, clock=clock)
    cache.put("k", 1, "cold")
    cache.put("l", 2, "cold")
    a, b = store.held
    store.held[a], store.held[b] = store.held[b], store.held[a]
    assert (cache.get("k"), cache.get("l")) == (None, None)
    store.held[a] = b"\xff" * 100
    assert cache.get("k") is None
    cache.put("k", 1, "cold")
    store.broken = True
    assert cache.get("k") is None
    with pytest.raises(StorageError):
        cache.delete("k")
    with pytest.raises(StorageError):
        cache.put("k", 2, "hot")
    store.broken = False
    assert cache.get("k") == 1


def test_threads_see_no_value_after_it_was_removed(make: Callable[..., TieredCache]) -> None:
    """While threads lift and sink a value, nobody finds it after a delete has returned, all find
    it before, and the bounds hold. (S0-44, T9)"""
    cache = make(2, 2, 50)
    removed = [threading.Event() for _ in range(30)]
    wrong: list[str] = []

    def read(seed: int) -> None:
        for turn in range(300):
            number = (turn * 7 + seed) % 30
            was_removed = removed[number].is_set()
            found = cache.get(f"k{number}")
            if was_removed and found is not None:
                wrong.append(f"{number} came back")
            if found is None and not removed[number].is_set() and number >= 15:
                wrong.append(f"{number} was lost")

    for number in range(30):
        cache.put(f"k{number}", number)
    threads = [threading.Thread(target=read, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for number in range(15):
        cache.delete(f"k{number}")
        removed[number].set()
    for thread in threads:
        thread.join()
    assert wrong == []
    assert len(cache) <= 54


_KEYS = ("a", "b", "c", "d")


class _Cascade:
    """What a stack without expiry has to hold: the reference, in three dictionaries."""

    def __init__(self, sizes: tuple[int, int, int]) -> None:
        self.sizes = sizes
        self.tiers: list[OrderedDict[str, int]] = [OrderedDict() for _ in sizes]

    def put(self, key: str, value: int, wanted: int) -> None:
        at = next((n for n, tier in enumerate(self.tiers) if key in tier), wanted)
        self._store(key, value, min(at, wanted))

    def get(self, key: str) -> int | None:
        for tier in self.tiers:
            if key in tier:
                value = tier[key]
                self._store(key, value, 0)
                return value
        return None

    def delete(self, key: str) -> None:
        for tier in self.tiers:
            tier.pop(key, None)

    def _store(self, key: str, value: int, at: int) -> None:
        self.delete(key)
        self.tiers[at][key] = value
        for n, tier in enumerate(self.tiers):
            while len(tier) > self.sizes[n]:
                victim, kept = tier.popitem(last=False)
                if n + 1 < len(self.tiers):
                    self.tiers[n + 1][victim] = kept


def _check_cascade(build: Callable[..., TieredCache], examples: int = 100) -> None:
    """Any sequence of steps leaves in each tier what the reference has there."""

    class Machine(RuleBasedStateMachine):
        @initialize(sizes=sampled_from([(1, 1, 1), (1, 2, 1), (1, 1, 2)]))
        def begin(self, sizes: tuple[int, int, int]) -> None:
            self.cache = build(*sizes, hot_ttl=None, warm_ttl=None, cold_ttl=None)
            self.model = _Cascade(sizes)
            self.puts = 0

        @rule(key=sampled_from(_KEYS), wanted=sampled_from((0, 0, 1, 2)))
        def put(self, key: str, wanted: int) -> None:
            self.puts += 1
            self.cache.put(key, self.puts, list(CacheTier)[wanted])
            self.model.put(key, self.puts, wanted)

        @rule(key=sampled_from(_KEYS))
        def get(self, key: str) -> None:
            assert self.cache.get(key) == self.model.get(key)

        @rule(key=sampled_from(_KEYS))
        def delete(self, key: str) -> None:
            self.cache.delete(key)
            self.model.delete(key)

        @invariant()
        def holds_the_same(self) -> None:
            if hasattr(self, "cache"):
                assert _sizes(self.cache) == tuple(len(tier) for tier in self.model.tiers)
                held = {key for tier in self.model.tiers for key in tier}
                assert {key for key in _KEYS if key in self.cache} == held

        def teardown(self) -> None:
            if hasattr(self, "cache"):
                self.cache.close()

    _explore(Machine, examples)


def _check_lifetimes(  # noqa: C901 (a machine is one thing)
    build: Callable[..., TieredCache], examples: int = 100
) -> None:
    """With room for all at the bottom, any steps find what a dictionary with expiry has; with
    less room, that or nothing."""

    class Machine(RuleBasedStateMachine):
        @initialize(cold=sampled_from((1, len(_KEYS))))
        def begin(self, cold: int) -> None:
            self.clock = VirtualClock()
            self.cache = build(1, 1, cold, clock=self.clock)
            self.roomy = cold == len(_KEYS)
            self.most = 2 + cold
            self.now = self.puts = 0
            self.held: dict[str, tuple[int, float]] = {}

        @rule(
            key=sampled_from(_KEYS),
            priority=sampled_from(list(CacheTier)),
            ttl=sampled_from((1, 5, 10, 400, None, 0)),
            wait=sampled_from((0, 1, 4, 300)),
        )
        def put(self, key: str, priority: CacheTier, ttl: int | None, wait: int) -> None:
            self.puts += 1
            default = {CacheTier.HOT: 300, CacheTier.WARM: 1800, CacheTier.COLD: 3600}[priority]
            self.cache.put(key, self.puts, priority, ttl)
            self.held[key] = (self.puts, self.now + (default if ttl is None else ttl))
            self.tick(wait)
            self.get(key)

        @rule(keys=permutations(_KEYS))
        def get_all(self, keys: list[str]) -> None:
            for key in keys:
                self.get(key)

        def get(self, key: str) -> None:
            value, until = self.held.get(key, (0, 0))
            found = self.cache.get(key)
            expected = value if self.now < until else None
            assert found == expected or (found is None and not self.roomy)

        @rule(key=sampled_from((*_KEYS, *_KEYS, None)))
        def remove(self, key: str | None) -> None:
            if key is None:
                self.cache.clear()
                self.held.clear()
            else:
                self.cache.delete(key)
                self.held.pop(key, None)
                assert self.cache.get(key) is None

        @rule(seconds=sampled_from((1, 5, 300, 1500)))
        def tick(self, seconds: int) -> None:
            self.clock.advance(seconds)
            self.now += seconds

        @invariant()
        def is_bounded(self) -> None:
            assert not hasattr(self, "cache") or len(self.cache) <= self.most

        def teardown(self) -> None:
            if hasattr(self, "cache"):
                self.cache.close()

    _explore(Machine, examples)


def _check_both(build: Callable[..., TieredCache], examples: int) -> None:
    _check_lifetimes(build, examples)
    _check_cascade(build, examples)


def _explore(machine: type[RuleBasedStateMachine], examples: int) -> None:
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=examples, stateful_step_count=25, derandomize=True, deadline=None,
            database=None, print_blob=False, report_multiple_bugs=False, phases=[Phase.generate],
        ),
    )  # fmt: skip


def _in_memory(*sizes: int, **options: Any) -> TieredCache:
    return TieredCache(*sizes, **{"clock": VirtualClock(), **options})


def test_any_steps_leave_what_the_reference_has() -> None:
    """Values sink and rise as in three dictionaries of which each passes its oldest on: nothing
    is lost on the way, and nothing is anywhere twice. (S0-48, T7)"""
    _check_cascade(_in_memory)


def test_any_steps_find_what_a_dictionary_with_expiry_has() -> None:
    """No value is served past its end or after it was removed or replaced, in whichever tier it
    is, and none is missing while there is room. (S0-47, S0-49, S0-74)"""
    _check_lifetimes(_in_memory)


def test_a_file_keeps_to_the_same_reference(tmp_path: Path) -> None:
    """With a file as its warm tier, a stack does what it does in memory. (S0-46, S0-75)"""
    number = iter(range(10_000))

    def build(*sizes: int, **options: Any) -> TieredCache:
        return _in_memory(*sizes, directory=tmp_path / f"{next(number)}", **options)

    _check_both(build, examples=10)


def _promotion_renews(patch: pytest.MonkeyPatch) -> None:
    whole = TierStack._put_hot

    def put_hot(self: TierStack, key: Any, kept: Kept, table: Any) -> Any:
        renewed = Kept(kept.form, kept.held, self.now_ns() + 300_000_000_000, kept.about)
        return whole(self, key, renewed, table)

    patch.setattr(TierStack, "_put_hot", put_hot)


def _overflow_drops(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(TierStack, "_sink", lambda *_: None)


def _lower_overflow_drops(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(IndexedLevel, "_evicted", lambda *_: None)


def _promotion_copies(patch: pytest.MonkeyPatch) -> None:
    whole = TierStack.lift

    def lift(self: TierStack, key: Any, table: Any = None) -> Any:
        deletes = IndexedLevel.delete
        IndexedLevel.delete = lambda *_: None  # type: ignore[method-assign]
        try:
            return whole(self, key, table)
        finally:
            IndexedLevel.delete = deletes  # type: ignore[method-assign]

    patch.setattr(TierStack, "lift", lift)


def _put_leaves_copies(patch: pytest.MonkeyPatch) -> None:
    def place(self: TierStack, key: Any, kept: Kept, wanted: int) -> None:
        if wanted == 0:
            self._put_hot(key, kept, None)
        else:
            self.levels[wanted - 1].put(self._low(key, None), kept)

    patch.setattr(TierStack, "place", place)


def _delete_forgets_the_cold(patch: pytest.MonkeyPatch) -> None:
    def delete(self: TierStack, key: Any, table: Any = None) -> bool:
        self.hot.delete(key)
        self.levels[0].delete(key)
        return True

    patch.setattr(TierStack, "delete", delete)


def _sinking_renews(patch: pytest.MonkeyPatch) -> None:
    whole = TierStack._sink

    def sink(self: TierStack, place: int, low: Any, kept: Kept) -> None:
        expires_ns = self.now_ns() + 1_800_000_000_000
        whole(self, place, low, Kept(kept.form, kept.held, expires_ns, kept.about))

    patch.setattr(TierStack, "_sink", sink)


def _an_update_goes_down(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(TierStack, "_at", lambda _self, _key, _low, _kept, wanted: wanted)


def _zero_is_forever(patch: pytest.MonkeyPatch) -> None:
    def place(self: TierStack, key: Any, kept: Kept, wanted: int) -> None:
        if kept.expires_ns <= self.now_ns():
            kept = Kept(kept.form, kept.held, 2**62, kept.about)
        whole(self, key, kept, wanted)

    whole = TierStack.place
    patch.setattr(TierStack, "place", place)


@pytest.mark.parametrize(
    "bug",
    [
        _promotion_renews, _overflow_drops, _lower_overflow_drops, _promotion_copies,
        _put_leaves_copies, _delete_forgets_the_cold, _sinking_renews, _an_update_goes_down,
        _zero_is_forever,
    ],
)  # fmt: skip
def test_the_reference_catches_seeded_bugs(
    bug: Callable[[pytest.MonkeyPatch], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A stack with any of the seeded bugs breaks one of the two laws. (S0-47, S0-48, S0-49)"""
    bug(monkeypatch)
    with pytest.raises(AssertionError):
        _check_both(_in_memory, examples=100)


def test_it_is_a_cache_for_functions(make: Callable[..., TieredCache], clock: VirtualClock) -> None:
    """Results of a decorated function sink, are lifted before they are computed anew, keep their
    end, and are removed in every tier. (S0-40, S0-48)"""
    cache = make(1, 1, 5)
    runs: list[int] = []

    @cached(cache, ttl=10, tags=lambda number: [f"n{number}"])
    def double(number: int) -> list[int]:
        runs.append(number)
        return [number * 2]

    for number in (1, 2, 3):
        assert double(number) == [number * 2]
    in_memory = 3 if cache.stats().hot.demoted == 3 else len(cache)
    before = len(runs)
    assert [double(number) for number in (3, 2, 1)] == [[6], [4], [2]]
    assert len(runs) - before == 3 - in_memory
    double.invalidate(1)
    double(1)
    cache.invalidate(tag="n2")
    cache.invalidate(prefix=double.__module__)
    assert len(cache) == 0
    double(1)
    double(2)
    clock.advance(10)
    before = len(runs)
    double(1)
    double(2)
    assert len(runs) == before + 2
    double.cache_clear()
    assert len(cache) == 0


async def test_it_is_a_cache_for_coroutines(clock: VirtualClock) -> None:
    """What has sunk is found without a new run; hits are counted where they were found. (S0-40,
    S0-51)"""
    cache = TieredCache(1, 1, 1, clock=clock)
    runs: list[str] = []

    @cached(cache, ttl=1_000)
    async def shout(word: str) -> str:
        runs.append(word)
        return word.upper()

    for word in "abc":
        await shout(word)
    assert [await shout(word) for word in "ccba"] == ["C", "C", "B", "A"]
    assert runs == ["a", "b", "c"]
    totals = cache.stats().totals
    assert (totals.hot_hits, totals.warm_hits, totals.cold_hits, totals.misses) == (2, 1, 1, 3)
    assert cache.stats().hot.size == 1


def test_large_values_pass_the_disk_by(tmp_path: Path, clock: VirtualClock) -> None:
    """A value too large for a tier sinks into the next that takes it. (S0-43)"""
    cache = TieredCache(1, 5, 5, directory=tmp_path, clock=clock)
    cache.put("k", b"x" * (levels._LARGEST + 1), "hot")
    cache.put("l", b"x", "hot")
    assert _sizes(cache) == (1, 0, 1)
    assert len(cache.get("k")) > levels._LARGEST
    cache.close()
