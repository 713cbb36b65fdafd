"""The calls' way: look up, join, execute, store, observe.

Every execution runs in a task that the flight owns; callers wait for it, each with its own
deadline and its own cancellation. That gives single-flight, hand-over from a cancelled leader,
deadlines and a clean close by one mechanism: work goes on exactly as long as someone waits. What
nobody can join and what `heeds` its cancellation is done in its caller's own task.
"""

import asyncio
import functools
import logging
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, Final, final

import msgspec

from paceline.cache.flight import SingleFlight
from paceline.cache.statistics import Totals
from paceline.cache.tiered import Hit, Kept, ResultCache
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
from paceline.path.ahead import Ahead, speculated
from paceline.path.attempts import Attempts
from paceline.path.fallbacks import Fallbacks, Other
from paceline.path.identity import Identified, Identity
from paceline.path.job import Execution, Held, Job, place
from paceline.path.keeping import Keeping
from paceline.path.limit import Limit, Limits
from paceline.path.pauses import Pauses
from paceline.path.refreshes import Refreshes

__all__ = ["CallPath", "Observer"]

Observer = Callable[[Call, Outcome], None]

_log = logging.getLogger("paceline")
_NOTHING: Final[Held] = frozenset()
# Asking an enum for a member takes longer than comparing with it.
_EXECUTED: Final = Source.EXECUTED
_SPECULATIVE: Final = Priority.SPECULATIVE


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
        self._now_ns = clock.monotonic_ns
        self._cache = cache
        self._identity = identity
        self._attempts = attempts
        self._flight: SingleFlight[object, Outcome] = SingleFlight()
        self._limits = Limits(clock)
        """Those of who waits for the flight, and of what it runs."""
        self._attended = Limits(clock)
        """Those of what is run in the tasks of its callers."""
        self._observers = tuple(observers)
        self._began = began
        self._instance = instance
        self._pauses = Pauses(clock)
        self._refreshes = Refreshes(self._flight, self._pauses, self._renewed)
        self._ahead = Ahead(cache, clock.monotonic_ns)
        self._made_ahead = self._ahead.made
        self._keeping = Keeping(cache, identity, self._ahead)
        self._fallbacks = Fallbacks(cache, identity, self.run, other)

    def run(self, call: Call, job: Job, *, use_cache: bool = True) -> Coroutine[Any, Any, Outcome]:
        """The outcome of a call, once it is awaited. Raises nothing but the caller's own
        cancellation."""
        ahead = call.priority is _SPECULATIVE or self._ahead.running
        if ahead or (use_cache and call.plan.cacheable):
            return self._look_up(call, job, use_cache=use_cache)
        # A coroutine more is memory while it runs, and time at each of its awaits.
        execution = self._unshared(call, job, self._outer(call))
        return self._wait(call, execution, self._now_ns())

    async def _look_up(self, call: Call, job: Job, *, use_cache: bool) -> Outcome:
        """The outcome of a call that may be there already, or be part of what nobody asked for."""
        if call.priority is _SPECULATIVE or self._ahead.running:
            part_of = self._ahead.part_of(self._attempts.running(call.parent_id))
            if part_of is not None or call.priority is _SPECULATIVE:
                return await self._run_ahead(speculated(call), job, part_of, use_cache=use_cache)
            if not call.plan.effect.repeatable:
                self._ahead.changes(call)
        start_ns = self._now_ns()
        identified = None
        if use_cache and call.plan.cacheable:
            identified = self._identity.of(call, job.version)
            if identified is not None:
                hit = self._cache.get(identified.key, job.result_type, identified.scope)
                if hit is not None:
                    return self._hit(call, job, identified, hit, start_ns)
                if self._made_ahead:
                    self._ahead.forget(identified.key)  # it is gone
        return await self._wait(call, self._execution(call, job, identified), start_ns)

    def _hit(
        self, call: Call, job: Job, identified: Identified, hit: Hit, start_ns: int
    ) -> Outcome:
        """The outcome of a call that has its result in memory."""
        if hit.aging:
            self._refreshes.begin(call, job, identified)
        outcome = _served(call, hit, self._now_ns() - start_ns)
        if self._made_ahead:
            outcome = self._ahead.used(outcome, identified.key, hit)
        return self._observe(call, outcome)

    async def _run_ahead(
        self, call: Call, job: Job, part_of: Execution | None, *, use_cache: bool
    ) -> Outcome:
        """The outcome of a call that nobody asked for, or that is part of one."""
        start_ns = self._now_ns()
        identified = None
        if use_cache and call.plan.cacheable:
            identified = self._identity.of(call, job.version)
        outer = self._outer(call)
        found = (
            None if identified is None else self._flight.joinable(place(call, identified, outer))
        )
        found = found if isinstance(found, Execution) else None
        if (error := self._ahead.refusal(call, identified, found, part_of)) is not None:
            return self.refuse(call, error)
        hit = None if identified is None else self._ahead.look(identified, job.result_type)
        there = None if hit is None else _served(call, hit, self._now_ns() - start_ns)
        if there is not None and part_of is not None:
            return self._observe(call, there)
        if there is not None and self._ahead.left_s(identified) >= job.lasting_s:
            return there  # nothing was done, and nobody asked
        execution = self._execution(call, job, identified)
        execution.refresh |= there is not None and execution.call is call
        end = functools.partial(self._flight.end, execution.place, execution)
        with self._ahead.begun(execution, call, part_of, end):
            outcome = self._ahead.ended(await self._wait(call, execution, start_ns), part_of)
        return there if there is not None and execution.needless else outcome

    def left_s(self, call: Call, job: Job) -> float:
        """For how many more seconds what is there for it is valid; infinite where nothing ends."""
        return self._ahead.left_s(self._identity.of(call, job.version))

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
        await self._refreshes.close()
        await self._limits.close(grace_s=0.0)  # the flight has waited for what they bound

    async def _renewed(self, call: Call, job: Job, identified: Identified) -> Outcome:
        """The outcome of a call that replaces a result which is still there."""
        execution = Execution(
            self._execute, call, job, identified, _NOTHING, None, call.priority, refresh=True
        )
        return await self._wait(call, execution, self._now_ns())

    async def _wait(self, call: Call, execution: Execution, start_ns: int) -> Outcome:
        """Does, leads or joins an execution, and leaves it at the call's own deadline."""
        self._began(call)
        alone = execution.identified is None and execution.job.heeds
        try:
            with Limit(self._attended if alone else self._limits, call.deadline_ns) as limit:
                if alone:
                    value, error = await self._attempts.first(execution, limit)
                    if error is not None:
                        value, error = await self._attempts.others(execution, limit, error)
                    if error is None:
                        return self._over(call, self._outcome(execution, value, None, start_ns))
                    outcome = self._outcome(execution, None, error)
                    outcome = await self._fallbacks.answer(call, execution, outcome)
                else:
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
                self._over(call, self._timed(call, outcome, start_ns))
                raise
        if execution.needless and execution.call is call:
            return outcome  # nothing was done, and nobody asked
        if outcome.instead_of is not None:
            self._attempts.taint(call)
        return self._over(call, self._timed(call, outcome, start_ns))

    def _over(self, call: Call, outcome: Outcome) -> Outcome:
        """The outcome of what was executed, observed."""
        made = self._made_ahead or self._ahead.running
        if made and outcome.attempts and not call.plan.effect.repeatable:
            self._ahead.changed(call)
        return self._observe(call, outcome)

    def _execution(self, call: Call, job: Job, identified: Identified | None) -> Execution:
        """The execution of this work that can be joined, else a new one."""
        outer = self._outer(call)
        if identified is None:
            return self._unshared(call, job, outer)
        found = self._flight.joinable(place(call, identified, outer))
        if not isinstance(found, Execution):
            deadline_ns, priority = call.deadline_ns, call.priority
            return Execution(self._execute, call, job, identified, outer, deadline_ns, priority)
        if found.guess is not None and call.priority > _SPECULATIVE:
            found.guess.join(call.id, found.ran_ns(self._now_ns()))
        found.join(call.deadline_ns, call.priority)
        return found

    def _unshared(self, call: Call, job: Job, outer: Held) -> Execution:
        return Execution(self._execute, call, job, None, outer, call.deadline_ns, call.priority)

    def _outer(self, call: Call) -> Held:
        """The places that the calls around this one have."""
        parent = self._attempts.running(call.parent_id)
        return parent.held if parent is not None else _NOTHING

    async def _share(self, call: Call, execution: Execution) -> Outcome:
        """The outcome of the execution, with a value of the caller's own."""
        while True:
            outcome, joined = await self._flight.run(execution.place, execution)
            if execution.provisional:
                self._attempts.taint(call)
            if execution.refresh and execution.call is call:
                return outcome  # nobody waits for it
            if not joined:
                return await self._fallbacks.answer(call, execution, outcome)
            refused = isinstance(outcome.error, BudgetExceededError) and not outcome.attempts
            if refused and (mine := self._attempts.refusal(call)) is not None:
                return msgspec.structs.replace(outcome, error=mine)
            if refused or _undone(call, execution, outcome):
                execution = self._execution(call, execution.job, execution.identified)
                continue
            value = None
            if outcome.error is None:
                try:
                    value = execution.copy()
                except CodecError:  # so each caller has to have it made
                    execution = self._unshared(call, execution.job, execution.outer)
                    continue
                _count_join(self._cache.totals, call, outcome)
            shared = _joined(execution, outcome, value)
            shared = self._ahead.joined(call, shared, outcome, execution)
            return await self._fallbacks.answer(call, execution, shared)

    async def _execute(self, execution: Execution) -> Outcome:
        """What the flight runs: once for all who wait, here and on other machines."""
        with Limit(self._limits) as limit:
            if execution.identified is None:
                return self._outcome(execution, *await self._attempts.run(execution, limit))
            if execution.refresh:
                return await self._renew(execution, execution.identified, limit)
            return await self._make(execution, execution.identified, limit)

    async def _make(self, execution: Execution, identified: Identified, limit: Limit) -> Outcome:
        """Finds a result where others may have put it meanwhile, or computes it."""
        key, kind, scope = identified.key, execution.job.result_type, identified.scope
        kept = await self._cache.fetch(key, kind, scope)
        if kept is not None:
            return self._found(execution, kept)
        async with self._cache.claim(key, kind, scope) as kept:
            if kept is not None:
                return self._found(execution, kept)
            return await self._compute(execution, identified, limit)

    async def _renew(self, execution: Execution, identified: Identified, limit: Limit) -> Outcome:
        """Computes a result that is still served anew, unless another process does or did."""
        key, job = identified.key, execution.job
        async with self._cache.renewal(key, job.result_type, identified.scope) as ours:
            if ours:
                self._cache.totals.refreshes += 1
                return await self._compute(execution, identified, limit)
        execution.needless = True
        self._pauses.begin(key)
        return self._outcome(execution, None, None)

    async def _compute(self, execution: Execution, identified: Identified, limit: Limit) -> Outcome:
        since = self._cache.epoch
        value, error = await self._attempts.run(execution, limit)
        if error is None:
            self._pauses.end(identified.key)
            self._keeping.store(execution, identified, value, since=since)
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

    def _outcome(
        self,
        execution: Execution,
        value: object,
        error: PacelineError | None,
        start_ns: int | None = None,
    ) -> Outcome:
        """What came of it; for a call that asked at `start_ns`, where that is known."""
        call = execution.call
        meter = execution.meter
        spent = None if meter is None else meter.spent
        outcome = Outcome(
            call.id,
            call.name,
            _EXECUTED,
            value,
            error,
            execution.instance or self._instance,
            execution.attempts,
            execution.queue_ns,
            execution.execute_ns,
            0 if start_ns is None else self._now_ns() - start_ns,
        )
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
        outcome, now_ns = self._outcome(execution, None, error), self._now_ns()
        if execution.queued_ns is not None:
            waited_ns = outcome.queue_ns + now_ns - execution.queued_ns
            return msgspec.structs.replace(outcome, queue_ns=waited_ns)
        if execution.started_ns is not None:
            run_ns = outcome.execute_ns + now_ns - execution.started_ns
            return msgspec.structs.replace(outcome, execute_ns=run_ns)
        return outcome

    def _timed(self, call: Call, outcome: Outcome, start_ns: int) -> Outcome:
        total_ns = self._now_ns() - start_ns
        return msgspec.structs.replace(outcome, call_id=call.id, total_ns=total_ns)

    def _observe(self, call: Call, outcome: Outcome) -> Outcome:
        for observe in self._observers:
            try:
                observe(call, outcome)
            except Exception:  # noqa: BLE001 (measuring must never change what is measured)
                _log.warning("an observer failed on %s", call.name, exc_info=True)
        return outcome


def _served(call: Call, hit: Hit, took_ns: int) -> Outcome:
    return Outcome(
        call.id,
        call.name,
        hit.source,
        hit.value,
        total_ns=took_ns,
        saved_ns=hit.cost_ns,
        saved_usd=hit.cost_usd or None,
    )


def _joined(execution: Execution, outcome: Outcome, value: object) -> Outcome:
    """The outcome of a call that joined another one's execution, with its own value."""
    return msgspec.structs.replace(
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
        saved_usd=execution.cost_usd,
    )


def _count_join(totals: Totals, call: Call, outcome: Outcome) -> None:
    if call.priority is _SPECULATIVE:  # nobody's request
        return
    totals.joins += 1
    totals.saved_ns += outcome.saved_ns or outcome.execute_ns
    totals.saved_usd += call.plan.cost_usd if outcome.cost_usd is None else outcome.cost_usd


def _undone(call: Call, execution: Execution, outcome: Outcome) -> bool:
    """Whether what came of the execution that was joined is no answer to this call."""
    if execution.needless or _cut_short(call, execution, outcome):
        return True
    return execution.failed and call.priority > _SPECULATIVE


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
