"""What a cache of another size would miss, from a sample of the keys."""

import bisect
import itertools
import random
from collections.abc import Sequence
from statistics import fmean
from typing import TYPE_CHECKING, Any, cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from paceline.cache.entry import Entry, FullEntry
from paceline.cache.policies.curve import Measured, MissRatioCurve, sizes_around
from paceline.cache.policies.lru import LRU
from paceline.cache.policies.s3fifo import S3Fifo

if TYPE_CHECKING:
    from paceline.cache.policies.policy import Policy


def exact(keys: Sequence[int], capacities: Sequence[int]) -> list[float]:
    """Miss ratios of least recently used by stack distances (Mattson et al., 1970)."""
    stack: list[int] = []
    distances: list[int] = []
    for key in keys:
        if key in stack:
            distances.append(len(stack) - stack.index(key))
            stack.remove(key)
        stack.append(key)
    return [1 - sum(d <= capacity for d in distances) / len(keys) for capacity in capacities]


def skewed(length: int, distinct: int, *, hot: float = 0.0) -> list[int]:
    """Keys of skewed popularity; `hot` is the share of accesses that all go to one key more."""
    rng = random.Random(1)
    weights = [*itertools.accumulate(1 / (rank + 1) ** 0.8 for rank in range(distinct))]
    return [
        -1 if rng.random() < hot else bisect.bisect(weights, rng.random() * weights[-1])
        for _ in range(length)
    ]


def curve_of(
    keys: Sequence[int], capacities: Sequence[int], *, corrected: bool = True, **how: Any
) -> list[float]:
    curve = MissRatioCurve(capacities, **how)
    for key in keys:
        curve.note(key)
    return [ratio for _, ratio in curve.points(corrected=corrected)]


@given(st.lists(st.integers(0, 30), min_size=1, max_size=300))
@settings(max_examples=50, deadline=None)
def test_with_all_keys_it_is_exact(keys):
    """A sample of everything gives the exact curve. (S0-77)"""
    capacities = [1, 2, 5, 10, 20]
    assert curve_of(keys, capacities, share=1.0) == pytest.approx(exact(keys, capacities))


def off(keys: Sequence[int], **how: Any) -> float:
    capacities = [200, 600, 1_800]
    truth = curve_of(keys, capacities, kind=how.get("kind", LRU), share=1.0)
    return 100 * fmean(
        abs(a - b) for a, b in zip(curve_of(keys, capacities, **how), truth, strict=True)
    )


@pytest.mark.parametrize("kind", [LRU, S3Fifo])
def test_a_sample_is_close_to_the_truth(kind):
    """A tenth of the keys gives the curve of the policy asked about to a few points. (S0-77)"""
    assert off(skewed(25_000, 5_000), kind=kind, share=0.1) < 4.0


def test_one_hot_key_does_not_spoil_the_curve():
    """The correction is what keeps one key asked for all the time from ruling it. (S0-77)"""
    keys = skewed(20_000, 5_000, hot=0.4)
    assert off(keys, share=0.1) < 4.0
    assert off(keys, share=0.1, corrected=False) > 8.0


def test_more_room_misses_less():
    """Under least recently used the curve never rises. (S0-77)"""
    ratios = curve_of(skewed(20_000, 2_000), sizes_around(400), share=0.3)
    assert ratios == sorted(ratios, reverse=True)
    assert all(0.0 <= ratio <= 1.0 for ratio in ratios)


def test_without_accesses_everything_misses():
    """Nothing is known before the first access. (S0-77)"""
    assert MissRatioCurve([10, 20]).points() == [(10, 1.0), (20, 1.0)]


def test_sizes_around_a_capacity():
    """From an eighth to eight times the capacity, none twice. (S0-77)"""
    assert sizes_around(800) == (100, 200, 400, 800, 1_600, 3_200, 6_400)
    assert sizes_around(2) == (1, 2, 4, 8, 16)


def test_the_cost_is_bounded():
    """The smallest capacity has some 256 entries in its simulation, whatever its size. (S0-77)"""
    curve = MissRatioCurve(sizes_around(20_000))
    for key in range(60_000):
        curve.note(key)
    assert max(map(len, curve._shadows)) <= 256 * 64
    assert len(curve._shadows[0]) == 256
    assert curve.accesses == 60_000


def test_a_curve_goes_with_any_policy():
    """A policy with a curve beside it evicts as it does alone. (S0-77)"""
    curve = MissRatioCurve([1, 2, 4], share=1.0)
    alone, measured = LRU(2), Measured(LRU(2), curve)
    keys = skewed(300, 8)
    order: dict[Policy, Any] = {}
    policies: tuple[Policy, Policy] = (alone, measured)
    for policy in policies:
        held: dict[int, Entry] = {}
        gone: list[int] = []
        for key in keys:
            if key in held:
                policy.use(held[key])
                continue
            entry = held[key] = FullEntry(key, None, 0)
            entry.table = cast("Any", 0)
            policy.add(entry)
            if len(held) > 2:
                gone.append(policy.evict().key)
                del held[gone[-1]]
        assert len(policy) == 2
        order[policy] = (gone, [e.key for e in policy])
        policy.remove(next(iter(policy)))
        assert len(policy) == 1
    assert order[alone] == order[measured]
    assert curve.accesses == len(keys)
    assert dict(curve.points())[2] == pytest.approx((len(order[measured][0]) + 2) / len(keys))
