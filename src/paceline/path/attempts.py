"""Executing: places, time limits, and trying again where that makes sense."""

import asyncio
import logging
import random
from collections.abc import Coroutine, Sequence
from typing import Any, Final, final

import msgspec

from paceline.balance.gate import Gate, enter_all, try_enter_all
from paceline.balance.lease import Lease
from paceline.balance.retry import RetryBudget, RetryPolicy
from paceline.call import Call, Caller, EffectKind, current_call
from paceline.clock import Clock
from paceline.errors import (
    CallCancelledError,
    CallTimeoutError,
    OverloadedError,
    PacelineError,
    Shortage,
)
from paceline.instances.raised import raised, timed_out
from paceline.path.ahead import enter_as_guest, leave_as_guest
from paceline.path.identity import Identity
from paceline.path.job import Execution
from paceline.path.limit import Limit
from paceline.path.paying import Paying
from paceline.path.permit import Permit
from paceline.usage import current_meter

__all__ = ["Attempts", "left_s"]

_log = logging.getLogger("paceline")
_NS: Final = 1_000_000_000
# Asking an enum for a member takes longer than comparing with it.
_WRITE: Final = EffectKind.WRITE


@final
class Attempts:
    """Executes what is to be executed, until it succeeds or trying again makes no sense.

    `identity` is told of every call before it runs and when it has ended: what it writes may be
    different from then on.
    """

    def __init__(
        self,
        *,
        clock: Clock,
        gate: Gate,
        retry: RetryPolicy,
        rng: random.Random,
        identity: Identity,
        paying: Paying | None = None,
        budget: RetryBudget | None = None,
    ) -> None:
        """`budget` is for the retries of all calls together."""
        self._clock = clock
        self._now_ns = clock.monotonic_ns
        self._gate = gate
        self._alone = (gate,)
        self._retry = retry
        self._budget = budget or RetryBudget()
        self._rng = rng
        self._identity = identity
        self._paying = paying or Paying(clock)
        self._running: dict[str, Execution] = {}

    def running(self, call_id: str | None) -> Execution | None:
        """The execution of this call, while it lasts."""
        return self._running.get(call_id) if call_id is not None else None

    def taint(self, call: Call) -> None:
        """What is made in the course of which this call was made is not to be kept: the call was
        answered by a fallback, or by something that was."""
        around = self.running(call.parent_id)
        while around is not None and not around.provisional:
            around.provisional = True
            around = self.running(around.call.parent_id)

    def refusal(self, call: Call) -> PacelineError | None:
        """Why nothing is executed for this caller now; None if it would be."""
        return self._paying.spending.refusal(call)

    async def run(self, execution: Execution, limit: Limit) -> tuple[object, PacelineError | None]:
        """The value, or why there is none. `limit` is that of all that is done in this task."""
        value, error = await self.first(execution, limit)
        return (value, None) if error is None else await self.others(execution, limit, error)

    def first(
        self, execution: Execution, limit: Limit
    ) -> Coroutine[Any, Any, tuple[object, PacelineError | None]]:
        """`run`, but for an error of the first attempt: then go on with `others`."""
        if execution.guess is None:
            self._budget.deposit()
        execution.meter = self._paying.meter(execution.call)
        return self._attempt(execution, limit)

    async def others(
        self, execution: Execution, limit: Limit, error: PacelineError
    ) -> tuple[object, PacelineError | None]:
        """The value, or why there is none after all, of the attempts after the one with this error."""
        refused = before = 0
        failed: PacelineError | None = None
        while True:
            executed = execution.attempts > before
            before = execution.attempts
            refused += not executed
            failed = error if executed else failed
            if execution.guess is not None and (execution.speculative or _never_waits(error)):
                execution.guess.fail()
                return None, failed or error
            pause_s = self._pause_s(execution, error, refused=refused, executed=executed)
            if pause_s is None:
                # That it was left alone in the end says less than why.
                return None, failed or error
            _log.info(
                "%s failed (%s), next try in %.2f s", execution.call.name, error.category, pause_s
            )
            await asyncio.sleep(pause_s)
            value, again = await self._attempt(execution, limit)
            if again is None:
                return value, None
            error = again

    def _pause_s(
        self, execution: Execution, error: PacelineError, *, refused: int, executed: bool
    ) -> float | None:
        """How long to wait before the next try, in seconds; None if there is to be none. `refused`
        of them came to nothing; the last one was `executed`, or did."""
        job = execution.job
        pause_s = (job.retry or self._retry).pause_s(
            error,
            execution.call.plan.effect,
            attempt=execution.attempts + refused,
            remaining_s=left_s(self._clock, execution.deadline_ns),
            rng=self._rng,
        )
        if pause_s is None and executed and job.dispatch is not None:
            pause_s = 0.0 if job.dispatch.elsewhere(execution, error) else None
        if pause_s is None or (executed and not self._budget.spend()):
            return None
        return pause_s

    async def _attempt(
        self, execution: Execution, limit: Limit
    ) -> tuple[object, PacelineError | None]:
        """One execution, from waiting for places to giving them back."""
        call, job = execution.call, execution.job
        plan, entered, lease = call.plan, self._gates(execution), None
        began_ns = self._now_ns()
        if job.dispatch is not None or execution.guess is not None or not try_enter_all(entered):
            try:
                lease = await self._wait(execution, entered, began_ns)
            except PacelineError as exc:
                return None, exc
            began_ns = self._now_ns()
        try:  # not before it waits: those before it spend, or fail, meanwhile
            permit = Permit(execution, self._paying.spending, lease)
        except PacelineError as exc:
            _leave(execution, entered)
            return None, exc
        execution.started_ns = began_ns
        execution.attempts += 1
        execution.entered = entered
        self._running[call.id] = execution
        limit_s = plan.timeout_s or job.timeout_s
        shown = _shown(call) if plan.cacheable and not job.trusted else call
        writes = plan.world is not None or plan.effect.kind is _WRITE
        token, meter = current_call.set(shown), current_meter.set(execution.meter)
        value: object = None
        error: PacelineError | None = None
        ok = late = False
        try:
            write = self._identity.start(shown) if writes else None
            try:
                if job.dispatch is None:
                    limit.narrow(began_ns + int(limit_s * _NS))
                    value = await job.execute(shown)
                else:  # whose limit is the dispatch's, which may know a shorter one
                    value = await job.dispatch.execute(shown, execution, permit.pass_on(), limit_s)
                ok = True
            finally:
                late = limit.widen()
                if writes:
                    self._identity.finish(shown, job.version, write, value, ok=ok)
        except BaseException as exc:
            error = _failure(exc, call.name, late_s=limit_s if late else None)
            if error is None:
                raise
            # An agent passes on errors of what it called: they know nothing of its own doings.
            error.may_have_started = error.may_have_started or not (job.trusted or job.dispatch)
        finally:
            current_meter.reset(meter)
            current_call.reset(token)
            execution.execute_ns += self._now_ns() - began_ns
            self._over(execution, permit, error or (None if ok else self._gone(execution)))
        return value, error

    def _over(self, execution: Execution, permit: Permit, error: PacelineError | None) -> None:
        """Gives back what it had."""
        self._running.pop(execution.call.id, None)
        permit.end(error, execution.meter)
        _leave(execution, execution.entered)
        execution.entered = ()
        execution.started_ns = None

    def _gates(self, execution: Execution) -> tuple[Gate, ...]:
        """Those to enter, in their order: what more of them share comes first."""
        job, outer = execution.job, execution.outer
        gates: tuple[Gate, ...] = self._alone
        if job.workers is not None:
            gates += (job.workers,)
        if job.gate is not None:
            gates += (job.gate,)
        return tuple([gate for gate in gates if gate not in outer]) if outer else gates

    async def _wait(self, execution: Execution, gates: Sequence[Gate], now_ns: int) -> Lease | None:
        """Waits for places in these gates and, where there are several instances, for one at one of
        them. Raises PacelineError where there is none to be had."""
        call, dispatch = execution.call, execution.job.dispatch
        execution.queued_ns = now_ns
        try:
            if dispatch is None and execution.speculative:
                enter_as_guest(execution, gates)
                return None
            if dispatch is None:
                tenant = call.caller.tenant or call.caller.user or ""
                await enter_all(gates, execution.priority, tenant=tenant, waiting=execution.wait)
                return None
            refusal = self.refusal(call)  # before an instance counts on it
            if refusal is not None:
                raise refusal
            return await dispatch.enter(execution, gates)
        finally:
            execution.queue_ns += self._now_ns() - now_ns
            execution.queued_ns = None

    def _gone(self, execution: Execution) -> PacelineError:
        """Why an execution was cancelled: nobody has the time to wait for it, or wants it."""
        if left_s(self._clock, execution.deadline_ns) == 0:
            return CallTimeoutError(f"{execution.call.name} did not finish in time")
        return CallCancelledError(f"{execution.call.name} was cancelled")


