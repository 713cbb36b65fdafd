"""What every history store does; `paceline.testing.history_suite` checks it."""

from collections.abc import Collection
from typing import Protocol

from paceline.call import Call, Outcome, Source
from paceline.errors import Category, UsageError
from paceline.history.record import Record

__all__ = ["HistoryStore", "Tally", "the_one"]


class Tally(Protocol):
    """Something that counts calls by their figures."""

    def __call__(
        self,
        name: str,
        *,
        source: Source,
        category: Category | None,
        queue_ns: int,
        execute_ns: int,
        total_ns: int,
    ) -> None:
        """Counts one call; `category` is its error's, None for a value."""
        ...


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

    def fold(self, add: Tally, *, since_ns: int | None = None) -> int:
        """Calls `add` with the figures of each record, in any order, and returns how many there
        were. Raises StorageError when the store cannot be read."""
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


def the_one(id: str, found: Collection[str]) -> str:  # noqa: A002 (the protocol's word)
    """Which of the ids that begin with `id` is meant; raises UsageError when that is not clear."""
    if id in found:
        return id
    if len(found) == 1:
        return next(iter(found))
    if found:
        raise UsageError(
            f"more than one recorded call begins with {id!r}", next_step="Give more of the id."
        )
    raise UsageError(
        f"no recorded call is {id!r}",
        next_step="List the latest with `paceline history`.",
        category=Category.NOT_FOUND,
    )
