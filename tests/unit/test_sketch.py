"""The sketch: within its error, whatever the values, in whatever order and parts they come."""

import math
import operator
import random
import sys
from collections.abc import Callable
from functools import reduce
from itertools import pairwise

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from paceline.errors import CodecError, UsageError
from paceline.metrics.sketch import RELATIVE_ERROR, Sketch, counted

# Values within the 48 powers of two that are always told apart, and zero.
NANOSECONDS = st.lists(st.integers(0, 10**14), min_size=1, max_size=60)
FLOATS = st.lists(st.just(0.0) | st.floats(1e-6, 1e8), min_size=1, max_size=60)
# Wider than what is told apart, so that buckets collapse.
ANY = st.lists(st.just(0) | st.integers(0, 2**62) | st.floats(1e-40, 1e37), max_size=40)
QUANTILES = (0, 0.01, 0.25, 0.5, 0.9, 0.95, 0.99, 0.999, 1)


def sketch_of(values: list[float]) -> Sketch:
    sketch = Sketch()
    for value in values:
        sketch.add(value)
    return sketch


def check_error(values: list[float], quantile: Callable[[float], float | None]) -> None:
    """Every quantile is within 1 % of the exact one, the nearest rank."""
    ordered = sorted(values)
    for q in QUANTILES:
        wanted, found = ordered[max(1, math.ceil(q * len(ordered))) - 1], quantile(q)
        assert found is not None
        assert abs(found - wanted) <= wanted * RELATIVE_ERROR, (q, wanted, found)


def same(one: Sketch, other: Sketch) -> bool:
    """Whether they are equal; sums of floats depend on their order in the last digits."""
    assert one.sum == pytest.approx(other.sum)
    twin = one.copy()
    twin.sum = other.sum
    return twin == other


@given(NANOSECONDS | FLOATS)
def test_quantiles_are_within_one_per_cent(values: list[float]) -> None:
    """Any quantile differs from the exact nearest-rank one by at most 1 %. (S0-04, S0-07, S0-70)"""
    check_error(values, sketch_of(values).quantile)


@pytest.mark.parametrize("kind", ["pareto", "lognormal", "two modes"])
def test_heavy_tails_are_within_one_per_cent(kind: str) -> None:
    """Up to p99.9 of 50,000 values of a heavy tail, no quantile is off by more. (S0-04, S0-70)"""
    rng = random.Random(7)
    draws: dict[str, Callable[[], float]] = {
        "pareto": lambda: 1e6 * rng.paretovariate(1.2),
        "lognormal": lambda: rng.lognormvariate(15, 2.5),
        "two modes": lambda: rng.gauss(2e4, 2e3) if rng.random() < 0.7 else rng.gauss(3e9, 5e8),
    }
    values = [float(int(draws[kind]())) for _ in range(50_000)]
    sketch = Sketch()
    sketch.add_all(values)
    check_error(values, sketch.quantile)


@given(ANY)
def test_count_sum_and_extremes_are_exact(values: list[float]) -> None:
    """Count, sum, least and greatest value are those of the values themselves. (S0-08)"""
    sketch = sketch_of(values)
    assert sketch.count == len(values)
    assert sketch.sum == reduce(operator.add, values, 0)  # `sum` may be more exact
    assert (sketch.min, sketch.max) == ((min(values), max(values)) if values else (None, None))


@given(ANY)
def test_many_at_once_is_one_by_one(values: list[float]) -> None:
    """Values added all at once give the sketch that they give one by one."""
    sketch = Sketch()
    sketch.add_all(values)
    assert same(sketch, sketch_of(values))


@given(st.lists(ANY, max_size=5), st.randoms(use_true_random=False))
def test_merging_is_adding_all(parts: list[list[float]], rng: random.Random) -> None:
    """Parts merged in any order and grouping are equal to one sketch of all values. (S0-04)"""
    whole = sketch_of([value for part in parts for value in part])
    sketches = [sketch_of(part) for part in parts]
    rng.shuffle(sketches)
    while len(sketches) > 1:
        at = rng.randrange(len(sketches) - 1)
        sketches[at].merge(sketches.pop(at + 1))
    assert same(sketches[0] if sketches else Sketch(), whole)


@given(ANY)
def test_order_of_values_does_not_matter(values: list[float]) -> None:
    """The same values in another order give an equal sketch, also when buckets collapse."""
    assert same(sketch_of(sorted(values)), sketch_of(sorted(values, reverse=True)))


