"""What a model answers, put together from the parts in which it comes. Pure."""

from typing import Final, cast, final

import msgspec

from paceline.call import Tokens
from paceline.instances.tool_calls import Piece, ToolCalls
from paceline.messages import TextPart, UsePart

__all__ = ["Completion"]

_MOST: Final = 10**12
_TEXTS: Final = ("content", "refusal", "reasoning_content", "reasoning")
"""Fields of a message that come in pieces; the last two are those of servers with open models."""


class _Message(msgspec.Struct):
    content: str | None = None
    refusal: str | None = None
    reasoning_content: str | None = None
    reasoning: str | None = None
    tool_calls: list[Piece] | None = None


class _Choice(msgspec.Struct):
    index: int = 0
    delta: _Message | None = None
    message: _Message | None = None
    finish_reason: str | None = None


class _InputDetails(msgspec.Struct):
    cached_tokens: int | None = None


class _OutputDetails(msgspec.Struct):
    reasoning_tokens: int | None = None


class _Usage(msgspec.Struct):
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    prompt_tokens_details: _InputDetails | None = None
    completion_tokens_details: _OutputDetails | None = None
    prompt_cache_hit_tokens: int | None = None


class _Part(msgspec.Struct):
    choices: list[_Choice] | None = None
    usage: _Usage | None = None
    error: msgspec.Raw = msgspec.Raw()


_NO_ERROR: Final = {b"", b"null"}
_decode = msgspec.json.Decoder(_Part).decode


@final
class Completion:
    """One answer of a model, of which parts are added until it is `finished`.

    `begun` once there is a token; `finish_reason` is what the server says it stopped for; `error`
    what it says went wrong in the middle of it, as JSON.
    """

    __slots__ = ("_calls", "_texts", "begun", "error", "finish_reason", "tokens")

    def __init__(self) -> None:
        self.begun = False
        self.finish_reason = ""
        self.tokens: Tokens | None = None
        self.error = b""
        self._texts: dict[str, list[str]] = {}
        self._calls = ToolCalls()

    def add(self, data: bytes) -> "list[TextPart | UsePart]":
        """Adds a chunk of a stream, or all of an answer that is none. Returns what it brought: more
        of the text, and each tool use whose arguments are complete now.

        Raises ValueError for what is not of this form.
        """
        try:
            part = _decode(data)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as exc:
            raise ValueError("not a part of a completion") from exc
        if bytes(part.error) not in _NO_ERROR:
            self.error = bytes(data)
        told: list[TextPart | UsePart] = []
        for choice in part.choices or ():
            if choice.index == 0:  # one is asked for
                told += self._add(choice)
        if part.usage is not None:
            self.tokens = _tokens(part.usage)
        return told

    def end(self) -> "list[TextPart | UsePart]":
        """No more is added. Returns what was not told yet: the tool uses that never closed, as they
        are, and of a refusal its text.

        Raises ValueError for a tool use that cannot be one.
        """
        told: list[TextPart | UsePart] = [UsePart(use) for use in self._calls.complete(ended=True)]
        if not self.text and self.refusal:
            told.insert(0, TextPart(self.refusal))
        return told

    @property
    def text(self) -> str | None:
        """What it says; None if it says nothing, not even an empty text."""
        return self._text("content")

    @property
    def refusal(self) -> str | None:
        """Why the model will not answer."""
        return self._text("refusal")

    @property
    def empty(self) -> bool:
        """Whether there is nothing in it that anybody could use."""
        return not (self.text or self.refusal or self._calls)

    def message(self) -> dict[str, object]:
        """It as the message that it is, with its `finish_reason`.

        Raises ValueError for a tool use that cannot be one.
        """
        told: dict[str, object] = {"role": "assistant", "content": self.text}
        told |= {name: self._text(name) for name in _TEXTS[1:] if name in self._texts}
        if self._calls:
            told["tool_calls"] = self._calls.message()
        told["finish_reason"] = self.finish_reason
        return told

    def _text(self, name: str) -> str | None:
        pieces = self._texts.get(name)
        return None if pieces is None else "".join(pieces)

    def _add(self, choice: _Choice) -> "list[TextPart | UsePart]":
        told: list[TextPart | UsePart] = []
        message = choice.delta or choice.message
        if message is not None:
            for name in _TEXTS:
                piece = cast("str | None", getattr(message, name))
                if piece is not None:
                    self._texts.setdefault(name, []).append(piece)
                    self.begun = self.begun or bool(piece)
            if message.content:
                told.append(TextPart(message.content))
            if message.tool_calls:
                told += self._called(message.tool_calls)
        if choice.finish_reason:
            self.finish_reason = choice.finish_reason
        return told

    def _called(self, pieces: list[Piece]) -> list[UsePart]:
        self.begun = True
        for place, piece in enumerate(pieces):
            self._calls.add(place, piece)
        return [UsePart(use) for use in self._calls.complete()]


def _tokens(usage: _Usage) -> Tokens:
    of_input, of_output = usage.prompt_tokens_details, usage.completion_tokens_details
    cached = of_input.cached_tokens if of_input else None
    reasoning = of_output.reasoning_tokens if of_output else None
    return Tokens(
        input=_count(usage.prompt_tokens),
        output=_count(usage.completion_tokens),
        cached_input=_count(cached or usage.prompt_cache_hit_tokens),
        reasoning=_count(reasoning),
    )


def _count(count: int | None) -> int:
    return min(max(0, count or 0), _MOST)
