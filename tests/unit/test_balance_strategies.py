"""Strategies that go by turn, load, time and chance."""

import math
import random
from collections import Counter
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from paceline.balance.fleet import Fleet
from paceline.balance.instance import AgentInstance
from paceline.balance.lease import Lease
from paceline.balance.strategies import make
from paceline.balance.strategy import LoadBalancingStrategy
from paceline.errors import Category, OverloadedError, PacelineError, UsageError
from paceline.testing.virtual_time import VirtualClock

HERE = (
    "round_robin", "smooth_weighted", "least_loaded", "weighted", "random", "power_of_two",
    "peak_ewma",
)  # fmt: skip


def made(name: str, *instances: AgentInstance, seed: int = 1) -> tuple[Fleet, VirtualClock]:
    clock = VirtualClock()
    fleet = Fleet("ml", make(name, clock=clock, rng=random.Random(seed)), clock=clock)
    for instance in instances:
        fleet.add(instance)
    return fleet, clock


def some(count: int, **options: Any) -> list[AgentInstance]:
    return [AgentInstance(str(n), "ml", **{"max_capacity": 1000} | options) for n in range(count)]


def chosen(fleet: Fleet, times: int) -> str:
    """The ids of instances chosen one after the other, none keeping its work."""
    ids = ""
    for _ in range(times):
        lease = fleet.lease()
        ids += lease.instance.id
        lease.release()
    return ids


def test_there_are_the_four_of_old_and_more() -> None:
    """The four names of old are there with their values, and every name that is here makes a
    strategy. (S0-54, S0-58)"""
    old = {"ROUND_ROBIN", "LEAST_LOADED", "WEIGHTED", "RANDOM"}
    assert old <= set(LoadBalancingStrategy.__members__)
    assert all(LoadBalancingStrategy[name].value == name.lower() for name in old)
    for name in HERE:
        assert len(chosen(made(name, *some(2))[0], 3)) == 3


def test_an_unknown_strategy_is_named() -> None:
    """A strategy that does not exist is refused with the nearest name. (S0-54)"""
    with pytest.raises(UsageError, match="no strategy 'least_load'") as caught:
        make("least_load", clock=VirtualClock(), rng=random.Random(1))
    assert caught.value.next_step == "Did you mean least_loaded?"


@pytest.mark.parametrize("name", HERE)
def test_the_same_seed_gives_the_same_choices(name: str) -> None:
    """Choices are repeatable: same seed, same events, same instances. (S0-54, S0-63)"""

    def run(seed: int) -> list[str]:
        fleet, clock = made(name, *some(5, max_capacity=3), seed=seed)
        dice, out, seen = random.Random(7), list[Lease](), list[str]()
        for _ in range(300):
            clock.advance(dice.random())
            if out and dice.random() < 0.5:
                out.pop(dice.randrange(len(out))).release()
                continue
            try:
                out.append(fleet.lease())
            except OverloadedError:
                continue
            seen.append(out[-1].instance.id)
        return seen

    assert run(3) == run(3)
    if name in {"weighted", "random", "power_of_two"}:
        assert run(3) != run(4)


# --- taking turns


def test_round_robin_is_fair_while_one_flaps() -> None:
    """With one of three away every other time, nobody is chosen twice in a row, and the two others
    get the same. (S0-61)"""
    instances = some(3)
    fleet, _ = made("round_robin", *instances)
    assert chosen(fleet, 6) == "012012"
    ids = ""
    for turn in range(60):
        instances[1].is_healthy = turn % 2 == 0
        ids += chosen(fleet, 1)
    count = Counter(ids)
    assert abs(count["0"] - count["2"]) <= 1
    assert all(ids[n] != ids[n + 1] for n in range(59))


@given(st.lists(st.sets(st.integers(0, 4), min_size=1), max_size=80))
def test_round_robin_fairness_holds_for_any_flapping(away: list[set[int]]) -> None:
    """Whoever comes and goes, those always there differ by one at most, and are chosen at least
    once in as many choices as there are instances. (S0-61)"""
    instances = some(5)
    fleet, _ = made("round_robin", *instances)
    always = set(range(5)).difference(*away)
    ids = ""
    for gone in away:
        for number, instance in enumerate(instances):
            instance.is_healthy = number not in gone or not any(n not in gone for n in range(5))
        ids += chosen(fleet, 1)
    counts = [ids.count(str(n)) for n in always]
    assert not counts or max(counts) - min(counts) <= 1
    for start in range(len(ids) - 4):
        assert {str(n) for n in always} <= set(ids[start : start + 5])


def test_weights_are_spread_evenly() -> None:
    """Weights 5, 1 and 1 give the heavy one five of seven, never more than six running, and the
    light ones one each. (S0-61)"""
    instances = [AgentInstance(n, "ml", max_capacity=9, weight=w) for n, w in zip("abc", (5, 1, 1), strict=True)]  # fmt: skip
    fleet, _ = made("smooth_weighted", *instances)
    ids = chosen(fleet, 70)
    assert Counter(ids) == {"a": 50, "b": 10, "c": 10}
    assert "a" * 7 not in ids