@given(ANY)
def test_bytes_bring_the_sketch_back(values: list[float]) -> None:
    """What is read of the bytes of a sketch is equal to it, and can be added to. (S0-04)"""
    sketch = sketch_of(values)
    back = Sketch.from_bytes(sketch.to_bytes())
    assert same(back, sketch)
    back.add_all([1, 2**60])
    sketch.add_all([1, 2**60])
    assert same(back, sketch)


STORED = msgspec.msgpack.decode(sketch_of([0, 5, 5, 1_000]).to_bytes())


@pytest.mark.parametrize(
    ("field", "wrong"),
    [
        (0, 3),
        (1, 3),
        (1, -1),
        (2, -1),
        (2, math.nan),
        (2, math.inf),
        (3, 0),
        (3, -1),
        (4, -1),
        (4, 6_000),
        (4, math.nan),
        (5, 900),
        (5, math.inf),
        (6, 5),
        (6, -1),
        (6, 1 << 15),
        (7, []),
        (7, [2**64 - 1]),
        (7, [-1, 4]),
        (7, [1] * 5_000),
        (7, "counts"),
    ],
)
def test_damaged_bytes_are_refused(field: int, wrong: object) -> None:
    """Bytes whose parts cannot be, or do not agree, are refused. (S0-05)"""
    stored = list(STORED)
    stored[field] = wrong
    with pytest.raises(CodecError):
        Sketch.from_bytes(msgspec.msgpack.encode(stored))


@settings(max_examples=50)
@given(st.binary(max_size=40) | st.integers(0, 60).map(lambda n: sketch_of([1, 9]).to_bytes()[:n]))
def test_other_bytes_are_refused(data: bytes) -> None:
    """Anything but the bytes of a sketch is a CodecError, whatever it is."""
    if data == sketch_of([1, 9]).to_bytes():
        return
    with pytest.raises(CodecError):
        Sketch.from_bytes(data)


@given(NANOSECONDS, NANOSECONDS)
def test_collapsing_keeps_the_high_quantiles(low: list[float], high: list[float]) -> None:
    """When buckets run out, quantiles within those that are kept are as good as before."""
    low = [value * 2.0**-60 for value in low]
    high = [value % 100 + 2**47 for value in high]  # one bucket, more than 48 powers above
    sketch = sketch_of([*low, *high])
    found = sketch.quantile((len(low) + 1) / (len(low) + len(high)))
    assert found == pytest.approx(2**47, rel=RELATIVE_ERROR)
    assert sketch.min == min([*low, *high])
    assert sum(count for _, _, count in sketch.buckets()) + sketch.zeros == sketch.count


@pytest.mark.parametrize("room", [2**8 - 1, 2**16 - 1, 2**32 - 1])
def test_counts_grow_as_wide_as_they_must(room: int) -> None:
    """A count goes on beyond 255, 65,535 and four thousand million. (S0-04)"""
    sketch = sketch_of([5, 700])
    grown = msgspec.msgpack.decode(sketch.to_bytes())
    grown[1], grown[7][0] = room, room - 1
    sketch = Sketch.from_bytes(msgspec.msgpack.encode(grown))
    other = sketch.copy()
    sketch.add(5)
    sketch.add_all([5, 5])
    sketch.merge(other)
    assert sketch.count == 2 * room + 3
    assert [count for _, _, count in sketch.buckets()] == [2 * room + 1, 2]


def test_more_than_can_be_counted_is_refused() -> None:
    """Where counts end, an error changes nothing."""
    grown = msgspec.msgpack.decode(sketch_of([5]).to_bytes())
    grown[1] = grown[7][0] = 2**63 - 1
    sketch = Sketch.from_bytes(msgspec.msgpack.encode(grown))
    sketch.merge(sketch.copy())
    before = sketch.copy()
    with pytest.raises(UsageError):
        sketch.merge(sketch.copy())
    assert sketch == before


@given(NANOSECONDS, st.integers(-5, 10**15))
def test_the_share_above_a_bound(values: list[float], bound: int) -> None:
    """The share above a bound is that of values above it, but for those within 1.6 % of it."""
    share = sketch_of(values).share_above(bound)
    assert share is not None
    least = sum(value > bound * (1 + 1 / 64) for value in values) / len(values)
    most = sum(value > bound for value in values) / len(values)
    assert least - 1e-12 <= share <= most + 1e-12


@given(ANY)
def test_buckets_hold_all_but_zeros(values: list[float]) -> None:
    """The buckets are in order and hold every value but the zeros."""
    sketch = sketch_of(values)
    buckets = list(sketch.buckets())
    assert sum(count for _, _, count in buckets) == sketch.count - sketch.zeros
    assert all(one[1] <= other[0] for one, other in pairwise(buckets))
    assert all(low < high for low, high, _ in buckets)


