"""A function in a process of its own: what the process gets, and what becomes of it."""

import asyncio
import os
import random
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

import psutil
import pytest

from paceline.call import Tokens
from paceline.clock import SystemClock
from paceline.errors import (
    AgentLoadError,
    Category,
    ConfigError,
    InvalidInputError,
    PacelineError,
    RuntimeClosedError,
)
from paceline.instances.worker import Worker
from paceline.pricing import PriceList
from paceline.testing.target_suite import a_call, a_lease
from paceline.testing.virtual_time import VirtualClock
from paceline.usage import Metering, metered

CLOCK: Final = SystemClock()
ROOT: Final = Path(__file__).parents[2]


def worker(function: str = "tests.worked:act", **more: Any) -> Worker:
    """A worker that is not entered yet."""
    settings: dict[str, Any] = {"clock": CLOCK, "rng": random.Random(1), "environ": os.environ}
    return Worker(function, **settings | more)


async def run(target: Worker, query: str = "pid", **context: Any) -> Any:
    """The value of a call."""
    return await target.execute(a_call(query, **context), a_lease(CLOCK))


async def error_of(target: Worker, query: str = "pid", **context: Any) -> PacelineError:
    """What a call fails with."""
    with pytest.raises(PacelineError) as caught:
        await run(target, query, **context)
    return caught.value


async def until(condition: Callable[[], bool]) -> None:
    """Waits for it."""
    async with asyncio.timeout(20):
        while not condition():  # noqa: ASYNC110 (nothing tells of it)
            await asyncio.sleep(0)


def gone(pid: int) -> bool:
    """Whether a process has ended; one that nobody has reaped yet has."""
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def pids(file: Path) -> list[int]:
    """The processes that wrote themselves there."""
    return [int(word) for word in file.read_text().split()] if file.exists() else []


async def test_nothing_of_the_environment_is_inherited() -> None:
    """The process has PATH, PYTHONPATH and LANG of the environment here, what it is given, and
    nothing else: no secret. (K-04)"""
    here = {**os.environ, "LANG": "C.UTF-8", "OPENAI_API_KEY": "sk-1", "HOME": "/nowhere"}
    async with worker(environ=here, env={"REGION": "north"}) as target:
        there: Mapping[str, str] = await run(target, "environment")
    assert (there["REGION"], there["LANG"]) == ("north", "C.UTF-8")
    assert set(there) <= {"LANG", "LC_CTYPE", "PATH", "PYTHONPATH", "REGION"}


async def test_memory_has_a_limit() -> None:
    """A call that needs more memory than the worker may have fails, as used up; the process goes on,
    and does not take it from all others. (S2-20)"""
    async with worker(memory_mb=400) as target:
        before = await run(target)
        error = await error_of(target, "hungry")
        assert (error.category, await run(target)) == (Category.EXHAUSTED, before)
    async with worker(memory_mb=0) as target:
        assert await run(target, "hungry") == 600 * 1024**2


async def test_what_it_prints_is_no_answer(capfd: pytest.CaptureFixture[str]) -> None:
    """The function's output goes to standard error, and its input is empty."""
    async with worker() as target:
        assert await run(target, "print") == ""
    printed, errors = capfd.readouterr()
    assert (printed, errors) == ("", "told\ntold\n")


async def test_one_process_serves_all_calls() -> None:
    """The process is started by the first call that needs it, not before, and serves those that
    follow; it is another one than ours, and gone when the target is left."""
    async with worker() as target:
        assert target.processes == ()
        first = await asyncio.gather(*(run(target) for _ in range(5)))
        assert {*first, await run(target)} == set(target.processes)
        assert os.getpid() not in target.processes
    assert gone(first[0])


async def test_synchronous_functions_run_in_threads() -> None:
    """A synchronous function does not hold up the others."""
    async with worker("tests.worked:plain") as target:
        stuck = [asyncio.create_task(run(target, "stuck")) for _ in range(3)]
        assert await run(target, "thread") is False
        for task in stuck:
            task.cancel()
        await asyncio.gather(*stuck, return_exceptions=True)


