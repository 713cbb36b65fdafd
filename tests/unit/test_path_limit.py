"""Limits of time, in virtual time."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from paceline.path.limit import Limit, Limits
from paceline.testing.virtual_time import run

Ended = list[tuple[float, str]]
SECONDS = st.integers(1, 8)


async def _within(limit: "Limit | asyncio.Timeout", takes_s: float) -> str:
    try:
        if isinstance(limit, Limit):
            with limit:
                await asyncio.sleep(takes_s)
        else:
            async with limit:
                await asyncio.sleep(takes_s)
    except TimeoutError:
        return "late"
    except asyncio.CancelledError:
        return "cancelled"
    return "done"


async def _ends(
    limit_of: Callable[[float], "Limit | asyncio.Timeout"], works: list[tuple[int, int, int]]
) -> Ended:
    """When and how each of these works, begun in turn, came to its end."""

    async def one(begins: int, limit_s: int, takes_s: int) -> tuple[float, str]:
        await asyncio.sleep(begins)
        # Never in the same moment as its limit, where either may be first.
        how = await _within(limit_of(limit_s), takes_s + 0.5)
        return asyncio.get_running_loop().time(), how

    return await asyncio.gather(*[one(*work) for work in works])


@given(st.lists(st.tuples(SECONDS, SECONDS, SECONDS), max_size=12))
def test_they_end_what_timeouts_end(works: list[tuple[int, int, int]]) -> None:
    """Many limits by one timer end the same work at the same moments as timers of their own.
    (S1-20)"""
    limits = Limits()
    mine = run(_ends(lambda seconds: Limit(limits, seconds), works))
    assert mine == run(_ends(asyncio.timeout, works))


def test_one_timer_serves_all() -> None:
    """A thousand limits at once, and those after them, leave one timer in the event loop."""

    async def main() -> None:
        limits, loop = Limits(), asyncio.get_running_loop()
        set_before: list[float] = []
        call_at = loop.call_at

        def counted(when: float, *rest: object) -> asyncio.TimerHandle:
            set_before.append(when)
            return call_at(when, *rest)  # type: ignore[arg-type]

        loop.call_at = counted  # type: ignore[method-assign,assignment]
        for _ in range(1_000):
            with Limit(limits, 60.0):
                pass
        assert set_before == [60.0]

    run(main())


@pytest.mark.parametrize("first", ["inner", "outer"])
def test_the_limit_that_is_reached_raises(first: str) -> None:
    """Of two limits around each other the one that is reached raises, and no other one."""

    async def main() -> None:
        limits, raised = Limits(), ""
        outer_s, inner_s = (1.0, 9.0) if first == "outer" else (9.0, 1.0)
        try:
            with Limit(limits, outer_s):
                try:
                    with Limit(limits, inner_s):
                        await asyncio.sleep(100)
                except TimeoutError:
                    raised = "inner"
        except TimeoutError:
            raised = "outer"
        assert raised == first
        task = asyncio.current_task()
        assert task is not None
        assert not task.cancelling()

    run(main())


def test_who_is_cancelled_is_not_late() -> None:
    """A cancellation passes as one, even in the moment the limit is reached."""

    async def main() -> None:
        limits = Limits()
        limit = Limit(limits, 5.0)
        task = asyncio.create_task(_within(limit, 100))
        await asyncio.sleep(1)
        task.cancel()
        limit.end()
        assert await task == "cancelled"

    run(main())


def test_work_that_comes_to_its_end_all_the_same_is_not_late() -> None:
    """What gives its value though its time is up gives it, and leaves no cancellation behind."""

    async def main() -> None:
        limit, reached = Limit(Limits(), 1.0), False
        with limit:
            try:
                await asyncio.sleep(100)
            except asyncio.CancelledError:
                reached = True
                limit.end()  # which was done already
        assert (reached, limit.ended) == (True, True)
        await asyncio.sleep(1)  # is not cancelled

    run(main())


@pytest.mark.parametrize("seconds", [0.0, -1.0])
def test_without_time_nothing_begins(seconds: float) -> None:
    """Without any time left the code inside does not begin. (S1-20)"""

    async def main() -> None:
        begun = False
        with pytest.raises(TimeoutError):  # noqa: SIM117 (what is inside is the point)
            with Limit(Limits(), seconds):
                begun = True
        assert not begun

    run(main())


def test_another_loop_begins_anew() -> None:
    """Limits of an event loop that is gone do not keep those of the next from being reached."""
    limits = Limits()

    async def begin() -> None:
        limit = Limit(limits, 1.0)
        task = asyncio.create_task(_within(limit, 100))
        await asyncio.sleep(0)
        task.cancel()
        await task

    async def reach() -> str:
        await asyncio.sleep(3)
        return await _within(Limit(limits, 1.0), 100)

    works: list[Callable[[], Awaitable[object]]] = [begin, reach]

    async def main(work: Callable[[], Awaitable[object]]) -> object:
        return await work()

    assert [run(main(work)) for work in works] == [None, "late"]
