"""The runtime: parts wired together, opened, used and closed."""

import asyncio
import sqlite3
import threading
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from paceline import (
    Call,
    Caller,
    Effect,
    Outcome,
    PacelineError,
    Plan,
    Runtime,
    Settings,
    Source,
    SyncRuntime,
)
from paceline.call import EffectKind, current_call
from paceline.config import load
from paceline.errors import (
    AgentError,
    AgentLoadError,
    CallCancelledError,
    CallTimeoutError,
    InvalidInputError,
    RuntimeClosedError,
    UnknownAgentError,
)
from paceline.history.sqlite import SqliteReader
from paceline.testing.virtual_time import VirtualClock
from paceline.testing.virtual_time import run as run_virtual

QUIET = load(overrides={"agents": {"watch": False}, "hostexec": {"mode": "off"}})
ONE_THREAD = load(
    overrides={"agents": {"watch": False}, "hostexec": {"mode": "off"}, "run": {"threads": 1}}
)
COUNTER = """
CACHEABLE = True
CACHE_TTL = 60
runs = 0
def run(query, **context):
    global runs
    runs += 1
    return f"{query} {runs}"
"""


@pytest.fixture
def agents(tmp_path: Path) -> Path:
    directory = tmp_path / "agents"
    directory.mkdir()
    return directory


@pytest.fixture
def make(tmp_path: Path, agents: Path) -> Callable[..., Runtime]:
    """Runtimes over the same agents and state, as processes would have them."""

    def runtime(settings: Settings = QUIET, *, persist: bool = True) -> Runtime:
        return Runtime(
            settings, agents=[agents], home=tmp_path / "state", persist=persist, environ={}
        )

    return runtime


async def test_a_second_process_finds_what_the_first_stored(
    make: Callable[..., Runtime], agents: Path
) -> None:
    """A result stored by one runtime is a warm hit of the next one over the same state."""
    (agents / "counter.py").write_text(COUNTER)
    async with make() as first:
        stored = await first.run("counter", "a", user="ada")
    async with make() as second:
        found = await second.run("counter", "a", user="ada")
        again = await second.run("counter", "a", user="ada")
    assert (stored.source, found.source, again.source) == (
        Source.EXECUTED,
        Source.WARM,
        Source.HOT,
    )
    assert stored.value == found.value == again.value == "a 1"


async def test_without_persistence_nothing_is_written(
    make: Callable[..., Runtime], agents: Path, tmp_path: Path
) -> None:
    """With persist=False calls work and the state directory is not even made."""
    (agents / "counter.py").write_text(COUNTER)
    async with make(persist=False) as runtime:
        assert (await runtime.run("counter", "a")).ok
    assert not (tmp_path / "state").exists()


async def test_every_call_is_in_the_history(
    make: Callable[..., Runtime], agents: Path, tmp_path: Path
) -> None:
    """Hits, executions and failures are recorded with user, input, output, source and error."""
    (agents / "counter.py").write_text(COUNTER)
    (agents / "failing.py").write_text("def run(query): raise ValueError('no')\n")
    async with make() as runtime:
        for name in ("counter", "counter", "failing"):
            await runtime.run(name, "password=hunter22", user="ada")
    failing, hit, executed = SqliteReader(tmp_path / "state" / "history.db").query()
    assert (executed.source, hit.source) == (Source.EXECUTED, Source.HOT)
    assert executed.output_hash == hit.output_hash is not None
    assert failing.category is not None
    assert {r.user for r in (executed, hit, failing)} == {"ada"}
    assert "hunter22" not in str((executed, hit, failing))


async def test_an_edited_agent_does_not_serve_old_results(
    make: Callable[..., Runtime], agents: Path
) -> None:
    """After a module changed, results of the old code are not found. (S1-13)"""
    (agents / "counter.py").write_text(COUNTER)
    async with make() as runtime:
        await runtime.run("counter", "a", user="ada")
        (agents / "counter.py").write_text(COUNTER + "# edited\n")
        assert (await runtime.reload()).changed == ("counter",)
        assert (await runtime.run("counter", "a", user="ada")).source is Source.EXECUTED


OLD = "VERSION = 'old'\nasync def run(query, gate): await gate.wait(); return 'old'\n"


