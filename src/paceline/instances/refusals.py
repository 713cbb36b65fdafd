"""How servers of models say no, beyond the HTTP status. Pure."""

import re
from typing import Final

import msgspec

from paceline.errors import Category

__all__ = ["category_of", "status_of"]

_BY_WORD: Final[tuple[tuple[re.Pattern[str], Category], ...]] = tuple(
    (re.compile(pattern, re.IGNORECASE), category)
    for pattern, category in (
        (
            r"insufficient_quota|billing|credit balance|exceeded your current quota",
            Category.EXHAUSTED,
        ),
        (r"context.?(length|window|size)|maximum context|prompt is too long", Category.INVALID),
        (r"request too large|string_above_max_length", Category.INVALID),
        (r"content_filter|content_policy|responsibleai", Category.POLICY),
        (r"invalid_api_key|incorrect api key", Category.AUTHENTICATION),
        (r"model_not_found|deploymentnotfound", Category.NOT_FOUND),
        (r"rate_limit", Category.RATE_LIMIT),
        (r"overloaded|server_error|unavailable", Category.UNAVAILABLE),
    )
)
_LOOKED_AT: Final = 16_384
_ERRORS: Final = range(400, 600)
_UNAVAILABLE: Final = 503


class _Error(msgspec.Struct):
    message: str = ""
    type: str | None = None
    code: str | int | None = None


class _Body(msgspec.Struct):
    error: _Error | str | None = None
    message: str = ""
    detail: str = ""


def category_of(status: int, body: bytes) -> Category | None:
    """What kind of trouble an error of a model's server is, where it says more than its status."""
    error = _read(body)
    if status in {401, 403, 404}:  # these say it all
        return None
    words = f"{error.code or ''} {error.type or ''} {error.message}"[:_LOOKED_AT]
    return next((category for word, category in _BY_WORD if word.search(words)), None)


def status_of(body: bytes) -> int:
    """The status that an error stands for which comes in the middle of an answer."""
    code = _read(body).code
    return code if isinstance(code, int) and code in _ERRORS else _UNAVAILABLE


def _read(body: bytes) -> _Error:
    try:
        told = msgspec.json.decode(body, type=_Body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return _Error()
    if isinstance(told.error, _Error):
        return told.error
    return _Error(told.error or told.message or told.detail)
