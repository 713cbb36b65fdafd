"""Has executions done by the instances of a fleet: each by another than before, some by two."""

import asyncio
import contextlib
from collections.abc import Callable, Collection, Sequence
from typing import Final, NoReturn, Protocol, final

import msgspec

from paceline.balance.circuit import Circuit
from paceline.balance.durations import Durations
from paceline.balance.fleet import Fleet
from paceline.balance.gate import Gate
from paceline.balance.hedging import Hedging
from paceline.balance.instance import Guard
from paceline.balance.lease import Lease
from paceline.balance.line import Line
from paceline.balance.rate import Rates
from paceline.balance.request import Request
from paceline.call import Call
from paceline.clock import Clock
from paceline.errors import (
    BudgetExceededError,
    CallCancelledError,
    Category,
    ConfigError,
    OverloadedError,
    PacelineError,
    Shortage,
)
from paceline.instances.raised import raised, timed_out
from paceline.path.ahead import be_guest
from paceline.path.job import Execution
from paceline.path.losers import Losers
from paceline.path.permit import unused

__all__ = ["FleetDispatch", "Nowhere", "Target"]

_NS: Final = 1_000_000_000
_MOST: Final = 0.95
_ITS_OWN: Final = frozenset({Category.AUTHENTICATION, Category.EXHAUSTED, Category.NOT_FOUND})
_OPENING_S: Final = 10.0
"""Waiting for the first instance to come back is better than failing, if it takes no longer."""


class Target(Protocol):
    """What does the work of an instance."""

    async def execute(self, call: Call, lease: Lease) -> object:
        """The value. Raises what went wrong."""
        ...


