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
from paceline.errors import AgentError, CallTimeoutError, Category, PacelineError
from paceline.path.identity import Identity
from paceline.path.job import Execution
from paceline.path.paying import Paying
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
    ) -> None:
        self._clock = clock
        self._gate = gate
        self._retry = retry
        self._budget = RetryBudget()
        self._rng = rng
        self._identity = identity
        self._paying = paying or Paying(clock)
        self._running: dict[str, Execution] = {}

    def running(self, call_id: str | None) -> Execution | None:
        """The execution of this call, while it lasts."""
        return self._running.get(call_id) if call_id is not None else None

    def refusal(self, call: Call) -> PacelineError | None:
        """Why nothing is executed for this caller now; None if it would be."""
        return self._paying.spending.refusal(call)

    async def run(self, execution: Execution) -> tuple[object, PacelineError | None]:
        """The value, or why there is none."""
        self._budget.deposit()
        call = execution.call
        execution.meter = self._paying.meter(call)
        while True:
            value, error = await self._attempt(execution)
            if error is None:
                return value, None
            pause_s = self._retry.pause_s(
                error,
                call.plan.effect,
                attempt=execution.attempts,
                remaining_s=left_s(self._clock, execution.deadline_ns),
                rng=self._rng,
            )
            if pause_s is None or not self._budget.spend():
                return None, error
            _log.info("%s failed (%s), next try in %.2f s", call.name, error.category, pause_s)
            await asyncio.sleep(pause_s)

    async def _attempt(self, execution: Execution) -> tuple[object, PacelineError | None]:
        """One execution, from waiting for places to giving them back."""
        call, job, outer = execution.call, execution.job, execution.outer
        gates = [gate for gate in (self._gate, job.gate) if gate is not None and gate not in outer]
        entered = [*gates, job.workers] if job.workers is not None else gates
        execution.queued_ns = self._clock.monotonic_ns()
        try:
            await enter_all(entered, execution.priority, waiting=execution.wait)
        except PacelineError as exc:
            return None, exc
        finally:
            execution.queue_ns += self._clock.monotonic_ns() - execution.queued_ns
            execution.queued_ns = None
        try:  # not before it waits: those before it spend meanwhile
            admission = self._paying.spending.admit(call)
        except PacelineError as exc:
            for gate in entered:
                gate.leave()
            return None, exc
        execution.started_ns = self._clock.monotonic_ns()
        execution.attempts += 1
        execution.held = outer.union(gates)
        self._running[call.id] = execution
        try:
            return await self._invoke(execution), None
        except PacelineError as exc:
            # An agent passes on errors of what it called: they know nothing of its own doings.
            exc.may_have_started = exc.may_have_started or not job.trusted
            return None, exc
        finally:
            self._running.pop(call.id, None)
            execution.held = outer
            execution.execute_ns += self._clock.monotonic_ns() - execution.started_ns
            execution.started_ns = None
            admission.settle(measured=_is_measured(execution.meter))
            for gate in entered:
                gate.leave()

    async def _invoke(self, execution: Execution) -> object:
        """The agent's value. Every foreign exception of an agent ends here."""
        call, job = _shown(execution), execution.job
        limit_s = call.plan.timeout_s or job.timeout_s
        limit = asyncio.timeout(limit_s)
        token, meter = current_call.set(call), current_meter.set(execution.meter)
        write = self._identity.start(call)
        value, ok = None, False
        try:
            async with limit:
                value = await job.execute(call)
                ok = True
                return value
        except PacelineError:
            raise
        except TimeoutError as exc:
            if limit.expired():
                raise CallTimeoutError(
                    f"{call.name} timed out after {limit_s:g} s", may_have_started=True
                ) from exc
            raise _agent_error(call, exc, Category.TIMEOUT) from exc
        except ConnectionError as exc:
            raise _agent_error(call, exc, Category.NETWORK) from exc
        # SystemExit from an agent is its failure, not a wish to end the whole process.
        except (asyncio.CancelledError, GeneratorExit, KeyboardInterrupt):
            raise
        except BaseException as exc:  # the boundary of agents' code
            raise _agent_error(call, exc, Category.EXECUTION) from exc
        finally:
            self._identity.finish(call, job.version, write, value, ok=ok)
            current_meter.reset(meter)
            current_call.reset(token)


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


def _agent_error(call: Call, exc: BaseException, category: Category) -> AgentError:
    what = f"{type(exc).__qualname__}: {exc}" if str(exc) else type(exc).__qualname__
    return AgentError(f"{call.name} failed: {what}", category=category, may_have_started=True)
