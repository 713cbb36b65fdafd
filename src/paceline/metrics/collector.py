"""Collects the figures of calls by agent, while they run or replayed from a history.

The hot path is one append to a queue; what waits there is folded into sketches when it has
become much, or when somebody looks.
"""

import threading
from collections import deque
from collections.abc import Mapping
from typing import Final, final

import msgspec

from paceline.call import Call, Outcome, Source
from paceline.clock import Clock, SystemClock
from paceline.errors import Category
from paceline.metrics.sketch import Sketch

__all__ = ["OTHER", "AgentStats", "MetricsCollector", "Snapshot"]

OTHER: Final = "(other)"
"""Takes the calls of all names beyond the limit."""

_MAX_PENDING: Final = 1_024
_NS_PER_MS: Final = 1_000_000
_EXECUTED: Final = Source.EXECUTED
_CANCELLED: Final = Category.CANCELLED

_Entry = tuple[str, Source, Category | None, int, int, int]


class AgentStats(msgspec.Struct, frozen=True):
    """The figures of one agent at one moment. Sketches hold nanoseconds.

    Every call is in exactly one of `hits` (a value without an execution of its own), `fresh`
    (a value from its own execution), `errors` and `cancelled`. Times of hits, fresh values and
    errors are kept apart, so that fast hits do not hide slow executions. A cancelled call says
    nothing about its agent: it is counted, but is in no rate and no distribution.
    """

    name: str
    by_source: Mapping[Source, int]
    by_category: Mapping[Category, int]
    queue_ns: int
    """Time spent waiting for capacity, over all calls."""
    total: Sketch
    """From request to outcome, over `hit`, `fresh` and `failed`."""
    hit: Sketch
    fresh: Sketch
    failed: Sketch
    execute: Sketch
    """Time in the agent, of the calls that were executed."""

    @property
    def calls(self) -> int:
        """All calls."""
        return sum(self.by_source.values())

    @property
    def hits(self) -> int:
        """Calls that got a value without an execution of their own."""
        return self.hit.count

    @property
    def errors(self) -> int:
        """Calls that failed; a cancelled call did not."""
        return self.failed.count

    @property
    def cancelled(self) -> int:
        """Calls that nobody waited for any more."""
        return self.by_category.get(_CANCELLED, 0)

    @property
    def cache_hit_rate(self) -> float | None:
        """Share of hits among the calls that were not cancelled; None if there are none."""
        return self.hits / self.total.count if self.total.count else None

    @property
    def error_rate(self) -> float | None:
        """Share of errors among the calls that were not cancelled; None if there are none."""
        return self.errors / self.total.count if self.total.count else None

    @property
    def avg_ms(self) -> float | None:
        """Mean of `total`, in milliseconds."""
        mean_ns = self.total.mean
        return None if mean_ns is None else mean_ns / _NS_PER_MS


class Snapshot(msgspec.Struct, frozen=True):
    """The figures of all agents at one moment, by name in alphabetical order."""

    agents: Mapping[str, AgentStats]
    uptime_ns: int
    """How long had been collected."""

    @property
    def totals(self) -> AgentStats:
        """The figures of all agents together, under the name ""."""
        together = _Series()
        for stats in self.agents.values():
            together.merge(stats)
        return together.stats("")


