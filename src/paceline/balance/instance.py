"""One instance of an agent, tool or model: what it can take, and how it has been doing."""

from collections import deque
from typing import TYPE_CHECKING, Any, Final, Protocol, Self, TypedDict, Unpack, final

from paceline.balance.request import Features
from paceline.errors import InvalidInputError, Shortage

if TYPE_CHECKING:
    from collections.abc import Callable

    from paceline.balance.lease import Lease
    from paceline.balance.request import Request

__all__ = ["NEVER", "AgentInstance", "Guard", "Place"]

NEVER: Final = 1 << 62
"""A moment that does not come."""

_PLAIN: Final = Features()
_REMEMBERED: Final = 128
"""Ends of work that figures are made of."""


class Guard(Protocol):
    """Something that decides when its instance may be asked: health, a breaker, a rate, a limit.

    Guards are pure: they are told what happens and look at the clock that they were given.
    """

    @property
    def reason(self) -> Shortage:
        """What its instance is short of while it may not be asked."""
        ...

    def opens_ns(self) -> int:
        """The moment (monotonic) from which the instance may be asked: 0 at once, NEVER until
        something happens to the guard."""
        ...

    def admit(self, request: "Request") -> object | None:
        """A permit for one piece of work, or None: not now. Permits are never None."""
        ...

    def ended(self, permit: object, lease: "Lease") -> None:
        """The work is over. Called once for every permit, also if it was given back unused:
        then `lease.started_ns` is 0."""
        ...


class Place(TypedDict, total=False):
    """What is at an instance, all of it by name: `features` are what it can do, `target` is whatever
    does the work, `guards` decide when it may be asked."""

    features: Features | None
    target: object
    guards: tuple[Guard, ...]


