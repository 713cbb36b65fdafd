"""Calls that nobody has asked for yet, on the one call path, in virtual time."""

import asyncio
import contextlib
import itertools
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from paceline import Runtime
from paceline.balance.circuit import Circuit, CircuitPolicy
from paceline.balance.gate import Gate
from paceline.breaker import BreakerState
from paceline.call import (
    SPECULATED,
    UNKNOWN,
    Call,
    Caller,
    Effect,
    EffectKind,
    Kind,
    Outcome,
    Plan,
    Priority,
    Scope,
    ScopeLevel,
    Source,
    current_call,
)
from paceline.cli.board import Board, Sort
from paceline.cli.cache_figures import Reuse
from paceline.cli.replay import replay
from paceline.config import load
from paceline.engine.schedule import conflicting
from paceline.errors import (
    AgentError,
    CallCancelledError,
    Category,
    OverloadedError,
    Shortage,
    UsageError,
)
from paceline.history.sqlite import SqliteReader
from paceline.home import Home
from paceline.metrics.collector import MetricsCollector
from paceline.path import Job, agent_tag
from paceline.path.ahead import Ahead
from paceline.testing.virtual_time import run
from paceline.usage import report_usage, spent_on
from tests.unit.far import DOWN, QUIET, Far, in_runtime
from tests.unit.test_call_path import READ, WRITE, Bench, Counting

GUESS = Priority.SPECULATIVE
S = 1_000_000_000


async def guess(bench: Bench, job: Job, plan: Plan = READ, **options: Any) -> Outcome:
    return await bench.path.run(bench.call(plan, priority=GUESS, **options), job)


def test_the_first_use_of_what_was_made_ahead_says_so() -> None:
    """The first hit on a result that was made ahead comes from speculation, with the call that made
    it and the time that took, and what that cost and was counted then; later ones from memory. (P-02,
    S2-40)"""

    async def main() -> None:
        bench, agent = Bench(), Counting(2.0)
        plan = msgspec.structs.replace(READ, cost_usd=0.5)
        made = await guess(bench, Job(agent), plan)
        assert (made.source, made.value) == (Source.EXECUTED, {"run": 1})
        first, second = await bench.run(agent, plan), await bench.run(agent, plan)
        assert (first.source, first.link) == (Source.SPECULATED, made.call_id)
        assert (first.saved_ns, first.saved_usd, first.value) == (2 * S, None, {"run": 1})
        assert (second.source, second.link, second.saved_usd) == (Source.HOT, "", 0.5)
        assert (first.ahead_usd, second.ahead_usd) == (0.5, None)
        assert [spent_on(one, 0.5).cost_usd for one in (made, first, second)] == [0.5, None, None]
        assert made.call_id.endswith(SPECULATED)
        assert agent.runs == 1
        totals = bench.cache.totals
        assert (totals.requests, totals.hits, totals.saved_usd) == (2, 2, 0.5)

    run(main())


def test_the_first_who_joins_what_is_made_ahead_uses_it() -> None:
    """Who asks first for what is being made ahead joins it, and is told how long it had run and what
    it costs; those after it join as ever, and nothing is left to be used. (P-02, S2-40)"""

    async def main() -> None:
        bench, agent = Bench(), Counting(3.0)
        plan = msgspec.structs.replace(READ, cost_usd=0.5)
        ahead = asyncio.create_task(guess(bench, Job(agent), plan))
        await asyncio.sleep(1)
        first = asyncio.create_task(bench.run(agent, plan))
        await asyncio.sleep(1)
        second = await bench.run(agent, plan)
        found = await first
        assert (found.source, found.saved_ns, found.total_ns) == (Source.SPECULATED, S, 2 * S)
        assert found.link == (await ahead).call_id
        assert (second.source, second.saved_ns) == (Source.JOINED, 3 * S)
        assert (found.ahead_usd, second.ahead_usd) == (0.5, None)
        assert (await bench.run(agent, plan)).source is Source.HOT
        assert agent.runs == 1
        assert bench.cache.totals.saved_ns == S + 3 * S + 3 * S

    run(main())


def test_what_was_there_before_is_not_made_ahead() -> None:
    """A call ahead that finds a result gets it, makes nothing ahead, has nothing computed anew, and
    counts as no request. (S2-40)"""

    async def main() -> None:
        bench, agent = Bench(), Counting()
        plan = msgspec.structs.replace(READ, stale_s=1000.0)
        await bench.run(agent, plan)
        before = bench.cache.totals.copy()
        assert (await guess(bench, Job(agent), plan)).source is Source.HOT
        await asyncio.sleep(100)
        assert (await guess(bench, Job(agent), plan)).source is Source.STALE
        await asyncio.sleep(1)
        assert bench.cache.totals == before
        assert agent.runs == 1
        assert (await bench.run(agent, plan)).source is Source.STALE

    run(main())


