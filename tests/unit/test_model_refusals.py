"""What servers of models say when they are shown too much."""

import msgspec
import pytest

from paceline.errors import Category
from paceline.instances.refusals import category_of

TOO_LONG = [
    # OpenAI and Azure, by code and by words
    (400, {"code": "context_length_exceeded", "message": "Please be brief."}),
    (400, {"message": "This model's maximum context length is 8192 tokens."}),
    (400, {"message": "Your input exceeds the context window of this model."}),
    (400, {"code": "string_above_max_length", "message": "Invalid 'messages[0].content'"}),
    # vLLM, old and new
    (400, {"message": "You passed 9 input tokens; the model's context length is only 8 tokens."}),
    (400, {"message": "The decoder prompt (length 9) is longer than the maximum model length 8."}),
    (400, {"message": "'max_tokens' is too large: 9. This model's maximum context length is 8"}),
    # SGLang, TGI
    (400, {"message": "The input (9 tokens) is longer than the model's context length (8)."}),
    (422, {"message": "`inputs` tokens + `max_new_tokens` must be <= 8. Given: 9"}),
    # llama.cpp: by type, with the status that it has had at different times
    (400, {"code": 400, "type": "exceed_context_size_error", "message": "try less"}),
    (500, {"code": 500, "message": "the request exceeds the available context size"}),
    # Ollama, LM Studio
    (400, {"message": "the input length exceeds the context length"}),
    (400, {"message": "tokens to keep is greater than the context length (n_ctx 8)"}),
    # Mistral, Groq, xAI, OpenRouter
    (400, {"message": "Prompt contains 9 tokens, too large for model with 8 maximum context length"}),
    (400, {"message": "Please reduce the length of the messages or completion."}),
    (400, {"message": "This model's maximum prompt length is 8 but the request contains 9 tokens."}),
    # Gateways before Anthropic, Bedrock, Gemini
    (400, {"message": "prompt is too long: 9 tokens > 8 maximum"}),
    (413, {"type": "request_too_large", "message": "Request exceeds the maximum size"}),
    (400, {"message": "Input is too long for requested model."}),
    (400, {"message": "The input token count (9) exceeds the maximum number of tokens allowed (8)."}),
    # What takes more tokens than there are in a minute never fits
    (429, {"code": "rate_limit_exceeded", "message": "Request too large for m on tokens per min"}),
]  # fmt: skip


@pytest.mark.parametrize(("status", "error"), TOO_LONG)
def test_what_is_too_long_is_known(status: int, error: dict[str, object]) -> None:
    """However a server says that it was shown too much, that is what the error is of (S2-33, V-31)."""
    assert category_of(status, msgspec.json.encode({"error": error})) is Category.TOO_LONG


@pytest.mark.parametrize("body", [b"", b"<html>413 Request Entity Too Large</html>", b"{}"])
def test_a_proxy_before_it_says_so_by_status(body: bytes) -> None:
    """A proxy that takes no body of this size has no words for it, but a status (S2-33)."""
    assert category_of(413, body) is Category.TOO_LONG


@pytest.mark.parametrize(
    ("status", "message", "category"),
    [
        (429, "Rate limit reached on tokens per min. Limit: 8, used: 7, requested: 2", None),
        (429, "This request exceeds the maximum number of tokens per minute", None),
        (400, "Invalid schema for function 'look'", None),
        (413, "You exceeded your current quota", Category.EXHAUSTED),
        (503, "the server is overloaded", Category.UNAVAILABLE),
    ],
)
def test_what_is_not_too_long_is_not_taken_for_it(
    status: int, message: str, category: Category | None
) -> None:
    """A rate of tokens, a wrong request and used-up money are no matter of length (S2-33, S2-54)."""
    body = msgspec.json.encode({"error": {"message": message}})
    assert category_of(status, body) is category
