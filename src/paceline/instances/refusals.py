"""How servers of models say no, beyond the HTTP status. Pure."""

import re
from typing import Final

import msgspec

from paceline.errors import Category

__all__ = ["category_of", "status_of"]

# OpenAI, Azure, vLLM, SGLang, TGI, llama.cpp, Ollama, LM Studio, Mistral, Groq, xAI, and the gateways
# before Anthropic, Bedrock and Gemini.
_TOO_LONG: Final = (
    r"context.{0,9}(length|window|size)|exceed_context|n_ctx"
    r"|maximum (context|prompt length)|reduce the length|string_above_max_length"
    r"|(prompt|input)( \([^)]*\)| tokens?)? is (too long|longer than)"
    r"|longer than the (maximum )?model|inputs`?( tokens)? \+ `?max_new_tokens"
    r"|token count.{0,40}exceeds|exceeds the maximum number of tokens"
    r"|too_many_tokens|request.too.large"
)
_BY_WORD: Final[tuple[tuple[re.Pattern[str], Category], ...]] = tuple(
    (re.compile(pattern, re.IGNORECASE), category)
    for pattern, category in (
        (
            r"insufficient_quota|billing|credit balance|exceeded your current quota",
            Category.EXHAUSTED,
        ),
        (_TOO_LONG, Category.TOO_LONG),
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
_TOO_LARGE: Final = 413
_TOO_MANY: Final = 429


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
    found = next((category for word, category in _BY_WORD if word.search(words)), None)
    if found is Category.TOO_LONG and status == _TOO_MANY and "too large" not in words.lower():
        return None  # tokens of a minute
    return Category.TOO_LONG if found is None and status == _TOO_LARGE else found


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
