"""Threads for synchronous agents."""

import asyncio
import contextvars
import threading
from collections.abc import AsyncIterator, Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from paceline.agents import threads as threads_module
from paceline.agents.threads import ThreadPool
from paceline.balance.gate import Gate
from paceline.call import Priority
from paceline.errors import RuntimeClosedError
from paceline.testing import virtual_time

who: contextvars.ContextVar[str] = contextvars.ContextVar("who", default="nobody")

NOTHING: dict[str, int] = {}


def a_pool(threads: int) -> ThreadPool:
    """Threads with a gate of their own."""
    return ThreadPool(Gate("the threads", threads, 1_000))


class Blocked:
    """A function that a test holds until it lets it go."""

    def __init__(self) -> None:
        self.loop = asyncio.get_running_loop()
        self.started = asyncio.Event()
        self.go = threading.Event()
        self.ended = asyncio.Event()

    def __call__(self) -> str:
        self.loop.call_soon_threadsafe(self.started.set)
        self.go.wait()
        self.loop.call_soon_threadsafe(self.ended.set)
        return "done"


@pytest.fixture
async def blocked() -> AsyncIterator[Callable[[], Blocked]]:
    made: list[Blocked] = []

    def make() -> Blocked:
        made.append(Blocked())
        return made[-1]

    yield make
    for function in made:
        function.go.set()
        if function.started.is_set():
            await function.ended.wait()


async def test_the_loop_goes_on_while_a_function_runs(blocked) -> None:
    """A synchronous function does not hold up the event loop: the loop can end its wait. (S1-25)"""
    pool = a_pool(1)
    function = blocked()
    task = asyncio.create_task(pool.run(function))
    await function.started.wait()
    assert pool.in_use == 1
    function.go.set()
    assert await task == "done"
    assert pool.in_use == 0
    pool.close()


async def test_values_errors_and_arguments_pass_through() -> None:
    """The value and every exception arrive as they are, StopIteration and SystemExit included."""
    pool = a_pool(2)
    assert await pool.run(divmod, 7, 2) == (3, 1)
    assert await pool.run(NOTHING.get, "x") is None
    with pytest.raises(ZeroDivisionError):
        await pool.run(lambda: 1 / 0)
    with pytest.raises(RuntimeError, match="StopIteration"):
        await pool.run(lambda: next(iter(())))

    def leave():
        raise SystemExit(3)

    with pytest.raises(SystemExit):
        await pool.run(leave)
    assert await pool.run(lambda: "alive") == "alive"
    pool.close()


async def test_the_callers_context_is_seen_and_kept() -> None:
    """A function sees its caller's context variables; what it sets stays with it."""
    pool = a_pool(1)
    who.set("ada")

    def change() -> str:
        before = who.get()
        who.set("bob")
        return before

    assert await pool.run(change) == "ada"
    assert who.get() == "ada"
    assert await pool.run(change) == "ada"
    pool.close()


async def test_no_more_than_the_limit_at_once(blocked) -> None:
    """With all threads taken the next function waits, and starts in the order of arrival."""
    pool = a_pool(2)
    held = [blocked() for _ in range(2)]
    tasks = [asyncio.create_task(pool.run(function)) for function in held]
    for function in held:
        await function.started.wait()
    order: list[int] = []
    waiting = [asyncio.create_task(pool.run(order.append, number)) for number in range(5)]
    await asyncio.sleep(0)
    assert pool.in_use == 2
    assert not order
    held[0].go.set()
    await asyncio.gather(*waiting)
    assert order == [0, 1, 2, 3, 4]
    held[1].go.set()
    assert await asyncio.gather(*tasks) == ["done", "done"]
    pool.close()


async def test_a_cancelled_caller_leaves_and_its_thread_keeps_the_place(blocked) -> None:
    """A cancelled caller goes at once, and the place is taken until the function ends. (S1-25)"""
    pool = a_pool(1)
    function = blocked()
    task = asyncio.create_task(pool.run(function))
    await function.started.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert pool.in_use == 1
    later = asyncio.create_task(pool.run(lambda: "next"))
    await asyncio.sleep(0)
    assert not later.done()
    function.go.set()
    assert await later == "next"
    pool.close()


async def test_what_is_cancelled_while_it_waits_never_runs(blocked) -> None:
    """A caller that is cancelled before a thread was free has started nothing."""
    pool = a_pool(1)
    function = blocked()
    task = asyncio.create_task(pool.run(function))
    await function.started.wait()
    ran: list[int] = []
    waiting = asyncio.create_task(pool.run(ran.append, 1))
    await asyncio.sleep(0)
    waiting.cancel()
    await asyncio.wait([waiting])
    function.go.set()
    await task
    await pool.run(ran.append, 2)
    assert ran == [2]
    pool.close()


async def test_closing_waits_for_nobody(blocked) -> None:
    """close returns though a function hangs, refuses who waits and who comes, and still lets what
    runs deliver."""
    pool = a_pool(1)
    function = blocked()
    running = asyncio.create_task(pool.run(function))
    await function.started.wait()
    waiting = asyncio.create_task(pool.run(lambda: 1))
    await asyncio.sleep(0)
    pool.close()
    with pytest.raises(RuntimeClosedError):
        await waiting
    with pytest.raises(RuntimeClosedError):
        await pool.run(lambda: 1)
    function.go.set()
    assert await running == "done"


