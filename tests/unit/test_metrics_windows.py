"""Windows: every call in those it belongs to, and in no other, however time goes on."""

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from paceline.metrics.figures import Usage
from paceline.metrics.tally import Tally, seal, unseal
from paceline.metrics.windows import EVER, SLOT_NS, WINDOWS, Windowed, _Slots, reach_ns

S = 1_000_000_000
DAY_NS = 86_400 * S
SPANS = tuple(WINDOWS.values())
WIDTHS = (5 * S, 30 * S, 300 * S, 3 * 3_600 * S)

# How far the clock moves between calls, and how long before that moment a call ended.
STEPS = st.lists(
    st.tuples(
        st.integers(0, 20 * S) | st.integers(0, 2 * 3_600 * S) | st.integers(0, 3 * DAY_NS),
        st.just(0) | st.integers(0, 400 * S) | st.integers(0, 2 * DAY_NS),
    ),
    max_size=40,
)


def fill(steps: list[tuple[int, int]]) -> tuple[Windowed, list[int], int]:
    """Adds a call a step; what it took is its number. Returns when they ended and what time it is."""
    windowed, ends, now_ns = Windowed(), [], 0
    for number, (later_ns, ago_ns) in enumerate(steps):
        now_ns += later_ns
        windowed.roll(now_ns)
        tally = windowed.at(now_ns - ago_ns, now_ns)
        tally.times.add(2**number)
        tally.queue_ns += 2**number
        if number % 3:  # else it is left as it is, to be sealed with later ones
            windowed.seal(now_ns)
        ends.append(now_ns - ago_ns)
    return windowed, ends, now_ns


def check(steps: list[tuple[int, int]], rest_ns: int = 0) -> None:
    """Each window has all calls of its span, none older than a slot more, and each call once."""
    windowed, ends, now_ns = fill(steps)
    now_ns += rest_ns
    *sums, ever = windowed.sums(now_ns)
    assert ever.queue_ns == 2 ** len(ends) - 1
    assert ever.times.count == len(ends)
    for span_ns, width_ns, tally in zip(SPANS, WIDTHS, sums, strict=True):
        inside = {n for n in range(len(ends)) if tally.queue_ns >> n & 1}
        assert tally.times.count == len(inside)  # none twice: then bits would carry
        assert inside >= {n for n, end in enumerate(ends) if end > now_ns - span_ns}
        assert inside <= {n for n, end in enumerate(ends) if end >= now_ns - span_ns - width_ns}
        assert inside == {
            n for n, end in enumerate(ends) if end >= now_ns - reach_ns(span_ns, now_ns)
        }


@given(STEPS, st.just(0) | st.integers(0, 2 * DAY_NS))
def test_a_call_is_in_the_windows_it_belongs_to(steps: list[tuple[int, int]], rest_ns: int) -> None:
    """A call is in each window that it ended in, within the width of a slot, and in ever; it is
    counted once, also if it comes late or out of order. (S0-11, S0-17)"""
    check(steps, rest_ns)


def test_a_day_later_a_call_is_gone() -> None:
    """After a day and three hours, a call is in no window, but in ever. (S0-11)"""
    windowed = Windowed()
    windowed.at(0, 0).times.add(1)
    assert [tally.times.count for tally in windowed.sums(DAY_NS - 1)] == [0, 0, 0, 1, 1]
    assert [tally.times.count for tally in windowed.sums(DAY_NS + 3 * 3_600 * S)] == [0, 0, 0, 0, 1]


def test_a_call_leaves_one_window_after_the_other() -> None:
    """A call leaves the minute, the five minutes, the hour and the day, in this order. (S0-11)"""
    windowed = Windowed()
    windowed.at(0, 0).times.add(1)
    counts = [
        [tally.times.count for tally in windowed.sums(second * S)]
        for second in (0, 59, 66, 299, 331, 3_599, 3_901, 86_399, 97_201)
    ]
    assert counts == [
        [1, 1, 1, 1, 1],
        [1, 1, 1, 1, 1],
        [0, 1, 1, 1, 1],
        [0, 1, 1, 1, 1],
        [0, 0, 1, 1, 1],
        [0, 0, 1, 1, 1],
        [0, 0, 0, 1, 1],
        [0, 0, 0, 1, 1],
        [0, 0, 0, 0, 1],
    ]


