"""A queue for places: the urgent first, tenants fairly, and nobody for ever. Pure.

It orders and says who is to give way; `Gate` lets callers wait in it.
"""

from collections import OrderedDict
from collections.abc import Iterator, Mapping
from typing import Any, Final, Generic, TypeVar, final

from paceline.balance.flows import Flows, Waiter
from paceline.call import Priority

__all__ = ["FairQueue"]

W = TypeVar("W", bound=Waiter)
_NS: Final = 1_000_000_000
_LONGEST_S: Final = 1e9
_RISING: Final = tuple(sorted(p for p in Priority if Priority.SPECULATIVE < p < max(Priority)))
_WEIGHT: Final = 8  # of all intervals so far, against that of the latest


@final
class FairQueue(Generic[W]):
    """Waiters by priority, within one a fair share for each tenant, within that the order of
    coming.

    A waiter rises to the next priority after `ageing_s`, so those who are always overtaken are
    first in the end. Speculated work does not rise: nobody waits for it, and whoever comes to do so
    raises it. Times are nanoseconds of one monotonic clock and never go back.
    """

    __slots__ = ("_ageing_ns", "_last_ns", "_levels", "_mean_ns", "waiting")

    def __init__(self, *, ageing_s: float, weights: Mapping[str, float]) -> None:
        """`weights` of tenants relative to each other, 1 for those not named. Raises ValueError
        for a weight or time that is not positive."""
        if not 0 < ageing_s <= _LONGEST_S:
            raise ValueError(f"ageing_s must be in 0..{_LONGEST_S:g}, not {ageing_s:g}")
        for tenant, weight in weights.items():
            if not 1 / _LONGEST_S <= weight <= _LONGEST_S:
                raise ValueError(f"the weight of {tenant} must be positive, not {weight:g}")
        self._ageing_ns = max(1, round(ageing_s * _NS))
        self._levels: dict[Priority, _Level[W]] = {p: _Level(weights) for p in sorted(Priority)}
        self.waiting = 0
        """How many are in it."""
        self._last_ns = 0  # when a place was given, or the queue began
        self._mean_ns: float | None = None

    def __len__(self) -> int:
        return self.waiting

    def add(self, waiter: W, now_ns: int) -> None:
        """Puts one who is not in it behind the others of its tenant and priority."""
        self._rise(now_ns)
        if not self.waiting:
            self._last_ns = now_ns
        self.waiting += 1
        self._levels[waiter.priority].add(waiter, now_ns + self._ageing_ns)

    def remove(self, waiter: W) -> None:
        """Takes one out, if it is there."""
        for level in self._levels.values():
            if waiter in level.rises:
                level.remove(waiter)
                self.waiting -= 1
                return

    def raise_to(self, waiter: W, priority: Priority, now_ns: int) -> None:
        """Puts one who is there behind the others of this priority, if it is less urgent."""
        self._rise(now_ns)
        for lower in Priority:
            if lower < priority and waiter in self._levels[lower].rises:
                self._levels[lower].remove(waiter)
                self._levels[priority].add(waiter, now_ns + self._ageing_ns)
                return

    def first(self, now_ns: int) -> W | None:
        """Who is next of those all of whose gates have places; None if there is none."""
        self._rise(now_ns)
        for level in reversed(self._levels.values()):
            if level.rises and (waiter := level.flows.first()) is not None:
                return waiter
        return None

    def lanes(self) -> Iterator[tuple[Any, ...]]:
        """What those wait for who are more than speculated work: each different `gates` once or
        more."""
        for priority, level in self._levels.items():
            if priority is not Priority.SPECULATIVE:
                yield from level.flows.lanes()

    def serve(self, waiter: W, now_ns: int) -> None:
        """Takes one who is there out, as it gets its place, which counts to its tenant's share."""
        for level in self._levels.values():
            if level.rises.pop(waiter, None) is not None:
                level.flows.serve(waiter)
                break
        self.waiting -= 1
        interval_ns = now_ns - self._last_ns
        self._last_ns = now_ns
        if self._mean_ns is None:
            self._mean_ns = interval_ns
        else:
            self._mean_ns += (interval_ns - self._mean_ns) / _WEIGHT

    def gives_way(self, newcomer: Waiter, now_ns: int) -> W | None:
        """Who is to leave a queue that is full for one who wants to join; None if nobody is.

        That is one of the least urgent, if those are less urgent than the newcomer, or as urgent
        and of a tenant with more waiters even so (as in P. McKenney, Stochastic fairness queueing,
        INFOCOM 1990: the longest queue loses). Of those it is the newest of the tenant with most.
        """
        self._rise(now_ns)
        for priority, level in self._levels.items():
            if not level.rises:
                continue
            most = level.flows.most
            if priority < newcomer.priority or (
                priority == newcomer.priority and most > level.flows.count(newcomer.tenant) + 1
            ):
                return level.flows.newest_of_most()
            return None
        return None

    def wait_s(self, now_ns: int) -> float | None:
        """How long until all who are in it have got places, at the rate of late; None while no
        place has been given."""
        if self._mean_ns is None:
            return None
        since_ns = now_ns - self._last_ns if self.waiting else 0
        return max(self._mean_ns, since_ns) * max(1, self.waiting) / _NS

    def _rise(self, now_ns: int) -> None:
        """Lets those rise whose time has come: from below, so that some rise twice."""
        for priority in _RISING:
            level = self._levels[priority]
            while level.rises:
                waiter, rises_ns = next(iter(level.rises.items()))
                if rises_ns > now_ns:
                    break
                level.remove(waiter)
                self._levels[Priority(priority + 1)].add(waiter, rises_ns + self._ageing_ns)


@final
class _Level(Generic[W]):
    """The waiters of one priority, with the moments at which they rise, which are in order."""

    __slots__ = ("flows", "rises")

    def __init__(self, weights: Mapping[str, float]) -> None:
        self.flows: Flows[W] = Flows(weights)
        self.rises: OrderedDict[W, int] = OrderedDict()

    def add(self, waiter: W, rises_ns: int) -> None:
        self.rises[waiter] = rises_ns
        self.flows.add(waiter)

    def remove(self, waiter: W) -> None:
        del self.rises[waiter]
        self.flows.remove(waiter)
