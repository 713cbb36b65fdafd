"""Waiting for an instance that is short of tokens: for whom it stays shut, and for whom not."""

import asyncio

import pytest

from paceline.balance.balancer import LoadBalancer
from paceline.balance.instance import AgentInstance
from paceline.balance.rate import Rates
from paceline.balance.request import Request
from paceline.testing.virtual_time import VirtualClock, run

LARGE = Request(input_tokens=3_000, output_tokens=0)
SMALL = Request(input_tokens=9, output_tokens=0)


def metered(*names: str) -> LoadBalancer:
    """Instances with 6,000 tokens a minute, of which 100 are left."""
    clock = VirtualClock()
    balancer = LoadBalancer("round_robin", clock=clock)
    for name in names:
        rates = Rates(clock, tokens=6_000)
        rates.admit(Request(input_tokens=5_900, output_tokens=0))
        balancer.register(AgentInstance(name, "ml", guards=(rates,)))
    return balancer


def now() -> float:
    return asyncio.get_running_loop().time()


async def visit(balancer: LoadBalancer, request: Request, limit_s: float | None = None) -> float:
    """When it was let in."""
    async with balancer.lease("ml", request, timeout=limit_s):
        return now()


@pytest.mark.parametrize("timeout", [None, 5])
def test_who_gives_up_takes_its_wish_along(timeout: float | None) -> None:
    """An instance that is shut because a large request waits for tokens is open to small ones at
    the moment at which that is cancelled, or has too little time to wait. (S0-64, S0-81)"""

    async def main() -> None:
        balancer = metered("a")
        large = asyncio.create_task(visit(balancer, LARGE, timeout))
        await asyncio.sleep(1)
        small = asyncio.create_task(visit(balancer, SMALL))
        await asyncio.sleep(1)
        large.cancel()
        await asyncio.wait([large])
        assert await small == (2 if timeout is None else 1)

    run(main())


def test_what_is_had_elsewhere_is_waited_for_nowhere() -> None:
    """A large request that another instance takes leaves none shut to small ones. (S0-64)"""

    async def main() -> None:
        balancer = metered("a", "b")
        balancer.register(AgentInstance("large", "ml", max_capacity=1))
        large = await balancer.lease("ml", LARGE)
        assert large.instance.id == "large"
        small = [(await balancer.lease("ml", SMALL, timeout=1)).instance.id for _ in range(2)]
        assert (sorted(small), now()) == (["a", "b"], 0)

    run(main())


def test_who_waits_for_tokens_is_not_overtaken() -> None:
    """As long as a large request waits, small ones wait behind it. (S0-64)"""

    async def main() -> None:
        balancer = metered("a")
        large = asyncio.create_task(visit(balancer, LARGE))
        await asyncio.sleep(1)
        small = asyncio.create_task(visit(balancer, SMALL))
        assert await large == pytest.approx(29)
        assert await small == pytest.approx(29.09)

    run(main())
