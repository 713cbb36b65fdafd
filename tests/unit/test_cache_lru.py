"""LRUCache and `cached`: a cache in front of a function."""

import asyncio
import inspect
import logging
import threading
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

from paceline.cache.entry import Table
from paceline.cache.function.decorator import cached
from paceline.cache.lru import LRUCache
from paceline.cache.policies import POLICIES
from paceline.cache.policies.lru import LRU
from paceline.errors import CodecError, InvalidInputError, UnkeyableError
from paceline.testing.virtual_time import VirtualClock, run


@pytest.fixture
def clock() -> VirtualClock:
    return VirtualClock()


@pytest.fixture
def cache(clock: VirtualClock) -> LRUCache:
    return LRUCache(100, 300, clock=clock)


class _Calls:
    """A function's calls, counted."""

    def __init__(self) -> None:
        self.count = 0

    def __call__(self) -> int:
        self.count += 1
        return self.count


def test_the_defaults_are_those_of_old() -> None:
    """Without arguments a cache keeps 1,000 entries for ever. (S0-30, X-12)"""
    cache = LRUCache()
    assert (cache.max_size, cache.default_ttl, len(cache)) == (1000, None, 0)
    cache.put("a", 1)
    assert cache.get("a") == 1


def test_get_tells_absent_from_none(cache: LRUCache) -> None:
    """None, 0, "" and [] are hits; a default is returned only for what is not there. (S0-34)"""
    values: list[Any] = [None, 0, "", [], False]
    for value in values:
        cache.put("k", value)
        assert cache.get("k", "absent") == value
    assert cache.get("other", "absent") == "absent"
    assert cache.stats().hits == 5


@pytest.mark.parametrize("size", [1, 2])
def test_an_update_evicts_nobody(size: int, clock: VirtualClock) -> None:
    """Putting a key that is there into a full cache evicts nobody, at any size. (S0-36)"""
    cache = LRUCache(size, clock=clock)
    for key in "ab"[:size]:
        cache.put(key, 1)
    cache.put("a", 2)
    assert len(cache) == size
    assert cache.get("a") == 2


def test_the_least_recently_used_goes_first(clock: VirtualClock) -> None:
    """A full cache lets go of what was not used for longest; looking with `in` is no use.
    (S0-33, S1-07, X-10)"""
    cache = LRUCache(2, clock=clock)
    cache.put("a", 1)
    cache.put("b", 2)
    cache.get("a")
    assert "b" in cache
    cache.put("c", 3)
    assert [key in cache for key in "abc"] == [True, False, True]


def test_lifetimes_of_entries(cache: LRUCache, clock: VirtualClock) -> None:
    """A lifetime of None is the default, 0 stores nothing, a negative one is refused. (S0-37)"""
    cache.put("default", 1)
    cache.put("short", 1, ttl=10)
    cache.put("none", 1, ttl=0)
    clock.advance(10)
    assert [key in cache for key in ("default", "short", "none")] == [True, False, False]
    clock.advance(290)
    assert "default" not in cache
    with pytest.raises(InvalidInputError):
        cache.put("k", 1, ttl=-1)
    with pytest.raises(InvalidInputError):
        LRUCache(default_ttl=-1)


def test_values_are_the_callers_own(cache: LRUCache) -> None:
    """Changing what was put or got changes nothing in the cache. (S0-42)"""
    value = [1]
    cache.put("k", value)
    value.append(2)
    cache.get("k").append(3)
    assert cache.get("k") == [1]


def test_what_cannot_be_kept_is_refused(cache: LRUCache) -> None:
    """Putting a generator raises CodecError."""
    with pytest.raises(CodecError):
        cache.put("k", (item for item in [1]))


def test_removals(cache: LRUCache) -> None:
    """delete says whether something was there, clear how much; figures stay until they are
    reset. (S0-38)"""
    cache.put("a", 1)
    cache.put("b", 1)
    cache.put("c", 1)
    cache.get("a")
    assert cache.delete("a")
    assert not cache.delete("a")
    assert cache.clear() == 2
    assert cache.stats().hits == 1
    cache.reset_stats()
    assert cache.stats().total_requests == 0


