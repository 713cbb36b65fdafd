"""Calls of a runtime whose agents have several instances, in virtual time."""

import asyncio

import pytest

from paceline import AgentInstance, Outcome, Runtime, Settings
from paceline.config import load
from paceline.errors import AgentError, CallTimeoutError, Category, OverloadedError, Shortage
from paceline.testing.virtual_time import VirtualClock
from paceline.testing.virtual_time import run as run_virtual
from tests.unit.far import DOWN, QUIET, Far, in_runtime, many


def test_calls_go_to_the_instances_and_say_where() -> None:
    """Calls are spread over the instances of their agent, and outcomes name the one. (S0-60)"""
    a, b = Far("a", 1), Far("b", 1)

    async def steps(runtime: Runtime) -> None:
        outcomes = await many(runtime, 10)
        assert {outcome.instance for outcome in outcomes} == {"a", "b"}
        assert all(
            outcome.unwrap() == f"{outcome.instance} of q{n}" for n, outcome in enumerate(outcomes)
        )

    in_runtime(steps, a, b)
    assert (len(a.calls), len(b.calls)) == (5, 5)


def test_a_retry_goes_to_another_instance() -> None:
    """A read that failed at one instance is tried at one that it was not at. (S0-68, S0-81)"""
    bad, good = Far("bad", error=DOWN), Far("good")

    async def steps(runtime: Runtime) -> None:
        for number in range(5):
            outcome = await runtime.run("far", f"q{number}")
            assert outcome.instance == "good"
            assert outcome.ok
        assert len(bad.calls) <= 5

    in_runtime(steps, bad, good)


def test_an_instance_that_fails_fast_costs_nobody_his_answer() -> None:
    """With an instance that fails at once, two retries and circuits, no call fails, and after
    seven failures it is left alone. (S0-68, V-26)"""
    sink = Far("sink", 0.02, DOWN)
    sound = [Far(f"sound{number}", 1.0) for number in range(3)]

    async def steps(runtime: Runtime) -> None:
        outcomes: list[Outcome] = []
        for _ in range(30):
            outcomes += await many(runtime, 8, use_cache=False)
        assert all(outcome.ok for outcome in outcomes)

    in_runtime(steps, sink, *sound)
    assert 0 < len(sink.calls) < 60


def test_what_is_no_read_is_not_repeated_elsewhere() -> None:
    """A write that may have begun at one instance is not given to another. (S1-19, V-32)"""
    cut = AgentError("cut off", category=Category.NETWORK, may_have_started=True)
    a, b = Far("a", error=cut), Far("b", error=cut)

    async def steps(runtime: Runtime) -> None:
        outcome = await runtime.run("far", "q")
        assert outcome.error is cut
        assert outcome.attempts == 1

    in_runtime(steps, a, b, effect="write")
    assert len(a.calls) + len(b.calls) == 1


def test_an_instance_never_has_more_than_it_takes() -> None:
    """Calls beyond the capacity of all instances wait, and go on as places are free. (S0-64)"""
    a = Far("a", 1)

    async def steps(runtime: Runtime) -> None:
        loop = asyncio.get_running_loop()
        began = loop.time()
        outcomes = await many(runtime, 6)
        assert all(outcome.ok for outcome in outcomes)
        assert loop.time() - began == pytest.approx(3)
        assert sorted(round(outcome.queue_ns / 1e9) for outcome in outcomes) == [0, 0, 1, 1, 2, 2]

    in_runtime(steps, a, capacity=2)


def test_who_waits_for_an_instance_keeps_nobody_from_other_agents() -> None:
    """Calls that wait for a busy fleet hold no place of the runtime. (S0-64)"""
    a = Far("a", 100)

    async def steps(runtime: Runtime) -> None:
        waiting = [asyncio.create_task(runtime.run("far", f"q{number}")) for number in range(5)]
        await asyncio.sleep(1)
        outcome = await runtime.run("other", "q", timeout=1)
        assert outcome.ok
        for task in waiting:
            task.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)

    in_runtime(steps, a, capacity=1, others=("other",), run={"max_concurrency": 2})


def test_all_down_is_a_typed_error_at_once() -> None:
    """When no instance is left, calls end at once with what is short and where to look. (S0-60,
    S0-81)"""
    a = Far("a")

    async def steps(runtime: Runtime) -> None:
        runtime.balancer.instances["far"][0].is_healthy = False
        outcome = await runtime.run("far", "q")
        assert isinstance(outcome.error, OverloadedError)
        assert outcome.error.reason is Shortage.UNHEALTHY
        assert outcome.attempts == 0

    in_runtime(steps, a)


def test_a_slow_read_is_asked_twice_and_the_first_answer_counts() -> None:
    """After the p95 of what reads took, a second instance is asked; the slow one is cancelled.
    (S0-68)"""
    a, b = Far("a", 0.1), Far("b", 0.1)

    async def steps(runtime: Runtime) -> None:
        loop = asyncio.get_running_loop()
        for number in range(30):
            await runtime.run("far", f"warm {number}")
        slow = next(far for far in (a, b) if far.name == runtime.balancer.select("far").id)
        slow.takes_s = 50
        began = loop.time()
        outcome = await runtime.run("far", "q")
        assert outcome.ok
        assert outcome.instance != slow.name
        assert loop.time() - began == pytest.approx(0.21)
        assert slow.cancelled == 1
        assert not any(i.in_flight for i in runtime.balancer.instances["far"])

    in_runtime(steps, a, b, fleet={"hedge": True})