def test_what_would_end_too_soon_is_made_anew_ahead() -> None:
    """A call ahead that is to last makes anew what would end sooner: the old result is served until
    the new one is there, which then is the one made ahead; if that fails the old one stays. What lasts
    long enough is left as it is. (S2-40, S2-43)"""

    async def main() -> None:
        bench, agent = Bench(), Counting(2.0)
        job = Job(agent, lasting_s=20.0)
        first = await guess(bench, job)
        assert (await guess(bench, job)).source is Source.HOT
        assert bench.path.left_s(bench.call(), job) == 60.0
        await asyncio.sleep(41)
        second = asyncio.create_task(guess(bench, job))
        await asyncio.sleep(1)
        old = await bench.run(agent)
        assert (old.source, old.link, old.total_ns) == (Source.SPECULATED, first.call_id, 0)
        assert (await second).source is Source.EXECUTED
        assert bench.path.left_s(bench.call(), job) == 60.0
        new = await bench.run(agent)
        assert (new.source, new.link) == (Source.SPECULATED, (await second).call_id)
        assert (old.value, new.value, agent.runs) == ({"run": 1}, {"run": 2}, 2)
        await asyncio.sleep(41)
        failed = await guess(bench, Job(Counting(0, [AgentError("down")]), lasting_s=20.0))
        assert failed.error is not None
        assert (await bench.run(agent)).value == {"run": 2}
        totals = bench.cache.totals
        assert (totals.requests, totals.hits, totals.refreshes) == (3, 3, 2)

    run(main())


@pytest.mark.parametrize("asked", [True, False])
def test_what_was_made_anew_is_free_while_the_old_would_be(asked: bool) -> None:
    """While a result that somebody had asked for would be valid, the one that was made ahead in its
    place counts for nobody; after that, and in place of one that nobody had asked for, it does.
    (P-02, S2-40)"""

    async def main() -> None:
        for after_s, owed in ((0.0, not asked), (5.0, not asked), (6.0, True)):
            bench = Bench()
            agent = Counting(2.0)
            plan = msgspec.structs.replace(READ, cost_usd=0.5)
            await (bench.run(agent, plan) if asked else guess(bench, Job(agent), plan))
            await asyncio.sleep(52)
            await guess(bench, Job(agent, lasting_s=14.0), plan)
            await asyncio.sleep(after_s)
            used = await bench.run(agent, plan)
            assert (used.source, used.value) == (Source.SPECULATED, {"run": 2})
            assert used.ahead_usd == (0.5 if owed else None)

    run(main())


def test_tokens_of_what_was_made_anew_are_free_as_its_money_is() -> None:
    """The tokens of a model that was asked anew ahead count when its money does. (P-02, S2-40)"""

    async def agent(call: Call) -> str:
        report_usage("m", input=7)
        return "said"

    async def main() -> None:
        for after_s in (1.0, 9.0):
            bench = Bench()
            await bench.path.run(bench.call(), Job(agent))
            await asyncio.sleep(52)
            await guess(bench, Job(agent, lasting_s=14.0))
            await asyncio.sleep(after_s)
            used = await bench.path.run(bench.call(), Job(agent))
            assert used.source is Source.SPECULATED
            assert (used.ahead_tokens is None) == (after_s < 8)

    run(main())


def test_who_joins_what_is_made_anew_ahead_uses_it() -> None:
    """Who asks when the old result has ended, and the new one is still being made, joins that.
    (S2-40)"""

    async def main() -> None:
        bench, agent = Bench(), Counting(5.0)
        await guess(bench, Job(agent))
        await asyncio.sleep(58)
        ahead = asyncio.create_task(guess(bench, Job(agent, lasting_s=20.0)))
        await asyncio.sleep(3)
        found = await bench.run(agent)
        assert (found.source, found.saved_ns, found.value) == (Source.SPECULATED, 3 * S, {"run": 2})
        assert found.link == (await ahead).call_id

    run(main())


def test_what_nobody_asked_for_never_waits() -> None:
    """Where a gate is full a call ahead is refused at once with a reason that says so, is in no
    queue and evicts nobody from one. (P-01, S2-36)"""

    async def main() -> None:
        bench, agent = Bench(capacity=1, queue=1), Counting(5.0)
        own = Gate("its own", 1, 0)
        busy = [asyncio.create_task(bench.run(agent, query=n)) for n in range(2)]
        await asyncio.sleep(1)
        outcome = await guess(bench, Job(agent), query="guess")
        assert isinstance(outcome.error, OverloadedError)
        assert outcome.error.reason is Shortage.SPECULATIVE
        assert (outcome.total_ns, outcome.attempts, outcome.queue_ns) == (0, 0, 0)
        assert bench.gate.waiting == 1
        await asyncio.gather(*busy)
        await own.enter()
        outcome = await guess(bench, Job(agent, gate=own), query="guess")
        assert isinstance(outcome.error, OverloadedError)
        assert bench.gate.free == 1
        assert agent.runs == 2

    run(main())


