"""Calls that were made again within one session, for what the session had been told already."""

from collections import defaultdict
from collections.abc import Iterator
from typing import Final, NamedTuple

from paceline.advise.advice import LEAST, Advice, Change, Confidence, confidence
from paceline.advise.calls import NS, Callee, executed
from paceline.advise.declared import Known
from paceline.advise.lifetimes import best_ttl_s
from paceline.call import EffectKind, Kind
from paceline.history.record import Record

__all__ = ["Repeats", "repeated", "repeats"]

_HEARD: Final = "The model has been told already: its system prompt can say so ([chat] system)."


class Repeats(NamedTuple):
    """Executions that gave a session once more what it had been given: how many, and how long they
    took."""

    times: int
    took_ns: int

    @property
    def evidence(self) -> dict[str, int | float]:
        """The figures, where there are any."""
        took_s = self.took_ns / NS
        return {"in_session": self.times, "in_session_s": took_s} if self.times else {}

    @property
    def told(self) -> str:
        """The end of a sentence that says so; nothing where there are none."""
        return f"; {self.times:,} told a session what it had been told" if self.times else ""


def repeats(callee: Callee) -> Repeats:
    """Those with the same arguments and the same result as an earlier call of the session. What came
    out different was worth asking, and what failed before had to be asked again."""
    times = took_ns = 0
    for calls in _by_session(callee):
        told: Record | None = None
        for call in calls:
            if call.trouble is not None or call.output_hash is None:
                continue
            if told is not None and executed(call) and call.output_hash == told.output_hash:
                times += 1
                took_ns += call.total_ns
            told = call
    return Repeats(times, took_ns)


def repeated(callee: Callee, known: Known) -> Iterator[Advice]:
    """A tool that is called again in a session for what is known there. If its effect allows it, and a
    lifetime answers these, its results are to be kept for the session; else only the model can be
    told. None for one that writes: that may well be meant twice; nor for an agent: it may be a person who
    asks again."""
    declared, seen = known.of(callee), repeats(callee)
    if callee.kind is not Kind.TOOL or declared.effect is EffectKind.WRITE or seen.times < LEAST:
        return
    ran = sum(executed(call) and call.asked for call in callee.calls)
    found = None
    uncached = known.settings.cache.enabled and not (declared.cached or callee.served)
    if declared.repeatable and uncached and not declared.server:
        found = best_ttl_s(_by_session(callee), LEAST)
    changes: tuple[Change, ...] = ()
    what = "have the model look at what it was told, and not ask again"
    if found is not None:
        what = f"cache its results for {found[0]:g} s, for each session apart"
        changes = (
            known.change(callee, "CACHE_TTL", found[0]),
            known.change(callee, "SCOPE", "session"),
        )
    yield Advice(
        rule="repeated",
        agent=callee.name,
        kind=callee.kind,
        what=what,
        why=f"{seen.times:,} of {ran:,} executions were for what the same session had been told"
        f" before, and took {seen.took_ns / NS:.3g} s",
        changes=changes,
        first="" if found is not None else _HEARD,
        evidence={"executions": ran, **seen.evidence},
        confidence=confidence(seen.times, Confidence.HIGH if changes else Confidence.MEDIUM),
        saved_s=(seen.took_ns if found is None else found[1].saved_ns) / NS,
    )


def _by_session(callee: Callee) -> list[list[Record]]:
    """Calls that somebody asked for, by session and what was asked, each in order."""
    groups: defaultdict[tuple[str, str], list[Record]] = defaultdict(list)
    for call in callee.calls:
        if call.session is not None and call.input_hash is not None and call.asked:
            groups[call.session, call.input_hash].append(call)
    return list(groups.values())
