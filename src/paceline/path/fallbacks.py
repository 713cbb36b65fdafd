"""What answers in place of a call that failed."""

import logging
from collections.abc import Awaitable, Callable
from typing import Final, Protocol, final

import msgspec

from paceline.balance.fallback import Answer, Fallback, falls_back
from paceline.cache.tiered import ResultCache
from paceline.call import Call, Outcome, Priority
from paceline.errors import PacelineError
from paceline.path.identity import Identity
from paceline.path.job import Execution, Job

__all__ = ["Fallbacks", "Other"]

_log = logging.getLogger("paceline")
_ANSWERS: Final = "%s failed (%s): %s answers"


class Other(Protocol):
    """Makes the call of another agent in place of one that failed."""

    def __call__(self, call: Call, name: str, /) -> tuple[Call, Job]:
        """The call, with the same input for the same caller. Raises PacelineError."""
        ...


@final
class Fallbacks:
    """Goes through the chain of a call's fallbacks until one of them answers."""

    __slots__ = ("_cache", "_identity", "_other", "_run")

    def __init__(
        self,
        cache: ResultCache,
        identity: Identity,
        run: Callable[[Call, Job], Awaitable[Outcome]],
        other: Other | None = None,
    ) -> None:
        """`run` is the call path; without `other` no other agents are asked."""
        self._cache = cache
        self._identity = identity
        self._run = run
        self._other = other

    async def answer(
        self, call: Call, execution: Execution, failed: Outcome, *, late: bool = False
    ) -> Outcome:
        """The outcome of the first that answers, else the one that failed. Who is `late` has no
        time to ask another agent."""
        error = failed.error
        if error is None or call.priority is Priority.SPECULATIVE:
            return failed
        for step in execution.job.fallback:
            if not falls_back(error, call.plan.effect, step):
                continue
            answered = await self._step(step, call, execution, failed, late=late)
            if answered is not None:
                _log.info(_ANSWERS, failed.name, error, step)
                return msgspec.structs.replace(answered, error=None, instead_of=error)
        return failed

    async def _step(
        self, step: Fallback, call: Call, execution: Execution, failed: Outcome, *, late: bool
    ) -> Outcome | None:
        if step.answer is Answer.TEXT:
            return msgspec.structs.replace(failed, value=step.value)
        if step.answer is Answer.STALE:
            return self._last(execution, failed)
        return None if late else await self._of_another(step.value, call, failed)

    def _last(self, execution: Execution, failed: Outcome) -> Outcome | None:
        """The last result, if it may still be served and nothing that it depends on changed
        meanwhile."""
        identified, job = execution.identified, execution.job
        if identified is None:
            return None
        if self._identity.of(execution.call, job.version) != identified:
            return None
        hit = self._cache.rescue(identified.key, job.result_type, identified.scope)
        if hit is None:
            return None
        return msgspec.structs.replace(
            failed,
            value=hit.value,
            source=hit.source,
            saved_ns=hit.cost_ns,
            saved_usd=hit.cost_usd or None,
        )

    async def _of_another(self, name: str, call: Call, failed: Outcome) -> Outcome | None:
        if self._other is None:
            return None
        try:
            instead, job = self._other(call, name)
        except PacelineError as exc:
            _log.warning("%s cannot answer in place of %s: %s", name, call.name, exc)
            return None
        outcome = await self._run(instead, job)
        if outcome.error is not None:
            return None
        return msgspec.structs.replace(
            failed, value=outcome.value, source=outcome.source, link=outcome.call_id
        )
