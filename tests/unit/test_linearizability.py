"""The checker of histories, and the recorder of them."""

import itertools
import random
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from paceline.cache.disk.tier import DiskTier
from paceline.cache.memory.tier import MemoryTier
from paceline.errors import StorageError
from paceline.testing.cache_backend import Do, Factory, Manners, Step, Subject
from paceline.testing.linearizability import Event, disordered, record
from tests.unit.test_cache_suite_catches import AwaitsBetween, CopyPerTask, CopyPerThread, Plain

KEY, OTHER = b"key", b"other"
A, B = b"a", b"b"
HISTORIES = 60


def _write(value: bytes | None, called: int, returned: int, key: bytes = KEY) -> Event:
    return Event(key, True, value, called, returned)


def _read(value: bytes | None, called: int, returned: int, key: bytes = KEY) -> Event:
    return Event(key, False, value, called, returned)


FITTING: list[list[Event]] = [
    [],
    [_read(None, 1, 2)],
    [_write(A, 1, 2), _read(A, 3, 4)],
    [_write(A, 1, 4), _read(None, 2, 3)],
    [_write(A, 1, 4), _read(A, 2, 3)],
    [_write(A, 1, 6), _read(None, 2, 3), _read(A, 4, 5)],
    [_write(A, 1, 4), _write(B, 2, 3), _read(A, 5, 6)],
    [_write(A, 1, 4), _write(B, 2, 3), _read(B, 5, 6)],
    [_write(A, 1, 2), _write(None, 3, 4), _read(None, 5, 6)],
    [_write(A, 1, 2), _read(None, 3, 4, OTHER), _write(B, 5, 6, OTHER), _read(A, 7, 8)],
]
MISFITTING: list[list[Event]] = [
    [_read(A, 1, 2)],
    [_write(A, 1, 2), _read(None, 3, 4)],
    [_write(A, 1, 2), _write(B, 3, 4), _read(A, 5, 6)],
    [_write(A, 1, 6), _read(A, 2, 3), _read(None, 4, 5)],
    [_write(A, 1, 2), _write(None, 3, 4), _read(A, 5, 6)],
    [_write(A, 1, 4), _write(B, 2, 3), _read(A, 5, 6), _read(B, 7, 8)],
    [_write(A, 1, 2, OTHER), _read(A, 3, 4)],
]


@pytest.mark.parametrize("history", FITTING)
def test_a_history_with_an_order_fits(history: list[Event]) -> None:
    """What could have happened one after the other is accepted. (D93)"""
    assert disordered(history) == {}


@pytest.mark.parametrize("history", MISFITTING)
def test_a_history_without_an_order_is_refused(history: list[Event]) -> None:
    """Stale, lost and unwritten values are found, and the key they are under is named. (D93)"""
    assert list(disordered(history)) == [KEY]


@st.composite
def histories(draw: st.DrawFn) -> list[Event]:
    """Up to five operations on one key, overlapping at will."""
    count = draw(st.integers(1, 5))
    stamps = draw(st.permutations(range(2 * count)))
    pairs = [sorted(stamps[2 * n : 2 * n + 2]) for n in range(count)]
    values = st.sampled_from([None, A, B])
    return [Event(KEY, draw(st.booleans()), draw(values), *pair) for pair in pairs]


def _some_order_fits(history: Sequence[Event]) -> bool:
    """The definition: any permutation that keeps to real time and explains every read."""
    for order in itertools.permutations(history):
        late = any(
            after.returned < before.called for before, after in itertools.combinations(order, 2)
        )
        held = None
        explained = True
        for event in order:
            if event.writes:
                held = event.value
            explained = explained and event.value == held
        if explained and not late:
            return True
    return False


@given(histories())
def test_the_search_decides_as_the_definition_does(history: list[Event]) -> None:
    """The checker accepts a history if and only if one of all its orders fits. (D93)"""
    assert (not disordered(history)) == _some_order_fits(history)


def test_long_histories_are_decided() -> None:
    """Forty operations that all overlap are decided, though they have more orders than atoms."""
    events = [_write(b"%d" % n, n, 1_000 + n) for n in range(8)]
    events += [_read(b"%d" % (n % 8), 100 + n, 2_000 + n) for n in range(32)]
    assert disordered(events) == {}
    assert list(disordered([*events, _read(B, 3_000, 3_001)])) == [KEY]


def _bad(factory: Factory, directory: Path, **manners: bool) -> int:
    """How many of 60 recorded histories have no order."""
    count = 0
    for seed in range(HISTORIES):
        place = directory / str(seed)
        place.mkdir()
        subject = Subject(factory, place, Manners(**manners))
        try:
            count += bool(disordered(record(subject, random.Random(seed))))
        finally:
            subject.close()
    return count


def _unexpected(exc: StorageError) -> None:
    raise exc


def _memory(directory: Path, clock: Any) -> MemoryTier[bytes, bytes]:
    return MemoryTier(100, clock=clock)


def _disk(directory: Path, clock: Any) -> DiskTier:
    return DiskTier(directory / "c.db", clock=clock, max_bytes=4_000_000, on_trouble=_unexpected)


def test_the_memory_tier_is_linearizable(tmp_path: Path) -> None:
    """0 of 60 histories of four threads on the hot tier lack an order. (D93, S0-44)"""
    assert _bad(_memory, tmp_path) == 0


def test_the_disk_tier_is_linearizable_by_flush(tmp_path: Path) -> None:
    """0 of 60 histories on the warm tier lack an order, a put counting as ended when flushed:
    that is what it promises. (D93, S0-44)"""
    assert _bad(_disk, tmp_path, eventual=True) == 0


class LosesUpdates(Plain):
    """A put reads the table, dawdles, and writes all of it back."""

    def put(self, key: bytes, value: bytes, ttl_ns: int) -> None:
        read = dict(self.table)
        threading.Event().wait(0.0005)
        self.table = read
        super().put(key, value, ttl_ns)


@pytest.mark.parametrize("bad", [CopyPerThread, LosesUpdates, CopyPerTask, AwaitsBetween])
def test_bad_stores_are_caught_in_most_histories(bad: Factory, tmp_path: Path) -> None:
    """A copy for each caller and a put that writes back what it read leave no order in more than
    half of 60 histories. (D93)"""
    assert _bad(bad, tmp_path) > HISTORIES / 2


def test_a_schedule_is_drawn_by_seed(tmp_path: Path) -> None:
    """One seed asks for the same operations again, another for others. (D93)"""

    def asked(seed: int) -> set[tuple[bytes, bool, bytes | None]]:
        subject = Subject(Plain, tmp_path, Manners())
        history = record(subject, random.Random(seed))
        subject.close()
        return {(event.key, event.writes, event.value) for event in history if event.writes}

    assert asked(1) == asked(1)
    assert asked(1) != asked(2)


def test_a_caller_that_fails_ends_the_run(tmp_path: Path) -> None:
    """What one caller raises is raised, and leaves none of the others waiting."""

    class Fails(Plain):
        def put(self, key: bytes, value: bytes, ttl_ns: int) -> None:
            raise OSError("no")

    def waits() -> Any:
        yield Step(Do.MEET)

    def fails() -> Any:
        yield Step(Do.PUT, KEY, A)
        yield Step(Do.MEET)

    subject = Subject(Fails, tmp_path, Manners())
    with pytest.raises(OSError, match="no"):
        subject.together([waits(), fails(), waits()])
    subject.close()
