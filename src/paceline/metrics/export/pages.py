"""Figures as JSON over HTTP, for programs that want no Prometheus: the health of a runtime, what
its agents did, and its slow operations. Pure but for the pauses."""

import heapq
import json
import re
import reprlib
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Final, NamedTuple, final

from paceline.clock import Clock
from paceline.errors import UnknownAgentError, UsageError
from paceline.metrics.figures import Snapshot
from paceline.metrics.report import figures_of, totals
from paceline.metrics.span import Span

__all__ = ["HEALTH", "PATHS", "SLOW", "Content", "Pages"]

HEALTH: Final = "/health"
SLOW: Final = "/slow-operations"
_PERFORMANCE: Final = "/performance"
PATHS: Final = (_PERFORMANCE, _PERFORMANCE + "/{agent:.+}", SLOW)
"""Where pages are that take a while to make, as routes."""

_THRESHOLD: Final = "threshold_ms"
_THRESHOLD_MS: Final = 1_000.0
_NUMBER: Final = re.compile(r"[0-9]{1,12}(\.[0-9]{1,6})?")
_MOST: Final = 50
_NS_PER_MS: Final = 1e6
_NS_PER_S: Final = 1e9
_PAUSE_S: Final = 0.0001
"""After each agent: a thousand of them take more than a second, in which others want to run."""


class Content(NamedTuple):
    """A page."""

    body: bytes
    content_type: str = "application/json"


@final
class Pages:
    """Makes the pages, each when it is asked for, on any thread."""

    def __init__(
        self,
        read: Callable[[], Snapshot],
        *,
        spans: Callable[[], Iterable[Span]],
        loads: Callable[[], Mapping[str, float]],
        clock: Clock,
        version: str,
        pause: Callable[[float], object] = time.sleep,
    ) -> None:
        """`read` takes the figures, `spans` gives the calls that are kept, `loads` how full each
        instance is, from 0 to 1; `version` is ours; `pause` lets other threads run."""
        self._read = read
        self._spans = spans
        self._loads = loads
        self._clock = clock
        self._version = version
        self._pause = pause
        self._started_ns = clock.monotonic_ns()

    def of(self, path: str, given: Sequence[tuple[str, str]]) -> Callable[[], Content]:
        """What makes the page at a path of `PATHS`, with these parameters.

        Raises UsageError for parameters that cannot be.
        """
        if path == SLOW:
            return partial(self.slow, _threshold_ms(given))
        if given:
            raise UsageError("this page takes no parameters", next_step="Leave them out.")
        if path == _PERFORMANCE:
            return self.performance
        return partial(self.agent, path.removeprefix(f"{_PERFORMANCE}/"))

    def health(self) -> Content:
        """That there is somebody who answers, since when, and how full it is. Takes no figures, so
        that it is at once there."""
        uptime_ns = self._clock.monotonic_ns() - self._started_ns
        return _page(
            {
                "status": "ok",
                "version": self._version,
                "at_s": self._clock.wall_ns() / _NS_PER_S,
                "uptime_s": uptime_ns / _NS_PER_S,
                "loads": dict(self._loads()),
            }
        )

    def performance(self) -> Content:
        """All figures, as `report.data` has them."""
        snapshot = self._read()
        agents: list[bytes] = []
        for name, series in snapshot.agents.items():
            agents.append(_json(name) + b":" + _json(figures_of(series)))
            self._pause(_PAUSE_S)
        head = _json(totals(snapshot)).removesuffix(b"}")
        return Content(head + b',"agents":{' + b",".join(agents) + b"}}\n")

    def agent(self, name: str) -> Content:
        """The figures of one agent. Raises UnknownAgentError for one that was never called."""
        snapshot = self._read()
        mine = tuple([series for series in snapshot.series if series.name == name])
        if not mine:
            raise UnknownAgentError(
                f"no call of {reprlib.repr(name)} is recorded",
                next_step=f"{_PERFORMANCE} has all there are.",
            )
        (series,) = Snapshot(mine, snapshot.uptime_ns).agents.values()
        at_s, uptime_s = snapshot.at_ns / _NS_PER_S, snapshot.uptime_ns / _NS_PER_S
        return _page({"agent": name, "at_s": at_s, "uptime_s": uptime_s, **figures_of(series)})

    def slow(self, threshold_ms: float) -> Content:
        """The calls kept that took at least so long, the slowest first; 50 at most."""
        found = [span for span in self._spans() if span.took_ns >= threshold_ms * _NS_PER_MS]
        slowest = heapq.nlargest(_MOST, found, key=lambda span: (span.took_ns, span.end_ns))
        return _page(
            {
                "at_s": self._clock.wall_ns() / _NS_PER_S,
                "threshold_ms": threshold_ms,
                "operations": [_operation(span) for span in slowest],
            }
        )


def _operation(span: Span) -> dict[str, object]:
    return {
        "id": span.id,
        "trace_id": span.trace_id,
        "name": span.name,
        "kind": str(span.kind),
        "took_ms": span.took_ns / _NS_PER_MS,
        "ended_s": span.end_ns / _NS_PER_S,
        "source": str(span.source),
        "ending": str(span.ending),
        "category": None if span.category is None else str(span.category),
    }


def _threshold_ms(given: Sequence[tuple[str, str]]) -> float:
    if not given:
        return _THRESHOLD_MS
    (name, value), *more = given
    if name != _THRESHOLD or more:
        raise UsageError(
            f"this page takes {_THRESHOLD} once, and no other parameter",
            next_step=f"Write {SLOW}?{_THRESHOLD}=1000.",
        )
    if not _NUMBER.fullmatch(value):
        raise UsageError(
            f"{_THRESHOLD} is {reprlib.repr(value)}, not a number of milliseconds",
            next_step=f"Write {_THRESHOLD}=1000.",
        )
    return float(value)


def _page(value: object) -> Content:
    return Content(_json(value) + b"\n")


def _json(value: object) -> bytes:
    """Names and messages may hold anything, even half a character."""
    return json.dumps(value, ensure_ascii=False, allow_nan=False).encode("utf-8", "replace")