def test_the_figures(clock: VirtualClock) -> None:
    """The figures count hits, misses, evictions and expirations; the dictionary shows the rate
    as text. (S0-39)"""
    cache = LRUCache(2, clock=clock)
    assert cache.get_stats()["hit_rate"] == "0.0%"
    cache.put("a", 1, ttl=1)
    for _ in range(3):
        cache.get("a")
    clock.advance(1)
    cache.get("a")
    for key in "bcd":
        cache.put(key, 1)
    stats = cache.stats()
    assert (stats.size, stats.evictions, stats.expirations, stats.hit_rate) == (2, 1, 1, 0.75)
    assert cache.get_stats() == {
        "size": 2, "max_size": 2, "hits": 3, "misses": 1, "hit_rate": "75.0%", "total_requests": 4,
    }  # fmt: skip


def test_a_cached_coroutine_runs_once(cache: LRUCache, clock: VirtualClock) -> None:
    """The second call of an async function within the lifetime is answered from the cache, with
    no time passing. (S0-40, S0-52)"""

    async def main() -> None:
        @cached(cache, ttl=60)
        async def power(exponent: int) -> int:
            await asyncio.sleep(2)
            return 1 << exponent

        loop = asyncio.get_running_loop()
        assert await power(10) == 1024
        before = loop.time()
        assert await power(exponent=10) == 1024
        assert loop.time() == before
        clock.advance(60)
        await power(10)
        assert loop.time() > before
        assert inspect.iscoroutinefunction(power)
        assert power.__wrapped__.__name__ == "power"

    run(main())


def test_a_cached_function_runs_once(cache: LRUCache) -> None:
    """Calls written in any way share one result; a None is a result. (S0-31, S0-34, S0-40)"""
    calls = _Calls()

    @cached(cache)
    def nothing(x: int, y: int = 0) -> None:
        calls()

    nothing(1)
    nothing(x=1)
    nothing(1, 0)
    nothing(1, y=0)
    assert calls.count == 1
    nothing(True)
    assert calls.count == 2


def test_functions_share_a_cache_and_no_results(cache: LRUCache) -> None:
    """Functions of one name in one cache do not get each other's results. (S0-32)"""

    def make(word: str) -> Any:
        @cached(cache)
        def speak(x: int) -> str:
            return word

        return speak

    assert [make("A")(1), make("B")(1)] == ["A", "B"]


def test_methods_are_cached_by_instance(cache: LRUCache) -> None:
    """A cached method keeps results of instances apart; class and static methods work too.
    (S0-32)"""

    class Thing:
        def __init__(self, word: str) -> None:
            self.word = word
            self.calls = _Calls()

        @cached(cache)
        def speak(self, times: int = 1) -> str:
            self.calls()
            return self.word * times

        @classmethod
        @cached(cache)
        def name(cls) -> str:
            return cls.__name__

        @staticmethod
        @cached(cache)
        def double(x: int) -> int:
            return 2 * x

    class Other(Thing):
        pass

    one, two = Thing("a"), Thing("b")
    assert [one.speak(2), one.speak(times=2), two.speak(2)] == ["aa", "aa", "bb"]
    assert one.calls.count == 1
    kinds: list[Any] = [Thing, Other, one]
    assert [kind.name() for kind in kinds] == ["Thing", "Other", "Thing"]
    assert [kind.double(2) for kind in kinds] == [4, 4, 4]


def test_callers_cannot_change_each_others_results(cache: LRUCache) -> None:
    """Every caller of a cached function gets a value of its own, who joined included. (S0-42)"""

    async def main() -> None:
        @cached(cache)
        async def numbers() -> list[int]:
            await asyncio.sleep(1)
            return [1]

        got = await asyncio.gather(numbers(), numbers(), numbers())
        got[0].append(2)
        got[1].append(3)
        assert list(got) == [[1, 2], [1, 3], [1]]
        assert await numbers() == [1]

    run(main())


def test_concurrent_calls_run_once(cache: LRUCache) -> None:
    """Twenty calls at once run the function once, and one that is cancelled, the first included,
    harms no other. (S0-41)"""

    async def main() -> None:
        calls = _Calls()

        @cached(cache)
        async def slow(x: int) -> int:
            calls()
            await asyncio.sleep(1)
            return x

        tasks = [asyncio.create_task(slow(1)) for _ in range(20)]
        await asyncio.sleep(0.5)
        tasks[0].cancel()
        got = await asyncio.gather(*tasks, return_exceptions=True)
        assert got[1:] == [1] * 19
        assert calls.count == 1

    run(main())


