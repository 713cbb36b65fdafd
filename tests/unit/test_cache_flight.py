"""Single-flight: one does the work, all get it, and nobody is hurt by another's leaving."""

import asyncio
import contextlib
import contextvars
import gc
import os
import threading
import weakref
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from paceline.cache.flight import SingleFlight, ThreadFlight
from paceline.testing.virtual_time import run

Make = Callable[[], Coroutine[Any, Any, str]]


class _Work:
    """Work that takes a second, and what became of it."""

    def __init__(self, error: Exception | None = None) -> None:
        self.started = self.finished = self.cancelled = 0
        self.error = error

    async def __call__(self) -> str:
        self.started += 1
        try:
            await asyncio.sleep(1)
        except asyncio.CancelledError:
            await asyncio.sleep(0.1)  # tidying up
            self.cancelled += 1
            raise
        self.finished += 1
        if self.error is not None:
            raise self.error
        return f"result {self.started}"


async def _settle(tasks: list[asyncio.Task[Any]]) -> list[Any]:
    return await asyncio.gather(*tasks, return_exceptions=True)


def test_many_callers_one_execution() -> None:
    """Fifty callers at once run the work once; one leads, the others are told they joined.
    (S0-41)"""

    async def main() -> None:
        flight = SingleFlight[str, str]()
        work = _Work()
        got = await asyncio.gather(*[flight.run("k", work) for _ in range(50)])
        assert work.started == 1
        assert sorted(got) == [("result 1", False), *[("result 1", True)] * 49]
        assert len(flight) == 0

    run(main())


def test_keys_fly_alone() -> None:
    """Work for different keys, and work for one key after the other, is not shared."""

    async def main() -> None:
        flight = SingleFlight[str, str]()
        work = _Work()
        await asyncio.gather(flight.run("a", work), flight.run("b", work))
        await flight.run("a", work)
        assert work.finished == 3

    run(main())


def test_an_error_reaches_every_waiter() -> None:
    """What the work raises reaches all who wait, and the next caller starts anew. (S0-41)"""

    async def main() -> None:
        flight = SingleFlight[str, str]()
        work = _Work(OSError("broken"))
        tasks = [asyncio.create_task(flight.run("k", work)) for _ in range(20)]
        assert [str(exc) for exc in await _settle(tasks)] == ["broken"] * 20
        assert work.started == 1
        work.error = None
        assert await flight.run("k", work) == ("result 2", False)

    run(main())


async def _leave(flight: Any, leavers: list[int], after_s: float, callers: int) -> _Work:
    """Callers of one key, of which some are cancelled after a time; the others must be served."""
    work = _Work()
    tasks = [asyncio.create_task(flight.run("k", work)) for _ in range(callers)]
    await asyncio.sleep(after_s)
    for leaver in leavers:
        tasks[leaver].cancel()
    got = await _settle(tasks)
    for number, result in enumerate(got):
        if number in leavers:
            assert isinstance(result, asyncio.CancelledError)
        else:
            assert result == ("result 1", number > 0)
    if len(leavers) == callers:
        assert (work.finished, work.cancelled) == (0, work.started)
    else:
        assert (work.started, work.finished, work.cancelled) == (1, 1, 0)
    assert len(flight) == 0
    return work


@settings(max_examples=40, deadline=None)
@given(st.sets(st.integers(0, 3)), st.sampled_from([0, 0.5]))
def test_who_leaves_disturbs_nobody(leavers: set[int], after_s: float) -> None:
    """Whoever is cancelled, the first caller included, the work goes on for those who stay; if
    all leave, it is cancelled and has ended before the last one is gone. (S0-41)"""
    run(_leave(SingleFlight[str, str](), sorted(leavers), after_s, 4))


def test_leaving_at_every_await() -> None:
    """A first caller cancelled at any step of the event loop leaves the second its result."""

    async def main(steps: int) -> None:
        flight = SingleFlight[str, str]()
        reached: list[str] = []

        async def make() -> str:
            for _ in range(4):
                await asyncio.sleep(0)
            reached.append("end")
            return "result"

        first = asyncio.create_task(flight.run("k", make))
        second = asyncio.create_task(flight.run("k", make))
        for _ in range(steps):
            await asyncio.sleep(0)
        first.cancel()
        await _settle([first])
        assert (await second)[0] == "result"
        assert reached == ["end"]

    for steps in range(10):
        run(main(steps))


