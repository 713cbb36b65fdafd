"""The one call path, in virtual time."""

import asyncio
import contextlib
import itertools
import random
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
import pytest

from paceline.balance.gate import Gate
from paceline.balance.retry import RetryBudget, RetryPolicy
from paceline.cache.generations import Generations
from paceline.cache.memory.tier import MemoryTier
from paceline.cache.tiered import ResultCache
from paceline.call import (
    Call,
    Caller,
    Effect,
    Kind,
    Outcome,
    Plan,
    Priority,
    Scope,
    ScopeLevel,
    Source,
    current_call,
)
from paceline.errors import (
    AgentError,
    CallCancelledError,
    CallTimeoutError,
    Category,
    CommandDeniedError,
    OverloadedError,
    PacelineError,
)
from paceline.path import Attempts, CallPath, Identity, Job
from paceline.testing.virtual_time import VirtualClock, run

READ = Plan(Effect.read("r"), ttl_s=60)
WRITE = Plan(Effect.write("r"))
Agent = Callable[[Call], Awaitable[object]]


class Bench:
    """A call path with everything in memory, and what it told its observer."""

    def __init__(self, *, capacity: int = 8, queue: int = 8, attempts: int = 3) -> None:
        self.clock = VirtualClock()
        self.seen: list[tuple[Call, Outcome]] = []
        self.gate = Gate("the test", capacity, queue)
        self.generations = Generations(None, on_trouble=lambda _: None)
        self.cache = ResultCache(MemoryTier(100, clock=self.clock), None, clock=self.clock)
        self.identity = Identity(self.generations, clock=self.clock)
        self.attempts = Attempts(
            clock=self.clock,
            gate=self.gate,
            retry=RetryPolicy(attempts),
            rng=random.Random(1),
            identity=self.identity,
        )
        self.path = CallPath(
            clock=self.clock,
            cache=self.cache,
            identity=self.identity,
            attempts=self.attempts,
            observers=[lambda call, outcome: self.seen.append((call, outcome))],
            began=lambda _: None,
            instance="test",
        )
        self._ids = itertools.count()

    def call(
        self,
        plan: Plan = READ,
        *,
        query: object = "q",
        user: str = "ada",
        timeout_s: float | None = None,
        priority: Priority = Priority.NORMAL,
        parent: str | None = None,
    ) -> Call:
        caller = Caller(user)
        deadline = None
        if timeout_s is not None:
            deadline = self.clock.monotonic_ns() + round(timeout_s * 1e9)
        return Call(
            id=str(next(self._ids)),
            kind=Kind.AGENT,
            name="agent",
            arguments={"query": query},
            caller=caller,
            scope=Scope.of(caller, plan.scope),
            plan=plan,
            priority=priority,
            deadline_ns=deadline,
            parent_id=parent,
        )

    async def run(self, agent: Agent, plan: Plan = READ, **options: Any) -> Outcome:
        return await self.path.run(self.call(plan, **options), Job(agent))


class Counting:
    """An agent that counts its executions, takes its time, and fails as it is told."""

    def __init__(self, takes_s: float = 0.0, errors: list[BaseException] | None = None) -> None:
        self.runs = 0
        self.cancelled = 0
        self.takes_s = takes_s
        self.errors = errors or []

    async def __call__(self, call: Call) -> object:
        self.runs += 1
        number = self.runs
        try:
            await asyncio.sleep(self.takes_s)
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        if self.errors:
            raise self.errors.pop(0)
        return {"run": number}


def test_a_repeated_call_comes_from_memory() -> None:
    """The second of two equal calls is answered without an execution. (S1-42)"""

    async def main() -> None:
        bench, agent = Bench(), Counting()
        first, second = await bench.run(agent), await bench.run(agent)
        assert (first.source, second.source) == (Source.EXECUTED, Source.HOT)
        assert first.value == second.value == {"run": 1}
        assert (second.attempts, second.execute_ns) == (0, 0)

    run(main())


def test_a_result_expires() -> None:
    """After its lifetime a result is executed anew. (S1-43)"""

    async def main() -> None:
        bench, agent = Bench(), Counting()
        await bench.run(agent)
        await asyncio.sleep(59.9)
        assert (await bench.run(agent)).source is Source.HOT
        await asyncio.sleep(0.1)
        assert (await bench.run(agent)).source is Source.EXECUTED

    run(main())


