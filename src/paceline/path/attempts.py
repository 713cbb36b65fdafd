"""Executing: places, time limits, and trying again where that makes sense."""

import asyncio
import logging
import random
from typing import Final, final

import msgspec

from paceline.balance.gate import Gate, enter_all
from paceline.balance.retry import RetryBudget, RetryPolicy
from paceline.call import Call, Caller, current_call
from paceline.clock import Clock
from paceline.errors import CallCancelledError, CallTimeoutError, PacelineError
from paceline.instances.raised import raised, timed_out
from paceline.path.identity import Identity
from paceline.path.job import Execution
from paceline.path.limit import Limit, Limits
from paceline.path.paying import Paying
from paceline.path.permit import Permit
from paceline.usage import Meter, current_meter

__all__ = ["Attempts", "left_s"]

_log = logging.getLogger("paceline")
_NS: Final = 1_000_000_000


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
        self.limits = Limits()
        """Those of all executions."""
        self._clock = clock
        self._gate = gate
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

    async def run(self, execution: Execution) -> tuple[object, PacelineError | None]:
        """The value, or why there is none."""
        self._budget.deposit()
        call = execution.call
        execution.meter = self._paying.meter(call)
        refused = 0
        failed: PacelineError | None = None
        while True:
            before = execution.attempts
            value, error = await self._attempt(execution)
            if error is None:
                return value, None
            executed = execution.attempts > before
            refused += not executed
            failed = error if executed else failed
            pause_s = (execution.job.retry or self._retry).pause_s(
                error,
                call.plan.effect,
                attempt=execution.attempts + refused,
                remaining_s=left_s(self._clock, execution.deadline_ns),
                rng=self._rng,
            )
            if pause_s is None and executed and execution.job.dispatch is not None:
                pause_s = 0.0 if execution.job.dispatch.elsewhere(execution, error) else None
            if pause_s is None or (executed and not self._budget.spend()):
                # That it was left alone in the end says less than why.
                return None, failed or error
            _log.info("%s failed (%s), next try in %.2f s", call.name, error.category, pause_s)
            await asyncio.sleep(pause_s)

    async def _attempt(self, execution: Execution) -> tuple[object, PacelineError | None]:
        """One execution, from waiting for places to giving them back."""
        call, job, outer = execution.call, execution.job, execution.outer
        gates = (self._gate, job.workers, job.gate)  # what more of them share comes first
        entered = [gate for gate in gates if gate is not None and gate not in outer]
        lease = None
        execution.queued_ns = now_ns = self._clock.monotonic_ns()
        try:
            if job.dispatch is not None:
                refusal = self.refusal(call)  # before an instance counts on it
                if refusal is not None:
                    return None, refusal
                lease = await job.dispatch.enter(execution, entered)
            else:
                tenant = call.caller.tenant or call.caller.user or ""
                await enter_all(entered, execution.priority, tenant=tenant, waiting=execution.wait)
        except PacelineError as exc:
            return None, exc
        finally:
            queued_ns, now_ns = now_ns, self._clock.monotonic_ns()
            execution.queue_ns += now_ns - queued_ns
            execution.queued_ns = None
        try:  # not before it waits: those before it spend, or fail, meanwhile
            permit = Permit(execution, self._paying.spending, lease)
        except PacelineError as exc:
            for gate in entered:
                gate.leave()
            return None, exc
        execution.started_ns = now_ns
        execution.attempts += 1
        execution.entered = entered
        self._running[call.id] = execution
        value: object = None
        error: PacelineError | None = None
        ended = False
        try:
            value = await self._invoke(execution, permit)
            ended = True
        except PacelineError as exc:
            # An agent passes on errors of what it called: they know nothing of its own doings.
            exc.may_have_started = exc.may_have_started or not (job.trusted or job.dispatch)
            error, ended = exc, True
        finally:
            self._running.pop(call.id, None)
            execution.entered = ()
            execution.execute_ns += self._clock.monotonic_ns() - now_ns
            execution.started_ns = None
            permit.end(
                error if ended else self._gone(execution),
                measured=_is_measured(execution.meter),
            )
            for gate in entered:
                gate.leave()
        return value, error

    def _gone(self, execution: Execution) -> PacelineError:
        """Why an execution was cancelled: nobody has the time to wait for it, or wants it."""
        if left_s(self._clock, execution.deadline_ns) == 0:
            return CallTimeoutError(f"{execution.call.name} did not finish in time")
        return CallCancelledError(f"{execution.call.name} was cancelled")

    async def _invoke(self, execution: Execution, permit: Permit) -> object:
        """The agent's value. Every foreign exception of an agent ends here."""
        call, job = _shown(execution), execution.job
        limit_s = call.plan.timeout_s or job.timeout_s
        limit = Limit(self.limits, limit_s)
        token, meter = current_call.set(call), current_meter.set(execution.meter)
        write = self._identity.start(call)
        value, ok = None, False
        try:
            lease = permit.pass_on()
            if job.dispatch is None or lease is None:
                with limit:
                    value = await job.execute(call)
            else:  # whose limit is the dispatch's, which may know a shorter one
                value = await job.dispatch.execute(call, execution, lease, limit_s)
            ok = True
        except PacelineError:
            raise
        # SystemExit from an agent is its failure, not a wish to end the whole process.
        except (asyncio.CancelledError, GeneratorExit, KeyboardInterrupt):
            raise
        except BaseException as exc:  # the boundary of agents' code
            if limit.ended and isinstance(exc, TimeoutError):
                raise timed_out(call.name, limit_s) from exc
            raise raised(call.name, exc) from exc
        finally:
            self._identity.finish(call, job.version, write, value, ok=ok)
            current_meter.reset(meter)
            current_call.reset(token)
        return value


def left_s(clock: Clock, deadline_ns: int | None) -> float | None:
    """Seconds until a deadline, 0 after it; None without one."""
    if deadline_ns is None:
        return None
    return max(0.0, (deadline_ns - clock.monotonic_ns()) / _NS)


def _shown(execution: Execution) -> Call:
    """The call as its agent sees it.

    A result that others may get must not depend on more of its caller than they share: what
    the scope leaves out is left out here too. Nor on when the caller's time is up.
    """
    call = execution.call
    if execution.job.trusted or not call.plan.cacheable:
        return call
    scope = call.scope
    caller = Caller(scope.user, scope.session, scope.tenant)
    return msgspec.structs.replace(call, caller=caller, deadline_ns=None)


def _is_measured(meter: Meter | None) -> bool:
    """Whether it is known what was really paid."""
    spent = meter.spent if meter is not None else None
    return spent is not None and spent.cost_usd is not None
