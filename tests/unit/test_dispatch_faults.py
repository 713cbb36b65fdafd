"""What went wrong once where instances meet the call path, in virtual time."""

import asyncio
from typing import Any, Literal

import pytest

from paceline import AgentInstance, Outcome, Runtime
from paceline.balance.rate import Rates
from paceline.balance.request import Request
from paceline.balance.strategy import Strategy
from paceline.call import Call, Source
from paceline.config import load
from paceline.errors import (
    AgentError,
    BudgetExceededError,
    CallCancelledError,
    CallTimeoutError,
    Category,
    OverloadedError,
    Shortage,
    UsageError,
)
from paceline.fleets import Fleets
from paceline.testing.virtual_time import VirtualClock
from paceline.testing.virtual_time import run as run_virtual
from paceline.usage import report_usage
from tests.unit.far import DOWN, QUIET, Far, far_runtime, in_runtime, many


def refusing(category: Category) -> AgentError:
    """The error of an instance that does not take the work, and says why."""
    return AgentError("refused", category=category)


async def warm(runtime: Runtime, count: int = 30) -> None:
    """So many calls, one after the other."""
    for number in range(count):
        (await runtime.run("far", f"warm {number}", use_cache=False)).unwrap()


def chosen(runtime: Runtime, *far: Far) -> Far:
    """Where the next call goes."""
    return next(one for one in far if one.name == runtime.balancer.select("far").id)


def asks(runtime: Runtime, name: str, *, of: str) -> None:
    """Registers an agent that answers with what another one does."""

    @runtime.agent(name, effect="read", cache_ttl=300)
    async def _(query: str) -> str:
        return f"{name}: {(await runtime.run(of, query)).unwrap()}"


# -- where a call goes that one instance does not take -------------------------------------------


@pytest.mark.parametrize("category", [Category.AUTHENTICATION, Category.EXHAUSTED])
def test_bad_credentials_close_one_instance_and_cost_no_answer(category: Category) -> None:
    """An instance whose token or credit fails is left alone after seven calls, each of which is
    answered by another instance at once. (S0-68, S0-81, V-26)"""
    bad, good = Far("bad", error=refusing(category)), Far("good", 1)

    async def steps(runtime: Runtime) -> None:
        loop = asyncio.get_running_loop()
        for _ in range(4):
            began = loop.time()
            outcomes = await many(runtime, 6, use_cache=False)
            assert {outcome.instance for outcome in outcomes} == {"good"}
            assert all(outcome.ok for outcome in outcomes)
            assert loop.time() - began == pytest.approx(1)
        instances = {one.id: one for one in runtime.balancer.instances["far"]}
        assert instances["bad"].shortage is Shortage.CIRCUIT_OPEN

    in_runtime(steps, bad, good)
    assert 0 < len(bad.calls) <= 7 + 6


@pytest.mark.parametrize(
    "category", [Category.AUTHENTICATION, Category.EXHAUSTED, Category.NOT_FOUND]
)
def test_a_write_that_was_not_begun_goes_elsewhere(category: Category) -> None:
    """Whatever a call does, an instance that did not begin it for a reason of its own is no reason
    to fail while there is another. (S0-81, S1-19)"""
    far = [Far(name, error=refusing(category)) for name in "abc"]
    far[2].error = None

    async def steps(runtime: Runtime) -> None:
        for number in range(6):
            outcome = await runtime.run("far", f"q{number}")
            assert (outcome.instance, outcome.ok) == ("c", True)

    in_runtime(steps, *far, effect="write")


def test_a_refusal_of_all_instances_is_an_error_at_once() -> None:
    """Each instance is asked once for a call that none of them knows. (S0-81, S1-19)"""
    far = [Far(name, error=refusing(Category.NOT_FOUND)) for name in "abc"]

    async def steps(runtime: Runtime) -> None:
        outcome = await runtime.run("far", "q")
        assert outcome.error is not None
        assert outcome.error.category is Category.NOT_FOUND
        assert outcome.attempts == 3

    in_runtime(steps, *far)
    assert [len(one.calls) for one in far] == [1, 1, 1]


def test_what_may_have_begun_stays_where_it_was() -> None:
    """A write that an instance may have begun is given to no other, whatever it failed with.
    (S1-19)"""
    begun = AgentError("refused", category=Category.EXHAUSTED, may_have_started=True)
    a, b = Far("a", error=begun), Far("b", error=begun)

    async def steps(runtime: Runtime) -> None:
        assert (await runtime.run("far", "q")).error is begun

    in_runtime(steps, a, b, effect="write")
    assert len(a.calls) + len(b.calls) == 1


