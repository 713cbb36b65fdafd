"""Who is not asked for a while: outliers, those that are gone, and those that are just back."""

import random
from typing import TYPE_CHECKING

import hypothesis.strategies as st
import pytest
from hypothesis import given

from paceline.balance.circuit import Circuit, CircuitPolicy
from paceline.balance.fleet import Fleet
from paceline.balance.health import Liveness, OutlierPolicy, Outliers, SlowStart
from paceline.balance.instance import AgentInstance
from paceline.balance.strategies import make
from paceline.errors import AgentError, Category, InvalidInputError, OverloadedError, Shortage
from paceline.testing.virtual_time import VirtualClock

if TYPE_CHECKING:
    from paceline.balance.lease import Lease

DOWN = AgentError("down", category=Category.UNAVAILABLE)
MISTAKE = InvalidInputError("empty")


class Bench:
    """Instances of one type, each with the guards of the test."""

    def __init__(self, count: int = 4, capacity: int = 10) -> None:
        self.clock = VirtualClock()
        strategy = make("round_robin", clock=self.clock, rng=random.Random(1))
        self.fleet = Fleet("search", strategy, clock=self.clock)
        self.instances = [
            self.fleet.add(AgentInstance(str(n), "search", max_capacity=capacity))
            for n in range(count)
        ]

    def guarded(self, outliers: Outliers) -> None:
        for instance in self.instances:
            instance.guards = (outliers.watch(instance),)
            instance.changed()

    def work(self, times: int, failing: dict[str, float], rng: random.Random) -> None:
        """So many pieces of work, one after the other; some fail where they are sent."""
        for _ in range(times):
            lease = self.fleet.lease()
            bad = rng.random() < failing.get(lease.instance.id, 0.0)
            lease.release(DOWN if bad else None)

    def candidates(self) -> list[str]:
        return [instance.id for instance in self.fleet.candidates()]


def test_who_fails_more_than_the_others_is_ejected() -> None:
    """An instance that fails half of its work among sound ones gets nothing more, though it never
    fails seven times in a row; the others stay. (S0-68, S0-79)"""
    bench = Bench()
    bench.guarded(Outliers(bench.clock))
    bench.work(400, {"2": 0.5}, random.Random(3))
    assert bench.candidates() == ["0", "1", "3"]
    assert bench.instances[2].shortage is Shortage.UNHEALTHY
    assert bench.instances[2].ejected


def test_an_ejection_ends_and_the_next_is_longer() -> None:
    """After 30 s an ejected instance is asked again; if it still fails, it is ejected for 60 s.
    (S0-68)"""
    bench = Bench()
    bench.guarded(Outliers(bench.clock))
    rng = random.Random(3)
    for wait_s in (30, 60, 90):
        bench.work(400, {"2": 0.6}, rng)
        assert "2" not in bench.candidates()
        bench.clock.advance(wait_s - 0.1)
        assert "2" not in bench.candidates()
        bench.clock.advance(0.1)
        assert "2" in bench.candidates()


def test_trouble_that_all_have_ejects_nobody() -> None:
    """When all fail alike, as with a common dependency, all stay. (S0-68)"""
    bench = Bench()
    bench.guarded(Outliers(bench.clock))
    bench.work(1000, dict.fromkeys("0123", 0.5), random.Random(5))
    assert bench.candidates() == ["0", "1", "2", "3"]


def test_never_more_than_half_is_ejected() -> None:
    """Whatever fails, half of the instances go on being asked. (S0-68)"""
    bench = Bench(6)
    bench.guarded(Outliers(bench.clock, OutlierPolicy(deviations=0.0)))
    bench.work(3000, {"0": 0.9, "1": 0.8, "2": 0.7, "3": 0.6, "4": 0.5}, random.Random(5))
    assert len(bench.candidates()) == 3