@final
class AgentInstance:
    """One instance among those of its type, with the state that choosing goes by.

    `in_flight` and `rank` are kept by the balancer; `is_healthy`, `draining`, `weight`,
    `max_capacity` and `limit` may be set at any time and count from then on. A capacity or a weight
    of zero means that it gets nothing. What it has (`features`, `guards`) is changed by registering
    another one with its id.
    """

    __slots__ = (
        "_asked_limit",
        "_draining",
        "_is_healthy",
        "_limit",
        "_max_capacity",
        "_response_time_ms",
        "_weight",
        "agent_type",
        "features",
        "guards",
        "held_elsewhere",
        "id",
        "in_flight",
        "most",
        "note",
        "order",
        "rank",
        "recent",
        "shortage",
        "target",
        "term",
        "turn",
        "unit",
        "watcher",
    )

    def __init__(  # noqa: PLR0917 (the names and order that users of the class know)
        self,
        id: str,  # noqa: A002 (as above)
        agent_type: str,
        current_load: int = 0,
        max_capacity: int = 10,
        weight: float = 1.0,
        is_healthy: bool = True,  # noqa: FBT001, FBT002 (as above)
        response_time_ms: float = 0.0,
        **place: Unpack[Place],
    ) -> None:
        """`current_load` of `max_capacity` pieces of work at once; `weight` relative to the others.
        A load to begin with is somebody else's, and stays.

        Raises InvalidInputError for a number below zero.
        """
        if current_load < 0 or not _sound(max_capacity, weight):
            raise InvalidInputError(
                f"instance {id} of {agent_type} has a load, a capacity or a weight below zero"
            )
        self.id = id
        self.agent_type = agent_type
        self.in_flight = current_load
        self.held_elsewhere = current_load
        """Pieces of work in flight that are not the balancer's."""
        self._response_time_ms = response_time_ms
        self.features = place.get("features") or _PLAIN
        self.target = place.get("target")
        self.guards = place.get("guards", ())
        self.order = 0
        """Its place in the order of registration."""
        self.note: Any = None
        """For the strategy alone."""
        self.term: object = None
        """For its fleet: another one for each registration, and for each strategy."""
        self.shortage: Shortage | None = None
        """Why it gets nothing, as of when its fleet last looked; None: it may be chosen."""
        self.watcher: Callable[[AgentInstance], object] | None = None
        """Who is told of changes: its fleet, while it has one."""
        self._max_capacity = self._limit = max_capacity
        self._asked_limit: int | None = None
        self._weight = float(weight)
        self._is_healthy = is_healthy
        self._draining = False
        self.recent: deque[int] = deque(maxlen=_REMEMBERED)
        """How long the last pieces of work took, in nanoseconds; ~ of that where it failed."""
        self.rank = 0.0
        """What it has to do, relative to its limit and weight, and a little more the later it was
        chosen last: the least loaded has the least, among equals the least recently chosen. That is
        `in_flight * unit + turn`, and its fleet keeps it so."""
        self.unit = self.turn = 0.0
        self.most = 0
        """Its limit; plain, as it is read at every choice."""
        self.measure()

    def __repr__(self) -> str:
        return f"AgentInstance({self.id!r}, {self.agent_type!r}, {self.in_flight}/{self._limit})"

    @property
    def current_load(self) -> int:
        """Pieces of work in flight."""
        return self.in_flight

    @property
    def max_capacity(self) -> int:
        """Pieces of work that it can ever take at once."""
        return self._max_capacity

    @max_capacity.setter
    def max_capacity(self, capacity: int) -> None:
        self._check(capacity, self._weight)
        self._max_capacity = capacity
        self._bound()

    @property
    def limit(self) -> int:
        """Pieces of work that it is given at once: its capacity, or less where a lower limit was
        set, as guards do that learn how much is good for it."""
        return self._limit

    @limit.setter
    def limit(self, limit: int) -> None:
        self._asked_limit = max(0, limit)
        self._bound()

    @property
    def weight(self) -> float:
        """How much it gets relative to the others."""
        return self._weight

    @weight.setter
    def weight(self, weight: float) -> None:
        self._check(self._max_capacity, weight)
        self._weight = float(weight)
        self.changed()

    @property
    def is_healthy(self) -> bool:
        """Whether it can be asked at all."""
        return self._is_healthy

    @is_healthy.setter
    def is_healthy(self, healthy: bool) -> None:
        self._is_healthy = healthy
        self.changed()

    @property
    def draining(self) -> bool:
        """Whether it gets nothing new, while what it has goes on."""
        return self._draining

    @draining.setter
    def draining(self, draining: bool) -> None:
        self._draining = draining
        self.changed()

    @property
    def ejected(self) -> bool:
        """Whether one of its guards holds it for ill, though nobody has said that it is."""
        ill = self.shortage in {Shortage.UNHEALTHY, Shortage.CIRCUIT_OPEN}
        return ill and self._is_healthy and not self._draining

    @property
    def load_percentage(self) -> float:
        """In flight of its capacity; 100 where that is zero."""
        return 100.0 * self.in_flight / self._max_capacity if self._max_capacity else 100.0

    @property
    def available_capacity(self) -> int:
        """Of its capacity, what is not in use."""
        return max(0, self._max_capacity - self.in_flight)

    @property
    def share(self) -> float:
        """Its weight times the part of its limit that is free."""
        return self._weight * (1.0 - self.in_flight / self._limit) if self._limit else 0.0

    @property
    def room(self) -> int:
        """How much it would take now, were it asked."""
        return max(0, self._limit - self.in_flight)

    @property
    def response_time_ms(self) -> float:
        """The mean time of its last successes; without any, what it was made with."""
        times = self._times()
        return sum(times) / len(times) / 1e6 if times else self._response_time_ms

    @property
    def p95_ms(self) -> float | None:
        """Time that 95 % of its last successes took at most; None without any."""
        times = sorted(self._times())
        return times[-(-len(times) * 95 // 100) - 1] / 1e6 if times else None

    @property
    def error_rate(self) -> float | None:
        """The share of failures, 0..1, in what last ended; None before anything did."""
        ended = tuple(self.recent)
        return sum([took < 0 for took in ended]) / len(ended) if ended else None

    def changed(self) -> None:
        """Something has changed that nobody else tells of, such as one of its guards: has its fleet
        look at it again. From any thread."""
        if self.watcher is not None:
            self.watcher(self)

    # --- for the fleet

    def measure(self) -> None:
        """Ranks it anew, after a change of its limit or weight."""
        self.most = self._limit
        whole = self._limit * self._weight
        self.unit = 1.0 / whole if whole else 0.0
        self.rank = self.in_flight * self.unit + self.turn

    def copy_from(self, other: Self) -> None:
        """Becomes what another one with its name is said to be; what it has done stays."""
        self.features, self.target, self.guards = other.features, other.target, other.guards
        self._max_capacity, self._weight = other._max_capacity, other._weight
        self._asked_limit = other._asked_limit
        self._is_healthy, self._draining = other._is_healthy, other._draining
        self._bound()

    def _times(self) -> list[int]:
        return [took for took in tuple(self.recent) if took >= 0]

    def _bound(self) -> None:
        asked = self._asked_limit
        self._limit = self._max_capacity if asked is None else min(asked, self._max_capacity)
        self.changed()

    def _check(self, capacity: int, weight: float) -> None:
        if not _sound(capacity, weight):
            raise InvalidInputError(
                f"instance {self.id} of {self.agent_type} cannot have a capacity of {capacity} "
                f"and a weight of {weight:g}: both are zero or more"
            )


def _sound(capacity: int, weight: float) -> bool:
    return capacity >= 0 and 0 <= weight < float("inf")