# -- stand-ins ----------------------------------------------------------------------------------


def test_a_stand_in_uses_the_places_of_its_caller() -> None:
    """When an instance goes down under as many calls as the runtime takes, the stand-in of each is
    run in the place of the agent that called, and none waits for another. (S0-64, S0-81)"""
    a = Far("a", error=refusing(Category.UNAVAILABLE))

    async def steps(runtime: Runtime) -> None:
        asks(runtime, "outer", of="far")
        outcomes = await asyncio.gather(
            *[runtime.run("outer", f"q{n}", timeout=5) for n in range(2)]
        )
        assert [outcome.unwrap() for outcome in outcomes] == [
            "outer: small of q0",
            "outer: small of q1",
        ]

    in_runtime(
        steps,
        a,
        others=("small",),
        fleet={"fallback": ["agent small"]},
        run={"max_concurrency": 2, "max_attempts": 1},
    )


def test_what_is_made_of_a_stand_in_is_not_kept() -> None:
    """What agents make of a fallback's answer is made anew by the next call, at every level and
    also where calls had joined. (S0-81)"""
    a = Far("a", 1, DOWN)

    async def steps(runtime: Runtime) -> None:
        asks(runtime, "report", of="far")
        asks(runtime, "left", of="report")
        asks(runtime, "right", of="report")
        both = [runtime.run(name, "q") for name in ("left", "right")]
        for outcome in await asyncio.gather(*both):
            assert outcome.unwrap() == f"{outcome.name}: report: Nobody is there."
        assert len(a.calls) == 3  # that of one, tried three times
        a.error = None
        for name in ("right", "left", "report"):
            outcome = await runtime.run(name, "q")
            assert str(outcome.unwrap()).endswith("a of q")
        assert (await runtime.run("left", "q")).source is not Source.EXECUTED

    in_runtime(steps, a, fleet={"fallback": ["text Nobody is there."]})


def test_two_who_wait_for_one_failure_keep_nothing_of_its_stand_in() -> None:
    """Calls that joined one execution that failed each get the fallback's answer, and what is made
    of it is not kept. (S0-81)"""
    a = Far("a", 1, DOWN)

    async def steps(runtime: Runtime) -> None:
        asks(runtime, "left", of="far")
        asks(runtime, "right", of="far")
        both = [runtime.run(name, "q") for name in ("left", "right")]
        outcomes = await asyncio.gather(*both)
        assert [o.unwrap() for o in outcomes] == [
            "left: Nobody is there.",
            "right: Nobody is there.",
        ]
        a.error = None
        for name in ("left", "right"):
            assert (await runtime.run(name, "q")).unwrap() == f"{name}: a of q"

    in_runtime(steps, a, fleet={"fallback": ["text Nobody is there."]})


# -- limits -------------------------------------------------------------------------------------


def test_a_rare_long_read_is_stopped_once_only() -> None:
    """A read that takes long by nature is stopped at the learnt limit the first time, and then has
    all the time of its agent. (S1-20)"""
    a, b = Far("a", 0.1), Far("b", 0.1)

    async def steps(runtime: Runtime) -> None:
        loop = asyncio.get_running_loop()
        await warm(runtime)
        for number in range(2):
            a.takes_s = b.takes_s = 20
            began = loop.time()
            outcome = await runtime.run("far", f"long {number}")
            assert (outcome.ok, outcome.attempts) == (True, 2)
            assert 21 <= loop.time() - began < 23
            a.takes_s = b.takes_s = 0.1
            await warm(runtime, 130)  # so that only one of them is known

    in_runtime(steps, a, b, balance={"circuit_failures": 0})


def test_no_limit_is_longer_than_that_of_the_agent() -> None:
    """The floor of learnt limits does not lengthen the limit that an agent declares. (S1-20)"""
    a = Far("a", 0.01)

    async def steps(runtime: Runtime) -> None:
        loop = asyncio.get_running_loop()

        @runtime.agent("far", effect="read", timeout=0.2)
        async def _(query: str) -> str:
            return query

        await warm(runtime)
        a.takes_s = 50
        began = loop.time()
        outcome = await runtime.run("far", "q")
        assert isinstance(outcome.error, CallTimeoutError)
        assert loop.time() - began == pytest.approx(0.2)

    in_runtime(steps, a, run={"max_attempts": 1})


