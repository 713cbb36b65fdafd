"""Time in a simulation: what is to happen, in its order."""

import heapq
from collections.abc import Callable
from typing import Any, Final, final

__all__ = ["SECOND", "Agenda"]

SECOND: Final = 1_000_000_000
"""In nanoseconds, the unit of every moment here."""


@final
class Agenda:
    """What will happen when; also the clock of all that is simulated.

    Things of one moment happen in the order in which they were entered.
    """

    __slots__ = ("_entered", "_entries", "_stopped", "now_ns")

    def __init__(self) -> None:
        self.now_ns = 0
        self._entries: list[tuple[int, int, Callable[[Any], object], Any]] = []
        self._entered = 0
        self._stopped = False

    def __bool__(self) -> bool:
        """Whether anything is to happen."""
        return bool(self._entries)

    def monotonic_ns(self) -> int:
        """The moment that the simulation is at."""
        return self.now_ns

    def wall_ns(self) -> int:
        """The same: simulations begin in 1970."""
        return self.now_ns

    def enter(self, at_ns: int, call: Callable[[Any], object], argument: Any) -> None:
        """At that moment, or at once if it is past, `call(argument)` is to be made."""
        self._entered += 1
        heapq.heappush(self._entries, (max(at_ns, self.now_ns), self._entered, call, argument))

    def run(self) -> None:
        """Lets everything happen, until nothing is left or `stop` is called."""
        entries, pop = self._entries, heapq.heappop
        self._stopped = False
        while entries and not self._stopped:
            self.now_ns, _, call, argument = pop(entries)
            call(argument)

    def stop(self) -> None:
        """Lets nothing happen after what happens now."""
        self._stopped = True
