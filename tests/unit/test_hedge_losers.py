"""What becomes of the one of two that were asked whose answer came second."""

import asyncio
import contextlib
from typing import Any

import pytest

from paceline import AgentInstance, Call, Runtime
from paceline.balance.lease import Lease
from paceline.balance.request import Request
from paceline.errors import BudgetExceededError, Shortage
from paceline.path.dispatch import FleetDispatch
from paceline.testing.virtual_time import run as run_virtual
from paceline.usage import report_usage
from tests.unit.far import Far, far_runtime, in_runtime, many

HEDGED: dict[str, Any] = {"fleet": {"hedge": True}, "balance": {"shortest_timeout_s": 60}}


class Tidy(Far):
    """One that cleans up when it is cancelled, as often as it is told to."""

    def __init__(self, name: str, cleans_s: float, *, times: int = 1) -> None:
        super().__init__(name, 0.1)
        self.cleans_s = cleans_s
        self.times = times
        self.ended: list[float] = []

    async def execute(self, call: Call, lease: Lease) -> object:
        try:
            return await super().execute(call, lease)
        except asyncio.CancelledError:
            for _ in range(self.times):
                with contextlib.suppress(asyncio.CancelledError):
                    await asyncio.sleep(self.cleans_s)
                    break
            self.ended.append(now())
            raise


def now() -> float:
    return asyncio.get_running_loop().time()


async def warm(runtime: Runtime) -> None:
    """So that it is known how long calls take."""
    for number in range(30):
        await runtime.run("far", f"warm {number}")


def slowed(runtime: Runtime, *far: Tidy) -> Tidy:
    """The one that comes next, which takes very long from now on."""
    (one,) = (one for one in far if one.name == runtime.balancer.select("far").id)
    one.takes_s = 50
    return one


def in_flight(runtime: Runtime) -> int:
    return sum(one.in_flight for one in runtime.balancer.instances["far"])


def test_who_cleans_up_slowly_does_not_delay_the_answer() -> None:
    """The first of two answers is given when it comes, while the other instance cleans up; that one
    keeps its place until it has. (S0-64, S0-68)"""
    a, b = Tidy("a", 3), Tidy("b", 3)

    async def steps(runtime: Runtime) -> None:
        await warm(runtime)
        loser, began = slowed(runtime, a, b), now()
        outcome = await runtime.run("far", "q")
        assert outcome.ok
        assert now() - began == pytest.approx(0.21)
        assert outcome.instance != loser.name
        assert (loser.cancelled, in_flight(runtime)) == (1, 1)
        await asyncio.sleep(2.9)
        assert in_flight(runtime) == 1
        await asyncio.sleep(0.2)
        assert in_flight(runtime) == 0

    in_runtime(steps, a, b, **HEDGED)


def test_who_cleans_up_keeps_its_place_in_the_agents_limit() -> None:
    """An agent with `max_concurrency` is at no moment at more instances than that, those included
    that clean up. (S0-64, S0-68)"""
    a, b = Tidy("a", 3), Tidy("b", 3)

    async def steps(runtime: Runtime) -> None:
        @runtime.agent("far", effect="read", max_concurrency=2)
        async def _(query: str) -> str:
            return query

        await warm(runtime)
        loser = slowed(runtime, a, b)
        assert (await runtime.run("far", "q")).ok
        loser.takes_s, began = 0.1, now()
        await many(runtime, 2, use_cache=False)
        assert now() - began == pytest.approx(0.2)
        await asyncio.sleep(3)
        began = now()
        await many(runtime, 2, use_cache=False)
        assert now() - began == pytest.approx(0.1)

    in_runtime(steps, a, b, **HEDGED)


async def seen_out(runtime: Runtime) -> None:
    """What closing waits for, before threads of it take real time."""
    dispatch = runtime._parts.jobs.of(runtime.registry.get("far")).dispatch
    assert isinstance(dispatch, FleetDispatch)
    await dispatch.close()


def test_closing_waits_for_who_cleans_up() -> None:
    """A runtime is not closed before all that lost has cleaned up. (S0-64, S0-68)"""
    a, b = Tidy("a", 3), Tidy("b", 3)

    async def main() -> None:
        async with far_runtime(a, b, **HEDGED) as runtime:
            await warm(runtime)
            loser = slowed(runtime, a, b)
            assert (await runtime.run("far", "q")).ok
            before, answered = len(loser.ended), now()
            await seen_out(runtime)
            assert now() - answered == pytest.approx(3)
        assert len(loser.ended) == before + 1
        assert len(asyncio.all_tasks()) == 1

    run_virtual(main())