async def test_a_crash_is_an_error_and_is_got_over() -> None:
    """Calls in a process that crashes fail as of a service that is away, and may have begun; until
    the process is started again, which takes the longer the oftener it crashes, calls are refused
    and told how long. (S0-68, S1-19, V-26)"""
    clock = VirtualClock()
    async with worker(clock=clock) as target:
        waits = []
        for _ in range(3):
            error = await error_of(target, "crash")
            assert (error.category, error.may_have_started) == (Category.UNAVAILABLE, True)
            assert "exit code 3" in error.message
            await until(lambda: not target.processes)
            refused = await error_of(target)
            assert (refused.category, refused.may_have_started) == (Category.UNAVAILABLE, False)
            assert refused.retry_after_s is not None
            waits.append(refused.retry_after_s)
            clock.advance(refused.retry_after_s)
            assert await run(target) in target.processes
        assert waits[0] < waits[1] < waits[2]


async def test_a_killed_process_says_by_what() -> None:
    """The error of a process that was killed names the signal."""
    async with worker() as target:
        pid = await run(target)
        task = asyncio.create_task(error_of(target, "wait", path="/nowhere/at/all"))
        await until(lambda: target.in_flight == 1)
        os.kill(pid, signal.SIGKILL)
        assert "SIGKILL" in (await task).message


async def test_what_does_not_end_is_killed_with_all_it_started(tmp_path: Path) -> None:
    """A cancelled call that goes on has its process killed, and what that started; the next call
    gets a new one at once. (S1-20)"""
    file = tmp_path / "pids"
    async with worker(grace_s=0.05) as target:
        task = asyncio.create_task(run(target, "stubborn", pids=str(file)))
        await until(lambda: len(pids(file)) == 2)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        assert task.cancelled()
        await until(lambda: all(map(gone, pids(file))))
        assert await run(target) not in pids(file)


async def test_others_in_the_process_may_end_first(tmp_path: Path) -> None:
    """A process that is to be killed gets no new call, and stays until the calls that somebody
    waits for have ended."""
    file, path = tmp_path / "pids", tmp_path / "go"
    async with worker(grace_s=0.0) as target:
        task = asyncio.create_task(run(target, "stubborn", pids=str(file)))
        other = asyncio.create_task(run(target, "wait", path=str(path)))
        await until(lambda: len(pids(file)) == 2 and target.in_flight == 2)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await until(lambda: target._process is not None and target._process.spent)
        assert await run(target) not in pids(file)
        assert len(target.processes) == 2
        path.touch()
        assert await other == pids(file)[0]
        await until(lambda: len(target.processes) == 1)
        assert all(map(gone, pids(file)))


async def test_a_thread_that_is_stuck_is_killed_too() -> None:
    """A synchronous function that was cancelled is not thought to be over before it is."""
    async with worker("tests.worked:plain", grace_s=0.0) as target:
        pid = await run(target)
        task = asyncio.create_task(run(target, "stuck"))
        await until(lambda: target.in_flight == 1)
        task.cancel()
        await until(lambda: gone(pid) and target.in_flight == 0)
        assert await run(target) != pid


async def test_it_ends_with_its_parent(tmp_path: Path) -> None:
    """When the process that started it is killed, the worker ends, and what it started, whatever it
    is doing. (K-04)"""
    file = tmp_path / "pids"
    program = f"""
import asyncio, os, random
from paceline.clock import SystemClock
from paceline.instances.worker import Worker
from paceline.testing.target_suite import a_call, a_lease
async def main():
    clock = SystemClock()
    async with Worker(
        "tests.worked:act", clock=clock, rng=random.Random(1), environ=os.environ
    ) as target:
        await target.execute(a_call("stubborn", pids={str(file)!r}), a_lease(clock))
asyncio.run(main())
"""
    with subprocess.Popen([sys.executable, "-c", program], cwd=ROOT) as parent:  # noqa: ASYNC220
        await until(lambda: len(pids(file)) == 2)
        parent.kill()
    await until(lambda: all(map(gone, pids(file))))
    assert parent.returncode == -signal.SIGKILL


@pytest.mark.parametrize(
    ("function", "why"),
    [
        ("tests.nowhere:act", "ModuleNotFoundError"),
        ("tests.worked:nothing", "AttributeError"),
        ("tests.worked:__doc__", "TypeError"),
    ],
)
async def test_a_function_that_is_not_there_is_told_of(function: str, why: str) -> None:
    """What cannot be imported is an error of loading, which says why, and not of the network."""
    async with worker(function) as target:
        with pytest.raises(AgentLoadError, match=why):
            await target.probe()
        error = await error_of(target)
        assert not error.may_have_started


