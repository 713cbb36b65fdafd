"""Work that has a place only as long as nobody else needs it."""

import asyncio
from collections.abc import Callable
from typing import Final, Generic, Protocol, TypeVar, final

__all__ = ["Guest", "Guests"]

_GRACE_S: Final = 5.0


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
    """The guests at one place, in the order they came, and what there is to know of each.

    One that was asked to go and has not gone within 5 s is deaf to it: it is counted on no more, and
    others are asked in its place.
    """

    __slots__ = ("_again", "_asked", "_deaf", "_here")

    def __init__(self, again: Callable[[], object]) -> None:
        """`again` is called when one turns out to be deaf, to `ask` for as many as are wanted then."""
        self._again = again
        self._here: dict[Guest, W] = {}
        self._asked: dict[Guest, asyncio.TimerHandle] = {}
        self._deaf: set[Guest] = set()

    def __len__(self) -> int:
        return len(self._here)

    @property
    def going(self) -> int:
        """Those that were asked to go of late, and are still here."""
        return len(self._asked)

    def add(self, guest: Guest, what: W) -> None:
        """One has come."""
        self._here[guest] = what

    def remove(self, guest: Guest) -> None:
        """One has gone, if it was here."""
        self._here.pop(guest, None)
        self._deaf.discard(guest)
        timer = self._asked.pop(guest, None)
        if timer is not None:
            timer.cancel()

    def would_go(self, wanted: int) -> int:
        """Of so many places that are wanted, those that guests give back or would."""
        able = len(self._asked) + sum([self._may_be_asked(guest) for guest in self._here])
        return min(able, wanted)

    def ask(self, wanted: int, fits: Callable[[W], bool] = lambda _: True) -> None:
        """Asks the youngest to go that fit, until so many are going or none is left."""
        for guest, what in reversed(tuple(self._here.items())):
            if len(self._asked) >= wanted:
                return
            if self._may_be_asked(guest) and fits(what):
                loop = asyncio.get_running_loop()
                self._asked[guest] = loop.call_later(_GRACE_S, self._stayed, guest)
                guest.give_way()

    def _may_be_asked(self, guest: Guest) -> bool:
        return guest not in self._asked and guest not in self._deaf and guest.speculative

    def _stayed(self, guest: Guest) -> None:
        del self._asked[guest]
        self._deaf.add(guest)
        self._again()
