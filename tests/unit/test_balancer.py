"""LoadBalancer: the instances of all types, and the choice among them."""

import asyncio
import random
import subprocess
import sys
from typing import Any

import pytest

import paceline
from paceline.balance.balancer import LoadBalancer
from paceline.balance.instance import AgentInstance
from paceline.balance.request import ANYTHING, Needs, Request
from paceline.balance.strategies.loads import LeastLoaded
from paceline.balance.strategy import LoadBalancingStrategy
from paceline.errors import (
    InvalidInputError,
    OverloadedError,
    PacelineError,
    Shortage,
    UnknownAgentError,
    UsageError,
)
from paceline.testing.virtual_time import VirtualClock, run


def made(*capacities: int, **options: Any) -> LoadBalancer:
    balancer = LoadBalancer(**{"clock": VirtualClock()} | options)
    for number, capacity in enumerate(capacities):
        balancer.register(AgentInstance(str(number), "ml", max_capacity=capacity))
    return balancer


def test_the_example_of_old() -> None:
    """Three instances of capacity 5, ten acquired and five released: 5 of 15 in use, 33.3 %.
    (S0-66, S0-67)"""
    balancer = LoadBalancer(strategy=LoadBalancingStrategy.LEAST_LOADED)
    for number in range(3):
        balancer.register_instance(
            AgentInstance(id=f"ml-{number}", agent_type="ml-engineer", max_capacity=5)
        )
    acquired = [balancer.acquire("ml-engineer") for _ in range(10)]
    assert sorted(i.current_load for i in balancer.instances["ml-engineer"]) == [3, 3, 4]
    for instance in acquired[:5]:
        balancer.release(instance)
    assert balancer.get_status() == {
        "ml-engineer": {
            "instances": 3,
            "healthy": 3,
            "total_capacity": 15,
            "current_load": 5,
            "load_percentage": "33.3%",
            "instances_detail": [
                {"id": "ml-0", "load": "2/5", "load_pct": "40.0%", "healthy": True},
                {"id": "ml-1", "load": "1/5", "load_pct": "20.0%", "healthy": True},
                {"id": "ml-2", "load": "2/5", "load_pct": "40.0%", "healthy": True},
            ],
        }
    }


def test_it_can_be_imported_alone() -> None:
    """A process that imports the balancer alone can use it, and loads no runtime. (S0-53)"""
    code = (
        "import sys\n"
        "from paceline import AgentInstance, LoadBalancer, LoadBalancingStrategy\n"
        "balancer = LoadBalancer(LoadBalancingStrategy.ROUND_ROBIN)\n"
        "balancer.register_instance(AgentInstance('a', 'ml'))\n"
        "balancer.release(balancer.acquire('ml'))\n"
        "assert 'paceline.runtime' not in sys.modules\n"
    )
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")


def test_the_defaults_are_those_of_old() -> None:
    """The strategy is least loaded unless another is named. (S0-58)"""
    balancer = LoadBalancer()
    assert balancer.strategy == "least_loaded"
    assert not balancer.instances
    assert balancer.get_status() == {}
    assert {"LoadBalancer", "AgentInstance", "LoadBalancingStrategy"} <= set(paceline.__all__)
    with pytest.raises(UsageError, match="no strategy 'fastest'"):
        LoadBalancer("fastest")


def test_an_unknown_type_is_no_shortage() -> None:
    """A type that was never registered raises UnknownAgentError with the nearest name, everywhere;
    also one whose last instance is gone. (S0-60)"""
    balancer = made(1)
    asked: list[Any] = [
        balancer.select, balancer.acquire, balancer.try_lease, balancer.status, balancer.fleet
    ]  # fmt: skip
    for ask in asked:
        with pytest.raises(UnknownAgentError, match="'mll'") as caught:
            ask("mll")
        assert caught.value.next_step == "Did you mean 'ml'?"
    balancer.unregister("ml", "0")
    with pytest.raises(UnknownAgentError) as none:
        balancer.acquire("ml")
    assert none.value.next_step == "Register one with `register`."
    assert balancer.instances == {}


def test_acquire_says_why_not() -> None:
    """Where nothing can be had, `acquire` and `select_instance` raise the reason instead of None.
    (S0-60, S0-64)"""
    balancer = made(1)
    assert balancer.select_instance("ml").id == "0"
    assert balancer.status("ml").in_flight == 0
    balancer.acquire("ml")
    for ask in (balancer.acquire, balancer.select_instance):
        with pytest.raises(OverloadedError) as caught:
            ask("ml")
        assert caught.value.reason is Shortage.FULL
        assert not caught.value.may_have_started