@final
class FleetDispatch:
    """Gives the executions of one agent to the instances of its fleet.

    Limits are learnt where stopping early does no harm, and the limit of the agent is their
    ceiling. With `hedging` a read that takes long is given to a second instance: the first answer
    counts, the other one is cancelled, and keeps its places until it has ended.
    """

    __slots__ = (
        "__weakref__",
        "_clock",
        "_durations",
        "_fleet",
        "_hedging",
        "_hide",
        "_line",
        "_losers",
        "_request_of",
        "_shortest_s",
    )

    def __init__(
        self,
        fleet: Fleet,
        line: Line,
        *,
        clock: Clock,
        request_of: Callable[[Call], Request],
        shortest_s: float,
        durations: Durations,
        hedging: Hedging | None = None,
        hide: Callable[[str], str] = str,
    ) -> None:
        """`line` is the queue before the `fleet`. `request_of` says what choosing an instance goes
        by. Learnt limits are at least `shortest_s` seconds. `hide` masks secrets in messages."""
        self._fleet = fleet
        self._line = line
        self._clock = clock
        self._request_of = request_of
        self._shortest_s = shortest_s
        self._durations = durations
        self._hedging = hedging
        self._hide = hide
        self._losers = Losers()

    async def enter(self, execution: Execution, gates: Sequence[Gate]) -> Lease:
        """A place at an instance, if possible at one that it was not given to yet."""
        caller = execution.call.caller
        if self in execution.outer and not self._fleet.room():
            raise OverloadedError(
                f"{execution.call.name} calls itself, and all its instances are in use: it would "
                "wait for what its own caller holds",
                next_step="Give its instances more capacity, or call less deep.",
            )
        if execution.speculative:
            return self._enter_as_guest(execution, gates)
        while True:
            deadline_ns = execution.deadline_ns
            try:
                lease = await self._line.lease(
                    self._request(execution),
                    execution.priority,
                    tenant=caller.tenant or caller.user or "",
                    timeout_s=self._patience_s(deadline_ns),
                    opening_s=_OPENING_S,
                    outer=gates,
                    waiting=execution.wait,
                )
            except OverloadedError:
                if execution.deadline_ns == deadline_ns:
                    raise
            else:
                return _given(execution, lease)
            # Somebody with more time has joined meanwhile.

    def _enter_as_guest(self, execution: Execution, gates: Sequence[Gate]) -> Lease:
        """A place that is free now, at an instance that is not being tried, and at which nothing is
        used up that others would have to wait for."""
        request = self._request(execution)
        avoided = {
            i.id for i in self._fleet.instances.values() if not all(map(_has_guests, i.guards))
        }
        if avoided:
            request = msgspec.structs.replace(request, avoid=frozenset(avoided))
        try:
            lease = self._line.lease_free(request, execution, gates)
        except OverloadedError as exc:
            raise _refused(execution, exc.message) from exc
        if lease.instance.id in avoided:
            self._line.gone(execution)
            for gate in gates:
                gate.leave()
            unused(lease)
            raise _refused(
                execution,
                f"{lease.instance.id} is yet to show that it is back, or has a limit of rate",
            )
        be_guest(execution, gates)
        return _given(execution, lease)

    def gone(self, execution: Execution) -> None:
        """It is no guest any more."""
        self._line.gone(execution)

    def elsewhere(self, execution: Execution, error: PacelineError) -> bool:
        """Credentials, credit and addresses are an instance's own: what one refuses for them,
        another may do."""
        ours = isinstance(error, (OverloadedError, BudgetExceededError))
        if error.category not in _ITS_OWN or error.may_have_started or ours:
            return False
        return self._untried(execution, self._request(execution))

    async def execute(
        self, call: Call, execution: Execution, lease: Lease, limit_s: float
    ) -> object:
        """The value, from whichever instance is first. Its lease is over then."""
        repeatable = call.plan.effect.repeatable
        # A rare one that takes long by nature is stopped once, and then has all the time.
        if repeatable and execution.attempts == 1 and not execution.speculative:
            limit_s = self._durations.limit_s(shortest=self._shortest_s, longest=limit_s)
        hedged = repeatable and not execution.speculative
        delay_s = self._hedging.delay_s() if self._hedging is not None and hedged else None
        if delay_s is None or delay_s >= limit_s:
            return await self._at(call, execution, lease, limit_s)

        def begin(lease: Lease) -> asyncio.Task[object]:
            task = asyncio.create_task(self._at(call, execution, lease, limit_s))
            task.add_done_callback(lambda _: unused(lease))  # it may be cancelled before it began
            return task

        return await self._hedged(execution, begin, lease, delay_s)

    async def close(self) -> None:
        """Waits until what was cancelled because another was first has ended, ten seconds at
        most."""
        await self._losers.close()

    async def _hedged(
        self,
        execution: Execution,
        begin: "Callable[[Lease], asyncio.Task[object]]",
        lease: Lease,
        delay_s: float,
    ) -> object:
        asked = {begin(lease): lease}
        own: Gate | None = None
        try:
            await asyncio.wait(asked, timeout=delay_s)
            (first,) = asked
            second = None if first.done() else self._second(execution)
            if second is not None:
                own = execution.job.gate
                asked[begin(second)] = second
            winner = await _first_to_succeed(asked) or first
            execution.instance = asked[winner].instance.id
            return winner.result()  # or raises
        except asyncio.CancelledError:
            for task in asked:
                task.cancel()
            await asyncio.wait(asked)
            raise
        finally:
            self._losers.add(asked, own.leave if own is not None else _nothing)

    def _patience_s(self, deadline_ns: int | None) -> float | None:
        """How long to wait for a place: work for which too little time is left then would only take
        it away from work that can be done."""
        if deadline_ns is None:
            return None
        left_s = (deadline_ns - self._clock.monotonic_ns()) / _NS
        return max(0.0, left_s - (self._durations.quantile(_MOST) or 0.0))

    def _second(self, execution: Execution) -> Lease | None:
        """A place at another instance and, if it has one, in the agent's own gate; None where there
        is none, or the budget does not have it."""
        request, own = self._request(execution), execution.job.gate
        if not self._untried(execution, request) or self._hedging is None:
            return None
        if own is not None and not own.try_enter():
            return None
        if self._hedging.spend():
            lease = None
            with contextlib.suppress(OverloadedError):
                lease = self._fleet.lease(request)
            if lease is not None and lease.instance.id not in execution.tried:
                return _given(execution, lease)
            if lease is not None:
                unused(lease)
            self._hedging.refund()
        if own is not None:
            own.leave()
        return None

    def _untried(self, execution: Execution, request: Request) -> bool:
        """Whether there is an instance for it that it was not given to."""
        return any(i.id not in execution.tried for i in self._fleet.candidates(request.needs))

    def _is_late(self, start_ns: int, until_ns: int, deadline_ns: int | None) -> bool:
        """Whether what is cancelled was to have ended by now. Callers who left less time than such
        work may well take say nothing of the instance."""
        now_ns = self._clock.monotonic_ns()
        if now_ns >= until_ns:
            return True
        long_ns = self._durations.suspect_s(self._shortest_s) * _NS
        return deadline_ns is not None and now_ns >= deadline_ns and now_ns - start_ns >= long_ns

    def _request(self, execution: Execution) -> Request:
        request = self._request_of(execution.call)
        if not execution.tried:
            return request
        return msgspec.structs.replace(request, avoid=execution.tried)

    async def _at(self, call: Call, execution: Execution, lease: Lease, limit_s: float) -> object:
        """The value from one instance, which is judged by how that went."""
        target: Target = lease.instance.target  # type: ignore[assignment]
        start_ns = self._clock.monotonic_ns()
        until_ns = start_ns + round(limit_s * _NS)
        shown = msgspec.structs.replace(call, deadline_ns=_earlier(call.deadline_ns, until_ns))
        error: PacelineError | None = None
        limit = asyncio.timeout(limit_s)
        try:
            async with limit:
                value = await target.execute(shown, lease)
        except asyncio.CancelledError:
            late = self._is_late(start_ns, until_ns, execution.deadline_ns)
            error = timed_out(call.name, limit_s) if late else CallCancelledError("cancelled")
            raise
        except Exception as exc:
            hit = limit.expired() and isinstance(exc, TimeoutError)
            if hit and not execution.speculative:
                self._durations.stopped()
            error = timed_out(call.name, limit_s) if hit else raised(call.name, exc)
            # One instance may repeat the secrets of another.
            error.message = self._hide(error.message)
            error.args = (error.message, *error.args[1:])
            if error is exc:
                raise
            raise error from exc
        else:
            self._durations.observe((self._clock.monotonic_ns() - start_ns) / _NS)
            return value
        finally:
            if not lease.ended_ns:  # it may have expired
                wrong = error is not None and execution.speculative  # it may be the guess
                lease.release(error, abandoned=wrong or isinstance(error, CallCancelledError))


