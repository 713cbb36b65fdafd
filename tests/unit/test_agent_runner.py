"""Running an agent for a call."""

import asyncio
import gc
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from paceline.agents import runner as runner_module
from paceline.agents.module import function_spec, read_spec
from paceline.agents.registry import AgentRegistry
from paceline.agents.runner import AgentRunner
from paceline.agents.spec import AgentSpec
from paceline.agents.threads import ThreadPool
from paceline.balance.gate import Gate
from paceline.call import Call, Caller, Kind, Plan, Scope, current_call
from paceline.clock import SystemClock
from paceline.errors import AgentError, InvalidInputError

ADA = Caller("ada", "s1", "acme")


def call_of(query: object = "q", caller: Caller = ADA, **context: object) -> Call:
    return Call(
        id="1",
        kind=Kind.AGENT,
        name="agent",
        arguments={"query": query, **context},
        caller=caller,
        scope=Scope.of(caller, None),
        plan=Plan(),
    )


@pytest.fixture
def runner() -> Iterator[AgentRunner]:
    pool = ThreadPool(Gate("the threads", 4, 1_000))
    yield AgentRunner(pool)
    pool.close()


async def test_sync_agents_run_in_threads_and_async_ones_on_the_loop(runner) -> None:
    """A synchronous agent runs in another thread, an async one in the loop's. (S1-25)"""

    def sync(query):
        return query, threading.current_thread()

    async def later(query):
        return query, threading.current_thread()

    here = threading.current_thread()
    value, thread = await runner.run(function_spec(sync), call_of("x"))
    assert (value, thread is here) == ("x", False)
    value, thread = await runner.run(function_spec(later), call_of("y"))
    assert (value, thread is here) == ("y", True)


async def test_an_awaitable_from_a_sync_function_is_awaited(runner) -> None:
    """A plain function that returns a coroutine is an async agent all the same. (E-02)"""

    async def later(query: str) -> str:
        return f"later {query}"

    def begin(query):
        return later(query)

    spec = read_spec("a", SimpleNamespace(run=begin))
    assert not spec.is_async
    assert await runner.run(spec, call_of("x")) == "later x"


async def test_an_agent_gets_the_context_it_takes(runner) -> None:
    """Context keywords reach the agents that have parameters for them, and no others. (E-05)"""

    def some(query, *, city="?", units="C"):
        return city, units

    def everything(query, **context):
        return context

    call = call_of(city="Rome", more=1)
    assert await runner.run(function_spec(some), call) == ("Rome", "C")
    assert await runner.run(function_spec(everything), call) == {"city": "Rome", "more": 1}


async def test_who_calls_comes_from_the_call(runner) -> None:
    """`user`, `session`, `tenant` and `call` are the call's own; the context cannot forge them."""

    async def who(query, *, user, session, tenant, call, **context):
        return user, session, tenant, call, context

    call = call_of(user="mallory", session="s2", call="forged", tenant="evil", x=1)
    assert await runner.run(function_spec(who), call) == ("ada", "s1", "acme", call, {"x": 1})


async def test_a_runner_that_trusts_the_context_is_caught(runner, monkeypatch) -> None:
    """Without the rule above another user's name gets through."""
    original = runner_module._arguments

    def trusting(spec, call):
        query, context = original(spec, call)
        return query, {**context, **{k: v for k, v in call.arguments.items() if k in spec.wants}}

    async def who(query, *, user):
        return user

    monkeypatch.setattr(runner_module, "_arguments", trusting)
    assert await runner.run(function_spec(who), call_of(user="mallory")) == "mallory"


async def test_sync_agents_know_their_call(runner) -> None:
    """The running call is visible in the agent's thread, so that its own calls have a parent."""

    def parent(query):
        return current_call.get()

    call = call_of()
    token = current_call.set(call)
    try:
        assert await runner.run(function_spec(parent), call) is call
    finally:
        current_call.reset(token)


async def test_agents_raise_what_they_raise(runner) -> None:
    """Exceptions of agents arrive with their own type and traceback. (S1-26)"""

    def fails(query):
        raise LookupError(query)

    async def fails_later(query):
        raise LookupError(query)

    for function in (fails, fails_later):
        with pytest.raises(LookupError, match="x") as caught:
            await runner.run(function_spec(function), call_of("x"))
        assert caught.traceback[-1].name == function.__name__


@pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit, asyncio.CancelledError])
async def test_a_sync_agent_ends_only_itself(runner, kind: type[BaseException]) -> None:
    """An agent in a thread that wants to end the program, or feigns a cancellation, has failed."""

    def ends(query):
        raise kind

    with pytest.raises(AgentError, match=f"ends raised {kind.__name__}") as caught:
        await runner.run(function_spec(ends), call_of())
    assert caught.value.may_have_started
    assert isinstance(caught.value.__cause__, kind)


async def test_a_call_without_a_query_is_refused(runner) -> None:
    """Nothing runs for a call without a query."""
    ran: list[object] = []
    call = Call("1", Kind.AGENT, "a", {}, ADA, Scope.of(ADA, None), Plan())
    with pytest.raises(InvalidInputError, match="has no query"):
        await runner.run(function_spec(ran.append, name="a"), call)
    assert not ran


def old_and_new(folder: Path) -> tuple[AgentRegistry, AgentSpec]:
    """A package agent that waits before it imports the rest of itself, and its next version."""
    (folder / "pack").mkdir()
    (folder / "pack" / "__init__.py").write_text(
        "NUMBER = 1\n"
        "async def run(query, *, gate):\n"
        "    await gate.wait()\n"
        "    from .late import VERSION\n"
        "    return VERSION + NUMBER\n"
    )
    (folder / "pack" / "late.py").write_text("VERSION = 10\n")
    registry = AgentRegistry([folder], clock=SystemClock(), pause=lambda _: None)
    registry.reload()
    return registry, registry.get("pack")


async def test_calls_in_flight_finish_on_the_code_they_began_with(runner, tmp_path: Path) -> None:
    """1,000 calls in flight while their agent is replaced all finish on the old version, imports
    they make late included; calls after it run the new one. (E102)"""
    registry, old = old_and_new(tmp_path)
    gate = asyncio.Event()
    running = [asyncio.create_task(runner.run(old, call_of(gate=gate))) for _ in range(1000)]
    await asyncio.sleep(0)
    init = tmp_path / "pack" / "__init__.py"
    init.write_text(init.read_text().replace("NUMBER = 1", "NUMBER = 2"))
    (tmp_path / "pack" / "late.py").write_text("VERSION = 20\n")
    assert (await registry.reload_async()).changed == ("pack",)
    module = old.run.__module__
    del old
    gc.collect()
    assert module in sys.modules
    gate.set()
    assert set(await asyncio.gather(*running)) == {11}
    assert await runner.run(registry.get("pack"), call_of(gate=gate)) == 22
    running.clear()
    gc.collect()
    registry.reload()
    assert module not in sys.modules