def test_slots_are_bounded() -> None:
    """Calls in every slot of two days leave at most 48 slots. (S0-04, S0-13)"""
    windowed, now_ns = Windowed(), 0
    for number in range(2 * DAY_NS // SLOT_NS):
        now_ns = number * SLOT_NS
        windowed.roll(now_ns)
        windowed.at(now_ns, now_ns).times.add(1)
    assert sum(len(slots) for slots in windowed._levels) <= 48
    assert windowed.sums(now_ns)[EVER].times.count == 2 * DAY_NS // SLOT_NS


def test_tokens_and_money_roll_along() -> None:
    """Usage leaves a window with its calls, and is kept in ever. (S0-26, S0-69)"""
    windowed = Windowed()
    windowed.at(0, 0).use(Usage(input=3, cost_usd=0.5))
    windowed.at(0, 0).use(Usage(input=4, saved_usd=0.25))
    minute, *_, ever = windowed.sums(120 * S)
    assert minute.usage == Usage()
    assert ever.usage == Usage(input=7, cost_usd=0.5, saved_usd=0.25)


def test_sums_stay_as_they_are() -> None:
    """Later calls do not change the sums that were taken."""
    windowed = Windowed()
    windowed.at(0, 0).times.add(1)
    before = windowed.sums(0)
    windowed.at(0, 0).times.add(1)
    assert [tally.times.count for tally in before] == [1] * 5


def test_sealing_changes_no_figure() -> None:
    """What is sealed, opened for a late call and sealed again has every figure as it was, tokens
    and money too. (S0-04, S0-26)"""
    plain, sealed, now_ns = Windowed(), Windowed(), 0
    for second in (*range(0, 200_000, 977), 150_003, 199_000, 3):
        now_ns = max(second, 199_000 if second in {3, 150_003} else 0) * S
        for windowed in (plain, sealed):
            windowed.roll(now_ns)
            tally = windowed.at(second * S, now_ns)
            tally.times.add_all([0, 1 + second % 7, 10 * second, 10**6 + second**2])
            tally.saved_ns += 2**70 * (second == 977)
            if second % 2:
                tally.use(Usage(input=second, cost_usd=second / 8))
        sealed.seal(now_ns)
    for one, other in zip(plain.sums(now_ns), sealed.sums(now_ns), strict=True):
        assert (one.times, one.usage) == (other.times, other.usage)
        assert (one.queue_ns, one.saved_ns) == (other.queue_ns, other.saved_ns)


def check_examples() -> None:
    check([(S, 0), (0, 50 * S), (50 * S, 0), (70 * S, 0), (4_000 * S, 0), (100 * S, 0)])
    check([(60 * S, 0), (0, 55 * S)], 20 * S)
    check([(6 * S, 0), (6 * S, 0), (6 * S, 0), (6 * S, 12 * S), (6 * S, 0), (6 * S, 0)])


def _lossy_roll(self: Windowed, now_ns: int) -> None:
    for slots in self._levels[:-1]:
        slots.take_past(now_ns)


def _late_roll(self: Windowed, now_ns: int) -> None:
    for slots in self._levels[:-1]:
        for start_ns, tally in slots.take_past(now_ns - slots._level.span_ns):
            self.at(start_ns, now_ns).merge(tally)


def _doubling_roll(self: Windowed, now_ns: int) -> None:
    for slots in self._levels[:-1]:
        for start_ns, tally in slots.take_past(now_ns):
            self.at(start_ns, now_ns).merge(tally)
            self._levels[-1].at(start_ns).merge(tally)


def _forgetful_slot(self: _Slots, moment_ns: int) -> Tally:
    tally = Tally()
    start_ns = moment_ns // self._level.width_ns * self._level.width_ns
    self._open.append((start_ns, tally))  # behind later ones, so that it rolls on too late
    return tally


def _lossy_seal(self: _Slots, now_ns: int) -> None:
    """Forgets what was sealed before."""
    if self._open:
        self._sealed = seal(self._open)
        self._first_ns, self._last_ns = self._open[0][0], self._open[-1][0]
        self._open = []


def _doubling_unseal(self: _Slots) -> None:
    if self._sealed is not None:
        self._open = sorted([*unseal(self._sealed), *self._open], key=lambda slot: slot[0])


@pytest.mark.parametrize(
    ("owner", "name", "wrong"),
    [
        (Windowed, "roll", _lossy_roll),
        (Windowed, "roll", _late_roll),
        (Windowed, "roll", _doubling_roll),
        (_Slots, "at", _forgetful_slot),
        (_Slots, "seal", _lossy_seal),
        (_Slots, "_unseal", _doubling_unseal),
    ],
)
def test_the_law_finds_wrong_windows(
    owner: type, name: str, wrong: Callable[..., object], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Windows that lose, keep, double or misplace calls, sealed or not, are found."""
    monkeypatch.setattr(owner, name, wrong)
    with pytest.raises(AssertionError):
        check_examples()
