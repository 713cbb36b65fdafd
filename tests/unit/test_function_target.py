"""A function of this process as the work of an instance."""

import asyncio
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from paceline.agents.threads import ThreadPool
from paceline.balance.gate import Gate
from paceline.call import Call
from paceline.errors import AgentError, CallTimeoutError, Category, ConfigError, PacelineError
from paceline.instances.function import FunctionTarget
from paceline.testing import virtual_time
from paceline.testing.target_suite import a_call, a_lease
from paceline.testing.virtual_time import VirtualClock

CLOCK = VirtualClock()


@asynccontextmanager
async def in_threads(function: Any) -> AsyncIterator[FunctionTarget]:
    """A synchronous function in two threads."""
    pool = ThreadPool(Gate("the threads", 2, 1_000))
    try:
        async with FunctionTarget.of(function, clock=CLOCK, threads=pool) as target:
            yield target
    finally:
        pool.close()


async def error_of(target: FunctionTarget, query: str = "q", **more: Any) -> PacelineError:
    """What a call fails with."""
    with pytest.raises(PacelineError) as caught:
        await target.execute(a_call(query, **more), a_lease(CLOCK))
    return caught.value


async def test_synchronous_functions_run_in_the_threads_given() -> None:
    """A synchronous function runs in one of the threads it was given, with query and context, and
    what it returns may be awaited. (K-04)"""

    def function(query: str, *, city: str) -> object:
        async def later() -> object:
            return query, city, here

        here = threading.current_thread() is threading.main_thread()
        return later()

    async with in_threads(function) as target:
        assert await target.execute(a_call("q", city="Oslo"), a_lease(CLOCK)) == (
            "q",
            "Oslo",
            False,
        )


def test_a_synchronous_function_needs_threads() -> None:
    """Without threads a synchronous function is refused, as it would hold up everything."""
    with pytest.raises(ConfigError, match="hold up"):
        FunctionTarget.of(len, clock=CLOCK)


@pytest.mark.parametrize(
    ("raises", "category"),
    [
        (ValueError("no"), Category.EXECUTION),
        (ConnectionResetError(), Category.NETWORK),
        (TimeoutError(), Category.TIMEOUT),
        (SystemExit(3), Category.EXECUTION),
        (AgentError("busy", category=Category.RATE_LIMIT), Category.RATE_LIMIT),
    ],
)
async def test_whatever_it_raises_is_one_of_our_errors(
    raises: BaseException, category: Category
) -> None:
    """What a function raises, an end of the program too, is an error with its category and cause,
    after which the work may have been done. (V-31)"""

    def function(query: str) -> object:
        raise raises

    async def asynchronous(query: str) -> object:
        raise raises

    async with in_threads(function) as target:
        errors = [await error_of(target)]
    async with FunctionTarget.of(asynchronous, clock=CLOCK) as target:
        errors.append(await error_of(target))
    for error in errors:
        assert (error.category, error.may_have_started) == (category, True)
        assert raises in {error, error.__cause__}


@pytest.mark.parametrize("trusted", [False, True])
async def test_who_is_trusted_knows_what_it_has_done(trusted: bool) -> None:
    """An error of ours that comes out of a function may be of what it called: only if it is trusted
    nothing has begun when the error says so. (S1-19)"""

    async def run(call: Call) -> object:
        raise AgentError("not reached", category=Category.NETWORK)

    async with FunctionTarget(run, clock=CLOCK, trusted=trusted) as target:
        assert (await error_of(target)).may_have_started is not trusted


def test_the_deadline_ends_it() -> None:
    """At its deadline a function is cancelled, on the clock it was given. (S1-20)"""
    cancelled = []

    async def function(query: str) -> object:
        try:
            await asyncio.sleep(3_600)
        except asyncio.CancelledError:
            cancelled.append(query)
            raise
        return query

    async def main() -> PacelineError:
        clock = VirtualClock()
        async with FunctionTarget.of(function, clock=clock) as target:
            return await error_of(target, deadline_ns=clock.monotonic_ns() + 5 * 10**9)

    error = virtual_time.run(main())
    assert isinstance(error, CallTimeoutError)
    assert "5 s" in error.message
    assert cancelled == ["q"]


async def test_it_is_always_there() -> None:
    """A probe of a function of this process finds nothing wrong. (S0-79)"""

    async def function(query: str) -> object:
        return query

    target = FunctionTarget.of(function, clock=CLOCK)
    await target.probe()
    assert await target.execute(a_call("q"), a_lease(CLOCK)) == "q"
