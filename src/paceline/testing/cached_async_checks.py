"""What a caching decorator of async functions must do: twelve checks.

Each runs event loops of its own, so it is called where none runs.
"""

import asyncio
import functools
import threading
from collections.abc import Callable, Coroutine
from typing import Any, Final

from paceline.testing.cached_adapter import (
    FORMS,
    LOOKALIKES,
    NOTHINGS,
    PATIENCE_S,
    Adapter,
    at_once,
    live,
)

__all__ = [
    "ASYNC_CHECKS",
    "AsyncCheck",
    "a_cancelled_first_caller_hurts_nobody",
    "a_cancelled_waiter_hurts_nobody",
    "all_cancelled_ends_the_work",
    "any_event_loop_will_do",
    "async_calls_have_one_key",
    "async_dicts_can_be_arguments",
    "async_exceptions_are_not_kept",
    "async_nothing_is_a_result",
    "fifty_callers_share_one_call",
    "only_the_value_is_kept",
    "twenty_waiters_share_a_failure",
    "what_was_invalidated_in_flight_stays_away",
]

AsyncCheck = Callable[[Adapter], None]

_TURNS: Final = 50
_ENTRIES: Final = 200


class _Held:
    """A function that is decorated and waits inside until it is let go."""

    def __init__(self, adapter: Adapter, error: Exception | None = None) -> None:
        self.calls = 0
        self.cancelled = 0
        self.gate = asyncio.Event()
        self._adapter = adapter

        async def work(_: int) -> str:
            self.calls += 1
            try:
                await self.gate.wait()
            except asyncio.CancelledError:
                self.cancelled += 1
                raise
            if error is not None:
                raise error
            return "result"

        self.decorated = adapter.make(work)

    async def ask(self, callers: int) -> list["asyncio.Task[Any]"]:
        """So many callers, all of them waiting."""
        tasks = [asyncio.create_task(self._call()) for _ in range(callers)]
        await _let_run(self._adapter)
        return tasks

    async def answers(self, tasks: list["asyncio.Task[Any]"]) -> list[object]:
        """What the callers get once the work is let go."""
        await _let_run(self._adapter)
        self.gate.set()
        _, hanging = await asyncio.wait(tasks, timeout=PATIENCE_S)
        assert not hanging, f"{len(hanging)} of {len(tasks)} callers hang"
        return list(await asyncio.gather(*tasks, return_exceptions=True))

    async def _call(self) -> Any:
        return await self.decorated(1)


def _run(check: Callable[[Adapter], Coroutine[Any, Any, None]]) -> AsyncCheck:
    @functools.wraps(check)
    def run(adapter: Adapter) -> None:
        asyncio.run(check(adapter))

    return run


async def _let_run(adapter: Adapter) -> None:
    for _ in range(_TURNS):
        await asyncio.sleep(0)
    if adapter.pause_s:
        await asyncio.sleep(adapter.pause_s)


@_run
async def async_nothing_is_a_result(adapter: Adapter) -> None:
    """None, 0, "", [], {} and False are kept like any other result. (S0-34, T1)"""
    calls: list[int] = []

    async def work(number: int) -> Any:
        calls.append(number)
        return NOTHINGS[number]

    decorated = adapter.make(work)
    for number, value in enumerate(NOTHINGS):
        results = [await decorated(number), await decorated(number)]
        assert results == [value, value], f"{value!r} comes back as {results}"
        assert calls.count(number) == 1, f"{value!r} is not kept"


@_run
async def fifty_callers_share_one_call(adapter: Adapter) -> None:
    """Fifty callers that ask at once get the result of one call. (S0-41, T5, D79)"""
    held = _Held(adapter)
    results = await held.answers(await held.ask(50))
    assert results == ["result"] * 50, f"callers get {set(map(repr, results))}"
    assert held.calls == 1, f"{held.calls} calls"


@_run
async def a_cancelled_first_caller_hurts_nobody(adapter: Adapter) -> None:
    """When who asked first is cancelled, the others get the result of the one call. (S0-41, T5,
    D79)"""
    await _cancel_one(adapter, 0)


