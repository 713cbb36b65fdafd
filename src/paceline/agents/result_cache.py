"""`AgentCache`: results of agents by name and input, and figures of their calls.

For bots that call their agents themselves. A runtime does all this on its own.
"""

import math
from collections.abc import Awaitable, Callable
from typing import Any, Final, Generic, NamedTuple, TypeVar, cast, final

from paceline.agents.call_log import CallLog, Execution
from paceline.agents.context import check_context
from paceline.agents.kept_results import Hit, KeptResult, KeptResults, SharedResults
from paceline.cache.flight import SingleFlight
from paceline.cache.keys import digest
from paceline.cache.memory.tier import MemoryStats, lifetime_ns
from paceline.call import Caller, Scope, ScopeLevel, Source
from paceline.clock import Clock, SystemClock
from paceline.errors import InvalidInputError
from paceline.metrics.collector import MetricsCollector

__all__ = ["AgentCache"]

T = TypeVar("T")

_NS_PER_MS: Final = 1_000_000


class _Made(NamedTuple, Generic[T]):
    """What a flight brought: the value of who waited first, and how the others get theirs."""

    value: T
    kept: KeptResult | None
    success: bool


@final
class AgentCache:
    """Keeps the `max_entries` results used last, each for `default_ttl` seconds if not told
    otherwise, and the figures of the calls that are logged.

    A result is found by those who give the same agent, input, further arguments (`context`) and
    circle, and by nobody else. The circle is `user`, or what `scope` says: a whole `Scope`, or
    `"global"` for what is the same for everybody. Without either it is that of all who name
    nobody, so who serves several people has to name them. A keyword that is an option elsewhere,
    such as `ttl`, or nearly one here, is refused with InvalidInputError: it is no argument.

    Results are what callers put: an error message that is put as a result is served as one. What
    is handed out is a copy where it can be changed. Inputs and context need a canonical form
    (`paceline.cache.keys`), else UnkeyableError is raised. Safe to use from several threads and
    event loops; a `shared` tier belongs to the loop it was opened on, and its changes are told
    to `forget`. Other processes find a result there under the same key; without it, or while it
    is away, this process goes on alone.
    """

    def __init__(
        self,
        max_entries: int = 500,
        default_ttl: float = 300,
        enable_metrics: bool = True,  # noqa: FBT001, FBT002 (the signature of old)
        *,
        clock: Clock | None = None,
        shared: SharedResults | None = None,
        collector: MetricsCollector | None = None,
    ) -> None:
        self.max_entries = max_entries
        self.default_ttl = default_ttl
        self.enable_metrics = enable_metrics
        self._clock = clock or SystemClock()
        self._default_ns = lifetime_ns(default_ttl)
        self.metrics = collector or MetricsCollector(clock=self._clock)
        """What the figures are collected in, to be shown by `paceline.metrics.report`."""
        self._log = CallLog(self.metrics, clock=self._clock, enabled=enable_metrics)
        self._results = KeptResults(max_entries, clock=self._clock, shared=shared)
        self._flights = SingleFlight[tuple[int, bytes], _Made[Any]]()

    def __repr__(self) -> str:
        return f"AgentCache({len(self)}/{self.max_entries} results)"

    def __len__(self) -> int:
        """Results kept in this process."""
        return len(self._results.tier)

    async def get(
        self,
        agent_name: str,
        input_data: object,
        ttl_seconds: float | None = None,
        *,
        scope: Scope | ScopeLevel | str | None = None,
        user: str | None = None,
        **context: object,
    ) -> Any:
        """The result that is kept, None if there is none; see `lookup`."""
        key = _key(agent_name, input_data, _circle(scope, user), context)
        hit = await self._results.find(key, agent_name, _max_age_ns(ttl_seconds))
        return None if hit is None else hit.value

    async def lookup(
        self,
        agent_name: str,
        input_data: object,
        ttl_seconds: float | None = None,
        *,
        scope: Scope | ScopeLevel | str | None = None,
        user: str | None = None,
        **context: object,
    ) -> Hit | None:
        """The result that is kept, if it was stored less than `ttl_seconds` ago (None: however
        long). None only if there is nothing."""
        key = _key(agent_name, input_data, _circle(scope, user), context)
        return await self._results.find(key, agent_name, _max_age_ns(ttl_seconds))

    async def put(
        self,
        agent_name: str,
        input_data: object,
        result: object,
        ttl_seconds: float | None = None,
        *,
        scope: Scope | ScopeLevel | str | None = None,
        user: str | None = None,
        **context: object,
    ) -> None:
        """Keeps a result for `ttl_seconds`: None is the default, 0 stores nothing.

        Raises CodecError for a result that can be neither encoded nor copied.
        """
        key = _key(agent_name, input_data, _circle(scope, user), context)
        await self._results.keep(
            key, agent_name, result, self._ttl_ns(ttl_seconds), self._results.tier.epoch
        )

    async def delete(
        self,
        agent_name: str,
        input_data: object,
        *,
        scope: Scope | ScopeLevel | str | None = None,
        user: str | None = None,
        **context: object,
    ) -> bool:
        """Removes a result, everywhere; whether this process had it."""
        key = _key(agent_name, input_data, _circle(scope, user), context)
        return await self._results.delete(key)

    async def get_or_run(
        self,
        agent_name: str,
        input_data: object,
        fn: Callable[[], Awaitable[T]],
        ttl_seconds: float | None = None,
        *,
        is_success: Callable[[T], bool] | None = None,
        scope: Scope | ScopeLevel | str | None = None,
        user: str | None = None,
        **context: object,
    ) -> T:
        """The result that is kept, or of a run under way, or of `fn()`, which is then kept.

        What `fn` raises is raised by all who wait, and not kept; nor is a result that is no
        success, such as an error message. If somebody removes it meanwhile, it is handed out and
        not kept. The call is logged.
        """
        key = _key(agent_name, input_data, _circle(scope, user), context)
        start_ns = self._clock.monotonic_ns()
        ttl_ns = self._ttl_ns(ttl_seconds)
        source, success, error = Source.EXECUTED, False, None

        async def make() -> _Made[T]:
            epoch = self._results.tier.epoch
            entry = self._results.tier.peek(key) if ttl_ns else None
            if entry is not None:  # another run has come to its end since we looked
                return _Made(entry.value.thaw(), entry.value, success=True)
            value = await fn()
            if is_success is not None and not is_success(value):
                return _Made(value, self._results.hold(value), success=False)
            kept = await self._results.keep(key, agent_name, value, ttl_ns, epoch, strict=False)
            return _Made(value, kept, success=True)

        try:
            hit = await self._results.find(key, agent_name, None) if ttl_ns else None
            if hit is not None:
                source, success = hit.source, True
                return cast("T", hit.value)
            made, joined = await self._flights.run((self._results.tier.epoch, key), make)
            success = made.success
            if not joined:
                return cast("T", made.value)
            source = Source.JOINED
            return cast("T", made.value if made.kept is None else made.kept.thaw())
        except BaseException as exc:
            error = exc
            raise
        finally:
            took_ns = self._clock.monotonic_ns() - start_ns
            self._log.record(agent_name, input_data, took_ns, source, error, success=success)

    async def log_execution(  # noqa: PLR0917 (as above)
        self,
        agent_name: str,
        input_data: object,
        execution_time_ms: float,
        success: bool,  # noqa: FBT001 (the signature of old)
        error: str | None = None,
        cached: bool = False,  # noqa: FBT001, FBT002
    ) -> None:
        """Records a call; nothing with `enable_metrics` off.

        Raises InvalidInputError for a time that is none.
        """
        if not (math.isfinite(execution_time_ms) and execution_time_ms >= 0):
            raise InvalidInputError(f"an execution takes no {execution_time_ms} ms")
        took_ns = round(execution_time_ms * _NS_PER_MS)
        source = Source.HOT if cached else Source.EXECUTED
        self._log.record(agent_name, input_data, took_ns, source, error, success=success)

    def get_agent_stats(self, agent_name: str | None = None) -> dict[str, Any]:
        """The figures of an agent, empty if nothing was logged of it; without a name, those of
        all by name.

        Rates are 0..1, times milliseconds. `avg_execution_time_ms` is over all calls, as callers
        waited. `cached_ms`, `executed_ms` and `failed_ms` tell apart what it mixes: each is None
        or has `avg`, `p50`, `p95` and `p99`.
        """
        figures = self._log.figures()
        return figures if agent_name is None else figures.get(agent_name, {})

    def get_all_stats(self) -> dict[str, Any]:
        """The figures of all agents by name."""
        return self.get_agent_stats()

    def stats(self) -> MemoryStats:
        """What is kept in this process, and how often it was found."""
        return self._results.tier.stats()

    def recent(self, agent_name: str | None = None) -> list[Execution]:
        """The last 1,000 calls that were logged, or those of one agent among them."""
        return self._log.recent(agent_name)

    async def clear_agent(self, agent_name: str) -> int:
        """Removes all results of an agent and no other, everywhere; how many there were, as far
        as is known."""
        return await self._results.clear_agent(agent_name)

    async def clear(self) -> int:
        """Removes all results, in the shared tier too; how many this process had. Figures stay."""
        return await self._results.clear()

    def forget(self, key: bytes | None) -> None:
        """Forgets the result under a key of the shared tier, or all: for its `on_invalidated`."""
        self._results.forget(key)

    def _ttl_ns(self, ttl_seconds: float | None) -> int:
        return self._default_ns if ttl_seconds is None else lifetime_ns(ttl_seconds)


def _max_age_ns(ttl_seconds: float | None) -> int | None:
    return None if ttl_seconds is None else lifetime_ns(ttl_seconds)


def _circle(scope: Scope | ScopeLevel | str | None, user: str | None) -> Scope:
    if isinstance(scope, Scope):
        if user is None:
            return scope
        raise InvalidInputError("a whole scope names its user; give no other")
    if scope == ScopeLevel.GLOBAL:
        return Scope(ScopeLevel.GLOBAL)
    if scope is None or (scope == ScopeLevel.USER and user is not None):
        return Scope.of(Caller(user=user), None)
    raise InvalidInputError(
        f"scope {scope!r} does not say with whom to share",
        next_step='Use "global", "user" with a user, or a whole Scope with its tenant or session.',
    )


def _key(agent_name: str, input_data: object, circle: Scope, context: dict[str, object]) -> bytes:
    check_context(context)
    return digest(("agent result", agent_name, input_data, circle, context))
