"""What state alerts would be in now, from calls of the past: without a watch that ran then."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Final, NamedTuple, final

from paceline.metrics.alerts.machine import NOTHING, Standing, evaluate
from paceline.metrics.alerts.rules import Look, Rule, looks
from paceline.metrics.collector import MetricsCollector
from paceline.metrics.figures import Snapshot

__all__ = ["Past", "Replayed", "replay"]

_S: Final = 1_000_000_000
_DAY_NS: Final = 86_400 * _S
_STEP_S: Final = 60.0
_LEAST_S: Final = 600.0

Past = tuple[int, Callable[[MetricsCollector], None]]
"""When a call ended, by the wall clock, and how it is put into a collector at that moment."""


class Replayed(NamedTuple):
    """Where alerts stand now, and what each rule sees now."""

    standings: tuple[Standing, ...]
    """`since_ns` is of the wall clock here."""
    looks: tuple[Look, ...]
    snapshot: Snapshot


@final
class _Then:
    """A clock that stands at a moment of the past; both its clocks are the wall."""

    def __init__(self, at_ns: int) -> None:
        self.at_ns = at_ns

    def monotonic_ns(self) -> int:
        return self.at_ns

    def wall_ns(self) -> int:
        return self.at_ns


def replay(rules: Sequence[Rule], calls: Iterable[Past], now_ns: int) -> Replayed:
    """Looks once a minute at the last minutes before `now_ns`: twice as long as any rule waits,
    at least ten minutes. `calls` come in the order of their ends, and need not go back further
    than a day. What began before those minutes is said to have begun with them."""
    waits_s = max([rule.for_s + rule.keep_s for rule in rules], default=0.0)
    moments = _moments(now_ns, max(_LEAST_S, 2 * waits_s))
    clock = _Then(now_ns - _DAY_NS)
    collector = MetricsCollector(clock=clock)
    state, snapshot = NOTHING, collector.snapshot()
    coming = iter(calls)
    call = next(coming, None)
    for moment_ns in moments:
        while call is not None and call[0] <= moment_ns:
            clock.at_ns = max(clock.at_ns, call[0])
            call[1](collector)
            call = next(coming, None)
        clock.at_ns = moment_ns
        snapshot = collector.snapshot()
        state = evaluate(rules, snapshot, state, moment_ns).state
    return Replayed(tuple(state.values()), tuple(looks(rules, snapshot)), snapshot)


def _moments(now_ns: int, span_s: float) -> Iterator[int]:
    steps = int(span_s // _STEP_S)
    return (now_ns - round(step * _STEP_S) * _S for step in range(steps, -1, -1))
