"""The sketch: within its error, whatever the values, in whatever order and parts they come."""

import math
import sys
from collections.abc import Callable
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from paceline.errors import UsageError
from paceline.metrics.sketch import Sketch

# Values within the 17 decades that are never collapsed, and zero.
NANOSECONDS = st.lists(st.integers(0, 10**17), min_size=1, max_size=60)
FLOATS = st.lists(st.just(0.0) | st.floats(1e-9, 1e7), min_size=1, max_size=60)
ANY = st.lists(st.just(0) | st.floats(1e-290, 1e290), max_size=40)
QUANTILES = (0, 0.01, 0.25, 0.5, 0.9, 0.95, 0.99, 0.999, 1)


def sketch_of(values: list[float], **settings: float) -> Sketch:
    sketch = Sketch(**settings)  # type: ignore[arg-type]
    for value in values:
        sketch.add(value)
    return sketch


def check_error(values: list[float], quantile: Callable[[float], float | None]) -> None:
    """Every quantile is within 1 % of the exact one."""
    ordered = sorted(values)
    for q in QUANTILES:
        exact = ordered[max(1, math.ceil(q * len(ordered))) - 1]
        found = quantile(q)
        assert found is not None
        assert abs(found - exact) <= exact * 0.01 * (1 + 1e-9), (q, exact, found)


@given(NANOSECONDS | FLOATS)
def test_quantiles_are_within_one_per_cent(values: list[float]) -> None:
    """Any quantile differs from the exact nearest-rank one by at most 1 %. (S0-04, S0-07, S0-70)"""
    check_error(values, sketch_of(values).quantile)


@given(ANY)
def test_count_sum_and_extremes_are_exact(values: list[float]) -> None:
    """Count, sum, least and greatest value are those of the values themselves. (S0-08)"""
    sketch = sketch_of(values)
    assert sketch.count == len(values)
    assert sketch.sum == sum(values)
    assert (sketch.min, sketch.max) == ((min(values), max(values)) if values else (None, None))


@given(st.lists(ANY, max_size=4), st.integers(1, 50), st.randoms(use_true_random=False))
def test_merging_is_adding_all(parts: list[list[float]], max_buckets: int, rng: object) -> None:
    """Parts merged in any order and grouping are equal to one sketch of all values. (S0-04)"""
    whole = sketch_of([value for part in parts for value in part], max_buckets=max_buckets)
    sketches = [sketch_of(part, max_buckets=max_buckets) for part in parts]
    rng.shuffle(sketches)  # type: ignore[attr-defined]
    while len(sketches) > 1:
        at = rng.randrange(len(sketches) - 1)  # type: ignore[attr-defined]
        sketches[at].merge(sketches.pop(at + 1))
    merged = sketches[0] if sketches else Sketch(max_buckets=max_buckets)
    # Sums of floats depend on their order in the last digits; everything else is exact.
    assert merged.sum == pytest.approx(whole.sum)
    merged.sum = whole.sum
    assert merged == whole


@given(ANY, st.integers(1, 20))
def test_order_of_values_does_not_matter(values: list[float], max_buckets: int) -> None:
    """The same values in another order give an equal sketch, also when buckets collapse."""
    ascending = sketch_of(sorted(values), max_buckets=max_buckets)
    descending = sketch_of(sorted(values, reverse=True), max_buckets=max_buckets)
    assert ascending.sum == pytest.approx(descending.sum)
    ascending.sum = descending.sum
    assert ascending == descending


@given(NANOSECONDS, NANOSECONDS)
def test_collapsing_keeps_the_high_quantiles(low: list[float], high: list[float]) -> None:
    """When buckets run out, quantiles within those that are kept are as good as before."""
    high = [value % 100 + 10**18 for value in high]  # one bucket
    sketch = sketch_of([*low, *high], max_buckets=20)
    assert len(sketch._counts) <= 20
    exact_rank = (len(low) + 1) / (len(low) + len(high))
    found = sketch.quantile(exact_rank)
    assert found is not None
    assert found == pytest.approx(10**18, rel=0.01)
    assert sketch.min == min([*low, *high])


def test_a_copy_goes_its_own_way() -> None:
    """What is added to a copy is not in the original, nor the other way round."""
    sketch = sketch_of([1, 2, 3])
    twin = sketch.copy()
    twin.add(2)
    sketch.add(100)
    assert twin == sketch_of([1, 2, 3, 2])
    assert sketch == sketch_of([1, 2, 3, 100])


def test_nothing_known_is_none() -> None:
    """Without values there is no quantile, mean or extreme, rather than a zero. (S0-08)"""
    sketch = Sketch()
    assert (sketch.quantile(0.5), sketch.mean, sketch.min, sketch.max) == (None,) * 4
    assert (sketch.count, sketch.sum) == (0, 0)


@pytest.mark.parametrize("value", [-1, -1e-320, math.nan, math.inf, -math.inf, 1e301])
def test_what_is_no_duration_is_refused(value: float) -> None:
    """Negative, infinite and undefined values are refused and change nothing. (S0-05)"""
    sketch = sketch_of([1, 10, 100])
    with pytest.raises(UsageError):
        sketch.add(value)
    assert sketch == sketch_of([1, 10, 100])


@pytest.mark.parametrize("q", [-0.1, 1.1, math.nan])
def test_a_quantile_lies_between_0_and_1(q: float) -> None:
    """Asking for a quantile outside 0 to 1 is an error."""
    with pytest.raises(UsageError):
        sketch_of([1]).quantile(q)


def test_settings_are_checked() -> None:
    """Impossible settings are refused, as is merging what was made with different ones."""
    for wrong in ({"relative_error": 0}, {"relative_error": 1}, {"max_buckets": 0}):
        with pytest.raises(UsageError):
            Sketch(**wrong)
    with pytest.raises(UsageError):
        Sketch().merge(Sketch(0.02))


def test_memory_is_bounded_over_the_full_range() -> None:
    """A value in every bucket from 1 ns to 500 years takes less than 30 KiB. (S0-04)"""
    sketch = Sketch()
    value = 1.0
    while value < 2**64:
        sketch.add(value)
        value *= 1.0202
    size = sum(sys.getsizeof(getattr(sketch, name)) for name in Sketch.__slots__)
    assert size < 30 * 1024
    assert len(sketch._counts) <= sketch.max_buckets


def test_the_law_finds_a_wrong_sketch() -> None:
    """An off-by-one rank, a missing middle and a mean bucket error each break the 1 % law."""
    values = [float(round(1.7**n)) for n in range(40)]
    sketch = sketch_of(values)
    rank = 1 / len(values)

    def off_by_one(q: float) -> float | None:
        return sketch.quantile(min(1, q + rank))

    def upper_bound(q: float) -> float | None:
        return (sketch.quantile(q) or 0) * 1.0101

    coarse = sketch_of(values, relative_error=0.05).quantile
    for wrong in (off_by_one, upper_bound, coarse):
        with pytest.raises(AssertionError):
            check_error(values, wrong)


def test_quantiles_never_fall() -> None:
    """A higher quantile is never a lower value."""
    sketch = sketch_of([3, 3, 1, 7, 7.1, 7.2, 0, 1e6])
    found = [sketch.quantile(step / 100) or 0 for step in range(101)]
    assert all(a <= b for a, b in pairwise(found))
