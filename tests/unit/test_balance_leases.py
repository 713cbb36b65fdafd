"""Leases: held places, from the wait for one to its only end."""

import asyncio
import gc
from typing import Any

import pytest

from paceline.balance.balancer import LoadBalancer
from paceline.balance.gate import Gate, Ticket
from paceline.balance.instance import NEVER, AgentInstance
from paceline.balance.lease import Lease
from paceline.balance.request import Features, Needs, Request
from paceline.call import Priority, Tokens
from paceline.errors import (
    AgentError,
    Category,
    InvalidInputError,
    OverloadedError,
    PacelineError,
    Shortage,
    UnknownAgentError,
    UsageError,
)
from paceline.testing.virtual_time import VirtualClock, VirtualTimeLoop, run

NS = 1_000_000_000


class Shutter:
    """A guard that a test shuts."""

    reason = Shortage.CIRCUIT_OPEN

    def __init__(self) -> None:
        self.opens = 0
        self.refuses = False
        self.ends: list[Lease] = []

    def opens_ns(self) -> int:
        return self.opens

    def admit(self, request: Request) -> object | None:
        return None if self.refuses else self

    def ended(self, permit: object, lease: Lease) -> None:
        self.ends.append(lease)


def made(*capacities: int, **options: Any) -> LoadBalancer:
    balancer = LoadBalancer(clock=VirtualClock(), **options)
    for number, capacity in enumerate(capacities):
        balancer.register(AgentInstance(str(number), "ml", max_capacity=capacity))
    return balancer


def now() -> float:
    return asyncio.get_running_loop().time()


async def holding(balancer: LoadBalancer, seconds: float = 1, **options: Any) -> str:
    async with balancer.lease("ml", **options) as instance:
        await asyncio.sleep(seconds)
        return instance.id


# --- the end of a lease


def test_a_lease_ends_once() -> None:
    """A second release raises, counts nothing, and says what to do; on a lease as on what was
    acquired. (S0-65)"""
    balancer = made(5)
    lease, kept = balancer.try_lease("ml"), balancer.acquire("ml")
    lease.release()
    with pytest.raises(UsageError, match="released before"):
        lease.release()
    balancer.release(kept)
    for _ in range(3):
        with pytest.raises(UsageError, match="was not acquired, or was released before"):
            balancer.release(kept)
    with pytest.raises(UsageError):
        balancer.release(AgentInstance("x", "other"))
    assert kept.in_flight == 0


def test_a_lease_knows_what_it_took() -> None:
    """A lease has the moments of its start, first token and end, and the tokens. (S0-64, S0-65)"""
    balancer = made(1)
    clock = balancer._clock
    assert isinstance(clock, VirtualClock)
    clock.advance(10)
    lease = balancer.try_lease("ml")
    assert (lease.started_ns, lease.first_ns, lease.ended_ns, lease.took_ns) == (10 * NS, 0, 0, 0)
    clock.advance(2)
    lease.first_token()
    lease.used(Tokens(input=5))
    clock.advance(1)
    lease.release()
    lease.first_token()
    assert (lease.first_ns, lease.took_ns) == (12 * NS, 3 * NS)
    assert lease.tokens == Tokens(input=5)
    assert (lease.error, lease.abandoned, lease.expired) == (None, False, False)


@pytest.mark.parametrize(
    ("raised", "category", "abandoned"),
    [
        (None, None, False),
        (PacelineError("x", category=Category.NETWORK), Category.NETWORK, False),
        (AgentError("x"), Category.EXECUTION, False),
        (TimeoutError(), Category.TIMEOUT, False),
        (ConnectionResetError(), Category.NETWORK, False),
        (KeyError("x"), Category.EXECUTION, False),
        (InvalidInputError("x"), None, True),
        (OverloadedError("x"), None, True),
        (asyncio.CancelledError(), None, True),
        (KeyboardInterrupt(), None, True),
    ],
)
def test_what_an_error_says_of_the_instance(
    raised: BaseException | None, category: Category | None, abandoned: bool
) -> None:
    """Errors of who was asked count against the instance; wrong input, our own limits and a
    cancelled caller do not, and everything is raised on unchanged. (S0-64, S0-68, V-26)"""
    balancer, guard = made(1), Shutter()
    balancer.fleet("ml").instances["0"].guards = (guard,)

    async def main() -> None:
        leasing = balancer.lease("ml")
        if raised is None:
            async with leasing:
                pass
        else:
            with pytest.raises(type(raised)) as caught:
                async with leasing:
                    raise raised
            assert caught.value is raised
        (lease,) = guard.ends
        assert lease is leasing.lease
        assert (lease.error and lease.error.category) == category
        assert lease.abandoned is abandoned
        assert lease.instance.in_flight == 0
        assert lease.instance.error_rate == (None if abandoned else float(category is not None))

    run(main())


