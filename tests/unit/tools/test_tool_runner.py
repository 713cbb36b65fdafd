"""How tools are run in this process: on the loop, in threads, and told of the end."""

import asyncio
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, TypeVar, TypeVarTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from paceline.agents.threads import ThreadPool
from paceline.balance.gate import Gate
from paceline.call import Call, Caller, Kind, Plan, Scope, current_call
from paceline.clock import SystemClock
from paceline.errors import AgentError, ConfigError
from paceline.resources import Resources, ResourceUsage, current_resources
from paceline.testing.virtual_time import VirtualClock, run
from paceline.tools.function import function_tool
from paceline.tools.runner import ToolRunner
from paceline.tools.spec import ToolSpec
from tests.tool_functions import busy, fill, pid

T = TypeVar("T")
Ts = TypeVarTuple("Ts")
CALLER = Caller("ada", "s-1", "acme")


def call(**arguments: object) -> Call:
    """A call of a tool."""
    return Call("c-1", Kind.TOOL, "t", arguments, CALLER, Scope.of(CALLER, None), Plan())


@pytest.fixture
async def threads() -> AsyncIterator[ThreadPool]:
    """Two threads."""
    pool = ThreadPool(Gate("threads", 2, 10))
    yield pool
    pool.close()


@pytest.fixture
def runner(threads: ThreadPool) -> ToolRunner:
    """Runs tools there."""
    return ToolRunner(threads, clock=SystemClock())


async def used(work: Awaitable[object]) -> ResourceUsage:
    """What it takes."""
    resources = Resources()
    token = current_resources.set(resources)
    try:
        await work
    finally:
        current_resources.reset(token)
    assert resources.used is not None
    return resources.used


async def test_synchronous_tools_run_in_threads(runner: ToolRunner) -> None:
    """A synchronous tool runs in a thread, in the context of its call; an async one on the loop; a
    function that gives something to wait for is waited for there."""

    def plain(x: int) -> Any:
        return x, threading.current_thread() is threading.main_thread(), current_call.get()

    async def loop(x: int) -> Any:
        return plain(x)

    def both(x: int) -> Any:
        return loop(x)

    made = call(x=1)
    token = current_call.set(made)
    assert await runner.run(function_tool(plain), made) == (1, False, made)
    assert await runner.run(function_tool(loop), made) == (1, True, made)
    assert await runner.run(function_tool(both), made) == (1, True, made)
    current_call.reset(token)


@given(st.dictionaries(st.sampled_from("abc"), st.integers() | st.text() | st.lists(st.none())))
def test_what_was_checked_is_what_is_received(arguments: dict[str, Any]) -> None:
    """The function receives the very arguments that were checked, no more and no less. (S2-35)"""

    async def tool(a: Any, b: Any = "b", c: Any = None) -> Any:
        return a, b, c

    spec = function_tool(tool)
    arguments.setdefault("a", 1)
    checked = spec.check(arguments)

    async def main() -> Any:
        return await ToolRunner(NoThreads(), clock=VirtualClock()).run(spec, call(**checked))

    assert run(main()) == (arguments["a"], arguments.get("b", "b"), arguments.get("c"))


class NoThreads:
    async def run(self, fn: Callable[[*Ts], T], *args: *Ts) -> T:
        raise AssertionError("no thread is needed")


async def test_the_call_says_who_asks(runner: ToolRunner) -> None:
    """On whose behalf a tool runs says the call, whatever its arguments say."""

    def tool(x: int, user: str, session: str, tenant: str) -> Any:
        return user, session, tenant

    spec = function_tool(tool)
    assert await runner.run(spec, call(x=1, user="eve")) == ("ada", "s-1", "acme")


