"""Results past their lifetime in the call path: served while, before or in place of computing."""

import asyncio
import random
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from paceline.balance.gate import Gate
from paceline.balance.retry import RetryPolicy
from paceline.cache.disk.tier import DiskTier
from paceline.cache.generations import Generations
from paceline.cache.memory.tier import MemoryTier
from paceline.cache.snapshot import Snapshot
from paceline.cache.tiered import Freshness, ResultCache
from paceline.call import Call, Caller, Effect, Kind, Outcome, Plan, Priority, Scope, Source
from paceline.errors import AgentError, Category, PacelineError, StorageError
from paceline.path import Attempts, CallPath, Identity, Job
from paceline.testing.virtual_time import VirtualClock, run

SECOND = 1_000_000_000
Agent = Callable[[Call], Awaitable[object]]


def _unexpected(exc: StorageError) -> None:
    raise exc


class Path_:  # noqa: N801 (the call path of the test, not a file's)
    """A call path whose agent counts, and what its observer saw."""

    def __init__(self, freshness: Freshness | None = None, disk: DiskTier | None = None) -> None:
        self.clock = VirtualClock()
        memory = MemoryTier[bytes, Snapshot](100, clock=self.clock, rng=random.Random(1))
        self.cache = ResultCache(memory, disk, clock=self.clock, freshness=freshness)
        self.memory = memory
        identity = Identity(Generations(None, on_trouble=_unexpected), clock=self.clock)
        self.attempts = Attempts(
            clock=self.clock,
            gate=Gate("the test", 8, 8),
            retry=RetryPolicy(1),
            rng=random.Random(1),
            identity=identity,
        )
        self.seen: list[tuple[Call, Outcome]] = []
        self.path = CallPath(
            clock=self.clock,
            cache=self.cache,
            identity=identity,
            attempts=self.attempts,
            observers=[lambda call, outcome: self.seen.append((call, outcome))],
            began=lambda _: None,
            instance="test",
        )
        self.count = 0
        self.fails: PacelineError | None = None
        self.takes_s = 0.0
        self.priorities: list[Priority] = []

    async def _agent(self, call: Call) -> object:
        self.priorities.append(call.priority)
        await asyncio.sleep(self.takes_s)
        if self.fails is not None:
            raise self.fails
        self.count += 1
        return [self.count]

    async def ask(self, plan: Plan) -> Outcome:
        caller = Caller("ada")
        call = Call(
            id=f"c{len(self.seen)}",
            kind=Kind.AGENT,
            name="agent",
            arguments={"query": "q"},
            caller=caller,
            scope=Scope.of(caller, None),
            plan=plan,
        )
        return await self.path.run(call, Job(self._agent))


def _plan(**more: float) -> Plan:
    return Plan(Effect.read("r"), ttl_s=60, **more)  # type: ignore[arg-type]


def test_a_stale_result_is_served_while_it_is_computed_anew() -> None:
    """Within `stale_s` after its lifetime a result is served at once, as stale, and computed once
    in the background at low priority; the next caller has the new one. (S0-41, S1-52)"""

    async def main() -> None:
        bench = Path_()
        plan = _plan(stale_s=30)
        await bench.ask(plan)
        bench.takes_s = 5
        bench.clock.advance(70)
        served = [await bench.ask(plan) for _ in range(3)]
        assert [(o.value, o.source) for o in served] == [([1], Source.STALE)] * 3
        assert all(outcome.total_ns == 0 for outcome in served)
        await asyncio.sleep(6)
        assert (await bench.ask(plan)).value == [2]
        assert bench.priorities == [Priority.NORMAL, Priority.LOW]
        assert (bench.cache.totals.stale, bench.cache.totals.refreshes) == (3, 1)

    run(main())


def test_beyond_the_stale_window_callers_wait() -> None:
    """Later than `stale_s` after its lifetime a result is computed while the caller waits."""

    async def main() -> None:
        bench = Path_()
        await bench.ask(_plan(stale_s=30))
        bench.clock.advance(90)
        outcome = await bench.ask(_plan(stale_s=30))
        assert (outcome.value, outcome.source) == ([2], Source.EXECUTED)

    run(main())


def test_without_the_windows_nothing_stale_is_served() -> None:
    """By default a result ends with its lifetime. (S0-28)"""

    async def main() -> None:
        bench = Path_()
        await bench.ask(_plan())
        bench.clock.advance(60)
        bench.fails = AgentError("away", category=Category.NETWORK)
        assert not (await bench.ask(_plan())).ok

    run(main())