def test_a_cancelled_holder_gives_its_place_back() -> None:
    """A task cancelled in its work releases the place, which goes to who waits. (S0-64)"""

    async def main() -> None:
        balancer = made(1)
        holder = asyncio.create_task(holding(balancer, 1000))
        await asyncio.sleep(1)
        waiter = asyncio.create_task(holding(balancer))
        await asyncio.sleep(1)
        holder.cancel()
        assert await waiter == "0"
        assert now() == 3
        assert balancer.status("ml").in_flight == 0

    run(main())


def test_leases_expire() -> None:
    """A lease older than `lease_s` ends by itself: its place goes to who waits, at that moment; it
    is counted and no failure; its late holder is told, and `async with` is not disturbed.
    (S0-64)"""

    async def main() -> None:
        balancer = made(1, lease_s=10)
        leasing = balancer.lease("ml")
        async with leasing:
            assert await holding(balancer, timeout=60) == "0"
            assert now() == pytest.approx(11)
        assert leasing.lease.expired
        with pytest.raises(UsageError, match="expired before"):
            leasing.lease.release()
        status = balancer.status("ml")
        assert (status.expired, status.in_flight) == (1, 0)
        assert status.instances[0].error_rate == 0

    run(main())


def test_many_leases_expire_in_the_order_of_their_age() -> None:
    """Each lease expires at its own time, whether others ended before or not. (S0-64)"""
    balancer = made(100, lease_s=10)
    clock = balancer._clock
    assert isinstance(clock, VirtualClock)
    leases: list[Lease] = []
    for number in range(20):
        leases.append(balancer.try_lease("ml"))
        if number % 3 == 0:
            leases[-1].release()
        clock.advance(1)
    assert balancer.status("ml").in_flight == sum(not lease.ended_ns for lease in leases)
    assert [lease.expired for lease in leases] == [n < 11 and n % 3 != 0 for n in range(20)]
    leases.clear()
    assert balancer.status("ml").in_flight == 0


@pytest.mark.parametrize("lease_s", [None, 100])
def test_a_lost_lease_is_no_lost_place(lease_s: float | None) -> None:
    """A lease that nobody holds any more ends, at once for who waits, and is counted. (S0-64)"""

    async def main() -> None:
        balancer = made(1, lease_s=lease_s)
        held = [balancer.try_lease("ml")]
        waiter = asyncio.create_task(holding(balancer))
        await asyncio.sleep(5)
        held.clear()
        gc.collect()
        await waiter
        assert now() == 6
        assert balancer.status("ml").expired == 1
        balancer.try_lease("ml")
        assert balancer.status("ml").in_flight == 0
        assert balancer.status("ml").expired == 2

    run(main())


def test_what_is_acquired_is_held() -> None:
    """What was acquired stays so without a lease in hand, until it is released or expires.
    (S0-64)"""
    balancer = made(3, lease_s=10)
    instance = balancer.acquire("ml")
    gc.collect()
    assert instance.in_flight == 1
    clock = balancer._clock
    assert isinstance(clock, VirtualClock)
    clock.advance(11)
    assert balancer.status("ml").in_flight == 0


def test_a_lease_can_be_awaited() -> None:
    """Awaited, it is a Lease to be released by hand; entered, it can be entered once. (S0-64)"""

    async def main() -> None:
        balancer = made(1)
        lease = await balancer.lease("ml")
        assert lease.instance.in_flight == 1
        lease.release()
        leasing = balancer.lease("ml")
        with pytest.raises(UsageError, match="no lease yet"):
            _ = leasing.lease
        async with leasing:
            assert leasing.lease.started_ns
        with pytest.raises(UsageError, match="entered before"):
            await leasing.__aenter__()

    run(main())


def test_released_by_hand_in_its_block() -> None:
    """A lease released inside its block, with more to say, is not released again. (S0-65)"""

    async def main() -> None:
        balancer = made(1)
        leasing = balancer.lease("ml")
        async with leasing as instance:
            leasing.lease.release(PacelineError("x", category=Category.UNAVAILABLE))
        assert (instance.in_flight, instance.error_rate) == (0, 1.0)

    run(main())


# --- waiting


