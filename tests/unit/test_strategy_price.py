"""Where work costs least."""

import random
from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from paceline.balance.fleet import Fleet
from paceline.balance.instance import AgentInstance
from paceline.balance.request import Features, Request
from paceline.balance.strategies.price import Cheapest
from paceline.call import Tokens
from paceline.errors import OverloadedError
from paceline.testing.virtual_time import VirtualClock

if TYPE_CHECKING:
    from paceline.balance.lease import Lease


def made(capacity: int = 10, *, prices: dict[str, Features], **options: Any) -> Fleet:
    clock = VirtualClock()
    fleet = Fleet("llm", Cheapest(clock=clock, rng=random.Random(1), **options), clock=clock)
    for name, features in prices.items():
        fleet.add(AgentInstance(name, "llm", max_capacity=capacity, features=features))
    return fleet


def test_the_price_is_that_of_the_tokens() -> None:
    """Which is cheaper depends on how much is read and how much written: a long prompt goes where
    input is cheap, a long answer where output is. (S0-80, S0-54)"""
    fleet = made(
        prices={
            "reader": Features(input_usd=1, output_usd=10),
            "writer": Features(input_usd=3, output_usd=4),
            "flat": Features(call_usd=0.05),
        },
        load=0.0,
    )
    assert fleet.select(Request(input_tokens=10_000, output_tokens=10)).id == "reader"
    assert fleet.select(Request(input_tokens=100, output_tokens=5_000)).id == "writer"
    assert fleet.select(Request(input_tokens=90_000, output_tokens=9_000)).id == "flat"


def test_the_length_of_answers_is_learned() -> None:
    """Where a request does not say how long its answer will be, the answers of late say it, and
    failures say nothing of it. (S0-54)"""
    fleet = made(prices={"a": Features(output_usd=9), "b": Features(call_usd=0.01)}, load=0.0)
    asked = Request(input_tokens=100)
    assert fleet.select(asked).id == "a"
    for _ in range(200):
        lease = fleet.lease(asked)
        lease.used(Tokens(100, 3_000))
        lease.release()
    assert fleet.select(asked).id == "b"


@settings(max_examples=40)
@given(st.lists(st.booleans(), max_size=60), st.sampled_from([0.0, 0.3, 1.0]))
def test_nobody_gets_more_than_the_limit(steps: list[bool], load: float) -> None:
    """However cheap an instance is, it never has more than its limit; the others are used while it
    is full. (S0-54)"""
    fleet = made(
        4,
        prices={"cheap": Features(input_usd=0.1), "dear": Features(input_usd=9)},
        load=load,
    )
    held: list[Lease] = []
    for end in steps:
        if end and held:
            held.pop(0).release()
        elif len(held) == 8:
            with pytest.raises(OverloadedError):
                fleet.lease(Request(input_tokens=1_000))
        else:
            held.append(fleet.lease(Request(input_tokens=1_000)))
        assert all(i.in_flight <= 4 for i in fleet.instances.values())


@pytest.mark.parametrize(("load", "dear"), [(0.0, 0), (4.0, 5), (20.0, 9)])
def test_the_dial_weighs_load_against_price(load: float, dear: int) -> None:
    """With the dial at price alone the cheap one gets all; the further it is turned, the nearer
    loads come to being equal. (S0-83)"""
    fleet = made(
        40, prices={"cheap": Features(input_usd=1), "dear": Features(input_usd=2)}, load=load
    )
    held = [fleet.lease(Request(input_tokens=1_000)) for _ in range(20)]
    counted = Counter(lease.instance.id for lease in held)
    assert abs(counted["dear"] - dear) <= 2


def test_equals_share_the_work() -> None:
    """Where all cost the same, or nothing, the least loaded is chosen, then the one chosen longest
    ago. (S0-62)"""
    for features in (Features(), Features(input_usd=2, output_usd=3)):
        fleet = made(prices=dict.fromkeys("abc", features))
        ids = ""
        for _ in range(6):
            lease = fleet.lease(Request(input_tokens=10))
            ids += lease.instance.id
            lease.release()
        assert ids == "abcabc"
        held = [fleet.lease(Request(input_tokens=10)) for _ in range(9)]
        assert Counter(lease.instance.id for lease in held) == dict.fromkeys("abc", 3)


def test_one_that_left_is_not_chosen() -> None:
    """After the cheapest has left, the next gets the work. (S0-54)"""
    fleet = made(prices={"a": Features(input_usd=1), "b": Features(input_usd=2)})
    fleet.remove("a")
    assert fleet.select(Request(input_tokens=10)).id == "b"


def test_a_changed_price_counts_at_once() -> None:
    """An instance that is registered again with another price is chosen by that from then
    on. (S0-80, S0-82)"""
    fleet = made(prices={"a": Features(input_usd=1), "b": Features(input_usd=2)})
    asked = Request(input_tokens=10)
    assert fleet.select(asked).id == "a"
    fleet.add(AgentInstance("a", "llm", features=Features(input_usd=3)))
    assert fleet.select(asked).id == "b"
    fleet.add(AgentInstance("b", "llm", features=Features(input_usd=4)))
    assert fleet.select(asked).id == "a"


@given(
    st.lists(
        st.tuples(st.integers(0, 3), st.integers(0, 3), st.integers(0, 3), st.integers(0, 2)),
        min_size=1,
        max_size=8,
    ),
    st.integers(0, 2_000_000),
    st.integers(0, 1_000_000),
)
def test_it_is_the_least_of_all(
    asked: list[tuple[int, int, int, int]], read: int, written: int
) -> None:
    """Whatever instances ask, and however many ask the same, the chosen one costs the least, and
    with equal costs has the least load. (S0-54)"""
    fleet = made(
        prices={
            str(n): Features(call_usd=each[0], input_usd=each[1], output_usd=each[2])
            for n, each in enumerate(asked)
        },
        load=0.0,
    )
    for n, (*_, held) in enumerate(asked):
        others = frozenset(fleet.instances) - {str(n)}
        for _ in range(held):
            fleet.lease(Request(avoid=others))
    work = Request(input_tokens=read, output_tokens=written)

    def cost(instance: AgentInstance) -> tuple[float, float]:
        has = instance.features
        usd = has.call_usd + (read * has.input_usd + written * has.output_usd) / 1e6
        return round(usd, 9), instance.rank

    assert cost(fleet.select(work)) == min(map(cost, fleet.instances.values()))
