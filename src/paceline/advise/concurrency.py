"""How many calls should run at once: replays of the recorded calls with more room."""

import bisect
import heapq
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from statistics import median
from typing import Final, NamedTuple

from paceline.advise.advice import LEAST, Advice, Change, Confidence, confidence
from paceline.advise.calls import NS, Callee, executed, outermost, quantile
from paceline.advise.declared import Known
from paceline.call import Kind
from paceline.errors import OverloadedError
from paceline.history.record import Record

__all__ = ["concurrency", "waited_ns"]

_NOTICED_NS: Final = 1_000_000
_LONG: Final = 0.1
"""Of the time executing takes: waiting for less is not worth a change."""
_EXPLAINED: Final = 0.5
"""The share of the recorded waiting that a limit has to explain."""
_SLOWER: Final = 1.5
"""An agent that takes so many times longer when it is busy gets no faster by more calls at once."""
_LEFT: Final = 0.1
_MOST: Final = 8
_AT_LIMIT: Final = re.compile(r" is at its limit of (\d+) at once")
_OVERLOADED: Final = f"{OverloadedError.__module__}.{OverloadedError.__qualname__}"


class _Limit(NamedTuple):
    """One limit of how many run at once: how errors call it, who waits there, how to change it."""

    name: str
    callee: Callee | None
    capacity: int
    where: Change
    executed: Sequence[Record]
    refused: Sequence[Record]

    def with_room(self, capacity: int) -> Change:
        return Change(self.where.where, self.where.name, capacity)


def concurrency(callees: Sequence[Callee], known: Known) -> Iterator[Advice]:
    """Limits at which calls waited long, or were refused, while executing them stayed fast."""
    for limit in _limits(callees, known):
        yield from _of_limit(limit)


def waited_ns(arrivals: Iterable[tuple[int, int]], capacity: int) -> int:
    """How long calls wait in all, first come first served, when so many run at once. Each is the
    moment it comes and what executing it takes; in order of these moments."""
    ends: list[int] = []
    total = 0
    for at, took in arrivals:
        start = at
        if len(ends) >= capacity:
            start = max(at, heapq.heappop(ends))
        heapq.heappush(ends, start + took)
        total += start - at
    return total


def _limits(callees: Sequence[Callee], known: Known) -> Iterator[_Limit]:
    run = known.settings.run
    everything = [call for callee in callees for call in callee.calls]
    refused: defaultdict[str, list[Record]] = defaultdict(list)
    for call in everything:
        if call.error_type == _OVERLOADED and not call.attempts:
            refused[(call.message or "").partition(" is at its limit")[0]].append(call)
    for callee in callees:
        if callee.kind is Kind.MODEL:
            continue  # its limit is no declaration
        name = f"{callee.kind} {callee.name}"
        capacity = known.of(callee).max_concurrency or _stated(refused[name])
        if capacity is not None:
            where = known.change(callee, "MAX_CONCURRENCY", capacity)
            ran = list(filter(executed, callee.calls))
            yield _Limit(name, callee, capacity, where, ran, refused[name])
    threaded = [call for call in everything if known.of(call).in_threads and executed(call)]
    name = "the threads for synchronous agents"
    where = Change("settings", "run.threads", run.threads)
    yield _Limit(name, None, run.threads, where, threaded, refused[name])
    name = "the runtime"
    where = Change("settings", "run.max_concurrency", run.max_concurrency)
    # Calls in the course of others use the places of those.
    own = [call for call in everything if outermost(call) and executed(call)]
    yield _Limit(name, None, run.max_concurrency, where, own, refused[name])


def _stated(refused: Sequence[Record]) -> int | None:
    """The limit as the last call that was refused was told of it; None where none was."""
    for call in reversed(refused):
        if found := _AT_LIMIT.search(call.message or ""):
            return int(found[1])
    return None


def _of_limit(limit: _Limit) -> Iterator[Advice]:
    # What was executed more than once paused in between: nobody knows when it waited.
    calls = [call for call in limit.executed if call.attempts == 1]
    late = [call for call in calls if call.queue_ns >= max(_NOTICED_NS, _LONG * call.execute_ns)]
    if max(len(late), len(limit.refused)) < LEAST or not calls:
        return
    took_ns = round(median(call.execute_ns for call in calls))
    if _slower_when_busy(calls, late):
        return
    queues = _arrivals(calls, limit.refused, took_ns)
    now_ns = _total_ns(queues, limit.capacity)
    recorded_ns = sum(call.queue_ns for call in calls)
    if now_ns < _EXPLAINED * recorded_ns or now_ns < _LONG * sum(c.execute_ns for c in late):
        return
    larger = range(limit.capacity + 1, limit.capacity * _MOST + 1)
    found = bisect.bisect_left(
        larger, -_LEFT * now_ns, key=lambda capacity: -_total_ns(queues, capacity)
    )
    capacity = larger[min(found, len(larger) - 1)]
    gain = 1 - _total_ns(queues, capacity) / now_ns
    waits = sorted(call.queue_ns for call in late)
    yield Advice(
        rule="concurrency",
        agent=None if limit.callee is None else limit.callee.name,
        kind=Kind.AGENT if limit.callee is None else limit.callee.kind,
        what=f"let {capacity:,} run at once, not {limit.capacity:,}",
        why=_why(limit, late, took_ns),
        changes=(limit.with_room(capacity),),
        first="What it calls has to bear as many at once.",
        evidence={
            "executions": len(calls),
            "waited": len(late),
            "refused": len(limit.refused),
            "queue_p50_s": quantile(waits, 0.5) / NS if waits else 0.0,
            "execute_p50_s": took_ns / NS,
            "capacity": limit.capacity,
        },
        confidence=confidence(
            max(len(late), len(limit.refused)),
            Confidence.HIGH if len(calls) - len(late) >= LEAST else Confidence.LOW,
        ),
        saved_s=gain * recorded_ns / NS,
    )


def _why(limit: _Limit, late: Sequence[Record], took_ns: int) -> str:
    said: list[str] = []
    if late:
        wait_ns = median(call.queue_ns for call in late)
        said.append(
            f"{len(late):,} of {len(limit.executed):,} executions waited, half of them"
            f" {wait_ns / NS:.3g} s or more, for work of {took_ns / NS:.3g} s"
        )
    if limit.refused:
        said.append(f"{len(limit.refused):,} calls were refused because the queue was full")
    return "; ".join(said)


def _slower_when_busy(calls: Sequence[Record], late: Sequence[Record]) -> bool:
    """Whether what had to wait, and so ran beside as many as may, took longer than the rest."""
    waited = {id(call) for call in late}
    alone = [call.execute_ns for call in calls if id(call) not in waited]
    if min(len(alone), len(late)) < LEAST:
        return False
    return median(call.execute_ns for call in late) > _SLOWER * median(alone)


def _arrivals(
    calls: Sequence[Record], refused: Sequence[Record], took_ns: int
) -> list[list[tuple[int, int]]]:
    """When calls came and what they take, for each process apart: each has its own limits."""
    by_process: defaultdict[str, list[tuple[int, int]]] = defaultdict(list)
    for call in calls:
        arrived_ns = call.at_ns - call.execute_ns - call.queue_ns
        by_process[call.instance].append((arrived_ns, call.execute_ns))
    for call in refused:
        by_process[call.instance].append((call.start_ns, took_ns))
    return [sorted(arrivals) for arrivals in by_process.values()]


def _total_ns(queues: Iterable[Sequence[tuple[int, int]]], capacity: int) -> int:
    return sum(waited_ns(arrivals, capacity) for arrivals in queues)
