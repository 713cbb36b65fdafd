"""What to do about failures of the moment: try again, or serve the last result."""

from collections.abc import Iterator, Sequence
from typing import Final

from paceline.advise.advice import LEAST, Advice, Change, Confidence, confidence
from paceline.advise.calls import NS, Callee, executed
from paceline.advise.declared import Known
from paceline.advise.lifetimes import TTLS_S
from paceline.call import EffectKind, Kind
from paceline.errors import Category
from paceline.history.record import Record
from paceline.session_settings import ChatSettings
from paceline.settings import RunSettings

__all__ = ["retry", "stale_if_error"]

_LEAST_SHARE: Final = 0.01
_ALONE: Final = 0.5
_ENOUGH: Final = 0.9
_DAY_S: Final = 86_400.0
_MOMENTARY: Final = frozenset({Category.NETWORK, Category.RATE_LIMIT, Category.UNAVAILABLE})
"""Trouble that passes and that trying again is for. Of time-outs the time limits tell."""

_DECLARE: Final = (
    'It declares no effect, and what may have had one is never tried again: write EFFECT = "read"'
    " only if it changes nothing ('pure' if it depends on its input alone)."
)
_DECLARE_TOOL: Final = (
    'It declares no effect, and what may have had one is never tried again: write effect="read"'
    " only if it changes nothing ('pure' if it depends on its arguments alone)."
)


def retry(callee: Callee, known: Known) -> Iterator[Advice]:
    """Failures of the moment that were not tried again, where the next execution mostly succeeded.
    None for one that declares to write: that is not to be done twice."""
    declared, setting, most = known.of(callee), *_attempts(callee, known)
    if (
        not known.has(callee)
        or declared.per_call
        or declared.effect is EffectKind.WRITE
        or (declared.repeatable and most > 1)
        or (declared.server and not declared.repeatable)  # its effect is what the server says
    ):
        return
    ran = [
        call for call in callee.calls if executed(call) and call.trouble is not Category.CANCELLED
    ]
    failed = [n for n, call in enumerate(ran) if call.attempts == 1 and call.trouble in _MOMENTARY]
    if len(failed) < max(LEAST, _LEAST_SHARE * len(ran)):
        return
    alone = sum(n + 1 < len(ran) and ran[n + 1].trouble is None for n in failed)
    if alone < _ALONE * len(failed):  # what is down for long is only asked more
        return
    change = setting if declared.repeatable else known.change(callee, "EFFECT", "read")
    declare = _DECLARE if callee.kind is Kind.AGENT else _DECLARE_TOOL
    yield Advice(
        rule="retry",
        agent=callee.name,
        kind=callee.kind,
        what="let it be tried again when it fails for a moment",
        why=f"{len(failed):,} of {len(ran):,} executions failed for reasons that pass (network, rate"
        f" limit, unavailable), and after {alone:,} of them the next one succeeded",
        changes=(change,),
        first="" if declared.repeatable else declare,
        evidence={"executions": len(ran), "failed": len(failed), "next_succeeded": alone},
        confidence=confidence(len(failed), Confidence.MEDIUM),
    )


def _attempts(callee: Callee, known: Known) -> tuple[Change, int]:
    """The setting that says how often it is tried, as it is by default, and how often it is now."""
    if callee.kind is Kind.TOOL:
        name = "chat.max_tool_retries"
        now = known.settings.chat.max_tool_retries + 1
        return Change("settings", name, ChatSettings().max_tool_retries), now
    attempts = RunSettings().max_attempts
    return Change("settings", "run.max_attempts", attempts), known.settings.run.max_attempts


def stale_if_error(callee: Callee, known: Known) -> Iterator[Advice]:
    """Failures of the moment of a cached agent that had returned a result for the same not long before;
    a tool has no such option."""
    declared = known.of(callee)
    agent = callee.kind is Kind.AGENT
    if not agent or not known.settings.cache.enabled or not declared.cached or declared.per_call:
        return
    ttl_s = known.ttl_s(callee)
    ages = sorted(age for calls in callee.results for age in _expired_s(calls, ttl_s))
    if len(ages) < LEAST:
        return
    needed_s = ages[int(_ENOUGH * (len(ages) - 1))]
    stale_s = next(at for at in TTLS_S if at >= needed_s)
    helped = sum(age <= stale_s for age in ages)
    yield Advice(
        rule="stale_if_error",
        agent=callee.name,
        kind=callee.kind,
        what=f"serve its last result for {stale_s:g} s when it fails",
        why=f"{helped:,} calls failed for reasons that pass though there had been a result, expired"
        f" by {stale_s:g} s or less",
        changes=(Change("agent", "STALE_IF_ERROR", stale_s),),
        first="Its callers then get, instead of an error, what was true before.",
        evidence={"failed": len(ages), "helped": helped, "ttl_s": ttl_s},
        confidence=confidence(helped),
    )


def _expired_s(calls: Sequence[Record], ttl_s: float) -> Iterator[float]:
    """For how long the last result had been expired at each failure, up to a day."""
    kept: Record | None = None
    for call in calls:
        if not executed(call):
            continue
        if call.trouble is None:
            kept = call
        elif kept is not None and call.trouble in _MOMENTARY | {Category.TIMEOUT}:
            expired_s = (call.at_ns - kept.at_ns) / NS - ttl_s
            if 0 <= expired_s <= _DAY_S:
                yield expired_s
