"""What a call runs, and one execution of it in the making."""

from collections.abc import Awaitable, Callable, Coroutine, Sequence
from typing import TYPE_CHECKING, Any, Protocol, final

import msgspec

from paceline.balance.circuit import Circuit
from paceline.balance.fallback import STALE, Fallback
from paceline.balance.gate import Gate, Ticket
from paceline.balance.lease import Lease
from paceline.balance.retry import RetryPolicy
from paceline.cache.hints import Hints
from paceline.call import Call, Outcome, Priority
from paceline.errors import CodecError, PacelineError
from paceline.path.identity import Identified

if TYPE_CHECKING:
    from paceline.cache.snapshot import Snapshot
    from paceline.path.ahead import Guess
    from paceline.usage import Meter

__all__ = ["Dispatch", "Execution", "Held", "Job", "place"]


class Dispatch(Protocol):
    """Has executions done by one of several instances."""

    async def enter(self, execution: "Execution", gates: Sequence[Gate]) -> Lease:
        """A place at the instance that is best for it and in these gates, all in one moment; the
        caller must leave the gates. Raises OverloadedError if there is none."""
        ...

    def elsewhere(self, execution: "Execution", error: PacelineError) -> bool:
        """Whether what failed so at its instance may well be done by one that was not asked yet,
        though trying again where it was makes no sense."""
        ...

    async def execute(
        self, call: Call, execution: "Execution", lease: Lease, limit_s: float
    ) -> object:
        """The value; the lease is over then, or that of a loser later. `call` as its agent may see
        it; at most so many seconds at an instance."""
        ...

    def gone(self, execution: "Execution") -> None:
        """An execution ahead is over: it was a guest, which gives way to who waits."""
        ...


class Job(msgspec.Struct, frozen=True):
    """What there is to know of the thing a call runs: how to run it, and what its results are.

    `version` changes when results of before must not be found any more. `result_type` is what
    stored results are read back as (see `paceline.codec`). `gate` is its own limit, `workers`
    that of the threads it runs in. `trusted` is for what comes with Paceline: its errors say
    truthfully whether anything was started, and it keeps apart whose call it is. `hints` reads
    what a result says of its own caching. `circuit` leaves it alone while it keeps failing.
    `retry` is when to try again, if not as all do.
    `dispatch` has it done by instances, in place of `execute`. `heeds` says that it ends soon once
    it is cancelled, and sets no context variable: a call that nobody can join is then run in its
    caller's own task, which saves half of what the path costs. `fallback` is what answers in turn
    if it fails; with `stale_if_error_s` it says how long results are kept for that, where the plan
    does not. Executed ahead, it is to be there for `lasting_s` seconds: what would end sooner is
    made anew, and served meanwhile.
    """

    execute: Callable[[Call], Awaitable[object]]
    version: str = ""
    result_type: Any = None
    gate: Gate | None = None
    workers: Gate | None = None
    timeout_s: float = 60.0
    trusted: bool = False
    hints: Callable[[object], Hints] | None = None
    circuit: Circuit | None = None
    dispatch: Dispatch | None = None
    heeds: bool = False
    fallback: tuple[Fallback, ...] = (STALE,)
    retry: RetryPolicy | None = None
    stale_if_error_s: float | None = None
    lasting_s: float = 0.0


Held = frozenset[Gate | Dispatch]


@final
class Execution(msgspec.Struct, eq=False):
    """One execution in the making: how far it has come, and what its callers share."""

    _run: "Callable[[Execution], Coroutine[Any, Any, Outcome]]"
    call: Call
    job: Job
    identified: Identified | None
    """What its result is kept under; None where it is not kept."""
    outer: Held
    """The gates in which the calls around this one have places, which it uses, and the fleets at
    whose instances they are."""
    deadline_ns: int | None
    """The latest of its callers' deadlines; None when one of them has none."""
    priority: Priority
    """The highest of its callers'."""
    refresh: bool = False
    """Whether it is to replace a result that is still there."""
    guess: "Guess | None" = None
    """What is particular to it if it was begun ahead."""
    entered: Sequence[Gate] = ()
    """The gates it has entered itself, while it runs."""
    ticket: Ticket | None = None
    needless: bool = False
    """Whether nothing was executed, because another process does it or has done it."""
    provisional: bool = False
    """Whether something in its course was answered by a fallback, and may be another next time."""
    attempts: int = 0
    queue_ns: int = 0
    execute_ns: int = 0
    queued_ns: int | None = None
    started_ns: int | None = None
    instance: str = ""
    """Where it was executed last, if at one of several instances."""
    tried: frozenset[str] = frozenset()
    """The instances it was given to."""
    meter: "Meter | None" = None
    """Adds up what its model calls use; None before it runs."""
    snapshot: "Snapshot | None" = None
    """The value at the moment it was made, for those who joined."""

    def __call__(self) -> Coroutine[Any, Any, Outcome]:
        return self._run(self)

    @property
    def place(self) -> object:
        """What executions have in common that are one."""
        return place(self.call, self.identified, self.outer)

    @property
    def cost_usd(self) -> float | None:
        """What its value cost: what was measured, else the price by its plan."""
        spent = self.meter.spent if self.meter is not None else None
        if spent is not None and spent.cost_usd is not None:
            return spent.cost_usd
        return self.call.plan.cost_usd or None

    @property
    def held(self) -> Held:
        """The places that calls made in its course use: those around it and, while it runs, its own,
        but for its thread, which they do not run in."""
        if self.started_ns is None:
            return self.outer
        job = self.job
        places = [gate for gate in self.entered if gate is not job.workers]
        return self.outer.union(places, () if job.dispatch is None else (job.dispatch,))

    @property
    def speculative(self) -> bool:
        """Whether nobody has asked for it until now, nor for what it is a part of."""
        guess = self.guess
        if guess is None or self.priority is not Priority.SPECULATIVE:
            return False
        return guess.around is None or guess.around.speculative

    @property
    def failed(self) -> bool:
        """Whether it left something undone because nobody had asked for it."""
        return self.guess is not None and self.guess.failed

    def ran_ns(self, now_ns: int) -> int:
        """How long it has run."""
        return self.execute_ns + (0 if self.started_ns is None else now_ns - self.started_ns)

    def give_way(self) -> None:
        """Ends what nobody has asked for."""
        if self.guess is not None:
            self.guess.give_way()

    def copy(self) -> object:
        """The value for one who joined. Raises CodecError for one that cannot be copied."""
        if self.snapshot is None:
            raise CodecError(f"a result of {self.call.name} cannot be copied")
        return self.snapshot.thaw(self.job.result_type)

    def wait(self, ticket: Ticket) -> None:
        """It has to wait for a place; to be told."""
        self.ticket = ticket

    def join(self, deadline_ns: int | None, priority: Priority) -> None:
        """Lets it go on until this deadline too, and go before what is less urgent than that."""
        if priority > self.priority:
            self.priority = priority
            if self.ticket is not None:
                self.ticket.raise_to(priority)
        if self.deadline_ns is not None:
            self.deadline_ns = None if deadline_ns is None else max(self.deadline_ns, deadline_ns)


def place(call: Call, identified: Identified | None, outer: Held) -> object:
    """What executions have to have in common to be one.

    Calls that use different places of those around them do not join: one could wait for a
    place that the other's parent holds. Nor do sessions of one world: the one that executes may
    write meanwhile.
    """
    if identified is None:
        return call.id
    session = identified.seal.session if identified.seal is not None else None
    return identified.key, outer, session
