"""Keeps what executions made, for those who joined them and those who come later."""

import logging
from typing import final

from paceline.cache.entry import About
from paceline.cache.hints import may_share, narrow
from paceline.cache.snapshot import Snapshot
from paceline.cache.tiered import ResultCache, scope_text
from paceline.errors import CodecError
from paceline.path.ahead import Ahead
from paceline.path.identity import Identified, Identity
from paceline.path.job import Execution

__all__ = ["Keeping"]

_log = logging.getLogger("paceline")


@final
class Keeping:
    """Puts values into the cache, where they may be kept at all."""

    __slots__ = ("_ahead", "_cache", "_identity")

    def __init__(self, cache: ResultCache, identity: Identity, ahead: Ahead) -> None:
        """`ahead` is told of all that is kept while it knows of something."""
        self._cache = cache
        self._identity = identity
        self._ahead = ahead

    def store(
        self, execution: Execution, identified: Identified, value: object, *, since: int
    ) -> None:
        """Keeps the value for those who wait and, if it still holds, those who come later. `since` is
        the epoch of the cache in which it was begun."""
        call, job = execution.call, execution.job
        try:
            ttl_s = call.plan.ttl_s
            if job.hints is not None:
                said = job.hints(value)
                if not may_share(call.scope.level, said):
                    self._cache.delete(identified.key)  # what was there is to be replaced by this
                    return
                ttl_s = narrow(self._cache.ttl_s(ttl_s), call.scope.level, said)
            partial = execution.provisional or execution.failed
            if partial or not self._identity.holds(call, identified):
                ttl_s = 0.0
            execution.snapshot = self._cache.put(
                identified.key,
                value,
                ttl_s,
                job.result_type,
                self._about(execution, identified),
                since=since,
            )
            if execution.guess is not None or self._ahead.made:
                self._ahead.stored(execution, identified.key)
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
                cost_usd=execution.cost_usd or 0.0,
            ),
            plan.stale_s,
            plan.stale_if_error_s
            if plan.stale_if_error_s is not None
            else execution.job.stale_if_error_s,
        )
