"""The calls' way: look up, join, execute, store, observe.

Every execution runs in a task that the flight owns; callers wait for it, each with its own
deadline and its own cancellation. That gives single-flight, hand-over from a cancelled leader,
deadlines and a clean close by one mechanism: work goes on exactly as long as someone waits. What
nobody can join and what `heeds` its cancellation needs no task for that: see `Attended`.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from typing import Final, final

import msgspec

from paceline.cache.entry import About
from paceline.cache.flight import SingleFlight
from paceline.cache.hints import may_share, narrow
from paceline.cache.snapshot import Snapshot
from paceline.cache.tiered import Kept, ResultCache, scope_text
from paceline.call import Call, Outcome, Priority, Source
from paceline.clock import Clock
from paceline.errors import (
    BudgetExceededError,
    CallCancelledError,
    CallTimeoutError,
    Category,
    CodecError,
    PacelineError,
)
from paceline.history.record import REFRESH
from paceline.path.attempts import Attempts, left_s
from paceline.path.attended import Attended
from paceline.path.fallbacks import Fallbacks, Other
from paceline.path.identity import Identified, Identity
from paceline.path.job import Execution, Held, Job, place
from paceline.path.limit import Limit
from paceline.path.pauses import Pauses

__all__ = ["CallPath", "Observer"]

Observer = Callable[[Call, Outcome], None]

_log = logging.getLogger("paceline")
_MOST_REFRESHES: Final = 32
_NOTHING: Final[Held] = frozenset()


@final
class CallPath:
    """Looks up, joins, executes, stores and observes calls.

    `observers` are told of every outcome; one that raises is logged and harms nothing. `began` is
    told before of each call that is not answered at once.
    """

    def __init__(
        self,
        *,
        clock: Clock,
        cache: ResultCache,
        identity: Identity,
        attempts: Attempts,
        observers: Sequence[Observer],
        began: Callable[[Call], object],
        instance: str,
        other: Other | None = None,
    ) -> None:
        """`instance` is where things are executed that have no instances of their own; `other`
        makes the calls of agents that stand in for those that failed."""
        self._clock = clock
        self._cache = cache
        self._identity = identity
        self._attempts = attempts
        self._flight: SingleFlight[object, Outcome] = SingleFlight()
        self._attended: Attended[Outcome] = Attended(attempts.limits)
        self._observers = tuple(observers)
        self._began = began
        self._instance = instance
        self._refreshing: dict[object, asyncio.Task[Outcome]] = {}
        self._pauses = Pauses(clock)
        self._fallbacks = Fallbacks(cache, identity, self.run, other)

    async def run(self, call: Call, job: Job, *, use_cache: bool = True) -> Outcome:
        """The outcome of a call. Raises nothing but the caller's own cancellation."""
        start_ns = self._clock.monotonic_ns()
        identified = None
        if use_cache and call.plan.cacheable:
            identified = self._identity.of(call, job.version)
        hit = None
        if identified is not None:
            hit = self._cache.get(identified.key, job.result_type, identified.scope)
        if hit is None or identified is None:
            return await self._wait(call, self._execution(call, job, identified), start_ns)
        if hit.aging:
            self._refresh(call, job, identified)
        elapsed_ns = self._clock.monotonic_ns() - start_ns
        return self._observe(
            call,
            Outcome(
                call.id,
                call.name,
                hit.source,
                hit.value,
                total_ns=elapsed_ns,
                saved_ns=hit.cost_ns,
                saved_usd=hit.cost_usd or None,
            ),
        )

    def refuse(self, call: Call, error: PacelineError) -> Outcome:
        """The outcome of a call that cannot be run at all; observed like every other."""
        return self._observe(call, Outcome(call.id, call.name, Source.EXECUTED, error=error))

    def observe(self, call: Call, outcome: Outcome) -> None:
        """Has something observed that is like a call, and took no path of its own."""
        self._observe(call, outcome)

    def running(self, call: Call) -> Execution | None:
        """The execution in whose course this call was shown to an agent, while it lasts."""
        return self._attempts.running(call.id)

    def job(self, call: Call) -> Job:
        """What is run for a call that was shown to an instance, while it lasts. Raises
        CallCancelledError after that."""
        execution = self._attempts.running(call.id)
        if execution is None:
            raise CallCancelledError(f"the call of {call.name} is over")
        return execution.job

    async def close(self) -> None:
        """Cancels what is running; its callers get CallCancelledError as their outcome."""
        await asyncio.gather(self._flight.close(), self._attended.close())
        refreshing = list(self._refreshing.values())
        for task in refreshing:
            task.cancel()
        await asyncio.gather(*refreshing, return_exceptions=True)

    def _refresh(self, call: Call, job: Job, identified: Identified) -> None:
        """Has a result computed anew that is still served; nobody waits for it."""
        if not self._pauses.over(identified.key):
            return
        where = place(call, identified, frozenset())
        at_it = where in self._refreshing or self._flight.joinable(where) is not None
        if at_it or len(self._refreshing) >= _MOST_REFRESHES:
            return
        again = msgspec.structs.replace(
            call,
            id=call.id + REFRESH,
            priority=Priority.LOW,
            deadline_ns=None,
            parent_id=call.id,
            tracked_id=None,
        )
        execution = Execution(self._execute, again, job, identified, frozenset(), refresh=True)
        task = asyncio.create_task(self._wait(again, execution, self._clock.monotonic_ns()))
        self._refreshing[where] = task
        task.add_done_callback(lambda _: self._refreshing.pop(where, None))

    async def _wait(self, call: Call, execution: Execution, start_ns: int) -> Outcome:
        """Leads or joins an execution, and leaves it at the call's own deadline."""
        self._began(call)
        try:
            with Limit(self._attempts.limits, left_s(self._clock, call.deadline_ns)):
                outcome = await self._share(call, execution)
        except TimeoutError:
            # Only our own deadline ends here: errors of the work are inside its outcome.
            late = CallTimeoutError(
                f"{call.name} did not finish within its deadline",
                may_have_started=execution.attempts > 0,
            )
            outcome = self._unfinished(execution, late)
            if not execution.refresh:
                outcome = await self._fallbacks.answer(call, execution, outcome, late=True)
        except asyncio.CancelledError:
            gone = CallCancelledError(
                f"the call of {call.name} was cancelled", may_have_started=execution.attempts > 0
            )
            outcome = self._unfinished(execution, gone)
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                self._observe(call, self._timed(call, outcome, start_ns))
                raise
        if execution.needless and execution.call is call:
            return outcome  # nothing was done, and nobody asked
        if outcome.instead_of is not None:
            self._attempts.taint(call)
        return self._observe(call, self._timed(call, outcome, start_ns))

    def _execution(self, call: Call, job: Job, identified: Identified | None) -> Execution:
        """The execution of this work that can be joined, else a new one."""
        parent = self._attempts.running(call.parent_id)
        outer: Held = parent.held if parent is not None else _NOTHING
        if identified is not None:  # else nobody can join
            found = self._flight.joinable(place(call, identified, outer))
            if isinstance(found, Execution):
                found.join(call.deadline_ns, call.priority)
                return found
        return Execution(self._execute, call, job, identified, outer)

    async def _share(self, call: Call, execution: Execution) -> Outcome:
        """The outcome of the execution, with a value of the caller's own."""
        while True:
            outcome, joined = await self._done(execution)
            if execution.provisional:
                self._attempts.taint(call)
            if execution.refresh and execution.call is call:
                return outcome  # nobody waits for it
            if not joined:
                if outcome.error is None:
                    return outcome
                return await self._fallbacks.answer(call, execution, outcome)
            refused = isinstance(outcome.error, BudgetExceededError) and not outcome.attempts
            if refused and (mine := self._attempts.refusal(call)) is not None:
                return msgspec.structs.replace(outcome, error=mine)
            if refused or execution.needless or _cut_short(call, execution, outcome):
                execution = self._execution(call, execution.job, execution.identified)
                continue
            value = None
            if outcome.error is None:
                try:
                    value = execution.copy()
                except CodecError:  # so each caller has to have it made
                    execution = Execution(self._execute, call, execution.job, None, execution.outer)
                    continue
                self._joined(call, outcome)
            shared = msgspec.structs.replace(
                outcome,
                value=value,
                source=Source.JOINED,
                link=execution.call.id,
                attempts=0,
                queue_ns=0,
                execute_ns=0,
                saved_ns=outcome.saved_ns or outcome.execute_ns,
                tokens=None,
                cost_usd=None,
                raw_usd=None,
                unpriced=0,
                saved_usd=_cost_usd(execution),
            )
            return await self._fallbacks.answer(call, execution, shared)

    def _done(self, execution: Execution) -> Awaitable[tuple[Outcome, bool]]:
        """The outcome of the execution, once for all who wait for it; and whether it was joined."""
        if execution.identified is None and execution.job.heeds:
            return self._attended.run(execution)
        return self._flight.run(execution.place, execution)

    def _joined(self, call: Call, outcome: Outcome) -> None:
        totals = self._cache.totals
        totals.joins += 1
        totals.saved_ns += outcome.saved_ns or outcome.execute_ns
        totals.saved_usd += call.plan.cost_usd if outcome.cost_usd is None else outcome.cost_usd

    async def _execute(self, execution: Execution) -> Outcome:
        """What the flight runs: once for all who wait, here and on other machines."""
        job = execution.job
        if execution.identified is None:
            return self._outcome(execution, *await self._attempts.run(execution))
        if execution.refresh:
            return await self._renew(execution, execution.identified)
        key, scope = execution.identified.key, execution.identified.scope
        kept = await self._cache.fetch(key, job.result_type, scope)
        if kept is not None:
            return self._found(execution, kept)
        async with self._cache.claim(key, job.result_type, scope) as kept:
            if kept is not None:
                return self._found(execution, kept)
            return await self._compute(execution, execution.identified)

    async def _renew(self, execution: Execution, identified: Identified) -> Outcome:
        """Computes a result that is still served anew, unless another process does or did."""
        key, job = identified.key, execution.job
        async with self._cache.renewal(key, job.result_type, identified.scope) as ours:
            if ours:
                self._cache.totals.refreshes += 1
                return await self._compute(execution, identified)
        execution.needless = True
        self._pauses.begin(key)
        return self._outcome(execution, None, None)

    async def _compute(self, execution: Execution, identified: Identified) -> Outcome:
        since = self._cache.epoch
        value, error = await self._attempts.run(execution)
        if error is None:
            self._pauses.end(identified.key)
            self._store(execution, value, since)
        elif execution.refresh:
            self._pauses.lengthen(identified.key)
        return self._outcome(execution, value, error)

    def _found(self, execution: Execution, kept: Kept) -> Outcome:
        """The outcome of an execution that found a result instead of making one."""
        execution.snapshot = kept.snapshot
        hit = kept.hit
        return msgspec.structs.replace(
            self._outcome(execution, hit.value, None),
            source=hit.source,
            saved_ns=hit.cost_ns,
            saved_usd=hit.cost_usd or None,
        )

    def _store(self, execution: Execution, value: object, since: int) -> None:
        """Keeps the value for those who wait and, if it still holds, those who come later."""
        call, job, identified = execution.call, execution.job, execution.identified
        if identified is None:
            return
        try:
            ttl_s = call.plan.ttl_s
            if job.hints is not None:
                said = job.hints(value)
                if not may_share(call.scope.level, said):
                    self._cache.delete(identified.key)  # what was there is to be replaced by this
                    return
                ttl_s = narrow(self._cache.ttl_s(ttl_s), call.scope.level, said)
            if execution.provisional or not self._identity.holds(call, identified):
                ttl_s = 0.0
            execution.snapshot = self._cache.put(
                identified.key,
                value,
                ttl_s,
                job.result_type,
                self._about(execution, identified),
                since=since,
            )
            if execution.snapshot is None:  # there is no tier that keeps it
                execution.snapshot = Snapshot.take(value, job.result_type)
        except CodecError as exc:
            _log.info("a result of %s cannot be shared: %s", call.name, exc)
        except Exception:  # noqa: BLE001 (what cannot be kept must not cost the caller its value)
            _log.warning("a result of %s is not kept", call.name, exc_info=True)

    def _about(self, execution: Execution, identified: Identified) -> About:
        call, plan = execution.call, execution.call.plan
        return self._cache.about(
            About(
                name=call.name,
                scope=scope_text(identified.scope),
                summary=str(call.arguments.get("query", "")),
                tags=plan.effect.tags,
                cost_ns=execution.execute_ns,
                cost_usd=_cost_usd(execution) or 0.0,
            ),
            plan.stale_s,
            plan.stale_if_error_s
            if plan.stale_if_error_s is not None
            else execution.job.stale_if_error_s,
        )

    def _outcome(self, execution: Execution, value: object, error: PacelineError | None) -> Outcome:
        outcome = Outcome(
            execution.call.id,
            execution.call.name,
            Source.EXECUTED,
            value,
            error,
            execution.instance or self._instance,
            execution.attempts,
            execution.queue_ns,
            execution.execute_ns,
        )
        spent = execution.meter.spent if execution.meter is not None else None
        if spent is None:
            return outcome
        return msgspec.structs.replace(
            outcome,
            tokens=spent.tokens,
            cost_usd=spent.cost_usd,
            raw_usd=spent.raw_usd,
            unpriced=spent.unpriced,
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


def _cost_usd(execution: Execution) -> float | None:
    """What the value of an execution cost: what was measured, else the price by its plan."""
    spent = execution.meter.spent if execution.meter is not None else None
    if spent is not None and spent.cost_usd is not None:
        return spent.cost_usd
    return execution.call.plan.cost_usd or None
