"""How long the targets of instances stay open."""

import asyncio

import pytest

from paceline import AgentInstance, Runtime
from paceline.testing.virtual_time import run as run_virtual
from tests.unit.far import Far, far_runtime, in_runtime


class Door(Far):
    """One that knows how often it was closed, and when."""

    def __init__(self, name: str, takes_s: float = 0.0, closing_s: float = 0.0) -> None:
        super().__init__(name, takes_s)
        self.closing_s = closing_s
        self.closed: list[float] = []

    async def __aexit__(self, *_: object) -> None:
        await asyncio.sleep(self.closing_s)
        self.closed.append(now())


def now() -> float:
    return asyncio.get_running_loop().time()


def test_what_is_unregistered_is_closed_when_its_last_call_has_ended() -> None:
    """The target of an instance that is unregistered while it works stays open until that is done,
    and is closed within a second, once. (S0-59, S0-64)"""
    a, b = Door("a", 5), Door("b", 5)

    async def steps(runtime: Runtime) -> None:
        call = asyncio.ensure_future(runtime.run("far", "q"))
        await asyncio.sleep(1)
        (busy,) = (door for door in (a, b) if door.calls)
        for door in (a, b):
            runtime.balancer.unregister("far", door.name)
        await asyncio.sleep(1)
        assert [door.closed for door in (a, b) if door is not busy] == [[pytest.approx(1, abs=1)]]
        assert (await call).ok
        assert (now(), busy.closed) == (5, [])
        await asyncio.sleep(1)
        assert len(busy.closed) == 1

    in_runtime(steps, a, b)
    assert (len(a.closed), len(b.closed)) == (1, 1)


def test_what_is_replaced_is_closed_when_it_does_nothing_more() -> None:
    """An instance that is registered anew with another target has the old one closed once nothing
    of before is in flight. (S0-64)"""
    old, new = Door("a", 5), Door("a", 1)

    async def steps(runtime: Runtime) -> None:
        call = asyncio.ensure_future(runtime.run("far", "q"))
        await asyncio.sleep(1)
        await runtime.add_instance(AgentInstance("a", "far", target=new))
        assert (await runtime.run("far", "another")).ok
        assert (len(new.calls), old.closed) == (1, [])
        assert (await call).ok
        await asyncio.sleep(1)
        assert (len(old.closed), new.closed) == (1, [])

    in_runtime(steps, old)
    assert (len(old.closed), len(new.closed)) == (1, 1)


def test_what_is_taken_out_and_put_back_stays_open() -> None:
    """The target of an instance that is registered again at once, as that or another, is not closed
    with what was unregistered. (S0-59, S0-64)"""
    a = Door("a")

    async def steps(runtime: Runtime) -> None:
        taken = runtime.balancer.unregister("far", "a")
        await runtime.add_instance(taken)
        await asyncio.sleep(2)
        runtime.balancer.unregister("far", "a")
        await runtime.add_instance(AgentInstance("a", "far", target=a))
        await asyncio.sleep(2)
        assert a.closed == []
        runtime.balancer.unregister("far", "a")
        await asyncio.sleep(2)
        assert len(a.closed) == 1

    in_runtime(steps, a)


def test_closing_waits_for_targets_that_are_closing() -> None:
    """A runtime that is closed while a target of before takes its time to close waits for that; all
    are closed once, those that were opened last first. (S0-64)"""
    doors = [Door("a", closing_s=9), Door("b"), Door("c", closing_s=1)]

    async def main() -> None:
        async with far_runtime(*doors) as runtime:
            runtime.balancer.unregister("far", "a")
            await asyncio.sleep(2)
            assert doors[0].closed == []
        assert [len(door.closed) for door in doors] == [1, 1, 1]
        assert doors[0].closed <= doors[2].closed <= doors[1].closed

    run_virtual(main())


def test_a_target_that_fails_to_close_is_noticed() -> None:
    """What goes wrong in closing the target of an instance that is gone is told, and harms nothing
    else. (S0-64)"""

    class Stuck(Door):
        async def __aexit__(self, *_: object) -> None:
            raise OSError("no such process")

    a, b = Stuck("a"), Door("b")

    async def steps(runtime: Runtime) -> None:
        runtime.balancer.unregister("far", "a")
        await asyncio.sleep(2)
        (told,) = runtime.notices
        assert told.startswith("instance a of far: closing it failed: OSError: no such process.")
        assert (await runtime.run("far", "q")).ok

    in_runtime(steps, a, b)
    assert len(b.closed) == 1
