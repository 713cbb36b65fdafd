"""`cached` over time: joining, refreshing, failing, and removals in the middle."""

import asyncio
import logging
import os
import random
import threading
from collections.abc import Callable
from typing import Any

import pytest

from paceline.cache.function.decorator import cached
from paceline.cache.lru import LRUCache
from paceline.testing.virtual_time import VirtualClock, run


@pytest.fixture
def clock() -> VirtualClock:
    return VirtualClock()


@pytest.fixture
def cache(clock: VirtualClock) -> LRUCache:
    return LRUCache(1_000, 10, clock=clock)


class _World:
    """A source that takes a second, can be broken, and counts who asked."""

    def __init__(self, clock: VirtualClock | None = None) -> None:
        self.state = 0
        self.asked = 0
        self.error: Exception | None = None
        self.clock = clock

    def read(self) -> int:
        self.asked += 1
        if self.error is not None:
            raise self.error
        return self.state

    async def read_slowly(self) -> int:
        self.asked += 1
        seen, error = self.state, self.error
        await asyncio.sleep(1)
        if error is not None:
            raise error
        return seen


def test_a_thousand_callers_one_execution(cache: LRUCache) -> None:
    """A thousand calls at once run the function once; 999 joined and nobody hit. (S0-41, D79,
    T5)"""

    async def main() -> None:
        world = _World()

        @cached(cache)
        async def read(x: int) -> int:
            return await world.read_slowly()

        assert await asyncio.gather(*[read(1) for _ in range(1_000)]) == [0] * 1_000
        info = read.cache_info()
        assert (world.asked, info.misses, info.joins, info.hits) == (1, 1_000, 999, 0)
        assert await read(1) == 0
        assert read.cache_info().hits == 1

    run(main())


@pytest.mark.parametrize("leavers", [[0], [3], [0, 1, 2], [0, 1, 2, 3]])
def test_cancelled_callers_hurt_nobody(cache: LRUCache, leavers: list[int]) -> None:
    """Whichever callers are cancelled, the others get the result of the one computation; if all
    are, it ends, nothing is kept and the next call computes. (S0-41, T5)"""

    async def main() -> None:
        world = _World()

        @cached(cache)
        async def read() -> int:
            return await world.read_slowly()

        tasks = [asyncio.create_task(read()) for _ in range(4)]
        await asyncio.sleep(0.5)
        for leaver in leavers:
            tasks[leaver].cancel()
        got = await asyncio.gather(*tasks, return_exceptions=True)
        for number, result in enumerate(got):
            assert isinstance(result, asyncio.CancelledError) == (number in leavers)
        assert len(cache) == (len(leavers) < 4)
        assert await read() == 0
        assert world.asked == 1 + (len(leavers) == 4)

    run(main())


def test_errors_reach_all_who_wait_once(cache: LRUCache) -> None:
    """Twenty callers of a failing computation get its error from one run, and the next call
    computes. (S0-41, D79)"""

    async def main() -> None:
        world = _World()
        world.error = OSError("broken")

        @cached(cache)
        async def read() -> int:
            return await world.read_slowly()

        got = await asyncio.gather(*[read() for _ in range(20)], return_exceptions=True)
        assert [str(error) for error in got] == ["broken"] * 20
        assert world.asked == 1
        world.error = None
        assert await read() == 0

    run(main())


async def _invalidated(cache: LRUCache, remove: Callable[[Any], object]) -> tuple[Any, ...]:
    """What those who came before and after a removal got, what is kept, and who was asked."""
    world = _World()

    @cached(cache, tags=("world",))
    async def read(x: int) -> int:
        return await world.read_slowly()

    early = [asyncio.create_task(read(1)) for _ in range(2)]
    await asyncio.sleep(0.5)
    world.state = 1
    remove(read)
    late = [asyncio.create_task(read(1)) for _ in range(2)]
    got = [await task for task in (*early, *late)]
    return got, await read(1), world.asked


@pytest.mark.parametrize(
    "remove",
    [
        lambda read: read.invalidate(1),
        lambda read: read.cache_clear(),
        lambda read: _caches[-1].clear(),
        lambda read: _caches[-1].invalidate(tag="world"),
        lambda read: _caches[-1].invalidate(prefix="tests."),
    ],
)
def test_a_removal_in_flight(clock: VirtualClock, remove: Callable[[Any], object]) -> None:
    """However it is removed meanwhile, a result goes to those who waited and is not kept; who
    comes after the removal shares a new computation. (S0-78)"""
    _caches.append(LRUCache(10, clock=clock))
    assert run(_invalidated(_caches[-1], remove)) == ([0, 0, 1, 1], 1, 2)


_caches: list[LRUCache] = []


def test_a_removal_of_something_else_disturbs_no_flight(clock: VirtualClock) -> None:
    """Removals that do not concern what is being computed neither part its callers nor keep it
    from being stored. (S0-78)"""
    cache = LRUCache(10, clock=clock)

    def remove(read: Any) -> None:
        read.invalidate(2)
        cache.delete(1)
        cache.invalidate(tag="other")

    assert run(_invalidated(cache, remove)) == ([0, 0, 0, 0], 0, 1)