def test_it_leaves_half_of_the_threads_alone() -> None:
    """As a thread cannot be ended, no more than half of them are taken ahead, and none of one.
    (P-01)"""

    async def main() -> None:
        bench, agent = Bench(), Counting(5.0)
        for capacity, taken in ((1, 0), (2, 1), (5, 2), (8, 4)):
            workers = Gate("threads", capacity, 8)
            job = Job(agent, workers=workers)
            tasks = [
                asyncio.create_task(guess(bench, job, query=(capacity, n))) for n in range(capacity)
            ]
            await asyncio.sleep(1)
            assert workers.in_use == taken
            await asyncio.gather(*tasks)
            assert (workers.free, bench.gate.free) == (capacity, 8)

    run(main())


@pytest.mark.parametrize("queue", [0, 8])
def test_the_youngest_gives_way_to_who_would_wait(queue: int) -> None:
    """For each caller who would have to wait the youngest call ahead is cancelled and the caller gets
    its place in that moment, also where nobody may wait. (P-01, S2-36)"""

    async def main() -> None:
        bench, slow, agent = Bench(capacity=3, queue=queue), Counting(9.0), Counting(1.0)
        ahead = [asyncio.create_task(guess(bench, Job(slow), query=n)) for n in range(3)]
        await asyncio.sleep(1)
        outcomes = await asyncio.gather(*(bench.run(agent, query=f"r{n}") for n in range(2)))
        assert [outcome.queue_ns for outcome in outcomes] == [0, 0]
        ended = await asyncio.gather(*ahead)
        assert ended[0].ok
        assert [type(outcome.error) for outcome in ended[1:]] == [CallCancelledError] * 2
        assert (slow.runs, slow.cancelled) == (3, 2)
        assert (bench.gate.free, len(bench.gate.guests), bench.gate.waiting) == (3, 0, 0)

    run(main())


@pytest.mark.parametrize("steps", range(6))
def test_it_gives_way_wherever_it_is(steps: int) -> None:
    """At whichever of its awaits a call ahead is, who needs its place gets it, and nobody gets a
    result of it. (P-01, S2-36)"""

    async def main() -> None:
        bench, real = Bench(capacity=1), Counting()

        async def agent(_: Call) -> str:
            for _step in range(4):
                await asyncio.sleep(0)
            return "ahead"

        ahead = asyncio.create_task(guess(bench, Job(agent), query="same"))
        for _ in range(steps):
            await asyncio.sleep(0)
        outcome = await bench.run(real, query="other")
        assert outcome.ok
        assert outcome.total_ns == 0
        assert (await ahead).ok or (await ahead).attempts <= 1
        assert bench.gate.free == 1
        after = await bench.run(real, query="same")
        assert after.source in (Source.EXECUTED, Source.SPECULATED)
        assert (after.source is Source.SPECULATED) == (await ahead).ok

    run(main())


def test_what_was_joined_keeps_its_place() -> None:
    """A call ahead that somebody has joined is not cancelled for others, who wait for it. (S2-40)"""

    async def main() -> None:
        bench, agent = Bench(capacity=1), Counting(4.0)
        ahead = asyncio.create_task(guess(bench, Job(agent)))
        await asyncio.sleep(1)
        joined = asyncio.create_task(bench.run(agent))
        await asyncio.sleep(1)
        other = await bench.run(agent, query="other")
        assert other.queue_ns == 2 * S
        assert (await joined).source is Source.SPECULATED
        assert (await ahead).ok
        assert agent.cancelled == 0

    run(main())


def test_nobody_joins_what_has_been_told_to_go() -> None:
    """Who asks for what gives way just then has it executed anew. (S2-40)"""

    async def main() -> None:
        bench = Bench(capacity=1)
        runs = 0

        async def agent(_: Call) -> int:
            nonlocal runs
            runs += 1
            try:
                await asyncio.sleep(5)
            finally:
                await asyncio.sleep(1)
            return runs

        ahead = asyncio.create_task(guess(bench, Job(agent)))
        await asyncio.sleep(1)
        other = asyncio.create_task(bench.run(agent, query="other"))
        await asyncio.sleep(0.5)
        same = await bench.run(agent)
        assert (same.source, same.ok) == (Source.EXECUTED, True)
        assert (await other).queue_ns == S
        assert not (await ahead).ok
        assert runs == 3

    run(main())


