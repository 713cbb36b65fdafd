"""One piece of work at an instance, from the choice of the instance to its end."""

from collections.abc import Awaitable, Callable, Generator
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Protocol, final

from paceline.balance.circuit import counts
from paceline.call import Tokens
from paceline.errors import AgentError, Category, PacelineError, UsageError

if TYPE_CHECKING:
    from paceline.balance.instance import AgentInstance, Guard
    from paceline.balance.request import Request

__all__ = ["Lease", "Leasing", "Lender"]

_KINDS: Final = ((TimeoutError, Category.TIMEOUT), (OSError, Category.NETWORK))


class Lender(Protocol):
    """Whose leases they are: a fleet."""

    def answered(self, lease: "Lease", /) -> None:
        """The first token of its answer has come."""
        ...

    def take_back(
        self,
        lease: "Lease",
        error: PacelineError | None,
        abandoned: bool,  # noqa: FBT001 (positional arguments cost less)
        /,
    ) -> None:
        """The work is over. Raises UsageError if it was before."""
        ...

    def lost(self, lease: "Lease", /) -> None:
        """Nobody holds it any more, and it has not ended. Called from anywhere at any moment."""
        ...


@final
class Lease:
    """One held place of an instance.

    Ends once: by `release`, or when it has expired, or when nobody holds it any more. Moments are
    nanoseconds of a monotonic clock, 0 before they come. `error` is None if the work succeeded;
    `abandoned` work ended without saying anything of its instance, as when its caller was
    cancelled. `tokens` are those that the answer reported. `note` is for the strategy alone.
    """

    __slots__ = (
        "__weakref__",
        "_lender",
        "abandoned",
        "ended_ns",
        "error",
        "expired",
        "first_ns",
        "instance",
        "note",
        "permits",
        "request",
        "started_ns",
        "term",
        "tokens",
    )

    def __init__(self, lender: Lender, instance: "AgentInstance", request: "Request") -> None:
        """A fleet makes them."""
        self._lender = lender
        self.instance = instance
        self.request = request
        self.started_ns = 0
        self.first_ns = 0
        self.ended_ns = 0
        self.error: PacelineError | None = None
        self.abandoned = False
        self.expired = False
        self.tokens: Tokens | None = None
        self.note: Any = None
        self.permits: tuple[tuple[Guard, object], ...] = ()
        """For the fleet: what the guards of the instance gave."""
        self.term = instance.term
        """For the fleet: which registration of the instance, and strategy, it was sent in."""

    def __del__(self) -> None:
        if self.started_ns and not self.ended_ns:
            self._lender.lost(self)

    @property
    def took_ns(self) -> int:
        """How long the work took; 0 before its end."""
        return self.ended_ns - self.started_ns if self.ended_ns else 0

    def first_token(self) -> None:
        """The first part of the answer has come. Further calls do nothing."""
        if not self.first_ns and not self.ended_ns:
            self._lender.answered(self)

    def used(self, tokens: Tokens) -> None:
        """The answer said how many tokens it took."""
        self.tokens = tokens

    def release(self, error: PacelineError | None = None, *, abandoned: bool = False) -> None:
        """The work is over: it succeeded, or there was an error, or it says nothing.

        Raises UsageError if it was over before. From any thread.
        """
        self._lender.take_back(self, error, abandoned)


@final
class Leasing:
    """A lease that is asked for: enter it for the instance, or await it for the Lease. ::

        async with balancer.lease("translator") as instance: ...

        lease = await balancer.lease("translator")
        try: ...
        finally: lease.release()

    Entered, it is released in the end. An error counts against the instance if it is one of who
    was asked (network, time-out, rate limit, unavailable, or the work itself), and a cancelled
    caller says nothing of it.
    """

    __slots__ = ("_lease", "_wait")

    def __init__(self, wait: Callable[[], Awaitable[Lease]]) -> None:
        """`wait` asks for a lease."""
        self._wait = wait
        self._lease: Lease | None = None

    @property
    def lease(self) -> Lease:
        """The lease, once it is entered. Raises UsageError before."""
        if self._lease is None:
            raise UsageError("there is no lease yet", next_step="Use it inside `async with`.")
        return self._lease

    def __await__(self) -> Generator[Any, Any, Lease]:
        return self._wait().__await__()

    async def __aenter__(self) -> "AgentInstance":
        if self._lease is not None:
            raise UsageError("this lease was entered before", next_step="Ask for another one.")
        self._lease = await self._wait()
        return self._lease.instance

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        lease = self.lease
        if lease.ended_ns:  # it expired, or was released by hand with more to say
            return
        failure = _failure(error)
        lease.release(failure, abandoned=error is not None and failure is None)


def _failure(error: BaseException | None) -> PacelineError | None:
    """What an exception says of who was asked, if anything."""
    if isinstance(error, PacelineError):
        return error if counts(error) else None
    if not isinstance(error, Exception):  # nothing, or the caller was cancelled
        return None
    kinds = (category for kind, category in _KINDS if isinstance(error, kind))
    failure = AgentError(
        f"the work ended with {type(error).__name__}",
        category=next(kinds, Category.EXECUTION),
        may_have_started=True,
    )
    failure.__cause__ = error
    return failure
