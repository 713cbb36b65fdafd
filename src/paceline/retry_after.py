"""How long the other side asks us to wait: the HTTP header Retry-After (RFC 9110, section 10.2.3)."""

import re
from datetime import UTC
from typing import Final

__all__ = ["LONGEST_S", "retry_after_s"]

LONGEST_S: Final = 86_400.0
"""A day. Nobody who asks for more means it, or is worth waiting for."""

_NS: Final = 1_000_000_000
_SECONDS: Final = re.compile(r"[+-]?[0-9]+(\.[0-9]*)?", re.ASCII)
_LONGEST_TEXT: Final = 1_000


def retry_after_s(value: str | None, wall_ns: int) -> float | None:
    """Seconds to wait by the value of a Retry-After header, in 0..`LONGEST_S`; None if it says
    nothing that can be understood.

    `value` is a number of seconds (a part of one is understood too) or a date, which counts from
    `wall_ns`. What lies in the past is 0.
    """
    text = (value or "").strip()
    if not text or len(text) > _LONGEST_TEXT:
        return None
    if _SECONDS.fullmatch(text):
        seconds = float(text)
    else:
        moment_s = _date_s(text)
        if moment_s is None:
            return None
        seconds = moment_s - wall_ns / _NS
    return min(max(0.0, seconds), LONGEST_S)


def _date_s(text: str) -> float | None:
    """Seconds since 1970 of a date in one of the forms of RFC 9110, section 5.6.7."""
    from email.utils import parsedate_to_datetime  # noqa: PLC0415 (few answers have a date)

    try:
        at = parsedate_to_datetime(text)
        return at.replace(tzinfo=at.tzinfo or UTC).timestamp()
    except (ValueError, TypeError, IndexError, OverflowError):  # it is no parser for enemies
        return None