def test_who_waits_for_two_gates_does_not_wait_for_guests() -> None:
    """Where a guest holds one of two places that somebody waits for it goes as soon as the other is
    free, though both were never full when anybody came. (P-01)"""

    async def main() -> None:
        bench, agent = Bench(capacity=2), Counting(4.0)
        own = Gate("its own", 1, 8)
        await own.enter()
        ahead = asyncio.create_task(guess(bench, Job(agent), query="guess"))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        waits = asyncio.create_task(bench.path.run(bench.call(query="waits"), Job(agent, gate=own)))
        await asyncio.sleep(0.5)
        direct = asyncio.create_task(bench.run(agent, query="direct"))
        await asyncio.sleep(0.5)
        assert bench.gate.free == 0
        own.leave()
        await asyncio.sleep(0.1)
        assert own.free == 0
        assert not (await ahead).ok
        assert (await waits).queue_ns == S
        assert (await direct).ok

    run(main())


KINDS = st.sampled_from(list(EffectKind))
PLANS = st.builds(
    Plan,
    st.builds(Effect, KINDS, st.sampled_from([(), ("r",), ("r", "s")])),
    st.sampled_from([None, 0, 0.0, 60]),
    st.sampled_from([None, *ScopeLevel]),
    stale_s=st.sampled_from([None, 60.0]),
    world=st.sampled_from([None, "w"]),
    cost_usd=st.sampled_from([0.0, 1.0]),
)


@given(PLANS, st.booleans(), st.booleans(), st.booleans())
def test_nothing_that_could_change_the_world_runs_ahead(
    plan: Plan, use_cache: bool, heeds: bool, trusted: bool
) -> None:
    """Whatever its plan, a call ahead whose effect is write or unknown, or whose result nobody could
    find, ends in a UsageError and nothing runs; nor does one in the course of a call ahead. (E-97,
    S2-40)"""

    async def main() -> None:
        bench, agent = Bench(), Counting()
        job = Job(agent, heeds=heeds, trusted=trusted)
        before = bench.generations.read(("r", "s"))
        outcome = await bench.path.run(bench.call(plan, priority=GUESS), job, use_cache=use_cache)
        harmless = plan.effect.kind in (EffectKind.PURE, EffectKind.READ)
        allowed = harmless and plan.ttl_s != 0 and use_cache
        assert agent.runs == allowed
        assert outcome.ok == allowed
        if not allowed:
            assert isinstance(outcome.error, UsageError)
            assert (outcome.attempts, outcome.execute_ns) == (0, 0)
        assert bench.generations.read(("r", "s")) == before
        inner: list[Outcome] = []

        async def outer(call: Call) -> str:
            made = bench.call(plan, parent=call.id)
            inner.append(await bench.path.run(made, job, use_cache=use_cache))
            return "outer"

        agent.runs = 0
        await bench.path.run(bench.call(READ, query="outer", priority=GUESS), Job(outer))
        assert agent.runs == (harmless and not allowed)  # else the result is there
        assert inner[0].ok == harmless
        assert all(call.priority is GUESS for call, _ in bench.seen)

    run(main())


NAMES = st.sampled_from([None, "a", "b"])
CALLERS = st.builds(Caller, NAMES, NAMES, NAMES)


@given(CALLERS, CALLERS, st.sampled_from([None, *ScopeLevel]), st.booleans())
def test_what_is_made_ahead_for_one_is_no_other_ones(
    one: Caller, other: Caller, level: ScopeLevel | None, joins: bool
) -> None:
    """A call ahead of one caller is a hit, or can be joined, only where the scopes are equal.
    (E-97, S2-40)"""

    async def main() -> None:
        bench = Bench()

        async def agent(call: Call) -> str:
            await asyncio.sleep(1)
            return repr(call.scope)

        def call(caller: Caller, priority: Priority) -> Call:
            made = bench.call(READ, priority=priority)
            scope = Scope.of(caller, level)
            return msgspec.structs.replace(made, caller=caller, scope=scope)

        ahead = asyncio.create_task(bench.path.run(call(one, GUESS), Job(agent)))
        await asyncio.sleep(0.5 if joins else 2)
        outcome = await bench.path.run(call(other, Priority.NORMAL), Job(agent))
        same = Scope.of(one, level) == Scope.of(other, level)
        assert outcome.source is (Source.SPECULATED if same else Source.EXECUTED)
        assert outcome.value == repr(Scope.of(other, level))
        assert (await ahead).ok

    run(main())


@pytest.mark.parametrize(
    ("begins", "ends"),
    [(5.0, 5.5), (-1.0, 0.5), (-1.0, 5.0), (0.5, 1.0), (0.5, 5.0), (-1.0, 1.9)],
)
def test_a_write_drops_what_was_made_ahead(begins: float, ends: float) -> None:
    """After a write, be it before, in the course or after the end of a call ahead that it began or
    ended, the same call is executed anew; what runs when the write begins or ends is cancelled.
    (E-97, S2-40)"""

    async def main() -> None:
        bench, agent = Bench(), Counting(2.0)
        loop = asyncio.get_running_loop()
        began = loop.time() + 2

        async def write() -> None:
            await asyncio.sleep(began + begins - loop.time())
            await bench.run(Counting(ends - begins), WRITE)

        async def ahead() -> Outcome:
            await asyncio.sleep(began - loop.time())
            return await guess(bench, Job(agent))

        async with asyncio.TaskGroup() as group:
            group.create_task(write())
            made = group.create_task(ahead())
        after = await bench.run(agent)
        assert (await made).ok == (not 0 < begins < 2 and not 0 < ends < 2)
        assert agent.cancelled == (not (await made).ok)
        assert (after.source, after.value) == (Source.EXECUTED, {"run": 2})

    run(main())


