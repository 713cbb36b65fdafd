"""Cache-aware choice, after SGLang's router."""

import random
from collections import Counter
from typing import Any

import pytest

from paceline.balance.fleet import Fleet
from paceline.balance.instance import AgentInstance
from paceline.balance.request import Request
from paceline.balance.strategies.affinity import CacheAware
from paceline.balance.strategies.prefixes import BLOCK_TOKENS, PrefixIndex
from paceline.call import Tokens
from paceline.errors import Category, PacelineError
from paceline.testing.virtual_time import VirtualClock


def made(count: int = 4, **options: Any) -> Fleet:
    clock = VirtualClock()
    fleet = Fleet("llm", CacheAware(clock=clock, rng=random.Random(1), **options), clock=clock)
    for number in range(count):
        fleet.add(AgentInstance(f"e{number}", "llm", max_capacity=1000))
    return fleet


def turns(session: int, turn: int) -> Request:
    """The turn of a session: three blocks that all sessions have, then its own."""
    own = [1_000 * (session + 1) + n for n in range(11 + turn)]
    return Request(blocks=(*range(3), *own), input_tokens=512 * (14 + turn))


def test_sessions_stay_with_their_cache() -> None:
    """Over 50 turns each, sessions with instructions in common go on being served where they began,
    and all instances are used. (S0-54)"""
    fleet = made()
    homes: dict[int, set[str]] = {n: set() for n in range(12)}
    for turn in range(50):
        for session, seen in homes.items():
            lease = fleet.lease(turns(session, turn))
            seen.add(lease.instance.id)
            lease.release()
    assert all(len(seen) == 1 for seen in homes.values())
    assert set(Counter(min(seen) for seen in homes.values()).values()) == {3}


def test_a_small_match_is_no_reason() -> None:
    """A prompt of which less than the threshold is held goes to the least loaded. (S0-54)"""
    fleet = made(2)
    held = fleet.lease(turns(0, 0))
    assert held.instance.id == "e0"
    long = Request(blocks=(*range(3), *range(50, 70)))
    assert fleet.select(long).id == "e1"


def test_a_prompt_without_blocks_goes_to_the_least_loaded() -> None:
    """Work of which no block is known follows no prompt that went before it. (S0-54)"""
    fleet = made(2)
    held = [fleet.lease(turns(0, 0)), fleet.lease(turns(0, 1))]
    assert [lease.instance.id for lease in held] == ["e0", "e0"]
    assert fleet.select(Request()).id == "e1"


def test_misses_spread() -> None:
    """Prompts that nobody has seen, sent at the same time, do not follow each other to the same
    instance: they count from when they are sent. (S0-54)"""
    fleet = made()
    held = [fleet.lease(Request(blocks=tuple(range(n * 100, n * 100 + 9)))) for n in range(1, 9)]
    assert Counter(lease.instance.id for lease in held) == dict.fromkeys(
        ["e0", "e1", "e2", "e3"], 2
    )


def test_a_busy_holder_is_passed_over() -> None:
    """Once who holds the prompt has more than 8 above the least, and more than 1.3 times it, the
    least loaded gets the prompt. (S0-54)"""
    fleet = made(2)
    held = [fleet.lease(turns(0, 0)) for _ in range(30)]
    counted = Counter(lease.instance.id for lease in held)
    assert counted["e0"] - counted["e1"] <= 9
    assert counted["e1"] > 8


def test_imbalance_elsewhere_is_no_reason_to_leave_a_cache() -> None:
    """While one instance has far too much, a session on another still goes to its cache. (S0-54)"""
    fleet = made(3)
    first = fleet.lease(turns(0, 0))
    second = fleet.lease(turns(1, 0))
    assert (first.instance.id, second.instance.id) == ("e0", "e1")
    held = [fleet.lease(Request(avoid=frozenset({"e1", "e2"}))) for _ in range(12)]
    assert len(held) < fleet.instances["e0"].in_flight
    assert fleet.select(turns(1, 1)).id == "e1"
    assert fleet.select(turns(0, 1)).id == "e2"


def test_of_equal_holders_the_least_loaded() -> None:
    """When several hold as much of a prompt, the one with the least in flight gets it. (S0-62)"""
    fleet = made(2, absolute=2)
    blocks = turns(0, 0).blocks
    held = [fleet.lease(Request(blocks=blocks)) for _ in range(12)]
    counted = Counter(lease.instance.id for lease in held)
    assert abs(counted["e0"] - counted["e1"]) <= 3


@pytest.mark.parametrize("count", [4, 40])
def test_it_chooses_the_same_again(count: int) -> None:
    """With the same seed the choices are the same, with few instances and with many. (S0-83)"""
    found: list[list[str]] = []
    for _ in range(2):
        fleet = made(count)
        held = [fleet.lease(turns(n * n % 17, n % 5)) for n in range(200)]
        found.append([lease.instance.id for lease in held])
    assert found[0] == found[1]


def test_what_an_instance_reports_counts() -> None:
    """Where an instance says that it had less cached than was thought, less is remembered for it;
    failed work says nothing. (S0-54)"""
    index = PrefixIndex(capacity=64, least=8)
    fleet = made(1, index=index)
    [instance] = fleet.instances.values()
    for cached in (14, 0, 0):
        lease = fleet.lease(turns(0, 0))
        lease.used(Tokens(14 * BLOCK_TOKENS, 100, cached * BLOCK_TOKENS))
        lease.release()
    assert (smaller := index.capacity(instance)) < 14
    lease = fleet.lease(turns(0, 0))
    lease.used(Tokens(14 * BLOCK_TOKENS, 100))
    lease.release(PacelineError("down", category=Category.UNAVAILABLE))
    assert index.capacity(instance) == smaller
    fleet.remove("e0")
    assert index.levels(turns(0, 0).blocks) == []