def test_a_copy_goes_its_own_way() -> None:
    """What is added to a copy is not in the original, nor the other way round."""
    sketch = sketch_of([1, 2, 3])
    twin = sketch.copy()
    twin.add(2)
    sketch.add(100)
    assert twin == sketch_of([1, 2, 3, 2])
    assert sketch == sketch_of([1, 2, 3, 100])


def test_merging_with_itself_doubles() -> None:
    """A sketch merged with itself has every value twice."""
    sketch = sketch_of([1, 2, 0])
    sketch.merge(sketch)
    assert sketch == sketch_of([1, 2, 0] * 2)


def test_nothing_known_is_none() -> None:
    """Without values there is no quantile, mean, share or extreme, rather than a zero. (S0-08)"""
    sketch = Sketch()
    assert (sketch.quantile(0.5), sketch.mean, sketch.min, sketch.max) == (None,) * 4
    assert sketch.share_above(1) is None
    assert (sketch.count, sketch.sum) == (0, 0)


@pytest.mark.parametrize("value", [-1, -1e-320, math.nan, math.inf, -math.inf, 1e301])
def test_what_is_no_duration_is_refused(value: float) -> None:
    """Negative, infinite and undefined values are refused and change nothing. (S0-05)"""
    sketch = sketch_of([1, 10, 100])
    with pytest.raises(UsageError):
        sketch.add(value)
    for values in ([5, value], [value, 5], [0, value, 0], [value]):
        with pytest.raises(UsageError):
            sketch.add_all(values)
    assert sketch == sketch_of([1, 10, 100])


@pytest.mark.parametrize("q", [-0.1, 1.1, math.nan])
def test_a_quantile_lies_between_0_and_1(q: float) -> None:
    """Asking for a quantile outside 0 to 1 is an error."""
    with pytest.raises(UsageError):
        sketch_of([1]).quantile(q)


def size(sketch: Sketch) -> int:
    return sum(sys.getsizeof(getattr(sketch, name)) for name in Sketch.__slots__)


def test_memory_is_bounded_over_the_full_range() -> None:
    """A value in every bucket takes less than 30 KiB, whatever the range. (S0-04)"""
    sketch = Sketch()
    value = 1e-30
    while value < 1e38:
        sketch.add(value)
        value *= 1.01
    sketch.add_all([5.0] * 70_000)
    assert size(sketch) < 15 * 1024
    grown = msgspec.msgpack.decode(sketch.to_bytes())
    grown[1] += 2**33
    grown[7][0] += 2**33
    assert size(Sketch.from_bytes(msgspec.msgpack.encode(grown))) < 30 * 1024


def test_the_law_finds_a_wrong_sketch() -> None:
    """An off-by-one rank, a missing middle and a mean bucket error each break the 1 % law."""
    values = [float(round(1.7**n)) for n in range(40)]
    sketch = sketch_of(values)
    rank = 1 / len(values)

    def off_by_one(q: float) -> float | None:
        return sketch.quantile(min(1, q + rank))

    def upper_bound(q: float) -> float | None:
        return (sketch.quantile(q) or 0) * 1.0101

    def coarse(q: float) -> float | None:
        found = sketch.quantile(q)
        return None if not found else 2.0 ** round(math.log2(found), 1)

    for wrong in (off_by_one, upper_bound, coarse):
        with pytest.raises(AssertionError):
            check_error(values, wrong)


def test_the_law_of_merging_finds_carried_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Counts that are not widened before they are added together are found."""
    monkeypatch.setattr(Sketch, "_widen", lambda _self, _more: None)
    with pytest.raises(OverflowError):
        sketch_of([5.0] * 200).merge(sketch_of([5.0] * 200))


def test_quantiles_never_fall() -> None:
    """A higher quantile is never a lower value."""
    sketch = sketch_of([3, 3, 1, 7, 7.1, 7.2, 0, 1e6])
    found = [sketch.quantile(step / 100) or 0 for step in range(101)]
    assert all(a <= b for a, b in pairwise(found))


def test_what_was_counted_goes_into_any_number_of_sketches() -> None:
    """Values counted once can be taken by several sketches."""
    values = counted([0, 3, 3, 900])
    one, other = Sketch(), sketch_of([5])
    one.take(values)
    other.take(values)
    assert one == sketch_of([0, 3, 3, 900])
    assert other == sketch_of([5, 0, 3, 3, 900])