def _leave(execution: Execution, entered: Sequence[Gate]) -> None:
    if execution.guess is not None:
        leave_as_guest(execution, entered)
    for gate in entered:
        gate.leave()


def _never_waits(error: PacelineError) -> bool:
    """Whether somebody else would have waited instead."""
    return isinstance(error, OverloadedError) and error.reason is Shortage.SPECULATIVE


def left_s(clock: Clock, deadline_ns: int | None) -> float | None:
    """Seconds until a deadline, 0 after it; None without one."""
    if deadline_ns is None:
        return None
    return max(0.0, (deadline_ns - clock.monotonic_ns()) / _NS)


def _failure(exc: BaseException, name: str, *, late_s: float | None) -> PacelineError | None:
    """What an exception of an agent says of its execution, which was ended after `late_s` seconds, if
    that is not None. None for what is no failure of the agent."""
    if isinstance(exc, PacelineError):
        return exc
    if late_s is not None and isinstance(exc, (asyncio.CancelledError, TimeoutError)):
        error: PacelineError = timed_out(name, late_s)
        if isinstance(exc, asyncio.CancelledError):  # which is how it was ended, and not why
            late = TimeoutError()
            late.__cause__ = exc
            exc = late
    elif isinstance(exc, (asyncio.CancelledError, GeneratorExit, KeyboardInterrupt)):
        return None
    else:  # SystemExit from an agent is its failure, not a wish to end the whole process
        error = raised(name, exc)
    error.__cause__ = exc
    return error


def _shown(call: Call) -> Call:
    """The call as its agent sees it.

    A result that others may get must not depend on more of its caller than they share: what
    the scope leaves out is left out here too. Nor on when the caller's time is up.
    """
    scope = call.scope
    caller = Caller(scope.user, scope.session, scope.tenant)
    return msgspec.structs.replace(call, caller=caller, deadline_ns=None)
