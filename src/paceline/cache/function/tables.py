"""Tables of one function: one for each instance it is a method of, or scope it is called in.

A hit looks up a table by whom, and in it by the arguments: no key is made of both.
"""

import threading
import weakref
from collections.abc import Callable
from typing import Any, Final, final

from paceline.cache.entry import Entry, Table
from paceline.errors import UnkeyableError

__all__ = ["Entries", "Instances", "Scopes"]

_ROOM: Final = 64

Entries = dict[Any, Entry]
MakeTable = Callable[[], Table]


@final
class Instances:
    """A table for each instance of a class, for as long as the instance lives.

    An `id` belongs to another object once its object is gone, but not before the weak reference
    called back: so what is listed under an id is that of its object.
    """

    def __init__(self, make: MakeTable, abandon: Callable[[Table], object]) -> None:
        self.kept: dict[int, Entries] = {}
        """By the id of an instance, what is in its table."""
        self._make = make
        self._abandon = abandon
        self._tables: dict[int, tuple[weakref.ref[object], Table]] = {}
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._tables)

    def table(self, instance: object) -> Table:
        """The table of an instance. Raises UnkeyableError if its end could not be noticed."""
        known = self._tables.get(id(instance))
        return self._add(instance) if known is None else known[1]

    def tables(self) -> list[Table]:
        """All tables."""
        return [table for _, table in list(self._tables.values())]

    def _add(self, instance: object) -> Table:
        place = id(instance)

        def forget(_: "weakref.ref[object]") -> None:
            del self.kept[place]
            _, table = self._tables.pop(place)
            self._abandon(table)

        with self._lock:
            known = self._tables.get(place)
            if known is not None:
                return known[1]
            table = self._make()
            try:
                self._tables[place] = (weakref.ref(instance, forget), table)
            except TypeError as exc:
                raise UnkeyableError(
                    f"an object of type {type(instance).__qualname__} cannot be told from later ones at its address",
                    next_step='Add "__weakref__" to its __slots__.',
                ) from exc
            self.kept[place] = table.entries
        return table


@final
class Scopes:
    """A table for each scope, for as long as anything is kept in it or computed for it.

    That is as long as anybody refers to it: its entries do, and so does who computes one. Until
    then a scope that comes back has the same table, so that a removal meanwhile is seen by all.
    """

    def __init__(self, make: MakeTable) -> None:
        self.kept: dict[int | str, Entries] = {}
        """By scope, what is in its table; nothing, if it has none any more."""
        self._make = make
        self._tables: dict[int | str, weakref.ref[Table]] = {}
        self._room = _ROOM
        # A finalizer may call the function while we make room.
        self._lock = threading.RLock()

    def __len__(self) -> int:
        """Scopes listed: at most half as many again as had a table when last it was looked."""
        return len(self._tables)

    def table(self, scope: int | str) -> Table:
        """The table of a scope, which is of no subclass: 1 and True would have one table."""
        return self._known(scope) or self._add(scope)

    def tables(self) -> list[Table]:
        """All tables."""
        found = [known() for known in list(self._tables.values())]
        return [table for table in found if table is not None]

    def _known(self, scope: int | str) -> Table | None:
        known = self._tables.get(scope)
        return None if known is None else known()

    def _add(self, scope: int | str) -> Table:
        table = self._make()
        reference = weakref.ref(table)
        with self._lock:
            if len(self._tables) >= self._room:
                self._sweep()
            known = self._known(scope)
            if known is not None:
                return known
            self._tables[scope] = reference
            self.kept[scope] = table.entries
        return table

    def _sweep(self) -> None:
        """Forgets the scopes that have no table any more."""
        for scope in list(self._tables):
            if self._known(scope) is None:
                self._tables.pop(scope, None)
                self.kept.pop(scope, None)
        # So many more that each new one pays for no more than three looks.
        self._room = len(self._tables) * 3 // 2 + _ROOM
