"""Which results to keep, and for how long."""

from collections.abc import Iterator, Sequence
from typing import Final

from paceline.advise.advice import LEAST, Advice, Change, Confidence, confidence
from paceline.advise.calls import NS, Callee
from paceline.advise.declared import Known
from paceline.advise.lifetimes import best_ttl_s, oldest_s, renewals, reuse
from paceline.advise.repeated import repeats
from paceline.call import EffectKind, Kind

__all__ = ["cache_off", "not_cached", "ttl_long", "ttl_short"]

_LEAST_SHARE: Final = 0.05
"""Of the executions: fewer are not worth a change."""
_OFTEN_WRONG: Final = 0.2
"""Answers out of date that are too many; after the change there are 5 %."""
_LEAST_TTL_S: Final = 1.0
_NICE: Final = (1, 2, 3, 5)

_DECLARE: Final = (
    'It declares no effect, and until then is never cached: write EFFECT = "read" only if it'
    " changes nothing ('pure' if it depends on its input alone), or CACHEABLE = True."
)
_DECLARE_TOOL: Final = (
    'It declares no effect, and until then is never cached: write effect="read" only if it'
    " changes nothing ('pure' if it depends on its arguments alone)."
)
_LONGER: Final = (
    "How long it keeps results is not known here. If it is as long already, something else drops"
    " them: a write of what they were read under, or no room."
)
_LOOK: Final = (
    'What it declares is not known here. If it has no effect yet, write effect="read" only if it'
    " changes nothing."
)


def not_cached(callee: Callee, known: Known) -> Iterator[Advice]:
    """An agent or tool that is not cached, and often returned again what it had returned before.
    None for one that declares to write, or to decide for each call."""
    declared = known.of(callee)
    if declared.cached or declared.per_call or declared.effect is EffectKind.WRITE:
        return
    if callee.served and not (known.has(callee) and declared.whole):
        return  # whoever declares it, it is cached
    done = len(callee.done)
    found = best_ttl_s(callee.results, max(LEAST, _LEAST_SHARE * done))
    if found is None:
        return
    ttl_s, got = found
    within = repeats(callee)
    yield Advice(
        rule="not_cached",
        agent=callee.name,
        kind=callee.kind,
        what=f"cache its results for {ttl_s:g} s",
        why=f"{got.hits:,} of {done:,} executions were asked again within that time, and"
        f" {got.hits - got.wrong:,} of them returned the same{within.told}",
        changes=(*_allow(callee, known), known.change(callee, "CACHE_TTL", ttl_s)),
        first=_before(callee, known),
        evidence={
            "executions": done,
            "repeated": got.hits,
            "same": got.hits - got.wrong,
            "ttl_s": ttl_s,
            **within.evidence,
        },
        confidence=confidence(
            got.hits, Confidence.HIGH if declared.repeatable else Confidence.MEDIUM
        ),
        saved_s=got.saved_ns / NS,
        saved_usd=got.saved_usd,
    )


def _allow(callee: Callee, known: Known) -> Iterator[Change]:
    """What keeps results from being cached now, save their lifetime."""
    declared = known.of(callee)
    if not known.settings.cache.enabled:
        yield Change("settings", "cache.enabled", value=True)
    if declared.server:
        return  # its effect is what the server says of it
    if not declared.repeatable:
        yield known.change(callee, "EFFECT", "read")
    elif not declared.cacheable:
        yield Change("agent", "CACHEABLE", value=True)


def _before(callee: Callee, known: Known) -> str:
    """What has to be true before results may be kept, or be kept longer."""
    declared = known.of(callee)
    if declared.server:
        return (
            f"The lifetime is that of all tools of {declared.server} of which the server says that"
            " they only read (readOnlyHint); no others are kept."
        )
    if declared.repeatable:
        return ""
    if callee.kind is Kind.AGENT:
        return _DECLARE
    return _DECLARE_TOOL if known.has(callee) else _LOOK