async def test_calls_in_flight_finish_on_the_old_code(
    make: Callable[..., Runtime], agents: Path
) -> None:
    """A thousand calls that run during a reload end with the old code's answer, and calls made
    after it get the new one's. (E102)"""
    (agents / "worker.py").write_text(OLD)
    settings = load(
        overrides={
            "agents": {"watch": False},
            "hostexec": {"mode": "off"},
            "run": {"max_concurrency": 1001},
        }
    )
    async with make(settings, persist=False) as runtime:
        gate = asyncio.Event()
        calls = [
            asyncio.create_task(runtime.run("worker", str(n), context={"gate": gate}))
            for n in range(1000)
        ]
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        (agents / "worker.py").write_text("async def run(query): return 'new'\n")
        await runtime.reload()
        assert (await runtime.run("worker", "x")).value == "new"
        gate.set()
        outcomes = await asyncio.gather(*calls)
    assert {o.value for o in outcomes} == {"old"}


async def test_a_broken_module_disturbs_nobody(make: Callable[..., Runtime], agents: Path) -> None:
    """A module that cannot be loaded shows its error; the others run. (S1-13)"""
    (agents / "counter.py").write_text(COUNTER)
    (agents / "broken.py").write_text("def run(query:\n")
    async with make() as runtime:
        assert (await runtime.run("counter", "a")).ok
        with pytest.raises(AgentLoadError, match=r"broken\.py:1"):
            await runtime.run("broken", "a")


async def test_wrong_requests_run_nothing(make: Callable[..., Runtime], agents: Path) -> None:
    """Unknown agents and empty inputs are usage errors that name the next step."""
    (agents / "counter.py").write_text(COUNTER)
    async with make() as runtime:
        with pytest.raises(UnknownAgentError) as unknown:
            await runtime.run("countre", "a")
        assert "counter" in unknown.value.next_step
        for empty in ("", "  \n"):
            with pytest.raises(InvalidInputError):
                await runtime.run("counter", empty)
    with pytest.raises(RuntimeClosedError):
        await runtime.run("counter", "a")


def damage_foreign(path: Path) -> None:
    path.write_bytes(b"this is no database" * 100)


def damage_empty_schema(path: Path) -> None:
    with closing(sqlite3.connect(path)) as db, db:
        db.execute("CREATE TABLE other (x)")
    db.close()


def damage_directory(path: Path) -> None:
    path.mkdir()


@pytest.mark.parametrize("file", ["cache.db", "history.db", "generations"])
@pytest.mark.parametrize("damage", [damage_foreign, damage_empty_schema, damage_directory])
async def test_damaged_state_stops_nobody(
    make: Callable[..., Runtime],
    agents: Path,
    tmp_path: Path,
    file: str,
    damage: Callable[[Path], None],
) -> None:
    """With a damaged file of ours calls still work and a notice says what to do. (D82, D84)"""
    (agents / "counter.py").write_text(COUNTER)
    (tmp_path / "state").mkdir()
    damage(tmp_path / "state" / file)
    async with make() as runtime:
        assert (await runtime.run("counter", "a", user="ada")).value == "a 1"
        assert (await runtime.run("counter", "a", user="ada")).source is Source.HOT
        assert any(str(tmp_path / "state") in notice for notice in runtime.notices)


async def test_a_home_that_cannot_be_made_stops_nobody(agents: Path, tmp_path: Path) -> None:
    """Where the state directory cannot exist, calls still work and notices say so. (D84)"""
    (agents / "counter.py").write_text(COUNTER)
    (tmp_path / "file").touch()
    runtime = Runtime(QUIET, agents=[agents], home=tmp_path / "file" / "state", environ={})
    async with runtime:
        assert (await runtime.run("counter", "a", user="ada")).ok
        assert (await runtime.run("counter", "a", user="ada")).source is Source.HOT
    assert len(runtime.notices) >= 2