@pytest.mark.parametrize(
    "plan", [Plan(), Plan(Effect.read("r"), ttl_s=0), Plan(Effect.write("r"), ttl_s=60)]
)
def test_what_must_not_be_stored_is_executed_every_time(plan: Plan) -> None:
    """Unknown effects, writes, and a lifetime of 0 are never stored nor joined. (S1-39, S1-41)"""

    async def main() -> None:
        bench, agent = Bench(), Counting(takes_s=1)
        outcomes = await asyncio.gather(*(bench.run(agent, plan) for _ in range(3)))
        assert [o.source for o in outcomes] == [Source.EXECUTED] * 3
        assert agent.runs == 3

    run(main())


def test_a_failure_is_not_stored() -> None:
    """After a failed call the next one is executed. (S1-21, S1-44)"""

    async def main() -> None:
        bench, agent = Bench(), Counting(errors=[ValueError("no")])
        first, second = await bench.run(agent), await bench.run(agent)
        assert isinstance(first.error, AgentError)
        assert (second.source, second.value) == (Source.EXECUTED, {"run": 2})

    run(main())


async def check_a_write_invalidates(bench: Bench) -> None:
    """A read is executed again after a write to what it read, and only then. (S1-53)"""
    agent, other = Counting(), Plan(Effect.read("elsewhere"), ttl_s=60)
    await bench.run(agent)
    await bench.run(agent, other, query="other")
    await bench.run(Counting(), WRITE)
    assert (await bench.run(agent)).source is Source.EXECUTED
    assert (await bench.run(agent, other, query="other")).source is Source.HOT


async def check_a_result_of_before_a_write_is_not_found(bench: Bench) -> None:
    """A read that began before a write's end returns to its caller and is not found later."""
    agent = Counting(takes_s=5)
    reading = asyncio.create_task(bench.run(agent))
    await asyncio.sleep(1)
    await bench.run(Counting(takes_s=1), WRITE)
    assert (await reading).value == {"run": 1}
    assert (await bench.run(agent)).source is Source.EXECUTED


async def check_a_read_during_a_write_is_not_found(bench: Bench) -> None:
    """A read that ran in the course of a write is not found after it: it may have seen half."""
    agent = Counting()
    writing = asyncio.create_task(bench.run(Counting(takes_s=5), WRITE))
    await asyncio.sleep(1)
    await bench.run(agent)
    await writing
    assert (await bench.run(agent)).source is Source.EXECUTED


async def check_a_failed_write_invalidates(bench: Bench) -> None:
    """A write that failed may have written: what was read before is not found. (X-15)"""
    agent = Counting()
    await bench.run(agent)
    failed = await bench.run(Counting(errors=[OSError("disk")]), WRITE)
    assert failed.error is not None
    assert (await bench.run(agent)).source is Source.EXECUTED


INVALIDATION = [
    check_a_write_invalidates,
    check_a_result_of_before_a_write_is_not_found,
    check_a_read_during_a_write_is_not_found,
    check_a_failed_write_invalidates,
]


@pytest.mark.parametrize("check", INVALIDATION, ids=lambda check: check.__name__)
def test_writes_invalidate_reads(check: Callable[[Bench], Any]) -> None:
    """A write makes every result stale that it may have changed. (S1-53)"""
    run(check(Bench()))


def test_the_checks_find_a_path_that_does_not_invalidate(monkeypatch: pytest.MonkeyPatch) -> None:
    """A path that forgets to invalidate, or does it only before the write, is caught. (S1-53)"""
    monkeypatch.setattr(Identity, "_bump", lambda *_: None)
    for check in INVALIDATION:
        with pytest.raises(AssertionError):
            run(check(Bench()))