class _LeaderOwned:
    """The usual bug: the work is the first caller's, and dies with it."""

    def __init__(self) -> None:
        self.futures: dict[str, asyncio.Future[str]] = {}

    def __len__(self) -> int:
        return len(self.futures)

    async def run(self, key: str, make: Make) -> tuple[str, bool]:
        if key in self.futures:
            return await self.futures[key], True
        future = self.futures[key] = asyncio.get_running_loop().create_future()
        try:
            value = await make()
        except asyncio.CancelledError:
            future.cancel()
            raise
        finally:
            del self.futures[key]
        future.set_result(value)
        return value, False


class _Orphaning:
    """Work that nobody waits for goes on."""

    def __init__(self) -> None:
        self.tasks: dict[str, asyncio.Task[str]] = {}

    def __len__(self) -> int:
        return 0

    async def run(self, key: str, make: Make) -> tuple[str, bool]:
        joined = key in self.tasks
        if not joined:
            self.tasks[key] = asyncio.create_task(make())
        return await asyncio.shield(self.tasks[key]), joined


class _Unshielded(_Orphaning):
    """Any waiter's cancellation reaches the work."""

    async def run(self, key: str, make: Make) -> tuple[str, bool]:
        joined = key in self.tasks
        if not joined:
            self.tasks[key] = asyncio.create_task(make())
        return await self.tasks[key], joined


@pytest.mark.parametrize(
    ("bug", "leavers"), [(_LeaderOwned, [0]), (_Orphaning, [0, 1, 2, 3]), (_Unshielded, [2])]
)
def test_the_usual_bugs_are_caught(bug: type[Any], leavers: list[int]) -> None:
    """The check of leaving fails for work owned by its leader, for orphaned work and for work
    that a waiter's cancellation reaches."""
    with pytest.raises(AssertionError):
        run(_leave(bug(), leavers, 0.5, 4))


def test_who_comes_while_work_is_being_abandoned_starts_anew() -> None:
    """A caller never joins work that is being cancelled."""

    async def main() -> None:
        flight = SingleFlight[str, str]()
        work = _Work()
        first = asyncio.create_task(flight.run("k", work))
        await asyncio.sleep(0.5)
        first.cancel()
        await asyncio.sleep(0.05)  # the work is tidying up
        assert await flight.run("k", work) == ("result 2", False)
        assert first.cancelled()
        assert work.cancelled == 1

    run(main())


def test_an_impatient_leaver_may_go() -> None:
    """A second cancellation ends the wait for abandoned work, which still ends by itself."""

    async def main() -> None:
        flight = SingleFlight[str, str]()
        work = _Work()
        task = asyncio.create_task(flight.run("k", work))
        await asyncio.sleep(0.5)
        task.cancel()
        await asyncio.sleep(0.05)
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
        assert work.cancelled == 0
        await flight.close()
        assert work.cancelled == 1

    run(main())


def test_a_deadline_of_one_caller_is_its_own() -> None:
    """A caller's time-out ends its waiting and nothing else."""

    async def main() -> None:
        flight = SingleFlight[str, str]()
        work = _Work()

        async def hasty() -> None:
            async with asyncio.timeout(0.5):
                await flight.run("k", work)

        hurried = asyncio.create_task(hasty())
        await asyncio.sleep(0)
        assert await flight.run("k", work) == ("result 1", True)
        with pytest.raises(TimeoutError):
            await hurried

    run(main())


def test_a_flight_can_be_looked_at() -> None:
    """`joinable` is the very work that `run` would join on this loop, and nothing before, after or
    on another loop."""

    async def main() -> None:
        flight = SingleFlight[str, str]()
        work = _Work()
        assert flight.joinable("k") is None
        task = asyncio.create_task(flight.run("k", work))
        await asyncio.sleep(0.5)
        assert flight.joinable("k") is work
        assert flight.joinable("other") is None
        assert await asyncio.to_thread(asyncio.run, _look(flight)) is None
        assert await task == ("result 1", False)
        assert flight.joinable("k") is None
        task = asyncio.create_task(flight.run("k", work))
        await asyncio.sleep(0.5)
        task.cancel()
        await asyncio.sleep(0.05)  # it is being abandoned
        assert flight.joinable("k") is None
        await _settle([task])

    async def _look(flight: SingleFlight[str, str]) -> Make | None:
        return flight.joinable("k")

    run(main())


def test_closing_cancels_everything() -> None:
    """close cancels all work, waits for its end, and every waiter gets CancelledError, as does
    who comes later."""

    async def main() -> None:
        flight = SingleFlight[str, str]()
        work = _Work()
        tasks = [asyncio.create_task(flight.run(key, work)) for key in "aab"]
        await asyncio.sleep(0.5)
        await flight.close()
        assert (work.started, work.cancelled) == (2, 2)
        assert all(isinstance(r, asyncio.CancelledError) for r in await _settle(tasks))
        late = asyncio.create_task(flight.run("a", work))
        await _settle([late])
        assert late.cancelled()
        assert work.started == 2

    run(main())