TAGS = st.sampled_from([(), ("r",), ("r", "s"), ("s", "t"), ("node:/a",), ("tree:/a",)])
CHANGES = st.just(UNKNOWN) | TAGS.map(lambda tags: Effect.write(*tags))
LOOKS = st.just(Effect.pure()) | TAGS.map(lambda tags: Effect.read(*tags))


@given(CHANGES, LOOKS, st.booleans())
def test_what_would_have_waited_for_a_change_is_not_there_before_it(
    change: Effect, look: Effect, fails: bool
) -> None:
    """Whatever a call may change, and however it ends: what was made ahead, and would have to wait for
    it in one answer, is made anew after it, and what is being made is cancelled when it begins; all
    else stays. (E-97, P-02, S2-40)"""

    async def main() -> None:
        bench, agent = Bench(), Counting(3.0)
        plan = Plan(look, ttl_s=60)
        await guess(bench, Job(agent), plan, query="made")
        making = asyncio.create_task(guess(bench, Job(agent), plan, query="being made"))
        await asyncio.sleep(1)
        changing = Counting(1.0, [AgentError("half done")] if fails else None)
        change_made = asyncio.create_task(bench.run(changing, Plan(change), query="change"))
        await asyncio.sleep(0.5)
        waits = conflicting(change, look)
        assert agent.cancelled == waits
        assert (await change_made).ok == (not fails)
        assert (await making).ok == (not waits)
        after = await bench.run(agent, plan, query="made")
        assert after.source is (Source.EXECUTED if waits else Source.SPECULATED)

    run(main())


@given(CALLERS, CALLERS, st.sampled_from([None, *ScopeLevel]), st.booleans(), CHANGES)
def test_a_change_drops_what_it_may_have_changed(
    one: Caller, other: Caller, level: ScopeLevel | None, runs: bool, change: Effect
) -> None:
    """Nobody gets what was made ahead before something changed that it may depend on, whoever changed it
    and whoever it was made for. (E-97, P-02, S2-40)"""

    async def main() -> None:
        bench, agent = Bench(), Counting(2.0)

        def call(caller: Caller, plan: Plan, priority: Priority = Priority.NORMAL) -> Call:
            made = bench.call(plan, priority=priority)
            scope = Scope.of(caller, level)
            return msgspec.structs.replace(made, caller=caller, scope=scope)

        look = Plan(Effect.read(), ttl_s=60)
        ahead = asyncio.create_task(bench.path.run(call(one, look, GUESS), Job(agent)))
        await asyncio.sleep(1 if runs else 3)
        await bench.path.run(call(other, Plan(change)), Job(Counting()))
        assert (await ahead).ok == (not runs)
        kept = await bench.path.run(call(one, look), Job(agent))
        assert kept.source is Source.EXECUTED
        found = await bench.path.run(call(other, look), Job(agent))
        assert found.source is not Source.SPECULATED

    run(main())


def test_what_is_unknown_drops_what_nobody_asked_for() -> None:
    """When a call of unknown effect of its session has run, what was made ahead is made anew, and what
    is being made is ended; what somebody has joined goes on, and a call that was refused changes nothing.
    (S2-40, P-02)"""

    async def main() -> None:
        bench, agent = Bench(), Counting(3.0)
        await guess(bench, Job(agent), query="made")
        making = asyncio.create_task(guess(bench, Job(agent), query="being made"))
        joined = asyncio.create_task(guess(bench, Job(agent), query="joined"))
        await asyncio.sleep(1)
        real = asyncio.create_task(bench.run(agent, query="joined"))
        await asyncio.sleep(1)
        await bench.run(Counting(0.5), Plan(), query="unknown")
        assert isinstance((await making).error, CallCancelledError)
        assert (await real).error is None
        assert (await joined).error is None
        ran = agent.runs
        assert (await bench.run(agent, query="made")).source is Source.EXECUTED
        assert agent.runs == ran + 1

    run(main())