def test_a_write_is_never_asked_twice() -> None:
    """However slow it is, a write goes to one instance. (S0-68)"""
    a, b = Far("a", 0.1), Far("b", 0.1)

    async def steps(runtime: Runtime) -> None:
        for number in range(30):
            await runtime.run("far", f"warm {number}")
        a.takes_s = b.takes_s = 50
        await runtime.run("far", "q")
        assert len(a.calls) + len(b.calls) == 31

    in_runtime(steps, a, b, fleet={"hedge": True}, effect="write")


def test_limits_are_learnt_and_a_hanging_instance_is_left_for_another() -> None:
    """A read at an instance is stopped at four times the p99 of what reads took, and tried at
    another. (S1-20, V-30)"""
    a, b = Far("a", 1), Far("b", 1)

    async def steps(runtime: Runtime) -> None:
        loop = asyncio.get_running_loop()
        for number in range(30):
            await runtime.run("far", f"warm {number}")
        hanging = next(far for far in (a, b) if far.name == runtime.balancer.select("far").id)
        hanging.takes_s = 1e6
        began = loop.time()
        outcome = await runtime.run("far", "q")
        assert outcome.ok
        assert outcome.attempts == 2
        assert 5 <= loop.time() - began < 6

    in_runtime(steps, a, b)


def test_the_deadline_goes_with_the_call() -> None:
    """An instance is told the moment at which nobody waits any more. (S1-20)"""
    a = Far("a")

    async def steps(runtime: Runtime) -> None:
        await runtime.run("far", "q", timeout=7)
        deadline_ns = a.calls[0].deadline_ns
        assert deadline_ns is not None
        assert deadline_ns / 1e9 == pytest.approx(runtime._clock.monotonic_ns() / 1e9 + 7)

    in_runtime(steps, a, effect="write")


def test_a_cancelled_caller_leaves_no_place_in_use() -> None:
    """Cancelling a call gives its place at the instance back and says nothing of it. (S0-64)"""
    a = Far("a", 10)

    async def steps(runtime: Runtime) -> None:
        for _ in range(20):
            task = asyncio.create_task(runtime.run("far", "q", use_cache=False))
            await asyncio.sleep(0.01)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        (instance,) = runtime.balancer.instances["far"]
        assert (instance.in_flight, instance.error_rate) == (0, None)
        assert a.cancelled == 20

    in_runtime(steps, a)


@pytest.mark.parametrize(
    ("fallback", "answer"),
    [
        (["agent small"], "small of q"),
        (["text Nobody is there."], "Nobody is there."),
        (["agent gone", "text Nobody is there."], "Nobody is there."),
        (["stale", "agent small"], "a of q"),
    ],
)
def test_a_chain_answers_when_all_have_failed(fallback: list[str], answer: str) -> None:
    """Another agent, the last result or a fixed text answers in the order that is configured, and
    the outcome keeps the error in place of which it does. (S0-81)"""
    a = Far("a")

    async def steps(runtime: Runtime) -> None:
        await runtime.run("far", "q")
        a.error = DOWN
        await asyncio.sleep(61)
        outcome = await runtime.run("far", "q")
        assert outcome.unwrap() == answer
        assert outcome.instead_of is DOWN

    in_runtime(steps, a, fleet={"fallback": fallback}, others=("small",))


def test_chains_do_not_go_in_circles() -> None:
    """An agent that stands in for another does not call for that one in turn. (S0-81)"""
    a = Far("a", error=DOWN)

    async def steps(runtime: Runtime) -> None:
        outcome = await runtime.run("far", "q")
        assert outcome.error is DOWN

    fleets = {"far": {"fallback": ["agent back"]}, "back": {"fallback": ["agent far"]}}

    async def main() -> None:
        settings = load(overrides={**QUIET, "fleets": fleets})
        runtime = Runtime(settings, agents=[], persist=False, environ={}, clock=VirtualClock())
        async with runtime:
            for name in fleets:

                @runtime.agent(name, effect="pure")
                async def _(query: str) -> str:
                    raise DOWN

            await runtime.add_instance(AgentInstance("a", "far", target=a))
            await steps(runtime)

    run_virtual(main())


def test_an_agent_without_instances_has_a_circuit_of_its_own() -> None:
    """An agent that fails seven times in a row is left alone; who calls then is told for how
    long, and nothing is run. (V-26)"""
    runs = 0

    async def main() -> None:
        nonlocal runs
        settings: Settings = load(overrides={**QUIET, "run": {"max_attempts": 1}})
        async with Runtime(
            settings, agents=[], persist=False, environ={}, clock=VirtualClock()
        ) as runtime:

            @runtime.agent(effect="read")
            async def broken(query: str) -> str:
                nonlocal runs
                runs += 1
                raise RuntimeError("no")

            for _ in range(7):
                await runtime.run("broken", "q")
            outcome = await runtime.run("broken", "q")
            assert isinstance(outcome.error, OverloadedError)
            assert outcome.error.reason is Shortage.CIRCUIT_OPEN
            assert outcome.error.retry_after_s == 5
            assert runs == 7
            await asyncio.sleep(5)
            await runtime.run("broken", "q")
            assert runs == 8

    run_virtual(main())


def test_late_is_not_lost() -> None:
    """A call whose deadline passes at an instance ends then, and counts against the instance:
    one that hangs is found out though its callers never wait for the end. (S0-68)"""
    a = Far("a", 1e6)

    async def steps(runtime: Runtime) -> None:
        for number in range(3):
            outcome = await runtime.run("far", f"q{number}", timeout=2)
            assert isinstance(outcome.error, CallTimeoutError)
        (instance,) = runtime.balancer.instances["far"]
        assert instance.error_rate == 1.0

    in_runtime(steps, a)
