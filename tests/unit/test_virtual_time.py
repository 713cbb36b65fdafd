"""Virtual time: it jumps to the next timer, keeps their order, and waits for real threads."""

import asyncio
import socket
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from paceline.testing import virtual_time
from paceline.testing.virtual_time import VirtualClock, VirtualTimeLoop


@given(st.lists(st.integers(0, 10**6), max_size=8))
def test_timers_fire_in_order_at_their_time(delays: list[int]) -> None:
    """Every sleep ends at its exact moment, the earliest first, however long they are."""
    woke: list[float] = []

    async def sleep(delay: int) -> None:
        await asyncio.sleep(delay)
        assert asyncio.get_running_loop().time() == pytest.approx(delay)
        woke.append(delay)

    async def main() -> None:
        await asyncio.gather(*(sleep(delay) for delay in delays))

    virtual_time.run(main())
    assert woke == sorted(delays)


def test_a_clock_on_another_loop_is_moved_by_hand_alone() -> None:
    """A virtual clock does not tell how long the machine has been running, in no loop nor thread."""
    clock = VirtualClock()
    clock.advance(5)

    async def main() -> tuple[int, int]:
        return clock.monotonic_ns(), await asyncio.to_thread(clock.monotonic_ns)

    assert asyncio.run(main()) == (5_000_000_000, 5_000_000_000)


def test_a_timeout_is_virtual_too() -> None:
    """`asyncio.timeout` follows the same time."""

    async def main() -> float:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(3_600):
                await asyncio.Event().wait()
        return asyncio.get_running_loop().time()

    assert virtual_time.run(main()) == pytest.approx(3_600)


def test_time_stands_still_while_something_can_go_on() -> None:
    """Tasks that are ready run before any time passes."""

    async def main() -> float:
        for _ in range(1_000):
            await asyncio.sleep(0)
        return asyncio.get_running_loop().time()

    assert virtual_time.run(main()) == 0


def test_time_stands_still_for_held_threads() -> None:
    """While work in a thread is held, timers wait for it."""
    release = threading.Event()

    async def main() -> list[str]:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, VirtualTimeLoop)
        order: list[str] = []

        def work() -> None:
            release.wait()
            loop.call_soon_threadsafe(order.append, "thread")

        async def timer() -> None:
            await asyncio.sleep(0.001)
            order.append("timer")

        future = loop.run_in_executor(None, work)
        loop.hold(future)
        task = asyncio.create_task(timer())
        await asyncio.sleep(0)
        loop.call_soon(release.set)
        await asyncio.gather(future, task)
        return order

    assert virtual_time.run(main()) == ["thread", "timer"]


def test_sockets_still_work() -> None:
    """Data that comes over a socket is read, whatever timers there are."""

    async def main() -> bytes:
        here, there = socket.socketpair()
        reader, writer = await asyncio.open_connection(sock=here)
        there.sendall(b"hello")
        there.close()
        data = await reader.read()
        writer.close()
        await writer.wait_closed()
        return data

    assert virtual_time.run(main()) == b"hello"


def test_the_clock_follows_the_loop() -> None:
    """On the loop the clock is the loop's; `advance` moves it on, anywhere."""
    clock = VirtualClock()
    assert (clock.monotonic_ns(), clock.wall_ns()) == (0, VirtualClock.EPOCH_NS)
    clock.advance(1.5)
    assert clock.monotonic_ns() == 1_500_000_000

    async def main() -> int:
        await asyncio.sleep(2)
        return clock.monotonic_ns()

    assert virtual_time.run(main()) == 3_500_000_000
    assert clock.wall_ns() - VirtualClock.EPOCH_NS == clock.monotonic_ns() == 1_500_000_000


async def test_tests_cannot_sleep_in_real_time() -> None:
    """A test that would wait in real time fails; letting others run is no waiting."""
    await asyncio.sleep(0)
    with pytest.raises(AssertionError, match="sleeps in real time"):
        await asyncio.sleep(0.001)
