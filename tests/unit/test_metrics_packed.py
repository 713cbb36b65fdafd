"""Packed sketches: what comes out is what went in, in a tenth of the room."""

import gc
import random
import sys
import types

import pytest
from hypothesis import given
from hypothesis import strategies as st

from paceline.call import Kind, Source
from paceline.metrics import packed as module
from paceline.metrics.figures import Ending
from paceline.metrics.live import LiveSeries
from paceline.metrics.packed import Kept, pack, united, unpack
from paceline.metrics.sketch import MOST, Sketch, digit
from paceline.testing.virtual_time import VirtualClock

DAY_S = 86_400
VALUES = st.lists(st.integers(0, 2**40) | st.integers(0, 3) | st.sampled_from([0.0, 0.5, 1e-30]))


def sketch_of(values: list[float], times: int = 1) -> Sketch:
    sketch = Sketch()
    for _ in range(times):
        sketch.add_all(values)
    return sketch


def check(parts: list[list[float]], times: int = 1) -> None:
    sketches = [sketch_of(values, times) for values in parts]
    packed = pack(sketches, b"aside")
    assert unpack(packed) == (sketches, b"aside")
    whole = sketch_of([value for values in parts for value in values], times)
    found, aside = united(packed)
    assert (found.count, found.zeros, found.min, found.max) == (
        whole.count, whole.zeros, whole.min, whole.max,
    )  # fmt: skip
    assert list(found.buckets()) == list(whole.buckets())
    assert found.sum == pytest.approx(whole.sum)
    assert aside == b"aside"


@given(st.lists(VALUES, min_size=1, max_size=6), st.sampled_from([1, 2, 300]))
def test_sketches_come_out_as_they_went_in(parts: list[list[float]], times: int) -> None:
    """Unpacked sketches equal the packed ones, and united they equal one of all their values,
    whatever these are, and however many. (S0-04, S0-07)"""
    check(parts, times)


def test_great_counts_are_packed() -> None:
    """Counts of one, two and three bytes, side by side, come out as they went in. (S0-04)"""
    check([[5.0] * 70, [5.0, 6.0, 6.0] * 70, [1e9] * 70, []], 1_000)
    check([[7.0] * 256, [], [7.0] * 65_536])


def test_a_spread_too_wide_is_united_as_it_is_merged() -> None:
    """Sketches far apart become the one that merging gives: the lowest are one bucket. (S0-04)"""
    sketches = [sketch_of([1e-30, 1.0]), sketch_of([1e30, 2e30]), sketch_of([MOST])]
    merged = Sketch()
    for sketch in sketches:
        merged.merge(sketch)
    assert united(pack(sketches))[0] == merged


def test_what_was_unpacked_grows_on() -> None:
    """A sketch that was packed can be added to as one that was not. (S0-04)"""
    (sketch,), _ = unpack(pack([sketch_of([1, 2, 3], 85)]))
    sketch.add_all([1.0, 50.0] * 40_000)
    other = sketch_of([1, 2, 3], 85)
    other.add_all([1.0, 50.0] * 40_000)
    assert sketch == other


def test_kept_sketches_are_added_to_between_sealings() -> None:
    """Sketches that are sealed after each value have all of them; copies go their own way."""
    kept = Kept()
    kept.seal()
    for value in range(9):
        kept.open().setdefault("odd" if value % 2 else "even", Sketch()).add(value)
        kept.seal()
        kept.copies()["even"].add(100)
    kept.open()
    kept.copies()["even"].add(100)
    assert kept.copies() == {"even": sketch_of([0, 2, 4, 6, 8]), "odd": sketch_of([1, 3, 5, 7])}


def _shifted(table: module._Table, column: int, size: int, low: int, width: int) -> bytearray:
    return bytearray(size) + _column(table, column, size, low, width)[:-size]


def _without_high_bytes(
    table: module._Table, column: int, size: int, low: int, width: int
) -> bytearray:
    counts = _column(table, column, size, low, width)
    counts[digit(1, size) :: size] = bytes(width)
    return counts


_column = module._column


@pytest.mark.parametrize("wrong", [_shifted, _without_high_bytes])
def test_the_law_finds_wrong_columns(wrong: object, monkeypatch: pytest.MonkeyPatch) -> None:
    """Counts in the neighbouring bucket, and counts cut to a byte, are found."""
    monkeypatch.setattr(module, "_column", wrong)
    with pytest.raises(AssertionError):
        check([[5.0, 6.0], [5.0, 6.0, 6.0]], 300)


# --- a series that is busy all day


def size(thing: object, but: list[object]) -> int:
    """The bytes of an object and of all it reaches, classes and some others left out."""
    seen, found, todo = set(map(id, but)), 0, [thing]
    while todo:
        each = todo.pop()
        if id(each) not in seen and not isinstance(each, (type, types.ModuleType)):
            seen.add(id(each))
            found += sys.getsizeof(each)
            todo.extend(gc.get_referents(each))
    return found


def busy() -> tuple[LiveSeries, VirtualClock]:
    """A series after a day and four hours with four calls a second, every other one a hit."""
    clock, rng = VirtualClock(), random.Random(4)
    series = LiveSeries("a", Kind.AGENT, {}, clock, clock.monotonic_ns())
    executed = series.cell(Source.EXECUTED, None, Ending.SUCCESS)
    hit = series.cell(Source.HOT, None, Ending.SUCCESS)
    for _ in range(DAY_S // 300 + 48):
        for _ in range(600):
            now_ns = clock.monotonic_ns()
            ns = int(rng.lognormvariate(17, 1.5))
            executed.pending.extend((now_ns, ns + 900, ns, 0, 0))
            hit.pending.extend((now_ns, int(rng.lognormvariate(17, 1.5)), 0, 0, ns))
            clock.advance(0.5)
        executed.settle()
        hit.settle()
    return series, clock


def test_a_series_that_is_busy_all_day_takes_less_than_30_kib() -> None:
    """A day of calls that end in two ways, with lognormal times that spread over five powers of
    ten, leaves a series of less than 30 KiB, once all were added up. (S0-04)"""
    series, clock = busy()
    assert series.read().windows["24h"].calls >= 4 * DAY_S
    shared = [clock, *Kind, *Source, *Ending]
    assert size(series, shared) < 30 * 1024
