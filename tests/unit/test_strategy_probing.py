"""The hot-cold rule of Prequal on what is known here."""

import random
from collections import Counter
from typing import TYPE_CHECKING, Any

from paceline.balance.fleet import Fleet
from paceline.balance.instance import AgentInstance
from paceline.balance.strategies.probing import Prequal
from paceline.errors import Category, PacelineError
from paceline.testing.virtual_time import VirtualClock

if TYPE_CHECKING:
    from paceline.balance.lease import Lease

DOWN = PacelineError("down", category=Category.UNAVAILABLE)
WRONG = PacelineError("wrong", category=Category.INVALID)


def made(count: int = 4, seed: int = 1, **options: Any) -> tuple[Fleet, VirtualClock]:
    clock = VirtualClock()
    strategy = Prequal(clock=clock, rng=random.Random(seed), **options)
    fleet = Fleet("llm", strategy, clock=clock)
    for number in range(count):
        fleet.add(AgentInstance(f"e{number}", "llm", max_capacity=1000))
    return fleet, clock


def served(
    fleet: Fleet, clock: VirtualClock, took_s: dict[str, float], steps: int, *, failing: str = ""
) -> Counter[str]:
    """One request each 0.1 s; who gets how many. Each takes the time of its instance; those of who
    is failing end after a millisecond."""
    counted: Counter[str] = Counter()
    running: list[tuple[float, int, Lease]] = []
    for step in range(steps):
        now = step / 10
        for end in sorted(running):
            if end[0] <= now:
                running.remove(end)
                end[2].release(DOWN if end[2].instance.id == failing else None)
        lease = fleet.lease()
        name = lease.instance.id
        counted[name] += 1
        running.append((now + (0.001 if name == failing else took_s.get(name, 1.0)), step, lease))
        clock.advance(0.1)
    for _, _, lease in running:
        lease.release(abandoned=True)
    return counted


def test_the_quick_get_more() -> None:
    """An instance that takes a tenth of the time of the others gets most of the work while it is
    not among the loaded. (S0-54)"""
    fleet, clock = made()
    counted = served(fleet, clock, {"e1": 0.1}, 400)
    assert counted["e1"] > 200


def test_when_all_are_hot_the_least_loaded() -> None:
    """When everybody has more in flight than is usual, the least loaded of those that are looked
    at is chosen, so loads stay level. (S0-62)"""
    fleet, _ = made()
    held = [fleet.lease() for _ in range(400)]
    counted = Counter(lease.instance.id for lease in held)
    assert max(counted.values()) - min(counted.values()) < 40


def test_failing_fast_is_not_quick() -> None:
    """An instance that fails everything in a millisecond gets fewer requests than its even share,
    and when it works again it gets them again. (S0-54)"""
    fleet, clock = made()
    served(fleet, clock, {}, 100)
    failed = served(fleet, clock, {}, 400, failing="e2")
    assert failed["e2"] < 100
    clock.advance(200)
    assert served(fleet, clock, {}, 400)["e2"] > 60


def test_the_fault_of_the_caller_is_not_held_against_anybody() -> None:
    """Errors in the request itself change nothing for the instance. (S0-54)"""
    fleet, clock = made(1)
    lease = fleet.lease()
    clock.advance(0.1)
    lease.release(WRONG)
    assert fleet.select().id == "e0"
    assert served(fleet, clock, {}, 10) == {"e0": 10}


def test_who_was_slow_is_tried_again() -> None:
    """What is known grows old: an instance that was slow for a while gets work again once it is as
    quick as the others. (S0-54)"""
    fleet, clock = made()
    slow = served(fleet, clock, {"e3": 20.0}, 600)
    assert slow["e3"] < 100
    clock.advance(200)
    served(fleet, clock, {}, 300)
    assert served(fleet, clock, {}, 400)["e3"] > 50


def test_the_same_seed_chooses_the_same() -> None:
    """Of many instances a sample is looked at, which the seed decides. (S0-83)"""
    found = [served(*made(40, seed), {"e7": 0.2}, 300) for seed in (3, 3, 4)]
    assert found[0] == found[1] != found[2]


def test_load_is_by_weight() -> None:
    """An instance of three times the weight gets about three times as much. (S0-54)"""
    fleet, _ = made(2)
    fleet.instances["e0"].weight = 3.0
    held = [fleet.lease() for _ in range(200)]
    counted = Counter(lease.instance.id for lease in held)
    assert 120 < counted["e0"] < 180


def test_work_ends_after_its_instance_has_left() -> None:
    """An instance that leaves while its failures still count takes them with it. (S0-54)"""
    fleet, clock = made(2)
    for _ in range(6):
        fleet.lease().release(DOWN)
    fleet.remove("e0")
    clock.advance(500)
    assert fleet.select().id == "e1"