@pytest.mark.parametrize(
    ("error", "rescued"),
    [
        (AgentError("away", category=Category.NETWORK), True),
        (AgentError("broken", category=Category.EXECUTION), True),
        (AgentError("bad input", category=Category.INVALID), False),
        (AgentError("refused", category=Category.POLICY), False),
    ],
)
def test_an_expired_result_is_better_than_an_error(error: PacelineError, rescued: bool) -> None:
    """Within `stale_if_error_s` a failure of the moment gives the last result, as stale; a refusal
    or a wrong request stays what it is. (S0-41)"""

    async def main() -> None:
        bench = Path_()
        plan = _plan(stale_if_error_s=600)
        await bench.ask(plan)
        bench.clock.advance(300)
        bench.fails = error
        outcome = await bench.ask(plan)
        assert outcome.ok == rescued
        if rescued:
            assert (outcome.value, outcome.source) == ([1], Source.STALE)
        bench.clock.advance(361)
        assert not (await bench.ask(plan)).ok

    run(main())


def test_a_rescue_works_from_the_file(tmp_path: Path) -> None:
    """What memory has forgotten is rescued, and served stale, from the file. (S0-46)"""

    async def main() -> None:
        clock = VirtualClock()
        disk = DiskTier(tmp_path / "c.db", clock=clock, max_bytes=4_000_000, on_trouble=_unexpected)
        bench = Path_(disk=disk)
        bench.clock.advance(0)
        plan = _plan(stale_s=30, stale_if_error_s=600)
        await bench.ask(plan)
        assert disk.flush(30)
        bench.memory.clear()
        clock.advance(70)
        assert (await bench.ask(plan)).source is Source.STALE
        bench.memory.clear()
        clock.advance(100)
        bench.fails = AgentError("away", category=Category.NETWORK)
        outcome = await bench.ask(plan)
        assert (outcome.value, outcome.source) == ([1], Source.STALE)
        await asyncio.sleep(0)
        await bench.path.close()
        disk.close()

    run(main())


def test_hot_results_are_computed_before_they_expire() -> None:
    """With early refresh a result that takes 5 s is computed anew before its 60 s are over, while
    the old one, still valid, is served. (S0-41)"""

    async def main() -> None:
        bench = Path_(Freshness(early=1.0))
        bench.takes_s = 5
        await bench.ask(_plan())
        start_ns = bench.clock.monotonic_ns()
        while not bench.cache.totals.refreshes:
            assert (await bench.ask(_plan())).source is Source.HOT
            await asyncio.sleep(0.1)
        lead_s = 60 - (bench.clock.monotonic_ns() - start_ns) / SECOND
        assert 0 < lead_s < 60
        assert (await bench.ask(_plan())).value == [1]
        await asyncio.sleep(5)
        outcome = await bench.ask(_plan())
        assert (outcome.value, outcome.source) == ([2], Source.HOT)
        assert bench.cache.totals.stale == 0

    run(main())


def test_jitter_shortens_lifetimes_within_its_share() -> None:
    """With a jitter of 0.2 lifetimes lie between 80 and 100 % of what was asked, spread. (S0-41)"""
    clock = VirtualClock()
    memory = MemoryTier[bytes, Snapshot](1_000, clock=clock)
    cache = ResultCache(
        memory, None, clock=clock, freshness=Freshness(jitter=0.2), rng=random.Random(3)
    )
    for number in range(200):
        cache.put(number.to_bytes(32, "big"), "v", 100)
    now_ns = clock.monotonic_ns()
    lives = [(entry.fresh_ns - now_ns) / SECOND for entry in memory.entries()]
    assert 80 <= min(lives) < 85
    assert 95 < max(lives) <= 100


def test_refreshing_ends_with_the_path() -> None:
    """Closing cancels what is being computed anew; nothing is left running."""

    async def main() -> None:
        bench = Path_()
        plan = _plan(stale_s=30)
        await bench.ask(plan)
        bench.takes_s = 1_000
        bench.clock.advance(70)
        await bench.ask(plan)
        await asyncio.sleep(1)
        await bench.path.close()
        assert len(asyncio.all_tasks()) == 1

    run(main())


def test_savings_are_what_computing_took() -> None:
    """Every hit and join saves what computing its result took, in time and money. (S0-39, S1-04)"""

    async def main() -> None:
        bench = Path_()
        bench.takes_s = 2
        plan = _plan(cost_usd=0.25)
        await bench.ask(plan)
        outcomes = [await bench.ask(plan) for _ in range(3)]
        assert [outcome.saved_ns for outcome in outcomes] == [2 * SECOND] * 3
        assert bench.cache.totals.saved_s == 6
        assert bench.cache.totals.saved_usd == 0.75

    run(main())