def test_the_work_sees_the_leaders_context() -> None:
    """Context variables in the work are those of who came first, and changes stay inside."""
    variable = contextvars.ContextVar("variable", default="nobody")

    async def main() -> None:
        flight = SingleFlight[str, str]()

        async def make() -> str:
            await asyncio.sleep(1)
            seen = variable.get()
            variable.set("work")
            return seen

        async def caller(name: str) -> tuple[str, str]:
            variable.set(name)
            value, _ = await flight.run("k", make)
            return value, variable.get()

        got = await asyncio.gather(caller("first"), caller("second"))
        assert list(got) == [("first", "first"), ("first", "second")]

    run(main())


def test_loops_do_not_share_work() -> None:
    """One flight serves event loops in turn and in several threads, each with its own work."""
    flight = SingleFlight[str, str]()
    results: list[Any] = []

    async def main() -> None:
        work = _Work()
        results.append((await asyncio.gather(*[flight.run("k", work)] * 1), work.started))

    def thread() -> None:
        run(main())

    threads = [threading.Thread(target=thread) for _ in range(4)]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    thread()
    assert results == [([("result 1", False)], 1)] * 5


class _ThreadWork:
    """Work of threads that waits until it is let go."""

    def __init__(self, error: BaseException | None = None) -> None:
        self.started = 0
        self.at_work = threading.Event()
        self.go = threading.Event()
        self.error = error

    def __call__(self) -> str:
        self.started += 1
        self.at_work.set()
        assert self.go.wait(30)
        error, self.error = self.error, None
        if error is not None:
            raise error
        return "result"


def _threads(flight: ThreadFlight[str, str], work: _ThreadWork, count: int) -> list[Any]:
    got: list[Any] = []

    def call() -> None:
        try:
            got.append(flight.run("k", work))
        except BaseException as exc:  # noqa: BLE001 (what the thread got is what is tested)
            got.append(exc)

    threads = [threading.Thread(target=call) for _ in range(count)]
    threads[0].start()
    assert work.at_work.wait(30)
    for thread in threads[1:]:
        thread.start()
    work_of: Any = flight._works["k"]
    while work_of.gate is None or len(work_of.gate._cond._waiters) < count - 1:
        os.sched_yield()
    work.go.set()
    for thread in threads:
        thread.join()
    return got


def test_threads_share_work() -> None:
    """Eight threads at once run the work once. (S0-41)"""
    work = _ThreadWork()
    got = _threads(ThreadFlight(), work, 8)
    assert work.started == 1
    assert sorted(got) == [("result", False), *[("result", True)] * 7]


def test_threads_share_an_error() -> None:
    """What the work raises reaches all threads that wait, and the next call starts anew."""
    flight = ThreadFlight[str, str]()
    work = _ThreadWork(OSError("broken"))
    got = _threads(flight, work, 4)
    assert [str(exc) for exc in got] == ["broken"] * 4
    assert flight.run("k", work) == ("result", False)


def test_a_thread_that_exits_hands_over() -> None:
    """If the thread at work is made to exit, the others do the work themselves."""
    work = _ThreadWork(SystemExit())
    got = _threads(ThreadFlight(), work, 4)
    assert [type(item) for item in got].count(SystemExit) == 1
    assert sorted(item[0] for item in got if isinstance(item, tuple)) == ["result"] * 3


def test_work_may_ask_for_its_own_key() -> None:
    """Work that calls itself in the same thread runs again and does not wait for itself."""
    flight = ThreadFlight[str, int]()

    def make(depth: int = 2) -> int:
        return 1 + flight.run("k", lambda: make(depth - 1))[0] if depth else 0

    assert flight.run("k", make) == (2, False)


def test_a_thousand_callers_one_execution() -> None:
    """A thousand callers at once run the work once, even if all but the last leave. (S0-41, D79,
    T5)"""

    async def main() -> None:
        flight = SingleFlight[str, str]()
        work = _Work()
        tasks = [asyncio.create_task(flight.run("k", work)) for _ in range(1_000)]
        await asyncio.sleep(0.5)
        for task in tasks[:-1]:
            task.cancel()
        assert await tasks[-1] == ("result 1", True)
        assert (work.started, work.finished, work.cancelled) == (1, 1, 0)

    run(main())


