"""Whose queue it is that somebody fills who waits for a place in several gates."""

import asyncio
import threading
from collections.abc import Awaitable

import pytest

from paceline import Runtime
from paceline.balance.gate import Gate, Ticket, enter_all
from paceline.call import Priority
from paceline.config import load
from paceline.errors import OverloadedError, Shortage
from paceline.testing.virtual_time import run
from tests.unit.far import QUIET, Far, in_runtime, many


async def begun(*visits: Awaitable[object]) -> list[asyncio.Future[object]]:
    """Each of them, as far as it comes without waiting."""
    tasks: list[asyncio.Future[object]] = [asyncio.ensure_future(visit) for visit in visits]
    await steps()
    return tasks


async def steps() -> None:
    """So that all others come as far as they can."""
    for _ in range(20):
        await asyncio.sleep(0)


def test_who_waits_for_one_agent_is_in_no_others_way() -> None:
    """Those who wait for an agent that is full fill its queue alone: in that of the runtime, full as
    well, there is room for calls of other agents. (S0-64, S0-81)"""

    async def main() -> None:
        runtime, one, two = Gate("all", 2, 3), Gate("one", 1, 3), Gate("two", 9, 3)
        await enter_all((runtime, one))
        waiting = await begun(*[enter_all((runtime, one)) for _ in range(3)])
        await enter_all((runtime, two))
        others = await begun(*[enter_all((runtime, two)) for _ in range(3)])
        assert not any(task.done() for task in (*waiting, *others))
        for gates, name in (((runtime, one), "one"), ((runtime, two), "all")):
            with pytest.raises(OverloadedError, match=f"{name} is at its limit") as caught:
                await enter_all(gates)
            assert caught.value.reason is Shortage.QUEUE_FULL
        for _ in range(6):
            runtime.leave()
            one.leave()
        await asyncio.gather(*waiting, *others)
        assert (runtime.waiting, one.waiting, two.waiting) == (0, 0, 0)

    run(main())


def test_the_urgent_push_out_only_who_fills_the_same_queue() -> None:
    """Who is more urgent takes the room of one that waits for the same gate, not of one that waits
    for another though it is less urgent still. (S0-63, S0-81)"""

    async def main() -> None:
        runtime, one = Gate("all", 1, 1), Gate("one", 0, 1)
        await runtime.enter()
        other, same = await begun(
            enter_all((runtime, one), Priority.SPECULATIVE), runtime.enter(Priority.LOW)
        )
        (urgent,) = await begun(runtime.enter(Priority.HIGH))
        with pytest.raises(OverloadedError, match="all is at its limit") as caught:
            await same
        assert caught.value.reason is Shortage.SHED
        assert not other.done()
        runtime.leave()
        await urgent
        one.resize(1)
        runtime.leave()
        await other

    run(main())


def test_the_queue_of_a_busy_fleet_refuses_no_other_agents_calls() -> None:
    """While the queue for the instances of an agent is full and the runtime is at its limit, calls
    of other agents wait for their turn, and get it. (S0-64, S0-81)"""
    a = Far("a", 10)

    async def calls(runtime: Runtime) -> None:
        @runtime.agent("slow", effect="pure")
        async def _(query: str) -> str:
            await asyncio.sleep(1)
            return query

        far = asyncio.ensure_future(many(runtime, 5))
        await asyncio.sleep(0.1)
        slow = [asyncio.ensure_future(runtime.run("slow", f"q{number}")) for number in range(4)]
        assert all([(await outcome).ok for outcome in slow])
        (refused,) = [outcome.error for outcome in await far if not outcome.ok]
        assert str(refused).startswith("no instance of far is free, and 3 wait")

    in_runtime(calls, a, capacity=1, run={"max_concurrency": 2, "max_queue": 3})


def test_an_agent_with_a_limit_takes_no_room_among_those_who_wait_for_a_thread() -> None:
    """While one synchronous agent has the only thread and as many wait for it as may, calls of
    another wait for the thread. (S0-64, S0-81)"""
    began, go = threading.Event(), threading.Event()

    async def main() -> None:
        options = {**QUIET, "run": {"threads": 1, "max_queue": 2}}
        runtime = Runtime(load(overrides=options), agents=[], persist=False, environ={})
        async with runtime:

            @runtime.agent("limited", effect="pure", max_concurrency=1)
            def _(query: str) -> str:
                began.set()
                go.wait(10)
                return query

            @runtime.agent("other", effect="pure")
            def _(query: str) -> str:
                return query

            calls = [asyncio.ensure_future(runtime.run("limited", "first"))]
            await asyncio.to_thread(began.wait, 10)
            for name in ("limited", "other"):
                calls += [asyncio.ensure_future(runtime.run(name, f"q{n}")) for n in range(2)]
                await steps()
            go.set()
            assert all([(await outcome).ok for outcome in calls])

    asyncio.run(main())


def test_who_was_raised_is_not_pushed_out_as_less_urgent() -> None:
    """One who waits and was made urgent keeps its room from what is less urgent than that.
    (S0-81)"""

    async def main() -> None:
        gate = Gate("all", 1, 1)
        await gate.enter()

        def urgent(ticket: Ticket) -> None:
            ticket.raise_to(Priority.HIGH)

        (raised,) = await begun(enter_all((gate,), Priority.LOW, waiting=urgent))
        with pytest.raises(OverloadedError) as caught:
            await gate.enter()
        assert caught.value.reason is Shortage.QUEUE_FULL
        gate.leave()
        await raised

    run(main())
