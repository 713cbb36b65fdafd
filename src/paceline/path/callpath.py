"""The one call path: everything Paceline runs goes through `CallPath.run`.

::

    Call --> look up ----hit-------------------------------------> Outcome --> observe
               | miss                                                 ^
             join in-flight? --> admit --> execute, retry --> store --+

Every execution runs in a task that the flight owns; callers wait for it, each with its own
deadline and its own cancellation. That gives single-flight, hand-over from a cancelled leader,
deadlines and a clean close by one mechanism: work goes on exactly as long as someone waits.
"""

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final, final

import msgspec

from paceline.balance.gate import Gate, enter_all
from paceline.balance.retry import RetryBudget, RetryPolicy
from paceline.cache.flight import SingleFlight
from paceline.cache.generations import Generations
from paceline.cache.keys import call_key
from paceline.cache.snapshot import Snapshot
from paceline.cache.tiered import ResultCache
from paceline.call import Call, Caller, EffectKind, Outcome, Source, current_call
from paceline.clock import Clock
from paceline.errors import (
    AgentError,
    CallCancelledError,
    CallTimeoutError,
    Category,
    CodecError,
    PacelineError,
    UnkeyableError,
)

__all__ = ["ANYTHING", "CallPath", "Execution", "Job", "Observer"]

Observer = Callable[[Call, Outcome], None]

ANYTHING: Final = "*"
"""The tag of writes that do not say what they write; every read depends on it."""

_log = logging.getLogger("paceline")
_NS: Final = 1_000_000_000


class Job(msgspec.Struct, frozen=True):
    """What there is to know of the thing a call runs: how to run it, and what its results are.

    `version` changes when results of before must not be found any more. `result_type` is what
    stored results are read back as (see `paceline.codec`). `gate` is its own limit, `workers`
    that of the threads it runs in. `trusted` is for what comes with Paceline: its errors say
    truthfully whether anything was started, and it keeps apart whose call it is.
    """

    execute: Callable[[Call], Awaitable[object]]
    version: str = ""
    result_type: Any = None
    gate: Gate | None = None
    workers: Gate | None = None
    timeout_s: float = 60.0
    trusted: bool = False


@final
class Execution:
    """One execution in the making: how far it has come, and what its callers share."""

    __slots__ = (
        "_path",
        "attempts",
        "call",
        "deadline_ns",
        "execute_ns",
        "held",
        "job",
        "key",
        "outer",
        "place",
        "queue_ns",
        "queued_ns",
        "snapshot",
        "started_ns",
    )

    def __init__(
        self, path: "CallPath", call: Call, job: Job, key: bytes | None, outer: frozenset[Gate]
    ) -> None:
        """`outer` are the gates in which the calls around this one have places: it uses those."""
        self._path = path
        self.call = call
        self.job = job
        self.key = key
        self.outer = outer
        self.held = outer
        """The same and, while it runs, the gates it has entered itself."""
        self.place = _place(call, key, outer)
        self.deadline_ns = call.deadline_ns
        """The latest of its callers' deadlines; None when one of them has none."""
        self.attempts = 0
        self.queue_ns = 0
        self.execute_ns = 0
        self.queued_ns: int | None = None
        self.started_ns: int | None = None
        self.snapshot: Snapshot | None = None
        """The value at the moment it was made, for those who joined."""

    async def __call__(self) -> Outcome:
        return await self._path.execute(self)

    def copy(self) -> object:
        """The value for one who joined. Raises CodecError for one that cannot be copied."""
        if self.snapshot is None:
            raise CodecError(f"a result of {self.call.name} cannot be copied")
        return self.snapshot.thaw(self.job.result_type)

    def join(self, deadline_ns: int | None) -> None:
        """Lets it go on until this deadline too."""
        if self.deadline_ns is not None:
            self.deadline_ns = None if deadline_ns is None else max(self.deadline_ns, deadline_ns)