@final
class Nowhere:
    """In place of a FleetDispatch where no instance of an agent can be used: refuses its calls."""

    __slots__ = ("_name", "_trouble")

    def __init__(self, name: str, trouble: ConfigError) -> None:
        """`trouble` is what is wrong with an instance of the agent."""
        self._name = name
        self._trouble = trouble

    async def enter(self, execution: Execution, gates: Sequence[Gate]) -> NoReturn:  # noqa: ARG002 (a Dispatch's)
        """Raises ConfigError, as trouble of the agent and not of the request: another agent or model
        may be asked instead."""
        raise ConfigError(
            f"{self._name} cannot be asked: {self._trouble.message}",
            next_step=self._trouble.next_step,
            category=Category.EXECUTION,
        )

    def elsewhere(self, execution: Execution, error: PacelineError) -> bool:  # noqa: ARG002 (as above)
        """No."""
        return False

    def gone(self, execution: Execution) -> None:
        """Nothing enters."""

    async def execute(
        self,
        call: Call,  # noqa: ARG002 (as above)
        execution: Execution,  # noqa: ARG002
        lease: Lease,  # noqa: ARG002
        limit_s: float,  # noqa: ARG002
    ) -> NoReturn:
        """Never happens: nothing enters."""
        raise self._trouble


async def _first_to_succeed(
    asked: Collection[asyncio.Task[object]],
) -> asyncio.Task[object] | None:
    """None if all have failed."""
    waiting = set(asked)
    while waiting:
        done, waiting = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            if task.exception() is None:
                return task
    return None


def _nothing() -> None: ...


def _has_guests(guard: Guard) -> bool:
    """Whether its instance is not being tried, and has enough for all who come."""
    if isinstance(guard, Rates):
        return not guard.limited
    return not isinstance(guard, Circuit) or guard.closed


def _refused(execution: Execution, why: str) -> OverloadedError:
    return OverloadedError(
        f"{execution.call.name} was not run ahead: {why}", reason=Shortage.SPECULATIVE
    )


def _given(execution: Execution, lease: Lease) -> Lease:
    execution.instance = lease.instance.id
    execution.tried |= {lease.instance.id}
    return lease


def _earlier(deadline_ns: int | None, until_ns: int) -> int:
    return until_ns if deadline_ns is None else min(deadline_ns, until_ns)
