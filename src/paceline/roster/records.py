"""What the roster holds: wishes of operators, and how instances stand."""

from enum import StrEnum

import msgspec

__all__ = ["State", "Status", "Wish", "WishKind"]


class WishKind(StrEnum):
    """What an operator can want of an instance."""

    DRAINED = "drained"
    """It gets nothing new, so that it can be taken down."""
    EJECTED = "ejected"
    """It gets nothing new, because it does harm."""


class Wish(msgspec.Struct, frozen=True, kw_only=True):
    """What somebody (`by`) wants of an instance, since and until moments of the wall clock;
    `until_ns` None is until it is withdrawn. It holds for every process with such an instance."""

    agent: str
    instance: str
    kind: WishKind
    by: str
    at_ns: int
    until_ns: int | None = None


class State(StrEnum):
    """Whether an instance can be given work, and if not, why."""

    UP = "up"
    FULL = "full"
    DRAINING = "draining"
    DRAINED = "drained"
    """Draining, and what it had is done."""
    EJECTED = "ejected"
    UNHEALTHY = "unhealthy"
    CIRCUIT_OPEN = "circuit open"
    RATE_LIMIT = "rate limit"
    NO_CAPACITY = "no capacity"


class Status(msgspec.Struct, frozen=True, kw_only=True):
    """One instance as one process sees it.

    `limit` of its `capacity` may be in flight now. `p95_ms` and `error_rate` (0..1) are of its last
    ends, `circuit` is the state of its circuit breaker; None without any. `opens_ns` is the moment
    of the wall clock at which it is given work again by itself, None where there is none.
    `process` is set by the roster.
    """

    agent: str
    instance: str
    state: State
    in_flight: int
    capacity: int
    limit: int
    p95_ms: float | None = None
    error_rate: float | None = None
    circuit: str | None = None
    opens_ns: int | None = None
    process: str = ""
