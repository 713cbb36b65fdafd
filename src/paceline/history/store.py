"""What every history store does; `paceline.testing.history_suite` checks it."""

from collections.abc import Callable, Collection
from typing import Final, Protocol

from paceline.call import Call, Outcome
from paceline.errors import Category, UsageError
from paceline.history.record import Bill, Facts, Record

__all__ = ["MOST_OF_A_RUN", "HistoryStore", "Tally", "the_one", "too_long"]


Tally = Callable[[Facts], object]
"""Something that counts calls."""

MOST_OF_A_RUN: Final = 50_000
"""Calls that are read of one run at once."""


class HistoryStore(Protocol):
    """Keeps a record of every call."""

    @property
    def lost(self) -> int:
        """Calls that were observed and could not be recorded."""
        ...

    def observe(self, call: Call, outcome: Outcome) -> None:
        """Records a finished call: an observer of the call path. Never raises; the record is
        found once `flush` has returned."""
        ...

    def query(
        self,
        *,
        name: str | None = None,
        user: str | None = None,
        since_ns: int | None = None,
        errors_only: bool = False,
        limit: int = 50,
    ) -> list[Record]:
        """The newest records that fit, newest first.

        `since_ns` is a moment of the wall clock; cancelled calls are no errors. Raises
        StorageError when the store cannot be read.
        """
        ...

    def get(self, id: str) -> Record:  # noqa: A002 (what it is)
        """The record of this id, or of the one id that begins so.

        Raises UsageError when there is none or more than one, StorageError when the store
        cannot be read.
        """
        ...

    def trace(self, id: str, *, limit: int = MOST_OF_A_RUN) -> list[Record]:  # noqa: A002 (as above)
        """All calls of one run, in the order in which they began.

        `id` is the run's (its trace) or that of any call in it, or the beginning of one. Raises
        UsageError when that is no run, more than one, or one of more than `limit` calls, and
        StorageError when the store cannot be read.
        """
        ...

    def fold(self, add: Tally, *, since_ns: int | None = None) -> int:
        """Calls `add` with the facts of each record, in any order, and returns how many there
        were. Raises StorageError when the store cannot be read."""
        ...

    def bills(self, since_ns: int) -> list[Bill]:
        """What calls since a moment of the wall clock cost, in as many parts as suits the store.
        Raises StorageError when the store cannot be read."""
        ...

    def prune(self, *, max_age_s: float | None = None, max_records: int | None = None) -> int:
        """Removes records older than an age (seconds), and the oldest beyond a number; returns
        how many. Never raises: what fails is told as every loss is."""
        ...

    def flush(self, timeout_s: float | None = None) -> bool:
        """Waits until all that was observed is recorded or lost; False on time-out."""
        ...

    def close(self) -> None:
        """Flushes and lets go of everything held. What is observed later is lost."""
        ...


def the_one(id: str, found: Collection[str], what: str = "call") -> str:  # noqa: A002 (as above)
    """Which of the ids that begin with `id` is meant; raises UsageError when that is not clear."""
    if id in found:
        return id
    if len(found) == 1:
        return next(iter(found))
    if found:
        raise UsageError(
            f"more than one recorded {what} begins with {id!r}", next_step="Give more of the id."
        )
    raise UsageError(
        f"no recorded {what} is {id!r}",
        next_step="List the latest with `paceline history`.",
        category=Category.NOT_FOUND,
    )


def too_long(run: str, limit: int) -> UsageError:
    """What to say of a run that is not read, because it has more calls than asked for."""
    return UsageError(
        f"the run {run} has more than {limit:,} calls",
        next_step="Look at its calls one by one: `paceline history ID`.",
    )