def test_callers_wait_their_turn() -> None:
    """Callers beyond the capacity wait and are served in order, each in the moment a place is free,
    and the most urgent first. (S0-64, S0-81)"""

    async def main() -> None:
        balancer, order = made(1, 1), list[str]()

        async def work(name: str, priority: Priority = Priority.NORMAL) -> None:
            async with balancer.lease("ml", priority=priority):
                order.append(name)
                await asyncio.sleep(1)

        tasks = [asyncio.create_task(work(name)) for name in "abcdef"]
        await asyncio.sleep(0.5)
        tasks.append(asyncio.create_task(work("!", Priority.HIGH)))
        await asyncio.sleep(0)
        assert balancer.status("ml").waiting == 5
        await asyncio.gather(*tasks)
        assert "".join(order) == "ab!cdef"
        assert now() == 4
        assert balancer.status("ml").waiting == 0

    run(main())


def test_tenants_share() -> None:
    """A tenant with many callers in the queue does not keep another one waiting for all of them.
    (S0-64, S0-81)"""

    async def main() -> None:
        balancer, order = made(1), list[str]()

        async def work(tenant: str) -> None:
            async with balancer.lease("ml", tenant=tenant):
                order.append(tenant)
                await asyncio.sleep(1)

        await asyncio.gather(*[work(tenant) for tenant in "aaaaaaaab"])
        assert order.index("b") <= 3

    run(main())


def test_waiting_has_an_end() -> None:
    """Who waits longer than allowed gets the reason, leaves nothing behind, and takes no place
    later. (S0-60, S0-64)"""

    async def main() -> None:
        balancer = made(1)
        lease = await balancer.lease("ml")
        for timeout in (0, 2):
            with pytest.raises(OverloadedError, match="1 full") as caught:
                await balancer.lease("ml", timeout=timeout)
            assert caught.value.reason is Shortage.FULL
        assert now() == 2
        assert balancer.status("ml").waiting == 0
        lease.release()
        await asyncio.sleep(1)
        assert balancer.status("ml").in_flight == 0

    run(main())


def test_the_queue_is_bounded() -> None:
    """Beyond `max_queue` callers are refused at once; a more urgent one takes the place of one who
    waits, who is told. (S0-64, S0-81)"""

    async def main() -> None:
        balancer = made(1, max_queue=2)
        tasks = [asyncio.create_task(holding(balancer)) for _ in range(3)]
        await asyncio.sleep(0)
        with pytest.raises(OverloadedError, match="no instance of ml is free, and 2 wait") as full:
            await balancer.lease("ml")
        assert full.value.reason is Shortage.QUEUE_FULL
        tasks.append(asyncio.create_task(holding(balancer, priority=Priority.HIGH)))
        outcomes = await asyncio.gather(*tasks, return_exceptions=True)
        (shed,) = [o for o in outcomes if isinstance(o, OverloadedError)]
        assert shed.reason is Shortage.SHED
        assert isinstance(outcomes[3], str)

    run(main())


def test_a_cancelled_waiter_takes_no_place() -> None:
    """Callers cancelled in the queue, also in the moment of their turn, cost nobody a place.
    (S0-64)"""

    async def main() -> None:
        balancer = made(1)
        for cancel_first in (True, False):
            lease = await balancer.lease("ml")
            waiter = asyncio.create_task(holding(balancer))
            following = asyncio.create_task(holding(balancer))
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            if cancel_first:
                waiter.cancel()
                lease.release()
            else:
                lease.release()
                await asyncio.sleep(0)  # the place is given to the waiter
                waiter.cancel()
            assert await following == "0"
            assert waiter.cancelled()
            status = balancer.status("ml")
            assert (status.in_flight, status.waiting) == (0, 0)

    run(main())


def test_who_does_not_wait_does_not_overtake() -> None:
    """While callers wait for a place, `try_lease` and `acquire` get none. (S0-64)"""

    async def main() -> None:
        balancer = made(1)
        lease = await balancer.lease("ml")
        waiter = asyncio.create_task(holding(balancer))
        await asyncio.sleep(0)
        lease.release()
        for refused in (balancer.try_lease, balancer.acquire):
            with pytest.raises(OverloadedError):
                refused("ml")
        await waiter
        balancer.release(balancer.acquire("ml"))

    run(main())


def test_waiting_for_something_special_is_in_nobodys_way() -> None:
    """Who needs a rare instance waits for that one, while others go past to the rest; and when it
    is free, gets it. (S0-64, S0-80)"""

    async def main() -> None:
        balancer = made(1)
        balancer.register(
            AgentInstance("gpu", "ml", max_capacity=1, features=Features(labels={"gpu": "yes"}))
        )
        needs = Needs(labels=(("gpu", "yes"),))
        lease = await balancer.lease("ml", needs=needs)
        special = [asyncio.create_task(holding(balancer, needs=needs)) for _ in range(2)]
        await asyncio.sleep(0)
        assert await holding(balancer) == "0"
        assert await holding(balancer) == "0"
        lease.release()
        assert await asyncio.gather(*special) == ["gpu", "gpu"]
        assert now() == 4
        assert balancer.status("ml").waiting == 0

    run(main())


