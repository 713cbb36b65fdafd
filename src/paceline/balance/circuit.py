"""The circuit breaker of an agent, tool or instance: what keeps failing is left alone for a while.

A breaker (`paceline.breaker`) with what is particular to calls: which errors say something about the
other side, how a refusal reads, and what is shown of it.
"""

import random
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Final, cast, final

import msgspec

from paceline.breaker import Breaker, BreakerState
from paceline.clock import Clock
from paceline.errors import (
    BudgetExceededError,
    Category,
    OverloadedError,
    PacelineError,
    Shortage,
)

if TYPE_CHECKING:
    from paceline.balance.lease import Lease
    from paceline.balance.request import Request

__all__ = [
    "Circuit",
    "CircuitPolicy",
    "CircuitStatus",
    "counts",
    "counts_at_instance",
    "recovery_pause_s",
]

_NS: Final = 1e9
_SOON_NS: Final = 1_000_000_000
_SERVICE: Final = frozenset(
    {
        Category.NETWORK,
        Category.TIMEOUT,
        Category.RATE_LIMIT,
        Category.UNAVAILABLE,
        Category.EXECUTION,
    }
)
_ITS_OWN: Final = frozenset({Category.AUTHENTICATION, Category.EXHAUSTED})


def counts(error: PacelineError) -> bool:
    """Whether an error says something of who was asked: not of the arguments, a policy, missing
    rights, a cancelled caller, or our own limits."""
    return error.category in _SERVICE


def counts_at_instance(error: PacelineError) -> bool:
    """The same of an error of one of several instances: its credentials and its credit are its own,
    so that another one may well do what it refuses."""
    ours = isinstance(error, (OverloadedError, BudgetExceededError))
    return counts(error) or (error.category in _ITS_OWN and not ours)


class CircuitPolicy(msgspec.Struct, frozen=True):
    """After `failures` in a row it opens for `wait_s` seconds, then for twice as long each time
    up to `longest_wait_s`, until it was closed for a minute."""

    failures: int = 7
    wait_s: float = 5.0
    longest_wait_s: float = 120.0


class CircuitStatus(msgspec.Struct, frozen=True):
    """What there is to know of a circuit at a moment.

    `failures` are those in a row; `wait_s` is the length of the present or last wait and
    `remaining_s` what is left of it; `opened_at_ns` is a wall time, None if it never opened;
    `opened` and `refused` count openings and calls that were turned away; `category` is of the
    last failure.
    """

    state: BreakerState
    failures: int
    wait_s: float
    remaining_s: float
    opened_at_ns: int | None
    opened: int
    refused: int
    category: Category | None