def test_a_call_ahead_is_tried_once_and_nothing_else_answers() -> None:
    """A call ahead that fails is not repeated, answered by a stale result or a fallback, nor paid
    for by the budget of retries; a real one after it is as ever. (P-01)"""

    async def main() -> None:
        error = AgentError("gone", category=Category.NETWORK)
        bench = Bench()
        plan = msgspec.structs.replace(READ, stale_if_error_s=1000.0)
        await bench.run(Counting(), plan)
        await asyncio.sleep(100)
        failing = Counting()
        failing.errors += [error] * 99
        budget = vars(bench.attempts)["_budget"]
        while budget.spend():
            pass
        outcome = await guess(bench, Job(failing), plan)
        assert (outcome.error, failing.runs, outcome.instead_of) == (error, 1, None)
        for _ in range(20):
            await guess(bench, Job(failing), plan)
        assert not budget.spend()
        assert (await bench.run(failing, plan)).source is Source.STALE

    run(main())


def test_wrong_guesses_say_nothing_of_who_was_asked() -> None:
    """Calls ahead that fail open no circuit, and one that is half open is not tried by them.
    (P-01, S0-68)"""

    async def main() -> None:
        bench = Bench(attempts=1)
        circuit = Circuit("it", bench.clock, CircuitPolicy(2, 5.0))
        wrong = AgentError("wrong")
        failing = Counting()
        failing.errors += [wrong] * 9
        job = Job(failing, circuit=circuit)
        for n in range(4):
            assert not (await guess(bench, job, query=n)).ok
        assert circuit.closed
        for n in range(2):
            await bench.path.run(bench.call(query=n), job)
        assert circuit.status.state is BreakerState.OPEN
        await asyncio.sleep(6)
        outcome = await guess(bench, job, query="open")
        assert isinstance(outcome.error, OverloadedError)
        assert outcome.error.reason is Shortage.CIRCUIT_OPEN
        assert failing.runs == 6
        failing.errors.clear()
        assert (await bench.path.run(bench.call(query="real"), job)).ok
        assert circuit.closed

    run(main())


def test_what_was_left_undone_ahead_is_nobodys_result() -> None:
    """Where something in the course of a call ahead had to do without what a real one would have
    had, its result is not kept, and who joined it has it executed anew. (S2-40)"""

    async def main() -> None:
        bench = Bench()
        own = Gate("inner", 1, 8)
        inner = Job(Counting(), gate=own)

        async def outer(call: Call) -> str:
            around = current_call.get()
            assert around is not None
            made = bench.call(query="inner", parent=around.id, priority=call.priority)
            found = await bench.path.run(made, inner)
            await asyncio.sleep(2)
            return "whole" if found.ok else "in part"

        await own.enter()
        ahead = asyncio.create_task(guess(bench, Job(outer)))
        await asyncio.sleep(1)
        own.leave()
        joined = await bench.run(outer)
        assert (await ahead).value == "in part"
        assert (joined.value, joined.source) == ("whole", Source.EXECUTED)
        bench.cache.clear()
        await own.enter()
        assert (await guess(bench, Job(outer), query="late")).value == "in part"
        own.leave()
        later = await bench.run(outer, query="late")
        assert (later.value, later.source) == ("whole", Source.EXECUTED)
        await bench.path.close()

    run(main())


def test_parts_of_a_call_ahead_go_with_it() -> None:
    """What is called in the course of a call ahead is ahead too: where its place is needed the whole
    is cancelled, but not once somebody has asked for the whole. (P-01)"""

    async def main() -> None:
        for joins in (False, True):
            bench, agent = Bench(), Counting(5.0)
            own = Gate("inner", 1, 8)

            async def outer(
                call: Call, bench: Bench = bench, own: Gate = own, agent: Counting = agent
            ) -> object:
                made = bench.call(query="inner", parent=call.id)
                return (await bench.path.run(made, Job(agent, gate=own))).unwrap()

            ahead = asyncio.create_task(guess(bench, Job(outer)))
            await asyncio.sleep(1)
            part = None
            if joins:
                part = asyncio.create_task(bench.run(outer))
            await asyncio.sleep(0)
            other = await bench.path.run(bench.call(query="other"), Job(agent, gate=own))
            assert other.queue_ns == (4 * S if joins else 0)
            assert (await ahead).ok == joins
            if part is not None:
                assert (await part).source is Source.SPECULATED
            assert (own.free, bench.gate.free) == (1, 8)

    run(main())


def test_it_does_not_join_what_somebody_asked_for() -> None:
    """A call ahead of what runs already ends at once, and does not keep that going when its caller
    leaves. (P-01)"""

    async def main() -> None:
        bench, agent = Bench(), Counting(5.0)
        real = asyncio.create_task(bench.run(agent))
        await asyncio.sleep(1)
        outcome = await guess(bench, Job(agent))
        assert isinstance(outcome.error, CallCancelledError)
        assert outcome.total_ns == 0
        real.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await real
        assert agent.cancelled == 1

    run(main())


async def _removed(bench: Bench, agent: Counting, call: Call) -> None:
    bench.identity.forget(agent_tag("agent"))


async def _cleared(bench: Bench, agent: Counting, call: Call) -> None:
    bench.cache.clear()


async def _expired(bench: Bench, agent: Counting, call: Call) -> None:
    await asyncio.sleep(61)


