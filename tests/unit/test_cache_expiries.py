"""The buckets that expired entries are found by."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from paceline.cache.entry import Entry
from paceline.cache.memory.expiry import Expiries

_S = 1_000_000_000
_LIFETIMES = st.sampled_from([1, 150, _S, _S + 7, 300 * _S])
_STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("add"), _LIFETIMES, st.sampled_from([0, 1, 2 * _S])),
        st.tuples(st.just("advance"), _LIFETIMES, st.just(0)),
        st.tuples(st.just("clear"), st.just(0), st.just(0)),
    ),
    max_size=40,
)


def _check(steps: list[tuple[str, int, int]]) -> None:
    """Does the steps, looking for what has ended after each."""
    held: dict[int, tuple[Entry, int, int]] = {}
    expiries, now_ns = Expiries(lambda: len(held)), 5 * _S
    for what, lifetime_ns, late_ns in steps:
        if what == "advance":
            now_ns += lifetime_ns
        elif what == "clear":
            expiries.clear()
            held.clear()
        else:
            ends_ns = now_ns + lifetime_ns - late_ns
            entry = Entry(None, None, ends_ns)
            expiries.add(entry, ends_ns, lifetime_ns)
            held[id(entry)] = entry, ends_ns, lifetime_ns
        while (dead := expiries.overdue(now_ns, 1_000)) is not None:
            assert held.pop(id(dead))[1] <= now_ns
        assert all(now_ns < ends + life / 100 for _, ends, life in held.values())
        assert expiries.size == len(held)


@given(_STEPS)
def test_what_has_ended_is_found_in_time(steps: list[tuple[str, int, int]]) -> None:
    """Every entry is found once it has ended, late by less than a hundredth of its lifetime, even
    one that was added after its end. (S0-35)"""
    _check(steps)


@pytest.mark.parametrize("method", ["overdue", "clear"])
def test_an_entry_in_a_bucket_that_is_gone_is_caught(
    method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The check above fails if a bucket is still added to after it was dropped."""
    real: Any = getattr(Expiries, method)

    def remembers(self: Expiries, *args: int) -> object:
        last, lifetime = self._last, self._lifetime
        found = real(self, *args)
        self._last, self._lifetime = last, lifetime
        return found

    late = [("add", _S, 2 * _S), ("add", _S, 2 * _S)]
    cleared = [("add", _S, 0), ("clear", 0, 0), ("add", _S, 0), ("advance", 2 * _S, 0)]
    monkeypatch.setattr(Expiries, method, remembers)
    with pytest.raises(AssertionError):
        _check(late if method == "overdue" else cleared)
