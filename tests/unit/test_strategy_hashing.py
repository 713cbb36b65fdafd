"""Consistent hashing with bounded loads."""

import math
import random
from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from paceline.balance.fleet import Fleet
from paceline.balance.instance import AgentInstance
from paceline.balance.request import Request
from paceline.balance.strategies.hashing import ConsistentHash
from paceline.testing.virtual_time import VirtualClock

if TYPE_CHECKING:
    from paceline.balance.lease import Lease

KEYS = [f"session-{n}" for n in range(200)]


def made(*ids: str, weights: dict[str, float] | None = None, **options: Any) -> Fleet:
    clock = VirtualClock()
    strategy = ConsistentHash(clock=clock, rng=random.Random(1), **options)
    fleet = Fleet("llm", strategy, clock=clock)
    for each in ids:
        fleet.add(
            AgentInstance(each, "llm", max_capacity=1000, weight=(weights or {}).get(each, 1.0))
        )
    return fleet


def owners(fleet: Fleet) -> dict[str, str]:
    return {key: fleet.select(Request(affinity=key)).id for key in KEYS}


NAMES = st.sets(st.sampled_from("abcdefghijkl"), min_size=2, max_size=8)


@settings(max_examples=25)
@given(NAMES, st.data())
def test_only_what_must_move_moves(names: set[str], data: st.DataObject) -> None:
    """When an instance joins, work only moves to it; when one leaves, only its own work moves; and
    when it comes back all is as before. (S0-54)"""
    which = data.draw(st.sampled_from(sorted(names)))
    fleet = made(*sorted(names - {which}))
    before = owners(fleet)
    fleet.add(AgentInstance(which, "llm", max_capacity=1000))
    after = owners(fleet)
    assert all(after[key] in {before[key], which} for key in KEYS)
    fleet.remove(which)
    assert owners(fleet) == before


@settings(max_examples=10)
@given(st.permutations("abcdef"))
def test_the_order_of_joining_does_not_matter(names: list[str]) -> None:
    """Balancers that learned of instances in another order choose alike. (S0-54)"""
    assert owners(made(*names)) == owners(made(*"abcdef"))


def test_the_choice_is_the_same_in_every_process() -> None:
    """Hashes do not depend on the process: these are the owners, here and everywhere. (S0-54)"""
    fleet = made(*"abcdef")
    found = "".join([fleet.select(Request(affinity=key)).id for key in KEYS[:24]])
    assert found == "afcbbaeaedeabafffcbeebfb"


@settings(max_examples=60)
@given(
    st.lists(st.tuples(st.integers(0, 5), st.booleans()), max_size=80),
    st.lists(st.sampled_from([0.5, 1.0, 3.0]), min_size=4, max_size=4),
)
def test_the_load_is_bounded(steps: list[tuple[int, bool]], weights: list[float]) -> None:
    """No instance is given more than 1.25 times its share by weight of what is in flight, rounded
    up, however alike the keys are. (S0-54)"""
    fleet = made(*"abcd", weights=dict(zip("abcd", weights, strict=True)))
    leases: list[Lease] = []
    for key, end in steps:
        if end and leases:
            leases.pop(0).release()
            continue
        lease = fleet.lease(Request(affinity=f"k{key}"))
        leases.append(lease)
        bound = 1.25 * len(leases) * lease.instance.weight / sum(weights)
        assert lease.instance.in_flight <= math.ceil(bound)


def test_a_session_stays_where_it_is() -> None:
    """The turns of a session go to the same instance, another instance's failing changes nothing,
    and after its own instance was away it returns there. (S0-54)"""
    fleet = made(*"abcdef")
    before = owners(fleet)
    other, mine = "a", next(each for each in before.values() if each != "a")
    fleet.instances[other].is_healthy = False
    moved = owners(fleet)
    assert all(moved[key] == before[key] for key in KEYS if before[key] != other)
    fleet.instances[mine].is_healthy = False
    assert mine not in owners(fleet).values()
    fleet.instances[other].is_healthy = fleet.instances[mine].is_healthy = True
    assert owners(fleet) == before


def test_the_first_block_stands_in_for_affinity() -> None:
    """Prompts with the same first block go together, and those with another spread. (S0-54)"""
    fleet = made(*"abcdef")
    same = {fleet.select(Request(blocks=(7, n))).id for n in range(50)}
    others = {fleet.select(Request(blocks=(n, 1))).id for n in range(200)}
    assert len(same) == 1
    assert others == set("abcdef")


def test_work_without_affinity_goes_to_the_least_loaded() -> None:
    """Work of which nothing is known spreads evenly. (S0-62)"""
    fleet = made(*"abc")
    held = [fleet.lease() for _ in range(9)]
    assert Counter(lease.instance.id for lease in held) == dict.fromkeys("abc", 3)


@pytest.mark.parametrize(("heavy", "low", "high"), [(1.0, 0.15, 0.35), (3.0, 0.4, 0.6)])
def test_keys_are_owned_by_weight(heavy: float, low: float, high: float) -> None:
    """An instance owns about its share by weight of the keys. (S0-54)"""
    counted = Counter(owners(made(*"abcd", weights={"a": heavy})).values())
    assert low < counted["a"] / len(KEYS) < high


def test_a_changed_weight_moves_keys() -> None:
    """An instance whose weight is changed, or that is registered again with another, owns what one
    that joined with it would own. (S0-54, S0-82)"""
    expected = owners(made(*"abcd", weights={"a": 3.0}))
    fleet, again = made(*"abcd"), made(*"abcd")
    assert owners(fleet) != expected
    fleet.instances["a"].weight = 3.0
    again.add(AgentInstance("a", "llm", max_capacity=1000, weight=3.0))
    assert owners(fleet) == owners(again) == expected
