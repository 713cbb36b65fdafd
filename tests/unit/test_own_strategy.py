"""A strategy of a user's own that does not do what it should."""

import asyncio
from collections.abc import Sequence

import pytest

from paceline.balance.balancer import LoadBalancer
from paceline.balance.fleet import Fleet
from paceline.balance.instance import AgentInstance
from paceline.balance.request import Request
from paceline.balance.strategy import Strategy
from paceline.errors import UsageError
from paceline.testing.virtual_time import VirtualClock


class Odd(Strategy):
    """Returns what it is told to, or raises it."""

    def __init__(self, chosen: object) -> None:
        self.chosen = chosen

    def pick(
        self, candidates: Sequence[AgentInstance], request: Request, now_ns: int
    ) -> AgentInstance:
        if isinstance(self.chosen, Exception):
            raise self.chosen
        return self.chosen  # type: ignore[return-value]


def fleet_with(chosen: object) -> Fleet:
    fleet = Fleet("far", Odd(chosen), clock=VirtualClock())
    fleet.add(AgentInstance("one", "far"))
    return fleet


ELSEWHERE = AgentInstance("two", "far")
DRAINED = AgentInstance("three", "far")


@pytest.mark.parametrize(
    ("chosen", "shown"),
    [
        (None, "None"),
        ("one", "'one'"),
        (ELSEWHERE, "instance two"),
        (DRAINED, "instance three"),
        ([], "[]"),
    ],
)
def test_what_is_no_candidate_is_not_taken(chosen: object, shown: str) -> None:
    """A choice that is none of the candidates is an error that names the strategy and the choice,
    and nothing is counted as sent. (S0-54, S0-83)"""
    fleet = fleet_with(chosen)
    if chosen is DRAINED:
        fleet.add(DRAINED)
        DRAINED.draining = True
    for choose in (fleet.lease, fleet.select):
        with pytest.raises(UsageError) as caught:
            choose()
        assert f"the strategy Odd chose {shown}" in str(caught.value)
        assert "one of `candidates`" in caught.value.next_step
    assert fleet.instances["one"].in_flight == 0


def test_what_it_raises_is_an_error_of_ours() -> None:
    """An exception of a strategy is an error that names it, with the exception as its cause; an
    error of ours is itself. (S0-54, S0-83)"""
    cause = KeyError("x")
    with pytest.raises(UsageError, match="the strategy Odd failed: KeyError: 'x'") as caught:
        fleet_with(cause).lease()
    assert caught.value.__cause__ is cause
    with pytest.raises(UsageError, match=r"^as it is$"):
        fleet_with(UsageError("as it is")).lease()


async def test_whoever_waits_is_told() -> None:
    """All who waited for a place are told, too, when one is free. (S0-54, S0-83)"""
    balancer = LoadBalancer(clock=VirtualClock())
    balancer.register(AgentInstance("one", "far", max_capacity=1))
    held = balancer.try_lease("far")
    balancer.set_strategy("far", Odd(None))

    async def wait() -> None:
        async with balancer.lease("far"):
            raise AssertionError

    waiting = [asyncio.create_task(wait()) for _ in range(3)]
    await asyncio.sleep(0)
    held.release()
    async with asyncio.timeout(5):
        for each in waiting:
            with pytest.raises(UsageError, match="the strategy Odd chose None"):
                await each