@given(
    st.lists(st.integers(1, 9), min_size=2, max_size=5),
    st.lists(st.booleans(), max_size=60),
)
def test_weighted_turns_are_fair_while_one_flaps(weights: list[int], there: list[bool]) -> None:
    """Of those always there nobody is ahead of another, for its weight, by more than a turn of
    each, however the last one comes and goes. (S0-61)"""
    instances = [AgentInstance(str(n), "ml", weight=w) for n, w in enumerate(weights)]
    fleet, _ = made("smooth_weighted", *instances)
    counts = [0] * len(weights)
    for present in there:
        instances[-1].is_healthy = present
        counts[int(chosen(fleet, 1))] += 1
        turns = [(counts[n] / w, 1 / w) for n, w in enumerate(weights[:-1])]
        for one, step in turns:
            for other, other_step in turns:
                assert one - other <= step + other_step + 1e-9


def test_who_comes_back_does_not_catch_up() -> None:
    """An instance that was away goes on at its share, without a burst. (S0-61)"""
    instances = some(2)
    fleet, _ = made("smooth_weighted", *instances)
    instances[1].is_healthy = False
    chosen(fleet, 100)
    instances[1].is_healthy = True
    assert abs(chosen(fleet, 10).count("1") - 5) <= 1


# --- load


def test_least_loaded_goes_by_share_of_capacity() -> None:
    """The instance with the least load for its capacity is chosen, not the one with the fewest.
    (S0-62)"""
    small, large = AgentInstance("s", "ml", 1, 2), AgentInstance("l", "ml", 3, 10)
    assert made("least_loaded", small, large)[0].select() is large
    heavy, light = AgentInstance("h", "ml", 3, 10, weight=2), AgentInstance("l", "ml", 2, 10)
    assert made("least_loaded", light, heavy)[0].select() is heavy


def test_equals_are_chosen_in_turn() -> None:
    """Of equally loaded instances the one chosen longest ago is next, not the first registered.
    (S0-62)"""
    fleet, _ = made("least_loaded", *some(3))
    assert chosen(fleet, 7) == "0120120"
    held = [fleet.lease() for _ in range(3)]
    held.pop(0).release()
    held += [fleet.lease(), fleet.lease()]
    assert "".join(lease.instance.id for lease in held) == "20" + "12"


def test_a_lower_limit_counts_at_once() -> None:
    """When a limit or weight is changed, the next choice goes by the new one. (S0-62, S0-82)"""
    one, other = AgentInstance("a", "ml", 2, 10), AgentInstance("b", "ml", 3, 10)
    fleet, _ = made("least_loaded", one, other)
    assert fleet.select() is one
    one.limit = 4
    assert fleet.select() is other
    one.weight = 10
    assert fleet.select() is one
    one.limit = 2
    assert fleet.candidates() == [other]


def test_two_choices_do_nearly_as_well_as_all() -> None:
    """The less loaded of two at random keeps the fullest close to the mean; one at random does not.
    (S0-54, S0-62)"""

    def fullest(name: str) -> int:
        instances = some(20)
        fleet, _ = made(name, *instances)
        leases = [fleet.lease() for _ in range(400)]
        assert len(leases) == 400
        return max(i.in_flight for i in instances)

    assert fullest("least_loaded") == 20
    assert fullest("power_of_two") <= 23
    assert fullest("random") > 25


@pytest.mark.parametrize("name", ["power_of_two", "random", "weighted"])
def test_a_single_candidate_is_chosen(name: str) -> None:
    """With one instance left, chance has no choice. (S0-63)"""
    assert chosen(made(name, *some(1))[0], 5) == "00000"


# --- chance


def shares(fleet: Fleet, times: int = 4000) -> dict[str, float]:
    return {name: n / times for name, n in Counter(chosen(fleet, times)).items()}


def test_chance_follows_the_weights() -> None:
    """Weighted choice is in proportion to weight times free share; uniform choice to nothing.
    (S0-63)"""

    def instances() -> Sequence[AgentInstance]:
        return [
            AgentInstance("a", "ml", 0, 10, weight=3),
            AgentInstance("b", "ml", 5, 10, weight=4),
            AgentInstance("c", "ml", 9, 10, weight=10),
        ]

    weighted = shares(made("weighted", *instances())[0])
    assert weighted == pytest.approx({"a": 3 / 6, "b": 2 / 6, "c": 1 / 6}, abs=0.04)
    uniform = shares(made("random", *instances())[0])
    assert uniform == pytest.approx(dict.fromkeys("abc", 1 / 3), abs=0.04)


@pytest.mark.parametrize("heavy", [2, 500])
def test_chance_follows_a_changed_weight(heavy: float) -> None:
    """When a weight is changed, chance follows the new one, also where one outweighs all
    others. (S0-63, S0-82)"""
    instances = some(5)
    fleet, _ = made("weighted", *instances)
    instances[3].weight = heavy
    assert shares(fleet)["3"] == pytest.approx(heavy / (heavy + 4), abs=0.03)
    fleet.remove("3")
    assert shares(fleet) == pytest.approx(dict.fromkeys("0124", 1 / 4), abs=0.03)


