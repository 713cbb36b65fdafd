"""Work that has a place only as long as nobody else needs it."""

from collections.abc import Callable
from typing import Generic, Protocol, TypeVar, final

__all__ = ["Guest", "Guests"]


class Guest(Protocol):
    """Work that was begun before anybody asked for it."""

    @property
    def speculative(self) -> bool:
        """Whether nobody has asked for it until now. What was asked for keeps its place."""
        ...

    def give_way(self) -> None:
        """Ends it soon; told once, and not in the course of this."""
        ...


W = TypeVar("W")


@final
class Guests(Generic[W]):
    """The guests at one place, in the order they came, and what there is to know of each."""

    __slots__ = ("_asked", "_here")

    def __init__(self) -> None:
        self._here: dict[Guest, W] = {}
        self._asked: set[Guest] = set()

    def __len__(self) -> int:
        return len(self._here)

    @property
    def going(self) -> int:
        """Those that were asked to go, and are still here."""
        return len(self._asked)

    def add(self, guest: Guest, what: W) -> None:
        """One has come."""
        self._here[guest] = what

    def remove(self, guest: Guest) -> None:
        """One has gone, if it was here."""
        self._here.pop(guest, None)
        self._asked.discard(guest)

    def would_go(self, wanted: int) -> int:
        """Of so many places that are wanted, those that guests give back or would."""
        able = sum([guest in self._asked or guest.speculative for guest in self._here])
        return min(able, wanted)

    def ask(self, wanted: int, fits: Callable[[W], bool] = lambda _: True) -> None:
        """Asks the youngest to go that fit, until so many are going or none is left."""
        for guest, what in reversed(tuple(self._here.items())):
            if len(self._asked) >= wanted:
                return
            if guest not in self._asked and guest.speculative and fits(what):
                self._asked.add(guest)
                guest.give_way()