async def _evicted(bench: Bench, agent: Counting, call: Call) -> None:
    for n in range(100):
        await bench.run(agent, query=("other", n))


async def _replaced(bench: Bench, agent: Counting, call: Call) -> None:
    identified = bench.identity.of(call, "")
    assert identified is not None
    bench.cache.put(identified.key, "by another process", 60)


@pytest.mark.parametrize("happens", [_removed, _cleared, _expired, _evicted, _replaced])
def test_what_is_gone_is_not_used(
    happens: Callable[[Bench, Counting, Call], Awaitable[None]],
) -> None:
    """Once a result that was made ahead was removed, has expired, had to make room or was replaced,
    no outcome says that it came from speculation. (S2-40)"""

    async def main() -> None:
        bench, agent = Bench(), Counting(1.0)
        await guess(bench, Job(agent))
        await happens(bench, agent, bench.call())
        sources = [(await bench.run(agent)).source for _ in range(2)]
        assert Source.SPECULATED not in sources
        assert not vars(bench.path)["_made_ahead"] or happens is _removed  # whose key is another
        for priority in (GUESS, Priority.NORMAL):
            await guess(bench, Job(agent), query="fails")
            bench.cache.clear()
            agent.errors.append(AgentError("fails"))
            await bench.run(agent, query="fails", priority=priority)
            assert len(vars(bench.path)["_made_ahead"]) == (happens is _removed)

    run(main())


def test_no_more_than_so_many_are_remembered() -> None:
    """Of more keys than there is room for the oldest are dropped, as no change could drop them later,
    but for what no change touches. (S2-40)"""

    async def main() -> None:
        bench = Bench()
        ahead = Ahead(bench.cache, bench.clock.monotonic_ns, most=3)
        vars(bench.path).update(_ahead=ahead, _made_ahead=ahead.made)
        bench.path._keeping._ahead = ahead
        for n in range(5):
            await guess(bench, Job(Counting()), query=n)
        sources = [(await bench.run(Counting(), query=n)).source for n in range(5)]
        assert sources == [Source.EXECUTED] * 2 + [Source.SPECULATED] * 3
        assert not ahead.made
        pure = Plan(Effect.pure(), ttl_s=60)
        for n in range(4):
            await guess(bench, Job(Counting()), pure, query=n)
        assert (await bench.run(Counting(), pure, query=0)).source is Source.HOT

    run(main())


MOMENTS = st.integers(0, 30).map(lambda tenths: tenths / 10)
REAL = st.lists(st.tuples(MOMENTS, st.integers(0, 5)), max_size=8, unique_by=lambda one: one[0])
AHEAD = st.lists(st.tuples(MOMENTS.map(lambda at_s: at_s + 0.037), st.integers(0, 5)), max_size=8)


@given(REAL, AHEAD, st.integers(1, 3))
def test_nobody_is_later_or_told_anything_else_for_it(
    real: Sequence[tuple[float, int]], ahead: Sequence[tuple[float, int]], capacity: int
) -> None:
    """Whatever is run ahead and when, each real call gets the same value as without, and no later.
    (E-97, P-01)"""
    takes = {query: 0.5113 + query for query in range(6)}

    async def outcomes(guesses: Sequence[tuple[float, int]]) -> list[Outcome]:
        bench = Bench(capacity=capacity, queue=99)

        async def agent(call: Call) -> object:
            query = call.arguments["query"]
            assert isinstance(query, int)
            await asyncio.sleep(takes[query])
            return [query]

        async def one(at_s: float, query: int, priority: Priority) -> Outcome:
            await asyncio.sleep(at_s)
            return await bench.run(agent, query=query, priority=priority)

        asked = [one(at_s, query, Priority.NORMAL) for at_s, query in real]
        guessed = [one(at_s, query, GUESS) for at_s, query in guesses]
        found = await asyncio.gather(*asked, *guessed)
        assert (bench.gate.free, bench.gate.waiting, len(bench.gate.guests)) == (capacity, 0, 0)
        assert vars(bench.path)["_ahead"].running == 0
        return found[: len(real)]

    async def main() -> None:
        without, with_it = await outcomes([]), await outcomes(ahead)
        for one, other in itertools.zip_longest(without, with_it):
            assert (one.value, one.ok) == (other.value, other.ok)
            assert other.total_ns <= one.total_ns

    run(main())


def test_kinds_are_told_apart() -> None:
    """Tools and models are treated as agents are. (S2-40)"""

    async def main() -> None:
        bench, agent = Bench(), Counting()
        for kind in Kind:
            made = msgspec.structs.replace(bench.call(priority=GUESS), kind=kind)
            assert (await bench.path.run(made, Job(agent))).ok
            real = msgspec.structs.replace(bench.call(), kind=kind)
            assert (await bench.path.run(real, Job(agent))).source is Source.SPECULATED

    run(main())


