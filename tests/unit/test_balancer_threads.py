"""A LoadBalancer used from several threads."""

import asyncio
import random
import sys
import threading
from collections.abc import Callable, Iterator

import pytest

from paceline.balance.balancer import LoadBalancer
from paceline.balance.instance import AgentInstance
from paceline.errors import OverloadedError, UsageError

THREADS = 8


@pytest.fixture(autouse=True)
def often_switching() -> Iterator[None]:
    """Threads take turns every few operations."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


def in_threads(work: Callable[[int], None]) -> None:
    """Runs it in all threads at once; raises what one of them raised."""
    errors: list[BaseException] = []
    start = threading.Barrier(THREADS)

    def body(number: int) -> None:
        try:
            start.wait(10)
            work(number)
        except BaseException as exc:  # noqa: BLE001 (it is raised below)
            errors.append(exc)

    threads = [threading.Thread(target=body, args=(n,)) for n in range(THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    if errors:
        raise errors[0]


def made(*capacities: int, strategy: str = "least_loaded") -> LoadBalancer:
    balancer = LoadBalancer(strategy)
    for number, capacity in enumerate(capacities):
        balancer.register(AgentInstance(str(number), "ml", max_capacity=capacity))
    return balancer


def overfilled(balancer: LoadBalancer, rounds: int = 150) -> int:
    """How often there was more inside an instance than it can take, counted by who is inside."""
    inside: dict[str, list[int]] = {i.id: [] for i in balancer.instances["ml"]}
    too_many = 0

    def work(number: int) -> None:
        nonlocal too_many
        for _ in range(rounds):
            try:
                instance = balancer.acquire("ml")
            except OverloadedError:
                continue
            inside[instance.id].append(number)
            too_many += len(inside[instance.id]) > instance.max_capacity
            inside[instance.id].remove(number)
            balancer.release(instance)

    in_threads(work)
    return too_many


@pytest.mark.parametrize("strategy", ["least_loaded", "round_robin", "peak_ewma", "weighted"])
def test_threads_never_exceed_the_capacity(strategy: str) -> None:
    """Eight threads that acquire and release as fast as they can never find more in an instance
    than it can take, and in the end nothing is in flight. (S0-64)"""
    balancer = made(1, 2, 1, strategy=strategy)
    assert overfilled(balancer) == 0
    assert balancer.status("ml").in_flight == 0


def test_a_place_is_released_once_whoever_does_it() -> None:
    """Of eight threads that release one lease, one succeeds and seven are told. (S0-65)"""
    balancer = made(100)
    for _ in range(50):
        lease = balancer.try_lease("ml")
        told = list[int]()

        def work(number: int) -> None:
            try:
                lease.release()  # noqa: B023 (called in this round only)
            except UsageError:
                told.append(number)  # noqa: B023 (as above)

        in_threads(work)
        assert len(told) == THREADS - 1
    assert balancer.status("ml").in_flight == 0


def test_instances_may_come_and_go_meanwhile() -> None:
    """While threads work, others register, change, unregister and switch strategies, and every
    count is right in the end. (S0-59, S0-64, S0-83)"""
    balancer = made(2, 2)

    def work(number: int) -> None:
        dice = random.Random(number)
        for turn in range(100):
            if number == 0:
                balancer.register(AgentInstance("x", "ml", max_capacity=turn % 3))
                balancer.unregister("ml", "x")
            elif number == 1:
                balancer.set_strategy("ml", dice.choice(["random", "round_robin", "least_loaded"]))
                balancer.instances["ml"][0].is_healthy = turn % 2 == 0
            else:
                try:
                    lease = balancer.try_lease("ml")
                except OverloadedError:
                    continue
                assert lease.instance.in_flight > 0
                lease.release()

    in_threads(work)
    for instance in balancer.instances["ml"]:
        instance.is_healthy = True
        assert instance.in_flight == 0
    assert balancer.fleet("ml").room() == 4


async def test_a_thread_lets_in_who_waits_on_the_loop() -> None:
    """A lease released in a thread wakes the caller that waits for it on the event loop. (S0-64)"""
    balancer = made(1)
    lease = balancer.try_lease("ml")
    waiter = asyncio.ensure_future(balancer.lease("ml", timeout=30).__aenter__())
    await asyncio.sleep(0)
    assert balancer.status("ml").waiting == 1
    await asyncio.to_thread(lease.release)
    instance = await waiter
    assert (instance.id, instance.in_flight) == ("0", 1)


async def test_the_loop_and_threads_share_one_capacity() -> None:
    """Callers on the loop and in threads together never have more than there is, and all on the
    loop get their turn. (S0-64)"""
    balancer = made(2, 1)
    most = 0

    async def on_the_loop() -> None:
        nonlocal most
        for _ in range(30):
            async with balancer.lease("ml", timeout=60) as instance:
                most = max(most, instance.in_flight - instance.max_capacity)
                await asyncio.sleep(0)

    def work(number: int) -> None:
        nonlocal most
        for _ in range(100):
            try:
                lease = balancer.try_lease("ml")
            except OverloadedError:
                continue
            most = max(most, lease.instance.in_flight - lease.instance.max_capacity)
            lease.release()

    await asyncio.gather(*[on_the_loop() for _ in range(6)], asyncio.to_thread(in_threads, work))
    assert most == 0
    status = balancer.status("ml")
    assert (status.in_flight, status.waiting) == (0, 0)
