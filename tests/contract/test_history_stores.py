"""Every history store of ours passes the published suite, and the suite finds broken ones."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from paceline.call import Call, Outcome
from paceline.clock import Clock
from paceline.errors import StorageError
from paceline.history.memory import MemoryHistory
from paceline.history.record import Record
from paceline.history.sqlite import SqliteHistory
from paceline.history.store import HistoryStore, Tally
from paceline.redaction import Redactor, Secret
from paceline.testing import history_suite as suite
from paceline.testing.virtual_time import VirtualClock

REDACTOR = Redactor([Secret(suite.SECRET)])


def _memory(clock: Clock, _: Path) -> HistoryStore:
    return MemoryHistory(clock=clock, redactor=REDACTOR)


def _sqlite(clock: Clock, directory: Path) -> HistoryStore:
    def fail(exc: StorageError) -> None:
        raise exc

    return SqliteHistory(directory / "history.db", clock=clock, redactor=REDACTOR, on_loss=fail)


@pytest.fixture(params=[_memory, _sqlite])
def store(
    request: pytest.FixtureRequest, clock: VirtualClock, tmp_path: Path
) -> Iterator[HistoryStore]:
    store = request.param(clock, tmp_path)
    yield store
    store.close()


@pytest.fixture
def clock() -> VirtualClock:
    return VirtualClock()


@pytest.mark.parametrize("check", suite.CHECKS, ids=lambda check: check.__name__)
def test_store_keeps_the_promises(
    check: suite.Check, store: HistoryStore, clock: VirtualClock
) -> None:
    """A store of ours does what every history store must. (S1-16, S1-55)"""
    check(store, clock)


class Broken:
    """A memory store to break in one place."""

    def __init__(self, clock: Clock, redactor: Redactor = REDACTOR) -> None:
        self._inner = MemoryHistory(clock=clock, redactor=redactor)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)


class OldestFirst(Broken):
    def query(self, **filters: Any) -> list[Record]:
        return self._inner.query(**filters)[::-1]


class IgnoresUser(Broken):
    def query(self, *, user: str | None = None, **filters: Any) -> list[Record]:
        return self._inner.query(**filters)


class FoldsTwice(Broken):
    def fold(self, add: Tally, **filters: Any) -> int:
        self._inner.fold(add, **filters)
        return self._inner.fold(add, **filters)


class PrunesTheNewest(Broken):
    def prune(self, *, max_age_s: float | None = None, max_records: int | None = None) -> int:
        gone = self._inner.prune(max_age_s=max_age_s)
        while max_records is not None and len(self._inner._records) > max_records:
            self._inner._records.pop()
            gone += 1
        return gone


class ReadsLate(Broken):
    """Takes values only when it writes."""

    def __init__(self, clock: Clock) -> None:
        super().__init__(clock)
        self.waiting: list[tuple[Call, Outcome]] = []

    def observe(self, call: Call, outcome: Outcome) -> None:
        self.waiting.append((call, outcome))

    def flush(self) -> bool:
        for call, outcome in self.waiting:
            self._inner.observe(call, outcome)
        return True


class MatchesAnyPrefix(Broken):
    def get(self, id: str) -> Record:  # noqa: A002 (the protocol's word)
        return next(found for found in self._inner.query() if found.id.startswith(id))


class ForgetsTheOrder(Broken):
    def trace(self, id: str, **filters: Any) -> list[Record]:  # noqa: A002 (the protocol's word)
        return self._inner.trace(id, **filters)[::-1]


class MixesRuns(Broken):
    def trace(self, id: str, **filters: Any) -> list[Record]:  # noqa: A002 (the protocol's word)
        self._inner.trace(id, **filters)
        return sorted(self._inner.query(), key=lambda found: found.start_ns)


class TakesAnyLength(Broken):
    def trace(self, id: str, **filters: Any) -> list[Record]:  # noqa: A002 (the protocol's word)
        return self._inner.trace(id)


def _tells_secrets(clock: Clock) -> Any:
    return Broken(clock, Redactor())


@pytest.mark.parametrize(
    ("broken", "check"),
    [
        (OldestFirst, suite.newest_first),
        (IgnoresUser, suite.filters_narrow),
        (FoldsTwice, suite.folds_every_record),
        (PrunesTheNewest, suite.prunes_the_oldest),
        (ReadsLate, suite.a_moment_in_the_life_of_a_value),
        (ReadsLate, suite.keeps_everything),
        (MatchesAnyPrefix, suite.found_by_prefix),
        (ForgetsTheOrder, suite.finds_whole_runs),
        (MixesRuns, suite.finds_whole_runs),
        (TakesAnyLength, suite.finds_whole_runs),
        (_tells_secrets, suite.secrets_stay_out),
    ],
)
def test_suite_finds_the_fault(broken: Callable[[Clock], Any], check: suite.Check) -> None:
    """A store with one fault fails the check that is about it."""
    clock = VirtualClock()
    with pytest.raises(AssertionError):
        check(broken(clock), clock)