def test_mistakes_of_callers_are_nobodys_failures() -> None:
    """Wrong arguments, which are as frequent everywhere, and cancelled callers eject no instance.
    (V-26, S0-68)"""
    bench, rng = Bench(), random.Random(7)
    bench.guarded(Outliers(bench.clock))
    for _ in range(1000):
        lease = bench.fleet.lease()
        mistaken, gone = rng.random() < 0.4, rng.random() < 0.3
        lease.release(MISTAKE if mistaken else None, abandoned=gone)
    assert bench.candidates() == ["0", "1", "2", "3"]


def test_who_takes_right_for_wrong_is_ejected() -> None:
    """An instance that refuses as mistakes what the others do is not asked any more. (S0-68)"""
    bench = Bench()
    bench.guarded(Outliers(bench.clock))
    for _ in range(400):
        lease = bench.fleet.lease()
        lease.release(MISTAKE if lease.instance.id == "2" else None)
    assert bench.candidates() == ["0", "1", "3"]


def test_the_forgotten_do_not_count_among_the_others() -> None:
    """An instance that was taken away has no part in what is usual. (S0-59)"""
    bench = Bench(4)
    outliers = Outliers(bench.clock)
    bench.guarded(outliers)
    for gone in bench.instances[2:]:
        outliers.forget(gone)
        bench.fleet.remove(gone.id)
    bench.work(400, {"0": 0.9}, random.Random(5))
    assert bench.candidates() == ["0", "1"]  # of two nobody knows who is the odd one


def test_an_open_circuit_takes_its_instance_out_and_one_probe_brings_it_back() -> None:
    """An instance whose circuit is open gets nothing; after the wait exactly one piece of work
    goes there, and the rest once that succeeded. (S0-68, V-26)"""
    bench = Bench(1)
    (instance,) = bench.instances
    instance.guards = (Circuit("search 0", bench.clock, CircuitPolicy(failures=2)),)
    instance.changed()
    for _ in range(2):
        bench.fleet.lease().release(DOWN)
    with pytest.raises(OverloadedError) as refused:
        bench.fleet.lease()
    assert (refused.value.reason, refused.value.retry_after_s) == (Shortage.CIRCUIT_OPEN, 5.0)
    bench.clock.advance(5)
    probe = bench.fleet.lease()
    with pytest.raises(OverloadedError):
        bench.fleet.lease()
    probe.release()
    assert [bench.fleet.lease() for _ in range(10)]


def test_one_that_is_back_gets_more_by_and_by() -> None:
    """For 10 s after its return an instance takes a share of its capacity that grows evenly.
    (S0-68)"""
    bench = Bench(1)
    (instance,) = bench.instances
    ease = SlowStart(instance, bench.clock, 10.0)
    instance.guards = (ease,)
    ease.begin()
    instance.changed()
    taken: list[Lease] = []
    grown: list[int] = []
    for _ in range(11):
        while bench.fleet.candidates():
            taken.append(bench.fleet.lease())
        grown.append(len(taken))
        bench.clock.advance(1)
    assert grown == [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 10]


@given(st.lists(st.booleans(), max_size=60))
def test_a_check_has_to_fail_thrice_and_succeed_twice(found: list[bool]) -> None:
    """Active checks take an instance away after three failures in a row and bring it back after
    two successes: one lost packet changes nothing. (S0-68, S0-79)"""
    instance = AgentInstance("0", "search")
    returns: list[bool] = []
    liveness = Liveness(instance, random.Random(1), back=lambda: returns.append(True))
    healthy, run = True, 0
    for there in found:
        liveness.checked(there=there)
        run = run + 1 if there is not healthy else 0
        if run == (2 if there else 3):
            healthy, run = there, 0
        assert instance.is_healthy is healthy
    assert len(returns) <= len(found) // 5


def test_checks_are_spread_in_time() -> None:
    """The pause between two checks varies by a fifth either way. (S0-68)"""
    liveness = Liveness(AgentInstance("0", "search"), random.Random(1), interval_s=10.0)
    pauses = [liveness.pause_s() for _ in range(200)]
    assert min(pauses) >= 8
    assert max(pauses) <= 12
    assert max(pauses) - min(pauses) > 3