@_run
async def a_cancelled_waiter_hurts_nobody(adapter: Adapter) -> None:
    """When a waiter is cancelled, the others get the result of the one call. (S0-41)"""
    await _cancel_one(adapter, 2)


async def _cancel_one(adapter: Adapter, number: int) -> None:
    held = _Held(adapter)
    tasks = await held.ask(5)
    tasks[number].cancel()
    results = await held.answers(tasks)
    gone = results.pop(number)
    assert isinstance(gone, asyncio.CancelledError), f"who was cancelled gets {gone!r}"
    assert results == ["result"] * 4, f"the others get {results}"
    assert held.calls == 1, f"{held.calls} calls"


@_run
async def all_cancelled_ends_the_work(adapter: Adapter) -> None:
    """When all callers are cancelled the work is, too, and the next call works. (S0-41)"""
    held = _Held(adapter)
    tasks = await held.ask(5)
    for task in tasks:
        task.cancel()
    await _let_run(adapter)
    stopped = held.cancelled
    assert stopped == held.calls, "the work runs on though nobody waits"
    await asyncio.gather(*tasks, return_exceptions=True)
    (later,) = await held.answers(await held.ask(1))
    assert later == "result", f"the next caller gets {later!r}"


@_run
async def async_exceptions_are_not_kept(adapter: Adapter) -> None:
    """An exception reaches its caller, is not kept, and the next call works. (T15)"""
    calls: list[int] = []

    async def work(x: int) -> str:
        calls.append(x)
        if len(calls) == 1:
            raise ValueError("the first one fails")
        return "fine"

    decorated = adapter.make(work)
    results: list[object] = []
    for _ in range(3):
        try:
            async with asyncio.timeout(PATIENCE_S):
                results.append(await decorated(1))
        except Exception as exc:  # noqa: BLE001 (what the caller gets)
            results.append(exc)
    first, *later = results
    assert isinstance(first, ValueError), f"the first caller gets {first!r}"
    assert later == ["fine", "fine"], f"later callers get {later}"
    assert len(calls) == 2, f"{len(calls)} calls"


@_run
async def twenty_waiters_share_a_failure(adapter: Adapter) -> None:
    """The exception of the one call reaches all twenty who wait for it. (S0-41, D79)"""
    held = _Held(adapter, ValueError("all of you"))
    results = await held.answers(await held.ask(20))
    assert all(isinstance(result, ValueError) for result in results), f"callers get {results}"
    assert held.calls == 1, f"{held.calls} calls"


@_run
async def what_was_invalidated_in_flight_stays_away(adapter: Adapter) -> None:
    """What was computed before an invalidation is not served after it, whichever of the old and
    the new result comes in first. (S0-50)"""
    for order in ((1, 2), (2, 1)):
        await _invalidate_in_flight(adapter, order)


async def _invalidate_in_flight(adapter: Adapter, order: tuple[int, int]) -> None:
    version = 1
    gates = {1: asyncio.Event(), 2: asyncio.Event()}

    async def work(_: int) -> int:
        seen = version
        await gates[seen].wait()
        return seen

    decorated = adapter.make(work)

    async def ask() -> Any:
        return await decorated(1)

    tasks = [asyncio.create_task(ask())]
    await _let_run(adapter)
    version = 2
    await adapter.invalidate_async(decorated, 1)
    tasks.append(asyncio.create_task(ask()))
    await _let_run(adapter)
    for number in order:
        gates[number].set()
        await _let_run(adapter)
    _, hanging = await asyncio.wait(tasks, timeout=PATIENCE_S)
    assert not hanging, "callers hang"
    old, new = await asyncio.gather(*tasks, return_exceptions=True)
    assert old in (1, 2), f"who asked before gets {old!r}"
    kept = await asyncio.wait_for(ask(), PATIENCE_S)
    assert (new, kept) == (2, 2), f"who asks after gets version {new}, then {kept}, not 2"


