"""The hot tier: expiry, least recently used first, and threads."""

import itertools
import math
import random
import threading
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from paceline.cache.memory import NEVER_NS, MemoryTier, lifetime_ns
from paceline.errors import InvalidInputError
from paceline.testing.virtual_time import VirtualClock

_S = 1_000_000_000
_MAX = 2


_STEPS = st.tuples(
    st.sampled_from(["put", "put", "get", "advance", "delete"]),
    st.sampled_from("abc"),
    st.sampled_from([10, 1, 5, 60, 0]),
)


class _Model:
    """A list of what should be there, oldest use first, beside the tier."""

    def __init__(self, make: Callable[[VirtualClock], Any]) -> None:
        self.clock = VirtualClock()
        self.tier = make(self.clock)
        self.entries: OrderedDict[str, tuple[int, int]] = OrderedDict()
        self.values = itertools.count()

    def step(self, what: str, key: str, seconds: int) -> None:
        """Does one thing to both and compares what they hold."""
        match what:
            case "put":
                self.put(key, next(self.values), seconds)
            case "get":
                self.get(key)
            case "advance":
                self.clock.advance(min(seconds, 5))
            case _:
                known = self.entries.pop(key, None)
                assert self.tier.delete(key) == (known is not None and self.valid(known))
        kept = {key for key, entry in self.entries.items() if self.valid(entry)}
        assert {key for key in "abc" if self.tier.peek(key) is not None} == kept
        assert len(kept) <= len(self.tier) <= _MAX

    def valid(self, entry: tuple[int, int]) -> bool:
        return self.clock.monotonic_ns() < entry[1]

    def put(self, key: str, value: int, seconds: int) -> None:
        self.tier.put(key, value, seconds * _S)
        self.entries.pop(key, None)
        if seconds:
            for dead in [key for key, entry in self.entries.items() if not self.valid(entry)]:
                del self.entries[dead]
            if len(self.entries) == _MAX:
                self.entries.popitem(last=False)
            self.entries[key] = (value, self.clock.monotonic_ns() + seconds * _S)

    def get(self, key: str) -> None:
        found = self.tier.get(key)
        known = self.entries.get(key)
        if known is None or not self.valid(known):
            assert found is None
            return
        assert found is not None
        assert (found.value, found.expires_ns) == known
        self.entries.move_to_end(key)


def _tier(clock: VirtualClock) -> MemoryTier[str, int]:
    return MemoryTier(_MAX, clock=clock)


@given(st.lists(_STEPS, max_size=60))
def test_the_tier_behaves_as_its_model(steps: list[tuple[str, str, int]]) -> None:
    """Any sequence of puts, gets, removals and time leaves what a plain model holds: expired
    entries go first, then the least recently used, and updates evict nobody. (S0-33, S0-35,
    S0-36, S1-07, X-10)"""
    model = _Model(_tier)
    for step in steps:
        model.step(*step)


class _Seeded:
    """A tier to put a bug into."""

    def __init__(self, clock: VirtualClock) -> None:
        self.tier = MemoryTier[str, int](_MAX, clock=clock)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.tier, name)

    def __len__(self) -> int:
        return len(self.tier)


class _FirstInFirstOut(_Seeded):
    def get(self, key: str) -> Any:
        return self.tier.peek(key)


class _UpdateEvicts(_Seeded):
    def put(self, key: str, value: int, ttl_ns: int) -> None:
        if len(self.tier) == _MAX and ttl_ns:
            self.tier._entries.popitem(last=False)
        self.tier.put(key, value, ttl_ns)


class _LiveBeforeDead(_Seeded):
    def put(self, key: str, value: int, ttl_ns: int) -> None:
        self.tier._expiries.clear()
        self.tier.put(key, value, ttl_ns)


class _OldTimerKills(_Seeded):
    """The expiry of a replaced entry removes the newer one."""

    def put(self, key: str, value: int, ttl_ns: int) -> None:
        now = self.tier._now_ns()
        for end, _, name in self.tier._expiries:
            if end <= now:
                self.tier._entries.pop(name, None)
        self.tier.put(key, value, ttl_ns)


@pytest.mark.parametrize("bug", [_FirstInFirstOut, _UpdateEvicts, _LiveBeforeDead, _OldTimerKills])
def test_the_model_catches_seeded_bugs(bug: type[_Seeded]) -> None:
    """A tier that evicts in order of arrival, evicts on update, keeps dead entries before live
    ones or lets an old expiry remove a newer entry differs from the model."""

    with pytest.raises(AssertionError):
        _walk(_Model(bug), random.Random(1))


