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
import copy
import logging
import random
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final, final

import msgspec

from paceline.balance.gate import Gate
from paceline.balance.retry import RetryBudget, RetryPolicy
from paceline.cache.flight import SingleFlight
from paceline.cache.generations import Generations
from paceline.cache.keys import call_key
from paceline.cache.tiered import ResultCache
from paceline.call import Call, EffectKind, Outcome, Source, current_call
from paceline.clock import Clock
from paceline.codec import IMMUTABLE
from paceline.errors import (
    AgentError,
    CallCancelledError,
    CallTimeoutError,
    Category,
    PacelineError,
    UnkeyableError,
)

__all__ = ["CallPath", "Job", "Observer"]

Observer = Callable[[Call, Outcome], None]

_log = logging.getLogger("paceline")
_NS: Final = 1_000_000_000


class Job(msgspec.Struct, frozen=True):
    """What there is to know of the thing a call runs: how to run it, and what its results are.

    `version` changes when results of before must not be found any more. `result_type` is what
    stored results are read back as (see `paceline.codec`).
    """

    execute: Callable[[Call], Awaitable[object]]
    version: str = ""
    result_type: Any = None
    gate: Gate | None = None
    timeout_s: float = 60.0


class _Progress:
    """How far the execution of one call has come; read when its caller leaves early."""

    __slots__ = ("attempts", "execute_ns", "queue_ns", "started_ns")

    def __init__(self) -> None:
        self.attempts = 0
        self.queue_ns = 0
        self.execute_ns = 0
        self.started_ns: int | None = None


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
        self._flight: SingleFlight[bytes | str, Outcome] = SingleFlight()
        self._gate = gate
        self._retry = retry
        self._budget = RetryBudget()
        self._rng = rng
        self._observers = tuple(observers)
        self._instance = instance

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

    async def close(self) -> None:
        """Cancels what is running; its callers get CallCancelledError as their outcome."""
        await self._flight.close()

    def _key(self, call: Call, job: Job) -> bytes | None:
        """The call's cache key, or None for arguments that have no canonical form."""
        try:
            return call_key(call, job.version, self._generations.read(call.plan.effect.tags))
        except UnkeyableError as exc:
            _log.info("%s is not cached: %s", call.name, exc)
            return None

    async def _wait(self, call: Call, job: Job, key: bytes | None, start_ns: int) -> Outcome:
        """Leads or joins the execution, and leaves it at the call's own deadline."""
        progress = _Progress()
        try:
            async with asyncio.timeout(self._remaining_s(call)):
                outcome = await self._share(call, job, key, progress)
        except TimeoutError:
            # Only our own deadline ends here: errors of the work are inside its outcome.
            late = CallTimeoutError(
                f"{call.name} did not finish within its deadline",
                may_have_started=progress.attempts > 0,
            )
            outcome = self._unfinished(call, progress, late)
        except asyncio.CancelledError:
            gone = CallCancelledError(
                f"the call of {call.name} was cancelled", may_have_started=progress.attempts > 0
            )
            outcome = self._unfinished(call, progress, gone)
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                self._observe(call, self._timed(outcome, start_ns))
                raise
        return self._observe(call, self._timed(outcome, start_ns))

    async def _share(self, call: Call, job: Job, key: bytes | None, progress: _Progress) -> Outcome:
        """The outcome of the one execution for this key, whoever started it."""

        async def work() -> Outcome:
            outcome = await self._execute(call, job, progress)
            if key is not None and outcome.error is None:
                self._cache.put(key, outcome.value, call.plan.ttl_s, job.result_type)
            return outcome

        while True:
            outcome, joined = await self._flight.run(key if key is not None else call.id, work)
            if not joined:
                return outcome
            if outcome.error is None or outcome.error.category is not Category.TIMEOUT:
                value = outcome.value
                if type(value) not in IMMUTABLE:
                    value = copy.deepcopy(value)  # callers may change what they are given
                return msgspec.structs.replace(
                    outcome, call_id=call.id, value=value, source=Source.JOINED, attempts=0,
                    queue_ns=0, execute_ns=0,
                )  # fmt: skip
            # The leader's time was up, ours is not: take its place. Our deadline ends the loop.

    async def _execute(self, call: Call, job: Job, progress: _Progress) -> Outcome:
        """Runs the call until it succeeds or trying again makes no sense."""
        self._budget.deposit()
        while True:
            value, error = await self._attempt(call, job, progress)
            if error is None:
                return self._finished(call, progress, value, None)
            pause_s = self._retry.pause_s(
                error,
                call.plan.effect,
                attempt=progress.attempts,
                remaining_s=self._remaining_s(call),
                rng=self._rng,
            )
            if pause_s is None or not self._budget.spend():
                return self._finished(call, progress, None, error)
            _log.info("%s failed (%s), next try in %.2f s", call.name, error.category, pause_s)
            await asyncio.sleep(pause_s)

    async def _attempt(
        self, call: Call, job: Job, progress: _Progress
    ) -> tuple[object, PacelineError | None]:
        """One execution, from waiting for a place to giving it back."""
        queued_ns = self._clock.monotonic_ns()
        gates = [gate for gate in (job.gate, self._gate_for(call)) if gate is not None]
        entered: list[Gate] = []
        try:
            for gate in gates:
                await gate.enter(call.priority)
                entered.append(gate)
            progress.started_ns = self._clock.monotonic_ns()
            progress.queue_ns += progress.started_ns - queued_ns
            progress.attempts += 1
            return await self._invoke(call, job), None
        except PacelineError as exc:
            return None, exc
        finally:
            if progress.started_ns is not None:
                progress.execute_ns += self._clock.monotonic_ns() - progress.started_ns
                progress.started_ns = None
            for gate in reversed(entered):
                gate.leave()

    def _gate_for(self, call: Call) -> Gate | None:
        """The common gate counts whole requests: a call made inside another uses its place.

        Otherwise calls that hold all the places could wait for ever for calls of their own.
        """
        return self._gate if call.parent_id is None else None

    async def _invoke(self, call: Call, job: Job) -> object:
        """The agent's value. Every foreign exception of an agent ends here."""
        limit_s = call.plan.timeout_s or job.timeout_s
        limit = asyncio.timeout(limit_s)
        token = current_call.set(call)
        self._invalidate(call)
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
        except (Exception, SystemExit) as exc:  # the boundary of agents' code
            raise _agent_error(call, exc, Category.EXECUTION) from exc
        finally:
            self._invalidate(call)
            current_call.reset(token)

    def _invalidate(self, call: Call) -> None:
        """A write changes the generations of what it writes: before it runs, in case this process
        dies in its course, and after it, for what was read meanwhile."""
        if call.plan.effect.kind is EffectKind.WRITE:
            self._generations.bump(call.plan.effect.tags)

    def _remaining_s(self, call: Call) -> float | None:
        if call.deadline_ns is None:
            return None
        return max(0.0, (call.deadline_ns - self._clock.monotonic_ns()) / _NS)

    def _finished(
        self, call: Call, progress: _Progress, value: object, error: PacelineError | None
    ) -> Outcome:
        return Outcome(
            call.id,
            call.name,
            Source.EXECUTED,
            value,
            error,
            self._instance,
            progress.attempts,
            progress.queue_ns,
            progress.execute_ns,
        )

    def _unfinished(self, call: Call, progress: _Progress, error: PacelineError) -> Outcome:
        """The outcome for a caller that leaves; the work may go on for others."""
        outcome = self._finished(call, progress, None, error)
        if progress.started_ns is None:
            return outcome
        running_ns = self._clock.monotonic_ns() - progress.started_ns
        return msgspec.structs.replace(outcome, execute_ns=outcome.execute_ns + running_ns)

    def _timed(self, outcome: Outcome, start_ns: int) -> Outcome:
        return msgspec.structs.replace(outcome, total_ns=self._clock.monotonic_ns() - start_ns)

    def _observe(self, call: Call, outcome: Outcome) -> Outcome:
        for observe in self._observers:
            try:
                observe(call, outcome)
            except Exception:  # noqa: BLE001 (measuring must never change what is measured)
                _log.warning("an observer failed on %s", call.name, exc_info=True)
        return outcome


def _agent_error(call: Call, exc: BaseException, category: Category) -> AgentError:
    what = f"{type(exc).__qualname__}: {exc}" if str(exc) else type(exc).__qualname__
    return AgentError(f"{call.name} failed: {what}", category=category, may_have_started=True)
