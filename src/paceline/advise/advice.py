"""What a rule says: which setting to change to what, why, and what that is expected to save."""

from collections.abc import Callable, Iterable, Mapping
from enum import StrEnum
from typing import Final, Literal

import msgspec

from paceline.call import Kind

__all__ = ["LEAST", "Advice", "Change", "Confidence", "Number", "Rule", "confidence", "ordered"]

LEAST: Final = 20
"""Calls that have to show something before anything is said of it: what is rarer may be chance."""
_MEDIUM: Final = 60
_HIGH: Final = 200

Number = int | float
Rule = Literal[
    "cache_off",
    "concurrency",
    "failing",
    "misused",
    "not_cached",
    "repeated",
    "retry",
    "side_by_side",
    "size",
    "stale_if_error",
    "time_limit_long",
    "time_limit_short",
    "ttl_long",
    "ttl_short",
]


class Confidence(StrEnum):
    """How sure a piece of advice is."""

    HIGH = "high"
    MEDIUM = "medium"
    LOW = "low"


class Change(msgspec.Struct, frozen=True):
    """One setting and the value it should have: an attribute of the agent, such as CACHE_TTL, an
    option of the tool, such as `ttl_s`, or a key of the settings, such as `cache.warm_bytes`."""

    where: Literal["agent", "settings", "tool"]
    name: str
    value: str | bool | Number


class Advice(msgspec.Struct, frozen=True, kw_only=True):
    """One piece of advice.

    `agent` is whom it is about, by name: an agent, or a tool where `kind` says so; None for all
    together, and for several `tools`. `changes` are empty where no setting can do it. `first` is what
    has to be true before it may be followed; empty if nothing. `evidence` are the figures behind it,
    named with their units (`_s`, `_bytes`, `_usd`; the rest are counts, and shares 0..1). `saved_s` and
    `saved_usd` are what it would have saved in the time that was looked at: seconds that callers
    waited, and US dollars.
    """

    rule: Rule
    agent: str | None
    what: str
    why: str
    changes: tuple[Change, ...]
    evidence: Mapping[str, Number]
    confidence: Confidence
    kind: Kind = Kind.AGENT
    tools: tuple[str, ...] = ()
    first: str = ""
    saved_s: float = 0.0
    saved_usd: float = 0.0


def confidence(samples: int, most: Confidence = Confidence.HIGH) -> Confidence:
    """By the number of calls that show it; never more than `most`, for what rests on more than
    they show."""
    earned = (
        Confidence.HIGH
        if samples >= _HIGH
        else Confidence.MEDIUM
        if samples >= _MEDIUM
        else Confidence.LOW
    )
    return max(earned, most, key=_rank)


def ordered(advice: Iterable[Advice]) -> list[Advice]:
    """What saves most first: by seconds, then by money, then by how sure it is."""
    key: Callable[[Advice], tuple[float, float, int, str, str]] = lambda one: (  # noqa: E731 (typed)
        -one.saved_s,
        -one.saved_usd,
        _rank(one.confidence),
        one.agent or "",
        one.rule,
    )
    return sorted(advice, key=key)


def _rank(sure: Confidence) -> int:
    return list(Confidence).index(sure)