async def test_errors_are_the_tools_own(runner: ToolRunner) -> None:
    """What a tool raises is raised; what would end a program, or somebody else's task, is an error
    of the tool. (S2-09)"""

    async def loop(error: Any) -> None:
        raise error

    def plain(error: Any) -> None:
        raise error

    for fn in (plain, loop):
        with pytest.raises(KeyError):
            await runner.run(function_tool(fn), call(error=KeyError("k")))
        for error in (SystemExit(3), KeyboardInterrupt(), asyncio.CancelledError()):
            with pytest.raises(AgentError, match=type(error).__name__) as caught:
                await runner.run(function_tool(fn), call(error=error))
            assert caught.value.may_have_started


async def test_async_tools_are_cancelled(runner: ToolRunner) -> None:
    """An async tool whose call is cancelled is cancelled, and over before its caller is."""
    told: list[str] = []
    begun = asyncio.Event()

    async def tool() -> None:
        begun.set()
        try:
            await asyncio.get_running_loop().create_future()
        finally:
            told.append("end")

    task = asyncio.create_task(runner.run(function_tool(tool), call()))
    await begun.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert told == ["end"]


async def test_threads_are_told(runner: ToolRunner, threads: ThreadPool) -> None:
    """A synchronous tool whose call is cancelled is told, if it takes `cancelled`; its caller leaves
    at once, as a thread cannot be killed."""
    begun, told = threading.Event(), threading.Event()

    def tool(cancelled: threading.Event) -> None:
        begun.set()
        cancelled.wait()
        told.set()

    spec = function_tool(tool)
    task = asyncio.create_task(runner.run(spec, call()))
    while not begun.is_set():  # noqa: ASYNC110 (a thread sets it)
        await asyncio.sleep(0)
    assert not told.is_set()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await asyncio.to_thread(told.wait, 20)


async def test_a_thread_has_its_own_figures(runner: ToolRunner, tmp_path: Any) -> None:
    """What a synchronous tool takes is measured of its thread: processor time and bytes to disks,
    of which another one beside it has none. (S2-11)"""
    worked, idle = await asyncio.gather(
        used(runner.run(function_tool(busy), call(seconds=0.03))),
        used(runner.run(function_tool(pid), call())),
    )
    assert worked.cpu_ns is not None
    assert idle.cpu_ns is not None
    assert idle.cpu_ns < 30_000_000 <= worked.cpu_ns
    assert worked.wall_ns > 0
    assert (worked.peak_memory_bytes, worked.network_bytes) == (None, None)
    assert worked.disk_io_bytes is not None


async def test_failed_runs_have_figures_too(runner: ToolRunner) -> None:
    """What a tool took before it failed is measured too. (S2-11)"""

    def tool() -> None:
        busy(0.0)
        raise KeyError

    resources = Resources()
    token = current_resources.set(resources)
    with pytest.raises(KeyError):
        await runner.run(function_tool(tool), call())
    current_resources.reset(token)
    assert resources.used is not None
    assert resources.used.wall_ns > 0


def test_on_the_loop_there_is_time_only() -> None:
    """Of an async tool only the time is known, as the loop's thread works for all. (S2-11)"""

    async def tool() -> None:
        await asyncio.sleep(2)

    async def main() -> ResourceUsage:
        made = ToolRunner(NoThreads(), clock=VirtualClock())
        return await used(made.run(function_tool(tool), call()))

    assert run(main()) == ResourceUsage(wall_ns=2_000_000_000)


async def test_processes_are_asked_for(threads: ThreadPool) -> None:
    """A tool that is killable or has a limit of memory runs where there are processes, and nowhere
    else."""

    class Workers:
        async def run(self, spec: ToolSpec, call: Call) -> object:
            return spec.name, call.id

    killable = function_tool(pid, killable=True)
    limited = function_tool(fill, name="limited", memory_mb=100)
    runner = ToolRunner(threads, clock=SystemClock(), workers=Workers())
    assert await runner.run(killable, call()) == ("pid", "c-1")
    assert await runner.run(limited, call(path="", mb=1)) == ("limited", "c-1")
    with pytest.raises(ConfigError, match="process of its own"):
        await ToolRunner(threads, clock=SystemClock()).run(killable, call())
