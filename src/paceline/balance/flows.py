"""Who is next among equals: a fair share for each tenant, and within one the order of coming.

Self-clocked fair queueing (S. J. Golestani, A self-clocked fair queueing scheme for broadband
applications, INFOCOM 1994), with a place as the unit of service and tags for tenants instead of
packets: who leaves the queue unserved has cost its tenant nothing, and a tenant of whom nobody
waits is forgotten. While two tenants both have somebody waiting, the places they get, each divided
by its weight, never differ by more than one place of each, likewise divided.
"""

from collections import OrderedDict
from collections.abc import Mapping
from heapq import heapify, heappop, heappush, heapreplace
from typing import Final, Generic, Protocol, TypeVar, final

from paceline.call import Priority

__all__ = ["Flows", "Places", "Waiter"]

_UNIT: Final = 1 << 20
"""What a place costs a tenant of weight 1, in virtual time. Whole numbers do not drift."""
_SLACK: Final = 16


class Places(Protocol):
    """What is waited for."""

    @property
    def free(self) -> int:
        """Places left; none if it is not above 0."""
        ...


class Waiter(Protocol):
    """One who waits for a place in each of `gates` at the same moment, on behalf of a tenant."""

    @property
    def gates(self) -> tuple[Places, ...]:
        """Those with equal gates can go on at the same moments."""
        ...

    @property
    def tenant(self) -> str:
        """Whose share its place counts to."""
        ...

    @property
    def priority(self) -> Priority:
        """How urgent it was when it came."""
        ...


W = TypeVar("W", bound=Waiter)


@final
class Flows(Generic[W]):
    """Waiters of one urgency. All operations take logarithmic time at most, for a fixed number of
    different `gates`."""

    __slots__ = ("_by_count", "_lanes", "_most", "_now", "_numbers", "_tenants", "_weights")

    def __init__(self, weights: Mapping[str, float]) -> None:
        """`weights` of tenants relative to each other; those not named have 1."""
        self._weights = weights
        self._tenants: dict[str, _Tenant[W]] = {}
        self._lanes: dict[tuple[Places, ...], _Lane[W]] = {}
        self._by_count: dict[int, dict[_Tenant[W], None]] = {}
        self._most = 0
        self._now = 0  # virtual: the tag of who was served last
        self._numbers = 0

    @property
    def most(self) -> int:
        """Waiters of the tenant that has most."""
        return self._most

    def count(self, tenant: str) -> int:
        """Waiters of a tenant."""
        there = self._tenants.get(tenant)
        return there.waiting if there is not None else 0

    def add(self, waiter: W) -> None:
        """Puts one who is not there behind the others of its tenant."""
        tenant = self._tenants.get(waiter.tenant)
        if tenant is None:
            cost = max(1, round(_UNIT / self._weights.get(waiter.tenant, 1.0)))
            tenant = self._tenants[waiter.tenant] = _Tenant(cost, self._now + cost)
        line = tenant.lines.get(waiter.gates)
        if line is None:
            lane = self._lanes.get(waiter.gates)
            if lane is None:
                lane = self._lanes[waiter.gates] = _Lane()
            line = tenant.lines[waiter.gates] = _Line(tenant)
            lane.join(line, self._numbers)
        line.waiters[waiter] = self._numbers
        self._numbers += 1
        self._recount(tenant, 1)

    def remove(self, waiter: W) -> None:
        """Takes one who is there out; its tenant is charged nothing."""
        tenant = self._tenants[waiter.tenant]
        line = tenant.lines[waiter.gates]
        del line.waiters[waiter]
        self._recount(tenant, -1)
        if line.waiters:
            return
        del tenant.lines[waiter.gates]
        if not tenant.lines:
            del self._tenants[waiter.tenant]
        lane = self._lanes[waiter.gates]
        lane.leave()
        if not lane.lines:
            del self._lanes[waiter.gates]

    def serve(self, waiter: W) -> None:
        """Takes one who is there out and charges its tenant, first or not.

        A tenant that was passed over because it could not go on does not make up for it later, but
        for one turn.
        """
        tenant = self._tenants[waiter.tenant]
        self._now = max(self._now, tenant.finish)
        tenant.finish = self._now + tenant.cost
        self.remove(waiter)

    def first(self) -> W | None:
        """Who is next of those all of whose gates have places; None if there is none."""
        best: tuple[int, int, _Line[W]] | None = None
        for gates, lane in self._lanes.items():
            for gate in gates:
                if gate.free <= 0:
                    break
            else:
                top = lane.top()
                if best is None or top < best:
                    best = top
        return None if best is None else next(iter(best[2].waiters))

    def lanes(self) -> tuple[tuple[Places, ...], ...]:
        """The different `gates` that are waited for."""
        return tuple(self._lanes)

    def newest_of_most(self) -> W:
        """Who came last of the tenant with most waiters; only if there is any."""
        tenant = next(reversed(self._by_count[self._most]))
        line = max(tenant.lines.values(), key=_latest)
        return next(reversed(line.waiters))

    def _recount(self, tenant: "_Tenant[W]", change: int) -> None:
        """Keeps the tenants by their number of waiters, which changes by one at a time."""
        if tenant.waiting:
            same = self._by_count[tenant.waiting]
            del same[tenant]
            if not same:
                del self._by_count[tenant.waiting]
        tenant.waiting += change
        if tenant.waiting:
            self._by_count.setdefault(tenant.waiting, {})[tenant] = None
        if tenant.waiting > self._most:
            self._most = tenant.waiting
        elif self._most not in self._by_count:
            self._most -= 1


@final
class _Tenant(Generic[W]):
    """`finish` is when its next place would have been served, in virtual time."""

    __slots__ = ("cost", "finish", "lines", "waiting")

    def __init__(self, cost: int, finish: int) -> None:
        self.cost = cost
        self.finish = finish
        self.lines: dict[tuple[Places, ...], _Line[W]] = {}
        self.waiting = 0


@final
class _Line(Generic[W]):
    """The waiters of one tenant for the same gates, numbered as they came."""

    __slots__ = ("tenant", "waiters")

    def __init__(self, tenant: _Tenant[W]) -> None:
        self.tenant = tenant
        self.waiters: OrderedDict[W, int] = OrderedDict()


def _latest(line: _Line[W]) -> int:
    return next(reversed(line.waiters.values()))


@final
class _Lane(Generic[W]):
    """The lines for the same gates, in a heap by tag and number of their first.

    Both only grow, so an entry is never too late: one that is too early is put right when it
    comes to the top. Lines that became empty stay until then, or until they are the most of it.
    """

    __slots__ = ("_heap", "lines")

    def __init__(self) -> None:
        self._heap: list[tuple[int, int, _Line[W]]] = []
        self.lines = 0
        """Those that are not empty."""

    def join(self, line: _Line[W], number: int) -> None:
        """Adds a line that is about to get its first waiter."""
        self.lines += 1
        heappush(self._heap, (line.tenant.finish, number, line))

    def leave(self) -> None:
        """A line has become empty."""
        self.lines -= 1
        if len(self._heap) > 2 * self.lines + _SLACK:
            self._heap = [entry for entry in self._heap if entry[2].waiters]
            heapify(self._heap)

    def top(self) -> tuple[int, int, _Line[W]]:
        """The entry of the line that is next; there is one."""
        heap = self._heap
        while True:
            finish, number, line = heap[0]
            if not line.waiters:
                heappop(heap)
                continue
            first = next(iter(line.waiters.values()))
            if finish == line.tenant.finish and number == first:
                return heap[0]
            heapreplace(heap, (line.tenant.finish, first, line))