@pytest.mark.parametrize("timeout", [None, 5])
def test_the_first_to_open_is_waited_for(timeout: float | None) -> None:
    """While all instances are shut until a known moment, callers wait for the first of them instead
    of failing, if their time allows. (S0-60, S0-68)"""

    async def main() -> None:
        balancer, guards = made(), [Shutter(), Shutter()]
        for number, guard in enumerate(guards):
            guard.opens = (7 - 4 * number) * NS
            balancer.register(AgentInstance(str(number), "ml", guards=(guard,)))
        assert await holding(balancer, 0, timeout=timeout) == "1"
        assert now() == pytest.approx(3)

    run(main())


def test_what_opens_too_late_is_not_waited_for() -> None:
    """If the first instance opens after the caller's time, it is told at once when. (S0-60,
    S0-81, E94)"""

    async def main() -> None:
        balancer, guard = made(), Shutter()
        guard.opens = 30 * NS
        balancer.register(AgentInstance("0", "ml", guards=(guard,)))
        with pytest.raises(OverloadedError) as caught:
            await balancer.lease("ml", timeout=5)
        assert (caught.value.reason, caught.value.retry_after_s) == (Shortage.CIRCUIT_OPEN, 30)
        assert now() == 0

    run(main())


def test_the_hopeless_do_not_wait() -> None:
    """When waiting cannot help, callers fail at once; and so do those who wait, when it becomes
    so. (S0-60, S0-81)"""

    async def main() -> None:
        balancer = made(1)
        (instance,) = balancer.instances["ml"]
        with pytest.raises(OverloadedError) as unmatched:
            await balancer.lease("ml", needs=Needs(context_window=1, modalities=frozenset("x")))
        assert unmatched.value.reason is Shortage.UNMATCHED
        lease = await balancer.lease("ml")
        waiter = asyncio.create_task(holding(balancer))
        await asyncio.sleep(1)
        instance.is_healthy = False
        with pytest.raises(OverloadedError) as down:
            await waiter
        assert (down.value.reason, now()) == (Shortage.UNHEALTHY, 1)
        lease.release()
        with pytest.raises(OverloadedError):
            await balancer.lease("ml")
        instance.is_healthy = True
        assert await holding(balancer) == "0"

    run(main())


def test_the_last_instance_leaves_those_who_wait() -> None:
    """Who waits for a type whose last instance is unregistered is told so. (S0-59, S0-60)"""

    async def main() -> None:
        balancer = made(1)
        lease = await balancer.lease("ml")
        waiter = asyncio.create_task(holding(balancer))
        await asyncio.sleep(1)
        balancer.unregister("ml", "0")
        with pytest.raises(OverloadedError):
            await waiter
        with pytest.raises(UnknownAgentError):
            await balancer.lease("ml")
        lease.release()

    run(main())


def test_a_new_instance_lets_waiters_in() -> None:
    """An instance registered, healed or given a higher limit takes those who wait at once. (S0-59,
    S0-64, S0-82)"""

    async def main() -> None:
        balancer = made(1)
        leases = [await balancer.lease("ml")]
        waiters = [asyncio.create_task(holding(balancer)) for _ in range(3)]
        await asyncio.sleep(0)
        balancer.register(AgentInstance("1", "ml", max_capacity=1))
        balancer.instances["ml"][0].max_capacity = 3
        assert sorted(await asyncio.gather(*waiters)) == ["0", "0", "1"]
        assert now() == 1
        leases.pop().release()

    run(main())


def test_a_guard_that_refuses_does_not_spin() -> None:
    """A caller whose work a guard refuses though it is open tries again after a pause, holding no
    place meanwhile, and gets in when it is wanted. (S0-60)"""

    async def main() -> None:
        balancer, guard = made(), Shutter()
        balancer.register(AgentInstance("0", "ml", guards=(guard,)))
        guard.refuses, wide = True, Gate("the runtime", 9, 1)
        waiter = asyncio.create_task(balancer.line("ml").lease(outer=(wide,)))
        await asyncio.sleep(1)
        assert (wide.in_use, balancer.line("ml").waiting) == (0, 0)
        guard.refuses = False
        lease = await waiter
        assert now() == pytest.approx(1, abs=0.05)
        assert wide.in_use == lease.instance.in_flight == 1

    run(main())


