"""Tools in processes of their own: what they are given, what they take, and how they end."""

import asyncio
import os
import random
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

from paceline.call import Call, Caller, Kind, Plan, Scope
from paceline.clock import SystemClock
from paceline.errors import (
    AgentError,
    AgentLoadError,
    Category,
    InvalidInputError,
    PacelineError,
    RuntimeClosedError,
)
from paceline.resources import Resources, ResourceUsage, current_resources
from paceline.sessions.killable import KillableTools
from paceline.tools.function import function_tool
from paceline.tools.spec import ToolSpec
from tests import tool_functions
from tests.tool_functions import Colour, Total, decorated

CALLER = Caller("ada", "s-1", "acme")


def tools(**more: Any) -> KillableTools:
    """Processes that are not there yet."""
    return KillableTools(
        clock=SystemClock(), rng=random.Random(1), environ=os.environ, **{"grace_s": 0.05} | more
    )


def tool(name: str, **options: Any) -> ToolSpec:
    """One of `tests.tool_functions`."""
    return function_tool(getattr(tool_functions, name), **{"killable": True} | options)


def call(spec: ToolSpec, **arguments: object) -> Call:
    """A call of it, with checked arguments."""
    checked = spec.check(arguments)
    return Call("c-1", Kind.TOOL, spec.name, checked, CALLER, Scope.of(CALLER, None), Plan())


async def used(work: Awaitable[object]) -> tuple[object, ResourceUsage]:
    """What it gives, and takes."""
    resources = Resources()
    token = current_resources.set(resources)
    try:
        value = await work
    finally:
        current_resources.reset(token)
    assert resources.used is not None
    return value, resources.used


async def until(condition: Callable[[], bool]) -> None:
    """Waits for it."""
    async with asyncio.timeout(20):
        while not condition():  # noqa: ASYNC110 (nothing tells of it)
            await asyncio.sleep(0)


def gone(pid: int) -> bool:
    """Whether a process has ended."""
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def pids(file: Path, count: int = 1) -> list[int]:
    """The processes that wrote themselves there, once all have."""
    words = file.read_text().split() if file.exists() else []
    return [int(word) for word in words] if len(words) == count else []


async def test_arguments_and_values_are_as_declared() -> None:
    """A tool in a process gets its arguments by name and in their declared types, one called `query`
    too, and what the call fills; its value comes back in the type it declares. (S2-35)"""
    async with tools() as there:
        total = tool("total")
        made = call(total, items=[{"sku": "a", "count": 2}, {"sku": "b"}])
        assert await there.run(total, made) == Total(3, Colour.RED)
        assert await there.run(who := tool("who"), call(who, query="q")) == ["q", "ada"]
        assert await there.run(decorated, call(decorated, x=1)) == 2


async def test_processes_are_warm() -> None:
    """A process can be started before the first call, serves all that follow, and ends when its
    tools are left."""
    spec = tool("pid")
    async with tools() as there:
        assert not list(there.processes)
        await there.warm(spec)
        (warm,) = there.processes
        await there.warm(spec)
        assert [await there.run(spec, call(spec)) for _ in range(3)] == [warm] * 3
        assert list(there.processes) == [warm]
    assert gone(warm)
    with pytest.raises(RuntimeClosedError):
        await there.run(spec, call(spec))


async def test_what_is_cancelled_is_killed(tmp_path: Path) -> None:
    """A tool that does not end is killed when its call is cancelled, with all that it started, before
    the caller goes on; another process is there for the next call. (V-36)"""
    spec, file = tool("hang", max_concurrency=1), tmp_path / "pids"
    async with tools() as there:
        task = asyncio.create_task(there.run(spec, call(spec, path=str(file))))
        await until(lambda: len(pids(file, 2)) == 2)
        killed = pids(file, 2)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert gone(killed[0])
        await until(lambda: all(map(gone, killed)))
        await until(lambda: len(there.processes) == 1)
        assert there.processes[0] not in killed
    assert there.processes == ()


async def test_a_time_limit_kills_too(tmp_path: Path) -> None:
    """A call that is cut off by a time limit ends as one that is cancelled, and what it took till then
    is told in time alone. (S2-11, S2-37)"""
    spec, file = tool("hang"), tmp_path / "pids"

    async def limited() -> None:
        async with asyncio.timeout(None) as limit:
            task = asyncio.ensure_future(until(lambda: len(pids(file, 2)) == 2))
            task.add_done_callback(lambda _: limit.reschedule(0))
            await there.run(spec, call(spec, path=str(file)))

    resources = Resources()
    async with tools() as there:
        token = current_resources.set(resources)
        with pytest.raises(TimeoutError):
            await limited()
        current_resources.reset(token)
        assert gone(pids(file, 2)[0])
    assert resources.used is not None
    assert resources.used == ResourceUsage(wall_ns=resources.used.wall_ns)