def test_work_that_never_began_keeps_nobody_waiting() -> None:
    """Work whose task is cancelled from outside before its first step cancels its waiters, and
    the next caller starts anew."""

    async def main() -> None:
        flight = SingleFlight[str, str]()
        work = _Work()
        waiters = [asyncio.create_task(flight.run("k", work)) for _ in range(2)]
        await asyncio.sleep(0)
        inner = next(iter(flight._flights.values())).task
        assert inner is not None
        inner.cancel()
        got = await _settle(waiters)
        assert all(isinstance(result, asyncio.CancelledError) for result in got)
        assert (work.started, len(flight)) == (0, 0)
        assert await flight.run("k", work) == ("result 1", False)

    run(main())


def test_work_behind_goes_on_without_waiters() -> None:
    """Work that was started for nobody is one flight: it can be joined, outlives those who joined
    and left, and what it raises hurts nobody."""

    async def main() -> None:
        flight = SingleFlight[str, str]()
        work = _Work()
        flight.start("k", work)
        flight.start("k", work)
        joiner = asyncio.create_task(flight.run("k", work))
        await asyncio.sleep(0.5)
        joiner.cancel()
        await _settle([joiner])
        await asyncio.sleep(1)
        assert (work.started, work.finished, work.cancelled) == (1, 1, 0)
        failing = _Work(OSError("broken"))
        flight.start("k", failing)
        await asyncio.sleep(2)
        assert (failing.started, len(flight), len(flight._strays)) == (1, 0, 0)

    run(main())


def test_a_forgotten_flight_serves_those_who_wait() -> None:
    """After `forget` who waits gets the old result, and who comes starts anew."""

    async def main() -> None:
        flight = SingleFlight[str, str]()
        old, new = _Work(), _Work()
        new.started = 1
        first = asyncio.create_task(flight.run("k", old))
        await asyncio.sleep(0.5)
        flight.forget("k")
        flight.forget("k")
        second = asyncio.create_task(flight.run("k", new))
        assert list(await asyncio.gather(first, second)) == [
            ("result 1", False),
            ("result 2", False),
        ]
        assert len(flight) == 0

    run(main())


def test_closing_ends_forgotten_work() -> None:
    """close cancels work that was forgotten, too, and waits for its end."""

    async def main() -> None:
        flight = SingleFlight[str, str]()
        work = _Work()
        waiter = asyncio.create_task(flight.run("k", work))
        await asyncio.sleep(0.5)
        flight.forget("k")
        await flight.close()
        assert (work.finished, work.cancelled) == (0, 1)
        await _settle([waiter])
        assert waiter.cancelled()
        assert len(flight._strays) == 0

    run(main())


@pytest.mark.parametrize("kind", [None, OSError, SystemExit])
def test_a_flight_leaves_nothing_behind(kind: type[BaseException] | None) -> None:
    """Work that came to an end is freed at once, without the garbage collector, and none of what
    it raised is reported as never retrieved."""
    told: list[dict[str, Any]] = []

    class Result:
        """What can be watched."""

    async def main() -> "weakref.ref[Result]":
        asyncio.get_running_loop().set_exception_handler(lambda _, what: told.append(what))
        flight = SingleFlight[str, Result]()

        async def make() -> Result:
            if kind is not None:
                raise kind
            return Result()

        flight.start("k", make)
        if kind is not None:
            await asyncio.sleep(1)
            raise kind
        result, _ = await flight.run("k", make)
        return weakref.ref(result)

    gc.collect()
    gc.disable()
    try:
        if kind is None:
            assert run(main())() is None
        else:
            with contextlib.suppress(kind):
                run(main())
    finally:
        gc.enable()
    gc.collect()
    assert told == []


def test_an_eager_loop_is_served() -> None:
    """On a loop that runs tasks at once, work that does not wait gives its result all the same,
    and work that waits can be joined."""

    async def main() -> None:
        flight = SingleFlight[str, str]()
        factory = getattr(asyncio, "eager_task_factory", None)
        asyncio.get_running_loop().set_task_factory(factory)

        async def quick() -> str:
            return "quick"

        assert await flight.run("k", quick) == ("quick", False)
        work = _Work()
        got = await asyncio.gather(flight.run("k", work), flight.run("k", work))
        assert list(got) == [("result 1", False), ("result 1", True)]
        assert len(flight) == 0

    run(main())


def test_threads_may_forget_work() -> None:
    """Work of threads that is forgotten serves who waits; a second `make` is left alone."""
    flight = ThreadFlight[str, str]()
    seen: list[Any] = []

    def inner() -> str:
        return "new"

    def make() -> str:
        assert flight.joinable("k") is make
        flight.forget("k", inner)
        assert flight.joinable("k") is make
        flight.forget("k", make)
        seen.append(flight.run("k", inner))
        return "old"

    assert flight.run("k", make) == ("old", False)
    assert seen == [("new", False)]
    assert flight.joinable("k") is None
    assert len(flight) == 0
