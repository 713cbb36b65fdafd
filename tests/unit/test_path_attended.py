"""Calls that run in the tasks of their callers, in virtual time."""

import asyncio
import contextlib
import random
from collections.abc import Awaitable, Callable

import pytest

from paceline.balance.circuit import Circuit
from paceline.balance.gate import Gate
from paceline.balance.retry import RetryPolicy
from paceline.cache.generations import Generations
from paceline.cache.memory.tier import MemoryTier
from paceline.cache.tiered import ResultCache
from paceline.call import Call, Caller, Effect, Kind, Outcome, Plan, Scope, current_call
from paceline.errors import AgentError, CallCancelledError, CallTimeoutError
from paceline.path import Attempts, CallPath, Identity, Job
from paceline.path.limit import Limit, Limits
from paceline.testing.virtual_time import VirtualClock, run

UNKNOWN = Plan()
READ = Plan(Effect.read("r"), ttl_s=60)


class Bench:
    """A call path with everything in memory, and what it told its observer."""

    def __init__(self) -> None:
        self.clock = VirtualClock()
        self.seen: list[Outcome] = []
        self.gate = Gate("the test", 2, 2)
        self.circuit = Circuit("the tool", self.clock)
        identity = Identity(Generations(None, on_trouble=lambda _: None), clock=self.clock)
        retry = RetryPolicy(3)
        self.path = CallPath(
            clock=self.clock,
            cache=ResultCache(MemoryTier(9, clock=self.clock), None, clock=self.clock),
            identity=identity,
            attempts=Attempts(
                clock=self.clock,
                gate=self.gate,
                retry=retry,
                rng=random.Random(1),
                identity=identity,
            ),
            observers=[lambda _, outcome: self.seen.append(outcome)],
            began=lambda _: None,
            instance="test",
        )
        self.made = 0

    async def run(
        self,
        execute: Callable[[Call], Awaitable[object]],
        plan: Plan = UNKNOWN,
        *,
        timeout_s: float | None = None,
        heeds: bool = True,
        parent: Call | None = None,
    ) -> Outcome:
        self.made += 1
        within_ns = None if timeout_s is None else self.clock.monotonic_ns() + int(timeout_s * 1e9)
        call = Call(
            str(self.made),
            Kind.TOOL,
            "tool",
            {"query": "q"},
            Caller("ada"),
            Scope.of(Caller("ada"), None),
            plan,
            deadline_ns=within_ns,
            parent_id=parent.id if parent is not None else None,
        )
        return await self.path.run(call, Job(execute, heeds=heeds, circuit=self.circuit))


class Slow:
    """Work that takes long, and what became of it."""

    def __init__(self) -> None:
        self.task: asyncio.Task[object] | None = None
        self.ended_ns: int | None = None

    async def __call__(self, call: Call) -> object:
        self.task = asyncio.current_task()
        try:
            await asyncio.sleep(100)
        finally:
            await asyncio.sleep(1)  # tidying up
            self.ended_ns = VirtualClock().monotonic_ns()
        return call.name


@pytest.mark.parametrize(("plan", "heeds"), [(UNKNOWN, True), (UNKNOWN, False), (READ, True)])
def test_only_what_heeds_and_cannot_be_joined_runs_there(plan: Plan, heeds: bool) -> None:
    """Only work that heeds its cancellation and that nobody can join runs in its caller's task;
    its outcome is the same. (S1-39)"""

    async def main() -> None:
        bench = Bench()
        where: list[asyncio.Task[object] | None] = []

        async def work(_: Call) -> str:
            where.append(asyncio.current_task())
            return "done"

        outcome = await bench.run(work, plan, heeds=heeds)
        assert (outcome.unwrap(), outcome.attempts, len(bench.seen)) == ("done", 1, 1)
        assert (where == [asyncio.current_task()]) is (plan is UNKNOWN and heeds)

    run(main())


def test_its_deadline_ends_it() -> None:
    """At its caller's deadline the work is cancelled, and has ended when the caller goes on; its
    place is free. (S1-20)"""

    async def main() -> None:
        bench, slow = Bench(), Slow()
        outcome = await bench.run(slow, timeout_s=5)
        assert isinstance(outcome.error, CallTimeoutError)
        assert outcome.error.may_have_started
        assert (slow.ended_ns, outcome.total_ns) == (6 * 10**9, 6 * 10**9)
        assert bench.gate.in_use == 0
        await asyncio.sleep(1)  # the caller itself is not cancelled

    run(main())


def test_the_limit_of_an_execution_ends_it() -> None:
    """The limit of one execution ends it with a time-out, though its caller has more time."""

    async def main() -> None:
        bench, slow = Bench(), Slow()
        outcome = await bench.run(slow, Plan(timeout_s=5), timeout_s=50)
        assert isinstance(outcome.error, CallTimeoutError)
        assert (outcome.attempts, outcome.total_ns) == (1, 6 * 10**9)

    run(main())