async def test_a_full_disk_stops_nobody(
    make: Callable[..., Runtime], agents: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """When nothing can be written any more, calls go on and results stay in memory. (D83)"""
    (agents / "counter.py").write_text(COUNTER)
    settings = load(
        overrides={
            "agents": {"watch": False},
            "hostexec": {"mode": "off"},
            "cache": {"warm_bytes": 40_000},
        }
    )
    async with make(settings) as runtime:
        for number in range(200):
            outcome = await runtime.run("counter", f"{number} {'x' * 1000}", user="ada")
            assert outcome.ok
        assert (await runtime.run("counter", f"199 {'x' * 1000}", user="ada")).source is Source.HOT
    assert (tmp_path / "state" / "cache.db").stat().st_size <= 60_000


async def test_nested_calls_belong_to_the_outer_one(make: Callable[..., Runtime]) -> None:
    """A call made by a running agent inherits user, trace and deadline, and names its parent."""
    seen: dict[str, Call] = {}
    async with make(persist=False) as runtime:

        @runtime.agent()
        async def inner(query: str) -> None:
            call = current_call.get()
            assert call is not None
            seen["inner"] = call

        @runtime.agent()
        async def outer(query: str) -> object:
            call = current_call.get()
            assert call is not None
            seen["outer"] = call
            return (await runtime.run("inner", query)).unwrap()

        await runtime.run("outer", "x", user="ada", timeout=5)
    assert seen["inner"].caller == Caller("ada")
    assert seen["inner"].trace_id == seen["outer"].trace_id
    assert seen["inner"].parent_id == seen["outer"].id
    assert seen["inner"].deadline_ns == seen["outer"].deadline_ns is not None


async def test_a_nested_call_cannot_outlive_its_parent(make: Callable[..., Runtime]) -> None:
    """A nested call may ask for less time than the outer one has left, never for more."""
    deadlines: list[int | None] = []
    async with make(persist=False) as runtime:

        @runtime.agent()
        async def inner(query: str) -> None:
            call = current_call.get()
            deadlines.append(call.deadline_ns if call else None)

        @runtime.agent()
        async def outer(query: str) -> None:
            call = current_call.get()
            deadlines.append(call.deadline_ns if call else None)
            await runtime.run("inner", "more", timeout=500)
            await runtime.run("inner", "less", timeout=0.9)

        await runtime.run("outer", "x", timeout=5)
    own, more, less = (deadline or 0 for deadline in deadlines)
    assert 0 < less < own == more


def test_closing_drains_then_cancels() -> None:
    """Closing waits for calls in flight as long as it is set to, and then cancels the rest."""

    async def main() -> None:
        settings = load(
            overrides={
                "agents": {"watch": False},
                "hostexec": {"mode": "off"},
                "run": {"drain_s": 5},
            }
        )
        runtime = Runtime(settings, agents=[], persist=False, environ={}, clock=VirtualClock())
        async with runtime:

            @runtime.agent()
            async def sleeper(query: str) -> str:
                await asyncio.sleep(float(query))
                return "done"

            calls = [asyncio.create_task(runtime.run("sleeper", s)) for s in ("1", "100")]
            await asyncio.sleep(0.5)
        first, second = [await call for call in calls]
        assert first.value == "done"
        assert isinstance(second.error, CallCancelledError)
        assert asyncio.get_running_loop().time() < 10

    run_virtual(main())


def test_closing_ends_with_the_last_call() -> None:
    """Closing waits for the calls in flight, for those too that they make meanwhile, and no longer."""

    async def main() -> None:
        settings = load(
            overrides={
                "agents": {"watch": False},
                "hostexec": {"mode": "off"},
                "run": {"drain_s": 50},
            }
        )
        runtime = Runtime(settings, agents=[], persist=False, environ={}, clock=VirtualClock())
        async with runtime:

            @runtime.agent()
            async def sleeper(query: str) -> str:
                await asyncio.sleep(float(query))
                return "done"

            @runtime.agent()
            async def caller(query: str) -> object:
                await asyncio.sleep(1)
                return (await runtime.run("sleeper", query)).unwrap()

            assert (await runtime.run("sleeper", "0")).value == "done"
            wanted = [("sleeper", "2"), ("caller", "7")]
            calls = [asyncio.create_task(runtime.run(*each)) for each in wanted]
            await asyncio.sleep(0.5)
        assert [(await call).value for call in calls] == ["done", "done"]
        assert 8 <= asyncio.get_running_loop().time() < 9

    run_virtual(main())


async def test_leaving_with_an_error_does_not_wait(make: Callable[..., Runtime]) -> None:
    """When the block ends with an exception, calls in flight are cancelled at once."""
    started = asyncio.Event()
    calls: list[asyncio.Task[Outcome]] = []

    async def fail() -> None:
        async with make(persist=False) as runtime:

            @runtime.agent()
            async def forever(query: str) -> None:
                started.set()
                await asyncio.Event().wait()

            calls.append(asyncio.create_task(runtime.run("forever", "x")))
            await started.wait()
            raise KeyError

    with pytest.raises(KeyError):
        await fail()
    assert isinstance((await calls[0]).error, CallCancelledError)


async def test_nothing_is_left_after_closing(make: Callable[..., Runtime]) -> None:
    """After a runtime is closed no task of it is left."""
    before = asyncio.all_tasks()
    settings = load(overrides={"hostexec": {"mode": "off"}})
    async with make(settings) as runtime:

        @runtime.agent(effect="read")
        async def echo(query: str) -> str:
            return query

        await asyncio.gather(*(runtime.run("echo", str(n % 3)) for n in range(30)))
    assert asyncio.all_tasks() == before


async def test_a_synchronous_agent_does_not_stall_the_loop(make: Callable[..., Runtime]) -> None:
    """While a synchronous agent blocks its thread, others are answered. (S1-25)"""
    release = threading.Event()
    async with make(persist=False) as runtime:

        @runtime.agent()
        def blocking(query: str) -> bool:
            return release.wait(30)

        @runtime.agent()
        async def quick(query: str) -> str:
            return query

        waiting = asyncio.create_task(runtime.run("blocking", "x"))
        assert (await runtime.run("quick", "y")).value == "y"
        assert not waiting.done()
        release.set()
        assert (await waiting).value is True


async def test_a_hung_synchronous_agent_ends_as_a_time_out(make: Callable[..., Runtime]) -> None:
    """A thread that hangs costs its caller no more than the time limit. (S1-25)"""
    release = threading.Event()
    async with make(persist=False) as runtime:

        @runtime.agent(timeout=0.05)
        def hung(query: str) -> bool:
            return release.wait(30)

        outcome = await runtime.run("hung", "x")
        release.set()
    assert isinstance(outcome.error, CallTimeoutError)


async def test_an_agents_own_limit_holds(make: Callable[..., Runtime]) -> None:
    """Of an agent with max_concurrency 2 never more than two run at once. (S1-25)"""
    running = most = 0
    async with make(persist=False) as runtime:

        @runtime.agent(max_concurrency=2)
        async def limited(query: str) -> None:
            nonlocal running, most
            running += 1
            most = max(most, running)
            await asyncio.sleep(0)
            running -= 1

        await asyncio.gather(*(runtime.run("limited", str(n)) for n in range(20)))
    assert most == 2


async def test_the_short_form_returns_or_raises(make: Callable[..., Runtime]) -> None:
    """run_agent_async returns the value itself and raises the typed error. (S1-24, S1-26)"""
    async with make(persist=False) as runtime:

        @runtime.agent()
        async def half(query: str) -> int:
            return int(query) // 2

        assert await runtime.run_agent_async("half", "8") == 4
        with pytest.raises(PacelineError, match="ValueError"):
            await runtime.run_agent_async("half", "x")


async def test_a_decorated_function_stays_a_function(make: Callable[..., Runtime]) -> None:
    """The decorator registers a function and leaves it as it is; wrong options are named."""
    async with make(persist=False) as runtime:

        @runtime.agent("double", effect=Effect.pure(), cache_ttl=60)
        def twice(query: str) -> int:
            return int(query) * 2

        assert twice("2") == 4
        assert (await runtime.run("double", "2")).value == 4
        assert (await runtime.run("double", "2")).source is Source.HOT
        with pytest.raises(PacelineError, match="timout"):
            runtime.agent("wrong", timout=3)(twice)  # type: ignore[call-arg]
        with pytest.raises(PacelineError, match="parentheses"):
            runtime.agent(twice)  # type: ignore[arg-type]


async def test_a_failing_plan_is_a_failed_call(make: Callable[..., Runtime]) -> None:
    """An agent whose plan raises gives a failed outcome, and is in the statistics."""

    class Odd:
        def plan(self, query: str) -> object:
            raise KeyError(query)

        def run(self, query: str) -> str:
            return query

    async with make(persist=False) as runtime:
        runtime.registry.add_object("odd", Odd())
        outcome = await runtime.run("odd", "x")
        assert isinstance(outcome.error, PacelineError)
        assert runtime.metrics.snapshot().agents["odd"].ever.errors == 1


async def test_a_runtime_is_opened_once(make: Callable[..., Runtime]) -> None:
    """Opening an open runtime again is refused, and the open one goes on."""
    async with make(persist=False) as runtime:
        with pytest.raises(RuntimeClosedError):
            await runtime.__aenter__()
        with pytest.raises(UnknownAgentError):
            await runtime.run("x", "y")


def test_scripts_need_no_await(make: Callable[..., Runtime], agents: Path) -> None:
    """The synchronous facade runs calls, also from several threads at once."""
    (agents / "counter.py").write_text(COUNTER)
    with SyncRuntime(make()) as runtime:
        assert runtime.run("counter", "a", user="ada").value == "a 1"
        assert runtime.run("counter", "a", user="ada").source is Source.HOT
        values: list[object] = []
        threads = [
            threading.Thread(target=lambda: values.append(runtime.run("counter", "b").unwrap()))
            for _ in range(8)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(values) == 8
        assert len(set(values)) == 1
        assert runtime.metrics.snapshot().agents["counter"].ever.calls == 10
    with pytest.raises(RuntimeClosedError):
        runtime.run("counter", "a")


def test_the_facade_leaves_no_thread(make: Callable[..., Runtime]) -> None:
    """After a synchronous runtime is closed its thread has ended."""
    with SyncRuntime(make(persist=False)):
        pass
    assert "paceline" not in {thread.name for thread in threading.enumerate()}


async def test_nameless_callers_share_nothing_between_runtimes(
    make: Callable[..., Runtime], agents: Path
) -> None:
    """A call without user or session belongs to its runtime alone, however its caller is
    written. (S1-54)"""
    (agents / "counter.py").write_text(COUNTER)
    for caller in (None, Caller(), Caller(tenant="t"), Caller("")):
        sources = []
        for _ in range(2):
            async with make() as runtime:
                sources.append((await runtime.run("counter", "a", caller=caller)).source)
        assert sources == [Source.EXECUTED, Source.EXECUTED]


async def test_global_work_does_not_know_its_caller(make: Callable[..., Runtime]) -> None:
    """What an agent of global scope calls in turn is not called on behalf of one user, whose
    result everybody would get. (S1-54)"""
    async with make(persist=False) as runtime:

        @runtime.agent(effect="read", cache_ttl=60)
        async def inbox(query: str, user: str | None) -> str:
            return f"mail of {user}"

        @runtime.agent(effect="read", cache_ttl=60, scope="global")
        async def digest(query: str) -> object:
            return (await runtime.run("inbox", query)).unwrap()

        assert (await runtime.run("digest", "x", user="ada")).value == "mail of None"
        assert (await runtime.run("digest", "x", user="bob")).value == "mail of None"


async def test_nobody_poses_as_another_user(make: Callable[..., Runtime]) -> None:
    """The context cannot say on whose behalf a call is made."""
    async with make(persist=False) as runtime:

        @runtime.agent()
        async def spoof(query: str, **context: object) -> object:
            return context

        forged = {"user": "admin", "session": "s", "tenant": "t", "call": "c", "lang": "en"}
        outcome = await runtime.run("spoof", "x", user="bob", context=forged)
        assert outcome.value == {"lang": "en"}


async def test_a_write_that_outlives_its_caller_invalidates_at_its_end(
    make: Callable[..., Runtime],
) -> None:
    """A synchronous write that goes on after its time-out makes stale what was read meanwhile."""
    go, ended, world = threading.Event(), threading.Event(), ["old"]
    async with make(ONE_THREAD, persist=False) as runtime:

        @runtime.agent(effect=Effect.write("world"), timeout=0.05)
        def change(query: str) -> None:
            assert go.wait(30)
            world[0] = "new"
            ended.set()

        @runtime.agent(effect=Effect.read("world"), cache_ttl=60)
        async def look(query: str) -> str:
            return world[0]

        outcome = await runtime.run("change", "x")
        assert isinstance(outcome.error, CallTimeoutError)
        assert (await runtime.run("look", "x")).value == "old"
        go.set()
        await asyncio.to_thread(ended.wait)
        await runtime._parts.pool.run(lambda: None)  # the thread is free again: it has really ended
        assert (await runtime.run("look", "x")).value == "new"


async def test_waiting_for_a_thread_is_waiting(make: Callable[..., Runtime]) -> None:
    """A synchronous call that waits for a thread is not started, and its time limit has not begun;
    threads that hang are no places. (S1-25)"""
    go = threading.Event()
    async with make(ONE_THREAD, persist=False) as runtime:

        @runtime.agent(timeout=0.05)
        def hung(query: str) -> None:
            go.wait(30)

        @runtime.agent(timeout=0.05)
        def quick(query: str) -> str:
            return query

        assert isinstance((await runtime.run("hung", "x")).error, CallTimeoutError)
        late = await runtime.run("quick", "y", timeout=0.05)
        assert isinstance(late.error, CallTimeoutError)
        assert not late.error.may_have_started
        assert (late.attempts, late.execute_ns) == (0, 0)
        waiting = asyncio.create_task(runtime.run("quick", "y"))
        await asyncio.sleep(0)
        go.set()
        assert (await waiting).value == "y"


async def test_cancelled_closing_closes_everything(make: Callable[..., Runtime]) -> None:
    """When closing is cancelled while it drains, the parts are closed all the same."""
    runtime = make(load(overrides={"hostexec": {"mode": "off"}}))
    before = asyncio.all_tasks()
    await runtime.__aenter__()

    @runtime.agent()
    async def forever(query: str) -> None:
        await asyncio.Event().wait()

    call = asyncio.create_task(runtime.run("forever", "x"))
    await asyncio.sleep(0)
    closing = asyncio.create_task(runtime.__aexit__(None, None, None))
    await asyncio.sleep(0)
    closing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await closing
    assert isinstance((await call).error, CallCancelledError)
    assert asyncio.all_tasks() == before


async def test_draining_calls_may_make_calls(make: Callable[..., Runtime]) -> None:
    """While the runtime drains, calls in flight can still make calls of their own; others cannot."""
    started, go = asyncio.Event(), asyncio.Event()
    runtime = make(persist=False)
    await runtime.__aenter__()

    @runtime.agent()
    async def inner(query: str) -> str:
        return query

    @runtime.agent()
    async def outer(query: str) -> object:
        started.set()
        await go.wait()
        return (await runtime.run("inner", query)).unwrap()

    call = asyncio.create_task(runtime.run("outer", "x"))
    await started.wait()
    closing = asyncio.create_task(runtime.__aexit__(None, None, None))
    await asyncio.sleep(0)
    with pytest.raises(RuntimeClosedError):
        await runtime.run("inner", "y")
    go.set()
    assert (await call).value == "x"
    await closing


async def test_a_closed_runtime_is_not_opened_again(make: Callable[..., Runtime]) -> None:
    """A runtime is opened once."""
    runtime = make(persist=False)
    async with runtime:
        pass
    with pytest.raises(RuntimeClosedError):
        await runtime.__aenter__()


async def test_a_runtime_belongs_to_its_loop(make: Callable[..., Runtime]) -> None:
    """Used on another event loop it says so instead of hanging."""
    async with make(persist=False) as runtime:

        def elsewhere() -> None:
            with pytest.raises(RuntimeClosedError, match="another event loop"):
                asyncio.run(runtime.run("x", "y"))

        await asyncio.to_thread(elsewhere)


def test_the_facade_refuses_to_wait_for_itself(make: Callable[..., Runtime]) -> None:
    """A blocking call from the facade's own loop is refused instead of hanging it."""
    runtime = make(persist=False)
    with SyncRuntime(runtime) as scripts:

        @runtime.agent()
        async def careless(query: str) -> object:
            return scripts.run("careless", query).unwrap()

        error = scripts.run("careless", "x").error
        assert isinstance(error, PacelineError)
        assert "wait for itself" in str(error)


@pytest.mark.parametrize("limit", [0, -1, float("inf"), float("nan"), "5", 1e300])
async def test_a_time_limit_has_to_be_one(make: Callable[..., Runtime], limit: Any) -> None:
    """A time limit that is none is a usage error, not a crash."""
    async with make(persist=False) as runtime:

        @runtime.agent()
        async def echo(query: str) -> str:
            return query

        with pytest.raises(InvalidInputError):
            await runtime.run("echo", "x", timeout=limit)
        for wrong in (None, 5, b"x"):
            with pytest.raises(InvalidInputError):
                await runtime.run("echo", wrong)  # type: ignore[arg-type]
        with pytest.raises(InvalidInputError):
            await runtime.run("echo", "x", user=5)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "plan",
    [
        Plan(Effect.read(), ttl_s=-1),
        Plan(Effect.read(), ttl_s=float("nan")),
        Plan(Effect(EffectKind.READ, (1,))),  # type: ignore[arg-type]
        Plan(timeout_s=-1),
        Plan(timeout_s="3"),  # type: ignore[arg-type]
        SystemExit(3),
    ],
)
async def test_a_wrong_plan_is_a_failed_call(make: Callable[..., Runtime], plan: object) -> None:
    """Whatever a planner returns or raises, the call fails with a typed error, and ends nothing."""

    class Odd:
        VERSION = "1"

        def plan(self, query: str) -> object:
            if isinstance(plan, BaseException):
                raise plan
            return plan

        def run(self, query: str) -> str:
            return query

    async with make(persist=False) as runtime:
        runtime.registry.add_object("odd", Odd())
        assert isinstance((await runtime.run("odd", "x")).error, AgentError)


async def test_instances_do_not_answer_for_each_other(make: Callable[..., Runtime]) -> None:
    """Two instances of one class, set up differently, do not get each other's results."""

    class Translator:
        EFFECT = "pure"

        def __init__(self, language: str) -> None:
            self.language = language

        def run(self, query: str) -> str:
            return f"{query} in {self.language}"

    async with make(persist=False) as runtime:
        for language in ("de", "fr"):
            runtime.registry.add_object("translator", Translator(language))
            outcome = await runtime.run("translator", "x", user="ada")
            assert outcome.value == f"x in {language}"


async def test_background_work_is_not_inside_its_call(make: Callable[..., Runtime]) -> None:
    """What an agent leaves running makes calls of its own once the agent has ended: without its
    deadline and its user."""
    ended, tasks = asyncio.Event(), list[asyncio.Task[Outcome]]()
    async with make(persist=False) as runtime:

        @runtime.agent()
        async def who(query: str, user: str | None) -> str | None:
            return user

        async def later() -> Outcome:
            await ended.wait()
            return await runtime.run("who", "x")

        @runtime.agent()
        async def starts(query: str) -> None:
            tasks.append(asyncio.create_task(later()))

        await runtime.run("starts", "x", user="ada", timeout=5)
        ended.set()
        assert (await tasks[0]).value is None


def test_those_who_join_do_not_inherit_the_first_callers_haste() -> None:
    """What a shared call makes of its inner calls does not depend on the deadline of who came
    first: nobody gets, and nothing keeps, what came of too little time."""

    async def main() -> None:
        settings = load(
            overrides={
                "agents": {"watch": False},
                "hostexec": {"mode": "off"},
                "run": {"max_attempts": 1},
            }
        )
        runtime = Runtime(settings, agents=[], persist=False, environ={}, clock=VirtualClock())
        async with runtime:

            @runtime.agent()
            async def inner(query: str) -> str:
                await asyncio.sleep(0.6)
                return "whole"

            @runtime.agent(effect="read", cache_ttl=60, scope="global")
            async def outer(query: str) -> object:
                outcome = await runtime.run("inner", query)
                return outcome.value or "fallback"

            hasty = asyncio.create_task(runtime.run("outer", "x", timeout=0.3))
            await asyncio.sleep(0)
            assert (await runtime.run("outer", "x", timeout=10)).value == "whole"
            assert isinstance((await hasty).error, CallTimeoutError)
            assert (await runtime.run("outer", "x")).value == "whole"

    run_virtual(main())


async def test_wrong_options_are_usage_errors(make: Callable[..., Runtime]) -> None:
    """Options of the wrong type are refused before anything runs."""
    async with make(persist=False) as runtime:
        wrong: list[dict[str, Any]] = [
            {"context": 3},
            {"caller": "ada"},
            {"priority": 9},
            {"timeout": True},
        ]
        for options in wrong:
            with pytest.raises(InvalidInputError):
                await runtime.run("x", "y", **options)
        for name in (None, 3, ["x"]):
            with pytest.raises(InvalidInputError):
                await runtime.run(name, "y")  # type: ignore[arg-type]