@pytest.mark.parametrize(
    "function", ["", "json", "json:", ":dumps", "json:du mps", "a/b:c", "-c:x"]
)
def test_names_are_checked_at_once(function: str) -> None:
    """What is no name of a function is refused when the target is made."""
    with pytest.raises(ConfigError, match="names no function"):
        worker(function)


@pytest.mark.parametrize("function", ["tests.worked:act", "tests.worked:plain"])
async def test_whatever_the_function_raises_is_its_failure(function: str) -> None:
    """An end of the program, an end of an iteration and errors of ours are failures of the call;
    the process lives on, and what they say comes through. (V-31)"""
    async with worker(function) as target:
        pid = await run(target)
        for query, what in (("exit", "SystemExit: 4"), ("stop", "StopIteration")):
            error = await error_of(target, query)
            assert (error.category, error.may_have_started) == (Category.EXECUTION, True)
            assert what in error.message
        error = await error_of(target, "fail")
        assert (error.category, error.retry_after_s) == (Category.RATE_LIMIT, 2.5)
        assert (error.message, error.next_step, error.may_have_started) == ("busy", "W", True)
        assert await run(target) == pid


async def test_values_and_arguments_are_plain_data() -> None:
    """An argument that cannot be sent is refused, and nothing runs; a value that cannot be is a
    failure."""
    async with worker() as target:
        error = await error_of(target, value=object())
        assert isinstance(error, InvalidInputError)
        assert target.processes == ()
        for query in ("strange", "long"):
            error = await error_of(target, query)
            assert error.may_have_started
            assert not error.category.transient
        assert isinstance(await error_of(target, value="x" * (64 * 1024**2)), InvalidInputError)


async def test_usage_is_metered_here() -> None:
    """What the function reports of its model calls is metered where it was called. (K-05)"""
    async with worker("tests.worked:plain") as target:
        lease = a_lease(CLOCK)
        with metered(Metering(PriceList(), CLOCK).meter()) as meter:
            await target.execute(a_call("use"), lease)
    assert lease.tokens == Tokens(7, 2)
    assert meter.spent is not None
    assert meter.spent.tokens == Tokens(7, 2)


async def test_usage_is_charged_to_who_asked() -> None:
    """One process works for many callers, and what each of them uses is metered for that one, also
    while another waits in it. (S0-60, K-05)"""
    metering = Metering(PriceList(), CLOCK)
    async with worker("tests.worked:plain") as target:

        async def used_by(times: int) -> int:
            with metered(metering.meter()) as meter:
                for _ in range(times):
                    await run(target, "use")
            return 0 if meter.spent is None else meter.spent.tokens.input

        with metered(metering.meter()) as first:
            assert await run(target, "pid") in target.processes
            assert await asyncio.gather(*(used_by(times) for times in (1, 2, 3))) == [7, 14, 21]
        assert first.spent is None


async def probed_twice(target: Worker) -> None:
    """What was sent before the first has begun at the second."""
    await target.probe()
    await target.probe()


async def test_a_probe_finds_what_is_stuck(monkeypatch: pytest.MonkeyPatch) -> None:
    """A process whose event loop is held up does not answer a probe, and one that is free does.
    (S0-79)"""
    async with worker("tests.worked:blocked", grace_s=0.0) as target:
        await target.probe()
        task = asyncio.create_task(run(target, "x"))
        await until(lambda: target.in_flight == 1)
        with monkeypatch.context() as patched:
            patched.setattr("paceline.instances.worker.PROBE_S", 0.2)
            with pytest.raises(PacelineError, match="does not answer"):
                await probed_twice(target)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await until(lambda: not target.processes)
        await target.probe()


async def test_outside_its_block_it_is_closed() -> None:
    """Before it is entered it says so, and twice at once it is not entered."""
    target = worker()
    assert isinstance(await error_of(target), RuntimeClosedError)
    async with target:
        with pytest.raises(ConfigError, match="open already"):
            await target.__aenter__()


async def test_leaving_while_it_starts_leaves_nothing() -> None:
    """A process that is just being started when the target is left is gone too."""
    target = worker()
    async with target:
        task = asyncio.create_task(run(target))
        await until(lambda: bool(target.processes))
        started = target.processes
    assert all(map(gone, started))
    assert isinstance((await asyncio.gather(task, return_exceptions=True))[0], PacelineError)