def test_concurrent_threads_run_once(cache: LRUCache) -> None:
    """Eight threads that call at once run the function once. (S0-41, S0-44)"""
    calls = _Calls()
    together = threading.Barrier(8)
    got: list[int] = []

    @cached(cache)
    def slow(x: int) -> int:
        calls()
        return x

    def call() -> None:
        together.wait(30)
        got.append(slow(1))

    threads = [threading.Thread(target=call) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (got, calls.count) == ([1] * 8, 1)


def test_errors_are_not_kept(cache: LRUCache) -> None:
    """A call that raised is run again the next time."""
    calls = _Calls()

    @cached(cache)
    def flaky() -> int:
        if calls() == 1:
            raise OSError("broken")
        return 1

    with pytest.raises(OSError, match="broken"):
        flaky()
    assert flaky() == 1


def test_a_removal_meanwhile_is_respected(cache: LRUCache) -> None:
    """A result that was computed before a removal is handed out and not kept, and calls after
    the removal compute their own. (S0-78)"""

    async def main() -> None:
        world = "old"

        @cached(cache)
        async def read() -> str:
            seen = world
            await asyncio.sleep(1)
            return seen

        early = asyncio.create_task(read())
        await asyncio.sleep(0.5)
        world = "new"
        cache.clear()
        assert list(await asyncio.gather(read(), early)) == ["new", "old"]
        assert await read() == "new"

    run(main())


def test_generators_are_refused(cache: LRUCache) -> None:
    """Decorating a generator function or an async one raises InvalidInputError. (S0-40)"""

    def numbers() -> Iterator[int]:
        yield 1

    async def more() -> AsyncIterator[int]:
        yield 1

    for function in (numbers, more):
        with pytest.raises(InvalidInputError, match="generator"):
            cached(cache)(function)
    with pytest.raises(InvalidInputError):
        cached(cache, ttl=-1)


def test_results_that_cannot_be_kept_are_handed_out(
    cache: LRUCache, caplog: pytest.LogCaptureFixture
) -> None:
    """A result that can be neither encoded nor copied is returned and not kept, and the log says
    so."""
    caplog.set_level(logging.INFO, "paceline")

    @cached(cache)
    def lock() -> Any:
        return threading.Lock()

    assert lock() is not lock()
    assert len(cache) == 0
    assert "not cached" in caplog.text


def test_arguments_without_a_key_are_refused(cache: LRUCache) -> None:
    """An argument that has no canonical form raises UnkeyableError instead of a guess. (S0-31)"""

    @cached(cache)
    def use(x: object) -> int:
        return 1

    with pytest.raises(UnkeyableError, match="use"):
        use(object())


def test_nothing_is_kept_without_room(clock: VirtualClock) -> None:
    """With a size of 0 functions run every time. (S0-36)"""
    calls = _Calls()

    @cached(LRUCache(0, clock=clock))
    def count() -> int:
        return calls()

    assert [count(), count()] == [1, 2]


def test_the_ways_to_get_it_wrong_are_caught(
    cache: LRUCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The checks above fail for functions that share a table, for keys of arguments as they are
    written, for shared references and for results kept after a removal."""
    with monkeypatch.context() as patch:
        shared = Table()
        patch.setattr("paceline.cache.function.memo.Table", lambda *_: shared)
        with pytest.raises(AssertionError):
            test_functions_share_a_cache_and_no_results(cache)
    with monkeypatch.context() as patch:
        patch.setattr(
            "paceline.cache.function.keys.FunctionKeys.key",
            lambda self, args, kwargs: (args, tuple(kwargs.items())),
        )
        patch.setattr("paceline.cache.function.wrappers._TEMPLATES", {})
        with pytest.raises(AssertionError):
            test_a_cached_function_runs_once(cache)
    with monkeypatch.context() as patch:
        patch.setattr("paceline.cache.snapshot._shareable", lambda _: True)
        with pytest.raises(AssertionError):
            test_callers_cannot_change_each_others_results(cache)
    with monkeypatch.context() as patch:
        patch.setattr("paceline.cache.memory.tier.MemoryTier.outdated", lambda *_, **__: False)
        with pytest.raises(AssertionError):
            test_a_removal_meanwhile_is_respected(cache)


def test_values_are_kept_as_told(clock: VirtualClock) -> None:
    """A cache hands out copies, the very object, or an unchangeable like of it, as it is told;
    what has no unchangeable like is copied. (S0-42)"""
    value = {"rows": [{"id": 1, "tags": {"a"}}], "raw": bytearray(b"x")}
    got = {}
    for values in ("safe", "share", "freeze", "copy"):
        cache = LRUCache(clock=clock, values=values)
        cache.put("k", value)
        cache.put("odd", [_Odd()])
        got[values] = cache.get("k")
        first, second = cache.get("odd"), cache.get("odd")
        assert (first is second) == (values == "share")
    assert got["safe"] == got["copy"] == value
    assert got["safe"] is not value
    assert got["copy"]["rows"] is not value["rows"]
    assert got["share"] is value
    frozen = got["freeze"]
    assert frozen["rows"][0]["id"] == 1
    assert (type(frozen["rows"]), frozen["raw"]) == (tuple, b"x")
    with pytest.raises(TypeError):
        frozen["rows"][0]["id"] = 2
    with pytest.raises(InvalidInputError, match="borrow"):
        LRUCache(values="borrow")  # type: ignore[arg-type]


class _Odd:
    """Something that has no encoding and no unchangeable like."""


def test_a_frozen_result_is_the_same_for_all(clock: VirtualClock) -> None:
    """In a cache that freezes, who computes a result gets the frozen one, as all others do."""

    @cached(LRUCache(clock=clock, values="freeze"))
    def rows() -> Any:
        return [[1], {"a": 1}]

    assert rows() == ((1,), {"a": 1})
    assert rows() is rows()


def test_bytes_are_bounded_and_told(clock: VirtualClock) -> None:
    """A cache of so many bytes evicts by size and refuses what takes more than an eighth of it;
    its figures say so. (S0-39, S0-43)"""
    cache = LRUCache(1_000, clock=clock, max_bytes=1_000_000)
    for number in range(100):
        cache.put(number, "x" * 50_000)
        assert cache.stats().bytes <= 1_000_000
    cache.put("large", "x" * 200_000)
    stats = cache.stats()
    assert 15 <= len(cache) <= 19
    assert stats.removed["bytes"] == stats.evictions == 100 - len(cache)
    assert (stats.refused, "large" in cache) == (1, False)


def test_policies_by_name(clock: VirtualClock) -> None:
    """Any policy can be named, or made by oneself; a name there is not is refused. (S0-30)"""
    policies: list[Any] = [*POLICIES, LRU]
    for policy in policies:
        cache = LRUCache(10, clock=clock, policy=policy)
        for number in range(100):
            cache.put(number % 30, number)
            cache.get(number % 7)
        assert len(cache) == 10
        assert cache.clear() == 10
    with pytest.raises(InvalidInputError, match="mru"):
        LRUCache(policy="mru")


def test_entries_are_removed_by_what_they_are(cache: LRUCache) -> None:
    """Entries of functions are removed by tag, entries by the beginning of their name or by what
    is true of them, and nothing is removed for no reason. (S0-38, S0-78)"""

    @cached(cache, tags=lambda city: (f"city:{city}", "weather"))
    def weather(city: str) -> str:
        return f"fine in {city}"

    for city in ("oslo", "rome", "bonn"):
        weather(city)
    cache.put("oslo/map", 1)
    cache.put("rome/map", 1)
    assert cache.invalidate(tag="city:oslo") == 1
    assert cache.invalidate(prefix="oslo/") == 1
    assert cache.invalidate(tag="weather", predicate=lambda entry: "rome" in entry.value) == 1
    assert cache.invalidate(prefix=f"{__name__}.test_entries") == 1
    assert len(cache) == 1
    with pytest.raises(InvalidInputError):
        cache.invalidate()


def test_repr_tells_how_full_it_is_and_no_value() -> None:
    """`repr` says how many entries there are and may be, and shows none of them."""
    cache = LRUCache(max_size=2)
    cache.put("secret key", "secret value")

    assert repr(cache) == "LRUCache(1/2 entries)"