def any_event_loop_will_do(adapter: Adapter) -> None:
    """Event loops in turn, and four at once in threads of their own with four callers each, get
    right results; no loop makes more than one call. (S0-41, S0-44)"""
    calls: list[int] = []
    barrier = threading.Barrier(4)

    async def work(x: int) -> str:
        calls.append(x)
        await asyncio.sleep(0.01)  # long enough for the other loops to come
        return f"result {x}"

    decorated = adapter.make(work)

    async def ask(x: int) -> Any:
        return await decorated(x)

    async def four() -> list[str]:
        return list(await asyncio.gather(*(ask(2) for _ in range(4))))

    def thread() -> list[str]:
        barrier.wait(PATIENCE_S)
        return asyncio.run(four())

    in_turn = [asyncio.run(ask(1)) for _ in range(2)]
    assert in_turn == ["result 1"] * 2, f"loops in turn get {in_turn}"
    at_a_time = at_once([thread] * 4)
    wrong = [result for result in at_a_time if result != ["result 2"] * 4]
    told = {type(got).__name__ if isinstance(got, Exception) else repr(got) for got in wrong}
    assert not wrong, f"{len(wrong)} of 4 loops at once get {', '.join(sorted(told))}"
    assert calls.count(1) <= 2, f"{calls.count(1)} calls for 2 loops in turn"
    assert calls.count(2) <= 4, f"{calls.count(2)} calls for 4 loops at once"


@_run
async def async_calls_have_one_key(adapter: Adapter) -> None:
    """Arguments that look alike are different calls, and all forms of one call are one. (S0-31,
    T4)"""
    calls: list[object] = []

    async def spell(x: Any) -> str:
        return repr(x)

    async def work(x: int, y: int = 2) -> int:
        calls.append(x)
        return x + y

    decorated = adapter.make(spell)
    mixed = {repr(x): found for x in LOOKALIKES if (found := await decorated(x)) != repr(x)}
    decorated = adapter.make(work)
    results = [await decorated(*args, **kwargs) for args, kwargs in FORMS]
    assert results == [3] * len(FORMS), f"results are {results}"
    told = [f"taken for one another: {mixed}"] if mixed else []
    told += [f"{len(FORMS)} forms of one call make {len(calls)} calls"] if len(calls) > 1 else []
    assert not told, "; ".join(told)


@_run
async def async_dicts_can_be_arguments(adapter: Adapter) -> None:
    """Dictionaries and lists are arguments like any other; equal ones are one call. (S0-31)"""
    calls: list[object] = []

    async def work(x: Any) -> int:
        calls.append(x)
        return len(calls)

    decorated = adapter.make(work)
    first = await decorated({"a": [1, 2], "b": {"c": None}})
    again = await decorated({"b": {"c": None}, "a": [1, 2]})
    assert again == first, "equal dictionaries are two calls"
    other = await decorated({"a": [1, 3], "b": {"c": None}})
    assert other != first, "different dictionaries are one call"


@_run
async def only_the_value_is_kept(adapter: Adapter) -> None:
    """What a caller does to its result no other sees, and no task is kept with it. (S0-42, T6)"""

    async def work(x: int) -> dict[str, list[int]]:
        return {"items": [x]}

    decorated = adapter.make(work)
    told: list[str] = []
    for _ in range(3):
        result = await decorated(-1)
        if result != {"items": [-1]}:
            told = [f"a later caller gets {result}"]
        result["items"].append(99)
    with live(asyncio.Task) as more:
        for number in range(_ENTRIES):
            await decorated(number)
        tasks = more()
    told += [f"{tasks} tasks are kept for {_ENTRIES} results"] if tasks > 5 else []
    assert not told, "; ".join(told)


ASYNC_CHECKS: Final[tuple[AsyncCheck, ...]] = (
    async_nothing_is_a_result,
    fifty_callers_share_one_call,
    a_cancelled_first_caller_hurts_nobody,
    a_cancelled_waiter_hurts_nobody,
    all_cancelled_ends_the_work,
    async_exceptions_are_not_kept,
    twenty_waiters_share_a_failure,
    what_was_invalidated_in_flight_stays_away,
    any_event_loop_will_do,
    async_calls_have_one_key,
    async_dicts_can_be_arguments,
    only_the_value_is_kept,
)