# -- hedges -------------------------------------------------------------------------------------


@pytest.mark.parametrize("alike", [True, False])
def test_a_hedge_goes_to_another_that_can_or_nowhere(
    monkeypatch: pytest.MonkeyPatch,
    alike: bool,
) -> None:
    """A slow read is asked a second time at an instance that has what is needed, and where there
    is none it is asked once. (S0-68)"""
    far = {"big": Far("big", 0.1), "other": Far("other", 0.1)}
    windows = {"big": 200_000, "other": 200_000 if alike else 4_096}
    monkeypatch.setattr(Fleets, "_target", lambda _, wanted, rates: far[wanted.id])
    instances = [
        {"kind": "openai", "id": id_, "url": "http://far/v1", "model": "m", "context_window": size}
        for id_, size in windows.items()
    ]

    async def steps(runtime: Runtime) -> None:
        await warm(runtime, 40)
        for one in far.values():
            one.calls.clear()
            one.takes_s = 0.9
        assert (await runtime.run("far", "long " * 20_000)).attempts == 1

    in_runtime(steps, fleet={"hedge": True, "strategy": "least_loaded", "instances": instances})
    assert sorted(len(one.calls) for one in far.values()) == ([1, 1] if alike else [0, 1])


def test_a_hedge_is_one_of_those_the_agent_may_run_at_once() -> None:
    """An agent with `max_concurrency` is at no moment at more instances than that. (S0-64,
    S0-68)"""
    a, b = Far("a", 0.1), Far("b", 0.1)

    async def steps(runtime: Runtime) -> None:
        @runtime.agent("far", effect="read", max_concurrency=1)
        async def _(query: str) -> str:
            return query

        await warm(runtime)
        a.takes_s = b.takes_s = 0.9
        await runtime.run("far", "q")

    in_runtime(steps, a, b, fleet={"hedge": True})
    assert len(a.calls) + len(b.calls) == 31


def test_a_hedge_gives_its_place_in_the_agents_limit_back() -> None:
    """After a hedge as many calls run at once as before. (S0-64, S0-68)"""
    a, b = Far("a", 0.1), Far("b", 0.1)

    async def steps(runtime: Runtime) -> None:
        @runtime.agent("far", effect="read", max_concurrency=2)
        async def _(query: str) -> str:
            return query

        await warm(runtime)
        for number in range(4):
            chosen(runtime, a, b).takes_s = 0.9
            assert (await runtime.run("far", f"q{number}")).ok
            a.takes_s = b.takes_s = 0.1
        loop = asyncio.get_running_loop()
        began = loop.time()
        await many(runtime, 2, use_cache=False)
        assert loop.time() - began == pytest.approx(0.1)

    in_runtime(steps, a, b, fleet={"hedge": True})
    assert len(a.calls) + len(b.calls) == 30 + 2 * 4 + 2


class Shut:
    """A guard that is open to look at, and lets nobody in."""

    reason: Shortage = Shortage.RATE_LIMIT

    def __init__(self) -> None:
        self.shut = False

    def opens_ns(self) -> int:
        return 0

    def admit(self, request: Request) -> object | None:
        return None if self.shut else self

    def ended(self, permit: object, lease: object) -> None:
        pass


def test_a_hedge_that_nobody_takes_costs_no_budget() -> None:
    """Second requests that found no instance are not among those that the budget allows.
    (S0-68)"""
    a, b, guard = Far("a", 0.1), Far("b", 0.1), Shut()

    async def steps(runtime: Runtime) -> None:
        await runtime.add_instance(AgentInstance("b", "far", target=b, guards=(guard,)))
        await warm(runtime)
        guard.shut, a.takes_s = True, 50
        for number in range(12):
            task = asyncio.create_task(runtime.run("far", f"given up {number}"))
            await asyncio.sleep(0.5)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        before = len(a.calls) + len(b.calls)
        guard.shut, a.takes_s = False, 0.1
        chosen(runtime, a, b).takes_s = 50
        assert (await runtime.run("far", "q")).attempts == 1
        assert len(a.calls) + len(b.calls) == before + 2

    in_runtime(steps, a, fleet={"hedge": True})


# -- what is not sent uses nothing --------------------------------------------------------------


class Paid(Far):
    """One whose work is paid for by the token."""

    async def execute(self, call: Call, lease: Any) -> object:
        report_usage("m", input=100)
        return await super().execute(call, lease)