def ttl_short(callee: Callee, known: Known) -> Iterator[Advice]:
    """A cached agent or tool whose results had expired and came out the same again. Of a tool whose
    lifetime is not known here, the oldest result that it served stands for it."""
    if not _has_lifetime(callee, known):
        return
    stated = known.of(callee).whole
    now_s = known.ttl_s(callee) if stated else oldest_s(callee.results, LEAST)
    if now_s is None:
        return
    done = len(callee.done)
    found = best_ttl_s(callee.results, max(LEAST, _LEAST_SHARE * done), beyond_s=now_s)
    if found is None:
        return
    ttl_s, got = found
    gone = "after the result had expired" if stated else f"after {now_s:.3g} s, the longest served,"
    within = repeats(callee)
    yield Advice(
        rule="ttl_short",
        agent=callee.name,
        kind=callee.kind,
        what=f"keep its results for {ttl_s:g} s" + (f", not {now_s:g} s" if stated else ""),
        why=f"{got.hits:,} of {done:,} executions came {gone} and within"
        f" {ttl_s:g} s, and {got.hits - got.wrong:,} of them returned the same{within.told}",
        changes=(known.change(callee, "CACHE_TTL", ttl_s),),
        first=_before(callee, known) if stated else _LONGER,
        evidence={
            "executions": done,
            "expired": got.hits,
            "same": got.hits - got.wrong,
            "ttl_s" if stated else "oldest_served_s": now_s,
            **within.evidence,
        },
        confidence=confidence(got.hits, Confidence.HIGH if stated else Confidence.LOW),
        saved_s=got.saved_ns / NS,
        saved_usd=got.saved_usd,
    )


def ttl_long(callee: Callee, known: Known) -> Iterator[Advice]:
    """A cached agent or tool whose results had often changed by the time they were computed anew.
    Saves nothing: the answers get more true. Never more than half sure: one that words the same
    thing differently each time looks the same. None where the lifetime of now is not known: a write
    may have dropped what changed."""
    if not _has_lifetime(callee, known) or not known.of(callee).whole:
        return
    now_s = known.ttl_s(callee)
    seen = renewals(callee.results, now_s)
    if seen.renewed < LEAST or seen.out_of_date(now_s) < _OFTEN_WRONG:
        return
    ttl_s = _nice(seen.right_s)
    wrong = seen.out_of_date(now_s)
    yield Advice(
        rule="ttl_long",
        agent=callee.name,
        kind=callee.kind,
        what=f"keep its results for {ttl_s:g} s, not {now_s:g} s"
        if ttl_s
        else "do not cache its results",
        why=f"{seen.changed:,} of {seen.renewed:,} results that were served until they expired came"
        f" out different then: about {wrong:.0%} of the answers were out of date",
        changes=(known.change(callee, "CACHE_TTL", ttl_s),),
        first="Results that are only worded differently each time are no reason to.",
        evidence={
            "renewed": seen.renewed,
            "changed": seen.changed,
            "served": seen.served,
            "out_of_date": round(wrong, 3),
            "ttl_s": now_s,
        },
        confidence=confidence(seen.renewed, Confidence.MEDIUM),
    )


def cache_off(callees: Sequence[Callee], known: Known) -> Iterator[Advice]:
    """The cache is turned off, and agents or tools whose results may be cached did things again."""
    if known.settings.cache.enabled:
        return
    may = [callee for callee in callees if known.of(callee).cached]
    saved = [reuse(callee.results, known.ttl_s(callee)) for callee in may]
    hits, wrong = sum(got.hits for got in saved), sum(got.wrong for got in saved)
    done = sum(len(callee.done) for callee in may)
    if hits < max(LEAST, _LEAST_SHARE * done):
        return
    yield Advice(
        rule="cache_off",
        agent=None,
        what="turn the cache on",
        why=f"{hits:,} of {done:,} executions that may be cached were asked again while"
        f" a result was valid, and {hits - wrong:,} of them returned the same",
        changes=(Change("settings", "cache.enabled", value=True),),
        evidence={"executions": done, "repeated": hits, "same": hits - wrong},
        confidence=confidence(hits),
        saved_s=sum(got.saved_ns for got in saved) / NS,
        saved_usd=sum(got.saved_usd for got in saved),
    )


def _has_lifetime(callee: Callee, known: Known) -> bool:
    """Whether its results are cached for a time that is the same for all, or may be."""
    declared = known.of(callee)
    may = declared.cached or not declared.whole
    return known.settings.cache.enabled and may and not declared.per_call


def _nice(seconds: float) -> float:
    """A number that is easily read, at most this; 0 for less than a second."""
    if seconds < _LEAST_TTL_S:
        return 0.0
    size = 1.0
    while size * 10 <= seconds:
        size *= 10
    return size * max(digit for digit in _NICE if digit * size <= seconds)