def test_its_caller_takes_it_along() -> None:
    """A cancelled caller cancels the work, waits for its end and is observed as cancelled."""

    async def main() -> None:
        bench, slow = Bench(), Slow()
        task = asyncio.create_task(bench.run(slow))
        await asyncio.sleep(5)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert slow.ended_ns == 6 * 10**9
        assert isinstance(bench.seen[0].error, CallCancelledError)

    run(main())


def test_closing_ends_it() -> None:
    """close cancels the work and waits for its end; its caller gets CallCancelledError as its
    outcome and goes on, and so does who calls later."""

    async def main() -> None:
        bench, slow = Bench(), Slow()
        task = asyncio.create_task(bench.run(slow))
        await asyncio.sleep(5)
        await bench.path.close()
        assert slow.ended_ns == 6 * 10**9
        outcome = await task
        assert isinstance(outcome.error, CallCancelledError)
        assert not task.cancelling()
        later = await bench.run(slow)
        assert isinstance(later.error, CallCancelledError)
        assert not later.error.may_have_started

    run(main())


def test_closing_ends_those_within() -> None:
    """close ends work in the course of which a call runs in the same task, and both are observed."""

    async def main() -> None:
        bench, slow = Bench(), Slow()

        async def outer(call: Call) -> object:
            return (await bench.run(slow, parent=call)).unwrap()

        task = asyncio.create_task(bench.run(outer))
        await asyncio.sleep(5)
        await bench.path.close()
        outcome = await task
        assert isinstance(outcome.error, CallCancelledError)
        assert [type(seen.error) for seen in bench.seen] == [CallCancelledError] * 2
        assert bench.gate.in_use == 0

    run(main())


def test_work_that_does_not_heed_keeps_nobody_from_closing(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Work that ignores its cancellation, against its promise, is waited for no longer than the
    grace, and told of."""

    async def main() -> None:
        attended = Limits(VirtualClock())
        stop = asyncio.Event()

        async def deaf() -> None:
            with Limit(attended):
                while not stop.is_set():
                    with contextlib.suppress(asyncio.CancelledError):
                        await stop.wait()

        task = asyncio.create_task(deaf())
        await asyncio.sleep(1)
        await attended.close(grace_s=3.0)
        assert (asyncio.get_running_loop().time(), len(attended)) == (4.0, 1)
        assert "1 executions ignore" in caplog.text
        stop.set()
        await task

    run(main())


def test_errors_of_the_work_are_its_own() -> None:
    """A TimeoutError of the work itself passes as it is, and is not taken for a limit."""

    async def main() -> None:
        bench, attended = Bench(), Limits(VirtualClock())

        async def late(_: Call) -> None:
            raise TimeoutError("of a socket")

        with pytest.raises(TimeoutError, match="of a socket"), Limit(attended):
            raise TimeoutError("of a socket")
        assert len(attended) == 0
        outcome = await bench.run(late)
        assert isinstance(outcome.error, AgentError)
        assert "of a socket" in outcome.error.message

    run(main())


def test_a_write_that_cannot_be_noted_takes_nothing_along(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where what a call writes cannot be noted, before or after it, the call fails and leaves its
    places and its context behind. (S0-65)"""

    async def main() -> None:
        for noting in ("start", "finish"):
            bench = Bench()

            def fails(*_: object, **__: object) -> None:
                raise OSError("the disk is gone")

            monkeypatch.setattr(Identity, noting, fails)

            async def work(_: Call) -> None:
                """Writes."""

            outcome = await bench.run(work, Plan(Effect.write("r")))
            assert isinstance(outcome.error, AgentError)
            assert bench.gate.in_use == 0
            assert current_call.get() is None
            monkeypatch.undo()

    run(main())


def test_closing_a_late_execution_does_not_try_again() -> None:
    """A read that is closed while it tidies up after its limit is cancelled, and not executed once
    more."""

    async def main() -> None:
        bench, slow = Bench(), Slow()
        task = asyncio.create_task(bench.run(slow, Plan(Effect.read(), ttl_s=0, timeout_s=5)))
        await asyncio.sleep(5.5)
        await bench.path.close()
        outcome = await task
        assert isinstance(outcome.error, CallCancelledError)
        assert (outcome.attempts, slow.ended_ns) == (1, 6 * 10**9)

    run(main())


def test_what_was_cancelled_is_no_success() -> None:
    """An execution that its caller cancelled says nothing of what it asked; one that its deadline
    ended counts as a failure, as does one that its limit ended. (S1-20)"""

    async def main() -> None:
        bench, slow = Bench(), Slow()
        assert (await bench.run(slow, timeout_s=5)).error is not None
        assert bench.circuit.status.failures == 1
        task = asyncio.create_task(bench.run(slow))
        await asyncio.sleep(5)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert bench.circuit.status.failures == 1
        assert (await bench.run(slow, Plan(timeout_s=5))).error is not None
        assert bench.circuit.status.failures == 2

    run(main())