@pytest.mark.parametrize("name", HERE)
def test_weight_zero_is_never_chosen(name: str) -> None:
    """An instance of weight zero gets nothing, by any strategy; with all of them zero it is an
    error that says so. (S0-63)"""
    instances = some(2)
    fleet, _ = made(name, *instances)
    instances[0].weight = 0
    assert chosen(fleet, 20) == "1" * 20
    instances[1].weight = 0
    with pytest.raises(OverloadedError, match="2 no capacity"):
        fleet.lease()


# --- time


def took(fleet: Fleet, clock: VirtualClock, seconds: float, error: str = "") -> str:
    lease = fleet.lease()
    clock.advance(seconds)
    lease.release(PacelineError("x", category=Category(error)) if error else None)
    return lease.instance.id


def test_the_quick_get_more() -> None:
    """Each instance is tried once; from then on the quick ones are chosen, and more of them the
    more they have in flight. (S0-54, S0-62)"""
    fleet, clock = made("peak_ewma", *some(3))
    speed = {"0": 0.4, "1": 0.1, "2": 0.4}
    leases = [fleet.lease() for _ in range(3)]
    for lease in sorted(leases, key=lambda lease: speed[lease.instance.id]):
        clock.advance(0.2)
        lease.release()
    held = [fleet.lease() for _ in range(5)]
    counts = Counter(lease.instance.id for lease in held)
    assert counts["1"] > counts["0"] >= 1
    assert counts["1"] > counts["2"] >= 1


def test_one_that_is_unknown_is_tried_once() -> None:
    """A new instance gets one piece of work, and no more before that has ended. (S0-54)"""
    fleet, clock = made("peak_ewma", *some(1))
    took(fleet, clock, 0.1)
    fleet.add(AgentInstance("new", "ml", max_capacity=1000))
    held = [fleet.lease() for _ in range(5)]
    assert [lease.instance.id for lease in held] == ["new", "0", "0", "0", "0"]


def test_a_peak_counts_at_once_and_is_forgotten_slowly() -> None:
    """One slow answer keeps work away for a while; then the instance is tried again. (S0-54)"""
    instances = some(2)
    fleet, clock = made("peak_ewma", *instances)
    ids = [took(fleet, clock, 0.1) for _ in range(4)]
    slow = took(fleet, clock, 5.0)
    seen = ""
    while (next_one := took(fleet, clock, 0.1)) != slow:
        seen += next_one
    assert set(ids) == {"0", "1"}
    assert 50 < len(seen) < 1000


def test_the_mean_falls_to_what_is_measured() -> None:
    """After a longer time, shorter ones draw the expectation to what they are, by e in the time
    constant. (S0-54)"""
    fleet, clock = made("peak_ewma", *some(1))

    def expected_s() -> float:
        ((level, _),) = fleet.strategy._known.values()  # type: ignore[attr-defined]
        return math.exp(level - clock.monotonic_ns() / 10e9) / 1e9

    took(fleet, clock, 0.15)
    assert expected_s() == pytest.approx(0.15, rel=1e-3)
    for _ in range(100):
        took(fleet, clock, 0.05)
    assert expected_s() == pytest.approx(0.05 + 0.1 * math.exp(-0.5), rel=0.01)


@pytest.mark.parametrize("first", [True, False])
def test_failing_fast_is_not_speed(first: bool) -> None:
    """An instance that fails at once does not draw the work of others, whether it ever worked or
    not. (S0-54, S0-68)"""
    fleet, clock = made("peak_ewma", *some(4))
    if not first:
        for _ in range(8):
            took(fleet, clock, 0.5)
    ids = ""
    for _ in range(400):
        lease = fleet.lease()
        bad = lease.instance.id == "2"
        clock.advance(0.01 if bad else 0.5)
        lease.release(PacelineError("x", category=Category.NETWORK) if bad else None)
        ids += lease.instance.id
    assert ids.count("2") < 400 * 0.26


def test_work_given_up_is_no_quick_answer() -> None:
    """Work that was cancelled early says nothing; cancelled late it says that it took long.
    (S0-54)"""
    fleet, clock = made("peak_ewma", *some(2))
    for _ in range(2):
        took(fleet, clock, 1.0)
    given_up: list[str] = []
    for seconds in (0.001, 9.0):
        lease = fleet.lease()
        clock.advance(seconds)
        lease.release(abandoned=True)
        given_up.append(lease.instance.id)
    assert given_up[0] == given_up[1] != took(fleet, clock, 1.0)
    fleet.add(AgentInstance("new", "ml", max_capacity=1000))
    for _ in range(2):
        fleet.lease().release(abandoned=True)
        held = [fleet.lease() for _ in range(2)]
        assert [lease.instance.id == "new" for lease in held] == [True, False]
        for lease in held:
            lease.release(abandoned=True)