def test_a_probe_is_waited_for() -> None:
    """Where an instance opens only by the end of what it has in flight, callers wait for that.
    (S0-60, S0-68)"""

    async def main() -> None:
        balancer, guard = made(), Shutter()
        balancer.register(AgentInstance("0", "ml", guards=(guard,)))
        probe = await balancer.lease("ml")
        guard.opens = NEVER
        probe.instance.changed()
        waiter = asyncio.create_task(holding(balancer))
        await asyncio.sleep(2)
        guard.opens = 0
        probe.release()
        await waiter
        assert now() == 3

    run(main())


def test_another_loop_may_follow() -> None:
    """A balancer can be used on one event loop after another; on two at once it says no. (S0-64)"""
    balancer = made(1)
    assert run(holding(balancer)) == "0"
    assert run(holding(balancer)) == "0"
    lease = balancer.try_lease("ml")
    loop, other = VirtualTimeLoop(), VirtualTimeLoop()

    async def both() -> None:
        waiter = asyncio.ensure_future(holding(balancer))
        await asyncio.sleep(0)
        with pytest.raises(UsageError, match="another event loop"):
            await asyncio.to_thread(other.run_until_complete, holding(balancer))
        lease.release()
        assert await waiter == "0"

    try:
        loop.run_until_complete(both())
    finally:
        loop.close()
        other.close()


def test_outer_gates_are_entered_with_the_lease() -> None:
    """Who waits for an instance holds no place of a wider limit meanwhile, nor an instance while it
    waits for that; it gets both in one moment, and a refusal of either says whose it is. (S0-64)"""

    async def main() -> None:
        balancer, wide = made(1), Gate("the runtime", 1, 1)
        line, tickets = balancer.line("ml"), list[Ticket]()
        first = await line.lease(outer=(wide,))
        second = asyncio.create_task(line.lease(outer=(wide,), waiting=tickets.append))
        await asyncio.sleep(1)
        assert [ticket.priority for ticket in tickets] == [Priority.NORMAL]
        first.release()
        await asyncio.sleep(1)
        assert (balancer.status("ml").in_flight, second.done()) == (0, False)
        third = asyncio.create_task(line.lease(outer=(wide,)))
        await asyncio.sleep(0)
        with pytest.raises(OverloadedError, match="the runtime is at its limit"):
            await line.lease(outer=(wide,))
        third.cancel()
        wide.leave()
        lease = await second
        assert (wide.in_use, lease.instance.in_flight) == (1, 1)
        wide.leave()
        with pytest.raises(OverloadedError, match="1 full"):
            await line.lease(outer=(wide,), timeout_s=1)
        await wide.enter()
        with pytest.raises(OverloadedError, match="the runtime is at its limit") as late:
            await line.lease(outer=(wide,), timeout_s=1)
        assert late.value.reason is Shortage.LATE
        wide.leave()
        assert (wide.in_use, wide.waiting) == (0, 0)
        lease.release()

    run(main())


# --- draining


def test_draining_waits_for_what_runs() -> None:
    """A draining instance gets nothing new; drain returns when its work is done, or says in time
    that it is not. (S0-59)"""

    async def main() -> None:
        balancer = made(2, 2)
        assert await balancer.drain("ml", "1")
        leases = [await balancer.lease("ml") for _ in range(2)]
        assert {lease.instance.id for lease in leases} == {"0"}
        with pytest.raises(OverloadedError, match="1 full, 1 unhealthy"):
            balancer.try_lease("ml")
        assert not await balancer.drain("ml", "0", timeout=3)
        assert now() == 3
        asyncio.get_running_loop().call_later(1, leases[0].release)
        asyncio.get_running_loop().call_later(2, leases[1].release)
        assert await balancer.drain("ml", "0", timeout=9)
        assert now() == 5
        status = balancer.status("ml")
        assert (status.draining, status.usable_capacity, status.total_capacity) == (2, 0, 4)
        balancer.instances["ml"][0].draining = False
        assert await holding(balancer) == "0"
        with pytest.raises(UsageError, match="no instance 7"):
            await balancer.drain("ml", "7")

    run(main())


def test_two_may_drain_the_same() -> None:
    """Several callers that drain one instance all return, one that is cancelled aside. (S0-59)"""

    async def main() -> None:
        balancer = made(1)
        lease = await balancer.lease("ml")
        drains = [asyncio.create_task(balancer.drain("ml", "0")) for _ in range(3)]
        await asyncio.sleep(1)
        drains[0].cancel()
        lease.release()
        assert await asyncio.gather(*drains[1:]) == [True, True]
        assert balancer.fleet("ml").listener is None

    run(main())