def test_the_checks_find_a_path_that_invalidates_only_before(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A path that invalidates only before the write runs is caught. (S1-53)"""
    right, told = Identity._bump, set[str]()

    def once(identity: Identity, call: Call) -> None:
        if call.id not in told:
            told.add(call.id)
            right(identity, call)

    monkeypatch.setattr(Identity, "_bump", once)
    with pytest.raises(AssertionError):
        run(check_a_read_during_a_write_is_not_found(Bench()))


def test_users_do_not_see_each_others_results() -> None:
    """Without a declared scope a result stays with its user; a global one is shared. (S1-54)"""

    async def main() -> None:
        bench, agent = Bench(), Counting()
        await bench.run(agent, user="ada")
        assert (await bench.run(agent, user="grace")).source is Source.EXECUTED
        everyone = Plan(Effect.read(), ttl_s=60, scope=ScopeLevel.GLOBAL)
        await bench.run(agent, everyone, user="ada")
        assert (await bench.run(agent, everyone, user="grace")).source is Source.HOT

    run(main())


def test_equal_calls_at_the_same_time_share_one_execution() -> None:
    """Of many equal calls at once one is executed, and each caller gets a value of its own."""

    async def main() -> None:
        bench, agent = Bench(), Counting(takes_s=1)
        outcomes = await asyncio.gather(*(bench.run(agent) for _ in range(100)))
        assert agent.runs == 1
        assert [o.source for o in outcomes].count(Source.JOINED) == 99
        assert len({id(o.value) for o in outcomes}) == 100
        assert len({o.call_id for o in outcomes}) == 100

    run(main())


def test_a_cancelled_leader_hands_over() -> None:
    """When the caller that came first is cancelled, the others still get the one result."""

    async def main() -> None:
        bench, agent = Bench(), Counting(takes_s=2)
        leader = asyncio.create_task(bench.run(agent))
        await asyncio.sleep(1)
        follower = asyncio.create_task(bench.run(agent))
        await asyncio.sleep(0)
        leader.cancel()
        assert (await follower).value == {"run": 1}
        with pytest.raises(asyncio.CancelledError):
            await leader
        assert agent.runs == 1
        cancelled = [o for _, o in bench.seen if isinstance(o.error, CallCancelledError)]
        assert len(cancelled) == 1

    run(main())


def test_a_leader_out_of_time_hurts_nobody() -> None:
    """A caller with a short deadline gets its time-out; one with more time gets the value."""

    async def main() -> None:
        bench, agent = Bench(), Counting(takes_s=2)
        short = asyncio.create_task(bench.run(agent, timeout_s=1))
        await asyncio.sleep(0)
        long = asyncio.create_task(bench.run(agent, timeout_s=10))
        first = await short
        assert isinstance(first.error, CallTimeoutError)
        assert first.error.may_have_started
        assert (await long).value == {"run": 1}

    run(main())


def test_work_nobody_waits_for_is_cancelled() -> None:
    """When the last caller leaves, the execution is cancelled and its place given back."""

    async def main() -> None:
        bench, agent = Bench(), Counting(takes_s=100)
        outcome = await bench.run(agent, timeout_s=1)
        assert isinstance(outcome.error, CallTimeoutError)
        assert (agent.cancelled, bench.gate.in_use) == (1, 0)
        assert outcome.total_ns == outcome.execute_ns == 1_000_000_000

    run(main())


def test_work_that_ignores_its_cancellation_keeps_nobody() -> None:
    """An agent that swallows its cancellation costs its caller little beyond the deadline, and
    does not keep the path from closing."""

    async def main() -> None:
        bench, stop = Bench(), asyncio.Event()

        async def deaf(call: Call) -> None:
            while not stop.is_set():
                with contextlib.suppress(asyncio.CancelledError):
                    await stop.wait()

        outcome = await bench.run(deaf, timeout_s=1)
        assert isinstance(outcome.error, CallTimeoutError)
        await bench.path.close()
        assert bench.clock.monotonic_ns() < 15 * 10**9
        stop.set()

    run(main())


def test_a_deadline_counts_waiting() -> None:
    """A call that waits for capacity until its deadline was not started. (S1-20)"""

    async def main() -> None:
        bench = Bench(capacity=1)
        busy = asyncio.create_task(bench.run(Counting(takes_s=10), Plan()))
        await asyncio.sleep(0)
        agent = Counting()
        outcome = await bench.run(agent, timeout_s=3)
        assert isinstance(outcome.error, CallTimeoutError)
        assert not outcome.error.may_have_started
        assert agent.runs == 0
        await busy

    run(main())


def test_waiting_and_running_are_told_apart() -> None:
    """Time in the queue and time in the agent are measured separately. (S1-16)"""

    async def main() -> None:
        bench = Bench(capacity=1)
        busy = asyncio.create_task(bench.run(Counting(takes_s=2), Plan()))
        await asyncio.sleep(0)
        outcome = await bench.run(Counting(takes_s=3))
        assert (outcome.queue_ns, outcome.execute_ns) == (2_000_000_000, 3_000_000_000)
        assert outcome.total_ns == 5_000_000_000
        await busy

    run(main())


def test_a_full_queue_refuses_at_once() -> None:
    """A call that finds the queue full is refused as overloaded, with a next step."""

    async def main() -> None:
        bench = Bench(capacity=1, queue=0)
        busy = asyncio.create_task(bench.run(Counting(takes_s=2), Plan()))
        await asyncio.sleep(0)
        outcome = await bench.run(Counting())
        assert isinstance(outcome.error, OverloadedError)
        assert outcome.error.next_step
        await busy

    run(main())


def test_the_urgent_go_first() -> None:
    """Of calls that wait, the one of the higher priority is executed first."""

    async def main() -> None:
        bench = Bench(capacity=1)
        order: list[object] = []

        async def agent(call: Call) -> None:
            order.append(call.arguments["query"])
            await asyncio.sleep(1)

        asked = [("a", Priority.NORMAL), ("b", Priority.LOW), ("c", Priority.HIGH)]
        await asyncio.gather(*(bench.run(agent, Plan(), query=q, priority=p) for q, p in asked))
        assert order == ["a", "c", "b"]

    run(main())


def test_calls_in_calls_need_no_second_place() -> None:
    """Calls that all make calls of their own do not wait for each other for ever."""

    async def main() -> None:
        bench = Bench(capacity=2)

        async def outer(call: Call) -> object:
            inner = bench.call(Plan(), query="inner", parent=call.id)
            return (await bench.path.run(inner, Job(Counting(takes_s=1)))).value

        async with asyncio.timeout(60):
            outcomes = await asyncio.gather(*(bench.run(outer, Plan()) for _ in range(6)))
        assert [o.error for o in outcomes] == [None] * 6

    run(main())


def transient() -> AgentError:
    return AgentError("no route", category=Category.NETWORK, may_have_started=True)


async def check_reads_are_repeated(bench: Bench) -> None:
    """A read that meets passing trouble is executed again. (S1-19)"""
    outcome = await bench.run(Counting(errors=[transient(), transient()]))
    assert (outcome.attempts, outcome.value) == (3, {"run": 3})


async def check_started_writes_are_not_repeated(bench: Bench) -> None:
    """A write that may have started is never executed twice. (X-15)"""
    for plan in (WRITE, Plan()):
        agent = Counting(errors=[transient()])
        outcome = await bench.run(agent, plan)
        assert outcome.error is not None
        assert agent.runs == 1


def test_repeating_follows_the_effect() -> None:
    """Reads are repeated, writes that may have started are not. (S1-19, X-15)"""
    run(check_reads_are_repeated(Bench()))
    run(check_started_writes_are_not_repeated(Bench()))


def test_the_checks_find_wrong_retries(monkeypatch: pytest.MonkeyPatch) -> None:
    """Paths that never repeat, or repeat writes, are caught. (X-15)"""
    monkeypatch.setattr(RetryPolicy, "pause_s", lambda *_, **__: None)
    with pytest.raises(AssertionError):
        run(check_reads_are_repeated(Bench()))
    monkeypatch.setattr(
        RetryPolicy, "pause_s", lambda *_, attempt, **__: 0.1 if attempt < 3 else None
    )
    with pytest.raises(AssertionError):
        run(check_started_writes_are_not_repeated(Bench()))


async def check_the_budget_bounds_retries(bench: Bench) -> None:
    """When everything fails, retries are few beside first executions. (S1-19)"""
    agent = Counting(errors=[transient() for _ in range(1_000)])
    for number in range(300):
        await bench.run(agent, query=number)
    assert 300 + 20 <= agent.runs <= 300 + 20 + 30


def test_retries_of_all_calls_have_a_budget(monkeypatch: pytest.MonkeyPatch) -> None:
    """An outage does not multiply the load on what is in trouble; a path without a budget is
    caught. (S1-19)"""
    run(check_the_budget_bounds_retries(Bench()))
    monkeypatch.setattr(RetryBudget, "spend", lambda _: True)
    with pytest.raises(AssertionError):
        run(check_the_budget_bounds_retries(Bench()))


async def check_only_trusted_errors_say_that_nothing_started(bench: Bench) -> None:
    """A write is tried again only where an error that can be believed says that nothing was
    started; what an agent passes on of others' errors says nothing about itself. (X-15)"""
    for trusted, attempts in ((True, 2), (False, 1)):
        refused = AgentError("connection refused", category=Category.UNAVAILABLE)
        agent = Counting(errors=[refused])
        outcome = await bench.path.run(bench.call(WRITE), Job(agent, trusted=trusted))
        assert (outcome.attempts, agent.runs) == (attempts, attempts)


def test_errors_of_agents_do_not_vouch_for_them() -> None:
    """Agents' errors never make a write be executed twice. (S1-19, X-15)"""
    run(check_only_trusted_errors_say_that_nothing_started(Bench()))


def test_the_time_limit_of_an_execution_holds() -> None:
    """An execution over its agent's limit ends as a time-out, which a read may try once more."""

    async def main() -> None:
        bench, agent = Bench(), Counting(takes_s=100)
        plan = msgspec.structs.replace(READ, timeout_s=5.0)
        outcome = await bench.run(agent, plan)
        assert isinstance(outcome.error, CallTimeoutError)
        assert (outcome.attempts, agent.cancelled) == (2, 2)
        assert outcome.execute_ns == 10_000_000_000

    run(main())


@pytest.mark.parametrize(
    ("raised", "category"),
    [
        (ValueError("x"), Category.EXECUTION),
        (SystemExit(1), Category.EXECUTION),
        (ConnectionResetError("x"), Category.NETWORK),
        (TimeoutError(), Category.TIMEOUT),
        (CommandDeniedError("no", reason="no_rule"), Category.POLICY),
    ],
)
def test_every_failure_is_typed(raised: BaseException, category: Category) -> None:
    """Whatever an agent raises arrives as an error with category, next step and cause. (S1-26)"""

    async def main() -> None:
        outcome = await Bench(attempts=1).run(Counting(errors=[raised]))
        assert isinstance(outcome.error, PacelineError)
        assert outcome.error.category is category
        assert outcome.error.next_step
        assert outcome.error is raised or outcome.error.__cause__ is raised

    run(main())


def test_closing_cancels_and_tells() -> None:
    """Callers of work in flight get a typed cancellation when the path closes."""

    async def main() -> None:
        bench, agent = Bench(), Counting(takes_s=100)
        calls = [asyncio.create_task(bench.run(agent, query=n)) for n in range(3)]
        await asyncio.sleep(1)
        await bench.path.close()
        outcomes = await asyncio.gather(*calls)
        assert all(isinstance(o.error, CallCancelledError) for o in outcomes)
        assert agent.cancelled == 3
        late = await bench.run(agent)
        assert isinstance(late.error, CallCancelledError)

    run(main())


def test_a_failing_observer_harms_nothing(caplog: pytest.LogCaptureFixture) -> None:
    """When an observer raises, the call still succeeds and the trouble is logged."""

    async def main() -> None:
        bench = Bench()

        def broken(call: Call, outcome: Outcome) -> None:
            raise RuntimeError("no")

        bench.path._observers = (broken, *bench.path._observers)
        assert (await bench.run(Counting())).ok
        assert len(bench.seen) == 1

    run(main())
    assert "an observer failed" in caplog.text


def test_arguments_without_a_canonical_form_run_uncached() -> None:
    """A call whose arguments cannot be a key is executed every time, not guessed. (S1-51)"""

    async def main() -> None:
        bench, agent, odd = Bench(), Counting(), object()
        for _ in range(2):
            assert (await bench.run(agent, query=odd)).source is Source.EXECUTED

    run(main())


def test_running_code_knows_its_call() -> None:
    """In the course of a call `current_call` is that call, and afterwards it is not."""

    async def main() -> None:
        async def agent(call: Call) -> bool:
            return current_call.get() is call

        assert (await Bench().run(agent)).value is True
        assert current_call.get() is None

    run(main())


def test_receivers_cannot_change_what_is_stored() -> None:
    """Changing a value that was received changes nobody else's. (E-14)"""

    async def main() -> None:
        bench, agent = Bench(), Counting()
        first = await bench.run(agent)
        assert isinstance(first.value, dict)
        first.value["run"] = "changed"
        second = await bench.run(agent)
        assert second.value == {"run": 1}

    run(main())


async def check_cancelled_at(moment_s: float) -> None:
    """Cancels one of three equal calls at a moment, and looks at what is left."""
    bench = Bench(capacity=1)
    agent = Counting(takes_s=1, errors=[transient()])
    busy = asyncio.create_task(bench.run(Counting(takes_s=1), Plan()))
    await asyncio.sleep(0)
    calls = [asyncio.create_task(bench.run(agent)) for _ in range(3)]
    await asyncio.sleep(moment_s)
    calls[0].cancel()
    results = await asyncio.gather(*calls, return_exceptions=True)
    assert all(isinstance(o, Outcome) and o.ok for o in results[1:])
    await busy
    assert (bench.gate.in_use, bench.gate.waiting, len(bench.path._flight)) == (0, 0, 0)


def test_cancelling_at_any_moment_leaves_nothing_behind() -> None:
    """A call can be cancelled while it waits, runs or pauses; nothing leaks and others succeed."""
    for step in range(40):
        run(check_cancelled_at(step / 10))


async def check_joined_values_are_of_the_moment(bench: Bench) -> None:
    """What a caller does to its value at once is not in the value of those who joined."""
    agent = Counting(takes_s=1)

    async def hasty() -> None:
        value = (await bench.run(agent)).value
        assert isinstance(value, dict)
        value["run"] = "spoilt"

    first = asyncio.create_task(hasty())
    await asyncio.sleep(0)
    joined = await bench.run(agent)
    await first
    assert (joined.source, joined.value) == (Source.JOINED, {"run": 1})


def test_joined_values_are_of_the_moment() -> None:
    """Each caller's value is its own, from the moment it was made."""
    run(check_joined_values_are_of_the_moment(Bench()))


def test_what_cannot_be_copied_is_made_for_each() -> None:
    """A value that can be neither encoded nor copied is not shared: each caller has its own."""

    class Stubborn:
        def __deepcopy__(self, _: object) -> "Stubborn":
            raise TypeError("no")

    async def main() -> None:
        bench = Bench()

        async def agent(call: Call) -> object:
            await asyncio.sleep(1)
            return Stubborn()

        outcomes = await asyncio.gather(*(bench.run(agent) for _ in range(3)))
        assert all(o.ok for o in outcomes)
        assert len({id(o.value) for o in outcomes}) == 3

    run(main())


def test_a_time_limit_is_met_once_by_all_who_share() -> None:
    """When shared work meets its agent's limit, all its callers are told at once: nobody starts
    it anew for the next in line."""

    async def main() -> None:
        bench, agent = Bench(attempts=1), Counting(takes_s=100)
        plan = msgspec.structs.replace(READ, timeout_s=5.0)
        outcomes = await asyncio.gather(*(bench.run(agent, plan) for _ in range(10)))
        assert all(isinstance(o.error, CallTimeoutError) for o in outcomes)
        assert (agent.runs, bench.clock.monotonic_ns()) == (1, 5 * 10**9)

    run(main())


def test_work_goes_on_for_the_most_patient() -> None:
    """A short deadline of who came first neither ends nor stops retries of what others share."""

    async def main() -> None:
        bench, agent = Bench(), Counting(takes_s=2, errors=[transient()])
        first = asyncio.create_task(bench.run(agent, timeout_s=2.01))
        await asyncio.sleep(0)
        patient = await bench.run(agent)
        assert (patient.value, agent.runs) == ({"run": 2}, 2)
        assert isinstance((await first).error, CallTimeoutError)

    run(main())


async def check_parents_and_others_do_not_block_each_other(bench: Bench) -> None:
    """A call made inside another and one from outside need the same agent: both get through."""
    own = Gate("the agent", 1, 10)

    async def limited(call: Call) -> str:
        await asyncio.sleep(1)
        return "done"

    async def outer(call: Call) -> object:
        await asyncio.sleep(1)
        inner = bench.call(READ, query="same", parent=call.id)
        return (await bench.path.run(inner, Job(limited, gate=own))).unwrap()

    parent = asyncio.create_task(bench.run(outer, Plan()))
    await asyncio.sleep(0.5)
    other = asyncio.create_task(
        bench.path.run(bench.call(READ, query="same"), Job(limited, gate=own))
    )
    async with asyncio.timeout(30):
        assert ((await parent).value, (await other).value) == ("done", "done")
    assert (own.in_use, bench.gate.in_use, own.waiting, bench.gate.waiting) == (0, 0, 0, 0)


def test_nested_and_outer_calls_do_not_wait_in_a_circle() -> None:
    """Neither joining nor limits make calls wait for each other for ever, with one place in all."""
    run(check_parents_and_others_do_not_block_each_other(Bench(capacity=1)))


def test_an_agent_may_call_itself_within_its_limit() -> None:
    """An agent that runs once at a time can call itself: it uses the place it has."""

    async def main() -> None:
        bench, own = Bench(capacity=1), Gate("the agent", 1, 10)

        async def factorial(call: Call) -> object:
            number = call.arguments["query"]
            assert isinstance(number, int)
            if number < 2:
                return 1
            inner = bench.call(Plan(), query=number - 1, parent=call.id)
            below = (await bench.path.run(inner, Job(factorial, gate=own))).unwrap()
            assert isinstance(below, int)
            return number * below

        async with asyncio.timeout(30):
            outcome = await bench.path.run(bench.call(Plan(), query=5), Job(factorial, gate=own))
        assert outcome.value == 120

    run(main())


def test_a_call_that_dies_in_the_queue_says_how_long_it_waited() -> None:
    """The time a call waited for capacity in vain is in its outcome. (S1-16)"""

    async def main() -> None:
        bench = Bench(capacity=1)
        busy = asyncio.create_task(bench.run(Counting(takes_s=10), Plan()))
        await asyncio.sleep(0)
        outcome = await bench.run(Counting(), timeout_s=3)
        assert (outcome.queue_ns, outcome.execute_ns) == (3 * 10**9, 0)
        await busy

    run(main())


def test_a_write_that_names_nothing_invalidates_every_read() -> None:
    """A write without tags may have changed anything: all reads are made anew, pure results stay.
    (S1-53)"""

    async def main() -> None:
        bench, reader, pure = Bench(), Counting(), Counting()
        for _ in range(2):
            await bench.run(reader, query="r")
            await bench.run(pure, Plan(Effect.pure(), ttl_s=60), query="p")
        await bench.run(Counting(), Plan(Effect.write()))
        assert (await bench.run(reader, query="r")).source is Source.EXECUTED
        again = await bench.run(pure, Plan(Effect.pure(), ttl_s=60), query="p")
        assert again.source is Source.HOT

    run(main())


def test_shared_work_sees_no_more_of_its_caller_than_is_shared() -> None:
    """An agent whose result others get is not shown who asked, beyond the scope they share; one
    whose result nobody else gets is. (S1-54)"""

    async def main() -> None:
        bench, seen = Bench(), list[Caller]()

        async def agent(call: Call) -> None:
            seen.append(call.caller)

        for plan in (
            Plan(Effect.read(), ttl_s=60, scope=ScopeLevel.GLOBAL),
            Plan(Effect.read(), ttl_s=60, scope=ScopeLevel.USER),
            Plan(),
        ):
            await bench.run(agent, plan)
        assert seen == [Caller(), Caller("ada"), Caller("ada")]

    run(main())


@pytest.mark.parametrize(
    "raised", [type("Own", (BaseException,), {})(), BaseExceptionGroup("two", [SystemExit()])]
)
def test_no_exception_of_an_agent_escapes(raised: BaseException) -> None:
    """Whatever kind of exception an agent makes up, the call has an outcome with a typed error."""

    async def main() -> None:
        outcome = await Bench(attempts=1).run(Counting(errors=[raised]))
        assert isinstance(outcome.error, AgentError)

    run(main())
