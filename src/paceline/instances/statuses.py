"""What an HTTP status means, when it is not a success. Pure."""

import contextlib
from typing import Final

import msgspec

from paceline.errors import AgentError, Category, PacelineError
from paceline.redaction import Redactor

__all__ = ["MOST_SAID", "detail_of", "refused"]

MOST_SAID: Final = 16_384
"""Bytes of an answer that are read for what it says."""

_MOST_SHOWN: Final = 300
_SERVER: Final = 500
_CATEGORIES: Final = {
    400: Category.INVALID,
    401: Category.AUTHENTICATION,
    402: Category.EXHAUSTED,
    403: Category.POLICY,
    404: Category.NOT_FOUND,
    408: Category.TIMEOUT,
    410: Category.NOT_FOUND,
    425: Category.UNAVAILABLE,
    429: Category.RATE_LIMIT,
    501: Category.INVALID,
    504: Category.TIMEOUT,
    505: Category.INVALID,
    507: Category.EXHAUSTED,
}
_ADVICE: Final = {
    Category.AUTHENTICATION: "Check the environment variable that its token comes from.",
    Category.POLICY: "It does not allow this; ask whoever runs it.",
    Category.NOT_FOUND: "Check its address, and the name of the model.",
    Category.INVALID: "Correct the request.",
    Category.TOO_LONG: "Ask for less at once, or ask a model that reads more.",
    Category.RATE_LIMIT: "Try again later, or send it less (requests_per_minute).",
    Category.EXHAUSTED: "Look at the account with whoever runs it.",
    Category.TIMEOUT: "Allow more time, or ask for less.",
    Category.UNAVAILABLE: "Look at its own log.",
}


def refused(
    who: str,
    status: int,
    said: str,
    *,
    category: Category | None = None,
    retry_after_s: float | None = None,
) -> PacelineError:
    """The error for an answer that is no success.

    `said` is what the answer says of it, without secrets. From 500 on the work may have started:
    what stands between us and the server answers so too, when that is gone in the middle of it.
    """
    kind = category or _CATEGORIES.get(status)
    if kind is None:
        kind = Category.UNAVAILABLE if status >= _SERVER else Category.INVALID
    return AgentError(
        f"{who} answered {status}{f': {said}' if said else ''}",
        next_step=_ADVICE.get(kind),
        category=kind,
        may_have_started=status >= _SERVER,
        retry_after_s=retry_after_s,
    )


def detail_of(body: bytes, redactor: Redactor) -> str:
    """What an answer says in words, short and without secrets; nothing for a page meant for
    browsers."""
    text = body[:MOST_SAID].decode("utf-8", "replace").strip()
    if text.startswith("<"):
        return ""
    with contextlib.suppress(msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        text = _message(msgspec.json.decode(body)) or text  # else plain words, or cut off
    # Redacted before it is cut: half a secret is not known as one.
    words = " ".join(redactor.text(text).split())
    shown = "".join([char if char.isprintable() else " " for char in words])
    return shown if len(shown) <= _MOST_SHOWN else f"{shown[:_MOST_SHOWN]}..."


def _message(told: object) -> str:
    """Of `{"error": {"message": ...}}`, `{"detail": ...}` and the like."""
    if isinstance(told, str):
        return told
    if not isinstance(told, dict):
        return ""
    fields: dict[object, object] = told  # pyright: ignore[reportUnknownVariableType]
    for name in ("error", "detail", "message"):
        inner = fields.get(name)
        if inner:
            found = _message(inner)
            return found or msgspec.json.encode(inner).decode()
    return ""
