"""How many at once an instance can take, found out by how it answers. Pure.

`Gradient` goes by latency alone, as Netflix' concurrency-limits does (its Gradient2): it compares
how long answers take with how long they take when nothing waits. That library follows the
long-term mean, which creeps up under a load that never ends, and the limit with it; so here that
time is measured, as in Envoy's adaptive concurrency filter, by taking a little less now and then.
`Aimd` grows by one until something goes wrong and then shrinks by a share (D. Chiu, R. Jain,
Analysis of the increase and decrease algorithms for congestion avoidance, 1989).
"""

import math
from typing import TYPE_CHECKING, Final, Protocol, final

from paceline.errors import Category, PacelineError, Shortage

if TYPE_CHECKING:
    from paceline.balance.lease import Lease
    from paceline.balance.request import Request

__all__ = ["Adaptive", "Aimd", "Gradient", "Limit"]

_DROP: Final = 0.9  # of the limit is left after work was dropped
_LEAST_WINDOW: Final = 10
_LONGEST_WINDOW: Final = 100
_SMOOTHING: Final = 0.3  # of the way to where a window says the limit should be
_DOUBT: Final = 2.0  # standard errors of the mean that may be chance
_LEARN: Final = 0.5  # of the way to what a measurement says is unloaded
_FIRST_PROBE: Final = 4  # windows
_RAREST_PROBE: Final = 64
_SURE: Final = 0.1  # a measurement that moves the unloaded latency by less confirms it
_TROUBLE: Final = frozenset(
    {Category.TIMEOUT, Category.RATE_LIMIT, Category.UNAVAILABLE, Category.EXHAUSTED}
)


class Limit(Protocol):
    """A limit that learns. It is told of every answer and never looks at a clock."""

    @property
    def limit(self) -> int:
        """How many may be in flight; at least 1."""
        ...

    def observe(self, latency_ns: int, in_flight: int, *, dropped: bool = False) -> None:
        """One piece of work is over: how long it took, how many were in flight when it was sent,
        itself included, and whether it was refused or timed out for want of capacity."""
        ...


@final
class Gradient:
    """Shrinks in proportion when answers take more than `tolerance` times what they take unloaded;
    else grows by the square root of the limit, which is the queue that it allows, as long as at
    least half of the limit is used.

    It decides once in a window of as many answers as the limit (10..100), by their mean less what
    of it may be chance. While the limit is in use all the time it is halved for a window in every
    4 to 64, the fewer the less that brings to light: how long answers take then is what they take
    unloaded. Apart from those it stays where it is.
    """

    __slots__ = (
        "_count",
        "_dropped",
        "_interval",
        "_largest",
        "_limit",
        "_most",
        "_probing",
        "_seen",
        "_since_probe",
        "_skip",
        "_smallest",
        "_squares",
        "_sum_ns",
        "_tolerance",
        "_unloaded_ns",
        "limit",
    )

    def __init__(
        self, initial: int = 20, *, smallest: int = 1, largest: int = 1_000, tolerance: float = 1.25
    ) -> None:
        """Raises ValueError unless 1 <= smallest <= initial <= largest and tolerance >= 1."""
        _check(initial, smallest, largest)
        if not tolerance >= 1:
            raise ValueError("a tolerance below 1 would shrink the limit for ever")
        self.limit = initial
        self._limit = float(initial)
        self._smallest = smallest
        self._largest = largest
        self._tolerance = tolerance
        self._unloaded_ns: float | None = None
        self._interval = _FIRST_PROBE
        self._since_probe = 0
        self._skip = 0
        self._probing = False
        self._sum_ns = self._squares = self._count = self._seen = self._most = 0
        self._dropped = False

    def observe(self, latency_ns: int, in_flight: int, *, dropped: bool = False) -> None:
        """See `Limit`."""
        if self._probing and in_flight > self.limit:
            return  # sent before the limit was lowered: it says nothing about now
        self._most = max(self._most, in_flight)
        if dropped:
            if not self._dropped:
                self._dropped = True
                self._set(self._limit * _DROP)
        elif self._skip:
            self._skip -= 1
            return
        else:
            self._sum_ns += latency_ns
            self._squares += latency_ns * latency_ns
            self._count += 1
        self._seen += 1
        if self._seen < min(max(self.limit, _LEAST_WINDOW), _LONGEST_WINDOW):
            return
        if self._count * 2 < self._seen:  # too few to tell how long answers take
            self._begin()
            self._end_probe()
        else:
            mean_ns = self._sum_ns / self._count
            spread = max(0.0, self._squares / self._count - mean_ns * mean_ns)
            self._decide(max(1.0, mean_ns), math.sqrt(spread / self._count))

    def _decide(self, mean_ns: float, error_ns: float) -> None:
        used, dropped = self._most * 2 >= self.limit, self._dropped
        self._begin()
        if self._probing or not used:
            self._learn(mean_ns)
        else:  # what is clearly faster than unloaded is what unloaded is
            unloaded_ns = self._unloaded_ns or math.inf
            if (mean_ns + _DOUBT * error_ns) * self._tolerance < unloaded_ns:
                self._unloaded_ns = mean_ns
        if self._probing:
            self._end_probe()
            return
        self._since_probe = self._since_probe + 1 if used else 0
        if not dropped:
            self._move(max(1.0, mean_ns - _DOUBT * error_ns), used=used)
        if self._since_probe >= self._interval:
            self._probe()

    def _begin(self) -> None:
        """A window."""
        self._sum_ns = self._squares = self._count = self._seen = self._most = 0
        self._dropped = False

    def _learn(self, mean_ns: float) -> None:
        """The mean of answers while there was little to do."""
        before_ns = self._unloaded_ns or mean_ns
        self._unloaded_ns = before_ns + (mean_ns - before_ns) * _LEARN
        sure = abs(self._unloaded_ns - before_ns) <= _SURE * before_ns
        self._interval = min(2 * self._interval, _RAREST_PROBE) if sure else _FIRST_PROBE

    def _move(self, mean_ns: float, *, used: bool) -> None:
        unloaded_ns = self._unloaded_ns or mean_ns
        gradient = min(1.0, max(0.5, self._tolerance * unloaded_ns / mean_ns))
        aim = self._limit * gradient + math.sqrt(self._limit)
        if aim < self._limit or used:
            self._set(self._limit + (aim - self._limit) * _SMOOTHING)

    def _probe(self) -> None:
        """Takes half for a window. The limit is less than twice the capacity if the latency held to
        be unloaded is right; if that was measured under load it comes out lower now."""
        self._probing = True
        self.limit = self._skip = max(self._smallest, int(self._limit / 2))

    def _end_probe(self) -> None:
        """Or nothing, if there is none."""
        if self._probing:
            self._probing = False
            self._since_probe = 0
            self._set(self._limit)

    def _set(self, limit: float) -> None:
        self._limit = min(max(limit, self._smallest), self._largest)
        if not self._probing:
            self.limit = round(self._limit)


