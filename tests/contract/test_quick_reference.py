"""The quick reference of old runs as it is, with the names imported from `paceline`.

Of its lines, those on metrics and caching; those on the load balancer follow with that part.
"""

import asyncio
import inspect

import pytest

from paceline import LRUCache, MetricsCollector, cached, track_performance
from paceline.testing.virtual_time import VirtualClock, run


def test_the_lines_on_metrics() -> None:
    """A function decorated with a name and a collector does what it did, and is counted, whether
    it is async or not. (S0-84, T36)"""
    collector = MetricsCollector()

    @track_performance("agent-name", collector)
    async def my_agent_task() -> str:
        return "done"

    @track_performance("agent-name", collector)
    def my_other_task() -> str:
        return "done, too"

    assert asyncio.run(my_agent_task()) == "done"
    assert my_other_task() == "done, too"
    stats = collector.snapshot().agents["agent-name"].ever
    assert (stats.calls, stats.errors) == (2, 0)


def test_the_lines_on_caching() -> None:
    """A task without arguments runs once for all callers, whatever it returns. (S0-84, T36)"""
    cache = LRUCache(max_size=1000, default_ttl=300)
    runs: list[str] = []

    @cached(cache, ttl=60)
    async def expensive_task() -> None:
        runs.append("async")

    @cached(cache, ttl=60)
    def other_task() -> list[int]:
        runs.append("sync")
        return []

    async def twice() -> None:
        await asyncio.gather(expensive_task(), expensive_task())
        await expensive_task()

    asyncio.run(twice())
    assert (other_task(), other_task()) == ([], [])
    assert runs == ["async", "sync"]
    assert inspect.iscoroutinefunction(expensive_task)
    assert cache.get_stats()["max_size"] == 1000


def test_the_caching_example(capsys: pytest.CaptureFixture[str]) -> None:
    """A task of two seconds takes none the second time, and the figures say so. (S0-52)"""
    cache = LRUCache(max_size=100, default_ttl=300, clock=VirtualClock())

    @cached(cache, ttl=60)
    async def expensive_computation(n):
        await asyncio.sleep(2)
        return 2**n

    async def main() -> list[float]:
        loop = asyncio.get_running_loop()
        marks = [loop.time()]
        for _ in range(2):
            result = await expensive_computation(10)
            marks.append(loop.time())
            print(f"Result: {result}")  # noqa: T201 (it prints)
        print(f"Cache stats: {cache.get_stats()}")  # noqa: T201
        return marks

    start, first, second = run(main())
    assert first - start == 2
    assert second - first == 0
    shown = capsys.readouterr().out.splitlines()
    assert shown[:2] == ["Result: 1024", "Result: 1024"]
    assert "'hit_rate': '50.0%'" in shown[2]


def test_both_at_once() -> None:
    """A cached function that is tracked is counted each time, executed once. (S0-84, T35)"""
    collector, cache = MetricsCollector(), LRUCache(max_size=1000, default_ttl=300)
    runs: list[int] = []

    @track_performance("agent-name", collector)
    @cached(cache, ttl=60)
    def task(n: int) -> int:
        runs.append(n)
        return n

    assert [task(1), task(n=1), task(1)] == [1, 1, 1]
    assert runs == [1]
    assert collector.snapshot().agents["agent-name"].ever.calls == 3