async def test_what_ends_by_itself_keeps_its_process(tmp_path: Path) -> None:
    """An async tool that ends when it is cancelled is not killed, and its process serves on."""
    wait, file = tool("wait"), tmp_path / "pids"
    async with tools(grace_s=20) as there:
        task = asyncio.create_task(there.run(wait, call(wait, path=str(file))))
        await until(lambda: len(pids(file)) == 1)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert there.processes == (pids(file)[0],)


async def test_calls_at_once_have_processes_of_their_own(tmp_path: Path) -> None:
    """Calls at the same time run in different processes, so that ending one ends no other; beyond
    the tool's limit they wait."""
    spec = tool("wait", max_concurrency=2)
    files = [tmp_path / f"{n}" for n in range(3)]
    async with tools(grace_s=20) as there:
        tasks = [asyncio.create_task(there.run(spec, call(spec, path=str(f)))) for f in files]
        await until(lambda: all(pids(file) for file in files[:2]))
        assert len({*there.processes}) == 2
        assert not files[2].exists()
        tasks[0].cancel()
        await until(lambda: bool(pids(files[2])))
        assert not tasks[1].done()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def test_memory_has_a_limit() -> None:
    """A tool that needs more memory than it declares fails as used up; the same tool with less to do
    does not, and the process is the same. (S2-11)"""
    spec = tool("hungry", killable=False, memory_mb=300)
    async with tools() as there:
        assert await there.run(spec, call(spec, mb=10)) == 10
        before = there.processes
        with pytest.raises(AgentError) as caught:
            await there.run(spec, call(spec, mb=400))
        assert caught.value.category is Category.EXHAUSTED
        assert (await there.run(spec, call(spec, mb=10)), there.processes) == (10, before)


async def test_a_process_has_figures(tmp_path: Path) -> None:
    """What a tool takes in a process is measured of it: processor time, its peak of memory in this
    call and no other, and bytes to disks. (S2-11)"""
    busy, hungry, fill = tool("busy"), tool("hungry"), tool("fill")
    async with tools() as there:
        _, worked = await used(there.run(busy, call(busy, seconds=0.05)))
        _, much = await used(there.run(hungry, call(hungry, mb=200)))
        _, little = await used(there.run(hungry, call(hungry, mb=1)))
        _, written = await used(there.run(fill, call(fill, path=str(tmp_path / "f"), mb=2)))
    assert worked.cpu_ns is not None
    assert worked.cpu_ns >= 50_000_000
    assert worked.wall_ns > 0
    assert much.peak_memory_bytes is not None
    assert little.peak_memory_bytes is not None
    assert much.peak_memory_bytes > 200 * 1024**2 > little.peak_memory_bytes
    assert written.disk_io_bytes is not None
    assert written.network_bytes is None


async def test_failures_have_figures_and_words() -> None:
    """A tool that fails in its process says what it raised, and what it took is measured too. (S2-09,
    S2-11)"""
    spec = tool("hungry", killable=True)
    resources = Resources()
    token = current_resources.set(resources)
    async with tools() as there:
        with pytest.raises(AgentError, match="ValueError") as caught:
            await there.run(spec, call(spec, mb=-1))
    current_resources.reset(token)
    assert caught.value.may_have_started
    assert resources.used is not None
    assert resources.used.peak_memory_bytes is not None


async def test_what_cannot_be_sent_is_refused() -> None:
    """An argument that is no data is refused before anything runs."""
    spec = tool("who")
    async with tools() as there:
        made = Call(
            "c", Kind.TOOL, "who", {"query": object()}, CALLER, Scope.of(CALLER, None), Plan()
        )
        with pytest.raises(InvalidInputError, match="another process"):
            await there.run(spec, made)
        assert there.processes == ()


async def test_what_cannot_be_found_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """A function that another process would not find is refused, and so is one that is not there."""
    spec = tool("pid")
    async with tools() as there:
        monkeypatch.setattr(tool_functions, "pid", print)
        with pytest.raises(AgentLoadError, match="something else"):
            await there.run(spec, call(spec))
        monkeypatch.undo()

        def here() -> None: ...

        here.__qualname__ = "here"
        monkeypatch.setattr(tool_functions, "here", here, raising=False)
        here.__module__ = "tests.tool_functions"
        missing = function_tool(here, killable=True)
        with pytest.raises(PacelineError, match="cannot be used"):
            await there.run(missing, call(missing))
