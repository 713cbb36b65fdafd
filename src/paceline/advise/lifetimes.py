"""What lifetime results should have: replays of the recorded calls with other lifetimes."""

import math
from collections.abc import Iterable, Sequence
from typing import Final, NamedTuple

from paceline.advise.calls import NS, cost_usd, executed
from paceline.call import Source
from paceline.history.record import Record

__all__ = ["TTLS_S", "Renewals", "Reuse", "best_ttl_s", "oldest_s", "renewals", "reuse"]

TTLS_S: Final = (60.0, 300.0, 900.0, 3_600.0, 21_600.0, 86_400.0, 604_800.0)
"""Lifetimes that are tried, in seconds."""
_MOST_WRONG: Final = 0.005
_ENOUGH: Final = 0.9
_WHILE_VALID: Final = frozenset(
    {Source.HOT, Source.WARM, Source.COLD, Source.SHARED, Source.SPECULATED}
)
_FEW_CHANGES: Final = 0.1
"""Changes in a lifetime, on average: then 5 % of the answers are out of date."""


class Reuse(NamedTuple):
    """What executions a lifetime would have saved: how many, of them those whose result had
    changed meanwhile, and the time and money of the rest. `changed` counts results that came out
    different from the one before within that lifetime, whether or not the replay ran into them."""

    hits: int = 0
    wrong: int = 0
    changed: int = 0
    saved_ns: int = 0
    saved_usd: float = 0.0


def reuse(results: Iterable[Sequence[Record]], ttl_s: float, *, beyond_s: float = 0.0) -> Reuse:
    """Replays the calls for each result with this lifetime.

    What the agent really returned says whether the result that would have been served was still
    right. Only what would have been served at an age of `beyond_s` or more is counted: given the
    lifetime of now, that is what a longer one brings besides.
    """
    hits = wrong = changed = saved_ns = 0
    saved_usd, ttl_ns, beyond_ns = 0.0, ttl_s * NS, beyond_s * NS
    for calls in results:
        kept = last = None
        for call in calls:
            if not _made(call):
                continue
            anew = False
            if last is not None:
                gap_ns = call.start_ns - last.at_ns
                # Before its time: invalidated, or lost. So it would be with any lifetime.
                anew = 0 <= gap_ns < beyond_ns
                changed += beyond_ns <= gap_ns < ttl_ns and call.output_hash != last.output_hash
            last = call
            if kept is None or anew or call.start_ns - kept.at_ns >= ttl_ns:
                kept = call
            elif call.asked and (not beyond_s or call.start_ns - kept.at_ns >= beyond_ns):
                hits += 1
                if call.output_hash != kept.output_hash:
                    wrong += 1
                    continue
                # Who asked while the first was running would have waited for that.
                saved_ns += max(0, min(call.total_ns, call.at_ns - kept.at_ns))
                saved_usd += cost_usd(call)
    return Reuse(hits, wrong, changed, saved_ns, saved_usd)


def best_ttl_s(
    results: Sequence[Sequence[Record]], least: float, *, beyond_s: float = 0.0
) -> tuple[float, Reuse] | None:
    """The shortest lifetime, longer than `beyond_s`, that saves nearly as much as any that would
    have served (nearly) nothing wrong; None where none answers at least so many calls."""
    tried = [
        (ttl_s, reuse(results, ttl_s, beyond_s=beyond_s)) for ttl_s in TTLS_S if ttl_s > beyond_s
    ]
    right = [(s, got) for s, got in tried if max(got.wrong, got.changed) <= got.hits * _MOST_WRONG]
    wanted = max(least, _ENOUGH * max((got.hits for _, got in right), default=0))
    return next(((ttl_s, got) for ttl_s, got in right if got.hits >= wanted), None)


def oldest_s(results: Iterable[Sequence[Record]], least: int) -> float | None:
    """How old the oldest result was that was served while valid, in seconds: how long they are kept at
    least. None where fewer than `least` were served."""
    oldest_ns = served = 0
    for calls in results:
        kept: Record | None = None
        for call in calls:
            if _made(call):
                kept = call
            elif kept is not None and call.source in _WHILE_VALID:
                served += 1
                oldest_ns = max(oldest_ns, call.start_ns - kept.at_ns)
    return oldest_ns / NS if served >= least else None


class Renewals(NamedTuple):
    """Results that were served, expired and were computed anew: how many, how many of these had
    changed, and how long they were apart on average, in seconds. `served` counts the answers."""

    renewed: int
    changed: int
    apart_s: float
    served: int

    @property
    def changes_per_s(self) -> float:
        """How often a result changes, were changes independent of each other.

        That several changes between two looks are seen as one is made up for (J. Cho and
        H. Garcia-Molina, Estimating Frequency of Change, ACM TOIT 3(3), 2003).
        """
        share = (self.renewed - self.changed + 0.5) / (self.renewed + 0.5)
        return -math.log(share) / self.apart_s

    def out_of_date(self, ttl_s: float) -> float:
        """The share (0..1) of answers that are out of date with this lifetime, when they are
        spread evenly over it."""
        changes = self.changes_per_s * ttl_s
        return 1 - (1 - math.exp(-changes)) / changes if changes else 0.0

    @property
    def right_s(self) -> float:
        """The lifetime with which 5 % of the answers are out of date."""
        return _FEW_CHANGES / self.changes_per_s


def renewals(results: Iterable[Sequence[Record]], ttl_s: float) -> Renewals:
    """Those after which a result had served its lifetime. What was computed anew before that had
    been invalidated, or was lost: it says nothing about the lifetime."""
    count = changed = served = apart_ns = 0
    for calls in results:
        kept: Record | None = None
        answers = 0
        for call in calls:
            if call.source.cached:
                answers += call.source is not Source.JOINED
            elif _made(call):
                if kept is not None and answers and call.start_ns - kept.at_ns >= ttl_s * NS:
                    count += 1
                    served += answers
                    apart_ns += call.start_ns - kept.at_ns
                    changed += call.output_hash != kept.output_hash
                kept, answers = call, 0
    return Renewals(count, changed, apart_ns / NS / count if count else math.inf, served)


def _made(call: Record) -> bool:
    """Whether it is an execution that made a result."""
    return executed(call) and call.trouble is None and call.output_hash is not None