def test_flights_across_loops_and_threads(cache: LRUCache) -> None:
    """One cached function serves event loops one after the other and in four threads at once;
    each thread computes at most once, and results are shared afterwards. (S0-41, S0-44)"""
    asked: list[int] = []

    @cached(cache)
    async def read(x: int) -> int:
        asked.append(x)
        await asyncio.sleep(0)
        return x

    async def callers() -> list[int]:
        return await asyncio.gather(*[read(x) for x in (1, 1, 2, 2)])

    got: list[list[int]] = []
    threads = [threading.Thread(target=lambda: got.append(asyncio.run(callers()))) for _ in "abcd"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for _ in range(2):
        got.append(asyncio.run(callers()))
    assert got == [[1, 1, 2, 2]] * 6
    assert 2 <= len(asked) <= 8


def test_a_loop_that_ends_leaves_nothing_behind(cache: LRUCache) -> None:
    """A computation that its loop's end cut short is neither kept nor waited for: the next loop
    computes."""
    world = _World()

    @cached(cache)
    async def read() -> int:
        return await world.read_slowly()

    async def hasty() -> None:
        _tasks.append(asyncio.create_task(read()))
        await asyncio.sleep(0.5)

    run(hasty())
    assert _tasks[-1].cancelled()
    assert len(cache) == 0
    assert run(read()) == 0
    assert world.asked == 2


_tasks: list[asyncio.Task[int]] = []


_STOPS: dict[str, type[BaseException]] = {
    error.__name__: error for error in (KeyboardInterrupt, SystemExit, asyncio.CancelledError)
}


def test_errors_are_kept_if_told(cache: LRUCache, clock: VirtualClock) -> None:
    """With a negative lifetime an error is raised again for as long, afresh each time, and then
    the function is asked; by default, and for what is no error, nothing is kept. (S0-34, S0-41)"""
    world = _World()
    world.error = LookupError("no such city", 7)

    @cached(cache, negative_ttl=5)
    def read() -> int:
        return world.read()

    seen = []
    for _ in range(3):
        with pytest.raises(LookupError, match="no such city") as caught:
            read()
        seen.append(caught.value)
        assert caught.value.args == ("no such city", 7)
        assert len(caught.traceback) < 10
    assert world.asked == 1
    assert len({id(error) for error in seen}) == 3
    world.error = None
    clock.advance(5)
    assert read() == 0
    for error in _STOPS.values():

        @cached(LRUCache(clock=clock, negative_ttl=5))
        def stop(name: str) -> int:
            raise _STOPS[name]

        with pytest.raises(error):
            stop(error.__name__)
        assert stop.cache_info().entries == 0


def test_a_cache_may_keep_errors_of_all_functions(clock: VirtualClock) -> None:
    """The negative lifetime of a cache holds for its functions unless they say another; errors
    that cannot be copied are raised as they are."""

    class OddError(Exception):
        def __init__(self, *, code: int) -> None:
            super().__init__(code)
            self.code = code

    cache = LRUCache(clock=clock, negative_ttl=5)
    world = _World()
    world.error = OddError(code=3)
    kept = cached(cache)(world.read)
    asked = cached(cache, negative_ttl=0)(world.read)
    for function, count in ((kept, 1), (asked, 4)):
        for _ in range(3):
            with pytest.raises(OddError) as caught:
                function()
            assert caught.value.code == 3
        assert world.asked == count


def test_stale_results_are_served_while_they_are_renewed(cache: LRUCache) -> None:
    """Past its lifetime a result is served at once while one task computes it anew, for as long
    as was said; later calls wait. (S0-40, S0-41)"""

    async def main() -> None:
        world = _World()

        @cached(cache, stale=20)
        async def read() -> int:
            return await world.read_slowly()

        loop = asyncio.get_running_loop()
        assert await read() == 0
        world.state = 1
        await asyncio.sleep(10)
        before = loop.time()
        assert await asyncio.gather(*[read() for _ in range(50)]) == [0] * 50
        assert loop.time() == before
        await asyncio.sleep(1.5)
        assert (await read(), world.asked) == (1, 2)
        assert read.cache_info().stale == 50
        world.state = 2
        await asyncio.sleep(31)
        assert (await read(), world.asked) == (2, 3)

    run(main())


def test_stale_results_survive_a_failed_renewal(cache: LRUCache) -> None:
    """If computing anew behind a stale result fails, it is served on until its time is over."""

    async def main() -> None:
        world = _World()

        @cached(cache, stale=20)
        async def read() -> int:
            return await world.read_slowly()

        await read()
        world.error = OSError("broken")
        await asyncio.sleep(10)
        for _ in range(5):
            assert await read() == 0
            await asyncio.sleep(2)
        await asyncio.sleep(20)
        with pytest.raises(OSError, match="broken"):
            await read()

    run(main())


def test_one_thread_renews_while_others_are_served(clock: VirtualClock) -> None:
    """Of the callers of a synchronous function that find a stale result, one computes and all
    others get the stale one at once. (S0-41, S0-44)"""
    at_work, go = threading.Event(), threading.Event()
    results = iter([0, 1])

    @cached(LRUCache(10, 10, clock=clock), stale=20)
    def read() -> int:
        value = next(results)
        if value:
            at_work.set()
            assert go.wait(30)
        return value

    assert read() == 0
    clock.advance(10)
    got: list[int] = []
    leader = threading.Thread(target=lambda: got.append(read()))
    leader.start()
    assert at_work.wait(30)
    assert [read(), read()] == [0, 0]
    go.set()
    leader.join()
    assert (got, read()) == ([1], 1)
    info = read.cache_info()
    assert (info.stale, info.misses, info.computed) == (2, 2, 2)


@pytest.mark.parametrize("is_async", [False, True])
def test_an_old_result_in_place_of_an_error(
    cache: LRUCache, clock: VirtualClock, caplog: pytest.LogCaptureFixture, is_async: bool
) -> None:
    """If computing anew fails, the last result is served in place of the error, for as long as was
    said after its lifetime, and the log says so; a removed one is not. (S0-41)"""
    caplog.set_level(logging.INFO, "paceline")
    world = _World()

    @cached(cache, stale_if_error=20)
    def plainly(x: int) -> int:
        return world.read()

    @cached(cache, stale_if_error=20)
    async def slowly(x: int) -> int:
        return world.read()

    def read() -> int:
        return run(slowly(1)) if is_async else plainly(1)

    assert read() == 0
    world.error = OSError("broken")
    clock.advance(10)
    assert [read(), read()] == [0, 0]
    assert (slowly if is_async else plainly).cache_info().rescued == 2
    assert "its last result is served: broken" in caplog.text
    clock.advance(20)
    with pytest.raises(OSError, match="broken"):
        read()
    world.error = None
    read()
    clock.advance(10)
    (slowly if is_async else plainly).invalidate(1)
    world.error = OSError("broken")
    with pytest.raises(OSError, match="broken"):
        read()


def test_hot_results_are_renewed_before_they_expire() -> None:
    """With early renewal a result that is asked for all the time is computed anew behind its
    callers, on average by the time it takes before its expiry, and fewer have to wait. (S0-41)"""

    async def main(early: float) -> tuple[float, int]:
        cache = LRUCache(10, 100, clock=VirtualClock())
        starts: list[float] = []

        @cached(cache, early=early)
        async def read() -> float:
            starts.append(asyncio.get_running_loop().time())
            await asyncio.sleep(10)
            return 0.0

        await read()
        for _ in range(1_200):
            await asyncio.sleep(5)
            await read()
        return (starts[-1] - starts[0]) / (len(starts) - 1), read.cache_info().misses

    plain_gap, plain_waits = run(main(0.0))
    early_gap, early_waits = run(main(1.0))
    assert 110 <= plain_gap <= 115
    assert 96 <= early_gap <= 106
    assert early_waits < plain_waits


def test_lost_guards_are_caught(
    cache: LRUCache, clock: VirtualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The checks above fail if a flight is joined after a removal, if errors are kept that are
    no errors, and if anybody renews a stale result."""
    with monkeypatch.context() as patch:
        patch.setattr("paceline.cache.function.memo.AsyncMemo._leave_outdated", lambda *_: None)
        with pytest.raises(AssertionError):
            test_a_removal_in_flight(clock, lambda read: read.invalidate(1))
    with monkeypatch.context() as patch:
        patch.setattr("paceline.cache.memory.invalidations.Invalidations.concern", lambda *_: True)
        with pytest.raises(AssertionError):
            test_a_removal_of_something_else_disturbs_no_flight(clock)
    with monkeypatch.context() as patch:
        patch.setattr("paceline.cache.function.memo.Memo.serves_stale", lambda *_: False)
        with pytest.raises(AssertionError):
            test_stale_results_are_served_while_they_are_renewed(cache)
    with monkeypatch.context() as patch:
        patch.setattr("paceline.cache.snapshot.again", lambda error: error)
        with pytest.raises(AssertionError):
            test_errors_are_kept_if_told(cache, clock)


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


def test_many_threads_of_one_function(clock: VirtualClock) -> None:
    """Eight threads that call, remove and clear at once get only what the function gives, and no
    exception. (S0-44, T9)"""
    cache = LRUCache(50, 10, clock=clock)

    @cached(cache, tags=lambda x: (f"t{x % 5}",))
    def double(x: int) -> int:
        if x % 7 == 0:
            os.sched_yield()
        return 2 * x

    failures: list[object] = []

    def step(seed: int, rng: random.Random) -> None:
        x = rng.randrange(100)
        if double(x) != 2 * x:
            failures.append(x)
        if x == 13:
            cache.invalidate(tag=f"t{seed % 5}")
        elif x == 17:
            double.invalidate(rng.randrange(100))
        elif x == 19 and rng.random() < 0.1:
            cache.clear()

    def work(seed: int) -> None:
        rng = random.Random(seed)
        for _ in range(3_000):
            step(seed, rng)

    assert _together(work) == failures == []
    assert len(cache) <= 50
    info = double.cache_info()
    assert info.misses - info.joins >= info.computed > 0