@final
class MetricsCollector:
    """Collects figures; `observe` is an observer of the call path.

    Calls of more than `max_agents` names are counted under `OTHER`, so memory is bounded.
    Calls may come from any thread, snapshots be taken on another: nothing is lost, and a
    snapshot has every call that was recorded before it.
    """

    __slots__ = ("_agents", "_folding", "_max_agents", "_pending", "_started_ns", "clock")

    def __init__(self, *, clock: Clock | None = None, max_agents: int = 1_000) -> None:
        self.clock = clock or SystemClock()
        self._max_agents = max_agents
        self._agents: dict[str, _Series] = {}
        # A deque, because its append and popleft are atomic: no call is lost between threads.
        self._pending: deque[_Entry] = deque()
        self._folding = threading.Lock()
        self._started_ns = self.clock.monotonic_ns()

    def observe(self, call: Call, outcome: Outcome) -> None:  # noqa: ARG002 (the observer's form)
        """Records what came of a call."""
        error = outcome.error
        self._pending.append(
            (
                outcome.name,
                outcome.source,
                None if error is None else error.category,
                outcome.queue_ns,
                outcome.execute_ns,
                outcome.total_ns,
            )
        )
        if len(self._pending) >= _MAX_PENDING:
            self._try_fold()

    def add(
        self,
        name: str,
        *,
        source: Source,
        category: Category | None,
        queue_ns: int,
        execute_ns: int,
        total_ns: int,
    ) -> None:
        """Records a call known by its figures; `category` is its error's, None for a value."""
        self._pending.append((name, source, category, queue_ns, execute_ns, total_ns))
        if len(self._pending) >= _MAX_PENDING:
            self._try_fold()

    def snapshot(self) -> Snapshot:
        """The figures of all calls recorded so far; later calls do not change it."""
        with self._folding:
            self._fold()
            agents = {name: self._agents[name].stats(name) for name in sorted(self._agents)}
        return Snapshot(agents, self.clock.monotonic_ns() - self._started_ns)

    def reset(self) -> None:
        """Forgets everything recorded so far."""
        with self._folding:
            self._fold()
            self._agents.clear()
            self._started_ns = self.clock.monotonic_ns()

    def _try_fold(self) -> None:
        """Folds unless another thread does: a call never waits for a snapshot."""
        if self._folding.acquire(blocking=False):
            try:
                self._fold()
            finally:
                self._folding.release()

    def _fold(self) -> None:
        # What is there now and no more, so that busy callers cannot keep it going for ever.
        for _ in range(len(self._pending)):
            name, source, category, queue_ns, execute_ns, total_ns = self._pending.popleft()
            agent = self._agents.get(name) or self._new_agent(name)
            agent.add(source, category, queue_ns, execute_ns, total_ns)

    def _new_agent(self, name: str) -> "_Series":
        name = name if len(self._agents) < self._max_agents else OTHER
        return self._agents.setdefault(name, _Series())


@final
class _Series:
    """The figures of one agent while they grow. Used under the collector's lock."""

    __slots__ = ("by_category", "by_source", "execute", "failed", "fresh", "hit", "queue_ns")

    def __init__(self) -> None:
        self.by_source: dict[Source, int] = {}
        self.by_category: dict[Category, int] = {}
        self.queue_ns = 0
        self.hit = Sketch()
        self.fresh = Sketch()
        self.failed = Sketch()
        self.execute = Sketch()

    def add(
        self,
        source: Source,
        category: Category | None,
        queue_ns: int,
        execute_ns: int,
        total_ns: int,
    ) -> None:
        self.by_source[source] = self.by_source.get(source, 0) + 1
        self.queue_ns += queue_ns
        if category is None:
            (self.fresh if source is _EXECUTED else self.hit).add(total_ns)
        else:
            self.by_category[category] = self.by_category.get(category, 0) + 1
            if category is _CANCELLED:
                return
            self.failed.add(total_ns)
        # An error may come before anything was executed.
        if source is _EXECUTED and (category is None or execute_ns):
            self.execute.add(execute_ns)

    def merge(self, stats: AgentStats) -> None:
        for source, count in stats.by_source.items():
            self.by_source[source] = self.by_source.get(source, 0) + count
        for category, count in stats.by_category.items():
            self.by_category[category] = self.by_category.get(category, 0) + count
        self.queue_ns += stats.queue_ns
        for ours, theirs in (
            (self.hit, stats.hit),
            (self.fresh, stats.fresh),
            (self.failed, stats.failed),
            (self.execute, stats.execute),
        ):
            ours.merge(theirs)

    def stats(self, name: str) -> AgentStats:
        total = Sketch()
        for part in (self.hit, self.fresh, self.failed):
            total.merge(part)
        return AgentStats(
            name,
            dict(self.by_source),
            dict(self.by_category),
            self.queue_ns,
            total,
            self.hit.copy(),
            self.fresh.copy(),
            self.failed.copy(),
            self.execute.copy(),
        )