@final
class Circuit:
    """Guards one agent, tool or instance.

    For instances it is a `Guard`; for what has none, `enter` and `leave` are the same with words.
    Half-open admits exactly one call.
    """

    __slots__ = (
        "_breaker",
        "_category",
        "_clock",
        "_failures",
        "_opened",
        "_opened_at_ns",
        "_refused",
        "_wait_ns",
        "name",
        "standing",
    )

    reason: Shortage = Shortage.CIRCUIT_OPEN
    """What its instance is short of while it is open."""

    def __init__(
        self,
        name: str,
        clock: Clock,
        policy: CircuitPolicy | None = None,
        *,
        rng: random.Random | None = None,
    ) -> None:
        """`name` is how errors call what is guarded. With `rng` each wait is a random part of it,
        at least half, so that many do not try at one moment."""
        self.name = name
        self._clock = clock
        policy = policy or CircuitPolicy()
        self._breaker = Breaker(
            clock,
            failures=policy.failures,
            wait_s=policy.wait_s,
            longest_wait_s=policy.longest_wait_s,
            dice=rng,
        )
        self._failures = 0
        self._category: Category | None = None
        self._opened = 0
        self._opened_at_ns: int | None = None
        self._refused = 0
        self._wait_ns = 0
        self.standing = self._breaker.admit()
        """The permit that all have while nothing is wrong, so that nobody need ask for one, nor tell
        of a success; 0 else."""

    @property
    def status(self) -> CircuitStatus:
        """As of now."""
        return CircuitStatus(
            state=self._breaker.state,
            failures=self._failures,
            wait_s=self._wait_ns / _NS,
            remaining_s=self._breaker.remaining_ns() / _NS,
            opened_at_ns=self._opened_at_ns,
            opened=self._opened,
            refused=self._refused,
            category=self._category,
        )

    @property
    def closed(self) -> bool:
        """Whether it admits all; else what is executed is a try whether it is back."""
        return self._breaker.state is BreakerState.CLOSED

    # -- for what has no instances ---------------------------------------------------------------

    def enter(self) -> int:
        """A permit for one execution. Raises OverloadedError while it is to be left alone."""
        permit = self._breaker.admit()
        if permit:
            return permit
        self._refused += 1
        raise self.refusal()

    def refusal(self) -> OverloadedError:
        """The error for what is not executed while it is to be left alone."""
        wait_s = self._breaker.remaining_ns() / _NS
        return OverloadedError(
            f"{self.name} is left alone: {self._failures} executions in a row failed, the last "
            f"with {self._category}",
            reason=Shortage.CIRCUIT_OPEN,
            category=Category.UNAVAILABLE,
            next_step=f"It is tried again in {wait_s:.1f} s; its own errors say what fails."
            if wait_s
            else "It is being tried by another call; try again once that has ended.",
            retry_after_s=wait_s or None,
        )

    def leave(self, permit: int, error: PacelineError | None) -> None:
        """The execution is over. Called once for every permit."""
        self._left(permit, error, counted=counts)

    def _left(
        self,
        permit: int,
        error: PacelineError | None,
        *,
        counted: Callable[[PacelineError], bool],
    ) -> None:
        if error is None:
            self._failures = 0
            self._breaker.succeeded(permit)
        elif counted(error):
            self._failed(permit, error.category)
        else:
            self._breaker.abandoned(permit)
        self.standing = self._breaker.admit() if self._breaker.at_rest else 0

    # -- as a guard of an instance ---------------------------------------------------------------

    def opens_ns(self) -> int:
        """When it may be asked. While another call tries whether it is back nobody knows: in a
        second, or when it has tried for longer than that, in as long again."""
        if self._breaker.admits:
            return 0
        left_ns = self._breaker.remaining_ns()
        if self._breaker.state is BreakerState.HALF_OPEN:
            left_ns = min(left_ns, max(_SOON_NS, self._wait_ns - left_ns))
        return self._clock.monotonic_ns() + left_ns

    def admit(self, request: "Request") -> int | None:  # noqa: ARG002 (a Guard's)
        """A permit, or None."""
        return self._breaker.admit() or None

    def ended(self, permit: object, lease: "Lease") -> None:
        """Learns from how the work ended."""
        if lease.abandoned or not lease.started_ns:
            self._breaker.abandoned(cast("int", permit))
        else:
            self._left(cast("int", permit), lease.error, counted=counts_at_instance)

    def _failed(self, permit: int, category: Category) -> None:
        before = self._breaker.state
        self._failures += 1
        self._category = category
        self._breaker.failed(permit)
        if self._breaker.state is BreakerState.OPEN and before is not BreakerState.OPEN:
            self._opened += 1
            self._opened_at_ns = self._clock.wall_ns()
            self._wait_ns = self._breaker.remaining_ns()


def recovery_pause_s(circuits: Iterable[CircuitStatus], *, most: int = 3) -> float | None:
    """How long an agent that needs several of these had better pause: until the first of them is
    tried again, once `most` or more are open. None: go on."""
    waits = [c.remaining_s for c in circuits if c.state is BreakerState.OPEN]
    return min(waits) if len(waits) >= most else None
