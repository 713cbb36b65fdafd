"""How many tools may run while memory is short."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from paceline.engine.concurrency import Concurrency

NS = 1_000_000_000


def test_it_is_halved_and_given_back_one_by_one() -> None:
    """Shortage halves the limit, not again before that can have helped, and health gives back one
    a second up to the most (S2-19, S2-53)."""
    limit = Concurrency(8)
    assert [limit.observe(1.2, second * NS) for second in (10, 11, 12, 14, 16)] == [4, 4, 2, 1, 1]
    assert [limit.observe(0.5, 16 * NS + tenth * NS // 10) for tenth in (1, 9, 10, 15, 20)] == [
        1,
        1,
        2,
        2,
        3,
    ]
    assert [limit.observe(0.5, second * NS) for second in range(19, 26)] == [4, 5, 6, 7, 8, 8, 8]


def test_nothing_changes_between_the_two_shares() -> None:
    """Between the low and the high share the limit stays where it is (S2-53)."""
    limit = Concurrency(4)
    assert limit.observe(1.0, 0) == 2
    assert [limit.observe(0.95, second * NS) for second in range(1, 20)] == [2] * 19
    assert limit.observe(0.9, 20 * NS) == 3


def test_giving_back_does_not_put_off_the_next_halving() -> None:
    """A shortage right after one was given back halves at once (S2-53)."""
    limit = Concurrency(8)
    assert limit.observe(1, 0) == 4
    assert limit.observe(0.1, 5 * NS) == 5
    assert limit.observe(1, 5 * NS + 1) == 2


@given(st.integers(1, 64), st.lists(st.tuples(st.floats(0, 3), st.integers(0, 5 * NS))))
def test_it_never_leaves_its_bounds(most: int, told: list[tuple[float, int]]) -> None:
    """Whatever is observed, at least one may run and never more than the most, and at last all may
    again (S2-53)."""
    limit = Concurrency(most)
    now_ns = 0
    for share, later_ns in told:
        now_ns += later_ns
        before = limit.limit
        after = limit.observe(share, now_ns)
        assert 1 <= after <= most
        assert after in (before, before + 1, max(1, before // 2))
    for second in range(1, most + 1):
        limit.observe(0.0, now_ns + second * NS)
    assert limit.limit == most


@pytest.mark.parametrize(("most", "low", "high"), [(0, 0.9, 1.0), (4, 1.0, 1.0), (4, 0.0, 1.0)])
def test_a_limit_that_cannot_be_kept_is_refused(most: int, low: float, high: float) -> None:
    """No place at all, or a band that is none, is an error (S2-53)."""
    with pytest.raises(ValueError, match="at least one tool"):
        Concurrency(most, low=low, high=high)
