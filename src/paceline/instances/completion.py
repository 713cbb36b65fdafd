"""What a model answers, put together from the parts in which it comes. Pure."""

from typing import Final, cast, final

import msgspec

from paceline.call import Tokens

__all__ = ["Completion"]

_MOST: Final = 10**12
_MOST_CALLS: Final = 1_000
_TEXTS: Final = ("content", "refusal", "reasoning_content", "reasoning")
"""Fields of a message that come in pieces; the last two are those of servers with open models."""


class _Function(msgspec.Struct):
    name: str | None = None
    arguments: str | None = None


class _ToolCall(msgspec.Struct):
    index: int | None = None
    id: str | None = None
    function: _Function | None = None


class _Message(msgspec.Struct):
    content: str | None = None
    refusal: str | None = None
    reasoning_content: str | None = None
    reasoning: str | None = None
    tool_calls: list[_ToolCall] | None = None


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
        self._calls: dict[int, _Call] = {}

    def add(self, data: bytes) -> None:
        """Adds a chunk of a stream, or all of an answer that is none.

        Raises ValueError for what is not of this form.
        """
        try:
            part = _decode(data)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as exc:
            raise ValueError("not a part of a completion") from exc
        if bytes(part.error) not in _NO_ERROR:
            self.error = bytes(data)
        for choice in part.choices or ():
            if choice.index == 0:  # one is asked for
                self._add(choice)
        if part.usage is not None:
            self.tokens = _tokens(part.usage)

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
        """It as the message that it is, with its `finish_reason`."""
        told: dict[str, object] = {"role": "assistant", "content": self.text}
        told |= {name: self._text(name) for name in _TEXTS[1:] if name in self._texts}
        if self._calls:
            told["tool_calls"] = [self._calls[index].told() for index in sorted(self._calls)]
        told["finish_reason"] = self.finish_reason
        return told

    def _text(self, name: str) -> str | None:
        pieces = self._texts.get(name)
        return None if pieces is None else "".join(pieces)

    def _add(self, choice: _Choice) -> None:
        message = choice.delta or choice.message
        if message is not None:
            for name in _TEXTS:
                piece = cast("str | None", getattr(message, name))
                if piece is not None:
                    self._texts.setdefault(name, []).append(piece)
                    self.begun = self.begun or bool(piece)
            for place, call in enumerate(message.tool_calls or ()):
                self._call(place if call.index is None else call.index, call)
        if choice.finish_reason:
            self.finish_reason = choice.finish_reason

    def _call(self, index: int, piece: _ToolCall) -> None:
        if len(self._calls) >= _MOST_CALLS and index not in self._calls:
            raise ValueError("more tool calls than make sense")
        self.begun = True
        call = self._calls.setdefault(index, _Call())
        call.id = piece.id or call.id
        if piece.function is not None:
            call.name = piece.function.name or call.name
            call.arguments.append(piece.function.arguments or "")


@final
class _Call:
    """One tool that the model wants called."""

    __slots__ = ("arguments", "id", "name")

    def __init__(self) -> None:
        self.id = ""
        self.name = ""
        self.arguments: list[str] = []

    def told(self) -> dict[str, object]:
        function = {"name": self.name, "arguments": "".join(self.arguments)}
        return {"id": self.id, "type": "function", "function": function}


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