def test_instances_register_update_and_leave() -> None:
    """An instance is there once by its id and type; it can be changed and unregistered while it
    works. (S0-59)"""
    balancer = made(1, 1)
    for _ in range(2):
        balancer.register(AgentInstance("0", "ml", max_capacity=3))
    assert [i.max_capacity for i in balancer.instances["ml"]] == [3, 1]
    balancer.register(AgentInstance("0", "other"))
    held = balancer.acquire("ml")
    assert balancer.unregister("ml", held.id) is held
    balancer.release(held)
    assert held.in_flight == 0
    assert len(balancer.instances["ml"]) == 1
    with pytest.raises(UsageError, match=f"no instance {held.id}"):
        balancer.unregister("ml", held.id)


def test_each_type_can_have_its_strategy() -> None:
    """A type can be given another strategy by name or as an object, before its first instance and
    while it is in use; the others keep theirs. (S0-83)"""
    clock = VirtualClock()
    balancer = LoadBalancer(clock=clock)
    balancer.set_strategy("ml", "round_robin")
    for kind in ("ml", "other"):
        for number in range(3):
            balancer.register(AgentInstance(str(number), kind, number, 5))
    assert [balancer.select("ml").id for _ in range(4)] == ["0", "1", "2", "0"]
    assert [balancer.select("other").id for _ in range(2)] == ["0", "0"]
    held = balancer.acquire("ml")
    balancer.set_strategy("ml", LeastLoaded(clock=clock, rng=random.Random(1)))
    assert [balancer.select("ml").id for _ in range(2)] == ["0", "0"]
    balancer.release(held)
    assert [balancer.status(kind).strategy for kind in ("ml", "other")] == [
        "LeastLoaded",
        "least_loaded",
    ]
    with pytest.raises(UsageError):
        balancer.set_strategy("ml", "fastest")


def test_status_is_typed_and_tells_usable_capacity() -> None:
    """Capacity of what is down or draining is not counted as usable; each instance has its p95,
    error rate and why it gets nothing. (S0-56, S0-66)"""
    balancer = made(4, 3, 2, 0)
    ill, draining = balancer.instances["ml"][1:3]
    for error in (None, PacelineError("x")):
        balancer.try_lease("ml").release(error)
    ill.is_healthy, draining.draining = False, True
    status = balancer.status("ml")
    assert (status.total_capacity, status.usable_capacity, status.load) == (9, 4, 0)
    assert (status.healthy, status.draining, status.ejected) == (3, 1, 0)
    assert [i.shortage for i in status.instances] == [
        None, Shortage.UNHEALTHY, Shortage.UNHEALTHY, Shortage.NO_CAPACITY
    ]  # fmt: skip
    assert {i.error_rate for i in status.instances} == {0.0, 1.0, None}
    shown = balancer.get_status()["ml"]["instances_detail"][3]
    assert shown == {"id": "3", "load": "0/0", "load_pct": "100.0%", "healthy": True}
    empty = made(0)
    assert empty.status("ml").load is None
    assert empty.get_status()["ml"]["load_percentage"] == "0%"


def test_choices_by_chance_can_be_repeated() -> None:
    """With the same source of random numbers a balancer makes the same choices. (S0-63)"""

    def choices(seed: int) -> list[str]:
        balancer = made(9, 9, 9, strategy="random", rng=random.Random(seed))
        return [balancer.select("ml").id for _ in range(50)]

    assert choices(1) == choices(1) != choices(2)


def test_what_work_needs_is_said_once() -> None:
    """Needs and affinity can be named for a lease, or be in a request, not both. (S0-80)"""

    async def main() -> None:
        balancer = made(1)
        with pytest.raises(InvalidInputError):
            balancer.lease("ml", Request(), affinity="session")
        leasing = balancer.lease("ml", affinity="session")
        async with leasing:
            assert leasing.lease.request == Request(affinity="session")
        leasing = balancer.lease("ml", needs=Needs(preferred_zone="eu"))
        async with leasing:
            assert leasing.lease.request.needs.preferred_zone == "eu"
        async with balancer.lease("ml", Request(input_tokens=5)) as instance:
            assert instance.in_flight == 1
        leasing = balancer.lease("ml")
        async with leasing:
            assert leasing.lease.request.needs is ANYTHING

    run(main())


def test_nothing_is_kept_of_what_is_over() -> None:
    """After any number of leases, waits and time-outs the balancer keeps nothing of them. (S0-64)"""

    async def main() -> None:
        balancer = made(2, lease_s=100)
        for number in range(300):
            needs = Needs(labels=(("n", str(number)),)) if number % 3 == 0 else None
            leases = [asyncio.ensure_future(_held(balancer, needs)) for _ in range(4)]
            await asyncio.gather(*leases, return_exceptions=True)
        kind = balancer._types["ml"]
        assert not kind.fleet._by_age
        assert not kind.line._at
        assert not kind.line._idle
        assert kind.fleet.listener is None
        assert len(kind.fleet._views) <= 64

    run(main())


async def _held(balancer: LoadBalancer, needs: Needs | None) -> None:
    async with balancer.lease("ml", needs=needs, timeout=0.5):
        await asyncio.sleep(1)