@pytest.mark.parametrize(("times", "takes_s"), [(1, 5), (2, 10)])
def test_cleaning_up_has_an_end(
    times: int, takes_s: float, caplog: pytest.LogCaptureFixture
) -> None:
    """What has not cleaned up after five seconds is cancelled once more; closing waits for no more
    than another five, and says so. (S0-64, S0-68)"""
    a, b = Tidy("a", 100, times=times), Tidy("b", 100, times=times)

    async def main() -> None:
        async with far_runtime(a, b, **HEDGED) as runtime:
            await warm(runtime)
            slowed(runtime, a, b)
            assert (await runtime.run("far", "q")).ok
            answered = now()
            await seen_out(runtime)
            assert now() - answered == pytest.approx(takes_s)

    run_virtual(main())
    assert [record.levelname for record in caplog.records] == ["WARNING"] * (times - 1)


def test_a_cancelled_caller_waits_for_both() -> None:
    """Where nobody wants an answer any more, both that were asked have ended before the call has.
    (S0-64, S0-68)"""
    a, b = Tidy("a", 3), Tidy("b", 1)

    async def steps(runtime: Runtime) -> None:
        await warm(runtime)
        a.takes_s = b.takes_s = 50
        call = asyncio.create_task(runtime.run("far", "q"))
        await asyncio.sleep(1)
        assert in_flight(runtime) == 2
        call.cancel()
        await asyncio.wait([call])
        await asyncio.sleep(4)
        assert (a.cancelled, b.cancelled, in_flight(runtime)) == (1, 1, 0)

    in_runtime(steps, a, b, **HEDGED)


# -- permits of what was not sent ---------------------------------------------------------------


class Counting:
    """A guard that knows how many permits were used; it may let nobody in though it is open."""

    reason: Shortage = Shortage.RATE_LIMIT

    def __init__(self) -> None:
        self.shut = False
        self.used = 0

    def opens_ns(self) -> int:
        return 0

    def admit(self, request: Request) -> object | None:
        if self.shut:
            return None
        self.used += 1
        return self

    def ended(self, permit: object, lease: Lease) -> None:
        self.used -= not lease.started_ns


def test_a_second_request_that_is_passed_over_uses_no_permit() -> None:
    """Where the only instance that takes a second request is the one that has the first, that one's
    rate limit is left to others. (S0-64, S0-68)"""
    a, b, guards = Far("a", 0.1), Far("b", 0.1), {"a": Counting(), "b": Counting()}

    async def steps(runtime: Runtime) -> None:
        for one in (a, b):
            guard = guards[one.name]
            await runtime.add_instance(AgentInstance(one.name, "far", target=one, guards=(guard,)))
        await warm(runtime)
        guards["b"].shut, a.takes_s = True, 5
        for number in range(3):
            assert (await runtime.run("far", f"q{number}")).attempts == 1
        assert in_flight(runtime) == 0

    in_runtime(steps, **HEDGED)
    assert {one.name: len(one.calls) for one in (a, b)} == {n: g.used for n, g in guards.items()}


class Paid(Far):
    """One that reports in the end what it used."""

    async def execute(self, call: Call, lease: Lease) -> object:
        value = await super().execute(call, lease)
        report_usage("m", input=100)
        return value


def test_a_call_whose_budget_is_spent_while_it_waits_uses_no_permit() -> None:
    """Who is refused by a budget when it has got an instance leaves that one's rate limit to
    others. (S0-64)"""
    a, guard = Paid("a", 1), Counting()

    async def steps(runtime: Runtime) -> None:
        await runtime.add_instance(
            AgentInstance("a", "far", max_capacity=1, target=a, guards=(guard,))
        )
        first, second = await many(runtime, 2, user="alice")
        assert first.ok
        assert isinstance(second.error, BudgetExceededError)
        assert in_flight(runtime) == 0

    budget = {"limit_tokens": 100, "per": "user"}
    in_runtime(steps, budgets={"each": budget}, run={"max_attempts": 1})
    assert (len(a.calls), guard.used) == (1, 1)
