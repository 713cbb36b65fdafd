"""Time that is left, and what instances are expected to take: who waits, who is blamed."""

import asyncio

from paceline.balance.circuit import Circuit, CircuitPolicy
from paceline.balance.durations import ENOUGH, Durations
from paceline.call import Priority
from paceline.errors import AgentError, CallTimeoutError, Category, OverloadedError
from paceline.testing.virtual_time import VirtualClock
from tests.sim.service import NAME, Server, Traffic, now, play


async def warm(traffic: Traffic) -> None:
    """Lets it be known how long work takes."""
    for _ in range(ENOUGH):
        traffic.call()
        await traffic.end()


def test_work_is_not_begun_when_too_little_time_is_left_for_it() -> None:
    """Who would get a place too late to be done in time is refused without being sent, soon enough
    to go elsewhere; who finds a place free is sent however little time it has. (S0-81, S2-21)"""
    server = Server("s", unit_s=1)

    async def steps(traffic: Traffic) -> None:
        await warm(traffic)
        traffic.call()
        await asyncio.sleep(0.5)
        began = now()
        outcome = await traffic.runtime.run(NAME, "late", timeout=1.4, use_cache=False)
        assert isinstance(outcome.error, OverloadedError)
        assert outcome.attempts == 0
        assert 0.3 < now() - began < 0.5
        outcome = await traffic.runtime.run(NAME, "in time", timeout=1.6, use_cache=False)
        assert outcome.ok
        outcome = await traffic.runtime.run(NAME, "hopeful", timeout=0.5, use_cache=False)
        assert isinstance(outcome.error, CallTimeoutError)
        assert outcome.attempts == 1

    play(steps, [server], capacity=1)


def test_who_joins_with_more_time_is_not_refused_with_the_first() -> None:
    """Where a caller with a later deadline has joined what waits, it goes on waiting for that one.
    (S0-64)"""
    server = Server("s", unit_s=1)

    async def steps(traffic: Traffic) -> None:
        await warm(traffic)
        server.slowed = 3
        traffic.call()
        await asyncio.sleep(0.1)
        first = asyncio.create_task(traffic.runtime.run(NAME, "same", timeout=1.5))
        await asyncio.sleep(0.1)
        second = asyncio.create_task(traffic.runtime.run(NAME, "same", timeout=20))
        assert not (await first).ok
        assert (await second).ok
        await traffic.end()
        assert [asked.query for asked in server.asked].count("same") == 1

    play(steps, [server], capacity=1)


def test_callers_with_no_time_say_nothing_of_the_instance() -> None:
    """An instance whose callers leave before it could well have answered has not failed; one that
    lets them wait for much longer than usual has. (S0-68, V-26)"""
    server = Server("s", unit_s=0.1)

    async def steps(traffic: Traffic) -> None:
        await warm(traffic)
        (instance,) = traffic.runtime.balancer.instances[NAME]
        traffic.burst(10, timeout=0.05)
        await traffic.end()
        assert instance.error_rate == 0.0
        server.slowed = 50
        traffic.burst(10, timeout=1.5)
        await traffic.end()
        assert instance.error_rate == 10 / (10 + ENOUGH)

    play(steps, [server], effect="unknown")


def test_what_was_learnt_is_forgotten_when_all_is_stopped() -> None:
    """Seven executions stopped in a row, with none that ended in between, and limits are those of
    the beginning; six are not enough. (S1-20, V-30)"""
    durations = Durations()
    for _ in range(ENOUGH):
        durations.observe(0.1)
    for _ in range(2):
        for _ in range(6):
            durations.stopped()
        assert durations.limit_s(shortest=1, longest=60) == 1
        durations.observe(0.1)
    for _ in range(7):
        durations.stopped()
    assert durations.limit_s(shortest=1, longest=60) == 60
    assert durations.quantile(0.5) is None


def test_while_it_is_being_tried_it_may_be_back_any_moment() -> None:
    """While a probe is out, a circuit is expected to open in a second; the longer the probe takes
    the later. (S0-60, V-26)"""
    clock = VirtualClock()
    circuit = Circuit("it", clock, CircuitPolicy(failures=1, wait_s=60))
    circuit.leave(circuit.enter(), AgentError("down", category=Category.NETWORK))
    assert circuit.opens_ns() == 60e9
    clock.advance(60)
    assert circuit.opens_ns() == 0
    assert circuit.enter()
    for passed_s, expected_s in ((0, 61), (0.5, 61.5), (3.5, 68), (16, 100), (20, 120)):
        clock.advance(passed_s)
        assert circuit.opens_ns() == expected_s * 1e9


def test_the_urgent_go_first_while_little_is_let_in() -> None:
    """While an instance that is back takes one after the other, who came later and is more urgent
    goes before those who wait, and those stay in their order. (S0-64, S0-68)"""
    server = Server("s", unit_s=0.1)

    async def steps(traffic: Traffic) -> None:
        (instance,) = traffic.runtime.balancer.instances[NAME]
        instance.is_healthy = False
        await asyncio.sleep(1)
        instance.is_healthy = True
        traffic.burst(30)
        await asyncio.sleep(0.25)
        traffic.burst(3, priority=Priority.HIGH)
        reports = await traffic.end()
        assert all(report.outcome.ok for report in reports)
        order = [int(asked.query[1:]) for asked in server.asked]
        assert order == [1, 2, 3, 31, 32, 33, *range(4, 31)]

    play(steps, [server])