def test_calls_over_their_budget_use_no_instance_and_no_rate() -> None:
    """Calls that a budget refuses leave the rate limit of the instances to others. (S0-64)"""
    a = Paid("a")

    async def steps(runtime: Runtime) -> None:
        rates = Rates(runtime._clock, requests=20)
        await runtime.add_instance(AgentInstance("a", "far", target=a, guards=(rates,)))
        await runtime.run("far", "q", user="alice")
        for number in range(30):
            outcome = await runtime.run("far", f"q{number}", user="alice")
            assert isinstance(outcome.error, BudgetExceededError)
        outcome = await runtime.run("far", "q", user="bob", timeout=1)
        assert outcome.ok
        assert outcome.queue_ns == 0

    budget = {"limit_tokens": 100, "per": "user"}
    in_runtime(steps, budgets={"each": budget}, run={"max_attempts": 1})
    assert len(a.calls) == 2


class Closing(Far):
    """One that fails what it does when it is closed, and takes its time for it."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.closed = asyncio.Event()
        self.sent_late = 0

    async def __aexit__(self, *_: object) -> None:
        self.closed.set()
        await asyncio.sleep(0.5)

    async def execute(self, call: Call, lease: Any) -> object:
        self.calls.append(call)
        self.sent_late += self.closed.is_set()
        await self.closed.wait()
        raise refusing(Category.UNAVAILABLE)


@pytest.mark.parametrize("effect", ["read", "write"])
def test_closing_cancels_calls_before_it_closes_instances(effect: Literal["read", "write"]) -> None:
    """Calls that still run or wait when the runtime is closed end with CallCancelledError, without
    a fallback, and nothing is sent to an instance that is closed. (S0-64)"""

    async def main() -> None:
        a = Closing("a")
        calls: list[asyncio.Task[Outcome]] = []
        async with far_runtime(
            a,
            capacity=1,
            effect=effect,
            fleet={"fallback": ["text Nobody is there."]},
            run={"drain_s": 1},
        ) as runtime:
            calls += [asyncio.create_task(runtime.run("far", f"q{n}")) for n in range(4)]
            await asyncio.sleep(1)
        for outcome in await asyncio.gather(*calls):
            assert isinstance(outcome.error, CallCancelledError)
        assert (len(a.calls), a.sent_late) == (1, 0)

    run_virtual(main())


# -- instances of this process ------------------------------------------------------------------

LOCAL: dict[str, Any] = {"instances": [{"kind": "local", "capacity": 1}]}


def test_a_local_instance_runs_the_code_of_the_call() -> None:
    """A call that waits for a local instance over a reload runs the code it was made for, and its
    result is kept as one of that code. (S0-60)"""

    async def steps(runtime: Runtime) -> None:
        def load_code(version: str) -> None:
            @runtime.agent("far", effect="read", version=version, cache_ttl=600)
            async def _(query: str) -> str:
                await asyncio.sleep(1)
                return f"code {version} of {query}"

        load_code("1")
        calls = [asyncio.create_task(runtime.run("far", query)) for query in "ab"]
        await asyncio.sleep(0.5)
        load_code("2")
        assert [(await call).unwrap() for call in calls] == ["code 1 of a", "code 1 of b"]
        assert (await runtime.run("far", "b")).unwrap() == "code 2 of b"
        load_code("1")
        assert (await runtime.run("far", "b")).unwrap() == "code 1 of b"

    in_runtime(steps, fleet=LOCAL)


def test_an_agent_that_fills_its_own_fleet_is_told_at_once() -> None:
    """An agent that calls itself while all its instances are in use does not wait for itself: the
    inner call ends at once with what to do. (S0-60, S0-64)"""

    async def steps(runtime: Runtime) -> None:
        @runtime.agent("far", effect="unknown")
        async def _(query: str) -> object:
            return (await runtime.run("far", f"{query}!")).unwrap()

        loop = asyncio.get_running_loop()
        began = loop.time()
        outcome = await runtime.run("far", "q")
        assert isinstance(outcome.error, OverloadedError)
        assert "calls itself" in str(outcome.error)
        assert "capacity" in outcome.error.next_step
        assert loop.time() == began

    in_runtime(steps, fleet=LOCAL)


# -- registering --------------------------------------------------------------------------------


def test_an_instance_that_is_added_is_as_its_fleet_is_configured() -> None:
    """`add_instance` heeds the strategy and the concurrency that the settings have for the agent.
    (S0-60)"""
    a = Far("a", error=refusing(Category.RATE_LIMIT))

    async def steps(runtime: Runtime) -> None:
        assert runtime.balancer.status("far").strategy == "random"
        await runtime.run("far", "q")
        (instance,) = runtime.balancer.instances["far"]
        assert instance.limit < 10

    in_runtime(steps, a, fleet={"strategy": "random", "concurrency": "aimd"})


def test_registering_again_keeps_what_is_known() -> None:
    """An instance that is added again, as a registry's heartbeat does, stays out while its circuit
    is open. (S0-68, V-26)"""
    a = Far("a", error=DOWN)

    async def steps(runtime: Runtime) -> None:
        for number in range(7):
            await runtime.run("far", f"q{number}")
        await runtime.add_instance(AgentInstance("a", "far", target=a))
        outcome = await runtime.run("far", "q", timeout=1)
        assert isinstance(outcome.error, OverloadedError)
        assert outcome.error.reason is Shortage.CIRCUIT_OPEN
        assert len(a.calls) == 7

    in_runtime(steps, a, run={"max_attempts": 1})


def test_instances_that_are_gone_do_not_count() -> None:
    """Instances that were unregistered neither make others outliers nor add to how many may be
    ejected. (S0-68)"""
    gone = [Far(f"gone {number}") for number in range(6)]
    far = [Far("a"), Far("b", error=DOWN), Far("c", error=DOWN)]

    async def steps(runtime: Runtime) -> None:
        runtime.balancer.set_strategy("far", "round_robin")
        for _ in range(25):
            await many(runtime, len(gone), use_cache=False)
        for one in gone:
            runtime.balancer.unregister("far", one.name)
        for one in far:
            await runtime.add_instance(AgentInstance(one.name, "far", target=one))
        for _ in range(40):
            await many(runtime, len(far), use_cache=False)
        ejected = [one.id for one in runtime.balancer.instances["far"] if one.ejected]
        assert ejected == []  # of two that fail and one that does not, nobody knows who is odd

    run, balance = {"max_attempts": 1}, {"circuit_failures": 0}
    in_runtime(steps, *gone, run=run, balance=balance)


def test_an_instance_without_a_target_is_refused() -> None:
    """An instance that has nothing to do the work cannot be added, and the error says what it
    lacks. (S0-60)"""

    async def steps(runtime: Runtime) -> None:
        with pytest.raises(UsageError, match="no target") as refused:
            await runtime.add_instance(AgentInstance("a", "far"))
        assert "target=" in refused.value.next_step
        with pytest.raises(UsageError, match="of type str") as refused:
            await runtime.add_instance(AgentInstance("a", "far", target="http://far"))
        assert "HttpAgent(" in refused.value.next_step
        assert (await runtime.run("far", "q")).unwrap() == "the module of q"

    in_runtime(steps)


def test_an_instance_that_cannot_be_costs_itself_alone() -> None:
    """An instance whose token is not set, or stands where the name of its variable belongs, is left
    out and told of, without the token; all else goes on. (S0-60, S0-81)"""
    token = "sk-live-abcdef1234567890"
    one: dict[str, Any] = {"url": "http://127.0.0.1:1/run"}
    fleet = {"instances": [{**one, "token_env": "NOT_SET"}, {**one, "token_env": token}]}

    async def steps(runtime: Runtime) -> None:
        assert (await runtime.run("other", "q")).ok
        assert (await runtime.run("far", "q")).unwrap() == "the module of q"
        notices = "\n".join(runtime.notices)
        assert "http-1 of fleets.far: the environment variable NOT_SET is not set" in notices
        assert "http-2 of fleets.far: its token_env is not the name of" in notices
        assert token not in notices

    in_runtime(steps, fleet=fleet, others=("other",))


def test_no_instance_tells_the_secrets_of_another() -> None:
    """The token of one instance that another repeats in its error is in no message. (E94)"""
    error = AgentError("answered 500: boom sekret-tok-123456", category=Category.INVALID)
    stated = {"kind": "http", "url": "http://127.0.0.1:1/run", "token_env": "OKTOK", "weight": 0}

    async def main() -> None:
        settings = load(overrides={**QUIET, "fleets": {"far": {"instances": [stated]}}})
        runtime = Runtime(
            settings,
            agents=[],
            persist=False,
            environ={"OKTOK": "sekret-tok-123456"},
            clock=VirtualClock(),
        )
        async with runtime:
            await runtime.add_instance(AgentInstance("a", "far", target=Far("a", error=error)))
            outcome = await runtime.run("far", "q")
            assert str(outcome.error) == "answered 500: boom [redacted]"

    run_virtual(main())


def test_a_strategy_has_to_be_one() -> None:
    """A class, or anything else that is no strategy, is refused with what to give. (S0-83)"""

    async def steps(runtime: Runtime) -> None:
        with pytest.raises(UsageError, match="neither the name of a strategy") as refused:
            runtime.balancer.set_strategy("far", Strategy)  # type: ignore[arg-type]
        assert "object of the class" in refused.value.next_step

    in_runtime(steps, Far("a"))


def test_a_fleet_that_lost_its_last_instance_says_so() -> None:
    """Calls that were made for instances that have all been unregistered are told that, not that
    none has what they need. (S0-60)"""

    async def steps(runtime: Runtime) -> None:
        assert (await runtime.run("far", "q")).ok
        runtime.balancer.unregister("far", "a")
        error = (await runtime.run("far", "r")).error
        assert isinstance(error, OverloadedError)
        assert str(error) == "far has no instance any more"
        assert "Register" in error.next_step

    in_runtime(steps, Far("a"))


def test_what_the_settings_name_and_nobody_has_is_noticed_at_the_start() -> None:
    """A local instance without a module to run, and a fallback to an agent that does not exist,
    are notices of the opened runtime; agents that are there, or are nothing but their instances,
    are none. (S0-60, S0-81)"""
    fleets = {
        "here": LOCAL,
        "away": LOCAL,
        "far": {"fallback": ["agent away", "agent here", "agent nobody", "stale"]},
    }

    async def main() -> None:
        settings = load(overrides={**QUIET, "fleets": fleets})
        runtime = Runtime(settings, agents=[], persist=False, environ={}, clock=VirtualClock())

        @runtime.agent("here")
        async def _(query: str) -> str:
            return query

        async with runtime:
            local, fallback = runtime.notices
            assert local.startswith("fleets.away: it has a local instance")
            assert "no agent away" in local
            assert fallback.startswith('fleets.far: its fallback is "agent nobody"')
            assert "register the agent" in fallback

    run_virtual(main())


# -- callers without patience -------------------------------------------------------------------


@pytest.mark.parametrize("first", [0, 30])
def test_callers_without_patience_do_not_take_an_instance_from_others(first: int) -> None:
    """Callers who leave less time than the work may well take close no instance, neither before
    anything is known of it nor after. (S0-68, V-26)"""
    a = Far("a", 0.5)

    async def steps(runtime: Runtime) -> None:
        await warm(runtime, first)
        for number in range(8):
            outcome = await runtime.run("far", f"q{number}", user="eve", timeout=0.01)
            assert isinstance(outcome.error, CallTimeoutError)
        assert (await runtime.run("far", "q", user="bob", timeout=3)).ok
        (instance,) = runtime.balancer.instances["far"]
        assert instance.error_rate == 0

    in_runtime(steps, a)


def test_slow_work_of_callers_without_patience_is_no_failure() -> None:
    """Work that is slower than usual by less than chance makes it is not held against an instance
    because its callers left. (S0-68)"""
    a = Far("a", 0.1)

    async def steps(runtime: Runtime) -> None:
        await warm(runtime)
        a.takes_s = 5
        for number in range(8):
            await runtime.run("far", f"q{number}", user="eve", timeout=0.2)
        a.takes_s = 0.1
        assert (await runtime.run("far", "q", user="bob", timeout=3)).ok

    in_runtime(steps, a)


@pytest.mark.parametrize("first", [0, 30])
def test_an_instance_that_hangs_is_found_out(first: int) -> None:
    """An instance that answers nobody for longer than anything took before is left alone after
    seven callers, though none of them waited for an end. (S0-68, V-26)"""
    a = Far("a", 0.1)

    async def steps(runtime: Runtime) -> None:
        await warm(runtime, first)
        a.takes_s = 1e6
        for number in range(7):
            outcome = await runtime.run("far", f"q{number}", timeout=2)
            assert isinstance(outcome.error, CallTimeoutError)
        outcome = await runtime.run("far", "q", timeout=2)
        assert isinstance(outcome.error, OverloadedError)
        assert outcome.error.reason is Shortage.CIRCUIT_OPEN

    in_runtime(steps, a, run={"max_attempts": 1})
