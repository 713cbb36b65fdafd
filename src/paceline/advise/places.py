"""How many of the tools that one answer asks for should run at once."""

import bisect
from collections.abc import Iterable, Iterator, Sequence
from statistics import median
from typing import Final

from paceline.advise.advice import LEAST, Advice, Change, confidence
from paceline.advise.answers import Answered, Event, Use, until_done_ns
from paceline.advise.calls import NS
from paceline.advise.concurrency import waited_ns
from paceline.advise.declared import Known

__all__ = ["places"]

_NAME: Final = "chat.max_concurrent_tools"
_EXPLAINED: Final = 0.5
"""The share of the recorded waiting that the limit has to explain."""
_LONG: Final = 0.1
"""Of the time that these answers took: to save less is not worth a change."""
_LEFT: Final = 0.1
_MOST: Final = 8


def places(sessions: Iterable[Iterable[Event]], known: Known) -> Iterator[Advice]:
    """Answers that asked for more tools than run at once, where the limit is what the calls waited for:
    all of them change nothing, so that none had to wait for another."""
    now = known.settings.chat.max_concurrent_tools
    declared = {**known.tools, **known.agents}
    reads = {name for name, one in declared.items() if one.repeatable}
    crowded = [uses for uses in _answers(sessions) if _crowded(uses, reads, now)]
    if len(crowded) < LEAST:
        return
    took = [[use.took_ns for use in uses] for uses in crowded]
    replayed_ns = sum(waited_ns([(0, each) for each in of_it], now) for of_it in took)
    recorded_ns = sum(use.queue_ns for uses in crowded for use in uses)
    now_ns, best_ns = _all_ns(took, now), _all_ns(took, now * _MOST)
    if replayed_ns < _EXPLAINED * recorded_ns or recorded_ns < _EXPLAINED * replayed_ns:
        return
    if now_ns - best_ns < _LONG * now_ns:
        return
    larger = range(now + 1, now * _MOST + 1)
    enough_ns = best_ns + _LEFT * (now_ns - best_ns)
    found = bisect.bisect_left(larger, -enough_ns, key=lambda most: -_all_ns(took, most))
    capacity = larger[min(found, len(larger) - 1)]
    saved_s = (now_ns - _all_ns(took, capacity)) / NS
    yield Advice(
        rule="concurrency",
        agent=None,
        what=f"let {capacity:,} tools of a session run at once, not {now:,}",
        why=f"{len(crowded):,} answers asked for more than run at once, half of them for"
        f" {median(map(len, crowded)):g} or more; with more room they would have taken"
        f" {now_ns / NS - saved_s:.3g} s and not {now_ns / NS:.3g} s",
        changes=(Change("settings", _NAME, capacity),),
        first="What they call has to bear as many at once.",
        evidence={
            "answers": len(crowded),
            "queue_s": recorded_ns / NS,
            "capacity": now,
        },
        confidence=confidence(len(crowded)),
        saved_s=saved_s,
    )


def _answers(sessions: Iterable[Iterable[Event]]) -> Iterator[Sequence[Use]]:
    for session in sessions:
        for event in session:
            if isinstance(event, Answered):
                yield [use for use in event.uses if use.took_ns]


def _crowded(uses: Sequence[Use], reads: set[str], places: int) -> bool:
    return len(uses) > places and all(use.name in reads for use in uses)


def _all_ns(took: Iterable[Sequence[int]], at_once: int) -> int:
    return sum(until_done_ns(of_it, at_once) for of_it in took)
