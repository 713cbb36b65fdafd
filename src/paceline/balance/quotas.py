"""What answers say about the sender's rate limits, in the headers that model providers use.

Read are those of OpenAI and servers like it (`x-ratelimit-remaining-tokens`), of Anthropic
(`anthropic-ratelimit-tokens-remaining`), and of the IETF's drafts (`RateLimit-Remaining`, later
`RateLimit: "default";r=50;t=30`). What cannot be understood is as if it were not there, and no
number is larger than makes sense.
"""

import re
from collections.abc import Iterator, Mapping
from datetime import datetime
from enum import StrEnum
from typing import Final

import msgspec

from paceline.retry_after import LONGEST_S, retry_after_s

__all__ = ["Quantity", "Quota", "asked_to_wait_s", "quotas"]

_MOST: Final = 10**12
_NS: Final = 1_000_000_000
_COUNT: Final = re.compile(r"-?[0-9]{1,18}", re.ASCII)
_PART: Final = re.compile(r"([0-9]{1,12}(?:\.[0-9]{1,12})?)(h|ms|m|s|us|\u00b5s|\u03bcs|ns|)")
_UNITS: Final = {"h": 3600.0, "m": 60.0, "s": 1.0, "ms": 1e-3, "us": 1e-6, "ns": 1e-9, "": 1.0}
_FIELD: Final = re.compile(r"\b([a-z]{1,9})=\"?([^;,\"\s]{1,50})")


class Quantity(StrEnum):
    """What is limited."""

    REQUESTS = "requests"
    TOKENS = "tokens"
    INPUT_TOKENS = "input-tokens"
    OUTPUT_TOKENS = "output-tokens"


class Quota(msgspec.Struct, frozen=True, gc=False):
    """One limit, as of an answer; None for what it does not say.

    `reset_s` is in how many seconds all of it is there again: at once if `at_once`, else little by
    little until then. `period_s` is the time in which `limit` may be used.
    """

    quantity: Quantity
    limit: int | None = None
    remaining: int | None = None
    reset_s: float | None = None
    period_s: float | None = None
    at_once: bool = False


def quotas(headers: Mapping[str, str], wall_ns: int) -> list[Quota]:
    """Every limit that the headers of an answer tell of. `wall_ns` is now, for moments."""
    said = {name: v for k, v in headers.items() if "ratelimit" in (name := k.lower())}
    found: list[Quota] = []
    if any(name.startswith("x-") for name in said):
        found.extend(_openai(said))
    if any(name.startswith("anthropic-") for name in said):
        found.extend(_anthropic(said, wall_ns))
    if any(name.startswith("ratelimit") for name in said):
        found.extend(_draft(said))
    return [quota for quota in found if (quota.limit, quota.remaining) != (None, None)]


def asked_to_wait_s(headers: Mapping[str, str], wall_ns: int) -> float | None:
    """How many seconds the other side asks us to wait, up to a day; None if it does not."""
    said = {k.lower(): v for k, v in headers.items() if k.lower().startswith("retry-after")}
    millis = retry_after_s(said.get("retry-after-ms"), wall_ns)
    return retry_after_s(said.get("retry-after"), wall_ns) if millis is None else millis / 1000


def _openai(said: Mapping[str, str]) -> Iterator[Quota]:
    for quantity in (Quantity.REQUESTS, Quantity.TOKENS):
        limit, remaining, reset = (
            said.get(f"x-ratelimit-{what}-{quantity}") for what in ("limit", "remaining", "reset")
        )
        yield Quota(quantity, _count(limit), _count(remaining), _duration_s(reset))


def _anthropic(said: Mapping[str, str], wall_ns: int) -> Iterator[Quota]:
    for quantity in Quantity:
        limit, remaining, reset = (
            said.get(f"anthropic-ratelimit-{quantity}-{what}")
            for what in ("limit", "remaining", "reset")
        )
        yield Quota(quantity, _count(limit), _count(remaining), _until_s(reset, wall_ns))


def _draft(said: Mapping[str, str]) -> Iterator[Quota]:
    """Of several policies, the one with least left."""
    policies = {_name(item): _fields(item) for item in said.get("ratelimit-policy", "").split(",")}
    found: list[Quota] = []
    for item in said.get("ratelimit", "").split(","):
        policy = policies.get(_name(item), {})
        if "qu" not in policy or policy["qu"] == Quantity.REQUESTS:
            fields = policy | _fields(item)
            limit, remaining, reset = (fields.get(name) for name in ("q", "r", "t"))
            found.append(_windowed(limit, remaining, reset, fields.get("w")))
    old = _fields(said.get("ratelimit", "").replace(",", ";"))
    old_limit = said.get("ratelimit-limit", old.get("limit", ""))
    found.append(
        _windowed(
            re.split("[,;]", old_limit)[0],
            said.get("ratelimit-remaining", old.get("remaining")),
            said.get("ratelimit-reset", old.get("reset")),
            _fields(old_limit).get("w"),
        )
    )
    known = [quota for quota in found if quota.remaining is not None]
    if known:
        yield min(known, key=lambda quota: quota.remaining or 0)


def _windowed(limit: str | None, left: str | None, reset: str | None, period: str | None) -> Quota:
    return Quota(
        Quantity.REQUESTS,
        _count(limit),
        _count(left),
        _duration_s(reset),
        _duration_s(period) or None,
        at_once=True,
    )


def _name(item: str) -> str:
    return item.partition(";")[0].strip()


def _fields(item: str) -> dict[str, str]:
    return dict(_FIELD.findall(item))


def _count(text: str | None) -> int | None:
    text = (text or "").strip()
    return min(max(0, int(text)), _MOST) if _COUNT.fullmatch(text) else None


def _duration_s(text: str | None) -> float | None:
    """Of "6m0s", "20ms", "1.5" and the like."""
    text, total, end = (text or "").strip(), 0.0, 0
    for part in _PART.finditer(text):
        if part.start() != end:
            return None
        total += float(part[1]) * _UNITS.get(part[2], 1e-6)
        end = part.end()
    return min(total, LONGEST_S) if text and end == len(text) else None


def _until_s(text: str | None, wall_ns: int) -> float | None:
    """Of a moment as RFC 3339 has it."""
    try:
        at = datetime.fromisoformat((text or "").strip())
        moment_s = at.timestamp() if at.tzinfo is not None else None
    except (ValueError, OverflowError):
        return None
    if moment_s is None:
        return None
    return min(max(0.0, moment_s - wall_ns / _NS), LONGEST_S)
