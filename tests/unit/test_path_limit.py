"""Limits of time, in virtual time."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from paceline.path.limit import Limit, Limits
from paceline.testing.virtual_time import VirtualClock, run

CLOCK = VirtualClock()
Ended = list[tuple[float, str]]
SECONDS = st.integers(1, 8)


def _limit(limits: Limits, seconds: float) -> Limit:
    return Limit(limits, CLOCK.monotonic_ns() + round(seconds * 1e9))


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
    limits = Limits(CLOCK)
    mine = run(_ends(lambda seconds: _limit(limits, seconds), works))
    assert mine == run(_ends(asyncio.timeout, works))


def test_one_timer_serves_all() -> None:
    """A thousand limits at once, and those after them, leave one timer in the event loop."""

    async def main() -> None:
        limits, loop = Limits(CLOCK), asyncio.get_running_loop()
        set_before: list[float] = []
        call_at = loop.call_at

        def counted(when: float, *rest: object, **more: object) -> asyncio.TimerHandle:
            set_before.append(when)
            return call_at(when, *rest, **more)  # type: ignore[arg-type]

        loop.call_at = counted  # type: ignore[method-assign]
        for _ in range(1_000):
            with _limit(limits, 60.0):
                pass
        assert set_before == [60.0]

    run(main())


@pytest.mark.parametrize("first", ["inner", "outer"])
def test_the_limit_that_is_reached_raises(first: str) -> None:
    """Of two limits around each other the one that is reached raises, and no other one."""

    async def main() -> None:
        limits, raised = Limits(CLOCK), ""
        outer_s, inner_s = (1.0, 9.0) if first == "outer" else (9.0, 1.0)
        try:
            with _limit(limits, outer_s):
                try:
                    with _limit(limits, inner_s):
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
        limits = Limits(CLOCK)
        limit = _limit(limits, 5.0)
        task = asyncio.create_task(_within(limit, 100))
        await asyncio.sleep(1)
        task.cancel()
        limit.end()
        assert await task == "cancelled"

    run(main())


def test_work_that_comes_to_its_end_all_the_same_is_not_late() -> None:
    """What gives its value though its time is up gives it, and leaves no cancellation behind."""

    async def main() -> None:
        limit, reached = _limit(Limits(CLOCK), 1.0), False
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
            with _limit(Limits(CLOCK), seconds):
                begun = True
        assert not begun

    run(main())


def test_another_loop_begins_anew() -> None:
    """Limits of an event loop that is gone do not keep those of the next from being reached."""
    limits = Limits(CLOCK)

    async def begin() -> None:
        limit = _limit(limits, 1.0)
        task = asyncio.create_task(_within(limit, 100))
        await asyncio.sleep(0)
        task.cancel()
        await task

    async def reach() -> str:
        await asyncio.sleep(3)
        return await _within(_limit(limits, 1.0), 100)

    works: list[Callable[[], Awaitable[object]]] = [begin, reach]

    async def main(work: Callable[[], Awaitable[object]]) -> object:
        return await work()

    assert [run(main(work)) for work in works] == [None, "late"]


def _in(seconds: float) -> int:
    return CLOCK.monotonic_ns() + round(seconds * 1e9)


@pytest.mark.parametrize(("part_s", "late"), [(1.0, True), (9.0, False)])
def test_a_part_may_have_less_time(part_s: float, late: bool) -> None:
    """What takes longer than the part that it is may take is cancelled at its moment, which is said
    once, and what comes after has the rest of the time. (S1-20)"""

    async def main() -> None:
        loop, said, ended = asyncio.get_running_loop(), False, 0.0
        task = asyncio.current_task()
        assert task is not None

        async def work() -> None:
            nonlocal said, ended
            with _limit(Limits(CLOCK), 5.0) as limit:
                limit.narrow(_in(part_s))
                try:
                    await asyncio.sleep(2)
                except asyncio.CancelledError:
                    ended = loop.time()
                finally:
                    said = limit.widen()
                assert not task.cancelling()
                assert not limit.widen()
                await asyncio.sleep(100)

        with pytest.raises(TimeoutError):
            await work()
        assert (said, ended, loop.time()) == (late, 1.0 if late else 0.0, 5.0)
        assert not task.cancelling()

    run(main())


def test_a_part_cannot_have_more_time() -> None:
    """A part that might take longer than all together is ended with it, and not as late."""

    async def main() -> None:
        said = True

        async def work() -> None:
            nonlocal said
            with _limit(Limits(CLOCK), 2.0) as limit:
                limit.narrow(_in(9.0))
                try:
                    await asyncio.sleep(100)
                finally:
                    said = limit.widen()

        with pytest.raises(TimeoutError):
            await work()
        assert not said
        assert asyncio.get_running_loop().time() == 2.0

    run(main())


def test_a_part_whose_task_is_cancelled_is_not_late() -> None:
    """A cancellation of the task in the moment in which a part is late passes as one."""

    async def main() -> None:
        said = True

        async def work() -> None:
            nonlocal said
            with Limit(Limits(CLOCK)) as limit:
                limit.narrow(_in(1.0))
                try:
                    await asyncio.sleep(100)
                finally:
                    said = limit.widen()

        task = asyncio.create_task(work())
        asyncio.get_running_loop().call_later(1.0, task.cancel)
        with pytest.raises(asyncio.CancelledError):
            await task
        assert not said

    run(main())


def test_a_part_that_tidies_up_has_no_more_time_than_all() -> None:
    """What was ended as late and goes on is ended once more when the time of all is up, as timeouts
    within each other are (S1-20)."""

    async def main() -> None:
        said = True

        async def work() -> None:
            nonlocal said
            with _limit(Limits(CLOCK), 2.0) as limit:
                limit.narrow(_in(1.0))
                try:
                    await asyncio.sleep(100)
                finally:
                    try:
                        await asyncio.sleep(30)
                    finally:
                        said = limit.widen()

        with pytest.raises(TimeoutError):
            await work()
        assert not said
        assert asyncio.get_running_loop().time() == 2.0
        task = asyncio.current_task()
        assert task is not None
        assert not task.cancelling()

    run(main())


def test_what_is_closed_while_a_part_tidies_up_does_not_go_on() -> None:
    """A limit that is told to end while a part of it is being ended as late ends all of it, as a
    cancellation."""

    async def main() -> None:
        limits, said = Limits(CLOCK), True
        tidied = asyncio.Event()

        async def work() -> None:
            nonlocal said
            with Limit(limits) as limit:
                limit.narrow(_in(1.0))
                try:
                    await asyncio.sleep(100)
                finally:
                    await asyncio.sleep(2)
                    tidied.set()
                    said = limit.widen()

        task = asyncio.create_task(work())
        await asyncio.sleep(2)
        await limits.close()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert tidied.is_set()
        assert not said
        with pytest.raises(asyncio.CancelledError), Limit(limits):
            pytest.fail("nothing begins once it is closed")

    run(main())