def _walk(model: _Model, rng: random.Random) -> None:
    for _ in range(5_000):
        what = rng.choice(["put", "put", "get", "advance", "delete"])
        model.step(what, rng.choice("abc"), rng.choice([10, 1, 5, 60, 0]))


def test_a_full_tier_can_be_updated() -> None:
    """An update in a full cache evicts nobody, even if there is room for one entry. (S0-36)"""
    for size in (1, 2):
        tier = MemoryTier[str, int](size, clock=VirtualClock())
        for key in "ab"[:size]:
            tier.put(key, 1, _S)
        tier.put("a", 2, _S)
        assert [tier.get(key) is not None for key in "ab"[:size]] == [True] * size
        assert tier.evictions == 0


def test_no_room_keeps_nothing() -> None:
    """With room for 0 entries nothing is kept and nothing fails; less makes no sense. (S0-36)"""
    tier = MemoryTier[str, int](0, clock=VirtualClock())
    tier.put("a", 1, _S)
    assert tier.get("a") is None
    assert len(tier) == 0
    with pytest.raises(InvalidInputError):
        MemoryTier[str, int](-1, clock=VirtualClock())


@pytest.mark.parametrize("value", [None, 0, "", [], False])
def test_empty_values_are_values(value: Any) -> None:
    """None, 0, "" and [] are found like any other value. (S0-34)"""
    tier = MemoryTier[str, Any](1, clock=VirtualClock())
    tier.put("a", value, _S)
    found = tier.get("a")
    assert found is not None
    assert found.value == value


def test_the_figures_tell_eviction_from_expiry() -> None:
    """Entries removed for room and entries past their time are counted apart. (S0-39)"""
    clock = VirtualClock()
    tier = MemoryTier[str, int](2, clock=clock)
    tier.put("a", 1, _S)
    tier.put("b", 1, 5 * _S)
    clock.advance(1)
    tier.put("c", 1, 5 * _S)
    tier.put("d", 1, 5 * _S)
    assert (tier.expirations, tier.evictions) == (1, 1)
    clock.advance(5)
    assert tier.get("d") is None
    assert (tier.expirations, tier.evictions) == (2, 1)


def test_expired_entries_leave_with_the_next_put() -> None:
    """Storing something new lets go of everything that is past its time. (S0-35, S1-08)"""
    clock = VirtualClock()
    tier = MemoryTier[int, int](1_000, clock=clock)
    for key in range(500):
        tier.put(key, key, _S)
    clock.advance(1)
    tier.put(1_000, 0, _S)
    assert len(tier) == 1


def test_what_is_kept_of_expiries_is_bounded() -> None:
    """Storing under the same keys again and again does not grow the list of expiries."""
    tier = MemoryTier[int, int](10, clock=VirtualClock())
    for round_ in range(1_000):
        tier.put(round_ % 7, round_, _S)
    assert len(tier._expiries) <= 2 * 7 + 64 + 1


@pytest.mark.parametrize(
    ("ttl_s", "expected"),
    [(0, 0), (0.5, _S // 2), (60, 60 * _S), (1e20, NEVER_NS), (math.inf, NEVER_NS)],
)
def test_lifetimes(ttl_s: float, expected: int) -> None:
    """0 is not at all, infinity and absurd lifetimes are for ever. (S0-37)"""
    assert lifetime_ns(ttl_s) == expected


@pytest.mark.parametrize("ttl_s", [-1, -0.1, -math.inf, math.nan])
def test_lifetimes_that_make_no_sense_are_refused(ttl_s: float) -> None:
    """A negative lifetime, or one that is no number, raises InvalidInputError. (S0-37)"""
    with pytest.raises(InvalidInputError):
        lifetime_ns(ttl_s)


def test_threads_share_a_tier() -> None:
    """Eight threads that put, get and delete at once raise nothing, find only what was put under
    the key, and leave no more entries than allowed. (S0-44, S1-09)"""
    tier = MemoryTier[int, int](20, clock=VirtualClock())
    failures: list[object] = []

    def work(seed: int) -> None:
        try:
            for step in range(3_000):
                key = (step * (seed + 3)) % 40
                match step % 3:
                    case 0:
                        tier.put(key, key, _S)
                    case 1:
                        found = tier.get(key)
                        if found is not None and found.value != key:
                            failures.append(found)
                    case _:
                        tier.delete((key * 7) % 40)
        except (KeyError, RuntimeError, ValueError) as exc:
            failures.append(exc)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
    assert len(tier) <= 20
