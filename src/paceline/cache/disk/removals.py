"""Removals from the warm tier: which rows they are about, and hidden until they are written."""

import sqlite3
from collections.abc import Callable
from typing import Final, NamedTuple, final

import msgspec

from paceline.cache.disk.rows import CLEAR, DELETE, Wanted, about_of
from paceline.cache.entry import About
from paceline.database import BatchWriter

__all__ = ["Condition", "Hiding", "Removals"]

_MAX_KEYS: Final = 1_000
_MAX_CONDITIONS: Final = 20
# Not LIKE, which knows wildcards and no case.
_NAMED: Final = "(?1 IS NULL OR name = ?1) AND (?2 IS NULL OR substr(name, 1, length(?2)) = ?2)"
_DELETE_NAMED: Final = f"DELETE FROM results WHERE {_NAMED}"  # noqa: S608 (of constants)
_SELECT_NAMED: Final = f"SELECT id, key, head FROM results WHERE {_NAMED}"  # noqa: S608
_DELETE_ROW: Final = "DELETE FROM results WHERE id = ?"


@final
class Condition(msgspec.Struct, frozen=True):
    """What all has to be true of a row that is to be removed; None is true of each."""

    name: str | None
    prefix: str | None
    predicate: Wanted | None

    def holds(self, key: bytes, about: About) -> bool:
        """Whether this row is meant; if the predicate cannot tell, it is."""
        if self.name is not None and about.name != self.name:
            return False
        if self.prefix is not None and not about.name.startswith(self.prefix):
            return False
        try:
            return self.predicate is None or self.predicate(key, about)
        except Exception:  # noqa: BLE001 (somebody's function; to lose a row is harmless)
            return True

    def remove_from(self, db: sqlite3.Connection) -> int:
        """Removes the rows that are meant; how many that were."""
        if self.predicate is None:
            return db.execute(_DELETE_NAMED, (self.name, self.prefix)).rowcount
        meant = [
            (id_,)
            for id_, key, head in db.execute(_SELECT_NAMED, (self.name, self.prefix))
            if self.holds(key, about_of(head))
        ]
        db.executemany(_DELETE_ROW, meant)
        return len(meant)


class Hiding(NamedTuple):
    """What is hidden from a read that began when this much was written."""

    settled: int
    all: int
    keys: dict[bytes, int]
    conditions: tuple[tuple[int, Condition], ...]

    def hides(self, key: bytes, about: About) -> bool:
        """Whether this row was removed, though the file may still show it."""
        if self.all > self.settled or self.keys.get(key, 0) > self.settled:
            return True
        return any(n > self.settled and each.holds(key, about) for n, each in self.conditions)


@final
class Removals:
    """Removals by the number of the statement that carries them out.

    Bounded: with too many of them everything is hidden until the last one is written. For use
    under a lock; a `Hiding` may be used outside.
    """

    def __init__(self) -> None:
        self.latest = 0
        """The number of the last removal; 0 when all are known to be written."""
        self._all = 0
        self._lost_before = 0  # statements of the writer's, before the removals in question
        self._keys: dict[bytes, int] = {}
        self._conditions: tuple[tuple[int, Condition], ...] = ()

    def __len__(self) -> int:
        return len(self._keys) + len(self._conditions)

    def remove(self, key: bytes, writer: BatchWriter) -> None:
        """Removes a key, and hides it until that is written."""
        self._begin(writer)
        self.latest = self._keys[key] = writer.submit(DELETE, (key,))
        if len(self._keys) > _MAX_KEYS:
            self._hide_all(self.latest)

    def remove_where(
        self, condition: Condition, writer: BatchWriter, count: Callable[[int], object]
    ) -> None:
        """Removes what a condition holds of; `count` is told how many, on the writer's thread."""
        self._begin(writer)
        self.latest = writer.run(lambda db: count(condition.remove_from(db)))
        self._conditions = (*self._conditions, (self.latest, condition))
        if len(self._conditions) > _MAX_CONDITIONS:
            self._hide_all(self.latest)

    def remove_all(self, writer: BatchWriter) -> None:
        """Removes everything."""
        self._begin(writer)
        self._hide_all(writer.submit(CLEAR, ()))

    def hiding(self, writer: BatchWriter, *, stalled: bool) -> Hiding | None:
        """What the file may show though it was removed; None if nothing.

        When a removal may have been lost, that is all, until all is removed; which is not tried
        while writing is `stalled`.
        """
        settled = writer.settled  # read first: what is lost is counted before it is settled
        if writer.lost > self._lost_before:
            if stalled:
                return Hiding(settled, settled + 1, {}, ())
            self._lost_before = writer.lost
            self._hide_all(writer.submit(CLEAR, ()))
        if self.latest > settled:
            return Hiding(settled, self._all, self._keys, self._conditions)
        self.latest = 0
        self._forget()
        return None

    def _begin(self, writer: BatchWriter) -> None:
        if not self.latest:
            self._lost_before = writer.lost

    def _hide_all(self, number: int) -> None:
        self.latest = self._all = number
        self._forget()

    def _forget(self) -> None:
        self._keys = {}  # a new one: a read may still look at the old one
        self._conditions = ()