@final
class CallPath:
    """Looks up, joins, admits, executes, stores and observes calls.

    `observers` are told of every outcome; one that raises is logged and harms nothing.
    """

    def __init__(
        self,
        *,
        clock: Clock,
        cache: ResultCache,
        generations: Generations,
        gate: Gate,
        retry: RetryPolicy,
        rng: random.Random,
        observers: Sequence[Observer],
        instance: str,
    ) -> None:
        self._clock = clock
        self._cache = cache
        self._generations = generations
        self._flight: SingleFlight[object, Outcome] = SingleFlight()
        self._gate = gate
        self._retry = retry
        self._budget = RetryBudget()
        self._rng = rng
        self._observers = tuple(observers)
        self._instance = instance
        self._running: dict[str, Execution] = {}

    async def run(self, call: Call, job: Job, *, use_cache: bool = True) -> Outcome:
        """The outcome of a call. Raises nothing but the caller's own cancellation."""
        start_ns = self._clock.monotonic_ns()
        key = self._key(call, job) if use_cache and call.plan.cacheable else None
        hit = self._cache.get(key, job.result_type) if key is not None else None
        if hit is None:
            return await self._wait(call, job, key, start_ns)
        elapsed_ns = self._clock.monotonic_ns() - start_ns
        return self._observe(
            call, Outcome(call.id, call.name, hit.source, hit.value, total_ns=elapsed_ns)
        )

    def refuse(self, call: Call, error: PacelineError) -> Outcome:
        """The outcome of a call that cannot be run at all; observed like every other."""
        return self._observe(call, Outcome(call.id, call.name, Source.EXECUTED, error=error))

    def running(self, call: Call | None) -> Execution | None:
        """The execution in whose course this call was shown to an agent, while it lasts."""
        return self._running.get(call.id) if call is not None else None

    def invalidate(self, call: Call) -> None:
        """Makes stale what a write may have changed. From any thread."""
        effect = call.plan.effect
        if effect.kind is EffectKind.WRITE:
            self._generations.bump(effect.tags or (ANYTHING,))

    async def close(self) -> None:
        """Cancels what is running; its callers get CallCancelledError as their outcome."""
        await self._flight.close()

    def _key(self, call: Call, job: Job) -> bytes | None:
        """The call's cache key, or None for arguments that have no canonical form."""
        effect = call.plan.effect
        tags = (ANYTHING, *effect.tags) if effect.kind is EffectKind.READ else effect.tags
        try:
            return call_key(call, job.version, self._generations.read(tags))
        except UnkeyableError as exc:
            _log.info("%s is not cached: %s", call.name, exc)
        except Exception:  # noqa: BLE001 (arguments can be of classes whose attributes are code)
            _log.warning("%s is not cached: its arguments fail", call.name, exc_info=True)
        return None

    async def _wait(self, call: Call, job: Job, key: bytes | None, start_ns: int) -> Outcome:
        """Leads or joins an execution, and leaves it at the call's own deadline."""
        execution = self._execution(call, job, key)
        try:
            async with asyncio.timeout(self._left_s(call.deadline_ns)):
                outcome = await self._share(call, execution)
        except TimeoutError:
            # Only our own deadline ends here: errors of the work are inside its outcome.
            late = CallTimeoutError(
                f"{call.name} did not finish within its deadline",
                may_have_started=execution.attempts > 0,
            )
            outcome = self._unfinished(execution, late)
        except asyncio.CancelledError:
            gone = CallCancelledError(
                f"the call of {call.name} was cancelled", may_have_started=execution.attempts > 0
            )
            outcome = self._unfinished(execution, gone)
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                self._observe(call, self._timed(call, outcome, start_ns))
                raise
        return self._observe(call, self._timed(call, outcome, start_ns))

    def _execution(self, call: Call, job: Job, key: bytes | None) -> Execution:
        """The execution of this work that can be joined, else a new one."""
        parent = self._running.get(call.parent_id) if call.parent_id is not None else None
        outer = parent.held if parent is not None else frozenset[Gate]()
        found = self._flight.joinable(_place(call, key, outer))
        if isinstance(found, Execution):
            found.join(call.deadline_ns)
            return found
        return Execution(self, call, job, key, outer)

    async def _share(self, call: Call, execution: Execution) -> Outcome:
        """The outcome of the execution, with a value of the caller's own."""
        while True:
            outcome, joined = await self._flight.run(execution.place, execution)
            if not joined:
                return outcome
            if self._cut_short(call, execution, outcome):
                execution = self._execution(call, execution.job, execution.key)
                continue
            value = None
            if outcome.error is None:
                try:
                    value = execution.copy()
                except CodecError:  # so each caller has to have it made
                    execution = Execution(self, call, execution.job, None, execution.outer)
                    continue
            return msgspec.structs.replace(
                outcome, value=value, source=Source.JOINED, attempts=0, queue_ns=0, execute_ns=0
            )

    @staticmethod
    def _cut_short(call: Call, execution: Execution, outcome: Outcome) -> bool:
        """Whether the work ended for the deadline of who began it, and ours is later."""
        theirs, ours = execution.call.deadline_ns, call.deadline_ns
        return (
            execution.job.trusted
            and theirs is not None
            and (ours is None or ours > theirs)
            and outcome.error is not None
            and outcome.error.category is Category.TIMEOUT
        )

    async def execute(self, execution: Execution) -> Outcome:
        """Runs until it succeeds or trying again makes no sense. For `Execution` alone."""
        self._budget.deposit()
        call = execution.call
        while True:
            value, error = await self._attempt(execution)
            if error is None:
                self._store(execution, value)
                return self._outcome(execution, value, None)
            pause_s = self._retry.pause_s(
                error,
                call.plan.effect,
                attempt=execution.attempts,
                remaining_s=self._left_s(execution.deadline_ns),
                rng=self._rng,
            )
            if pause_s is None or not self._budget.spend():
                return self._outcome(execution, None, error)
            _log.info("%s failed (%s), next try in %.2f s", call.name, error.category, pause_s)
            await asyncio.sleep(pause_s)

    def _store(self, execution: Execution, value: object) -> None:
        """Keeps the value for those who wait and those who come later."""
        if execution.key is None:
            return
        plan, type_ = execution.call.plan, execution.job.result_type
        try:
            execution.snapshot = self._cache.put(execution.key, value, plan.ttl_s, type_)
            if execution.snapshot is None:  # there is no tier that keeps it
                execution.snapshot = Snapshot.take(value, type_)
        except CodecError as exc:
            _log.info("a result of %s cannot be shared: %s", execution.call.name, exc)
        except Exception:  # noqa: BLE001 (what cannot be kept must not cost the caller its value)
            _log.warning("a result of %s is not kept", execution.call.name, exc_info=True)

    async def _attempt(self, execution: Execution) -> tuple[object, PacelineError | None]:
        """One execution, from waiting for places to giving them back."""
        call, job, outer = execution.call, execution.job, execution.outer
        gates = [gate for gate in (self._gate, job.gate) if gate is not None and gate not in outer]
        entered = [*gates, job.workers] if job.workers is not None else gates
        execution.queued_ns = self._clock.monotonic_ns()
        try:
            await enter_all(entered, call.priority)
        except PacelineError as exc:
            return None, exc
        finally:
            execution.queue_ns += self._clock.monotonic_ns() - execution.queued_ns
            execution.queued_ns = None
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
            for gate in entered:
                gate.leave()

    async def _invoke(self, execution: Execution) -> object:
        """The agent's value. Every foreign exception of an agent ends here."""
        call, job = _shown(execution), execution.job
        limit_s = call.plan.timeout_s or job.timeout_s
        limit = asyncio.timeout(limit_s)
        token = current_call.set(call)
        # Before it runs, in case this process dies in its course, and after it, for what was
        # read meanwhile.
        self.invalidate(call)
        try:
            async with limit:
                return await job.execute(call)
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
            self.invalidate(call)
            current_call.reset(token)

    def _left_s(self, deadline_ns: int | None) -> float | None:
        if deadline_ns is None:
            return None
        return max(0.0, (deadline_ns - self._clock.monotonic_ns()) / _NS)

    def _outcome(self, execution: Execution, value: object, error: PacelineError | None) -> Outcome:
        return Outcome(
            execution.call.id,
            execution.call.name,
            Source.EXECUTED,
            value,
            error,
            self._instance,
            execution.attempts,
            execution.queue_ns,
            execution.execute_ns,
        )

    def _unfinished(self, execution: Execution, error: PacelineError) -> Outcome:
        """The outcome for a caller that leaves; the work may go on for others."""
        outcome, now_ns = self._outcome(execution, None, error), self._clock.monotonic_ns()
        if execution.queued_ns is not None:
            waited_ns = outcome.queue_ns + now_ns - execution.queued_ns
            return msgspec.structs.replace(outcome, queue_ns=waited_ns)
        if execution.started_ns is not None:
            run_ns = outcome.execute_ns + now_ns - execution.started_ns
            return msgspec.structs.replace(outcome, execute_ns=run_ns)
        return outcome

    def _timed(self, call: Call, outcome: Outcome, start_ns: int) -> Outcome:
        total_ns = self._clock.monotonic_ns() - start_ns
        return msgspec.structs.replace(outcome, call_id=call.id, total_ns=total_ns)

    def _observe(self, call: Call, outcome: Outcome) -> Outcome:
        for observe in self._observers:
            try:
                observe(call, outcome)
            except Exception:  # noqa: BLE001 (measuring must never change what is measured)
                _log.warning("an observer failed on %s", call.name, exc_info=True)
        return outcome


def _place(call: Call, key: bytes | None, outer: frozenset[Gate]) -> object:
    """What executions have to have in common to be one.

    Calls that use different places of those around them do not join: one could wait for a
    place that the other's parent holds.
    """
    return call.id if key is None else (key, outer)


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


def _agent_error(call: Call, exc: BaseException, category: Category) -> AgentError:
    what = f"{type(exc).__qualname__}: {exc}" if str(exc) else type(exc).__qualname__
    return AgentError(f"{call.name} failed: {what}", category=category, may_have_started=True)
