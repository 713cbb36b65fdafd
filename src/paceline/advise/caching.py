"""Which results to keep, and for how long."""

from collections.abc import Iterator, Sequence
from typing import Final

from paceline.advise.advice import LEAST, Advice, Change, Confidence, confidence
from paceline.advise.calls import NS, AgentCalls
from paceline.advise.declared import Declared, Known
from paceline.advise.lifetimes import best_ttl_s, renewals, reuse
from paceline.call import EffectKind

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


def not_cached(agent: AgentCalls, known: Known) -> Iterator[Advice]:
    """An agent that is not cached, and often returned again what it had returned before. None for
    one that declares to write, or to decide for each call."""
    declared = known.of(agent.name)
    if declared.cached or declared.per_call or declared.effect is EffectKind.WRITE:
        return
    if not known.has(agent.name) and any(call.source.cached for call in agent.calls):
        return  # whoever declares it, it is cached
    done = len(agent.done)
    found = best_ttl_s(agent.results, max(LEAST, _LEAST_SHARE * done))
    if found is None:
        return
    ttl_s, got = found
    yield Advice(
        rule="not_cached",
        agent=agent.name,
        what=f"cache its results for {ttl_s:g} s",
        why=f"{got.hits:,} of {done:,} executions were asked again within that time, and"
        f" {got.hits - got.wrong:,} of them returned the same",
        changes=(*_allow(declared, known), Change("agent", "CACHE_TTL", ttl_s)),
        first="" if declared.repeatable else _DECLARE,
        evidence={
            "executions": done,
            "repeated": got.hits,
            "same": got.hits - got.wrong,
            "ttl_s": ttl_s,
        },
        confidence=confidence(
            got.hits, Confidence.HIGH if declared.repeatable else Confidence.MEDIUM
        ),
        saved_s=got.saved_ns / NS,
        saved_usd=got.saved_usd,
    )


def _allow(declared: Declared, known: Known) -> Iterator[Change]:
    """What keeps results from being cached now, save their lifetime."""
    if not known.settings.cache.enabled:
        yield Change("settings", "cache.enabled", value=True)
    if not declared.repeatable:
        yield Change("agent", "EFFECT", "read")
    elif not declared.cacheable:
        yield Change("agent", "CACHEABLE", value=True)


def ttl_short(agent: AgentCalls, known: Known) -> Iterator[Advice]:
    """A cached agent whose results had expired and came out the same again."""
    if not _has_lifetime(agent, known):
        return
    now_s = known.ttl_s(agent.name)
    done = len(agent.done)
    found = best_ttl_s(agent.results, max(LEAST, _LEAST_SHARE * done), beyond_s=now_s)
    if found is None:
        return
    ttl_s, got = found
    yield Advice(
        rule="ttl_short",
        agent=agent.name,
        what=f"keep its results for {ttl_s:g} s, not {now_s:g} s",
        why=f"{got.hits:,} of {done:,} executions came after the result had expired and within"
        f" {ttl_s:g} s, and {got.hits - got.wrong:,} of them returned the same",
        changes=(Change("agent", "CACHE_TTL", ttl_s),),
        evidence={
            "executions": done,
            "expired": got.hits,
            "same": got.hits - got.wrong,
            "ttl_s": now_s,
        },
        confidence=confidence(got.hits),
        saved_s=got.saved_ns / NS,
        saved_usd=got.saved_usd,
    )


def ttl_long(agent: AgentCalls, known: Known) -> Iterator[Advice]:
    """A cached agent whose results had often changed by the time they were computed anew. Saves
    nothing: the answers get more true. Never more than half sure: an agent that words the same
    thing differently each time looks the same."""
    if not _has_lifetime(agent, known):
        return
    now_s = known.ttl_s(agent.name)
    seen = renewals(agent.results, now_s)
    if seen.renewed < LEAST or seen.out_of_date(now_s) < _OFTEN_WRONG:
        return
    ttl_s = _nice(seen.right_s)
    wrong = seen.out_of_date(now_s)
    yield Advice(
        rule="ttl_long",
        agent=agent.name,
        what=f"keep its results for {ttl_s:g} s, not {now_s:g} s"
        if ttl_s
        else "do not cache its results",
        why=f"{seen.changed:,} of {seen.renewed:,} results that were served until they expired came"
        f" out different then: about {wrong:.0%} of the answers were out of date",
        changes=(Change("agent", "CACHE_TTL", ttl_s),),
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


def cache_off(agents: Sequence[AgentCalls], known: Known) -> Iterator[Advice]:
    """The cache is turned off, and agents whose results may be cached did things again."""
    if known.settings.cache.enabled:
        return
    may = [agent for agent in agents if known.of(agent.name).cached]
    saved = [reuse(agent.results, known.ttl_s(agent.name)) for agent in may]
    hits, wrong = sum(got.hits for got in saved), sum(got.wrong for got in saved)
    done = sum(len(agent.done) for agent in may)
    if hits < max(LEAST, _LEAST_SHARE * done):
        return
    yield Advice(
        rule="cache_off",
        agent=None,
        what="turn the cache on",
        why=f"{hits:,} of {done:,} executions of agents that may be cached were asked again while"
        f" a result was valid, and {hits - wrong:,} of them returned the same",
        changes=(Change("settings", "cache.enabled", value=True),),
        evidence={"executions": done, "repeated": hits, "same": hits - wrong},
        confidence=confidence(hits),
        saved_s=sum(got.saved_ns for got in saved) / NS,
        saved_usd=sum(got.saved_usd for got in saved),
    )


def _has_lifetime(agent: AgentCalls, known: Known) -> bool:
    """Whether its results are cached for a time that is the same for all."""
    declared = known.of(agent.name)
    return known.settings.cache.enabled and declared.cached and not declared.per_call


def _nice(seconds: float) -> float:
    """A number that is easily read, at most this; 0 for less than a second."""
    if seconds < _LEAST_TTL_S:
        return 0.0
    size = 1.0
    while size * 10 <= seconds:
        size *= 10
    return size * max(digit for digit in _NICE if digit * size <= seconds)