@final
class Aimd:
    """Grows by one for each limit's worth of answers, as long as at least half of the limit is
    used; is multiplied with `backoff` when work was dropped or took longer than `target_ns`.

    What was sent before the limit shrank counts as one with what made it shrink.
    """

    __slots__ = ("_backoff", "_largest", "_limit", "_old", "_smallest", "_target_ns")

    def __init__(
        self,
        initial: int = 20,
        *,
        smallest: int = 1,
        largest: int = 1_000,
        target_ns: int | None = None,
        backoff: float = 0.9,
    ) -> None:
        """Raises ValueError unless 1 <= smallest <= initial <= largest and 0 < backoff < 1."""
        _check(initial, smallest, largest)
        if not 0 < backoff < 1:
            raise ValueError("backoff must be in 0..1")
        self._limit = float(initial)
        self._smallest = smallest
        self._largest = largest
        self._target_ns = target_ns
        self._backoff = backoff
        self._old = 0  # answers to come to what was sent before the limit shrank

    @property
    def limit(self) -> int:
        """See `Limit`."""
        return int(self._limit)

    def observe(self, latency_ns: int, in_flight: int, *, dropped: bool = False) -> None:
        """See `Limit`."""
        late = self._target_ns is not None and latency_ns > self._target_ns
        if self._old:
            self._old -= 1
        elif dropped or late:
            self._limit = max(float(self._smallest), self._limit * self._backoff)
            self._old = max(0, in_flight - 1)
        elif in_flight * 2 >= self._limit:
            self._limit = min(float(self._largest), self._limit + 1 / self._limit)


@final
class Adaptive:
    """A guard that applies a limit to one instance, of which it is told by the leases.

    Latency is the time to the first token, where there is one: the rest depends on how long the
    answer is. Errors other than those of overload say nothing about capacity and are not learnt.
    """

    __slots__ = ("_in_flight", "_limit")

    reason: Shortage = Shortage.FULL

    def __init__(self, limit: Limit) -> None:
        """`limit` is for this instance alone."""
        self._limit = limit
        self._in_flight = 0

    def opens_ns(self) -> int:
        """Always open: the limit it sets is what holds work back."""
        return 0

    def admit(self, request: "Request") -> int | None:  # noqa: ARG002 (a guard's method)
        """The number in flight with this one; None if that would be more than the limit."""
        if self._in_flight >= self._limit.limit:
            return None
        self._in_flight += 1
        return self._in_flight

    def ended(self, permit: object, lease: "Lease") -> None:
        """Learns from work that was sent, and sets the instance's limit."""
        self._in_flight -= 1
        if not isinstance(permit, int) or not lease.started_ns or lease.abandoned:
            return
        dropped = _is_overload(lease.error)
        if lease.error is not None and not dropped:
            return
        latency_ns = (lease.first_ns or lease.ended_ns) - lease.started_ns
        self._limit.observe(latency_ns, permit, dropped=dropped)
        if lease.instance.limit != self._limit.limit:
            lease.instance.limit = self._limit.limit


def _is_overload(error: PacelineError | None) -> bool:
    return error is not None and error.category in _TROUBLE


def _check(initial: int, smallest: int, largest: int) -> None:
    if not 1 <= smallest <= initial <= largest:
        raise ValueError("a limit needs 1 <= smallest <= initial <= largest")