def test_instances_are_not_waited_for_nor_tried_twice() -> None:
    """A call ahead is refused where no instance is free now, and gets no second instance when the
    first is slow. (P-01)"""
    a, b = Far("a", 0.1), Far("b", 0.1)

    async def steps(runtime: Runtime) -> None:
        for number in range(30):
            await runtime.run("far", f"warm {number}")
        a.takes_s = b.takes_s = 50
        before = len(a.calls) + len(b.calls)
        ahead = [asyncio.create_task(runtime.run("far", "g0", priority=GUESS))]
        await asyncio.sleep(5)
        assert len(a.calls) + len(b.calls) == before + 1
        ahead.append(asyncio.create_task(runtime.run("far", "g1", priority=GUESS)))
        await asyncio.sleep(5)
        refused = await runtime.run("far", "g9", priority=GUESS)
        assert isinstance(refused.error, OverloadedError)
        assert (refused.error.reason, refused.total_ns) == (Shortage.SPECULATIVE, 0)
        assert [outcome.ok for outcome in await asyncio.gather(*ahead)] == [True, True]

    in_runtime(steps, a, b, capacity=1, fleet={"hedge": True})


@pytest.mark.parametrize("queue", [0, 9])
def test_instances_are_given_up_for_who_waits(queue: int) -> None:
    """Where all instances are in use, the youngest call ahead gives its instance to who would have to
    wait, also where nobody may wait, and that says nothing of the instance. (P-01, S2-36)"""
    a, b = Far("a", 9), Far("b", 9)

    async def steps(runtime: Runtime) -> None:
        ahead = [asyncio.create_task(runtime.run("far", f"g{n}", priority=GUESS)) for n in range(2)]
        await asyncio.sleep(1)
        real = await runtime.run("far", "real")
        assert (real.ok, real.total_ns) == (True, 9 * S)
        first, second = await asyncio.gather(*ahead)
        assert first.ok
        assert isinstance(second.error, CallCancelledError)
        assert a.cancelled + b.cancelled == 1
        assert all(one.in_flight == 0 for one in runtime.balancer.instances["far"])

    in_runtime(steps, a, b, capacity=1, run={"max_queue": queue})


def test_an_instance_is_not_tried_by_what_nobody_asked_for() -> None:
    """Failures of calls ahead open no circuit of an instance; while one is half open only a real
    call tries it. (P-01, S0-68)"""
    a = Far("a", 0.0, DOWN)

    async def steps(runtime: Runtime) -> None:
        for n in range(20):
            assert not (await runtime.run("far", f"g{n}", priority=GUESS)).ok
        assert len(a.calls) == 20
        for n in range(9):
            await runtime.run("far", f"r{n}", timeout=0.5)
        tried = len(a.calls)
        a.error = None
        await asyncio.sleep(200)
        refused = await runtime.run("far", "g", priority=GUESS)
        assert isinstance(refused.error, OverloadedError)
        assert len(a.calls) == tried
        assert (await runtime.run("far", "r")).ok
        assert (await runtime.run("far", "g", priority=GUESS)).ok

    in_runtime(steps, a)


def test_figures_count_its_money_and_nothing_else(tmp_path: Path) -> None:
    """Calls ahead are in no count, rate or percentile, live or from the history, and what they cost
    is in the sums; a hit on them is a call from speculation. (S2-40)"""

    async def main() -> None:
        settings = load(overrides=QUIET)
        async with Runtime(settings, agents=[], home=tmp_path, environ={}) as runtime:

            @runtime.agent(effect="read", cost_usd=0.5)
            async def priced(query: str) -> str:
                if query == "fails":
                    raise ValueError(query)
                return query

            for query in ("used", "unused", "fails"):
                await runtime.run("priced", query, priority=GUESS)
            used = await runtime.run("priced", "used")
            assert used.source is Source.SPECULATED
            _check(runtime.metrics)
        reader = SqliteReader(Home(tmp_path).history)
        _check(replay(reader))
        records = reader.query()
        assert [one.asked for one in records] == [True, False, False, False]
        assert [one.speculated for one in records] == [False, True, True, True]
        assert reader.query(errors_only=True) == []
        assert records[0].link == records[3].id
        reuse = Reuse()
        reader.fold(reuse)
        assert (reuse.calls, reuse.executed) == (1, 0)
        board, now_ns = Board("1h"), records[0].at_ns
        board.add(records, now_ns)
        row = board.look(now_ns, Sort.CALLS).total
        assert (row.calls, row.cost_usd) == (1, 1.5)

    asyncio.run(main())


def _check(metrics: MetricsCollector) -> None:
    figures = metrics.snapshot().agents["priced"].ever
    assert (figures.calls, figures.errors, figures.hits) == (1, 0, 1)
    assert figures.by_source == {Source.SPECULATED: 1}
    assert figures.fresh.count == 0
    assert figures.usage.cost_usd == 1.5