async def test_threads_end_when_the_pool_is_closed() -> None:
    """After close idle threads end; all are daemons, so that none keeps the process."""
    before = set(threading.enumerate())
    pool = a_pool(4)
    await asyncio.gather(*(pool.run(str, number) for number in range(20)))
    mine = set(threading.enumerate()) - before
    assert 1 <= len(mine) <= 4
    assert all(thread.daemon for thread in mine)
    pool.close()
    for thread in mine:
        thread.join(20)
    assert not any(thread.is_alive() for thread in mine)


def test_a_loop_that_is_gone_harms_nobody() -> None:
    """A function whose loop was closed meanwhile ends quietly, and its thread serves other loops."""
    pool = a_pool(1)
    go, entered = threading.Event(), threading.Event()

    def wait() -> None:
        entered.set()
        go.wait()

    async def leave() -> None:
        task = asyncio.create_task(pool.run(wait))
        await asyncio.to_thread(entered.wait)
        task.cancel()

    async def use() -> str:
        return await pool.run(lambda: "again")

    asyncio.run(leave())
    go.set()
    assert asyncio.run(use()) == "again"
    pool.close()


def test_virtual_time_can_be_held_for_a_thread() -> None:
    """On the virtual loop a test can hold time for a function, and a timeout can leave one that
    hangs behind."""
    hang = threading.Event()

    async def main() -> float:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, virtual_time.VirtualTimeLoop)
        pool = a_pool(1)
        task = asyncio.create_task(pool.run(lambda: sum(range(100_000))))
        loop.hold(task)
        async with asyncio.timeout(0.001):
            await task
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(3600):
                await pool.run(hang.wait)
        pool.close()
        return loop.time()

    assert virtual_time.run(main()) == pytest.approx(3600)
    hang.set()


def _threads_for(pool: ThreadPool, functions: int) -> int:
    """How many threads a pool starts for so many functions, none of which ends before all came."""
    before = set(threading.enumerate())
    go = threading.Event()

    async def main() -> int:
        tasks = [asyncio.create_task(pool.run(go.wait)) for _ in range(functions)]
        await asyncio.sleep(0)
        started = set(threading.enumerate()) - before
        go.set()
        await asyncio.gather(*tasks)
        return len(started)

    number = asyncio.run(main())
    pool.close()
    return number


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 5), st.integers(1, 12))
def test_as_many_threads_as_needed_and_allowed(limit: int, functions: int) -> None:
    """So many functions that block get a thread each, up to `max_threads`."""
    assert _threads_for(a_pool(limit), functions) == min(limit, functions)


def test_a_pool_without_a_limit_is_caught(monkeypatch) -> None:
    """The law above fails for a pool that starts a thread for everybody."""
    monkeypatch.setattr(threads_module, "min", max, raising=False)
    pool = a_pool(3)
    monkeypatch.setattr(pool, "max_threads", 12)
    assert _threads_for(pool, 12) == 12


async def test_cancelled_calls_take_no_thread_with_them() -> None:
    """Calls cancelled while they wait for a thread leave every thread to those who come after."""
    pool = a_pool(2)
    for _ in range(200):
        calls = [asyncio.create_task(pool.run(lambda: None)) for _ in range(4)]
        await asyncio.sleep(0)
        for call in calls:
            call.cancel()
        await asyncio.wait(calls)
    assert await pool.run(lambda: "done") == "done"
    for _ in range(1_000):
        if pool.gate.capacity == 2:
            break
        await asyncio.to_thread(lambda: None)
    assert pool.gate.capacity == 2
    pool.close()


async def test_a_thread_that_cannot_be_started_is_not_counted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """When the system has no thread left, the call fails, and later ones get their threads."""

    def refuse(_: object) -> None:
        raise RuntimeError("can't start new thread")

    pool = a_pool(1)
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", refuse)
        with pytest.raises(RuntimeError):
            await pool.run(lambda: None)
    assert await pool.run(lambda: "done") == "done"
    pool.close()


async def test_who_waits_for_a_thread_grows_urgent_by_the_clock_given() -> None:
    """In the queue for threads age counts by the runtime's clock and its settings. (S2-36)"""
    clock, order = virtual_time.VirtualClock(), list[str]()
    pool = ThreadPool(Gate("the threads", 1, 9, clock=clock, ageing_s=3.0))

    async def enter(name: str, priority: Priority) -> None:
        await pool.gate.enter(priority)
        order.append(name)
        pool.gate.leave()

    await pool.gate.enter()
    old = asyncio.create_task(enter("old", Priority.LOW))
    await asyncio.sleep(0)
    clock.advance(3.1)
    new = asyncio.create_task(enter("new", Priority.NORMAL))
    await asyncio.sleep(0)
    pool.gate.leave()
    await asyncio.gather(old, new)
    assert order == ["old", "new"]
